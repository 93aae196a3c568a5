/**
 * Training data: files → rows → token ids. What a training step sees of it, and in which order, is in `batches.ts`.
 */
import { readFileSync } from "node:fs";
import { z } from "zod";
import { FileError, OptionError } from "../errors.ts";
import { readJsonLines } from "../text/jsonl.ts";
import { composePrompt, predictorIds, promptIds } from "../text/prompt.ts";
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
      questions.push({
        domain: row.task ?? domain,
        weight,
        wordings: wordingsFor(row, wordingsOf, path, line),
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
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new FileError(path, `wanted instructions by task in JSON, got: ${(error as Error).message}.`, {
      cause: error,
    });
  }
  const parsed = instructionsFile.safeParse(json);
  if (!parsed.success) {
    const { path: field, message } = parsed.error.issues[0]!;
    throw new FileError(path, `wanted {task: {"train": [wording, …]}}, got a wrong "${field.join(".")}": ${message}.`);
  }
  return new Map(Object.entries(parsed.data).map(([task, { train }]) => [task, train]));
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
      const prompt = composePrompt(wordings[line % wordings.length]!, row.input);
      yield { domain, weight, text: `${prompt}\n${row.output ?? row.answers![0]!}` };
    }
  }
}

/** Sequences of token ids, end to end in one array. */
export interface Sequences {
  ids: Int32Array;
  /** Sequence i is `ids[starts[i] .. starts[i + 1]]`. */
  starts: Int32Array;
}

export function sequenceAt({ ids, starts }: Sequences, i: number): Int32Array {
  return ids.subarray(starts[i], starts[i + 1]);
}

export function sequenceLength({ starts }: Sequences, i: number): number {
  return starts[i + 1]! - starts[i]!;
}

/** Sequences as they come, in one array that grows. */
class SequencesBuilder {
  #ids = new Int32Array(1 << 12);
  readonly #starts: number[] = [0];

  push(sequence: Int32Array): void {
    const start = this.#starts.at(-1)!;
    const end = start + sequence.length;
    if (end > this.#ids.length) {
      const grown = new Int32Array(Math.max(end, 2 * this.#ids.length));
      grown.set(this.#ids);
      this.#ids = grown;
    }
    this.#ids.set(sequence, start);
    this.#starts.push(end);
  }

  build(): Sequences {
    return { ids: this.#ids.slice(0, this.#starts.at(-1)), starts: Int32Array.from(this.#starts) };
  }
}

interface Domains {
  domains: readonly string[];
  /** Share of the draws of each domain; the sum is 1. */
  weights: readonly number[];
}

/** Questions as token ids. An example is a question in one of its wordings. */
export interface SftData extends Domains {
  /** Per domain its questions; per question its examples. */
  questions: readonly (readonly Int32Array[])[];
  /** Per example: its domain. */
  domainOf: Int32Array;
  /** Per example: what the LLM reads, BOS first. */
  prompts: Sequences;
  /** Per example: what it shall answer, EOS last. */
  answers: Sequences;
  /** Per example: what the predictor may read, BOS first: the whole prompt and/or the instruction. Empty: no predictor. */
  predictorInputs: readonly Sequences[];
  /** Examples left out because they were longer than `maxTokens`. */
  numTooLong: number;
}

/** Documents as token ids, EOS after each. */
export interface TextData extends Domains {
  bosId: number;
  /** Per domain all its documents in a row. */
  tokens: readonly Int32Array[];
}

export interface EncodeOptions {
  /** What the LLM reads around the prompt. */
  promptTemplate: string;
  /** Absent: there is no predictor. */
  predictorInput?: PredictorInput;
  /** Longest prompt with its answer, in tokens; longer examples are left out and counted. */
  maxTokens: number;
  /** Order of the domains, when another part of the data has fixed it; absent: as they come. */
  domains?: readonly string[];
}

/**
 * @throws {OptionError} when nothing is left, or a domain is not among `options.domains`
 */
export function encodeQuestions(questions: readonly Question[], tokenizer: Tokenizer, options: EncodeOptions): SftData {
  const { promptTemplate, predictorInput, maxTokens } = options;
  const table = new DomainTable(options.domains);
  const questionsOf: Int32Array[][] = [];
  const domainOf: number[] = [];
  const [prompts, answers] = [new SequencesBuilder(), new SequencesBuilder()];
  const wholePrompts = predictorInput === "prompt" || predictorInput === "both" ? new SequencesBuilder() : undefined;
  const instructions =
    predictorInput === "instruction" || predictorInput === "both" ? new SequencesBuilder() : undefined;
  let numTooLong = 0;
  for (const { domain, weight, wordings, input, answer } of questions) {
    const answerIds = Int32Array.from([...tokenizer.encode(answer), tokenizer.eosId]);
    const examples: number[] = [];
    for (const wording of wordings) {
      const prompt = composePrompt(wording, input);
      const ids = promptIds(tokenizer, prompt, promptTemplate);
      if (ids.length + answerIds.length - 1 > maxTokens) {
        numTooLong++;
        continue;
      }
      examples.push(domainOf.length);
      domainOf.push(table.index(domain, weight));
      prompts.push(ids);
      answers.push(answerIds);
      wholePrompts?.push(predictorIds(tokenizer, prompt));
      instructions?.push(predictorIds(tokenizer, wording));
    }
    if (examples.length === 0) continue;
    const index = table.index(domain, weight);
    questionsOf[index] ??= [];
    questionsOf[index].push(Int32Array.from(examples));
  }
  const domains = table.build(`a question of at most ${maxTokens} tokens`);
  return {
    ...domains,
    questions: domains.domains.map((_, i) => questionsOf[i] ?? []),
    domainOf: Int32Array.from(domainOf),
    prompts: prompts.build(),
    answers: answers.build(),
    predictorInputs: [wholePrompts, instructions].flatMap((inputs) => inputs?.build() ?? []),
    numTooLong,
  };
}

/**
 * @param domains order of the domains, when another part of the data has fixed it
 * @throws {OptionError} when there is no document, or a domain is not among `domains`
 */
export async function encodeDocuments(
  documents: Iterable<Document> | AsyncIterable<Document>,
  tokenizer: Tokenizer,
  domains?: readonly string[],
): Promise<TextData> {
  const table = new DomainTable(domains);
  const tokensOf: SequencesBuilder[] = [];
  const eos = Int32Array.of(tokenizer.eosId);
  for await (const { domain, weight, text } of documents) {
    const index = table.index(domain, weight);
    tokensOf[index] ??= new SequencesBuilder();
    tokensOf[index].push(tokenizer.encode(text));
    tokensOf[index].push(eos);
  }
  const named = table.build("a document");
  return {
    ...named,
    bosId: tokenizer.bosId,
    tokens: named.domains.map((_, i) => tokensOf[i]?.build().ids ?? new Int32Array()),
  };
}

/** Domains and their weights, as rows mention them. */
class DomainTable {
  readonly #isFixed: boolean;
  readonly #names: string[];
  readonly #weights: (number | undefined)[] = [];
  readonly #indexOf: Map<string, number>;

  constructor(fixed: readonly string[] | undefined) {
    this.#isFixed = fixed !== undefined;
    this.#names = [...(fixed ?? [])];
    this.#indexOf = new Map(this.#names.map((name, i) => [name, i]));
  }

  index(domain: string, weight: number): number {
    let index = this.#indexOf.get(domain);
    if (index === undefined) {
      if (this.#isFixed) {
        throw new OptionError(`training data: wanted the domains ${this.#names.join(", ")}, got "${domain}".`);
      }
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
    const weights = this.#names.map((_, i) => this.#weights[i] ?? 0);
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    if (!(total > 0)) throw new OptionError(`training data: wanted ${wanted}, got none.`);
    return { domains: this.#names, weights: weights.map((weight) => weight / total) };
  }
}
