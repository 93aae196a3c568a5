/**
 * What the training data of SmolLM2 is made from: each kind of prompts from one permissive set, split before anything is chosen. README.md beside
 * this file names the sets and their licences.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { DEMEANING } from "../suite/extras.ts";
import { hash, type TaskRow, tidy, type Wordings } from "../suite/split.ts";

export const KINDS = ["rules", "sql", "math", "python", "roleplay", "tools", "stories", "code", "plain"] as const;
export type Kind = (typeof KINDS)[number];

/** A row of training data; without an output it is a prompt for the model's own answer. */
export interface Row {
  kind: Kind;
  /** The finest honest label: for rules each task, else the kind of work. */
  task: string;
  instruction: string;
  input?: string | undefined;
  output?: string | undefined;
}

export interface Split {
  train: Row[];
  heldOut: Row[];
}

export function readText(path: string): string {
  const bytes = readFileSync(path);
  return (path.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString("utf8");
}

export function readLines<T>(path: string): T[] {
  return readText(path)
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as T);
}

const suite = (name: string) => join(import.meta.dirname, "../suite/data", name);

/** One of `all`, by hash of the texts. */
const pick = <T>(all: readonly T[], ...texts: string[]): T => all[Math.floor(hash(...texts) * all.length)]!;

/** Rows of the suite, each asked in one of its task's trained wordings, the inline ones among them. */
function asked(kind: Kind, rows: readonly TaskRow[]): Row[] {
  const wordings: Record<string, Wordings> = JSON.parse(readText(suite("instructions-inline.json")));
  return rows.map(({ task, input, answers }) => ({
    kind,
    task,
    instruction: pick(wordings[task]!.train, "smollm2 wording", task, input),
    input,
    output: answers[0]!,
  }));
}

type Asked = TaskRow & { instruction: string };
const asGiven = (kind: Kind, rows: readonly Asked[]): Row[] =>
  rows.map(({ task, instruction, input, answers }) => ({ kind, task, instruction, input, output: answers[0]! }));

/** The suite's training rows; held out are its validation rows: unseen inputs of rules, unseen wordings of facts. Its tests stay tests. */
function rules(): Split {
  return {
    train: asked("rules", readLines(suite("train.jsonl.gz"))),
    heldOut: asGiven("rules", readLines(suite("validation-suite.jsonl"))),
  };
}

function sql(): Split {
  return {
    train: asked("sql", readLines(suite("train-sql.jsonl.gz"))),
    heldOut: asGiven(
      "sql",
      readLines<Asked>(suite("extra-validation.jsonl")).filter(({ task }) => task === "sql"),
    ),
  };
}

/** About a tenth of the rows held out, by hash of what belongs together. */
function splitBy(rows: readonly Row[], group: (row: Row) => string): Split {
  const isHeldOut = (row: Row) => hash("smollm2 split", row.kind, group(row)) < 0.1;
  return { train: rows.filter((row) => !isHeldOut(row)), heldOut: rows.filter(isHeldOut) };
}

function math(dir: string): Split {
  const rows = readLines<{ question: string; answer: string }>(join(dir, "gsm8k/train.jsonl.gz")).map(
    ({ question, answer }): Row => ({
      kind: "math",
      task: "math",
      instruction: tidy(question),
      output: answer.replace(/<<.*?>>/g, "").replace(/\n#### (.*)$/, "\nThe answer is $1."),
    }),
  );
  return splitBy(rows, ({ instruction }) => instruction);
}

interface Mbpp {
  text: string;
  code: string;
  test_list: string[];
}

/** Tasks of MBPP, half of them with a test that must pass, and described functions of TheAlgorithms/Python. */
function python(dir: string): Split {
  const tasks = ["train", "validation", "prompt"]
    .flatMap((part) => readLines<Mbpp>(join(dir, `mbpp/${part}.jsonl`)))
    .map(({ text, code, test_list: [test] }): Row => {
      const withTest = hash("smollm2 test", text) < 0.5 ? `\nYour code should pass this test:\n${test}` : "";
      return { kind: "python", task: "python", instruction: tidy(text) + withTest, output: fenced(code) };
    });
  const { train, heldOut } = splitBy(tasks, ({ instruction }) => instruction);
  const functions = files(dir).map(({ path, text }) => ({ path, rows: describedFunctions(text) }));
  return {
    train: [...train, ...functions.flatMap(({ path, rows }) => (isHeldOutFile(path) ? [] : rows))],
    heldOut: [...heldOut, ...functions.flatMap(({ path, rows }) => (isHeldOutFile(path) ? rows : []))],
  };
}

const fenced = (code: string) => `\`\`\`python\n${code.replaceAll("\r", "").replaceAll("\t", "    ").trim()}\n\`\`\``;

const files = (dir: string) =>
  readLines<{ path: string; text: string }>(join(dir, "python-code/thealgorithms_python.jsonl.gz")).map(
    ({ path, text }) => ({ path, text: text.replaceAll("\r", "") }),
  );

const isHeldOutFile = (path: string) => hash("smollm2 split", "file", path) < 0.1;

/** A function at the left margin with its docstring: head, description, rest. */
const FUNCTION = /^def (\w+)(\([^\n]*)\n {4}r?"""([\s\S]*?)"""\n([\s\S]*?)(?=\n\n\n|\n\S)/gm;
const FUNCTION_WORDINGS = [
  "Write a Python function `{name}`. {description}",
  "Implement `{head}` in Python. {description}",
  "{description} Write this as a Python function named {name}.",
  "Complete this Python function.\n\n{head}\n    # {description}",
];

function describedFunctions(text: string): Row[] {
  return [...text.matchAll(FUNCTION)].flatMap(([, name, signature, docstring, body]): Row[] => {
    const description = tidy(docstring!.trim().split(/\n\s*(?:\n|>>>|:|[A-Z]\w+:)/)[0]!);
    if (name === "main" || name === "solution" || !/^[A-Z].{25,200}$/.test(description) || description.includes(">>>"))
      return [];
    const head = `def ${name}${signature}`;
    const instruction = pick(FUNCTION_WORDINGS, "smollm2 function", head)
      .replace("{name}", name!)
      .replace("{head}", () => head)
      .replace("{description}", () => (/[.?!:]$/.test(description) ? description : `${description}.`));
    return [{ kind: "python", task: "python", instruction, output: fenced(`${head}\n${body}`) }];
  });
}

function gpTeacher(dir: string, kind: "roleplay" | "tools", name: string): Split {
  const all = JSON.parse(readText(join(dir, "gpteacher", name))) as Record<
    "instruction" | "input" | "output",
    string
  >[];
  const rows = all
    .filter(({ output }) => output.trim() !== "")
    .map(
      ({ instruction, input, output }): Row => ({
        kind,
        task: kind,
        instruction: instruction.trim(),
        input: input.trim() || undefined,
        output: output.trim(),
      }),
    );
  return splitBy(rows, ({ instruction, input }) => `${instruction}\n${input ?? ""}`);
}

/** Prose only: verse and plays would need their line breaks. */
const NOVELS = /^(austen|bryant|burgess|carroll|chesterton|edgeworth|melville)/;
const STORY_WORDINGS = [
  "Continue this passage of a novel:\n\n{input}",
  "{input}\n\nWhat comes next in this story?",
  "Here is a passage from a book.\n\n{input}\n\nWrite the sentences that follow.",
  "Go on with this story: {input}",
  "Write what happens next.\n\n{input}",
];
/** Characters of a passage that are shown, and of those that follow, at least. */
const [SHOWN, FOLLOWING] = [220, 260];
/** Passages in a row that are held out, or trained on, together. */
const RUN = 12;

/** Passages of novels, cut between sentences; runs of them are held out, so that few stand beside a trained one. */
function stories(dir: string): Split {
  const split: Split = { train: [], heldOut: [] };
  for (const name of readdirSync(join(dir, "gutenberg")).sort()) {
    if (!NOVELS.test(name)) continue;
    for (const [i, row] of passages(readText(join(dir, "gutenberg", name))).entries())
      (hash("smollm2 split", name, `${Math.floor(i / RUN)}`) < 0.05 ? split.heldOut : split.train).push(row);
  }
  return split;
}

function passages(book: string): Row[] {
  const sentences = book
    .split(/\r?\n\s*\r?\n/)
    .map((paragraph) => tidy(paragraph.replaceAll(/[_*]/g, "")))
    .filter((paragraph) => /[.!?]["']?$/.test(paragraph) && !/^(CHAPTER|Chapter|VOLUME)/.test(paragraph))
    .flatMap((paragraph) => paragraph.split(/(?<=(?<!\b(?:Mr|Mrs|Dr|St|Esq))[.!?]["']?) (?=["'A-Z])/));
  const rows: Row[] = [];
  let i = 0;
  const take = (length: number) => {
    let text = "";
    while (text.length < length && i < sentences.length) text += (text && " ") + sentences[i++]!;
    return text;
  };
  while (i < sentences.length) {
    const input = take(SHOWN);
    const output = take(FOLLOWING);
    if (output.length < FOLLOWING || DEMEANING.test(input + output)) continue;
    rows.push({
      kind: "stories",
      task: "story",
      instruction: pick(STORY_WORDINGS, "smollm2 story", input),
      input,
      output,
    });
  }
  return rows;
}

const CODE_WORDINGS = [
  "Complete this Python file.\n\n{input}",
  "Continue this Python code:\n\n{input}",
  "What comes next in this program?\n\n{input}",
  "Go on with this code.\n\n{input}",
];
/** Characters of a piece of a file. */
const PIECE = 520;

/** Pieces of Python files, cut between lines; whole files are held out. */
function code(dir: string): Split {
  const split: Split = { train: [], heldOut: [] };
  for (const { path, text } of files(dir)) split[isHeldOutFile(path) ? "heldOut" : "train"].push(...pieces(text));
  return split;
}

function pieces(text: string): Row[] {
  const lines = text.split("\n");
  const rows: Row[] = [];
  let i = 0;
  const take = (length: number) => {
    let piece = "";
    while (piece.length < length && i < lines.length) piece += `${lines[i++]!}\n`;
    return piece.replace(/^\n+/, "").trimEnd();
  };
  while (i < lines.length) {
    const [input, output] = [take(PIECE / 2), take(PIECE / 2)];
    if (input.trim() === "" || output.trim().length < PIECE / 4 || input.includes(" Input: ")) continue;
    rows.push({ kind: "code", task: "code", instruction: pick(CODE_WORDINGS, "smollm2 code", input), input, output });
  }
  return rows;
}

/** Prompts of our own, without answers. */
function plain(): Split {
  const rows = readLines<{ instruction: string }>(join(import.meta.dirname, "data/plain.jsonl")).map(
    ({ instruction }): Row => ({ kind: "plain", task: "plain", instruction }),
  );
  const order = [...rows].sort((a, b) => hash("smollm2 plain", a.instruction) - hash("smollm2 plain", b.instruction));
  return { train: order.slice(60), heldOut: order.slice(0, 60) };
}

/** @param dir the folder of sets, as `prepare.ts` names it */
export function readSplits(dir: string): Record<Kind, Split> {
  return {
    rules: rules(),
    sql: sql(),
    math: math(dir),
    python: python(dir),
    roleplay: gpTeacher(dir, "roleplay", "roleplay.json.gz"),
    tools: gpTeacher(dir, "tools", "toolformer.json.gz"),
    stories: stories(dir),
    code: code(dir),
    plain: plain(),
  };
}
