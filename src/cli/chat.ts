import { createInterface, type Interface } from "node:readline";
import { type Budget, hasBudget, KEEP, parseShare } from "../bundle/budget.ts";
import type { WantedForm } from "../bundle/formOptions.ts";
import { isTiny } from "../bundle/pulledModels.ts";
import { greedySampling } from "../engine/sampling.ts";
import { FileError, IfpruneError, InputError } from "../errors.ts";
import { isTaken, writeWhole } from "../files.ts";
import { checkNumber } from "../options.ts";
import { openLocalService } from "../serve/localService.ts";
import type { GenerationEvent, InferenceService, MaskRequest, ServedModel } from "../serve/service.ts";
import type { ChatMessage } from "../text/chatTemplate.ts";
import { CHAT_COMMANDS, chatHelp } from "./chatCommands.ts";
import { TINY_NOTE } from "./commands/flags.ts";
import { denseNote, isWhole, keptLine, noAnswer, qualityWords, servedModels, sourceWords } from "./options.ts";
import { type ProgressStream, Waiting } from "./progress.ts";

interface Options extends Budget {
  maxTokens: number;
  temperature: number;
  repeatPenalty: number;
  seed: number;
  threads?: number;
  form: WantedForm;
  system?: string;
}

/** `ifprune chat` */
export async function chatAction(
  model: string | undefined,
  { threads, form, keep, maxLoss, tFfn, ...options }: Options,
) {
  const one = servedModels(model === undefined ? [] : [model])[0]!;
  const budget = { keep, maxLoss, tFfn };
  using waiting = new Waiting("loading", { since: 0 });
  await using service = await openLocalService([one], { threads, form, slots: 1, ...budget });
  waiting.end();
  const served = service.models()[0]!;
  if (isTiny(one.path)) process.stderr.write(`${one.id}: ${TINY_NOTE}`);
  if (isWhole(served)) process.stderr.write(denseNote(served));
  const io = { input: process.stdin, output: process.stdout, status: process.stderr };
  await converse(service, served, { ...options, budget }, io);
}

export interface ChatIo {
  input: NodeJS.ReadableStream & { isTTY?: boolean };
  output: NodeJS.WritableStream;
  /** Where a line says what is being waited for. */
  status: ProgressStream;
}

export interface ChatOptions extends Pick<Options, "maxTokens" | "temperature" | "repeatPenalty" | "seed" | "system"> {
  /** That of the service, for words about it. */
  budget?: Budget | undefined;
}

/** Reads lines and answers them until the input ends, `/quit`, or Ctrl-C while nothing is being answered. */
export async function converse(
  service: InferenceService,
  { id: model, tFfn, dFfn }: Pick<ServedModel, "id" | "tFfn" | "dFfn">,
  { maxTokens, temperature, repeatPenalty, seed, system, budget = {} }: ChatOptions,
  { input, output, status }: ChatIo,
): Promise<void> {
  /** System message, if there is one, and what was said since. */
  let told: ChatMessage[] = system === undefined ? [] : [{ role: "system", content: system }];
  let said: ChatMessage[] = [];
  let mask: MaskRequest = { kind: "auto" };
  /** The message that was asked last, how often again, and whether `said` ends with it and its answer. */
  let last: { text: string; retries: number; isAnswered: boolean } | undefined;
  let answering: AbortController | undefined;
  const say = (text: string) => output.write(`${text}\n`);

  const lines = createInterface({ input, output, terminal: input.isTTY ?? false, prompt: "› " });
  lines.on("SIGINT", () => {
    if (answering) answering.abort();
    else lines.close();
  });

  const answer = async (text: string, retries = 0): Promise<void> => {
    const asked = { text, retries, isAnswered: false };
    last = asked;
    const user: ChatMessage = { role: "user", content: text };
    answering = new AbortController();
    let answered = "";
    let end: Extract<GenerationEvent, { type: "end" }> | undefined;
    let kept = "";
    let empty = "";
    using waiting = new Waiting("reading the prompt", { stream: status });
    try {
      const prompt = { kind: "chat", messages: [...told, ...said, user] } as const;
      const sampling = { ...greedySampling, temperature, repeatPenalty, seed: seed + retries };
      const request = { prompt, mask, maxTokens, stop: [], sampling, signal: answering.signal };
      for await (const event of service.generate(model, request)) {
        waiting.end();
        if (event.type === "start") {
          empty = noAnswer(event.mask);
          const wanted = mask.kind !== "auto" ? {} : hasBudget(mask) ? mask : budget;
          kept = `${keptLine(event.mask, wanted)}, ${sourceWords(event.mask.source)}${qualityWords(event.mask.quality)}`;
        } else if (event.type === "end") end = event;
        else if (event.type === "text") {
          answered += event.text;
          output.write(event.text);
        }
      }
    } catch (error) {
      if (!answering.signal.aborted) throw error;
    } finally {
      answering = undefined;
    }
    asked.isAnswered = answered !== "" || end !== undefined;
    if (asked.isAnswered) said = [...said, user, { role: "assistant", content: answered }];
    if (end && answered.trim() === "") say(`  ${empty}`);
    say(end ? `\n  ${kept}, ${speed(end)}` : "\n  stopped");
  };

  /** The message that makes the conversation's mask. */
  const instruction = () => said[0]?.content;
  const making = () => ({ ...(mask.kind === "auto" && mask), system: told[0]?.content });

  const obey = async (command: string, rest: string): Promise<void> => {
    switch (command) {
      case "/auto":
        mask = { kind: "auto" };
        return;
      case "/dense":
        mask = { kind: "dense" };
        return;
      case "/keep": {
        const keep = rest === "auto" ? rest : parseShare(rest);
        if (keep !== "auto") checkNumber("/keep", "share", keep, KEEP);
        mask = { kind: "auto", keep };
        return;
      }
      case "/new":
        said = [];
        last = undefined;
        return;
      case "/help":
        say(chatHelp());
        return;
      case "/tasks": {
        const tasks = service.tasks(model).map((task) => `  ${task.name}: ${task.instruction}`);
        say(tasks.join("\n") || "  none; /remember NAME saves one");
        return;
      }
      case "/task":
        if (service.tasks(model).some((task) => task.name === rest)) mask = { kind: "task", name: rest };
        else say(`  no task "${rest}"; /tasks lists them`);
        return;
      case "/remember": {
        const text = instruction();
        if (mask.kind === "task") return void say(`  nothing to save: ${mask.name}, which answers now, is saved`);
        if (mask.kind !== "auto") return void say("  nothing to save: the whole model answers now. /auto or /keep 75%");
        if (text === undefined) return void say("  nothing to save yet: a task is made of a first message");
        await service.saveTask(model, rest, text, making());
        return void say(`  saved: /task ${rest}`);
      }
      case "/mask": {
        const text = instruction();
        if (mask.kind !== "auto") return void say(mask.kind === "task" ? `  task ${mask.name}` : "  the whole model");
        if (text === undefined) return void say("  the part that your first message will ask for");
        const { info } = await service.mask(model, text, making());
        say(`  ${info.id}: ${info.tFfn} of ${info.dFfn} channels in each layer, by ${info.source}`);
        return;
      }
      case "/system":
        told = rest === "" ? [] : [{ role: "system", content: rest }];
        return;
      case "/retry": {
        if (last === undefined) return void say("  nothing to ask again yet");
        const before = { said, last };
        if (last.isAnswered) said = said.slice(0, -2);
        try {
          return await answer(last.text, last.retries + 1);
        } finally {
          if (!last.isAnswered) ({ said, last } = before); // the answer before stays
        }
      }
      case "/save":
        saveConversation(rest, { model, messages: [...told, ...said] });
        say(`  ${rest}`);
        return;
      default:
        say(`  no command "${command}". There are: ${CHAT_COMMANDS.map(([name]) => name).join(", ")}`);
    }
  };

  say(`${model} · ${keptLine({ tFfn, dFfn }, budget)} · /help lists what there is beside messages`);
  for await (const line of prompted(lines)) {
    const text = line.trim();
    if (text === "") continue;
    if (text === "/quit") break;
    try {
      const [, command, rest] = /^(\/\S*)\s*(.*)$/s.exec(text) ?? [];
      if (command !== undefined) await obey(command, rest!);
      else await answer(text);
    } catch (error) {
      if (!(error instanceof IfpruneError)) throw error;
      say(`  ${error.message}`); // the conversation goes on
    }
  }
  lines.close();
}

/** @throws {InputError} without a name or messages @throws {FileError} if the file exists, or cannot be written */
function saveConversation(path: string, conversation: { model: string; messages: readonly ChatMessage[] }): void {
  if (path === "") throw new InputError("/save: wanted a file, got none. As: /save talk.json");
  if (!conversation.messages.some(({ role }) => role === "user"))
    throw new InputError("/save: wanted a conversation, got none yet.");
  if (isTaken(path)) throw new FileError(path, "wanted a new file, got one that exists. Choose another name.");
  writeWhole(path, `${JSON.stringify(conversation, null, 2)}\n`);
}

function speed({ completionTokens, ms }: Extract<GenerationEvent, { type: "end" }>): string {
  const first = ms.queue + ms.predict + ms.gather + ms.load + ms.prefill;
  const rate = completionTokens > 1 ? `, ${((1000 * (completionTokens - 1)) / ms.decode).toFixed(0)} tokens/s` : "";
  return `first token after ${first.toFixed(0)} ms${rate}`;
}

/** The lines of an interface, each asked for by its prompt. */
async function* prompted(lines: Interface): AsyncGenerator<string, void, void> {
  let isOpen = true; // the input may end while a line is answered
  lines.on("close", () => {
    isOpen = false;
  });
  lines.prompt();
  for await (const line of lines) {
    yield line;
    if (isOpen) lines.prompt();
  }
}
