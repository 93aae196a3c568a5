/** What a run begins with: its tokenizer and the parameters of every part, from the model that `init` names or from the seed. */
import { copyFileSync, writeFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { OptionError } from "../errors.ts";
import { makeFile } from "../files.ts";
import type { Model } from "../formats/huggingface.ts";
import { readJson } from "../json.ts";
import { boundaryOf } from "../manifest.ts";
import { firstLayers } from "../model/backbone.ts";
import type { ModelConfig, Weights } from "../model/config.ts";
import { headShapes, type PredictorConfig } from "../model/predictorConfig.ts";
import { type Parts, randomDecoder, randomHead, randomStatic } from "../net/parameters.ts";
import { Random } from "../random.ts";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { readTokenizerFile } from "../text/tokenizerFile.ts";
import { trainTokenizer } from "../text/trainTokenizer.ts";
import { loadLatestCheckpoint, loadModel, type SavedModel, savedPredictor } from "./checkpoint.ts";
import { readDocuments } from "./data.ts";
import type { RecipeFile } from "./recipe/read.ts";
import { llmConfig, predictorConfig, type Recipe } from "./recipe/schema.ts";

/** What a recipe or its predictor starts from: a checkpoint, or a run that has come to its end. */
export async function loadInit(path: string, key: "init" | "predictor.init" = "init"): Promise<SavedModel> {
  const run = await loadLatestCheckpoint(path);
  if (!run) return loadModel(path);
  const { stages } = run.recipe as { stages: unknown[] };
  if (run.stage < stages.length)
    throw new OptionError(
      `recipe "${key}": wanted a run that has come to its end, got "${path}", which is at step ${run.step}. Train it to the end, or name one of its checkpoints.`,
    );
  return run;
}

/**
 * The LM that the predictor's backbone starts as, if the recipe names one.
 *
 * @param tokenizer the run's
 * @throws {OptionError} if the LM has another
 */
export async function loadBackbone({ recipe, pathOf }: RecipeFile, tokenizer: string): Promise<Model | undefined> {
  if (!recipe.predictor?.init) return undefined;
  const path = pathOf(recipe.predictor.init.run);
  const saved = await loadInit(path, "predictor.init");
  const { vocabSize } = saved.llm.config;
  const { decoder: _, ...own } = readTokenizerFile(
    JSON.parse(new TextDecoder().decode(saved.tokenizer)),
    path,
    vocabSize,
  );
  const { decoder: __, ...wanted } = readTokenizerFile(readJson(tokenizer), tokenizer, vocabSize);
  if (!isDeepStrictEqual(own, wanted))
    throw new OptionError(
      `recipe "${recipe.name}": wanted in "predictor.init" a model with the tokenizer of the LLM, got another's at "${path}". The predictor reads the same ids.`,
    );
  return saved.llm;
}

/** Puts a run's tokenizer at `path`: that of the model it goes on from, a copy of a file, or one trained from the corpus. */
export async function makeTokenizer(
  { recipe, pathOf }: RecipeFile,
  from: SavedModel | undefined,
  path: string,
): Promise<Tokenizer> {
  const { tokenizer } = recipe;
  if (from) makeFile(path, (partial) => writeFileSync(partial, from.tokenizer));
  else if (!tokenizer) throw new Error(`internal: recipe "${recipe.name}" has neither "init" nor "tokenizer"`);
  else if ("path" in tokenizer) {
    const source = pathOf(tokenizer.path);
    loadTokenizer(source); // an error names the user's file
    makeFile(path, (partial) => copyFileSync(source, partial));
  } else {
    const { vocabSize, data, instructions } = tokenizer;
    const documents = readDocuments(
      data.map((file) => ({ domain: "", path: pathOf(file) })),
      instructions && pathOf(instructions),
    );
    const texts = (async function* () {
      for await (const { text } of documents) yield text;
    })();
    await trainTokenizer({ texts, vocabSize, out: path });
  }
  return loadTokenizer(path, from && boundaryOf(from.card, from.llm.config));
}

/**
 * Parameters that a run begins with: from `init` where it has them, random from the recipe's seed otherwise.
 *
 * @param backbone what `predictor.init` names
 */
export function initialParts(
  recipe: Recipe,
  init: SavedModel | undefined,
  vocabSize: number,
  backbone?: Model | undefined,
): Parts {
  const random = (part: string) => new Random(`${recipe.seed}/init/${part}`);
  const llm = llmConfig(recipe, vocabSize);
  const predictor = predictorConfig(recipe, vocabSize);
  const from = (part: string, model: Model | undefined, config: ModelConfig, key = "init") => {
    if (model && !isDeepStrictEqual(model.config, config)) {
      throw new OptionError(
        `recipe "${recipe.name}": wanted in "${part}" the shape of the model that "${key}" names, ${JSON.stringify(model.config)}, got ${JSON.stringify(config)}.`,
      );
    }
    return model?.weights;
  };
  if (init?.predictor && !recipe.predictor && !recipe.mask)
    throw new OptionError(
      `recipe "${recipe.name}": wanted "predictor" and "mask", as the model that "init" names has masks, got neither: it would lose them. Add ${recipeOfMasks(init)}.`,
    );
  if (init?.predictor && backbone)
    throw new OptionError(
      `recipe "${recipe.name}": wanted no "predictor.init", as the model that "init" names has a predictor, got one. Remove either.`,
    );
  const llmWeights = from("llm", init?.llm, llm) ?? randomDecoder(llm, random("llm"));
  const makeBackbone = (config: ModelConfig) =>
    recipe.predictor && "llmLayers" in recipe.predictor.backbone
      ? firstLayers(config, llmWeights)
      : randomDecoder(config, random("backbone"));
  return {
    llm: llmWeights,
    ...(predictor && {
      predictor: {
        backbone:
          from("predictor.backbone", init?.predictor?.backbone, predictor.backbone) ??
          from("predictor.backbone", backbone, predictor.backbone, "predictor.init") ??
          makeBackbone(predictor.backbone),
        head: savedHead(recipe, init, predictor) ?? randomHead(predictor, random("head")),
      },
    }),
    ...(recipe.mask?.kind === "learned-static" && { static: randomStatic(llm, recipe.mask.block, random("static")) }),
  };
}

/** What a recipe says to go on from a model with the masks that it has, as lines of JSON without the braces around them. @param model with a predictor */
export function recipeOfMasks(model: SavedModel): string {
  const { backbone, pooling, head, rank, block, importance } = savedPredictor(model, "init")!;
  const own = backbone.numLayers === 0 ? { llmLayers: 0 } : "as it was trained";
  const lines = {
    predictor: { backbone: own, pooling, head, rank, ...(importance && { importance }) },
    mask: { kind: "predictor", tFfn: model.card.tFfn, block },
  };
  return Object.entries(lines)
    .map(([key, value]) => `"${key}": ${JSON.stringify(value)}`)
    .join(", ");
}

/** The head of the model that a run starts from, if it has one. @throws {OptionError} if the recipe's is of another shape */
function savedHead({ name }: Recipe, init: SavedModel | undefined, predictor: PredictorConfig): Weights | undefined {
  const head = init?.predictor?.head;
  if (!head) return undefined;
  const { predictorPooling } = init.card;
  if (predictorPooling !== predictor.pooling)
    throw new OptionError(
      `recipe "${name}": wanted "predictor.pooling": "${predictorPooling}" as in the model that "init" names, got "${predictor.pooling}".`,
    );
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
