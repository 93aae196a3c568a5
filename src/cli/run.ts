import { compareAnswers } from "../answer/compareAnswers.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { isMasked } from "../answer/maskSource.ts";
import type { WantedForm } from "../bundle/formOptions.ts";
import { byteSize } from "../bundle/memory.ts";
import { DEFAULT_MODEL, isTiny, namesBundle } from "../bundle/pulledModels.ts";
import { checkResident, hasResident, residentBytes } from "../bundle/residentModel.ts";
import { OptionError } from "../errors.ts";
import { decodeText, readText } from "../json.ts";
import { IMPORT_RECIPE } from "../manifest.ts";
import { hasInputSlot } from "../text/prompt.ts";
import { TINY_NOTE } from "./commands/flags.ts";
import { printComparison } from "./comparison.ts";
import { interruption } from "./interruption.ts";
import {
  denseNote,
  formLine,
  keptLine,
  type MaskFlags,
  milliseconds,
  noAnswer,
  printJson,
  qualityWords,
  readMaskFlags,
  readNamedMask,
  STAGES,
  scoresLine,
} from "./options.ts";
import { Waiting } from "./progress.ts";

interface Options extends MaskFlags {
  model?: string;
  input?: string;
  file?: string[];
  maxTokens: number;
  temperature: number;
  repeatPenalty: number;
  seed: number;
  dense?: boolean;
  compare?: boolean;
  mask?: string;
  form: WantedForm;
  threads?: number;
  force?: boolean;
  verbose?: boolean;
  json?: boolean;
}

/** What is asked, and what it is done to: words and files, one of which may be standard input. */
async function readAsked(words: readonly string[], input: string | undefined, files: readonly string[] | undefined) {
  if (words.length > 0 && namesBundle(words[0]!))
    throw new OptionError(
      `run: wanted an instruction, got a model first. As: ifprune run --model ${words[0]} "${words.slice(1).join(" ") || "…"}"`,
    );
  // `run my-modle "What?"`: a name, then a question of its own
  if (words.length === 2 && /^[^\s]*[-_./\d][^\s]*$/.test(words[0]!) && /\S\s+\S/.test(words[1]!))
    throw new OptionError(
      `run: wanted one instruction, got "${words[0]}" before it. A model is named by --model, several words as one in quotes.`,
    );
  const isPiped = words.length === 0 || (words.length === 1 && words[0] === "-");
  if (words.length === 0 && process.stdin.isTTY)
    throw new OptionError('run: wanted an instruction, got none. As: ifprune run "What is the plural of wolf?"');
  if (Number(isPiped) + (files ?? []).filter((path) => path === "-").length > 1)
    throw new OptionError("run: wanted standard input once, got it for more.");
  const instruction = isPiped ? (await standardInput()).trim() : words.join(" ");
  if (files === undefined) return { instruction, input };
  const texts: string[] = [];
  for (const path of files) texts.push(path === "-" ? await standardInput() : readText(path));
  return { instruction, input: texts.map((text) => text.trim()).join("\n\n") };
}

async function standardInput(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(Buffer.from(chunk));
  return decodeText(Buffer.concat(chunks), "standard input");
}

/** `ifprune run` */
export async function runAction(words: string[], options: Options): Promise<void> {
  const {
    model: path = DEFAULT_MODEL,
    input: given,
    file: files,
    dense,
    compare,
    mask,
    json,
    source,
    keep,
    maxLoss,
    tFfn,
    text,
    examples,
    verbose,
    ...engine
  } = options;
  const { instruction, input } = await readAsked(words, given, files); // Ctrl-C ends it
  const signal = interruption();
  using waiting = new Waiting("loading", { isQuiet: json, since: 0 });
  using model = new InstructionModel(path);
  await Promise.all([model.bundle.verify(), model.engines.start()]); // a damaged file is told from a bad answer; both take a while
  const flags = { source, keep, maxLoss, tFfn, text, examples };
  const how = await readMaskFlags(flags, waiting);
  const masked = mask === undefined ? undefined : await readNamedMask(mask, model.bundle);
  const onStage = (stage: keyof typeof STAGES) => waiting.say(STAGES[stage]);
  if (!input && hasInputSlot(instruction))
    waiting.note(
      "The instruction has a place for its input, and none was given: it is read as it stands. --input TEXT fills it.\n",
    );
  if (isTiny(path)) waiting.note(`tiny: ${TINY_NOTE}`);
  if (compare) {
    const { temperature: _, repeatPenalty: __, form: ___, ...greedy } = engine;
    const comparison = await compareAnswers(model, instruction, {
      ...greedy,
      ...how,
      input,
      mask: masked,
      signal,
      onStage,
    });
    waiting.end();
    return json ? printJson(comparison) : printComparison(comparison, process.stdout);
  }
  const isImported = model.manifest.provenance.recipe === IMPORT_RECIPE;
  if (isImported && !dense && mask === undefined && !isMasked(model, flags))
    waiting.note(denseNote({ dFfn: model.bundle.ffnWidth, quality: model.manifest.quality }));
  if (engine.form === "resident") {
    checkResident(model.bundle);
    const size = byteSize(residentBytes(model.bundle));
    if (!hasResident(model.bundle)) waiting.note(`The resident model is written to the cache, once: ${size}.\n`);
  }
  const choice = dense ? "dense" : masked;
  await using answer = await model.ask(instruction, { ...engine, ...how, input, mask: choice, signal, onStage });

  let said = "";
  try {
    for await (const piece of answer) {
      waiting.end();
      said += piece;
      if (!json) process.stdout.write(piece);
    }
  } catch (error) {
    if (said !== "" && !json) process.stdout.write("\n"); // what is said of it has a line of its own
    throw error;
  }
  waiting.end();

  const { chosen, form, formReason, formFlaw, formMs, ms, promptTokens, answerTokens } = answer;
  const keptShare = answer.mask.tFfn / answer.mask.dFfn;
  if (said.trim() === "") process.stderr.write(`${noAnswer(answer.mask)}\n`);
  if (json) {
    const forms = { form, formReason, formFlaw, formMs };
    printJson({ answer: said, keptShare, ...chosen, ...forms, ms, promptTokens, answerTokens });
    return;
  }
  const { predict, gather, load, prefill, decode } = ms;
  const stages = [
    ...(chosen ? [scoresLine(chosen, predict)] : []),
    ...[
      milliseconds(form === "resident" ? "resident, open" : "gather", gather),
      milliseconds("load", load),
      milliseconds("prefill", prefill),
    ],
  ];
  // The first token comes out of prefill.
  const perSecond = answerTokens > 1 ? (1000 * (answerTokens - 1)) / decode : undefined;
  const speed = perSecond === undefined ? "" : ` · ${perSecond.toFixed(0)} tokens/s`;
  const line = `${keptLine(answer.mask, flags)}${qualityWords(chosen?.quality)} · ${stages.join(" · ")}${speed}`;
  process.stdout.write("\n");
  const isOther = formReason === "memory" || (engine.form === "resident" && form === "gathered");
  if (verbose || isOther) process.stderr.write(formLine(answer));
  process.stderr.write(process.stderr.isTTY ? `\x1b[2m${line}\x1b[0m\n` : `${line}\n`);
}
