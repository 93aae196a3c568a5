/**
 * Decoder-only transformer as functions on a graph: RMSNorm, RoPE, grouped-query attention, gated FFN under a mask.
 * Llama's block, with Qwen2's biases and Qwen3's per-head norms.
 *
 * Shapes: B batch · T tokens · D width · F FFN channels · L layers · H query heads · G key/value heads · C head width · V vocabulary
 */
import type { Graph, Tensor } from "../graph/graph.ts";
import { type KeptChannels, ops } from "../graph/ops.ts";
import { type ModelConfig, parameterShapes } from "./config.ts";

/** A model's parameters as tensors of one graph, by Hugging Face name. */
export type Parameters = ReadonlyMap<string, Tensor>;

/** The FFN mask of a layer: λ of every channel [M, F], or the kept ones. */
export type LayerMask = Tensor | KeptChannels;

/** Declares every parameter of a model as a graph input named `prefix` + its Hugging Face name. */
export function parameterInputs(graph: Graph, config: ModelConfig, prefix = ""): Parameters {
  return new Map([...parameterShapes(config)].map(([name, shape]) => [name, graph.input(prefix + name, shape)]));
}

/**
 * Hidden states after the final norm.
 *
 * @param ids token ids [B, T], int32, right-padded: causal attention keeps padding from reaching text
 * @param masks per layer, the FFN mask [M, F], or its kept channels [M, K]; row r is used for tokens r·B·T/M … of the flattened
 *   batch, so M = B gives one mask per sequence and M = B·chunks one per chunk. Absent: every channel, unscaled
 * @param observe sees the input [B·T, D] and the weights of each layer's FFN
 * @returns [B·T, D]
 */
export function decoder(
  config: ModelConfig,
  parameters: Parameters,
  ids: Tensor,
  masks?: readonly LayerMask[],
  observe?: (input: Tensor, ffn: { gate: Tensor; up: Tensor; down: Tensor }) => void,
): Tensor {
  const { width: D, headWidth: C, numHeads: H, numKvHeads: G, normEps, ropeTheta, family } = config;
  const [B, T] = ids.shape as [number, number];
  const embed = get(parameters, "model.embed_tokens.weight");
  let x = ops.reshape(ops.embedding(embed, ids), [B * T, D]);

  for (let layer = 0; layer < config.numLayers; layer++) {
    const p = (name: string) => get(parameters, `model.layers.${layer}.${name}`);

    const project = (h: Tensor, name: "q" | "k" | "v", heads: number) => {
      let y = ops.linear(h, p(`self_attn.${name}_proj.weight`)); // [B·T, heads·C]
      if (family === "qwen2") y = ops.add(y, p(`self_attn.${name}_proj.bias`));
      if (family === "qwen3" && name !== "v") {
        y = ops.rmsNorm(ops.reshape(y, [B * T, heads, C]), p(`self_attn.${name}_norm.weight`), normEps);
      }
      y = ops.reshape(y, [B, T, heads * C]);
      return name === "v" ? y : ops.rope(y, C, ropeTheta);
    };
    const h = ops.rmsNorm(x, p("input_layernorm.weight"), normEps);
    const mixed = ops.attention(project(h, "q", H), project(h, "k", G), project(h, "v", G), C);
    x = ops.add(x, ops.linear(ops.reshape(mixed, [B * T, H * C]), p("self_attn.o_proj.weight")));

    const h2 = ops.rmsNorm(x, p("post_attention_layernorm.weight"), normEps);
    const ffn = { gate: p("mlp.gate_proj.weight"), up: p("mlp.up_proj.weight"), down: p("mlp.down_proj.weight") };
    observe?.(h2, ffn);
    const mask = masks?.[layer];
    x = ops.add(x, mask && "lambda" in mask ? ops.compactFfn(h2, ffn, mask) : ops.gatedFfn(h2, ffn, mask));
  }
  return ops.rmsNorm(x, get(parameters, "model.norm.weight"), normEps);
}

/** Next-token logits [N, V] of hidden states [N, D]. */
export function logits(config: ModelConfig, parameters: Parameters, hidden: Tensor): Tensor {
  return ops.linear(hidden, get(parameters, config.tieEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight"));
}

function get(parameters: Parameters, name: string): Tensor {
  const tensor = parameters.get(name);
  if (!tensor) throw new Error(`internal: no parameter "${name}"`);
  return tensor;
}
