import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { randomModel, writeCheckpoint } from "../../test/support/models.ts";
import { OptionError } from "../errors.ts";
import type { ModelCard, SavedModel } from "./checkpoint.ts";
import { readRecipe } from "./recipe/read.ts";
import { llmConfig, predictorConfig, type Recipe } from "./recipe/schema.ts";
import { initialParts, loadBackbone } from "./runStart.ts";

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

  test("does not lose its masks for want of two keys, which the message has", () => {
    const init = saved(recipe);
    const { predictor: _, mask: __, ...dense } = recipe;
    expect(() => initialParts(dense as Recipe, init, V)).toThrow(
      /wanted "predictor" and "mask", .* got neither: it would lose them\. Add "predictor": \{"backbone":"as it was trained","pooling":"last","head":"linear","rank":8\}, "mask": \{"kind":"predictor",.*"block":1\}/,
    );
    const withImportance = saved(withPredictor({ importance: true }));
    expect(() => initialParts(dense as Recipe, withImportance, V)).toThrow(/"rank":8,"importance":true\}/);
    const other = { ...dense, mask: { kind: "learned-static", tFfn: 8, block: 1 } } as Recipe;
    expect(initialParts(other, init, V).predictor).toBe(undefined); // masks of another kind were asked for
  });

  test("does not go on with another pooling, nor with another LM for its predictor", () => {
    const init = saved(recipe);
    expect(() => initialParts(withPredictor({ pooling: "mean" }), init, V)).toThrow(
      /wanted "predictor\.pooling": "last" as in the model that "init" names, got "mean"/,
    );
    expect(() => initialParts(recipe, init, V, init.predictor!.backbone)).toThrow(
      /wanted no "predictor\.init", as the model that "init" names has a predictor/,
    );
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

describe("a predictor that starts from an LM", () => {
  const folder = mkdtempSync(join(tmpdir(), "run-start-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const file = (init: string) => ({
    recipe: withPredictor({ init: { run: init } }),
    pathOf: (path: string) => join(folder, path),
  });
  const lm = randomModel({ family: "qwen3", vocabSize: V }, 3);
  const tokenizerPath = join(folder, "tokenizer.json");

  test("takes its weights, and its shape into the recipe", async () => {
    await writeCheckpoint(join(folder, "lm"), lm);
    copyFileSync(join(folder, "lm/llm/tokenizer.json"), tokenizerPath);
    const backbone = await loadBackbone(file("lm"), tokenizerPath);
    expect(backbone!.config).toEqual(lm.config);
    writeFileSync(
      join(folder, "recipe.json"),
      JSON.stringify({ ...recipe, predictor: { init: { run: "lm" }, head: "codebook", rank: 3 } }),
    );
    const read = readRecipe(join(folder, "recipe.json")).recipe;
    const parts = initialParts(read, undefined, V, backbone);
    expect(parts.predictor!.backbone).toBe(backbone!.weights);
    expect(predictorConfig(read, V)!.backbone).toEqual(lm.config);
    expect(() => initialParts(withPredictor({}), undefined, V, backbone)).toThrow(
      /wanted in "predictor\.backbone" the shape of the model that "predictor\.init" names/,
    );
  });

  test("refuses one of another tokenizer, and one that is not there", async () => {
    await writeCheckpoint(join(folder, "other"), randomModel({ family: "llama", vocabSize: V + 1 }, 3));
    await expect(loadBackbone(file("other"), tokenizerPath)).rejects.toThrow(OptionError);
    await expect(loadBackbone(file("other"), tokenizerPath)).rejects.toThrow(
      /wanted in "predictor\.init" a model with the tokenizer of the LLM, got another's/,
    );
    const missing = { ...recipe, predictor: { init: { run: "none" } } };
    writeFileSync(join(folder, "missing.json"), JSON.stringify(missing));
    expect(() => readRecipe(join(folder, "missing.json"))).toThrow(
      /recipe "predictor\.init": wanted a run or a checkp/,
    );
  });
});
