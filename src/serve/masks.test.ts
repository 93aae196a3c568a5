import { describe, expect, test } from "vitest";
import { MaskMemo, nameMask } from "./masks.ts";

describe("a memo of masks", () => {
  /** As large as a mask of a million channels, 4 MiB; the memo does not look into it. */
  const big = (number: number) => {
    const kept = new Int32Array(2 ** 20);
    kept[0] = number;
    return nameMask({ tFfn: kept.length, dFfn: kept.length, layers: [kept] }, "test");
  };

  test("finds masks by what they were made for and by id; instructions may share one", () => {
    const memo = new MaskMemo();
    const [a, b] = [big(0), big(1)];
    memo.add("one", a);
    memo.add("two", b);
    memo.add("three", { ...a });
    expect([memo.find("one"), memo.find("two"), memo.find("three")]).toEqual([a, b, a]);
    expect(memo.get(b.id)).toBe(b);
    expect([memo.find("four"), memo.get("x")]).toEqual([undefined, undefined]);
  });

  test("forgets those unused for longest, so that it does not grow", () => {
    const memo = new MaskMemo();
    for (let i = 0; i < 20; i++) {
      memo.add(`${i}`, big(i));
      memo.find("0"); // in use
    }
    const known = Array.from({ length: 20 }, (_, i) => memo.find(`${i}`) !== undefined);
    expect(known.filter(Boolean).length).toBe(16); // of 64 MiB
    expect([known[0], known[1], known[19]]).toEqual([true, false, true]);
  });
});
