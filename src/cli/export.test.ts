/** `export` and `verify` as commands: what they make is tested beside `src/export`. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { inProcess, succeed } from "../../test/support/cli.ts";
import { temporaryFolder } from "../../test/support/models.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { TINY_MODEL } from "../bundle/pulledModels.ts";

const task = "Write the plural form of the given word.";

beforeAll(() => {
  process.setMaxListeners(0); // every command listens for Ctrl-C
});

test("a task's sub-network is exported under the mask that `mask` shows, verified, and found changed", async () => {
  const folder = temporaryFolder();
  process.env.XDG_CACHE_HOME = join(folder, "cache");
  const out = join(folder, "plural");
  const { code, stdout, stderr } = await inProcess("export", TINY_MODEL, out, "--task", task, "--threads", "1");
  expect({ code, stdout }).toEqual({ code: 0, stdout: "" });
  expect(stderr).toMatch(
    /export .*\(100 %\)[\s\S]*plural: Hugging Face folder and GGUF, 13 % of the FFN \(128 of 1024 channels\)\n$/,
  );
  const mask = JSON.parse(readFileSync(join(out, "mask.json"), "utf8"));
  expect(mask).toEqual(JSON.parse(await succeed("mask", task, "--model", TINY_MODEL, "--json", "--threads", "1")));

  expect(await succeed("verify", out)).toMatch(
    /^9 files unchanged; opened: Hugging Face folder, GGUF\n\d+ tensors equal/,
  );
  const checked = JSON.parse(await succeed("verify", out, "--source", TINY_MODEL, "--json"));
  expect(checked).toEqual({
    files: 9,
    models: ["hf", "gguf"],
    source: { path: TINY_MODEL, tensors: expect.any(Number) },
  });
  // Whatever reads it prompts it as it was trained: its template says how.
  using source = new InstructionModel(TINY_MODEL);
  for (const [name, exported] of [
    ["folder", out],
    ["gguf", join(out, "model-keep.gguf")],
  ] as const) {
    await succeed("import", exported, join(folder, name));
    using again = new InstructionModel(join(folder, name));
    expect(again.promptIds(`${task} Input: wolf`)).toEqual(source.promptIds(`${task} Input: wolf`));
  }

  writeFileSync(join(out, "config.json"), `${readFileSync(join(out, "config.json"), "utf8")} `);
  expect(await inProcess("verify", out)).toMatchObject({
    code: 1,
    stdout: "",
    stderr: expect.stringMatching(/config.json: wanted/),
  });
});

test("a given mask, one format, another type", async () => {
  const folder = temporaryFolder();
  const [mask, out] = [join(folder, "mask.json"), join(folder, "out")];
  process.env.XDG_CACHE_HOME = join(folder, "cache");
  writeFileSync(mask, await succeed("mask", task, "--model", TINY_MODEL, "--json", "--threads", "1"));
  await succeed("export", TINY_MODEL, out, "--mask", mask, "--format", "gguf", "--type", "Q4_0");
  expect(await succeed("verify", out)).toMatch(/opened: GGUF\n/);
  expect(existsSync(join(out, "model-Q4_0.gguf"))).toBe(true);
  expect(existsSync(join(out, "config.json"))).toBe(false);
});

test.each([
  [[], /wanted one of --task, --instruction and --mask, got none/],
  [["--task", task, "--mask", "mask.json"], /'--task.*' cannot be used with option '--mask/],
  [["--task", task, "--instruction", task], /'--task.*' cannot be used with option '--instruction/],
  [["--mask", "mask.json", "--t-ffn", "32"], /'--t-ffn.*' cannot be used with option '--mask/],
  [["--task", task, "--format", "onnx"], /Wanted some of hf, gguf/],
  [["--task", task, "--format", "hf,hf"], /Wanted each format once/],
  [["--task", task, "--format", "hf", "--type", "F16"], /wanted the format gguf with type F16, got hf only/],
  [["--task", task, "--source", "griffin", "--t-ffn", "20"], /wants t_ffn in multiples of 32, got 20/],
])("%j is refused, and nothing is made", async (args, message) => {
  const folder = temporaryFolder();
  process.env.XDG_CACHE_HOME = join(folder, "cache");
  const out = join(folder, "out");
  const { code, stderr } = await inProcess("export", TINY_MODEL, out, ...args);
  expect(code).toBe(1);
  expect(stderr).toMatch(message);
  expect(existsSync(out)).toBe(false);
});
