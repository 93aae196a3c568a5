import { join } from "node:path";
import { expect, test } from "vitest";
import { stories, temporaryFolder } from "../../test/support/models.ts";
import { groupBundle } from "../bundle/groupBundle.ts";
import { importModel } from "../bundle/importModel.ts";
import { OptionError } from "../errors.ts";
import { findChannelGroups } from "./channelGroups.ts";
import { InstructionModel } from "./instructionModel.ts";

test("a model in blocks answers whole as before, its masks without training are of whole blocks, and blocks keep more than as stored", async () => {
  const folder = temporaryFolder();
  const [plain, grouped] = [join(folder, "plain"), join(folder, "grouped")];
  await importModel(join(stories, "stories260K.bin"), plain, { tokenizer: join(stories, "tok512.bin"), type: "F32" });
  const cache = { root: join(folder, "cache") };
  using model = new InstructionModel(plain);
  await expect(findChannelGroups(model, 5)).rejects.toThrow(OptionError);
  const { order, kept } = await findChannelGroups(model, 4, { threads: 1, cache });
  expect(kept.stored).toBeLessThan(kept.grouped);
  expect(kept.grouped).toBeLessThanOrEqual(kept.free);
  await groupBundle(model.bundle, order, 4, grouped);

  using blocks = new InstructionModel(grouped);
  const options = { threads: 1, maxTokens: 20, kvType: "F32", cache } as const;
  const told = async (from: InstructionModel, how: object = {}) => {
    await using answer = await from.ask("Once upon a time", { ...options, ...how });
    return { form: answer.form, kept: answer.mask.tFfn, text: await answer.text() };
  };
  const whole = await told(model);
  expect(await told(blocks)).toEqual(whole);
  for (const source of ["griffin", "weights"] as const) {
    const half = { source, keep: 0.5, scoreCache: { root: join(folder, "scores") } };
    const gathered = await told(blocks, half);
    expect(gathered.kept % 4).toBe(0);
    expect(await told(blocks, { ...half, form: "resident" })).toEqual({ ...gathered, form: "resident" });
  }
});
