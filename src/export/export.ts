/** Exporting a sub-network as an ordinary small model: a Hugging Face folder, a GGUF file, or both in one folder. */
import { writeFileSync } from "node:fs";
import { join, relative, resolve, sep } from "node:path";
import type { Bundle } from "../bundle/bundle.ts";
import { checkBundleMask } from "../bundle/gather.ts";
import type { WeightFile } from "../bundle/packBundle.ts";
import { OptionError } from "../errors.ts";
import { makeFolder } from "../files.ts";
import { writeGguf } from "../formats/gguf.ts";
import { writeModel } from "../formats/huggingface.ts";
import { blockLength, blockTypes } from "../formats/quantize.ts";
import { describeFiles, IMPORT_RECIPE } from "../manifest.ts";
import type { Mask } from "../mask/mask.ts";
import { maskToJson } from "../mask/maskFile.ts";
import { version } from "../package.ts";
import { type ExportManifest, ggufFileName, writeExportManifest } from "./exportManifest.ts";
import { EXPORT_FORMATS, type ExportFormat, type ExportType } from "./exportTypes.ts";
import { modelCard } from "./modelCard.ts";
import { smallFiles } from "./smallFiles.ts";
import { Subnetwork } from "./subnetwork.ts";
import { type ExportWeights, exportWeights, floatType, WeightProgress, type WeightProgressOptions } from "./weights.ts";

/** How {@link exportSubnetwork} writes a model, and what it says of it. */
export interface ExportOptions
  extends Pick<ExportManifest, "task" | "instruction" | "maskSource">,
    WeightProgressOptions {
  /** Default: both */
  formats?: readonly ExportFormat[] | undefined;
  /** Of the GGUF's weights. Default: "keep", those of the bundle. */
  type?: ExportType | undefined;
  /** Markdown. Default: a card that says which part of which model this is. */
  card?: string | undefined;
}

/**
 * Writes the sub-network of a mask. Memory: one FFN matrix or table of the bundle in float32, and its encoded form.
 *
 * @param outFolder must not exist; it appears whole or not at all
 * @throws {OptionError | ShapeError} if the mask or the type does not fit the bundle, or the folder exists
 * @throws {FileError} if the bundle is damaged
 */
export async function exportSubnetwork(
  bundle: Bundle,
  mask: Mask,
  outFolder: string,
  options: ExportOptions = {},
): Promise<void> {
  const subnetwork = new Subnetwork(bundle, mask);
  const about = aboutExport(subnetwork, outFolder, options);
  const weights = exportWeights(subnetwork, about);
  const progress = new WeightProgress(weights, options);
  await makeFolder(outFolder, "export", async (partial) => {
    const names = ["mask.json"];
    writeFileSync(join(partial, "mask.json"), `${JSON.stringify(maskToJson(mask))}\n`);
    if (weights.hf) names.push(...(await writeFolder(partial, subnetwork, weights.hf, progress)));
    if (weights.gguf) {
      const name = ggufFileName(about.gguf!);
      await writeWeights(join(partial, name), weights.gguf, progress);
      names.push(name);
    }
    const files = await describeFiles(partial, names);
    const card = "README.md";
    writeFileSync(join(partial, card), options.card ?? modelCard({ ...about, files }, bundle));
    writeExportManifest(partial, { ...about, files: { ...files, ...(await describeFiles(partial, [card])) } });
  });
}

/** The manifest of an export, without its files. @throws {OptionError} if formats and type do not go together, or not with the mask */
function aboutExport({ bundle, mask }: Subnetwork, outFolder: string, options: ExportOptions): ExportManifest {
  const { formats = EXPORT_FORMATS, type = "keep", task, instruction, maskSource } = options;
  if (formats.length === 0) throw new OptionError(`export: wanted a format (${EXPORT_FORMATS.join(", ")}), got none.`);
  if (type !== "keep" && !formats.includes("gguf"))
    throw new OptionError(`export: wanted the format gguf with type ${type}, got ${formats.join(", ")} only.`);
  if (formats.includes("gguf")) checkType(bundle, mask, type);
  return {
    format: "ifprune-export",
    version: 1,
    ifprune: version,
    created: new Date().toISOString(),
    source: {
      name: sourceName(bundle),
      path: relative(resolve(outFolder), resolve(bundle.path)).split(sep).join("/"),
      sha256: bundle.hash,
    },
    task,
    instruction,
    maskSource,
    tFfn: mask.tFfn,
    dFfn: mask.dFfn,
    hf: formats.includes("hf") ? floatType(bundle) : undefined,
    gguf: formats.includes("gguf") ? type : undefined,
    files: {},
  };
}

/** Whether the GGUF's rows are whole blocks: those of K and of D values. */
function checkType(bundle: Bundle, mask: Mask, type: ExportType): void {
  if (type === "keep") {
    checkBundleMask(bundle, mask);
    return;
  }
  const { elements } = blockTypes[type];
  if (mask.tFfn % elements !== 0 || bundle.width % elements !== 0) {
    throw new OptionError(
      `export: ${type} wants widths in multiples of ${blockLength}, got ${bundle.width} and t_ffn ${mask.tFfn}. Use F16.`,
    );
  }
}

/** @returns names of the files of a Hugging Face folder */
async function writeFolder(
  folder: string,
  subnetwork: Subnetwork,
  type: NonNullable<ExportWeights["hf"]>,
  progress: WeightProgress,
): Promise<string[]> {
  const read = (name: string) => {
    const weight = subnetwork.read(name);
    progress.advance(weight.data.length * blockTypes[type].bytes);
    return weight;
  };
  const names = await writeModel(folder, subnetwork.config, read, { type });
  for (const [name, text] of smallFiles(subnetwork.bundle)) {
    writeFileSync(join(folder, name), text);
    names.push(name);
  }
  return names;
}

async function writeWeights(
  path: string,
  { metadata, tensors, data }: WeightFile,
  progress: WeightProgress,
): Promise<void> {
  function* counted(): Generator<Uint8Array> {
    for (const bytes of data) {
      yield bytes;
      progress.advance(bytes.length);
    }
  }
  await writeGguf(path, metadata, tensors, counted());
}

/** What an imported model was called, or the recipe that trained it. */
function sourceName({ manifest: { provenance } }: Bundle): string {
  return (provenance.recipe === IMPORT_RECIPE && provenance.data[0]?.name) || provenance.recipe;
}
