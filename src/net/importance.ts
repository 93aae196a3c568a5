/**
 * How much each FFN channel of a dense model matters for answers that are given: a first-order estimate of what the answer's log-likelihood
 * would lose if the channel were silent at a token, added up over tokens.
 *
 * Shapes: B rows of a batch · T tokens · N = B·T · L layers · F FFN channels
 */
import { gradients } from "../graph/autodiff.ts";
import { Graph } from "../graph/graph.ts";
import * as n from "../graph/nodes.ts";
import { ops } from "../graph/ops.ts";
import { SessionCache, type SessionOptions } from "../graph/session.ts";
import type { ModelConfig } from "../model/config.ts";
import { decoder, logits, parameterInputs } from "./decoder.ts";
import type { EvaluatedModel, LabelledSequence } from "./evaluator.ts";
import { IGNORED } from "./labels.ts";
import { batches, padded, rowsWithin } from "./padding.ts";
import { PREFIX } from "./step.ts";

/** Of 512 positions, unless one sequence alone has more: what the memory of a run grows with. */
const rowsFor = rowsWithin(512);

export interface ImportanceOptions extends SessionOptions {
  /** Stops between two batches. */
  signal?: AbortSignal | undefined;
  /** Sequences that are done, and all of them. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * Σ over tokens of |a · ∂ℓ/∂a| for every channel and sequence: a = act(gate)·up, the channel's activation at the token; ℓ = Σ over labelled
 * positions of ln p(label). Every token before the last label counts, also those of the prompt. A sequence without labels scores 0.
 *
 * Memory: beside the parameters what a batch of 512 positions needs (or one longer sequence): 1.5 GB for 135 M parameters and a vocabulary of 49,152, 3.5 GB
 * for a sequence of 1,024 tokens; 4·L·F bytes a sequence for the result.
 *
 * @returns per sequence [L·F]
 * @see Michel, Levy & Neubig 2019, arXiv:1905.10650 (heads by the gradient of a mask of ones)
 */
export async function importanceScores(
  { llm, parameters }: EvaluatedModel,
  sequences: readonly LabelledSequence[],
  { signal, onProgress, ...sessionOptions }: ImportanceOptions = {},
): Promise<Float32Array[]> {
  const LF = llm.numLayers * llm.ffnWidth;
  const results: Float32Array[] = new Array(sequences.length);
  const sessions = new SessionCache(sessionOptions);
  try {
    let done = 0;
    for (const { indices, T } of batches(
      sequences.map(({ ids }) => ids.length),
      rowsFor,
    )) {
      signal?.throwIfAborted();
      const B = rowsFor(T);
      const session = await sessions.get(String(T), () => importanceGraph(llm, B, T));
      const rows = indices.map((i) => sequences[i]!);
      const [ownIds, ownLabels] = [rows.map(({ ids }) => ids), rows.map(({ labels }) => labels)];
      const feeds = { ids: padded(ownIds, T, B), labels: padded(ownLabels, T, B, IGNORED), one: ONE };
      const { importance } = (await session.run({ ...parameters, ...feeds })) as {
        importance: Float32Array;
      };
      for (const [row, i] of indices.entries()) results[i] = importance.slice(row * LF, (row + 1) * LF);
      done += indices.length;
      onProgress?.(done, sequences.length);
    }
  } finally {
    await sessions.release();
  }
  return results;
}

const ONE = Float32Array.of(1);

/**
 * a · ∂ℓ/∂a is the gradient with respect to a mask of ones with a row per token. Rows do not see each other, so that of the sum is each one's
 * own; after a row's last label, in padding too, it is 0.
 *
 * Inputs: the LLM's parameters, `ids` [B, T], `labels` [B·T], `one` [], which is 1: a constant would be unfolded to L matrices [N, F] for good.
 * Output: `importance` [B, L·F].
 */
function importanceGraph(llm: ModelConfig, B: number, T: number): Graph {
  const { numLayers: L, ffnWidth: F } = llm;
  const graph = new Graph(`importance B=${B} T=${T}`);
  const ids = graph.input("ids", [B, T], "int32");
  const labels = graph.input("labels", [B * T], "int32");
  const one = graph.input("one", []);
  const parameters = parameterInputs(graph, llm, PREFIX.llm);
  const masks = Array.from({ length: L }, () => n.expand(one, [B * T, F]));
  const y = logits(llm, parameters, decoder(llm, parameters, ids, masks));
  const perToken = gradients(ops.crossEntropy(y, labels), masks); // its sign is of no matter
  const perRow = perToken.map((gradient) => n.reduceSum(n.reshape(n.abs(gradient), [B, T, F]), [1])); // [B, F]
  graph.output("importance", n.concat(perRow, 1));
  return graph;
}
