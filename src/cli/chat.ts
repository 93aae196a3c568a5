import { basename, resolve } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { Command } from "commander";
import { type Budget, KEEP, parseShare } from "../bundle/estimate.ts";
import { ENGINE_OPTIONS, MAX_TOKENS } from "../engine/engineOptions.ts";
import { greedySampling, SAMPLING_OPTIONS } from "../engine/sampling.ts";
import { IfpruneError } from "../errors.ts";
import { checkNumber } from "../options.ts";
import type { GenerationEvent, InferenceService, MaskRequest, Sampling } from "../serve/service.ts";
import type { ChatMessage } from "../text/chatTemplate.ts";
import { numberFlag } from "./numberFlag.ts";
import { budgetFlags, DEFAULT_MODEL, denseNote, keptLine, MODEL_HELP, qualityWords, sourceWords } from "./options.ts";

interface Options extends Budget {
  maxTokens: number;
  temperature: number;
  seed: number;
  threads?: number;
  system?: string;
}

export function chatCommand(): Command {
  const command = new Command("chat")
    .description("Talk to a model in the terminal. One conversation keeps the mask of its first message.")
    .argument("[model]", MODEL_HELP)
    .option("--system <text>", "what the model is told before the conversation, if its template has a place for it")
    .addOption(numberFlag("--max-tokens <n>", { ...MAX_TOKENS, fallback: 512 }))
    .addOption(numberFlag("--temperature <t>", SAMPLING_OPTIONS.temperature))
    .addOption(numberFlag("--seed <n>", SAMPLING_OPTIONS.seed))
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .addHelpText("after", `\nIn the conversation:\n${COMMANDS.map(helpLine).join("\n")}`)
    .action(async (model: string | undefined, { threads, keep, maxLoss, tFfn, ...options }: Options) => {
      const path = model ?? DEFAULT_MODEL;
      const id = basename(resolve(path));
      const { openLocalService } = await import("../serve/localService.ts"); // other commands do not need it
      await using service = await openLocalService([{ id, path }], { threads, slots: 1, keep, maxLoss, tFfn });
      const [served] = service.models();
      if (!served!.isTrained && served!.tFfn === served!.dFfn) process.stderr.write(denseNote(served!));
      await converse(service, id, options, { input: process.stdin, output: process.stdout });
    });
  for (const flag of budgetFlags()) command.addOption(flag);
  return command;
}

const COMMANDS = [
  ["/auto", "the part of the model that this conversation's first message asks for (as at the start)"],
  ["/task NAME", "a saved part; /tasks lists them"],
  ["/save NAME", "save this conversation's part as a task"],
  ["/keep SHARE", "so much of the model, as 75% or auto, by what the first message asks for"],
  ["/dense", "the whole model"],
  ["/mask", "which part answers now"],
  ["/new", "begin a new conversation"],
  ["/quit", "end; so does Ctrl-D. Ctrl-C stops an answer"],
] as const;
const helpLine = ([command, words]: readonly [string, string]) => `  ${command.padEnd(12)} ${words}`;

export interface ChatIo {
  input: NodeJS.ReadableStream & { isTTY?: boolean };
  output: NodeJS.WritableStream;
}

/** Reads lines and answers them until the input ends, `/quit`, or Ctrl-C while nothing is being answered. */
export async function converse(
  service: InferenceService,
  model: string,
  { maxTokens, temperature, seed, system }: Omit<Options, "threads" | keyof Budget>,
  { input, output }: ChatIo,
): Promise<void> {
  const sampling: Sampling = { ...greedySampling, temperature, seed };
  const first: ChatMessage[] = system === undefined ? [] : [{ role: "system", content: system }];
  let messages = [...first];
  let mask: MaskRequest = { kind: "auto" };
  let answering: AbortController | undefined;
  const say = (text: string) => output.write(`${text}\n`);

  const lines = createInterface({ input, output, terminal: input.isTTY ?? false, prompt: "› " });
  lines.on("SIGINT", () => {
    if (answering) answering.abort();
    else lines.close();
  });

  const answer = async (text: string): Promise<void> => {
    const asked: ChatMessage[] = [...messages, { role: "user", content: text }];
    answering = new AbortController();
    let said = "";
    let end: Extract<GenerationEvent, { type: "end" }> | undefined;
    let kept = "";
    try {
      const prompt = { kind: "chat", messages: asked } as const;
      const request = { prompt, mask, maxTokens, stop: [], sampling, signal: answering.signal };
      for await (const event of service.generate(model, request)) {
        if (event.type === "start")
          kept = `${keptLine(event.mask)}, ${sourceWords(event.mask.source)}${qualityWords(event.mask.quality)}`;
        else if (event.type === "end") end = event;
        else if (event.type === "text") {
          said += event.text;
          output.write(event.text);
        }
      }
    } catch (error) {
      if (!answering.signal.aborted) throw error;
    } finally {
      answering = undefined;
    }
    if (said !== "" || end) messages = [...asked, { role: "assistant", content: said }];
    say(end ? `\n  ${kept}, ${speed(end)}` : "\n  stopped");
  };

  /** The message that makes the conversation's mask. */
  const instruction = () => messages.find(({ role }) => role === "user")?.content;

  const obey = async (command: string, name: string): Promise<void> => {
    switch (command) {
      case "/auto":
        mask = { kind: "auto" };
        return;
      case "/dense":
        mask = { kind: "dense" };
        return;
      case "/keep": {
        const keep = name === "auto" ? name : parseShare(name);
        if (keep !== "auto") checkNumber("/keep", "share", keep, KEEP);
        mask = { kind: "auto", keep };
        return;
      }
      case "/new":
        messages = [...first];
        return;
      case "/help":
        say(COMMANDS.map(helpLine).join("\n"));
        return;
      case "/tasks": {
        const tasks = service.tasks(model).map((task) => `  ${task.name}: ${task.instruction}`);
        say(tasks.join("\n") || "  none; /save NAME saves one");
        return;
      }
      case "/task":
        if (service.tasks(model).some((task) => task.name === name)) mask = { kind: "task", name };
        else say(`  no task "${name}"; /tasks lists them`);
        return;
      case "/save": {
        const text = instruction();
        if (text !== undefined) await service.saveTask(model, name, text, mask.kind === "auto" ? mask : {});
        say(text === undefined ? "  nothing to save yet: a task is made of a first message" : `  saved: /task ${name}`);
        return;
      }
      case "/mask": {
        const text = instruction();
        if (mask.kind !== "auto") return void say(mask.kind === "task" ? `  task ${mask.name}` : "  the whole model");
        if (text === undefined) return void say("  the part that your first message will ask for");
        const { info } = await service.mask(model, text, mask);
        say(`  ${info.id}: ${info.tFfn} of ${info.dFfn} channels in each layer, by ${info.source}`);
        return;
      }
      default:
        say(`  no command "${command}"; /help lists them`);
    }
  };

  for await (const line of prompted(lines)) {
    const text = line.trim();
    if (text === "") continue;
    if (text === "/quit") break;
    try {
      const [command, ...rest] = text.split(/\s+/);
      if (text.startsWith("/")) await obey(command!, rest.join(" "));
      else await answer(text);
    } catch (error) {
      if (!(error instanceof IfpruneError)) throw error;
      say(`  ${error.message}`); // the conversation goes on
    }
  }
  lines.close();
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
