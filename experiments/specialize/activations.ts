/**
 * Activation norms in place of importance: channels that contribute most, whether or not the answers need it; all else of the cut is the same. Counted are the tokens after what all rows begin with,
 * which a template writes. The first token has a massive activation in one channel of some layers, which others' attention rests on: the strongest there always stays.
 */
import { maskFromScores } from "../../src/mask/mask.ts";
import { inMemory } from "../../src/model/source.ts";
import { contributionScores } from "../../src/net/activations.ts";
import { labelledTurns } from "../../src/net/labels.ts";
import { CUT_PROMPTS, type cutModel, narrowed } from "../../src/specialize/cut.ts";
import { reconstructDown } from "../../src/train/reconstruct.ts";
import { commonBeginning } from "../../src/train/rows.ts";

/** A score above any contribution. */
const ALWAYS = 1e30;

export const cutByActivations: typeof cutModel = async (dense, data, { tFfn, threads, signal }) => {
  const session = { ...(threads !== undefined && { threads }), spinning: false, signal };
  const sequences = data.questions
    .flat()
    .slice(0, CUT_PROMPTS)
    .map((question) => labelledTurns([data.encode(question, question.wordings[0]!)]));
  const skipped = commonBeginning(sequences.map(({ ids }) => ids));
  const source = inMemory("dense", dense.llm);
  const scores = await contributionScores(
    source,
    sequences.map(({ ids }) => ({ ids, skipped })),
    session,
  );
  const first = await contributionScores(source, [{ ids: sequences[0]!.ids.subarray(0, 1), skipped: 0 }], session);
  const F = dense.llm.config.ffnWidth;
  for (let start = 0; start < scores.length; start += F) {
    const layer = first.subarray(start, start + F);
    scores[start + layer.indexOf(Math.max(...layer))] = ALWAYS;
  }
  const mask = maskFromScores(scores, { dFfn: dense.llm.config.ffnWidth, tFfn });
  const masked = sequences.map(({ ids }) => ({ ids, mask: 0 }));
  const { weights, error } = await reconstructDown(dense.llm, masked, [mask], session);
  const { config } = dense.llm;
  return { model: narrowed(dense, { config, weights }, mask), reconstruction: error };
};
