/**
 * How far a model under masks is from a teacher: forward KL of the teacher's next-token distributions to the model's, and how often both find the same token
 * most likely.
 *
 * Shapes: B rows · T tokens · L layers · F FFN channels · Dt width of the teacher
 */
import { Graph } from "../graph/graph.ts";
import * as n from "../graph/nodes.ts";
import { SessionCache, type SessionOptions, type TensorData } from "../graph/session.ts";
import { type DenseMask, type Mask, toDenseMask } from "../mask/mask.ts";
import type { ModelConfig } from "../model/config.ts";
import { decoder, logits, parameterInputs } from "./decoder.ts";
import { masksPerLayer } from "./predictor.ts";
import { PREFIX, TEACHER_HEAD, type TeacherHead, teacherLogits } from "./step.ts";

/** Sums over positions. */
export interface Divergence {
  /** KL(teacher ‖ model), nats. */
  kl: number;
  /** Positions at which both find the same token most likely. */
  agreed: number;
  positions: number;
}

/** A text, and what the teacher makes of it. */
export interface TaughtSequence {
  ids: Int32Array;
  /** Whether a position counts. */
  counts: readonly boolean[];
  /** Hidden states of the teacher after its final norm, at least [ids.length, Dt]. */
  states: Float32Array;
}

/** Rows that are computed at a time. */
const B = 4;

export class DivergenceMeter {
  readonly #llm: ModelConfig;
  readonly #parameters: Readonly<Record<string, Float32Array>>;
  readonly #teacher: TeacherHead & { weight: Float32Array };
  readonly #sessions: SessionCache;

  /**
   * @param parameters of the model, by graph input; shared with whoever trains them
   * @param teacher `weight`: its output matrix [V, Dt]
   */
  constructor(
    llm: ModelConfig,
    parameters: Readonly<Record<string, Float32Array>>,
    teacher: TeacherHead & { weight: Float32Array },
    session: SessionOptions,
  ) {
    this.#llm = llm;
    this.#parameters = parameters;
    this.#teacher = teacher;
    this.#sessions = new SessionCache(session);
  }

  /** @param masks one per sequence, or absent for the dense model */
  async measure(sequences: readonly TaughtSequence[], masks?: readonly Mask[]): Promise<Divergence[]> {
    const LF = this.#llm.numLayers * this.#llm.ffnWidth;
    const { width: Dt } = this.#teacher;
    const dense = new Map<Mask, DenseMask>();
    const denseMask = (mask: Mask) => dense.get(mask) ?? dense.set(mask, toDenseMask(mask)).get(mask)!;
    const results: Divergence[] = [];
    for (let from = 0; from < sequences.length; from += B) {
      const rows = sequences.slice(from, from + B);
      const T = Math.ceil(Math.max(...rows.map(({ ids }) => ids.length)) / T_STEP) * T_STEP;
      const feeds: Record<string, TensorData> = {
        ids: new Int32Array(B * T),
        teacherStates: new Float32Array(B * T * Dt),
        [TEACHER_HEAD]: this.#teacher.weight,
        ...(masks && { masks: new Float32Array(B * LF) }),
      };
      for (const [row, { ids, states }] of rows.entries()) {
        feeds.ids!.set(ids, row * T);
        feeds.teacherStates!.set(states.subarray(0, ids.length * Dt), row * T * Dt);
        if (masks) feeds.masks!.set(denseMask(masks[from + row]!), row * LF);
      }
      const session = await this.#sessions.get(`${T} ${masks ? "masked" : "dense"}`, () =>
        divergenceGraph(this.#llm, this.#teacher, T, masks !== undefined),
      );
      const outputs = await session.run({ ...this.#parameters, ...feeds });
      const { kl, agrees } = outputs as { kl: Float32Array; agrees: Float32Array };
      for (const [row, { counts }] of rows.entries()) {
        const sums: Divergence = { kl: 0, agreed: 0, positions: 0 };
        for (const [t, isCounted] of counts.entries()) {
          if (!isCounted) continue;
          sums.kl += kl[row * T + t]!;
          sums.agreed += agrees[row * T + t]!;
          sums.positions++;
        }
        results.push(sums);
      }
    }
    return results;
  }

  release(): Promise<void> {
    return this.#sessions.release();
  }
}

/** Lengths are rounded up to a multiple of this: few graphs. */
const T_STEP = 64;

/** Inputs: the LLM's parameters, `ids` [B, T], `masks` [B·L, F] if masked, and what the teacher's logits are made from. Outputs: `kl`, `agrees` [B·T]. */
function divergenceGraph(llm: ModelConfig, teacher: TeacherHead, T: number, isMasked: boolean): Graph {
  const graph = new Graph(`divergence B=${B} T=${T}`);
  const ids = graph.input("ids", [B, T], "int32");
  const { numLayers: L, ffnWidth: F } = llm;
  const masks = isMasked ? masksPerLayer(graph.input("masks", [B * L, F]), L) : undefined;
  const parameters = parameterInputs(graph, llm, PREFIX.llm);
  const y = logits(llm, parameters, decoder(llm, parameters, ids, masks));
  const taught = teacherLogits(graph, teacher, B * T);
  const difference = n.sub(n.logSoftmax(taught), n.logSoftmax(y));
  graph.output("kl", n.reduceSum(n.mul(n.softmax(taught), difference), [1]));
  const [best, bestTaught] = [y, taught].map((logits) => n.reshape(n.cast(n.argMax(logits), "int32"), [B * T]));
  const differs = n.cast(n.sub(best!, bestTaught!), "float32");
  graph.output("agrees", n.sub(graph.scalar(1), n.min(n.abs(differs), graph.scalar(1))));
  return graph;
}
