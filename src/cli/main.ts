/** The `ifprune` command: one file per command in this folder, each parses, calls the library and prints. */
import { Command, CommanderError } from "commander";
import packageJson from "../../package.json" with { type: "json" };
import { IfpruneError } from "../errors.ts";
import { evalCommand } from "./eval.ts";
import { importCommand } from "./import.ts";
import { maskCommand } from "./mask.ts";
import { packCommand } from "./pack.ts";
import { reportCommand } from "./report.ts";
import { runCommand } from "./run.ts";
import { trainCommand } from "./train.ts";

const program = new Command("ifprune")
  .description(
    "A language model that activates, for every instruction, only the part of itself that the instruction needs.",
  )
  .version(packageJson.version)
  .showHelpAfterError("(--help shows the options)")
  .exitOverride();
for (const command of [runCommand, maskCommand, trainCommand, evalCommand, reportCommand, packCommand, importCommand]) {
  program.addCommand(command().copyInheritedSettings(program));
}

try {
  await program.parseAsync();
  process.exit(process.exitCode ?? 0); // llama.cpp and ONNX Runtime keep threads that would hold the process
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode);
  const isExpected = error instanceof IfpruneError || (error as Error).name === "AbortError";
  const text =
    isExpected && !process.env.IFPRUNE_STACK ? (error as Error).message : ((error as Error).stack ?? String(error));
  process.stderr.write(`ifprune: ${text}\n`);
  process.exit(1);
}
