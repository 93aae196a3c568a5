/**
 * A training step under masks in its two forms: all channels multiplied by the mask, or the kept channels' weights gathered first. Where
 * each wins decides `GATHER_COST` in src/net/step.ts.
 *
 *     npx tsx bench/compactFfn.ts [--rounds N]
 *
 * Decoder 4 × 128, d_ffn 512, vocabulary 2,048, about 2,016 positions, 768 labels, one thread; median of N runs after one. The last
 * line is JSON.
 */
import { parseArgs } from "node:util";
import { compile } from "../src/graph/session.ts";
import type { ModelConfig } from "../src/model/config.ts";
import { joinParts, randomDecoder } from "../src/net/parameters.ts";
import { trainingGraph } from "../src/net/step.ts";
import { Random } from "../src/random.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "5" } } });
const F = 512;
const llm: ModelConfig = {
  ...{ family: "llama", width: 128, numLayers: 4, numHeads: 4, numKvHeads: 2, headWidth: 32, ffnWidth: F },
  ...{ vocabSize: 2048, contextLength: 256, normEps: 1e-5, ropeTheta: 10_000, tieEmbeddings: true },
};
const parameters = joinParts({ llm: randomDecoder(llm, new Random("weights")) });
const POSITIONS = 2016;

/** Median milliseconds of a step with B rows of T tokens, each under a mask of K channels. */
async function measure(T: number, K: number, ffn: "plain" | "compact"): Promise<number> {
  const [B, labelled] = [Math.floor(POSITIONS / T), 768];
  const graph = trainingGraph(
    { llm, masks: { kind: "given", tFfn: K }, ffn },
    { B, T, Tp: 0, chunks: 1, labelled },
    new Set(parameters.keys()),
  );
  const session = await compile(graph, { threads: 1, spinning: false });
  const random = new Random(`${T}/${K}`);
  const integers = (count: number, below: number) => Int32Array.from({ length: count }, () => random.int(below));
  const rows = Array.from({ length: B * llm.numLayers }, () => [...random.permutation(F).subarray(0, K)]);
  const feeds = {
    ...Object.fromEntries([...parameters].map(([name, { data }]) => [name, data])),
    ids: integers(B * T, llm.vocabSize),
    labels: integers(labelled, llm.vocabSize),
    labelRows: integers(labelled, B * T),
    maskIndices: Int32Array.from(rows.flat()),
    maskLambda: new Float32Array(rows.length * K).fill(1),
  };
  const times: number[] = [];
  for (let round = 0; round <= Number(values.rounds); round++) {
    const start = performance.now();
    await session.run(feeds);
    if (round > 0) times.push(performance.now() - start);
  }
  await session.release();
  return times.sort((a, b) => a - b)[times.length >> 1]!;
}

const results = [];
for (const T of [8, 32, 96]) {
  for (const K of [32, 128, 256]) {
    const [plain, compact] = [await measure(T, K, "plain"), await measure(T, K, "compact")];
    const saved = (T * (F - K)) / K; // tokens that do not compute a dropped channel, per gathered one
    results.push({ T, K, saved, plainMs: +plain.toFixed(1), compactMs: +compact.toFixed(1) });
    console.log(
      `T ${T}, K ${K}: ${saved.toFixed(0)} tokens saved, plain ${plain.toFixed(0)} ms, compact ${compact.toFixed(0)} ms`,
    );
  }
}
console.log(JSON.stringify({ benchmark: "compactFfn", rounds: Number(values.rounds), results }));
process.exit(0);
