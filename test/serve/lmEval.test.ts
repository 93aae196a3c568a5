/**
 * Stock lm-eval against the server: every log-likelihood is that of the float64 reference, dense and under a mask, with and without BOS, of answers that end with
 * their end token, where the token after an answer ends it, and where a prompt is cut to the context. Chats are answered as completions of the same text are.
 */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { importModel } from "../../src/bundle/importModel.ts";
import { type Model, readModelFolder } from "../../src/formats/huggingface.ts";
import { createApp } from "../../src/serve/http/app.ts";
import { listen } from "../../src/serve/http/server.ts";
import { openLocalService } from "../../src/serve/localService.ts";
import { ChatTemplate, chatIds, readChatTemplate } from "../../src/text/chatTemplate.ts";
import { loadTokenizer } from "../../src/text/tokenizer.ts";
import { channelWeights, forward } from "../reference/decoder.ts";
import { shapes, writeCheckpointFolder } from "../support/checkpoints.ts";
import { temporaryFolder } from "../support/models.ts";
import { isLmEvalMissing, lmEvalPath } from "./lmEvalProgram.ts";

/** Of the models: a byte is a token. */
const contextLength = 64;
/** Most that lm-eval sends: one is left to be said. */
const mostTokens = contextLength - 1;
const maxGenerated = 8;
const endIds = [2, 4];
/** Name of the first. */
const endToken = "<|endoftext|>";

type Weights = ReturnType<typeof channelWeights> | undefined;

function reference(model: Model, weights: Weights) {
  const logits = (ids: readonly number[]) => forward(model, ids, weights).logits;
  return {
    /** The most likely next token. */
    next: (ids: readonly number[]) => {
      const last = logits(ids).at(-1)!;
      return last.indexOf(Math.max(...last));
    },
    /** Log-likelihood of the end of `ids`, from the index `from`. */
    logLikelihood: (ids: readonly number[], from: number) => {
      const all = logits(ids);
      return ids.slice(from).reduce((sum, id, i) => {
        const row = all[from + i - 1]!;
        const max = Math.max(...row);
        return sum + row[id]! - max - Math.log(row.reduce((total, logit) => total + Math.exp(logit - max), 0));
      }, 0);
    },
  };
}
type Reference = ReturnType<typeof reference>;

interface Document {
  question: string;
  choices: string[];
}

const questions = [
  "Who?",
  "Which one, then? ",
  "It is so long that its beginning is cut off, as all before the end has to be.",
];

/** Answers, among them one after which the model would end: what comes next is then no text. */
function documents(encode: (text: string) => number[], { next }: Reference): Document[] {
  const letters = [..."abcdefghijklmnopqrstuvwxyz"];
  const pairs = letters.flatMap((a) => letters.map((b) => a + b));
  const words = [...pairs, ...pairs.map((pair) => pair.toUpperCase()), ...pairs.map((pair) => `${pair} ${pair}`)];
  const ending = words.find((word) => endIds.includes(next(encode(`Who? ${word}`))));
  if (!ending) throw new Error("wanted an answer after which the model ends, got none. Take another model.");
  const choices = ["a", "cat", "two words", "é 名", `cat${endToken}`, ending];
  return questions.map((question) => ({ question, choices }));
}

const tasks = {
  choice: `output_type: multiple_choice
doc_to_text: question
doc_to_target: 0
doc_to_choice: choices
metric_list:
  - metric: acc`,
  rolling: `output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{choices[2]}} {{choices[1]}}"
metric_list:
  - metric: word_perplexity`,
  generation: `output_type: generate_until
doc_to_text: question
doc_to_target: "x"
generation_kwargs:
  until: ["q", "w", "k", "z", "\\n\\n", "Question:"]
  max_gen_toks: ${maxGenerated}
  do_sample: false
metric_list:
  - metric: exact_match`,
  chat: `output_type: generate_until
doc_to_text: question
doc_to_target: "x"
generation_kwargs:
  until: ["q", "w"]
  max_gen_toks: ${maxGenerated}
  do_sample: false
metric_list:
  - metric: exact_match`,
};
type Task = keyof typeof tasks;

interface Sample {
  doc: Document;
  arguments: Record<string, { arg_0: string; arg_1: string }>;
  /** Of each of the arguments, the only response. */
  resps: [unknown][];
}

/** What lm-eval asked, and what it made of the answers, by task. */
async function harness<T extends Task>(
  root: string,
  { kind, names, given }: { kind: "completions" | "chat-completions"; names: readonly T[]; given: object },
  all: readonly Document[],
  flags: readonly string[] = [],
): Promise<Record<T, Sample[]>> {
  const folder = mkdtempSync(join(root, "harness-"));
  const data = join(folder, "documents.jsonl");
  writeFileSync(data, all.map((one) => JSON.stringify(one)).join("\n"));
  mkdirSync(join(folder, "tasks"));
  for (const name of names) {
    const source = `dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: ${data}\ntest_split: test\n`;
    writeFileSync(join(folder, "tasks", `${name}.yaml`), `task: ${name}\n${source}${tasks[name]}\n`);
  }
  const pairs = Object.entries(given).map(([key, value]) => `${key}=${value}`);
  const out = join(folder, "out");
  const what = ["--model", `local-${kind}`, "--model_args", pairs.join(","), "--tasks", names.join(",")];
  const paths = ["--include_path", join(folder, "tasks"), "--output_path", out, "--log_samples"];
  const env = { ...process.env, HF_HOME: join(folder, "hub"), HF_HUB_OFFLINE: "1", HF_DATASETS_OFFLINE: "1" };
  const options = { env, cwd: folder, maxBuffer: 1 << 24 };
  await promisify(execFile)(lmEvalPath, ["run", ...what, ...paths, ...flags], options);
  const files = readdirSync(out, { recursive: true, encoding: "utf8" });
  const samples = names.map((name) => {
    const file = files.find((path) => path.includes(`samples_${name}_`))!;
    const lines = readFileSync(join(out, file), "utf8").trim().split("\n");
    return [name, lines.map((line) => JSON.parse(line))];
  });
  return Object.fromEntries(samples);
}

/** Lets transformers put BOS before texts, as the tokenizers of models that want it do. */
function openWithBos(path: string): void {
  const json = JSON.parse(readFileSync(path, "utf8"));
  const { id, content } = json.added_tokens[1];
  const single = [{ SpecialToken: { id: content, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }];
  const special_tokens = { [content]: { id: content, ids: [id], tokens: [content] } };
  const post_processor = {
    type: "TemplateProcessing",
    single,
    pair: [...single, { Sequence: { id: "B", type_id: 1 } }],
    special_tokens,
  };
  writeFileSync(path, JSON.stringify({ ...json, post_processor }));
}

/** A checkpoint, and a server of it. */
async function serve(name: string, { length, isMasked = false }: { length: number; isMasked?: boolean }) {
  const root = temporaryFolder();
  const [folder, bundle] = [join(root, "folder"), join(root, "bundle")];
  const shape = shapes[name]!;
  await writeCheckpointFolder(folder, { ...shape, config: { ...shape.config, contextLength: length } });
  if (shape.addsBos) openWithBos(join(folder, "tokenizer.json"));
  await importModel(folder, bundle, { type: "F32" });
  const service = await openLocalService([{ id: "m", path: bundle }], {
    ...{ threads: 1, kvType: "F32", memoryBytes: 2 ** 30, contextLength: length },
    ...{
      cache: { root: join(root, "cache") },
      scoreCache: { root: join(root, "scores") },
      tasksRoot: join(root, "saved"),
    },
  });
  onTestFinished(() => service[Symbol.asyncDispose]());
  const { maskId } = await service.saveTask("m", "whose", "Say whose it is.", { keep: 0.5 });
  const mask = isMasked ? ({ kind: "task", name: "whose" } as const) : ({ kind: "dense" } as const);
  const server = await listen(createApp(service, { mask }).fetch, { host: "127.0.0.1", port: 0 });
  onTestFinished(() => server[Symbol.asyncDispose]());
  const weights = isMasked ? channelWeights(service.maskById("m", maskId)) : undefined;
  const tokenizer = loadTokenizer(join(folder, "tokenizer.json"), { bosId: 1, eosIds: endIds, vocabSize: 320 });
  const opening = shape.addsBos ? [1] : [];
  /** With names of the end token read as it, as the harness's tokenizer does. */
  const encode = (text: string): number[] => [
    ...opening,
    ...text.split(endToken).flatMap((part, i) => [...(i > 0 ? [2] : []), ...tokenizer.encode(part)]),
  ];
  return { root, folder, url: server.url, tokenizer, opening, encode, ...reference(readModelFolder(folder), weights) };
}

/** What a model says to a prompt, up to a stop text. */
function said({ next, tokenizer }: Awaited<ReturnType<typeof serve>>, ids: readonly number[], stops: RegExp): string {
  const tokens: number[] = [];
  while (tokens.length < maxGenerated && !endIds.includes(tokens.at(-1)!)) tokens.push(next([...ids, ...tokens]));
  return tokenizer.decode(tokens).split(stops, 1)[0]!;
}

describe.skipIf(isLmEvalMissing)("lm-eval", () => {
  test.each([
    { name: "SmolLM2", isMasked: false },
    { name: "Llama 3.2", isMasked: true },
  ])(
    "scores $name as the reference does, under a mask: $isMasked",
    { timeout: 600_000 },
    async ({ name, isMasked }) => {
      const served = await serve(name, { length: contextLength, isMasked });
      const { root, folder, url, opening, encode, next, logLikelihood } = served;
      const all = documents(encode, served);
      const { choice, rolling, generation } = await harness(
        root,
        {
          kind: "completions",
          names: ["choice", "rolling", "generation"],
          given: {
            ...{ model: "m", base_url: `${url}/v1/completions`, tokenizer: folder, tokenizer_backend: "huggingface" },
            ...{ max_length: contextLength, add_bos_token: opening.length > 0 ? "True" : "False" },
          },
        },
        all,
      );
      const asked = choice.flatMap((sample) =>
        Object.values(sample.arguments).map(({ arg_0, arg_1 }, i) => ({
          context: arg_0,
          answer: arg_1,
          got: sample.resps[i]![0],
        })),
      );
      expect(asked).toHaveLength(all.length * all[0]!.choices.length);
      for (const { context, answer, got } of asked) {
        const whole = encode(context + answer);
        const ids = whole.slice(-mostTokens);
        const from = ids.length - whole.length + encode(context.trimEnd()).length;
        const [value, isGreedy] = got as [string, string];
        expect(Number(value), `${context}|${answer}`).toBeCloseTo(logLikelihood(ids, from), 3);
        expect(isGreedy).toBe(ids.slice(from).every((id, i) => id === next(ids.slice(0, from + i))) ? "True" : "False");
      }
      for (const { resps } of rolling) {
        const text = `${all[0]!.choices[2]} ${all[0]!.choices[1]}`;
        const ids = [1, ...encode(text)]; // lm-eval's prefix, even before a BOS
        expect(Number(resps[0]![0])).toBeCloseTo(logLikelihood(ids, 1), 3);
      }
      for (const { doc, resps } of generation) {
        const ids = encode(doc.question).slice(-(mostTokens - maxGenerated));
        expect(resps[0]![0]).toBe(said(served, ids, /[qwkz]|\n\n|Question:/));
      }
    },
  );

  test("chats as it completes the text that transformers makes of a chat, and as the reference does", {
    timeout: 600_000,
  }, async () => {
    const length = 128;
    const served = await serve("SmolLM2", { length });
    const { root, folder, url, tokenizer } = served;
    const all = questions.map((question) => ({ question, choices: ["x"] }));
    const ask = async (kind: "completions" | "chat-completions", path: string, given: object) => {
      const model = { model: "m", base_url: `${url}/v1/${path}`, ...given };
      const { chat } = await harness(root, { kind, names: ["chat"], given: model }, all, ["--apply_chat_template"]);
      return chat.map(({ doc, resps }) => [doc.question, resps[0]![0]]);
    };
    const chats = await ask("chat-completions", "chat/completions", {});
    const settings = { tokenizer: folder, tokenizer_backend: "huggingface", max_length: length };
    expect(chats).toEqual(await ask("completions", "completions", settings));
    const template = new ChatTemplate(readChatTemplate(folder)!, folder);
    expect(chats).toEqual(
      all.map(({ question }) => {
        const ids = chatIds(tokenizer, template, [{ role: "user", content: question }]);
        return [question, said(served, [...ids], /[qw]/)];
      }),
    );
  });
});
