import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { quiet } from "../../test/support/graphs.ts";
import { randomModel, temporaryFolder } from "../../test/support/models.ts";
import { OptionError } from "../errors.ts";
import { readSafetensors, writeSafetensors } from "../formats/safetensors.ts";
import { PromptFormat } from "../text/prompt.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { SavedModel } from "./checkpoint.ts";
import { encodeQuestions, type Question } from "./data.ts";
import { type PruneOptions, prune } from "./prune.ts";

/** One id per character: its code; BOS 0, EOS 1. */
const tokenizer = {
  bosId: 0,
  eosId: 1,
  vocabSize: 128,
  encode: (text: string) => Int32Array.from(text, (character) => character.charCodeAt(0)),
} as Tokenizer;

const llm = randomModel(
  { family: "llama", ffnWidth: 32, width: 32, headWidth: 8, vocabSize: 128, tieEmbeddings: true },
  1,
);
const model = { card: { provenance: { data: [] } }, tokenizer: new Uint8Array(), llm } as unknown as SavedModel;
const [L, F] = [2, 32];

/** Domains of so many questions, each in letters of its own, and of these weights. */
function dataOf(counts: Readonly<Record<string, number>>, weights: Readonly<Record<string, number>> = {}) {
  const questions = Object.entries(counts).flatMap(([domain, count], d) =>
    Array.from({ length: count }, (_, i): Question => {
      const letter = (n: number) => String.fromCharCode(97 + 8 * d + (n % 8));
      const word = (n: number) => letter(n) + letter(n * 3 + 1) + letter(n + 2);
      return {
        domain,
        weight: weights[domain] ?? 1,
        wordings: [word(i), `${word(i + 1)} ${word(i)}`],
        answer: word(i * 5) + letter(i),
      };
    }),
  );
  return encodeQuestions(questions, new PromptFormat(tokenizer, "{prompt}\n"), {
    predictorInput: "prompt",
    maxTokens: 40,
  });
}
const data = dataOf({ few: 3, many: 20, more: 20 });

const options: PruneOptions = { ...quiet, prompts: 24, block: 4, tFfn: 16, masks: "domains", seed: 1, data: [] };
const pruned = (changes: Partial<PruneOptions> = {}, of = data) => prune(model, of, { ...options, ...changes });
const codebookOf = ({ predictor }: SavedModel) => predictor!.head.get("codebook.weight")!;

describe("groups of prompts", () => {
  test("take of each domain its weight's share, so that many small tasks do not outvote one large kind", async () => {
    const { report } = await pruned(
      {},
      dataOf({ large: 20, small: 20, smaller: 20 }, { large: 2, small: 1, smaller: 1 }),
    );
    expect(report.entries.map(({ prompts }) => prompts)).toEqual([12, 6, 6]);
  });

  test("are the domains, one of three prompts among them; an entry keeps more of its own than one mask for all, and another's less", async () => {
    const { model, report } = await pruned();
    expect(report.prompts).toBe(3 + 8 + 8); // a domain gives its third of 24, or all that it has
    expect(report.entries).toEqual([
      { prompts: 3, domains: { few: 3 } },
      { prompts: 8, domains: { many: 8 } },
      { prompts: 8, domains: { more: 8 } },
    ]);
    const { own, generic, foreign, most } = report.kept;
    expect(most).toBeGreaterThanOrEqual(own);
    expect(own).toBeGreaterThan(generic);
    expect(generic).toBeGreaterThan(foreign);
    expect(report.routed).toBe(1); // their letters are all different
    expect(codebookOf(model).shape).toEqual([(L * F) / 4, 3]);
    expect(codebookOf(model).data.every(Number.isFinite)).toBe(true);
  });

  test("are clusters of what prompts need, at most as many as asked for; with one, masks are one for all", async () => {
    const { report } = await pruned({ masks: 3 });
    expect(report.entries.length).toBeLessThanOrEqual(3);
    expect(report.entries.reduce((sum, { prompts }) => sum + prompts, 0)).toBe(report.prompts);
    const one = (await pruned({ masks: 1 })).report;
    expect(one.entries).toHaveLength(1);
    const { generic, most } = one.kept;
    expect(one.kept).toEqual({ own: generic, generic, foreign: generic, most });
  });

  test("may not be more than prompts, nor blocks other than whole ones", async () => {
    for (const [changes, message] of [
      [{ masks: 20 }, /wanted at least 20 prompts, one for each mask, got 19/],
      [{ block: 5 }, /wanted blocks that divide 32 channels and t_ffn = 16 of them, got blocks of 5/],
      [{ block: 32 }, /got blocks of 32/],
      [{ tFfn: 0 }, /t_ffn = 0/],
      [{ tFfn: 36 }, /wanted t_ffn of at most 32 channels, got 36/],
    ] as const) {
      await expect(pruned(changes)).rejects.toThrow(OptionError);
      await expect(pruned(changes)).rejects.toThrow(message);
    }
  });

  test("of fewer than five prompts have a router, of which nothing is known", async () => {
    const { report, model } = await pruned({}, dataOf({ one: 2, two: 2 }));
    expect(report).toMatchObject({ prompts: 4, entries: [{ prompts: 2 }, { prompts: 2 }] });
    expect(report).not.toHaveProperty("routed");
    expect(model.predictor!.head.get("router.weight")!.data.every(Number.isFinite)).toBe(true);
  });
});

test("a core is in every mask, and the rest of each its own; all of it is one mask for all", async () => {
  const masksOf = async (changes: Partial<PruneOptions>) => {
    const { data: codebook, shape } = codebookOf((await pruned(changes)).model);
    const [k, R] = [F / 4, shape[1]!];
    return Array.from({ length: R }, (_, entry) =>
      Array.from({ length: L }, (_, layer) => {
        const scores = Array.from({ length: k }, (_, i) => codebook[(layer * k + i) * R + entry]!);
        return [...scores.keys()].sort((a, b) => scores[b]! - scores[a]!).slice(0, 4);
      }),
    );
  };
  const common = (masks: number[][][], layer: number) =>
    masks[0]![layer]!.filter((block) => masks.every((mask) => mask[layer]!.includes(block))).length;
  for (const random of [false, true]) {
    const half = await masksOf({ core: 0.5, random });
    for (let layer = 0; layer < L; layer++) {
      expect(common(half, layer)).toBeGreaterThanOrEqual(2);
      const core = half.map((mask) => mask[layer]!.slice(0, 2).sort());
      for (const one of core) expect(one).toEqual(core[0]);
    }
    const [all] = [await masksOf({ core: 1, random })];
    for (const mask of all)
      for (let layer = 0; layer < L; layer++) expect([...mask[layer]!].sort()).toEqual([...all[0]![layer]!].sort());
  }
  expect(common(await masksOf({ random: true }), 0)).toBeLessThan(4);
});

test("the same seed gives the same model; the random control has the same groups and router, and keeps less", async () => {
  const [own, again, random] = [await pruned(), await pruned(), await pruned({ random: true })];
  expect(again.model.predictor).toEqual(own.model.predictor);
  expect(again.model.llm).toEqual(own.model.llm);
  expect(random.report.entries).toEqual(own.report.entries);
  expect(random.model.predictor!.head.get("router.weight")).toEqual(own.model.predictor!.head.get("router.weight"));
  expect(codebookOf(random.model)).not.toEqual(codebookOf(own.model));
  expect(random.report.kept.own).toBeLessThan(own.report.kept.generic);
});

test("what a group keeps of a prompt is what the others make of it: a group of one keeps what one mask for all the others does", async () => {
  const { report } = await pruned({}, dataOf({ a: 1, b: 1, c: 1 }));
  expect(report.entries.map(({ prompts }) => prompts)).toEqual([1, 1, 1]);
  expect(report.kept.own).toBeCloseTo(report.kept.generic, 12);
  expect(report.kept.most).toBeGreaterThan(report.kept.own);
});

test("single channels stay in their order, and the embedding is the predictor's too", async () => {
  const { model } = await pruned({ block: 1 });
  expect(model.llm.weights).toBe(llm.weights);
  expect(codebookOf(model).shape).toEqual([L * F, 3]);
  expect(model.predictor!.backbone.weights.get("model.embed_tokens.weight")!.data).toBe(
    llm.weights.get("model.embed_tokens.weight")!.data,
  );
});

describe("importance that is kept", () => {
  const counted = async (importance?: string, of = data) => {
    let found = 0;
    const { model } = await pruned({ importance, onProgress: (_, done) => (found = done) }, of);
    return { found, head: model.predictor!.head };
  };

  test("gives the model that is made without, is found once, and not again for other masks of the same prompts", async () => {
    const importance = temporaryFolder();
    const [without, first, second] = [await counted(), await counted(importance), await counted(importance)];
    expect([without.found, first.found, second.found]).toEqual([19, 19, 0]);
    expect(first.head).toEqual(without.head);
    expect(second.head).toEqual(without.head);
    expect(readdirSync(importance)).toHaveLength(3); // one a domain, nothing half-written
    expect((await counted(importance, dataOf({ few: 3, many: 20 }))).found).toBeGreaterThan(0);
  });

  test("is found anew where its file is damaged or of another shape", async () => {
    const importance = temporaryFolder();
    const { head } = await counted(importance);
    const path = join(importance, readdirSync(importance).sort()[0]!);
    const sound = readFileSync(path);
    for (const damage of [
      () => writeFileSync(path, sound.subarray(0, sound.length - 3)),
      () => writeFileSync(path, ""),
      () => writeFileSync(path, "no tensors".repeat(100)),
      () => writeSafetensors(path, new Map([["importance", { shape: [1, 2], data: Float32Array.of(1, 2) }]])),
      () => writeSafetensors(path, new Map([["other", readSafetensors(path).get("importance")!]])),
    ]) {
      damage();
      const { found, head: again } = await counted(importance);
      expect(found).toBeGreaterThan(0);
      expect(again).toEqual(head);
      expect(readFileSync(path)).toEqual(sound);
    }
  });
});
