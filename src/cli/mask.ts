import { Command } from "commander";
import { InstructionModel } from "../answer/instructionModel.ts";
import { ENGINE_OPTIONS } from "../engine/engineOptions.ts";
import { maskToJson } from "../mask/maskFile.ts";
import { overlap } from "../mask/overlap.ts";
import { numberFlag } from "./numberFlag.ts";
import {
  addMaskFlags,
  askedShare,
  DEFAULT_MODEL,
  integer,
  interruption,
  type MaskFlags,
  MODEL_HELP,
  printJson,
  qualityWords,
  scoresLine,
  withMaskFlags,
} from "./options.ts";

interface Options extends MaskFlags {
  model?: string;
  seed?: number;
  threads?: number;
  json?: boolean;
}

export function maskCommand(): Command {
  const command = new Command("mask")
    .description("Show the mask that an instruction gets; with two instructions, how much the two have in common.")
    .argument("<instruction>")
    .argument("[other]", "a second instruction to compare with")
    .option("--model <folder>", MODEL_HELP)
    .option("--seed <n>", "of --source random", integer(0))
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .option("--json", "print the mask (which `run --mask` reads), or the overlap, as JSON")
    .action(showMask);
  return addMaskFlags(command);
}

async function showMask(instruction: string, other: string | undefined, options: Options): Promise<void> {
  using model = new InstructionModel(options.model ?? DEFAULT_MODEL);
  const { seed, threads } = options;
  const signal = interruption();
  if ((options.source ?? model.defaultSource) === "predictor") await model.engines.start(); // not part of the time
  const start = performance.now();
  const { mask, ...chosen } = await withMaskFlags(options, (how) =>
    model.mask(instruction, { ...how, seed, threads, signal }),
  );
  const ms = performance.now() - start;
  const { tFfn, dFfn, layers, lambda } = mask;
  const chance = tFfn / dFfn;
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  if (other !== undefined) {
    const second = await withMaskFlags(options, (how) => model.mask(other, { ...how, seed, threads, signal }));
    const shared = overlap(mask, second.mask);
    if (options.json) return printJson({ tFfn, dFfn, chance, overlap: shared });
    process.stdout.write(`Kept channels in common, per layer (two random masks: ${percent(chance)})\n`);
    for (const [layer, share] of shared.entries()) line(layer, `${bar(share)} ${percent(share)}`);
    return;
  }
  if (options.json) return printJson(maskToJson(mask));
  process.stdout.write(
    `${tFfn} of ${dFfn} channels kept in each layer (${percent(chance)}${askedShare(mask, options)}${qualityWords(chosen.quality)}); one column is ${Math.ceil(dFfn / COLUMNS)} channels · ${scoresLine(chosen, ms)}\n`,
  );
  for (const [layer, kept] of layers.entries()) {
    const mean = lambda ? ` mean λ ${(lambda[layer]!.reduce((a, b) => a + b, 0) / tFfn).toFixed(2)}` : "";
    line(layer, strip(kept, dFfn) + mean);
  }
}

function line(layer: number, text: string): void {
  process.stdout.write(`layer ${String(layer).padStart(2)}  ${text}\n`);
}

const COLUMNS = 64;
const SHADES = " ░▒▓█";

/** Density of kept channels over the width of the layer. */
function strip(kept: Int32Array, dFfn: number): string {
  const perColumn = Math.ceil(dFfn / COLUMNS);
  const counts = new Array<number>(Math.ceil(dFfn / perColumn)).fill(0);
  for (const channel of kept) counts[Math.floor(channel / perColumn)]!++;
  return counts.map((count) => SHADES[Math.ceil((count / perColumn) * (SHADES.length - 1))]).join("");
}

function bar(share: number): string {
  return "█".repeat(Math.round(share * 40)).padEnd(40, "·");
}
