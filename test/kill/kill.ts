/** Runs a program and kills or interrupts it inside one of its writes, at a moment that repeats. */
import { spawn } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";

export interface KilledRun {
  /** `SIGKILL` if the process came as far as the moment. */
  signal: NodeJS.Signals | null;
  code: number | null;
  stdout: string;
  stderr: string;
  /** Writing calls, in order, of a process that ended by itself. */
  calls: [name: string, path: string][];
}

/**
 * @param under folder whose writes count
 * @param killAt number of the call that the signal comes in, from 1; absent: never
 * @param by SIGKILL ends the process there; SIGINT is its to handle; ENOSPC is a disk that is full from there on
 * @param laterMs kill it so long after that call instead, whatever it then does: in the time of this process, which waits for it
 */
export async function runKilled(
  program: string,
  args: readonly string[],
  {
    under,
    killAt,
    by = "SIGKILL",
    laterMs,
  }: {
    under: string;
    killAt?: number | undefined;
    by?: "SIGKILL" | "SIGINT" | "ENOSPC";
    laterMs?: number | undefined;
  },
): Promise<KilledRun> {
  const report = `${under}.calls.json`;
  const preload = new URL("preload.js", import.meta.url).href;
  const imports = [...(program.endsWith(".ts") ? ["--import", "tsx"] : []), "--import", preload];
  const child = spawn(process.execPath, [...imports, program, ...args], {
    cwd: fileURLToPath(new URL("../..", import.meta.url)),
    env: {
      ...process.env,
      KILL_UNDER: under,
      KILL_REPORT: report,
      KILL_BY: laterMs === undefined ? by : "parent",
      ...(killAt && { KILL_AT: String(killAt) }),
    },
    stdio: ["ignore", "pipe", "pipe", laterMs === undefined ? "ignore" : "pipe"],
  });
  child.stdio[3]?.once("data", () => setTimeout(() => child.kill("SIGKILL"), laterMs));
  const ended = new Promise<[number | null, NodeJS.Signals | null]>((done) => child.on("close", (...how) => done(how)));
  const [stdout, stderr, [code, signal]] = await Promise.all([text(child.stdout!), text(child.stderr!), ended]);
  // what is killed may be at its report
  const calls = signal === null && existsSync(report) ? JSON.parse(readFileSync(report, "utf8")) : [];
  rmSync(report, { force: true });
  return { signal, code, stdout, stderr, calls };
}

/** Fails with the program's own words unless it ended well or was killed. */
export function expectKilledOrDone({ signal, code, stderr }: KilledRun): void {
  if (signal !== "SIGKILL" && code !== 0) throw new Error(`the program ended with ${signal ?? code}:\n${stderr}`);
}
