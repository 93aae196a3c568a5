/**
 * Checkpoints of a run: everything that training needs to go on bit for bit, in folders that appear whole or not at all.
 *
 *     RUN/checkpoints/step-000120/
 *       llm/                config.json, model.safetensors, tokenizer.json, of some chat_template.jinja
 *       predictor/          head.safetensors, and config.json and model.safetensors of a backbone that is not the LLM's own embedding
 *       NAME.safetensors    further tensors (optimiser moments, static scores), one file per group
 *       state.json          position, recipe, running values
 *       ifprune.json        manifest with sizes and hashes
 *
 * Durable writes: all files are written and synced under a temporary name, the folder is renamed, its parent is synced; older
 * checkpoints go only after that. Whoever writes holds the run's lock.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { makeFolder, makeFolders, ReadableFile, refuseLink } from "../files.ts";
import { type Model, readModelFolder, writeModelFolder } from "../formats/huggingface.ts";
import { readSafetensors, writeSafetensors } from "../formats/safetensors.ts";
import { readJson, readText } from "../json.ts";
import {
  boundaryOf,
  type CheckpointManifest,
  describeFiles,
  readManifest,
  verifyFiles,
  writeManifest,
} from "../manifest.ts";
import { firstLayers, firstLayersConfig } from "../model/backbone.ts";
import type { Weights } from "../model/config.ts";
import { featureWidth, headConfig, type PredictorConfig } from "../model/predictorConfig.ts";
import { refused } from "../refusals.ts";
import { ChatTemplate, chatTemplateName } from "../text/chatTemplate.ts";
import { PromptFormat } from "../text/prompt.ts";
import { createTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { zodWords } from "../words.ts";

/** What a checkpoint says of its model: its manifest without what saving adds. */
export type ModelCard = Omit<CheckpointManifest, "format" | "version" | "files">;

/** A trained or imported model: the part of a checkpoint that others use. */
export interface SavedModel {
  card: ModelCard;
  /** Bytes of `tokenizer.json`. */
  tokenizer: Uint8Array;
  /** Jinja text, of a model that is prompted with it instead of the card's template. */
  chatTemplate?: string | undefined;
  llm: Model;
  /** A backbone without layers is the embedding of `llm`, the same array. */
  predictor?: { backbone: Model; head: Weights };
}

const stateSchema = z.strictObject({
  step: z.number().int().nonnegative(),
  stage: z.number().int().nonnegative(),
  metricsBytes: z.number().int().nonnegative(),
  recipe: z.unknown(),
  values: z.json(),
});

type Json = z.infer<ReturnType<typeof z.json>>;

/** A model in the middle of its training. */
export interface Checkpoint extends SavedModel {
  /** Optimiser steps done since the start of the run. */
  step: number;
  /** Index of the stage that the next step belongs to; the number of stages when the run is done. */
  stage: number;
  /** Length of the run's log. */
  metricsBytes: number;
  /** The recipe that the run began with, as JSON: see `checkSameRecipe`. */
  recipe: unknown;
  /** Running values (losses of the divergence guard, …). Numbers are finite and come back exactly. */
  values: Json;
  /** Further tensors, by group; group names become file names. */
  tensors: Record<string, Weights>;
  /** Groups whose values all are of bfloat16, and are stored so. */
  halves?: readonly string[];
}

/** Checkpoints that stay in a run: the newest, and one to fall back on. */
const KEPT = 2;
/** Names under `checkpoints/` that begin so are being written or removed. */
const HIDDEN = ".";

const stateName = "state.json";
const tokenizerName = "llm/tokenizer.json";
const templateName = `llm/${chatTemplateName}`;
const headName = "predictor/head.safetensors";
const backboneName = "predictor/model.safetensors";
const groupFile = /^([\w-]+)\.safetensors$/;
const stepFolder = /^step-(\d{6,15})$/;

const folderOfRun = (runDir: string) => join(runDir, "checkpoints");
const folderName = (step: number) => `step-${String(step).padStart(6, "0")}`;

/** Where the run's checkpoint of a step is, or would be. */
export const checkpointFolder = (runDir: string, step: number) => join(folderOfRun(runDir), folderName(step));

/**
 * Removes what writers of this run that were killed have left. For the holder of the run's lock.
 *
 * @throws {FileError} if its folder is a link: it is not the run's to write to
 */
export function removeLeftovers(runDir: string): void {
  refuseLink(folderOfRun(runDir));
  for (const name of entries(folderOfRun(runDir))) {
    if (name.startsWith(HIDDEN)) rmSync(join(folderOfRun(runDir), name), { recursive: true });
  }
}

/**
 * Saves a checkpoint, then removes all others but the one before it: older ones, and those of later steps, which a run that
 * fell back has left behind. Tensors are written before the first `await`, so they may change after that.
 *
 * @returns its folder, durable
 * @throws {FileError} if the system refuses, as when the disk is full; nothing of it is left
 */
export async function saveCheckpoint(runDir: string, checkpoint: Checkpoint): Promise<string> {
  const parent = folderOfRun(runDir);
  const target = checkpointFolder(runDir, checkpoint.step);
  const temporary = join(parent, `${HIDDEN}writing-${folderName(checkpoint.step)}`);
  refuseLink(parent);
  const isFirst = !existsSync(parent);
  makeFolders(parent);
  if (isFirst) syncFolder(runDir);
  rmSync(temporary, { recursive: true, force: true });

  try {
    mkdirSync(temporary);
    const files = writeContents(temporary, checkpoint);
    writeManifest(temporary, {
      format: "ifprune-checkpoint",
      version: 1,
      ...checkpoint.card,
      files: await describeFiles(temporary, files),
    });
    for (const folder of new Set(files.map((file) => dirname(join(temporary, file))))) syncFolder(folder);
    remove(target); // one of the same step: damaged, or the one that the run went on from
    renameSync(temporary, target);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    throw refused(target, error, "What was saved before stays: run it again to go on from there.");
  }
  syncFolder(parent);

  for (const folder of checkpointFolders(runDir)) if (stepOf(folder) > checkpoint.step) remove(folder);
  removeOlder(runDir, checkpoint.step);
  return target;
}

/** Removes the checkpoints before that of an intact one's step, but for one to fall back on: a save that was killed at its end has left them. For the holder of the run's lock. */
export function removeOlder(runDir: string, step: number): void {
  const older = checkpointFolders(runDir).filter((folder) => stepOf(folder) < step);
  for (const folder of older.slice(KEPT - 1)) remove(folder);
}

/** Writes a model that is in no run: a checkpoint to start from, which appears whole or not at all. @throws {OptionError} if the folder exists */
export async function saveModel(path: string, model: SavedModel): Promise<void> {
  await makeFolder(path, "save", async (partial) => {
    const files = writeModel(partial, model);
    writeManifest(partial, {
      format: "ifprune-checkpoint",
      version: 1,
      ...model.card,
      files: await describeFiles(partial, files),
    });
  });
}

/** @returns paths of its files within `folder` */
function writeModel(folder: string, { llm, predictor, tokenizer, chatTemplate }: SavedModel): string[] {
  writeModelFolder(join(folder, "llm"), llm);
  writeFileSync(join(folder, tokenizerName), tokenizer);
  const files = ["llm/config.json", "llm/model.safetensors", tokenizerName];
  if (chatTemplate !== undefined) {
    writeFileSync(join(folder, templateName), chatTemplate);
    files.push(templateName);
  }
  if (predictor) {
    if (predictor.backbone.config.numLayers > 0) {
      writeModelFolder(join(folder, "predictor"), predictor.backbone);
      files.push("predictor/config.json", backboneName);
    } else mkdirSync(join(folder, "predictor"));
    writeSafetensors(join(folder, headName), predictor.head);
    files.push(headName);
  }
  return files;
}

/** Writes and syncs all files but the manifest. @returns their paths within `folder` */
function writeContents(folder: string, { tensors, halves = [], ...rest }: Checkpoint): string[] {
  const { step, stage, metricsBytes, recipe, values } = rest;
  const files = writeModel(folder, rest);
  for (const [group, weights] of Object.entries(tensors)) {
    const file = `${group}.safetensors`;
    if (!groupFile.test(file)) throw new Error(`internal: tensor group "${group}" is not a file name`);
    writeSafetensors(join(folder, file), weights, halves.includes(group) ? "BF16" : "F32");
    files.push(file);
  }
  const state = stateSchema.parse({ step, stage, metricsBytes, recipe, values });
  writeFileSync(join(folder, stateName), JSON.stringify(state));
  files.push(stateName);
  for (const file of files) syncFile(join(folder, file));
  return files;
}

/** All checkpoints of a run, newest first, intact or not. None if there is no such run. */
export function checkpointFolders(runDir: string): string[] {
  const names = entries(folderOfRun(runDir)).filter((name) => stepFolder.test(name));
  return names.map((name) => join(folderOfRun(runDir), name)).sort((a, b) => stepOf(b) - stepOf(a));
}

/**
 * The newest intact checkpoint of a run, or `undefined` if it has none yet.
 *
 * @param onDamaged told of each newer one that is passed over
 * @throws {FileError} if there are checkpoints, but all are damaged
 */
export async function loadLatestCheckpoint(
  runDir: string,
  onDamaged: (error: FileError) => void = () => {},
): Promise<Checkpoint | undefined> {
  const folder = await newestIntact(runDir, onDamaged);
  return folder === undefined ? undefined : readState(folder);
}

/** @throws {FileError} if the folder is not a checkpoint of a run, or a file in it does not match its manifest */
export async function loadCheckpoint(folder: string): Promise<Checkpoint> {
  await verify(folder);
  return readState(folder);
}

/**
 * The model of a checkpoint folder, imported ones too, or of the newest intact checkpoint of a run.
 *
 * @throws {FileError} if `path` is neither, or damaged
 */
export async function loadModel(path: string, onDamaged: (error: FileError) => void = () => {}): Promise<SavedModel> {
  const folder = await newestIntact(path, onDamaged);
  if (folder === undefined) await verify(path);
  return readModel(folder ?? path);
}

/**
 * How a saved model is prompted, with its tokenizer.
 *
 * @param where its folder, for messages
 * @throws {FileError} if its tokenizer is not one that we run, or its chat template none
 */
export function savedFormat(model: SavedModel, where: string): PromptFormat {
  const json: unknown = JSON.parse(new TextDecoder().decode(model.tokenizer));
  const tokenizer = createTokenizer(json, join(where, tokenizerName), boundaryOf(model.card, model.llm.config));
  return formatOf(model, tokenizer, where);
}

/**
 * How a model of a card is prompted, given its tokenizer.
 *
 * @param where its folder, for messages
 * @throws {FileError} if its chat template is none
 */
export function formatOf(
  { card, chatTemplate }: { card: Pick<ModelCard, "promptTemplate">; chatTemplate?: string | undefined },
  tokenizer: Tokenizer,
  where: string,
): PromptFormat {
  const template =
    chatTemplate === undefined ? card.promptTemplate : new ChatTemplate(chatTemplate, join(where, templateName));
  return new PromptFormat(tokenizer, template);
}

async function newestIntact(runDir: string, onDamaged: (error: FileError) => void): Promise<string | undefined> {
  const folders = checkpointFolders(runDir);
  for (const folder of folders) {
    try {
      await verify(folder);
      return folder;
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      onDamaged(error);
    }
  }
  if (folders.length > 0) {
    throw new FileError(
      folderOfRun(runDir),
      `wanted an intact checkpoint, got ${folders.length} damaged. Delete them to start anew.`,
    );
  }
  return undefined;
}

async function verify(folder: string): Promise<void> {
  await verifyFiles(folder, readManifest(folder, "ifprune-checkpoint"));
}

/** Of a verified folder. */
function readModel(folder: string): SavedModel {
  const { format, version, files, ...card } = readManifest(folder, "ifprune-checkpoint");
  using tokenizer = new ReadableFile(join(folder, tokenizerName));
  const model: SavedModel = {
    card,
    tokenizer: tokenizer.read(0, tokenizer.size, "tokenizer"),
    llm: readModelFolder(join(folder, "llm")),
  };
  if (Object.hasOwn(files, templateName)) model.chatTemplate = readText(join(folder, templateName));
  if (Object.hasOwn(files, headName)) {
    model.predictor = {
      backbone: Object.hasOwn(files, backboneName)
        ? readModelFolder(join(folder, "predictor"))
        : embeddingOf(model.llm),
      head: readSafetensors(join(folder, headName)),
    };
  }
  return model;
}

/** What a predictor reads that has no backbone of its own. */
function embeddingOf({ config: llm, weights }: Model): Model {
  const config = firstLayersConfig(llm, 0);
  return { config, weights: firstLayers(config, weights) };
}

/** Of a verified folder. */
function readState(folder: string): Checkpoint {
  const path = join(folder, stateName);
  const parsed = stateSchema.safeParse(readJson(path));
  if (!parsed.success) throw new FileError(path, `wanted the state of a run, got: ${zodWords(parsed.error)}.`);
  const groups = entries(folder).flatMap((name) => groupFile.exec(name)?.[1] ?? []);
  const tensors = groups.map((group) => [group, readSafetensors(join(folder, `${group}.safetensors`))] as const);
  return { ...parsed.data, ...readModel(folder), tensors: Object.fromEntries(tensors) };
}

function stepOf(folder: string): number {
  return Number(folder.slice(folder.lastIndexOf("-") + 1));
}

/** Names in a folder, sorted; none if it is no folder. */
function entries(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return [];
    throw error;
  }
}

/** Removes a checkpoint so that a half-removed one never bears its name. */
function remove(folder: string): void {
  const doomed = join(dirname(folder), `${HIDDEN}removing-${folder.slice(folder.lastIndexOf("step-"))}`);
  rmSync(doomed, { recursive: true, force: true });
  try {
    renameSync(folder, doomed);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  rmSync(doomed, { recursive: true });
}

function syncFile(path: string): void {
  const descriptor = openSync(path, "r+");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Makes the names in a folder durable. Windows has no such call and opens no folders. */
function syncFolder(path: string): void {
  if (process.platform === "win32") return;
  const descriptor = openSync(path, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * The predictor of a saved model, if it has one.
 *
 * @param where it was saved, for messages
 * @throws {FileError} if its head is not of the model
 */
export function savedPredictor({ card, llm, predictor }: SavedModel, where: string): PredictorConfig | undefined {
  if (!predictor) return undefined;
  const { numLayers, ffnWidth } = llm.config;
  const backbone = predictor.backbone.config;
  const shapes = new Map([...predictor.head].map(([name, { shape }]) => [name, shape]));
  const path = join(where, "predictor/head.safetensors");
  const read = { backbone, pooling: card.predictorPooling };
  const head = headConfig(path, shapes, { featureWidth: featureWidth(read), numLayers, ffnWidth });
  return { ...read, numLayers, ffnWidth, ...head };
}
