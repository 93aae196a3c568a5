import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FileError, OptionError } from "../errors.ts";
import type { MetricsRow } from "../train/runLog.ts";
import { writeReport } from "./report.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ifprune-report-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const at = (step: number) => ({ step, stage: step < 5 ? "pretrain" : "sft" });
const rows: MetricsRow[] = [
  {
    kind: "run",
    name: "tiny <run>",
    recipe: { name: "tiny", llm: { width: 8 } },
    parameters: { llm: 1_250_000, predictor: 3000 },
  },
  ...Array.from(
    { length: 10 },
    (_, step): MetricsRow => ({
      kind: "train",
      ...at(step),
      loss: 5 / (step + 1),
      tokens: 900,
      labels: 300,
      positions: 1000,
      gradientNorm: 1,
      learningRate: { llm: 0.001, predictor: step < 5 ? 0 : 0.002 },
      ms: 100,
    }),
  ),
  {
    kind: "evaluation",
    ...at(9),
    examples: 4,
    loss: { own: 1, dense: 0.9, foreign: 3 },
    accuracy: { own: 0.5, dense: 0.6, foreign: 0.1 },
    exactMatch: { own: 0.25, dense: 0.5, foreign: 0 },
  },
  {
    kind: "masks",
    ...at(9),
    predictorInput: "prompt",
    overlapWithin: [0.9, null],
    overlapAcross: [0.5, 0.4],
    chance: 0.125,
    scoreStd: [0.3, 0.4],
    everUsed: [0.5, 0.8],
    meanLambda: [0.85, 0.8],
    domains: ["rhymes", "sums"],
    matrix: [
      [0.9, 0.45],
      [0.45, null],
    ],
  },
];

function writeRun(name: string, tail = ""): string {
  const run = join(folder, name);
  mkdirSync(run, { recursive: true });
  writeFileSync(join(run, "metrics.jsonl"), rows.map((row) => `${JSON.stringify(row)}\n`).join("") + tail);
  return run;
}

function writeJson(name: string, value: unknown): string {
  const path = join(folder, name);
  writeFileSync(path, JSON.stringify(value));
  return path;
}

function report(...inputs: string[]): string {
  const out = join(folder, "report.html");
  writeReport(inputs, out);
  return readFileSync(out, "utf8");
}

const tasks = (model: string, mask: string, accuracy: number) => ({
  model,
  data: "data/test-inputs.jsonl",
  mask,
  tasks: [{ task: "sums", count: 3, accuracy, loss: 1 }],
  mean: { count: 3, accuracy, loss: 1 },
});

describe("a run's report", () => {
  test("shows every measure of the log, the stages and the recipe", () => {
    const html = report(writeRun("run"));
    for (const title of [
      "Training loss",
      "Learning rate",
      "Tokens per second",
      "Gradient norm",
      "Held-out loss by mask",
      "Held-out exact match by mask",
      "Overlap of masks made from the prompt",
      "Use of channels, masks made from the prompt",
      "Overlap by layer at step 9",
      "Overlap by domain at step 9",
    ]) {
      expect(html).toContain(title);
    }
    for (const name of [
      "own",
      "dense",
      "foreign",
      "same domain",
      "other domain",
      "chance",
      "rhymes",
      "pretrain",
      "sft",
    ]) {
      expect(html).toContain(name);
    }
    expect(html).toMatch(/parameters, llm<\/dt><dd>1\.25M/);
    expect(html).toMatch(/tokens per second<\/dt><dd>9000/);
    expect(html).toMatch(/padding<\/dt><dd>10 %/);
    expect(html).toContain("&#34;width&#34;: 8");
  });

  test("is one file that asks nothing of the network, and its tags close", () => {
    const html = report(writeRun("run"));
    expect(html).not.toMatch(/https?:|<script|<link|<img|@import|url\(/);
    const open: string[] = [];
    for (const [tag, slash, name] of html
      .replace(/<!doctype html>|<style>[^<]*<\/style>/g, "")
      .matchAll(/<(\/?)([a-z][a-z0-9]*)[^>]*>/g)) {
      if (tag.endsWith("/>") || name === "meta") continue;
      if (slash) expect(open.pop()).toBe(name);
      else open.push(name!);
    }
    expect(open).toEqual([]);
    expect(html).toContain("tiny &#60;run&#62;");
    expect(html).not.toMatch(/NaN|undefined/);
  });

  test("can be made while the run goes on: a last line that is half written is left out", () => {
    expect(report(writeRun("live", '{"kind":"tra'))).toContain("Training loss");
  });
});

describe("evaluations", () => {
  test("of the same data stand side by side, one column per model and mask", () => {
    const masks = { chance: 0.25, overlapWithin: [0.9, 0.7], overlapAcross: [0.4, null] };
    const html = report(
      writeJson("a.json", tasks("runs/source", "dense", 0.5)),
      writeJson("b.json", { ...tasks("runs/ifp", "input", 2 / 3), masks }),
      writeJson("c.json", {
        model: "runs/source",
        data: "novel.txt",
        mask: "dense",
        perplexity: 12.345,
        tokens: 99,
        tokenAccuracy: 0.4,
      }),
    );
    expect(html).toContain('<th scope="col">source · dense</th><th scope="col">ifp · input</th>');
    expect(html).toContain('<th scope="row">sums</th><td>50.0</td><td>66.7</td>');
    expect(html).toContain('<th scope="row">overlap of masks within a task</th><td>–</td><td>80.0</td>');
    expect(html).toContain('<th scope="row">source · dense</th><td>12.35</td><td>40.0</td><td>99</td>');
  });

  test("have all of what made the masks over their columns, of files the name", () => {
    const masks = ["text, sub/short.txt", "glass, sub/short.txt", "sub/mask.json", "own, random"];
    const html = report(...masks.map((mask, i) => writeJson(`mask-${i}.json`, tasks("models/m", mask, 0.5))));
    for (const label of ["text, short.txt", "glass, short.txt", "mask.json", "own, random"])
      expect(html).toContain(`m · ${label}<`);
  });
});

describe("bad input is a typed error that names the file, and writes nothing", () => {
  const out = () => join(folder, "never.html");
  test.each([
    ["no inputs", () => [], OptionError, /at least one run folder/],
    [
      "a folder without a log",
      () => [folder],
      FileError,
      /wanted a run folder, its metrics\.jsonl or an evaluation's \.json, got another/,
    ],
    ["JSON of another kind", () => [writeJson("other.json", { a: 1 })], FileError, /other\.json: .*ifprune eval/],
    ["a line that is not JSON", () => [writeRun("bad", "oops\n")], FileError, /line 14/],
  ] as const)("%s", (_, inputs, type, message) => {
    expect(() => writeReport(inputs(), out())).toThrow(type);
    expect(() => writeReport(inputs(), out())).toThrow(message);
    expect(existsSync(out())).toBe(false);
  });

  test("an output in a folder that does not exist", () => {
    expect(() => writeReport([writeRun("run")], join(folder, "nowhere", "report.html"))).toThrow(FileError);
  });
});
