/**
 * Makes the training data of SmolLM2, its held-out part, and the prompts that the dense model answers itself, byte for byte the same each time:
 *
 *     npx tsx experiments/smollm2/prepare.ts SOURCE_DIR OUT_DIR MODEL_DIR
 *
 * SOURCE_DIR holds a folder per set: `gsm8k/train.jsonl.gz`, `mbpp/{train,validation,prompt}.jsonl`, `gpteacher/{roleplay,toolformer}.json.gz`,
 * `gutenberg/*.txt.gz`, `python-code/thealgorithms_python.jsonl.gz`; rules and SQL are the suite's. MODEL_DIR is an imported model, whose tokenizer
 * counts. Writes `train/KIND.jsonl.gz`, `heldout/KIND.jsonl`, `prompts.jsonl.gz` and `prompts-heldout.jsonl`.
 */
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { OptionError } from "../../src/errors.ts";
import { composePrompt } from "../../src/text/prompt.ts";
import type { EvalRow } from "../../src/text/scorers.ts";
import { loadTokenizer } from "../../src/text/tokenizer.ts";
import { jsonLines } from "../suite/prepare.ts";
import { hash } from "../suite/split.ts";
import { contentWords, vocabularies } from "../suite/unseen.ts";
import { KINDS, type Kind, type Row, readLines, readSplits } from "./sources.ts";

/** Of a prompt and its answer; ChatML adds 9. */
const MAX_TOKENS = 211;
/** Rows of a kind, at most. */
const MAX_TRAINED = 4000;
const NUM_HELD_OUT = 60;

/**
 * In which order the dense model is asked, so that it may be stopped anywhere: plain prompts twice as often as the others, or three times. Code seldom
 * ends within an answer's length, and what is cut is left out.
 */
const ASKED: readonly Kind[] = ["plain", "rules", "math", "roleplay", "plain", "python", "tools", "sql", "stories"];
const ASKED_HELD_OUT: readonly Kind[] = [
  ...(["plain", "rules", "sql", "math", "plain", "python"] as const),
  ...(["roleplay", "tools", "plain", "stories", "code"] as const),
];
/** Rows of a kind that is not plain. */
const NUM_ASKED = 150;
const NUM_ASKED_HELD_OUT = 20;

const suiteData = join(import.meta.dirname, "../suite/data");
const promptOf = ({ instruction, input }: Pick<Row, "instruction" | "input">) => composePrompt(instruction, input);

/**
 * `n` of the rows, as many of each task as there are, in an order by hash in which the tasks take turns; no prompt twice, none of `others`, and only
 * those that `isShort` lets in.
 */
function chosen(rows: readonly Row[], n: number, isShort: (row: Row) => boolean, others: readonly Row[] = []): Row[] {
  const taken = new Set(others.map(promptOf));
  const ofTask = new Map<string, { row: Row; place: number }[]>();
  for (const row of rows) {
    const placed = { row, place: hash("smollm2 chosen", row.task, promptOf(row)) };
    const own = ofTask.get(row.task);
    if (own) own.push(placed);
    else ofTask.set(row.task, [placed]);
  }
  const queues = [...ofTask.values()].map((own) => own.sort((a, b) => a.place - b.place).values());
  const all: Row[] = [];
  while (queues.length > 0 && all.length < n) {
    for (const [i, queue] of [...queues.entries()].reverse()) {
      let next = queue.next();
      while (!next.done && (taken.has(promptOf(next.value.row)) || !isShort(next.value.row))) next = queue.next();
      if (next.done) queues.splice(i, 1);
      else if (all.length < n) {
        taken.add(promptOf(next.value.row));
        all.push(next.value.row);
      }
    }
  }
  return all;
}

/** Rows that the suite asks in its tests. */
export const suiteTests = (): EvalRow[] =>
  readdirSync(suiteData)
    .filter((name) => /test.*\.jsonl$/.test(name))
    .flatMap((name) => readLines<EvalRow>(join(suiteData, name)));

/**
 * @throws {Error} if a prompt of `trained` is in `heldOut` or in the suite's tests, or a word of an unseen-words question is in a training row of its task
 */
export function checkDisjoint(trained: readonly Row[], heldOut: readonly Row[]): void {
  const prompts = new Set(trained.map(promptOf));
  for (const row of [...heldOut, ...suiteTests()])
    if (prompts.has(promptOf(row)))
      throw new Error(
        `prepare: wanted prompts that are trained on or held out, got both: ${JSON.stringify(promptOf(row))}.`,
      );
  const words = vocabularies(
    trained.flatMap(({ kind, task, input, output }) =>
      kind === "rules" ? [{ task, input: input!, answers: [output!] }] : [],
    ),
  );
  for (const { task, input } of readLines<EvalRow>(join(suiteData, "test-words.jsonl"))) {
    const seen = contentWords(task, input!).find((word) => words.get(task)?.has(word));
    if (seen !== undefined)
      throw new Error(`prepare: wanted unseen words in "${input}" of ${task}, got "${seen}" in a training row.`);
  }
}

/** All plain rows and `n` of each other kind, taking turns in this order. */
function inTurn(rowsOf: (kind: Kind) => readonly Row[], order: readonly Kind[], n: number): Row[] {
  const queues = new Map(
    order.map((kind) => [
      kind,
      rowsOf(kind)
        .slice(0, kind === "plain" ? undefined : n)
        .values(),
    ]),
  );
  const rows: Row[] = [];
  for (let before = -1; before < rows.length; ) {
    before = rows.length;
    for (const kind of order) {
      const { value } = queues.get(kind)!.next();
      if (value) rows.push(value);
    }
  }
  return rows;
}

function main([sourceDir, outDir, modelDir]: readonly string[]): void {
  if (!sourceDir || !outDir || !modelDir)
    throw new OptionError("prepare.ts: wanted SOURCE_DIR OUT_DIR MODEL_DIR. See the head of the file.");
  const tokenizer = loadTokenizer(join(modelDir, "tokenizer.json"), { eosIds: [2] }); // <|im_end|>
  const isShort = (row: Row) =>
    tokenizer.encode(promptOf(row)).length + tokenizer.encode(row.output ?? "").length <= MAX_TOKENS;
  const splits = readSplits(sourceDir);
  for (const kind of KINDS) {
    const heldOut = chosen(splits[kind].heldOut, NUM_HELD_OUT, isShort);
    splits[kind] = { train: chosen(splits[kind].train, MAX_TRAINED, isShort, heldOut), heldOut };
  }
  checkDisjoint(
    KINDS.flatMap((kind) => splits[kind].train),
    KINDS.flatMap((kind) => splits[kind].heldOut),
  );
  for (const part of ["train", "heldout"]) mkdirSync(join(outDir, part), { recursive: true });
  const write = (name: string, rows: readonly Row[]) => {
    const content = jsonLines(rows);
    const bytes = name.endsWith(".gz") ? gzipSync(content, { level: 9 }) : Buffer.from(content);
    writeFileSync(join(outDir, name), bytes);
    console.log(`${name}: ${rows.length} rows, ${bytes.length} bytes`);
  };
  for (const kind of KINDS) {
    write(`heldout/${kind}.jsonl`, splits[kind].heldOut);
    if (kind !== "plain") write(`train/${kind}.jsonl.gz`, splits[kind].train); // its answers are the dense model's
  }
  write(
    "prompts.jsonl.gz",
    inTurn((kind) => splits[kind].train, ASKED, NUM_ASKED),
  );
  write(
    "prompts-heldout.jsonl",
    inTurn((kind) => splits[kind].heldOut, ASKED_HELD_OUT, NUM_ASKED_HELD_OUT),
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) main(process.argv.slice(2));
