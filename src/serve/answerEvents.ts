/** An answer as the events that a client gets, once an engine has its sub-network. */
import type { ReadPrompt } from "../answer/prompts.ts";
import type { Engine } from "../engine/engine.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { AnswerText, TextPiece } from "./answerText.ts";
import type { GenerationEvent, GenerationRequest, MaskInfo, ServedModel, TokenLogprob } from "./service.ts";
import { answerTokens, promptTokens } from "./tokens.ts";

export type Times = Extract<GenerationEvent, { type: "end" }>["ms"];

/** A request's turn with an engine. */
export interface EngineTurn {
  engine: Engine;
  mask: MaskInfo;
  /** What was waited for; prefill and decode are still to come. */
  ms: Times;
  /** Is told how long the answer was, once `ms` is whole. */
  learn(answerTokens: number): void;
}

/**
 * @param request `maxTokens`: those that fit
 * @param text of the answer, which has no token yet
 */
export async function* answerEvents(
  { engine, mask, ms, learn }: EngineTurn,
  ids: ReadPrompt["ids"],
  request: GenerationRequest,
  text: AnswerText,
  { tokenizer, thoughts }: { tokenizer: Tokenizer; thoughts: ServedModel["thoughts"] | "none" },
): AsyncGenerator<GenerationEvent, void, void> {
  const { maxTokens, logprobs, echo } = request;
  const echoed: TokenLogprob[] = [];
  let endToken: TokenLogprob | undefined;
  let completionTokens = 0;
  const start = (): GenerationEvent => ({
    type: "start",
    mask,
    promptTokens: ids.length,
    ...(thoughts && { thoughts }),
    ...(echo && { echo: promptTokens(ids[0]!, echoed, tokenizer) }),
  });
  const toEvents = ({ text, logprobs: scored }: TextPiece): GenerationEvent[] =>
    text === "" && scored.length === 0
      ? []
      : [{ type: "text", text, ...(logprobs !== undefined && { logprobs: scored }) }];
  const lap = stopwatch(ms);
  for await (const { id, part, scored } of answerTokens(engine, ids, request, tokenizer)) {
    if (part === "prompt") {
      echoed.push(scored!);
      continue;
    }
    if (part === "end") {
      endToken = scored!;
      break;
    }
    lap();
    if (completionTokens++ === 0) yield start(); // what the engine refuses, it has refused by now
    yield* toEvents(text.push(id, scored));
    if (text.isDone) break;
  }
  lap();
  if (completionTokens === 0) yield start();
  learn(completionTokens);
  const isCut = !text.isDone && completionTokens >= maxTokens;
  yield* toEvents(text.end());
  yield { type: "end", finishReason: isCut ? "length" : "stop", completionTokens, ...(endToken && { endToken }), ms };
}

/** Each call adds the time since the one before: the first to prefill, the others to decode. */
function stopwatch(ms: Times): () => void {
  let stage: "prefill" | "decode" = "prefill";
  let since = performance.now();
  return () => {
    const now = performance.now();
    ms[stage] += now - since;
    [since, stage] = [now, "decode"];
  };
}
