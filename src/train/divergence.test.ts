import fc from "fast-check";
import { expect, test } from "vitest";
import { DivergenceError } from "../errors.ts";
import { DivergenceGuard } from "./divergence.ts";

/** A guard that has seen this loss so many times. */
function after(times: number, loss: number): DivergenceGuard {
  return new DivergenceGuard({ all: Array<number>(times).fill(loss) });
}

function row(step: number, loss: number, gradientNorm = 1) {
  return { step, loss, gradientNorm };
}

test("NaN and infinity stop a run at its first step", () => {
  for (const loss of [Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => new DivergenceGuard().check(row(1, loss), undefined)).toThrow(DivergenceError);
    expect(() => new DivergenceGuard().check(row(1, 2, loss), undefined)).toThrow(/wanted a finite gradient/);
  }
});

test("the message names the step, the loss and the checkpoint that is kept", () => {
  expect(() => after(20, 2).check(row(7, 6.5), "runs/a/checkpoints/step-000005")).toThrow(
    "training: wanted a loss of at most 6.000 nats at step 7, got 6.5. " +
      "The last good checkpoint is kept: runs/a/checkpoints/step-000005. Try a lower learning rate or a longer warm-up.",
  );
  expect(() => after(20, 2).check(row(7, 6.5), undefined)).toThrow("There is no checkpoint yet.");
});

test("the limit is three times the median, judged from the 21st loss, and never below 3 nats", () => {
  after(20, 2).check(row(21, 6), undefined);
  expect(() => after(20, 2).check(row(21, 6.01), undefined)).toThrow(DivergenceError);
  after(19, 2).check(row(20, 100), undefined);
  after(20, 0.01).check(row(21, 3), undefined);
  expect(() => after(20, 0.01).check(row(21, 3.01), undefined)).toThrow(DivergenceError);
});

test("one bad batch does not move the limit, 100 old losses do not hold it", () => {
  const guard = after(20, 2);
  guard.check(row(21, 5.9), undefined);
  expect(() => guard.check(row(22, 6.1), undefined)).toThrow(DivergenceError);
  const drifted = after(100, 1);
  for (let step = 101; step <= 151; step++) drifted.check(row(step, 2.5), undefined);
  drifted.check(row(152, 7.4), undefined);
  expect(drifted.losses.all).toHaveLength(100);
});

test("losses are judged among those of as many channels: masks of fewer lose more, at once and after a restart", () => {
  let guard = new DivergenceGuard();
  for (let step = 1; step <= 240; step++) {
    const tFfn = [1536, 1152, 384][step % 3]!;
    guard.check({ ...row(step, { 1536: 0.001, 1152: 0.43, 384: 4.14 }[tFfn]!), tFfn }, undefined);
    if (step === 90) guard = new DivergenceGuard(JSON.parse(JSON.stringify(guard.losses)));
  }
  expect(() => guard.check({ ...row(241, 4.14), tFfn: 1152 }, undefined)).toThrow(/at most 3.000 nats/);
});

test("a list of losses, as a checkpoint had it before, is gone on from", () => {
  const guard = new DivergenceGuard(Array<number>(20).fill(2));
  expect(() => guard.check(row(21, 6.01), undefined)).toThrow(DivergenceError);
});

test("a guard that goes on from saved losses judges as if it had never stopped, seed 3", () => {
  const losses = fc.array(fc.double({ min: 0, max: 20, noNaN: true }), { minLength: 30, maxLength: 250 });
  const verdict = (guard: DivergenceGuard, loss: number): boolean => {
    try {
      guard.check(row(1, loss), undefined);
      return true;
    } catch {
      return false;
    }
  };
  fc.assert(
    fc.property(losses, fc.nat(29), (all, cut) => {
      const whole = new DivergenceGuard();
      for (const loss of all.slice(0, cut)) verdict(whole, loss);
      const resumed = new DivergenceGuard(JSON.parse(JSON.stringify(whole.losses)));
      for (const loss of all.slice(cut)) expect(verdict(resumed, loss)).toBe(verdict(whole, loss));
      expect(resumed.losses).toEqual(whole.losses);
    }),
    { seed: 3 },
  );
});
