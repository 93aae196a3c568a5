/** `POST /v1/chat/completions` */

import type { TokenLogprob } from "../service.ts";
import { type AnswerFrame, openAnswers } from "./chatAnswers.ts";
import type { Handled } from "./context.ts";
import { type Answers, chatLogprob } from "./generation.ts";
import { readJsonBody } from "./limits.ts";
import type { StageExtension } from "./pageApi.ts";
import { type ChatBody, parseChat } from "./schemas.ts";
import type { ToolCall } from "./tools.ts";

export async function chat(c: Handled): Promise<Response> {
  const body = parseChat(await readJsonBody(c.req.raw));
  const { answers, frames } = openAnswers(c, body, "chatcmpl-");
  if (body.stream) return answers.stream(chunks(answers, frames, body));
  return c.json(await whole(answers, frames, body));
}

async function whole(
  answers: Answers,
  frames: AsyncGenerator<AnswerFrame, void, void>,
  { n = 1, logprobs: withLogprobs }: ChatBody,
): Promise<object> {
  const choices = Array.from({ length: n }, () => ({
    text: "",
    thought: "",
    calls: [] as ToolCall[],
    logprobs: [] as TokenLogprob[],
    finish: undefined as AnswerFrame["finish"],
  }));
  for await (const { index, said, logprobs, finish } of frames) {
    const choice = choices[index]!;
    if (said && "text" in said) choice.text += said.text;
    else if (said && "thought" in said) choice.thought += said.thought;
    else if (said) choice.calls.push(said.call);
    choice.logprobs.push(...(logprobs ?? []));
    choice.finish = finish;
  }
  return {
    ...answers.head("chat.completion"),
    choices: choices.map(({ text, thought, calls, logprobs, finish }, index) => ({
      index,
      message: {
        role: "assistant",
        content: calls.length > 0 && text.trim() === "" ? null : text,
        refusal: null,
        ...(thought !== "" && { reasoning_content: thought }),
        ...(calls.length > 0 && { tool_calls: calls }),
      },
      logprobs: withLogprobs ? { content: logprobs.map(chatLogprob), refusal: null } : null,
      finish_reason: finish,
    })),
    usage: answers.usage(n),
    ifprune: answers.extension(0),
  };
}

async function* chunks(
  answers: Answers,
  frames: AsyncGenerator<AnswerFrame, void, void>,
  { n, stream_options: options }: ChatBody,
): AsyncGenerator<object, void, void> {
  const usage = options?.include_usage ? { usage: null } : {};
  const head = () => answers.head("chat.completion.chunk");
  const numCalls = new Map<number, number>();
  for await (const { index, stage, said, logprobs, finish } of frames) {
    if (stage) {
      yield { ...head(), choices: [], ...usage, ifprune: { index, stage } satisfies StageExtension };
      continue;
    }
    let delta: object = {};
    if (said && "text" in said) delta = { content: said.text };
    else if (said && "thought" in said) delta = { reasoning_content: said.thought };
    else if (said) {
      const call = numCalls.get(index) ?? 0;
      numCalls.set(index, call + 1);
      delta = { tool_calls: [{ index: call, ...said.call }] };
    } else if (!finish) delta = { role: "assistant", content: "" };
    const opened = options?.include_stages && "role" in delta && { mask: answers.mask(index) };
    const told = logprobs ? { content: logprobs.map(chatLogprob), refusal: null } : null;
    yield {
      ...head(),
      choices: [{ index, delta, logprobs: told, finish_reason: finish ?? null }],
      ...usage,
      ...(opened && { ifprune: opened satisfies StageExtension }),
      ...(finish && { ifprune: answers.extension(index) }),
    };
  }
  if (options?.include_usage) yield { ...head(), choices: [], usage: answers.usage(n ?? 1) };
}
