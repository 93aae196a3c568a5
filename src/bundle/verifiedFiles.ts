/**
 * Files that hold what a manifest says, so that gigabytes are hashed once and not at each start: what was read is known from then on by its device,
 * inode, size and times, in this process and, by empty files in a cache, in later ones. Programs can set a file's time of modification, but not
 * that of its last change of any kind.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FileError } from "../errors.ts";
import { type CheckpointManifest, checkSizes, type VerifyFilesOptions, verifyFiles } from "../manifest.ts";
import { cacheRoot, makeCacheFolder } from "./cacheFolder.ts";

type Files = CheckpointManifest["files"];

const known = new Set<string>();
/** A file may change twice within one tick of its clock: what changed so lately is not remembered. */
const settledMs = 2000;
/** States on disk; where there are more, any half of them go. */
const maxRemembered = 2048;

/**
 * Checks files of a folder against their hashes, and reads only those that are not known to be right.
 *
 * @throws {FileError} for the first that is missing, changed or damaged
 */
export async function verifyUnlessKnown(
  folder: string,
  { files }: { files: Files },
  { signal, onProgress }: VerifyFilesOptions = {},
): Promise<void> {
  checkSizes(folder, { files });
  const unknown = Object.entries(files)
    .map(([name, about]) => ({ name, about, state: stateOf(join(folder, name), about.sha256) }))
    .filter(({ state }) => !isKnown(state.key));
  const total = unknown.reduce((sum, { about }) => sum + about.bytes, 0);
  let before = 0;
  for (const { name, about, state } of unknown) {
    await verifyFiles(
      folder,
      { files: { [name]: about } },
      { signal, onProgress: (done) => onProgress?.(before + done, total) },
    );
    before += about.bytes;
    if (state.isSettled && stateOf(join(folder, name), about.sha256).key === state.key) remember(state.key);
  }
}

/** What identifies a file's content while nobody writes to it, with the hash that it shall have. */
function stateOf(path: string, sha256: string): { key: string; isSettled: boolean } {
  const { dev, ino, size, mtimeNs, ctimeNs, ctimeMs } = statSync(path, { bigint: true });
  const state = [dev, ino, size, mtimeNs, ctimeNs, sha256].join(" ");
  const key = createHash("sha256").update(state).digest("hex").slice(0, 32);
  return { key, isSettled: Number(ctimeMs) < Date.now() - settledMs };
}

const knownFolder = () => cacheRoot("verified");

function isKnown(key: string): boolean {
  return known.has(key) || existsSync(join(knownFolder(), key));
}

function remember(key: string): void {
  known.add(key);
  const folder = knownFolder();
  try {
    makeCacheFolder(folder);
    writeFileSync(join(folder, key), "");
    const names = readdirSync(folder);
    if (names.length > maxRemembered) for (const name of names.slice(0, maxRemembered / 2)) rmSync(join(folder, name));
  } catch (error) {
    if (!(error instanceof FileError) && (error as NodeJS.ErrnoException).code === undefined) throw error;
    // Where the cache cannot be written, the next process reads the file again.
  }
}
