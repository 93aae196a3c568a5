/** The command line as a user starts it: a process of its own. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { vi } from "vitest";
import { runProgram } from "../../src/cli/program.ts";

export const entry = fileURLToPath(new URL("../../bin/ifprune.js", import.meta.url));

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface CliOptions {
  cwd?: string;
  env?: Record<string, string>;
  /** Standard input. */
  input?: string | Uint8Array;
}

export function ifprune(args: readonly string[], { cwd, env, input }: CliOptions = {}): Promise<Ended> {
  const child = spawn(process.execPath, [entry, ...args], { cwd, env: { ...process.env, ...env }, stdio: "pipe" });
  const ended: Ended = { code: null, stdout: "", stderr: "" };
  child.stdin.end(input);
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    ended.stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    ended.stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ ...ended, code }));
  });
}

/** The same in this process, which saves its start. */
export async function inProcess(...args: readonly string[]): Promise<Ended> {
  const ended: Ended = { code: null, stdout: "", stderr: "" };
  const spies = (["stdout", "stderr"] as const).map((name) =>
    vi.spyOn(process[name], "write").mockImplementation((text) => {
      ended[name] += text;
      return true;
    }),
  );
  try {
    ended.code = await runProgram(args);
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
  return ended;
}

/** The standard output of a command that must succeed, here. */
export async function succeed(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await inProcess(...args);
  if (code !== 0) throw new Error(`ifprune ${args.join(" ")}: exit code ${code}\n${stderr}`);
  return stdout;
}
