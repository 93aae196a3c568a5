/**
 * Calls of tools as texts, in the form that Hermes began and that ChatML models (Qwen, SmolLM and others) were trained on: the answer calls one by
 * `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, and results come back as a user message of `<tool_response>`s.
 */
import type { ChatMessage } from "./chatTemplate.ts";

export const CALL_OPEN = "<tool_call>";
export const CALL_CLOSE = "</tool_call>";

/** Messages in which calls and results are texts, for what knows no other form of them. */
export function callsAsText(messages: readonly ChatMessage[]): ChatMessage[] {
  const plain: ChatMessage[] = [];
  for (const [i, { role, content, thoughts, calls = [] }] of messages.entries()) {
    if (role === "tool") {
      const result = `<tool_response>\n${content}\n</tool_response>`;
      const before = messages[i - 1]?.role === "tool" ? `${plain.pop()!.content}\n` : "";
      plain.push({ role: "user", content: before + result });
    } else {
      const texts = calls.map(
        ({ name, arguments: given }) =>
          `${CALL_OPEN}\n{"name": ${JSON.stringify(name)}, "arguments": ${JSON.stringify(given)}}\n${CALL_CLOSE}`,
      );
      const said = [...(content !== "" || texts.length === 0 ? [content] : []), ...texts].join("\n");
      plain.push({ role, content: said, ...(thoughts && { thoughts }) });
    }
  }
  return plain;
}
