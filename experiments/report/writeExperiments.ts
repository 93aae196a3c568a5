/** Tables and figures of experiments, made again from committed files. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Results, readExperiments, sourcesOf } from "./experiments.ts";
import { drawFigure } from "./figures.ts";
import { tablesMarkdown } from "./tables.ts";

/** Where the results of experiments are. */
export const resultsPath = (experiments: string): string => join(dirname(experiments), "results", "results.jsonl");

/**
 * Writes `results/tables.md` beside `experiments.json`, and a figure per entry. What has no results yet is shown as "not run".
 *
 * @param experiments path of `experiments.json`; `results/results.jsonl` beside it
 * @param figures folder for `NAME.svg`, made if absent
 * @returns paths written, and the runs and masks that are shown without a result
 * @throws {FileError} if a file is missing or not what it should be
 * @throws {OptionError} if a result lacks a task that the suite score needs
 */
export async function writeExperiments(
  experiments: string,
  figures: string,
): Promise<{ written: string[]; notRun: string[] }> {
  const wanted = readExperiments(experiments);
  const results = await Results.read(resultsPath(experiments));
  const files = new Map([
    [join(dirname(resultsPath(experiments)), "tables.md"), tablesMarkdown(wanted, results)],
    ...wanted.figures.map(
      (figure) => [join(figures, `${figure.name}.svg`), drawFigure(figure, wanted, results)] as const,
    ),
  ]);
  if (!existsSync(figures)) mkdirSync(figures, { recursive: true });
  for (const [path, content] of files) writeFileSync(path, content);
  const notRun = sourcesOf(wanted).filter((source) => results.seedsOf(source).length === 0);
  return { written: [...files.keys()], notRun: notRun.map(({ run, mask }) => `${run}, mask ${mask}`) };
}
