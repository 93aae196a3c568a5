/**
 * How far pruned models are from the dense one that they come from: forward KL and agreement of the most likely token over the answers of held-out prompts, kind by kind, under each
 * prompt's own mask and its controls.
 *
 *     npx tsx experiments/smollm2/evaluate.ts DENSE [MODEL…] [--sources griffin,…] [--keep 0.5,0.75] [--prompts 20] [--states runs/smollm2/states] [--threads 2] [--matrix] [--out FILE]
 *
 * DENSE and MODELs are checkpoints or runs; a model without a predictor is measured dense. `--sources` are masks of DENSE that need no training, each a model of the result: those of glass and text are of
 * all kinds' training rows. Masks are hard. Controls, where there is more than one mask: `foreign`, the mask of a prompt of another kind;
 * `generic`, one mask for all from the same predictor's scores; `dense`, every channel. With `--matrix` also the prompts of every kind under the masks of every other, which takes three times as long, and how
 * much the masks overlap. Last line of stdout: one JSON document, `Evaluation` in `results.ts`.
 */

import { writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { SOURCE_NAMES } from "../../src/answer/sourceNames.ts";
import { keptChannels } from "../../src/bundle/budget.ts";
import { OptionError } from "../../src/errors.ts";
import { openModel } from "../../src/eval/load.ts";
import { foreignPartners, meanScores } from "../../src/mask/baselines.ts";
import { type Mask, maskFromScores } from "../../src/mask/mask.ts";
import { maskDiagnostics } from "../../src/mask/overlap.ts";
import type { ModelConfig } from "../../src/model/config.ts";
import { headConfig } from "../../src/model/predictorConfig.ts";
import { DivergenceMeter } from "../../src/net/divergenceMeter.ts";
import { Evaluator } from "../../src/net/evaluator.ts";
import { parameterArrays } from "../../src/net/parameters.ts";
import { readJsonLines } from "../../src/text/jsonl.ts";
import { composePrompt } from "../../src/text/prompt.ts";
import { loadModel, savedFormat } from "../../src/train/checkpoint.ts";
import { type HeldOutExample, heldOutExamples, taughtSequences } from "../../src/train/heldOut.ts";
import { Teacher } from "../../src/train/teacher.ts";
import { markdownTable } from "../report/markdown.ts";
import { kindMatrix } from "./kindMatrix.ts";
import type { Evaluation, Scores } from "./results.ts";
import { sourceMasks } from "./sourceMasks.ts";

const MAX_TOKENS = 256;
/** Of each kind, in the text of sources that take one: some 4,000 tokens, the most that they read. */
const ROWS_OF_TEXT = 4;
const data = join(import.meta.dirname, "data");
const KINDS: Readonly<Record<string, string>> = {
  plain: "own-heldout.jsonl.gz",
  ...Object.fromEntries(
    ["rules", "sql", "math", "python", "roleplay", "tools", "stories", "code"].map((kind) => [
      kind,
      `heldout/${kind}.jsonl`,
    ]),
  ),
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    keep: { type: "string", default: "0.5,0.75" },
    prompts: { type: "string", default: "20" },
    states: { type: "string", default: "runs/smollm2/states" },
    sources: { type: "string" },
    cache: { type: "string", default: "runs/smollm2/scores" },
    threads: { type: "string", default: "2" },
    matrix: { type: "boolean", default: false },
    out: { type: "string" },
  },
});
const [densePath, ...modelPaths] = positionals;
if (densePath === undefined || (modelPaths.length === 0 && values.sources === undefined))
  throw new OptionError("evaluate.ts: wanted the dense checkpoint and at least one model. See the head of the file.");
const keeps = values.keep.split(",").map(Number);
const session = { threads: Number(values.threads), spinning: false };

const dense = await loadModel(densePath);
const format = savedFormat(dense, densePath);
const examples: HeldOutExample[] = [];
const kindOf: string[] = [];
for (const [kind, file] of Object.entries(KINDS)) {
  const all = await heldOutExamples(join(data, file), format, MAX_TOKENS);
  const own = kind === "plain" ? all.filter(({ domain }) => domain === "plain") : all;
  for (const example of own.slice(0, Number(values.prompts))) {
    examples.push(example);
    kindOf.push(kind);
  }
}

const kinds = [...new Set(kindOf)];

await using teacher = new Teacher(dense.llm, examples, {
  ...{ folder: values.states, sequenceLength: MAX_TOKENS, session },
});
const sequences = await taughtSequences(examples, teacher);

const rows: Evaluation["rows"] = [];
const matrices: NonNullable<Evaluation["matrices"]> = [];

const add = (model: string, mask: Evaluation["rows"][number]["mask"], keep: number, scores: Scores) => {
  rows.push({ model, mask, keep, ...scores });
  const { kl, agreement } = scores;
  console.error(`${model} ${mask} ${keep}: KL ${kl.toFixed(3)}, agreement ${agreement.toFixed(3)}`);
};

/** Of the prompts under their masks; absent: every channel. */
async function measure(meter: DivergenceMeter, masks?: readonly Mask[]): Promise<Scores> {
  const measured = await meter.measure(sequences, masks);
  const byKind: Scores["byKind"] = {};
  const byPrompt: NonNullable<Scores["byPrompt"]> = {};
  for (const kind of kinds) {
    const own = measured.filter((_, i) => kindOf[i] === kind);
    byPrompt[kind] = own.map(({ kl, positions }) => [Number(kl.toFixed(4)), positions]);
    const sum = (f: (one: (typeof own)[number]) => number) => own.reduce((total, one) => total + f(one), 0);
    const positions = sum((one) => one.positions);
    byKind[kind] = { kl: sum((one) => one.kl) / positions, agreement: sum((one) => one.agreed) / positions };
  }
  const mean = (key: "kl" | "agreement") =>
    Object.values(byKind).reduce((total, one) => total + one[key], 0) / Object.keys(byKind).length;
  return { kl: mean("kl"), agreement: mean("agreement"), byKind, byPrompt };
}

const meterOf = (config: ModelConfig, parameters: Record<string, Float32Array>) =>
  new DivergenceMeter(config, parameters, { ...teacher.head, weight: teacher.headWeight }, session);

if (values.sources !== undefined) {
  const names = values.sources.split(",").map((name) => z.enum(SOURCE_NAMES).parse(name));
  const text = await trainedText();
  await using opened = await openModel(densePath, session);
  const { config, weights } = dense.llm;
  const meter = meterOf(config, parameterArrays({ llm: weights }));
  const prompts = examples.map(({ prompt }) => prompt);
  for (const source of names)
    for (const keep of keeps) {
      const choice = source === "glass" || source === "text" ? { source, text } : { source };
      const how = { tFfn: keptChannels(keep, config.ffnWidth), cache: values.cache, threads: session.threads };
      const masks = await sourceMasks(opened.model, prompts, choice, how);
      add(source, "own", keep, await measure(meter, masks));
    }
  await meter.release();
}

for (const path of modelPaths) {
  const model = await loadModel(path);
  const { config } = model.llm;
  const parts = {
    llm: model.llm.weights,
    ...(model.predictor && { predictor: { backbone: model.predictor.backbone.weights, head: model.predictor.head } }),
  };
  const parameters = parameterArrays(parts);
  const meter = meterOf(config, parameters);
  const name = basename(resolve(path));
  add(name, "dense", 1, await measure(meter));
  if (model.predictor) {
    const { backbone, head } = model.predictor;
    const shape = headConfig(path, new Map([...head].map(([name, { shape }]) => [name, shape])), {
      featureWidth: head.get("feature.mean")!.shape[0]!,
      numLayers: config.numLayers,
      ffnWidth: config.ffnWidth,
    });
    const { numLayers, ffnWidth: dFfn } = config;
    const pooling = model.card.predictorPooling ?? "last";
    const predictor = { backbone: backbone.config, pooling, numLayers, ffnWidth: dFfn, ...shape };
    const evaluator = new Evaluator(
      { llm: config, predictor, softTopK: { tFfn: model.card.tFfn!, epsilon: model.card.epsilon! }, parameters },
      session,
    );
    const scores = (await evaluator.predict(examples.map(({ predictorPrompt }) => predictorPrompt))).map(
      (one) => one.scores,
    );
    await evaluator.release();
    for (const keep of keeps) {
      const tFfn = Math.round((keep * dFfn) / shape.block) * shape.block;
      const own = scores.map((z) => maskFromScores(z, { dFfn, tFfn }));
      const ofPartners = (partners: readonly number[]) =>
        measure(
          meter,
          partners.map((partner) => own[partner]!),
        );
      const underOwn = await measure(meter, own);
      add(name, "own", keep, underOwn);
      if (shape.rank === 1) continue; // one mask: its own controls
      add(name, "foreign", keep, await ofPartners(foreignPartners(kindOf)));
      const generic = maskFromScores(meanScores(scores), { dFfn, tFfn });
      const underGeneric = await measure(
        meter,
        own.map(() => generic),
      );
      add(name, "generic", keep, underGeneric);
      if (!values.matrix) continue;
      const { chance, overlapWithin, overlapAcross } = maskDiagnostics(own, kindOf);
      const kl = await kindMatrix(kindOf, underOwn.byKind, async (partners) => (await ofPartners(partners)).byKind);
      matrices.push({ model: name, keep, kinds, kl, chance, overlapWithin, overlapAcross });
    }
  }
  await meter.release();
}

const lines = markdownTable(
  ["model", "mask", "keep", "KL", "agreement", ...kinds],
  rows.map(({ model, mask, keep, kl, agreement, byKind }) => {
    const numbers = [kl, agreement, ...kinds.map((kind) => byKind[kind]!.kl)];
    return [model, mask, String(keep), ...numbers.map((number) => number.toFixed(3))];
  }),
  ["mask"],
);
console.log(lines.join("\n"));
const evaluation: Evaluation = {
  dense: densePath,
  prompts: examples.length,
  rows,
  ...(matrices.length > 0 && { matrices }),
};
const document = JSON.stringify(evaluation);
if (values.out) writeFileSync(values.out, `${document}\n`);
console.log(document);

/** The first training rows of every kind, as they are read. */
async function trainedText(): Promise<string> {
  const row = z.object({ instruction: z.string(), input: z.string().optional(), output: z.string().optional() });
  const texts: string[] = [];
  for (const kind of kinds) {
    let count = 0;
    for await (const { row: own } of readJsonLines(join(data, `train/${kind}.jsonl.gz`), row)) {
      if (count++ === ROWS_OF_TEXT) break;
      texts.push([composePrompt(own.instruction, own.input), own.output].filter((part) => part).join("\n"));
    }
  }
  return texts.join("\n\n");
}
