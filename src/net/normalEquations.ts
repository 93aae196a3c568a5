/**
 * What least squares needs to know of a layer's FFN under masks: how its output on the tokens of a dense model changes where channels are dropped, and how far
 * the channels that stay could make up for it.
 *
 * Shapes: N tokens · B rows of a batch · T tokens of a row · D model width · F FFN channels · M masks
 */
import * as n from "../graph/nodes.ts";
import type { DenseMask } from "../mask/mask.ts";
import type { ModelSource } from "../model/source.ts";
import { type LayerOptions, layerByLayer } from "./layerByLayer.ts";
import { batches, padded, rowsWithin } from "./padding.ts";
import { activations } from "./statistics.ts";

/** Of 1,024 positions, unless one sequence alone has more. More of them, and sums over tokens are less often read from the graph. */
const rowsFor = rowsWithin(1024);

/**
 * Sums over tokens, of activations u [N, F] and the mask m of each token's sequence. In float32 within a batch, in float64 over batches; arrays are
 * used again for the next layer.
 */
export interface NormalEquations {
  /** (m⊙u)ᵀ(m⊙u), [F, F]. */
  gram: Float64Array;
  /** rᵀ(m⊙u) of what is missing, r = ((1−m)⊙u) downᵀ, [D, F]. */
  cross: Float64Array;
  /** Σ r². */
  missing: number;
  /** Σ of squares of the dense output u downᵀ. */
  output: number;
}

/**
 * Each layer reads what the dense model gives it, whatever the masks.
 *
 * Memory: 8·F·(F + D) bytes, 4·D a token, and a batch of 1,024 positions.
 *
 * @param sequences token ids, and which of the masks they are under; all of their tokens count
 * @param masks [M][L·F]
 * @param visit takes those of a layer, in order, with its `down` [D, F]
 * @throws as {@link layerByLayer}
 */
export async function normalEquations(
  model: ModelSource,
  sequences: readonly { ids: Int32Array; mask: number }[],
  masks: readonly DenseMask[],
  visit: (layer: number, equations: NormalEquations, down: Float32Array) => void,
  options: LayerOptions = {},
): Promise<void> {
  const { ffnWidth: F, width: D } = model.config;
  const grouped = batches(
    sequences.map(({ ids }) => ids.length),
    rowsFor,
  ).map(({ indices, T }) => ({ rows: indices.map((i) => sequences[i]!), B: rowsFor(T), T }));
  const counted = grouped.map(({ rows, B, T }) => {
    const ones = rows.map(({ ids }) => new Int32Array(ids.length).fill(1));
    return Float32Array.from(padded(ones, T, B));
  });
  const sums: NormalEquations = {
    gram: new Float64Array(F * F),
    cross: new Float64Array(D * F),
    missing: 0,
    output: 0,
  };
  await layerByLayer(
    model,
    grouped.map(({ rows, B, T }) => ({ rows: rows.map(({ ids }) => ids), B, T })),
    {
      observe(graph, { B, T }, input, ffn) {
        const m = n.reshape(graph.input("mask", [B, F]), [B, 1, F]);
        const counts = graph.input("counted", [B * T]); // 1 for tokens, 0 for padding
        const all = activations(input, ffn);
        const read = n.mul(n.reshape(all, [B, T, F]), n.reshape(counts, [B, T, 1]));
        const kept = n.mul(read, m);
        const dropped = n.reshape(n.sub(read, kept), [B * T, F]); // exactly 0 where the mask is 1
        const u = n.reshape(kept, [B * T, F]);
        const r = n.matmul(dropped, ffn.down, { transB: true });
        const y = n.mul(n.matmul(all, ffn.down, { transB: true }), n.reshape(counts, [B * T, 1]));
        graph.output("gram", n.matmul(u, u, { transA: true }));
        graph.output("cross", n.matmul(r, u, { transA: true }));
        graph.output("missing", n.reduceSumSquare(r, [0, 1]));
        graph.output("output", n.reduceSumSquare(y, [0, 1]));
      },
      feeds(layer, batch) {
        const { rows, B } = grouped[batch]!;
        const mask = new Float32Array(B * F);
        for (const [row, { mask: own }] of rows.entries())
          mask.set(masks[own]!.subarray(layer * F, (layer + 1) * F), row * F);
        return { mask, counted: counted[batch]! };
      },
      take(_, { gram, cross, missing, output }) {
        for (let i = 0; i < F * F; i++) sums.gram[i]! += gram![i]!;
        for (let i = 0; i < D * F; i++) sums.cross[i]! += cross![i]!;
        sums.missing += missing![0]!;
        sums.output += output![0]!;
      },
      finish(layer, down) {
        visit(layer, sums, down);
        sums.gram.fill(0);
        sums.cross.fill(0);
        sums.missing = sums.output = 0;
      },
    },
    options,
  );
}
