/**
 * Figures of experiments, as SVG files (`src/report/svg.ts`).
 */
import { short, ticks } from "../../src/report/chart.ts";
import { HEAT_STEPS, line, MARGIN, round, sign, svg, text, textWidth, WIDTH, wrap } from "../../src/report/svg.ts";
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

/** @throws {OptionError} if a result does not hold what a figure is made from */
export function drawFigure(figure: Figure, { facts }: Pick<Experiments, "facts">, results: Results): string {
  switch (figure.kind) {
    case "overlap":
      return overlapFigure(figure, results);
    case "lines": {
      const points = figure.points.map((point) => ({ ...point, score: scoreOf(results, facts, point) }));
      const counts = points.flatMap(({ score }) => (score ? [score.n] : []));
      const seeds = counts.length > 0 ? `Mean of ${seedsWords(counts)}, bars: ± sample standard deviation.` : undefined;
      return linesFigure({ ...figure, note: joinNotes(figure.note, "Suite score, %.", seeds) }, points);
    }
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

// (b) Shares against a quantity

/** Shares in percent against a quantity, a line per series. */
export function linesFigure(
  figure: Pick<OfKind<"lines">, "title" | "note" | "xLabel" | "xTicks"> & { log?: boolean },
  points: readonly Scored<{ series: string; x: number }>[],
): string {
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
  return svg(figure, bottom + 36 + 16 * absentLines.length, [
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
