/**
 * Decoder-only transformer as functions on a graph: RMSNorm, RoPE, grouped-query attention, gated FFN under a mask. One block for all families;
 * `families.ts` says how they differ.
 *
 * Shapes: B batch · T tokens · N tokens of all rows · M mask rows · D width · F FFN channels · K kept ones · L layers · H query heads ·
 * G key/value heads · C head width · V vocabulary
 */
import type { Graph, Tensor } from "../graph/graph.ts";
import { type Ffn, type KeptChannels, ops, type Sees } from "../graph/ops.ts";
import { type ModelConfig, parameterShapes } from "../model/config.ts";
import { familyOf, isLocalLayer } from "../model/families.ts";
import { ropeFrequencies } from "../model/rope.ts";

/** A model's parameters as tensors of one graph, by Hugging Face name. */
export type Parameters = ReadonlyMap<string, Tensor>;

/** The FFN mask of a layer: λ of every channel [M, F], or the kept ones. */
export type LayerMask = Tensor | KeptChannels;

/** A batch, whose rows may hold several texts. */
interface Rows {
  B: number;
  T: number;
  sees?: Sees | undefined;
}

/** Sees the input [B·T, D] and the weights of a layer's FFN. */
export type ObserveFfn = (input: Tensor, ffn: Ffn) => void;

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
 * @param sees where several texts share a row
 * @returns [B·T, D]
 */
export function decoder(
  config: ModelConfig,
  parameters: Parameters,
  ids: Tensor,
  masks?: readonly LayerMask[],
  observe?: ObserveFfn,
  sees?: Sees,
): Tensor {
  const [B, T] = ids.shape as [number, number];
  const embedded = ops.embedding(get(parameters, "model.embed_tokens.weight"), ids);
  let x = scaleEmbedding(config, ops.reshape(embedded, [B * T, config.width]));
  for (let layer = 0; layer < config.numLayers; layer++) {
    const p = (name: string) => get(parameters, `model.layers.${layer}.${name}`);
    x = decoderLayer(config, layer, p, x, { B, T, sees }, masks?.[layer], observe);
  }
  return norm(config, x, get(parameters, "model.norm.weight"));
}

/** Rows of the embedding [N, D] as the first layer reads them. */
export function scaleEmbedding(config: ModelConfig, x: Tensor): Tensor {
  return familyOf(config).scalesEmbeddings ? ops.scale(x, Math.sqrt(config.width)) : x;
}

/** RMSNorm with the gain that `weight` means in the model's family: w, or 1 + w. */
export function norm(config: ModelConfig, x: Tensor, weight: Tensor): Tensor {
  const { gainOffset } = familyOf(config);
  const gain = gainOffset ? ops.add(weight, weight.graph.scalar(gainOffset)) : weight;
  return ops.rmsNorm(x, gain, config.normEps);
}

/**
 * One layer, so that a model larger than memory can be run layer by layer. The number of the layer decides whether it is local, nothing else.
 *
 * @param p a parameter of the layer by its name without `model.layers.N.`
 * @param x [B·T, D]
 * @param rows B and T of the batch; `sees` and `mask` as in {@link decoder}
 * @returns [B·T, D]
 */
export function decoderLayer(
  config: ModelConfig,
  layer: number,
  p: (name: string) => Tensor,
  x: Tensor,
  rows: Rows,
  mask?: LayerMask,
  observe?: ObserveFfn,
): Tensor {
  const { activation, hasPostNorms } = familyOf(config);
  const normed = (x: Tensor, name: string) => norm(config, x, p(`${name}.weight`));

  const mixed = attention(config, layer, p, normed(x, "input_layernorm"), rows);
  const y = ops.add(x, hasPostNorms ? normed(mixed, "post_attention_layernorm") : mixed);

  const input = normed(y, hasPostNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm");
  const ffn: Ffn = {
    gate: p("mlp.gate_proj.weight"),
    up: p("mlp.up_proj.weight"),
    down: p("mlp.down_proj.weight"),
    activation,
  };
  observe?.(input, ffn);
  const fed = mask && "lambda" in mask ? ops.compactFfn(input, ffn, mask) : ops.gatedFfn(input, ffn, mask);
  return ops.add(y, hasPostNorms ? normed(fed, "post_feedforward_layernorm") : fed);
}

/** Self-attention of a layer with its projections: [B·T, D] → [B·T, D]. */
function attention(
  config: ModelConfig,
  layer: number,
  p: (name: string) => Tensor,
  x: Tensor,
  { B, T, sees }: Rows,
): Tensor {
  const { headWidth: C, numHeads: H, numKvHeads: G } = config;
  const { hasBiases, hasHeadNorms } = familyOf(config);
  const frequencies = ropeFrequencies(config, layer);
  const project = (name: "q" | "k" | "v", heads: number) => {
    let y = ops.linear(x, p(`self_attn.${name}_proj.weight`)); // [B·T, heads·C]
    if (hasBiases) y = ops.add(y, p(`self_attn.${name}_proj.bias`));
    if (hasHeadNorms && name !== "v") {
      y = norm(config, ops.reshape(y, [B * T, heads, C]), p(`self_attn.${name}_norm.weight`));
    }
    y = ops.reshape(y, [B, T, heads * C]);
    return name === "v" ? y : ops.rope(y, frequencies, sees);
  };
  const mixed = ops.attention(project("q", H), project("k", G), project("v", G), {
    headWidth: C,
    scale: config.attentionScale,
    window: isLocalLayer(config, layer) ? config.slidingWindow : undefined,
    softCap: config.attentionSoftCap,
    sees,
  });
  return ops.linear(ops.reshape(mixed, [B * T, H * C]), p("self_attn.o_proj.weight"));
}

/** Next-token logits [N, V] of hidden states [N, D]. */
export function logits(config: ModelConfig, parameters: Parameters, hidden: Tensor): Tensor {
  const table = get(parameters, config.tieEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  const y = ops.linear(hidden, table);
  return config.logitSoftCap === undefined ? y : ops.softCap(y, config.logitSoftCap);
}

function get(parameters: Parameters, name: string): Tensor {
  const tensor = parameters.get(name);
  if (!tensor) throw new Error(`internal: no parameter "${name}"`);
  return tensor;
}
