import { Command } from "commander";
import { verifyExport } from "../export/verify.ts";
import { interruption, printJson } from "./options.ts";
import { Progress } from "./progress.ts";

export function verifyCommand(): Command {
  return new Command("verify")
    .description(
      "Check an export: that no file was changed, that its models open, and that every weight is the one of the bundle and the mask that it was made of.",
    )
    .argument("<dir>", "folder that `ifprune export` made")
    .option("--source <bundle>", "the source's bundle folder (default: where it was at the time of the export)")
    .option("--json", "print what was checked as one JSON document")
    .action(verify);
}

async function verify(folder: string, { source, json }: { source?: string; json?: boolean }): Promise<void> {
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number) => {
    progress ??= new Progress({ label: "verify", total, unit: "bytes" });
    progress.update(done);
  };
  const checked = await verifyExport(folder, { bundle: source, signal: interruption(), onProgress }).finally(() =>
    progress?.finish(),
  );
  if (json) return printJson(checked);
  const { files, models, source: compared } = checked;
  const names = models.map((name) => (name === "hf" ? "Hugging Face folder" : "GGUF"));
  process.stdout.write(`${files} files unchanged; opened: ${names.join(", ")}\n`);
  process.stdout.write(
    compared
      ? `${compared.tensors} tensors equal, byte for byte, to those made anew of ${compared.path}\n`
      : "weights not compared: the source's bundle is not where it was; give it with --source\n",
  );
}
