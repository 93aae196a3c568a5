/**
 * A mask as a picture: a row per layer, a mark per kept channel, or block of channels where the mask is made of blocks, coloured by how few other
 * prompts keep it.
 *
 * Shapes: L layers · F channels of a layer (d_ffn)
 */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Bits, blockOf, isKept, keptBlocks, mean, type PerChannel } from "./channels.ts";
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

/** With the channels of a mark: 1, or as many as the mask's blocks have. Numbers of marks are numbers of blocks then. */
type Marks = StripProps & { block: number };

/** Steps of the colour scale: a fill style each, so that a strip needs no parsing of colours per mark. */
const steps = 8;

function rowGeometry(L: number): { height: number; gap: number } {
  const height = Math.max(3, Math.min(16, Math.floor(140 / L)));
  return { height, gap: height > 6 ? 3 : 1 };
}

function draw(canvas: HTMLCanvasElement, { layers, dFfn: F, common, block }: Marks): void {
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
    const marks = F / block;
    if (marks <= width) {
      // A mark is a pixel or more: it ends a pixel before the next one where there is room.
      const room = Math.floor(width / marks) >= 3 ? 1 : 0;
      for (const i of keptBlocks(bits, block)) {
        const left = Math.round((i * width) / marks);
        context.fillStyle = common
          ? shades[Math.round((1 - meanOf(common[layer]!, i, block)) * steps)]!
          : shades[steps / 2]!;
        context.fillRect(left, top, Math.max(1, Math.round(((i + 1) * width) / marks) - left - room), rowHeight);
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

/** Of the channels of a mark. */
const meanOf = (row: Float32Array, mark: number, block: number): number =>
  mean([...row.subarray(mark * block, (mark + 1) * block)]);

/** Numbers of one layer in words. */
function layerText({ layers, dFfn, common, describe, block }: Marks, layer: number, at?: number): string {
  const bits = layers[layer]!;
  const kept = keptBlocks(bits, block);
  const [unit, units] = block === 1 ? ["channel", "channels"] : ["block", `blocks of ${block} channels`];
  const parts = [`Layer ${layer}: ${count(kept.length)} of ${count(dFfn / block)} ${units}`];
  const isMarked = at !== undefined && isKept(bits, at * block);
  if (common) {
    const share = (i: number) => meanOf(common[layer]!, i, block);
    parts.push(`${percent(1 - mean(kept.map(share)))} specific`);
    const [first, ...others] = kept.toSorted((a, b) => share(a) - share(b)).slice(0, 3);
    if (at === undefined) parts.push(`most specific ${[first, ...others].join(", ")} (${describe(share(first!))})`);
    else parts.push(`${unit} ${at}: ${isMarked ? describe(share(at)) : "not kept"}`);
  } else if (at !== undefined) parts.push(`${unit} ${at}: ${isMarked ? "" : "not "}kept`);
  return parts.join(" · ");
}

export function MaskStrip(props: StripProps) {
  const { layers, dFfn: F, label } = props;
  const L = layers.length;
  const block = useMemo(() => blockOf(layers, F), [layers, F]);
  const marks: Marks = { ...props, block };
  const canvas = useRef<HTMLCanvasElement>(null);
  const [at, setAt] = useState<{ layer: number; mark?: number }>();
  const { height, gap } = rowGeometry(L);

  useEffect(() => {
    const element = canvas.current!;
    const redraw = () => draw(element, marks);
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
    const numMarks = F / block;
    const mark = clamp(((event.clientX - box.left) / box.width) * numMarks, numMarks);
    const layer = clamp((event.clientY - box.top) / (height + gap), L);
    // The nearest mark within a few pixels: it may be narrower than a pointer is exact.
    const reach = Math.ceil((4 * numMarks) / box.width);
    const near = keptBlocks(layers[layer]!, block).filter((i) => Math.abs(i - mark) <= reach);
    near.sort((a, b) => Math.abs(a - mark) - Math.abs(b - mark));
    setAt({ layer, mark: near[0] ?? mark });
  };
  const walk = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    setAt({ layer: Math.max(0, Math.min(L - 1, (at?.layer ?? 0) + step)) });
  };
  const text = at && at.layer < L ? layerText(marks, at.layer, at.mark) : undefined;
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
        aria-valuetext={text ?? layerText(marks, 0)}
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
        {text ??
          `${L} layers of ${count(F)} channels${block === 1 ? "" : ` in blocks of ${block}`}. Point at a mark for its numbers.`}
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
