/**
 * What masks that need no training cost a model, measured on the model itself: it answers some prompts whole, and its sub-networks judge the answers. No
 * data is needed, and seconds of time; what it says of other prompts is an estimate.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { keptChannels } from "../bundle/budget.ts";
import { maskHash } from "../bundle/subnetworkCache.ts";
import type { Engine } from "../engine/engine.ts";
import { DependencyError } from "../errors.ts";
import { joinedIds } from "../ids.ts";
import type { Quality } from "../manifest.ts";
import { fullMask, type Mask } from "../mask/mask.ts";
import type { Instruction } from "../text/prompt.ts";
import type { InstructionModel } from "./instructionModel.ts";
import { chooseMask, openMaskSource, type SourceChoice } from "./maskSource.ts";
import { OneEngine } from "./oneEngine.ts";
import { textWindows } from "./windows.ts";

/** How {@link measureQuality} asks. */
export interface MeasureOptions {
  /** For the sources `glass` and `text`, which are measured only with one. */
  text?: string | undefined;
  threads?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Prompts answered and judged, and all of them, over all masks. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Shares that are measured. */
const SHARES = [0.9, 0.75, 0.5] as const;
export const ANSWER_TOKENS = 24;
/** Plain requests of several kinds. */
export const PLAIN_PROMPTS = [
  "What is the capital of France?",
  "Name three animals that live in the sea.",
  "Write a short sentence about the sun.",
  "What is 7 plus 5?",
  "Rewrite politely: Give me the report.",
  "Write a Python function that adds two numbers.",
] as const;

/** A prompt with the dense model's answer, and the log-probabilities of its tokens. */
interface Answered {
  prompt: Instruction;
  /** Of prompt and answer. */
  ids: Int32Array;
  logprobs: readonly number[];
}

/**
 * Measures a model under masks of every source that needs no training: `griffin` where ONNX Runtime is installed, `weights`, and `glass` and `text` with a text.
 *
 * @returns undefined of a model that answers nothing, or has no room for the prompts
 * @throws {InputError} if the text is empty
 * @throws {MemoryError} if the dense model does not fit into memory
 */
export async function measureQuality(
  model: InstructionModel,
  options: MeasureOptions = {},
): Promise<Quality | undefined> {
  const { text, threads, signal, onProgress } = options;
  const { numLayers, ffnWidth, contextLength: longest } = model.bundle;
  if (text !== undefined) textWindows(model.bundle.config, model.format.tokenizer, text); // an empty one says so before minutes of work
  const prompts = PLAIN_PROMPTS.map((prompt) => model.format.instruction(prompt)).filter(
    ({ ids }) => ids.length + ANSWER_TOKENS < longest,
  );
  if (prompts.length === 0) return undefined;
  const contextLength = Math.max(...prompts.map(({ ids }) => ids.length)) + ANSWER_TOKENS + 1;
  const root = mkdtempSync(join(tmpdir(), "ifprune-measure-"));
  try {
    const cache = { root: join(root, "subnetworks") };
    await using engines = new OneEngine(model, contextLength, 1, { threads, signal, cache });
    const engineOf = (mask: Mask) => engines.of(maskHash(mask), mask);
    const score = (engine: Engine, ids: Int32Array, { ids: { length } }: Instruction) =>
      engine.score(ids, { top: 1, from: length, signal });

    const choices: SourceChoice[] = [{ source: "griffin" }, { source: "weights" }];
    if (text !== undefined) choices.push({ source: "glass", text }, { source: "text", text });
    const judged = choices.length * SHARES.length; // masks of a prompt
    let done = 0;
    const report = (steps: number) => {
      done += steps;
      onProgress?.(done, prompts.length * (1 + judged));
    };

    const dense = await engineOf(fullMask(numLayers, ffnWidth));
    const answered: Answered[] = [];
    for (const prompt of prompts) {
      const answer: number[] = [];
      for await (const id of dense.generate(prompt.ids, { maxTokens: ANSWER_TOKENS, signal })) answer.push(id);
      report(answer.length === 0 ? 1 + judged : 1);
      if (answer.length === 0) continue;
      const ids = joinedIds(prompt.ids, answer);
      answered.push({ prompt, ids, logprobs: (await score(dense, ids, prompt)).map(({ logprob }) => logprob) });
    }
    if (answered.length === 0) return undefined;

    const tokens = answered.reduce((sum, { logprobs }) => sum + logprobs.length, 0);
    const rowsOf = async (choice: SourceChoice) => {
      await using source = await openMaskSource(model, choice, { threads, cache: { root: join(root, "scores") } });
      const rows: Quality["rows"] = [];
      for (const keep of SHARES) {
        const tFfn = keptChannels(keep, ffnWidth, model.manifest.block);
        let [loss, agreed] = [0, 0];
        for (const { prompt, ids, logprobs } of answered) {
          const { mask } = await chooseMask(source, prompt, { tFfn, ffnWidth, signal });
          for (const [i, { id, logprob, top }] of (await score(await engineOf(mask), ids, prompt)).entries()) {
            loss += logprobs[i]! - logprob;
            if (top[0]!.id === id) agreed++;
          }
          report(1);
        }
        rows.push({ source: source.name, tFfn, loss: loss / tokens, agreement: agreed / tokens });
      }
      return rows;
    };
    const rows: Quality["rows"] = [];
    for (const choice of choices) {
      try {
        rows.push(...(await rowsOf(choice)));
      } catch (error) {
        if (!(error instanceof DependencyError)) throw error; // activations want ONNX Runtime
      }
    }
    return { prompts: answered.length, tokens, rows };
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}
