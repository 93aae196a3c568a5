/** The resident form in llama.cpp against the gathered sub-network of the same mask and against the masked full model in the float64 reference. */
import { describe, expect, test } from "vitest";
import { maxKeptBlocks, openResident } from "../src/bundle/residentModel.ts";
import { openSubnetwork } from "../src/bundle/subnetworkCache.ts";
import type { Engine } from "../src/engine/engine.ts";
import { llamaCpp } from "../src/engine/llamaCpp.ts";
import { FileError } from "../src/errors.ts";
import { fullMask } from "../src/mask/mask.ts";
import { channelWeights, forward, greedy } from "./reference/decoder.ts";
import { blockBundle, blockMask } from "./support/blocks.ts";
import { randomModel, temporaryFolder } from "./support/models.ts";

const exact = { contextLength: 64, threads: 1, kvType: "F32" } as const;
const ids = [1, 9, 8, 7, 20, 21, 40, 3];

/** Largest difference, over all positions and tokens. */
function worst(got: readonly ArrayLike<number>[], wanted: readonly ArrayLike<number>[]): number {
  return Math.max(...wanted.flatMap((row, t) => Array.from(row, (value, i) => Math.abs(value - got[t]![i]!))));
}

async function take(tokens: AsyncIterable<number>): Promise<number[]> {
  const taken: number[] = [];
  for await (const token of tokens) taken.push(token);
  return taken;
}

const shapes = [
  ["llama", {}],
  ["llama", { tieEmbeddings: true, numKvHeads: 4 }],
  ["qwen2", {}],
] as const;

// Logits are 1 to 4 in size. All types but F32 round what goes into products: seldom, a last bit of a norm, or the factor on what `up` gives, makes
// another number of it. In Q8_0 both forms are 0.05 from the reference (root mean square; 0.27 at most), and 0.01 from each other.
describe.each(shapes)("%s %j", (family, changes) => {
  const model = randomModel({ family, ffnWidth: 128, vocabSize: 64, ...changes }, 5);

  test.each([
    ["F32", 16, 1e-5],
    ["F16", 16, 0.01],
    ["BF16", 16, 0.05],
    ["Q8_0", 32, 0.1],
    ["Q4_0", 32, 0.1],
  ] as const)(
    "%s, blocks of %i: every mask of blocks gives the logits and tokens of its sub-network to %d",
    async (type, block, bound) => {
      using bundle = await blockBundle(model, block, type);
      const numBlocks = 128 / block;
      const root = temporaryFolder();
      const masks = [1, 2, 2, numBlocks - 1].map((k, seed) => blockMask(model.config, block, k, seed));
      masks.push(fullMask(model.config.numLayers, 128));
      for (const mask of masks) {
        const { path } = await openSubnetwork(bundle, mask, { root });
        await using gathered = await llamaCpp.open(path, exact);
        const file = await openResident(bundle, mask, { root });
        await using resident = await llamaCpp.open(file.path, { ...exact, adapter: file.adapter });
        const wanted = await gathered.logits(Int32Array.from(ids));
        expect(worst(await resident.logits(Int32Array.from(ids)), wanted)).toBeLessThan(bound);
        if (type !== "F32") continue;
        const reference = forward(model, ids, channelWeights(mask)).logits;
        expect(worst(wanted, reference)).toBeLessThan(1e-4);
        const answer = (engine: typeof gathered) =>
          take(engine.generate(Int32Array.from(ids), { maxTokens: 20, ignoreEos: true }));
        expect(await answer(resident)).toEqual(await answer(gathered));
      }
    },
  );
});

test("engines of one loaded model answer at a time, each under its own mask, and one that goes leaves the others", async () => {
  const model = randomModel({ family: "llama", ffnWidth: 128, vocabSize: 64 }, 6);
  using bundle = await blockBundle(model, 16, "F32");
  const root = temporaryFolder();
  const masks = [0, 1, 2].map((seed) => blockMask(model.config, 16, 3, seed));
  const files = [];
  for (const mask of masks) files.push(await openResident(bundle, mask, { root }));
  expect(new Set(files.map(({ path }) => path)).size).toBe(1);
  await using loaded = await llamaCpp.openModel(files[0]!.path, exact);
  const engines = await Promise.all(files.map(({ adapter }) => loaded.engine({ adapter })));
  const prompt = Int32Array.from(ids);
  const wanted = masks.map((mask) => greedy(model, ids, 12, channelWeights(mask)));
  expect(new Set(wanted.map(String)).size).toBe(3);
  const answers = (some: readonly Engine[]) =>
    Promise.all(some.map((engine) => take(engine.generate(prompt, { maxTokens: 12, ignoreEos: true }))));
  expect(await answers(engines)).toEqual(wanted);
  await engines[1]![Symbol.asyncDispose]();
  expect(await answers([engines[0]!, engines[2]!])).toEqual([wanted[0], wanted[2]]);
  await using again = await loaded.engine({ adapter: files[1]!.adapter });
  expect(await answers([again])).toEqual([wanted[1]]);
  // An engine goes from mask to mask; an adapter that another engine has too stays for that one.
  for (const i of [2, 1, 0, 0, 2]) {
    await engines[0]!.adapt(files[i]!.adapter);
    expect(await answers([engines[0]!, again])).toEqual([wanted[i], wanted[1]]);
  }
  const garbage = engines[0]!.adapt(new Uint8Array(64));
  await expect(garbage).rejects.toThrow(FileError);
  expect(await answers([engines[0]!, again])).toEqual([wanted[2], wanted[1]]);
});

// llama.cpp ends the process where a graph has more operations than it has room for.
test.each(["llama", "qwen2"] as const)(
  "%s: as many blocks as are allowed run, with either kind of attention",
  async (family) => {
    const model = randomModel({ family, numLayers: 12, ffnWidth: 128, vocabSize: 64 }, 7);
    using bundle = await blockBundle(model, 1, "F32");
    const most = maxKeptBlocks(bundle);
    expect(most).toBeLessThan(128);
    const root = temporaryFolder();
    const file = await openResident(bundle, blockMask(model.config, 1, most, 1), { root });
    for (const kvType of ["F32", "F16"] as const) {
      const options = { ...exact, kvType, sequences: 3, adapter: file.adapter };
      await using engine = await llamaCpp.open(file.path, options);
      const answers = [1, 2, 3].map((id) =>
        take(engine.generate(Int32Array.of(1, id), { maxTokens: 4, ignoreEos: true })),
      );
      for (const answer of await Promise.all(answers)) expect(answer).toHaveLength(4);
    }
    await expect(openResident(bundle, blockMask(model.config, 1, most + 1, 1), { root })).rejects.toThrow(/room for/);
  },
);
