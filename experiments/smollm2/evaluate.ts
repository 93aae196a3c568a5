/**
 * How far pruned models are from the dense one that they come from: forward KL and agreement of the most likely token over the answers of held-out prompts, kind by kind, under each
 * prompt's own mask and its controls.
 *
 *     npx tsx experiments/smollm2/evaluate.ts DENSE MODEL… [--keep 0.5,0.75] [--prompts 20] [--states runs/smollm2/states] [--threads 2] [--out FILE]
 *
 * DENSE and MODELs are checkpoints or runs; a model without a predictor is measured dense. Masks are hard. Controls, where there is more than one mask: `foreign`, the mask of a prompt of another kind;
 * `generic`, one mask for all from the same predictor's scores; `dense`, every channel. Last line of stdout: one JSON document.
 */

import { writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { OptionError } from "../../src/errors.ts";
import { boundaryOf } from "../../src/manifest.ts";
import { foreignPartners, meanScores } from "../../src/mask/baselines.ts";
import { type Mask, maskFromScores } from "../../src/mask/mask.ts";
import { headConfig } from "../../src/model/predictorConfig.ts";
import { DivergenceMeter, type TaughtSequence } from "../../src/net/divergenceMeter.ts";
import { Evaluator } from "../../src/net/evaluator.ts";
import { parameterArrays } from "../../src/net/parameters.ts";
import { createTokenizer } from "../../src/text/tokenizer.ts";
import { formatOf, loadModel, type SavedModel } from "../../src/train/checkpoint.ts";
import { type HeldOutExample, heldOutExamples } from "../../src/train/heldOut.ts";
import { Teacher } from "../../src/train/teacher.ts";

const MAX_TOKENS = 256;
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
    threads: { type: "string", default: "2" },
    out: { type: "string" },
  },
});
const [densePath, ...modelPaths] = positionals;
if (densePath === undefined || modelPaths.length === 0)
  throw new OptionError("evaluate.ts: wanted the dense checkpoint and at least one model. See the head of the file.");
const keeps = values.keep.split(",").map(Number);
const session = { threads: Number(values.threads), spinning: false };

const dense = await loadModel(densePath);
const formatFor = ({ card, llm, tokenizer, chatTemplate }: SavedModel, where: string) =>
  formatOf(
    { card, chatTemplate },
    createTokenizer(JSON.parse(new TextDecoder().decode(tokenizer)), where, boundaryOf(card, llm.config)),
    where,
  );
const format = formatFor(dense, densePath);
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

await using teacher = new Teacher(
  dense.llm,
  examples.map(({ ids }) => ids),
  { folder: values.states, sequenceLength: MAX_TOKENS, session },
);
const Dt = teacher.head.width;
const sequences: TaughtSequence[] = [];
for (const [i, { ids, labels }] of examples.entries()) {
  const states = await teacher.states(Int32Array.of(i));
  sequences.push({
    ids,
    counts: Array.from(labels, (label) => label >= 0),
    states: states.subarray(0, ids.length * Dt),
  });
}

interface Scores {
  kl: number;
  agreement: number;
  byKind: Record<string, { kl: number; agreement: number }>;
}

const rows: ({ model: string; mask: string; keep: number } & Scores)[] = [];
for (const path of modelPaths) {
  const model = await loadModel(path);
  const { config } = model.llm;
  const parts = {
    llm: model.llm.weights,
    ...(model.predictor && { predictor: { backbone: model.predictor.backbone.weights, head: model.predictor.head } }),
  };
  const parameters = parameterArrays(parts);
  const meter = new DivergenceMeter(config, parameters, { ...teacher.head, weight: teacher.headWeight }, session);
  const measure = async (mask: string, keep: number, masks?: readonly Mask[]) => {
    const measured = await meter.measure(sequences, masks);
    const byKind: Scores["byKind"] = {};
    for (const kind of new Set(kindOf)) {
      const own = measured.filter((_, i) => kindOf[i] === kind);
      const sum = (f: (one: (typeof own)[number]) => number) => own.reduce((total, one) => total + f(one), 0);
      const positions = sum((one) => one.positions);
      byKind[kind] = { kl: sum((one) => one.kl) / positions, agreement: sum((one) => one.agreed) / positions };
    }
    const mean = (key: "kl" | "agreement") =>
      Object.values(byKind).reduce((total, one) => total + one[key], 0) / Object.keys(byKind).length;
    rows.push({ model: basename(resolve(path)), mask, keep, kl: mean("kl"), agreement: mean("agreement"), byKind });
    console.error(`${path} ${mask} ${keep}: KL ${mean("kl").toFixed(3)}, agreement ${mean("agreement").toFixed(3)}`);
  };
  await measure("dense", 1);
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
    const partners = foreignPartners(kindOf);
    for (const keep of keeps) {
      const tFfn = Math.round((keep * dFfn) / shape.block) * shape.block;
      const own = scores.map((z) => maskFromScores(z, { dFfn, tFfn }));
      const generic = maskFromScores(meanScores(scores), { dFfn, tFfn });
      await measure("own", keep, own);
      if (shape.rank === 1) continue; // one mask: its own controls
      await measure(
        "foreign",
        keep,
        partners.map((partner) => own[partner]!),
      );
      await measure(
        "generic",
        keep,
        own.map(() => generic),
      );
    }
  }
  await meter.release();
}

const kinds = Object.keys(KINDS);
console.log(`| model | mask | keep | KL | agreement | ${kinds.join(" | ")} |`);
console.log(`|---|---|---:|---:|---:|${kinds.map(() => "---:|").join("")}`);
for (const { model, mask, keep, kl, agreement, byKind } of rows) {
  const cells = kinds.map((kind) => byKind[kind]?.kl.toFixed(3) ?? "–");
  console.log(`| ${model} | ${mask} | ${keep} | ${kl.toFixed(3)} | ${agreement.toFixed(3)} | ${cells.join(" | ")} |`);
}
const document = JSON.stringify({ dense: densePath, prompts: examples.length, rows });
if (values.out) writeFileSync(values.out, `${document}\n`);
console.log(document);
