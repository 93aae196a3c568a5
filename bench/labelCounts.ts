/**
 * Memory of training steps whose number of labels is ever another, so that each needs a graph of its own: resident set after every step.
 *
 *     npx tsx bench/labelCounts.ts [--shape small|135m] [--steps 8] [--threads 1]
 *
 * Regime: gradients of all layers of a dense decoder with random weights (embedding and head frozen), rows of 64 tokens, four a step, 64 to 256 labels in
 * tiles of 64; one graph per count, all kept. CPU time is user and system of the process, which work beside it does not change much. Last line: one JSON
 * document.
 */
import { parseArgs } from "node:util";
import { size } from "../src/graph/graph.ts";
import { SessionCache } from "../src/graph/session.ts";
import type { ModelConfig } from "../src/model/config.ts";
import { randomDecoder } from "../src/net/parameters.ts";
import { trainingGraph } from "../src/net/step.ts";
import { Random } from "../src/random.ts";

const { values } = parseArgs({
  options: {
    shape: { type: "string", default: "small" },
    steps: { type: "string", default: "8" },
    threads: { type: "string", default: "1" },
  },
});

const shapes: Record<string, ModelConfig> = {
  small: {
    ...{ family: "llama", width: 256, numLayers: 6, numHeads: 4, numKvHeads: 2, headWidth: 64, ffnWidth: 1024 },
    ...{ vocabSize: 4096, contextLength: 256, normEps: 1e-5, ropeTheta: 10_000, tieEmbeddings: true },
  },
  "135m": {
    ...{ family: "llama", width: 576, numLayers: 30, numHeads: 9, numKvHeads: 3, headWidth: 64, ffnWidth: 1536 },
    ...{ vocabSize: 49_152, contextLength: 2048, normEps: 1e-5, ropeTheta: 100_000, tieEmbeddings: true },
  },
};
const llm = shapes[values.shape];
if (!llm) throw new Error(`wanted --shape ${Object.keys(shapes).join(" or ")}, got ${values.shape}`);

const [B, T] = [4, 64];
const random = new Random("label counts");
const parameters = Object.fromEntries([...randomDecoder(llm, random)].map(([name, { data }]) => [`llm.${name}`, data]));
const trained = new Set(Object.keys(parameters).filter((name) => name.startsWith("llm.model.layers.")));
const gradients = Object.fromEntries(
  [...trained].map((name) => [`d:${name}`, new Float32Array(parameters[name]!.length)]),
);
const sessions = new SessionCache({ threads: Number(values.threads), spinning: false });

const mb = () => Math.round(process.memoryUsage.rss() / 1e6);
const atStart = mb();
const rows: { labels: number; cpuMs: number; rssMb: number }[] = [];
for (let step = 0; step < Number(values.steps); step++) {
  const labelled = 64 * (1 + (step % 4)) - (step < 4 ? 0 : 16); // eight different counts, then again
  const session = await sessions.get(String(labelled), () =>
    trainingGraph({ llm, masks: { kind: "none" } }, { B, T, Tp: 1, chunks: 1, labelled }, trained),
  );
  const feeds = {
    ids: Int32Array.from({ length: size([B, T]) }, () => random.int(llm.vocabSize)),
    labelRows: Int32Array.from({ length: labelled }, (_, i) => i),
    labels: Int32Array.from({ length: labelled }, () => random.int(llm.vocabSize)),
  };
  const before = process.cpuUsage();
  await session.run({ ...parameters, ...feeds }, gradients);
  const { user, system } = process.cpuUsage(before);
  rows.push({ labels: labelled, cpuMs: Math.round((user + system) / 1000), rssMb: mb() });
  console.log(`${labelled} labels: ${rows.at(-1)!.cpuMs} ms of CPU, ${mb()} MB`);
}
await sessions.release();
console.log(JSON.stringify({ shape: values.shape, positions: B * T, atStartMb: atStart, rows }));
