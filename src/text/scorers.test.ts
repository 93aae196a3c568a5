import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isCorrect, type ScorerName } from "./scorers.ts";

describe("isCorrect", () => {
  const cases: [ScorerName, string, string[], boolean][] = [
    ["any", "wolves", ["wolves"], true],
    ["any", " wolves\n", ["wolf", "wolves"], true],
    ["any", "five  hundred", ["five hundred"], true],
    ["any", "cafe\u0301", ["café"], true],
    ["any", "Wolves", ["wolves"], false], // German nouns differ from verbs by case alone
    ["any", "wolves.", ["wolves"], false],
    ["any", "wolves mice", ["wolves", "mice"], false],
    ["any", "", ["wolves"], false],
    ["comma-set", "dog, cat", ["cat, dog"], true],
    ["comma-set", "dog ,cat", ["cat, dog"], true],
    ["comma-set", "cat", ["cat, dog"], false],
    ["comma-set", "cat, dog, dog", ["cat, dog"], false],
    ["comma-set", "cat dog", ["cat, dog"], false],
    ["comma-set", "cat, dog,", ["cat, dog"], false],
    ["comma-set", "polar bear", ["bear polar"], false],
    ["word-set", "the  to", ["to the"], true],
    ["word-set", "the the to", ["to the"], false],
    ["word-set", "sam", ["Sam"], false],
    ["word-set", "Sam", ["sam", "Sam"], true],
    ["contains", "The capital of Italy is\nrome.", ["Paris", "Rome"], true],
    ["contains", "Romeo and Juliet", ["Rome"], false],
    ["contains", "It has 366 days", ["36"], false],
    ["contains", "about 3.14 (π)", ["3.14"], true],
    ["contains", "about 3514", ["3.14"], false],
    ["contains", "New\u00a0 York", ["new york"], true],
    ["contains", "C++ is one", ["C++"], true],
    ["contains", "(1-2) or 3/4", ["1-2"], true],
    ["contains", "", ["Rome"], false],
    ...["It is 2.5.", "It is 5.2", "The answer is -5.", "−5", "= -5", "1,500 and 5,000", "55", "5th"].map(
      (output): [ScorerName, string, string[], boolean] => ["contains", output, ["5"], false],
    ),
    ...["It is 5.", "5, or so", "2,4,5,6", "in 2,5 and", "3-5", "(5)", "5%", "5,00 and 5", "x=5"].map(
      (output): [ScorerName, string, string[], boolean] => ["contains", output, ["5"], true],
    ),
    ["contains", "About 1,500 people", ["500"], false],
    ["contains", "1,500 people", ["1,500"], true],
    ["contains", "12,500 people", ["500 people"], false],
    ["contains", "a score of -5", ["-5"], true],
    ["contains", "यह नदी है", ["नद"], false], // a vowel sign is a part of its word
  ];
  test.each(cases)("%s: %j for %j is %s", (scorer, output, answers, wanted) => {
    expect(isCorrect(scorer, output, answers)).toBe(wanted);
  });

  test("order does not matter to the sets, an item more or less does (seed 1)", () => {
    const word = fc.stringMatching(/^[a-z]{1,5}$/);
    const list = fc.uniqueArray(word, { minLength: 2, maxLength: 6 });
    fc.assert(
      fc.property(list, fc.nat(), (items, seed) => {
        const turn = seed % items.length;
        const turned = [...items.slice(turn), ...items.slice(0, turn)];
        for (const [scorer, separator] of [
          ["comma-set", ", "],
          ["word-set", " "],
        ] as const) {
          expect(isCorrect(scorer, turned.join(separator), [items.join(separator)])).toBe(true);
          expect(isCorrect(scorer, items.slice(1).join(separator), [items.join(separator)])).toBe(false);
          expect(isCorrect(scorer, [...items, items[0]].join(separator), [items.join(separator)])).toBe(false);
        }
      }),
      { seed: 1, numRuns: 200 },
    );
  });
});
