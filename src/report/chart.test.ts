import fc from "fast-check";
import { expect, test } from "vitest";
import { escapeHtml, lineChart, type Point, short, tickLabels, ticks } from "./chart.ts";

test("ticks are few round numbers within the range, seed 1", () => {
  fc.assert(
    fc.property(
      fc.double({ min: -1e6, max: 1e6, noNaN: true }),
      fc.double({ min: 1e-3, max: 1e6, noNaN: true }),
      (low, span) => {
        const values = ticks([low, low + span], 5);
        expect(values.length).toBeGreaterThanOrEqual(2);
        expect(values.length).toBeLessThanOrEqual(6);
        for (const value of values) {
          expect(value).toBeGreaterThanOrEqual(low - 1e-9 * (Math.abs(low) + span));
          expect(value).toBeLessThanOrEqual(low + span + 1e-9 * (Math.abs(low) + span));
        }
      },
    ),
    { seed: 1, numRuns: 300 },
  );
  expect(ticks([0, 1], 5)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1]);
  expect(ticks([0.0003, 0.0011], 5)).toEqual([0.0004, 0.0006, 0.0008, 0.001]);
});

test("numbers are short", () => {
  expect([0, 0.00012345, 1.2345, 999.6, 5954.3, 12_345, 1_254_000, -0.5].map((value) => short(value))).toEqual([
    "0",
    "0.000123",
    "1.23",
    "1000",
    "5954",
    "12.3k",
    "1.25M",
    "-0.5",
  ]);
});

test("whatever the points, no coordinate is NaN or infinite, seed 2", () => {
  const value = fc.double({ noDefaultInfinity: false, min: -1e9, max: 1e9 });
  fc.assert(
    fc.property(fc.array(fc.array(value, { maxLength: 30 }), { maxLength: 3 }), (columns) => {
      const series = columns.map((ys, i) => ({ name: `s${i}`, points: ys.map((y, x): Point => [x, y]) }));
      expect(lineChart({ title: "t", xLabel: "step", series })).not.toMatch(/NaN|Infinity|undefined/);
    }),
    { seed: 2, numRuns: 300 },
  );
});

test("a chart without a point is left out", () => {
  expect(lineChart({ title: "t", xLabel: "step", series: [] })).toBe("");
  expect(lineChart({ title: "t", xLabel: "step", series: [{ name: "a", points: [[1, Number.NaN]] }] })).toBe("");
});

test("labels of ticks tell them apart", () => {
  expect(tickLabels([2.342, 2.344, 2.346])).toEqual(["2.342", "2.344", "2.346"]);
  expect(tickLabels([0, 0.2, 0.4])).toEqual(["0", "0.2", "0.4"]);
  expect(tickLabels([12_000, 12_001])).toEqual(["12k", "12.001k"]);
  expect(tickLabels([1234, 12_345])).toEqual(["1234", "12.3k"]);
});

test("a long series is drawn as means with a band of its range, a short one point by point", () => {
  const long = Array.from({ length: 96_000 }, (_, x): Point => [x, x % 2]);
  const svg = lineChart({ title: "t", xLabel: "step", series: [{ name: "a", points: long }] });
  expect(svg.length).toBeLessThan(20_000);
  expect(svg).toContain('class="band"');
  expect(svg).toContain("<b>0.5</b>");
  const short3 = lineChart({ title: "t", xLabel: "step", series: [{ name: "a", points: long.slice(0, 3) }] });
  expect(short3.match(/<circle/g)).toHaveLength(3);
  expect(short3).not.toContain("band");
});

test("text cannot break out of the page", () => {
  const hostile = `"><script>alert('&')</script>`;
  const svg = lineChart({
    title: hostile,
    xLabel: hostile,
    series: [{ name: hostile, points: [[0, 1]] }],
    marks: [{ x: 0, name: hostile }],
  });
  expect(svg).not.toContain("<script");
  expect(escapeHtml(hostile)).toBe("&#34;&#62;&#60;script&#62;alert(&#39;&#38;&#39;)&#60;/script&#62;");
});
