import { readFileSync } from "node:fs";

export interface GoldenCase {
  n: number;
  k: number;
  eps: number;
  scores: number[];
  weights: number[] | null;
  lambda: number[];
  kept: number[];
  grad: number[] | null;
}

/** Computed in float64 by an independent implementation with automatic differentiation; see the fixtures' README. */
export const golden: GoldenCase[] = JSON.parse(
  readFileSync(new URL("../fixtures/golden/soft-topk.json", import.meta.url), "utf8"),
);
