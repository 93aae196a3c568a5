import { appendFileSync, mkdtempSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
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

test("the checkpoint counts: a log that is shorter goes on after its last whole line, and says what is lost", () => {
  let bytes: number;
  {
    using log = new RunLog(path, 0);
    for (const step of [1, 2, 3]) log.append(row(step));
    bytes = log.bytes;
  }
  const line = bytes / 3;
  truncateSync(path, Math.floor(2.5 * line));
  {
    using log = new RunLog(path, bytes);
    expect([log.bytes, log.lostBytes]).toEqual([2 * line, line]);
    log.append(row(4));
  }
  expect(readRunLog(path)).toEqual([row(1), row(2), row(4)]);
  rmSync(path);
  using log = new RunLog(path, bytes);
  expect([log.bytes, log.lostBytes]).toEqual([0, bytes]);
});

test("a log that is a link to elsewhere is refused, and what it leads to is left as it is", () => {
  const other = join(folder, "other");
  writeFileSync(other, "kept");
  symlinkSync(other, path);
  expect(() => new RunLog(path, 0)).toThrow(/wanted to write here, got a link to elsewhere/);
  expect(readFileSync(other, "utf8")).toBe("kept");
});

test("lines that are no rows are named by their number", () => {
  expect(() => readRunLog(path)).toThrow(FileError);
  writeFileSync(path, `${JSON.stringify(row(1))}\nnot JSON\n`);
  expect(() => readRunLog(path)).toThrow(/line 2: wanted JSON/);
  writeFileSync(path, `${JSON.stringify(row(1))}\n{"kind":"other"}\n`);
  expect(() => readRunLog(path)).toThrow(/line 2: .*kind/s);
});
