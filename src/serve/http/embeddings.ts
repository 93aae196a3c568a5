/**
 * `POST /v1/embeddings`: the features that masks are chosen from. They tell tasks apart, as the predictor was trained to; no model here was trained to put
 * texts of one meaning together.
 */
import type { InferenceService, ServedModel } from "../service.ts";
import { invalid } from "./apiErrors.ts";
import type { Handled } from "./context.ts";
import { servedModel } from "./generation.ts";
import { readJsonBody } from "./limits.ts";
import { parseEmbedding } from "./schemas.ts";

export async function embeddings(c: Handled): Promise<Response> {
  const { model, input, encoding_format: format = "float", dimensions } = parseEmbedding(await readJsonBody(c.req.raw));
  const served = servedModel(c.var.service, model);
  const { features, numTokens } = await featuresOf(c, served, input, dimensions);
  return c.json({
    object: "list",
    data: features.map((feature, index) => ({
      object: "embedding",
      index,
      embedding: format === "base64" ? base64(feature) : Array.from(feature),
    })),
    model: served.id,
    usage: { prompt_tokens: numTokens, total_tokens: numTokens },
    ifprune: { feature: served.isTrained ? "predictor" : "embedding" },
  });
}

/** Features of texts or tokens, of length 1, noted in the log. @throws {ApiError} if another number of dimensions is wanted than there is */
export async function featuresOf(
  c: Handled,
  { id }: ServedModel,
  input: readonly (string | number[])[],
  dimensions: number | undefined,
): ReturnType<InferenceService["features"]> {
  const { service, entry, logPrompts } = c.var;
  entry.model = id;
  if (logPrompts) entry.prompt = input;
  const inputs = input.map((one) => (typeof one === "string" ? one : Int32Array.from(one)));
  const made = await service.features(id, inputs, c.req.raw.signal);
  const { length } = made.features[0]!;
  if (dimensions !== undefined && dimensions !== length)
    throw invalid("dimensions", `wanted ${length}, as many as the feature of ${id} has, got ${dimensions}.`);
  entry.promptTokens = made.numTokens;
  return { ...made, features: made.features.map(unitLength) };
}

/** As clients take embeddings to be, which compare them by products. */
function unitLength(feature: Float32Array): Float32Array {
  const length = Math.hypot(...feature) || 1;
  return feature.map((value) => value / length);
}

/** Float32 as they lie in memory: little-endian, wherever Node runs. */
function base64({ buffer, byteOffset, byteLength }: Float32Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString("base64");
}
