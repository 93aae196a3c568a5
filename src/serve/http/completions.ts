/** `POST /v1/completions`: text or tokens, continued as they are. With `echo` and `logprobs`, what evaluation harnesses score prompts by. */
import type { GenerationEvent, Prompt, PromptToken, Sampling, TokenLogprob } from "../service.ts";
import { invalid } from "./apiErrors.ts";
import type { Handled } from "./context.ts";
import { Answers, finite, maskOf, samplings, servedModel } from "./generation.ts";
import { limits, readJsonBody, tooMany } from "./limits.ts";
import { type CompletionBody, parseCompletion } from "./schemas.ts";

const DEFAULT_MAX_TOKENS = 16; // OpenAI's

type Given = Extract<Prompt, { kind: "text" | "ids" }>;

/** The prompt, given back before its continuation. */
interface EchoEvent {
  type: "echo";
  text: string;
  /** Absent: nobody asked. */
  tokens?: readonly PromptToken[];
  numTokens: number;
}

export async function completions(c: Handled): Promise<Response> {
  const body = parseCompletion(await readJsonBody(c.req.raw));
  const { service, entry, logPrompts } = c.var;
  const model = servedModel(service, body.model);
  if (logPrompts) entry.prompt = body.prompt;
  const { n = 1, echo = false, logprobs, max_tokens: maxTokens = DEFAULT_MAX_TOKENS } = body;
  if (maxTokens === 0 && !echo) throw invalid("max_tokens", "wanted at least 1 without echo.");
  if (body.best_of !== undefined && body.best_of !== n)
    throw invalid("best_of", "wanted what n is: all are given back.");
  if (body.stream_options && !body.stream) throw invalid("stream_options", "wanted stream to be true.");
  if (n * body.prompt.length > limits.prompts) throw tooMany("n", "answers of all prompts", limits.prompts);
  const mask = maskOf(service, model, body, c.var.mask);
  const answers = new Answers<EchoEvent>(c, model, "cmpl-");

  async function* answer(prompt: Given, sampling: Sampling): AsyncGenerator<GenerationEvent | EchoEvent, void, void> {
    const echoOf = (tokens: readonly PromptToken[]): EchoEvent => {
      const text = prompt.kind === "text" ? prompt.text : service.decode(model.id, prompt.ids);
      return { type: "echo", text, numTokens: tokens.length, ...(logprobs !== undefined && { tokens }) };
    };
    const score = () => service.score(model.id, { prompt, mask, signal: answers.signal, top: logprobs ?? 0 });
    if (maxTokens === 0) {
      yield echoOf(await score());
      const ms = { queue: 0, predict: 0, gather: 0, load: 0, prefill: 0, decode: 0 };
      yield { type: "end", finishReason: "length", completionTokens: 0, ms };
      return;
    }
    const request = { prompt, mask, maxTokens, stop: body.stop, sampling, logprobs };
    if (!echo) {
      yield* answers.generate(request);
      return;
    }
    const isScored = logprobs !== undefined;
    const tokens = !isScored && prompt.kind === "ids" ? await score() : [];
    for await (const event of answers.generate({ ...request, echo: isScored })) {
      yield event; // what is refused is refused before the first
      if (event.type === "start") yield echoOf(isScored ? event.echo! : tokens);
    }
  }

  const prompts = body.prompt.map(
    (one): Given =>
      typeof one === "string" ? { kind: "text", text: one } : { kind: "ids", ids: Int32Array.from(one) },
  );
  const sources = prompts.flatMap((prompt) => samplings(body, n).map((sampling) => () => answer(prompt, sampling)));
  const events = answers.run(sources);
  if (body.stream) return answers.stream(chunks(answers, events, body));
  return c.json(await whole(answers, events, body));
}

type Events = AsyncGenerator<[number, GenerationEvent | EchoEvent], void, void>;

/** `logprobs` of the completions API. */
interface Logprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
  /** Where each token begins in the choice's text, in Unicode's characters, as Python counts them. */
  text_offset: number[];
}

/** One choice as it grows. */
class Choice {
  text = "";
  finish: "stop" | "length" | undefined;
  /** Prompt tokens that were scored, where nothing was generated. */
  numEchoed = 0;
  /** Where the next token begins: in UTF-16 units, and in characters. */
  #offset = 0;
  #characters = 0;
  /** Units that tokens without a place may stand for: BOS, or parts of characters, whose own texts are none of this text. */
  #unplaced = 0;

  /** @returns what the event adds */
  read(event: GenerationEvent | EchoEvent): { text: string; logprobs: Logprobs | undefined } {
    if (event.type === "start" || event.type === "stage") return { text: "", logprobs: undefined };
    if (event.type === "end") {
      this.finish = event.finishReason;
      return { text: "", logprobs: event.endToken && this.#logprobs([withoutText(event.endToken)]) };
    }
    if (event.type === "echo") this.numEchoed = event.numTokens;
    this.text += event.text;
    const tokens = event.type === "echo" ? event.tokens : event.logprobs;
    return { text: event.text, logprobs: tokens && this.#logprobs(tokens) };
  }

  #logprobs(tokens: readonly (PromptToken | TokenLogprob)[]): Logprobs {
    const all: Logprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
    for (const { text, logprob, top } of tokens) {
      all.tokens.push(text);
      all.token_logprobs.push(logprob === null ? null : finite(logprob));
      all.top_logprobs.push(logprob === null ? null : topLogprobs(text, logprob, top));
      const window = this.text.slice(this.#offset, this.#offset + this.#unplaced + text.length);
      const at = window.indexOf(text);
      if (at > 0) this.#advance(at); // behind characters that came in several tokens
      all.text_offset.push(this.#characters);
      if (at >= 0) this.#advance(text.length);
      this.#unplaced = at >= 0 ? 0 : this.#unplaced + text.length + MOST_UNITS;
    }
    return all;
  }

  #advance(units: number): void {
    for (const _ of this.text.slice(this.#offset, this.#offset + units)) this.#characters++;
    this.#offset += units;
  }
}

/** Of a character in UTF-16, which a token may complete. */
const MOST_UNITS = 2;

/** A token that ends an answer, as it is in it: harnesses take the last entry for the one token that they have said, and leave it out. */
function withoutText(token: TokenLogprob): TokenLogprob {
  const text = "";
  return { ...token, text, top: token.top.map((other) => (other.id === token.id ? { ...other, text } : other)) };
}

/** By text; of tokens with the same text, the likeliest. The token itself is always there. */
function topLogprobs(text: string, logprob: number, top: TokenLogprob["top"]): Record<string, number> {
  const byText = new Map<string, number>();
  for (const one of [...top, { text, logprob }])
    byText.set(one.text, Math.max(finite(one.logprob), byText.get(one.text) ?? -Infinity));
  return Object.fromEntries(byText);
}

function usageOf(answers: Answers<EchoEvent>, choices: readonly Choice[], { n = 1, max_tokens }: CompletionBody) {
  if (max_tokens !== 0) return answers.usage(n);
  const prompt = choices.reduce((sum, { numEchoed }, i) => sum + (i % n === 0 ? numEchoed : 0), 0);
  return { prompt_tokens: prompt, completion_tokens: 0, total_tokens: prompt };
}

const newChoices = ({ prompt, n = 1 }: CompletionBody): Choice[] =>
  Array.from({ length: prompt.length * n }, () => new Choice());

async function whole(answers: Answers<EchoEvent>, events: Events, body: CompletionBody): Promise<object> {
  const choices = newChoices(body);
  const logprobs = choices.map((): Logprobs => ({ tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] }));
  for await (const [index, event] of events) {
    const added = choices[index]!.read(event).logprobs;
    if (!added) continue;
    for (const key of ["tokens", "token_logprobs", "top_logprobs", "text_offset"] as const)
      for (const value of added[key]) (logprobs[index]![key] as unknown[]).push(value);
  }
  return {
    ...answers.head("text_completion"),
    choices: choices.map(({ text, finish }, index) => ({
      index,
      text,
      logprobs: body.logprobs === undefined ? null : logprobs[index],
      finish_reason: finish,
      ...(body.prompt.length > 1 && { ifprune: answers.extension(index) }),
    })),
    usage: usageOf(answers, choices, body),
    ifprune: answers.extension(0),
  };
}

async function* chunks(
  answers: Answers<EchoEvent>,
  events: Events,
  body: CompletionBody,
): AsyncGenerator<object, void, void> {
  const choices = newChoices(body);
  const withUsage = body.stream_options?.include_usage;
  const head = () => answers.head("text_completion");
  for await (const [index, event] of events) {
    if (event.type === "start") continue;
    const { text, logprobs = null } = choices[index]!.read(event);
    const isEnd = event.type === "end";
    yield {
      ...head(),
      choices: [{ index, text, logprobs, finish_reason: choices[index]!.finish ?? null }],
      ...(withUsage && { usage: null }),
      ...(isEnd && { ifprune: answers.extension(index) }),
    };
  }
  if (withUsage) yield { ...head(), choices: [], usage: usageOf(answers, choices, body) };
}
