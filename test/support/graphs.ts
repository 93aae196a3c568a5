/** Graphs in tests: run once, on random inputs, and compared with central differences of a float64 reference. */
import type { Graph } from "../../src/graph/graph.ts";
import { compile, type SessionOptions, type TensorData } from "../../src/graph/session.ts";
import { Random } from "../../src/random.ts";

/** One thread, no spinning: tests run beside other work. */
export const quiet: SessionOptions = { threads: 1, spinning: false };

/** Compiles a graph, runs it once and releases it. */
export async function evaluate(
  graph: Graph,
  feeds: Readonly<Record<string, TensorData>>,
): Promise<Record<string, Float32Array>> {
  const session = await compile(graph, quiet);
  const outputs = await session.run(feeds);
  await session.release();
  return outputs as Record<string, Float32Array>;
}

/** Samples of N(mean, std²), the same for the same seed. */
export function normal(seed: string, length: number, { mean = 0, std = 1 } = {}): Float32Array {
  const random = new Random(seed);
  return Float32Array.from({ length }, () => mean + std * random.normal());
}

/** Integers in 0..n-1, the same for the same seed. */
export function integers(seed: string, length: number, n: number): Int32Array {
  const random = new Random(seed);
  return Int32Array.from({ length }, () => random.int(n));
}

/** Largest difference of two arrays, relative where the second is above 1. NaN and unequal lengths count as infinite. */
export function difference(actual: ArrayLike<number>, wanted: ArrayLike<number>): number {
  if (actual.length !== wanted.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < wanted.length; i++) {
    const error = Math.abs(actual[i]! - wanted[i]!) / Math.max(1, Math.abs(wanted[i]!));
    worst = Number.isNaN(error) ? Number.POSITIVE_INFINITY : Math.max(worst, error);
  }
  return worst;
}

/** Central differences of `f` in float64, one per entry of x; error O(h²) + O(1e-16/h). */
export function numericGradient(f: (x: Float64Array) => number, x: Float64Array, h = 1e-5): Float64Array {
  return x.map((value, i) => {
    const at = (moved: number): number => f(x.with(i, moved));
    return (at(value + h) - at(value - h)) / (2 * h);
  });
}

/**
 * How far a gradient is from the slope of `f` along one random direction, in units of the gradient's norm (the slope's usual
 * size). Moved values are float32, as the graph's; `f` is to compute in float64.
 */
export function slopeError(
  f: (data: Float32Array) => number,
  data: Float32Array,
  gradient: Float32Array,
  { seed, h }: { seed: string; h: number },
): number {
  const direction = normal(seed, data.length);
  const moved = (step: number) => data.map((value, i) => value + step * direction[i]!);
  const [ahead, behind] = [moved(h), moved(-h)];
  const predicted = gradient.reduce((sum, slope, i) => sum + slope * (ahead[i]! - behind[i]!), 0);
  return Math.abs(predicted - (f(ahead) - f(behind))) / (2 * h * Math.hypot(...gradient));
}
