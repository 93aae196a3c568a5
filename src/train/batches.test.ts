import { describe, expect, test } from "vitest";
import { OptionError } from "../errors.ts";
import { IGNORED } from "../net/labels.ts";
import { Random } from "../random.ts";
import { PromptFormat } from "../text/prompt.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { type Batch, type BatchStream, ConversationStream, SftStream, TextStream } from "./batches.ts";
import { encodeQuestions, type PredictorInput, type Question, type SftData, type TextData } from "./data.ts";

/** One id per character: its code; BOS 0, EOS 1. */
const tokenizer = {
  bosId: 0,
  eosId: 1,
  encode: (text: string) => Int32Array.from(text, (character) => character.charCodeAt(0)),
} as Tokenizer;
const format = new PromptFormat(tokenizer, "{prompt}\n");

/** Three domains of 20, 7 and 40 questions, each with texts of its own, in one to three wordings. */
function sftData(predictorInput: PredictorInput = "both", weights = [1, 1, 1]): SftData {
  const random = new Random("questions");
  const word = () => String.fromCharCode(...Array.from({ length: 1 + random.int(12) }, () => 97 + random.int(26)));
  const questions = [20, 7, 40].flatMap((count, d): Question[] =>
    Array.from({ length: count }, (_, i) => ({
      domain: `domain ${d}`,
      weight: weights[d]!,
      wordings: ["short", "a rather longer wording", "the third"].slice(0, d + 1),
      input: `${d}/${i} ${word()}`,
      answer: word(),
    })),
  );
  return encodeQuestions(questions, format, { predictorInput, maxTokens: 200 });
}

function textData(): TextData {
  const tokens = [1000, 330, 64].map((length, d) => Int32Array.from({ length }, (_, i) => 10_000 * (d + 1) + i));
  return { domains: ["a", "b", "c"], weights: [1 / 3, 1 / 3, 1 / 3], tokens, bosId: 0 };
}

const allPrompts = (data: SftData) =>
  data.questions
    .flat()
    .flatMap((question) => question.wordings.map((wording) => data.encode(question, wording).prompt.join()));
const take = (stream: BatchStream, count: number): Batch[] => Array.from({ length: count }, () => stream.next());
const row = (ids: Int32Array, width: number, i: number) => [...ids.subarray(i * width, (i + 1) * width)];
const until = (ids: number[], end: number) => ids.slice(0, ids.indexOf(end));

/** Per row of an SFT batch, the text of prompt and answer as its labels and ids tell it. */
function readBack({ B, T, Tp, ids, labels, predictorIds, predictorLast }: Batch) {
  return Array.from({ length: B }, (_, i) => {
    const [own, next] = [row(ids, T, i), row(labels, T, i)];
    const answerAt = next.findIndex((label) => label !== IGNORED);
    const answer = until(next.slice(answerAt), 1);
    return {
      prompt: own.slice(0, answerAt + 1),
      answer,
      echoed: own.slice(answerAt + 1, answerAt + 1 + answer.length),
      afterEos: next.slice(answerAt + answer.length + 1),
      predictor: row(predictorIds, Tp, i).slice(0, predictorLast[i]! + 1),
    };
  });
}

describe("conversations", () => {
  const T = 120;
  const options = { seed: 1, tokensPerBatch: 4 * T, sequenceLength: T, laterTurns: "input" } as const;
  /** The turns of each row: `first` human message, further ones, and the answers to all. */
  const conversations = ({ B, ids, labels, predictorIds, predictorLast, Tp, P }: Batch) =>
    Array.from({ length: B }, (_, i) => {
      const [own, next] = [row(ids, T, i), row(labels, T, i)];
      const answers = String.fromCharCode(...next.filter((label) => label !== IGNORED))
        .split("\u0001")
        .slice(0, -1);
      const text = String.fromCharCode(...own.slice(1, next.findLastIndex((label) => label !== IGNORED) + 1));
      const predictor = P === 0 ? "" : String.fromCharCode(...row(predictorIds, Tp, i).slice(1, predictorLast[i]! + 1));
      return {
        bos: own[0],
        turns: text.split("\u0001"),
        answers,
        predictor,
        labelled: next.filter((l) => l >= 0).length,
      };
    });

  test("are a question in a wording and then inputs of its domain, every answer labelled, the predictor reads the first", () => {
    const data = sftData("prompt");
    const answerOf = new Map(data.questions.flat().map(({ input, answer }) => [input!, answer]));
    let numTurns = 0;
    for (const batch of take(new ConversationStream(data, options), 60)) {
      const rows = conversations(batch);
      for (const [i, { bos, turns, answers, predictor }] of rows.entries()) {
        expect(bos).toBe(0);
        expect(turns.length).toBe(answers.length);
        for (const [t, turn] of turns.entries()) {
          const [, instruction, input, echoed] = /^(.*)Input: (\d\/\d+ [a-z]+)\n([a-z]*)$/.exec(turn)!;
          expect(instruction === "", turn).toBe(t > 0);
          expect(Number(input![0])).toBe(batch.domains[i]);
          expect(answers[t]).toBe(answerOf.get(input!));
          expect(echoed).toBe(answers[t]);
        }
        expect(`${predictor}\n${answers[0]}`).toBe(turns[0]);
        numTurns += turns.length;
      }
      expect(batch.labelled).toBe(rows.reduce((sum, { labelled }) => sum + labelled, 0));
      expect(batch.tokens).toBe(
        rows.reduce((sum, { turns }) => sum + turns.reduce((all, turn) => all + turn.length + 1, 0), 0),
      );
    }
    expect(numTurns / 240).toBeGreaterThan(2);
  });

  test("ask no question again before all others of its domain, and lose none that did not fit", () => {
    const asked: string[][] = [[], [], []];
    for (const batch of take(new ConversationStream(sftData("prompt"), options), 60)) {
      for (const [i, { turns }] of conversations(batch).entries()) {
        for (const turn of turns) asked[batch.domains[i]!]!.push(/Input: (.*)\n/.exec(turn)![1]!);
      }
    }
    for (const [d, count] of [20, 7, 40].entries()) {
      expect(asked[d]!.length).toBeGreaterThan(2 * count);
      for (let at = 0; at + count <= asked[d]!.length; at += count)
        expect(new Set(asked[d]!.slice(at, at + count)).size).toBe(count);
    }
  });

  test("may ask later turns in whole prompts too: all of them, or about half", () => {
    const share = (laterTurns: "prompt" | "both") => {
      const later = take(new ConversationStream(sftData("prompt"), { ...options, laterTurns }), 60).flatMap((batch) =>
        conversations(batch).flatMap(({ turns, answers }) => turns.slice(1).map((turn, t) => [turn, answers[t + 1]!])),
      );
      expect(later.length).toBeGreaterThan(100);
      for (const [turn, answer] of later) expect(turn).toMatch(new RegExp(`Input: \\d/\\d+ [a-z]+\\n${answer}$`));
      return later.filter(([turn]) => !turn!.startsWith("Input: ")).length / later.length;
    };
    expect(share("prompt")).toBe(1);
    expect(Math.abs(share("both") - 0.5)).toBeLessThan(0.1);
  });

  test("with twins have each first question a second time for the predictor, in a wording drawn anew", () => {
    const data = sftData("prompt");
    let [same, other] = [0, 0];
    for (const batch of take(new ConversationStream(data, { ...options, twins: true }), 60)) {
      expect(batch.P).toBe(2 * batch.B);
      const read = (i: number) =>
        String.fromCharCode(...row(batch.predictorIds, batch.Tp, i).slice(1, batch.predictorLast[i]! + 1));
      for (const i of batch.domains.keys()) {
        const [own, twin] = [read(i), read(batch.B + i)];
        expect(twin.split("Input: ")[1]).toBe(own.split("Input: ")[1]);
        expect(batch.questions[i]!.wordings.some((wording) => twin.startsWith(wording))).toBe(true);
        if (batch.domains[i] === 2) twin === own ? same++ : other++;
      }
    }
    expect(Math.abs(same / (same + other) - 1 / 3)).toBeLessThan(0.15); // the third domain has three wordings
  });

  test("of questions without an input have one turn", () => {
    const data = encodeQuestions([{ domain: "d", weight: 1, wordings: ["a"], answer: "b" }], format, {
      maxTokens: T,
    });
    for (const { turns } of conversations(new ConversationStream(data, options).next()))
      expect(turns).toEqual(["a\nb"]);
  });
});

test.each<[string, () => BatchStream]>([
  ["single questions", () => new SftStream(sftData(), { seed: 3, tokensPerBatch: 300 })],
  ...(["input", "both"] as const).map((laterTurns) => {
    const options = { seed: 3, tokensPerBatch: 400, sequenceLength: 130, laterTurns };
    return [`conversations of ${laterTurns}`, () => new ConversationStream(sftData(), options)] as [
      string,
      () => BatchStream,
    ];
  }),
])("a stream of %s that skips goes on as one that did not", (_, make) => {
  const [whole, skipping] = [make(), make()];
  take(whole, 37);
  skipping.skip(37);
  expect(take(skipping, 5)).toEqual(take(whole, 5));
});

describe("SFT batches", () => {
  test("labels cover exactly the answer and EOS, and the answer is fed back as input", () => {
    for (const batch of take(new SftStream(sftData(), { seed: 1, tokensPerBatch: 300 }), 50)) {
      let labelled = 0;
      let tokens = 0;
      for (const { prompt, answer, echoed, afterEos } of readBack(batch)) {
        const text = String.fromCharCode(...prompt.slice(1));
        expect(prompt[0]).toBe(0);
        expect(text).toMatch(/^[a-z ]+ Input: \d\/\d+ [a-z]+\n$/);
        expect(String.fromCharCode(...answer)).toMatch(/^[a-z]+$/);
        expect(echoed).toEqual(answer);
        expect(afterEos.every((label) => label === IGNORED)).toBe(true);
        labelled += answer.length + 1;
        tokens += prompt.length + answer.length;
      }
      expect([batch.labelled, batch.tokens]).toEqual([labelled, tokens]);
    }
  });

  test.each([
    ["prompt", [/ Input: /]],
    ["instruction", [/^[a-z ]+$/]],
    ["both", [/ Input: /, /^[a-z ]+$/]],
  ] as const)("the predictor reads the %s of its own row, never the answer", (predictorInput, kinds) => {
    const seen = new Map<RegExp, number>(kinds.map((kind) => [kind, 0]));
    for (const batch of take(new SftStream(sftData(predictorInput), { seed: 1, tokensPerBatch: 300 }), 40)) {
      expect(batch.P).toBe(batch.B);
      for (const { prompt, predictor } of readBack(batch)) {
        const [whole, read] = [prompt, predictor].map((ids) => String.fromCharCode(...ids.slice(1)).trimEnd());
        expect(predictor[0]).toBe(0);
        expect([whole, whole!.split(" Input: ")[0]]).toContain(read);
        const kind = kinds.find((pattern) => pattern.test(read!))!;
        seen.set(kind, seen.get(kind)! + 1);
      }
    }
    const counts = [...seen.values()];
    const total = counts.reduce((a, b) => a + b);
    for (const count of counts) expect(Math.abs(count / total - 1 / kinds.length)).toBeLessThan(0.1); // about 300 draws
  });

  test("without a predictor there is no predictor input", () => {
    const dense = encodeQuestions([{ domain: "d", weight: 1, wordings: ["a"], answer: "b" }], format, {
      maxTokens: 10,
    });
    const { P, Tp, predictorIds } = new SftStream(dense, { seed: 1, tokensPerBatch: 300 }).next();
    expect([P, Tp, predictorIds.length]).toEqual([0, 0, 0]);
  });

  test("shapes are few: one B and Tp for each T, B·T within the budget", () => {
    const stream = new SftStream(sftData(), { seed: 1, tokensPerBatch: 300, maxBuckets: 4 });
    const shapes = new Set(take(stream, 200).map(({ B, T, Tp }) => `${B} ${T} ${Tp}`));
    expect(stream.buckets.length).toBeLessThanOrEqual(4);
    for (const { B, T, Tp } of stream.buckets) {
      expect(B * T).toBeLessThanOrEqual(300);
      expect(Tp % 4).toBe(0);
    }
    expect([...shapes].sort()).toEqual(stream.buckets.map(({ B, T, Tp }) => `${B} ${T} ${Tp}`).sort());
  });

  test("a batch holds at least one row, however small the budget", () => {
    expect(new SftStream(sftData(), { seed: 1, tokensPerBatch: 1 }).next().B).toBe(1);
  });

  test.each([{ weights: [1, 1, 1] }, { weights: [1, 2, 5] }])(
    "domains get their shares $weights of the draws",
    ({ weights }) => {
      const stream = new SftStream(sftData("prompt", weights), { seed: 1, tokensPerBatch: 300 });
      const counts = [0, 0, 0];
      for (const { domains } of take(stream, 400)) for (const domain of domains) counts[domain]!++;
      const drawn = counts.reduce((a, b) => a + b);
      const waiting = stream.buckets.reduce((sum, { B }) => sum + B, 0); // draws not handed out yet: all that may differ
      for (const [d, count] of counts.entries()) {
        expect(Math.abs(count - (drawn * weights[d]!) / weights.reduce((a, b) => a + b))).toBeLessThan(waiting);
      }
    },
  );

  test("no question comes again before all others of its domain", () => {
    // one bucket of one row: batches come in the order of the draws
    const stream = new SftStream(sftData(), { seed: 7, tokensPerBatch: 1, maxBuckets: 1 });
    const byDomain: string[][] = [[], [], []];
    for (const batch of take(stream, 3 * 80)) {
      const prompt = String.fromCharCode(...readBack(batch)[0]!.prompt);
      byDomain[batch.domains[0]!]!.push(prompt.split(" Input: ")[1]!);
    }
    for (const [d, count] of [20, 7, 40].entries()) {
      for (let epoch = 0; (epoch + 1) * count <= byDomain[d]!.length; epoch++) {
        expect(new Set(byDomain[d]!.slice(epoch * count, (epoch + 1) * count)).size).toBe(count);
      }
      expect(byDomain[d]!.slice(0, count)).not.toEqual(byDomain[d]!.slice(count, 2 * count));
    }
  });

  test("every wording is drawn", () => {
    const data = sftData();
    const seen = new Set<string>();
    for (const batch of take(new SftStream(data, { seed: 1, tokensPerBatch: 300 }), 1000)) {
      for (const { prompt } of readBack(batch)) seen.add(prompt.join());
    }
    expect(seen).toEqual(new Set(allPrompts(data)));
  });
});

describe("text batches", () => {
  test("a row is BOS and a run of one domain's tokens; labels are the next tokens", () => {
    const data = textData();
    for (const batch of take(new TextStream(data, { seed: 1, tokensPerBatch: 64, sequenceLength: 16 }), 50)) {
      expect([batch.B, batch.T, batch.tokens, batch.labelled, batch.P, batch.Tp]).toEqual([4, 16, 64, 64, 0, 0]);
      for (let i = 0; i < batch.B; i++) {
        const [ids, labels] = [row(batch.ids, 16, i), row(batch.labels, 16, i)];
        expect(ids).toEqual([0, ...labels.slice(0, -1)]);
        expect(labels).toEqual(labels.map((_, t) => labels[0]! + t)); // tokens count upwards
        expect(Math.floor(labels[0]! / 10_000) - 1).toBe(batch.domains[i]);
      }
    }
  });

  test("CPT: the predictor reads chunk k for the loss on chunk k + 1; chunk 1 has no loss", () => {
    const [chunks, T] = [4, 16];
    const stream = new TextStream(textData(), { seed: 1, tokensPerBatch: 64, sequenceLength: T, chunks });
    for (const batch of take(stream, 20)) {
      expect([batch.P, batch.Tp, batch.labelled]).toEqual([4 * 3, 5, 4 * 12]);
      expect([...batch.predictorLast]).toEqual(Array(12).fill(4));
      for (let i = 0; i < batch.B; i++) {
        const labels = row(batch.labels, T, i);
        const tokens = [...row(batch.ids, T, i).slice(1), labels.at(-1)!]; // the T tokens after BOS
        expect(labels).toEqual([...Array(4).fill(IGNORED), ...tokens.slice(4)]);
        for (let k = 0; k < chunks - 1; k++) {
          expect(row(batch.predictorIds, 5, i * 3 + k)).toEqual([0, ...tokens.slice(4 * k, 4 * (k + 1))]);
        }
      }
    }
  });

  test("domains are drawn in equal shares, an epoch of a domain repeats no token, the next cuts elsewhere", () => {
    const starts: number[][] = [[], [], []];
    const stream = new TextStream(textData(), { seed: 3, tokensPerBatch: 16, sequenceLength: 16 });
    for (const { domains, labels } of take(stream, 300)) starts[domains[0]!]!.push(labels[0]!);
    expect(starts.map((own) => own.length)).toEqual([100, 100, 100]);
    const firstEpoch = starts[0]!.slice(0, 61); // 1000 tokens hold at least 61 sequences of 16
    expect(new Set(firstEpoch).size).toBe(61);
    expect(new Set(firstEpoch.map((start) => start % 16)).size).toBe(1);
    expect(new Set(starts[2]!.map((start) => start % 16)).size).toBeGreaterThan(5); // 64 tokens: 25 epochs
  });

  test("a domain with fewer tokens than a sequence is refused", () => {
    const options = { seed: 1, tokensPerBatch: 64, sequenceLength: 65 }; // domain c has 64 tokens
    expect(() => new TextStream(textData(), options)).toThrow(OptionError);
  });
});

describe("streams", () => {
  const streams: [string, (seed: number) => BatchStream][] = [
    ["SFT", (seed) => new SftStream(sftData(), { seed, tokensPerBatch: 300 })],
    ["text", (seed) => new TextStream(textData(), { seed, tokensPerBatch: 64, sequenceLength: 16, chunks: 2 })],
  ];
  test.each(streams)("%s: skip(n) is n times next", (_, open) => {
    for (const n of [0, 1, 7, 100]) {
      const [walked, skipped] = [open(1), open(1)];
      take(walked, n);
      skipped.skip(n);
      expect(take(skipped, 5)).toEqual(take(walked, 5));
    }
  });

  test.each(streams)("%s: other seeds give other batches", (_, open) => {
    expect(take(open(2), 3)).not.toEqual(take(open(1), 3));
  });
});
