import { afterEach, expect, test, vi } from "vitest";
import { Progress, type ProgressStream, Waiting } from "./progress.ts";

/** A stream that keeps what is written, and a clock that stands still until it is set. */
function setUp(stream: Partial<ProgressStream>) {
  const written: string[] = [];
  const clock = { ms: 0 };
  return { written, clock, stream: { ...stream, write: (text: string) => written.push(text) }, now: () => clock.ms };
}

test("elsewhere than on a terminal: the first step, one every 10 s, and the last, each a plain line", () => {
  const { written, clock, stream, now } = setUp({});
  const progress = new Progress({ label: "sft", total: 4000, stream, now });
  for (let step = 1; step <= 4000; step++) {
    clock.ms = step * 10;
    progress.update(step, (seconds) => `${(50 * step) / seconds} tokens/s`);
  }
  progress.finish();
  expect(written).toEqual([
    "sft 1/4000 (0 %)  5000 tokens/s  ETA 00:40\n",
    "sft 1001/4000 (25 %)  5000 tokens/s  ETA 00:30\n",
    "sft 2001/4000 (50 %)  5000 tokens/s  ETA 00:20\n",
    "sft 3001/4000 (75 %)  5000 tokens/s  ETA 00:10\n",
    "sft 4000/4000 (100 %)  5000 tokens/s  done in 00:40\n",
  ]);
});

test("a resumed job judges its speed by its own steps only", () => {
  const { written, clock, stream, now } = setUp({});
  const progress = new Progress({ label: "sft", total: 1000, done: 900, stream, now });
  progress.update(900);
  clock.ms = 60_000;
  progress.update(901);
  expect(written).toEqual(["sft 900/1000 (90 %)  ETA ?\n", "sft 901/1000 (90 %)  ETA 1:39:00\n"]);
});

test("on a terminal one line is redrawn, never longer than the screen, and notes go above it", () => {
  const { written, clock, stream, now } = setUp({ isTTY: true, columns: 30 });
  const progress = new Progress({ label: "sft", total: 10, stream, now });
  clock.ms = 1000;
  progress.update(1, () => "loss 1.000  20 tokens/s");
  clock.ms = 1050;
  progress.update(2); // too soon
  progress.note("saved");
  progress.finish();
  const line = "\r\x1b[2Ksft 1/10 (10 %)  loss 1.000  ";
  expect(written).toEqual([line, "\r\x1b[2Ksaved\n", line, "\n"]);
});

test("bytes are shown as such", () => {
  const { written, clock, stream, now } = setUp({});
  const progress = new Progress({ label: "import", total: 8e9, unit: "bytes", stream, now });
  clock.ms = 2000;
  progress.update(1e9);
  expect(written).toEqual(["import 1.00/8.00 GB (12 %)  ETA 00:14\n"]);
});

afterEach(() => void vi.useRealTimers());

test("a wait shows itself from half a second on, moves, changes its words, and goes away", () => {
  vi.useFakeTimers();
  const { written, stream } = setUp({ isTTY: true, columns: 30 });
  const waiting = new Waiting("loading", { stream });
  vi.advanceTimersByTime(499);
  expect(written).toEqual([]);
  vi.advanceTimersByTime(201);
  expect(written.length).toBeGreaterThan(1);
  expect(new Set(written).size).toBe(written.length); // it moves
  const clear = "\r\x1b[2K";
  const shown = () => written.map((line) => line.replace(clear, ""));
  for (const line of shown()) expect(line).toMatch(/^\S loading …$/);
  waiting.say("reading a very, very long prompt");
  expect(shown().at(-1)).toMatch(/^\S reading a very, very long p$/); // no longer than the screen
  waiting.note("told\n");
  expect(written.at(-1)).toBe(`${clear}told\n`);
  vi.advanceTimersByTime(100);
  expect(shown().at(-1)).toMatch(/^\S reading/);
  waiting.end();
  expect(written.at(-1)).toBe(clear);
  const { length } = written;
  waiting.end();
  vi.advanceTimersByTime(1000);
  expect(written).toHaveLength(length);
});

test("a short wait, one elsewhere than on a terminal, and one for a program show nothing", () => {
  vi.useFakeTimers();
  const terminal = setUp({ isTTY: true });
  const file = setUp({});
  {
    using _ = new Waiting("loading", { stream: terminal.stream });
    vi.advanceTimersByTime(400);
  }
  for (const waiting of [
    new Waiting("loading", { stream: file.stream }),
    new Waiting("loading", { stream: terminal.stream, isQuiet: true }),
  ]) {
    vi.advanceTimersByTime(2000);
    waiting.say("more");
    waiting.note("");
    waiting.end();
  }
  expect([...terminal.written, ...file.written].join("")).toBe("");
});
