import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import type { ModelCard, SavedModel } from "./checkpoint.ts";
import { readRecipe } from "./recipe/read.ts";
import { llmConfig, predictorConfig, type Recipe } from "./recipe/schema.ts";
import { initialParts } from "./runStart.ts";

const V = 320;
const { recipe } = readRecipe(fileURLToPath(new URL("../../test/fixtures/tiny/recipe.json", import.meta.url)));
const withPredictor = (changes: Partial<NonNullable<Recipe["predictor"]>>): Recipe => ({
  ...recipe,
  predictor: { ...recipe.predictor!, ...changes },
});

/** What a run of the recipe would leave. */
function saved(recipe: Recipe): SavedModel {
  const { llm, predictor } = initialParts(recipe, undefined, V);
  return {
    card: { predictorPooling: recipe.predictor!.pooling } as ModelCard,
    tokenizer: new Uint8Array(),
    llm: { config: llmConfig(recipe, V), weights: llm },
    predictor: {
      backbone: { config: predictorConfig(recipe, V)!.backbone, weights: predictor!.backbone },
      head: predictor!.head,
    },
  };
}

describe("a run that starts from another", () => {
  test("takes its model and its predictor", () => {
    const init = saved({ ...recipe, seed: 8 });
    const parts = initialParts(recipe, init, V);
    expect(parts.llm).toBe(init.llm.weights);
    expect(parts.predictor!.backbone).toBe(init.predictor!.backbone.weights);
    expect(parts.predictor!.head).toBe(init.predictor!.head);
  });

  test.each([
    ["a rank", {}, { rank: 4 }, /"w1\.weight" \[8, 32\] as in the model that "init" names, got \[4, 32\]/],
    ["a kind of head", {}, { head: "codebook" }, /"router\.weight" \[absent\] as in the model that "init" names/],
    ["an importance term less", { importance: true }, {}, /"predictor\.importance": true as in the model that "init"/],
    ["an importance term more", {}, { importance: true }, /"importance" \[absent\] as in the model that "init" names/],
  ] as const)("does not go on with %s of its own", (_, before, now, message) => {
    expect(() => initialParts(withPredictor(now), saved(withPredictor(before)), V)).toThrow(message);
  });
});
