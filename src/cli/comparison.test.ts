import { expect, test } from "vitest";
import type { ComparedAnswer, Comparison } from "../answer/compareAnswers.ts";
import { printComparison } from "./comparison.ts";

const answer = (text: string, changes: Partial<ComparedAnswer>): ComparedAnswer => ({
  text,
  tokens: [1, 2, 3, 4],
  differsAt: undefined,
  keptShare: 1,
  ms: { predict: 0, gather: 0, load: 0, prefill: 0, decode: 0 },
  firstTokenMs: 42,
  tokensPerSecond: 30,
  ...changes,
});

function comparison(left: string, right: string, differsAt: number | undefined): Comparison {
  return {
    dense: answer(left, { differsAt }),
    subnetwork: answer(right, { differsAt, keptShare: 0.0625, tokensPerSecond: undefined }),
    chosen: { source: "predictor", cached: false },
    promptTokens: 3,
    agreement: differsAt === undefined ? 1 : 0.75,
    firstDifference: differsAt === undefined ? undefined : 2,
  };
}

function printed(of: Comparison, columns?: number): string {
  let text = "";
  printComparison(of, { columns, write: (part) => (text += part) });
  return text;
}

test("on a wide terminal the answers stand side by side, wrapped, and facts on one line whatever their lengths", () => {
  const long = "The capital of France is Paris, which lies on the river Seine.\nIt is old.";
  const text = printed(comparison(long, "The capital of France is Lyon.", 25), 83);
  expect(text).toBe(
    `${[
      "Dense model                              │ Sub-network",
      "                                         │",
      "The capital of France is ▸Paris, which   │ The capital of France is ▸Lyon.",
      "lies on the river Seine.                 │",
      "It is old.                               │",
      "                                         │",
      "100 % of the FFN · first token 42 ms ·   │ 6.3 % of the FFN · first token 42 ms",
      "30 tokens/s                              │",
    ].join("\n")}\n\nThey part at ▸, token 3. The sub-network would write 75 % of the dense answer's 4 tokens too.\n`,
  );
  for (const line of text.split("\n").slice(0, 8)) expect([...line].length).toBeLessThanOrEqual(83);
});

test("a word longer than a column is cut", () => {
  const [, , first, second] = printed(comparison("x".repeat(50), "y", undefined), 83).split("\n");
  expect([first, second]).toEqual([`${"x".repeat(40)} │ y`, `${"x".repeat(10)}${" ".repeat(30)} │`]);
});

test.each([
  ["elsewhere than on a terminal", "wolves", undefined],
  ["on a narrow one", "wolves", 79],
  ["where characters take two cells", "狼です", 200],
])("%s they come one after the other", (_, text, columns) => {
  expect(printed(comparison(text, text, undefined), columns)).toBe(
    `Dense model\n\n${text}\n\n100 % of the FFN · first token 42 ms · 30 tokens/s\n\n` +
      `Sub-network\n\n${text}\n\n6.3 % of the FFN · first token 42 ms\n\n` +
      "The same answer. The sub-network would write 100 % of the dense answer's 4 tokens too.\n",
  );
});
