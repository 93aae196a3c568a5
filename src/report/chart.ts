/** Line charts as SVG text: no library, no script; colours come from the page, so that they follow its light or dark scheme. */

export type Point = readonly [x: number, y: number];

export interface Series {
  name: string;
  /** By ascending x, an integer (a step, a layer). Points that are not finite are left out. */
  points: readonly Point[];
  /** A level to compare with rather than a measurement. */
  dashed?: boolean;
}

export interface Chart {
  title: string;
  xLabel: string;
  series: readonly Series[];
  /** Named vertical lines, such as the start of a stage. */
  marks?: readonly { x: number; name: string }[];
  /** Include 0 on the y axis. */
  fromZero?: boolean;
  /** Pixels, where it is not drawn larger or smaller: letters keep their size. Default: 560. */
  width?: number;
}

const HEIGHT = 260;
const EDGE = { left: 52, right: 20, top: 18, bottom: 34 };
/** More points than this are drawn as the mean and the range of as many bins. */
const MOST_POINTS = 240;

/** A figure with a legend that gives each series' last value; nothing if there is no point to draw. */
export function lineChart({ title, xLabel, series, marks = [], fromZero = false, width = 560 }: Chart): string {
  const drawn = series
    .map((s) => ({ ...s, points: s.points.filter((point) => point.every(Number.isFinite)) }))
    .filter(({ points }) => points.length > 0)
    .map((s) => ({ ...s, bins: bin(s.points) }));
  if (drawn.length === 0) return "";
  const bins = drawn.flatMap((s) => s.bins);
  const x = scale(range(drawn.flatMap((s) => s.points.map((point) => point[0]))), [EDGE.left, width - EDGE.right]);
  const y = scale(padded(range([...bins.flatMap((b) => [b.low, b.high]), ...(fromZero ? [0] : [])]), fromZero), [
    HEIGHT - EDGE.bottom,
    EDGE.top,
  ]);

  const yTicks = ticks(y.domain, 5);
  const yLabels = tickLabels(yTicks);
  const grid = yTicks.map(
    (value, i) =>
      `<line class="grid" x1="${EDGE.left}" x2="${width - EDGE.right}" y1="${y(value)}" y2="${y(value)}"/>` +
      `<text class="tick" text-anchor="end" x="${EDGE.left - 6}" y="${y(value)}" dy="0.32em">${yLabels[i]}</text>`,
  );
  const xSteps = ticks(x.domain, 6).filter(Number.isInteger);
  const xLabels = tickLabels(xSteps);
  const xTicks = xSteps.map(
    (value, i) =>
      `<text class="tick" text-anchor="middle" x="${x(value)}" y="${HEIGHT - EDGE.bottom + 15}">${xLabels[i]}</text>`,
  );
  const verticals = marks
    .filter((mark) => mark.x >= x.domain[0] && mark.x <= x.domain[1])
    .map(
      (mark) =>
        `<line class="mark" x1="${x(mark.x)}" x2="${x(mark.x)}" y1="${EDGE.top}" y2="${HEIGHT - EDGE.bottom}"/>` +
        `<text class="tick" x="${x(mark.x) + 3}" y="${EDGE.top - 6}">${escapeHtml(mark.name)}</text>`,
    );
  const lines = drawn.map(({ name, bins: ownBins, points, dashed }, i) => {
    const path = (at: (b: Bin) => number, list = ownBins) => list.map((b) => `${x(b.x)},${y(at(b))}`).join("L");
    const isBinned = points.length > ownBins.length;
    const band = isBinned
      ? `<path class="band" d="M${path((b) => b.high)}L${path((b) => b.low, ownBins.toReversed())}Z"/>`
      : "";
    const dots =
      isBinned || dashed || points.length > 40
        ? ""
        : points
            .map(
              ([px, py]) =>
                `<circle cx="${x(px)}" cy="${y(py)}" r="2.5"><title>${escapeHtml(name)}: ${short(py)} at ${short(px)}</title></circle>`,
            )
            .join("");
    return `<g class="c${i % 8}"><path class="line${dashed ? " dashed" : ""}" d="M${path((b) => b.mean)}"/>${band}${dots}</g>`;
  });
  const legend = drawn.map(
    ({ name, bins: ownBins }, i) =>
      `<span class="key c${i % 8}">${escapeHtml(name)} <b>${short(ownBins.at(-1)!.mean)}</b></span>`,
  );
  return `<figure><figcaption><h3>${escapeHtml(title)}</h3><div class="legend">${legend.join("")}</div></figcaption>
<svg viewBox="0 0 ${width} ${HEIGHT}" role="img" aria-label="${escapeHtml(title)}">${[...grid, ...xTicks, ...verticals, ...lines].join("")}
<text class="tick" text-anchor="end" x="${width - EDGE.right}" y="${HEIGHT - 4}">${escapeHtml(xLabel)}</text></svg></figure>`;
}

interface Bin {
  x: number;
  mean: number;
  low: number;
  high: number;
}

/** Consecutive points put together, so that a long run is as quick to draw as a short one and noise shows as a band. */
function bin(points: readonly Point[]): Bin[] {
  const perBin = Math.ceil(points.length / MOST_POINTS);
  return Array.from({ length: Math.ceil(points.length / perBin) }, (_, i) => {
    const part = points.slice(i * perBin, (i + 1) * perBin);
    const mean = (axis: 0 | 1) => part.reduce((sum, point) => sum + point[axis], 0) / part.length;
    const [low, high] = range(part.map(([, y]) => y));
    return { x: mean(0), mean: mean(1), low, high };
  });
}

type Range = readonly [low: number, high: number];

function range(values: readonly number[]): Range {
  return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
}

/** Room above and below, and never empty. */
function padded([low, high]: Range, fromZero: boolean): Range {
  const room = (high - low) * 0.04 || Math.abs(high) * 0.1 || 1;
  return [fromZero && low === 0 ? 0 : low - room, high + room];
}

/** A linear map onto pixels, to a tenth of one. */
function scale(domain: Range, [from, to]: Range): ((value: number) => number) & { domain: Range } {
  const span = domain[1] - domain[0] || 1;
  const map = (value: number) => Math.round((from + ((value - domain[0]) / span) * (to - from)) * 10) / 10;
  return Object.assign(map, { domain });
}

/** Multiples of 1, 2 or 5 times a power of ten, about `count` of them. */
export function ticks([low, high]: Range, count: number): number[] {
  if (low === high) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
}

/** As short as tells them apart. */
export function tickLabels(values: readonly number[]): string[] {
  for (let digits = 3; ; digits++) {
    const labels = values.map((value) => short(value, digits));
    if (digits > 12 || new Set(labels).size === values.length) return labels;
  }
}

/** Three significant digits, thousands as k and millions as M. */
export function short(value: number, digits = 3): string {
  const [divisor, unit] = Math.abs(value) >= 1e6 ? [1e6, "M"] : Math.abs(value) >= 1e4 ? [1e3, "k"] : [1, ""];
  const scaled = value / divisor;
  return `${Math.abs(scaled) >= 10 ** digits ? Math.round(scaled) : Number(scaled.toPrecision(digits))}${unit}`;
}

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
