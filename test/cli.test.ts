/**
 * The commands, from a recipe and from an imported model to answers; and what each does with bad input: an exit code, one
 * message that says what was wanted and what came, and nothing left behind.
 */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  cpSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ifprune as program } from "../src/cli/program.ts";
import { describeFiles, writeManifest } from "../src/manifest.ts";
import { checkpointFolders } from "../src/train/checkpoint.ts";
import { entry, ifprune, inProcess, succeed } from "./support/cli.ts";
import { stories, storiesReference } from "./support/models.ts";
import { expectTrained, questionsOf } from "./support/trained.ts";

/** Of a shape that the test knows. */
type Json = ReturnType<typeof JSON.parse>;

const tiny = fileURLToPath(new URL("fixtures/tiny", import.meta.url));
const questions = join(tiny, "questions.jsonl");
const folder = mkdtempSync(join(tmpdir(), "ifprune-cli-"));
const at = (...names: string[]) => join(folder, ...names);
const env = { XDG_CACHE_HOME: at("cache") };
const llama2c = [join(stories, "stories260K.bin"), "--tokenizer", join(stories, "tok512.bin")] as const;
const [model, tokenizer] = [llama2c[0], llama2c[2]];
const oneThread = ["--threads", "1"];
const types = ["F32", "F16", "Q8_0"];
const minutes = (n: number) => n * 60_000;

/** The tiny recipe with changes, beside a copy of its data. */
function recipe(name: string, change: (recipe: Json) => void): string {
  const copy = at(name);
  cpSync(tiny, copy, { recursive: true });
  const path = join(copy, "recipe.json");
  const json = JSON.parse(readFileSync(path, "utf8"));
  change(json);
  writeFileSync(path, JSON.stringify(json));
  return path;
}

beforeAll(async () => {
  process.env.XDG_CACHE_HOME = env.XDG_CACHE_HOME;
  process.setMaxListeners(0); // every command listens for Ctrl-C
  const longer = recipe("longer", ({ stages, ...rest }) => {
    Object.assign(stages[3], { steps: 600, learningRate: { llm: 0.01, predictor: 0.001 }, evaluate: undefined });
    rest.checkpointEvery = 300;
  });
  await succeed("train", longer, "--runs", at("runs"));
  await succeed("import", model, at("stories"), ...llama2c.slice(1), "--licence", "MIT", "--checkpoint");
  await succeed("pack", at("stories"), at("stories-F16"), "--type", "F16");
  for (const type of types) await succeed("pack", at("runs/tiny"), at(type), "--type", type);
}, minutes(10));
afterAll(() => rmSync(folder, { recursive: true }));

test("help lists every command, and every command has help", async () => {
  const { stdout } = await inProcess("--help");
  for (const command of program().commands.map((command) => command.name())) {
    expect(stdout).toMatch(new RegExp(`^  ${command} `, "m"));
    const help = await inProcess(command, "--help");
    expect(help).toMatchObject({ code: 0, stderr: "" });
    expect(help.stdout).toContain(`Usage: ifprune ${command} `);
  }
});

describe("an imported model", () => {
  test("run dense tells the story that it must, and the cost of it as JSON", async () => {
    const { greedy_text } = storiesReference();
    const args = ["run", "Once upon a time", "--model", at("stories-F16"), "--dense", "--json", ...oneThread];
    const { code, stdout, stderr } = await ifprune([...args, "--max-tokens", "20"], { env });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const result = JSON.parse(stdout);
    expect(result).toEqual({
      answer: expect.any(String),
      keptShare: 1,
      form: "gathered",
      formReason: "dense",
      ms: {
        predict: 0,
        gather: expect.any(Number),
        load: expect.any(Number),
        prefill: expect.any(Number),
        decode: expect.any(Number),
      },
      promptTokens: 5,
      answerTokens: 20,
    });
    expect(result.answer.length).toBeGreaterThan(20);
    expect(greedy_text).toContain(`Once upon a time${result.answer}`);
  });

  test("runs under a mask that is given", async () => {
    const layers = Array.from({ length: 5 }, () => Array.from({ length: 86 }, (_, i) => 2 * i));
    writeFileSync(at("even.json"), JSON.stringify({ tFfn: 86, dFfn: 172, layers }));
    const args = ["run", "Once upon a time", "--model", at("stories-F16"), "--json", "--max-tokens", "3", ...oneThread];
    expect(JSON.parse(await succeed(...args, "--mask", at("even.json")))).toMatchObject({
      keptShare: 0.5,
      answerTokens: 3,
    });
  });

  test("runs under masks of every source that needs no training, of any budget, and keeps their scores", async () => {
    writeFileSync(at("story.txt"), storiesReference().greedy_text);
    const base = ["run", "Once upon a time", "--model", at("stories-F16"), "--max-tokens", "20", ...oneThread];
    const ask = async (...options: string[]) => JSON.parse(await succeed(...base, "--json", ...options));
    const { answer: dense } = await ask("--dense");
    const text = ["--text", at("story.txt")];
    const sources = { griffin: [], glass: text, text, weights: [], random: ["--seed", "3"] };
    for (const [source, options] of Object.entries(sources)) {
      const first = await ask("--source", source, ...options);
      expect(first).toMatchObject({ source, cached: false, keptShare: 96 / 172, answer: expect.stringMatching(/./) });
      const all = await ask("--source", source, ...options, "--t-ffn", "172");
      expect(all).toMatchObject({ source, cached: source !== "random", keptShare: 1, answer: dense });
    }
    const { stderr } = await inProcess(...base, "--keep", "50%");
    expect(stderr).toMatch(
      /^56 % of the FFN \(96 of 172 channels, the whole blocks nearest to 50 %\) · griffin \(untrained\) .+ ms, cached · gather .+\n$/,
    );
  });

  test("is asked in words, by standard input or about files", async () => {
    for (const [name, text] of [
      ["a.txt", "cat\n"],
      ["b.txt", "dog"],
    ] as const)
      file(name, text);
    const rest = ["--model", at("stories-F16"), "--dense", "--json", "--max-tokens", "3", ...oneThread];
    const said = (json: string) => JSON.parse(json).answer as string;
    const whole = said(await succeed("run", "Once upon a time", ...rest));
    expect(said(await succeed("run", "Once", "upon", "a", "time", ...rest))).toBe(whole);
    for (const words of [[], ["-"]])
      expect(said((await ifprune(["run", ...words, ...rest], { env, input: "Once upon a time\n" })).stdout)).toBe(
        whole,
      );
    const { code, stderr: complaint } = await ifprune(["run", ...rest], { env, input: Buffer.of(0x68, 0xff) });
    expect([code, complaint]).toEqual([1, expect.stringContaining("standard input: wanted text in UTF-8")]);
    const files = ["--file", at("a.txt"), "--file", at("b.txt")];
    const listed = said(await succeed("run", "Tell", ...files, ...rest));
    expect(listed).toBe(said(await succeed("run", "Tell", "--input", "cat\n\ndog", ...rest)));
    expect((await inProcess("run", "-", "--file", "-", ...rest)).stderr).toContain("wanted standard input once");
    const slot = "place for its input, and none was given";
    expect((await inProcess("run", "Tell of {input}", ...rest)).stderr).toContain(slot);
    expect((await inProcess("run", "Tell of {input}", "--input", "cats", ...rest)).stderr).not.toContain(slot);
  });

  test("runs dense unless told, and says why and what else there is", async () => {
    const run = ["run", "Once upon a time", "--model", at("stories-F16"), "--max-tokens", "5", ...oneThread];
    const [asked, dense] = [await inProcess(...run), await inProcess(...run, "--dense")];
    expect(asked.stdout).toBe(dense.stdout);
    expect(asked.stderr).toMatch(/^No trained masks: the whole model answers\. .+ --keep 90%\.\n100 % of the FFN /);
    expect(dense.stderr).not.toContain("No trained masks");
  });

  test("shows the mask of a prompt, the one that it runs under", async () => {
    const args = ["mask", "Once upon a time", "--model", at("stories-F16"), "--t-ffn", "96", ...oneThread];
    expect(await succeed(...args)).toMatch(
      /^96 of 172 channels kept .+ · griffin \(untrained\) .+ ms, cached\nlayer {2}0 /,
    );
    writeFileSync(at("griffin.json"), await succeed(...args, "--json"));
    const run = ["run", "Once upon a time", "--model", at("stories-F16"), "--json", ...oneThread];
    const given = JSON.parse(await succeed(...run, "--mask", at("griffin.json")));
    const { answer, keptShare } = JSON.parse(await succeed(...run, "--t-ffn", "96"));
    expect(given).toMatchObject({ answer, keptShare });
    expect(given.source).toBeUndefined();
  });

  test("eval of a text under every channel and under a mask", async () => {
    writeFileSync(at("text.txt"), storiesReference().greedy_text.repeat(4));
    const perplexity = async (...mask: string[]) => {
      const args = ["eval", at("stories"), at("text.txt"), ...mask, "--json", ...oneThread];
      return JSON.parse(await succeed(...args)).perplexity as number;
    };
    const [dense, half] = [await perplexity("--dense"), await perplexity("--mask", at("even.json"))];
    expect(dense).toBeGreaterThan(1);
    expect(half).toBeGreaterThan(dense);
  });
});

describe("a model of our own training", () => {
  const learned = questionsOf(tiny);
  beforeAll(() => expectTrained(at("runs/tiny"), learned), minutes(5));
  const ask = async (instruction: string, ...options: string[]) =>
    JSON.parse(await succeed("run", instruction, "--json", "--max-tokens", "8", ...oneThread, ...options));

  const evaluate = async (path: string, of: string) =>
    JSON.parse(await succeed("eval", path, of, "--json", ...oneThread)).mean as { loss: number; accuracy: number };

  test.each(["runs/tiny", ...types])(
    "answers all that it has learned, as %s",
    { timeout: minutes(5) },
    async (path) => {
      const rows = learned.map(({ prompt, answer }) => ({ task: "known", instruction: prompt, answers: [answer] }));
      const known = file("known.jsonl", rows.map((row) => JSON.stringify(row)).join("\n"));
      expect((await evaluate(at(path), known)).accuracy).toBe(1);
      if (!types.includes(path)) return; // `run` has bundles alone
      const [{ prompt, answer }] = learned as [(typeof learned)[number]];
      const { keptShare, ms, ...said } = await ask(prompt, "--model", at(path));
      expect([said.answer, keptShare]).toEqual([answer, 0.5]);
      expect(ms.predict).toBeGreaterThan(0);
    },
  );

  test("streams the answer to stdout and one line of what happened to stderr", async () => {
    const args = ["run", "Write the plural.", "--input", "cat", "--model", at("F32"), ...oneThread];
    const { code, stdout, stderr } = await inProcess(...args);
    expect({ code, stdout }).toEqual({ code: 0, stdout: "cats\n" });
    expect(stderr).toMatch(
      /^50 % of the FFN \(32 of 64 channels\) · predictor .+ ms · gather .+ · load .+ · prefill .+ · \d+ tokens\/s\n$/,
    );
  });

  test.each([
    ["Write the plural. Input: dog", "dogs"],
    ["Which letter comes first? Input: tree", "t"],
    ["The cat", expect.any(String)],
  ])("the mask of “%s”, saved and given, makes the same answer", async (instruction, answer) => {
    const mask = await succeed("mask", instruction, "--model", at("F32"), "--json", ...oneThread);
    const { tFfn, dFfn, layers, lambda } = JSON.parse(mask);
    expect([tFfn, dFfn, layers.length, lambda.length]).toEqual([32, 64, 2, 2]);
    writeFileSync(at("mask.json"), mask);
    const { ms: _, source, cached, ...predicted } = await ask(instruction, "--model", at("F32"));
    expect([source, cached]).toEqual(["predictor", false]);
    const { ms, ...given } = await ask(instruction, "--model", at("F32"), "--mask", at("mask.json"));
    expect(given).toEqual(predicted);
    expect(ms.predict).toBe(0);
    expect(given.answer).toEqual(answer);
  });

  test("two instructions: what their masks share, beside chance", async () => {
    const args = ["mask", "Write the plural.", "Which letter comes first?", "--model", at("F32"), ...oneThread];
    const { overlap, ...rest } = JSON.parse(await succeed(...args, "--json"));
    expect(rest).toEqual({ tFfn: 32, dFfn: 64, chance: 0.5 });
    expect(overlap).toHaveLength(2);
    expect(await succeed(...args)).toMatch(/two random masks: 50\.0 %\)\nlayer {2}0 .+ %\nlayer {2}1 .+ %\n$/);
    expect(await succeed("mask", "Write the plural.", "--model", at("F32"), ...oneThread)).toContain(
      "32 of 64 channels kept",
    );
  });

  test("eval of tasks under each mask, and a report of it", async () => {
    const scores: Record<string, number> = {};
    const flags = [
      "",
      "--per input",
      "--per task",
      "--control foreign",
      "--control generic",
      "--control random",
      "--dense",
    ];
    for (const mask of [...flags, `--mask ${at("mask.json")}`]) {
      const args = ["eval", at("runs/tiny"), questions, ...mask.split(" ").filter(Boolean), "--json", ...oneThread];
      const report = JSON.parse(await succeed(...args, "--out", at("eval.json")));
      expect(report.tasks.map(({ task }: { task: string }) => task)).toEqual(["letter", "plural"]);
      scores[mask] = report.mean.loss;
    }
    expect(scores[""]).toBe(scores["--per input"]);
    expect(new Set(Object.values(scores)).size).toBe(7); // each but the first is another mask
    expect(JSON.parse(readFileSync(at("eval.json"), "utf8")).answers).toHaveLength(8);
    await succeed("report", at("runs/tiny"), at("eval.json"), "--out", at("report.html"));
    expect(readFileSync(at("report.html"), "utf8")).toMatch(/^<!doctype html>[\s\S]*<\/html>\s*$/);
  });

  test("eval under masks that need no predictor, of any size, of a checkpoint and of a bundle", async () => {
    const lossOf = async (...mask: string[]) =>
      JSON.parse(await succeed("eval", ...mask.slice(0, 1), questions, ...mask.slice(1), "--json", ...oneThread)).mean
        .loss as number;
    for (const model of [at("runs/tiny"), at("F32")]) {
      const dense = await lossOf(model, "--dense");
      const losses: number[] = [];
      for (const source of ["griffin", "glass", "weights", "random", "text"]) {
        const flags = [
          "--source",
          source,
          ...(source === "text" || source === "glass" ? ["--text", at("story.txt")] : []),
        ];
        losses.push(await lossOf(model, ...flags)); // t_ffn of the model
        expect(await lossOf(model, ...flags, "--t-ffn", "64")).toBeCloseTo(dense, 5);
      }
      expect(new Set(losses).size).toBe(5);
    }
  });

  test("examples stand in the instruction: of an answer, its mask, an export and an evaluation", async () => {
    const shown = "Write the plural. Example: cat -> cats";
    const flags = ["--examples", file("examples.jsonl", '{"input": "cat", "output": "cats"}\n'), ...oneThread];
    const model = ["--model", at("F32")];
    const { ms: _, ...asked } = await ask("Write the plural.", "--input", "dog", ...model, ...flags);
    const { ms, ...composed } = await ask(`${shown} Input: dog`, ...model);
    expect(asked).toEqual(composed);
    expect(await succeed("mask", "Write the plural.", "--json", ...model, ...flags)).toBe(
      await succeed("mask", shown, "--json", ...model, ...oneThread),
    );
    const task = ["--task", "Write the plural.", "--format", "hf"];
    await succeed("export", at("F32"), at("plural"), ...task, ...flags);
    expect(readFileSync(at("plural/README.md"), "utf8")).toMatch(/Task \| Write the plural\. Example: cat -\\?> cats/);
    const evaluated = ["eval", at("runs/tiny"), questions, "--json", "--out", at("shown.json"), ...flags];
    await succeed(...evaluated);
    for (const { prompt } of JSON.parse(readFileSync(at("shown.json"), "utf8")).answers)
      expect(prompt).toMatch(/ Example: cat -> cats Input: /);
  });

  test("eval of a bundle is eval of its checkpoint", async () => {
    // Of words that it has not seen it is unsure, so that only losses compare; llama.cpp keeps keys and values in half precision.
    const [exact, served] = [await evaluate(at("runs/tiny"), questions), await evaluate(at("F32"), questions)];
    expect(Math.abs(served.loss / exact.loss - 1)).toBeLessThan(0.01);
  });
});

/** A copy of a folder with one file changed. */
function damaged(source: string, file: string, change: (bytes: Buffer) => Uint8Array | string): string {
  const copy = mkdtempSync(at("damaged-"));
  cpSync(source, copy, { recursive: true });
  writeFileSync(join(copy, file), change(readFileSync(join(copy, file))));
  return copy;
}

const half = (bytes: Buffer) => bytes.subarray(0, bytes.length >> 1);
const flipped = (bytes: Buffer) => {
  bytes[bytes.length - 1]! ^= 1;
  return bytes;
};
const absurd = (bytes: Buffer) => {
  bytes.fill(0xff, 0, 24);
  return bytes;
};

/** A file of its own. */
function file(name: string, content: string | Uint8Array): string {
  writeFileSync(at(name), content);
  return at(name);
}

const hello = ["run", "Hello", ...oneThread, "--model"];
const evalOn = (path: string) => ["eval", at("runs/tiny"), path, ...oneThread];

test.skipIf(!existsSync("/dev/full"))("standard output that takes no more is said to, and is no success", () => {
  const full = openSync("/dev/full", "w");
  try {
    const { status, stderr } = spawnSync(process.execPath, [entry, "mask", "What?", "--model", "tiny", "--json"], {
      env: { ...process.env, ...env },
      stdio: ["ignore", full, "pipe"],
      encoding: "utf8",
    });
    expect([status, stderr]).toEqual([1, expect.stringContaining("standard output: wanted room on its disk")]);
  } finally {
    closeSync(full);
  }
});

/** Command lines as they are built when the test runs, and the message that each must give. */
const refused: [what: string, args: () => string[] | Promise<string[]>, message: RegExp][] = [
  [
    "an empty name for what is made",
    () => ["eval", at("runs/tiny"), at("questions.jsonl"), ...oneThread, "--out", ""],
    /--out: wanted the name of a file, got an empty one/,
  ],
  ["an unknown command", () => ["frobnicate"], /unknown command 'frobnicate'/],
  ["an unknown option", () => ["run", "Hello", "--frobnicate"], /unknown option '--frobnicate'/],
  [
    "an option of the wrong type",
    () => ["run", "Hello", "--max-tokens", "many"],
    /'many' is invalid.* Wanted an integer/,
  ],
  ["a missing argument", () => ["pack", at("stories")], /missing required argument 'out'/],
  [
    "a mask beside --dense",
    () => ["run", "Hello", "--dense", "--mask", "m.json"],
    /'--mask <mask>' cannot be used with option '--dense'/,
  ],

  [
    "a model that is not there",
    () => [...hello, at("nowhere")],
    /nowhere: wanted a bundle folder, got nothing of that name/,
  ],
  [
    "a checkpoint where a bundle is wanted",
    () => [...hello, at("stories")],
    /wanted a bundle, got a checkpoint\. `ifprune pack` makes a bundle of it\./,
  ],
  ["a model for an instruction", () => ["run", at("F32"), "What?"], /run --model .*F32 "What\?"/],
  [
    "a name before an instruction",
    () => ["run", "my-modle", "What is it?"],
    /got "my-modle" before it\. A model is named by --model/,
  ],
  ["an empty instruction", () => ["run", " ", "--model", at("F32")], /wanted an instruction, got empty text/],
  ["an empty instruction to mask", () => ["mask", "", "--model", at("F32")], /wanted an instruction, got empty text/],
  [
    "an instruction longer than the context",
    () => ["run", "cat ".repeat(99), "--model", at("F32")],
    /wanted fewer than 64 tokens, the context length, got \d+/,
  ],
  [
    "an instruction longer than the predictor reads",
    () => ["mask", "cat ".repeat(99), "--model", at("F32")],
    /wanted .*64.*, got \d+/,
  ],
  [
    "a predictor in a bundle without one",
    () => [...hello, at("stories-F16"), "--source", "predictor"],
    /wanted a model with a predictor, got one without\. Sources without training: griffin, glass, text, weights, random/,
  ],
  [
    "a source of masks that does not exist",
    () => ["run", "Hello", "--source", "luck"],
    /'luck' is invalid\. Allowed choices are predictor, griffin, glass, text, weights, random/,
  ],
  ...(["--source=griffin", "--keep=50%", "--t-ffn=32", "--text=a.txt"] as const).flatMap((flag): typeof refused => [
    [`${flag} beside a mask`, () => ["run", "Hello", flag, "--mask", "m.json"], /cannot be used with option '--mask/],
    [`${flag} beside --dense`, () => ["run", "Hello", flag, "--dense"], /cannot be used with option '--dense'/],
  ]),
  [
    "masks of no text",
    () => [...hello, at("stories-F16"), "--source", "text"],
    /wanted a text for the source text, got none/,
  ],
  [
    "masks of an empty text",
    () => [...hello, at("stories-F16"), "--source", "text", "--text", file("empty.txt", "")],
    /wanted a text to take activations from, got an empty one/,
  ],
  [
    "a text for another source",
    () => [...hello, at("stories-F16"), "--text", file("some.txt", "some")],
    /wanted no text for the source griffin, got one/,
  ],
  [
    "a budget above d_ffn",
    () => [...hello, at("stories-F16"), "--t-ffn", "173"],
    /wanted t_ffn in 1\.\.172 \(d_ffn\), got 173/,
  ],
  ...["0", "150%", "half", "75", ""].map((share): (typeof refused)[number] => [
    `a share of "${share}"`,
    () => ["run", "Hello", `--keep=${share}`],
    /Wanted a number above 0, at most 1, such as 75% or 0\.75/,
  ]),
  [
    "a share and a count",
    () => ["run", "Hello", "--keep=50%", "--t-ffn=32"],
    /'--keep <share>' cannot be used with option '--t-ffn <n>'/,
  ],
  [
    "a mask of a model without trained ones, unless told how",
    () => ["mask", "Hello", "--model", at("stories-F16")],
    /wanted a source of masks, or a share to keep, .+ got neither\. Train some, or try keep = 0\.75 \(--keep 75%\)/,
  ],
  [
    "a seed for a source without chance",
    () => ["mask", "Hello", "--model", at("stories-F16"), "--source", "griffin", "--seed", "3"],
    /wanted no seed for the source griffin, got 3/,
  ],
  [
    "a mask of another model",
    () => [...hello, at("F32"), "--mask", at("even.json")],
    /wanted .*L=2.*F=64.*, got .*5.*172/,
  ],
  [
    "a mask that is none",
    () => [...hello, at("F32"), "--mask", file("none.json", '{"tFfn": 1}')],
    /none\.json: wanted a mask/,
  ],
  ["a mask that is not JSON", () => [...hello, at("F32"), "--mask", file("not.json", "{")], /not\.json: wanted JSON/],

  ...["base.gguf", "ffn.gguf", "predictor.gguf", "head.safetensors", "tokenizer.json"].map(
    (name): (typeof refused)[number] => [
      `a bundle with half of ${name}`,
      () => [...hello, damaged(at("F32"), name, half)],
      new RegExp(`${name}: wanted \\d+ bytes as in ifprune.json, got \\d+`),
    ],
  ),
  ...["base.gguf", "ffn.gguf", "predictor.gguf", "head.safetensors"].map((name): (typeof refused)[number] => [
    `a bundle with an absurd header in ${name}`,
    () => [...hello, damaged(at("F32"), name, absurd)],
    new RegExp(`${name}: wanted .*, got`),
  ]),
  [
    "a bundle of another version",
    () => [...hello, damaged(at("F32"), "ifprune.json", (b) => b.toString().replace('"version": 1', '"version": 9'))],
    /wanted the manifest of a bundle, got: "version"/,
  ],

  [
    "a checkpoint with a changed byte",
    () => ["pack", damaged(at("stories"), "llm/model.safetensors", flipped), at("out")],
    /model\.safetensors: wanted sha256 .*, got/,
  ],
  [
    "a checkpoint with half of its weights",
    () => ["pack", damaged(at("stories"), "llm/model.safetensors", half), at("out")],
    /model\.safetensors: wanted \d+ bytes/,
  ],
  [
    "half a checkpoint, to evaluate",
    () => ["eval", damaged(at("stories"), "llm/model.safetensors", half), questions],
    /model\.safetensors: wanted \d+ bytes/,
  ],
  [
    "widths that Q8_0 does not fit",
    () => ["pack", at("stories"), at("out")],
    /Q8_0 wants widths in multiples of 32, got 64 and t_ffn 172\. Use F16/,
  ],
  [
    "a t_ffn above d_ffn",
    async () => ["pack", await rewritten(checkpoint(), { tFfn: 65 }), at("out"), "--type", "F32"],
    /wanted tFfn of at most 64, the FFN width, got 65/,
  ],
  [
    "to pack another model's tokenizer",
    async () => ["pack", await rewritten(checkpoint(), {}, largerVocabulary("llm/tokenizer.json")), at("out")],
    /tokenizer\.json: wanted ids below the model's 320, got .*\. Is it another model's\?/,
  ],
  [
    "to evaluate with another model's tokenizer",
    async () => ["eval", await rewritten(checkpoint(), {}, largerVocabulary("llm/tokenizer.json")), questions],
    /tokenizer\.json: wanted ids below the model's 320, got 511\. Is it another model's\?/,
  ],
  [
    "to answer with another model's tokenizer",
    async () => [...hello, await rewritten(at("F32"), {}, largerVocabulary("tokenizer.json"))],
    /tokenizer\.json: wanted ids below the model's 320, got 511\. Is it another model's\?/,
  ],
  [
    "a bundle folder that exists",
    () => ["pack", at("stories"), at("F32"), "--type", "F16"],
    /wanted a new folder, got ".*F32", which exists/,
  ],

  [
    "half a llama2.c model",
    () => ["import", file("half.bin", half(readFileSync(model))), at("out"), "--tokenizer", tokenizer],
    /half\.bin: wanted \d+ bytes as its header says, got \d+/,
  ],
  [
    "a llama2.c model with an absurd header",
    () => ["import", file("absurd.bin", absurd(readFileSync(model))), at("out"), "--tokenizer", tokenizer],
    /absurd\.bin: header: "width" must be an integer in 1\.\.131072, got -1/,
  ],
  [
    "half a tokenizer",
    () => ["import", model, at("out"), "--tokenizer", file("half.tok", half(readFileSync(tokenizer)))],
    /half\.tok: the file ended inside token \d+/,
  ],
  [
    "an import of what is not there",
    () => ["import", "model.gguf", at("out"), "--tokenizer", tokenizer],
    /model\.gguf: wanted a model to import, got nothing of that name/,
  ],
  [
    "an import over a folder that exists",
    () => ["import", model, at("stories"), "--tokenizer", tokenizer],
    /wanted a new folder, got ".*stories", which exists/,
  ],

  [
    "a recipe that is not there",
    () => ["train", at("no.json"), "--runs", at("out")],
    /no\.json: wanted a readable file, got ENOENT/,
  ],
  [
    "a recipe with a wrong type",
    () => train("wrong-type", (r) => (r.stages[0].steps = "many")),
    /"stages\[0\]\.steps": wanted an integer of at least 1, got "many"/,
  ],
  [
    "a recipe with an unknown key",
    () => train("unknown-key", (r) => (r.learningrate = 1)),
    /wanted no key "learningrate" \(known: \$schema, name, seed,/,
  ],
  [
    "a recipe with t_ffn above d_ffn",
    () => train("wide", (r) => (r.mask.tFfn = 65)),
    /"mask\.tFfn": wanted at most llm\.ffnWidth = 64 channels, got 65/,
  ],
  [
    "data that is not there",
    () => train("no-data", (r) => (r.stages[3].evaluate.path = "no.jsonl")),
    /no\.jsonl: wanted a readable file, got ENOENT/,
  ],
  [
    "a line of data that is not JSON",
    () => train("no-json", (r) => breakLine(r, "text.jsonl", 7)),
    /broken\.jsonl: line 7: wanted JSON/,
  ],
  [
    "a tokenizer of the recipe that is none",
    () => train("no-tokenizer", (r) => (r.tokenizer = { path: "text.jsonl" })),
    /text\.jsonl: wanted JSON, got/,
  ],
  [
    "a vocabulary too small for the bytes",
    () => train("few", (r) => (r.tokenizer.vocabSize = 100)),
    /"vocabSize" must be an integer in 259\.\.30000, got 100/,
  ],
  [
    "a run to start from of another shape",
    () =>
      train("other-shape", (r) =>
        Object.assign(r, { init: { run: at("runs/tiny") }, tokenizer: undefined, llm: { ...r.llm, width: 64 } }),
      ),
    /wanted in "llm" the shape of the model that "init" names/,
  ],

  [
    "an evaluation into a folder",
    () => [...evalOn(questions), "--out", folder],
    /--out: wanted a file, got the folder/,
  ],
  [
    "an evaluation into a file of a file",
    () => [...evalOn(questions), "--out", join(questions, "x.json")],
    /--out: wanted a file in a folder that exists/,
  ],
  [
    "a benchmark into a file",
    () => ["bench", at("F32"), "--out", questions],
    /--out: wanted a folder, got .+, where a file is in the way/,
  ],
  [
    "a share to be found for masks that were trained",
    () => ["run", "--model", at("F32"), "--keep", "auto", "Hi"],
    /wanted a share, as masks that were trained are not measured at several/,
  ],
  [
    "to measure what masks without training cost a model that has others",
    () => ["measure", at("F32")],
    /measure: wanted a model whose masks were not trained, got one that has a predictor/,
  ],
  [
    "a task that is not saved",
    () => ["run", "--model", at("F32"), "--mask", "task:foo", "Hi"],
    /unknown task: "foo": none is saved of this model/,
  ],
  ["a question file that is not there", () => evalOn(at("no.jsonl")), /no\.jsonl: wanted a readable file, got ENOENT/],
  [
    "a question that is not JSON",
    () => evalOn(file("bad.jsonl", `${readFileSync(questions)}{oops\n`)),
    /bad\.jsonl: line 9: wanted JSON/,
  ],
  [
    "a text shorter than one window",
    () => [...evalOn(file("short.txt", "Hi.")), "--dense"],
    /short\.txt: wanted a text of at least \d+ tokens, got \d+/,
  ],
  [
    "a predicted mask without a predictor",
    () => ["eval", at("stories"), questions, "--source", "predictor"],
    /wanted a model with a predictor, got one without/,
  ],
  [
    "a control of a model that has no masks",
    () => ["eval", at("stories"), questions, "--control", "generic"],
    /wanted a source of masks for control, .+, got none\. Name one of griffin/,
  ],
  [
    "a size for a mask that has its own",
    () => [...evalOn(questions), "--dense", "--t-ffn", "64"],
    /'--t-ffn <n>' cannot be used with option '--dense'/,
  ],
  [
    "a mask by weights of more channels than there are",
    () => [...evalOn(questions), "--source", "weights", "--t-ffn", "65"],
    /wanted t_ffn in 1\.\.64 \(d_ffn\), got 65/,
  ],
  [
    "examples of nothing",
    () => [...evalOn(questions), "--examples", file("no-examples.jsonl", "\n")],
    /no-examples\.jsonl: wanted at least one example, got none/,
  ],
  [
    "an example without an answer",
    () => [...hello, at("F32"), "--examples", file("half-example.jsonl", '{"input": "cat"}')],
    /half-example\.jsonl: line 1: wanted "input" and "output"/,
  ],
  [
    "more examples than the predictor reads",
    () => [
      "mask",
      "Hello",
      "--model",
      at("F32"),
      "--examples",
      file("many.jsonl", '{"input":"cat","output":"cats"}\n'.repeat(20)),
    ],
    /wanted .*64.*, got \d+/,
  ],
  [
    "evaluation under another model's mask",
    () => [...evalOn(questions), "--mask", at("even.json")],
    /wanted .*L=2.*F=64.*, got .*5.*172/,
  ],
  [
    "evaluation onto its questions",
    () => [...evalOn(questions), "--out", questions],
    /--out: wanted another file than those that are read, got ".*"\. Name a new one\./,
  ],
  [
    "a report onto a run's log",
    () => ["report", at("runs/tiny"), "--out", at("runs/tiny/metrics.jsonl")],
    /--out: wanted another file than those that are read/,
  ],
  [
    "a report of nothing",
    () => ["report", at("nowhere"), "--out", at("out")],
    /nowhere: wanted a run folder, its metrics\.jsonl or an evaluation's \.json, got nothing of that name/,
  ],
];

function train(name: string, change: (recipe: Json) => void): string[] {
  return ["train", recipe(name, change), "--runs", at("out"), ...oneThread];
}

/** Lets the recipe's first stage read a copy of its data in which a line is not JSON. */
function breakLine({ stages }: Json, source: string, line: number): void {
  const lines = readFileSync(join(tiny, source), "utf8").split("\n");
  lines[line - 1] = "{oops";
  stages[0].data[0].path = file("broken.jsonl", lines.join("\n"));
}

/** A copy of a checkpoint or bundle whose manifest says what `changes` does. */
async function rewritten(source: string, changes: object, tokenizer?: { at: string; from: string }): Promise<string> {
  const copy = mkdtempSync(at("changed-"));
  cpSync(source, copy, { recursive: true });
  if (tokenizer) cpSync(tokenizer.from, join(copy, tokenizer.at));
  const manifest = JSON.parse(readFileSync(join(copy, "ifprune.json"), "utf8"));
  writeManifest(copy, { ...manifest, ...changes, files: await describeFiles(copy, Object.keys(manifest.files)) });
  return copy;
}

/** The newest checkpoint of the trained model. */
function checkpoint(): string {
  return checkpointFolders(at("runs/tiny"))[0]!;
}

const largerVocabulary = (path: string) => ({ at: path, from: at("stories/llm/tokenizer.json") });

describe("refuses in one message, without a stack:", () => {
  test.each(refused)("%s", async (_, args, message) => {
    const command = await args();
    const before = readdirSync(folder);
    const { code, stderr } = await inProcess(...command);
    const out = existsSync(at("out")) ? readdirSync(at("out"), { recursive: true, encoding: "utf8" }) : [];
    rmSync(at("out"), { recursive: true, force: true });
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(readdirSync(folder)).toEqual(before);
    // A run that fails before its first checkpoint leaves what the next start makes anew.
    expect(["tiny", "tiny/data.json", "tiny/metrics.jsonl", "tiny/tokenizer.json"]).toEqual(
      expect.arrayContaining(out),
    );
    if (command[0] !== "train") expect(out).toEqual([]);
  });

  test("in a process of its own too", async () => {
    const { code, stdout, stderr } = await ifprune([...hello, at("nowhere")], { env });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/^ifprune: .*nowhere: wanted a bundle folder, got nothing of that name\..*\n$/);
  });
});
