/**
 * Training data: files → rows → token ids. What a training step sees of it, and in which order, is in `batches.ts`.
 */
import { z } from "zod";
import { FileError, OptionError } from "../errors.ts";
import { readJson } from "../json.ts";
import { Random } from "../random.ts";
import { madeOfRow, readJsonLines } from "../text/jsonl.ts";
import {
  composePrompt,
  composeTurn,
  instructionOf,
  type PromptFormat,
  predictorIds,
  type TaskExample,
} from "../text/prompt.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

/** A data file of a recipe. */
export interface DataSource {
  /** Domain of its rows, unless a row names its own `task`. */
  domain: string;
  path: string;
  /** Share of the draws that each of its domains gets, relative to the others; 1 if absent. */
  weight?: number;
}

/** What the predictor reads: the whole prompt, the instruction without its input, or each half of the time. */
export type PredictorInput = "prompt" | "instruction" | "both";

/** A question in one or several wordings, and the answer to learn. */
export interface Question {
  domain: string;
  weight: number;
  wordings: readonly string[];
  input?: string;
  /** Of the same domain, which the instruction shows. */
  examples?: readonly TaskExample[];
  answer: string;
}

/** A document to learn the language from. */
export interface Document {
  domain: string;
  weight: number;
  text: string;
}

const text = z.string().refine((value) => value.trim() !== "", "wanted some text");
const anyRow = z.object({
  text: text.optional(),
  task: text.optional(),
  instruction: text.optional(),
  input: z.string().optional(),
  output: text.optional(),
  answers: z.array(text).min(1).optional(),
});
const hasOne = (...values: unknown[]) => values.filter((value) => value !== undefined).length === 1;
const questionRow = anyRow.refine(
  ({ output, answers }) => hasOne(output, answers),
  'wanted either "output" or "answers"',
);
const documentRow = anyRow.refine(
  ({ text, output, answers }) => hasOne(text, output, answers),
  'wanted either "text", or a question with "output" or "answers"',
);
const instructionsFile = z.record(z.string(), z.object({ train: z.array(text).min(1) }));

/**
 * Read questions for SFT. A row is `{task?, instruction?, input?, output}` or, with several accepted answers of which the
 * first is learned, `{…, answers: […]}`; other fields are ignored.
 *
 * @param instructionsPath `{task: {train: [wording, …]}}`: wordings of the rows that have a `task` and no `instruction`
 * @throws {FileError} that names file and line
 */
export async function readQuestions(sources: readonly DataSource[], instructionsPath?: string): Promise<Question[]> {
  const wordingsOf = instructionsPath === undefined ? new Map() : readInstructions(instructionsPath);
  const questions: Question[] = [];
  for (const { domain, path, weight = 1 } of sources) {
    for await (const { line, row } of readJsonLines(path, questionRow)) {
      const wordings = wordingsFor(row, wordingsOf, path, line);
      madeOfRow(path, line, () => wordings.map((wording) => composePrompt(wording, row.input)));
      questions.push({
        ...{ domain: row.task ?? domain, weight, wordings },
        input: row.input,
        answer: row.output ?? row.answers![0]!,
      });
    }
  }
  return questions;
}

function wordingsFor(
  { task, instruction }: { task?: string; instruction?: string },
  wordingsOf: ReadonlyMap<string, readonly string[]>,
  path: string,
  line: number,
): readonly string[] {
  const wordings = instruction === undefined ? wordingsOf.get(task ?? "") : [instruction];
  if (wordings) return wordings;
  const ofTask = task === undefined ? "" : ` for task "${task}"`;
  throw new FileError(
    path,
    `line ${line}: wanted an "instruction", or wordings${ofTask} in the recipe's instructions file.`,
  );
}

function readInstructions(path: string): Map<string, readonly string[]> {
  const parsed = instructionsFile.safeParse(readJson(path));
  if (!parsed.success) {
    const { path: field, message } = parsed.error.issues[0]!;
    throw new FileError(path, `wanted {task: {"train": [wording, …]}}, got a wrong "${field.join(".")}": ${message}.`);
  }
  return new Map(Object.entries(parsed.data).map(([task, { train }]) => [task, train]));
}

/**
 * Gives every question `shots` other questions of its domain as examples, drawn once: their inputs, or what is asked where the input stands in
 * the instruction.
 *
 * @throws {OptionError} when a domain has too few questions
 */
export function withExamples(questions: readonly Question[], shots: number, seed: string): Question[] {
  const ofDomain = new Map<string, Question[]>();
  for (const question of questions) {
    const known = ofDomain.get(question.domain);
    if (known) known.push(question);
    else ofDomain.set(question.domain, [question]);
  }
  const random = new Random(`${seed}/shots`);
  return questions.map((question) => {
    const asked = ({ wordings, input }: Question) => input || wordings[0]!;
    const pool = ofDomain.get(question.domain)!;
    const examples = new Map<string, TaskExample>(); // by input: none twice, and not the question's own
    for (const i of random.draws(pool.length)) {
      if (examples.size === shots) break;
      const input = asked(pool[i]!);
      if (input !== asked(question)) examples.set(input, { input, output: pool[i]!.answer });
    }
    if (examples.size < shots)
      throw new OptionError(
        `training data: wanted ${shots} other questions of domain "${question.domain}" as examples, got ${examples.size}.`,
      );
    return { ...question, examples: [...examples.values()] };
  });
}

/**
 * Read documents for pre-training, CPT or a tokenizer. A row is `{text}`, or a question as in `readQuestions`, which becomes the
 * document "prompt, line break, answer" in one of its wordings (in turn, by line).
 *
 * @throws {FileError} that names file and line
 */
export async function* readDocuments(
  sources: readonly DataSource[],
  instructionsPath?: string,
): AsyncGenerator<Document> {
  const wordingsOf = instructionsPath === undefined ? new Map() : readInstructions(instructionsPath);
  for (const { domain, path, weight = 1 } of sources) {
    for await (const { line, row } of readJsonLines(path, documentRow)) {
      if (row.text !== undefined) {
        yield { domain, weight, text: row.text };
        continue;
      }
      const wordings = wordingsFor(row, wordingsOf, path, line);
      const prompt = madeOfRow(path, line, () => composePrompt(wordings[line % wordings.length]!, row.input));
      yield { domain, weight, text: `${prompt}\n${row.output ?? row.answers![0]!}` };
    }
  }
}

/** Token ids of texts, end to end in one array that grows. */
class IdsBuilder {
  #ids = new Int32Array(1 << 12);
  #length = 0;

  push(ids: Int32Array): void {
    const end = this.#length + ids.length;
    if (end > this.#ids.length) {
      const grown = new Int32Array(Math.max(end, 2 * this.#ids.length));
      grown.set(this.#ids);
      this.#ids = grown;
    }
    this.#ids.set(ids, this.#length);
    this.#length = end;
  }

  build(): Int32Array {
    return this.#ids.slice(0, this.#length);
  }
}

interface Domains {
  domains: readonly string[];
  /** Share of the draws of each domain; the sum is 1. */
  weights: readonly number[];
}

/** A question in one of its wordings, as token ids. */
export interface Example {
  /** What the LLM reads, BOS first. */
  prompt: Int32Array;
  /** What it shall answer, EOS last. */
  answer: Int32Array;
  /** What the predictor may read, BOS first: the whole prompt and/or the instruction. Empty: no predictor. */
  predictorInputs: readonly Int32Array[];
}

/** Questions, made into token ids as they are drawn: wordings times questions can be too many to keep. */
export interface SftData extends Domains {
  /** Per domain its questions, with those of their wordings that are short enough. */
  questions: readonly (readonly Question[])[];
  /** Predictor inputs of an example: 0, 1 or 2. */
  numPredictorInputs: number;
  encode(question: Question, wording: string): Example;
  /** The question as a later turn of a conversation, after others of its kind, no BOS: in a wording, or its input alone. Without either: none. */
  encodeTurn(question: Question, wording?: string): Turn | undefined;
  /** Wordings of questions that were left out because they were longer than `maxTokens`. */
  numTooLong: number;
}

/** Documents as token ids, EOS after each. */
export interface TextData extends Domains {
  /** Opens every sequence: BOS, where there is none the EOS of a document before. */
  bosId: number;
  /** Per domain all its documents in a row. */
  tokens: readonly Int32Array[];
}

export interface EncodeOptions {
  /** Absent: there is no predictor. */
  predictorInput?: PredictorInput | undefined;
  /** Longest prompt with its answer, in tokens; longer examples are left out and counted. */
  maxTokens: number;
  /** Tokens that the predictor reads fewer than, its context; longer ones are left out and counted too. Absent: any. */
  predictorContext?: number | undefined;
}

/** Positions of an example: prompt and answer without EOS, which is only ever a label. */
export function exampleLength({ prompt, answer }: Turn): number {
  return prompt.length + answer.length - 1;
}

/** Positions of a conversation, with an EOS between turns. */
export function rowLength(turns: readonly Turn[]): number {
  return turns.reduce((sum, turn) => sum + 1 + exampleLength(turn), -1);
}

/** A human message and the answer to it. */
export type Turn = Pick<Example, "prompt" | "answer">;

/** @throws {OptionError} when nothing is left */
export function encodeQuestions(questions: readonly Question[], format: PromptFormat, options: EncodeOptions): SftData {
  const { predictorInput, maxTokens, predictorContext = Infinity } = options;
  const { tokenizer } = format;
  const encode = ({ input, examples, answer }: Question, wording: string): Example => {
    const prompt = composePrompt(wording, input, examples);
    return {
      prompt: format.promptIds(prompt),
      answer: format.answerIds(answer),
      predictorInputs: [
        ...(predictorInput === "prompt" || predictorInput === "both" ? [predictorIds(tokenizer, prompt)] : []),
        ...(predictorInput === "instruction" || predictorInput === "both"
          ? [predictorIds(tokenizer, instructionOf(prompt))]
          : []),
      ],
    };
  };
  const table = new DomainTable();
  const questionsOf: Question[][] = [];
  let numTooLong = 0;
  const frame = format.mostFrameTokens;
  for (const question of questions) {
    const { domain, weight, wordings, input = "", examples, answer } = question;
    const isShort = (wording: string) => {
      // Most texts need not be encoded to know.
      const most = Buffer.byteLength(composePrompt(wording, input, examples) + answer) + frame;
      if (most <= maxTokens && most < predictorContext) return true;
      const example = encode(question, wording);
      return (
        exampleLength(example) <= maxTokens && example.predictorInputs.every(({ length }) => length < predictorContext)
      );
    };
    const short = wordings.filter(isShort);
    numTooLong += wordings.length - short.length;
    if (short.length === 0) continue;
    const index = table.index(domain, weight);
    questionsOf[index] ??= [];
    questionsOf[index].push(short.length === wordings.length ? question : { ...question, wordings: short });
  }
  const domains = table.build(`a question of at most ${maxTokens} tokens`);
  return {
    ...domains,
    questions: domains.domains.map((_, i) => questionsOf[i] ?? []),
    numPredictorInputs: predictorInput === undefined ? 0 : predictorInput === "both" ? 2 : 1,
    encode,
    encodeTurn: ({ input, answer }, wording) => {
      if (wording === undefined && input === undefined) return undefined;
      const prompt = wording === undefined ? composeTurn(input!) : composePrompt(wording, input);
      return { prompt: format.turnIds(prompt), answer: format.answerIds(answer) };
    },
    numTooLong,
  };
}

/** @throws {OptionError} when there is no document */
export async function encodeDocuments(
  documents: Iterable<Document> | AsyncIterable<Document>,
  tokenizer: Tokenizer,
): Promise<TextData> {
  const table = new DomainTable();
  const tokensOf: IdsBuilder[] = [];
  const eos = Int32Array.of(tokenizer.eosId);
  for await (const { domain, weight, text } of documents) {
    const index = table.index(domain, weight);
    tokensOf[index] ??= new IdsBuilder();
    tokensOf[index].push(tokenizer.encode(text));
    tokensOf[index].push(eos);
  }
  const named = table.build("a document");
  return {
    ...named,
    bosId: tokenizer.bosId ?? tokenizer.eosId,
    tokens: named.domains.map((_, i) => tokensOf[i]?.build() ?? new Int32Array()),
  };
}

/** Domains and their weights, as rows mention them. */
class DomainTable {
  readonly #names: string[] = [];
  readonly #weights: number[] = [];
  readonly #indexOf = new Map<string, number>();

  index(domain: string, weight: number): number {
    let index = this.#indexOf.get(domain);
    if (index === undefined) {
      index = this.#names.push(domain) - 1;
      this.#indexOf.set(domain, index);
    }
    this.#weights[index] ??= weight;
    if (this.#weights[index] !== weight) {
      const both = `${this.#weights[index]} and ${weight}`;
      throw new OptionError(`training data: wanted one weight for domain "${domain}", got ${both}.`);
    }
    return index;
  }

  build(wanted: string): Domains {
    const weights = this.#weights;
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    if (!(total > 0)) throw new OptionError(`training data: wanted ${wanted}, got none.`);
    return { domains: this.#names, weights: weights.map((weight) => weight / total) };
  }
}
