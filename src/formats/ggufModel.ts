/**
 * Models in llama.cpp's terms: metadata keys, tensor names, row order. What llama.cpp computes is what the config says, or the config is refused.
 *
 * Shapes: D model width · H query heads · C head width
 */
import { basename, dirname, join } from "node:path";
import { FileError, OptionError } from "../errors.ts";
import { checkModelConfig, type ModelConfig, parameterShapes, type RopeScaling, type Weight } from "../model/config.ts";
import { familyOf, isLocalLayer, MODEL_FAMILIES, type ModelFamily } from "../model/families.ts";
import { ropeFactors } from "../model/rope.ts";
import type { ModelSource } from "../model/source.ts";
import { arrayLength, GgufFile, type GgufMetadata, type GgufTensor, type GgufValue } from "./gguf.ts";
import { float32, string, uint32 } from "./ggufValues.ts";
import { type BlockType, blockTypes, decodeBlocks, encodeWeights, isBlockType, type WeightType } from "./quantize.ts";
import { halvesToPairs, pairsToHalves } from "./ropeOrder.ts";
import { checkTensorNames } from "./tensorNames.ts";

/** llama.cpp's, whatever the file says. */
const yarnBetas = { betaFast: 32, betaSlow: 1 };
/** The tensor of what llama3 scaling divides each pair's frequency by, [C/2]. */
const ropeDivisors = "rope_freqs.weight";

/**
 * Metadata that describes the network itself; the family's name is also GGUF's for the architecture.
 *
 * @throws {OptionError} if llama.cpp would compute something else
 */
export function modelMetadata(config: ModelConfig): GgufMetadata {
  const flaw = llamaCppFlaw(config);
  if (flaw !== undefined) throw new OptionError(`GGUF: ${flaw} Export a Hugging Face folder instead.`);
  const at = config.family;
  const metadata: GgufMetadata = new Map([
    ["general.architecture", string(at)],
    [`${at}.context_length`, uint32(config.contextLength)],
    [`${at}.embedding_length`, uint32(config.width)],
    [`${at}.block_count`, uint32(config.numLayers)],
    [feedForwardKey(at), uint32(config.ffnWidth)],
    [`${at}.attention.head_count`, uint32(config.numHeads)],
    [`${at}.attention.head_count_kv`, uint32(config.numKvHeads)],
    [`${at}.attention.key_length`, uint32(config.headWidth)],
    [`${at}.attention.value_length`, uint32(config.headWidth)],
    [`${at}.attention.layer_norm_rms_epsilon`, float32(config.normEps)],
    [`${at}.rope.dimension_count`, uint32(config.headWidth)],
    [`${at}.rope.freq_base`, float32(config.ropeTheta)],
    [`${at}.vocab_size`, uint32(config.vocabSize)],
  ]);
  const { ropeScaling: scaling, slidingWindow, localRopeTheta, attentionSoftCap, logitSoftCap } = config;
  if (scaling && scaling.kind !== "llama3") {
    metadata.set(`${at}.rope.scaling.type`, string(scaling.kind));
    metadata.set(`${at}.rope.scaling.factor`, float32(scaling.factor));
    if (scaling.kind === "yarn")
      metadata.set(`${at}.rope.scaling.original_context_length`, uint32(scaling.originalContextLength));
  }
  if (slidingWindow) metadata.set(`${at}.attention.sliding_window`, uint32(slidingWindow));
  if (localRopeTheta) metadata.set(`${at}.rope.freq_base_swa`, float32(localRopeTheta));
  if (attentionSoftCap) metadata.set(`${at}.attn_logit_softcapping`, float32(attentionSoftCap));
  if (logitSoftCap) metadata.set(`${at}.final_logit_softcapping`, float32(logitSoftCap));
  return metadata;
}

/** Tensors beside the parameters that llama.cpp needs to compute the same. */
export function extraTensors(config: ModelConfig): { name: string; data: Float32Array }[] {
  const factors = ropeFactors(config);
  return factors ? [{ name: ropeDivisors, data: factors }] : [];
}

/** The factor of q·k that llama.cpp has for a model of this size: it knows some by their layers. */
function attentionScale(config: Omit<ModelConfig, "attentionScale">): number {
  const { numLayers, width: D, numHeads: H, headWidth: C } = config;
  return 1 / Math.sqrt(numLayers === familyOf(config).gguf.layersScaledByWidth ? Math.floor(D / H) : C);
}

/** What keeps llama.cpp from computing a model as it is, in a sentence; undefined where nothing does. */
export function llamaCppFlaw(config: ModelConfig): string | undefined {
  const [flaw] = llamaCppFlaws(config);
  return flaw && `llama.cpp wants ${flaw.wanted} in a ${config.family} model, got ${flaw.got}.`;
}

function llamaCppFlaws(config: ModelConfig): { wanted: string; got: unknown }[] {
  const { ropeScaling: scaling, headWidth } = config;
  const { gguf, globalEvery, hasLocalTheta } = familyOf(config);
  const flaws: { wanted: string; got: unknown }[] = [];
  const refuse = (wanted: string, got: unknown) => flaws.push({ wanted, got });
  const scale = config.attentionScale ?? 1 / Math.sqrt(headWidth);
  const fixed = attentionScale(config);
  if (Math.abs(scale - fixed) > 1e-6 * fixed) refuse(`attention scaled by ${fixed}`, scale);
  if (scaling?.kind === "llama3") {
    if (!gguf.hasRopeDivisors) refuse("RoPE without llama3 scaling", "it");
    // It is written as divisors, from which only the factor can be told.
    const { factor, ...numbers } = scaling;
    const isKnown = Object.entries(llama3Numbers).every(
      ([key, value]) => numbers[key as keyof typeof numbers] === value,
    );
    if (!isKnown) refuse(`llama3 scaling with ${JSON.stringify(llama3Numbers)}`, JSON.stringify(numbers));
  }
  if (scaling?.kind === "yarn" && (scaling.betaFast !== yarnBetas.betaFast || scaling.betaSlow !== yarnBetas.betaSlow))
    refuse(
      `YaRN with betas ${yarnBetas.betaFast} and ${yarnBetas.betaSlow}`,
      `${scaling.betaFast} and ${scaling.betaSlow}`,
    );
  if (gguf.headsFillWidth && config.numHeads * headWidth !== config.width)
    refuse(`heads that are ${config.width} wide together, as the model is`, config.numHeads * headWidth);
  if (globalEvery === undefined && config.slidingWindow) refuse("no sliding window", config.slidingWindow);
  if (!hasLocalTheta && config.localRopeTheta) refuse("one RoPE base", config.localRopeTheta);
  if (gguf.isTied && !config.tieEmbeddings) refuse("tied embeddings", "an output matrix");
  for (const [name, assumed, cap] of [
    ["attention", gguf.softCaps.attention, config.attentionSoftCap],
    ["logits", gguf.softCaps.logits, config.logitSoftCap],
  ] as const) {
    if (assumed && !cap) refuse(`a soft cap of ${name}`, "none");
    if (assumed === undefined && cap) refuse(`no cap of ${name}`, cap);
  }
  return flaws;
}

export function feedForwardKey(architecture: string): string {
  return `${architecture}.feed_forward_length`;
}

/** Of a mixture of experts alone. */
export function expertCountKey(architecture: string): string {
  return `${architecture}.expert_count`;
}

/** Metadata that marks part `index` of `count` files, with `tensorCount` tensors in all of them together. */
export function splitMetadata(index: number, count: number, tensorCount: number): GgufMetadata {
  return new Map<string, GgufValue>([
    ["split.no", { type: "uint16", value: index }],
    ["split.count", { type: "uint16", value: count }],
    ["split.tensors.count", { type: "int32", value: tensorCount }],
  ]);
}

const tensorNames: Record<string, string> = {
  input_layernorm: "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  post_attention_layernorm: "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  lm_head: "output",
};

/** With norms after attention and FFN, Hugging Face names the one after attention as other models name the one before the FFN. */
const postNormNames: Record<string, string> = {
  ...tensorNames,
  post_attention_layernorm: "post_attention_norm",
  pre_feedforward_layernorm: "ffn_norm",
  post_feedforward_layernorm: "post_ffw_norm",
};

/** GGUF's name of a Hugging Face parameter. */
export function ggufName(config: Pick<ModelConfig, "family">, name: string): string {
  const [, layer, part, kind] = /^(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(name) ?? [];
  const translated = (familyOf(config).hasPostNorms ? postNormNames : tensorNames)[part!];
  if (!translated) throw new Error(`internal: no GGUF name for "${name}"`);
  return `${layer === undefined ? "" : `blk.${layer}.`}${translated}.${kind}`;
}

/** Type of a tensor in a model stored as `type`: vectors stay F32, and rows that are no whole blocks fall back to F16. */
export function storedType(shape: readonly number[], type: WeightType): WeightType {
  if (shape.length < 2) return "F32";
  return shape.at(-1)! % blockTypes[type].elements === 0 ? type : "F16";
}

/** Whether GGUF has the rows of a parameter in another order. */
function isPermuted(config: Pick<ModelConfig, "family">, name: string): boolean {
  return familyOf(config).gguf.rotatesNeighbours && /\.[qk]_proj\.weight$/.test(name);
}

/** What GGUF has added to a parameter: it stores the gains of norms whole. */
function addition(config: Pick<ModelConfig, "family">, name: string): number {
  return name.endsWith("norm.weight") ? familyOf(config).gainOffset : 0;
}

/**
 * A parameter's bytes in GGUF: rows of q and k in llama's order, norms as gains, then encoded.
 *
 * @param weight all of it, or consecutive rows, of q and k those of whole heads
 */
export function encodeParameter(config: ModelConfig, name: string, weight: Weight, type: WeightType): Uint8Array {
  const added = addition(config, name);
  if (added)
    return encodeWeights(
      weight.data.map((value) => value + added),
      type,
    );
  return encodeWeights(isPermuted(config, name) ? halvesToPairs(weight, config.headWidth).data : weight.data, type);
}

/** A width in the metadata of an open model file. */
export function modelNumber(file: GgufFile, key: string): number {
  return file.number(`${file.string("general.architecture")}.${key}`);
}

/** A tensor and the file that has it. */
type FileTensor = GgufTensor & { file: GgufFile; start: number; bytes: number };
type StoredTensor = FileTensor & { type: BlockType };

/** A dense model in one GGUF file or in several. Holds file descriptors until disposed. */
export class GgufModel implements ModelSource {
  readonly config: ModelConfig;
  /** Of the first file, which has the tokenizer's. */
  readonly metadata: GgufMetadata;
  readonly #files: GgufFile[] = [];
  readonly #tensors = new Map<string, StoredTensor>();

  /**
   * @param path a file, or the first of several (`…-00001-of-0000N.gguf`)
   * @throws {FileError} if a file is missing or damaged, or is no model that we compute
   */
  constructor(readonly path: string) {
    try {
      this.#files.push(...openParts(path));
      const [first] = this.#files as [GgufFile];
      this.metadata = first.metadata;
      if (Number(first.metadata.get(expertCountKey(first.string("general.architecture")))?.value ?? 0) > 0)
        throw new FileError(path, "wanted a dense model, got a mixture of experts.");
      const tensors = joinTensors(this.#files);
      this.config = readConfig(first, tensors);
      this.#tensors = parametersOf(path, this.config, tensors);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  read(name: string, rows?: { from: number; to: number }): Weight {
    return readParameter(this.#tensor(name), this.config, name, rows);
  }

  /** Bytes of rows `from .. to` as they are stored, in GGUF's order of rows. A vector is one row. */
  rows(name: string, from: number, to: number): Uint8Array {
    return readRows(this.#tensor(name), from, to);
  }

  /** A parameter as it is stored, for copies: its bytes in GGUF's order of rows, piece by piece. */
  stored(name: string): { type: BlockType; shape: readonly number[]; bytes: number; chunks: Iterable<Uint8Array> } {
    const tensor = this.#tensor(name);
    const { type, shape, bytes, file } = tensor;
    return { type, shape, bytes, chunks: file.chunks(tensor) };
  }

  #tensor(name: string): StoredTensor {
    const tensor = this.#tensors.get(name);
    if (!tensor) throw new Error(`internal: no parameter "${name}"`);
    return tensor;
  }

  [Symbol.dispose](): void {
    for (const file of this.#files) file[Symbol.dispose]();
  }
}

/**
 * A parameter of a model in one file, or in a file that holds a part of it, as {@link ModelSource.read}.
 *
 * @throws {FileError} if the file has no such tensor, or has it in another shape
 */
export function readGgufParameter(
  file: GgufFile,
  config: ModelConfig,
  name: string,
  rows?: { from: number; to: number },
): Weight {
  const shape = parameterShapes(config).get(name);
  if (!shape) throw new Error(`internal: no parameter "${name}"`);
  return readParameter(checkTensor({ ...file.tensor(ggufName(config, name)), file }, shape), config, name, rows);
}

function readParameter(
  tensor: StoredTensor,
  config: ModelConfig,
  name: string,
  rows?: { from: number; to: number },
): Weight {
  const { type, shape } = tensor;
  const { from, to } = rows ?? { from: 0, to: rowCount(tensor) };
  const values = (first: number, last: number) => decodeBlocks(readRows(tensor, first, last), type);
  const added = addition(config, name);
  if (added) return { shape, data: values(from, to).map((value) => value - added) };
  const width = shape.at(-1)!;
  const part = shape.length === 1 ? shape : [to - from, width];
  if (!isPermuted(config, name)) return { shape: part, data: values(from, to) };
  const C = config.headWidth; // rows change places within a head: read whole ones
  const [first, last] = [Math.floor(from / C) * C, Math.ceil(to / C) * C];
  const { data } = pairsToHalves({ shape: [last - first, width], data: values(first, last) }, C);
  return { shape: part, data: data.subarray((from - first) * width, (to - first) * width) };
}

const rowCount = ({ shape }: GgufTensor) => (shape.length === 1 ? 1 : shape[0]!);

function readRows(tensor: StoredTensor, from: number, to: number): Uint8Array {
  const count = rowCount(tensor);
  if (!(from >= 0 && from <= to && to <= count)) throw new Error(`internal: rows ${from}..${to} of "${tensor.name}"`);
  const row = tensor.bytes / count;
  const bytes = new Uint8Array((to - from) * row);
  tensor.file.readInto(bytes, tensor, from * row);
  return bytes;
}

/** @throws {FileError} if it does not hold weights of this shape */
function checkTensor(tensor: FileTensor, shape: readonly number[]): StoredTensor {
  const { type, name, file } = tensor;
  if (!isBlockType(type) || tensor.shape.length !== shape.length || tensor.shape.some((n, i) => n !== shape[i])) {
    throw new FileError(
      file.path,
      `tensor "${name}": wanted weights [${shape.join(", ")}], got ${type} [${tensor.shape.join(", ")}]. Is the metadata its own?`,
    );
  }
  return { ...tensor, type };
}

/** Opens a file and, if it is the first of several, the others beside it. Either all are open or none. */
function openParts(path: string): GgufFile[] {
  const files = [new GgufFile(path)];
  try {
    const [first] = files as [GgufFile];
    if (!first.metadata.has("split.count")) return files;
    const count = first.number("split.count");
    if (count <= 1) return files; // 0 is what llama.cpp's own tool writes into the files that it merges
    const [, stem, number, total] = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/.exec(basename(path)) ?? [];
    if (Number(number) !== 1 || Number(total) !== count) {
      const digits = String(count).padStart(5, "0");
      throw new FileError(
        path,
        `wanted the first of ${count} files, named …-00001-of-${digits}.gguf, got "${basename(path)}".`,
      );
    }
    for (let part = 2; part <= count; part++)
      files.push(new GgufFile(join(dirname(path), `${stem}-${String(part).padStart(5, "0")}-of-${total}.gguf`)));
    for (const [index, file] of files.entries()) {
      const got = [file.number("split.no"), file.number("split.count")];
      if (got[0] !== index || got[1] !== count)
        throw new FileError(
          file.path,
          `wanted part ${index} of ${count}, got ${got.join(" of ")}. Is it another model's?`,
        );
    }
    const wanted = first.number("split.tensors.count");
    const got = files.reduce((sum, { tensors }) => sum + tensors.size, 0);
    if (got !== wanted)
      throw new FileError(path, `wanted ${wanted} tensors in ${count} files, got ${got}. Are all of one model?`);
    return files;
  } catch (error) {
    for (const file of files) file[Symbol.dispose]();
    throw error;
  }
}

type Tensors = Map<string, FileTensor>;

function joinTensors(files: readonly GgufFile[]): Tensors {
  const all: Tensors = new Map();
  for (const file of files) {
    for (const [name, tensor] of file.tensors) {
      if (all.has(name)) throw new FileError(file.path, `wanted each tensor once, got "${name}" in two files.`);
      all.set(name, { ...tensor, file });
    }
  }
  return all;
}

/**
 * The shape of a model.
 *
 * @param file has its metadata
 * @param shared has its embeddings and output matrix
 * @throws {FileError} if it is no model that we compute
 */
export function readGgufConfig(file: GgufFile, shared = file): ModelConfig {
  return readConfig(file, joinTensors([shared]));
}

function readConfig(file: GgufFile, tensors: Tensors): ModelConfig {
  const { path, metadata } = file;
  const architecture = file.string("general.architecture");
  if (!MODEL_FAMILIES.includes(architecture as ModelFamily))
    throw new FileError(path, `wanted a model of ${MODEL_FAMILIES.join(", ")}, got "${architecture}".`);
  const family = architecture as ModelFamily;
  const { gguf, globalEvery, hasLocalTheta } = familyOf({ family });
  const { softCaps } = gguf;
  const has = (key: string) => metadata.has(`${family}.${key}`);
  const number = (key: string, fallback?: number) =>
    fallback !== undefined && !has(key) ? fallback : shortest(modelNumber(file, key));

  const embedding = tensors.get("token_embd.weight");
  const tokens = metadata.get("tokenizer.ggml.tokens");
  const numHeads = number("attention.head_count");
  const width = number("embedding_length");
  const headWidth = number("attention.key_length", Math.floor(width / numHeads));
  const contextLength = number("context_length");
  for (const key of ["attention.value_length", "rope.dimension_count"]) {
    if (number(key, headWidth) !== headWidth)
      throw new FileError(path, `wanted ${key} ${headWidth}, as the keys' length, got ${number(key)}.`);
  }
  const config: ModelConfig = {
    family,
    width,
    numLayers: number("block_count"),
    numHeads,
    numKvHeads: number("attention.head_count_kv", numHeads),
    headWidth,
    ffnWidth: number("feed_forward_length"),
    vocabSize: tokens?.type === "array" ? arrayLength(tokens) : (embedding?.shape[0] ?? 0),
    contextLength,
    normEps: number("attention.layer_norm_rms_epsilon"),
    ropeTheta: number("rope.freq_base", 10_000),
    tieEmbeddings: gguf.isTied || !tensors.has("output.weight"),
  };
  const scale = attentionScale(config);
  if (scale !== 1 / Math.sqrt(headWidth)) config.attentionScale = scale;
  if (globalEvery !== undefined) {
    config.slidingWindow = number("attention.sliding_window", gguf.slidingWindow);
  } else if (has("attention.sliding_window")) {
    config.contextLength = Math.min(contextLength, number("attention.sliding_window")); // beyond it models differ
  }
  if (hasLocalTheta) config.localRopeTheta = number("rope.freq_base_swa", gguf.localTheta);
  if (softCaps.attention !== undefined) config.attentionSoftCap = number("attn_logit_softcapping", softCaps.attention);
  if (softCaps.logits !== undefined)
    config.logitSoftCap = number("final_logit_softcapping", softCaps.logits) || undefined;
  checkModelConfig(config, path); // before its numbers are used as counts
  checkPattern(file, config);
  const scaling = readScaling(file, config, tensors);
  const complete = scaling ? { ...config, ropeScaling: scaling } : config;
  checkModelConfig(complete, path);
  return complete;
}

/** The shortest decimal number that is stored as the same float32: 1e-6, not 9.999999974752427e-7. */
function shortest(value: number): number {
  for (let digits = 1; digits < 10; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === value) return rounded;
  }
  return value;
}

/** @throws {FileError} if other layers than ours are said to be local */
function checkPattern({ path, metadata }: GgufFile, config: ModelConfig): void {
  const pattern =
    familyOf(config).globalEvery !== undefined && metadata.get(`${config.family}.attention.sliding_window_pattern`);
  if (!pattern) return;
  const isLocal = (layer: number) =>
    pattern.type === "array" ? pattern.value[layer] : (layer + 1) % Number(pattern.value) !== 0;
  for (let layer = 0; layer < config.numLayers; layer++) {
    if (Boolean(isLocal(layer)) !== isLocalLayer(config, layer))
      throw new FileError(path, `wanted ${config.family}'s pattern of local layers, got another in layer ${layer}.`);
  }
}

function readScaling(file: GgufFile, config: ModelConfig, tensors: Tensors): RopeScaling | undefined {
  const { path, metadata } = file;
  const at = `${config.family}.rope`;
  const optional = (key: string) => (metadata.has(`${at}.${key}`) ? shortest(file.number(`${at}.${key}`)) : undefined);
  const kind = metadata.has(`${at}.scaling.type`) ? file.string(`${at}.scaling.type`) : "linear";
  const factor = optional("scaling.factor") || optional("scale_linear") || 1; // 0 is llama.cpp's for none
  if (!["none", "linear", "yarn"].includes(kind))
    throw new FileError(path, `wanted RoPE scaling of kind none, linear, or yarn, got "${kind}".`);
  if ((optional("scaling.attn_factor") ?? 1) !== 1)
    throw new FileError(path, `wanted RoPE scaling without a factor of its own for attention, got one.`);
  const isScaled = kind !== "none" && factor !== 1;
  const divisors = tensors.get(ropeDivisors);
  if (divisors && familyOf(config).gguf.hasRopeDivisors) {
    if (isScaled) throw new FileError(path, `wanted one kind of RoPE scaling, got "${kind}" and ${ropeDivisors}.`);
    return llama3Scaling(path, config, divisors);
  }
  if (!isScaled) return undefined;
  if (kind === "linear") return { kind, factor };
  const originalContextLength =
    optional("scaling.original_context_length") ?? file.number(`${config.family}.context_length`);
  return { kind: "yarn", factor, originalContextLength, ...yarnBetas };
}

/** What llama3 scaling has beside its factor, in all models that Meta made. */
const llama3Numbers = { lowFactor: 1, highFactor: 4, originalContextLength: 8192 } as const;

/** The scaling that has these divisors. */
function llama3Scaling(path: string, config: ModelConfig, tensor: FileTensor): RopeScaling | undefined {
  const pairs = config.headWidth / 2;
  if (tensor.type !== "F32" || tensor.shape.length !== 1 || tensor.shape[0] !== pairs) {
    throw new FileError(
      path,
      `tensor "${ropeDivisors}": wanted F32 [${pairs}], got ${tensor.type} [${tensor.shape.join(", ")}].`,
    );
  }
  const bytes = new Uint8Array(tensor.bytes);
  tensor.file.readInto(bytes, tensor, 0);
  const divisors = decodeBlocks(bytes, "F32");
  if (divisors.every((divisor) => divisor === 1)) return undefined;
  const scaling = {
    kind: "llama3",
    factor: Math.max(...divisors),
    ...llama3Numbers,
  } as const;
  const wanted = ropeFactors({ ...config, ropeScaling: scaling })!;
  if (!divisors.every((divisor, i) => Math.abs(divisor - wanted[i]!) <= 1e-4 * wanted[i]!))
    throw new FileError(
      path,
      `tensor "${ropeDivisors}": wanted Llama 3's scaling with factors 1 and 4 and 8192 tokens, got another.`,
    );
  return scaling;
}

/** The tensors of all parameters by Hugging Face name. @throws {FileError} if they are not those of the config */
function parametersOf(path: string, config: ModelConfig, tensors: Tensors): Map<string, StoredTensor> {
  const wanted = new Map(
    [...parameterShapes(config)].map(([name, shape]) => [ggufName(config, name), { name, shape }]),
  );
  const isIgnored = (name: string) =>
    (familyOf(config).gguf.hasRopeDivisors && name === ropeDivisors) || /^blk\.\d+\.attn_rot_embd\.weight$/.test(name);
  const what = { tensors: `a ${config.family} model`, hint: "Is it a variant?" };
  checkTensorNames(path, { wanted, got: tensors, isIgnored }, what);
  return new Map([...wanted].map(([ggml, { name, shape }]) => [name, checkTensor(tensors.get(ggml)!, shape)]));
}
