/** One prompt on the dense model and on its sub-network: both answers, how far they agree, and what each took. */
import { openSubnetwork } from "../bundle/subnetworkCache.ts";
import type { Sampling } from "../engine/sampling.ts";
import type { Mask } from "../mask/mask.ts";
import { composePrompt } from "../text/prompt.ts";
import type { StageTimes } from "./answer.ts";
import type { AskOptions, InstructionModel, TextAnswer } from "./instructionModel.ts";
import { checkMasked } from "./maskSource.ts";

/** How {@link compareAnswers} asks; both answers are greedy, and masks gathered. `seed` is that of random masks. */
export interface CompareOptions extends Omit<AskOptions, "mask" | "form" | Exclude<keyof Sampling, "seed">> {
  /** A given mask instead of one that is made for the prompt. */
  mask?: Mask | undefined;
}

/** One of the two answers. */
export interface ComparedAnswer {
  text: string;
  tokens: number[];
  /** Where in `text` the first token begins that the other answer has not; undefined where both are the same. */
  differsAt: number | undefined;
  /** Share of the FFN's channels. */
  keptShare: number;
  ms: StageTimes;
  /** From the question to the first token: all stages but `decode`. */
  firstTokenMs: number;
  /** After the first token; undefined of shorter answers. */
  tokensPerSecond: number | undefined;
}

/** What came of {@link compareAnswers}. */
export interface Comparison {
  dense: ComparedAnswer;
  subnetwork: ComparedAnswer;
  /** Where the mask comes from; undefined where it was given. */
  chosen: TextAnswer["chosen"];
  promptTokens: number;
  /**
   * Share of the dense answer's tokens that the sub-network too finds the likeliest, each after the prompt and the dense answer before it: one early
   * difference does not make all that follows count as others. Undefined of an empty answer.
   */
  agreement: number | undefined;
  /** Index of the first token that differs; undefined where both are the same. */
  firstDifference: number | undefined;
}

/**
 * Asks the sub-network and the dense model, one after the other, so that neither takes the other's time; then lets the sub-network judge the dense answer.
 *
 * @throws as {@link InstructionModel.ask}
 */
export async function compareAnswers(
  model: InstructionModel,
  instruction: string,
  options: CompareOptions = {},
): Promise<Comparison> {
  const { mask: given, source, keep, maxLoss, tFfn, text, scoreCache, onProgress, ...plain } = options;
  if (!given) checkMasked("compare", model, options);
  await using asked = await model.ask(instruction, { ...options, form: "gathered" }); // first, as it may be refused
  const [ours, { mask, chosen, promptTokens }] = [await collect(asked), asked];
  await using whole = await model.ask(instruction, { ...plain, mask: "dense" });
  const theirs = await collect(whole);
  const ids = model.promptIds(composePrompt(instruction, options.input, options.examples));

  const at = theirs.findIndex((id, i) => id !== ours[i]);
  const firstDifference = at >= 0 ? at : ours.length > theirs.length ? theirs.length : undefined;
  const report = ({ mask: { tFfn, dFfn }, ms }: TextAnswer, tokens: number[]): ComparedAnswer => {
    const before = model.tokenizer.stream();
    const same = tokens.slice(0, firstDifference).map((id) => before.push(id));
    return {
      text: model.tokenizer.decode(tokens),
      tokens,
      differsAt: firstDifference === undefined ? undefined : same.join("").length,
      keptShare: tFfn / dFfn,
      ms,
      firstTokenMs: ms.predict + ms.gather + ms.load + ms.prefill,
      tokensPerSecond: tokens.length > 1 ? (1000 * (tokens.length - 1)) / ms.decode : undefined, // the first comes out of prefill
    };
  };
  return {
    dense: report(whole, theirs),
    subnetwork: report(asked, ours),
    chosen,
    promptTokens,
    agreement: await agreementWith(model, mask, ids, theirs, options),
    firstDifference,
  };
}

async function collect({ tokens }: TextAnswer): Promise<number[]> {
  const ids: number[] = [];
  for await (const id of tokens) ids.push(id);
  return ids;
}

/** Share of an answer's tokens that are the likeliest under a mask, by one pass over them all. */
async function agreementWith(
  { bundle, engines }: InstructionModel,
  mask: Mask,
  promptIds: Int32Array,
  answer: readonly number[],
  { cache, threads, kvType, gpu, force, signal }: CompareOptions,
): Promise<number | undefined> {
  // An engine reads fewer tokens than its context holds: of an answer that fills the model's, the last one is not judged.
  const ids = Int32Array.from([...promptIds, ...answer]).subarray(0, bundle.contextLength - 1);
  const numJudged = ids.length - promptIds.length;
  if (numJudged === 0) return undefined;
  const { path } = await openSubnetwork(bundle, mask, cache);
  await using engine = await engines.open(path, { threads, kvType, gpu, force, signal, contextLength: ids.length + 1 });
  const judged = await engine.score(ids, { top: 1, from: promptIds.length, signal });
  return judged.filter(({ id, top: [likeliest] }) => id === likeliest!.id).length / numJudged;
}
