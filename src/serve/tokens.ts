/** Tokens of an answer with what a client is told of each: its text, and its probability where that was asked for. */
import type { AnswerToken, Engine } from "../engine/engine.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { GenerationRequest, PromptToken, TokenLogprob } from "./service.ts";

interface Token {
  id: number;
  part: AnswerToken["part"];
  scored?: TokenLogprob;
}

/** Tokens of the answer to a prompt, with their probabilities where those are asked for. */
export async function* answerTokens(
  engine: Engine,
  ids: Int32Array,
  { sampling, maxTokens, signal, schema, logprobs: top, echo = false }: GenerationRequest,
  tokenizer: Tokenizer,
): AsyncGenerator<Token, void, void> {
  const options = { ...sampling, maxTokens, signal };
  if (top === undefined) {
    for await (const id of engine.generate(ids, { ...options, schema })) yield { id, part: "answer" };
    return;
  }
  const textOf = tokenTexts(tokenizer);
  for await (const token of engine.generateScored(ids, { ...options, top, echo }))
    yield { id: token.id, part: token.part, scored: withText(token, textOf) };
}

/** A prompt's own tokens: the first, which nothing tells the probability of, and those after it. */
export function promptTokens(first: number, scored: readonly TokenLogprob[], tokenizer: Tokenizer): PromptToken[] {
  return [{ id: first, text: tokenTexts(tokenizer)(first), logprob: null, top: [] }, ...scored];
}

type Scored = { id: number; logprob: number };

export function withText(
  { id, logprob, top }: Scored & { top: readonly Scored[] },
  textOf: (id: number) => string,
): TokenLogprob {
  return { id, text: textOf(id), logprob, top: top.map((other) => ({ ...other, text: textOf(other.id) })) };
}

/** What a token adds to a text. It is decoded after another, as some tokenizers leave out a space that begins a text. */
export function tokenTexts({ encode, decode, bosId, bosToken, eosId, eosToken }: Tokenizer): (id: number) => string {
  const before = encode("a").at(-1)!;
  const { length } = decode([before]);
  return (id) => {
    if (id === eosId) return eosToken;
    if (id === bosId) return bosToken!;
    return decode([before, id]).slice(length);
  };
}
