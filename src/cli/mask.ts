import { InstructionModel } from "../answer/instructionModel.ts";
import { DEFAULT_MODEL } from "../bundle/pulledModels.ts";
import { maskToJson } from "../mask/maskFile.ts";
import { overlap } from "../mask/overlap.ts";
import { interruption } from "./interruption.ts";
import { askedShare, type MaskFlags, printJson, qualityWords, readMaskFlags, STAGES, scoresLine } from "./options.ts";
import { Waiting } from "./progress.ts";

interface Options extends MaskFlags {
  model?: string;
  seed?: number;
  threads?: number;
  json?: boolean;
}

/** `ifprune mask` */
export async function maskAction(instruction: string, other: string | undefined, options: Options): Promise<void> {
  using waiting = new Waiting("loading", { isQuiet: options.json, since: 0 });
  using model = new InstructionModel(options.model ?? DEFAULT_MODEL);
  const { seed, threads } = options;
  const signal = interruption();
  if ((options.source ?? model.defaultSource) === "predictor") await model.engines.start(); // not part of the time
  const how = { ...(await readMaskFlags(options, waiting)), seed, threads, signal };
  waiting.say(STAGES.predict);
  const start = performance.now();
  const { mask, ...chosen } = await model.mask(instruction, how);
  const ms = performance.now() - start;
  const second = other === undefined ? undefined : await model.mask(other, how);
  waiting.end();
  const { tFfn, dFfn, layers, lambda } = mask;
  const chance = tFfn / dFfn;
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  if (second) {
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
