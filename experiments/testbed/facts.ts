/**
 * The facts of the test bed: substitution tables over symbols. An instruction of two words names the table, the input is a symbol, the
 * answer is the symbol that the table puts in its place. There is no rule to find, so what counts is how much a model can hold.
 *
 * The two words are the table's own, and each has synonyms. Of the wordings some are trained and the others held out; every word
 * occurs in both.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { OptionError } from "../../src/errors.ts";
import { Random } from "../../src/random.ts";
import { byteTokens } from "../../src/text/tokenizer.ts";

export interface FactsOptions {
  seed: number;
  tables: number;
  /** Words for each of the two of a table. Its wordings are their pairs, `synonyms`²; `synonyms` of them are held out. */
  synonyms: number;
  /** At most 676. */
  symbols: number;
}

export interface Table {
  name: string;
  /** First and second words. */
  words: readonly [string[], string[]];
  wordings: { train: string[]; heldOut: string[] };
  /** The answer to each symbol, as an index into the symbols: a permutation. */
  answers: Int32Array;
}

export interface Facts {
  symbols: readonly string[];
  tables: readonly Table[];
}

const SPECIAL_TOKENS = ["<|bos|>", "<|eos|>"];
const LETTERS = [..."abcdefghijklmnopqrstuvwxyz"];
/** Not I, with which "Input" begins. */
const CAPITALS = [..."ABCDEFGHJKLMNOPQRSTUVWXYZ"];

/** Symbols are "aa", "ab", …; words are "Aa", "Ab", …, no two tables sharing one. */
export function makeFacts({ seed, tables, synonyms, symbols }: FactsOptions): Facts {
  const pairs = (first: readonly string[]) => first.flatMap((a) => LETTERS.map((b) => a + b));
  const words = pairs(CAPITALS);
  if (tables * 2 * synonyms > words.length)
    throw new OptionError(`test bed: wanted at most ${words.length} words, got ${tables} tables × 2 × ${synonyms}.`);
  return {
    symbols: pairs(LETTERS).slice(0, symbols),
    tables: Array.from({ length: tables }, (_, i): Table => {
      const name = `table-${i}`;
      const random = new Random(`${seed}/${name}`);
      const [first, second] = [words.splice(0, synonyms), words.splice(0, synonyms)];
      const partner = random.permutation(synonyms); // so that each word is held out with one other, and trained with the rest
      const wordings = (isHeldOut: boolean) =>
        first.flatMap((a, i) => second.filter((_, j) => (partner[i] === j) === isHeldOut).map((b) => `${a} ${b}`));
      return {
        name,
        words: [first, second],
        wordings: { train: wordings(false), heldOut: wordings(true) },
        answers: random.permutation(symbols),
      };
    }),
  };
}

/**
 * A tokenizer that spends one token on each word, on " Input: " and on the symbol with the line break after it: with BOS and the answer
 * a sequence of 6. Text is not split into words before merges, or the input mark alone would be two tokens.
 */
export function factsTokenizer({ symbols, tables }: Facts): unknown {
  const tokens = [...SPECIAL_TOKENS, ...byteTokens(true)];
  const merges: [string, string][] = [];
  const merge = (left: string, right: string) => {
    merges.push([left, right]);
    tokens.push(left + right);
  };
  const [space, lineBreak] = ["Ġ", "Ċ"];
  const mark = [...`${space}Input:${space}`];
  for (let i = 1; i < mark.length; i++) merge(mark.slice(0, i).join(""), mark[i]!);
  for (const pair of [...tables.flatMap(({ words }) => words.flat()), ...symbols]) merge(pair[0]!, pair[1]!);
  for (const second of tables.flatMap(({ words }) => words[1])) merge(space, second);
  for (const symbol of symbols) merge(symbol, lineBreak);
  return {
    version: "1.0",
    added_tokens: SPECIAL_TOKENS.map((content, id) => ({ id, content, special: true })),
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    model: { type: "BPE", vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  };
}

/** Held-out questions of each table, in its held-out wordings in turn: few, since each is asked under six masks. */
const HELD_OUT_QUESTIONS = 6;

/** Writes `tokenizer.json`, `train.jsonl`, `instructions.json` and `held-out.jsonl`: what a recipe reads. */
export function writeFacts({ seed }: FactsOptions, facts: Facts, folder: string): void {
  mkdirSync(folder, { recursive: true });
  const write = (name: string, rows: readonly unknown[]) =>
    writeFileSync(join(folder, name), rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const { symbols, tables } = facts;
  const question = ({ name, answers }: Table, symbol: number) => ({
    task: name,
    input: symbols[symbol]!,
    answers: [symbols[answers[symbol]!]!],
  });
  write("tokenizer.json", [factsTokenizer(facts)]);
  write("instructions.json", [Object.fromEntries(tables.map(({ name, wordings }) => [name, wordings]))]);
  write(
    "train.jsonl",
    tables.flatMap((table) => symbols.map((_, symbol) => question(table, symbol))),
  );
  const heldOut = tables.flatMap((table) => {
    const { heldOut: wordings } = table.wordings;
    const drawn = new Random(`${seed}/held-out/${table.name}`).permutation(symbols.length);
    return Array.from({ length: HELD_OUT_QUESTIONS }, (_, i) => ({
      ...question(table, drawn[i % symbols.length]!),
      instruction: wordings[i % wordings.length],
      scorer: "any",
    }));
  });
  write("held-out.jsonl", heldOut);
}
