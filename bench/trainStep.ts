/**
 * Speed of a whole training step beside the bare matrix product, in one run: the share of the machine's peak that training uses.
 *
 *     npx tsx bench/trainStep.ts [--threads 2] [--rounds 12]
 *
 * Regime: float32, decoder of width 256, 6 layers, 4 heads (2 key/value), d_ffn 1024, vocabulary 4096, batch 8 × 256 tokens. FLOPs
 * are 2·m·n·k over all matrix products (attention counted in full), nothing is recomputed. Peak: the best of the 2048³
 * products that are interleaved with the steps. Steps: median. Last line: one JSON document.
 */
import os from "node:os";
import { parseArgs } from "node:util";
import * as ort from "onnxruntime-node";
import { Graph, size } from "../src/graph/graph.ts";
import * as n from "../src/graph/nodes.ts";
import { compile, type Session } from "../src/graph/session.ts";
import { median } from "../src/median.ts";
import type { ModelConfig } from "../src/model/config.ts";
import type { PredictorConfig } from "../src/model/predictorConfig.ts";
import { type StepConfig, trainingGraph } from "../src/net/step.ts";
import { Random } from "../src/random.ts";
import { adamW, type Trained } from "../src/train/optimizer.ts";

const { values } = parseArgs({
  options: { threads: { type: "string", default: "2" }, rounds: { type: "string", default: "12" } },
});
const threads = Number(values.threads);
const rounds = Number(values.rounds);

const llm: ModelConfig = {
  family: "llama",
  width: 256,
  numLayers: 6,
  numHeads: 4,
  numKvHeads: 2,
  headWidth: 64,
  ffnWidth: 1024,
  vocabSize: 4096,
  contextLength: 256,
  normEps: 1e-5,
  ropeTheta: 10000,
  tieEmbeddings: true,
};
const backbone: ModelConfig = { ...llm, width: 128, numLayers: 2, headWidth: 32, ffnWidth: 512 };
const predictor: PredictorConfig = {
  backbone,
  rank: 128,
  numLayers: 6,
  ffnWidth: 1024,
  pooling: "last",
  importance: false,
  head: "linear",
  block: 1,
};
const [B, T, Tp] = [8, 256, 64];

async function product(S: number): Promise<Session & { feeds: Record<string, Float32Array> }> {
  const graph = new Graph("product");
  graph.output("c", n.matmul(graph.input("a", [S, S]), graph.input("b", [S, S]), { transB: true }));
  const random = new Random("product");
  const matrix = () => Float32Array.from({ length: S * S }, () => random.normal());
  return { ...(await compile(graph, { threads })), feeds: { a: matrix(), b: matrix() } };
}

async function step(config: StepConfig) {
  const random = new Random("step");
  const names = new Set<string>();
  const probe = trainingGraph(config, { B, T, Tp, chunks: 1 }, names);
  for (const { name, dtype } of probe.inputs) if (dtype === "float32" && !name.includes("feature.")) names.add(name);
  const graph = trainingGraph(config, { B, T, Tp, chunks: 1 }, names);
  const feeds: Record<string, Float32Array | Int32Array> = {};
  const trained = new Map<string, Trained>();
  for (const { name, shape, dtype } of graph.inputs) {
    const length = size(shape);
    if (dtype === "int32")
      feeds[name] = Int32Array.from({ length }, (_, i) =>
        name === "predictorLastRows" ? i * Tp + Tp - 1 : random.int(4096),
      );
    else if (name.endsWith("feature.mean")) feeds[name] = new Float32Array(length);
    else {
      const data = Float32Array.from({ length }, () => (shape.length === 1 ? 1 : 0.05 * random.normal()));
      feeds[name] = data;
      if (names.has(name)) {
        const [m, v] = [new Float32Array(length), new Float32Array(length)];
        trained.set(name, { shape, data, m, v, group: "llm", decays: shape.length > 1 });
      }
    }
  }
  const session = await compile(graph, { threads });
  const optimizer = await adamW(trained, { beta1: 0.9, beta2: 0.95, weightDecay: 0.1, clipNorm: 1 }, { threads });
  let updates = 0;
  return {
    flops: graph.flops,
    gradients: () => session.run(feeds),
    async update(outputs: Record<string, Float32Array | Int32Array>) {
      const gradients = Object.fromEntries([...names].map((name) => [name, outputs[`d:${name}`] as Float32Array]));
      await optimizer.update(gradients, 1 / (B * T), ++updates, { llm: 1e-4 });
    },
  };
}

async function timed<R>(into: number[], work: () => Promise<R>): Promise<R> {
  const start = performance.now();
  const result = await work();
  into.push(performance.now() - start);
  return result;
}

const bare = await product(2048);
const variants = {
  dense: await step({ llm, masks: { kind: "none" } }),
  joint: await step({ llm, masks: { kind: "predictor", predictor, softTopK: { tFfn: 256, epsilon: 0.3 } } }),
};
const times = {
  product: [] as number[],
  dense: [] as number[],
  denseUpdate: [] as number[],
  joint: [] as number[],
  jointUpdate: [] as number[],
};
for (let round = -2; round < rounds; round++) {
  const into = round < 0 ? { product: [], dense: [], denseUpdate: [], joint: [], jointUpdate: [] } : times;
  await timed(into.product, () => bare.run(bare.feeds));
  for (const name of ["dense", "joint"] as const) {
    const outputs = await timed(into[name], () => variants[name].gradients());
    await timed(into[`${name}Update`], () => variants[name].update(outputs));
    await timed(into.product, () => bare.run(bare.feeds));
  }
}
const peak = bare.flops / Math.min(...times.product) / 1e6;
const report = (name: "dense" | "joint") => {
  const ms = median(times[name]);
  const updateMs = median(times[`${name}Update`]);
  const gflops = variants[name].flops / ms / 1e6;
  const withUpdate = variants[name].flops / (ms + updateMs) / 1e6;
  console.log(
    `${name.padEnd(6)} gradients ${ms.toFixed(0)} ms (${Math.min(...times[name]).toFixed(0)}-${Math.max(...times[name]).toFixed(0)}), ${gflops.toFixed(0)} GFLOP/s = ${((100 * gflops) / peak).toFixed(0)} % of peak;` +
      ` with clipping and AdamW (${updateMs.toFixed(0)} ms) ${withUpdate.toFixed(0)} GFLOP/s = ${((100 * withUpdate) / peak).toFixed(0)} %; ${((B * T * 1000) / (ms + updateMs)).toFixed(0)} tokens/s`,
  );
  return {
    gradientMs: ms,
    updateMs,
    gflops,
    shareOfPeak: gflops / peak,
    gflopsWithUpdate: withUpdate,
    shareWithUpdate: withUpdate / peak,
  };
};
console.log(
  `bare 2048³ product: best ${peak.toFixed(0)} GFLOP/s, median ${(bare.flops / median(times.product) / 1e6).toFixed(0)}; ${threads} threads, ${os.cpus()[0]!.model}`,
);
const result = {
  date: new Date().toISOString().slice(0, 10),
  onnxruntime: ort.env.versions.common,
  threads,
  peak,
  dense: report("dense"),
  joint: report("joint"),
};
console.log(JSON.stringify(result));
process.exit(0);
