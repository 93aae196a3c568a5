/**
 * Makes experiments/suite/data from public sources and our own wordings (README.md beside this file names them). What comes out is committed; this
 * program shows how it was made and makes it again, byte for byte:
 *
 *     npx tsx experiments/suite/prepare.ts SOURCE_DIR
 *
 * SOURCE_DIR holds one folder per source: `instruction-induction/{train.jsonl.gz, instructions.json}` (`data/raw/induce/*.json`
 * joined, each row with a `task` field; `data/annotations/*.json` joined by task), `gutenberg/*.txt.gz`,
 * `python-code/*.jsonl.gz` {text}, `gsm8k/train.jsonl.gz` {question, answer}, `text2sql/wikisql.jsonl.gz` {split, question, sql}.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gunzipSync, gzipSync } from "node:zlib";
import type { EvalRow, ScorerName } from "../../src/text/scorers.ts";
import { EXTRA_TASKS, prepareExtras, withoutAliases } from "./extras.ts";
import {
  checkWordings,
  hash,
  type Part,
  reserve,
  sameInput,
  sameWording,
  splitOf,
  type TaskRow,
  tidy,
  type Wordings,
} from "./split.ts";

/** A row of the source. */
interface Source {
  task: string;
  input: string;
  output: string;
  words?: string[];
  category_items?: string[];
  other_rhymes?: string[];
  possible_translations?: string[];
}

interface Task {
  scorer: ScorerName;
  /** Answers follow from a rule, so that unseen inputs can be asked; otherwise they are facts to remember. */
  followsRule: boolean;
  /** Accepted answers in the source besides `output`, and for lists the form to train on. */
  answers?: (row: Source) => readonly string[];
}

const translation: Task = {
  scorer: "any",
  followsRule: false,
  answers: (row) => [row.output, ...row.possible_translations!],
};
const rule: Task = { scorer: "any", followsRule: true };
const fact: Task = { scorer: "any", followsRule: false };

/** The tasks with enough rows and an objective answer; README.md says why the others are left out. */
export const TASKS: Record<string, Task> = {
  active_to_passive: rule,
  antonyms: fact,
  diff: rule,
  first_word_letter: rule,
  larger_animal: rule,
  letters_list: rule,
  negation: rule,
  num_to_verbal: rule,
  orthography_starts_with: {
    scorer: "word-set",
    followsRule: true,
    answers: (row) => [row.output, row.words!.join(" ")], // in lower case and as they stand in the sentence
  },
  rhymes: {
    scorer: "any",
    followsRule: false,
    answers: (row) => [row.output, ...row.other_rhymes!.filter((rhyme) => rhyme !== row.input)],
  },
  second_word_letter: rule,
  sentiment: rule,
  singular_to_plural: rule,
  sum: rule,
  synonyms: fact,
  taxonomy_animal: {
    scorer: "comma-set",
    followsRule: true,
    // the source lists the animals in random order, which cannot be learned: train on the order of the input
    answers: (row) => [row.words!.filter((word) => row.category_items!.includes(word)).join(", ")],
  },
  "translation_en-de": translation,
  "translation_en-es": translation,
  "translation_en-fr": translation,
};

/** Rows of a task in each evaluation file, at most. */
const MAX_EVAL_ROWS = 60;
/** Rows of a task in validation-wordings.jsonl, at most: it is asked often. */
const MAX_WORDING_VALIDATION_ROWS = 40;
/** Inline wordings of a task, the first of its list, that are never reserved. */
const NUM_PLAIN_WORDINGS = 4;
/** Inline wordings of a task, the first of its list, among which the reserved ones are chosen: what is added later is trained on and changes no test. */
const NUM_RESERVABLE_WORDINGS = 20;
/** Rows of a task in validation-suite.jsonl and in the inline ones, at most: they are asked in the middle of training. */
const MAX_SUITE_ROWS = 20;
/** Wordings of ours that are kept for validation, per task. */
const NUM_VALIDATION_WORDINGS = 4;
/** Wordings of a further domain, or with the input in them, that are kept for the test and for validation. */
const EXTRA_RESERVED = [3, 2] as const;

/** Rows of the same question joined; its first answer in the source stays the first. */
function joinAnswers(source: readonly Source[]): TaskRow[] {
  const rows = new Map<string, { task: string; input: string; answers: Set<string> }>();
  for (const row of source) {
    const task = TASKS[row.task];
    if (!task) continue;
    const input = tidy(row.input);
    const key = `${row.task}\n${input}`;
    const joined = rows.get(key) ?? { task: row.task, input, answers: new Set() };
    for (const answer of (task.answers?.(row) ?? [row.output]).map(tidy)) {
      if (answer !== "") joined.answers.add(answer); // a few translations are empty
    }
    rows.set(key, joined);
  }
  return [...rows.values()].map(({ task, input, answers }) => ({ task, input, answers: [...answers] }));
}

/**
 * Of the human `instructions` a quarter is held out, at least one, with all that say the same; which ones is decided by hash. Of
 * `ours` a few are kept for validation, and the others join the training.
 */
function splitWordings(task: string, instructions: readonly string[], ours: readonly string[]): Wordings {
  const wordings = [...new Set(instructions.map(tidy))];
  const numGroups = new Set(wordings.map(sameWording)).size;
  const [heldOut, train] = reserve("wording", task, wordings, [Math.max(1, Math.floor(numGroups / 4))]);
  const [validation, more] = reserve("wording of ours", task, ours, [NUM_VALIDATION_WORDINGS]);
  return { train: [...train!, ...more!], validation: validation!, heldOut: heldOut! };
}

/** At most `maxRows` of each task, chosen by hash, each asked in one of its task's `wordings`. */
export function evalRows(
  name: string,
  rows: readonly TaskRow[],
  wordings: (task: string) => readonly string[],
  { tasks = Object.keys(TASKS), maxRows = MAX_EVAL_ROWS }: { tasks?: readonly string[]; maxRows?: number } = {},
): EvalRow[] {
  return tasks.flatMap((task) =>
    rows
      .filter((row) => row.task === task)
      .sort((a, b) => hash(name, task, a.input) - hash(name, task, b.input))
      .slice(0, maxRows)
      .map(({ input, answers }, i) => {
        const instruction = wordings(task)[i % wordings(task).length]!;
        const isOrdered = instruction.includes("in their original order");
        return { task, instruction, input, answers, scorer: isOrdered ? "any" : (TASKS[task]?.scorer ?? "any") };
      }),
  );
}

type WordingLists = Readonly<Record<string, readonly string[]>>;

/** The suite. `instructions` are the human wordings of the source, `ours` the ones added here. */
export function prepareTasks(source: readonly Source[], instructions: WordingLists, ours: WordingLists) {
  const wordings = Object.fromEntries(
    Object.keys(TASKS).map((task) => [task, splitWordings(task, instructions[task]!, ours[task]!)]),
  ) as Record<string, Wordings>;
  const rows = joinAnswers(source);
  const split = (row: TaskRow) => (TASKS[row.task]!.followsRule ? splitOf(row.task, row.input) : "train");
  const part = (name: Part) => rows.filter((row) => split(row) === name);
  const human = (task: string) => wordings[task]!.train.filter((wording) => !ours[task]!.includes(wording));
  const train = part("train");
  const testWordings = evalRows("test-wordings", train, (task) => wordings[task]!.heldOut);
  const key = ({ task, input }: { task: string; input?: string }) => `${task}\n${sameInput(input!)}`;
  const asked = new Set(testWordings.map(key));
  return {
    wordings,
    train,
    validation: evalRows("validation", part("validation"), human),
    validationWordings: evalRows(
      "validation-wordings",
      train.filter((row) => !asked.has(key(row))),
      (task) => wordings[task]!.validation,
      { maxRows: MAX_WORDING_VALIDATION_ROWS },
    ),
    testInputs: evalRows("test-inputs", part("test"), human),
    testWordings,
  };
}

/** Wordings of the further domains, all of them ours. */
function extraWordings(ours: WordingLists): Record<string, Wordings> {
  return Object.fromEntries(
    EXTRA_TASKS.map((task) => {
      const [heldOut, validation, train] = reserve("wording of ours", task, ours[task]!, EXTRA_RESERVED);
      return [task, { train: train!, validation: validation!, heldOut: heldOut! }];
    }),
  );
}

/**
 * Wordings that have the input in them, as people ask ("What is the plural of wolf?"): a few of each task are kept for validation and test, the
 * others join those of `wordings`. The plainest, which stand first, are always trained on.
 */
function inlineWordings(wordings: Readonly<Record<string, Wordings>>, inline: WordingLists) {
  return Object.fromEntries(
    Object.entries(inline).map(([task, all]) => {
      const plain = new Set(all.slice(0, NUM_PLAIN_WORDINGS).map(sameWording));
      const others = all.slice(0, NUM_RESERVABLE_WORDINGS).filter((wording) => !plain.has(sameWording(wording)));
      const [heldOut, validation] = reserve("inline wording", task, others, EXTRA_RESERVED);
      const train = all.filter((wording) => !heldOut!.includes(wording) && !validation!.includes(wording));
      return [task, { train: [...wordings[task]!.train, ...train], validation: validation!, heldOut: heldOut! }];
    }),
  ) as Record<string, Wordings>;
}

/** The first rows of each task, asked in its wordings of one part. */
function askInline(
  rows: readonly EvalRow[],
  wordings: Readonly<Record<string, Wordings>>,
  part: keyof Wordings,
): EvalRow[] {
  return Object.entries(wordings).flatMap(([name, own]) =>
    rows
      .filter(({ task }) => task === name)
      .slice(0, MAX_SUITE_ROWS)
      .map((row, i) => ({
        ...row,
        instruction: own[part][i % own[part].length]!,
        scorer: TASKS[name]?.scorer ?? "any",
      })),
  );
}

/** Prose only: verse and plays would need their line breaks. */
const NOVELS = /^(austen|bryant|burgess|carroll|chesterton|edgeworth|melville)/;

/** Documents for pre-training by domain: a share of each source, chosen by hash. */
function prepareTexts(sourceDir: string): Record<string, string[]> {
  const choose = (share: number, texts: readonly string[]) => texts.filter((text) => hash("text", text) < share);
  const novels = readdirSync(join(sourceDir, "gutenberg"))
    .filter((name) => NOVELS.test(name))
    .sort()
    .flatMap((name) => passages(readText(join(sourceDir, "gutenberg", name))));
  const code = readRows<{ text: string }>(join(sourceDir, "python-code", "thealgorithms_python.jsonl.gz"));
  const maths = readRows<{ question: string; answer: string }>(join(sourceDir, "gsm8k", "train.jsonl.gz"));
  const sql = readRows<{ split: string; question: string; sql: string }>(
    join(sourceDir, "text2sql", "wikisql.jsonl.gz"),
  );
  return {
    novels: choose(0.22, novels),
    code: choose(
      0.55,
      code.map(({ text }) => text).filter((text) => text.length < 6000),
    ),
    maths: choose(
      0.3,
      maths.map(({ question, answer }) => `${question}\n${answer.replace(/<<.*?>>/g, "")}`),
    ),
    sql: choose(
      0.1,
      sql.filter(({ split }) => split === "train").map((row) => `${row.question}\n${withoutAliases(row.sql)}`),
    ),
  };
}

/** Paragraphs of a book on one line each, gathered into passages of about 1,500 characters. */
function passages(book: string): string[] {
  const all: string[] = [];
  let passage = "";
  for (const paragraph of book.split(/\r?\n\s*\r?\n/).map(tidy)) {
    passage += passage && paragraph ? `\n${paragraph}` : paragraph;
    if (passage.length < 1500) continue;
    all.push(passage);
    passage = "";
  }
  return all;
}

function readText(path: string): string {
  return gunzipSync(readFileSync(path)).toString("utf8");
}

function readRows<T>(path: string): T[] {
  return readText(path)
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

/** What is asked while training goes on: every task as the suite score judges it, rules on unseen inputs, facts on unseen wordings. */
function suiteRows({ validation, validationWordings }: ReturnType<typeof prepareTasks>): EvalRow[] {
  return Object.entries(TASKS).flatMap(([name, { followsRule }]) =>
    (followsRule ? validation : validationWordings).filter(({ task }) => task === name).slice(0, MAX_SUITE_ROWS),
  );
}

export const jsonLines = (rows: readonly unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

function main(sourceDir: string | undefined): void {
  if (!sourceDir) throw new Error("wanted: npx tsx experiments/suite/prepare.ts SOURCE_DIR");
  const out = join(import.meta.dirname, "data");
  mkdirSync(out, { recursive: true });
  const write = (name: string, content: string) => {
    writeFileSync(join(out, name), name.endsWith(".gz") ? gzipSync(content, { level: 9 }) : content);
    console.log(name, content.length);
  };
  const ours: WordingLists = JSON.parse(readFileSync(join(import.meta.dirname, "wordings.json"), "utf8"));
  const tasks = prepareTasks(
    readRows<Source>(join(sourceDir, "instruction-induction", "train.jsonl.gz")),
    JSON.parse(readFileSync(join(sourceDir, "instruction-induction", "instructions.json"), "utf8")),
    ours,
  );
  const wordings = { ...tasks.wordings, ...extraWordings(ours) };
  checkWordings(wordings);
  write("instructions.json", `${JSON.stringify(wordings, null, 2)}\n`);
  write("train.jsonl.gz", jsonLines(tasks.train));
  write("validation.jsonl", jsonLines(tasks.validation));
  write("validation-wordings.jsonl", jsonLines(tasks.validationWordings));
  write("validation-suite.jsonl", jsonLines(suiteRows(tasks)));
  write("test-inputs.jsonl", jsonLines(tasks.testInputs));
  write("test-wordings.jsonl", jsonLines(tasks.testWordings));
  const extras = prepareExtras(sourceDir);
  const trained = (task: string) => wordings[task]!.train;
  for (const domain of EXTRA_TASKS) {
    write(`train-${domain}.jsonl.gz`, jsonLines(extras.train.filter(({ task }) => task === domain)));
  }
  const extraValidation = evalRows("validation", extras.validation, trained, { tasks: EXTRA_TASKS });
  const extraTest = evalRows("test-inputs", extras.test, trained, { tasks: EXTRA_TASKS });
  write("extra-validation.jsonl", jsonLines(extraValidation));
  write("extra-test-inputs.jsonl", jsonLines(extraTest));
  const inline = inlineWordings(
    wordings,
    JSON.parse(readFileSync(join(import.meta.dirname, "wordings-inline.json"), "utf8")),
  );
  checkWordings(inline);
  write("instructions-inline.json", `${JSON.stringify(inline, null, 2)}\n`);
  const facts = tasks.testWordings.filter(({ task }) => !TASKS[task]!.followsRule);
  write(
    "inline-validation.jsonl",
    jsonLines(askInline([...suiteRows(tasks), ...extraValidation], inline, "validation")),
  );
  write("inline-test.jsonl", jsonLines(askInline([...tasks.testInputs, ...facts, ...extraTest], inline, "heldOut")));
  for (const [domain, texts] of Object.entries(prepareTexts(sourceDir))) {
    write(`text-${domain}.jsonl.gz`, jsonLines(texts.map((text) => ({ text }))));
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) main(process.argv[2]);
