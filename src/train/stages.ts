/** From a recipe to what the trainer runs: parameters of every part, and per stage its configuration and its stream of batches. */
import { copyFile, rename, writeFile } from "node:fs/promises";
import { isDeepStrictEqual } from "node:util";
import { OptionError } from "../errors.ts";
import type { Model } from "../formats/huggingface.ts";
import type { SessionOptions } from "../graph/session.ts";
import { boundaryOf } from "../manifest.ts";
import { randomMask } from "../mask/baselines.ts";
import type { Mask } from "../mask/mask.ts";
import type { ModelConfig, Weights } from "../model/config.ts";
import { headShapes, type PredictorConfig } from "../model/predictorConfig.ts";
import { Evaluator } from "../net/evaluator.ts";
import { joinParts, type Parts, randomDecoder, randomHead, randomStatic } from "../net/parameters.ts";
import type { MaskSource, StepConfig } from "../net/step.ts";
import { Random } from "../random.ts";
import type { PromptFormat } from "../text/prompt.ts";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { trainTokenizer } from "../text/trainTokenizer.ts";
import { type BatchStream, ConversationStream, SftStream, TextStream } from "./batches.ts";
import type { SavedModel } from "./checkpoint.ts";
import { encodeDocuments, encodeQuestions, readDocuments, readQuestions, withExamples } from "./data.ts";
import { heldOutExamples } from "./heldOut.ts";
import type { RecipeFile } from "./recipe/read.ts";
import { llmConfig, predictorConfig, type Recipe, type Stage } from "./recipe/schema.ts";
import type { ClusterRow } from "./runLog.ts";
import type { StageConfig } from "./trainer.ts";
import { prepareWarmStart, sampleQuestions, type WarmStart } from "./warmStart.ts";

const ADAM_EPSILON = 1e-8;

/** Puts a run's tokenizer at `path`: that of the model it goes on from, a copy of a file, or one trained from the corpus. */
export async function makeTokenizer(
  { recipe, pathOf }: RecipeFile,
  from: SavedModel | undefined,
  path: string,
): Promise<Tokenizer> {
  const { tokenizer } = recipe;
  const partial = `${path}.partial`;
  if (from) await writeFile(partial, from.tokenizer);
  else if ("path" in tokenizer!) {
    const source = pathOf(tokenizer.path);
    loadTokenizer(source); // an error names the user's file
    await copyFile(source, partial);
  } else {
    const { vocabSize, data, instructions } = tokenizer!;
    const documents = readDocuments(
      data.map((file) => ({ domain: "", path: pathOf(file) })),
      instructions && pathOf(instructions),
    );
    const texts = (async function* () {
      for await (const { text } of documents) yield text;
    })();
    await trainTokenizer({ texts, vocabSize, out: partial });
  }
  await rename(partial, path);
  return loadTokenizer(path, from && boundaryOf(from.card, from.llm.config));
}

/** Parameters that a run begins with: from `init` where it has them, random from the recipe's seed otherwise. */
export function initialParts(recipe: Recipe, init: SavedModel | undefined, vocabSize: number): Parts {
  const random = (part: string) => new Random(`${recipe.seed}/init/${part}`);
  const llm = llmConfig(recipe, vocabSize);
  const predictor = predictorConfig(recipe, vocabSize);
  const from = (part: string, model: Model | undefined, config: ModelConfig) => {
    if (model && !isDeepStrictEqual(model.config, config)) {
      throw new OptionError(
        `recipe "${recipe.name}": wanted in "${part}" the shape of the model that "init" names, ${JSON.stringify(model.config)}, got ${JSON.stringify(config)}.`,
      );
    }
    return model?.weights;
  };
  return {
    llm: from("llm", init?.llm, llm) ?? randomDecoder(llm, random("llm")),
    ...(predictor && {
      backbone:
        from("predictor.backbone", init?.predictor?.backbone, predictor.backbone) ??
        randomDecoder(predictor.backbone, random("backbone")),
      head: savedHead(recipe, init, predictor) ?? randomHead(predictor, random("head")),
    }),
    ...(recipe.mask?.kind === "learned-static" && { static: randomStatic(llm, recipe.mask.block, random("static")) }),
  };
}

/** The head of the model that a run starts from, if it has one. @throws {OptionError} if the recipe's is of another shape */
function savedHead({ name }: Recipe, init: SavedModel | undefined, predictor: PredictorConfig): Weights | undefined {
  const head = init?.predictor?.head;
  if (!head) return undefined;
  for (const [tensor, shape] of headShapes(predictor)) {
    const got = head.get(tensor)?.shape;
    if (!isDeepStrictEqual(got, shape)) {
      throw new OptionError(
        `recipe "${name}": wanted a predictor's head with "${tensor}" [${got?.join(", ") ?? "absent"}] as in the model that "init" names, got [${shape.join(", ")}].`,
      );
    }
  }
  if (head.has("importance") && !predictor.importance) {
    throw new OptionError(
      `recipe "${name}": wanted "predictor.importance": true as in the model that "init" names, got false.`,
    );
  }
  return head;
}

/** The parts that a stage sees. Pre-training the predictor is training its backbone as a language model of its own. */
export function partsOf(parts: Parts, recipe: Recipe, stage: Stage): Parts {
  return trainsBackbone(recipe, stage) ? { llm: parts.backbone! } : parts;
}

function trainsBackbone({ predictor }: Recipe, { kind, train }: Stage): boolean {
  return kind === "pretrain" && predictor !== undefined && train === "predictor";
}

export interface PreparedStage {
  config: StageConfig;
  stream: BatchStream;
  /** Examples left out as longer than `sequenceLength`, or the context. */
  numTooLong: number;
  /** For a warm start: what was found in the LLM's activations. */
  clusters?: Omit<ClusterRow, "stage" | "step">;
  /** For a warm start: start values of parameters, to be set where the stage begins. */
  begin?(): void;
}

/** Reads a stage's data and builds its configuration. `parts` are as the stage finds them, or in its middle. */
export async function prepareStage(
  file: RecipeFile,
  stage: Stage,
  format: PromptFormat,
  parts: Parts,
  session: SessionOptions,
): Promise<PreparedStage> {
  const { recipe, pathOf } = file;
  const { tokenizer } = format;
  const { kind, tokensPerBatch } = stage;
  const sources = stage.data.map((source) => ({ ...source, path: pathOf(source.path) }));
  const instructions = stage.instructions && pathOf(stage.instructions);
  const seed = `${recipe.seed}/${stage.name}`;
  const step = stepConfig(recipe, stage, tokenizer.vocabSize);

  let [stream, domains, numTooLong]: [BatchStream | undefined, readonly string[], number] = [undefined, [], 0];
  let warmStart: WarmStart | undefined;
  if (kind === "sft" || kind === "warm-start") {
    const questions = await readQuestions(sources, instructions);
    let data = encodeQuestions(stage.shots ? withExamples(questions, stage.shots, seed) : questions, format, {
      predictorInput: step.source === "predictor" ? recipe.predictor!.input : undefined,
      maxTokens: stage.sequenceLength || recipe.llm.contextLength,
    });
    if (kind === "warm-start") {
      data = sampleQuestions(data, stage.examples, seed);
      warmStart = await withDense(step.llm, parts, session, (evaluator) =>
        prepareWarmStart(data, evaluator, { ...stage, seed, predictor: step.predictor!, tFfn: step.softTopK!.tFfn }),
      );
    }
    stream =
      stage.kind === "sft" && stage.sequenceLength
        ? new ConversationStream(data, {
            seed,
            tokensPerBatch,
            sequenceLength: stage.sequenceLength,
            laterTurns: stage.laterTurns,
            twins: stage.contrast !== undefined,
          })
        : new SftStream(data, { seed, tokensPerBatch });
    ({ domains, numTooLong } = data);
  } else {
    const data = await encodeDocuments(readDocuments(sources, instructions), tokenizer);
    const chunks = kind === "cpt" ? stage.chunks : undefined;
    stream = new TextStream(data, { seed, tokensPerBatch, sequenceLength: stage.sequenceLength, chunks });
    ({ domains } = data);
  }
  const learns = (part: "llm" | "predictor") => stage.train === part || stage.train === "both";
  const onBackbone = trainsBackbone(recipe, stage);
  const { beta1, beta2, weightDecay, clipNorm, warmupSteps, minLearningRateShare, learningRate: rate } = stage;
  return {
    config: {
      name: stage.name,
      step,
      chunks: kind === "cpt" ? stage.chunks : 1,
      steps: stage.steps,
      accumulate: stage.accumulate,
      trains: onBackbone ? { llm: true, predictor: false } : { llm: learns("llm"), predictor: learns("predictor") },
      optimizer: { beta1, beta2, weightDecay, clipNorm, epsilon: ADAM_EPSILON },
      schedule: {
        llm: (onBackbone ? rate.predictor : rate.llm) ?? 0,
        predictor: rate.predictor ?? 0,
        downShare: rate.downShare,
        warmupSteps,
        minShare: minLearningRateShare,
      },
      predictorInput: recipe.predictor?.input ?? "prompt",
      centred: recipe.predictor?.centred ?? true,
      targets: warmStart,
      domains,
      domainMasks: step.source === "given" ? domainMasks(recipe, domains) : undefined,
      evaluation: stage.evaluate && {
        every: stage.evaluate.every,
        examples: await heldOutExamples(
          pathOf(stage.evaluate.path),
          format,
          recipe.llm.contextLength,
          stage.evaluate.examples,
        ),
      },
    },
    stream,
    numTooLong,
    ...(warmStart?.kind === "clusters" && {
      clusters: {
        kind: "clusters",
        examples: warmStart.clusterOf.size,
        clusters: warmStart.numClusters,
        purity: warmStart.purity,
      },
      begin: () => parts.head!.get("codebook.weight")!.data.set(warmStart.codebook),
    }),
  };
}

/** What `use` finds out with the LLM as it is, dense. */
async function withDense<T>(
  llm: ModelConfig,
  parts: Parts,
  session: SessionOptions,
  use: (evaluator: Evaluator) => Promise<T>,
): Promise<T> {
  const parameters = Object.fromEntries([...joinParts({ llm: parts.llm! })].map(([name, { data }]) => [name, data]));
  const evaluator = new Evaluator({ llm, parameters }, session);
  try {
    return await use(evaluator);
  } finally {
    await evaluator.release();
  }
}

function stepConfig(recipe: Recipe, stage: Stage, vocabSize: number): StepConfig {
  const predictor = predictorConfig(recipe, vocabSize);
  if (trainsBackbone(recipe, stage)) return { llm: predictor!.backbone, source: "none" };
  const llm = llmConfig(recipe, vocabSize);
  const { mask } = recipe;
  const source: MaskSource =
    !mask || (mask.kind === "predictor" && stage.kind === "pretrain")
      ? "none"
      : mask.kind === "random-per-domain"
        ? "given"
        : mask.kind === "learned-static"
          ? "static"
          : mask.kind;
  const softTopK = mask && { tFfn: mask.tFfn, epsilon: "epsilon" in mask ? mask.epsilon : 1 }; // hard masks have no ε
  const distil = stage.kind === "sft" ? stage.distil : undefined;
  const contrast = stage.kind === "sft" ? stage.contrast : undefined;
  return { llm, source, softTopK, block: mask?.block, distil, contrast, ...(source === "predictor" && { predictor }) };
}

/** One fixed random hard mask per domain: a control that knows the domain's label. */
export function domainMasks({ llm, mask, seed }: Recipe, domains: readonly string[]): Mask[] {
  const shape = { numLayers: llm.numLayers, dFfn: llm.ffnWidth, tFfn: mask!.tFfn, block: mask!.block };
  return domains.map((domain) => randomMask(shape, seed, domain));
}
