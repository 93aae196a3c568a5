/** What others open: exports of the smaller model in its folder, checked, with the card, the report and all numbers. */
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { InstructionModel } from "../answer/instructionModel.ts";
import { openSubnetwork } from "../bundle/subnetworkCache.ts";
import { exportSubnetwork } from "../export/export.ts";
import { ggufFileName } from "../export/exportManifest.ts";
import { verifyExport } from "../export/verify.ts";
import { makeFile, makeFolders } from "../files.ts";
import { blockLength } from "../formats/quantize.ts";
import { fullMask } from "../mask/mask.ts";
import type { LabelledSequence } from "../net/evaluator.ts";
import { type ReportCharts, writeReport } from "../report/report.ts";
import { GOES_ON, type JobFolder } from "./jobFolder.ts";
import { compareFiles } from "./quantized.ts";
import { lossWords, type Specialization, type SpecializeEvent } from "./specialization.ts";
import { taskCard } from "./taskCard.ts";
import { told } from "./told.ts";

const QUANTIZED = ["Q8_0", "Q4_0"] as const;

/**
 * @param small its folder gets all this
 * @param about all but `quantized`
 * @param examples held out
 * @returns the whole of it
 */
export async function* deliver(
  small: InstructionModel,
  about: Omit<Specialization, "quantized">,
  {
    job,
    examples,
    threads,
    force,
    signal,
  }: {
    job: JobFolder;
    examples: readonly LabelledSequence[];
    threads: number | undefined;
    force: boolean;
    signal: AbortSignal | undefined;
  },
): AsyncGenerator<SpecializeEvent, Specialization> {
  const { bundle, engines } = small;
  const at = (...names: string[]) => join(bundle.path, ...names);
  const mask = fullMask(bundle.numLayers, bundle.ffnWidth);
  const types = QUANTIZED.filter(() => bundle.width % blockLength === 0 && bundle.ffnWidth % blockLength === 0);
  return yield* told("export", signal, async ({ signal, onProgress }) => {
    const how = (name: string) => ({
      task: about.options.task as string | undefined,
      signal,
      onProgress: (done: number, total: number) => onProgress(done, total, `export ${name}`),
    });
    makeFolders(at("gguf"));
    for (const type of types) {
      const folder = at("gguf", type);
      if (!existsSync(folder)) await exportSubnetwork(bundle, mask, folder, { ...how(type), formats: ["gguf"], type });
      await verifyExport(folder, { signal });
    }
    const { path: reference } = await openSubnetwork(bundle, mask, { root: job.at("cache"), signal });
    const paths = types.map((type) => at("gguf", type, ggufFileName(type)));
    const compared = await compareFiles(
      engines,
      [reference, ...paths],
      examples,
      { threads, force },
      { signal, onProgress: (done, total) => onProgress(done, total, "compare types") },
    );
    const result: Specialization = { ...about, quantized: types.map((type, i) => ({ type, ...compared[i]! })) };
    const card = taskCard(result);
    rmSync(at("huggingface"), { recursive: true, force: true }); // of a call that was stopped: its card has older numbers
    await exportSubnetwork(bundle, mask, at("huggingface"), { ...how("F16"), type: "F16", card });
    await verifyExport(at("huggingface"), { signal });
    const write = (name: string, text: string) =>
      makeFile(at(name), (partial) => writeFileSync(partial, text), GOES_ON);
    write("README.md", card);
    write("specialize.json", `${JSON.stringify(result, null, 2)}\n`);
    const runs = [...(about.tuned ? ["run-tuned"] : []), "run-healed"];
    writeReport(
      runs.map((name) => job.at(name)),
      at("report.html"),
      reportCharts(result),
    );
    return result;
  });
}

/** What no run's log has: the distance before any step, and the shares that were tried. */
function reportCharts({ auto, model, options, training }: Specialization): ReportCharts {
  const steps = training.evaluations.map(({ step, kl }) => [step, kl] as const);
  const healing = {
    title: lossWords("healed").title,
    xLabel: "step",
    series: [{ name: "KL", points: steps }],
    fromZero: true,
  };
  const tried = auto?.curve.map(({ keep, kl }) => [Math.round(100 * keep), kl] as const).toReversed() ?? [];
  const shares = auto && {
    title: "The same after a short run",
    xLabel: "% of the FFN",
    series: [
      { name: "short runs", points: tried },
      { name: "bound", points: tried.map(([keep]) => [keep, auto.maxLoss] as const), dashed: true },
    ],
    fromZero: true,
  };
  return {
    title: `${model.name}${options.task === undefined ? "" : `: ${options.task}`}`,
    charts: shares ? [healing, shares] : [healing],
  };
}
