import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeEach, expect, test } from "vitest";
import { FileError } from "../errors.ts";
import { RunLog, readRunLog, type TrainRow } from "./runLog.ts";

const folder = mkdtempSync(join(tmpdir(), "run-log-"));
const path = join(folder, "metrics.jsonl");
beforeEach(() => rmSync(path, { force: true }));
afterAll(() => rmSync(folder, { recursive: true }));

function row(step: number, loss = 1): TrainRow {
  return {
    kind: "train",
    step,
    stage: "Übung",
    loss,
    tokens: 3,
    labels: 2,
    positions: 4,
    gradientNorm: 0.5,
    learningRate: { llm: 1e-3 },
    ms: 1,
  };
}

test("a resumed log is that of a run that was never interrupted, wherever it was cut, seed 4", () => {
  const losses = fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(losses, fc.nat(7), fc.string(), (all, checkpoint, halfLine) => {
      rmSync(path, { force: true });
      let bytes = 0;
      {
        using log = new RunLog(path, 0);
        for (const [i, loss] of all.entries()) {
          if (i === checkpoint) bytes = log.bytes;
          log.append(row(i, loss));
        }
      }
      const whole = readFileSync(path);
      appendFileSync(path, halfLine);
      {
        using log = new RunLog(path, bytes);
        const from = bytes === 0 ? 0 : checkpoint;
        for (const [i, loss] of all.entries()) if (i >= from) log.append(row(i, loss));
        expect(log.bytes).toBe(whole.length);
      }
      expect(readFileSync(path).equals(whole)).toBe(true);
      expect(readRunLog(path)).toEqual(all.map((loss, i) => row(i, loss + 0))); // JSON has no -0
    }),
    { seed: 4 },
  );
});

test("rows are there for readers at once, and a line that is being written is left out", () => {
  using log = new RunLog(path, 0);
  log.append(row(1));
  expect(readRunLog(path)).toEqual([row(1)]);
  appendFileSync(path, '{"kind":"tr');
  expect(readRunLog(path)).toEqual([row(1)]);
});

test("a log shorter than at the checkpoint is refused and left as it is", () => {
  writeFileSync(path, "123");
  expect(() => new RunLog(path, 4)).toThrow(FileError);
  expect(() => new RunLog(path, 4)).toThrow(/wanted at least 4 bytes as at the checkpoint, got 3/);
  expect(readFileSync(path, "utf8")).toBe("123");
});

test("lines that are no rows are named by their number", () => {
  expect(() => readRunLog(path)).toThrow(FileError);
  writeFileSync(path, `${JSON.stringify(row(1))}\nnot JSON\n`);
  expect(() => readRunLog(path)).toThrow(/line 2: wanted JSON/);
  writeFileSync(path, `${JSON.stringify(row(1))}\n{"kind":"other"}\n`);
  expect(() => readRunLog(path)).toThrow(/line 2: .*kind/s);
});
