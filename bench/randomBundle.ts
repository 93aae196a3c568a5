/** Bundles of random weights in the shapes of models, for measurements. */
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { partMetadata } from "../src/bundle/bundle.ts";
import {
  type ChannelTypes,
  channelLayout,
  channelMetadata,
  channelTensors,
  layerData,
  storedBlock,
} from "../src/bundle/channels.ts";
import { type GgufMetadata, type GgufTensor, tensorBytes, writeGguf } from "../src/formats/gguf.ts";
import { ggufName, modelMetadata } from "../src/formats/ggufModel.ts";
import { array, bool, string, uint32 } from "../src/formats/ggufValues.ts";
import { describeFiles, writeManifest } from "../src/manifest.ts";
import type { Mask } from "../src/mask/mask.ts";
import { type ModelConfig, parameterShapes } from "../src/model/config.ts";
import { Random } from "../src/random.ts";

/** Where the bundles are. */
export const root = fileURLToPath(new URL("../runs/bench-bundles/", import.meta.url));

export interface Shape {
  config: ModelConfig;
  type: "F16" | "Q8_0";
  /** Channels that masks keep or drop together. */
  block: number;
}

export function modelShape(
  [L, D, F, H, G]: [L: number, D: number, F: number, H: number, G: number],
  { type = "Q8_0", block = 1, vocabSize = 2048 }: Partial<Omit<Shape, "config">> & { vocabSize?: number } = {},
): Shape {
  return {
    ...{ type, block },
    config: {
      ...{ family: "llama", width: D, numLayers: L, numHeads: H, numKvHeads: G, headWidth: D / H, ffnWidth: F },
      ...{ vocabSize, contextLength: 4096, normEps: 1e-5, ropeTheta: 500_000, tieEmbeddings: true },
    },
  };
}

const made: string[] = [];

/** Removes the bundles that this process has made; those that were there stay. */
export function removeMade(): void {
  for (const folder of made) rmSync(folder, { recursive: true, force: true });
}

/** A bundle, made unless it is there. @param name of the shape, without its type */
export async function makeBundle(name: string, { config, type, block }: Shape): Promise<string> {
  const folder = join(root, `${name}-${type}-${block}`);
  if (existsSync(join(folder, "ifprune.json"))) return folder;
  made.push(folder);
  mkdirSync(folder, { recursive: true });
  const random = new Random(name);
  const types: ChannelTypes = { gate: type, up: type, down: type };
  const { width: D, ffnWidth: F, numLayers: L, vocabSize: V } = config;
  const names = [...parameterShapes(config)].filter(([name]) => !name.includes(".mlp."));
  const tensors = names.map(
    ([name, shape]): GgufTensor => ({ name: ggufName(config, name), type: shape.length === 1 ? "F32" : type, shape }),
  );
  const tokens = Array.from({ length: V }, (_, i) => (i < 256 ? String.fromCodePoint(0x4e00 + i) : `[unused${i}]`));
  const metadata: GgufMetadata = new Map([
    ...modelMetadata(config),
    ["tokenizer.ggml.model", string("gpt2")],
    ["tokenizer.ggml.pre", string("smollm")],
    ["tokenizer.ggml.tokens", array("string", tokens)],
    [
      "tokenizer.ggml.token_type",
      array(
        "int32",
        tokens.map(() => 1),
      ),
    ],
    ["tokenizer.ggml.merges", array("string", [])],
    ["tokenizer.ggml.bos_token_id", uint32(1)],
    ["tokenizer.ggml.eos_token_id", uint32(2)],
    ["tokenizer.ggml.add_bos_token", bool(false)],
  ]);
  await writeGguf(join(folder, "metadata.gguf"), metadata, [], []);
  await writeGguf(
    join(folder, "base.gguf"),
    partMetadata(1, config.family, tensors.length + 3 * L),
    tensors,
    (function* () {
      for (const tensor of tensors)
        yield randomWeights(random, tensor.type as "F32" | Shape["type"], tensorBytes(tensor)!);
    })(),
  );
  const { upAt, downAt, bytes } = channelLayout(types, D);
  const rows = randomWeights(random, type, 2 * upAt * 1024); // gate and up of as many channels, over and over
  const layers = Array.from({ length: L }, () => types);
  const stored = storedBlock(block);
  await writeGguf(
    join(folder, "ffn.gguf"),
    channelMetadata("llama", layers, stored),
    channelTensors(layers, D, F, stored),
    (function* () {
      const column = bytes - downAt;
      const columns = type === "Q8_0" ? randomBytes(random, 1024 * column) : randomWeights(random, type, 1024 * column);
      const records = new Uint8Array(F * bytes);
      for (let channel = 0; channel < F; channel++) {
        const i = channel % 1024;
        records.set(rows.subarray(i * downAt, (i + 1) * downAt), channel * bytes);
        records.set(columns.subarray(i * column, (i + 1) * column), channel * bytes + downAt);
      }
      const scales = type === "Q8_0" ? new Uint16Array(D).fill(smallHalf) : undefined;
      const data = [...layerData(records, channelLayout(types, D, stored), D, scales)];
      for (let layer = 0; layer < L; layer++) yield* data;
    })(),
  );
  writeFileSync(join(folder, "tokenizer.json"), "{}");
  const files = await describeFiles(folder, ["metadata.gguf", "base.gguf", "ffn.gguf", "tokenizer.json"]);
  const provenance = { recipe: "bench", data: [], created: "2026-11-25T00:00:00Z" };
  const common = {
    version: 1 as const,
    lambda: "soft" as const,
    predictorInput: "prompt" as const,
    predictorPooling: "last" as const,
    promptTemplate: "{prompt}",
  };
  writeManifest(folder, { format: "ifprune-bundle", ...common, block, eosId: 2, provenance, files });
  return folder;
}

/** 2⁻¹⁰ in half precision. */
const smallHalf = 0x1400;

function randomBytes(random: Random, length: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < words.length; i++) words[i] = random.int(2 ** 32);
  return new Uint8Array(words.buffer, 0, length);
}

/** Small finite values. */
function randomWeights(random: Random, type: "F32" | Shape["type"], length: number): Uint8Array {
  if (type === "F32") return new Uint8Array(new Float32Array(length / 4).fill(1).buffer);
  const bytes = randomBytes(random, length);
  const halves = new Uint16Array(bytes.buffer, 0, length / 2);
  if (type === "F16") for (let i = 0; i < halves.length; i++) halves[i] = (halves[i]! & 0x83ff) | smallHalf;
  else for (let i = 0; i < halves.length; i += 17) halves[i] = smallHalf;
  return bytes;
}

/** Random whole blocks of each layer. @param tFfn K, with one block a whole number of them */
export function randomMask(random: Random, { config: { numLayers, ffnWidth: F }, block }: Shape, tFfn: number): Mask {
  const layers = Array.from({ length: numLayers }, () => {
    const blocks = random
      .permutation(F / block)
      .slice(0, tFfn / block)
      .sort();
    return Int32Array.from({ length: tFfn }, (_, i) => blocks[Math.floor(i / block)]! * block + (i % block));
  });
  return { tFfn, dFfn: F, layers };
}
