import { Command } from "commander";
import { maskToJson } from "../mask/maskFile.ts";
import { overlap } from "../mask/overlap.ts";
import { InstructionModel } from "../serve/model.ts";
import { DEFAULT_MODEL, integer, MODEL_HELP, printJson } from "./options.ts";

export function maskCommand(): Command {
  return new Command("mask")
    .description("Show the mask that an instruction gets; with two instructions, how much the two have in common.")
    .argument("<instruction>")
    .argument("[other]", "a second instruction to compare with")
    .option("--model <folder>", MODEL_HELP)
    .option("--threads <n>", "worker threads", integer(1))
    .option("--json", "print the mask (which `run --mask` reads), or the overlap, as JSON")
    .action(showMask);
}

async function showMask(
  instruction: string,
  other: string | undefined,
  options: { model?: string; threads?: number; json?: boolean },
) {
  using model = new InstructionModel(options.model ?? DEFAULT_MODEL);
  const [mask, second] = await model.masks(other === undefined ? [instruction] : [instruction, other], options);
  if (!mask) throw new Error("internal: no mask for the instruction");
  const { tFfn, dFfn, layers, lambda } = mask;
  const chance = tFfn / dFfn;
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  if (second) {
    const shared = overlap(mask, second);
    if (options.json) return printJson({ tFfn, dFfn, chance, overlap: shared });
    process.stdout.write(`Kept channels in common, per layer (two random masks: ${percent(chance)})\n`);
    for (const [layer, share] of shared.entries()) line(layer, `${bar(share)} ${percent(share)}`);
    return;
  }
  if (options.json) return printJson(maskToJson(mask));
  process.stdout.write(
    `${tFfn} of ${dFfn} channels kept in each layer (${percent(chance)}); one column is ${Math.ceil(dFfn / COLUMNS)} channels\n`,
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
