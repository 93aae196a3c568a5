/** Results of `ifprune eval` side by side: one table per data file, one column per model and mask. */
import { basename } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { readJson } from "../json.ts";
import { escapeHtml } from "./chart.ts";

const share = z.number();
const source = { model: z.string(), data: z.string(), mask: z.string() };
const overlap = z.object({
  chance: share,
  overlapWithin: z.array(share.nullable()),
  overlapAcross: z.array(share.nullable()),
});

const evaluationSchema = z.union([
  z.object({
    ...source,
    tasks: z.array(z.object({ task: z.string(), count: z.number(), accuracy: share })).min(1),
    mean: z.object({ count: z.number(), accuracy: share }),
    masks: overlap.optional(),
  }),
  z.object({ ...source, perplexity: z.number(), tokens: z.number(), tokenAccuracy: share }),
]);

export type Evaluation = z.infer<typeof evaluationSchema>;
type TaskEvaluation = Extract<Evaluation, { tasks: unknown }>;
type TextEvaluation = Exclude<Evaluation, TaskEvaluation>;

/** @throws {FileError} if the file is missing or not what `ifprune eval` writes */
export function readEvaluation(path: string): Evaluation {
  const parsed = evaluationSchema.safeParse(readJson(path));
  if (!parsed.success)
    throw new FileError(path, "wanted results of `ifprune eval --out`, got other JSON. Is it the right file?");
  return parsed.data;
}

export function evaluationSections(evaluations: readonly Evaluation[]): string[] {
  return [...new Set(evaluations.map(({ data }) => data))].flatMap((data) => {
    const onData = evaluations.filter((evaluation) => evaluation.data === data);
    const onTasks = onData.filter((evaluation): evaluation is TaskEvaluation => "tasks" in evaluation);
    const onText = onData.filter((evaluation): evaluation is TextEvaluation => "perplexity" in evaluation);
    return [
      ...(onTasks.length > 0 ? [taskSection(data, onTasks)] : []),
      ...(onText.length > 0 ? [textSection(data, onText)] : []),
    ];
  });
}

function taskSection(data: string, evaluations: readonly TaskEvaluation[]): string {
  const tasks = [...new Set(evaluations.flatMap((evaluation) => evaluation.tasks.map(({ task }) => task)))].sort();
  const counts = evaluations.map(({ mean }) => mean.count);
  const isOneCount = new Set(counts).size === 1;
  const rows = tasks.map(
    (name): Row => [
      name,
      evaluations.map((evaluation) => percent(evaluation.tasks.find(({ task }) => task === name)?.accuracy)),
    ],
  );
  const footer: Row[] = [["mean over tasks", evaluations.map(({ mean }) => percent(mean.accuracy))]];
  if (!isOneCount) footer.push(["questions", counts.map(String)]);
  if (evaluations.some(({ masks }) => masks)) {
    const overlaps = (f: (masks: z.infer<typeof overlap>) => number) =>
      evaluations.map(({ masks }) => percent(masks && f(masks)));
    footer.push(
      ["overlap of masks within a task", overlaps(({ overlapWithin }) => mean(overlapWithin))],
      ["overlap of masks across tasks", overlaps(({ overlapAcross }) => mean(overlapAcross))],
      ["overlap by chance", overlaps(({ chance }) => chance)],
    );
  }
  return section(
    data,
    `Correct answers in percent, greedy decoding${isOneCount ? `, ${counts[0]} questions` : ""}.`,
    evaluations.map(nameOf),
    rows,
    footer,
  );
}

function textSection(data: string, evaluations: readonly TextEvaluation[]): string {
  const rows = evaluations.map(
    (e): Row => [nameOf(e), [e.perplexity.toFixed(2), percent(e.tokenAccuracy), String(e.tokens)]],
  );
  return section(data, "Perplexity per token.", ["perplexity", "right tokens, %", "tokens"], rows);
}

type Row = readonly [name: string, values: readonly string[]];

function section(
  title: string,
  note: string,
  columns: readonly string[],
  rows: readonly Row[],
  footer: readonly Row[] = [],
): string {
  const head = columns.map((column) => `<th scope="col">${escapeHtml(column)}</th>`).join("");
  const lines = (list: readonly Row[]) =>
    list
      .map(
        ([name, values]) =>
          `<tr><th scope="row">${escapeHtml(name)}</th>${values.map((value) => `<td>${value}</td>`).join("")}</tr>`,
      )
      .join("");
  return `<section><h2>${escapeHtml(basename(title))}</h2><p class="note">${escapeHtml(note)}</p>
<div class="scroll"><table><thead><tr><td></td>${head}</tr></thead><tbody>${lines(rows)}</tbody><tfoot>${lines(footer)}</tfoot></table></div></section>`;
}

function nameOf({ model, mask }: Evaluation): string {
  return `${basename(model)} · ${mask
    .split(", ")
    .map((part) => basename(part))
    .join(", ")}`;
}

function percent(value: number | undefined): string {
  return value === undefined || Number.isNaN(value) ? "–" : (100 * value).toFixed(1);
}

export function mean(values: readonly (number | null)[]): number {
  const known = values.filter((value) => value !== null);
  return known.reduce((sum, value) => sum + value, 0) / known.length;
}
