/**
 * Figures of experiments, each one SVG file that stands alone: no script, no outside resource, light or dark as the reader's system asks.
 * They are drawn to be read at their own width, 800 pixels.
 */
import { escapeHtml, short, ticks } from "./chart.ts";
import {
  commonSeeds,
  type Estimate,
  type Experiments,
  type Figure,
  NOT_RUN,
  percent,
  type Results,
  type Source,
  scoreOf,
} from "./experiments.ts";
import { palette } from "./style.ts";

export const WIDTH = 800;
export const MARGIN = 20;
const TITLE_HEIGHT = 34;

/** @throws {OptionError} if a result does not hold what a figure is made from */
export function drawFigure(figure: Figure, { facts }: Pick<Experiments, "facts">, results: Results): string {
  switch (figure.kind) {
    case "overlap":
      return overlapFigure(figure, results);
    case "lines":
      return linesFigure(
        figure,
        figure.points.map((point) => ({ ...point, score: scoreOf(results, facts, point) })),
      );
    case "bars": {
      const seeds = commonSeeds(results, [figure.headline, ...figure.bars]); // else a lucky seed would pass for a change
      const scored = <T extends Source>(bar: T) => ({ ...bar, score: scoreOf(results, facts, bar, seeds) });
      return barsFigure(figure, scored(figure.headline), figure.bars.map(scored), seeds);
    }
    default:
      return figure satisfies never;
  }
}

type OfKind<Kind> = Extract<Figure, { kind: Kind }>;
type Scored<T> = T & { score: Estimate | undefined };

// Text

const SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

interface TextOptions {
  /** Class of the style sheet. */
  as?: "title" | "soft" | "small" | "tiny" | "strong";
  anchor?: "start" | "middle" | "end";
  /** Degrees about its point. */
  turn?: number;
}

export function text(x: number, y: number, content: string, { as, anchor = "start", turn }: TextOptions = {}): string {
  const attributes = [
    as ? ` class="${as}"` : "",
    anchor === "start" ? "" : ` text-anchor="${anchor}"`,
    turn === undefined ? "" : ` transform="rotate(${turn} ${round(x)} ${round(y)})"`,
  ].join("");
  return `<text x="${round(x)}" y="${round(y)}" dy="0.35em"${attributes}>${escapeHtml(content)}</text>`;
}

/** About how wide a text is: fonts are the reader's, so rather too wide. */
export const textWidth = (content: string, size: number): number => content.length * size * 0.56;

/** Words on as few lines as fit, a long word on its own. */
export function wrap(content: string, width: number, size: number): string[] {
  const lines: string[] = [];
  for (const word of content.split(/\s+/)) {
    const longer = `${lines.at(-1) ?? ""} ${word}`;
    if (lines.length > 0 && textWidth(longer, size) <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

export const round = (value: number): number => Math.round(value * 10) / 10;

export function line(x1: number, y1: number, x2: number, y2: number, name: string): string {
  return `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" class="${name}"/>`;
}

// The document

/** Steps of a heat map's colours. */
const HEAT_STEPS = 32;
/** From a share of 0 to 1, by even steps. */
const heatStops = {
  light: ["#f4f7fb", "#b9d3ee", "#5f9bd8", "#2460ab", "#0c2a55"],
  dark: ["#161b23", "#17395f", "#2a6bb0", "#74b0ea", "#eaf4ff"],
} as const;

function heatColour(stops: readonly string[], share: number): string {
  const place = share * (stops.length - 1);
  const below = Math.min(Math.floor(place), stops.length - 2);
  const channels = [1, 3, 5].map((at) => {
    const [from, to] = [stops[below]!, stops[below + 1]!].map((stop) => Number.parseInt(stop.slice(at, at + 2), 16));
    return Math.round(from! + (to! - from!) * (place - below));
  });
  return `#${channels.map((channel) => channel.toString(16).padStart(2, "0")).join("")}`;
}

/** Rules with plain colours, no variables: converters that know no media queries still draw the light scheme. */
function colourRules(scheme: "light" | "dark", hasHeat: boolean): string {
  const { ink, soft, rule, series } = palette[scheme];
  const heat = Array.from(
    { length: hasHeat ? HEAT_STEPS : 0 },
    (_, step) => `.h${step}{fill:${heatColour(heatStops[scheme], step / (HEAT_STEPS - 1))}}`,
  );
  return [
    `.paper{fill:${scheme === "light" ? "#ffffff" : "#0d1117"}}`, // as GitHub's page, so that it shows no edge there
    `text{fill:${ink}}.soft,.small,.tiny{fill:${soft}}.grid{stroke:${rule}}.axis{stroke:${soft}}.whisker{stroke:${ink}}.absent{fill:${rule}}`,
    ...series.map((colour, i) => `.f${i}{fill:${colour}}.s${i}{stroke:${colour}}`),
    ...heat,
  ].join("");
}

/** Title, note and body, one below the other; the body's top is y = 0. */
export function svg(
  { title, note }: Pick<Figure, "title" | "note">,
  bodyHeight: number,
  body: readonly string[],
): string {
  const noteLines = note ? wrap(note, WIDTH - 2 * MARGIN, 13) : [];
  const top = TITLE_HEIGHT + 17 * noteLines.length + 12;
  const height = Math.ceil(top + bodyHeight + 14);
  const joined = body.join("\n");
  const hasHeat = /class="h\d/.test(joined);
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escapeHtml(title)}">
<style>
text{font:13px ${SANS};font-variant-numeric:tabular-nums}
.title{font-size:16px;font-weight:600}.small{font-size:11px}.tiny{font-size:10px}.strong{font-weight:600}
.grid,.axis{stroke-width:1}.whisker,.thin{stroke-width:1.4}.line{fill:none;stroke-width:2;stroke-linejoin:round}.dash{stroke-width:1.5;stroke-dasharray:5 4}.band{opacity:.16}.pale{opacity:.5}
${colourRules("light", hasHeat)}
@media(prefers-color-scheme:dark){${colourRules("dark", hasHeat)}}
</style>
<rect class="paper" width="${WIDTH}" height="${height}" rx="6"/>
${text(MARGIN, 24, title, { as: "title" })}
${noteLines.map((words, i) => text(MARGIN, TITLE_HEIGHT + 12 + 17 * i, words, { as: "soft" })).join("")}
<g transform="translate(0 ${top})">
${joined}
</g>
</svg>
`;
}

const seedsWords = (counts: readonly number[]): string => {
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  return `${least === most ? least : `${least} to ${most}`} seed${most === 1 ? "" : "s"}`;
};

const joinNotes = (...notes: (string | undefined)[]): string => notes.filter(Boolean).join(" ");

// (a) Overlap of masks

interface Overlaps {
  domains: string[];
  chance: number;
  /** Mean over seeds; NaN where a domain has no pair. [L, domains, domains] */
  matrices: number[][][];
  numSeeds: number;
}

/** Mean over seeds: which channels a seed keeps for a task is its own affair, how many two tasks share can be compared. */
function overlapsOf({ run, mask, test }: OfKind<"overlap">, results: Results): Overlaps | undefined {
  const all = results.seedsOf({ run, mask }).flatMap((byTest) => {
    const masks = byTest.get(test)?.report.masks;
    return masks?.matrices ? [{ ...masks, matrices: masks.matrices }] : [];
  });
  const [first] = all;
  if (!first) return undefined;
  const { domains, chance } = first;
  const share = (matrix: readonly (readonly (number | null)[])[], a: number, b: number) =>
    matrix[Math.max(a, b)]?.[Math.min(a, b)] ?? Number.NaN;
  return {
    domains,
    chance,
    matrices: first.matrices.map((_, layer) =>
      domains.map((a) =>
        domains.map((b) => {
          const shares = all.map((seed) =>
            share(seed.matrices[layer] ?? [], seed.domains.indexOf(a), seed.domains.indexOf(b)),
          );
          return shares.reduce((sum, value) => sum + value, 0) / shares.length;
        }),
      ),
    ),
    numSeeds: all.length,
  };
}

function overlapFigure(figure: OfKind<"overlap">, results: Results): string {
  const overlaps = overlapsOf(figure, results);
  if (!overlaps) {
    const words = `${figure.run}, mask ${figure.mask}, ${figure.test}: ${NOT_RUN}, or evaluated without overlaps by layer`;
    return svg(figure, 40, [text(MARGIN, 20, words)]);
  }
  const { domains, chance, matrices, numSeeds } = overlaps;
  const listed = figure.order.filter((domain) => domains.includes(domain));
  const order = [...listed, ...domains.filter((domain) => !listed.includes(domain))].map((name) =>
    domains.indexOf(name),
  );
  const last = matrices.length - 1;
  const layers = [...new Set([0, last >> 1, last])];

  const SIZE = 10; // of a task's name, class tiny
  const labels = Math.max(...domains.map((domain) => textWidth(domain, SIZE))) + 8;
  const gap = 16;
  const left = MARGIN + labels;
  const cell = Math.min(24, (WIDTH - MARGIN - left - gap * (layers.length - 1)) / layers.length / domains.length);
  const side = cell * domains.length;
  const panelTop = 42;
  const panels = layers.map((layer, panel) => {
    const x0 = left + panel * Math.max(side + gap, 170); // few tasks leave narrow panels, but their captions need room
    const pairs = order.flatMap((a) => order.map((b) => ({ a, b, share: matrices[layer]![a]![b]! })));
    const mean = (isWithin: boolean) => {
      const shares = pairs.filter(({ a, b, share }) => (a === b) === isWithin && !Number.isNaN(share));
      return shares.length === 0
        ? "–"
        : `${((100 * shares.reduce((sum, { share }) => sum + share, 0)) / shares.length).toFixed(0)} %`;
    };
    const name = layer === 0 ? "first layer" : layer === last ? "last layer" : `layer ${layer + 1} of ${last + 1}`;
    const shades = pairs.map(({ share }) =>
      Number.isNaN(share) ? "absent" : `h${Math.round(Math.min(1, share) * (HEAT_STEPS - 1))}`,
    );
    const cells = [...new Set(shades)].map((shade) => {
      const squares = shades.map((other, i) =>
        other === shade ? `M${i % order.length} ${Math.floor(i / order.length)}h1v1h-1z` : "",
      );
      return `<path class="${shade}" d="${squares.join("")}"/>`;
    });
    return [
      text(x0, 8, name, { as: "strong" }),
      text(x0, 27, `same task ${mean(true)}, other ${mean(false)}`, { as: "small" }),
      // a cell is one unit; crisp edges, for else the page shines through between cells
      `<g shape-rendering="crispEdges" transform="translate(${round(x0)} ${panelTop}) scale(${cell.toFixed(3)})">`,
      ...cells,
      "</g>",
      ...order.map((domain, i) =>
        text(x0 + (i + 0.5) * cell, panelTop + side + 6, domains[domain]!, { as: "tiny", anchor: "end", turn: -90 }),
      ),
    ].join("\n");
  });
  const rowNames = order.map((domain, i) =>
    text(left - 6, panelTop + (i + 0.5) * cell, domains[domain]!, { as: "tiny", anchor: "end" }),
  );
  const keyTop = panelTop + side + labels + 22;
  const key = colourKey(left, keyTop, Math.min(300, WIDTH - left - MARGIN), chance);
  const note = joinNotes(
    figure.note,
    `Share of kept channels that the masks of two prompts have in common, by their tasks. Chance: ${(100 * chance).toFixed(1)} %.`,
    `Mean of ${seedsWords([numSeeds])}.`,
  );
  return svg({ ...figure, note }, keyTop + 34, [...panels, ...rowNames, key]);
}

/** What share each shade stands for, with the chance level marked. */
function colourKey(x: number, y: number, width: number, chance: number): string {
  const step = width / HEAT_STEPS;
  const shades = Array.from(
    { length: HEAT_STEPS },
    (_, i) => `<rect x="${round(x + i * step)}" y="${y}" width="${round(step + 0.3)}" height="10" class="h${i}"/>`,
  );
  const at = x + chance * width;
  return [
    ...shades,
    ...[0, 0.25, 0.5, 0.75, 1].map((share) =>
      text(x + share * width, y + 20, `${100 * share}${share === 1 ? " %" : ""}`, { as: "small", anchor: "middle" }),
    ),
    line(at, y - 5, at, y + 13, "whisker"),
    text(at, y - 12, "chance", { as: "small", anchor: "middle" }),
  ].join("\n");
}

// (b) Scores against a quantity

/** A series' sign at (0, 0); signs differ in shape, for those to whom colours do not. */
const SIGNS = [
  '<circle r="4.5"/>',
  '<rect x="-4.2" y="-4.2" width="8.4" height="8.4"/>',
  '<path d="M0-5.6L5.2 4H-5.2Z"/>',
  '<path d="M0-5.8L5.8 0L0 5.8L-5.8 0Z"/>',
  '<path d="M0 5.6L5.2-4H-5.2Z"/>',
];
export const sign = (series: number, x: number, y: number): string =>
  `<g class="f${series % 8}" transform="translate(${round(x)} ${round(y)})">${SIGNS[series % SIGNS.length]}</g>`;

function linesFigure(figure: OfKind<"lines">, points: readonly Scored<OfKind<"lines">["points"][number]>[]): string {
  const names = [...new Set(points.map(({ series }) => series))];
  const known = points.flatMap(({ score, ...point }) => (score ? [{ ...point, score }] : []));
  const absent = points.filter(({ score }) => !score).map(({ series, x }) => `${series} at ${short(x)}`);
  const absentLines = absent.length > 0 ? wrap(`Not run: ${absent.join(", ")}.`, WIDTH - 2 * MARGIN, 11) : [];

  const [left, right, height] = [MARGIN + 42, WIDTH - MARGIN, 300];
  const legend: string[] = [];
  let [legendX, legendY] = [left, 6];
  for (const [i, name] of names.entries()) {
    const width = 40 + textWidth(name, 13);
    if (legendX > left && legendX + width > right) [legendX, legendY] = [left, legendY + 22];
    legend.push(
      line(legendX, legendY, legendX + 22, legendY, `line s${i % 8}`) +
        sign(i, legendX + 11, legendY) +
        text(legendX + 29, legendY, name),
    );
    legendX += width + 12;
  }
  const top = legendY + 26;
  const bottom = top + height;

  const place = figure.log ? Math.log : (value: number) => value;
  const xs = [...points.map(({ x }) => x), ...(figure.xTicks ?? [])];
  const [lowX, highX] = [place(Math.min(...xs)), place(Math.max(...xs))];
  const inset = 26;
  const x = (value: number) =>
    left + inset + ((place(value) - lowX) / (highX - lowX || 1)) * (right - left - 2 * inset);

  const spread = ({ std }: Estimate) => (Number.isNaN(std) ? 0 : std);
  const ends = known
    .flatMap(({ score }) => [score.mean - spread(score), score.mean + spread(score)])
    .map((end) => 100 * end);
  const [lowY, highY] = ends.length > 0 ? [Math.min(...ends), Math.max(...ends)] : [0, 100];
  const room = Math.max(0.06 * (highY - lowY), 0.5);
  const rangeY = [lowY - room, highY + room] as const;
  const y = (value: number) => bottom - ((value - rangeY[0]) / (rangeY[1] - rangeY[0])) * height;

  const grid = ticks(rangeY, 5).map(
    (value) =>
      line(left, y(value), right, y(value), "grid") +
      text(left - 8, y(value), short(value), { as: "soft", anchor: "end" }),
  );
  const xTicks = (figure.xTicks ?? [...new Set(points.map((point) => point.x))]).map(
    (value) =>
      line(x(value), bottom, x(value), bottom + 5, "axis") +
      text(x(value), bottom + 16, short(value), { as: "soft", anchor: "middle" }),
  );
  const lines = names.map((name, i) => {
    const own = known.filter(({ series }) => series === name).sort((a, b) => a.x - b.x);
    // beside one another, so that no error bar hides another
    const px = (value: number) => {
      const atSame = names.filter((other) => known.some((point) => point.series === other && point.x === value));
      return x(value) + (atSame.indexOf(name) - (atSame.length - 1) / 2) * 6;
    };
    const path = own.map((point) => `${round(px(point.x))} ${round(y(100 * point.score.mean))}`).join("L");
    const whiskers = own.flatMap((point) => {
      const { mean, std, n } = point.score;
      if (n < 2) return [];
      const [at, low, high] = [px(point.x), y(100 * (mean - std)), y(100 * (mean + std))];
      return [
        line(at, low, at, high, `thin s${i % 8}`),
        ...[low, high].map((end) => line(at - 3.5, end, at + 3.5, end, `thin s${i % 8}`)),
      ];
    });
    const signs = own.map((point) => sign(i, px(point.x), y(100 * point.score.mean)));
    return [own.length > 1 ? `<path class="line s${i % 8}" d="M${path}"/>` : "", ...whiskers, ...signs].join("");
  });
  const note = joinNotes(
    figure.note,
    "Suite score, %.",
    known.length > 0
      ? `Mean of ${seedsWords(known.map(({ score }) => score.n))}, bars: ± sample standard deviation.`
      : undefined,
  );
  return svg({ ...figure, note }, bottom + 36 + 16 * absentLines.length, [
    ...legend,
    ...grid,
    line(left, bottom, right, bottom, "axis"),
    ...xTicks,
    text((left + right) / 2, bottom + 36, figure.xLabel, { anchor: "middle" }),
    ...lines,
    ...absentLines.map((words, i) => text(MARGIN, bottom + 56 + 16 * i, words, { as: "small" })),
  ]);
}

// (c) Variants beside the headline

interface Bar {
  name: string;
}

function barsFigure(
  figure: OfKind<"bars">,
  headline: Scored<Bar>,
  bars: readonly Scored<Bar>[],
  seeds: readonly number[],
): string {
  const rows = [headline, ...bars];
  const known = rows.flatMap(({ score }) => (score ? [score] : []));
  const SIZE = 13;
  const labelWidth = Math.min(290, Math.max(...rows.map(({ name }) => textWidth(name, SIZE))));
  const left = MARGIN + labelWidth + 12;
  const columns = { score: WIDTH - MARGIN - 84, difference: WIDTH - MARGIN - 28, seeds: WIDTH - MARGIN };
  const right = columns.score - 92;
  const most = Math.max(1, ...known.map(({ mean, std }) => 100 * (mean + (Number.isNaN(std) ? 0 : std))));
  const x = (value: number) => left + (value / (most * 1.02)) * (right - left);

  const laid: { row: Scored<Bar>; lines: string[]; top: number; height: number }[] = [];
  let bottom = 20;
  for (const row of rows) {
    const lines = wrap(row.name, labelWidth + 1, SIZE);
    const height = Math.max(28, 16 * lines.length + 8);
    laid.push({ row, lines, top: bottom, height });
    bottom += height;
  }
  const plotTop = 16;
  const grid = ticks([0, most], 5).map(
    (value) =>
      line(x(value), plotTop, x(value), bottom, "grid") +
      text(x(value), bottom + 12, short(value), { as: "soft", anchor: "middle" }),
  );
  const drawn = laid.map(({ row: { score }, lines, top, height }, i) => {
    const middle = top + height / 2;
    const label = lines.map((words, l) =>
      text(left - 10, middle + 16 * (l - (lines.length - 1) / 2), words, {
        anchor: "end",
        ...(i === 0 && { as: "strong" }),
      }),
    );
    if (!score) return [...label, text(left + 8, middle, NOT_RUN, { as: "soft" })].join("");
    const { mean, std, n } = score;
    const whisker = [line(x(100 * (mean - std)), middle, x(100 * (mean + std)), middle, "whisker")];
    for (const end of [mean - std, mean + std])
      whisker.push(line(x(100 * end), middle - 4, x(100 * end), middle + 4, "whisker"));
    const difference = i > 0 && headline.score ? signed(100 * (mean - headline.score.mean)) : "";
    return [
      ...label,
      `<rect x="${round(left)}" y="${round(middle - 8)}" width="${round(x(100 * mean) - left)}" height="16" class="f0${i === 0 ? "" : " pale"}"/>`,
      ...(n > 1 ? whisker : []),
      text(columns.score, middle, percent(score), { anchor: "end", ...(i === 0 && { as: "strong" }) }),
      text(columns.difference, middle, difference, { as: "soft", anchor: "end" }),
      text(columns.seeds, middle, String(n), { as: "soft", anchor: "end" }),
    ].join("");
  });
  const level: string[] = [];
  if (headline.score) {
    const { mean, std, n } = headline.score;
    const [low, high] = [x(100 * (mean - std)), x(100 * (mean + std))];
    if (n > 1)
      level.push(
        `<rect x="${round(low)}" y="${plotTop}" width="${round(high - low)}" height="${round(bottom - plotTop)}" class="f1 band"/>`,
      );
    level.push(line(x(100 * mean), plotTop, x(100 * mean), bottom, "dash s1"));
  }
  const note = joinNotes(
    figure.note,
    `Suite score, %: mean ± sample standard deviation over the seeds that all have (${seeds.join(", ")}). Dashed, with its band: ${headline.name}.`,
  );
  return svg({ ...figure, note }, bottom + 22, [
    ...grid,
    ...drawn,
    ...level,
    line(left, plotTop, left, bottom, "axis"),
    text(columns.score, 4, "score", { as: "small", anchor: "end" }),
    text(columns.difference, 4, "Δ", { as: "small", anchor: "end" }),
    text(columns.seeds, 4, "n", { as: "small", anchor: "end" }),
  ]);
}

/** With one decimal and a sign, unless it is zero. */
function signed(value: number): string {
  const digits = Math.abs(value).toFixed(1);
  return digits === "0.0" ? digits : `${value < 0 ? "−" : "+"}${digits}`;
}
