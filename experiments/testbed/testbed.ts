/**
 * A quick test bed for ideas about masks, before real text: how many facts a pruned model can hold. Each variant is a recipe that
 * `trainRecipe` trains; what is shown is what its log says.
 *
 *     npx tsx experiments/testbed/testbed.ts [--only NAME,NAME] [--steps N] [--seed N] [--threads 1] [--out FILE.json]
 *
 * Regime: 64 random substitution tables over 64 symbols (`testbed/facts.ts`), asked in wordings that were not trained; decoder of 2
 * layers × width 32, d_ffn 256, of which 16 channels are kept; predictor of 1 layer × width 32, not pre-trained. Batches of 256
 * facts, balanced over tables. A full run of the default steps writes testbed.json and .md beside this file; any other only with --out.
 * Everything is kept in runs/testbed and a finished run is not trained again, unless its recipe or its data change; remove the folder
 * when the code changes. Last line of stdout: one JSON document.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import { basename, dirname, join } from "node:path";
import { parseArgs } from "node:util";
import * as ort from "onnxruntime-node";
import { DivergenceError, OptionError } from "../../src/errors.ts";
import { type RecipeFile, readRecipe } from "../../src/train/recipe/read.ts";
import type { Recipe } from "../../src/train/recipe/schema.ts";
import { trainRecipe } from "../../src/train/run.ts";
import { type EvaluationRow, type MetricsRow, readRunLog } from "../../src/train/runLog.ts";
import { makeFacts, writeFacts } from "./facts.ts";
import { runOf, type Settings, type Variant, variants } from "./variants.ts";

const DEFAULT_STEPS = 1200;
const { values } = parseArgs({
  options: {
    only: { type: "string" },
    steps: { type: "string", default: String(DEFAULT_STEPS) },
    seed: { type: "string", default: "1" },
    threads: { type: "string", default: "1" },
    out: { type: "string" },
  },
});
const settings: Settings = {
  seed: integer("seed", values.seed, 0),
  steps: integer("steps", values.steps, 1),
  tables: 64,
  synonyms: 3,
  symbols: 64,
};
const threads = integer("threads", values.threads, 1);
const isFull = values.only === undefined && settings.steps === DEFAULT_STEPS && settings.seed === 1;
const out = values.out ?? (isFull ? join(import.meta.dirname, "testbed.json") : undefined);

const all = variants(settings);
const only = values.only?.split(",") ?? all.map(({ name }) => name);
const unknown = only.find((name) => !all.some((variant) => variant.name === name));
if (unknown !== undefined) {
  throw new OptionError(`--only: wanted names of ${all.map(({ name }) => name).join(", ")}, got "${unknown}".`);
}

function integer(name: string, text: string, min: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min)
    throw new OptionError(`--${name}: wanted an integer of at least ${min}, got "${text}".`);
  return value;
}

/** Where the data, the recipes and the runs of this seed are. */
const folder = join(import.meta.dirname, "../../runs/testbed", `seed-${settings.seed}`);
const dataFolder = join(folder, "data");
writeFacts(settings, makeFacts(settings), dataFolder);
const dataHash = hash(readdirSync(dataFolder).map((name) => readFileSync(join(dataFolder, name), "utf8")));

function hash(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 8);
}

/** Folder of the run of a recipe; the same for the same recipe and data. */
function runDir(recipe: Recipe): string {
  return join(folder, `${recipe.name}-${hash([recipe, dataHash])}`);
}

/** Writes all recipes, so that each finds what it extends. @returns them by name */
function writeRecipes(): Map<string, RecipeFile> {
  const files = new Map<string, RecipeFile>();
  for (const { name, from, patch } of all) {
    const path = join(folder, `${name}.json`);
    let recipe = JSON.stringify({ ...(from !== undefined && { extends: `${from}.json` }), name, ...patch }, null, 2);
    for (const [other, file] of files) recipe = recipe.replaceAll(runOf(other), basename(runDir(file.recipe)));
    writeFileSync(path, `${recipe}\n`);
    files.set(name, readRecipe(path));
  }
  return files;
}

/** @returns the run's log; up to where it diverged, if it did */
async function trained(file: RecipeFile): Promise<{ log: MetricsRow[]; error?: string }> {
  const { name } = file.recipe;
  const dir = runDir(file.recipe);
  const logPath = join(dir, "metrics.jsonl");
  const start = performance.now();
  try {
    for await (const event of trainRecipe(file, { runDir: dir, threads, spinning: false })) {
      if (event.kind !== "row" || event.row.kind === "train" || event.row.kind === "masks") continue;
      const { row } = event;
      const what =
        row.kind === "clusters" ? `purity ${percent(row.purity)}` : row.kind === "evaluation" ? exactWords(row) : "";
      console.error(`${name}: ${((performance.now() - start) / 1000).toFixed(0)} s, ${what}`);
    }
    return { log: readRunLog(logPath) };
  } catch (error) {
    if (!(error instanceof DivergenceError)) throw error;
    console.error(`${name}: ${error.message}`);
    return { log: readRunLog(logPath), error: error.message };
  }
}

function exactWords({ step, exactMatch }: EvaluationRow): string {
  return `step ${step}, exact match: ${Object.entries(exactMatch)
    .map(([mask, share]) => `${mask} ${percent(share)}`)
    .join(" · ")}`;
}

/** What a log says of its last evaluation, as shares. */
function resultOf({ name, change, from }: Variant, recipe: Recipe, log: readonly MetricsRow[], error?: string) {
  const steps = log.filter((row) => row.kind === "train");
  const evaluations = log.filter((row) => row.kind === "evaluation");
  const input = recipe.predictor?.input === "instruction" ? "instruction" : "prompt";
  /** The mask that the run was trained under. */
  const own = recipe.predictor ? (input === "instruction" ? "perTask" : "perInput") : recipe.mask ? "own" : "dense";
  const last = evaluations.at(-1);
  const masks = log.findLast((row) => row.kind === "masks" && row.predictorInput === input);
  const { overlapWithin, overlapAcross, everUsed } = masks?.kind === "masks" ? masks : {};
  const clusters = log.findLast((row) => row.kind === "clusters");
  const tail = steps.filter(({ stage }) => stage === recipe.stages.at(-1)!.name).slice(-100);
  return {
    name,
    from,
    change,
    exactMatch: last?.exactMatch[own],
    foreign: last?.exactMatch.foreign,
    generic: last?.exactMatch.generic,
    dense: last?.exactMatch.dense,
    byMask: last?.exactMatch,
    overlapSame: mean(overlapWithin),
    overlapOther: mean(overlapAcross),
    everUsed: mean(everUsed),
    purity: clusters?.kind === "clusters" ? clusters.purity : undefined,
    /** Nats per fact, held out and over the last 100 steps. A fact has two labels: the symbol, and the end of the answer, which costs nothing. */
    heldOutLoss: last && 2 * last.loss[own]!,
    trainingLoss: mean(tail.map(({ loss }) => 2 * loss)),
    curve: evaluations.map(({ step, exactMatch }) => ({ step, exactMatch: exactMatch[own] })),
    steps: steps.length,
    stepSeconds: Math.round(steps.reduce((sum, { ms }) => sum + ms, 0) / 1000),
    ...(error !== undefined && { error }),
  };
}

function mean(numbers: readonly (number | null)[] = []): number | undefined {
  const known = numbers.filter((value) => value !== null);
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0) / known.length;
}

function percent(share: number | undefined): string {
  return share === undefined ? "" : (100 * share).toFixed(1);
}

type Result = ReturnType<typeof resultOf>;

const share = (value: number | undefined) => value?.toFixed(3) ?? "";
const COLUMNS: readonly (readonly [string, (result: Result) => string])[] = [
  ["variant", ({ name }) => name],
  ["change", ({ change, from, error }) => `${from ? `${from}: ` : ""}${change}${error ? " (**diverged**)" : ""}`],
  ["exact %", (result) => percent(result.exactMatch)],
  ["foreign", (result) => percent(result.foreign)],
  ["generic", (result) => percent(result.generic)],
  ["overlap same", (result) => share(result.overlapSame)],
  ["other", (result) => share(result.overlapOther)],
  ["used %", (result) => percent(result.everUsed)],
  ["purity %", (result) => percent(result.purity)],
  ["nats", (result) => result.heldOutLoss?.toFixed(2) ?? ""],
  ["train nats", (result) => result.trainingLoss?.toFixed(2) ?? ""],
  ["s", ({ stepSeconds }) => String(stepSeconds)],
];

function markdown(results: readonly Result[]): string {
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rule = COLUMNS.map((_, i) => (i < 2 ? "---" : "---:"));
  const rows = results.map((result) => row(COLUMNS.map(([, cell]) => cell(result))));
  return [row(COLUMNS.map(([title]) => title)), row(rule), ...rows].join("\n");
}

const files = writeRecipes();
const needed = new Set(only);
for (const { name } of all.toReversed()) {
  const init = needed.has(name) ? files.get(name)!.recipe.init?.run : undefined;
  for (const [other, { recipe }] of files) if (basename(runDir(recipe)) === init) needed.add(other);
}
const results: Result[] = [];
for (const variant of all) {
  if (!needed.has(variant.name)) continue;
  const file = files.get(variant.name)!;
  const { log, error } = await trained(file);
  results.push(resultOf(variant, file.recipe, log, error));
}

const report = {
  date: new Date().toISOString().slice(0, 10),
  command: ["npx tsx experiments/testbed/testbed.ts", ...process.argv.slice(2)].join(" "),
  machine: `${os.cpus().length} cores, ${os.cpus()[0]!.model}`,
  onnxruntime: ort.env.versions.common,
  settings,
  threads,
  results,
};
const table = markdown(results);
console.log(table);
if (out !== undefined) {
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(out, `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(out.replace(/(\.json)?$/, ".md"), `${table}\n`);
}
console.log(JSON.stringify(report));
