/**
 * Tables and figures of the evidence, and the tables of the model's card, from committed results:
 *
 *     npx tsx experiments/smollm2/report.ts
 *
 * `experiments.json` says what the files in `results` are. Written are `results/tables.md`, `docs/figures/smollm2-*.svg` and what documents have between marks.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { withTables } from "../report/documents.ts";
import { drawEvidence } from "./figures.ts";
import { readEvidence } from "./results.ts";
import { cardTables, tablesMarkdown } from "./tables.ts";

/**
 * What is written, by path. Nothing is written here.
 *
 * @throws {FileError} if a file is not what it should be
 */
export function renderEvidence(folder: string, figures: string): Map<string, string> {
  const evidence = readEvidence(folder);
  const tables = cardTables(evidence);
  return new Map([
    [join(folder, "results/tables.md"), tablesMarkdown(evidence)],
    ...[...drawEvidence(evidence.best)].map(([name, svg]) => [join(figures, `${name}.svg`), svg] as const),
    ...evidence.documents.map((path) => [path, withTables(path, readFileSync(path, "utf8"), tables)] as const),
  ]);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const here = import.meta.dirname;
  for (const [path, content] of renderEvidence(here, join(here, "../../docs/figures"))) {
    writeFileSync(path, content);
    console.error(path);
  }
}
