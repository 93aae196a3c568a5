/** AdamW with clipping by the global norm, as one graph over all parameters. Updates in place. */
import { Graph, type Tensor } from "../graph/graph.ts";
import * as n from "../graph/nodes.ts";
import { compile, type SessionOptions } from "../graph/session.ts";

export interface AdamWOptions {
  beta1: number;
  beta2: number;
  /** Added to the root of the squared gradient. 1e-8 if absent. */
  epsilon?: number | undefined;
  weightDecay: number;
  /** Largest global gradient norm; larger gradients are scaled down to it. */
  clipNorm: number;
}

/** A trained tensor: its values, its optimiser state and its learning-rate group, all updated in place. */
export interface Trained {
  shape: readonly number[];
  data: Float32Array;
  /** Running mean of the gradient. */
  m: Float32Array;
  /** Running mean of the squared gradient. */
  v: Float32Array;
  /** Name of the learning-rate group. */
  group: string;
  /** Whether weight decay applies; usual: matrices only. */
  decays: boolean;
}

export interface Optimizer {
  /**
   * One step.
   *
   * @param gradients by parameter name; sums over labels
   * @param scale factor that makes means of them: 1 / number of labels
   * @param step 1 at the first update (bias correction)
   * @param learningRates by group
   * @returns the global norm of the scaled gradient, before clipping
   */
  update(
    gradients: Readonly<Record<string, Float32Array>>,
    scale: number,
    step: number,
    learningRates: Readonly<Record<string, number>>,
  ): Promise<number>;
  release(): Promise<void>;
}

export async function adamW(
  trained: ReadonlyMap<string, Trained>,
  options: AdamWOptions,
  session: SessionOptions,
): Promise<Optimizer> {
  const { beta1, beta2, epsilon = 1e-8, weightDecay, clipNorm } = options;
  const graph = new Graph("adamw");
  const scalar = (name: string) => graph.input(name, []);
  const constant = (value: number) => graph.scalar(value);

  const gradient = new Map([...trained].map(([name, { shape }]) => [name, graph.input(`g:${name}`, shape)]));
  const squares = [...gradient.values()].map((g) =>
    n.reduceSumSquare(
      g,
      g.shape.map((_, i) => i),
    ),
  );
  const scale = scalar("scale");
  const norm = n.mul(n.sqrt(squares.reduce(n.add)), scale);
  const factor = n.mul(scale, n.min(constant(1), n.div(constant(clipNorm), n.add(norm, constant(1e-12)))));
  const meanGain = n.mul(factor, constant(1 - beta1));
  const squareGain = n.mul(n.mul(factor, factor), constant(1 - beta2));
  // p − lr·(m/c1)/(√(v/c2) + ε), with the corrections c1, c2 moved into one rate and one epsilon (both are scalars).
  const correctedEpsilon = scalar("epsilon");
  const groups = new Set([...trained.values()].map(({ group }) => group));
  const rates = new Map(
    [...groups].map((group) => [group, { rate: scalar(`rate:${group}`), keep: scalar(`keep:${group}`) }]),
  );

  graph.output("norm", norm);
  for (const [name, { shape, group, decays }] of trained) {
    const [p, m, v] = ["p", "m", "v"].map((kind) => graph.input(`${kind}:${name}`, shape)) as [Tensor, Tensor, Tensor];
    const g = gradient.get(name)!;
    const { rate, keep } = rates.get(group)!;
    const newM = n.add(n.mul(m, constant(beta1)), n.mul(g, meanGain));
    const newV = n.add(n.mul(v, constant(beta2)), n.mul(n.mul(g, g), squareGain));
    const change = n.div(n.mul(newM, rate), n.add(n.sqrt(newV), correctedEpsilon));
    graph.output(`p':${name}`, n.sub(decays ? n.mul(p, keep) : p, change));
    graph.output(`m':${name}`, newM);
    graph.output(`v':${name}`, newV);
  }
  const compiled = await compile(graph, session);
  // Results are written over the inputs. Safe: whatever reads p, m or v comes before, or is, the element-wise node that writes it.
  const feeds: Record<string, Float32Array> = {};
  const into: Record<string, Float32Array> = {};
  for (const [name, { data, m, v }] of trained) {
    for (const [kind, array] of [
      ["p", data],
      ["m", m],
      ["v", v],
    ] as const) {
      feeds[`${kind}:${name}`] = array;
      into[`${kind}':${name}`] = array;
    }
  }
  return {
    async update(gradients, scale, step, learningRates) {
      const c1 = 1 - beta1 ** step;
      const c2 = Math.sqrt(1 - beta2 ** step);
      for (const name of trained.keys()) feeds[`g:${name}`] = gradients[name]!;
      feeds.scale = Float32Array.of(scale);
      feeds.epsilon = Float32Array.of(epsilon * c2);
      for (const group of groups) {
        const lr = learningRates[group]!;
        feeds[`rate:${group}`] = Float32Array.of((lr * c2) / c1);
        feeds[`keep:${group}`] = Float32Array.of(1 - lr * weightDecay);
      }
      const results = await compiled.run(feeds, into);
      return results.norm![0]!;
    },
    release: () => compiled.release(),
  };
}
