/** Exporting a sub-network as an ordinary small model: a Hugging Face folder, a GGUF file, or both in one folder. */
import { writeFileSync } from "node:fs";
import { join, relative, resolve, sep } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import type { Bundle } from "../bundle/bundle.ts";
import { checkBundleMask } from "../bundle/gather.ts";
import { OptionError } from "../errors.ts";
import { makeFolder } from "../files.ts";
import { writeGguf } from "../formats/gguf.ts";
import { writeModel } from "../formats/huggingface.ts";
import { blockLength, blockTypes } from "../formats/quantize.ts";
import { describeFiles } from "../manifest.ts";
import type { Mask } from "../mask/mask.ts";
import { maskToJson } from "../mask/maskFile.ts";
import { countParameters } from "../model/config.ts";
import { floatType, ggufFile, smallFiles } from "./contents.ts";
import { type ExportManifest, type ExportType, ggufFileName, writeExportManifest } from "./manifest.ts";
import { modelCard } from "./modelCard.ts";
import { Subnetwork } from "./subnetwork.ts";

export const EXPORT_FORMATS = ["hf", "gguf"] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

export interface ExportOptions extends Pick<ExportManifest, "task" | "instruction" | "maskSource"> {
  /** Default: both */
  formats?: readonly ExportFormat[];
  /** Of the GGUF's weights. Default: "keep", those of the bundle. */
  type?: ExportType | undefined;
  signal?: AbortSignal | undefined;
  /** Bytes of the weights that are written, and of all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
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
  const { formats = EXPORT_FORMATS, type = "keep", task, instruction, maskSource, signal, onProgress } = options;
  if (formats.length === 0) throw new OptionError(`export: wanted a format (${EXPORT_FORMATS.join(", ")}), got none.`);
  if (type !== "keep" && !formats.includes("gguf"))
    throw new OptionError(`export: wanted the format gguf with type ${type}, got ${formats.join(", ")} only.`);
  const subnetwork = new Subnetwork(bundle, mask);
  const { config } = subnetwork;
  const hf = formats.includes("hf") ? floatType(bundle) : undefined;
  if (formats.includes("gguf")) checkType(bundle, mask, type);

  const about: ExportManifest = {
    format: "ifprune-export",
    version: 1,
    ifprune: packageJson.version,
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
    hf,
    gguf: formats.includes("gguf") ? type : undefined,
    files: {},
  };
  const gguf = about.gguf && ggufFile(subnetwork, about.gguf, about);
  const total = (hf ? countParameters(config) * blockTypes[hf].bytes : 0) + (gguf?.bytes ?? 0);
  let done = 0;
  const advance = (bytes: number) => {
    done += bytes;
    onProgress?.(done, total);
  };

  await makeFolder(outFolder, "export", async (partial) => {
    const names = ["mask.json"];
    writeFileSync(join(partial, "mask.json"), `${JSON.stringify(maskToJson(mask))}\n`);
    if (hf) {
      const read = (name: string) => {
        signal?.throwIfAborted();
        const weight = subnetwork.read(name);
        advance(weight.data.length * blockTypes[hf].bytes);
        return weight;
      };
      names.push(...(await writeModel(partial, config, read, { type: hf })));
      for (const [name, text] of smallFiles(bundle)) {
        writeFileSync(join(partial, name), text);
        names.push(name);
      }
    }
    if (gguf) {
      const name = ggufFileName(type);
      await writeGguf(join(partial, name), gguf.metadata, gguf.tensors, counted(gguf.data));
      names.push(name);
    }
    const files = await describeFiles(partial, names);
    const card = "README.md";
    writeFileSync(join(partial, card), modelCard({ ...about, files }, bundle));
    writeExportManifest(partial, { ...about, files: { ...files, ...(await describeFiles(partial, [card])) } });
  });

  function* counted(data: Iterable<Uint8Array>): Generator<Uint8Array> {
    for (const bytes of data) {
      signal?.throwIfAborted();
      yield bytes;
      advance(bytes.length);
    }
  }
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

/** What an imported model was called, or the recipe that trained it. */
function sourceName({ manifest: { provenance } }: Bundle): string {
  return (provenance.recipe === "import" && provenance.data[0]?.name) || provenance.recipe;
}
