import { expect, test } from "vitest";
import { blockBundle, blockMask } from "../../test/support/blocks.ts";
import { randomModel, temporaryFolder } from "../../test/support/models.ts";
import type { Form } from "../bundle/formOptions.ts";
import type { EngineProvider } from "../engine/engine.ts";
import { OptionError } from "../errors.ts";
import { DEFAULT_ENGINES } from "./defaultEngines.ts";
import { OneEngine } from "./oneEngine.ts";

const model = randomModel({ family: "llama", ffnWidth: 128, vocabSize: 64 }, 5);
const masks = [2, 3, 3].map((k, seed) => blockMask(model.config, 16, k, seed));
const ids = Int32Array.of(1, 9, 8, 7);

test("either form gives the same tokens; within the resident model masks that keep as many take turns", async () => {
  using bundle = await blockBundle(model, 16, "F32");
  const cache = { root: temporaryFolder() };
  let opened = 0;
  const engines: EngineProvider = {
    ...DEFAULT_ENGINES,
    open: (...args) => {
      opened++;
      return DEFAULT_ENGINES.open(...args);
    },
  };
  const answers = async (form: Form) => {
    await using one = new OneEngine({ bundle, engines }, 32, 1, { form, threads: 1, kvType: "F32", cache });
    const said: number[][] = [];
    for (const i of [0, 1, 2, 2, 1]) {
      const tokens: number[] = [];
      const engine = await one.of(`mask ${i}`, masks[i]!);
      for await (const id of engine.generate(ids, { maxTokens: 12, ignoreEos: true })) tokens.push(id);
      said.push(tokens);
    }
    return said;
  };
  const gathered = await answers("gathered");
  expect(new Set(gathered.map(String)).size).toBe(3);
  expect(opened).toBe(4);
  expect(await answers("resident")).toEqual(gathered);
  expect(opened).toBe(4 + 2);
});

test("its engines are steady unless told otherwise", async () => {
  using bundle = await blockBundle(model, 16, "F32");
  const seen: unknown[] = [];
  const open: EngineProvider["open"] = (path, options) => {
    seen.push(options.steady);
    return DEFAULT_ENGINES.open(path, options);
  };
  for (const steady of [undefined, false]) {
    const options = { steady, cache: { root: temporaryFolder() } };
    await using one = new OneEngine({ bundle, engines: { ...DEFAULT_ENGINES, open } }, 32, 1, options);
    await one.of("mask", masks[0]!);
  }
  expect(seen).toEqual([true, false]);
});

test("a soft mask has no resident form", async () => {
  using bundle = await blockBundle(model, 16, "F32");
  const soft = { ...masks[0]!, lambda: masks[0]!.layers.map((layer) => new Float32Array(layer.length).fill(0.5)) };
  await using one = new OneEngine({ bundle, engines: DEFAULT_ENGINES }, 32, 1, { form: "resident" });
  await expect(one.of("soft", soft)).rejects.toThrow(OptionError);
});
