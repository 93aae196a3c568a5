import { describe, expect, test } from "vitest";
import { OptionError } from "./errors.ts";
import { Random } from "./random.ts";

describe("Random", () => {
  test("is xoshiro128**: its authors' implementation gives these outputs from state 1, 2, 3, 4", () => {
    const random = Random.fromState([1, 2, 3, 4]);
    expect(Array.from({ length: 4 }, () => random.uint32())).toEqual([11520, 0, 5927040, 70819200]);
  });

  test("repeats with its seed and goes on from its state", () => {
    const [a, b] = [new Random("seed"), new Random("seed")];
    const first = Array.from({ length: 100 }, () => a.uint32());
    expect(Array.from({ length: 100 }, () => b.uint32())).toEqual(first);
    expect(new Random("seed/1").uint32()).not.toBe(first[0]);
    const resumed = Random.fromState(a.state);
    expect(Array.from({ length: 100 }, () => resumed.normal())).toEqual(Array.from({ length: 100 }, () => a.normal()));
  });

  test("draws each number once, the first ones whether or not the others are taken (seed 5)", () => {
    const all = [...new Random(5).draws(50)];
    expect(all.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    const [first, second] = new Random(5).draws(50);
    expect([first, second]).toEqual(all.slice(0, 2));
    const counts = Array.from({ length: 3 }, () => 0);
    const random = new Random(6);
    for (let i = 0; i < 3000; i++) counts[random.draws(3).next().value!]!++;
    for (const count of counts) expect(count).toBeGreaterThan(900);
  });

  test("the same numbers on every machine (seed 0)", () => {
    const random = new Random(0);
    expect([random.uint32(), random.uint32()]).toEqual([3542772213, 812230391]);
  });

  test.each([[[0, 0, 0, 0]], [[1, 2, 3]], [[1, 2, 3, 4, 5]], [[1, 2, 3, 0.5]], [[1, 2, 3, 2 ** 32]]])(
    "refuses state %j",
    (state) => {
      expect(() => Random.fromState(state)).toThrow(OptionError);
    },
  );

  test("int is uniform, within 4.5 standard deviations over 30,000 draws of 3", () => {
    const random = new Random(1);
    const counts = [0, 0, 0];
    for (let i = 0; i < 30_000; i++) counts[random.int(3)]!++;
    for (const count of counts)
      expect(Math.abs(count - 10_000)).toBeLessThan(4.5 * Math.sqrt(30_000 * (1 / 3) * (2 / 3)));
  });

  test("normal has mean 0, variance 1 and the tails of a normal distribution", () => {
    const random = new Random(2);
    const n = 100_000;
    const samples = Array.from({ length: n }, () => random.normal());
    const mean = samples.reduce((a, b) => a + b) / n;
    const variance = samples.reduce((a, b) => a + b * b, 0) / n;
    const beyond2 = samples.filter((z) => Math.abs(z) > 2).length / n;
    expect(Math.abs(mean)).toBeLessThan(4.5 / Math.sqrt(n));
    expect(Math.abs(variance - 1)).toBeLessThan(4.5 * Math.sqrt(2 / n));
    expect(Math.abs(beyond2 - 0.0455)).toBeLessThan(4.5 * Math.sqrt((0.0455 * 0.9545) / n));
  });

  test("permutation holds every index once, and all orders of 3 are equally likely", () => {
    const random = new Random(3);
    expect([...random.permutation(1000)].sort((a, b) => a - b)).toEqual([...Array(1000).keys()]);
    const counts = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const order = random.permutation(3).join("");
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    for (const count of counts.values())
      expect(Math.abs(count - 1000)).toBeLessThan(4.5 * Math.sqrt(6000 * (1 / 6) * (5 / 6)));
  });
});
