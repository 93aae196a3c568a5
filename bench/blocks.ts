/**
 * Size of blocks against speed: a model of one shape as it is, a mask of half of its channels gathered, and the same share of it within the resident
 * model of blocks of several sizes, in turns.
 *
 *     npx tsx bench/blocks.ts [--shapes 135M,1B] [--blocks 64,128,256,512] [--keep 0.5] [--prompt 256] [--answer 32] [--rounds 3] [--threads N] [--draw]
 *
 * Weights are random Q8_0 in `runs/bench-bundles`, which goes at the end. A round asks each for one answer to a prompt of its own; the first round
 * counts not. Sizes of which the share is no whole number of blocks, or more than llama.cpp has room for, are left out. Medians go to `bench/results/blocks.json` and `.md` and to `docs/figures/blocks.svg`; --draw draws the figure of the former anew.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Bundle } from "../src/bundle/bundle.ts";
import { openMaskModel } from "../src/bundle/maskModel.ts";
import { maxKeptBlocks } from "../src/bundle/residentModel.ts";
import type { Engine } from "../src/engine/engine.ts";
import { llamaCpp } from "../src/engine/llamaCpp.ts";
import { parseManifest, writeManifest } from "../src/manifest.ts";
import { fullMask } from "../src/mask/mask.ts";
import { median } from "../src/median.ts";
import { Random } from "../src/random.ts";
import { short, ticks } from "../src/report/chart.ts";
import { line, MARGIN, round, sign, svg, text, textWidth, WIDTH } from "../src/report/svg.ts";
import { makeBundle, modelShape, randomMask, removeMade } from "./randomBundle.ts";

const { values } = parseArgs({
  options: {
    shapes: { type: "string", default: "135M,1B" },
    blocks: { type: "string", default: "64,128,256,512" },
    keep: { type: "string", default: "0.5" },
    prompt: { type: "string", default: "256" },
    answer: { type: "string", default: "32" },
    rounds: { type: "string", default: "3" },
    threads: { type: "string", default: String(availableParallelism()) },
    draw: { type: "boolean", default: false },
  },
});
const [keep, promptTokens, answerTokens, rounds, threads] = (
  ["keep", "prompt", "answer", "rounds", "threads"] as const
).map((name) => Number(values[name])) as [number, number, number, number, number];

const shapes: Record<string, ReturnType<typeof modelShape>> = {
  "135M": modelShape([30, 576, 1536, 9, 3], { vocabSize: 49152 }),
  "1B": modelShape([16, 2048, 8192, 32, 8], { vocabSize: 32768 }),
};

/** Tokens per second. */
interface Speed {
  prefill: number;
  decode: number;
}

interface Measured extends Speed {
  shape: string;
  form: "dense" | "gathered" | "resident";
  /** Of the resident form. */
  block?: number;
}

async function speedOf(engine: Engine, ids: Int32Array): Promise<Speed> {
  const start = performance.now();
  let first = 0;
  for await (const _ of engine.generate(ids, { maxTokens: answerTokens, ignoreEos: true })) first ||= performance.now();
  const end = performance.now();
  return { prefill: (1000 * ids.length) / (first - start), decode: (1000 * (answerTokens - 1)) / (end - first) };
}

async function measure(name: string): Promise<Measured[]> {
  const shape = shapes[name]!;
  const { numLayers, ffnWidth: dFfn, vocabSize } = shape.config;
  const folder = await makeBundle(`blocks-${name}`, shape); // of its own, as its manifest changes
  const cache = mkdtempSync(join(tmpdir(), "ifprune-blocks-"));
  const random = new Random(name);
  const options = { contextLength: promptTokens + answerTokens, threads };
  const cases: (Omit<Measured, keyof Speed> & { engine: Engine; speeds: Speed[] })[] = [];
  try {
    for (const block of values.blocks.split(",").map(Number)) {
      writeManifest(folder, { ...parseManifest(folder, "ifprune-bundle"), block });
      using bundle = new Bundle(folder);
      await bundle.verify();
      const kept = keep * (dFfn / block);
      if (!Number.isInteger(kept) || kept > maxKeptBlocks(bundle)) continue;
      const mask = randomMask(random, { ...shape, block }, kept * block);
      const add = async (form: Measured["form"], what = mask) => {
        const { path, adapter } = await openMaskModel(bundle, what, form === "resident" ? "resident" : "gathered", {
          root: cache,
        });
        const engine = await llamaCpp.open(path, { ...options, adapter });
        cases.push({ shape: name, form, ...(form === "resident" && { block }), engine, speeds: [] });
      };
      if (cases.length === 0) {
        await add("dense", fullMask(numLayers, dFfn));
        await add("gathered");
      }
      await add("resident");
    }
    for (let i = 0; i <= rounds; i++) {
      for (const { engine, speeds } of cases) {
        const ids = Int32Array.from({ length: promptTokens }, () => 3 + random.int(vocabSize - 3));
        speeds.push(await speedOf(engine, ids));
      }
    }
    return cases.map(({ engine: _, speeds, ...which }) => {
      const of = (key: keyof Speed) => round(median(speeds.slice(1).map((speed) => speed[key])));
      return { ...which, prefill: of("prefill"), decode: of("decode") };
    });
  } finally {
    for (const { engine } of cases) await engine[Symbol.asyncDispose]();
    rmSync(cache, { recursive: true, force: true });
  }
}

interface Results {
  machine: string;
  threads: number;
  load: number;
  date: string;
  keep: number;
  promptTokens: number;
  answerTokens: number;
  rounds: number;
  rows: Measured[];
}

/** Each form's speed by the dense model's. */
function shares({ rows }: Results): (Measured & { of: Speed })[] {
  return rows.map((row) => {
    const dense = rows.find(({ shape, form }) => shape === row.shape && form === "dense")!;
    return { ...row, of: { prefill: row.prefill / dense.prefill, decode: row.decode / dense.decode } };
  });
}

const formWords = ({ form, block }: Measured) => (block === undefined ? form : `${form}, blocks of ${block}`);
const regime = ({ machine, threads: count, load, date, rounds: all, ...given }: Results) =>
  `${machine}, ${count} threads, load ${load.toFixed(1)}, ${date}: random Q8_0, ${100 * given.keep} % of the channels kept, prompts of ${given.promptTokens} tokens, answers of ${given.answerTokens}, medians of ${all} interleaved rounds.`;

function table(results: Results): string {
  const lines = shares(results).map((row) => {
    const cell = (key: keyof Speed) => `${row[key]} | ${row.of[key].toFixed(2)}`;
    return `| ${row.shape} | ${formWords(row)} | ${cell("prefill")} | ${cell("decode")} |`;
  });
  return [
    "| shape | form | prefill, tokens/s | of dense | decode, tokens/s | of dense |",
    "| --- | --- | ---: | ---: | ---: | ---: |",
    ...lines,
  ].join("\n");
}

/** Shares of the dense model's speed by size of the blocks; a dashed line is the gathered form's. */
function figure(results: Results): string {
  const rows = shares(results);
  const lines = [...new Set(rows.map(({ shape }) => shape))].flatMap((shape) =>
    (["prefill", "decode"] as const).map((key) => {
      const own = rows.filter((row) => row.shape === shape);
      return {
        name: `${key}, ${shape}`,
        points: own.flatMap(({ block, of }) => (block === undefined ? [] : [{ x: block, y: of[key] }])),
        gathered: own.find(({ form }) => form === "gathered")!.of[key],
      };
    }),
  );
  const [left, right, top, height] = [MARGIN + 42, WIDTH - MARGIN, 32, 300];
  const bottom = top + height;
  const blocks = [...new Set(lines.flatMap(({ points }) => points.map(({ x }) => x)))].sort((a, b) => a - b);
  const highest =
    1.05 * Math.max(1, ...lines.flatMap(({ points, gathered }) => [gathered, ...points.map(({ y }) => y)]));
  const x = (block: number) => left + ((blocks.indexOf(block) + 0.5) / blocks.length) * (right - left);
  const y = (share: number) => bottom - (share / highest) * height;
  let legendX = left;
  const drawn = lines.flatMap(({ name, points, gathered }, i) => {
    const at = legendX;
    legendX += 52 + textWidth(name, 13);
    const path = points.map((point) => `${round(x(point.x))} ${round(y(point.y))}`).join("L");
    return [
      line(at, 6, at + 22, 6, `line s${i}`) + sign(i, at + 11, 6) + text(at + 29, 6, name),
      line(left, y(gathered), right, y(gathered), `dash s${i}`),
      `<path class="line s${i}" d="M${path}"/>`,
      ...points.map((point) => sign(i, x(point.x), y(point.y))),
    ];
  });
  const grid = ticks([0, highest], 5).map(
    (share) =>
      line(left, y(share), right, y(share), share === 1 ? "axis" : "grid") +
      text(left - 8, y(share), short(share), { as: "soft", anchor: "end" }),
  );
  const names = blocks.map((block) => text(x(block), bottom + 16, `${block}`, { as: "soft", anchor: "middle" }));
  const note = `Share of the dense model's speed by channels of a block; dashed: the same share of channels gathered. ${regime(results)}`;
  return svg({ title: "The resident form by size of its blocks", note }, bottom + 30, [...grid, ...names, ...drawn]);
}

const out = (path: string) => fileURLToPath(new URL(path, import.meta.url));
async function run(): Promise<Results> {
  await llamaCpp.start();
  const rows: Measured[] = [];
  const load = loadavg()[0]!;
  try {
    for (const name of values.shapes.split(",")) {
      rows.push(...(await measure(name)));
      for (const row of rows.filter(({ shape }) => shape === name)) process.stderr.write(`${JSON.stringify(row)}\n`);
    }
  } finally {
    removeMade();
  }
  const machine = `${cpus().length} × ${cpus()[0]!.model}`;
  const date = new Date().toISOString().slice(0, 10);
  return { machine, threads, load, date, keep, promptTokens, answerTokens, rounds, rows };
}

const results: Results = values.draw ? JSON.parse(readFileSync(out("results/blocks.json"), "utf8")) : await run();
mkdirSync(out("results"), { recursive: true });
writeFileSync(out("results/blocks.json"), `${JSON.stringify(results, null, 1)}\n`);
writeFileSync(
  out("results/blocks.md"),
  `# Size of blocks against speed\n\n\`npx tsx bench/blocks.ts\` on ${regime(results)}\n\n${table(results)}\n`,
);
writeFileSync(out("../docs/figures/blocks.svg"), figure(results));
process.stdout.write(`${JSON.stringify(results)}\n`);
process.exit(0);
