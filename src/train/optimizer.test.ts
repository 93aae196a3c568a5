import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { difference, normal, quiet } from "../../test/support/graphs.ts";
import { size } from "../graph/graph.ts";
import type { SessionOptions } from "../graph/session.ts";
import { type AdamWOptions, adamW, type Trained } from "./optimizer.ts";

interface Plain {
  p: Float64Array;
  m: Float64Array;
  v: Float64Array;
  rate: number;
  decays: boolean;
}

/**
 * One step of AdamW as published, in float64, in place.
 *
 * @see Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019, Algorithm 2; clipping: Pascanu et al. 2013
 * @returns the gradient's global norm before clipping
 */
function plainAdamW(
  tensors: readonly Plain[],
  gradients: readonly ArrayLike<number>[],
  scale: number,
  step: number,
  { beta1, beta2, epsilon = 1e-8, weightDecay, clipNorm }: AdamWOptions,
): number {
  const norm = scale * Math.sqrt(gradients.reduce((sum, g) => sum + Array.from(g).reduce((s, x) => s + x * x, 0), 0));
  const factor = norm > clipNorm ? (scale * clipNorm) / norm : scale;
  for (const [t, { p, m, v, rate, decays }] of tensors.entries()) {
    for (let i = 0; i < p.length; i++) {
      const g = gradients[t]![i]! * factor;
      m[i] = beta1 * m[i]! + (1 - beta1) * g;
      v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
      const change = m[i]! / (1 - beta1 ** step) / (Math.sqrt(v[i]! / (1 - beta2 ** step)) + epsilon);
      p[i] = p[i]! - rate * (change + (decays ? weightDecay * p[i]! : 0));
    }
  }
  return norm;
}

const shapes = { matrix: [5, 3], vector: [7], head: [2, 4] };
const names = Object.keys(shapes) as (keyof typeof shapes)[];
const groups = { matrix: "llm", vector: "llm", head: "predictor" };

function start(seed: number): Map<string, Trained> {
  return new Map(
    names.map((name) => {
      const shape = shapes[name];
      const data = normal(`${seed}/${name}`, size(shape));
      const [m, v] = [new Float32Array(data.length), new Float32Array(data.length)];
      return [name, { shape, data, m, v, group: groups[name], decays: shape.length > 1 }];
    }),
  );
}
/** Gradients of very different sizes: 1 to 1e-4 of `std`. */
function gradientsAt(seed: number, step: number, std: number): Record<string, Float32Array> {
  const gradient = (name: keyof typeof shapes) =>
    normal(`${seed}/${step}/${name}`, size(shapes[name]), { std }).map((g, i) => g * 10 ** -(i % 5));
  return Object.fromEntries(names.map((name) => [name, gradient(name)]));
}

/** Largest difference, in units of the largest entry wanted. */
function differenceBySize(actual: Float32Array, wanted: Float64Array): number {
  const unit = wanted.reduce((max, x) => Math.max(max, Math.abs(x)), Number.MIN_VALUE);
  return difference(
    Array.from(actual, (x) => x / unit),
    wanted.map((x) => x / unit),
  );
}

describe("AdamW", () => {
  test("equals the published algorithm in float64: norm, parameters and moments over five steps, seed 3", async () => {
    const options = fc.record({
      beta1: fc.constantFrom(0, 0.9),
      beta2: fc.constantFrom(0.95, 0.999),
      epsilon: fc.constantFrom(undefined, 1e-3),
      weightDecay: fc.constantFrom(0, 0.1),
      clipNorm: fc.constantFrom(1, 0.01, Number.POSITIVE_INFINITY),
    });
    const rates = fc.record({ llm: fc.constantFrom(0.01, 1e-4), predictor: fc.constantFrom(0, 0.03) });
    const std = fc.constantFrom(1e-3, 1, 1e3);
    const scale = fc.constantFrom(1, 1 / 160);
    await fc.assert(
      fc.asyncProperty(fc.nat(1000), options, rates, std, scale, async (seed, options, rates, std, scale) => {
        const trained = start(seed);
        const plain = [...trained.values()].map(({ data, group, decays }): Plain => {
          const [m, v] = [new Float64Array(data.length), new Float64Array(data.length)];
          return { p: Float64Array.from(data), m, v, rate: rates[group as keyof typeof rates], decays };
        });
        const optimizer = await adamW(trained, options, quiet);
        for (let step = 1; step <= 5; step++) {
          const gradients = gradientsAt(seed, step, std);
          const norm = await optimizer.update(gradients, scale, step, rates);
          const wanted = plainAdamW(plain, Object.values(gradients), scale, step, options);
          expect(Math.abs(norm / wanted - 1)).toBeLessThan(1e-6);
        }
        await optimizer.release();
        for (const [t, { data, m, v }] of [...trained.values()].entries()) {
          expect(differenceBySize(data, plain[t]!.p)).toBeLessThan(1e-6);
          expect(differenceBySize(m, plain[t]!.m)).toBeLessThan(1e-6);
          expect(differenceBySize(v, plain[t]!.v)).toBeLessThan(1e-6);
        }
      }),
      { seed: 3, numRuns: 40 },
    );
  });

  const options = { beta1: 0.9, beta2: 0.95, weightDecay: 0.1, clipNorm: 1 };

  test("a gradient above the limit acts as the same direction of that norm; one below acts as it is", async () => {
    const updated = async (factor: number, clipNorm: number) => {
      const trained = start(1);
      // An epsilon of 1 makes the update depend on the gradient's size, which Adam otherwise cancels.
      const optimizer = await adamW(trained, { ...options, epsilon: 1, clipNorm }, quiet);
      const norm = await optimizer.update(gradientsAt(1, 1, 1), factor, 1, { llm: 0.1, predictor: 0.1 });
      await optimizer.release();
      return { norm, p: [...trained.values()].flatMap(({ data }) => [...data]) };
    };
    const { norm, p: free } = await updated(1, Number.POSITIVE_INFINITY);
    const { norm: larger, p: clipped } = await updated(5, norm);
    expect(larger / norm).toBeCloseTo(5, 5);
    expect(difference(clipped, free)).toBeLessThan(1e-6);
    expect((await updated(1, 2 * norm)).p).toEqual(free);
    expect(difference((await updated(5, 5 * norm)).p, free)).toBeGreaterThan(1e-3);
  });

  test("a gradient of zeros moves parameters by weight decay alone, matrices only here", async () => {
    const trained = start(2);
    const before = new Map([...trained].map(([name, { data }]) => [name, data.slice()]));
    const optimizer = await adamW(trained, options, quiet);
    const zeros = Object.fromEntries([...trained].map(([name, { data }]) => [name, new Float32Array(data.length)]));
    expect(await optimizer.update(zeros, 1, 1, { llm: 0.5, predictor: 0.1 })).toBe(0);
    await optimizer.release();
    expect(
      difference(
        trained.get("matrix")!.data,
        before.get("matrix")!.map((p) => p * (1 - 0.5 * 0.1)),
      ),
    ).toBeLessThan(1e-6);
    expect(
      difference(
        trained.get("head")!.data,
        before.get("head")!.map((p) => p * (1 - 0.1 * 0.1)),
      ),
    ).toBeLessThan(1e-6);
    expect(trained.get("vector")!.data).toEqual(before.get("vector"));
  });

  test("a gradient that is not finite shows in the norm, so that the caller can stop", async () => {
    const optimizer = await adamW(start(2), options, quiet);
    const gradients = gradientsAt(2, 1, 1);
    gradients.vector![0] = Number.NaN;
    expect(await optimizer.update(gradients, 1, 1, { llm: 0.1, predictor: 0.1 })).toBeNaN();
    await optimizer.release();
  });

  test.each([1, 2])("two runs are equal bit for bit, %i threads", async (threads) => {
    const length = 400 * 500; // enough for every operator to be shared out
    const session: SessionOptions = { threads, spinning: false };
    const run = async () => {
      const [data, m, v] = [normal("p", length), new Float32Array(length), new Float32Array(length)];
      const trained: Trained = { shape: [400, 500], data, m, v, group: "all", decays: true };
      const optimizer = await adamW(new Map([["w", trained]]), options, session);
      const norms: number[] = [];
      for (let step = 1; step <= 3; step++) {
        norms.push(await optimizer.update({ w: normal(`g${step}`, length) }, 1, step, { all: 0.01 }));
      }
      await optimizer.release();
      return { norms, bytes: [data, m, v].map((array) => Buffer.from(array.buffer)) };
    };
    const [first, second] = [await run(), await run()];
    expect(second.norms).toEqual(first.norms);
    for (const [i, bytes] of second.bytes.entries()) expect(bytes.equals(first.bytes[i]!)).toBe(true);
  });
});
