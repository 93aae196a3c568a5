/** Models of random weights as GGUF files, for tests that read them or run them in llama.cpp. */
import { join } from "node:path";
import { type GgufMetadata, type GgufTensor, writeGguf } from "../../src/formats/gguf.ts";
import { encodeParameter, extraTensors, ggufName, modelMetadata } from "../../src/formats/ggufModel.ts";
import { array, string } from "../../src/formats/ggufValues.ts";
import type { Model } from "../../src/formats/huggingface.ts";
import { type BlockType, blockTypes, encodeWeights, toHalf, type WeightType } from "../../src/formats/quantize.ts";
import { randomNumbers } from "./models.ts";

/**
 * Makes the FFN of Gemma add little: llama.cpp looks its GELU up in a table in half precision, whose error would be a hundred times the rest.
 */
export function quietFfn({ config, weights }: Model): Model {
  const quiet = [...weights].map(([name, weight]) => {
    if (!name.endsWith("post_feedforward_layernorm.weight")) return [name, weight] as const;
    return [name, { ...weight, data: weight.data.map((w) => 0.01 * (1 + w) - 1) }] as const;
  });
  return { config, weights: new Map(quiet) };
}

/** Any blocks of a type: random quants and sub-scales, with scales that are no extremes. @param size of the scales, at most */
export function randomBlocks(type: BlockType, count: number, size: number, seed: number): Uint8Array {
  const random = randomNumbers(seed);
  const { elements, bytes: blockSize } = blockTypes[type];
  if (elements === 1) {
    const values = Float32Array.from({ length: count }, () => 2 * size * (random() - 0.5));
    return encodeWeights(values, type as WeightType);
  }
  const bytes = Uint8Array.from({ length: (count / elements) * blockSize }, () => 256 * random());
  const view = new DataView(bytes.buffer);
  const scales = type === "Q6_K" ? [208] : type.endsWith("_0") ? [0] : [0, 2];
  for (let at = 0; at < bytes.length; at += blockSize)
    for (const scale of scales) view.setUint16(at + scale, toHalf(2 * size * (random() - 0.5)), true);
  return bytes;
}

/** A tokenizer that only has to exist. */
export const vocabulary = (vocabSize: number): GgufMetadata =>
  new Map([
    ["tokenizer.ggml.model", string("gpt2")],
    ["tokenizer.ggml.pre", string("smollm")],
    ["tokenizer.ggml.merges", array("string", [])],
    [
      "tokenizer.ggml.tokens",
      array(
        "string",
        Array.from({ length: vocabSize }, (_, id) => `t${id}`),
      ),
    ],
  ]);

/** A model's metadata, and its tensors with their bytes: F32, but for those in `stored`. */
export function ggufParts(
  { config, weights }: Model,
  stored = new Map<string, { type: BlockType; bytes: Uint8Array }>(),
) {
  const metadata: GgufMetadata = new Map([...modelMetadata(config), ...vocabulary(config.vocabSize)]);
  const tensors = [
    ...[...weights].map(([name, weight]) => ({
      name: ggufName(config, name),
      shape: weight.shape,
      ...(stored.get(name) ?? { type: "F32", bytes: encodeParameter(config, name, weight, "F32") }),
    })),
    ...extraTensors(config).map(({ name, data }) => ({
      name,
      shape: [data.length],
      type: "F32",
      bytes: encodeWeights(data, "F32"),
    })),
  ] as (GgufTensor & { bytes: Uint8Array })[];
  return { metadata, tensors };
}

/** @returns the file's path */
export async function writeParts(
  folder: string,
  { metadata, tensors }: ReturnType<typeof ggufParts>,
  name = "model.gguf",
) {
  const path = join(folder, name);
  await writeGguf(
    path,
    metadata,
    tensors,
    tensors.map(({ bytes }) => bytes),
  );
  return path;
}
