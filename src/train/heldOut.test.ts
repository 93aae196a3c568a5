/** Held-out questions: which are taken, what a mean over them weighs alike, and what a run makes of few of them. */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { fixtures, temporaryFolder } from "../../test/support/models.ts";
import { FileError } from "../errors.ts";
import { DEFAULT_PROMPT_TEMPLATE, PromptFormat } from "../text/prompt.ts";
import { type HeldOutExample, heldOutExamples, kindsOf } from "./heldOut.ts";
import { readRecipe } from "./recipe/read.ts";
import { trainRecipe } from "./run.ts";
import { readRunLog } from "./runLog.ts";
import { makeTokenizer } from "./runStart.ts";

const example = (file: string, domain: string): HeldOutExample => {
  const none = new Int32Array();
  return { file, domain, prompt: "", ids: none, labels: none, predictorPrompt: none, predictorInstruction: none };
};

test("a file of many tasks weighs as much as a file of one; of a single file its tasks count", () => {
  const rules = [example("rules", "sum"), example("rules", "plural"), example("rules", "antonyms")];
  expect(kindsOf([...rules, example("code", "code")])).toEqual(["rules", "rules", "rules", "code"]);
  expect(kindsOf(rules)).toEqual(["sum", "plural", "antonyms"]);
});

const tiny = join(fixtures, "tiny");
const question = { instruction: "What is it?", input: "a cat", output: "yes" };
const lines = (rows: readonly object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

async function format(): Promise<PromptFormat> {
  const file = readRecipe(join(tiny, "recipe.json"));
  const tokenizer = await makeTokenizer(file, undefined, join(temporaryFolder(), "tokenizer.json"));
  return new PromptFormat(tokenizer, DEFAULT_PROMPT_TEMPLATE);
}

test("of a large and a small file a limit takes the same number, where they have it", async () => {
  const folder = temporaryFolder();
  const [large, small] = [join(folder, "large.jsonl"), join(folder, "small.jsonl")];
  writeFileSync(large, lines(Array.from({ length: 100 }, (_, i) => ({ ...question, input: `number ${i}` }))));
  writeFileSync(small, lines([1, 2, 3].map((i) => ({ ...question, input: `letter ${i}` }))));
  const read = await format();
  const taken = async (limit?: number) => {
    const examples = await heldOutExamples([large, small], read, 200, limit);
    return [large, small].map((path) => examples.filter(({ file }) => file === path).length);
  };
  expect([await taken(), await taken(20), await taken(4), await taken(1)]).toEqual([
    [100, 3],
    [17, 3],
    [2, 2],
    [0, 1],
  ]);
});

test("where none is short enough, and where a row cannot be asked, the file is named", async () => {
  const path = join(temporaryFolder(), "questions.jsonl");
  const read = await format();
  writeFileSync(path, lines([question]));
  await expect(heldOutExamples(path, read, 3)).rejects.toThrow(/wanted questions of at most 3 tokens, got none/);
  writeFileSync(path, lines([question, { ...question, instruction: "{input.1} plus {input.2}", input: "3" }]));
  const refused = heldOutExamples(path, read, 200);
  await expect(refused).rejects.toThrow(FileError);
  await expect(refused).rejects.toThrow(/line 2: .+\{input\.2\}/);
});

test("questions of one task are measured without another's masks, and the run goes on", {
  timeout: 120_000,
}, async () => {
  const folder = temporaryFolder();
  cpSync(tiny, folder, { recursive: true });
  writeFileSync(join(folder, "one.jsonl"), lines([question, { ...question, input: "a dog" }]));
  const recipe = JSON.parse(readFileSync(join(folder, "recipe.json"), "utf8"));
  const sft = recipe.stages.find(({ kind }: { kind: string }) => kind === "sft");
  const stages = [{ ...sft, steps: 2, warmupSteps: 1, evaluate: { every: 1, path: "one.jsonl" } }];
  writeFileSync(join(folder, "one.json"), JSON.stringify({ ...recipe, stages }));
  const runDir = join(folder, "run");
  for await (const _ of trainRecipe(readRecipe(join(folder, "one.json")), { runDir, threads: 1 }));
  const evaluations = readRunLog(join(runDir, "metrics.jsonl")).filter(({ kind }) => kind === "evaluation");
  expect(evaluations).toHaveLength(2);
  for (const { loss } of evaluations as { loss: Record<string, number> }[])
    expect(Object.keys(loss).sort()).toEqual(["dense", "generic", "hard", "perInput", "perTask"]);
});
