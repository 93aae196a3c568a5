/**
 * `ifprune.json`: what a checkpoint or bundle folder is, how it is to be used, where it comes from, and the size and hash of
 * every file in it. It is written last, so a folder with a manifest is a whole one.
 */
import { createHash } from "node:crypto";
import { closeSync, createReadStream, existsSync, fsyncSync, openSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { FileError } from "./errors.ts";
import { makeFile, writeFully } from "./files.ts";
import { readJson } from "./json.ts";
import { unreadable } from "./refusals.ts";
import { zodWords } from "./words.ts";

export const manifestName = "ifprune.json";

const tokenId = z.number().int().nonnegative();
const fileSchema = z.strictObject({
  bytes: z.number().int().nonnegative(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

/** By path within the folder, with "/" between its parts. */
export const filesSchema = z.record(
  z.string().regex(/^(?!\.{1,2}(\/|$))[\w.-]+(\/(?!\.{1,2}(\/|$))[\w.-]+)*$/),
  fileSchema,
);

/** What the manifest of an imported model names as its recipe. */
export const IMPORT_RECIPE = "import";

const common = {
  version: z.literal(1),
  /** Channels kept per layer. Absent, with `epsilon`: there is no predictor, the model runs dense or under a given mask. */
  tFfn: z.number().int().positive().optional(),
  /** Temperature of SoftTopK. */
  epsilon: z.number().positive().optional(),
  /** Whether kept channels are scaled by λ, as in training, or not at all. */
  lambda: z.enum(["soft", "hard"]).default("soft"),
  /** The part of the user's text that the predictor was trained to read. */
  predictorInput: z.enum(["prompt", "instruction", "both"]).default("prompt"),
  /** What of that text's tokens is the predictor's feature: the last one, the mean over all, or both. */
  predictorPooling: z.enum(["last", "mean", "both"]).default("last"),
  /**
   * What the LLM reads: BOS, then this text with the prompt in place; a bundle with `chat_template.jinja` is prompted with that instead. The
   * predictor reads BOS and the raw prompt.
   */
  promptTemplate: z.string().refine((text) => text.split("{prompt}").length === 2, 'wanted "{prompt}" once'),
  /** Absent: sequences begin without. */
  bosId: tokenId.optional(),
  eosId: tokenId,
  provenance: z.strictObject({
    /** The recipe's name, or "import". */
    recipe: z.string(),
    /** Absent where it is not known. */
    seed: z.number().int().optional(),
    data: z.array(z.strictObject({ name: z.string(), licence: z.string() })),
    /** ISO 8601. */
    created: z.string(),
  }),
  files: filesSchema,
};

/** What masks that need no training cost a model, as it was measured on import: see `src/answer/measure.ts`. */
const qualitySchema = z.strictObject({
  /** That were answered, and tokens of the answers. */
  prompts: z.number().int().positive(),
  tokens: z.number().int().positive(),
  rows: z.array(
    z.strictObject({
      source: z.string(),
      tFfn: z.number().int().positive(),
      /** Nats that a token of the dense model's own answers loses, in the mean: log-probability dense − under the mask. */
      loss: z.number(),
      /** Share of these tokens that are the likeliest under the mask too. */
      agreement: z.number().min(0).max(1),
    }),
  ),
});
/** What masks that need no training cost a model, in prompts, tokens, and rows of source and size. */
export type Quality = z.infer<typeof qualitySchema>;

const schemas = {
  "ifprune-checkpoint": z.strictObject({ format: z.literal("ifprune-checkpoint"), ...common }),
  "ifprune-bundle": z.strictObject({
    format: z.literal("ifprune-bundle"),
    ...common,
    /** Channels that masks without training keep or drop together, in a bundle whose channels were grouped for it. */
    block: z.number().int().positive().optional(),
    quality: qualitySchema.optional(),
  }),
};

export type ManifestFormat = keyof typeof schemas;
export type Manifest<Format extends ManifestFormat> = z.infer<(typeof schemas)[Format]>;
export type CheckpointManifest = Manifest<"ifprune-checkpoint">;
export type BundleManifest = Manifest<"ifprune-bundle">;

/**
 * Reads a folder's manifest and checks that its files are there with their sizes. Hashes cost a pass over the data: see
 * {@link verifyFiles}.
 *
 * @throws {FileError} if the manifest is missing, of another kind or version, or a file is missing or of another size
 */
export function readManifest<Format extends ManifestFormat>(folder: string, format: Format): Manifest<Format> {
  const manifest = parseManifest(folder, format);
  checkSizes(folder, manifest);
  return manifest;
}

/** The manifest alone, where its files are still to come. @throws {FileError} if it is missing, or of another kind or version */
export function parseManifest<Format extends ManifestFormat>(folder: string, format: Format): Manifest<Format> {
  const path = join(folder, manifestName);
  const wanted = format.replace("ifprune-", "");
  if (!existsSync(path)) throw new FileError(folder, `wanted a ${wanted} folder, got ${whatIs(folder)}`);
  const other = formatOfFolder(folder);
  if (other !== undefined && other !== format)
    throw new FileError(folder, `wanted a ${wanted}, got a ${other.replace("ifprune-", "")}. ${instead[other]}`);
  const parsed = schemas[format].safeParse(readJson(path));
  if (!parsed.success) {
    throw new FileError(
      path,
      `wanted the manifest of a ${wanted}, got: ${zodWords(parsed.error)}. Is it the right folder?`,
    );
  }
  return parsed.data as Manifest<Format>;
}

/** What to do with a folder of the other kind. */
export const instead: Record<ManifestFormat, string> = {
  "ifprune-checkpoint": "`ifprune pack` makes a bundle of it.",
  "ifprune-bundle": "Give the checkpoint or run that it was packed from, or import its source with --checkpoint.",
};

/**
 * The kind of a folder of ours, as its manifest says, which may be flawed otherwise; `undefined` of all else.
 *
 * @throws {FileError} if there is a manifest that is not JSON
 */
export function formatOfFolder(folder: string): ManifestFormat | undefined {
  const path = join(folder, manifestName);
  if (!existsSync(path)) return undefined;
  const { data } = formatSchema.safeParse(readJson(path));
  return data?.format;
}

const formatSchema = z.object({ format: z.enum(["ifprune-checkpoint", "ifprune-bundle"]) });

/** Identity of a folder: the hash of its manifest, which holds the hashes of all files. What was measured of a bundle is no part of it. */
export function manifestHash(folder: string): string {
  const { quality: _, ...manifest } = readJson(join(folder, manifestName)) as BundleManifest;
  return createHash("sha256").update(textOf(manifest)).digest("hex");
}

/** What there is where a folder of ours was wanted, and what to do. */
export function whatIs(folder: string): string {
  const stat = statSync(folder, { throwIfNoEntry: false });
  if (!stat) return "nothing of that name. Check the path.";
  if (!stat.isDirectory()) return "a file. Of a GGUF file `ifprune import` makes a bundle.";
  if (existsSync(join(folder, "config.json"))) return "a Hugging Face folder. `ifprune import` makes a bundle of it.";
  if (existsSync(join(folder, "checkpoints"))) return "a run. `ifprune pack` makes a bundle of its newest checkpoint.";
  return `a folder without ${manifestName}. Is it another folder?`;
}

/**
 * @param name of the manifest, for the message
 * @throws {FileError} for the first file that is missing or of another size than the manifest's
 */
export function checkSizes(folder: string, { files }: Pick<CheckpointManifest, "files">, name = manifestName): void {
  for (const [path, { bytes }] of Object.entries(files)) {
    const file = join(folder, path);
    const size = sizeOf(file);
    if (size !== bytes)
      throw new FileError(file, `wanted ${bytes} bytes as in ${name}, got ${size ?? "no file"}. Is the copy complete?`);
  }
}

/** Nothing for what is no file, and for names that no file can have. */
function sizeOf(path: string): number | undefined {
  try {
    const stat = statSync(path);
    return stat.isFile() ? stat.size : undefined;
  } catch {
    return undefined;
  }
}

/** How files are read to be verified: bytes of them, and of all. */
export interface VerifyFilesOptions {
  signal?: AbortSignal | undefined;
  /** Bytes that were read, and all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** @throws {FileError} for the first file whose hash is not the manifest's */
export async function verifyFiles(
  folder: string,
  { files }: Pick<CheckpointManifest, "files">,
  { signal, onProgress }: VerifyFilesOptions = {},
): Promise<void> {
  const total = Object.values(files).reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  for (const [name, { sha256 }] of Object.entries(files)) {
    const path = join(folder, name);
    const got = await hashFile(path, (bytes) => {
      signal?.throwIfAborted();
      done += bytes;
      onProgress?.(done, total);
    });
    if (got !== sha256)
      throw new FileError(
        path,
        `wanted sha256 ${sha256}, got ${got}. The file was changed or damaged: make or pull it again.`,
      );
  }
}

/** The manifest's `files` entry for these paths within `folder`. @throws the reason of `signal` */
export async function describeFiles(
  folder: string,
  names: readonly string[],
  signal?: AbortSignal,
): Promise<CheckpointManifest["files"]> {
  const files: CheckpointManifest["files"] = {};
  for (const name of names) {
    const path = join(folder, name);
    files[name] = { bytes: statSync(path).size, sha256: await hashFile(path, () => signal?.throwIfAborted()) };
  }
  return files;
}

/** What `loadTokenizer` has to know of a model. */
export function boundaryOf(
  { bosId, eosId }: Pick<CheckpointManifest, "bosId" | "eosId">,
  { vocabSize }: { vocabSize: number },
) {
  return { bosId, eosIds: [eosId], vocabSize };
}

/** Adds to the manifest of a bundle what was measured of it; it is there whole or not at all. The bundle keeps its hash. */
export function addQuality(folder: string, quality: Quality): void {
  readManifest(folder, "ifprune-bundle");
  const path = join(folder, manifestName);
  const manifest = { ...(readJson(path) as BundleManifest), quality: qualitySchema.parse(quality) }; // all else as it stands there
  makeFile(path, (partial) => writeText(partial, textOf(manifest)));
}

/** Writes a manifest, synced to the disk. */
export function writeManifest(folder: string, manifest: CheckpointManifest | BundleManifest): void {
  writeText(join(folder, manifestName), textOf(schemas[manifest.format].parse(manifest)));
}

const textOf = (manifest: object) => `${JSON.stringify(manifest, null, 2)}\n`;

function writeText(path: string, text: string): void {
  const descriptor = openSync(path, "w");
  try {
    writeFully(descriptor, Buffer.from(text));
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Bytes that are hashed at a time, in about a millisecond. */
const hashedBytes = 1 << 20;

/** SHA-256 of a file, hexadecimal. @throws {FileError} if it cannot be read */
export async function hashFile(path: string, onBytes: (bytes: number) => void = () => {}): Promise<string> {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: hashedBytes })) {
      hash.update(chunk as Buffer);
      onBytes((chunk as Buffer).length);
    }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).syscall === undefined) throw cause;
    throw unreadable(path, cause);
  }
  return hash.digest("hex");
}
