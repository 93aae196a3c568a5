/** The command line as a user starts it: a process of its own. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

export const repository = fileURLToPath(new URL("../../", import.meta.url));
const entry = fileURLToPath(new URL("../../bin/ifprune.js", import.meta.url));

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface CliOptions {
  cwd?: string;
  env?: Record<string, string>;
  /** Sends SIGINT once stderr has matched. */
  interruptAt?: RegExp;
}

export function ifprune(args: readonly string[], { cwd, env, interruptAt }: CliOptions = {}): Promise<Ended> {
  const child = spawn(process.execPath, [entry, ...args], { cwd, env: { ...process.env, ...env }, stdio: "pipe" });
  const ended: Ended = { code: null, stdout: "", stderr: "" };
  child.stdin.end();
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    ended.stdout += text;
  });
  let isInterrupted = false;
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    ended.stderr += text;
    if (interruptAt?.test(ended.stderr) && !isInterrupted) {
      isInterrupted = true;
      child.kill("SIGINT");
    }
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ ...ended, code }));
  });
}
