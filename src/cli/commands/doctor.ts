import { Command } from "commander";
import { lateWithEngine } from "./flags.ts";

export function doctorCommand(): Command {
  return new Command("doctor")
    .description(
      "Say what this machine has of what some uses need: the processor's kernels, memory, disk, GPU, browser, Python, optional packages, caches, models. Ends with 1 if what every use needs is missing.",
    )
    .option("--json", "print one JSON document")
    .action(lateWithEngine(async () => (await import("../doctor.ts")).doctorAction));
}
