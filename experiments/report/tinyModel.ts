/**
 * The tiny model, question by question: shares of right answers with intervals over the questions (Wilson's for a task, from the spread within
 * tasks for a mean of tasks), and its masks compared on the same questions (McNemar's exact test). One model of one seed: no interval here says
 * anything of another training run.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { FileError } from "../../src/errors.ts";
import { readJsonLines } from "../../src/text/jsonl.ts";
import type { Experiments, TinyModel } from "./experiments.ts";
import { escapeMarkdown, markdownTable, points, pointsRange, pValue, range } from "./markdown.ts";
import { itemsInterval, mcNemarTest, mean, wilson } from "./statistics.ts";

/** What was evaluated: the model's own masks first, then the others. */
export const MASKS = ["input", "task", "foreign", "generic", "dense"] as const;
const MASK_NAMES: Record<(typeof MASKS)[number], string> = {
  input: "from the whole prompt",
  task: "from the instruction without its input",
  foreign: "of another task's prompt",
  generic: "one for all",
  dense: "none: all channels",
};
/** Rows of a task below which a share is written as "3 of 4". */
const MIN_COUNT = 20;
/** Right or wrong makes no sense of it. */
export const NOT_JUDGED = "story";

const answersSchema = z.strictObject({
  /** Task file, without its folder and extension, and its SHA-256. */
  file: z.string(),
  questions: z.string(),
  mask: z.enum(MASKS),
  task: z.string(),
  /** One digit per row of the task in the file, in its order: 1 if the answer was right. */
  isCorrect: z.string().regex(/^[01]+$/),
  /** What was said, under the model's own masks. */
  answers: z.array(z.string()).optional(),
});
export type Answers = z.infer<typeof answersSchema>;

/** @throws {FileError} if a line is no result, or its task file is not the one that stands there now */
export async function readAnswers(path: string, { tests }: TinyModel, experiments: string): Promise<Answers[]> {
  const files = new Map(
    tests.flatMap(({ files }) =>
      files.map((file) => {
        const bytes = readFileSync(resolve(dirname(experiments), file));
        return [basename(file, ".jsonl"), createHash("sha256").update(bytes).digest("hex")] as const;
      }),
    ),
  );
  const all: Answers[] = [];
  for await (const { line, row } of readJsonLines(path, answersSchema)) {
    if (files.get(row.file) !== row.questions)
      throw new FileError(
        path,
        `line ${line}: wanted answers to ${row.file}.jsonl as it stands, got others. Evaluate again.`,
      );
    all.push(row);
  }
  return all;
}

/** Per task, right (1) or wrong (0) by row. */
type Marks = Map<string, number[]>;

function marksOf(all: readonly Answers[], { files }: TinyModel["tests"][number], mask: string): Marks {
  const names = files.map((file) => basename(file, ".jsonl"));
  const own = all.filter((answers) => answers.mask === mask && names.includes(answers.file));
  return new Map(own.map(({ task, isCorrect }) => [task, [...isCorrect].map(Number)]));
}

const only = (marks: Marks, has: (task: string) => boolean): number[][] =>
  [...marks].flatMap(([task, items]) => (has(task) ? [items] : []));

/** "85.9 (84–88)" of a mean over tasks; "–" of none. @param tasks of each, right (1) or wrong (0) by question */
export function meanCell(tasks: readonly (readonly number[])[]): string {
  if (tasks.length === 0) return "–";
  const [low, high] = itemsInterval(tasks);
  return `${(100 * mean(tasks.map(mean))).toFixed(1)} (${range([Math.max(0, low), Math.min(1, high)])})`;
}

/** "85.9 (84–88)", or "3 of 4" where there are few questions. */
export function taskCell(items: readonly number[] | undefined): string {
  if (!items) return "–";
  const right = items.reduce((sum, item) => sum + item, 0);
  if (items.length < MIN_COUNT) return `${right} of ${items.length}`;
  return `${((100 * right) / items.length).toFixed(1)} (${range(wilson(right, items.length))})`;
}

/** The tables about the tiny model, by name. */
export function tinyTables(
  { tests, further }: TinyModel,
  { facts }: Pick<Experiments, "facts">,
  all: readonly Answers[],
): Map<string, string[]> {
  const own = tests.map((test) => marksOf(all, test, MASKS[0]));
  const names = [...new Set(own.flatMap((marks) => [...marks.keys()]))];
  const isSuite = (task: string) => !further.includes(task);
  const suite = names.filter(isSuite).sort();
  const isFact = (task: string) => facts.includes(task);
  const groups = [
    { name: "rules", has: (task: string) => isSuite(task) && !isFact(task) },
    { name: "facts", has: isFact },
  ];
  const groupName = ({ name, has }: (typeof groups)[number]) => `${name} (${suite.filter(has).length})`;
  const titles = tests.map(({ name }) => escapeMarkdown(name));
  const meanRow = (name: string, has: (task: string) => boolean) => [
    `**${name}**`,
    ...own.map((marks) => {
      const cell = meanCell(only(marks, has));
      return cell === "–" ? cell : `**${cell}**`;
    }),
  ];
  const taskRow = (task: string) => [escapeMarkdown(task), ...own.map((marks) => taskCell(marks.get(task)))];

  const scores = markdownTable(
    ["task", ...titles],
    [
      ...groups.flatMap((group) => [
        meanRow(`${groupName(group)}`, group.has),
        ...suite.filter(group.has).map(taskRow),
      ]),
      meanRow(`all ${suite.length}`, isSuite),
      ...further.map(taskRow),
    ],
  );
  const summary = markdownTable(
    ["asked", ...groups.map(groupName), "shows"],
    tests.map(({ name, shows }, i) => [
      escapeMarkdown(name),
      ...groups.map(({ has }) => meanCell(only(own[i]!, has))),
      shows,
    ]),
    ["shows"],
  );
  const masks = markdownTable(
    ["mask", ...titles],
    MASKS.map((mask) => [MASK_NAMES[mask], ...tests.map((test) => meanCell(only(marksOf(all, test, mask), isSuite)))]),
  );
  const paired = markdownTable(
    ["from the whole prompt, minus", "test", "points", "only it right", "only the other right", "p"],
    MASKS.slice(1).flatMap((mask) =>
      tests.map((test, i) => [
        i === 0 ? MASK_NAMES[mask] : "",
        titles[i]!,
        ...pairedCells(own[i]!, marksOf(all, test, mask), isSuite),
      ]),
    ),
    ["test"],
  );
  return new Map([
    ["tiny-scores", scores],
    ["tiny-summary", summary],
    ["tiny-masks", masks],
    ["tiny-paired", paired],
  ]);
}

function pairedCells(first: Marks, second: Marks, has: (task: string) => boolean): string[] {
  const pairs = [...first].flatMap(([task, items]) => (has(task) ? [[items, second.get(task)!] as const] : []));
  const differences = pairs.map(([a, b]) => a.map((item, i) => item - b[i]!));
  const count = (sign: number) => differences.flat().filter((difference) => difference === sign).length;
  const difference = mean(differences.map(mean));
  return [
    `${points(difference)} (${pointsRange(itemsInterval(differences))})`,
    String(count(1)),
    String(count(-1)),
    pValue(mcNemarTest(count(1), count(-1))),
  ];
}

export const tinyResults = (experiments: string, { results }: TinyModel): string => join(dirname(experiments), results);
