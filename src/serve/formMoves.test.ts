import { expect, test } from "vitest";
import { FormMoves } from "./formMoves.ts";

const settled = () => new Promise<void>((resolve) => void setImmediate(resolve));

test("a form is made once its lack has cost as much as making it, and only once at a time", async () => {
  await using moves = new FormMoves();
  const made: string[] = [];
  let finish = () => {};
  const make = (name: string) => () => {
    made.push(name);
    return new Promise<void>((resolve) => {
      finish = resolve;
    });
  };
  for (const lost of [4, 5]) moves.lose("a", lost, 10, make("a"));
  await settled();
  expect([made, moves.isMoving]).toEqual([[], false]);
  for (let again = 0; again < 3; again++) moves.lose("a", 1, 10, make("a"));
  moves.lose("b", 100, 10, make("b")); // waits for its turn
  await settled();
  expect([made, moves.isMoving]).toEqual([["a"], true]);
  finish();
  await settled();
  expect(made).toEqual(["a", "b"]);
  finish();
  await settled();
  expect(moves.isMoving).toBe(false);
});

test("what is there is not made again, what cost nothing is not made", async () => {
  await using moves = new FormMoves();
  const never = () => Promise.reject(new Error("made"));
  moves.lose("a", 100, 0, never);
  for (let again = 0; again < 100; again++) moves.lose("b", 0, 10, never);
  expect(moves.isMoving).toBe(false);
});

test("a move that fails is no end: the form is tried again after as much again was lost; closing stops what moves", async () => {
  const moves = new FormMoves();
  let tries = 0;
  const fail = () => {
    tries++;
    return Promise.reject(new Error("no room"));
  };
  for (let again = 0; again < 2; again++) {
    moves.lose("a", 10, 10, fail);
    await settled();
  }
  expect(tries).toBe(2);
  let reason: unknown;
  moves.start("b", async (stop) => {
    await new Promise((resolve) => stop.addEventListener("abort", resolve));
    reason = stop.reason;
  });
  await settled();
  await moves[Symbol.asyncDispose]();
  expect(reason).toBeDefined();
  moves.start("c", fail);
  await settled();
  expect(tries).toBe(2);
});
