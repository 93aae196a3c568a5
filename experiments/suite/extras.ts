/**
 * Three further domains for the tiny model, beside the suite of 19 tasks: SQL for a question, the next sentences of a
 * story, arithmetic told as a story. README.md says what each is good for.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { hash, type Part, splitOf, type TaskRow, tidy } from "./split.ts";

export const EXTRA_TASKS = ["sql", "story", "word_problem"] as const;

/** Rows by part of the data; `train` is complete, the others are candidates of which a few are asked. */
export type Parts = Record<Part, TaskRow[]>;

const emptyParts = (): Parts => ({ train: [], validation: [], test: [] });

/** A row of WikiSQL. */
interface SqlSource {
  split: string;
  question: string;
  sql: string;
}

/** One column, perhaps aggregated, and one condition or none; columns of plain letters and digits. */
const SIMPLE_SQL =
  /^SELECT (?:(?:COUNT|MIN|MAX|SUM|AVG) )?([A-Z][A-Z0-9_]*) FROM TABLE(?: WHERE ([A-Z][A-Z0-9_]*) [=<>] (.+))? ;$/;
const MAX_QUESTION = 100;
const MAX_SQL = 90;
const NUM_SQL_TRAINED = 6000;

/**
 * Simple questions that name the columns and the value of their query. Without that the table's header would be needed, which
 * the prompt does not hold. WikiSQL's own splits, which share no table; a question that occurs in several is in none but the first.
 */
function sqlRows(source: readonly SqlSource[]): Parts {
  const parts = emptyParts();
  const partOf: Record<string, Part> = { train: "train", dev: "validation", test: "test" };
  const seen = new Set<string>();
  for (const { split, question, sql } of [...source].sort((a, b) => splitRank(a) - splitRank(b))) {
    const row = { task: "sql", input: withoutTokenSpaces(question), answers: [tidy(withoutAliases(sql))] };
    if (!isAnswerable(row.input, row.answers[0]!) || seen.has(row.input.toLowerCase())) continue;
    seen.add(row.input.toLowerCase());
    parts[partOf[split]!].push(row);
  }
  parts.train = chosen(parts.train, NUM_SQL_TRAINED);
  return parts;
}

const splitRank = ({ split }: SqlSource) => ["train", "dev", "test"].indexOf(split);

/** SQL without the table's alias and the columns' suffix, which are the same everywhere. */
export function withoutAliases(sql: string): string {
  return sql.replace(/TABLEalias0\.| AS TABLEalias0|_FIELD/g, "");
}

/** The source puts a space before each mark: "in 2011 ?". */
function withoutTokenSpaces(question: string): string {
  return tidy(question).replace(/ (?=[?.,!](\s|$))/g, "");
}

function isAnswerable(question: string, sql: string): boolean {
  const match = SIMPLE_SQL.exec(sql);
  if (!match || / AND /.test(sql) || question.length > MAX_QUESTION || sql.length > MAX_SQL) return false;
  const [, selected, condition = "", value = ""] = match;
  const words = (text: string) =>
    text
      .toLowerCase()
      .split(/[^\p{L}\p{N}]+/u)
      .filter(Boolean);
  const asked = new Set(words(question));
  const named = (column: string) => words(column.replaceAll("_", " ")).every((word) => asked.has(word));
  return named(selected!) && named(condition) && question.includes(value.replaceAll('"', "").trim());
}

/** Children's books whose prose can be told on. */
const STORY_BOOKS = ["bryant-stories", "burgess-busterbrown", "carroll-alice", "edgeworth-parents"];
const MAX_BEGINNING = 160;
const MAX_CONTINUATION = 220;
/** Words by which books of their time run people down; what holds them is left out. */
export const DEMEANING = /\b(jews?|gips(y|ies)|mammy|negro(es)?|slaves?|savages?)\b/i;
/** A line of a play: "Just. Yes, sir", "Lord J. (aside). Well", "Enter MR. BURSAL". */
const PLAY = /^(\(|Enter |Exit |Exeunt |([A-Z]\w+\.? )?[A-Z]\w*( \([^)]*\))?\. (?=["(A-Z']))/;

/** Each one or two sentences of a book with the one or two that follow; no place of a book is in two rows. */
export function storyRows(books: readonly string[]): Parts {
  const parts = emptyParts();
  const seen = new Set<string>();
  for (const scene of books.flatMap(scenes)) {
    for (let i = 0; i < scene.length; ) {
      const row = PAIRS.map(([n, m]) => ({
        input: scene.slice(i, i + n).join(" "),
        answer: scene.slice(i + n, i + n + m).join(" "),
        end: i + n + m,
      })).find(
        ({ input, answer, end }) =>
          end <= scene.length &&
          isPassage(input, MAX_BEGINNING) &&
          isPassage(answer, MAX_CONTINUATION) &&
          !seen.has(input),
      );
      if (row) {
        seen.add(row.input);
        parts[splitOf("story", row.input)].push({ task: "story", input: row.input, answers: [row.answer] });
      }
      i = row?.end ?? i + 1;
    }
  }
  return parts;
}

/** Sentences of a beginning and of its continuation; the first that fits is taken. */
const PAIRS = [
  [2, 2],
  [2, 1],
  [1, 2],
  [1, 1],
] as const;

function isPassage(text: string, maxLength: number): boolean {
  return text.length >= 30 && text.length <= maxLength && hasWholeSpeech(text) && !DEMEANING.test(text);
}

/** Sentences of a book's prose, apart where a heading, a verse or a play stands between them. */
function scenes(book: string): string[][] {
  const paragraphs = book
    .split(/\r?\n\s*\r?\n/)
    .map((raw) => ({ isVerse: /(^|\n)[ \t]{2,}\S/.test(raw), text: tidy(raw.replace(/[_*]/g, "")) }))
    .filter(({ text }) => text !== "");
  const isLine = paragraphs.map(({ text }) => PLAY.test(text));
  const all: string[][] = [[]];
  for (const [i, { isVerse, text }] of paragraphs.entries()) {
    const isPlay = isLine.slice(Math.max(0, i - 3), i + 4).includes(true); // not every line of a play looks like one
    if (!isVerse && !isPlay && /[a-z].*[.!?]["')]*$/.test(text)) all.at(-1)!.push(...sentences(text));
    else all.push([]);
  }
  return all;
}

function sentences(paragraph: string): string[] {
  return paragraph.split(/(?<=[.!?]["')]*)(?<!\b(?:Mr|Mrs|Dr|St|No)\.) +(?=["'(]?[A-Z])/);
}

/** Every speech that is closed was opened here, and the other way round; in books with "double" and with 'single' quotation marks. */
function hasWholeSpeech(text: string): boolean {
  const count = (pattern: RegExp) => text.match(pattern)?.length ?? 0;
  const isDoubleWhole = /^([^"]*(?<![^\s(-])"[^\s"]([^"]*[^\s"])?")*[^"]*$/.test(text);
  return isDoubleWhole && count(/(?<![^\s(-])'/g) === count(/'(?!\p{L})/gu);
}

interface Scene {
  name: string;
  /** Subject pronoun of `name`. */
  they: string;
  friend: string;
  things: string;
  a: number;
  b: number;
}

const SUMS: ((scene: Scene) => string)[] = [
  ({ name, friend, things, a, b, they }) =>
    `${name} has ${a} ${things}. ${friend} gives ${name} ${b} more. How many ${things} does ${they} have now?`,
  ({ name, friend, things, a, b }) =>
    `${name} has ${a} ${things} and ${friend} has ${b}. How many ${things} do they have together?`,
  ({ name, things, a, b, they }) =>
    `In the morning ${name} found ${a} ${things}, in the evening ${b}. How many ${things} did ${they} find that day?`,
  ({ name, things, a, b, they }) =>
    `${name} bought ${a} ${things} on Monday and ${b} on Tuesday. How many ${things} did ${they} buy?`,
  ({ name, friend, things, a, b }) =>
    `There are ${a} ${things} in ${name}'s box and ${b} in ${friend}'s. How many ${things} are there in all?`,
  ({ name, friend, things, a, b }) =>
    `${friend} counted ${a} ${things}. ${name} counted ${b} more than ${friend}. How many ${things} did ${name} count?`,
  ({ name, things, a, b, they }) =>
    `After giving away ${a} ${things}, ${name} has ${b} left. How many ${things} did ${they} have at first?`,
  ({ name, things, a, b }) =>
    `${a} ${things} were on the table. ${name} put ${b} more there. How many ${things} are on the table?`,
];

const DIFFERENCES: ((scene: Scene) => string)[] = [
  ({ name, friend, things, a, b, they }) =>
    `${name} had ${a} ${things} and gave ${b} of them to ${friend}. How many ${things} does ${they} still have?`,
  ({ name, things, a, b, they }) =>
    `${name} had ${a} ${things} but lost ${b}. How many ${things} does ${they} have left?`,
  ({ name, things, a, b }) =>
    `There were ${a} ${things} in the shop. ${name} bought ${b}. How many are left in the shop?`,
  ({ name, friend, things, a, b }) =>
    `${name} has ${a} ${things} and ${friend} has ${b}. How many more ${things} does ${name} have than ${friend}?`,
  ({ name, things, a, b, they }) =>
    `${name} wants ${a} ${things} and already has ${b}. How many more does ${they} need?`,
  ({ name, things, a, b }) =>
    `Of the ${a} ${things} that ${name} owns, ${b} are new and the others are old. How many are old?`,
  ({ name, friend, things, a, b }) =>
    `${name} and ${friend} have ${a} ${things} together. ${b} of them are ${name}'s. How many are ${friend}'s?`,
  ({ name, things, a, b, they }) =>
    `${name} sold ${b} of ${a} ${things} at the market. How many ${things} did ${they} bring home?`,
];

const PRODUCTS: ((scene: Scene) => string)[] = [
  ({ name, things, a, b, they }) =>
    `${name} has ${a} bags with ${b} ${things} in each. How many ${things} does ${they} have?`,
  ({ name, things, a, b }) =>
    `${name}'s room has ${a} shelves. On each shelf are ${b} ${things}. How many ${things} are there?`,
  ({ name, things, a, b, they }) =>
    `${name} makes ${a} ${things} every day. How many ${things} does ${they} make in ${b} days?`,
  ({ name, things, a, b, they }) =>
    `${name} gives ${a} ${things} to each of ${b} friends. How many ${things} does ${they} give away?`,
  ({ name, things, a, b, they }) =>
    `${name} lays out ${things} in ${a} rows of ${b}. How many ${things} does ${they} lay out?`,
  ({ name, friend, things, a, b }) =>
    `${friend} has ${a} ${things}. ${name} has ${b} times as many. How many ${things} does ${name} have?`,
  ({ name, things, a, b, they }) =>
    `${things[0]!.toUpperCase()}${things.slice(1)} come in packs of ${a}. ${name} buys ${b} packs. How many ${things} does ${they} get?`,
  ({ name, things, a, b }) => `One of ${name}'s ${things} costs ${a} coins. How many coins do ${b} ${things} cost?`,
];

const SHE =
  "Alice Anna Clara Emma Fatima Grace Hana Ida Julia Leila Lucy Maria Mia Nina Olga Priya Rosa Sara Tess Zoe".split(
    " ",
  );
const HE =
  "Adam Ben Carlos David Emil Felix George Hugo Ivan Jack Kofi Leo Max Noah Omar Paul Ravi Sam Tom Yusuf".split(" ");
const NAMES = [...SHE, ...HE];
const THINGS = (
  "apples balloons beads biscuits books buttons cakes candles cards carrots cherries cookies crayons cups eggs flowers kites lemons " +
  "marbles muffins nuts oranges pears pencils plums postcards ribbons rings roses shells spoons stamps stickers stones tickets tomatoes toys tulips turnips"
).split(" ");

const NUM_PROBLEMS_TRAINED = 4000;
const NUM_PROBLEMS_HELD_OUT = 60;

/**
 * Arithmetic of one step as a little story: sums and differences within 1..99, products up to 9 × 9. Which part a problem
 * belongs to follows from its two numbers and its name: those three never come together in two parts.
 */
export function wordProblems(): Parts {
  const parts = emptyParts();
  const seen = new Set<string>();
  for (let i = 0; parts.train.length < NUM_PROBLEMS_TRAINED; i++) {
    const draw = (what: string, from: number, to: number) =>
      from + Math.floor(hash("word_problem", `${i}`, what) * (to - from + 1));
    const pick = <T>(what: string, all: readonly T[]): T => all[draw(what, 0, all.length - 1)]!;
    const name = pick("name", NAMES);
    const about = {
      name,
      they: SHE.includes(name) ? "she" : "he",
      friend: pick(
        "friend",
        NAMES.filter((other) => other !== name),
      ),
      things: pick("things", THINGS),
    };
    const problem = ([sumProblem, differenceProblem, productProblem] as const)[i % 3]!;
    const { a, b, story, answer } = problem(draw);
    const input = pick("story", story)({ ...about, a, b });
    const part = splitOf("word_problem", `${name} ${a} ${b}`);
    if (seen.has(input) || (part !== "train" && parts[part].length === NUM_PROBLEMS_HELD_OUT)) continue;
    seen.add(input);
    parts[part].push({ task: "word_problem", input, answers: [String(answer)] });
  }
  return parts;
}

/** Draws an integer in `from..to`. */
type Draw = (what: string, from: number, to: number) => number;

// numbers from 2 on, so that every noun is a plural
function sumProblem(draw: Draw) {
  const a = draw("a", 2, 97);
  const b = draw("b", 2, 99 - a);
  return { a, b, story: SUMS, answer: a + b };
}

function differenceProblem(draw: Draw) {
  const a = draw("a", 3, 99);
  const b = draw("b", 2, a - 1);
  return { a, b, story: DIFFERENCES, answer: a - b };
}

function productProblem(draw: Draw) {
  const a = draw("a", 2, 9);
  const b = draw("b", 2, 9);
  return { a, b, story: PRODUCTS, answer: a * b };
}

/** `n` of the rows, by hash, in their own order. */
function chosen(rows: readonly TaskRow[], n: number): TaskRow[] {
  const place = new Map(rows.map((row) => [row, hash("extra", row.task, row.input)]));
  const best = new Set([...rows].sort((a, b) => place.get(a)! - place.get(b)!).slice(0, n));
  return rows.filter((row) => best.has(row));
}

/** All three domains, their parts joined. */
export function prepareExtras(sourceDir: string): Parts {
  const read = (...path: string[]) => gunzipSync(readFileSync(join(sourceDir, ...path))).toString("utf8");
  const wikisql = read("text2sql", "wikisql.jsonl.gz").trim().split("\n");
  const domains = [
    sqlRows(wikisql.map((line) => JSON.parse(line))),
    storyRows(STORY_BOOKS.map((book) => read("gutenberg", `${book}.txt.gz`))),
    wordProblems(),
  ];
  const joined = (part: Part) => domains.flatMap((parts) => parts[part]);
  return { train: joined("train"), validation: joined("validation"), test: joined("test") };
}
