/** Checking an export: its files against its manifest, its models by opening them, and all its weights against the bundle that it was made of. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { Bundle } from "../bundle/bundle.ts";
import type { WeightFile } from "../bundle/packBundle.ts";
import { FileError } from "../errors.ts";
import { GgufFile, tensorBytes } from "../formats/gguf.ts";
import { GgufModel } from "../formats/ggufModel.ts";
import { ModelFolder } from "../formats/huggingface.ts";
import { encodeWeights } from "../formats/quantize.ts";
import type { ElementType } from "../formats/safetensors.ts";
import { readJson, readText } from "../json.ts";
import { manifestName, verifyFiles } from "../manifest.ts";
import type { Mask } from "../mask/mask.ts";
import { maskFromJson } from "../mask/maskFile.ts";
import { type ModelConfig, parameterShapes } from "../model/config.ts";
import { exportManifestName, ggufFileName, readExportManifest } from "./exportManifest.ts";
import { smallFiles } from "./smallFiles.ts";
import { Subnetwork } from "./subnetwork.ts";
import { exportWeights, floatType, WeightProgress, type WeightProgressOptions } from "./weights.ts";

/** What {@link verifyExport} found to be right. */
export interface Verification {
  /** Whose size and hash are those of the manifest. */
  files: number;
  /** Models of the export that open and have the right shapes: "hf", "gguf". */
  models: string[];
  /** The bundle that all weights were compared with, byte for byte. Absent: it was not found, so they were not. */
  source?: { path: string; tensors: number };
}

/** Progress is that of comparing with the source. */
export interface VerifyOptions extends WeightProgressOptions {
  /** Folder of the source bundle. Default: where it was at the time of the export, if it is there. */
  bundle?: string | undefined;
}

/**
 * @param folder made by `exportSubnetwork`
 * @throws {FileError} at the first difference, with the file or the tensor that differs
 */
export async function verifyExport(folder: string, options: VerifyOptions = {}): Promise<Verification> {
  const about = readExportManifest(folder);
  await verifyFiles(folder, about);
  const mask = maskFromJson(readJson(join(folder, "mask.json")), join(folder, "mask.json"));
  if (mask.tFfn !== about.tFfn || mask.dFfn !== about.dFfn)
    throw differs(join(folder, "mask.json"), `t_ffn ${about.tFfn} of ${about.dFfn}`, `${mask.tFfn} of ${mask.dFfn}`);

  const models: string[] = [];
  if (about.hf) {
    using model = new ModelFolder(folder);
    checkShape(model, mask);
    models.push("hf");
  }
  const ggufPath = about.gguf && join(folder, ggufFileName(about.gguf));
  if (ggufPath) {
    using model = new GgufModel(ggufPath);
    checkShape(model, mask);
    models.push("gguf");
  }
  const checked = { files: Object.keys(about.files).length, models };

  const recorded = join(folder, about.source.path);
  const path = options.bundle ?? (existsSync(join(recorded, manifestName)) ? recorded : undefined);
  if (path === undefined) return checked;
  using bundle = new Bundle(path);
  if (bundle.hash !== about.source.sha256) {
    throw new FileError(
      join(path, manifestName),
      `wanted the bundle that the export was made of, sha256 ${about.source.sha256}, got ${bundle.hash}. Give the right one with --source.`,
    );
  }
  await verifyFiles(bundle.path, bundle.manifest); // all of it, whatever is known of it
  const subnetwork = new Subnetwork(bundle, mask);
  const weights = exportWeights(subnetwork, about);
  const progress = new WeightProgress(weights, options);
  const advance = async (bytes: number) => {
    await setImmediate(); // all else is synchronous: let signals in
    progress.advance(bytes);
  };
  let tensors = 0;
  if (weights.hf) tensors += await compareFolder(folder, subnetwork, weights.hf, advance);
  if (weights.gguf && ggufPath) tensors += await compareGguf(ggufPath, weights.gguf, advance);
  return { ...checked, source: { path, tensors } };
}

/** Called with each piece that is to be compared. */
type Advance = (bytes: number) => Promise<void>;

function differs(path: string, wanted: string, got: string): FileError {
  return new FileError(path, `wanted ${wanted}, got ${got}. The export is not what ${exportManifestName} says.`);
}

function checkShape({ path, config }: { path: string; config: ModelConfig }, { tFfn, layers }: Mask): void {
  if (config.ffnWidth !== tFfn || config.numLayers !== layers.length)
    throw differs(path, `${layers.length} layers of FFN width ${tFfn}`, `${config.numLayers} of ${config.ffnWidth}`);
}

/** @returns the number of tensors compared */
async function compareFolder(
  folder: string,
  subnetwork: Subnetwork,
  hf: ElementType,
  advance: Advance,
): Promise<number> {
  const { bundle } = subnetwork;
  const type = floatType(bundle);
  if (hf !== type) throw differs(join(folder, exportManifestName), `Hugging Face weights in ${type}`, hf);
  for (const [name, text] of smallFiles(bundle)) {
    if (readText(join(folder, name)) !== text) throw differs(join(folder, name), "the source's text", "another");
  }
  using model = new ModelFolder(folder);
  const wantedConfig = subnetwork.config;
  for (const key of new Set([...Object.keys(wantedConfig), ...Object.keys(model.config)]) as Set<keyof ModelConfig>) {
    const [wanted, got] = [wantedConfig[key], model.config[key]];
    if (!isDeepStrictEqual(wanted, got))
      throw differs(join(folder, "config.json"), `"${key}" ${JSON.stringify(wanted)}`, JSON.stringify(got));
  }
  const shapes = parameterShapes(wantedConfig);
  for (const [name, shape] of shapes) {
    if (model.type(name) !== type) throw differs(folder, `tensor "${name}" ${type}`, model.type(name));
    let offset = 0;
    for (const rows of rowRanges(name, shape)) {
      const wanted = encodeWeights(subnetwork.read(name, rows).data, type);
      await advance(wanted.length);
      compareBytes(folder, name, wanted, encodeWeights(model.read(name, rows).data, type), offset);
      offset += wanted.length;
    }
  }
  return shapes.size;
}

/** Values of a table that are compared at a time. */
const chunkValues = 1 << 24;

/** Tables, which may be larger than all else, in pieces; undefined is all of a parameter. */
function rowRanges(name: string, [rows, width]: readonly number[]): ({ from: number; to: number } | undefined)[] {
  if (name !== "model.embed_tokens.weight" && name !== "lm_head.weight") return [undefined];
  const step = Math.max(1, Math.floor(chunkValues / width!));
  return Array.from({ length: Math.ceil(rows! / step) }, (_, i) => ({
    from: i * step,
    to: Math.min((i + 1) * step, rows!),
  }));
}

/** @returns the number of tensors compared */
async function compareGguf(path: string, wanted: WeightFile, advance: Advance): Promise<number> {
  using file = new GgufFile(path);
  for (const key of new Set([...wanted.metadata.keys(), ...file.metadata.keys()])) {
    if (!isDeepStrictEqual(wanted.metadata.get(key), file.metadata.get(key)))
      throw differs(path, `the source's metadata "${key}"`, file.metadata.has(key) ? "another" : "none");
  }
  const extra = [...file.tensors.keys()].find((name) => !wanted.tensors.some((tensor) => tensor.name === name));
  if (extra !== undefined) throw differs(path, "the sub-network's tensors alone", `"${extra}" too`);
  const pieces = wanted.data[Symbol.iterator]();
  for (const tensor of wanted.tensors) {
    const { name, type, shape } = tensor;
    const got = file.tensor(name);
    if (got.type !== type || got.shape.join() !== shape.join())
      throw differs(path, `tensor "${name}" ${type} [${shape.join(", ")}]`, `${got.type} [${got.shape.join(", ")}]`);
    for (let offset = 0; offset < tensorBytes(tensor)!; ) {
      const piece: Uint8Array = pieces.next().value;
      await advance(piece.length);
      const bytes = new Uint8Array(piece.length);
      file.readInto(bytes, got, offset);
      compareBytes(path, name, piece, bytes, offset);
      offset += piece.length;
    }
  }
  return wanted.tensors.length;
}

/** @param offset of the bytes within the tensor */
function compareBytes(path: string, name: string, wanted: Uint8Array, got: Uint8Array, offset: number): void {
  if (Buffer.compare(wanted, got) === 0) return;
  const at = wanted.findIndex((byte, i) => byte !== got[i]);
  throw differs(
    path,
    `tensor "${name}" as the source bundle and mask.json give it`,
    `another byte at ${offset + at} of it`,
  );
}
