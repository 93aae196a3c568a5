import { verifyExport } from "../export/verify.ts";
import { interruption } from "./interruption.ts";
import { printJson } from "./options.ts";
import { Progress } from "./progress.ts";

/** `ifprune verify` */
export async function verifyAction(
  folder: string,
  { source, json }: { source?: string; json?: boolean },
): Promise<void> {
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
      : "weights not compared: the source's bundle is not where the export expects it, seen from its own folder; give it with --source\n",
  );
}
