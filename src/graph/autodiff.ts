/** Reverse-mode differentiation over the tape of a graph. Emits nodes into the same graph; first order only. */
import type { Tensor } from "./graph.ts";
import * as n from "./nodes.ts";

/**
 * Gradients of a scalar with respect to `wrt`, in that order; zeros where the scalar does not depend on a tensor.
 *
 * @param loss a scalar (shape [])
 */
export function gradients(loss: Tensor, wrt: readonly Tensor[]): Tensor[] {
  const { graph } = loss;
  if (loss.shape.length !== 0)
    throw new Error(`internal: gradients of a tensor of shape [${loss.shape}], not of a scalar`);
  const relevant = new Set<Tensor>(wrt);
  for (const { inputs, output } of graph.tape) if (inputs.some((t) => relevant.has(t))) relevant.add(output);

  const gradient = new Map<Tensor, Tensor>([[loss, graph.scalar(1)]]);
  for (const entry of graph.tape.toReversed()) {
    const dOutput = gradient.get(entry.output);
    if (!dOutput || !relevant.has(entry.output)) continue;
    const parts = entry.backward(
      dOutput,
      entry.inputs.map((t) => relevant.has(t)),
    );
    entry.inputs.forEach((input, i) => {
      const part = parts[i];
      if (!part || !relevant.has(input)) return;
      const known = gradient.get(input);
      gradient.set(input, known ? n.add(known, part) : part);
    });
  }
  return wrt.map((t) => gradient.get(t) ?? n.zeros(t));
}
