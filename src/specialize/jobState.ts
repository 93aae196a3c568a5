/** A job that a server keeps: what was asked, what it has told, and what that amounts to. All of it is data. */
import { z } from "zod";
import type {
  CurvePoint,
  JobEstimate,
  Specialization,
  SpecializeEvent,
  SpecializePhase,
  SpecializeProgress,
  StepLoss,
} from "./specialization.ts";

export const askedSchema = z.strictObject({
  /** Of the model that it makes. */
  name: z.string(),
  /** Name of the whole model, where it is served. */
  model: z.string(),
  task: z.string().optional(),
  /** What the file of prompts has; without one the model drafts. */
  rows: z.enum(["prompts", "examples"]).optional(),
  /** Prompts that it drafts, beside those given too. */
  draft: z.number().optional(),
  keep: z.union([z.number(), z.literal("auto")]).optional(),
  maxLoss: z.number().optional(),
  tokens: z.number().optional(),
  maxTokens: z.number().optional(),
  licence: z.string().optional(),
});
/** What a job was asked. */
export type JobAsked = z.infer<typeof askedSchema>;

/** Where it stops until someone has looked: at the estimate, and at prompts that the model has drafted. */
export type JobPause = "estimate" | "drafted";

/** What is kept of all that it tells. The result lies in the model's own folder. */
export type JobEvent =
  | Exclude<SpecializeEvent, SpecializeProgress | { kind: "result" }>
  | { kind: "begun"; at: number }
  | { kind: "ended"; at: number; reason: "asks" | "stopped" | "failed" | "done"; error?: string | undefined };

/** How far the part that is under way is. */
export interface JobProgress {
  phase: SpecializePhase | "heal";
  /** Which part of it. */
  detail?: string | undefined;
  done: number;
  total: number;
  /** Of this part, by its own speed; not known at its beginning. */
  secondsLeft?: number | undefined;
  /** Of the last step of training: what that of a {@link StepLoss} is. */
  loss?: number | undefined;
}

/** What a run of the job was measured at. */
export type JobEvaluation = StepLoss & { run: string };

/** A job as a page shows it. Times are seconds. */
export interface SpecializeJob {
  asked: JobAsked;
  /** `stopping`: it was told to stop, and saves what it has; `elsewhere`: another process is at it. */
  state: "running" | "stopping" | "elsewhere" | "asks" | "stopped" | "failed" | "done";
  /** Of all that was worked on it. */
  seconds: number;
  estimate?: JobEstimate | undefined;
  drafts?: readonly string[] | undefined;
  notes: readonly string[];
  /** Shares that were tried. */
  curve: readonly CurvePoint[];
  evaluations: readonly JobEvaluation[];
  progress?: JobProgress | undefined;
  error?: string | undefined;
  result?: Specialization | undefined;
}

/** Whether an event is kept: progress and single steps are not. */
export function isKept(event: SpecializeEvent): event is SpecializeEvent & JobEvent {
  if (event.kind === "row") return event.row.kind === "evaluation";
  return event.kind !== "progress" && event.kind !== "result";
}

/** What a job's events amount to. What a call tells again, as it goes on from its last checkpoint, counts once. @param now milliseconds, as `at` */
export function jobState(events: readonly JobEvent[], isRunning: boolean, now: number): Omit<SpecializeJob, "asked"> {
  const notes = new Set<string>();
  const curve = new Map<number, CurvePoint>();
  const evaluations = new Map<string, JobEvaluation>();
  let [milliseconds, since]: [number, number | undefined] = [0, undefined];
  let state: SpecializeJob["state"] = "stopped"; // of one whose server was killed
  let error: string | undefined;
  let estimate: JobEstimate | undefined;
  let drafts: readonly string[] | undefined;
  for (const event of events) {
    switch (event.kind) {
      case "begun":
        since = event.at;
        [state, error] = ["stopped", undefined]; // unless it says how it ended
        break;
      case "ended":
        milliseconds += event.at - (since ?? event.at);
        since = undefined;
        [state, error] = [event.reason, event.error];
        break;
      case "note":
        notes.add(event.text);
        break;
      case "estimate":
        estimate = event.estimate;
        break;
      case "drafted":
        drafts = event.prompts;
        break;
      case "point":
        curve.set(event.point.tFfn, event.point);
        break;
      case "row": {
        const { run, row } = event;
        if (row.kind !== "evaluation") break;
        const { step, loss, accuracy } = row;
        evaluations.set(`${run} ${step}`, { run, step, loss: loss.dense!, accuracy: accuracy.dense! });
        break;
      }
      default:
        event satisfies never;
    }
  }
  if (isRunning) milliseconds += now - (since ?? now);
  return {
    state: isRunning ? "running" : state,
    seconds: milliseconds / 1000,
    estimate,
    drafts,
    notes: [...notes],
    curve: [...curve.values()],
    evaluations: [...evaluations.values()],
    error,
  };
}
