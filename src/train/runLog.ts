/** A run's metrics: `metrics.jsonl`, one row a line, written as training goes and cut back when it resumes. */
import { closeSync, fsyncSync, ftruncateSync, openSync, readFileSync } from "node:fs";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { refuseLink, writeFully, writing } from "../files.ts";
import { unreadable } from "../refusals.ts";
import { oneLine, zodWords } from "../words.ts";

const count = z.number().int().nonnegative();
const perLayer = z.array(z.number().nullable());
/** Optimiser steps since the start of the run, and the stage they belong to. */
const position = { step: count, stage: z.string() };

const rowSchema = z.discriminatedUnion("kind", [
  /** First row of a run: what is trained. */
  z.object({
    kind: z.literal("run"),
    name: z.string(),
    recipe: z.unknown(),
    /** Parameters by part. */
    parameters: z.record(z.string(), count),
  }),
  /** One optimiser step. */
  z.object({
    kind: z.literal("train"),
    ...position,
    /**
     * Mean over labels, nats, with a teacher's share and the contrast between masks where the stage has them; of a warm start, over
     * prompts, and for a linear head the squared error of the scores.
     */
    loss: z.number(),
    /** Tokens without padding, and how many of them carry loss; of a warm start, the prompts. */
    tokens: count,
    labels: count,
    /** Tokens with padding. */
    positions: count,
    /** Before clipping. */
    gradientNorm: z.number(),
    learningRate: z.record(z.string(), z.number()),
    /** Channels that the step kept in each layer, where its stage draws budgets or keeps channels by fixed masks. */
    tFfn: count.optional(),
    /** Wall-clock time of the step. The one value that differs between a resumed and an uninterrupted run. */
    ms: z.number(),
  }),
  /** Held-out rows under each mask that was tried; nats per label. Of a distil stage: divergence from the teacher and agreement with it, means over domains. */
  z.object({
    kind: z.literal("evaluation"),
    ...position,
    examples: count,
    /**
     * By mask: `own` (learned static, or the domain's), `perInput` and `perTask` (from the whole prompt, from its instruction), `generic`
     * (one for all from the same predictor), `foreign` (another domain's), `hard` (per input, λ = 1), `dense`.
     */
    loss: z.record(z.string(), z.number()),
    /** Share of labels that are the most likely token, by mask. */
    accuracy: z.record(z.string(), z.number()),
    /** Share of examples whose labels all are the most likely token, by mask. */
    exactMatch: z.record(z.string(), z.number()),
  }),
  /**
   * Groups of training prompts by what the dense LLM activates when it answers them. Domains do not form them, but choose the further
   * questions where the stage asks for conversations.
   */
  z.object({
    kind: z.literal("clusters"),
    ...position,
    examples: count,
    clusters: count,
    /** Share of the examples whose domain is the most frequent one of their cluster. */
    purity: z.number(),
  }),
  /** How masks differ between prompts. */
  z.object({
    kind: z.literal("masks"),
    ...position,
    /** What the predictor read. */
    predictorInput: z.enum(["prompt", "instruction"]),
    /** Mean share of kept channels that two prompts have in common, per layer. */
    overlapWithin: perLayer,
    overlapAcross: perLayer,
    /** t_ffn / d_ffn: what independent masks would have in common. */
    chance: z.number(),
    /** Standard deviation of a channel's score over prompts, mean over channels, per layer. */
    scoreStd: perLayer.optional(),
    /** Share of channels that some prompt keeps, per layer. */
    everUsed: perLayer,
    /** Mean λ of kept channels, per layer. */
    meanLambda: perLayer,
    /** Mean overlap of two prompts by their domains, over all layers. */
    domains: z.array(z.string()),
    matrix: z.array(z.array(z.number().nullable())),
  }),
]);

/** A row of `metrics.jsonl`. */
export type MetricsRow = z.infer<typeof rowSchema>;
export type TrainRow = Extract<MetricsRow, { kind: "train" }>;
export type EvaluationRow = Extract<MetricsRow, { kind: "evaluation" }>;
export type ClusterRow = Extract<MetricsRow, { kind: "clusters" }>;
export type MaskRow = Extract<MetricsRow, { kind: "masks" }>;

/** An open log. One writer at a time. */
export class RunLog implements Disposable {
  /** Bytes that the log lacked at opening: rows that were lost, and are not made again. */
  readonly lostBytes: number;
  readonly #descriptor: number;
  #bytes: number;

  /**
   * @param bytes length to cut the log back to: what it had at the checkpoint that training resumes from, 0 for a new run. The checkpoint counts: a log that
   *   is shorter goes on after its last whole line
   * @throws {FileError} if it cannot be written, or is a link to elsewhere
   */
  constructor(
    readonly path: string,
    bytes: number,
  ) {
    refuseLink(path);
    this.#descriptor = writing(path, () => openSync(path, "a+"));
    const kept = readFileSync(this.#descriptor).subarray(0, bytes);
    this.#bytes = kept.lastIndexOf("\n") + 1;
    this.lostBytes = bytes - this.#bytes;
    writing(path, () => ftruncateSync(this.#descriptor, this.#bytes));
  }

  /** Length of the log: what a checkpoint keeps. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Writes one row, at once visible to readers. */
  append(row: MetricsRow): void {
    const line = Buffer.from(`${JSON.stringify(row)}\n`);
    writing(this.path, () => writeFully(this.#descriptor, line));
    this.#bytes += line.length;
  }

  /** Makes all rows durable; call before the checkpoint that counts them. */
  sync(): void {
    writing(this.path, () => fsyncSync(this.#descriptor));
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }
}

/**
 * All rows of a log, also of one that is being written: a last line without its end is left out.
 *
 * @throws {FileError} if the file is missing or a line is not a row
 */
export function readRunLog(path: string): MetricsRow[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw unreadable(path, cause);
  }
  const lines = text.split("\n").slice(0, -1);
  return lines.map((line, i) => {
    let json: unknown;
    try {
      json = JSON.parse(line);
    } catch (cause) {
      throw new FileError(
        path,
        `line ${i + 1}: wanted JSON, got ${oneLine((cause as Error).message)}. Is it a run's log?`,
        {
          cause,
        },
      );
    }
    const parsed = rowSchema.safeParse(json);
    if (!parsed.success) throw new FileError(path, `line ${i + 1}: ${zodWords(parsed.error)}. Is it a run's log?`);
    return parsed.data;
  });
}
