/**
 * What choosing a mask by the model's own embedding costs, without an engine, beside reading the prompt under it.
 *
 *     npx tsx bench/selection.ts BUNDLE [--text docs/results.md] [--tokens 512] [--repeats 50] [--threads 2]
 *
 * Regime: prompts are stretches of a text; a random head of rank 32; half of the channels, hard; the file is in the page cache and the code is compiled, so
 * the first ten are left out. CPU time of the process, user and system, which work beside it does not change much; selection has one thread. The prefill that
 * it is compared with is the CPU time of the first token on one thread, in a sub-network that is loaded already, divided by --threads: the least time to first
 * token that there can be. Means. Last line: one JSON document.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { DEFAULT_ENGINES as engines } from "../src/answer/defaultEngines.ts";
import { InstructionModel } from "../src/answer/instructionModel.ts";
import { embeddingFeature } from "../src/bundle/embeddingFeature.ts";
import { type PredictorHead, scoreFeature } from "../src/bundle/head.ts";
import { openSubnetwork } from "../src/bundle/subnetworkCache.ts";
import { type Mask, maskFromScores } from "../src/mask/mask.ts";
import { Random } from "../src/random.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    tokens: { type: "string", default: "512" },
    text: { type: "string", default: "docs/results.md" },
    repeats: { type: "string", default: "50" },
    threads: { type: "string", default: "2" },
  },
});
const [path] = positionals;
if (path === undefined) throw new Error("wanted a bundle, got none");
const [tokens, repeats, threads] = [values.tokens, values.repeats, values.threads].map(Number) as [
  number,
  number,
  number,
];

using model = new InstructionModel(path);
const { bundle } = model;
const { numLayers, ffnWidth, width } = bundle;
const tFfn = ffnWidth / 2;
const random = new Random("selection");
const rank = 32;
const normal = (length: number) => Float32Array.from({ length }, () => random.normal());

function headOf(head: PredictorHead["head"], block: number): PredictorHead {
  const featureStd = new Float32Array(width).fill(0.01);
  const outer = normal(((numLayers * ffnWidth) / block) * rank);
  return {
    head,
    rank,
    block,
    numLayers,
    featureMean: new Float32Array(width),
    featureStd,
    inner: normal(rank * width),
    outer,
  };
}

const ids = model.tokenizer.encode(readFileSync(values.text, "utf8"));
const texts = Array.from({ length: Math.floor(ids.length / tokens) }, (_, i) =>
  ids.subarray(i * tokens, (i + 1) * tokens),
);
const different = texts.reduce((sum, text) => sum + new Set(text).size, 0) / texts.length;
const feature = embeddingFeature(bundle, "mean");

/** Milliseconds of CPU for one call, mean. */
function cpuMs(work: (text: Int32Array) => unknown): number {
  for (let i = 0; i < 10; i++) work(texts[i % texts.length]!);
  const start = process.cpuUsage();
  for (let i = 0; i < repeats; i++) work(texts[i % texts.length]!);
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000 / repeats;
}

const featureMs = cpuMs(feature);
const read = feature(texts[0]!);
let mask: Mask | undefined;
const rows = (
  [
    ["codebook", 64],
    ["codebook", 1],
    ["linear", 64],
    ["linear", 1],
  ] as const
).map(([kind, block]) => {
  const head = headOf(kind, block);
  const scores = scoreFeature(head, read);
  const scoresMs = cpuMs(() => scoreFeature(head, read));
  const maskMs = cpuMs(() => {
    mask = maskFromScores(scores, { dFfn: ffnWidth, tFfn });
  });
  return { head: kind, block, featureMs, scoresMs, maskMs, selectionMs: featureMs + scoresMs + maskMs };
});

const root = mkdtempSync(join(tmpdir(), "selection-"));
try {
  const { path: subnetwork } = await openSubnetwork(bundle, mask!, { root });
  await using engine = await engines.open(subnetwork, { contextLength: tokens + 8, threads: 1 });
  const firstToken = async (text: Int32Array) => {
    for await (const _ of engine.generate(text, { maxTokens: 1, ignoreEos: true }));
  };
  await firstToken(texts[0]!.subarray(0, 16));
  const start = process.cpuUsage();
  await firstToken(texts[0]!);
  const { user, system } = process.cpuUsage(start);
  const prefillMs = (user + system) / 1000 / threads;
  console.table(rows.map((row) => ({ ...row, share: row.selectionMs / prefillMs })));
  console.log(
    JSON.stringify({
      tokens,
      different,
      threads,
      embedding: bundle.base.tensor("token_embd.weight").type,
      prefillMs,
      rows,
    }),
  );
} finally {
  rmSync(root, { recursive: true });
}
