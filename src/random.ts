/** Seeded random numbers: the same seed gives the same numbers on every machine. Not for secrets. */
import { createHash } from "node:crypto";
import { OptionError } from "./errors.ts";

/** Four 32-bit integers, not all zero. */
export type RandomState = readonly [number, number, number, number];

/**
 * xoshiro128**, seeded with the SHA-256 of the seed's text, so that "7/names/0" and "7/names/1" give unrelated streams.
 *
 * @see Blackman & Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47(4), 2021
 */
export class Random {
  readonly #state: Int32Array; // [4]

  constructor(seed: number | string) {
    const digest = createHash("sha256").update(String(seed)).digest();
    this.#state = Int32Array.from({ length: 4 }, (_, i) => digest.readInt32LE(4 * i));
  }

  /** @throws {OptionError} on anything but four 32-bit integers, not all zero */
  static fromState(state: readonly number[]): Random {
    const random = new Random(0);
    random.#state.set(state.slice(0, 4));
    if (state.length !== 4 || state.some((word, i) => word !== random.#state[i]) || !state.some((word) => word !== 0)) {
      throw new OptionError(`Random.fromState: wanted four 32-bit integers, not all zero, got [${state.join(", ")}].`);
    }
    return random;
  }

  /** What `fromState` needs to go on from here. */
  get state(): RandomState {
    return [...this.#state] as unknown as RandomState;
  }

  /** An integer in 0..2³²-1. */
  uint32(): number {
    const s = this.#state;
    const result = Math.imul(rotateLeft(Math.imul(s[1]!, 5), 7), 9) >>> 0;
    const t = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= t;
    s[3] = rotateLeft(s[3]!, 11);
    return result;
  }

  /** A multiple of 2⁻³² in [0, 1). */
  float(): number {
    return this.uint32() / 2 ** 32;
  }

  /** An integer in 0..n-1, each equally likely; `n` in 1..2³². */
  int(n: number): number {
    const limit = 2 ** 32 - (2 ** 32 % n); // the rest of the range would favour small integers
    let value: number;
    do value = this.uint32();
    while (value >= limit);
    return value % n;
  }

  /** A sample of the standard normal distribution (Box-Muller; |z| < 6.67). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.float()));
    return radius * Math.cos(2 * Math.PI * this.float());
  }

  /** 0..n-1 in random order, of which only those that are taken cost anything (Fisher-Yates over what has moved). */
  *draws(n: number): Generator<number> {
    const moved = new Map<number, number>();
    for (let i = n - 1; i >= 0; i--) {
      const j = this.int(i + 1);
      const drawn = moved.get(j) ?? j;
      moved.set(j, moved.get(i) ?? i);
      yield drawn;
    }
  }

  /** 0..n-1 in random order (Fisher-Yates). */
  permutation(n: number): Int32Array {
    const order = Int32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.int(i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}

function rotateLeft(x: number, bits: number): number {
  return (x << bits) | (x >>> (32 - bits));
}
