/** The whole model and the smaller one on held-out prompts, in turns: answers, what they score where there is gold, and how fast both are in one engine. */
import type { InstructionModel } from "../answer/instructionModel.ts";
import { OneEngine } from "../answer/oneEngine.ts";
import type { Engine } from "../engine/engine.ts";
import { labelScore } from "../engine/labelScore.ts";
import { fullMask } from "../mask/mask.ts";
import { median } from "../median.ts";
import type { LabelledSequence } from "../net/evaluator.ts";
import { isCorrect } from "../text/scorers.ts";
import type { Both, GoldScore, Specialization, Speed } from "./specialization.ts";
import { promptText, type TaskPrompt } from "./taskPrompts.ts";
import type { Hooks } from "./told.ts";

interface Asked {
  text: string;
  firstTokenMs: number;
  tokensPerSecond?: number | undefined;
}

/** What {@link compareModels} finds. */
export type SideBySide = Pick<Specialization, "perplexity" | "gold" | "speed" | "answers">;

/** Answers that a card shows. */
const SHOWN = 10;

/**
 * Asks both greedily, one after the other, each first every other time; the first prompt warms up and is asked again.
 *
 * @param rows held-out prompts; outputs count as gold where `hasGold`
 * @param examples the same with their answers, of which perplexity is taken
 */
export async function compareModels(
  models: Both<InstructionModel>,
  rows: readonly TaskPrompt[],
  examples: readonly LabelledSequence[],
  {
    hasGold,
    maxTokens,
    ...how
  }: {
    hasGold: boolean;
    maxTokens: number;
    threads?: number | undefined;
    force?: boolean | undefined;
    /** Of the models' files while they are open. */
    root: string;
  },
  { signal, onProgress }: Hooks,
): Promise<SideBySide> {
  const { root, ...engine } = how;
  const prompts = rows.map((row) => ({ row, ids: models.small.promptIds(promptText(row)) }));
  const longest = Math.max(
    ...prompts.map(({ ids }) => ids.length + maxTokens),
    ...examples.map(({ ids }) => ids.length + 1),
  );
  const open = ({ bundle }: InstructionModel, model: InstructionModel) =>
    new OneEngine(model, Math.min(bundle.contextLength, longest), 1, {
      ...engine,
      steady: false, // as it is used
      cache: { root },
      signal,
    });
  await using denseEngines = open(models.dense, models.dense);
  await using smallEngines = open(models.small, models.small);
  const engineOf = (engines: OneEngine, { bundle }: InstructionModel) =>
    engines.of("all", fullMask(bundle.numLayers, bundle.ffnWidth));
  const dense = await engineOf(denseEngines, models.dense);
  const small = await engineOf(smallEngines, models.small);
  const ask = async (engine: Engine, { tokenizer }: InstructionModel, ids: Int32Array): Promise<Asked> => {
    const start = performance.now();
    const tokens: number[] = [];
    let first = start;
    for await (const id of engine.generate(ids, { maxTokens, signal })) {
      if (tokens.length === 0) first = performance.now();
      tokens.push(id);
    }
    const seconds = (performance.now() - first) / 1000;
    return {
      text: tokenizer.decode(tokens),
      firstTokenMs: (tokens.length > 0 ? first : performance.now()) - start,
      tokensPerSecond: tokens.length > 1 ? (tokens.length - 1) / seconds : undefined,
    };
  };
  const asked: (Both<Asked> & { row: TaskPrompt })[] = [];
  for (const [i, { row, ids }] of [prompts[0]!, ...prompts].entries()) {
    signal.throwIfAborted();
    const answers: Partial<Both<Asked>> = {};
    const order = ["dense", "small"] as const;
    for (const name of i % 2 === 0 ? order : order.toReversed())
      answers[name] = await ask(name === "dense" ? dense : small, models[name], ids);
    if (i > 0) asked.push({ row, ...(answers as Both<Asked>) });
    onProgress(i, prompts.length, "answers");
  }
  const loss = { dense: 0, small: 0 };
  for (const [i, example] of examples.entries()) {
    signal.throwIfAborted();
    loss.dense += (await labelScore(dense, example, signal)).nll;
    loss.small += (await labelScore(small, example, signal)).nll;
    onProgress(i + 1, examples.length, "perplexity");
  }
  const tokens = examples.reduce((sum, { labels }) => sum + labels.filter((label) => label >= 0).length, 0);
  const both = <T>(of: (name: keyof Both<unknown>) => T): Both<T> => ({ dense: of("dense"), small: of("small") });
  return {
    perplexity: both((name) => Math.exp(loss[name] / tokens)),
    ...(hasGold && { gold: both((name) => goldScore(asked.map((one) => ({ ...one, text: one[name].text })))) }),
    speed: both((name) => speed(asked.map((one) => one[name]))),
    answers: asked.slice(0, SHOWN).map(({ row, dense, small }) => ({
      prompt: promptText(row),
      ...(hasGold && { gold: row.output }),
      dense: dense.text,
      small: small.text,
    })),
  };
}

function goldScore(asked: readonly { row: TaskPrompt; text: string }[]): GoldScore {
  const share = (scorer: "any" | "contains") =>
    asked.filter(({ row, text }) => isCorrect(scorer, text, [row.output!])).length / asked.length;
  return { exact: share("any"), contains: share("contains") };
}

function speed(asked: readonly Asked[]): Speed {
  const rates = asked.flatMap(({ tokensPerSecond }) => tokensPerSecond ?? []);
  return {
    firstTokenMs: median(asked.map(({ firstTokenMs }) => firstTokenMs)),
    tokensPerSecond: rates.length > 0 ? median(rates) : undefined,
  };
}
