/**
 * The families of models: all that differs between them, for the network, and for the two formats that others write them in. A new family is an entry
 * here, and what it computes that none of the others does.
 *
 * Shapes: D model width · H query heads · C head width
 */

export interface Family {
  /** Of the FFN's gate. */
  activation: "silu" | "gelu";
  /** q, k and v have biases. */
  hasBiases: boolean;
  /** q and k have an RMSNorm of each head. */
  hasHeadNorms: boolean;
  /** Gains of norms are this and the weight. */
  gainOffset: 0 | 1;
  /** Norms after attention and after the FFN too, before they are added to the residual stream. */
  hasPostNorms: boolean;
  /** Embeddings are taken times √D. */
  scalesEmbeddings: boolean;
  /** Every so many layers one sees the whole context, the last of its group; the others see a window. Absent: all see all. */
  globalEvery?: number;
  /** Local layers have a θ of their own, without scaling. */
  hasLocalTheta: boolean;
  /** Attention may be scaled otherwise than by 1/√C, and its logits and those of the output capped softly. */
  hasScalesAndCaps: boolean;
  /** Activations are beyond what F16 holds (65,504). */
  overflowsF16: boolean;
  huggingFace: {
    architecture: string;
    /** By `model_type`; the first is the one that is written. */
    modelTypes: Record<string, HuggingFaceType>;
    /** `model_type` of models that also see, whose `text_config` is the first of `modelTypes`. */
    multimodalType?: string;
  };
  /** What llama.cpp does, whatever a file says. The family's name is GGUF's for the architecture. */
  gguf: {
    /** RoPE rotates neighbours (2i, 2i + 1), so rows of q and k are in another order. */
    rotatesNeighbours: boolean;
    /** Frequencies may have divisors, which is how llama3 scaling is stored. */
    hasRopeDivisors: boolean;
    /** The heads of q together are as wide as the model. */
    headsFillWidth: boolean;
    /** The output matrix is the embedding. */
    isTied: boolean;
    /** Layers of the one size whose attention is scaled by √(D/H), not √C. */
    layersScaledByWidth?: number;
    /** Where a file does not give them: the window, which must be there without; θ of local layers. */
    slidingWindow?: number;
    localTheta?: number;
    /** The same of caps: absent where the family has none, 0 where it may have none. */
    softCaps: { attention?: number; logits?: number };
  };
}

export interface HuggingFaceType {
  /** What transformers assumes where a config says nothing: configs of Gemma 3 say only what differs from it. */
  defaults: Record<string, unknown>;
  /** All layers see a window alone. We see all, so the window bounds the context. */
  isBoundByWindow?: boolean;
}

/** The Llama block. */
const llama: Family = {
  activation: "silu",
  hasBiases: false,
  hasHeadNorms: false,
  gainOffset: 0,
  hasPostNorms: false,
  scalesEmbeddings: false,
  hasLocalTheta: false,
  hasScalesAndCaps: false,
  overflowsF16: false,
  huggingFace: {
    architecture: "LlamaForCausalLM",
    modelTypes: {
      llama: { defaults: {} }, // SmolLM2 is one too
      mistral: { defaults: { num_key_value_heads: 8, sliding_window: 4096 }, isBoundByWindow: true },
    },
  },
  gguf: { rotatesNeighbours: true, hasRopeDivisors: true, headsFillWidth: false, isTied: false, softCaps: {} },
};

/** What of llama.cpp's is the same in all but llama. */
const plainGguf: Family["gguf"] = { ...llama.gguf, rotatesNeighbours: false, hasRopeDivisors: false };

const gemma = {
  ...llama,
  activation: "gelu",
  gainOffset: 1,
  hasPostNorms: true,
  scalesEmbeddings: true,
  hasScalesAndCaps: true,
  overflowsF16: true, // Gemma 3's reach 800,000
} as const satisfies Family;

const gemmaDefaults = {
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  rms_norm_eps: 1e-6,
  sliding_window: 4096,
  query_pre_attn_scalar: 256,
  tie_word_embeddings: true,
};

const families = {
  llama,
  qwen2: {
    ...llama,
    hasBiases: true,
    huggingFace: {
      architecture: "Qwen2ForCausalLM",
      modelTypes: { qwen2: { defaults: { num_key_value_heads: 32 } } },
    },
    gguf: { ...plainGguf, headsFillWidth: true },
  },
  qwen3: {
    ...llama,
    hasHeadNorms: true,
    huggingFace: {
      architecture: "Qwen3ForCausalLM",
      modelTypes: { qwen3: { defaults: { num_key_value_heads: 32, head_dim: 128 } } },
    },
    gguf: plainGguf,
  },
  gemma2: {
    ...gemma,
    globalEvery: 2,
    huggingFace: {
      architecture: "Gemma2ForCausalLM",
      modelTypes: {
        gemma2: { defaults: { ...gemmaDefaults, attn_logit_softcapping: 50, final_logit_softcapping: 30 } },
      },
    },
    gguf: {
      ...plainGguf,
      isTied: true,
      layersScaledByWidth: 46,
      slidingWindow: 4096,
      softCaps: { attention: 50, logits: 30 },
    },
  },
  gemma3: {
    ...gemma,
    hasHeadNorms: true,
    globalEvery: 6,
    hasLocalTheta: true,
    huggingFace: {
      architecture: "Gemma3ForCausalLM",
      modelTypes: {
        gemma3_text: {
          defaults: {
            ...gemmaDefaults,
            vocab_size: 262_208,
            max_position_embeddings: 131_072,
            rope_theta: 1_000_000,
            rope_local_base_freq: 10_000,
          },
        },
      },
      multimodalType: "gemma3",
    },
    gguf: { ...plainGguf, layersScaledByWidth: 62, localTheta: 10_000, softCaps: { logits: 0 } },
  },
} as const satisfies Record<string, Family>;

export type ModelFamily = keyof typeof families;
export const MODEL_FAMILIES = Object.keys(families) as ModelFamily[];

export function familyOf({ family }: { family: ModelFamily }): Family {
  return families[family];
}

/** Whether a layer sees only a window. */
export function isLocalLayer(config: { family: ModelFamily }, layer: number): boolean {
  const { globalEvery } = familyOf(config);
  return globalEvery !== undefined && (layer + 1) % globalEvery !== 0;
}
