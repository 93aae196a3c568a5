import { describe, expect, test } from "vitest";
import { createTokenizer } from "../../src/text/tokenizer.ts";
import { factsTokenizer, makeFacts } from "./facts.ts";

const facts = makeFacts({ seed: 1, tables: 64, synonyms: 3, symbols: 64 });

describe("facts of the test bed", () => {
  test("each table maps the symbols one to one, and no two tables alike", () => {
    for (const { answers } of facts.tables)
      expect(answers.toSorted()).toEqual(Int32Array.from({ length: 64 }, (_, i) => i));
    expect(new Set(facts.tables.map(({ answers }) => answers.join())).size).toBe(64);
  });

  test("no wording is trained and held out, or names two tables, and every word is in both kinds", () => {
    const all = facts.tables.flatMap(({ wordings }) => [...wordings.train, ...wordings.heldOut]);
    expect(new Set(all).size).toBe(64 * 9);
    const wordsOf = (texts: readonly string[]) => new Set(texts.flatMap((text) => text.split(" ")));
    for (const { words, wordings } of facts.tables) {
      expect([wordings.train.length, wordings.heldOut.length]).toEqual([6, 3]);
      for (const part of [wordings.train, wordings.heldOut]) expect(wordsOf(part)).toEqual(new Set(words.flat()));
    }
    expect(wordsOf(all).size).toBe(64 * 6);
  });

  test("words, the input mark with its spaces, symbol and line break, and an answer are a token each", () => {
    const tokenizer = createTokenizer(factsTokenizer(facts), "facts");
    for (const { wordings } of facts.tables) {
      for (const wording of [...wordings.train, ...wordings.heldOut]) {
        expect(tokenizer.encode(`${wording} Input: ${facts.symbols[0]}\n`)).toHaveLength(4);
      }
    }
    for (const symbol of facts.symbols) {
      expect(tokenizer.encode(symbol)).toHaveLength(1);
      expect(tokenizer.encode(`Aa Ad Input: ${symbol}\n`)).toHaveLength(4);
    }
  });
});
