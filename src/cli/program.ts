/** The `ifprune` command: one file per command in this folder, each parses, calls the library and prints. */
import { Command, CommanderError } from "commander";
import { IfpruneError } from "../errors.ts";
import { version } from "../package.ts";
import { benchCommand } from "./bench.ts";
import { chatCommand } from "./chat.ts";
import { estimateCommand } from "./estimate.ts";
import { evalCommand } from "./eval.ts";
import { exportCommand } from "./export.ts";
import { generateCommand } from "./generate.ts";
import { importCommand } from "./import.ts";
import { maskCommand } from "./mask.ts";
import { packCommand } from "./pack.ts";
import { pruneCommand } from "./prune.ts";
import { pullCommand } from "./pull.ts";
import { reportCommand } from "./report.ts";
import { runCommand } from "./run.ts";
import { serveCommand } from "./serve.ts";
import { trainCommand } from "./train.ts";
import { verifyCommand } from "./verify.ts";

/** The whole command line, not yet run. */
export function ifprune(): Command {
  const program = new Command("ifprune")
    .description(
      "A language model that activates, for every instruction, only the part of itself that the instruction needs.",
    )
    .version(version)
    .showHelpAfterError("(--help shows the options)")
    .exitOverride();
  for (const command of [
    runCommand,
    chatCommand,
    serveCommand,
    maskCommand,
    trainCommand,
    evalCommand,
    generateCommand,
    estimateCommand,
    benchCommand,
    reportCommand,
    packCommand,
    pruneCommand,
    pullCommand,
    importCommand,
    exportCommand,
    verifyCommand,
  ]) {
    program.addCommand(command().copyInheritedSettings(program));
  }
  return program;
}

/**
 * Runs one command line; errors become a line on stderr. With `IFPRUNE_STACK` set, its stack too.
 *
 * @param args what follows `ifprune`
 * @returns the exit code
 */
export async function runProgram(args: readonly string[]): Promise<number> {
  try {
    await ifprune().parseAsync(args, { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode;
    process.stderr.write(`ifprune: ${words(error as Error)}\n`);
    return 1;
  }
}

/** The message of an error that input can cause; of any other, which is a fault of ours, the stack as well. */
function words(error: Error): string {
  if (process.env.IFPRUNE_STACK) return error.stack ?? String(error);
  if (error instanceof IfpruneError || error.name === "AbortError") return error.message;
  const { syscall, path, code } = error as NodeJS.ErrnoException;
  if (syscall && path) return `${path}: wanted ${syscall} to work, got ${code}. Check the path and its permissions.`;
  return error.stack ?? String(error);
}
