/** Tools: the template shows them, the model calls one in its answer (`toolMarks.ts`), and results come back in later messages. */
import { randomUUID } from "node:crypto";
import { checkDepth, parseExactly, valueText } from "../../json.ts";
import type { ChatMessage } from "../../text/chatTemplate.ts";
import { CALL_CLOSE, CALL_OPEN } from "../../text/toolMarks.ts";
import { oneLine } from "../../words.ts";
import { invalid } from "./apiErrors.ts";
import { checkSize, grammarSchema } from "./jsonSchema.ts";
import { limits } from "./limits.ts";
import type { ChatBody, Message, Tool } from "./schemas.ts";

export interface ToolCall {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

/** How the answer of a request may call tools. */
export interface ToolUse {
  /** What the template shows. */
  tools: readonly Tool[];
  /** Of an answer that must be a call, and nothing else. */
  schema?: object;
}

/**
 * @returns undefined if no tool may be called
 * @throws {ApiError} if the choice names no tool, or the call must follow a schema that cannot be kept to
 */
export function toolUse({
  tools,
  tool_choice: choice = "auto",
}: Partial<Pick<ChatBody, "tools" | "tool_choice">>): ToolUse | undefined {
  if (!tools || tools.length === 0) {
    if (choice !== "auto" && choice !== "none") throw invalid("tool_choice", "wanted tools to choose from.");
    return undefined;
  }
  const names = new Set<string>();
  for (const [i, { function: one }] of tools.entries()) {
    if (names.has(one.name)) throw invalid(`tools.${i}.function.name`, "wanted each name once.");
    names.add(one.name);
    if (one.parameters) checkSize(one.parameters, `tools.${i}.function.parameters`);
  }
  if (choice === "none") return undefined;
  if (choice === "auto") return { tools };
  const named = choice === "required" ? undefined : choice.function.name;
  if (named !== undefined && !names.has(named)) throw invalid("tool_choice", "wanted the name of a tool.");
  const calls = tools.flatMap(({ function: one }, i) => {
    if (named !== undefined && one.name !== named) return [];
    const parameters = one.parameters ?? { type: "object", properties: {} };
    const call = { name: { enum: [one.name] }, arguments: grammarSchema(parameters, `tools.${i}.function.parameters`) };
    return [{ type: "object", properties: call }];
  });
  return { tools, schema: calls.length === 1 ? calls[0]! : { oneOf: calls } };
}

/**
 * Messages as models read them.
 *
 * @throws {ApiError} if a tool's result answers no call, or a call is not JSON
 */
export function plainMessages(messages: readonly Message[]): ChatMessage[] {
  const called = new Set<string>();
  return messages.map((message, i): ChatMessage => {
    const { content } = message;
    switch (message.role) {
      case "system":
      case "developer":
        return { role: "system", content: message.content };
      case "user":
        return { role: "user", content: message.content };
      case "tool":
        if (!called.has(message.tool_call_id))
          throw invalid(`messages.${i}.tool_call_id`, "wanted the id of a call in an earlier message.");
        return { role: "tool", content: message.content, callId: message.tool_call_id };
      case "assistant": {
        const calls = (message.tool_calls ?? []).map(({ id, function: { name, arguments: json } }, j) => {
          called.add(id);
          return { id, name, arguments: readArguments(json, `messages.${i}.tool_calls.${j}.function.arguments`) };
        });
        const thoughts = message.reasoning_content ?? message.reasoning;
        // may be empty: a model can end its answer at once
        if (content === undefined && calls.length === 0 && message.refusal == null && thoughts === undefined)
          throw invalid(`messages.${i}.content`, "wanted a text or calls.");
        return {
          role: "assistant",
          content: content ?? message.refusal ?? "",
          ...(thoughts && { thoughts }),
          ...(calls.length > 0 && { calls }),
        };
      }
      default:
        return message satisfies never;
    }
  });
}

function readArguments(json: string, param: string): unknown {
  try {
    checkDepth(json, limits.jsonDepth);
    return json.trim() === "" ? {} : parseExactly(json); // what is called without any
  } catch (cause) {
    throw invalid(param, `wanted JSON, got ${oneLine((cause as Error).message)}.`);
  }
}

/** What a piece of an answer turned out to be. */
export type Said = { text: string } | { call: ToolCall } | { thought: string };

/** Finds calls in an answer that comes in pieces. What looks like a call and is none stays text. */
export class CallReader {
  #held = "";
  readonly #names: ReadonlySet<string>;

  constructor(tools: readonly Tool[]) {
    this.#names = new Set(tools.map((tool) => tool.function.name));
  }

  push(piece: string): Said[] {
    this.#held += piece;
    const said: Said[] = [];
    for (;;) {
      const start = this.#held.indexOf(CALL_OPEN);
      if (start < 0) {
        const safe = this.#held.length - overlap(this.#held, CALL_OPEN);
        this.#say(said, this.#held.slice(0, safe));
        this.#held = this.#held.slice(safe);
        return said;
      }
      this.#say(said, this.#held.slice(0, start));
      this.#held = this.#held.slice(start);
      const end = this.#held.indexOf(CALL_CLOSE);
      if (end < 0) return said;
      this.#read(said, end, end + CALL_CLOSE.length);
    }
  }

  /** @param isWhole whether the answer ended by itself, not at a limit: then the mark that closes a call may be missing */
  end(isWhole: boolean): Said[] {
    const said: Said[] = [];
    if (isWhole && this.#held.startsWith(CALL_OPEN)) this.#read(said, this.#held.length, this.#held.length);
    else this.#say(said, this.#held);
    this.#held = "";
    return said;
  }

  #read(said: Said[], end: number, next: number): void {
    const call = readCall(this.#held.slice(CALL_OPEN.length, end), this.#names);
    if (call) said.push({ call });
    else this.#say(said, this.#held.slice(0, next));
    this.#held = this.#held.slice(next);
  }

  #say(said: Said[], text: string): void {
    if (text !== "") said.push({ text });
  }
}

/** Arguments are given out as the model wrote them. @returns undefined if the text is no call of one of the functions */
export function readCall(json: string, names: ReadonlySet<string>): ToolCall | undefined {
  try {
    const { name, arguments: given, ...others } = JSON.parse(json) as { name: unknown; arguments?: unknown };
    if (typeof name !== "string" || !names.has(name)) return undefined;
    // What has its arguments under another name has some that would be lost.
    if (given === undefined ? Object.keys(others).length > 0 : typeof given !== "object" || given === null)
      return undefined;
    const id = `call_${randomUUID().replaceAll("-", "").slice(0, 24)}`;
    return { id, type: "function", function: { name, arguments: valueText(json, "arguments") ?? "{}" } };
  } catch {
    return undefined;
  }
}

/** Length of the longest end of `text` that begins `mark`. */
function overlap(text: string, mark: string): number {
  let length = Math.min(text.length, mark.length - 1);
  while (!text.endsWith(mark.slice(0, length))) length--;
  return length;
}
