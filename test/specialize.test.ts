/**
 * A model made smaller for a task, end to end: a small trained model's own answers, and a random one's with gold answers. What comes is an ordinary model, whole or not
 * at all; a job that was stopped goes on to the same.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { InstructionModel } from "../src/answer/instructionModel.ts";
import { importModel } from "../src/bundle/importModel.ts";
import { TINY_MODEL } from "../src/bundle/pulledModels.ts";
import { FileError, InputError, OptionError } from "../src/errors.ts";
import { exportSubnetwork } from "../src/export/export.ts";
import { verifyExport } from "../src/export/verify.ts";
import { readModelFolder } from "../src/formats/huggingface.ts";
import type { SpecializeEvent } from "../src/specialize/specialization.ts";
import { type SpecializeOptions, specialize } from "../src/specialize/specialize.ts";
import { jsonLines, partHeldOut, readRows } from "../src/specialize/taskPrompts.ts";
import { forward } from "./reference/decoder.ts";
import { shapes, writeCheckpointFolder } from "./support/checkpoints.ts";
import { inProcess } from "./support/cli.ts";

vi.mock("../src/bundle/importModel.ts", { spy: true }); // does as it does, but for what one test says

const folder = mkdtempSync(join(tmpdir(), "ifprune-specialize-"));
const at = (...parts: string[]) => join(folder, ...parts);
afterAll(() => rmSync(folder, { recursive: true }));

const words =
  "cat dog house car tree book table chair window door garden river mountain street village teacher student doctor farmer singer king queen bird horse cow pig sheep goat lamp clock ship boat train plane road bridge hill lake field wall".split(
    " ",
  );

beforeAll(async () => {
  using model = new InstructionModel(TINY_MODEL);
  const { mask } = await model.mask("What is the plural of wolf?");
  await exportSubnetwork(model.bundle, mask, at("plural"), { formats: ["hf"] }); // an ordinary model of 128 channels that answers this
  const { config, ...rest } = shapes["Qwen2.5"]!;
  await writeCheckpointFolder(at("random"), { ...rest, config: { ...config, contextLength: 128 } });
  const configPath = at("random/tokenizer_config.json");
  const { chat_template: _, ...withoutTemplate } = JSON.parse(readFileSync(configPath, "utf8"));
  writeFileSync(configPath, JSON.stringify(withoutTemplate));
  writeFileSync(at("words.txt"), words.join("\n"));
  writeFileSync(at("twenty.txt"), words.slice(0, 20).join("\n"));
  writeFileSync(at("few.txt"), words.slice(0, 10).join("\n"));
  writeFileSync(at("line.txt"), words.join(" "));
  writeFileSync(at("long.txt"), words.map((word) => `${word} `.repeat(60)).join("\n"));
  const rows = words.map((word) =>
    JSON.stringify({ instruction: "Spell it.", input: word, output: [...word].join(" ") }),
  );
  writeFileSync(at("gold.jsonl"), `${rows.join("\n")}\n`);
}, 120_000);

/** Events of a job to its end, or to the first that `isEnough`. */
async function events(
  source: string,
  out: string,
  options: SpecializeOptions,
  isEnough: (event: SpecializeEvent) => boolean = () => false,
): Promise<SpecializeEvent[]> {
  const all: SpecializeEvent[] = [];
  const stop = new AbortController();
  for await (const event of specialize(source, out, { threads: 1, ...options, signal: stop.signal })) {
    all.push(event);
    if (isEnough(event)) stop.abort(new Error("stopped"));
  }
  return all;
}

/** Bytes of a folder's files, each once however many names it has. */
function sizeOf(path: string): number {
  const files = readdirSync(path, { recursive: true, encoding: "utf8" })
    .map((name) => statSync(join(path, name)))
    .filter((one) => one.isFile());
  const sizes = new Map(files.map(({ ino, size }) => [ino, size]));
  return [...sizes.values()].reduce((sum, size) => sum + size, 0);
}

function resultOf(all: readonly SpecializeEvent[]) {
  const last = all.at(-1)!;
  if (last.kind !== "result") throw new Error(`ended with ${last.kind}`);
  return last.result;
}

/** What is answered are the likeliest tokens of the export, by the reference, or as good as that. */
async function answersAsItsExport(name: string, prompt: string): Promise<void> {
  using model = new InstructionModel(at(name));
  await using answer = await model.ask(prompt, { maxTokens: 4, kvType: "F32" });
  const tokens: number[] = [];
  for await (const id of answer.tokens) tokens.push(id);
  const read = [...model.promptIds(prompt), ...tokens];
  const { logits } = forward(readModelFolder(at(name, "huggingface")), read);
  for (const [i, id] of tokens.entries()) {
    const own = logits[read.length - tokens.length - 1 + i]!;
    expect(own[id]!).toBeGreaterThan(Math.max(...own) - 0.05);
  }
}

test("on its own answers: closer to the whole model than before, and ordinary models of the same weights", {
  timeout: 300_000,
}, async () => {
  const task = "What is the plural of {input}?";
  const options = { task, prompts: at("words.txt"), keep: 0.25, tokens: 6_000, maxTokens: 12, licence: "CC0" };
  const result = resultOf(await events(at("plural"), at("small"), options));
  const prompts = { given: words.length, drafted: 0 };
  expect(result).toMatchObject({ tFfn: 32, dFfn: 128, data: { answers: "own", prompts, licence: "CC0" } });
  expect(result.after.kl).toBeLessThan(result.before.kl);
  expect(result.parameters.small).toBeLessThan(result.parameters.dense);
  expect(result.quantized.map(({ type }) => type)).toEqual(["Q8_0", "Q4_0"]);
  expect(result.quantized[0]!.kl).toBeLessThan(result.quantized[1]!.kl);

  expect(existsSync(at("small.job"))).toBe(false);
  for (const name of ["huggingface", "gguf/Q8_0", "gguf/Q4_0"]) {
    const { source } = await verifyExport(at("small", name)); // its source is the folder around it
    expect(source?.tensors).toBeGreaterThan(10);
  }
  const card = readFileSync(at("small/README.md"), "utf8");
  for (const part of [/32 of 128 channels/, /CC0/, /- whole: \w+/]) expect(card).toMatch(part);
  expect(card).toBe(readFileSync(at("small/huggingface/README.md"), "utf8"));
  expect(readFileSync(at("small/report.html"), "utf8")).toContain("<svg");
  expect(JSON.parse(readFileSync(at("small/specialize.json"), "utf8"))).toEqual(JSON.parse(JSON.stringify(result)));

  await answersAsItsExport("small", "What is the plural of cat?");
  expect((await inProcess("run", "--model", at("small"), "What is the plural of cat?")).stderr).not.toContain("masks");
});

test("drafts beside twenty prompts: asked about until they are taken, then learned from; held out are prompts given alone", {
  timeout: 120_000,
}, async () => {
  const pages: (readonly string[])[] = [];
  const confirm = async (drafts: readonly string[]) => {
    pages.push(drafts);
    return pages.length > 1;
  };
  const options: SpecializeOptions = { task: "What is the plural of {input}?", maxTokens: 12, confirm };
  const job = (isEnough?: (event: SpecializeEvent) => boolean) =>
    events(at("plural"), at("few"), { ...options, prompts: at("twenty.txt"), draft: 40 }, isEnough);
  await expect(job(({ kind }) => kind === "estimate")).rejects.toThrow("stopped");
  // So small a model drafts nothing of use: as if a call that was stopped after this had left better ones.
  const drafted = words.map((word) => `${JSON.stringify({ instruction: "…", output: `Input: ${word}` })}\n`);
  for (const name of ["drafts-asked.jsonl", "drafts.jsonl"]) writeFileSync(at("few.job", name), drafted.join(""));
  await expect(job()).rejects.toThrow(/drafts were not taken/);
  const isCut = (event: SpecializeEvent) => event.kind === "progress" && event.phase === "cut";
  await expect(job(isCut)).rejects.toThrow("stopped");
  await expect(job(isCut)).rejects.toThrow("stopped"); // what was taken is not asked about again
  const [own, others] = [words.slice(0, 20), words.slice(20)];
  expect(pages).toEqual([others, others]); // none that is given, or held out
  const [train, heldOut] = ["train", "heldout"].map((part) =>
    readRows(at("few.job", `${part}-prompts.jsonl`)).map(({ input }) => input!),
  );
  expect(heldOut!.length).toBe(8);
  expect([...train!, ...heldOut!].sort()).toEqual(words.toSorted());
  expect(heldOut!.filter((word) => !own.includes(word))).toEqual([]);
});

test("stopped in any phase it goes on to the same; without a share within the bound the nearest is built; gold is scored", {
  timeout: 300_000,
}, async () => {
  const options: SpecializeOptions = {
    examples: at("gold.jsonl"),
    keep: "auto",
    maxLoss: 1e-9,
    tokens: 6_000,
    maxTokens: 4,
  };
  const whole = await events(at("random"), at("whole"), options);
  const stops: ((event: SpecializeEvent) => boolean)[] = [
    (event) => event.kind === "progress" && event.phase === "import",
    (event) => event.kind === "row" && event.run === "tuned" && event.row.kind === "evaluation" && event.row.step > 2,
    (event) => event.kind === "progress" && event.phase === "cut" && event.done > 0,
    (event) => event.kind === "point",
    (event) => event.kind === "row" && event.run === "healed" && event.row.kind === "evaluation" && event.row.step > 2,
    (event) => event.kind === "progress" && event.phase === "compare" && event.done > 2,
    (event) => event.kind === "progress" && event.phase === "export",
  ];
  let largest = 0;
  for (const isEnough of stops) {
    await expect(events(at("random"), at("parts"), options, isEnough)).rejects.toThrow("stopped");
    expect(existsSync(at("parts"))).toBe(false);
    const made = readdirSync(at("parts.job"));
    largest = Math.max(largest, sizeOf(at("parts.job")));
    expect(made.filter((name) => /^short-\d+$/.test(name))).toEqual([]);
    if (made.includes("short-64.json")) mkdirSync(at("parts.job/short-64")); // as if killed before it went
  }
  const [once, parts] = [resultOf(whole), resultOf(await events(at("random"), at("parts"), options))];
  expect(parts.tuned).toEqual(once.tuned);
  expect(parts.auto).toEqual(once.auto);
  expect(parts.training).toEqual(once.training);
  expect(parts.after).toEqual(once.after);
  expect(parts.gold).toEqual(once.gold);
  expect(readFileSync(at("parts/ffn.gguf")).equals(readFileSync(at("whole/ffn.gguf")))).toBe(true);

  const { estimate } = whole.find(({ kind }) => kind === "estimate") as SpecializeEvent & { kind: "estimate" };
  expect(estimate.diskBytes).toBeGreaterThan(largest);
  expect(estimate.diskBytes).toBeLessThan(3 * largest);
  expect(once.auto).toMatchObject({ isReached: false, curve: [{ tFfn: 64 }, { tFfn: 32 }] });
  expect(once.gold!.dense).toEqual({ exact: expect.any(Number), contains: expect.any(Number) });
  // A random model finds one of 320 tokens as likely as another: what has learned the answers does not.
  expect(once.tuned!.loss).toBeLessThan(Math.log(320) - 0.5);
  expect(Math.log(once.perplexity.dense)).toBeCloseTo(once.tuned!.loss, 2);
  const notes = whole.flatMap((event) => (event.kind === "note" ? [event.text] : []));
  expect(notes.join("\n")).toMatch(/no chat template[\s\S]*No share was within 1e-9 nats/);
});

test("a family with another FFN, a scaled embedding and norms of its own goes through all of it; a held-out row longer than most is counted by nothing but what was left out", {
  timeout: 120_000,
}, async () => {
  const { config, ...rest } = shapes["Gemma 2"]!;
  await writeCheckpointFolder(at("gemma"), { ...rest, config: { ...config, contextLength: 512 } });
  const rows = readRows(at("gold.jsonl"));
  partHeldOut(rows, 0).heldOut[0]!.output = "x".repeat(300);
  writeFileSync(at("one-long.jsonl"), jsonLines(rows));
  const options = { examples: at("one-long.jsonl"), seed: 0, tokens: 2_000, maxTokens: 4 };
  const all = await events(at("gemma"), at("gemma-small"), options);
  const result = resultOf(all);
  expect(result).toMatchObject({ tFfn: 64, dFfn: 96, training: { planned: 2 } });
  expect(result.data).toMatchObject({ train: 32, heldOut: 7, tooLong: 1 });
  expect(all).toContainEqual({ kind: "note", text: expect.stringMatching(/left out: 1 prompts, 1 of them held out/) });
  const measured = all.flatMap((one) =>
    one.kind === "row" && one.row.kind === "evaluation" ? [one.row.examples] : [],
  );
  expect([...new Set(measured)]).toEqual([7]);
  await answersAsItsExport("gemma-small", "Spell it. cat");
});

test.each<[string, SpecializeOptions, new (...args: never[]) => Error, RegExp]>([
  ["nothing to learn", {}, OptionError, /wanted a task, prompts or examples/],
  ["an empty task", { task: " " }, OptionError, /wanted a task in words/],
  ["prompts and examples", { prompts: at("words.txt"), examples: at("gold.jsonl") }, OptionError, /got both/],
  [
    "drafts beside gold",
    { examples: at("gold.jsonl"), draft: 50 },
    OptionError,
    /or a number of drafts, which have none/,
  ],
  [
    "a temperature beside gold",
    { examples: at("gold.jsonl"), temperature: 0 },
    OptionError,
    /or a temperature of the whole model's own answers, got both/,
  ],
  [
    "ten prompts beside drafts",
    { prompts: at("few.txt"), draft: 50 },
    InputError,
    /at least 12 .* beside drafts, got 10/,
  ],
  ["a bound without auto", { prompts: at("words.txt"), maxLoss: 0.1 }, OptionError, /beside keep = "auto" only/],
  ["all channels", { prompts: at("words.txt"), keep: 1 }, OptionError, /leaves channels out, got 96 of 96/],
  ["ten prompts", { prompts: at("few.txt") }, InputError, /at least 32 different prompts, got 10/],
  ["prompts in one line", { prompts: at("line.txt") }, InputError, /got 1 of .*Write one a line/],
  ["a file that is none", { prompts: at("none.txt") }, FileError, /none\.txt/],
  [
    "long prompts",
    { prompts: at("long.txt") },
    InputError,
    /that the model has room for, got 0: 40 of 40 .*128 tokens/,
  ],
])("%s is refused, and nothing is left", async (_, options, kind, message) => {
  const job = events(at("random"), at("refused"), options);
  await expect(job).rejects.toThrow(kind);
  await expect(job).rejects.toThrow(message);
  expect(readdirSync(folder).filter((name) => name.startsWith("refused"))).toEqual([]);
});

test("a folder that is there, and one that cannot be made, are refused, and left as they are", async () => {
  const own = readdirSync(at("random"));
  await expect(events(at("random"), at("random"), { prompts: at("words.txt") })).rejects.toThrow(/which exists/);
  const within = events(at("random"), at("words.txt/out"), { prompts: at("words.txt") });
  await expect(within).rejects.toThrow(FileError);
  expect(readdirSync(at("random"))).toEqual(own);
  expect(readFileSync(at("words.txt"), "utf8")).toBe(words.join("\n"));
});

test("a model whose answers have no end is refused, and nothing is left", async () => {
  cpSync(at("random"), at("endless"), { recursive: true });
  for (const name of ["config.json", "generation_config.json", "tokenizer_config.json"]) {
    const { eos_token_id: _, eos_token: __, ...rest } = JSON.parse(readFileSync(at("endless", name), "utf8"));
    writeFileSync(at("endless", name), JSON.stringify(rest));
  }
  const job = events(at("endless"), at("refused"), { prompts: at("words.txt") });
  await expect(job).rejects.toThrow(FileError);
  await expect(job).rejects.toThrow(/wanted an eos_token_id/);
  expect(existsSync(at("refused.job"))).toBe(false);
});

test("a model that is none, or that was trained under masks, is refused; of one that answers nothing sound three answers are shown", {
  timeout: 120_000,
}, async () => {
  await expect(events(at("none"), at("masked"), { prompts: at("words.txt") })).rejects.toThrow(FileError);
  mkdirSync(at("none-inside"));
  symlinkSync("..", at("none-inside/up")); // what is beside a model is not looked through
  const folderOfNone = events(at("none-inside"), at("masked"), { prompts: at("words.txt") });
  await expect(folderOfNone).rejects.toThrow(/wanted a model, got a folder without config\.json/);
  await expect(events(TINY_MODEL, at("masked"), { prompts: at("words.txt") })).rejects.toThrow(/with a predictor/);
  const silent = events(at("random"), at("silent"), { prompts: at("words.txt"), maxTokens: 4 });
  await expect(silent).rejects.toThrow(InputError);
  await expect(silent).rejects.toThrow(
    /got 0 to \d+ prompts; \d+ without an end or text.*\n( .*→.*(has no end|is empty)\n){3}Allow longer answers/,
  );
  expect(existsSync(at("silent.job"))).toBe(false);
});

test("a dry run says what it takes and leaves nothing; a bundle and a checkpoint are models too", {
  timeout: 120_000,
}, async () => {
  await importModel(at("random"), at("bundle"), { type: "F16" });
  await importModel(at("random"), at("checkpoint"), { as: "checkpoint" });
  for (const source of ["bundle", "checkpoint"]) {
    const args = ["--examples", at("gold.jsonl"), "--out", at("dry"), "--threads", "1", "--dry-run", "--json"];
    const { stdout, code } = await inProcess("specialize", at(source), ...args);
    const last = JSON.parse(stdout.trimEnd().split("\n").at(-1)!);
    expect([code, last.kind]).toEqual([0, "estimate"]);
    expect(last.estimate.totalSeconds).toBeGreaterThan(0);
  }
  expect(readdirSync(folder).filter((name) => name.startsWith("dry"))).toEqual([]);
});

test("a dry run that is stopped leaves nothing, and takes nothing from a job that is under way", {
  timeout: 120_000,
}, async () => {
  const options = { examples: at("gold.jsonl") };
  const stopped = (dryRun: boolean) =>
    events(at("random"), at("stopped"), { ...options, dryRun }, ({ kind }) => kind !== "note");
  await expect(stopped(true)).rejects.toThrow("stopped");
  expect(existsSync(at("stopped.job"))).toBe(false);
  await expect(stopped(false)).rejects.toThrow("stopped");
  await expect(stopped(true)).rejects.toThrow("stopped");
  expect(existsSync(at("stopped.job"))).toBe(true);
});

test("a job may lie in its model's own folder", { timeout: 120_000 }, async () => {
  cpSync(at("random"), at("holder"), { recursive: true });
  const job = () =>
    events(at("holder"), at("holder/small"), { examples: at("gold.jsonl") }, ({ kind }) => kind === "estimate");
  for (let call = 0; call < 3; call++) await expect(job()).rejects.toThrow("stopped"); // not "another model"
});

test("a disk that is full in the first call leaves the job that the same call goes on with", async () => {
  const cause = Object.assign(new Error("no space left on device"), { code: "ENOSPC", syscall: "write" });
  vi.mocked(importModel).mockRejectedValueOnce(cause);
  const job = events(at("random"), at("full"), { prompts: at("words.txt") });
  await expect(job).rejects.toThrow(/Make room\. The same command goes on here/);
  expect(existsSync(at("full.job/job.json"))).toBe(true);
});

test("where nobody can be asked about drafts, it says so before it begins", async () => {
  for (const more of [[], ["--prompts", at("words.txt"), "--draft", "40"]]) {
    const args = ["--task", "Spell it.", "--out", at("drafted"), ...more];
    const { code, stderr } = await inProcess("specialize", at("random"), ...args);
    expect([code, stderr]).toEqual([1, expect.stringContaining("wanted --yes where nobody can be asked")]);
  }
  expect(existsSync(at("drafted.job"))).toBe(false);
});
