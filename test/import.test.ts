/**
 * Bring your own model, whole: for each kind of checkpoint that people have, folder → bundle → llama.cpp is the float64 reference of the
 * folder's weights, and so is folder → checkpoint → graph; and a sub-network that is exported and imported again says the same.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openEngine } from "../src/engine/engine.ts";
import { openModel } from "../src/eval/load.ts";
import { exportSubnetwork } from "../src/export/export.ts";
import { Bundle } from "../src/formats/bundle.ts";
import { type Model, readModelFolder } from "../src/formats/huggingface.ts";
import { importModel } from "../src/formats/importModel.ts";
import { fullMask, type Mask } from "../src/mask/mask.ts";
import { InstructionModel } from "../src/serve/model.ts";
import { openSubnetwork } from "../src/subnet/cache.ts";
import { channelWeights, forward } from "./reference/decoder.ts";
import { shapes, writeCheckpointFolder } from "./support/checkpoints.ts";
import { quiet } from "./support/graphs.ts";
import { randomMask } from "./support/models.ts";

const folder = mkdtempSync(join(tmpdir(), "import-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Logits after each token, and a greedy answer, of a bundle under a mask. */
async function run(bundle: Bundle, mask: Mask, ids: Int32Array) {
  const { path } = await openSubnetwork(bundle, mask, { root: join(folder, "cache") });
  await using engine = await openEngine(path, { contextLength: 64, threads: 1, kvType: "F32" });
  const logits = await engine.logits(ids);
  const answer: number[] = [];
  for await (const id of engine.generate(ids, { maxTokens: 8 })) answer.push(id);
  return { logits, answer };
}

function worst(got: readonly ArrayLike<number>[], wanted: readonly ArrayLike<number>[]): number {
  return Math.max(...wanted.flatMap((row, t) => Array.from(row, (value, i) => Math.abs(value - got[t]![i]!))));
}

describe.each(Object.entries(shapes))("%s", (name, shape) => {
  const at = (what: string) => join(folder, name.replaceAll(" ", "-"), what);
  let model: Model;
  beforeAll(async () => {
    await writeCheckpointFolder(at("source"), shape);
    model = readModelFolder(at("source"));
    await importModel(at("source"), at("bundle"), { type: "F32" });
  });

  test("the bundle in llama.cpp is the reference, dense and under a mask, on the prompt as its template has it", async () => {
    using opened = new InstructionModel(at("bundle"));
    const { bundle, tokenizer } = opened;
    const ids = opened.promptIds("abc");
    expect([...ids].filter((id) => id === 1)).toHaveLength(shape.addsBos ? 1 : 0);
    expect(ids[0] === 1).toBe(shape.addsBos);
    expect(tokenizer.eosId).toBe(2);
    const { numLayers, ffnWidth } = bundle;
    const dense = await run(bundle, fullMask(numLayers, ffnWidth), ids);
    expect(worst(dense.logits, forward(model, ids).logits)).toBeLessThan(1e-4);
    const mask = randomMask(numLayers, ffnWidth, 32, "soft", 5);
    const masked = await run(bundle, mask, ids);
    expect(worst(masked.logits, forward(model, ids, channelWeights(mask)).logits)).toBeLessThan(1e-4);
  });

  test("the graph on an imported checkpoint says what llama.cpp says", async () => {
    await importModel(at("source"), at("checkpoint"), { as: "checkpoint" });
    const opened = await openModel(at("checkpoint"), quiet);
    const ids = Int32Array.from({ length: 24 }, (_, t) => (37 * t + 11) % 256);
    const labels = ids.map((_, t) => ids[t + 1] ?? -100);
    using bundle = new Bundle(at("bundle"));
    const { logits } = await run(bundle, fullMask(bundle.numLayers, bundle.ffnWidth), ids);
    const nll = logits.slice(0, -1).reduce((sum, row, t) => {
      const largest = row.reduce((a, b) => Math.max(a, b));
      const norm = row.reduce((total, x) => total + Math.exp(x - largest), 0);
      return sum + largest + Math.log(norm) - row[labels[t]!]!;
    }, 0);
    const [score] = await opened.model.score([{ ids, labels }]);
    await opened.close();
    expect(score!.tokens).toBe(23);
    expect(Math.abs(score!.nll - nll)).toBeLessThan(2e-3);
  });

  test("an exported sub-network, imported again from either form, says the same", async () => {
    using opened = new InstructionModel(at("bundle"));
    const { bundle } = opened;
    const mask = randomMask(bundle.numLayers, bundle.ffnWidth, 32, "soft", 6);
    const ids = opened.promptIds("the cab");
    const wanted = await run(bundle, mask, ids);
    await exportSubnetwork(bundle, mask, at("export"), {});
    for (const [what, source] of [
      ["again-gguf", join(at("export"), "model-keep.gguf")],
      ["again-folder", at("export")],
    ] as const) {
      await importModel(source, at(what), { type: "F32" });
      using again = new InstructionModel(at(what));
      expect(again.promptIds("the cab")).toEqual(ids);
      const got = await run(again.bundle, fullMask(bundle.numLayers, 32), ids);
      expect(worst(got.logits, wanted.logits)).toBeLessThan(1e-4);
      expect(got.answer).toEqual(wanted.answer);
    }
  });
});

test("code that a checkpoint would have transformers run is left out, and that is said", async () => {
  const source = join(folder, "auto-map");
  await writeCheckpointFolder(source, shapes.Qwen3!);
  const path = join(source, "config.json");
  const autoMap = { auto_map: { AutoModelForCausalLM: "modeling_evil.Evil" } };
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...autoMap }));
  const { notes } = await importModel(source, join(folder, "auto-map-bundle"), { type: "F16" });
  expect(notes.join()).toContain("auto_map");
});
