/**
 * How an instruction, examples of its task and its input become the text that the predictor reads, and the ids that the LLM reads and is to
 * answer with: the one way for training, evaluation and use.
 *
 *     {instruction} Example: {input} -> {output} Example: … Input: {input}
 *
 * All before " Input: " is the instruction: what a mask for the whole task is made from.
 */
import { FileError, InputError, OptionError } from "../errors.ts";
import { joinedIds } from "../ids.ts";
import { atOnce, type Steps } from "../steps.ts";
import { type ChatMessage, ChatTemplate, chatIds, type TemplateVariables } from "./chatTemplate.ts";
import { type Boundary, loadingTokenizer, type TextPart, type Tokenizer } from "./tokenizer.ts";

const INPUT_MARK = " Input: ";

/** What the LLM reads around a prompt unless a checkpoint says otherwise; the answer follows it. */
export const DEFAULT_PROMPT_TEMPLATE = "{prompt}\n";

/** Where an instruction has its input in itself: all of it, or its n-th part between commas or else spaces. */
const INPUT_SLOT = /\{input(?:\.([1-9]))?\}/g;

/** A solved case of a task, which an instruction shows. */
export interface TaskExample {
  input: string;
  output: string;
}

/**
 * A prompt as this file's head has it; without examples and input it is the instruction. An instruction that has a place for its input, as in
 * "the plural of {input}" or "{input.1} plus {input.2}", takes it there.
 *
 * @throws {InputError} when the input has fewer parts than the instruction names, or an example would end the instruction
 */
export function composePrompt(instruction: string, input?: string, examples: readonly TaskExample[] = []): string {
  for (const text of [instruction, input ?? "", ...examples.flatMap(({ input, output }) => [input, output])]) {
    // what programs without types give
    if (typeof text !== "string")
      throw new InputError(`prompt: wanted texts, got ${JSON.stringify(text) ?? "nothing"}.`);
  }
  const hasSlot = hasInputSlot(instruction);
  const shown =
    (input && hasSlot ? fillSlots(instruction, input) : instruction) + examples.map(composeExample).join("");
  return input && !hasSlot ? `${shown}${INPUT_MARK}${input}` : shown;
}

/** Whether an instruction has a place for its input. */
export function hasInputSlot(instruction: string): boolean {
  return instruction.search(INPUT_SLOT) >= 0;
}

function fillSlots(instruction: string, input: string): string {
  const parts = input.split(input.includes(",") ? /,\s*/ : /\s+/);
  return instruction.replace(INPUT_SLOT, (slot, n?: string) => {
    const part = n === undefined ? input : parts[Number(n) - 1];
    if (part === undefined)
      throw new InputError(`prompt: wanted an input with a part for ${slot}, got ${JSON.stringify(input)}.`);
    return part;
  });
}

function composeExample({ input, output }: TaskExample): string {
  const text = ` Example: ${input} -> ${output}`;
  if (hasInput(text))
    throw new InputError(`prompt: wanted examples without "${INPUT_MARK}", got ${JSON.stringify(text)}. Leave it out.`);
  return text;
}

/** A later turn of a conversation that asks for the same again: `Input: {input}`. */
export function composeTurn(input: string): string {
  return `${INPUT_MARK.trimStart()}${input}`;
}

/** Whether a message says what its input is, as `composePrompt` and `composeTurn` do. */
export function hasInput(message: string): boolean {
  return ` ${message}`.includes(INPUT_MARK);
}

/** The part of a prompt before its input; undoes `composePrompt`. All of it where the input stands in the instruction itself. */
export function instructionOf(prompt: string): string {
  return prompt.split(INPUT_MARK, 1)[0]!;
}

/**
 * What the predictor reads: BOS where there is one, and the raw text, no template.
 * @throws {InputError} when the text is empty
 */
export function predictorIds(tokenizer: Tokenizer, text: string): Int32Array {
  checkText(text);
  return withBos(tokenizer, tokenizer.encode(text));
}

/** What a mask is made for: the user's text, and what the LLM reads of it. */
export interface Instruction {
  text: string;
  ids: Int32Array;
  /**
   * Where in `ids` the user's text is, from and up to: of a prompt, what is around it says nothing of what is asked. Absent: all of them.
   */
  user?: readonly [from: number, end: number] | undefined;
  /** What a predictor reads of the text, where that is known already. */
  predictorIds?: Int32Array | undefined;
}

/**
 * The instruction of a conversation that ends with a user's message: that message.
 *
 * @throws as {@link ChatTemplate.render}
 */
export function chatInstruction(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  tools?: readonly object[],
  variables?: TemplateVariables,
): Instruction {
  const parts = template.render(messages, tokenizer, tools, variables);
  const { content } = messages.at(-1)!;
  const around =
    aroundPart(parts, content) ?? aroundText(parts, template.around(messages, tokenizer, tools, variables));
  const [ids, before] = [parts, around?.[0] ?? []].map((some) => withBos(tokenizer, tokenizer.encodeParts(some)));
  return { text: content, ids: ids!, user: around && userSpan(ids!, before!, tokenizer.encodeParts(around[1])) };
}

type Around = readonly [before: TextPart[], after: TextPart[]] | undefined;

/** What is around the part that is a content, where one is. */
function aroundPart(parts: readonly TextPart[], content: string): Around {
  const at = parts.findLastIndex(({ text, isTrusted }) => !isTrusted && text.trim() === content.trim());
  return at < 0 ? undefined : [parts.slice(0, at), parts.slice(at + 1)];
}

/** What is around a content that is written among the template's own text. */
function aroundText(parts: readonly TextPart[], around: ReturnType<ChatTemplate["around"]>): Around {
  if (!around) return undefined;
  const [before, after] = around;
  const text = parts.map((part) => part.text).join("");
  const isThere = text.length > before.length + after.length && text.startsWith(before) && text.endsWith(after);
  return isThere ? [cut(parts, 0, before.length), cut(parts, text.length - after.length, text.length)] : undefined;
}

/** The parts of a text from one character up to another. */
function cut(parts: readonly TextPart[], from: number, end: number): TextPart[] {
  let at = 0;
  return parts.flatMap(({ text, isTrusted }) => {
    const own = text.slice(Math.max(0, from - at), Math.max(0, end - at));
    at += text.length;
    return own === "" ? [] : [{ text: own, isTrusted }];
  });
}

/** Where the user's text is, given what is before and after it alone. A token that has some of it and some of those is none of theirs. */
function userSpan(ids: Int32Array, before: Int32Array, after: Int32Array): Instruction["user"] {
  const from = before.findIndex((id, i) => id !== ids[i]);
  const shared = after.toReversed().findIndex((id, i) => id !== ids.at(-1 - i));
  const span = [from < 0 ? before.length : from, ids.length - (shared < 0 ? after.length : shared)] as const;
  return span[0] < span[1] ? span : undefined;
}

/** What a {@link PromptFormat} is made of: plain data, which another thread can be given. */
export interface FormatSource {
  /** Path of a `tokenizer.json`. */
  tokenizer: string;
  boundary: Boundary;
  /** A text with "{prompt}" in it, … */
  promptTemplate: string;
  /** … or instead of it the chat template of the model's makers, and where that is from. */
  chatTemplate?: { source: string; where: string } | undefined;
}

/** @throws {FileError} if the tokenizer or the chat template is none */
export function openFormat(source: FormatSource): PromptFormat {
  return atOnce(openingFormat(source));
}

/** {@link openFormat} in steps. */
export function* openingFormat({
  tokenizer: path,
  boundary,
  promptTemplate,
  chatTemplate,
}: FormatSource): Steps<PromptFormat> {
  const { source, where } = chatTemplate ?? {};
  const tokenizer = yield* loadingTokenizer(path, boundary);
  return new PromptFormat(tokenizer, source === undefined ? promptTemplate : new ChatTemplate(source, where!));
}

/** How an LLM is prompted and how it answers, in token ids. */
export class PromptFormat {
  #frame: AnswerFrame | undefined;

  /**
   * @param template a text with "{prompt}" in it, or the chat template of the model's makers
   * @throws {OptionError} when the text has no place for a prompt
   */
  constructor(
    readonly tokenizer: Tokenizer,
    readonly template: string | ChatTemplate,
  ) {
    if (typeof template === "string" && !template.includes("{prompt}"))
      throw new OptionError(`prompt template: wanted "{prompt}" in it, got ${JSON.stringify(template)}.`);
  }

  /**
   * What the LLM reads before it answers: BOS where there is one, once, and the prompt in the template, a chat template's only message.
   *
   * @throws {InputError} when the prompt is empty, or the chat template refuses it
   * @throws {FileError} when the chat template fails
   */
  promptIds(prompt: string): Int32Array {
    checkText(prompt);
    const { tokenizer, template } = this;
    if (template instanceof ChatTemplate)
      return withBos(tokenizer, chatIds(tokenizer, template, [{ role: "user", content: prompt }]));
    return withBos(tokenizer, tokenizer.encode(filled(template, prompt)));
  }

  /** The same with where the prompt is in it, as masks are made for it. @throws as {@link PromptFormat.promptIds} */
  instruction(prompt: string): Instruction {
    checkText(prompt);
    const { tokenizer, template } = this;
    if (template instanceof ChatTemplate)
      return chatInstruction(tokenizer, template, [{ role: "user", content: prompt }]);
    const [before, after] = template.split("{prompt}").map((text) => tokenizer.encode(text));
    const ids = this.promptIds(prompt);
    return { text: prompt, ids, user: userSpan(ids, withBos(tokenizer, before!), after!) };
  }

  /**
   * What it reads of a later prompt, after the end of the answer before.
   *
   * @throws {InputError} when the chat template refuses it
   * @throws {FileError} when the chat template fails, or shows no conversations
   */
  turnIds(prompt: string): Int32Array {
    const { tokenizer, template } = this;
    if (!(template instanceof ChatTemplate)) return tokenizer.encode(filled(template, prompt));
    const parts = template.render(conversation(prompt), tokenizer);
    if (parts.length !== conversationParts)
      throw new FileError(
        template.where,
        "chat template: wanted one for conversations, got one that shows no answers.",
      );
    return tokenizer.encodeParts(parts.slice(4)).slice(this.#answerFrame(template).end.length);
  }

  /** What it is to say: the answer, and the token that ends it. @throws {FileError} when the chat template fails */
  answerIds(answer: string): Int32Array {
    const { tokenizer, template } = this;
    const frame = template instanceof ChatTemplate ? this.#answerFrame(template) : undefined;
    if (!frame || frame.end.length === 0) return joinedIds(tokenizer.encode(answer), [tokenizer.eosId]);
    const { opening, openingIds, before, after } = frame;
    const trusted = (text: string): TextPart => ({ text, isTrusted: true });
    const rest = [trusted(before), { text: answer, isTrusted: false }, trusted(after)];
    // Where it begins after text, its tokens may be others than where it stands alone.
    const whole = tokenizer.encodeParts([trusted(opening), ...rest]);
    const ids = openingIds.every((id, i) => whole[i] === id)
      ? whole.subarray(openingIds.length)
      : tokenizer.encodeParts(rest);
    return ids.slice(0, ids.length - frame.lengthAfterEnd);
  }

  /** Tokens that end an answer; the first is EOS. @throws {FileError} when the chat template fails */
  get endIds(): number[] {
    const { tokenizer, template } = this;
    const end = template instanceof ChatTemplate ? this.#answerFrame(template).end : [];
    return [...new Set([tokenizer.eosId, ...end.slice(-1)])];
  }

  /** Tokens around a prompt and its answer, at most: a token is a byte at least. @throws {FileError} when the chat template fails */
  get mostFrameTokens(): number {
    const { tokenizer, template } = this;
    if (!(template instanceof ChatTemplate)) return 2 + Buffer.byteLength(template);
    const { before, after } = this.#answerFrame(template);
    const parts = template.render(conversation("c").slice(0, 1), tokenizer);
    return 2 + Buffer.byteLength(parts.map(({ text }) => text).join("") + before + after);
  }

  #answerFrame(template: ChatTemplate): AnswerFrame {
    this.#frame ??= answerFrame(this.tokenizer, template);
    return this.#frame;
  }
}

/** What stands around answers in a chat template. */
interface AnswerFrame {
  /** After the user's message, where the answer is asked for. */
  opening: string;
  /** Of that alone. */
  openingIds: Int32Array;
  /** Between that and the answer, in some a space. */
  before: string;
  /** Between the answer and the next message of the user. */
  after: string;
  /** Ids of `after` up to the special token that ends the turn. None: the template has none, and an answer ends with EOS. */
  end: Int32Array;
  lengthAfterEnd: number;
}

const conversation = (prompt: string): ChatMessage[] => [
  { role: "user", content: "a" },
  { role: "assistant", content: "b" },
  { role: "user", content: prompt },
];
/** Three contents, and what a template writes around them. */
const conversationParts = 7;

function answerFrame(tokenizer: Tokenizer, template: ChatTemplate): AnswerFrame {
  const none = {
    ...{ opening: "", openingIds: new Int32Array(), before: "", after: "" },
    ...{ end: new Int32Array(), lengthAfterEnd: 0 },
  };
  let parts: TextPart[];
  try {
    parts = template.render(conversation("c"), tokenizer);
  } catch (error) {
    if (error instanceof InputError) return none; // it refuses answers
    throw error;
  }
  if (parts.length !== conversationParts) return none;
  const opening = template.render(conversation("c").slice(0, 1), tokenizer).at(-1)!.text;
  const [between, after] = [parts[2]!.text, parts[4]!.text];
  const ids = tokenizer.encodeParts([{ text: after, isTrusted: true }]);
  const end = ids.subarray(0, ids.findIndex((id) => tokenizer.specialIds.has(id)) + 1);
  if (tokenizer.decode(end).trim() !== "") return none;
  const before = between.startsWith(opening) ? between.slice(opening.length) : "";
  const openingIds = tokenizer.encodeParts([{ text: opening, isTrusted: true }]);
  return { opening, openingIds, before, after, end, lengthAfterEnd: ids.length - end.length };
}

function filled(template: string, prompt: string): string {
  return template.replace("{prompt}", () => prompt);
}

function checkText(text: string): void {
  if (text.trim() === "") throw new InputError("prompt: wanted an instruction, got empty text.");
}

/** Ids with BOS before them, where there is one, unless they have it: a chat template may have written it itself. */
export function withBos({ bosId }: Tokenizer, ids: Int32Array): Int32Array {
  if (bosId === undefined || ids[0] === bosId) return ids;
  return joinedIds([bosId], ids);
}
