/** `ifprune measure`, which `import` and `pull` do last: what masks that need no training cost a model. */
import { InstructionModel } from "../answer/instructionModel.ts";
import { measureQuality } from "../answer/measure.ts";
import { Bundle } from "../bundle/bundle.ts";
import { IfpruneError, InputError, OptionError } from "../errors.ts";
import { readText } from "../json.ts";
import { addQuality, type Quality } from "../manifest.ts";
import { shellWord } from "../words.ts";
import { interruption } from "./interruption.ts";
import { MUCH_LOST, percent } from "./options.ts";
import { Progress } from "./progress.ts";

interface Options {
  text?: string;
  threads?: number;
}

/** `ifprune measure` */
export async function measureAction(model: string, options: Options): Promise<void> {
  using bundle = new Bundle(model); // a name stands for a folder
  if (bundle.predictor !== undefined)
    throw new OptionError(
      "measure: wanted a model whose masks were not trained, got one that has a predictor. `ifprune eval` scores what that chooses.",
    );
  await measureBundle(bundle.path, options, { isAll: true });
}

/**
 * Measures a bundle, writes it down there, and says it. What keeps it from that, Ctrl-C too, leaves the bundle as it was.
 *
 * @param how `isAll`: nothing else was asked for, so that what keeps it from that is thrown
 */
export async function measureBundle(
  path: string,
  { text: textPath, threads }: Options = {},
  { isAll = false } = {},
): Promise<void> {
  const signal = interruption(`stopped. Later: ifprune measure ${shellWord(path)}`);
  const text = textPath === undefined ? undefined : readText(textPath);
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number) => {
    progress ??= new Progress({ label: "measure", total });
    progress.update(done);
  };
  if (!isAll)
    process.stderr.write(`Measuring what masks cost it. ${path} can be used already; Ctrl-C leaves that out.\n`);
  try {
    using model = new InstructionModel(path);
    const quality = await measureQuality(model, { text, threads, signal, onProgress }).finally(() =>
      progress?.finish(),
    );
    if (quality) addQuality(path, quality);
    if (!quality) throw new InputError("measure: the model answers nothing, or has no room for the prompts.");
    process.stderr.write(table(quality, model.bundle.ffnWidth));
  } catch (error) {
    if (isAll || !(error instanceof IfpruneError || signal.aborted)) throw error;
    process.stderr.write(`Not measured what masks cost: ${(error as Error).message}\n`);
  }
}

/** A row for each share, a column for each source. */
function table({ prompts, tokens, rows }: Quality, dFfn: number): string {
  const sources = [...new Set(rows.map(({ source }) => source))];
  const cell = ({ loss, agreement }: Quality["rows"][number]) =>
    `${loss.toFixed(2)} nats, ${percent(agreement)}`.padStart(20);
  const lines = [...new Set(rows.map(({ tFfn }) => tFfn))].map((tFfn) => {
    const cells = sources.map((source) => rows.find((row) => row.source === source && row.tFfn === tFfn)!);
    return percent(tFfn / dFfn).padEnd(6) + cells.map(cell).join("");
  });
  return [
    `What masks without training cost, measured on ${prompts} prompts and ${tokens} tokens of the model's own answers: nats that a token loses, and`,
    `tokens that stay the likeliest. Above ${MUCH_LOST} nats expect wrong answers.`,
    `keep  ${sources.map((source) => source.padStart(20)).join("")}`,
    ...lines,
    ...(sources.includes("griffin")
      ? []
      : ["griffin, which makes the masks of --keep, is left out: it wants ONNX Runtime (`ifprune doctor`)."]),
    "",
  ].join("\n");
}
