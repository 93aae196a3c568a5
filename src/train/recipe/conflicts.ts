/** What the schema cannot say: keys of a recipe that have to fit each other. */
import { hasFixedMasks, type Recipe, type Stage } from "./schema.ts";

/** Keys that are right by themselves but do not fit together. */
export function* conflicts(recipe: Recipe): Generator<string> {
  const { init, tokenizer, llm, predictor, mask, stages } = recipe;
  if (init && tokenizer)
    yield '"tokenizer": wanted none beside "init", whose tokenizer is taken, got one. Remove either.';
  if (!init && !tokenizer) yield '"tokenizer": wanted one, or "init" to take it from, got neither.';
  if (mask && mask.tFfn > llm.ffnWidth) {
    yield `"mask.tFfn": wanted at most llm.ffnWidth = ${llm.ffnWidth} channels, got ${mask.tFfn}.`;
  }
  if (mask && (mask.tFfn % mask.block !== 0 || llm.ffnWidth % mask.block !== 0)) {
    yield `"mask.block": wanted a divisor of mask.tFfn = ${mask.tFfn} and llm.ffnWidth = ${llm.ffnWidth}, got ${mask.block}.`;
  }
  if (mask?.kind === "predictor" && !predictor)
    yield '"predictor": wanted one for "mask.kind" = "predictor", got nothing.';
  if (mask && mask.kind !== "predictor" && predictor) {
    yield `"predictor": wanted none for "mask.kind" = "${mask.kind}", got one. Remove either.`;
  }

  if (predictor && "llmLayers" in predictor.backbone) yield* llmLayersConflicts(recipe, predictor.backbone.llmLayers);

  for (const [i, stage] of stages.entries()) {
    const at = `stages[${i}]`;
    if (stages.findIndex(({ name }) => name === stage.name) < i)
      yield `"${at}.name": wanted a new name, got "${stage.name}" again.`;
    if (stage.warmupSteps > stage.steps) {
      yield `"${at}.warmupSteps": wanted at most steps = ${stage.steps}, got ${stage.warmupSteps}.`;
    }
    if (stage.kind === "warm-start" && (mask?.kind !== "predictor" || stage.train !== "predictor")) {
      yield `"${at}.kind": wanted "mask.kind" = "predictor" and "train" = "predictor" for warm-start, got ${mask ? `"${mask.kind}"` : "no mask"} and "${stage.train}".`;
    }
    if (stage.sequenceLength !== undefined) {
      const { sequenceLength: T, tokensPerBatch } = stage;
      if (T > llm.contextLength)
        yield `"${at}.sequenceLength": wanted at most llm.contextLength = ${llm.contextLength}, got ${T}.`;
      // a warm start's batches hold single questions
      if (T > tokensPerBatch && stage.kind !== "warm-start")
        yield `"${at}.sequenceLength": wanted at most tokensPerBatch = ${tokensPerBatch}, got ${T}.`;
      if (stage.kind === "cpt" && T % stage.chunks !== 0) {
        yield `"${at}.chunks": wanted a divisor of sequenceLength = ${T}, got ${stage.chunks}.`;
      }
    }
    if (stage.kind === "cpt" && mask?.kind !== "predictor") {
      yield `"${at}.kind": wanted "mask.kind" = "predictor" for cpt, got ${mask ? `"${mask.kind}"` : "no mask"}. Use pretrain.`;
    }
    if (stage.kind === "sft" && stage.laterTurns !== "input" && stage.sequenceLength === undefined)
      yield `"${at}.laterTurns": wanted "sequenceLength", the length of a conversation, got none. Add it, or leave "laterTurns" out.`;
    if (stage.kind === "sft" && stage.contrast) {
      if (mask?.kind !== "predictor")
        yield `"${at}.contrast": wanted "mask.kind" = "predictor", whose masks differ, got ${mask ? `"${mask.kind}"` : "no mask"}.`;
      if (stage.train === "llm") yield `"${at}.contrast": wanted a predictor that learns, got "train": "llm".`;
      if (stage.sequenceLength === undefined)
        yield `"${at}.contrast": wanted "sequenceLength", the length of a conversation, got none. Add it, or leave "contrast" out.`;
      else if (2 * stage.sequenceLength > stage.tokensPerBatch)
        yield `"${at}.contrast": wanted a batch of two conversations or more, "tokensPerBatch" of at least ${2 * stage.sequenceLength}, got ${stage.tokensPerBatch}: of one there is nothing to tell its masks from.`;
    }
    if (stage.kind === "sft" && stage.distil && !init)
      yield `"${at}.distil": wanted "init", the run whose model teaches, got none. Add it, or leave "distil" out.`;
    if (stage.kind === "distil") yield* distilConflicts(recipe, stage, at);
    if (stage.kind === "warm-start" && predictor) yield* warmStartConflicts(predictor, stage, at);
    yield* learnerConflicts(recipe, stage, at);
  }
}

function* distilConflicts(
  { init, mask, predictor, llm }: Recipe,
  { teacher, budgets, train }: Extract<Stage, { kind: "distil" }>,
  at: string,
): Generator<string> {
  if (!teacher && !init) yield `"${at}.teacher": wanted one, or "init", whose model then teaches, got neither.`;
  if (!budgets) return;
  if (!mask) yield `"${at}.budgets": wanted nothing, as the recipe has no mask, got ${JSON.stringify(budgets)}.`;
  else if (!hasFixedMasks({ mask, predictor }, train))
    yield `"${at}.budgets": wanted masks that stay as they are ("mask.kind" random-per-domain, or a codebook and "train": "llm"), got masks that learn.`;
  for (const budget of budgets) {
    if (mask && (budget > llm.ffnWidth || budget % mask.block !== 0))
      yield `"${at}.budgets": wanted multiples of mask.block = ${mask.block} up to llm.ffnWidth = ${llm.ffnWidth}, got ${budget}.`;
  }
}

/** Of a predictor that reads with the LLM's own first layers, which do not learn in it. */
function* llmLayersConflicts({ init, llm, predictor, stages }: Recipe, llmLayers: number): Generator<string> {
  const at = "predictor.backbone.llmLayers";
  if (!init) yield `"${at}": wanted "init", the run whose model has the layers, got none.`;
  if (predictor?.init) yield `"predictor.init": wanted none beside "${at}", got one. Remove either.`;
  if (llmLayers > llm.numLayers) yield `"${at}": wanted at most llm.numLayers = ${llm.numLayers}, got ${llmLayers}.`;
  for (const [i, { kind, train, embedding }] of stages.entries()) {
    if (kind === "pretrain" && train !== "llm")
      yield `"stages[${i}].train": wanted llm, as the LLM's own layers do not learn in the predictor, got "${train}".`;
    else if (llmLayers === 0 && train !== "predictor" && embedding !== "frozen")
      yield `"stages[${i}].embedding": wanted frozen, as the predictor reads it, got "${embedding}".`;
  }
}

function* warmStartConflicts(
  { head, rank }: NonNullable<Recipe["predictor"]>,
  { entries, clusters, core, examples }: Extract<Stage, { kind: "warm-start" }>,
  at: string,
): Generator<string> {
  if (head === "codebook") {
    if (examples < rank)
      yield `"${at}.examples": wanted at least predictor.rank = ${rank}, one for each entry of the codebook, got ${examples}.`;
    return;
  }
  const hint = `as "predictor.head" = "${head}" has no entries`;
  if (entries !== "random") yield `"${at}.entries": wanted nothing, ${hint}, got "${entries}".`;
  if (clusters !== "ward") yield `"${at}.clusters": wanted nothing, ${hint}, got "${clusters}".`;
  if (core !== 0) yield `"${at}.core": wanted nothing, ${hint}, got ${core}.`;
}

function* learnerConflicts({ predictor, mask }: Recipe, stage: Stage, at: string): Generator<string> {
  if (stage.train !== "llm") {
    const isBackbone = stage.kind === "pretrain" && predictor !== undefined;
    if (isBackbone && stage.train === "both") {
      yield `"${at}.train": wanted llm or predictor, as pretrain trains one LM at a time, got "both".`;
    } else if (!isBackbone && mask?.kind !== "predictor" && mask?.kind !== "learned-static") {
      yield `"${at}.train": wanted llm, as this recipe has no mask that learns, got "${stage.train}".`;
    }
  }
  for (const part of ["llm", "predictor"] as const) {
    const rate = stage.learningRate[part];
    const learns = stage.train === part || stage.train === "both";
    if (learns && rate === undefined)
      yield `"${at}.learningRate.${part}": wanted a number above 0, as it learns, got nothing.`;
    if (!learns && rate !== undefined) {
      yield `"${at}.learningRate.${part}": wanted nothing, as only the ${stage.train} learns, got ${rate}.`;
    }
  }
  const { downShare } = stage.learningRate;
  if (downShare !== 1 && stage.train === "predictor" && stage.kind !== "pretrain")
    yield `"${at}.learningRate.downShare": wanted nothing, as the LLM does not learn, got ${downShare}.`;
}
