import fc from "fast-check";
import { expect, test } from "vitest";
import { OptionError } from "../errors.ts";
import { AnswerText } from "./answerText.ts";

/** A decoder whose token `i` is the piece `i`. */
const decoderOf = (pieces: readonly string[]) => ({ push: (id: number) => pieces[id]!, end: () => "" });

function run(pieces: readonly string[], stops: readonly string[], isJson = false) {
  const answer = new AnswerText(decoderOf(pieces), stops, isJson);
  const given: { text: string; ids: number[] }[] = [];
  const take = ({ text, logprobs }: ReturnType<AnswerText["push"]>) =>
    given.push({ text, ids: logprobs.map(({ id }) => id) });
  let count = 0;
  for (; count < pieces.length && !answer.isDone; count++)
    take(answer.push(count, { id: count, text: pieces[count]!, logprob: 0, top: [] }));
  const isStopped = answer.isDone;
  take(answer.end());
  return {
    text: given.map(({ text }) => text).join(""),
    ids: given.flatMap(({ ids }) => ids),
    given,
    count,
    isStopped,
  };
}

const letters = fc.stringMatching(/^[ab]{0,4}$/);
const stopsOf = fc.array(fc.stringMatching(/^[ab]{1,4}$/), { maxLength: 3 });

test("an answer ends before the stop text that is complete first, however it is cut into tokens", () => {
  fc.assert(
    fc.property(fc.array(letters, { maxLength: 12 }), stopsOf, (pieces, stops) => {
      const whole = pieces.join("");
      const ends = Array.from({ length: whole.length + 1 }, (_, end) => end);
      const end = ends.find((at) => stops.some((stop) => whole.slice(0, at).endsWith(stop)));
      const longest = Math.max(
        ...stops.filter((stop) => whole.slice(0, end).endsWith(stop)).map(({ length }) => length),
      );
      const { text, isStopped } = run(pieces, stops);
      expect(isStopped).toBe(end !== undefined);
      expect(text).toBe(end === undefined ? whole : whole.slice(0, end - longest));
    }),
  );
});

test("every token is told of once, in order, with text that was out by then; of a cut one the rest is not", () => {
  fc.assert(
    fc.property(fc.array(letters, { maxLength: 12 }), stopsOf, (pieces, stops) => {
      const { ids, given, text } = run(pieces, stops);
      expect(ids).toEqual([...ids.keys()]);
      let out = "";
      for (const one of given) {
        out += one.text;
        const told = pieces.slice(0, (one.ids.at(-1) ?? -1) + 1).join("");
        expect(told.startsWith(out.slice(0, told.length))).toBe(true);
      }
      expect(pieces.slice(0, ids.length).join("").length).toBeGreaterThanOrEqual(text.length);
    }),
  );
});

test("text that cannot become a stop text is given out at once", () => {
  const { given } = run(["one ", "two ", "thr", "ee", "<", "en", "d"], ["<end>"]);
  expect(given.map(({ text }) => text)).toEqual(["one ", "two ", "thr", "ee", "", "", "", "<end"]);
});

test("JSON ends where it is whole, without the white space after it", () => {
  const json = fc.jsonValue().map((value) => JSON.stringify(value, null, 1));
  const space = fc.stringMatching(/^[ \n]{0,3}$/);
  fc.assert(
    fc.property(json, space, fc.integer({ min: 1, max: 5 }), (value, after, size) => {
      const whole = value + after;
      const pieces = whole.match(new RegExp(`[^]{1,${size}}`, "g")) ?? [];
      const { text, isStopped } = run(pieces, [], true);
      expect(text).toBe(value);
      if (!/^[-\d]/.test(value)) expect(isStopped).toBe(true);
    }),
  );
  expect(run(["1", "2", "\n"], [], true)).toMatchObject({ text: "12", isStopped: true });
});

test("empty stop texts, and halves of characters, are refused", () => {
  for (const stop of ["", "a\ud83d"]) expect(() => run([], [stop])).toThrow(OptionError);
});
