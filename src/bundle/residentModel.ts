/**
 * The resident form of a bundle: one model that runs every mask of whole blocks, so that all masks share one copy of the weights and a new one costs
 * a context instead of a gather. To llama.cpp it is a mixture of experts. Each block of FFN channels is an expert, and as many as a mask keeps are used;
 * which ones is said by a LoRA adapter on the routers (`maskAdapter.ts`), whose own weights are 0.
 *
 * Kept blocks must get weight 1, whatever the token. A channel is added to the residual stream that is the same for all tokens: a bias of the first
 * attention writes it, nothing else does, and the norm before each FFN scales it up. The adapter takes it alone, so a router gives equal logits to all
 * kept blocks and lower ones to the others, and llama.cpp, which takes the softmax over those it chooses, gives each 1/k. A factor k on each expert
 * (a tensor of its own) makes 1 of it.
 *
 * The wider stream changes what norms divide by: with D of D' channels in use, √(D/D') of it. Gains are multiplied and ε is divided accordingly. The
 * constant is so small that it does not matter in their sums.
 *
 * On disk it is two entries of the cache: the weights, for all masks, and metadata with the factors for those that keep k blocks, with links to them.
 *
 * Shapes: D model width · D' width of the resident model · F FFN width · E blocks of a layer · k kept ones · V vocabulary
 */
import { join, resolve } from "node:path";
import { OptionError } from "../errors.ts";
import { type GgufMetadata, type GgufTensor, tensorBytes, writeGguf } from "../formats/gguf.ts";
import { expertCountKey, modelMetadata, splitMetadata } from "../formats/ggufModel.ts";
import { withoutMerges } from "../formats/ggufTokenizer.ts";
import { uint32 } from "../formats/ggufValues.ts";
import { type BlockType, blockLength, blockTypes, decodeBlocks, rowBytes } from "../formats/quantize.ts";
import { checkMask, type Mask } from "../mask/mask.ts";
import type { ModelConfig } from "../model/config.ts";
import { familyOf } from "../model/families.ts";
import { type Bundle, partMetadata, partNames, splitCount } from "./bundle.ts";
import { type CacheOptions, hasEntry, linkOrCopy, openEntry } from "./cacheEntries.ts";
import { gatherFfn } from "./gather.ts";
import { keptBlocks, maskAdapter } from "./maskAdapter.ts";

/** A mask in the resident form. */
export interface ResidentFile {
  /** The first file of the model, for llama.cpp. Masks that keep as many channels have the same. */
  path: string;
  /** The mask's adapter, as the bytes of a GGUF file. */
  adapter: Uint8Array;
  /** Whether the model lay in the cache. */
  cached: boolean;
}

/** llama.cpp knows no more experts. */
const MAX_EXPERTS = 512;
/** llama.cpp's graph of a model has room for at least so many operations, and for so many for each tensor of the model; without room it ends the process. */
const GRAPH_ROOM = 1024;
const ROOM_PER_TENSOR = 8;
/** Operations of a layer beside two for each block that is used, and of all else: some more than were counted. */
const LAYER_OPERATIONS = 68;
const OTHER_OPERATIONS = 64;
/** llama.cpp's architecture of the resident model: Llama's, which may have biases and experts. */
const architecture = "llama";
/** What the norm before an FFN multiplies the constant by: routers must tell its sign where a token's activations are thousands. */
const CONSTANT_GAIN = 1e4;

/** Why a bundle has no resident form, as "wanted X, got Y", or nothing. */
export function residentFlaw({ config, block, ffnWidth: F, layouts }: Bundle): string | undefined {
  const { activation, hasPostNorms, hasHeadNorms, hasScalesAndCaps } = familyOf(config);
  if (activation !== "silu" || hasPostNorms || hasHeadNorms || hasScalesAndCaps)
    return `wanted a model of the Llama block, with biases or without, got ${config.family}`;
  if (F / block > MAX_EXPERTS)
    return `wanted masks of blocks of at least ${Math.ceil(F / MAX_EXPERTS)} channels, got ${block === 1 ? "single channels" : `blocks of ${block}`}`;
  if (block % blockLength !== 0 && layouts.some(({ down }) => down === "Q8_0"))
    return `wanted blocks in multiples of ${blockLength} channels for Q8_0, got ${block}`;
  return undefined;
}

/** @throws {OptionError} if a bundle has no resident form */
export function checkResident(bundle: Bundle): void {
  const flaw = residentFlaw(bundle);
  if (flaw !== undefined) throw new OptionError(`resident model: ${flaw}. Gather masks instead.`);
}

/** Why a mask has no resident form where its bundle has, as "wanted X, got Y", or nothing. */
export function residentMaskFlaw(bundle: Bundle, mask: Mask): string | undefined {
  checkResident(bundle);
  const kept = keptBlocks(mask, bundle.block);
  return typeof kept === "string" ? kept : roomFlaw(bundle, kept);
}

function roomFlaw(bundle: Bundle, kept: readonly Int32Array[]): string | undefined {
  const most = maxKeptBlocks(bundle);
  if (kept[0]!.length <= most) return undefined;
  return `wanted at most ${most} kept blocks of a layer, which llama.cpp has room for, got ${kept[0]!.length}`;
}

/** The most blocks of a layer that a mask may keep. */
export function maxKeptBlocks(bundle: Bundle): number {
  const { numLayers: L, ffnWidth: F, block } = bundle;
  const room = Math.max(GRAPH_ROOM, ROOM_PER_TENSOR * tensorCountOf(bundle));
  return Math.min(F / block, Math.floor((room - OTHER_OPERATIONS - L * LAYER_OPERATIONS) / (2 * L)));
}

/**
 * A mask in the resident form: the model, which is written when it is first wanted, and the mask's adapter.
 *
 * @throws {OptionError} if the bundle or the mask has no such form
 * @throws {ShapeError} if the mask is not for this bundle's model
 * @throws {FileError} if the bundle is damaged
 */
export async function openResident(bundle: Bundle, mask: Mask, options: CacheOptions = {}): Promise<ResidentFile> {
  const adapter = residentAdapter(bundle, mask);
  const shape = residentShape(bundle);
  const k = mask.tFfn / bundle.block;
  const name = weightsName(bundle);
  const weights = await openEntry(bundle, name, options, (folder) =>
    writeWeights(bundle, shape, folder, options.signal),
  );
  const model = await openEntry(bundle, `${name}-${k}`, options, async (folder) => {
    await writeMetadata(bundle, shape, k, join(folder, partNames[0]));
    for (const part of [partNames[1], partNames[2]]) linkOrCopy(resolve(weights.folder, part), join(folder, part));
  });
  return { path: join(model.folder, partNames[0]), adapter, cached: weights.cached };
}

/** The adapter of a mask. It is made of the mask alone and never kept: no other mask's can take its place. @throws as {@link openResident} */
export function residentAdapter(bundle: Bundle, mask: Mask): Uint8Array {
  checkMask(mask, "resident model", bundle);
  checkResident(bundle);
  const kept = keptBlocks(mask, bundle.block);
  const flaw = typeof kept === "string" ? kept : roomFlaw(bundle, kept);
  if (typeof kept === "string" || flaw !== undefined)
    throw new OptionError(`resident model: ${flaw}. Gather it instead.`);
  return maskAdapter(kept, { ...residentShape(bundle), architecture });
}

/** Values that the FFN of K channels computes for a token, as wide as a dense one would be: each block's output is kept until they are added up. */
export function residentComputeWidth(bundle: Bundle, K: number): number {
  return K + (K / bundle.block) * residentShape(bundle).width;
}

const weightsName = ({ block }: Bundle) => `resident-${block}`;

/** Whether a bundle's resident model lies in the cache. */
export function hasResident(bundle: Bundle, options: CacheOptions = {}): boolean {
  return hasEntry(bundle, weightsName(bundle), options);
}

/** Bytes of its weights. */
export function residentBytes(bundle: Bundle): number {
  const shape = residentShape(bundle);
  const tensors = [sharedPart(bundle, shape), expertsPart(bundle, shape)].flatMap((part) => part.tensors);
  return tensors.reduce((sum, tensor) => sum + tensorBytes(tensor)!, 0);
}

/** What the resident model of a bundle looks like. */
interface ResidentShape {
  /** D' */
  width: number;
  /** The constant's channel, the first after those of the model. */
  constant: number;
  /** E */
  numBlocks: number;
}

function residentShape({ base, layouts, width: D, ffnWidth: F, block }: Bundle): ResidentShape {
  const types = [
    ...[...base.tensors.values()].map(({ type }) => type as BlockType),
    ...layouts.flatMap(({ gate, up }) => [gate, up]),
  ];
  const step = Math.max(blockLength, ...types.map((type) => blockTypes[type].elements));
  return { width: Math.ceil((D + 1) / step) * step, constant: D, numBlocks: F / block };
}

/** Tensors that a part of the model has, and what is in them. */
interface Part {
  tensors: GgufTensor[];
  data: Iterable<Uint8Array>;
}

/** Of the whole model: what the bundle has and the bias; routers and experts; factors and what makes room. */
const tensorCountOf = ({ base, numLayers: L }: Bundle) => base.tensors.size + 1 + L * (1 + 3 + 1 + roomNames.length);

/** Tensors that llama.cpp takes and does not use in these types (of NVFP4, scales of inputs): each makes room in its graph. */
const roomNames = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];

/** Metadata of the model with k blocks used, and the factors. */
async function writeMetadata(
  bundle: Bundle,
  { width, numBlocks: E }: ResidentShape,
  k: number,
  path: string,
): Promise<void> {
  const { config, layouts, block, width: D } = bundle;
  const metadata: GgufMetadata = new Map([
    ...modelMetadata(residentConfig(config, { width, D, block })),
    [expertCountKey(architecture), uint32(E)],
    [`${architecture}.expert_used_count`, uint32(k)],
    ...[...withoutMerges(bundle.metadata)].filter(([key]) => key.startsWith("tokenizer.")),
    ...splitMetadata(0, splitCount, tensorCountOf(bundle)),
  ]);
  const tensors = layouts.flatMap(({ down }, layer): GgufTensor[] => {
    const vector = (name: string, length: number) =>
      ({ name: `blk.${layer}.${name}`, type: "F32", shape: [length] }) as const;
    return [
      // Of what `up` gives there is a tenth of what `down` gives, and multiplying takes as long as a third of the products; but halves may overflow.
      vector(down === "F16" ? "ffn_down_exps.scale" : "ffn_up_exps.scale", E),
      ...roomNames.map((name) => vector(`${name}.input_scale`, name.endsWith("_exps") ? E : 1)),
    ];
  });
  const data = tensors.map(({ name, shape }) => {
    return new Uint8Array(new Float32Array(shape[0]!).fill(name.endsWith(".scale") ? k : 1).buffer);
  });
  await writeGguf(path, metadata, tensors, data);
}

function residentConfig(
  config: ModelConfig,
  { width, D, block }: { width: number; D: number; block: number },
): ModelConfig {
  return { ...config, family: architecture, width, ffnWidth: block, normEps: (config.normEps * D) / width };
}

async function writeWeights(bundle: Bundle, shape: ResidentShape, folder: string, signal?: AbortSignal): Promise<void> {
  for (const [index, { tensors, data }] of [
    [1, sharedPart(bundle, shape)],
    [2, expertsPart(bundle, shape)],
  ] as const) {
    const metadata = partMetadata(index, architecture, tensorCountOf(bundle));
    await writeGguf(join(folder, partNames[index]), metadata, tensors, stoppable(data, signal));
  }
}

function* stoppable<T>(items: Iterable<T>, signal?: AbortSignal): Generator<T> {
  for (const item of items) {
    signal?.throwIfAborted();
    yield item;
  }
}

/** All but the FFN, with D' channels, and the routers. */
function sharedPart(bundle: Bundle, { width, constant, numBlocks: E }: ResidentShape): Part {
  const { base, config, width: D, numLayers } = bundle;
  const { rotatesNeighbours } = familyOf(config).gguf;
  const tensors: GgufTensor[] = [];
  const pieces: (() => Iterable<Uint8Array>)[] = [];
  const add = (name: string, type: GgufTensor["type"], shape: readonly number[], data: () => Iterable<Uint8Array>) => {
    tensors.push({ name, type, shape });
    pieces.push(data);
  };
  const vector = (name: string, fill: (values: Float32Array) => void) =>
    add(name, "F32", [width], () => {
      const values = new Float32Array(width);
      fill(values);
      return [new Uint8Array(values.buffer)];
    });
  for (const tensor of base.tensors.values()) {
    const { name, shape, bytes } = tensor;
    const type = tensor.type as BlockType;
    const rows = shape.length === 1 ? 1 : shape[0]!;
    const whole = () => {
      const all = new Uint8Array(bytes);
      base.readInto(all, tensor, 0);
      return all;
    };
    const isHeads = /\.attn_[qk]\.(weight|bias)$/.test(name) && !rotatesNeighbours;
    const own = (): Iterable<Uint8Array> =>
      isHeads ? [neighbours(whole(), bytes / shape[0]!, config.headWidth)] : base.chunks(tensor);
    if (name.endsWith("norm.weight")) {
      const factor = Math.sqrt(D / width);
      vector(name, (gains) => {
        gains.set(decodeBlocks(whole(), type).map((gain) => gain * factor));
        if (name.endsWith("ffn_norm.weight")) gains[constant] = CONSTANT_GAIN;
      });
    } else if (name.endsWith("attn_output.weight")) {
      const more = new Uint8Array((bytes / rows) * (width - D));
      add(name, type, [width, shape[1]!], function* () {
        yield* own();
        yield more;
      });
    } else if (shape.length > 1) {
      add(name, type, [rows, width], () => widened(own(), bytes / rows, rowBytes(type, width)));
    } else {
      add(name, type, shape, own);
    }
  }
  vector("blk.0.attn_output.bias", (bias) => {
    bias[constant] = constantValue(config, D);
  });
  const router = new Uint8Array(4 * E * width);
  for (let layer = 0; layer < numLayers; layer++)
    add(`blk.${layer}.ffn_gate_inp.weight`, "F32", [E, width], () => [router]);
  return {
    tensors,
    data: (function* () {
      for (const piece of pieces) yield* piece();
    })(),
  };
}

/** In a norm's sum it is a 10,000th of what ε is there, so none that matters. */
function constantValue({ normEps }: ModelConfig, D: number): number {
  return Math.sqrt(1e-4 * normEps * D);
}

/** The FFN of D' channels, block by block. */
function expertsPart(bundle: Bundle, { width, numBlocks: E }: ResidentShape): Part {
  const { layouts, block, ffnWidth: dFfn, numLayers } = bundle;
  const tensors = layouts.flatMap(({ gate, up, down }, layer): GgufTensor[] => {
    const name = (matrix: string) => `blk.${layer}.ffn_${matrix}_exps.weight`;
    return [
      { name: name("gate"), type: gate, shape: [E, block, width] },
      { name: name("up"), type: up, shape: [E, block, width] },
      { name: name("down"), type: down, shape: [E, width, block] },
    ];
  });
  function* data(): Generator<Uint8Array> {
    // Each block as a sub-network, all in step: their layers make a layer of experts.
    const experts = Array.from({ length: E }, (_, b) => {
      const channels = Int32Array.from({ length: block }, (_, i) => b * block + i);
      return gatherFfn(bundle, { tFfn: block, dFfn, layers: new Array<Int32Array>(numLayers).fill(channels) });
    });
    for (const tensor of tensors) {
      const isDown = tensor.name.includes("down");
      const size = tensorBytes(tensor)! / E;
      for (const expert of experts) {
        const matrix: Uint8Array = expert.next().value;
        if (isDown) yield* [matrix, new Uint8Array(size - matrix.length)];
        else yield* widened([matrix], matrix.length / block, size / block);
      }
    }
  }
  return { tensors, data: data() };
}

/** Rows of `from` bytes, which come in pieces of any size, with zeros behind them up to `to` bytes: in every type these are zeros too. */
function* widened(pieces: Iterable<Uint8Array>, from: number, to: number): Generator<Uint8Array> {
  let rest = new Uint8Array(0);
  for (const piece of pieces) {
    const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    const rows = Math.floor(bytes.length / from);
    const wide = new Uint8Array(rows * to);
    for (let row = 0; row < rows; row++) wide.set(bytes.subarray(row * from, (row + 1) * from), row * to);
    yield wide;
    rest = bytes.slice(rows * from);
  }
}

/** Rows of `bytes` bytes each, in heads of C, from halves to neighbours: the order of rows that RoPE of Llama's architecture takes. */
function neighbours(all: Uint8Array, bytes: number, C: number): Uint8Array {
  const result = new Uint8Array(all.length);
  for (let row = 0; row * bytes < all.length; row++) {
    const within = row % C;
    const from = row - within + (within % 2 === 0 ? within / 2 : (within - 1 + C) / 2);
    result.set(all.subarray(from * bytes, (from + 1) * bytes), row * bytes);
  }
  return result;
}
