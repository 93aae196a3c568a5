import { describe, expect, test } from "vitest";
import { OptionError, ShapeError } from "../errors.ts";
import { Random } from "../random.ts";
import { groupChannels, keptImportance, storedOrder } from "./blocks.ts";

/**
 * P profiles [L·F] in which blocks of channels matter alike, up to `noise`, but stand apart.
 *
 * @returns the group of each channel beside them, [L][F]
 */
function planted(seed: string, { P = 4, L = 2, F = 96, block = 8, noise = 0.1 } = {}) {
  const random = new Random(seed);
  const profiles = Array.from({ length: P }, () => new Float64Array(L * F));
  const groupOf = Array.from({ length: L }, (_, layer) => {
    const groups = random.permutation(F).map((place) => Math.floor(place / block));
    const levels = Array.from({ length: F / block }, () => profiles.map(() => Math.exp(random.normal())));
    for (const [channel, group] of groups.entries()) {
      for (const [p, profile] of profiles.entries())
        profile[layer * F + channel] = levels[group]![p]! * Math.exp(noise * random.normal());
    }
    return groups;
  });
  return { profiles, groupOf, L, F, block };
}

/** Roots of what each channel of a layer has of the profiles' sums, [F][P], as the definition has it. */
function rootsOf(profiles: readonly Float64Array[], layer: number, F: number): number[][] {
  const own = profiles.map((profile) => profile.subarray(layer * F, (layer + 1) * F));
  const totals = own.map((row) => row.reduce((sum, x) => sum + x, 0));
  return Array.from({ length: F }, (_, channel) => own.map((row, p) => Math.sqrt(row[channel]! / totals[p]!)));
}

const squares = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, p) => sum + (x - b[p]!) ** 2, 0);
const meanOf = (points: readonly number[][]) =>
  points[0]!.map((_, p) => points.reduce((sum, point) => sum + point[p]!, 0) / points.length);
const inBlocks = (channels: Int32Array, block: number) =>
  Array.from({ length: channels.length / block }, (_, b) => [...channels.subarray(b * block, (b + 1) * block)]);

/** Squared distances to the means of blocks, over all layers. */
function spread(profiles: readonly Float64Array[], order: readonly Int32Array[], block: number): number {
  return order.reduce((sum, channels, layer) => {
    const roots = rootsOf(profiles, layer, channels.length);
    const blocks = inBlocks(channels, block).map((members) => members.map((channel) => roots[channel]!));
    return sum + blocks.flatMap((own) => own.map((root) => squares(root, meanOf(own)))).reduce((a, b) => a + b, 0);
  }, 0);
}

const shapes = [
  { P: 1, block: 16, noise: 1 },
  { P: 3, block: 4, noise: 0.3 },
  { P: 4, block: 96, noise: 0.3 }, // one block
  { P: 8, block: 1, noise: 0.3 },
  { P: 8, block: 32, noise: 3 },
];
describe.each(shapes)("$P profiles in blocks of $block, noise $noise", (shape) => {
  test.each([1, 2, 3])(
    "every channel has one place, and the blocks are no less alike than as stored, seed %i",
    (seed) => {
      const { profiles, L, F, block } = planted(`order ${seed}`, shape);
      const order = groupChannels(profiles, { dFfn: F, block });
      expect(order.map((channels) => channels.toSorted())).toEqual(storedOrder(L, F));
      expect(spread(profiles, order, block)).toBeLessThanOrEqual(
        spread(profiles, storedOrder(L, F), block) * (1 + 1e-12),
      );
      expect(groupChannels(profiles, { dFfn: F, block })).toEqual(order);
    },
  );
});

test.each([1, 2, 3])("no two channels are better off in each other's block, seed %i", (seed) => {
  const { profiles, F, block } = planted(`exchange ${seed}`, { L: 1, noise: 0.5 });
  const roots = rootsOf(profiles, 0, F);
  const blocks = inBlocks(groupChannels(profiles, { dFfn: F, block })[0]!, block);
  const means = blocks.map((members) => meanOf(members.map((channel) => roots[channel]!)));
  for (const [a, first] of blocks.entries()) {
    for (const [b, second] of blocks.slice(0, a).entries()) {
      const gain = (channel: number, from: number, to: number) =>
        squares(roots[channel]!, means[from]!) - squares(roots[channel]!, means[to]!);
      const best = Math.max(...first.map((i) => gain(i, a, b))) + Math.max(...second.map((j) => gain(j, b, a)));
      expect(best).toBeLessThan(1e-12);
    }
  }
});

test.each([1, 2, 3, 4])("planted groups are found, and keep what free channels would, seed %i", (seed) => {
  const { profiles, groupOf, L, F, block } = planted(`groups ${seed}`, { P: 8, block: 4, noise: 0.02 });
  const order = groupChannels(profiles, { dFfn: F, block });
  for (const [layer, channels] of order.entries()) {
    for (const members of inBlocks(channels, block))
      expect(new Set(members.map((channel) => groupOf[layer]![channel]!)).size).toBe(1);
  }
  for (const profile of profiles) {
    const [free, stored, grouped] = [
      keptImportance(profile, storedOrder(L, F), { block: 1, tFfn: 24 }),
      keptImportance(profile, storedOrder(L, F), { block, tFfn: 24 }),
      keptImportance(profile, order, { block, tFfn: 24 }),
    ];
    expect(grouped).toBeGreaterThan(0.99 * free!);
    expect(stored).toBeLessThan(0.9 * free!);
  }
});

test("loud kinds of prompts count as much as quiet ones", () => {
  const { profiles, F, block } = planted("loudness");
  const loud = profiles.map((profile, p) => profile.map((x) => x * 2 ** (3 * p)));
  expect(groupChannels(loud, { dFfn: F, block })).toEqual(groupChannels(profiles, { dFfn: F, block }));
});

test("channels that never matter are no obstacle", () => {
  const profiles = [new Float64Array(12), Float64Array.of(0, 0, 0, 0, 0, 0, 5, 0, 0, 5, 0, 0)];
  const [channels] = groupChannels(profiles, { dFfn: 12, block: 2 });
  expect(channels!.indexOf(6) >> 1).toBe(channels!.indexOf(9) >> 1);
});

test("the share that blocks keep, by hand", () => {
  const profile = Float64Array.of(4, 1, 3, 2, /* second layer */ 1, 1, 1, 1);
  const order = [Int32Array.of(0, 2, 1, 3), Int32Array.of(3, 2, 1, 0)];
  expect(keptImportance(profile, storedOrder(2, 4), { block: 1, tFfn: 1 })).toBeCloseTo((0.4 + 0.25) / 2, 12);
  expect(keptImportance(profile, storedOrder(2, 4), { block: 2, tFfn: 2 })).toBeCloseTo((0.5 + 0.5) / 2, 12);
  expect(keptImportance(profile, order, { block: 2, tFfn: 2 })).toBeCloseTo((0.7 + 0.5) / 2, 12);
  expect(keptImportance(profile, order, { block: 2, tFfn: 4 })).toBeCloseTo(1, 12);
  const chosenBy = Float64Array.of(0, 5, 2, 2, /* second layer */ 0, 0, 0, 1);
  expect(keptImportance(profile, order, { block: 2, tFfn: 2, chosenBy })).toBeCloseTo((0.3 + 0.5) / 2, 12);
  expect(keptImportance(profile, order, { block: 1, tFfn: 1, chosenBy })).toBeCloseTo((0.1 + 0.25) / 2, 12);
});

test("what does not fit is refused", () => {
  const { profiles, L, F } = planted("refused");
  for (const block of [0, -8, 5, 64, 1.5, Number.NaN]) {
    expect(() => groupChannels(profiles, { dFfn: F, block })).toThrow(OptionError);
    expect(() => keptImportance(profiles[0]!, storedOrder(L, F), { block, tFfn: 48 })).toThrow(OptionError);
  }
  const whole = { block: 8, tFfn: 48 };
  expect(() => groupChannels([], { dFfn: F, block: 8 })).toThrow(OptionError);
  expect(() => groupChannels([profiles[0]!, profiles[1]!.subarray(F)], { dFfn: F, block: 8 })).toThrow(ShapeError);
  expect(() => groupChannels([profiles[0]!.subarray(1)], { dFfn: F, block: 8 })).toThrow(ShapeError);
  expect(() => keptImportance(profiles[0]!.subarray(F), storedOrder(L, F), whole)).toThrow(ShapeError);
  expect(() =>
    keptImportance(profiles[0]!, storedOrder(L, F), { ...whole, chosenBy: profiles[1]!.subarray(F) }),
  ).toThrow(ShapeError);
  for (const tFfn of [0, -32, 48, 128, Number.NaN])
    expect(() => keptImportance(profiles[0]!, storedOrder(L, F), { block: 32, tFfn })).toThrow(OptionError);
});
