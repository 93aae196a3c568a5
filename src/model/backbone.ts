/**
 * A predictor's backbone that is no second model: the big model's own first layers, with the weights of the moment at which it is made. They do not
 * learn.
 *
 * Shapes: D model width
 */
import { type ModelConfig, parameterShapes, type Weights } from "./config.ts";
import { familyOf } from "./families.ts";

const EMBEDDING = "model.embed_tokens.weight";

/** The shape of the first layers of a model. None: its embedding alone. */
export function firstLayersConfig(llm: ModelConfig, numLayers: number): ModelConfig {
  return { ...llm, numLayers, tieEmbeddings: true };
}

/** Parameters of a backbone with their shapes. Without layers it is an embedding, and no LM. */
export function backboneShapes(config: ModelConfig): Map<string, readonly number[]> {
  const shapes = parameterShapes(config);
  return config.numLayers === 0 ? new Map([[EMBEDDING, shapes.get(EMBEDDING)!]]) : shapes;
}

/**
 * The weights of a model's first layers: copies, with a final norm of gain 1, since the model's own is meant for its last layer. Without layers the
 * embedding itself, which is shared.
 *
 * @param config of {@link firstLayersConfig}
 */
export function firstLayers(config: ModelConfig, llm: Weights): Weights {
  if (config.numLayers === 0) return new Map([[EMBEDDING, llm.get(EMBEDDING)!]]);
  return new Map(
    [...backboneShapes(config).keys()].map((name) => {
      const { shape, data } = llm.get(name)!;
      const own = name === "model.norm.weight" ? data.map(() => 1 - familyOf(config).gainOffset) : data.slice();
      return [name, { shape, data: own }];
    }),
  );
}
