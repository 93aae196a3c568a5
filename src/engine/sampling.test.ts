import fc from "fast-check";
import { expect, test } from "vitest";
import { OptionError } from "../errors.ts";
import { completeSampling, drawToken, largest, logProbabilities } from "./sampling.ts";

const logitsOf = fc
  .array(fc.float({ min: -8, max: 8, noNaN: true }), { minLength: 2, maxLength: 30 })
  .map((values) => Float32Array.from(values));
const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

test("the largest values are those of a stable sort", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 9 })), fc.nat(12), (values, count) => {
      const sorted = [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b);
      expect(largest(values, count)).toEqual(sorted.slice(0, count));
    }),
  );
});

test("what is drawn is within what each limit leaves", () => {
  const limits = fc.record({
    topK: fc.nat(8),
    topP: fc.double({ min: 0, max: 1, noNaN: true }),
    minP: fc.double({ min: 0, max: 1, noNaN: true }),
    temperature: fc.double({ min: 0.1, max: 3, noNaN: true }),
  });
  fc.assert(
    fc.property(logitsOf, limits, chance, (logits, given, at) => {
      const id = drawToken(logits, completeSampling(given), [], at);
      const probs = logProbabilities(logits).map(Math.exp);
      const likelier = [...probs.keys()].filter((other) => probs[other]! > probs[id]!);
      if (given.topK > 0) expect(likelier.length).toBeLessThan(given.topK);
      expect(probs[id]!).toBeGreaterThanOrEqual(given.minP * Math.max(...probs) * (1 - 1e-9));
      const before = likelier.reduce((sum, other) => sum + probs[other]!, 0);
      if (given.topK === 0 && likelier.length > 0) expect(before).toBeLessThan(given.topP + 1e-9);
    }),
  );
});

test("tokens are drawn as often as the temperature says", () => {
  fc.assert(
    fc.property(logitsOf, fc.double({ min: 0.5, max: 2, noNaN: true }), (logits, temperature) => {
      const counts = new Float64Array(logits.length);
      const draws = 2000;
      const sampling = completeSampling({ temperature });
      for (let i = 0; i < draws; i++) counts[drawToken(logits, sampling, [], (i + 0.5) / draws)]! += 1 / draws;
      const wanted = logProbabilities(logits.map((logit) => logit / temperature)).map(Math.exp);
      for (const [id, share] of counts.entries())
        expect(Math.abs(share - wanted[id]!)).toBeLessThan(1.01 / draws + 1e-5);
    }),
    { numRuns: 20 },
  );
});

test("penalties: presence once, frequency per use, repetition by division towards less", () => {
  const logits = Float32Array.of(2, -2, 1, -3);
  const draw = (given: object, answer: number[]) => drawToken(logits, completeSampling(given), answer, 0);
  expect(draw({ presencePenalty: 0.9 }, [0, 0, 0])).toBe(0);
  expect(draw({ presencePenalty: 1.1 }, [0])).toBe(2);
  expect(draw({ frequencyPenalty: 0.4 }, [0, 0])).toBe(0);
  expect(draw({ frequencyPenalty: 0.4 }, [0, 0, 0])).toBe(2);
  expect(draw({ repeatPenalty: 1.9 }, [0])).toBe(0);
  expect(draw({ repeatPenalty: 2.1 }, [0])).toBe(2);
  const negative = {
    repeatPenalty: 2,
    logitBias: new Map([
      [0, -99],
      [2, -99],
    ]),
  };
  expect([draw(negative, []), draw(negative, [1])]).toEqual([1, 3]); // -2 becomes -4
});

test("seeds of any safe integer become 32 bits, small temperatures 0; undefined is the default", () => {
  expect(completeSampling({ seed: -1, temperature: 1e-9, topP: undefined })).toMatchObject({
    seed: 2 ** 32 - 1,
    temperature: 0,
    topP: 1,
  });
  expect(() => completeSampling({ topK: -1 })).toThrow(OptionError);
});
