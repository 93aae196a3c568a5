import { existsSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { blockBundle } from "../../test/support/blocks.ts";
import { randomModel, temporaryFolder } from "../../test/support/models.ts";
import { FormMeter } from "./formMeter.ts";

const model = randomModel({ family: "llama", ffnWidth: 128, vocabSize: 64 }, 5);
const onDisk = { isWritten: true, isLoaded: false, isOpen: false };
const states = { gathered: onDisk, resident: onDisk };
const asked = { promptTokens: 100, maxTokens: 1000 };
const request = { promptTokens: 100, answerTokens: 50 };

test("what was learned of a bundle is known to the next process, for any number of kept channels; a damaged file is learned anew", async () => {
  using bundle = await blockBundle(model, 16, "F32");
  const cache = { root: temporaryFolder() };
  const meter = new FormMeter(bundle, cache);
  const guess = meter.costs(48, states, asked);
  const times = { load: 10 * guess.gathered.load, prefill: 10 * guess.gathered.prefill };
  meter.learn("gathered", 48, times, request);
  const learned = meter.costs(48, states, asked);
  expect(learned.gathered.load).toBeCloseTo(10 * guess.gathered.load);
  expect(learned.gathered.decode).toBeCloseTo((50 / 128) * guess.gathered.decode); // answers are expected to be as short
  const other = new FormMeter(bundle, cache);
  expect(other.costs(48, states, asked)).toEqual(learned);
  expect(other.costs(96, states, asked).gathered.prefill).toBeGreaterThan(learned.gathered.prefill);
  writeFileSync(meter.path, '{"factors":{"gathered load":0}}');
  expect(new FormMeter(bundle, cache).costs(48, states, asked)).toEqual(guess);
});

test("a cache that cannot be written keeps nothing, and is no error", async () => {
  using bundle = await blockBundle(model, 16, "F32");
  const root = join(temporaryFolder(), "a file");
  writeFileSync(root, "");
  const meter = new FormMeter(bundle, { root });
  meter.learn("gathered", 48, { load: 1 }, request);
  expect(existsSync(dirname(meter.path))).toBe(false);
});
