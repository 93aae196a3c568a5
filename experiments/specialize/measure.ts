/**
 * What a model of the comparison is worth over held-out answers: its distance from the teacher, in float32; and as it is served, in F16, the perplexity of those answers and how many of them it gives
 * itself.
 */
import { rmSync } from "node:fs";
import { generateAnswers } from "../../src/answer/generate.ts";
import { InstructionModel } from "../../src/answer/instructionModel.ts";
import { packBundle } from "../../src/bundle/packBundle.ts";
import { type EvaluationOptions, evaluateTasks } from "../../src/eval/evaluate.ts";
import { openModel } from "../../src/eval/load.ts";
import { DivergenceMeter } from "../../src/net/divergenceMeter.ts";
import { parameterArrays } from "../../src/net/parameters.ts";
import { openDense } from "../../src/specialize/taskData.ts";
import { promptText, readRows } from "../../src/specialize/taskPrompts.ts";
import { isCorrect } from "../../src/text/scorers.ts";
import { loadModel } from "../../src/train/checkpoint.ts";
import { summarizeDivergence } from "../../src/train/diagnose.ts";
import { heldOutExamples, taughtSequences } from "../../src/train/heldOut.ts";
import { Teacher } from "../../src/train/teacher.ts";
import { sourceMasks } from "../smollm2/sourceMasks.ts";
import type { Measured } from "./results.ts";

export interface MeasureHow {
  /** Checkpoint. */
  teacher: string;
  /** File of rows with answers. */
  heldOut: string;
  /** Longer rows are left out. */
  maxTokens: number;
  /** Folder of the teacher's hidden states. */
  states: string;
  /** Folder that is made, and removed. */
  bundle: string;
  /** File of rows with right answers, which it is to find itself. */
  asked?: string | undefined;
  /** Each prompt under a mask of its own activations. */
  griffin?: { tFfn: number; cache: string } | undefined;
  threads: number;
}

/** @param path checkpoint */
export async function measure(path: string, how: MeasureHow): Promise<Measured> {
  const { heldOut, maxTokens, asked, griffin, threads, bundle } = how;
  const session = { threads, spinning: false };
  const taught = await openDense(how.teacher);
  const examples = await heldOutExamples(heldOut, taught.format, maxTokens);
  await using teacher = new Teacher(taught.model.llm, examples, {
    ...{ folder: how.states, sequenceLength: maxTokens, session },
  });
  rmSync(bundle, { recursive: true, force: true }); // of a call that was stopped
  await packBundle(path, bundle, { type: "F16" });
  try {
    await using served = await openModel(bundle, session);
    const prompts = examples.map(({ prompt }) => prompt);
    const masks = griffin && (await sourceMasks(served.model, prompts, { source: "griffin" }, { ...griffin, threads }));
    const { llm } = await loadModel(path);
    const head = { ...teacher.head, weight: teacher.headWeight };
    const meter = new DivergenceMeter(llm.config, parameterArrays({ llm: llm.weights }), head, session);
    const measured = await meter.measure(await taughtSequences(examples, teacher), masks);
    await meter.release();
    const { loss, tokenAccuracy } = summarizeDivergence(
      measured,
      examples.map(() => "task"),
    );
    const scores = await served.evaluator.score(examples, masks);
    const sum = (key: "nll" | "tokens") => scores.reduce((total, one) => total + one[key], 0);
    const under = griffin && { source: "griffin" as const, tFfn: griffin.tFfn, scoreCache: { root: griffin.cache } };
    const exact = asked === undefined ? undefined : await exactAnswers(bundle, served, asked, { under, threads });
    return {
      kl: loss,
      agreement: tokenAccuracy,
      perplexity: Math.exp(sum("nll") / sum("tokens")),
      ...(exact && { exact }),
    };
  } finally {
    rmSync(bundle, { recursive: true, force: true });
  }
}

/** What the bundle answers exactly; many at a time, unless each prompt has a mask of its own. */
async function exactAnswers(
  bundle: string,
  served: Parameters<typeof evaluateTasks>[0],
  asked: string,
  { under, threads }: { under: EvaluationOptions | undefined; threads: number },
): Promise<NonNullable<Measured["exact"]>> {
  if (under) {
    const { mean } = await evaluateTasks(served, asked, under);
    return { share: mean.accuracy, asked: mean.count };
  }
  using model = new InstructionModel(bundle);
  const out = `${bundle}.answers.jsonl`;
  await generateAnswers(model, asked, out, { maxTokens: ANSWER_TOKENS, slots: SLOTS, threads });
  const said = new Map(readRows(out).map((row) => [promptText(row), row.output!]));
  rmSync(out);
  const rows = readRows(asked);
  const right = rows.filter((row) => isCorrect("any", said.get(promptText(row)) ?? "", [row.output!]));
  return { share: right.length / rows.length, asked: rows.length };
}

const ANSWER_TOKENS = 96;
const SLOTS = 16;
