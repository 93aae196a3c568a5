import { Command } from "commander";
import { late } from "./flags.ts";

export function verifyCommand(): Command {
  return new Command("verify")
    .description(
      "Check an export: that no file was changed, that its models open, and that every weight is the one of the bundle and the mask that it was made of.",
    )
    .argument("<dir>", "folder that `ifprune export` made")
    .option("--source <bundle>", "the source's bundle folder (default: where it was at the time of the export)")
    .option("--json", "print what was checked as one JSON document")
    .action(late(async () => (await import("../verify.ts")).verifyAction));
}
