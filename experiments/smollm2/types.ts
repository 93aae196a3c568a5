/**
 * What types of stored weights cost, by kind of matrix: forward KL from the same sub-network in F16, over held-out answers, in the engine that serves it.
 *
 *     npx tsx experiments/smollm2/types.ts RUN [--threads 2]
 *
 * RUN is a healed one, or a checkpoint, with one static mask: all is measured under the mask of one prompt. Two answers of each of eight kinds, 16 in all, of which the long ones weigh most.
 */
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { DEFAULT_ENGINES } from "../../src/answer/defaultEngines.ts";
import { InstructionModel } from "../../src/answer/instructionModel.ts";
import { packBundle } from "../../src/bundle/packBundle.ts";
import { openSubnetwork } from "../../src/bundle/subnetworkCache.ts";
import { OptionError } from "../../src/errors.ts";
import type { WeightType } from "../../src/formats/quantize.ts";
import type { Mask } from "../../src/mask/mask.ts";
import { compareFiles } from "../../src/specialize/quantized.ts";
import { checkpointFolders, loadModel, savedFormat } from "../../src/train/checkpoint.ts";
import { type HeldOutExample, heldOutExamples } from "../../src/train/heldOut.ts";
import { markdownTable } from "../report/markdown.ts";

/** Of embedding and attention, which has an embedding of Q8_0 with Q4_0, and of the FFN, where `down` has Q8_0 with Q4_0. */
const TYPES: readonly (readonly [rest: WeightType, ffn: WeightType])[] = [
  ["F16", "F16"],
  ["Q8_0", "F16"],
  ["Q4_0", "F16"],
  ["F16", "Q8_0"],
  ["F16", "Q4_0"],
  ["Q8_0", "Q8_0"],
  ["Q8_0", "Q4_0"],
  ["Q4_0", "Q4_0"],
];
const KINDS = ["rules", "sql", "math", "python", "roleplay", "tools", "stories", "code"];
const OF_EACH = 2;
const MAX_TOKENS = 256;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { threads: { type: "string", default: "2" } },
});
const [run] = positionals;
if (run === undefined) throw new OptionError("types.ts: wanted a checkpoint. See the head of the file.");
const checkpoint = checkpointFolders(run)[0] ?? run;
const threads = Number(values.threads);
const format = savedFormat(await loadModel(checkpoint), checkpoint);
const examples: HeldOutExample[] = [];
for (const kind of KINDS)
  examples.push(
    ...(await heldOutExamples(join(import.meta.dirname, `data/heldout/${kind}.jsonl`), format, MAX_TOKENS, OF_EACH)),
  );

const folder = mkdtempSync(join(tmpdir(), "ifprune-types-"));
try {
  const files: string[] = [];
  const bytes: number[] = [];
  let mask: Mask | undefined;
  for (const [rest, ffn] of TYPES) {
    const out = join(folder, `${rest}-${ffn}`);
    await packBundle(checkpoint, out, { type: rest, ffnType: ffn });
    using model = new InstructionModel(out);
    mask ??= (await model.mask("What is the capital of France?")).mask;
    files.push((await openSubnetwork(model.bundle, mask, { root: join(folder, "cache") })).path);
    bytes.push(["base.gguf", "ffn.gguf"].reduce((sum, name) => sum + statSync(join(out, name)).size, 0));
  }
  const found = await compareFiles(
    DEFAULT_ENGINES,
    files,
    examples,
    { threads },
    { signal: new AbortController().signal, onProgress: () => {} },
  );
  const lines = TYPES.slice(1).map(([rest, ffn], i) => {
    const { kl, agreement } = found[i]!;
    return [rest, ffn, (bytes[i + 1]! / 1e6).toFixed(0), kl.toFixed(4), agreement.toFixed(3)];
  });
  console.log(
    markdownTable(["embedding, attention", "FFN", "bundle, MB", "KL from F16", "same token"], lines).join("\n"),
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
