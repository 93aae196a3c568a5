/**
 * `ifprune-export.json`: what an export is a part of, by which mask, and the size and hash of every file. It holds what is needed to make the
 * export again, which is how `verify` checks it.
 */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { readJson } from "../json.ts";
import { checkSizes, filesSchema } from "../manifest.ts";
import { zodWords } from "../words.ts";
import { EXPORT_TYPES, type ExportType } from "./exportTypes.ts";

export const exportManifestName = "ifprune-export.json";

const schema = z.strictObject({
  format: z.literal("ifprune-export"),
  version: z.literal(1),
  /** Version of the package that wrote it. */
  ifprune: z.string(),
  /** ISO 8601. */
  created: z.string(),
  source: z.strictObject({
    name: z.string(),
    /** Of the bundle, relative to the export's folder. */
    path: z.string(),
    /** Of the bundle's manifest. */
    sha256: z.string().regex(/^[0-9a-f]{64}$/),
  }),
  /** What the mask was made from, in words; its hash is that of `mask.json` among the files. */
  task: z.string().optional(),
  instruction: z.string().optional(),
  maskSource: z.string().optional(),
  tFfn: z.number().int().positive(),
  dFfn: z.number().int().positive(),
  /** Types of the weights in the Hugging Face folder and in the GGUF, where the export has them. */
  hf: z.enum(["F32", "F16", "BF16"]).optional(),
  gguf: z.enum(EXPORT_TYPES).optional(),
  files: filesSchema,
});

export type ExportManifest = z.infer<typeof schema>;

export function ggufFileName(type: ExportType): string {
  return `model-${type}.gguf`;
}

/** @throws {FileError} if it is missing, of another kind or version, or a file is missing or of another size */
export function readExportManifest(folder: string): ExportManifest {
  const path = join(folder, exportManifestName);
  if (!existsSync(path)) throw new FileError(folder, `wanted an export, got none: there is no ${exportManifestName}.`);
  const parsed = schema.safeParse(readJson(path));
  if (!parsed.success)
    throw new FileError(path, `wanted an export's manifest, got: ${zodWords(parsed.error)}. Is it the right folder?`);
  const manifest = parsed.data;
  const wanted = [
    "mask.json",
    ...(manifest.hf ? ["config.json"] : []),
    ...(manifest.gguf ? [ggufFileName(manifest.gguf)] : []),
  ];
  for (const name of wanted)
    if (!manifest.files[name]) throw new FileError(path, `wanted the file "${name}" in it, got none.`);
  checkSizes(folder, manifest, exportManifestName);
  return manifest;
}

export function writeExportManifest(folder: string, manifest: ExportManifest): void {
  writeFileSync(join(folder, exportManifestName), `${JSON.stringify(schema.parse(manifest), null, 2)}\n`);
}
