/** What a run is at between two steps: begun from its recipe or found in its newest checkpoint, and saved to the next one. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { roundToBfloat16 } from "../formats/quantize.ts";
import type { Parts } from "../net/parameters.ts";
import { DEFAULT_PROMPT_TEMPLATE, type PromptFormat } from "../text/prompt.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import {
  type Checkpoint,
  checkpointFolder,
  formatOf,
  type ModelCard,
  type SavedModel,
  saveCheckpoint,
} from "./checkpoint.ts";
import type { LossHistory } from "./divergence.ts";
import type { RecipeFile } from "./recipe/read.ts";
import { hasFixedMasks, llmConfig, predictorConfig, type Recipe } from "./recipe/schema.ts";
import { initialParts, loadBackbone, loadInit, makeTokenizer } from "./runStart.ts";
import type { StageState } from "./stage.ts";

/** How far a stage has come. */
export interface StageProgress {
  state: StageState;
  /** Of the divergence guard. */
  losses: LossHistory;
}

/** What a run knows of itself from its beginning on. */
interface RunStart {
  recipe: Recipe;
  runDir: string;
  /** How the LLM is prompted. */
  format: PromptFormat;
  /** Jinja text, of a model that is prompted with it. */
  chatTemplate: string | undefined;
  parts: Parts;
  /** Data that the model had learned from before the run. */
  inherited: ModelCard["provenance"]["data"];
}

export class RunState {
  readonly #start: RunStart;
  /** Index of the stage that the run goes on with. */
  readonly stage: number;
  /** Of that stage, if it was interrupted in its middle. */
  readonly progress: StageProgress | undefined;
  /** The last good checkpoint. */
  #checkpoint: string | undefined;

  private constructor(start: RunStart, saved: Checkpoint | undefined) {
    this.#start = start;
    this.stage = saved?.stage ?? 0;
    this.progress = saved && progressOf(saved);
    this.#checkpoint = saved && checkpointFolder(start.runDir, saved.step);
  }

  /** @param saved the run's newest checkpoint; absent: the run begins */
  static async open({ recipe, pathOf }: RecipeFile, runDir: string, saved: Checkpoint | undefined): Promise<RunState> {
    const init = recipe.init && pathOf(recipe.init.run);
    const from = saved ?? (init === undefined ? undefined : await loadInit(init));
    const tokenizer = await makeTokenizer({ recipe, pathOf }, from, tokenizerPath(runDir));
    const parts = saved
      ? savedParts(saved)
      : initialParts(recipe, from, tokenizer.vocabSize, await loadBackbone({ recipe, pathOf }, tokenizerPath(runDir)));
    if (init !== undefined && recipe.stages.some((stage) => stage.kind === "sft" && stage.distil))
      parts.teacher = (await loadInit(init)).llm.weights; // its own copy: what is trained changes in place
    const chatTemplate = from?.chatTemplate;
    const format = formatOf({ card: { promptTemplate: DEFAULT_PROMPT_TEMPLATE }, chatTemplate }, tokenizer, runDir);
    const inherited = from?.card.provenance.data ?? [];
    return new RunState({ recipe, runDir, format, chatTemplate, parts, inherited }, saved);
  }

  get format(): PromptFormat {
    return this.#start.format;
  }

  get parts(): Parts {
    return this.#start.parts;
  }

  get checkpoint(): string | undefined {
    return this.#checkpoint;
  }

  /** Saves a checkpoint in a stage, or at its end. @returns its folder */
  async save(stage: number, { state, losses }: StageProgress, metricsBytes: number): Promise<string> {
    const { recipe, runDir, parts } = this.#start;
    const { kind, steps } = recipe.stages[stage]!;
    const isDone = state.step === steps;
    // Moments of a pretrained model would make a checkpoint of three times its weights. They are rounded where they are, so that a run that goes on and one that
    // resumes have the same.
    const halvesMoments = kind === "distil" && !isDone;
    if (halvesMoments) for (const { data } of [...state.m.values(), ...state.v.values()]) roundToBfloat16(data);
    this.#checkpoint = await saveCheckpoint(runDir, {
      ...savedModel(this.#start),
      step: stepsBefore(recipe, stage) + state.step,
      stage: isDone ? stage + 1 : stage,
      metricsBytes,
      recipe: JSON.parse(JSON.stringify(recipe)),
      values: isDone ? { step: 0, losses: {} } : { step: state.step, losses },
      tensors: {
        ...(!isDone && { "adam-m": state.m, "adam-v": state.v }),
        ...(parts.static && { static: parts.static }),
      },
      ...(halvesMoments && { halves: ["adam-m", "adam-v"] }),
    });
    return this.#checkpoint;
  }
}

/** Steps of the stages before one of them. */
export function stepsBefore({ stages }: Recipe, index: number): number {
  return stages.slice(0, index).reduce((sum, { steps }) => sum + steps, 0);
}

/** The tokenizer of a run. */
export const tokenizerPath = (runDir: string) => join(runDir, "tokenizer.json");

function progressOf({ values, tensors }: Checkpoint): StageProgress | undefined {
  const { step, losses } = values as { step: number; losses: LossHistory };
  const { "adam-m": m, "adam-v": v } = tensors;
  return m && v && { state: { step, m, v }, losses };
}

function savedParts({ llm, predictor, tensors }: Checkpoint): Parts {
  return {
    llm: llm.weights,
    ...(predictor && { predictor: { backbone: predictor.backbone.weights, head: predictor.head } }),
    ...(tensors.static && { static: tensors.static }),
  };
}

function savedModel({ recipe, runDir, format, chatTemplate, parts, inherited }: RunStart): SavedModel {
  const { tokenizer } = format;
  const predictor = predictorConfig(recipe, tokenizer.vocabSize);
  return {
    card: modelCard(recipe, tokenizer, inherited),
    tokenizer: readFileSync(tokenizerPath(runDir)),
    chatTemplate,
    llm: { config: llmConfig(recipe, tokenizer.vocabSize), weights: parts.llm },
    ...(predictor &&
      parts.predictor && {
        predictor: {
          backbone: { config: predictor.backbone, weights: parts.predictor.backbone },
          head: parts.predictor.head,
        },
      }),
  };
}

/** Whether a stage trains on kept channels as they are, without λ. */
function hasHardMasks({ mask, predictor }: Recipe, { kind, train }: Recipe["stages"][number]): boolean {
  return mask?.kind === "random-per-domain" || (kind === "distil" && hasFixedMasks({ mask, predictor }, train));
}

function modelCard(recipe: Recipe, { bosId, eosId }: Tokenizer, inherited: RunStart["inherited"]): ModelCard {
  const { mask, stages } = recipe;
  const own = stages.flatMap(({ data }) => data.map(({ domain, licence }) => ({ name: domain, licence })));
  const origins = new Map([...inherited, ...own].map((origin) => [JSON.stringify(origin), origin]));
  return {
    ...(mask?.kind === "predictor" && { tFfn: mask.tFfn, epsilon: mask.epsilon }),
    lambda: mask && !stages.some((stage) => hasHardMasks(recipe, stage)) ? "soft" : "hard",
    predictorInput: recipe.predictor?.input ?? "prompt",
    predictorPooling: recipe.predictor?.pooling ?? "last",
    promptTemplate: DEFAULT_PROMPT_TEMPLATE,
    bosId,
    eosId,
    provenance: {
      recipe: recipe.name,
      seed: recipe.seed,
      data: [...origins.values()],
      created: new Date().toISOString(),
    },
  };
}
