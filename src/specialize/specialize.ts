/**
 * A smaller model for one task, from a model and the task: prompts, answers, the channels that matter for them, training to say what the whole model says, and the
 * evidence. The parts are those of the other commands; here is their order, and what is kept of each so that the same call goes on where one was stopped.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { InstructionModel } from "../answer/instructionModel.ts";
import { keptChannels, MAX_LOSS } from "../bundle/budget.ts";
import { importModel } from "../bundle/importModel.ts";
import { packBundle } from "../bundle/packBundle.ts";
import { modelFolder } from "../bundle/pulledModels.ts";
import { openSubnetwork } from "../bundle/subnetworkCache.ts";
import { FileError, OptionError } from "../errors.ts";
import { exportSubnetwork } from "../export/export.ts";
import { ggufFileName } from "../export/exportManifest.ts";
import { verifyExport } from "../export/verify.ts";
import { checkNewFolder, isDiskFull } from "../files.ts";
import { readModelConfig } from "../formats/huggingface.ts";
import { blockLength } from "../formats/quantize.ts";
import { formatOfFolder, readManifest, writeManifest } from "../manifest.ts";
import { fullMask } from "../mask/mask.ts";
import { countParameters } from "../model/config.ts";
import { type Given, readNumbers } from "../options.ts";
import { version } from "../package.ts";
import { writeReport } from "../report/report.ts";
import { DEFAULT_PROMPT_TEMPLATE } from "../text/prompt.ts";
import { loadModel, saveModel } from "../train/checkpoint.ts";
import { heldOutExamples, measureDivergence } from "../train/heldOut.ts";
import { Teacher } from "../train/teacher.ts";
import { cutModel } from "./cut.ts";
import { draftPrompts } from "./drafts.ts";
import { type Healed, heal, healRecipe } from "./heal.ts";
import { JobFolder, type JobKey } from "./jobFolder.ts";
import { compareFiles } from "./quantized.ts";
import { compareModels, type SideBySide } from "./sideBySide.ts";
import type { CurvePoint, Distance, JobEstimate, Specialization, SpecializeEvent } from "./specialization.ts";
import { SPECIALIZE_OPTIONS } from "./specializeOptions.ts";
import { answerPrompts, leftOut, type TaskAnswers } from "./taskAnswers.ts";
import { taskCard } from "./taskCard.ts";
import { openDense, type RowShape, taskData } from "./taskData.ts";
import { checkCount, distinct, partHeldOut, readRows, readTaskPrompts, type TaskPrompt } from "./taskPrompts.ts";
import { told } from "./told.ts";
import { checkRoom, expectedShape, type JobPlan, tryOut } from "./trial.ts";

/** What {@link specialize} is asked. Of `prompts` and `examples` at most one; without, the model drafts inputs of the task. */
export interface SpecializeOptions extends Given<typeof SPECIALIZE_OPTIONS> {
  /** In words; also what is asked of inputs that have no instruction. */
  task?: string | undefined;
  /** File of prompts: JSON Lines of `{instruction?, input?}`, or plain text, one a line. */
  prompts?: string | undefined;
  /** File of prompts with right answers: JSON Lines of `{instruction?, input?, output}`. */
  examples?: string | undefined;
  /** Share of the FFN that stays. "auto": the smallest of a few whose short run is within `maxLoss`. Default: half. */
  keep?: number | "auto" | undefined;
  /** Of the prompts. Default: "unknown". */
  licence?: string | undefined;
  /** Of the model, where it does not say. */
  modelLicence?: string | undefined;
  /** Asked once there are drafts; unless it says yes, nothing more is done. Default: yes. */
  confirm?: ((drafts: readonly string[]) => Promise<boolean>) | undefined;
  /** Ends after the estimate. */
  dryRun?: boolean | undefined;
  /** Go on where memory or disk seem too small. */
  force?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/** Shares that "auto" tries, and the tokens of each run as a share of the long one's. */
const SHARES = [0.75, 0.5, 0.375, 0.25] as const;
const SHORT_RUN = 1 / 8;
/** Evaluations of the long run. */
const EVALUATIONS = 16;
const QUANTIZED = ["Q8_0", "Q4_0"] as const;

/**
 * Makes a smaller model for a task. All that it makes lies in `OUT.job` until the folder is whole; stopped, killed or out of room, the same call goes on.
 *
 * @param model bundle folder or id of a pulled model, checkpoint or run, Hugging Face folder, GGUF file
 * @param out must not exist; a bundle, with exports, card and report in it
 * @returns events; the work goes on as they are read. The last is the result, unless it was a dry run
 * @throws {OptionError} if options do not go together
 * @throws {InputError} if there are too few prompts, or the model answers too few of them
 * @throws {FileError} if a file is none of its kind, the job's folder is another job's, or the disk is full
 * @throws {MemoryError} if the machine has too little memory
 */
export async function* specialize(
  model: string,
  out: string,
  options: SpecializeOptions,
): AsyncGenerator<SpecializeEvent, void> {
  try {
    yield* work(model, out, options);
  } catch (cause) {
    if (!isDiskFull(cause)) throw cause;
    throw new FileError(
      jobPath(out),
      "wanted room on its disk, got no more. Make room; the same command goes on here.",
      {
        cause,
      },
    );
  }
}

const jobPath = (out: string) => `${resolve(out)}.job`;

async function* work(model: string, out: string, options: SpecializeOptions): AsyncGenerator<SpecializeEvent, void> {
  const { task, keep = 0.5, confirm, dryRun, force = false, signal, licence = "unknown", modelLicence } = options;
  const numbers = readNumbers("specialize", SPECIALIZE_OPTIONS, options);
  const { maxTokens, temperature, seed, threads, tokens } = numbers;
  checkOptions(options);
  checkNewFolder(out, "specialize");
  const source = existsSync(model) ? model : modelFolder(model);
  const file = options.prompts ?? options.examples;
  const given = file === undefined ? undefined : distinct(await readTaskPrompts(file, task, file === options.examples));
  if (given) checkCount(given, file!);

  const asked = { task, keep, licence, ...numbers, threads: undefined, modelLicence };
  const key: JobKey = {
    model: identityOf(source),
    ...(file !== undefined && { [file === options.examples ? "examples" : "prompts"]: hashOf(file) }),
    ...(JSON.parse(JSON.stringify(asked)) as JobKey),
  };
  using job = new JobFolder(jobPath(out), key);
  const how = { threads, force, cache: { root: job.at("cache") } };
  const session = { ...(threads !== undefined && { threads }), spinning: false };

  const dense = yield* importDense(source, modelLicence, job, signal);
  const config = readModelConfig(join(dense, "llm"));
  const F = config.ffnWidth;
  const shares = keep === "auto" ? SHARES : [keep];
  const widths = [...new Set(shares.map((share) => keptChannels(share, F)))]; // of a narrow model some are the same
  if (widths[0]! >= F)
    throw new OptionError(
      `specialize: wanted a share that leaves channels out, got ${widths[0]} of ${F}. Take a smaller one.`,
    );
  const denseBundle = await job.made("dense-bundle", (partial) => packBundle(dense, partial, { type: "F16", signal }));
  using whole = new InstructionModel(denseBundle);
  if (typeof whole.format.template === "string")
    yield {
      kind: "note",
      text: "The model has no chat template: prompts are read as they are, with a line break after.",
    };

  const expected = given ?? [{ instruction: task!, input: task! }];
  const encode = (text: string) => whole.tokenizer.encode(text).length + whole.format.mostFrameTokens / 4;
  const planned = given?.length ?? numbers.draft;
  const plan: JobPlan = {
    config,
    tFfn: widths[0]!,
    shortRuns: { count: keep === "auto" ? widths.length : 0, share: SHORT_RUN },
    tokens,
    rows: planned,
    answers: options.examples === undefined ? planned + (given ? 0 : 1.5 * planned) : 0, // drafts are some too
    heldOut: Math.min(60, Math.max(8, planned / 10)),
    maxTokens,
    shape: expectedShape(expected, { encode, maxTokens, contextLength: config.contextLength }),
  };
  if (!job.has("estimate.json")) checkRoom(plan, job.path, force);
  const estimate = yield* told("trial", signal, (hooks) =>
    job.madeJson<JobEstimate>("estimate.json", async () => {
      const folder = job.at("trial.making");
      rmSync(folder, { recursive: true, force: true });
      try {
        return await tryOut(plan, { model: whole, dense, prompts: expected, folder, ...how }, hooks);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    }),
  );
  yield { kind: "estimate", estimate };
  if (dryRun) {
    if (job.isNew) job.remove();
    return;
  }

  const prompts =
    given ?? (yield* drafted(whole, { task: task!, count: numbers.draft, seed, confirm, job, signal, ...how }));
  const { train, heldOut } = partHeldOut(prompts, seed);
  const answers: TaskAnswers[] = [];
  for (const [part, own] of [
    ["heldout", heldOut],
    ["train", train],
  ] as const)
    answers.push(
      yield* told("answers", signal, (hooks) =>
        answerPrompts(whole, part, own, { job, maxTokens, temperature, seed, ...how }, hooks),
      ),
    );
  const [heldOutRows, trainRows] = answers as [TaskAnswers, TaskAnswers];
  for (const one of answers)
    if (one.unanswered + one.looping > 0) yield { kind: "note", text: `left out: ${leftOut(one)}` };

  const name = file === undefined ? `inputs that ${basename(source)} drafted` : basename(file);
  const data = { name, licence };
  const run = {
    job,
    dense,
    data,
    seed,
    threads,
    session,
    signal,
    rows: { train: trainRows.name, heldOut: heldOutRows.name },
  };
  const { shape, rows, tokensOfRows } = await job.madeJson("rows.json", async () => {
    const { data: encoded, shape, tokens } = await taskData(job.at(trainRows.name), name, await openDense(dense));
    return { shape, rows: encoded.questions.flat().length, tokensOfRows: tokens };
  });
  const steps = (count: number) => Math.max(1, Math.ceil(count / (shape.T * shape.B)));
  if (tokens > 20 * tokensOfRows)
    yield {
      kind: "note",
      text: `${tokens} tokens are ${Math.round(tokens / tokensOfRows)} times the ${tokensOfRows} that there are: more prompts would serve better.`,
    };

  let tFfn = widths[0]!;
  let auto: Specialization["auto"];
  if (keep === "auto") {
    const curve: CurvePoint[] = [];
    for (const width of widths) {
      const short = steps(tokens * SHORT_RUN);
      const { healed } = yield* cutAndHeal(width, `short-${width}`, { ...run, shape, steps: short, every: short });
      const { kl, agreement } = healed.best;
      curve.push({ tFfn: width, keep: width / F, kl, agreement });
      yield { kind: "point", point: curve.at(-1)! };
    }
    const maxLoss = numbers.maxLoss ?? MAX_LOSS.fallback;
    const within = curve.filter(({ kl }) => kl <= maxLoss);
    const nearest = curve.toSorted((a, b) => a.kl - b.kl)[0]!;
    tFfn = within.at(-1)?.tFfn ?? nearest.tFfn;
    auto = { maxLoss, isReached: within.length > 0, curve };
    if (within.length === 0)
      yield {
        kind: "note",
        text: `No share was within ${maxLoss} nats after a short run; the nearest, ${nearest.tFfn} of ${F} channels at ${nearest.kl.toFixed(3)}, is built.`,
      };
  }
  const long = { steps: steps(tokens), every: Math.max(1, Math.round(steps(tokens) / EVALUATIONS)) };
  const { healed, cut } = yield* cutAndHeal(tFfn, "healed", { ...run, shape, ...long });

  const made = job.at("out");
  await job.made("out", (partial) => packBundle(job.at("healed"), partial, { type: "F16", signal }));
  using small = new InstructionModel(made);
  const examples = readRows(job.at(heldOutRows.name));
  const side = yield* told("compare", signal, (hooks) =>
    job.madeJson<SideBySide>("compared.json", () =>
      compareModels(
        { dense: whole, small },
        examples,
        { hasGold: options.examples !== undefined, maxTokens, threads, force, root: how.cache.root },
        hooks,
      ),
    ),
  );
  const about: Specialization = {
    format: "ifprune-specialization",
    version: 1,
    ifprune: version,
    created: new Date().toISOString(),
    seconds: job.seconds,
    options: JSON.parse(JSON.stringify(asked)),
    model: { name: basename(source), data: readManifest(dense, "ifprune-checkpoint").provenance.data },
    data: {
      ...data,
      prompts: file === undefined ? "drafted" : "given",
      answers: options.examples === undefined ? "own" : "gold",
      train: rows,
      heldOut: heldOutRows.rows,
      unanswered: heldOutRows.unanswered + trainRows.unanswered,
      looping: heldOutRows.looping + trainRows.looping,
    },
    tFfn,
    dFfn: F,
    parameters: { dense: countParameters(config), small: countParameters(small.bundle.config) },
    auto,
    reconstruction: cut.reconstruction,
    before: cut.before,
    after: healed.best,
    training: {
      steps: healed.steps,
      planned: long.steps,
      tokens: healed.steps * shape.T * shape.B,
      rows,
      evaluations: healed.evaluations,
    },
    ...side,
    bytes: { dense: weightBytes(denseBundle), small: weightBytes(made) },
    quantized: [],
  };
  yield* deliver(small, { job, about, heldOut: job.at(heldOutRows.name), threads, force, signal });
  renameSync(made, out);
  job.remove();
  yield { kind: "result", path: out, result: about };
}

function checkOptions({ task, prompts, examples, keep, maxLoss, draft }: SpecializeOptions): void {
  if (task !== undefined && task.trim() === "") throw new OptionError('specialize: wanted a task in words, got "".');
  if (prompts !== undefined && examples !== undefined)
    throw new OptionError("specialize: wanted prompts, or examples with their answers, got both. Leave either out.");
  if (draft !== undefined && (prompts ?? examples) !== undefined)
    throw new OptionError("specialize: wanted prompts, or a number of drafts, got both. Leave either out.");
  if (task === undefined && prompts === undefined && examples === undefined)
    throw new OptionError("specialize: wanted a task, prompts or examples, got none of them.");
  if (keep !== "auto" && maxLoss !== undefined)
    throw new OptionError(`specialize: wanted a largest loss beside keep = "auto" only, got ${maxLoss}.`);
}

/** The model as a dense checkpoint in float32, whatever it comes as. */
async function* importDense(
  source: string,
  licence: string | undefined,
  job: JobFolder,
  signal: AbortSignal | undefined,
): AsyncGenerator<SpecializeEvent, string> {
  const notes: string[] = [];
  const path = yield* told("import", signal, ({ signal, onProgress }) =>
    job.made("dense", async (partial) => {
      const isOurs = existsSync(join(source, "checkpoints")) || formatOfFolder(source) === "ifprune-checkpoint";
      if (!isOurs)
        notes.push(...(await importModel(source, partial, { as: "checkpoint", licence, signal, onProgress })).notes);
      else {
        if (licence !== undefined)
          throw new OptionError("specialize: wanted no licence of a checkpoint, which has its own, got one.");
        const saved = await loadModel(source);
        if (saved.predictor)
          throw new FileError(
            source,
            "wanted a dense model, got one with a predictor. Name the one that it was made from.",
          );
        await saveModel(partial, saved);
      }
      // What training reads where there is no chat template: the whole model's answers are to be to the same text.
      const manifest = readManifest(partial, "ifprune-checkpoint");
      writeManifest(partial, { ...manifest, promptTemplate: DEFAULT_PROMPT_TEMPLATE });
    }),
  );
  for (const text of notes) yield { kind: "note", text };
  return path;
}

async function* drafted(
  model: InstructionModel,
  {
    task,
    confirm,
    job,
    signal,
    ...how
  }: Parameters<typeof draftPrompts>[2] & Pick<SpecializeOptions, "confirm" | "signal"> & { task: string },
): AsyncGenerator<SpecializeEvent, TaskPrompt[]> {
  const known = job.known<TaskPrompt[]>("drafted.json");
  if (known) return known;
  const prompts = yield* told("draft", signal, (hooks) => draftPrompts(model, task, { job, ...how }, hooks));
  const inputs = prompts.map(({ input }) => input!);
  yield { kind: "drafted", prompts: inputs };
  if (confirm && !(await confirm(inputs)))
    throw new OptionError(
      `specialize: the drafts were not taken. They are in "${job.at("drafts.jsonl")}"; give prompts of your own (--prompts), or say the task in other words.`,
    );
  return await job.madeJson("drafted.json", async () => prompts);
}

interface RunSetting {
  job: JobFolder;
  dense: string;
  data: { name: string; licence: string };
  rows: { train: string; heldOut: string };
  shape: RowShape;
  steps: number;
  every: number;
  seed: number;
  threads: number | undefined;
  session: { threads?: number; spinning: boolean };
  signal: AbortSignal | undefined;
}

interface Cut {
  reconstruction: { before: number; after: number };
  before: Distance;
}

interface Ran {
  healed: Omit<Healed, "path">;
  cut: Cut;
}

/** One run of a job: the cut model, what it loses, and the healed one, a checkpoint of this name. All else of it but its log goes from the disk. */
async function* cutAndHeal(
  tFfn: number,
  name: string,
  { job, dense, data, rows, shape, session, signal, threads, ...plan }: RunSetting,
): AsyncGenerator<SpecializeEvent, Ran> {
  const known = job.known<Ran>(`${name}.json`);
  if (known) return known;
  const cutName = `cut-${name}`;
  const cutPath = job.at(cutName);
  const cut = yield* told("importance", signal, ({ signal, onProgress }) =>
    job.madeJson<Cut>(`${cutName}.json`, async () => {
      const opened = await openDense(dense);
      const { data: encoded } = await taskData(job.at(rows.train), data.name, opened);
      mkdirSync(job.at("importance"), { recursive: true });
      const { model, report } = await cutModel(opened.model, encoded, {
        ...{ tFfn, seed: plan.seed, importance: job.at("importance"), threads, signal },
        onProgress: (phase, done, total) => onProgress(done, total, phase),
      });
      rmSync(cutPath, { recursive: true, force: true });
      await saveModel(cutPath, model);
      const examples = await heldOutExamples(job.at(rows.heldOut), opened.format, shape.T);
      await using teacher = new Teacher(
        opened.model.llm,
        examples.map(({ ids }) => ids),
        { folder: job.at("states"), sequenceLength: shape.T, session },
      );
      const { loss, tokenAccuracy } = await measureDivergence(model.llm, examples, teacher, session);
      return { reconstruction: report.reconstruction!, before: { kl: loss, agreement: tokenAccuracy } };
    }),
  );
  const llm = readModelConfig(join(cutPath, "llm"));
  const file = healRecipe(
    { ...plan, name, init: cutName, teacher: "dense", llm, shape, rows, data, threads },
    (relative) => resolve(job.path, relative),
  );
  const runDir = job.at(`run-${name}`);
  const events = heal(file, runDir, { signal, threads });
  for (;;) {
    const { value, done } = await events.next();
    if (done) {
      const { path: best, ...healed } = value;
      await job.made(name, async (partial) => {
        const { card, ...model } = await loadModel(best);
        await saveModel(partial, { ...model, card: { ...card, provenance: { ...card.provenance, recipe: job.name } } });
      });
      await job.madeJson(`${name}.json`, async () => ({ healed, cut }));
      for (const path of [cutPath, join(runDir, "checkpoints"), best]) rmSync(path, { recursive: true, force: true });
      return { healed, cut };
    }
    yield value;
    if (value.kind === "row" && value.row.kind === "evaluation") writeReport([runDir], job.at("report.html"));
  }
}

/** Puts what others open into the result's folder, and what is said of it. */
async function* deliver(
  small: InstructionModel,
  {
    job,
    about,
    heldOut,
    threads,
    force,
    signal,
  }: {
    job: JobFolder;
    about: Specialization;
    heldOut: string;
    threads: number | undefined;
    force: boolean;
    signal: AbortSignal | undefined;
  },
): AsyncGenerator<SpecializeEvent, void> {
  const { bundle, engines, format } = small;
  const at = (...names: string[]) => join(bundle.path, ...names);
  const mask = fullMask(bundle.numLayers, bundle.ffnWidth);
  const types = QUANTIZED.filter(() => bundle.width % blockLength === 0 && bundle.ffnWidth % blockLength === 0);
  yield* told("export", signal, async ({ signal, onProgress }) => {
    const how = { task: about.options.task as string | undefined, signal };
    mkdirSync(at("gguf"), { recursive: true });
    for (const type of types) {
      const folder = at("gguf", type);
      if (!existsSync(folder))
        await exportSubnetwork(bundle, mask, folder, { ...how, formats: ["gguf"], type, onProgress });
      await verifyExport(folder, { signal });
    }
    // Its card is that of the whole folder, so it comes with the last numbers.
    rmSync(at("huggingface"), { recursive: true, force: true });
    const examples = await heldOutExamples(heldOut, format, bundle.contextLength - 1);
    const paths = types.map((type) => at("gguf", type, ggufFileName(type)));
    const { path: reference } = await openSubnetwork(bundle, mask, { root: job.at("cache"), signal });
    const found = await compareFiles(
      engines,
      [reference, ...paths],
      examples,
      { threads, force },
      { signal, onProgress },
    );
    about.quantized = types.map((type, i) => {
      const { path: _, ...rest } = found[i]!;
      return { type, ...rest };
    });
    const card = taskCard(about);
    await exportSubnetwork(bundle, mask, at("huggingface"), { ...how, type: "F16", card, onProgress });
    await verifyExport(at("huggingface"), { signal });
    writeFileSync(at("README.md"), card);
    writeFileSync(at("specialize.json"), `${JSON.stringify(about, null, 2)}\n`);
    writeReport([job.at("run-healed")], at("report.html"), reportCharts(about));
  });
}

/** What no run's log has: the shares that were tried. */
function reportCharts({ auto, model, options }: Specialization): Parameters<typeof writeReport>[2] {
  if (!auto) return undefined;
  const points = auto.curve.map(({ keep, kl }) => [Math.round(100 * keep), kl] as const).toReversed();
  const bound = points.map(([keep]) => [keep, auto.maxLoss] as const);
  return {
    title: `${model.name}${options.task === undefined ? "" : `: ${options.task}`}`,
    charts: [
      {
        title: "Held-out KL after a short run, nats a token",
        xLabel: "% of the FFN",
        series: [
          { name: "short runs", points },
          { name: "bound", points: bound, dashed: true },
        ],
        fromZero: true,
      },
    ],
  };
}

function weightBytes(bundle: string): number {
  return ["base.gguf", "ffn.gguf"].reduce((sum, name) => sum + statSync(join(bundle, name)).size, 0);
}

function hashOf(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex").slice(0, 32);
}

/** A model's place, and sizes and times of its files: their contents may be too much to read each time. */
function identityOf(path: string): string {
  const hash = createHash("sha256").update(resolve(path));
  const names = statSync(path).isDirectory() ? readdirSync(path, { recursive: true, encoding: "utf8" }).sort() : [""];
  for (const name of names) {
    const { size, mtimeMs } = statSync(join(path, name));
    hash.update(`${name} ${size} ${mtimeMs}\n`);
  }
  return hash.digest("hex").slice(0, 32);
}
