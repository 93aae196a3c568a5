import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { wrap } from "../../src/report/svg.ts";
import type { Figure, Result } from "./experiments.ts";
import { Results } from "./experiments.ts";
import { drawFigure } from "./figures.ts";

const own = "own" as const;
const facts = { facts: ["rhymes"] };

/** Two tests whose suite score is `score`. */
function both(run: string, seed: number, score: number): Result[] {
  const of = (test: string, accuracies: Record<string, number>): Result => {
    const tasks = Object.entries(accuracies).map(([task, accuracy]) => ({ task, accuracy }));
    const report = { tasks, mean: { accuracy: score } };
    return { run, seed, mask: own, test, checkpoint: "c", questions: "q", report };
  };
  return [of("unseen inputs", { sum: score }), of("unseen wordings", { sum: score, rhymes: score })];
}

function overlaps(seed: number, domains: string[], matrices: (number | null)[][][]): Result {
  const masks = { domains, chance: 0.125, overlapWithin: [], overlapAcross: [], everUsed: [], matrices };
  const report = { tasks: [{ task: "sum", accuracy: 1 }], mean: { accuracy: 1 }, masks };
  return { run: "a", seed, mask: own, test: "unseen wordings", checkpoint: "c", questions: "q", report };
}

const lines = (points: { series: string; x: number; run: string }[], change: object = {}): Figure => ({
  kind: "lines",
  name: "f",
  title: "Title",
  xLabel: "x label",
  log: true,
  points: points.map((point) => ({ ...point, mask: own })),
  ...change,
});
const bars = (names: string[]): Figure => ({
  kind: "bars",
  name: "f",
  title: "Title",
  headline: { name: "headline", run: "h", mask: own },
  bars: names.map((run) => ({ name: `bar ${run}`, run, mask: own })),
});
const overlap: Figure = {
  kind: "overlap",
  name: "f",
  title: "Title",
  run: "a",
  mask: own,
  test: "unseen wordings",
  order: [],
};

/** Well-formed, whole numbers or decimals only, nothing from outside, and both schemes. */
function expectSound(svg: string): void {
  expect(svg).not.toMatch(/NaN|Infinity|undefined|null/);
  expect(svg.replace('xmlns="http://www.w3.org/2000/svg"', "")).not.toMatch(
    /https?:|url\(|href|<script|<image|@import/,
  );
  expect(svg).toContain("@media(prefers-color-scheme:dark)");
  const open: string[] = [];
  for (const [tag, slash, name] of svg.replace(/<style>[^<]*<\/style>/, "").matchAll(/<(\/?)([a-z]+)[^<>]*>/g)) {
    if (tag.endsWith("/>")) continue;
    if (slash) expect(open.pop()).toBe(name);
    else open.push(name!);
  }
  expect(open).toEqual([]);
  expect(svg).toMatch(/^<svg .*width="800"/);
}
const textsOf = (svg: string) => [...svg.matchAll(/<text[^>]*>([^<]*)</g)].map(([, content]) => content);

describe("lines", () => {
  test("are sound whatever the scores, seed 1", () => {
    const point = fc.record({
      series: fc.constantFrom("IFP", "static", "dense"),
      x: fc.constantFrom(6.25, 12.5, 25, 50, 100),
      run: fc.constantFrom("a", "b", "c", "absent"),
    });
    const scores = fc.array(
      fc.tuple(fc.constantFrom("a", "b", "c"), fc.nat(3), fc.double({ min: 0, max: 1, noNaN: true })),
    );
    fc.assert(
      fc.property(fc.array(point, { minLength: 1 }), scores, fc.boolean(), (points, list, log) => {
        const results = new Results(list.flatMap(([run, seed, score]) => both(run, seed, score)));
        expectSound(drawFigure(lines(points, { log }), facts, results));
      }),
      { seed: 1, numRuns: 100 },
    );
  });

  test("have an error bar where there are several seeds, and name what was not run", () => {
    const points = [
      { series: "IFP", x: 6.25, run: "a" },
      { series: "IFP", x: 12.5, run: "b" },
      { series: "static <5>", x: 25, run: "c" },
    ];
    const results = new Results([...both("a", 1, 0.5), ...both("a", 2, 0.6), ...both("b", 1, 0.7)]);
    const svg = drawFigure(lines(points), facts, results);
    expect(svg.match(/class="thin s0"/g)).toHaveLength(3); // a stem and two ends, at x = 6.25
    expect(svg).toContain("static &#60;5&#62; at 25.");
    expect(textsOf(svg)).toContain("static &#60;5&#62;"); // the legend
    expect(textsOf(svg).join(" ")).toContain("Mean of 1 to 2 seeds");
  });

  test("on a logarithmic axis doublings are equally far apart", () => {
    const svg = drawFigure(
      lines([{ series: "IFP", x: 25, run: "a" }], { xTicks: [25, 50, 100] }),
      facts,
      new Results(),
    );
    const [a, b, c] = ["25", "50", "100"].map((label) =>
      Number(new RegExp(`<text x="([\\d.]+)"[^>]*middle">${label}<`).exec(svg)![1]),
    );
    expect(b! - a!).toBeCloseTo(c! - b!, 0);
    expect(b! - a!).toBeGreaterThan(100);
  });
});

describe("bars", () => {
  test("are sound whatever the scores, seed 2", () => {
    const scores = fc.array(
      fc.tuple(fc.constantFrom("h", "a", "b"), fc.nat(3), fc.double({ min: 0, max: 1, noNaN: true })),
    );
    fc.assert(
      fc.property(scores, (list) => {
        const results = new Results(list.flatMap(([run, seed, score]) => both(run, seed, score)));
        expectSound(drawFigure(bars(["a", "b", "absent"]), facts, results));
      }),
      { seed: 2, numRuns: 100 },
    );
  });

  test("stand as listed below the headline, with the difference to it; what was not run keeps its place", () => {
    const results = new Results([
      ...both("h", 1, 0.6),
      ...both("h", 2, 0.7),
      ...both("h", 3, 0.1),
      ...both("z", 1, 0.6),
      ...both("z", 2, 0.6),
      ...both("a", 1, 0.8),
      ...both("a", 2, 0.8),
    ]);
    const svg = drawFigure(bars(["z", "absent", "a"]), facts, results);
    const texts = textsOf(svg).filter((content) =>
      /^(headline|bar .*|not run|.* ± .*\d|.* ± –|[−+].*)$/.test(content!),
    );
    expect(texts).toEqual([
      "headline",
      "65.0 ± 7.1",
      "bar z",
      "60.0 ± 0.0",
      "−5.0",
      "bar absent",
      "not run",
      "bar a",
      "80.0 ± 0.0",
      "+15.0",
    ]);
    expect(svg.match(/class="f1 band"/g)).toHaveLength(1);
    const oneSeed = drawFigure(bars(["a"]), facts, new Results([...both("h", 1, 0.6), ...both("a", 1, 0.6)]));
    expect(oneSeed).not.toMatch(/class="(f1 band|whisker)"/);
    expect(oneSeed).toContain('class="dash s1"');
  });
});

describe("overlap", () => {
  const identity = [[1], [0, 0.5]];

  test("shows first, middle and last layer, and the chance level", () => {
    const layers = Array.from({ length: 7 }, () => identity);
    const svg = drawFigure(overlap, facts, new Results([overlaps(1, ["a", "b"], layers)]));
    expectSound(svg);
    const texts = textsOf(svg);
    expect(texts.filter((content) => /layer/.test(content!))).toEqual(["first layer", "layer 4 of 7", "last layer"]);
    expect(texts).toContain("same task 75 %, other 0 %");
    expect(texts.join(" ")).toContain("Chance: 12.5 %. Mean of 1 seed.");
  });

  test("is the mean over seeds, symmetric; where there is no pair the cell has no shade", () => {
    const results = new Results([
      overlaps(1, ["a", "b"], [[[1], [0, null]]]),
      overlaps(2, ["a", "b"], [[[1], [1, null]]]),
    ]);
    const svg = drawFigure({ ...overlap, order: ["b", "unknown"] }, facts, results);
    const shade = (name: string) => new RegExp(`<path class="${name}" d="([^"]*)"`).exec(svg)?.[1];
    expect(shade("absent")).toBe("M0 0h1v1h-1z"); // b comes first
    expect(shade("h16")).toBe("M1 0h1v1h-1zM0 1h1v1h-1z");
    expect(shade("h31")).toBe("M1 1h1v1h-1z");
    expectSound(svg);
  });

  test("says so where there is nothing to show", () => {
    const svg = drawFigure(overlap, facts, new Results());
    expect(svg).toContain("not run");
    expectSound(svg);
  });
});

test("text cannot break out of a figure", () => {
  const hostile = `"><script>alert('&')</script>`;
  const results = new Results([...both("h", 1, 0.6), overlaps(1, [hostile], [[[1]]])]);
  const figures: Figure[] = [
    { ...overlap, title: hostile, note: hostile },
    lines([{ series: hostile, x: 1, run: "h" }], { xLabel: hostile }),
    lines([{ series: hostile, x: 1, run: "absent" }]),
    {
      ...bars([]),
      kind: "bars",
      headline: { name: hostile, run: "h", mask: own },
      bars: [{ name: hostile, run: "x", mask: own }],
    },
  ];
  for (const figure of figures) expectSound(drawFigure(figure, facts, results));
});

test("wrapped text loses no word, seed 3", () => {
  fc.assert(
    fc.property(
      fc.array(fc.stringMatching(/^[a-z]{1,12}$/), { minLength: 1 }),
      fc.integer({ min: 10, max: 300 }),
      (list, width) => {
        expect(wrap(list.join(" "), width, 13).join(" ")).toBe(list.join(" "));
      },
    ),
    { seed: 3, numRuns: 100 },
  );
});
