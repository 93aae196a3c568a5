/** The data of a stage, as token ids, and the batches that are drawn from it. */
import type { PromptFormat } from "../text/prompt.ts";
import { type BatchStream, ConversationStream, SftStream, TextStream } from "./batches.ts";
import { encodeDocuments, encodeQuestions, readDocuments, readQuestions, type SftData, withExamples } from "./data.ts";
import type { RecipeFile } from "./recipe/read.ts";
import { predictorConfig, type Stage } from "./recipe/schema.ts";

export type StageOf<Kind extends Stage["kind"]> = Extract<Stage, { kind: Kind }>;

/** What everything that a stage draws at random depends on. */
export const stageSeed = ({ recipe }: RecipeFile, { name }: Stage) => `${recipe.seed}/${name}`;

/** Files of a stage, as ones that can be opened. */
function filesOf({ pathOf }: RecipeFile, { data, instructions }: Stage) {
  return {
    sources: data.map((source) => ({ ...source, path: pathOf(source.path) })),
    instructions: instructions && pathOf(instructions),
  };
}

/** Questions of a stage that trains on instructions, with what a predictor reads of them if the recipe's masks are from one. */
export async function stageQuestions(
  file: RecipeFile,
  stage: StageOf<"sft" | "warm-start" | "distil">,
  format: PromptFormat,
): Promise<SftData> {
  const { sources, instructions } = filesOf(file, stage);
  const { mask, predictor, llm } = file.recipe;
  const read = await readQuestions(sources, instructions);
  const shots = stage.kind === "distil" ? undefined : stage.shots;
  const questions = shots ? withExamples(read, shots, stageSeed(file, stage)) : read;
  return encodeQuestions(questions, format, {
    predictorInput: mask?.kind === "predictor" ? predictor?.input : undefined,
    maxTokens: stage.sequenceLength ?? llm.contextLength,
    predictorContext: predictorConfig(file.recipe, format.tokenizer.vocabSize)?.backbone.contextLength,
  });
}

export interface StageBatches {
  stream: BatchStream;
  /** In the order that batches number them in. */
  domains: readonly string[];
  /** Examples left out as longer than `sequenceLength`, or the context. */
  numTooLong: number;
}

/** Batches that a language model learns from. */
export async function nextTokenBatches(
  file: RecipeFile,
  stage: StageOf<"pretrain" | "cpt" | "sft">,
  format: PromptFormat,
): Promise<StageBatches> {
  const seed = stageSeed(file, stage);
  if (stage.kind === "sft") {
    const data = await stageQuestions(file, stage, format);
    const { domains, numTooLong } = data;
    return { stream: questionStream(data, stage, seed), domains, numTooLong };
  }
  const { sources, instructions } = filesOf(file, stage);
  const data = await encodeDocuments(readDocuments(sources, instructions), format.tokenizer);
  const { tokensPerBatch, sequenceLength } = stage;
  const chunks = stage.kind === "cpt" ? stage.chunks : undefined;
  const stream = new TextStream(data, { seed, tokensPerBatch, sequenceLength, chunks });
  return { stream, domains: data.domains, numTooLong: 0 };
}

/** Single questions, or conversations where the stage says how long. */
function questionStream(data: SftData, stage: StageOf<"sft">, seed: string): BatchStream {
  const { tokensPerBatch, sequenceLength, laterTurns, contrast } = stage;
  if (sequenceLength === undefined) return new SftStream(data, { seed, tokensPerBatch });
  const twins = contrast !== undefined;
  return new ConversationStream(data, { seed, tokensPerBatch, sequenceLength, laterTurns, twins });
}
