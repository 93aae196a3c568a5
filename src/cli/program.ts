/** The `ifprune` command. `commands/` has the table of commands, which is cheap; an action loads the library when it runs, calls it and prints. */
import { Command, CommanderError } from "commander";
import { IfpruneError } from "../errors.ts";
import { version } from "../package.ts";
import { isNoPlace } from "../refusals.ts";
import { benchCommand } from "./commands/bench.ts";
import { chatCommand } from "./commands/chat.ts";
import { completionsCommand } from "./commands/completions.ts";
import { doctorCommand } from "./commands/doctor.ts";
import { estimateCommand } from "./commands/estimate.ts";
import { evalCommand } from "./commands/eval.ts";
import { exportCommand } from "./commands/export.ts";
import { generateCommand } from "./commands/generate.ts";
import { importCommand } from "./commands/import.ts";
import { maskCommand } from "./commands/mask.ts";
import { measureCommand } from "./commands/measure.ts";
import { packCommand } from "./commands/pack.ts";
import { pruneCommand } from "./commands/prune.ts";
import { pullCommand } from "./commands/pull.ts";
import { reportCommand } from "./commands/report.ts";
import { runCommand } from "./commands/run.ts";
import { serveCommand } from "./commands/serve.ts";
import { specializeCommand } from "./commands/specialize.ts";
import { trainCommand } from "./commands/train.ts";
import { verifyCommand } from "./commands/verify.ts";
import { outcome } from "./interruption.ts";

/** The whole command line, not yet run. */
export function ifprune(): Command {
  const program = new Command("ifprune")
    .description(
      "A language model that activates, for every instruction, only the part of itself that the instruction needs.",
    )
    .version(version)
    // one line or two of each command; the rest, and what it takes, is in its own help
    .configureHelp({
      subcommandTerm: (command) => command.name(),
      subcommandDescription: (command) => command.description().split(/(?<=\.) /, 1)[0]!,
    })
    .showHelpAfterError("(--help shows the options)")
    .exitOverride();
  for (const command of [
    runCommand,
    chatCommand,
    serveCommand,
    specializeCommand,
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
    measureCommand,
    exportCommand,
    verifyCommand,
    doctorCommand,
    completionsCommand,
  ]) {
    program.addCommand(command().copyInheritedSettings(program));
  }
  program.showHelpAfterError('(ifprune run "…" asks; --help lists the commands)');
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
    const { error: told, code } = outcome(error as Error);
    process.stderr.write(`ifprune: ${words(told)}\n`);
    return code;
  }
}

/** The message of an error that input can cause; of any other, which is a fault of ours, the stack as well. */
function words(error: Error): string {
  if (process.env.IFPRUNE_STACK) return error.stack ?? String(error);
  if (error instanceof IfpruneError || error.name === "AbortError") return error.message;
  const { syscall, path, code } = error as NodeJS.ErrnoException;
  if (!syscall) return error.stack ?? String(error);
  const hint = isNoPlace(error) ? "Is its disk full, or read-only?" : "Check the path and its permissions.";
  return `${path ?? "a file"}: wanted ${syscall} to work, got ${code}. ${hint}`;
}
