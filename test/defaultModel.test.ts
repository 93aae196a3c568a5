/** The model that answers where none is named: whole, not too large for a repository, of permissive data, and it answers a first question. */
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InstructionModel } from "../src/answer/instructionModel.ts";
import { DEFAULT_MODEL } from "../src/bundle/pulledModels.ts";
import { evaluateTasks } from "../src/eval/evaluate.ts";
import { openModel } from "../src/eval/load.ts";
import { ChatTemplate } from "../src/text/chatTemplate.ts";
import { temporaryFolder } from "./support/models.ts";

describe("the default model", () => {
  let model: InstructionModel;
  beforeAll(() => {
    model = new InstructionModel();
  });
  afterAll(() => model[Symbol.dispose]());

  test("is whole, and of files that a repository takes", async () => {
    process.env.XDG_CACHE_HOME = temporaryFolder(); // where what was found whole before is remembered
    await model.verify();
    const sizes = readdirSync(DEFAULT_MODEL).map((name) => statSync(join(DEFAULT_MODEL, name)).size);
    expect(Math.max(...sizes)).toBeLessThan(90e6);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(130e6);
  });

  test("is of permissive data alone", () => {
    const licences = model.manifest.provenance.data.flatMap(({ licence }) => licence.split(" and "));
    const isPermissive = /^(Apache-2\.0|MIT|BSD-3-Clause|CC-BY-4\.0|public domain)$/;
    expect(licences.length).toBeGreaterThan(0);
    expect([...new Set(licences)].filter((licence) => !isPermissive.test(licence))).toEqual([]);
  });

  test("has trained masks of a part of its channels, and a chat template", () => {
    expect(model.defaultSource).toBe("predictor");
    expect(model.manifest.tFfn).toBeLessThan(model.bundle.ffnWidth);
    expect(model.format.template).toBeInstanceOf(ChatTemplate);
  });

  test("is held against masks of as many blocks at random, in its resident form", async () => {
    process.env.XDG_CACHE_HOME = temporaryFolder();
    const questions = join(temporaryFolder(), "questions.jsonl");
    writeFileSync(questions, '{"task": "capitals", "instruction": "Name a town.", "output": "Paris"}');
    await using opened = await openModel(DEFAULT_MODEL, { threads: 1 }, "resident");
    const report = await evaluateTasks(opened, questions, { control: "random" });
    expect(report.mean.loss).toBeGreaterThan(0);
  });

  test("knows the capital of France", async () => {
    process.env.XDG_CACHE_HOME = temporaryFolder();
    const options = { temperature: 0, maxTokens: 24, form: "gathered", threads: 1 } as const;
    await using answer = await model.ask("What is the capital of France?", options);
    expect(await answer.text()).toContain("Paris");
  });
});
