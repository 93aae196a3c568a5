/**
 * Whether masks hold for wordings that healing never saw: the suite's questions in unseen wordings, beside the same questions in ones that it learned from. The router is of before healing, and saw
 * few of either.
 *
 *     npx tsx experiments/smollm2/wordings.ts [BUNDLE] [--questions 20] [--threads 2]
 *
 * Of each task so many questions. Said as one JSON document: the overlap of both masks, beside that with masks of other tasks; how many masks are the same; right answers of each wording under its
 * own mask and under all channels, which tells what the wording costs the model from what its mask does. Right is what has the answer in it as a word. By a bundle as it is served.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { chooseMask, modelTFfn, openMaskSource } from "../../src/answer/maskSource.ts";
import { type EvaluatedMasks, evaluateTasks } from "../../src/eval/evaluate.ts";
import { openModel } from "../../src/eval/load.ts";
import { foreignPartners } from "../../src/mask/baselines.ts";
import type { Mask } from "../../src/mask/mask.ts";
import { overlap } from "../../src/mask/overlap.ts";
import { Random } from "../../src/random.ts";
import { readJsonLines } from "../../src/text/jsonl.ts";
import { composePrompt } from "../../src/text/prompt.ts";
import { type EvalRow, evalRow } from "../../src/text/scorers.ts";

const suite = join(import.meta.dirname, "../suite/data");
const ruleRow = z.object({ task: z.string(), instruction: z.string() });
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { questions: { type: "string", default: "20" }, threads: { type: "string", default: "2" } },
});
const bundle = positionals[0] ?? join(import.meta.dirname, "../../models/default");
const threads = Number(values.threads);

/** By task. */
const trained = new Map<string, string[]>();
for await (const { row } of readJsonLines(join(import.meta.dirname, "data/train/rules.jsonl.gz"), ruleRow))
  if (!trained.get(row.task)?.includes(row.instruction))
    trained.set(row.task, [...(trained.get(row.task) ?? []), row.instruction]);
const random = new Random("smollm2/wordings");
const unseen: EvalRow[] = [];
for await (const { row } of readJsonLines(join(suite, "test-wordings.jsonl"), evalRow))
  if (unseen.filter(({ task }) => task === row.task).length < Number(values.questions))
    unseen.push({ ...row, scorer: "contains" }); // a chat model answers in sentences
const known = unseen.map((row) => {
  const own = trained.get(row.task)!;
  return { ...row, instruction: own[random.int(own.length)]! };
});

await using opened = await openModel(bundle, { threads, spinning: false });
const { model } = opened;
const { ffnWidth } = model.weights.config;
const [unseenMasks, knownMasks] = [await masksOf(unseen), await masksOf(known)];
const common = unseenMasks.map((mask, i) => mean(overlap(mask, knownMasks[i]!)));
const foreign = foreignPartners(unseen.map(({ task }) => task)).map((j, i) =>
  mean(overlap(unseenMasks[i]!, knownMasks[j]!)),
);

const folder = mkdtempSync(join(tmpdir(), "ifprune-wordings-"));
const score = async (rows: readonly EvalRow[], masks: EvaluatedMasks = {}) => {
  const path = join(folder, "questions.jsonl");
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  const { mean, tasks } = await evaluateTasks(opened, path, masks);
  const { accuracy, tokenAccuracy, loss } = mean;
  return {
    accuracy,
    tokenAccuracy,
    loss,
    byTask: Object.fromEntries(tasks.map(({ task, accuracy }) => [task, accuracy])),
  };
};
try {
  const summary = {
    ...{ questions: unseen.length, tasks: new Set(unseen.map(({ task }) => task)).size },
    overlap: mean(common),
    overlapAcross: mean(foreign),
    same: common.filter((share) => share === 1).length,
    trained: await score(known),
    trainedDense: await score(known, { mask: "dense" }),
    unseen: await score(unseen),
    unseenDense: await score(unseen, { mask: "dense" }),
  };
  console.log(JSON.stringify(summary));
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function masksOf(rows: readonly EvalRow[]): Promise<Mask[]> {
  await using source = await openMaskSource(model, { source: "predictor" }, { threads });
  const masks: Mask[] = [];
  for (const { instruction, input } of rows) {
    const prompt = model.format.instruction(composePrompt(instruction, input));
    masks.push((await chooseMask(source, prompt, { tFfn: modelTFfn(model), ffnWidth })).mask);
  }
  return masks;
}

function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, one) => sum + one, 0) / numbers.length;
}
