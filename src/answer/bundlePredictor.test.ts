import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import type { Bundle } from "../bundle/bundle.ts";
import type { EngineProvider } from "../engine/engine.ts";
import { ContextLengthError } from "../errors.ts";
import { writeGguf } from "../formats/gguf.ts";
import { string, uint32 } from "../formats/ggufValues.ts";
import { openBundleFeature } from "./bundlePredictor.ts";

test("a predictor's context grows with the texts that it reads, up to its model's: each token of it costs a row of logits", async () => {
  const backbone = join(temporaryFolder(), "predictor.gguf");
  const metadata = new Map([
    ["general.architecture", string("llama")],
    ["llama.embedding_length", uint32(4)],
    ["llama.context_length", uint32(3000)],
  ]);
  await writeGguf(backbone, metadata, [], []);
  const said: string[] = [];
  const engines = {
    async openFeature(_, { contextLength, signal }) {
      signal?.throwIfAborted();
      said.push(`open ${contextLength}`);
      return {
        async feature(ids) {
          expect(ids.length).toBeLessThan(contextLength);
          said.push(`read ${ids.length}`);
          return Float32Array.of(ids.length);
        },
        async [Symbol.asyncDispose]() {
          said.push(`close ${contextLength}`);
        },
      };
    },
  } as Pick<EngineProvider, "openFeature"> as EngineProvider;
  const bundle = { predictor: { backbone }, manifest: { predictorPooling: "last" } } as Bundle;
  {
    const opening = new AbortController();
    await using feature = await openBundleFeature(engines, bundle, { signal: opening.signal });
    opening.abort(); // whoever opened it may be gone
    const lengths = [511, 512, 20, 2999]; // all at a time
    const features = await Promise.all(lengths.map((length) => feature.feature(new Int32Array(length))));
    expect(features.map(([length]) => length)).toEqual(lengths);
    await expect(feature.feature(new Int32Array(3000))).rejects.toThrow(ContextLengthError);
    await feature.feature(new Int32Array(7));
  }
  const reads = ["open 512", "read 511", "open 1024", "close 512", "read 512", "read 20"];
  expect(said).toEqual([...reads, "open 3000", "close 1024", "read 2999", "read 7", "close 3000"]);
});
