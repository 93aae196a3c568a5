/** `--block` of `import` and `pack`: a bundle whose channels are put into blocks once it is made. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { findChannelGroups } from "../answer/channelGroups.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { Bundle } from "../bundle/bundle.ts";
import { checkGroupable, groupBundle } from "../bundle/groupBundle.ts";
import { residentBytes, residentFlaw } from "../bundle/residentModel.ts";
import { checkNewFolder, ownPartial } from "../files.ts";
import { percent } from "./options.ts";
import { Progress } from "./progress.ts";

/**
 * Makes a bundle, and puts its channels into blocks of `block` if that is given.
 *
 * @param operation for messages
 * @param make writes a bundle into a new folder: blocks are found by what it does, so it is written beside its place first
 * @param signal stops finding blocks
 */
export async function makeInBlocks(
  operation: string,
  out: string,
  block: number | undefined,
  make: (folder: string) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  if (block === undefined) return await make(out);
  checkNewFolder(out, operation);
  const first = `${resolve(out)}.ungrouped.${ownPartial()}`;
  try {
    await make(first);
    await group(operation, first, out, block, signal);
  } finally {
    rmSync(first, { recursive: true, force: true });
  }
}

/** A bundle with its channels in blocks, and what that is worth and costs. */
async function group(operation: string, path: string, out: string, block: number, signal: AbortSignal): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "ifprune-group-"));
  let progress: Progress | undefined;
  try {
    {
      using bundle = new Bundle(path);
      checkGroupable(bundle, operation);
    }
    using model = new InstructionModel(path);
    const onProgress = (done: number, total: number) => {
      progress ??= new Progress({ label: "blocks", total });
      progress.update(done);
    };
    const { order, kept } = await findChannelGroups(model, block, { cache: { root }, signal, onProgress });
    await groupBundle(model.bundle, order, block, out, signal);
    const [grouped, free, stored] = [kept.grouped, kept.free, kept.stored].map(percent);
    process.stderr.write(
      `Half of the channels, in blocks of ${block}, keep ${grouped} of what contributes to a prompt; one by one they keep ${free}, in blocks as stored ${stored}.\n`,
    );
  } finally {
    progress?.finish();
    rmSync(root, { recursive: true, force: true });
  }
  using bundle = new Bundle(out);
  process.stderr.write(`${sizeWords(bundle)}\n`);
}

/** What the resident form takes of the disk. */
function sizeWords(bundle: Bundle): string {
  const flaw = residentFlaw(bundle);
  if (flaw !== undefined) return `It has no resident form: ${flaw}. Its masks are gathered.`;
  const mb = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`;
  const own = Object.values(bundle.manifest.files).reduce((sum, { bytes }) => sum + bytes, 0);
  return `The bundle has ${mb(own)}; its resident form takes ${mb(residentBytes(bundle))} of the cache when it is first wanted.`;
}
