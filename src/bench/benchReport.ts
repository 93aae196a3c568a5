/** A benchmark as a table for people and as a figure. */
import { short } from "../report/chart.ts";
import { line, MARGIN, round, sign, svg, text, textWidth, WIDTH } from "../report/svg.ts";
import { type BenchResult, type BenchRow, type Spread, VARIANTS, type Variant } from "./bench.ts";

const decimals = (value: number, digits = value < 10 ? 2 : value < 100 ? 1 : 0) => value.toFixed(digits);
/** "12.3 (11.9–12.8)" */
const withRange = ({ median, min, max }: Spread) => `${decimals(median)} (${decimals(min)}–${decimals(max)})`;
const megabytes = (value: Spread | null) => (value ? (value.median / 1e6).toFixed(0) : "?");

const threads = ({ threads }: BenchResult["machine"]) =>
  threads === null ? "as many threads as were quickest" : `${threads} thread${threads === 1 ? "" : "s"}`;

export function benchMarkdown(result: BenchResult): string {
  const { model, machine, engine, bytes, rows, ratios, masks, leftOut } = result;
  const gb = (value: number) => `${(value / 1e9).toFixed(value < 1e9 ? 3 : 2)} GB`;
  return `${[
    `# ${model.name}: ${model.tFfn} of ${model.ffnWidth} FFN channels`,
    "",
    `${model.family}, ${model.layers} layers, width ${model.width}, vocabulary ${model.vocabSize}, FFN in ${model.types.join(", ")}. Weights: dense ${gb(bytes.dense)}, sub-network ${gb(bytes.subnetwork)}.`,
    `${machine.cpu}, ${machine.cores} cores, ${gb(machine.memory)} of memory, ${machine.platform}, Node ${machine.node}; ${threads(machine)}; load average ${machine.load.toFixed(1)} at the start: above 0 other work ran beside it.`,
    engine,
    "",
    `${result.repeats} rounds, variants in turns; median (least–most) over rounds. Prompts are random tokens, answers ${result.answerTokens} greedy ones. The page`,
    "cache is warm: what is measured is not the disk. Time to first token begins with the prompt's ids: predict, gather, load, prefill;",
    `starting llama.cpp is not in it. Cold masks are ${masks === "predictor" ? "predicted, loading the predictor included" : "drawn at random, beforehand: the bundle has no predictor, so predicting is not in it"}. *Read*: bytes from read calls,`,
    "to gather, to compare checksums and to load. Measured by `ifprune bench`.",
    ...(leftOut.length > 0 ? ["", `Left out, for the model does not read so many tokens: ${leftOut.join(", ")}.`] : []),
    "",
    "| prompt | variant | first token, ms | predict | gather | load | prefill | prefill, tokens/s | decode, tokens/s | peak RSS, MB | read, MB |",
    "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ...rows.map((row) => {
      const stages = [row.predictMs, row.gatherMs, row.loadMs, row.prefillMs].map(({ median }) =>
        median === 0 ? "" : decimals(median),
      );
      const cells = [
        row.promptTokens,
        VARIANTS[row.variant],
        withRange(row.ttftMs),
        ...stages,
        withRange(row.prefillTps),
        withRange(row.decodeTps),
        megabytes(row.peakRss),
        megabytes(row.bytesRead),
      ];
      return `| ${cells.join(" | ")} |`;
    }),
    "",
    "Ratios are taken within each round. *Bound*: of decoding, by the bytes that a token reads; of prefill and time to first token, by",
    "arithmetic alone.",
    "",
    "| ratio | prompt | measured | bound | goal |",
    "|---|---:|---:|---:|---|",
    ...ratios
      .toSorted(
        (a, b) => ratios.findIndex(({ name }) => name === a.name) - ratios.findIndex(({ name }) => name === b.name),
      )
      .map(({ name, promptTokens, ratio, bound, goal }) => {
        const judged = goal ? `${goal.wanted}: ${goal.isMet ? "met" : "**missed**"}` : "";
        return `| ${[name, promptTokens, withRange(ratio), bound.toFixed(2), judged].join(" | ")} |`;
      }),
  ].join("\n")}\n`;
}

/** Time to first token and decode speed against the length of the prompt, both from zero. */
export function benchFigure(result: BenchResult): string {
  const { model, machine, rows } = result;
  const variants = Object.keys(VARIANTS) as Variant[];
  const gap = 70;
  const width = (WIDTH - 2 * MARGIN - gap - 40) / 2;
  const left = MARGIN + 40;
  const legend: string[] = [];
  let [x, y] = [left, 6];
  for (const [i, variant] of variants.entries()) {
    const needed = 40 + textWidth(VARIANTS[variant], 13);
    if (x > left && x + needed > WIDTH - MARGIN) [x, y] = [left, y + 22];
    legend.push(line(x, y, x + 22, y, `line s${i}`) + sign(i, x + 11, y) + text(x + 29, y, VARIANTS[variant]));
    x += needed + 12;
  }
  const top = y + 44;
  const panels = [
    panel("time to first token, s", ({ ttftMs }) => scaled(ttftMs, 1 / 1000), left),
    panel("decode, tokens/s", ({ decodeTps }) => decodeTps, left + width + gap),
  ];
  return svg(
    {
      title: `${model.name}: ${model.tFfn} of ${model.ffnWidth} FFN channels`,
      note: `Median of ${result.repeats} rounds, bars from least to most. ${machine.cpu}, ${threads(machine)}, ${model.types.join(", ")}, page cache warm.`,
    },
    top + 290,
    [...legend, ...panels],
  );

  function panel(name: string, of: (row: BenchRow) => Spread, at: number): string {
    const lengths = [...new Set(rows.map(({ promptTokens }) => promptTokens))];
    const bottom = top + 240;
    const most = Math.max(...rows.map((row) => of(row).max)) * 1.05;
    const place = (length: number) =>
      at + 16 + (lengths.length === 1 ? 0.5 : lengths.indexOf(length) / (lengths.length - 1)) * (width - 32);
    const height = (value: number) => bottom - (value / most) * (bottom - top);
    const step = niceStep(most / 4);
    const grid = Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step).map(
      (value) =>
        line(at, height(value), at + width, height(value), "grid") +
        text(at - 8, height(value), short(value), { as: "soft", anchor: "end" }),
    );
    const ticks = lengths.map((length) =>
      text(place(length), bottom + 16, String(length), { as: "soft", anchor: "middle" }),
    );
    const curves = variants.map((variant, i) => {
      const own = rows.filter((row) => row.variant === variant);
      const px = (row: BenchRow) => place(row.promptTokens) + (i - 2) * 3; // beside one another
      const path = own.map((row) => `${round(px(row))} ${round(height(of(row).median))}`).join("L");
      const bars = own.map((row) => line(px(row), height(of(row).min), px(row), height(of(row).max), `thin s${i}`));
      const signs = own.map((row) => sign(i, px(row), height(of(row).median)));
      return [own.length > 1 ? `<path class="line s${i}" d="M${path}"/>` : "", ...bars, ...signs].join("");
    });
    return [
      text(at, top - 18, name, { as: "strong" }),
      ...grid,
      line(at, bottom, at + width, bottom, "axis"),
      ...ticks,
      text(at + width / 2, bottom + 36, "prompt, tokens", { anchor: "middle" }),
      ...curves,
    ].join("\n");
  }
}

const scaled = ({ median, min, max }: Spread, by: number): Spread => ({
  median: median * by,
  min: min * by,
  max: max * by,
});

/** 1, 2 or 5 times a power of ten, at least `rough`. */
function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
}
