/**
 * A mask of whole blocks as a LoRA adapter of rank 1 on the routers of a resident model (`residentModel.ts`): a router's own weights are 0, the
 * adapter adds B · A · x, where A picks the constant channel of x and B is +1 for each block that is kept, −1 for each that is dropped.
 *
 * Shapes: D width of the resident model · E blocks of a layer
 */
import { alignTensor, encodeHeader, type GgufMetadata, type GgufTensor } from "../formats/gguf.ts";
import { float32, string } from "../formats/ggufValues.ts";
import type { Mask } from "../mask/mask.ts";

/**
 * The kept blocks of each layer, ascending.
 *
 * @returns in words what is wrong, as "wanted X, got Y", of a mask that is not hard or not of whole blocks
 */
export function keptBlocks({ layers, lambda }: Mask, block: number): Int32Array[] | string {
  if (lambda?.some((weights) => weights.some((weight) => weight !== 1)))
    return "wanted a hard mask, got soft weights λ";
  const kept: Int32Array[] = [];
  for (const [layer, channels] of layers.entries()) {
    const blocks = new Int32Array(Math.floor(channels.length / block));
    for (let i = 0; i < channels.length; i++) {
      const first = channels[i - (i % block)]!;
      if (channels.length % block !== 0 || first % block !== 0 || channels[i] !== first + (i % block))
        return `wanted whole blocks of ${block} channels, got parts in layer ${layer}`;
      blocks[Math.floor(i / block)] = first / block;
    }
    kept.push(blocks);
  }
  return kept;
}

/** The adapter's file. */
export function maskAdapter(
  kept: readonly Int32Array[],
  {
    architecture,
    width: D,
    constant,
    numBlocks: E,
  }: { architecture: string; width: number; constant: number; numBlocks: number },
): Uint8Array<ArrayBuffer> {
  const metadata: GgufMetadata = new Map([
    ["general.type", string("adapter")],
    ["general.architecture", string(architecture)],
    ["adapter.type", string("lora")],
    ["adapter.lora.alpha", float32(1)], // over the rank: a factor of 1
  ]);
  const tensors: GgufTensor[] = [];
  const data: Uint8Array[] = [];
  const add = (name: string, shape: number[], values: Float32Array) => {
    tensors.push({ name, type: "F32", shape });
    const bytes = new Uint8Array(values.buffer);
    data.push(bytes, new Uint8Array(alignTensor(bytes.length) - bytes.length));
  };
  const pick = new Float32Array(D);
  pick[constant] = 1;
  for (const [layer, blocks] of kept.entries()) {
    const name = `blk.${layer}.ffn_gate_inp.weight.lora_`;
    const signs = new Float32Array(E).fill(-1);
    for (const one of blocks) signs[one] = 1;
    add(`${name}a`, [1, D], pick);
    add(`${name}b`, [E, 1], signs);
  }
  return Buffer.concat([encodeHeader(metadata, tensors), ...data]);
}
