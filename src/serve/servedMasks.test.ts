import { expect, test } from "vitest";
import type { MaskSource } from "../answer/maskSource.ts";
import type { Bundle } from "../bundle/bundle.ts";
import type { TaskStore } from "./masks.ts";
import { ServedMasks } from "./servedMasks.ts";

test("a mask is remembered for all that it was made of: text, ids, where the user's text is, and size", async () => {
  const made: unknown[] = [];
  const source: MaskSource = {
    name: "griffin",
    async scores(instruction) {
      made.push(instruction);
      return { scores: Float32Array.from({ length: 8 }, (_, i) => (i * made.length) % 5), cached: false };
    },
    [Symbol.asyncDispose]: async () => {},
  };
  const bundle = { ffnWidth: 8, numLayers: 1 } as Bundle;
  const masks = new ServedMasks(bundle, source, {} as TaskStore);
  const { signal } = new AbortController();
  const asked = { text: "a", ids: Int32Array.of(1, 2, 3) };
  const user = [1, 2] as const;
  const all = [
    [asked, 4],
    [{ ...asked, text: "b" }, 4],
    [{ ...asked, ids: Int32Array.of(1, 2) }, 4],
    [{ ...asked, user }, 4],
    [{ ...asked, user: [0, 2] as const }, 4],
    [asked, 5],
  ] as const;
  const first = [];
  for (const [instruction, tFfn] of all) first.push(await masks.of(instruction, tFfn, signal));
  expect(made).toHaveLength(all.length);
  for (const [i, [instruction, tFfn]] of all.entries())
    expect(await masks.of({ ...instruction }, tFfn, signal)).toBe(first[i]);
  expect(made).toHaveLength(all.length);
});
