/**
 * Hugging Face model folders: `config.json` (`huggingfaceConfig.ts`) beside `model.safetensors`, or beside several files and
 * `model.safetensors.index.json`, which says what is where.
 */
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { makeFolders } from "../files.ts";
import { readJson } from "../json.ts";
import { type ModelConfig, parameterShapes, type Weight, type Weights } from "../model/config.ts";
import type { ModelSource } from "../model/source.ts";
import { zodWords } from "../words.ts";
import { readConfigFile, writeModelConfig } from "./huggingfaceConfig.ts";
import { encodeWeights } from "./quantize.ts";
import { type ElementType, SafetensorsFile, shapeBytes, writeTensors } from "./safetensors.ts";
import { checkTensorNames } from "./tensorNames.ts";

export interface Model {
  config: ModelConfig;
  weights: Weights;
}

/** Where a model's weights are: in one file, or in those that an index names. */
export const WEIGHTS_FILE = "model.safetensors";
export const WEIGHTS_INDEX = `${WEIGHTS_FILE}.index.json`;

/** A model folder whose weights are read one by one. Holds file descriptors until disposed. */
export class ModelFolder implements ModelSource {
  readonly config: ModelConfig;
  /** What was left out, for people. */
  readonly notes: string[];
  readonly #files: Map<string, SafetensorsFile>;
  /** Where each parameter is. */
  readonly #places: Map<string, Place>;

  /** @throws {FileError} if a file is missing or corrupt, or the tensors are not exactly those that the config asks for */
  constructor(readonly path: string) {
    const { config, isMultimodal, notes } = readConfigFile(path);
    this.config = config;
    this.#files = new Map();
    try {
      const tensors = openWeights(path, this.#files);
      const seeing = isMultimodal ? [...tensors.keys()].filter((name) => isVision.test(name)) : [];
      for (const name of seeing) tensors.delete(name);
      const what = `${seeing.length} tensors that look at images: only the text part is read.`;
      this.notes = seeing.length > 0 ? [...notes, what] : notes;
      this.#places = placeParameters(path, config, isMultimodal ? textNames(tensors) : tensors);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  read(name: string, rows?: { from: number; to: number }): Weight {
    const place = this.#place(name);
    return place.file.read(place.name, rows);
  }

  /** The type that a parameter is stored in. */
  type(name: string): ElementType {
    const place = this.#place(name);
    return place.file.type(place.name);
  }

  #place(name: string): Place {
    const place = this.#places.get(name);
    if (!place) throw new Error(`internal: no parameter "${name}"`);
    return place;
  }

  [Symbol.dispose](): void {
    for (const file of this.#files.values()) file[Symbol.dispose]();
  }
}

/** A tensor's file and its name there. */
interface Place {
  file: SafetensorsFile;
  name: string;
}

/** Of {@link WEIGHTS_INDEX}, which names every tensor: 10 times that of the largest models that we compute. */
const maxIndexBytes = 1 << 22;

const indexSchema = z.object({
  // zod leaves a key of this name out of records, which would hide it
  weight_map: z.custom<Record<string, string>>(
    (value) =>
      typeof value === "object" &&
      value !== null &&
      Object.entries(value).every(([name, file]) => name !== "__proto__" && typeof file === "string"),
    "wanted names of tensors -> names of files",
  ),
});

/** The file of each tensor, as an index says. @throws {FileError} if it is none, or names files of other folders or kinds */
export function readWeightsIndex(path: string): [tensor: string, file: string][] {
  const parsed = indexSchema.safeParse(readJson(path, maxIndexBytes));
  if (!parsed.success) throw new FileError(path, `${zodWords(parsed.error)}. Is the download complete?`);
  const places = Object.entries(parsed.data.weight_map);
  for (const [name, file] of places)
    if (file !== basename(file) || !/^[^\\/]+\.safetensors$/.test(file))
      throw new FileError(path, `tensor "${name}": wanted a .safetensors file of this folder, got "${file}".`);
  return places;
}

export const isPickle = (name: string): boolean => /\.(bin|pt|pth|ckpt)$/.test(name);

export const NO_PICKLES =
  "Such files are Python pickles, which can run code when they are opened, so they are never read";

/** Opens a folder's weight files into `files`. @returns where each tensor is, in the order of the files */
function openWeights(folder: string, files: Map<string, SafetensorsFile>): Map<string, Place> {
  const open = (name: string) => {
    const file = files.get(name) ?? new SafetensorsFile(join(folder, name));
    files.set(name, file);
    return file;
  };
  if (existsSync(join(folder, WEIGHTS_FILE))) {
    const file = open(WEIGHTS_FILE);
    return new Map([...file.shapes.keys()].map((name) => [name, { file, name }]));
  }
  const path = join(folder, WEIGHTS_INDEX);
  if (!existsSync(path)) throw new FileError(folder, withoutSafetensors(folder));
  const places = new Map<string, Place>();
  for (const [name, fileName] of readWeightsIndex(path)) {
    const file = open(fileName);
    if (!file.shapes.has(name))
      throw new FileError(file.path, `wanted tensor "${name}", as ${WEIGHTS_INDEX} says, got none of that name.`);
    places.set(name, { file, name });
  }
  return places;
}

function withoutSafetensors(folder: string): string {
  const pickle = existsSync(folder) && readdirSync(folder).find(isPickle);
  if (!pickle) return `wanted ${WEIGHTS_FILE} or ${WEIGHTS_INDEX}, got neither. Is the download complete?`;
  return `wanted weights as .safetensors, got "${pickle}". ${NO_PICKLES}: get the model's safetensors, or save it with transformers' save_pretrained.`;
}

const isVision = /^(model\.)?(vision_tower|multi_modal_projector)\./;

/** Tensors of a model that also sees, by the names that its text part has alone. */
function textNames(tensors: Map<string, Place>): Map<string, Place> {
  return new Map(
    [...tensors].map(([name, place]) => [
      name.replace(/^language_model\./, "").replace(/^model\.language_model\./, "model."),
      place,
    ]),
  );
}

/** @throws {FileError} if the tensors are not those of the config */
function placeParameters(folder: string, config: ModelConfig, tensors: Map<string, Place>): Map<string, Place> {
  const wanted = parameterShapes(config);
  // A tied head may be stored beside the embedding all the same; old checkpoints have RoPE's frequencies, which follow from the config.
  const isIgnored = (name: string) =>
    (config.tieEmbeddings && name === "lm_head.weight") || name.endsWith("rotary_emb.inv_freq");
  const what = { tensors: "its config.json", hint: "Do the two belong together?" };
  checkTensorNames(folder, { wanted, got: tensors, isIgnored }, what);
  const places = new Map<string, Place>();
  for (const [name, shape] of wanted) {
    const place = tensors.get(name)!;
    place.file.check(place.name);
    const stored = place.file.shapes.get(place.name)!;
    if (stored.length !== shape.length || stored.some((n, i) => n !== shape[i])) {
      throw new FileError(
        place.file.path,
        `tensor "${place.name}": wanted [${shape.join(", ")}], got [${stored.join(", ")}]. Does config.json belong to it?`,
      );
    }
    places.set(name, place);
  }
  return places;
}

/** All of a model folder. Memory: 4 bytes per parameter. @throws {FileError} as {@link ModelFolder} */
export function readModelFolder(folder: string): Model {
  using model = new ModelFolder(folder);
  const names = [...parameterShapes(model.config).keys()];
  return { config: model.config, weights: new Map(names.map((name) => [name, model.read(name)])) };
}

/** Writes `config.json` and a float32 `model.safetensors` into `folder`, which is made if need be. Not atomic. */
export function writeModelFolder(folder: string, { config, weights }: Model): void {
  const { steps } = modelFiles(folder, config, (name) => weights.get(name)!, { type: "F32", maxShardBytes: Infinity });
  while (!steps.next().done);
}

export interface WriteModelOptions {
  type: ElementType;
  /** A file grows no larger than this, but for a tensor that does alone. Default: 5 GB, as transformers'. */
  maxShardBytes?: number | undefined;
}

/**
 * Writes a model folder, parameter by parameter. Not atomic.
 *
 * @param folder is made if need be
 * @param read gives each parameter of the config once; memory is that for one of them
 * @returns the names of the files, `config.json` among them
 */
export async function writeModel(
  folder: string,
  config: ModelConfig,
  read: (name: string) => Weight,
  { type, maxShardBytes = 5e9 }: WriteModelOptions,
): Promise<string[]> {
  const { names, steps } = modelFiles(folder, config, read, { type, maxShardBytes });
  while (!steps.next().done) await setImmediate(); // all else is synchronous: let others in between tensors
  return names;
}

const torchTypes = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;

/** The files of a model folder, and a generator that writes them. */
function modelFiles(
  folder: string,
  config: ModelConfig,
  read: (name: string) => Weight,
  { type, maxShardBytes }: { type: ElementType; maxShardBytes: number },
): { names: string[]; steps: Generator<void> } {
  const shards: { name: string; shape: readonly number[]; type: ElementType }[][] = [[]];
  let [total, inShard] = [0, 0];
  for (const [name, shape] of parameterShapes(config)) {
    const bytes = shapeBytes(shape, type);
    if (inShard > 0 && inShard + bytes > maxShardBytes) {
      shards.push([]);
      inShard = 0;
    }
    shards.at(-1)!.push({ name, shape, type });
    inShard += bytes;
    total += bytes;
  }
  const digits = (n: number) => String(n).padStart(5, "0");
  const fileName = (shard: number) =>
    shards.length === 1 ? WEIGHTS_FILE : `model-${digits(shard + 1)}-of-${digits(shards.length)}.safetensors`;
  const names = [
    "config.json",
    ...shards.map((_, shard) => fileName(shard)),
    ...(shards.length > 1 ? [WEIGHTS_INDEX] : []),
  ];
  function* steps() {
    makeFolders(folder);
    writeModelConfig(folder, config, torchTypes[type]);
    for (const [shard, tensors] of shards.entries())
      yield* writeTensors(join(folder, fileName(shard)), tensors, (name) => encodeWeights(read(name).data, type));
    if (shards.length === 1) return;
    const map = Object.fromEntries(
      shards.flatMap((tensors, shard) => tensors.map(({ name }) => [name, fileName(shard)])),
    );
    const json = { metadata: { total_size: total }, weight_map: map };
    writeFileSync(join(folder, WEIGHTS_INDEX), `${JSON.stringify(json, null, 2)}\n`);
  }
  return { names, steps: steps() };
}
