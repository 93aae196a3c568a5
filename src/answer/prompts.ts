/** From a request's prompt to the ids that the LLM reads, and to the instruction that its mask is made for. */
import { ContextLengthError, InputError } from "../errors.ts";
import { type ChatMessage, ChatTemplate, chatIds, type TemplateVariables } from "../text/chatTemplate.ts";
import { chatInstruction, composeTurn, hasInput, type Instruction, withBos } from "../text/prompt.ts";
import type { StreamDecoder, Tokenizer } from "../text/tokenizer.ts";
import { callsAsText } from "../text/toolMarks.ts";
import type { PromptedModel } from "./promptedModel.ts";

/** What a model is asked. */
export type Prompt =
  | ChatPrompt
  /** Continued as it is, without a chat template; BOS before it where the model has one, unless the text begins with its name. */
  | { kind: "text"; text: string }
  /** Nothing is added to them. */
  | { kind: "ids"; ids: Int32Array };

/**
 * A conversation with a user's message, or of a system's alone where there is a chat template. Where it ends with the beginning of the answer, that is continued. A model without a chat template takes no tools, and reads no system
 * messages and no variables.
 */
export interface ChatPrompt {
  kind: "chat";
  messages: readonly ChatMessage[];
  tools?: readonly object[];
  /** Of the chat template. */
  variables?: TemplateVariables;
}

export interface ReadPrompt {
  ids: Int32Array;
  /** The first user message, and what the LLM reads up to its answer; of a prompt without a chat, all of it. */
  instruction: Instruction;
  /** Of the answer. After a text that it continues, a space that it begins with is part of it. */
  decoder: StreamDecoder;
  /** Whether the answer continues a text. */
  isContinued?: true;
}

/** What reading a prompt takes of a model. */
export type PromptReading = Pick<PromptedModel, "format" | "hasPredictor">;

/**
 * @throws {InputError} if there is no text, the messages are in an order that the model does not know, or ids are not of the vocabulary
 * @throws {ContextLengthError} if the prompt fills the context
 * @throws {FileError} if the chat template fails
 */
export function readPrompt(model: PromptReading, prompt: Prompt, contextLength: number): ReadPrompt {
  checkEnds(model.format.tokenizer, prompt, contextLength);
  const read = encodePrompt(model, prompt);
  if (read.ids.length === 0) throw new InputError("prompt: wanted at least one token, got none.");
  checkFits(read.ids.length, contextLength);
  return read;
}

function checkFits(length: number, contextLength: number): void {
  if (length >= contextLength) throw new ContextLengthError(length, contextLength);
}

/**
 * Refuses what is far too long by its beginnings: to encode all of a text of megabytes would hold up every other request. Where a text is cut, its tokens
 * differ a little from those of the whole, so twice the context is wanted there.
 */
export function checkEnds(tokenizer: Tokenizer, prompt: Prompt, contextLength: number): void {
  if (prompt.kind === "ids") {
    checkFits(prompt.ids.length, contextLength);
    return;
  }
  const texts = prompt.kind === "text" ? [prompt.text] : callsAsText(prompt.messages).map(({ content }) => content);
  const text = texts.length === 1 ? texts[0]! : texts.join(" ");
  for (let length = 16 * contextLength; length < text.length; length *= 4) {
    const count = tokenizer.encode(text.slice(0, length)).length;
    if (count >= 2 * contextLength) throw new ContextLengthError(count, contextLength, false);
  }
}

function encodePrompt(model: PromptReading, prompt: Prompt): ReadPrompt {
  const { tokenizer } = model.format;
  switch (prompt.kind) {
    case "text": {
      const { bosToken } = tokenizer;
      const isOpened = bosToken !== undefined && prompt.text.startsWith(bosToken); // clients that decode ids have it
      const text = isOpened ? prompt.text.slice(bosToken.length) : prompt.text;
      const ids = withBos(tokenizer, tokenizer.encodeParts([{ text, isTrusted: true }])); // with special tokens, as who writes a whole prompt means them
      return continued(ids, prompt.text, tokenizer);
    }
    case "ids":
      return continued(prompt.ids, tokenizer.decode(prompt.ids), tokenizer);
    case "chat":
      return readChat(model, prompt);
    default:
      return prompt satisfies never;
  }
}

function continued(ids: Int32Array, text: string, tokenizer: Tokenizer): ReadPrompt {
  return { ids, instruction: { text, ids }, decoder: decoderAfter(ids, tokenizer), isContinued: true };
}

/** A decoder for what comes after a text. */
export function decoderAfter(ids: Int32Array, tokenizer: Tokenizer): StreamDecoder {
  const decoder = tokenizer.stream();
  for (const id of ids) decoder.push(id);
  return decoder;
}

/** Whether it is the beginning of an answer: a blank one only keeps a place for it. */
export function isBegun(last: ChatMessage | undefined): boolean {
  return last?.role === "assistant" && last.content.trim() !== "";
}

function readChat(model: PromptReading, { messages: given, tools, variables }: ChatPrompt): ReadPrompt {
  const { format } = model;
  const { tokenizer, template } = format;
  const isChat = template instanceof ChatTemplate;
  const shown = isChat ? given : callsAsText(given).filter(({ role }) => role !== "system"); // which nothing here was trained to read
  if (given.at(-1)?.calls) throw new InputError("messages: wanted what its calls gave after the last one.");
  const messages = shown.at(-1)?.role === "assistant" && !isBegun(shown.at(-1)) ? shown.slice(0, -1) : shown;
  const asked = messages.findIndex(({ role }) => role === "user");
  const first = asked < 0 && isChat ? messages.findIndex(({ role }) => role === "system") : asked; // some clients have that alone
  const text = messages[first]?.content;
  if (text === undefined || text.trim() === "") throw new InputError("messages: wanted a user's message, got none.");
  const { role } = messages.at(-1)!;
  const read = (ids: Int32Array, instruction: Instruction) =>
    role === "assistant"
      ? { ...continued(ids, tokenizer.decode(ids), tokenizer), instruction }
      : { ids, instruction, decoder: tokenizer.stream() };
  if (isChat) {
    const instruction = chatInstruction(tokenizer, template, messages.slice(0, first + 1), tools, variables);
    if (first === messages.length - 1) return read(instruction.ids, instruction);
    return read(withBos(tokenizer, chatIds(tokenizer, template, messages, tools, variables)), instruction);
  }
  if (tools && tools.length > 0) throw new InputError("tools: wanted none, as the model has no chat template.");
  const instruction = format.instruction(text);
  return read(joinTurns(model, instruction.ids, messages), instruction);
}

/**
 * A conversation as ours are trained (`ConversationStream`): the first message in the prompt's format, then answers, each with an EOS, and further
 * inputs for the same instruction, or prompts. Where the first says "Input: ", a later message that does not is taken for such an input. Models without
 * a predictor were not trained so: to them every message is a prompt.
 */
function joinTurns(
  { format, hasPredictor }: PromptReading,
  firstTurn: Int32Array,
  messages: readonly ChatMessage[],
): Int32Array {
  const parts = messages.map(({ role, content }, i): ArrayLike<number> => {
    if (role !== (i % 2 === 0 ? "user" : "assistant")) {
      throw new InputError(
        "messages: wanted those of user and assistant in turns, as the model has no chat template, got another order.",
      );
    }
    if (i === 0) return firstTurn;
    if (role === "assistant") {
      const isLast = i === messages.length - 1;
      return format.answerIds(isLast ? content.trimEnd() : content).slice(0, isLast ? -1 : undefined); // its end is to come
    }
    const isInput = hasPredictor && hasInput(messages[0]!.content) && !hasInput(content);
    return format.turnIds(isInput ? composeTurn(content) : content);
  });
  return Int32Array.from(parts.flatMap((part) => Array.from(part)));
}
