/**
 * Memory of a long training run: resident set after step 100 and after step 1,000 of one stage.
 *
 *     node --expose-gc --max-semi-space-size=1 --import tsx bench/memory.ts
 *
 * Regime: the trainer itself (`runStage`), continued pre-training with a predictor, two micro-batches a step, tiny shapes, one thread,
 * nothing held between steps. V8 collects when it likes, which moves the resident set by tens of MB either way; so its young
 * generation is fixed and garbage is collected before each reading. What is left is what training holds. Last line: one JSON document.
 */

import type { ModelConfig } from "../src/model/config.ts";
import type { PredictorConfig } from "../src/model/predictorConfig.ts";
import { joinParts, type Parts, randomDecoder, randomHead } from "../src/net/parameters.ts";
import { Random } from "../src/random.ts";
import { TextStream } from "../src/train/batches.ts";
import { newStageState, type StageConfig } from "../src/train/stage.ts";
import { runStage } from "../src/train/trainer.ts";

const [T, chunks] = [32, 4];
const llm: ModelConfig = {
  family: "llama",
  width: 32,
  numLayers: 2,
  numHeads: 2,
  numKvHeads: 1,
  headWidth: 16,
  ffnWidth: 128,
  vocabSize: 256,
  contextLength: T,
  normEps: 1e-5,
  ropeTheta: 10_000,
  tieEmbeddings: true,
};
const backbone: ModelConfig = { ...llm, width: 16, numLayers: 1, headWidth: 8, ffnWidth: 32 };
const predictor: PredictorConfig = {
  backbone,
  rank: 8,
  numLayers: llm.numLayers,
  ffnWidth: llm.ffnWidth,
  pooling: "last",
  importance: false,
  head: "linear",
  block: 1,
};
const stage: StageConfig = {
  kind: "next-token",
  name: "cpt",
  llm,
  masks: {
    kind: "predictor",
    predictor,
    softTopK: { tFfn: 32, epsilon: 0.3 },
    input: "prompt",
    centred: true,
    backboneLearns: true,
  },
  chunks,
  steps: 1000,
  accumulate: 2,
  trains: { llm: true, predictor: true },
  freezesEmbedding: false,
  optimizer: { beta1: 0.9, beta2: 0.95, weightDecay: 0.1, clipNorm: 1 },
  schedule: { peaks: { llm: 1e-3, predictor: 1e-3 }, downShare: 1, warmupSteps: 10, minShare: 0.1 },
};
const random = new Random("memory");
const parts: Parts = {
  llm: randomDecoder(llm, random),
  predictor: { backbone: randomDecoder(backbone, random), head: randomHead(predictor, random) },
};
const tokens = Int32Array.from({ length: 20_000 }, () => random.int(llm.vocabSize));
const data = { domains: ["noise"], weights: [1], tokens: [tokens], bosId: 0 };
const stream = new TextStream(data, { seed: 1, tokensPerBatch: 4 * T, sequenceLength: T, chunks });

const mb = (bytes: number) => Number((bytes / 2 ** 20).toFixed(1));
const start = performance.now();
const readings: Record<number, number> = {};
const options = { stepsBefore: 0, session: { threads: 1, spinning: false }, check: () => {} };
for await (const [{ step }] of runStage(stage, parts, newStageState(stage, parts), stream, options)) {
  if (step % 100 !== 0) continue;
  globalThis.gc!();
  readings[step] = mb(process.memoryUsage.rss());
}
const rows = Object.entries(readings).map(([step, reading]) => `step ${step}: ${reading} MB`);
console.log(rows.join(", "));
const parameters = [...joinParts(parts).values()].reduce((count, { data }) => count + data.length, 0);
const growth = Number((readings[1000]! / readings[100]! - 1).toFixed(4));
const seconds = Number(((performance.now() - start) / 1000).toFixed(1));
console.log(JSON.stringify({ parameters, rssMbAt100: readings[100], rssMbAt1000: readings[1000], growth, seconds }));
