/** The weights of an export, made of the bundle and the mask alone: written by `exportSubnetwork`, made again by `verifyExport`. */
import type { Bundle } from "../bundle/bundle.ts";
import { ffnTensors, gatherFfn } from "../bundle/gather.ts";
import { modelFile, type WeightFile, weightFile } from "../bundle/packBundle.ts";
import type { GgufMetadata, GgufTensor } from "../formats/gguf.ts";
import { feedForwardKey } from "../formats/ggufModel.ts";
import { string, uint32 } from "../formats/ggufValues.ts";
import { blockTypes } from "../formats/quantize.ts";
import { countParameters } from "../model/config.ts";
import { familyOf } from "../model/families.ts";
import type { ExportManifest } from "./exportManifest.ts";
import type { ExportType } from "./exportTypes.ts";
import { chatTemplate } from "./smallFiles.ts";
import type { Subnetwork } from "./subnetwork.ts";

/** Weights of an export, in each of its formats. */
export interface ExportWeights {
  /** Type of the matrices of the Hugging Face folder. */
  hf: ExportManifest["hf"];
  gguf: WeightFile | undefined;
  /** Of all weights, as they are stored. */
  bytes: number;
}

export function exportWeights(subnetwork: Subnetwork, about: ExportManifest): ExportWeights {
  const { hf } = about;
  const gguf = about.gguf && ggufFile(subnetwork, about.gguf, about);
  const hfBytes = hf ? countParameters(subnetwork.config) * blockTypes[hf].bytes : 0;
  return { hf, gguf, bytes: hfBytes + (gguf?.bytes ?? 0) };
}

export interface WeightProgressOptions {
  signal?: AbortSignal | undefined;
  /** Bytes of the weights that are done, and of all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Counts the weights of an export, and stops where it is told to. */
export class WeightProgress {
  readonly #total: number;
  readonly #options: WeightProgressOptions;
  #done = 0;

  constructor({ bytes }: ExportWeights, options: WeightProgressOptions) {
    this.#total = bytes;
    this.#options = options;
  }

  /** Called with each piece. */
  advance(bytes: number): void {
    this.#options.signal?.throwIfAborted();
    this.#done += bytes;
    this.#options.onProgress?.(this.#done, this.#total);
  }
}

/**
 * What the matrices of a Hugging Face folder are stored in: the bundle's type where it is a float's, else F16, or BF16 where activations
 * overflow F16: folders are computed in the type that they are stored in.
 */
export function floatType({ base, layouts, config }: Bundle): "F32" | "F16" | "BF16" {
  const matrices = [...base.tensors.values()].filter(({ shape }) => shape.length > 1).map(({ type }) => type);
  const types = new Set([...matrices, ...layouts.flatMap(({ gate, up, down }) => [gate, up, down])]);
  const [type] = types;
  if (types.size === 1 && (type === "F32" || type === "BF16")) return type;
  return familyOf(config).overflowsF16 ? "BF16" : "F16";
}

/** The sub-network as one GGUF file. "keep": the bytes that `openSubnetwork` makes; else the float form, encoded. */
function ggufFile(subnetwork: Subnetwork, type: ExportType, about: ExportManifest): WeightFile {
  const { bundle } = subnetwork;
  const { tensors, data } = type === "keep" ? keptFile(subnetwork) : modelFile(subnetwork, bundle.metadata, type);
  const metadata: GgufMetadata = new Map(bundle.metadata);
  const { source, tFfn, dFfn } = about;
  metadata.set(feedForwardKey(bundle.config.family), uint32(tFfn));
  const template = chatTemplate(bundle);
  if (template !== undefined) metadata.set("tokenizer.chat_template", string(template));
  metadata.set("general.name", string(title(about)));
  metadata.set("general.description", string(describe(about)));
  metadata.set("ifprune.source.sha256", string(source.sha256));
  metadata.set("ifprune.t_ffn", uint32(tFfn));
  metadata.set("ifprune.d_ffn", uint32(dFfn));
  const asked = about.task ?? about.instruction;
  if (asked !== undefined) metadata.set("ifprune.task", string(asked));
  return weightFile(metadata, tensors, data);
}

/** What an export is called. */
export function title({ source, tFfn, dFfn }: ExportManifest): string {
  return tFfn === dFfn ? source.name : `${source.name}, ${tFfn} of ${dFfn} FFN channels`;
}

/** One sentence of what an export is. */
export function describe({ source, tFfn, dFfn, task, instruction }: ExportManifest): string {
  const asked = task ?? instruction;
  if (tFfn === dFfn) return `${source.name}, as it is, written by ifprune.`;
  const purpose = asked === undefined ? "a given mask" : `"${asked.replace(/\s+/g, " ").trim()}"`;
  return `The part of ${source.name} that ifprune kept for ${purpose}: ${tFfn} of ${dFfn} FFN channels in each layer.`;
}

function keptFile({ bundle, mask }: Subnetwork): { tensors: GgufTensor[]; data: Iterable<Uint8Array> } {
  const { base } = bundle;
  const shared = [...base.tensors.values()];
  return {
    tensors: [...shared.map(({ name, type, shape }) => ({ name, type, shape })), ...ffnTensors(bundle, mask.tFfn)],
    data: (function* () {
      for (const tensor of shared) yield* base.chunks(tensor);
      yield* gatherFfn(bundle, mask);
    })(),
  };
}
