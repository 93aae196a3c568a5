/** Of a race: which of two answers was faster, and why. */
import type { CompletionExtension } from "./api.ts";
import { milliseconds, plural } from "./format.ts";

export interface Timed {
  /** From the request to the end. */
  total: number;
  /** Of each stage, as the server tells them. */
  ms: CompletionExtension["ms"];
  tokens: number;
}

/** Before the prompt is read: waiting, the mask, building and loading the network. A network in memory needs nearly none. */
export const readyMs = ({ queue, predict, gather, load }: Timed["ms"]): number => queue + predict + gather + load;
/** Reading the prompt and writing the answer. */
export const answerMs = ({ prefill, decode }: Timed["ms"]): number => prefill + decode;

/** Times closer than this share of the longer one say nothing. */
const tie = 0.03;

const usualNames = { dense: "the dense model", subnetwork: "the sub-network" };

/** The outcome in a sentence, and one more where loading hides who answers faster. */
export function verdict(dense: Timed, subnetwork: Timed, named = usualNames): string {
  const [first, last] =
    dense.total < subnetwork.total ? (["dense", "subnetwork"] as const) : (["subnetwork", "dense"] as const);
  const runs = { dense, subnetwork };
  const [winner, loser] = [runs[first], runs[last]];
  const gap = loser.total - winner.total;
  if (gap < tie * loser.total) return `Both took about as long, ${milliseconds(loser.total)}.`;
  const [reason, ...others] = differences(winner, loser);
  const against = others.findLast(({ gain }) => gain < -0.2 * gap);
  const although = against ? `, although ${against.words}` : "";
  const sentence = `${capital(named[first])} was ${milliseconds(gap)} faster: ${reason!.words}${although}.`;
  const behind = answerMs(winner.ms) - answerMs(loser.ms);
  if (reason!.isReady && behind > tie * answerMs(winner.ms))
    return `${sentence} In answering alone ${named[last]} was ${milliseconds(behind)} faster: run it again, with both in memory.`;
  return sentence;
}

const capital = (text: string) => text[0]!.toUpperCase() + text.slice(1);

/** What made the winner faster, with the milliseconds that each gained it, the most first; what held it back is below 0. */
function differences(winner: Timed, loser: Timed): { gain: number; words: string; isReady?: boolean }[] {
  const perToken = ({ ms, tokens }: Timed) => ms.decode / Math.max(1, tokens);
  const pair = (of: (run: Timed) => number) => [of(winner), of(loser)] as const;
  const instead = (how: string, [a, b]: readonly [number, number]) =>
    `${how} in ${milliseconds(a)} instead of ${milliseconds(b)}`;
  const ready = pair(({ ms }) => readyMs(ms));
  // The network and this page, where there are other things to do.
  const rest = pair(({ total, ms }) => Math.max(0, total - readyMs(ms) - answerMs(ms)));
  const prefill = pair(({ ms }) => ms.prefill);
  const each = pair(perToken);
  const tokens = pair((run) => run.tokens);
  return [
    { gain: ready[1] - ready[0], words: instead("it was ready", ready), isReady: true },
    {
      gain: rest[1] - rest[0],
      words: `${milliseconds(rest[0])} instead of ${milliseconds(rest[1])} passed between server and page`,
    },
    { gain: prefill[1] - prefill[0], words: instead("it read the prompt", prefill) },
    { gain: ((each[1] - each[0]) * (tokens[0] + tokens[1])) / 2, words: instead("it wrote a token", each) },
    {
      gain: ((tokens[1] - tokens[0]) * (each[0] + each[1])) / 2,
      words: `it wrote ${plural(tokens[0], "token")} instead of ${tokens[1]}`,
    },
  ].sort((a, b) => b.gain - a.gain);
}
