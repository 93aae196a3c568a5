/**
 * Tests that ask a model which they have trained. An answer that hangs by a thread is another one on another CPU, whose arithmetic rounds
 * otherwise; so such a test trains until its answers are sure, and says first whether they are.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { maskFromScores } from "../../src/mask/mask.ts";
import { composePrompt, PromptFormat, predictorIds } from "../../src/text/prompt.ts";
import { createTokenizer, type Tokenizer } from "../../src/text/tokenizer.ts";
import { loadLatestCheckpoint, type SavedModel } from "../../src/train/checkpoint.ts";
import { readRunLog } from "../../src/train/runLog.ts";
import { channelWeights, forward, lead, matVec } from "../reference/decoder.ts";
import { featureOf, scoreInstruction } from "../reference/predictor.ts";

/** A prompt and the answer that was to be learned. */
export interface Asked {
  prompt: string;
  answer: string;
}

/** Every question of a data folder like `fixtures/tiny`, in every wording that it is trained in. */
export function questionsOf(folder: string): Asked[] {
  const wordings: Record<string, { train: string[] }> = JSON.parse(
    readFileSync(join(folder, "instructions.json"), "utf8"),
  );
  const lines = readFileSync(join(folder, "train.jsonl"), "utf8").trimEnd().split("\n");
  return lines.flatMap((line) => {
    const { task, input, output } = JSON.parse(line);
    return wordings[task]!.train.map((wording) => ({ prompt: composePrompt(wording, input), answer: output }));
  });
}

/** What a run has learned. */
interface Learned {
  /** Of the last steps in the run's log, mean, nats per label. */
  loss: number;
  /** Nats between the right token and the likeliest other one, where they are closest: over all answers, and the token that ends them. */
  margin: number;
  /** The question of that place. */
  closest: string;
}

/** Steps at the end of a log that its loss is the mean of. */
const lastSteps = 20;

/**
 * What a run has learned, under the mask that each prompt gets from its predictor. Computed in the float64 reference, so that no engine takes part that
 * is asked later.
 */
async function learned(runDir: string, asked: readonly Asked[]): Promise<Learned> {
  const model = (await loadLatestCheckpoint(runDir))!;
  const tokenizer = tokenizerOf(model);
  const steps = readRunLog(join(runDir, "metrics.jsonl"))
    .filter((row) => row.kind === "train")
    .slice(-lastSteps);
  const loss = steps.reduce((sum, row) => sum + row.loss, 0) / steps.length;
  const margins = asked.map((question) => marginOf(model, tokenizer, question));
  const margin = Math.min(...margins);
  return { loss, margin, closest: asked[margins.indexOf(margin)]!.prompt };
}

const tokenizerOf = ({ tokenizer }: SavedModel) =>
  createTokenizer(JSON.parse(new TextDecoder().decode(tokenizer)), "checkpoint");

/** By how much a codebook's router prefers the entry of a text to the next. */
export function routerLead(model: SavedModel, text: string): number {
  const { backbone, head } = model.predictor!;
  const [mean, std, router] = ["feature.mean", "feature.std", "router.weight"].map((name) => head.get(name)!.data);
  const feature = featureOf(backbone, predictorIds(tokenizerOf(model), text), model.card.predictorPooling);
  const entries = matVec(
    router!,
    feature.map((value, i) => (value - mean![i]!) / std![i]!),
  );
  return lead(entries, entries.indexOf(Math.max(...entries)));
}

/** Fails where a codebook's router wavers between two entries for what the predictor reads. */
export function expectRouted(model: SavedModel, texts: readonly string[]): void {
  const margin = Math.min(...texts.map((text) => routerLead(model, text)));
  if (margin < 0.1)
    throw new Error(`not trained enough here: two entries of the codebook are ${margin} apart; wanted 0.1.`);
}

/** What counts as learned: far beyond what rounding moves, in float32 or in 8 bits. A run that has converged has a margin of about 10. */
const enough = { loss: 0.01, margin: 5 };

/** @throws unless the run has learned these questions well enough to be asked them. For a test's first step, or a hook before it. */
export async function expectTrained(runDir: string, asked: readonly Asked[]): Promise<void> {
  const { loss, margin, closest } = await learned(runDir, asked);
  if (loss < enough.loss && margin > enough.margin) return;
  const got = `loss ${loss.toFixed(4)}, margin ${margin.toFixed(2)} nats (“${closest}”)`;
  throw new Error(
    `not trained enough here: ${got}; wanted a loss below ${enough.loss}, a margin above ${enough.margin}.`,
  );
}

function marginOf({ llm, predictor, card }: SavedModel, tokenizer: Tokenizer, { prompt, answer }: Asked): number {
  const { tFfn, epsilon, lambda, promptTemplate, predictorPooling } = card;
  const format = new PromptFormat(tokenizer, promptTemplate);
  const [read, wanted] = [format.promptIds(prompt), format.answerIds(answer)];
  const { numLayers, ffnWidth: dFfn } = llm.config;
  const head = Object.fromEntries([...predictor!.head].map(([name, { data }]) => [name, data]));
  const asked = predictorIds(tokenizer, prompt);
  const { scores } = scoreInstruction(predictor!.backbone, head, numLayers, asked, 1, undefined, predictorPooling);
  const mask = maskFromScores(scores, { dFfn, tFfn: tFfn!, epsilon: lambda === "soft" ? epsilon : undefined });
  const { logits } = forward(llm, [...read, ...wanted.slice(0, -1)], channelWeights(mask));
  return Math.min(...Array.from(wanted, (id, i) => lead(logits[read.length - 1 + i]!, id)));
}
