import { Command } from "commander";
import { packBundle } from "../bundle/packBundle.ts";
import type { WeightType } from "../formats/ggufModel.ts";
import { checkpointFolders } from "../train/checkpoint.ts";
import { oneOf } from "./options.ts";

export function packCommand(): Command {
  return new Command("pack")
    .description("Make a serving bundle of a checkpoint, or of the newest checkpoint of a run.")
    .argument("<checkpoint>", "checkpoint folder, or run folder")
    .argument("<out>", "bundle folder to make")
    .option(
      "--type <type>",
      "type of the weights: F32, F16 or Q8_0",
      oneOf(["F32", "F16", "Q8_0"] satisfies WeightType[]),
      "Q8_0",
    )
    .action(async (checkpoint: string, out: string, { type }: { type: WeightType }) => {
      await packBundle(checkpointFolders(checkpoint)[0] ?? checkpoint, out, { type });
      process.stderr.write(`${out}: ${type} bundle\n`);
    });
}
