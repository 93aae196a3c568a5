/**
 * A model made smaller for a task, end to end: a small trained model's own answers, and a random one's with gold answers. What comes is an ordinary model, whole or not
 * at all; a job that was stopped goes on to the same.
 */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { InstructionModel } from "../src/answer/instructionModel.ts";
import { DEFAULT_MODEL } from "../src/bundle/pulledModels.ts";
import { exportSubnetwork } from "../src/export/export.ts";
import { verifyExport } from "../src/export/verify.ts";
import type { SpecializeEvent } from "../src/specialize/specialization.ts";
import { type SpecializeOptions, specialize } from "../src/specialize/specialize.ts";
import { shapes, writeCheckpointFolder } from "./support/checkpoints.ts";
import { inProcess } from "./support/cli.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-specialize-"));
const at = (...parts: string[]) => join(folder, ...parts);
afterAll(() => rmSync(folder, { recursive: true }));

const task = "What is the plural of {input}?";
const words =
  "cat dog house car tree book table chair window door garden river mountain street village teacher student doctor farmer singer king queen bird horse cow pig sheep goat lamp clock ship boat train plane road bridge hill lake field wall".split(
    " ",
  );

beforeAll(async () => {
  using model = new InstructionModel(DEFAULT_MODEL);
  const { mask } = await model.mask("What is the plural of wolf?");
  await exportSubnetwork(model.bundle, mask, at("plural"), { formats: ["hf"] }); // an ordinary model of 128 channels that answers this
  writeFileSync(at("words.txt"), words.join("\n"));
  const rows = words.map((word) =>
    JSON.stringify({ instruction: "Spell it.", input: word, output: [...word].join(" ") }),
  );
  writeFileSync(at("gold.jsonl"), `${rows.join("\n")}\n`);
}, 60_000);

async function events(source: string, out: string, options: SpecializeOptions): Promise<SpecializeEvent[]> {
  const all: SpecializeEvent[] = [];
  for await (const event of specialize(at(source), at(out), { threads: 1, ...options })) all.push(event);
  return all;
}

const resultOf = (all: readonly SpecializeEvent[]) => {
  const last = all.at(-1)!;
  if (last.kind !== "result") throw new Error(`ended with ${last.kind}`);
  return last.result;
};
const plural = { task, prompts: join(folder, "words.txt"), tokens: 20_000, maxTokens: 12 } satisfies SpecializeOptions;

test("on its own answers: half of the FFN, closer to the whole model than before, and ordinary models of the same weights", {
  timeout: 300_000,
}, async () => {
  const result = resultOf(await events("plural", "small", plural));
  expect(result).toMatchObject({ tFfn: 64, dFfn: 128, data: { answers: "own", prompts: "given" } });
  expect(result.after.kl).toBeLessThan(result.before.kl);
  expect(result.parameters.small).toBeLessThan(result.parameters.dense);
  expect(readdirSync(at("small")).sort()).toEqual(
    [
      "README.md",
      "base.gguf",
      "ffn.gguf",
      "gguf",
      "huggingface",
      "ifprune.json",
      "report.html",
      "specialize.json",
      "tokenizer.json",
      "chat_template.jinja",
    ].sort(),
  );
  expect(existsSync(at("small.job"))).toBe(false);
  expect((await verifyExport(at("small/huggingface"))).source).toBeDefined();
  expect(readFileSync(at("small/README.md"), "utf8")).toContain("64 of 128 channels");
  expect(JSON.parse(readFileSync(at("small/specialize.json"), "utf8"))).toEqual(JSON.parse(JSON.stringify(result)));
  using model = new InstructionModel(at("small"));
  await using answer = await model.ask(task, { input: "cat", maxTokens: 12 });
  expect((await answer.text()).trim()).not.toBe("");
});
