import { describe, expect, test } from "vitest";
import { OptionError } from "../errors.ts";
import { PromptFormat } from "../text/prompt.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { encodeQuestions, type Question, type SftData } from "./data.ts";
import { packRows, questionRows, RowStream, type RowStreamOptions, type TextRow } from "./rows.ts";

/** One id per character: its code; BOS 0, EOS 1. */
const tokenizer = {
  bosId: 0,
  eosId: 1,
  encode: (text: string) => Int32Array.from(text, (character) => character.charCodeAt(0)),
} as Tokenizer;
const T = 64;

/** Domains of so many questions, each with an input and answer of its own, some in two wordings. */
function dataOf(
  counts: readonly number[],
  weights: readonly number[] = counts.map(() => 1),
  predictorInput?: "prompt" | "instruction" | "both",
) {
  const questions = counts.flatMap((count, d) =>
    Array.from({ length: count }, (_, i): Question => {
      const answer = `${d}-${i}-${"y".repeat((i * 7) % 30)}`;
      return {
        domain: `d${d}`,
        weight: weights[d]!,
        wordings: ["do", "or do"].slice(i % 2),
        input: `${d}/${i}`,
        answer,
      };
    }),
  );
  return encodeQuestions(questions, new PromptFormat(tokenizer, "{prompt}\n"), {
    predictorInput,
    maxTokens: T,
  });
}
const textOf = (ids: Int32Array) => String.fromCharCode(...ids);
/** The texts of a row: what the last token of each sees. */
function textsOf({ ids, starts, shared }: TextRow): string[] {
  const ends = [...ids.keys()].filter((i) => starts[i + 1] !== starts[i]);
  return ends.map((end) => {
    const seen = [...ids.keys()].filter((i) => i <= end && (i < shared[end]! || i >= starts[end]!));
    return textOf(ids.filter((_, i) => seen.includes(i)));
  });
}
const INPUT = /Input: (.*)\n/;
const asked = (row: TextRow) => textsOf(row).map((text) => INPUT.exec(text)![1]!);
const rowsOf = (data: SftData, seed = "rows") => packRows(questionRows(data, seed), T);

describe("packed rows", () => {
  const data = dataOf([40, 1, 9]);
  const all = data.questions.flat();

  test("hold every question once, in a wording of its own, as it is asked alone, with others of its domain, in at most T tokens", () => {
    const rows = rowsOf(data);
    expect(rows.flatMap(asked).toSorted()).toEqual(all.map(({ input }) => input!).toSorted());
    for (const row of rows) {
      expect(row.ids.length).toBeLessThanOrEqual(T);
      expect([row.starts.length, row.shared.length]).toEqual([row.ids.length, row.ids.length]);
      for (const [i, start] of row.starts.entries())
        expect(start === 0 ? [0, 0] : [start, 1]).toEqual([row.starts[start], row.shared[i]]); // BOS stands once
      for (const text of textsOf(row)) {
        const [d, n] = INPUT.exec(text)![1]!.split("/").map(Number);
        const { wordings, input, answer } = data.questions[d!]![n!]!;
        expect(d).toBe(row.domain);
        expect(wordings.map((wording) => `\u0000${wording} Input: ${input}\n${answer}`)).toContain(text); // BOS first, no EOS
      }
      expect(row.question.input).toBe(asked(row)[0]);
    }
    expect(rows.length).toBeLessThan(50);
    // a further question would not have fitted
    for (const [i, row] of rows.entries())
      if (rows[i + 1]?.domain === row.domain) expect(row.ids.length).toBeGreaterThan(T - 55);
  });

  test("have once what all questions begin with", () => {
    const questions = questionRows(dataOf([12]), "a").map((row) => ({ ...row, ids: row.ids.with(1, 7).with(2, 8) }));
    const rows = packRows(questions, T);
    expect(rows.length).toBeLessThan(12);
    expect(rows.flatMap(textsOf).toSorted()).toEqual(questions.map(({ ids }) => textOf(ids)).toSorted());
    for (const { shared, starts } of rows)
      expect([...shared]).toEqual([...starts].map((start) => (start === 0 ? 0 : 4)));
    // the same text many times: its last token is of each
    const same = packRows(
      Array.from({ length: 5 }, () => questions[0]!),
      T,
    );
    expect(same).toHaveLength(1);
    expect(same[0]!.ids).toHaveLength(questions[0]!.ids.length + 4);
  });

  test("are of one mask", () => {
    const questions = questionRows(data, "a").map((row, i) => ({ ...row, mask: i % 3 }));
    const maskOf = new Map(questions.map((row) => [asked(row)[0], row.mask]));
    const rows = packRows(questions, T);
    expect(rows.flatMap(asked).toSorted()).toEqual(all.map(({ input }) => input!).toSorted());
    for (const row of rows) for (const input of asked(row)) expect(maskOf.get(input)).toBe(row.mask);
    expect(rows.some((row) => asked(row).length > 1)).toBe(true);
  });

  test("of masks that learn are of what the predictor reads", () => {
    const read = (row: TextRow) => row.predictorIds && textOf(row.predictorIds);
    const inputs = new Set<boolean>();
    for (const predictorInput of ["prompt", "instruction", "both"] as const) {
      const questions = questionRows(dataOf([40, 1, 9], undefined, predictorInput), "a");
      const readOf = new Map(questions.map((row) => [asked(row)[0], read(row)]));
      for (const [input, text] of readOf) {
        expect(text!.slice(1)).toMatch(/^(or )?do( Input: |$)/); // after BOS
        expect(text!.includes("Input")).toBe(
          predictorInput === "both" ? text!.includes(input!) : predictorInput === "prompt",
        );
        if (predictorInput === "both") inputs.add(text!.includes("Input"));
      }
      const rows = packRows(questions, T);
      expect(rows.flatMap(asked).toSorted()).toEqual(all.map(({ input }) => input!).toSorted());
      for (const row of rows) for (const input of asked(row)) expect(readOf.get(input)).toBe(read(row));
      expect(rows.some((row) => asked(row).length > 1)).toBe(predictorInput !== "prompt"); // no two are asked alike
    }
    expect(inputs.size).toBe(2); // both are drawn
  });

  test("are the same for the same seed, others for another", () => {
    expect(rowsOf(data, "a")).toEqual(rowsOf(data, "a"));
    expect(rowsOf(data, "a").map(asked)).not.toEqual(rowsOf(data, "b").map(asked));
  });
});

const masked = (rows: readonly TextRow[], maskOf?: (row: TextRow, i: number) => number) =>
  maskOf ? rows.map((row, i) => ({ ...row, mask: maskOf(row, i) })) : rows;

describe("a stream of rows", () => {
  const options: RowStreamOptions = { seed: 1, tokensPerBatch: 4 * T, sequenceLength: T };
  const open = (
    counts: readonly number[],
    maskOf?: (row: TextRow) => number,
    changes = {},
    weights?: readonly number[],
  ) => {
    const data = dataOf(counts, weights);
    const rows = masked(rowsOf(data), maskOf);
    return { rows, stream: new RowStream(data, rows, { ...options, ...changes }) };
  };
  const take = (stream: RowStream, count: number) => Array.from({ length: count }, () => stream.next());

  test("every position of a row counts, no padding does", () => {
    const { rows, stream } = open([30, 12]);
    for (const batch of take(stream, 8)) {
      expect([batch.B, batch.T, batch.mask]).toEqual([4, T, undefined]);
      let tokens = 0;
      for (const [row, place] of batch.rows!.entries()) {
        const { ids, starts, shared, domain } = rows[place]!;
        const { length } = ids;
        expect(batch.ids.subarray(row * T, row * T + length)).toEqual(ids);
        expect(batch.starts!.subarray(row * T, row * T + length)).toEqual(starts);
        expect(batch.shared!.subarray(row * T, row * T + length)).toEqual(shared);
        const labels = batch.labels.subarray(row * T, (row + 1) * T);
        expect(labels.subarray(0, length).every((label) => label >= 0)).toBe(true);
        expect(labels.subarray(length).every((label) => label < 0)).toBe(true);
        expect(batch.ids[row * T]).toBe(0);
        expect(batch.domains[row]).toBe(domain);
        tokens += length;
      }
      expect([batch.tokens, batch.labelled]).toEqual([tokens, tokens]);
    }
  });

  test("no row comes again before all others of its domain", () => {
    const { rows, stream } = open([60, 20]);
    const ofDomain: number[][] = [[], []];
    for (const batch of take(stream, 80)) for (const place of batch.rows!) ofDomain[rows[place]!.domain]!.push(place);
    for (const [d, places] of ofDomain.entries()) {
      const count = rows.filter(({ domain }) => domain === d).length;
      expect(places.length).toBeGreaterThan(2 * count);
      for (let at = 0; at + count <= places.length; at += count)
        expect(new Set(places.slice(at, at + count)).size).toBe(count);
    }
  });

  test("domains get rows by weight", () => {
    const { rows, stream } = open([30, 30], undefined, {}, [1, 3]);
    const counts = [0, 0];
    for (const batch of take(stream, 50)) for (const place of batch.rows!) counts[rows[place]!.domain]!++;
    expect(counts).toEqual([50, 150]);
  });

  test("a batch is of one mask, and of rows that are its own", () => {
    const maskOf = ({ ids, domain }: TextRow) => (ids.length % 2) + 2 * domain;
    const { rows, stream } = open([60, 20], maskOf);
    const batches = take(stream, 40);
    for (const { mask, rows: places } of batches) for (const place of places!) expect(maskOf(rows[place]!)).toBe(mask);
    expect(new Set(batches.map(({ mask }) => mask))).toEqual(new Set(rows.map(maskOf)));
  });

  test("batches of one row come in the order in which rows are drawn, whatever their masks", () => {
    const one = { tokensPerBatch: T };
    const [plain, masks] = [open([60, 20], undefined, one), open([60, 20], ({ ids }) => ids.length % 3, one)];
    const placesOf = (stream: RowStream) => take(stream, 50).map(({ rows }) => [...rows!]);
    expect(placesOf(masks.stream)).toEqual(placesOf(plain.stream));
  });

  test("a mask of one row comes too, filled over epochs, about as often as its row is drawn; others do not wait for it", () => {
    const data = dataOf([60]);
    const rows = rowsOf(data);
    const stream = new RowStream(
      data,
      masked(rows, (_, i) => (i === 5 ? 1 : 0)),
      options,
    );
    const batches = take(stream, rows.length * 3); // 12 epochs of four rows a batch
    const rare = batches.flatMap(({ mask }, i) => (mask === 1 ? [i] : []));
    expect(rare).toHaveLength(3);
    expect(rare[0]).toBeLessThanOrEqual(rows.length); // its fourth draw
    for (const i of rare) expect([...batches[i]!.rows!]).toEqual([5, 5, 5, 5]);
  });

  test.each([0, 1, 7, 50])("skip(%i) is as many times next, with and without masks", (count) => {
    for (const maskOf of [undefined, ({ domain }: TextRow) => domain]) {
      const [walked, skipped] = [open([30, 12], maskOf), open([30, 12], maskOf)];
      take(walked.stream, count);
      skipped.stream.skip(count);
      expect(take(skipped.stream, 5)).toEqual(take(walked.stream, 5));
    }
  });

  test("another seed draws other rows; a batch has one row at least", () => {
    const [one, other] = [open([60, 20]), open([60, 20], undefined, { seed: 2 })];
    expect(take(one.stream, 3)).not.toEqual(take(other.stream, 3));
    expect(open([30], undefined, { tokensPerBatch: T - 1 }).stream.next().B).toBe(1);
  });

  test("a domain without rows is refused", () => {
    const data = { domains: ["a", "empty"], weights: [0.5, 0.5] };
    const rows = rowsOf(dataOf([3]));
    expect(() => new RowStream(data, rows, options)).toThrow(OptionError);
    expect(() => new RowStream(data, rows, options)).toThrow(/wanted a row in domain "empty", got none/);
  });
});
