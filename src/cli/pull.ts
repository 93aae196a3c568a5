import { pullModel } from "../bundle/pullModel.ts";
import { readManifest } from "../manifest.ts";
import { shellWord } from "../words.ts";
import { interruption } from "./interruption.ts";
import { measureBundle } from "./measuring.ts";
import { Progress } from "./progress.ts";

interface Options {
  revision?: string;
  file?: string;
  out?: string;
  offline?: boolean;
  measure: boolean;
}

/** `ifprune pull` */
export async function pullAction(id: string, { measure, ...options }: Options): Promise<void> {
  const signal = interruption("pull: stopped. What came stays: run it again to go on.");
  let shown: { stage: string; progress: Progress } | undefined;
  const onProgress = (stage: "download" | "import", done: number, total: number) => {
    if (shown?.stage === stage) return shown.progress.update(done);
    shown?.progress.finish();
    shown = { stage, progress: new Progress({ label: stage, total, done, unit: "bytes" }) };
  };
  const { path, notes, isImported } = await pullModel(id, { ...options, signal, onProgress }).finally(() =>
    shown?.progress.finish(),
  );
  for (const note of notes) process.stderr.write(`${note}\n`);
  if (isImported && measure && readManifest(path, "ifprune-bundle").quality === undefined) await measureBundle(path);
  const name = options.out ?? id;
  process.stderr.write(`${path}: bundle. Ask it: ifprune run --model ${shellWord(name)} "Name three rivers."\n`);
}
