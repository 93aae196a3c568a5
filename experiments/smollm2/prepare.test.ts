/** The committed data keeps what README.md promises of it. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { composePrompt } from "../../src/text/prompt.ts";
import { evalRow } from "../../src/text/scorers.ts";
import { TASKS } from "../suite/prepare.ts";
import { sameWording } from "../suite/split.ts";
import { furtherPrompts, knownPlainPrompts } from "./plainGrid.ts";
import { checkDisjoint, suiteTests } from "./prepare.ts";
import { KINDS, type Row, readLines } from "./sources.ts";

const read = <T = Row>(name: string) => readLines<T>(join(import.meta.dirname, "data", name));
const goldKinds = KINDS.filter((kind) => kind !== "plain");
const trained = goldKinds.flatMap((kind) => read(`train/${kind}.jsonl.gz`));
const heldOut = KINDS.flatMap((kind) => read(`heldout/${kind}.jsonl`));
const prompts = read("prompts.jsonl.gz");
const promptOf = ({ instruction, input }: Pick<Row, "instruction" | "input">) => composePrompt(instruction, input);

describe("held out", () => {
  test("no prompt on both sides, none of the suite's tests and no unseen word in training", () => {
    expect(() => checkDisjoint([...trained, ...prompts], heldOut)).not.toThrow();
  });

  test("a prompt of the held-out part, of a test, or an unseen word among training rows is found", () => {
    const also = (row: Pick<Row, "kind" | "task" | "instruction" | "input">) => () =>
      checkDisjoint([...trained, { output: "x", ...row }], heldOut);
    expect(also(heldOut[0]!)).toThrow(/held out/);
    expect(also({ kind: "rules", ...suiteTests()[0]! })).toThrow(/held out/);
    expect(also({ kind: "rules", task: "singular_to_plural", instruction: "new", input: "zebra" })).not.toThrow();
    expect(also({ kind: "rules", task: "letters_list", instruction: "new", input: "zebra" })).toThrow(/unseen words/);
  });

  test("60 rows of each kind, and each rule task has some", () => {
    for (const kind of KINDS) expect(heldOut.filter((row) => row.kind === kind).length, kind).toBe(60);
    const tasks = (rows: readonly Row[]) =>
      new Set(rows.filter(({ kind }) => kind === "rules").map(({ task }) => task));
    for (const part of [trained, heldOut]) expect(tasks(part)).toEqual(new Set(Object.keys(TASKS)));
  });
});

test("each training row is a question with one answer, and no prompt is trained on twice", () => {
  for (const row of trained) expect(evalRow.safeParse(row).success, promptOf(row)).toBe(true);
  expect(new Set(trained.map(promptOf)).size).toBe(trained.length);
});

test("prompts for the model's own answers: any beginning has twice as many plain ones as of another kind", () => {
  for (const n of [90, 450, 900]) {
    const first = prompts.slice(0, n);
    for (const kind of ["rules", "math", "python", "roleplay", "tools", "sql", "stories", "plain"])
      expect(first.filter((row) => row.kind === kind).length, kind).toBe((n / 9) * (kind === "plain" ? 2 : 1));
  }
});

test("further plain prompts: as they are made, and none of them held out or a question of the tests", () => {
  const further = read("plain-further.jsonl");
  expect(further).toEqual(furtherPrompts(knownPlainPrompts()));
  expect(() => checkDisjoint(further, heldOut)).not.toThrow();
});

test("own answers are to prompts of their side", () => {
  for (const [answers, asked] of [
    ["own.jsonl.gz", prompts],
    ["own-heldout.jsonl.gz", heldOut],
  ] as const) {
    const known = new Set(asked.map(promptOf));
    const rows = read<Row>(answers);
    expect(rows.length, answers).toBeGreaterThan(0);
    expect(
      rows.filter((row) => !known.has(promptOf(row)) || !row.output),
      answers,
    ).toEqual([]);
  }
});

test("plain questions for evaluation: 200, with answers, none among the plain prompts", () => {
  const questions = read<unknown>("questions.jsonl").map((row) => evalRow.parse(row));
  const asked = questions.map(({ instruction }) => sameWording(instruction));
  expect(new Set(asked).size).toBe(200);
  const plain = new Set(read("plain.jsonl").map(({ instruction }) => sameWording(instruction)));
  expect(asked.filter((question) => plain.has(question))).toEqual([]);
});
