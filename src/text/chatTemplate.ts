/**
 * Chat templates, the Jinja text by which a model's makers turn messages into what it was trained to read. A template is rendered with
 * placeholders for the messages' contents, so that what is the template's own (special tokens are read from it) is told apart from what
 * users wrote (they are not).
 *
 * Templates come with models, so they are as hostile as any file: their length, time, ranges, output and the work of running them are limited.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createContext, Script } from "node:vm";
import { Environment, Interpreter, Template } from "@huggingface/jinja";
import { FileError, IfpruneError, InputError } from "../errors.ts";
import { readJson, readText } from "../json.ts";
import { asPattern } from "../words.ts";
import { watchContents } from "./contentUse.ts";
import { doAsPython, stripped, whiteSpace } from "./likePython.ts";
import { limitWork } from "./templateWork.ts";
import type { TextPart, Tokenizer } from "./tokenizer.ts";
import { CALL_OPEN, callsAsText } from "./toolMarks.ts";

/** A turn of a conversation. */
export interface ChatMessage {
  /** `tool`: what a call of the answer before it gave. */
  role: "system" | "user" | "assistant" | "tool";
  content: string;
  /** Of an answer: what came before it. The templates of reasoning models show some of it. */
  thoughts?: string | undefined;
  /** Of an answer: what it called. */
  calls?: readonly MessageCall[] | undefined;
  /** Of a result: the call. */
  callId?: string | undefined;
}

/** A call of a tool in an answer. */
export interface MessageCall {
  id: string;
  name: string;
  /** JSON. */
  arguments: unknown;
}

/** Its file in a bundle, and beside the LLM of a checkpoint. */
export const chatTemplateName = "chat_template.jinja";

const MAX_TEMPLATE_LENGTH = 1 << 18;
const MAX_CONFIG_BYTES = 1 << 26;
/** Longest output beyond the contents, in characters. */
const MAX_OUTPUT_LENGTH = 1 << 20;
const MAX_RANGE = 10_000;
/** Should work that is not counted take long. A busy machine takes seconds for what is. */
const MAX_RENDER_MS = 10_000;
/** Work of a rendering, as `templateWork.ts` counts it, beyond what messages add to it. */
const MAX_WORK = 1 << 21;
const MAX_WORK_PER_MESSAGE = 20_000;
const MAX_WORK_PER_CHARACTER = 200;
/** Longest white space. To parse a template takes time by its square, and none has as much. */
const MAX_SPACE = 256;
/** Sequences of roles whose frames are kept. */
const MAX_FRAMES = 64;

/** Private-use characters, which no template writes, around the number of a message. */
const placeholderMark = "\u{f0000}";
const placeholder = (index: number): string => `${placeholderMark}${index}\u{f0001}`;
/** White space around placeholders shows on which side a template trims; none writes this one. */
const margin = "\u2003";
const placeholders = new RegExp(`(${margin}?)\u{f0000}(\\d+)\u{f0001}(${margin}?)`, "u");

/** What a template itself says against messages, by `raise_exception`. */
class Refusal extends Error {}

/** A model's chat template: messages to what the model reads. */
export class ChatTemplate {
  readonly #template: Template;
  /** By roles and what else they depend on. */
  readonly #frames = new Map<string, Frame>();

  /**
   * @param source Jinja text
   * @param where its origin, for messages
   * @throws {FileError} if it is no template, or too long
   */
  constructor(
    readonly source: string,
    readonly where: string,
  ) {
    if (source.length > MAX_TEMPLATE_LENGTH) {
      throw new FileError(
        where,
        `chat template: wanted at most ${MAX_TEMPLATE_LENGTH} characters, got ${source.length}.`,
      );
    }
    if (new RegExp(`\\s{${MAX_SPACE + 1}}`).test(source))
      throw new FileError(
        where,
        `chat template: wanted at most ${MAX_SPACE} white-space characters in a row, got more.`,
      );
    try {
      this.#template = new Template(source);
    } catch (cause) {
      throw new FileError(where, `chat template: wanted Jinja, got: ${(cause as Error).message}.`, { cause });
    }
  }

  /** Whether it shows tools to the model and has it call them as Hermes did, in `<tool_call>`s of JSON. */
  get hasTools(): boolean {
    return /\btools\b/.test(this.source) && this.source.includes(CALL_OPEN);
  }

  /** Whether a variable of it, Qwen's, says if the model is to think. */
  get hasThinkingSwitch(): boolean {
    return /\benable_thinking\b/.test(this.source);
  }

  /** How answers of a reasoning model begin: it opens its thoughts, `<think>`, or the prompt has opened them. Undefined: it has none. */
  thoughts(ends: Ends, variables?: TemplateVariables): "opened" | "open" | undefined {
    if (!this.source.includes("</think>")) return undefined;
    try {
      const prompt = this.render([{ role: "user", content: "a" }], ends, [], variables).at(-1)!.text;
      return prompt.trimEnd().endsWith("<think>") ? "opened" : "open";
    } catch (error) {
      if (error instanceof IfpruneError) return undefined; // each chat fails, with the cause; the model is served all the same
      throw error;
    }
  }

  /**
   * The text of a conversation up to where the answer goes on: after what opens one, or, where the last message is the beginning of an answer, after that. Its
   * trusted parts are the template's.
   *
   * The date is the same on every day, so that a prompt is too. A template that knows no calls is shown them as texts.
   *
   * @param tools that the model may call, for a template that shows each as JSON
   * @throws {InputError} if the template refuses the messages, takes no tools, or makes special tokens of what is in the messages, or a variable is one that it has anyway
   * @throws {FileError} if the template fails
   */
  render(
    given: readonly ChatMessage[],
    ends: Ends,
    tools: readonly object[] = [],
    variables: TemplateVariables = {},
  ): TextPart[] {
    if (tools.length > 0 && !this.hasTools)
      throw new InputError(`chat template: wanted one for tools, got one without. Give no tools.`);
    const taken = Object.keys(variables).find((name) => ownVariables.has(name));
    if (taken !== undefined)
      throw new InputError(
        `chat template: wanted variables beside those that it has anyway, got "${taken}". Leave it out.`,
      );
    const plainTools = withoutUndefined(tools);
    const messages = this.#known(given);
    const isMore = ({ role, calls, thoughts }: ChatMessage) => role === "tool" || calls || thoughts;
    if (Object.keys(variables).length > 0 || messages.some(isMore))
      return this.#renderChanged(messages, ends, plainTools, variables);
    const roles = messages.map(({ role }) => role);
    const frame = this.#frame(roles, ends, tools.length);
    if (!frame) return this.#renderChanged(messages, ends, plainTools);
    const { pieces, isPlain } = frame;
    const contents = [...messages.map(({ content }) => content), ...plainTools.map(toJson)];
    const parts: TextPart[] = [];
    for (let at = 0; at < pieces.length; at += 4) {
      const [text, before, index, after] = pieces.slice(at, at + 4);
      parts.push({ text: text!, isTrusted: true });
      if (index === undefined) break;
      let content = contents[Number(index)] ?? "";
      content = stripped(content, whiteSpace, { start: !before, end: !after });
      parts.push({ text: content, isTrusted: false });
    }
    if (isPlain && contents.every((content) => content.trim() !== "")) return parts;
    const text = this.#written(messages, ends, plainTools);
    return parts.map((part) => part.text).join("") === text ? parts : this.#renderChanged(messages, ends, plainTools);
  }

  /**
   * What it writes before and after the content of the last message, a user's, whatever that is. Undefined where it writes it not once, or has something against what stands for it.
   */
  around(
    given: readonly ChatMessage[],
    ends: Ends,
    tools: readonly object[] = [],
    variables: TemplateVariables = {},
  ): readonly [before: string, after: string] | undefined {
    const messages = this.#known(given);
    const marked = [...messages.slice(0, -1), { ...messages.at(-1)!, content: MARKED }];
    try {
      const { text } = this.#run(marked, ends, withoutUndefined(tools), { variables });
      const [before, after, ...more] = text.split(MARKED);
      return after === undefined || more.length > 0 ? undefined : [before!, after];
    } catch (error) {
      if (error instanceof IfpruneError) return undefined;
      throw error;
    }
  }

  #known(messages: readonly ChatMessage[]): readonly ChatMessage[] {
    return this.source.includes("tool_calls") ? messages : callsAsText(messages);
  }

  /**
   * For a template that changes contents, as those that leave out the thoughts of earlier answers, and for messages with more than contents: special tokens in
   * them are hidden behind characters that it does not know, and what it writes is its own but for those.
   */
  #renderChanged(
    messages: readonly ChatMessage[],
    ends: Ends,
    tools: readonly object[],
    variables: TemplateVariables = {},
  ): TextPart[] {
    const hidden: string[] = [];
    const pattern = new RegExp([...ends.specialTokens.map(asPattern), "[\\u{f0100}-\\u{ffffd}]"].join("|"), "gu");
    const hide = (text: string) =>
      text.replace(pattern, (found) => {
        if (!hidden.includes(found)) hidden.push(found);
        return String.fromCodePoint(HIDDEN + hidden.indexOf(found));
      });
    const shown = mapTexts(messages, hide);
    const shownTools = mapTexts(tools, hide);
    const shownVariables = mapTexts(variables, hide);
    const text = this.#written(shown, ends, shownTools, shownVariables);
    const count = (one: string) => one.match(pattern)?.filter((found) => found.codePointAt(0)! < HIDDEN).length ?? 0;
    const harmless = (one: string) => (one.trim() === "" ? one : "x");
    const own = this.#written(
      shown.map((one) => ({
        ...one,
        content: harmless(one.content),
        thoughts: one.thoughts && harmless(one.thoughts),
      })),
      ends,
      shownTools,
      shownVariables,
    );
    if (count(text) !== count(own))
      // joined again of what was around something that it took away
      throw new InputError(
        "chat template: wanted messages without parts of special tokens, got some that it makes whole ones of.",
      );
    return text
      .split(/([\u{f0100}-\u{ffffd}])/u)
      .map((part, i) =>
        i % 2 === 0
          ? { text: part, isTrusted: true }
          : { text: hidden[part.codePointAt(0)! - HIDDEN] ?? part, isTrusted: false },
      );
  }

  /** What the template writes around contents in such roles. Undefined: it looks into tools, and stops at what stands for them. */
  #frame(roles: readonly ChatMessage["role"][], ends: Ends, numTools: number): Frame | undefined {
    const key = JSON.stringify([roles, ends.bosToken, ends.eosToken, numTools]);
    const known = this.#frames.get(key);
    if (known) return known;
    const messages = roles.map((role, i) => ({ role, content: margin + placeholder(i) + margin }));
    const ofTools = Array.from({ length: numTools }, (_, i) => placeholder(roles.length + i));
    let text: string;
    let isLookedInto: boolean;
    try {
      ({ text, isLookedInto } = this.#run(messages, ends, ofTools, { mark: placeholderMark }));
    } catch (error) {
      if (numTools > 0 && error instanceof IfpruneError) return undefined;
      throw error;
    }
    // As JSON they stand in quotes. Margins go with what is not to be trimmed.
    for (const one of ofTools) text = text.replaceAll(`"${one}"`, margin + one + margin);
    const pieces = text.split(placeholders);
    const indices = pieces.filter((_, i) => i % 4 === 2);
    const last = 4 * indices.lastIndexOf(String(roles.length - 1));
    const isContinued = roles.at(-1) === "assistant";
    const frame = {
      pieces: isContinued ? [...pieces.slice(0, last + 3), ""] : pieces, // without white space after it
      isPlain: !isLookedInto && new Set(indices).size === indices.length && !(isContinued && last < 0),
    };
    if (this.#frames.size >= MAX_FRAMES) this.#frames.clear();
    this.#frames.set(key, frame);
    return frame;
  }

  /** What it writes up to where the answer goes on. */
  #written(
    messages: readonly ChatMessage[],
    ends: Ends,
    tools: readonly object[],
    variables: TemplateVariables = {},
  ): string {
    const last = messages.at(-1)!;
    if (last.role !== "assistant") return this.#run(messages, ends, tools, { variables }).text;
    const marked = [...messages.slice(0, -1), { ...last, content: last.content.trimEnd() + BEGUN }];
    const { text } = this.#run(marked, ends, tools, { variables });
    const end = text.lastIndexOf(BEGUN);
    if (end < 0)
      throw new InputError("chat template: wanted a user's message last, as it shows no beginning of an answer.");
    return text.slice(0, end);
  }

  /** @param mark in the contents, to see whether they are looked into */
  #run(
    messages: readonly ChatMessage[],
    { bosToken, eosToken }: Ends,
    tools: readonly unknown[],
    { variables = {}, mark }: { variables?: TemplateVariables; mark?: string },
  ): { text: string; isLookedInto: boolean } {
    const environment = new Environment();
    const globals = {
      ...{ true: true, false: false, none: null, True: true, False: false, None: null },
      range,
      raise_exception: (message: unknown) => {
        throw new Refusal(String(message));
      },
      strftime_now: strftime,
      ...{
        add_generation_prompt: messages.at(-1)?.role !== "assistant",
        bos_token: bosToken ?? "",
        eos_token: eosToken,
      },
      ...{ tools: tools.length > 0 ? tools : null, documents: null }, // as transformers has them
      messages: messages.map(templateMessage),
    };
    for (const [name, value] of Object.entries({ ...variables, ...globals })) environment.set(name, value);
    const contentLength = messages.reduce((sum, one) => sum + one.content.length + asideLength(one), 0);
    const interpreter = new Interpreter(environment);
    doAsPython(interpreter);
    const toolsLength = JSON.stringify([tools, variables]).length;
    const charge = limitWork(
      interpreter,
      MAX_WORK + MAX_WORK_PER_MESSAGE * messages.length + MAX_WORK_PER_CHARACTER * (contentLength + toolsLength),
    );
    const watch = mark === undefined ? undefined : watchContents(interpreter, mark, charge);
    let output: unknown;
    try {
      output = withinTime(() => interpreter.run(this.#template.parsed).value);
    } catch (cause) {
      if (cause instanceof Refusal)
        throw new InputError(`chat template: refused the messages: ${cause.message}`, { cause });
      throw new FileError(this.where, `chat template: wanted one that runs, got: ${(cause as Error).message}.`, {
        cause,
      });
    }
    if (typeof output !== "string" || output.length > MAX_OUTPUT_LENGTH + 2 * contentLength)
      throw new FileError(this.where, `chat template: wanted at most ${MAX_OUTPUT_LENGTH} characters of its own.`);
    return { text: output, isLookedInto: watch?.isLookedInto ?? true };
  }
}

/** Variables of a template's own that whoever asks may set, as `enable_thinking`, each any JSON. What it does not know has no effect. */
export type TemplateVariables = Readonly<Record<string, unknown>>;

/** What a template is given anyway. */
const ownVariables: ReadonlySet<string> = new Set([
  ...["messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "bos_token", "eos_token"],
  ...["range", "raise_exception", "strftime_now", "true", "false", "none", "True", "False", "None"],
]);

type Ends = Pick<Tokenizer, "bosToken" | "eosToken" | "specialTokens">;

/** Private-use characters from here on stand for what is hidden from a template. */
const HIDDEN = 0xf0100;

/** One more, which ends the beginning of an answer. */
const BEGUN = "\u{f0002}";

/** One more, which stands for a content. */
const MARKED = "\u{f0003}";

/** The date on every day, which Llama's templates have where there is none. */
const TODAY = new Date(Date.UTC(2024, 6, 26));

/** Python's, of that day at midnight. */
function strftime(format: unknown): string {
  return String(format).replace(/%(.)/gs, (whole, directive: string) => directives()[directive] ?? whole);
}

let directivesOfToday: Record<string, string> | undefined;

function directives(): Record<string, string> {
  if (directivesOfToday) return directivesOfToday;
  const named = (options: Intl.DateTimeFormatOptions) =>
    new Intl.DateTimeFormat("en-US", { ...options, timeZone: "UTC" }).format(TODAY);
  const [year, month, day] = TODAY.toISOString().split(/[-T]/);
  directivesOfToday = {
    ...{ Y: year!, y: year!.slice(2), m: month!, d: day!, H: "00", I: "12", M: "00", S: "00", p: "AM", "%": "%" },
    ...{ b: named({ month: "short" }), B: named({ month: "long" }) },
    ...{ a: named({ weekday: "short" }), A: named({ weekday: "long" }) },
  };
  return directivesOfToday;
}

/** As JSON has it: Jinja knows no undefined fields. */
const withoutUndefined = (tools: readonly object[]): object[] => JSON.parse(JSON.stringify(tools));

/** What a template writes around contents. */
interface Frame {
  /** Of a split by `placeholders`: text, margin, number of the content, margin, text, … */
  pieces: readonly (string | undefined)[];
  /** Whether it writes the same around all contents that are not blank, each once at most: then they need not be rendered. */
  isPlain: boolean;
}

/** A message with the names that templates know. Of its thoughts, gpt-oss's templates know another. */
function templateMessage({ role, content, thoughts, calls, callId }: ChatMessage): object {
  return {
    role,
    content,
    ...(thoughts && { reasoning_content: thoughts, thinking: thoughts }),
    ...(calls && {
      tool_calls: calls.map(({ id, name, arguments: given }) => ({
        ...{ id, type: "function", function: { name, arguments: given } },
      })),
    }),
    ...(callId !== undefined && { tool_call_id: callId }),
  };
}

/** Characters of a message beside its content. */
const asideLength = ({ thoughts, calls }: ChatMessage): number =>
  (thoughts?.length ?? 0) + (calls ? JSON.stringify(calls).length : 0);

/** JSON with all texts in it changed, names too. */
function mapTexts<T>(value: T, change: (text: string) => string): T {
  if (typeof value === "string") return change(value) as T;
  if (Array.isArray(value)) return value.map((item) => mapTexts(item, change)) as T;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [change(key), mapTexts(item, change)])) as T;
}

/** The ids of a conversation in a template: those of its whole text, except that special tokens are not read from the messages. */
export function chatIds(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  tools?: readonly object[],
  variables?: TemplateVariables,
): Int32Array {
  return tokenizer.encodeParts(template.render(messages, tokenizer, tools, variables));
}

const jsonTemplate = new Template("{{ value | tojson }}");

/** A value as templates write it in JSON. */
function toJson(value: object): string {
  const environment = new Environment();
  environment.set("value", value);
  return String(new Interpreter(environment).run(jsonTemplate.parsed).value);
}

/** Python's. */
function range(...args: number[]): number[] {
  const [start, stop, step] = args.length > 1 ? [args[0]!, args[1]!, args[2] ?? 1] : [0, args[0]!, 1];
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (!(length <= MAX_RANGE)) throw new RangeError(`a range of ${length}`);
  return Array.from({ length }, (_, i) => start + i * step);
}

const holder: { task?: () => unknown } = {};
const context = createContext(holder);
const script = new Script("task()");

/** Runs `task`, which it stops after a while: the limit of a script holds for all that the script calls. */
function withinTime<T>(task: () => T): T {
  holder.task = task;
  try {
    return script.runInContext(context, { timeout: MAX_RENDER_MS }) as T;
  } finally {
    delete holder.task;
  }
}

/**
 * The chat template of a Hugging Face folder: that of `chat_template.jinja`, `chat_template.json` or `tokenizer_config.json`, the first
 * that has one. Of several it is the one named "default".
 *
 * @returns undefined where there is none
 * @throws {FileError} if one of the files cannot be read
 */
export function readChatTemplate(folder: string): string | undefined {
  const jinja = join(folder, chatTemplateName);
  if (existsSync(jinja)) return readText(jinja, MAX_CONFIG_BYTES);
  for (const name of ["chat_template.json", "tokenizer_config.json"]) {
    const path = join(folder, name);
    if (!existsSync(path)) continue;
    const json = readJson(path, MAX_CONFIG_BYTES) as { chat_template?: unknown } | null;
    const found = json?.chat_template ?? undefined;
    const template = Array.isArray(found) ? found.find((entry) => entry?.name === "default")?.template : found;
    if (typeof template === "string") return template;
    if (found !== undefined)
      throw new FileError(path, 'wanted "chat_template" to be text, or a list with one named "default".');
  }
  return undefined;
}
