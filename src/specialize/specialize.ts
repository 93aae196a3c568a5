/**
 * A smaller model for one task, from a model and the task: prompts, answers, the channels that matter for them, training to say what the whole model says, and the
 * evidence. The parts are those of the other commands; here is their order, and what is kept of each so that the same call goes on where one was stopped.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { InstructionModel } from "../answer/instructionModel.ts";
import { keptChannels, MAX_LOSS } from "../bundle/budget.ts";
import { importModel } from "../bundle/importModel.ts";
import { packBundle } from "../bundle/packBundle.ts";
import { modelFolder } from "../bundle/pulledModels.ts";
import { FileError, IfpruneError, InputError, OptionError } from "../errors.ts";
import { checkNewFolder } from "../files.ts";
import { readModelConfig } from "../formats/huggingfaceConfig.ts";
import { formatOfFolder, manifestHash, readManifest, writeManifest } from "../manifest.ts";
import { countParameters } from "../model/config.ts";
import { type Complete, type Given, readNumbers } from "../options.ts";
import { version } from "../package.ts";
import { isNoPlace } from "../refusals.ts";
import { DEFAULT_PROMPT_TEMPLATE } from "../text/prompt.ts";
import { loadModel, saveModel } from "../train/checkpoint.ts";
import { heldOutExamples } from "../train/heldOut.ts";
import { deliver } from "./deliver.ts";
import { DRAFTS_PER_PROMPT, type DraftManner, draftAsk, draftPrompts, inMannerOf, inWords } from "./drafts.ts";
import { EVALUATIONS } from "./heal.ts";
import { JobFolder, type JobKey } from "./jobFolder.ts";
import { cutAndHeal, distanceOf, type RunSetting, shortRuns, stepsOf, tune } from "./runs.ts";
import { compareModels, type SideBySide } from "./sideBySide.ts";
import type { JobEstimate, Specialization, SpecializeEvent } from "./specialization.ts";
import { SPECIALIZE_OPTIONS } from "./specializeOptions.ts";
import { answerPrompts, leftOut, type TaskPart } from "./taskAnswers.ts";
import { fittingRows, longestRow, openDense, taskData } from "./taskData.ts";
import {
  checkCount,
  distinct,
  FEWEST_PROMPTS,
  fitting,
  jsonLines,
  ownText,
  partHeldOut,
  partSize,
  readRows,
  readTaskPrompts,
  type TaskParts,
  type TaskPrompt,
} from "./taskPrompts.ts";
import { told } from "./told.ts";
import { availableNow, checkRoom, expectedShape, type JobPlan, tryOut } from "./trial.ts";

/**
 * What {@link specialize} is asked. Of `prompts` and `examples` at most one; without, the model drafts inputs of the task. `draft` beside `prompts`: it drafts so many
 * more in their manner.
 */
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
/** Of the job: held-out rows that all is measured on. */
const HELD_OUT_ROWS = "heldout-rows.jsonl";

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
  const { task, keep = 0.5, confirm, dryRun, force = false, signal, licence = "unknown", modelLicence } = options;
  const numbers = readNumbers("specialize", SPECIALIZE_OPTIONS, options);
  const { maxTokens, temperature, seed, threads, tokens } = numbers;
  checkOptions(options);
  checkNewFolder(out, "specialize");
  const source = existsSync(model) ? model : modelFolder(model);
  const name = source === model ? basename(source) : model;
  if (!existsSync(source)) throw new FileError(model, "wanted a model, got nothing of that name. Check the path.");
  const file = options.prompts ?? options.examples;
  const hasGold = options.examples !== undefined;
  const read = file === undefined ? undefined : await readTaskPrompts(file, task, hasGold);
  const prompts = read && distinct(read);
  const drafts = prompts ? (options.draft ?? 0) : numbers.draft;
  if (prompts) checkCount(prompts, file!, { hasGold, hasDrafts: drafts > 0 });

  const jobPath = `${resolve(out)}.job`;
  const { threads: _, ...lasting } = numbers;
  const draft = drafts > 0 ? drafts : undefined;
  const asked = JSON.parse(JSON.stringify({ task, keep, licence, ...lasting, draft, modelLicence }));
  const key: JobKey = {
    model: identityOf(source),
    ...(file !== undefined && { [hasGold ? "examples" : "prompts"]: hashOf(file) }),
    ...asked,
  };
  using job = new JobFolder(jobPath, key);
  const how = { threads, force, cache: { root: job.at("cache") } };

  let begun: Prepared;
  try {
    begun = yield* prepared({ source, prompts, drafts, numbers, options, job });
  } finally {
    if (dryRun && job.isNew) job.remove(); // stopped, too
  }
  if (dryRun) return;
  const { dense, denseBundle, widths, given, manner } = begun;
  using untuned = new InstructionModel(denseBundle);
  const dFfn = untuned.bundle.ffnWidth;
  const count = given ? given.train.length + given.heldOut.length : 0;
  const twice = (read?.length ?? 0) - (prompts?.length ?? 0);
  const more = manner
    ? yield* orNothing(
        job,
        drafted(untuned, manner, {
          ...{ count: drafts, fewest: Math.max(1, FEWEST_PROMPTS - count), seed, confirm, job, signal, ...how },
        }),
      )
    : [];
  const parts = given ? { ...given, train: [...given.train, ...more] } : partHeldOut(more, seed);
  const answer = (part: TaskPart, own: readonly TaskPrompt[]) =>
    orNothing(
      job,
      told("answers", signal, (hooks) =>
        answerPrompts(untuned, part, own, { job, maxTokens, temperature, seed, ...how }, hooks),
      ),
    );
  const answered = yield* answer("heldout", parts.heldOut);
  const train = yield* answer("train", parts.train);
  for (const one of [answered, train])
    if (one.unanswered + one.looping > 0) yield { kind: "note", text: `left out: ${leftOut(one)}` };

  const byModel = `prompts that ${name} drafted`;
  const sources = [...(file === undefined ? [] : [basename(file)]), ...(more.length > 0 ? [byModel] : [])];
  const data = { name: sources.join(" and "), licence };
  const learned = await job.madeJson("rows.json", async () => {
    const opened = await openDense(dense);
    const measured = readRows(job.at(answered.name));
    const { data: encoded, shape, tokens } = await taskData(job.at(train.name), data.name, opened, measured);
    const heldOut = fittingRows(measured, shape, opened);
    await job.made(HELD_OUT_ROWS, (partial) => writeFileSync(partial, jsonLines(heldOut)));
    return { shape, rows: encoded.questions.flat().length, heldOut: heldOut.length, tokens };
  });
  const tooLong = train.rows - learned.rows + answered.rows - learned.heldOut;
  if (tooLong > 0)
    yield {
      kind: "note",
      text: `left out: ${tooLong} prompts, ${answered.rows - learned.heldOut} of them held out, whose answers bring them above ${learned.shape.T} tokens, where most have fewer`,
    };
  if (tokens > MANY_EPOCHS * learned.tokens)
    yield {
      kind: "note",
      text: `${tokens} tokens are ${Math.round(tokens / learned.tokens)} times the ${learned.tokens} that there are: more prompts would serve better.`,
    };
  const { shape } = learned;
  const steps = stepsOf(tokens, shape);
  const every = Math.max(1, Math.round(steps / EVALUATIONS));
  const asGiven: RunSetting = {
    ...{ job, dense, data, seed, threads, signal, shape },
    rows: { train: train.name, heldOut: HELD_OUT_ROWS },
  };
  const tuned = hasGold ? yield* tune("tuned", { steps, every }, asGiven) : undefined;
  const setting = tuned ? { ...asGiven, dense: job.at("tuned") } : asGiven;
  const auto = keep === "auto" ? yield* smallest(widths, { ...numbers, dFfn }, setting) : undefined;
  const tFfn = auto?.tFfn ?? widths[0]!;
  const { healed, cut } = yield* cutAndHeal("healed", { tFfn, steps, every }, setting);

  const packed = (name: string, from: string) =>
    told("export", signal, (hooks) =>
      job.made(name, (partial) => packBundle(from, partial, { type: "F16", ...hooks })),
    );
  using whole = new InstructionModel(tuned ? yield* packed("tuned-bundle", setting.dense) : denseBundle);
  const made = yield* packed("out", job.at("healed"));
  using small = new InstructionModel(made);
  const examples = await heldOutExamples(job.at(HELD_OUT_ROWS), small.format, small.bundle.contextLength - 1);
  const side = yield* told("compare", signal, (hooks) =>
    job.madeJson<SideBySide>("compared.json", () =>
      compareModels(
        { dense: whole, small },
        readRows(job.at(HELD_OUT_ROWS)),
        examples,
        { hasGold, maxTokens, threads, force, root: how.cache.root },
        hooks,
      ),
    ),
  );
  const about: Omit<Specialization, "quantized"> = {
    format: "ifprune-specialization",
    version: 1,
    ifprune: version,
    created: new Date().toISOString(),
    seconds: job.seconds,
    options: asked,
    model: { name, data: readManifest(dense, "ifprune-checkpoint").provenance.data },
    data: {
      ...data,
      prompts: { given: read?.length ?? 0, drafted: more.length },
      answers: hasGold ? "gold" : "own",
      train: learned.rows,
      heldOut: learned.heldOut,
      unanswered: answered.unanswered + train.unanswered,
      looping: answered.looping + train.looping,
      tooLong: tooLong + (prompts?.length ?? 0) - count,
      twice,
    },
    tFfn,
    dFfn,
    parameters: { dense: countParameters(whole.bundle.config), small: countParameters(small.bundle.config) },
    tuned: tuned && { ...tuned.best, before: tuned.evaluations[0]! },
    auto: auto?.found,
    ...cut,
    after: distanceOf(healed.best),
    training: {
      steps: healed.steps,
      planned: steps,
      tokens: healed.steps * shape.T * shape.B,
      evaluations: healed.evaluations.map(distanceOf),
    },
    ...side,
    bytes: { dense: weightBytes(denseBundle), small: weightBytes(made) },
  };
  const result = yield* deliver(small, about, { job, examples, threads, force, signal });
  renameSync(made, out);
  job.remove();
  yield { kind: "result", path: out, result };
}

/** More often than this a model need not read the same rows. */
const MANY_EPOCHS = 20;

/** The smallest width whose short run is within the bound, else the nearest to it. */
async function* smallest(
  widths: readonly number[],
  { tokens, maxLoss = MAX_LOSS.fallback, dFfn }: { tokens: number; maxLoss?: number | undefined; dFfn: number },
  setting: RunSetting,
): AsyncGenerator<SpecializeEvent, { tFfn: number; found: NonNullable<Specialization["auto"]> }> {
  const curve = yield* shortRuns(widths, { tokens: tokens * SHORT_RUN, dFfn }, setting);
  const within = curve.filter(({ kl }) => kl <= maxLoss).at(-1);
  const nearest = curve.toSorted((a, b) => a.kl - b.kl)[0]!;
  if (!within)
    yield {
      kind: "note",
      text: `No share was within ${maxLoss} nats after a short run; the nearest, ${nearest.tFfn} of ${dFfn} channels at ${nearest.kl.toFixed(3)}, is built.`,
    };
  return { tFfn: (within ?? nearest).tFfn, found: { maxLoss, isReached: within !== undefined, curve } };
}

interface Prepared {
  /** Checkpoint. */
  dense: string;
  denseBundle: string;
  /** Channels that are tried, or the one count; the largest first. */
  widths: readonly number[];
  /** Of the prompts given, those that the model has room for. */
  given: TaskParts | undefined;
  /** Where it drafts. */
  manner: DraftManner | undefined;
}

/** The model as the job takes it, and what the job will take. What cannot be done leaves no folder that this call has begun; what a full disk broke off goes on. */
async function* prepared({
  source,
  prompts,
  drafts,
  numbers,
  options,
  job,
}: {
  source: string;
  /** Those given. */
  prompts: readonly TaskPrompt[] | undefined;
  /** How many are wanted. */
  drafts: number;
  numbers: Complete<typeof SPECIALIZE_OPTIONS>;
  options: SpecializeOptions;
  job: JobFolder;
}): AsyncGenerator<SpecializeEvent, Prepared> {
  const { task, keep = 0.5, force = false, modelLicence, signal } = options;
  const { tokens, maxTokens, threads, seed } = numbers;
  const hasGold = options.examples !== undefined;
  try {
    const dense = yield* importDense(source, modelLicence, job, signal);
    const config = readModelConfig(join(dense, "llm"));
    const F = config.ffnWidth;
    const shares = keep === "auto" ? SHARES : [keep];
    const widths = [...new Set(shares.map((share) => keptChannels(share, F)))]; // of a narrow model some are the same
    if (widths[0]! >= F)
      throw new OptionError(
        `specialize: wanted a share that leaves channels out, got ${widths[0]} of ${F}. Take a smaller one.`,
      );
    const notes: string[] = [];
    const denseBundle = yield* told("import", signal, (hooks) =>
      job.made("dense-bundle", async (partial) => {
        notes.push(...(await packBundle(dense, partial, { type: "F16", ...hooks })));
      }),
    );
    for (const text of notes) yield { kind: "note", text };
    using whole = new InstructionModel(denseBundle);
    if (typeof whole.format.template === "string")
      yield {
        kind: "note",
        text: "The model has no chat template: prompts are read as they are, with a line break after.",
      };
    const lengthOf = (text: string) => whole.promptIds(text).length;
    const tokensOf = (prompt: string, answer: string) => lengthOf(prompt) + whole.tokenizer.encode(answer).length + 1;
    const { prompts: fits, note } = prompts
      ? fitting(prompts, {
          ...{ room: longestRow(config.contextLength), tokensOf, use: { hasGold, hasDrafts: drafts > 0 } },
        })
      : { prompts: undefined, note: undefined };
    if (note !== undefined) yield { kind: "note", text: note };
    const given = fits && partHeldOut(fits, seed);
    const manner = drafts === 0 ? undefined : given ? inMannerOf(given, task, whole) : inWords(task!);
    const expected = fits ?? [{ instruction: task!, input: task! }];
    const count = (fits?.length ?? 0) + drafts;
    const plan: JobPlan = {
      config,
      tFfn: widths[0]!,
      shortRuns: { count: keep === "auto" ? widths.length : 0, share: SHORT_RUN },
      tokens,
      rows: count,
      heldOut: given?.heldOut.length ?? partSize(count),
      answers: hasGold ? 0 : count,
      drafts: DRAFTS_PER_PROMPT * drafts,
      isTuned: hasGold,
      maxTokens,
      shape: expectedShape(expected, { lengthOf, maxTokens, contextLength: config.contextLength }),
    };
    if (!job.has("estimate.json")) checkRoom(plan, job.path, force);
    const estimate = yield* told("trial", signal, (hooks) =>
      job.madeJson<JobEstimate>("estimate.json", async () => {
        const folder = job.at("trial.making");
        try {
          const ask = manner && draftAsk(manner, 0, seed);
          const setting = {
            model: whole,
            dense,
            prompts: expected,
            ask,
            folder,
            threads,
            force,
            root: job.at("cache"),
          };
          return await tryOut(plan, setting, hooks);
        } finally {
          rmSync(folder, { recursive: true, force: true });
        }
      }),
    );
    yield { kind: "estimate", estimate: { ...estimate, ...availableNow(job.path) } };
    return { dense, denseBundle, widths, given, manner };
  } catch (error) {
    if (job.isNew && error instanceof IfpruneError && !isNoPlace(error.cause)) job.remove();
    throw error;
  }
}

function checkOptions({ task, prompts, examples, keep, maxLoss, draft, temperature }: SpecializeOptions): void {
  if (task !== undefined && task.trim() === "")
    throw new OptionError('specialize: wanted a task in words, got "". Say what is to be done, or leave it out.');
  if (prompts !== undefined && examples !== undefined)
    throw new OptionError("specialize: wanted prompts, or examples with their answers, got both. Leave either out.");
  if (draft !== undefined && examples !== undefined)
    throw new OptionError(
      "specialize: wanted examples, each with its right answer, or a number of drafts, which have none, got both. Leave either out, or give the examples as prompts.",
    );
  if (temperature !== undefined && examples !== undefined)
    throw new OptionError(
      "specialize: wanted examples, each with its right answer, or a temperature of the whole model's own answers, got both. Leave either out.",
    );
  if (task === undefined && prompts === undefined && examples === undefined)
    throw new OptionError(
      "specialize: wanted a task, prompts or examples, got none of them. Give prompts, or say the task for the model to draft some.",
    );
  if (keep !== "auto" && maxLoss !== undefined)
    throw new OptionError(
      `specialize: wanted a largest loss beside keep = "auto" only, got ${maxLoss}. Keep "auto", or leave it out.`,
    );
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
        onProgress(0, 1);
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

/** Where a model says too little that is sound, the same call would come no further: it leaves nothing. */
async function* orNothing<T>(
  job: JobFolder,
  events: AsyncGenerator<SpecializeEvent, T>,
): AsyncGenerator<SpecializeEvent, T> {
  try {
    return yield* events;
  } catch (error) {
    if (error instanceof InputError) job.remove();
    throw error;
  }
}

async function* drafted(
  model: InstructionModel,
  manner: DraftManner,
  { confirm, job, signal, ...how }: Parameters<typeof draftPrompts>[2] & Pick<SpecializeOptions, "confirm" | "signal">,
): AsyncGenerator<SpecializeEvent, TaskPrompt[]> {
  const known = job.known<TaskPrompt[]>("drafted.json");
  if (known) return known;
  const prompts = yield* told("draft", signal, (hooks) => draftPrompts(model, manner, { job, ...how }, hooks));
  const texts = prompts.map(ownText);
  yield { kind: "drafted", prompts: texts };
  if (confirm && !(await confirm(texts)))
    throw new OptionError(
      `specialize: the drafts were not taken. They are in "${job.at("drafts.jsonl")}"; give prompts of your own, or say the task in other words.`,
    );
  return await job.madeJson("drafted.json", async () => prompts);
}

function weightBytes(bundle: string): number {
  return ["base.gguf", "ffn.gguf"].reduce((sum, name) => sum + statSync(join(bundle, name)).size, 0);
}

function hashOf(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex").slice(0, 32);
}

/**
 * A model's place, and sizes and times of its files: their contents may be too much to read each time. Of our own folders the manifest, without what was measured.
 *
 * @throws {FileError} if it is a folder without a model
 */
function identityOf(path: string): string {
  const hash = createHash("sha256").update(resolve(path));
  if (formatOfFolder(path) !== undefined) return hash.update(manifestHash(path)).digest("hex").slice(0, 32);
  for (const name of statSync(path).isDirectory() ? namesOfModel(path) : [""]) {
    const stat = statSync(join(path, name), { throwIfNoEntry: false });
    if (stat?.isFile()) hash.update(`${name} ${stat.size} ${stat.mtimeMs}\n`);
  }
  return hash.digest("hex").slice(0, 32);
}

/** What tells a run's checkpoints, or a Hugging Face folder, from what they were: other folders in it, which may be many, are not the model. */
function namesOfModel(folder: string): string[] {
  if (existsSync(join(folder, "config.json"))) return readdirSync(folder).sort();
  if (existsSync(join(folder, "checkpoints")))
    return readdirSync(join(folder, "checkpoints"), { recursive: true, encoding: "utf8" })
      .map((name) => join("checkpoints", name))
      .sort();
  throw new FileError(folder, "wanted a model, got a folder without config.json. Is it another folder?");
}
