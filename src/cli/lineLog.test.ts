import { spawn } from "node:child_process";
import { Writable } from "node:stream";
import { text } from "node:stream/consumers";
import { expect, test } from "vitest";
import { LineLog, MAX_WAITING } from "./lineLog.ts";

test("what a reader does not take is left out, counted, and said once it reads on", () => {
  const taken: string[] = [];
  const waiting: (() => void)[] = [];
  const stream = new Writable({
    write(chunk, _, done) {
      taken.push(String(chunk));
      waiting.push(done);
    },
  });
  const log = new LineLog(stream);
  const line = "x".repeat(1023);
  for (let i = 0; i < 2000; i++) log.write(line);
  expect(stream.writableLength).toBeLessThan(MAX_WAITING + 2048);

  const numWaiting = stream.writableLength / 1024;
  const read = (count: number) => {
    for (let i = 0; i < count; i++) waiting.shift()!();
  };
  read(100); // not much: nothing new is taken yet
  log.write(line);
  expect(stream.writableLength).toBe(1024 * (numWaiting - 100));
  read(numWaiting - 100);
  log.write("after");
  read(1);
  expect(taken.slice(-2)).toEqual([`${2001 - numWaiting} lines are left out here, as nobody read them.\n`, "after\n"]);
});

test("a process whose stderr nobody reads goes on", async () => {
  const url = new URL("./lineLog.ts", import.meta.url);
  const code = `import { openLog } from ${JSON.stringify(url.href)};
    const log = openLog();
    for (let i = 0; i < 20_000; i++) log.write("x".repeat(200));
    process.stdout.write(String(process.stderr.writableLength), () => process.exit(0));`;
  const args = ["--import", "tsx", "--input-type=module", "--eval", code];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  expect(Number(await text(child.stdout))).toBeLessThan(MAX_WAITING + 1024);
  child.stderr.destroy();
});
