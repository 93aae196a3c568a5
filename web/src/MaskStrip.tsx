/**
 * A mask as a picture: a row per layer, in it a bar per bin of channels, as high as the share of them that is kept, coloured by how few other prompts
 * keep those. A bin is a channel, or a block where the mask is made of blocks, and holds several of them where there is no room for all.
 *
 * Shapes: L layers · F channels of a layer (d_ffn)
 */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Bin, type Bits, binSize, binsOf, blockOf, keptBlocks, mean, type PerChannel } from "./channels.ts";
import { count, percent } from "./format.ts";

export interface StripProps {
  layers: Bits;
  dFfn: number;
  /** Share of the masks compared with that keep each channel; absent: nothing to compare with. [L, F] */
  common: PerChannel | undefined;
  /** Words for channels that keep `share` in common, in the mean. */
  describe: (share: number) => string;
  label: string;
}

/** Steps of the colour scale: a fill style each, so that a strip needs no parsing of colours per bar. */
const steps = 8;
/** Pixels that a bar has at least, the space after it included; and bars that a row has at most, lest they be too many to look at. */
const leastBar = 4;
const mostBars = 128;

/** Rows from top to top, and the space between them, in pixels. */
function rowGeometry(L: number): { pitch: number; gap: number } {
  const pitch = Math.max(5, Math.min(19, Math.floor(300 / L)));
  return { pitch, gap: pitch > 12 ? 3 : pitch > 6 ? 2 : 1 };
}

function draw(canvas: HTMLCanvasElement, rows: readonly Bin[][], F: number): void {
  const ratio = devicePixelRatio;
  const { pitch, gap } = rowGeometry(rows.length);
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round((pitch - gap) * ratio);
  canvas.width = width;
  canvas.height = Math.round((rows.length * pitch - gap) * ratio);
  const context = canvas.getContext("2d")!;
  const style = getComputedStyle(canvas);
  const [track, low, high] = ["--strip-track", "--strip-low", "--strip-high"].map((name) =>
    style.getPropertyValue(name),
  );
  const shades = Array.from(
    { length: steps + 1 },
    (_, i) => `color-mix(in oklab, ${high} ${(i / steps) * 100}%, ${low})`,
  );
  for (const [layer, bins] of rows.entries()) {
    const top = Math.round(layer * pitch * ratio);
    context.fillStyle = track!;
    context.fillRect(0, top, width, height);
    const room = Math.max(1, Math.round(ratio / 2)); // between bars
    for (const { from, end, kept, common } of bins) {
      if (kept === 0) continue;
      const [left, right] = [Math.round((from * width) / F), Math.round((end * width) / F)];
      const bar = Math.max(1, Math.round((height * kept) / (end - from)));
      context.fillStyle = shades[Math.round((Number.isNaN(common) ? 0.5 : 1 - common) * steps)]!;
      context.fillRect(left, top + height - bar, Math.max(1, right - left - room), bar);
    }
  }
}

/** Numbers of one layer in words, and of one of its bins. */
function layerText({ layers, dFfn, common, describe }: StripProps, block: number, layer: number, bin?: Bin): string {
  const kept = keptBlocks(layers[layer]!, block);
  const units = block === 1 ? "channels" : `blocks of ${block} channels`;
  const parts = [`Layer ${layer}: ${count(kept.length)} of ${count(dFfn / block)} ${units}`];
  const row = common?.[layer];
  const share = (i: number) => mean([...row!.subarray(i * block, (i + 1) * block)]);
  if (row) parts.push(`${percent(1 - mean(kept.map(share)))} specific`);
  if (bin) parts.push(binText(bin, block, describe));
  else if (row) {
    const [first, ...others] = kept.toSorted((a, b) => share(a) - share(b)).slice(0, 3);
    parts.push(`most specific ${[first, ...others].join(", ")} (${describe(share(first!))})`);
  }
  return parts.join(" · ");
}

function binText({ from, end, kept, common }: Bin, block: number, describe: (share: number) => string): string {
  const [first, last] = [from / block, Math.ceil(end / block) - 1];
  const unit = block === 1 ? "channel" : "block";
  const how = kept > 0 && !Number.isNaN(common) ? describe(common) : "";
  if (first === last) return `${unit} ${first}: ${kept === 0 ? "not kept" : how || "kept"}`;
  const many = `${unit}s ${first}–${last}: ${count(kept / block)} of ${last - first + 1} kept`;
  return how ? `${many}, ${how}` : many;
}

/** About every 15 pixels a layer has its number. */
function labelledLayers(L: number, pitch: number): number[] {
  const step = [1, 2, 5, 10, 20, 50].find((layers) => layers * pitch >= 15) ?? 100;
  return Array.from({ length: Math.ceil(L / step) }, (_, i) => i * step);
}

export function MaskStrip(props: StripProps) {
  const { layers, dFfn: F, common, label } = props;
  const L = layers.length;
  const { pitch, gap } = rowGeometry(L);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [at, setAt] = useState<{ layer: number; bin?: number }>();

  const block = useMemo(() => blockOf(layers, F), [layers, F]);
  const size = binSize(F, block, Math.max(1, Math.min(mostBars, Math.floor(width / leastBar))));
  const rows = useMemo(
    () => layers.map((bits, layer) => binsOf(bits, F, size, common?.[layer])),
    [layers, F, size, common],
  );
  const N = rows[0]!.length;

  useEffect(() => {
    const sizes = new ResizeObserver(() => setWidth(canvas.current!.clientWidth)); // calls once at the start
    sizes.observe(canvas.current!);
    return () => sizes.disconnect();
  }, []);
  useEffect(() => {
    const redraw = () => draw(canvas.current!, rows, F);
    redraw();
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const theme = new MutationObserver(redraw);
    scheme.addEventListener("change", redraw);
    theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => {
      scheme.removeEventListener("change", redraw);
      theme.disconnect();
    };
  }, [rows, F, width]);

  const clamp = (value: number, limit: number) => Math.max(0, Math.min(limit - 1, Math.floor(value)));
  const point = ({ clientX, clientY }: PointerEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    const bin = clamp((((clientX - box.left) / box.width) * F) / size, N);
    setAt({ layer: clamp((clientY - box.top) / pitch, L), bin });
  };
  const walk = (event: KeyboardEvent) => {
    const { layer = 0, bin } = at ?? {};
    const next = {
      ArrowDown: { layer: layer + 1, bin },
      ArrowUp: { layer: layer - 1, bin },
      ArrowRight: { layer, bin: (bin ?? -1) + 1 },
      ArrowLeft: { layer, bin: (bin ?? N) - 1 },
      Home: { layer, bin: 0 },
      End: { layer, bin: N - 1 },
    }[event.key];
    if (!next) return;
    event.preventDefault();
    setAt({ layer: clamp(next.layer, L), ...(next.bin !== undefined && { bin: clamp(next.bin, N) }) });
  };
  const shown = at && at.layer < L ? at : undefined;
  const bin = shown?.bin === undefined ? undefined : rows[shown.layer]![Math.min(shown.bin, N - 1)]!;
  const text = shown && layerText(props, block, shown.layer, bin);
  const unit = block === 1 ? "" : ` in blocks of ${block}`;
  const perBar =
    size === block ? "" : ` A bar is ${block === 1 ? size : `${size / block} blocks`}, as high as many are kept.`;
  return (
    <div class="strip">
      <div class="strip-picture">
        <div class="strip-layers" aria-hidden="true">
          {labelledLayers(L, pitch).map((layer) => (
            <span key={layer} style={{ top: `${layer * pitch + (pitch - gap) / 2}px` }}>
              {layer}
            </span>
          ))}
        </div>
        <div
          class="strip-rows"
          role="slider"
          tabIndex={0}
          aria-label={label}
          aria-orientation="vertical"
          aria-valuemin={0}
          aria-valuemax={L * N - 1}
          aria-valuenow={(shown?.layer ?? 0) * N + (shown?.bin ?? 0)}
          aria-valuetext={text ?? layerText(props, block, 0)}
          onPointerMove={point}
          onPointerDown={point}
          // A finger that is lifted leaves too: what it pointed at stays.
          onPointerLeave={(event) => event.pointerType === "mouse" && setAt(undefined)}
          onFocus={() => setAt((now) => now ?? { layer: 0 })}
          onBlur={() => setAt(undefined)}
          onKeyDown={walk}
        >
          <canvas ref={canvas} style={{ height: `${L * pitch - gap}px` }} />
          {shown && (
            <span class="strip-row" style={{ top: `${shown.layer * pitch}px`, height: `${pitch - gap}px` }}>
              {bin && (
                <span style={{ left: `${(bin.from / F) * 100}%`, width: `${((bin.end - bin.from) / F) * 100}%` }} />
              )}
            </span>
          )}
        </div>
      </div>
      <p class="strip-text" aria-hidden="true">
        {text ?? `${L} layers of ${count(F)} channels${unit}.${perBar} Point at a bar for its numbers.`}
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
