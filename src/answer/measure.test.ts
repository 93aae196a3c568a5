import { join } from "node:path";
import { expect, test } from "vitest";
import { FakeEngines } from "../../test/support/fakeEngines.ts";
import { stories, temporaryFolder } from "../../test/support/models.ts";
import { importModel } from "../bundle/importModel.ts";
import { addQuality, readManifest } from "../manifest.ts";
import { InstructionModel } from "./instructionModel.ts";
import { measureQuality } from "./measure.ts";

async function storiesBundle(): Promise<string> {
  const folder = join(temporaryFolder(), "bundle");
  await importModel(join(stories, "stories260K.bin"), folder, { tokenizer: join(stories, "tok512.bin"), type: "F32" });
  return folder;
}

test("a model is measured under every source without training; the manifest keeps it, and masks and shares are told by it", async () => {
  const folder = await storiesBundle();
  const shown: [number, number][] = [];
  {
    using model = new InstructionModel(folder);
    const onProgress = (done: number, total: number) => shown.push([done, total]);
    const quality = (await measureQuality(model, { text: "Once upon a time.", threads: 1, onProgress }))!;
    const { prompts, tokens, rows } = quality;
    expect([prompts, tokens]).toEqual([6, 6 * 24]); // a story does not end so soon
    expect(rows.map(({ source, tFfn }) => [source, tFfn])).toEqual(
      ["griffin", "weights", "glass", "text"].flatMap((source) => [160, 128, 96].map((tFfn) => [source, tFfn])),
    );
    expect(shown.at(-1)).toEqual([shown.length, shown.length]);
    for (const source of ["griffin", "weights", "glass", "text"]) {
      const [most, , least] = rows.filter((row) => row.source === source);
      expect(most!.loss).toBeLessThan(least!.loss);
      expect(most!.agreement).toBeGreaterThan(least!.agreement);
    }
    addQuality(folder, quality);
  }
  using measured = new InstructionModel(folder);
  const { rows } = measured.manifest.quality!;
  const [{ loss, agreement }] = rows as [(typeof rows)[number]];
  const scoreCache = { root: temporaryFolder() };
  const chosen = await measured.mask("Once upon a time", { keep: 0.9, scoreCache, threads: 1 });
  expect(chosen).toMatchObject({ source: "griffin", quality: { loss, agreement } });
  const auto = await measured.mask("Once upon a time", { keep: "auto", maxLoss: loss, scoreCache, threads: 1 });
  expect(auto.mask).toEqual(chosen.mask);
  const options = {
    keep: "auto",
    maxLoss: 1e-9,
    cache: { root: temporaryFolder() },
    maxTokens: 1,
    threads: 1,
  } as const;
  await using whole = await measured.ask("Once upon a time", options);
  expect([whole.mask.tFfn, whole.chosen]).toEqual([172, undefined]); // nothing costs so little
});

test("of a model that answers nothing there is nothing to measure, and what is stopped leaves nothing", async () => {
  const folder = await storiesBundle();
  using model = new InstructionModel(folder, { engines: new FakeEngines() });
  expect(await measureQuality(model)).toBeUndefined();
  await expect(measureQuality(model, { signal: AbortSignal.abort(new Error("stopped")) })).rejects.toThrow("stopped");
  expect(readManifest(folder, "ifprune-bundle").quality).toBeUndefined();
});
