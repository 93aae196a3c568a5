import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { OptionError } from "../errors.ts";
import { DEFAULT_PROMPT_TEMPLATE, PromptFormat } from "../text/prompt.ts";
import { parseRecipe, type RecipeFile, readRecipe } from "./recipe/read.ts";
import type { Recipe } from "./recipe/schema.ts";
import { initialParts, makeTokenizer } from "./runStart.ts";
import { stageMasks } from "./stageMasks.ts";
import { prepareStage } from "./stages.ts";

const tiny = readRecipe(fileURLToPath(new URL("../../test/fixtures/tiny/recipe.json", import.meta.url)));
const { predictor, ...withoutPredictor } = tiny.recipe;
const stage = (name: string) => tiny.recipe.stages.find((own) => own.name === name)!;
const [text, sft] = [stage("dense"), stage("sft")];
/** One stage in which the LLM alone learns, under the masks of a domain each. */
const perDomain: Recipe = parseRecipe(
  {
    ...withoutPredictor,
    mask: { kind: "random-per-domain", tFfn: 32 },
    stages: [{ ...sft, train: "llm", learningRate: { llm: 0.01 } }],
  },
  "test",
);

test.each<[string, string, Recipe, Recipe["stages"][number]]>([
  ["of a predictor in SFT", "predictor", tiny.recipe, sft],
  ["dense while the LLM of a recipe with a predictor is pre-trained", "none", tiny.recipe, text],
  ["dense while the predictor's backbone is", "none", tiny.recipe, stage("backbone")],
  ["given, of domains", "given", perDomain, text],
  [
    "one that is learned",
    "learned-static",
    { ...withoutPredictor, mask: { kind: "learned-static", tFfn: 32, epsilon: 0.3, block: 1 } },
    text,
  ],
])("masks are %s", (_, kind, recipe, own) => {
  const masks = stageMasks(recipe, own, 320, ["a", "b"]);
  expect(masks.kind).toBe(kind);
  if (masks.kind === "given") expect(masks.domains.map(({ domain }) => domain)).toEqual(["a", "b"]);
});

test("what the predictor has no room for is left out of a stage, and counted", async () => {
  const backbone = { ...tiny.recipe.predictor!.backbone, contextLength: 14 };
  const recipe = parseRecipe({ ...tiny.recipe, predictor: { ...predictor, backbone } }, "test");
  const numTooLong = async (own: Recipe) => {
    const file: RecipeFile = { ...tiny, recipe: own };
    const tokenizer = await makeTokenizer(file, undefined, join(temporaryFolder(), "tokenizer.json"));
    const format = new PromptFormat(tokenizer, DEFAULT_PROMPT_TEMPLATE);
    const parts = initialParts(own, undefined, tokenizer.vocabSize);
    return (await prepareStage(sft, { file, format, parts, session: {}, runDir: "" })).numTooLong;
  };
  expect(await numTooLong(tiny.recipe)).toBe(0);
  expect(await numTooLong(recipe)).toBeGreaterThan(0);
});

test("held-out questions of a domain that has no mask are refused before the stage begins", async () => {
  const file: RecipeFile = { ...tiny, recipe: perDomain };
  const tokenizer = await makeTokenizer(file, undefined, join(temporaryFolder(), "tokenizer.json"));
  const format = new PromptFormat(tokenizer, DEFAULT_PROMPT_TEMPLATE);
  const parts = initialParts(perDomain, undefined, tokenizer.vocabSize);
  const prepare = (own: Recipe["stages"][number]) =>
    prepareStage(own, { file, format, parts, session: {}, runDir: "" });
  const [own] = perDomain.stages;
  await expect(prepare(own!)).resolves.toMatchObject({ config: { kind: "next-token", chunks: 1 } });
  const untrained = { ...own!, data: [{ ...text.data[0]! }] }; // documents of one domain, "text"
  await expect(prepare({ ...untrained, kind: "pretrain", sequenceLength: 32 })).rejects.toThrow(OptionError);
});
