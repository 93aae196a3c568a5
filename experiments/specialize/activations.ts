/** Activation norms in place of importance: channels that contribute most, whether or not the answers need it; all else of the cut is the same. */
import { maskFromScores } from "../../src/mask/mask.ts";
import { inMemory } from "../../src/model/source.ts";
import { contributionScores } from "../../src/net/activations.ts";
import { CUT_PROMPTS, type cutModel, narrowed } from "../../src/specialize/cut.ts";
import { IGNORED } from "../../src/train/batches.ts";
import { labelledTurns } from "../../src/train/data.ts";
import { reconstructDown } from "../../src/train/reconstruct.ts";

export const cutByActivations: typeof cutModel = async (dense, data, { tFfn, threads, signal }) => {
  const session = { ...(threads !== undefined && { threads }), spinning: false, signal };
  const sequences = data.questions
    .flat()
    .slice(0, CUT_PROMPTS)
    .map((question) => labelledTurns([data.encode(question, question.wordings[0]!)], IGNORED));
  // The first token has massive activations, of every channel alike in every text.
  const windows = sequences.map(({ ids }) => ({ ids, skipped: 1 }));
  const scores = await contributionScores(inMemory("dense", dense.llm), windows, session);
  const mask = maskFromScores(scores, { dFfn: dense.llm.config.ffnWidth, tFfn });
  const masked = sequences.map(({ ids }) => ({ ids, mask: 0 }));
  const { weights, error } = await reconstructDown(dense.llm, masked, [mask], session);
  const { config } = dense.llm;
  return { model: narrowed(dense, { config, weights }, mask), reconstruction: error };
};
