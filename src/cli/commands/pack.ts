import { Command, Option } from "commander";
import type { WeightType } from "../../formats/quantize.ts";
import { blockFlag, late } from "./flags.ts";

export function packCommand(): Command {
  return new Command("pack")
    .description("Make a serving bundle of a checkpoint, or of the newest checkpoint of a run.")
    .argument("<checkpoint>", "checkpoint folder, or run folder")
    .argument("<out>", "bundle folder to make")
    .addOption(
      new Option("--type <type>", "type of the weights")
        .choices(["F32", "F16", "Q8_0"] satisfies WeightType[])
        .default("Q8_0"),
    )
    .addOption(
      new Option(
        "--ffn-type <type>",
        "type of the FFN's gate and up matrices, if another: they are most of a model",
      ).choices(["F32", "F16", "Q8_0", "Q4_0"] satisfies WeightType[]),
    )
    .addOption(blockFlag())
    .action(late(async () => (await import("../pack.ts")).packAction));
}
