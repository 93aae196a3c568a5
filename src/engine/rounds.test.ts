import { setTimeout as later } from "node:timers/promises";
import { expect, test } from "vitest";
import { Rounds } from "./rounds.ts";

const read: (readonly number[])[] = [];
const compute = <T>(numTokens: readonly number[], work: () => Promise<T>): Promise<T> => {
  read.push(numTokens);
  return work();
};

test("the steps of a round begin and end in the order of their sequences, however long each takes, and the next round waits for all", async () => {
  const rounds = new Rounds(compute);
  const seen: string[] = [];
  const ms = [3, 9, 1];
  const run = async (sequence: number) => {
    for (const step of ["a", "b"]) {
      await rounds.step(sequence, 10 + sequence, async () => {
        seen.push(`${step}${sequence}`);
        await later(ms[sequence]);
      });
      seen.push(`${step}${sequence} done`);
    }
  };
  await Promise.all([2, 0, 1].map(run));
  const round = (step: string) => [
    ...[0, 1, 2].map((sequence) => `${step}${sequence}`),
    ...[0, 1, 2].map((sequence) => `${step}${sequence} done`),
  ];
  expect(seen).toEqual([...round("a"), ...round("b")]);
  expect(read).toEqual([
    [10, 11, 12],
    [10, 11, 12],
  ]);
});

test("a step that fails fails alone", async () => {
  const rounds = new Rounds(compute);
  const failing = rounds.step(0, 1, () => Promise.reject(new Error("no")));
  const other = rounds.step(1, 1, async () => 7);
  await expect(failing).rejects.toThrow("no");
  expect(await other).toBe(7);
  expect(await rounds.step(0, 1, async () => 8)).toBe(8);
});
