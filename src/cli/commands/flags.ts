/** What several commands' definitions share. The table of commands is cheap: what a command does is loaded when it runs. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { SOURCE_NAMES } from "../../answer/sourceNames.ts";
import { KEEP, MAX_LOSS, parseShare, T_FFN } from "../../bundle/budget.ts";
import { DEFAULT_FORM, FORMS, WANTED_FORMS } from "../../bundle/formOptions.ts";
import { numberFlag } from "./numberFlag.ts";

/** What stands for a model. */
export const MODEL_NAME = "bundle folder, or id or name of a model that was pulled";
/** Of the small model in this package, as someone meets it. */
export const TINY_NOTE =
  "this small model answers 22 kinds of short questions, as “What is the plural of wolf?”, and nothing else (models/tiny/README.md).\n";
export const MODEL_HELP = `${MODEL_NAME} (default: the model in this package)`;

/** An action that is loaded when it runs. */
export function late<Args extends unknown[]>(load: () => Promise<(...args: Args) => void | Promise<void>>) {
  return async (...args: Args): Promise<void> => (await load())(...args);
}

/** The same of what needs an engine, which is started first: while it tests its binary, in a process of its own, the action is loaded. */
export function lateWithEngine<Args extends unknown[]>(load: () => Promise<(...args: Args) => void | Promise<void>>) {
  return late(async () => {
    const { DEFAULT_ENGINES } = await import("../../answer/defaultEngines.ts");
    DEFAULT_ENGINES.start().catch(() => {}); // it is told to whoever asks for it
    await DEFAULT_ENGINES.load();
    return load();
  });
}

export function integer(min: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isInteger(value) || value < min)
      throw new InvalidArgumentError(`Wanted an integer of at least ${min}.`);
    return value;
  };
}

/** Adds the options of `MaskFlags`; what makes a mask does not go with one that is given (`--mask`, `--dense`). */
export function addMaskFlags(command: Command, defaultSource?: string): Command {
  for (const flag of [...sourceFlags(defaultSource), ...budgetFlags()])
    command.addOption(flag.conflicts(["dense", "mask"]));
  return command.option(
    "--examples <file>",
    'solved cases that the instruction shows: JSON Lines of {"input", "output"}, or rows of training data',
  );
}

/** `--source`, and `--text` that some of them take. */
export function sourceFlags(
  defaultSource = "predictor; griffin for --keep or --t-ffn in a model without one",
): Option[] {
  return [
    new Option(
      "--source <name>",
      `what makes masks (default: ${defaultSource}). griffin: channels most active when the dense model reads the prompt; glass: on the prompt and on --text, by the mean of ranks; text: those that contribute most to --text; weights: those of the largest weights`,
    ).choices(SOURCE_NAMES),
    new Option("--text <file>", "text that --source glass and text take activations from"),
  ];
}

const FORM_WORDS =
  "how masks are run. gathered: as small models, one for each; resident: within one model that stays loaded for all, which is written once";

/** `--form` of what answers requests. */
export function formFlag(): Option {
  return new Option(
    "--form <form>",
    `${FORM_WORDS}; auto: in the form that is expected to answer the request sooner. Masks that are soft or not of whole blocks are gathered nevertheless`,
  )
    .choices(WANTED_FORMS)
    .default(DEFAULT_FORM);
}

export function blockFlag(): Option {
  return numberFlag("--block <n>", {
    words:
      "put channels into blocks of n that matter for the same prompts, so that masks of blocks are run within one model (--form)",
    isInteger: true,
    min: 2,
  });
}

/** `--form` of what computes results: the last bits of logits differ between forms, so that a clock must not choose. */
export function fixedFormFlag(): Option {
  return new Option("--form <form>", `${FORM_WORDS}, and takes masks of whole blocks alone`)
    .choices(FORMS)
    .default("gathered");
}

/** `--keep` with `--max-loss`, and `--t-ffn`, of which one is given at most. */
export function budgetFlags(): Option[] {
  const keep = numberFlag("--keep <share>", KEEP, parseShare).conflicts("tFfn");
  const share = keep.parseArg!;
  keep.argParser((text) => (text === "auto" ? text : share(text, undefined)));
  const { fallback, ...maxLoss } = MAX_LOSS;
  return [
    keep,
    numberFlag("--max-loss <nats>", { ...maxLoss, otherwise: String(fallback) }),
    numberFlag("--t-ffn <n>", T_FFN),
  ];
}

/** Of an option that may be given more than once. */
export function appended(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}
