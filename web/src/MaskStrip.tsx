/**
 * A mask as a picture: a row per layer, a mark per kept channel, coloured by how few other prompts keep it.
 *
 * Shapes: L layers · F channels of a layer (d_ffn)
 */
import { useEffect, useRef, useState } from "preact/hooks";
import { type Bits, isKept, keptChannels, mean, type PerChannel } from "./channels.ts";
import { count, percent } from "./format.ts";

export interface StripProps {
  layers: Bits;
  dFfn: number;
  /** Share of the masks compared with that keep each channel; absent: nothing to compare with. [L, F] */
  common: PerChannel | undefined;
  /** Words for a channel that keeps `share` in common. */
  describe: (share: number) => string;
  label: string;
}

/** Steps of the colour scale: a fill style each, so that a strip needs no parsing of colours per mark. */
const steps = 8;

function rowGeometry(L: number): { height: number; gap: number } {
  const height = Math.max(3, Math.min(16, Math.floor(140 / L)));
  return { height, gap: height > 6 ? 3 : 1 };
}

function draw(canvas: HTMLCanvasElement, { layers, dFfn: F, common }: StripProps): void {
  const ratio = devicePixelRatio;
  const { height, gap } = rowGeometry(layers.length);
  const width = Math.round(canvas.clientWidth * ratio);
  canvas.width = width;
  canvas.height = Math.round((layers.length * (height + gap) - gap) * ratio);
  const context = canvas.getContext("2d")!;
  const style = getComputedStyle(canvas);
  const [track, low, high] = ["--strip-track", "--strip-low", "--strip-high"].map((name) =>
    style.getPropertyValue(name),
  );
  const shades = Array.from(
    { length: steps + 1 },
    (_, i) => `color-mix(in oklab, ${high} ${(i / steps) * 100}%, ${low})`,
  );
  const rowHeight = Math.round(height * ratio);
  for (const [layer, bits] of layers.entries()) {
    const top = Math.round(layer * (height + gap) * ratio);
    context.globalAlpha = 1;
    context.fillStyle = track!;
    context.fillRect(0, top, width, rowHeight);
    if (F <= width) {
      // A channel is a pixel or more: its mark ends a pixel before the next one's where there is room.
      const room = Math.floor(width / F) >= 3 ? 1 : 0;
      for (const c of keptChannels(bits)) {
        const left = Math.round((c * width) / F);
        context.fillStyle = common ? shades[Math.round((1 - common[layer]![c]!) * steps)]! : shades[steps / 2]!;
        context.fillRect(left, top, Math.max(1, Math.round(((c + 1) * width) / F) - left - room), rowHeight);
      }
      continue;
    }
    for (let x = 0; x < width; x++) {
      // Several channels share a pixel: as opaque as the share that is kept, in the colour of their mean.
      const [from, to] = [Math.floor((x * F) / width), Math.floor(((x + 1) * F) / width)];
      let kept = 0;
      let specific = 0;
      for (let c = from; c < to; c++) {
        if (!isKept(bits, c)) continue;
        kept++;
        specific += common ? 1 - common[layer]![c]! : 0.5;
      }
      if (kept === 0) continue;
      context.globalAlpha = 0.25 + (0.75 * kept) / (to - from);
      context.fillStyle = shades[Math.round((specific / kept) * steps)]!;
      context.fillRect(x, top, 1, rowHeight);
    }
  }
}

/** Numbers of one layer in words. */
function layerText({ layers, dFfn, common, describe }: StripProps, layer: number, channel?: number): string {
  const kept = keptChannels(layers[layer]!);
  const parts = [`Layer ${layer}: ${count(kept.length)} of ${count(dFfn)} channels`];
  if (common) {
    const row = common[layer]!;
    parts.push(`${percent(1 - mean(kept.map((c) => row[c]!)))} specific`);
    const [first, ...others] = kept.toSorted((a, b) => row[a]! - row[b]!).slice(0, 3);
    if (channel === undefined) parts.push(`most specific ${[first, ...others].join(", ")} (${describe(row[first!]!)})`);
    else parts.push(`channel ${channel}: ${isKept(layers[layer]!, channel) ? describe(row[channel]!) : "not kept"}`);
  } else if (channel !== undefined)
    parts.push(`channel ${channel}: ${isKept(layers[layer]!, channel) ? "" : "not "}kept`);
  return parts.join(" · ");
}

export function MaskStrip(props: StripProps) {
  const { layers, dFfn: F, label } = props;
  const L = layers.length;
  const canvas = useRef<HTMLCanvasElement>(null);
  const [at, setAt] = useState<{ layer: number; channel?: number }>();
  const { height, gap } = rowGeometry(L);

  useEffect(() => {
    const element = canvas.current!;
    const redraw = () => draw(element, props);
    const sizes = new ResizeObserver(redraw); // calls once at the start
    sizes.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const theme = new MutationObserver(redraw);
    scheme.addEventListener("change", redraw);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => {
      sizes.disconnect();
      scheme.removeEventListener("change", redraw);
      theme.disconnect();
    };
  });

  const point = (event: PointerEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    const clamp = (value: number, limit: number) => Math.max(0, Math.min(limit - 1, Math.floor(value)));
    const channel = clamp(((event.clientX - box.left) / box.width) * F, F);
    const layer = clamp((event.clientY - box.top) / (height + gap), L);
    // The nearest kept channel within a few pixels: a mark may be narrower than a pointer is exact.
    const reach = Math.ceil((4 * F) / box.width);
    const near = keptChannels(layers[layer]!).filter((c) => Math.abs(c - channel) <= reach);
    near.sort((a, b) => Math.abs(a - channel) - Math.abs(b - channel));
    setAt({ layer, channel: near[0] ?? channel });
  };
  const walk = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    setAt({ layer: Math.max(0, Math.min(L - 1, (at?.layer ?? 0) + step)) });
  };
  const text = at && at.layer < L ? layerText(props, at.layer, at.channel) : undefined;
  return (
    <div class="strip">
      <div
        class="strip-rows"
        role="slider"
        tabIndex={0}
        aria-label={label}
        aria-orientation="vertical"
        aria-valuemin={0}
        aria-valuemax={L - 1}
        aria-valuenow={at?.layer ?? 0}
        aria-valuetext={text ?? layerText(props, 0)}
        onPointerMove={point}
        onPointerDown={point}
        onPointerLeave={() => setAt(undefined)}
        onFocus={() => setAt((now) => now ?? { layer: 0 })}
        onBlur={() => setAt(undefined)}
        onKeyDown={walk}
      >
        <canvas ref={canvas} style={{ height: `${L * (height + gap) - gap}px` }} />
        {at && <span class="strip-row" style={{ top: `${at.layer * (height + gap)}px`, height: `${height}px` }} />}
      </div>
      <p class="strip-text" aria-hidden="true">
        {text ?? `${L} layers of ${count(F)} channels. Point at a mark for its numbers.`}
      </p>
    </div>
  );
}

export function StripLegend({ low, high }: { low: string; high: string }) {
  return (
    <p class="legend" aria-hidden="true">
      {low}
      <span class="legend-scale" />
      {high}
    </p>
  );
}
