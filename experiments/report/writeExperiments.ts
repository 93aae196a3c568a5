/** Tables and figures of experiments, made again from committed files. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { claimsMarkdown } from "./claims.ts";
import { withTables } from "./documents.ts";
import { type Experiments, Results, readExperiments, sourcesOf } from "./experiments.ts";
import { drawFigure } from "./figures.ts";
import { tablesMarkdown } from "./tables.ts";
import { readAnswers, tinyResults, tinyTables } from "./tinyModel.ts";

/** Where the results of experiments are. */
export const resultsPath = (experiments: string): string => join(dirname(experiments), "results", "results.jsonl");

/** What {@link writeExperiments} writes: content by path. Nothing is written here. */
export async function renderExperiments(experiments: string, figures: string): Promise<Map<string, string>> {
  const wanted = readExperiments(experiments);
  const results = await Results.read(resultsPath(experiments));
  const tables = await namedTables(wanted, results, experiments);
  return new Map([
    [join(dirname(resultsPath(experiments)), "tables.md"), tablesMarkdown(wanted, results)],
    ...wanted.figures.map(
      (figure) => [join(figures, `${figure.name}.svg`), drawFigure(figure, wanted, results)] as const,
    ),
    ...wanted.documents.map((document) => {
      const path = resolve(dirname(experiments), document);
      return [path, withTables(path, readFileSync(path, "utf8"), tables)] as const;
    }),
  ]);
}

/** Tables that documents may show: of the tiny model, and one of each claim, `claims-1` and so on. */
async function namedTables(wanted: Experiments, results: Results, experiments: string): Promise<Map<string, string[]>> {
  const { tinyModel, claims } = wanted;
  const answers = tinyModel && (await readAnswers(tinyResults(experiments, tinyModel), tinyModel, experiments));
  return new Map([
    ...(answers ? tinyTables(tinyModel, wanted, answers) : []),
    ...claims.map((claim, i) => [`claims-${i + 1}`, claimsMarkdown(claim, wanted, results)] as const),
  ]);
}

/**
 * Writes `results/tables.md` beside `experiments.json`, a figure per entry, and the marked tables of its documents. What has no results yet is
 * shown as "not run".
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
  const files = await renderExperiments(experiments, figures);
  if (!existsSync(figures)) mkdirSync(figures, { recursive: true });
  for (const [path, content] of files) writeFileSync(path, content);
  const results = await Results.read(resultsPath(experiments));
  const notRun = sourcesOf(readExperiments(experiments)).filter((source) => results.seedsOf(source).length === 0);
  return { written: [...files.keys()], notRun: notRun.map(({ run, mask }) => `${run}, mask ${mask}`) };
}
