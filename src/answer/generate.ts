/**
 * A model's own answers to a file of prompts, as rows that it or another model can be trained on: `{task?, instruction, input?, output}`. Answers are
 * computed in batches, and as the last bits of logits depend on what is in a batch, batches are made within blocks of prompts: what is done after a stop is
 * the same as without one.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { Budget } from "../bundle/budget.ts";
import type { CacheOptions } from "../bundle/cacheEntries.ts";
import type { Form } from "../bundle/formOptions.ts";
import { DEFAULT_KV_TYPE } from "../bundle/memory.ts";
import { maskHash } from "../bundle/subnetworkCache.ts";
import type { EngineOptions } from "../engine/engine.ts";
import { FileError, InputError, OptionError } from "../errors.ts";
import { fullMask, type Mask } from "../mask/mask.ts";
import { type Given, readNumbers } from "../options.ts";
import { Random } from "../random.ts";
import { taskExample } from "../text/examples.ts";
import { readJsonLines } from "../text/jsonl.ts";
import { composePrompt, type Instruction, type TaskExample, withBos } from "../text/prompt.ts";
import { GENERATE_OPTIONS } from "./generateOptions.ts";
import type { InstructionModel } from "./instructionModel.ts";
import { chooseMask, modelTFfn, openFlaggedSource, type SourceFlags, saysHow } from "./maskSource.ts";
import { OneEngine } from "./oneEngine.ts";
import { ResumableFile } from "./resumableFile.ts";
import type { ScoreCacheOptions } from "./scoreCache.ts";

/** How {@link generateAnswers} asks. The dense model answers, unless a mask is given or how to make one for each prompt. */
export interface GenerateAnswersOptions
  extends Given<typeof GENERATE_OPTIONS>,
    Pick<EngineOptions, "threads" | "kvType" | "gpu" | "force">,
    Pick<SourceFlags, "source" | "text">,
    Budget {
  mask?: Mask | "dense" | undefined;
  /** Prompts are texts that it goes on with as they are, without a chat template, for one line more. */
  continues?: boolean | undefined;
  /** Solved cases that every instruction shows; they become part of the instructions that are written. */
  examples?: readonly TaskExample[] | undefined;
  /** How masks are run; in the resident form, of whole blocks alone. The last bits of logits differ between forms. Default: gathered. */
  form?: Form | undefined;
  cache?: CacheOptions | undefined;
  scoreCache?: ScoreCacheOptions | undefined;
  /** Stops after the last whole block; the same call goes on. */
  signal?: AbortSignal | undefined;
  /** At the start and after each answer: those done, of earlier calls too, and all; and the tokens of this call. */
  onProgress?: ((done: number, total: number, tokens: number) => void) | undefined;
}

/** What came of {@link generateAnswers}, earlier calls of the same job included. */
export interface GeneratedAnswers {
  /** Whether the file is there; false where the call was stopped. */
  isWhole: boolean;
  /** Prompts that fit into the model's context, … */
  prompts: number;
  /** … and those that do not, which are left out. */
  tooLong: number;
  /** Prompts that have been asked. */
  asked: number;
  /** Answers that were written. */
  rows: number;
  /** Left out: without an end after the most tokens that there may be. */
  cut: number;
  /** Left out: without text. */
  empty: number;
  /** Of all answers. */
  tokens: number;
  /** Those of this call, and its time. */
  newTokens: number;
  seconds: number;
}

/** Prompts of a block, for each slot: enough that slots without work at a block's end cost little. */
const blockLengthPerSlot = 8;

interface Prompt {
  /** From 0. */
  row: number;
  asked: { task?: string | undefined; instruction: string; input?: string | undefined };
  read: Instruction;
}

interface OwnAnswer {
  output: string;
  tokens: number;
  isCut: boolean;
}

/**
 * Writes a model's answers to the prompts of a file, in their order. The same model, prompts and options give the same file, also where a call was
 * stopped or killed and another went on.
 *
 * @param promptsPath JSON Lines of `{instruction, input?, task?, examples?}`; other fields are ignored, so rows of training data and task files are prompts
 * @param outPath a new file: until it is whole, `OUT.partial` and `OUT.progress.json` are in its place
 * @throws {FileError} if there are no prompts that fit, a row is none, what is begun is another job's, or the disk is full
 * @throws {OptionError} if the file exists, or an option is out of range
 * @throws {MemoryError} if the model does not fit into memory with so many slots
 */
export async function generateAnswers(
  model: InstructionModel,
  promptsPath: string,
  outPath: string,
  options: GenerateAnswersOptions = {},
): Promise<GeneratedAnswers> {
  const numbers = readNumbers("generate", GENERATE_OPTIONS, options);
  const { samples, slots, seed, ...sampling } = numbers;
  const { maxTokens } = sampling;
  if (samples > 1 && sampling.temperature === 0)
    throw new OptionError(`generate: wanted one sample at temperature 0, got ${samples}, which would be the same.`);
  const { signal, onProgress } = options;
  const { bundle, tokenizer } = model;
  const { prompts, hash, tooLong } = await readPrompts(model, promptsPath, options);
  const longest = prompts.reduce((most, { read }) => Math.max(most, read.ids.length), 0);
  const contextLength = Math.min(bundle.contextLength, longest + maxTokens);
  await using masks = await openMasks(model, options, seed);
  const { form = "gathered", kvType = DEFAULT_KV_TYPE, continues = false } = options;
  await using engines = new OneEngine(model, contextLength, slots, options);
  const job = {
    model: bundle.hash,
    prompts: hash,
    mask: masks.name,
    kvType,
    ...(form === "resident" && { form }),
    ...(continues && { continues: "a line" }),
    ...numbers,
  };
  using file = new ResumableFile(outPath, job, { asked: 0, rows: 0, cut: 0, empty: 0, tokens: 0 });

  const start = performance.now();
  const asked = file.counts.asked;
  let newTokens = 0;
  const report = (): GeneratedAnswers => ({
    isWhole: file.counts.asked === prompts.length,
    prompts: prompts.length,
    tooLong,
    ...file.counts,
    newTokens,
    seconds: (performance.now() - start) / 1000,
  });
  let done = asked * samples;
  onProgress?.(done, prompts.length * samples, newTokens);

  /** Answers of each prompt of a block, batched with those under the same mask. */
  const answersTo = async (block: readonly Prompt[]): Promise<OwnAnswer[][]> => {
    const answers = block.map(() => new Array<OwnAnswer>(samples));
    const groups = new Map<string, { mask: Mask; members: number[] }>();
    for (const [i, { read }] of block.entries()) {
      const mask = await masks.of(read);
      const key = maskHash(mask);
      const group = groups.get(key) ?? { mask, members: [] };
      groups.set(key, group);
      group.members.push(i);
    }
    for (const [key, { mask, members }] of groups) {
      const engine = await engines.of(key, mask);
      const items = members.flatMap((i) => Array.from({ length: samples }, (_, sample) => ({ i, sample })));
      await inSlots(items, slots, signal, async ({ i, sample }, stop) => {
        const { row, read } = block[i]!;
        const ids: number[] = [];
        const own = new Random(`${seed}/answer/${row}/${sample}`).uint32();
        const decoder = tokenizer.stream();
        let text = "";
        const isLine = () => continues && /\S.*\n/.test(text);
        for await (const id of engine.generate(read.ids, { ...sampling, seed: own, signal: stop })) {
          ids.push(id);
          newTokens++;
          text += decoder.push(id);
          if (isLine()) break;
        }
        text += decoder.end();
        const isFull = ids.length >= Math.min(maxTokens, contextLength - read.ids.length);
        const output = continues ? text.trimStart().split("\n", 1)[0]! : text;
        answers[i]![sample] = { output, tokens: ids.length, isCut: isFull && !isLine() };
        onProgress?.(++done, prompts.length * samples, newTokens);
      });
    }
    return answers;
  };

  const blockLength = blockLengthPerSlot * slots;
  for (let from = asked; from < prompts.length; from += blockLength) {
    const block = prompts.slice(from, from + blockLength);
    let answers: OwnAnswer[][];
    try {
      answers = await answersTo(block);
    } catch (error) {
      if (signal?.aborted) return report();
      throw error;
    }
    const counts = { ...file.counts, asked: from + block.length };
    let lines = "";
    for (const [i, { asked }] of block.entries()) {
      for (const { output, tokens, isCut } of answers[i]!) {
        counts.tokens += tokens;
        if (isCut) counts.cut++;
        else if (output.trim() === "") counts.empty++;
        else {
          counts.rows++;
          lines += `${JSON.stringify({ ...asked, output })}\n`;
        }
      }
    }
    file.append(lines, counts);
  }
  file.finish();
  return report();
}

const text = z.string().refine((value) => value.trim() !== "", "wanted some text");
const promptRow = z.object({
  task: text.optional(),
  instruction: text,
  input: z.string().optional(),
  examples: z.array(taskExample).min(1).optional(),
});

/** Prompts that leave room for an answer. */
async function readPrompts(
  model: InstructionModel,
  path: string,
  { examples, continues }: Pick<GenerateAnswersOptions, "examples" | "continues">,
) {
  const prompts: Prompt[] = [];
  const hash = createHash("sha256");
  let count = 0;
  for await (const { line, row } of readJsonLines(path, promptRow)) {
    if (row.examples && examples)
      throw new FileError(path, `line ${line}: wanted no examples in it beside those for all rows, got some.`);
    try {
      const { task, input } = row;
      // Training data has no examples of its own, so they become part of the instruction, of which the same prompt is made.
      const instruction = composePrompt(row.instruction, undefined, row.examples ?? examples);
      const prompt = { row: count++, asked: { task, instruction, input } };
      hash.update(`${JSON.stringify(prompt.asked)}\n`);
      const text = composePrompt(instruction, input);
      const { tokenizer } = model;
      const read = continues
        ? { text, ids: withBos(tokenizer, tokenizer.encode(text)) }
        : model.format.instruction(text);
      if (read.ids.length < model.bundle.contextLength) prompts.push({ ...prompt, read });
    } catch (cause) {
      if (!(cause instanceof InputError)) throw cause;
      throw new FileError(path, `line ${line}: ${cause.message}`, { cause });
    }
  }
  if (count === 0) throw new FileError(path, "wanted at least one prompt, got none.");
  if (prompts.length === 0)
    throw new FileError(
      path,
      `wanted prompts of fewer than ${model.bundle.contextLength} tokens, the context length, got none. Shorten them.`,
    );
  return { prompts, hash: hash.digest("hex").slice(0, 32), tooLong: count - prompts.length };
}

interface Masks extends AsyncDisposable {
  /** What they depend on. */
  name: string;
  of(prompt: Instruction): Promise<Mask>;
}

async function openMasks(model: InstructionModel, options: GenerateAnswersOptions, seed: number): Promise<Masks> {
  const { mask, source, keep, maxLoss, tFfn, text, threads, kvType, gpu, scoreCache: cache, signal } = options;
  const { numLayers, ffnWidth } = model.bundle;
  const isMade = saysHow(options);
  if (isMade && mask !== undefined) throw new OptionError("generate: wanted a mask, or how to make one, got both.");
  if (!isMade) {
    const one = mask === undefined || mask === "dense" ? fullMask(numLayers, ffnWidth) : mask;
    const name = one === mask ? maskHash(one) : "dense";
    return { name, of: async () => one, [Symbol.asyncDispose]: async () => {} };
  }
  const flags = { source, text, seed: source === "random" ? seed : undefined };
  const open = await openFlaggedSource(model, flags, { threads, kvType, gpu, cache });
  const how = { signal, tFfn: modelTFfn(model, { keep, maxLoss, tFfn }, source), ffnWidth };
  const textHash = text === undefined ? [] : [createHash("sha256").update(text).digest("hex").slice(0, 32)];
  return {
    name: [open.name, ...textHash, `${how.tFfn} channels`].join(" "),
    of: async (prompt) => (await chooseMask(open, prompt, how)).mask,
    [Symbol.asyncDispose]: () => open[Symbol.asyncDispose](),
  };
}

/** Works on items in order, some at a time; what fails stops the others. Returns once all have ended. */
async function inSlots<Item>(
  items: readonly Item[],
  slots: number,
  signal: AbortSignal | undefined,
  work: (item: Item, stop: AbortSignal) => Promise<void>,
): Promise<void> {
  const failure = new AbortController();
  const stop = AbortSignal.any([failure.signal, ...(signal ? [signal] : [])]);
  const queue = items.values();
  const slot = async () => {
    try {
      for (const item of queue) await work(item, stop);
    } catch (error) {
      failure.abort(error);
      throw error;
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: Math.min(slots, items.length) }, slot));
  if (failure.signal.aborted || ended.some(({ status }) => status === "rejected")) throw failure.signal.reason;
}
