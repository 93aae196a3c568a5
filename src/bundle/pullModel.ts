/**
 * Bringing a model from the Hugging Face Hub. A repository that is a bundle is used where it lies in the Hub's cache; of a Hugging Face checkpoint or a
 * GGUF file a bundle is made in ours.
 */
import { copyFileSync, existsSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { FileError } from "../errors.ts";
import { checkNewFolder, checkWithin, makeFolder, makeFolders, removePartials } from "../files.ts";
import { HubSnapshot } from "../hub/hubSnapshot.ts";
import {
  addQuality,
  type BundleManifest,
  manifestHash,
  parseManifest,
  type Quality,
  readManifest,
} from "../manifest.ts";
import { makeCacheFolder } from "./cacheFolder.ts";
import { cardLicence, importModel } from "./importModel.ts";
import { bundleOf, pulledFolder, setPulled } from "./pulledModels.ts";
import { choosePullFiles } from "./pullFiles.ts";
import { verifyUnlessKnown } from "./verifiedFiles.ts";

/** How {@link pullModel} brings a model. */
export interface PullOptions {
  /** Branch, tag or commit. Default: "main". */
  revision?: string | undefined;
  /** Of a repository with GGUF files, the one to take. Default: Q8_0, else the next best type there is. */
  file?: string | undefined;
  /** A folder to make the bundle in. Default: one in our cache, where the id stands for it. */
  out?: string | undefined;
  /** Ask nobody, and make it of what is in the Hub's cache. Default: as `HF_HUB_OFFLINE` says, else false. */
  offline?: boolean | undefined;
  signal?: AbortSignal | undefined;
  /** Bytes done and all of a stage, first those that were done before. */
  onProgress?: ((stage: "download" | "import", done: number, total: number) => void) | undefined;
}

/** A model that was brought. */
export interface Pulled {
  /** Folder of the bundle. */
  path: string;
  /** 40 hexadecimal digits. */
  commit: string;
  /** Whether the bundle was made here, of a checkpoint or a GGUF file. */
  isImported: boolean;
  /** What was left out or chosen, for people. */
  notes: string[];
}

/**
 * Brings a model from the Hugging Face Hub into the cache that its Python tools share (`HF_HUB_CACHE`, `HF_HOME`), and makes a bundle of it; from then on
 * its id names that bundle wherever a bundle's folder is wanted. `HF_TOKEN` and `HF_ENDPOINT` are theirs too. Interrupted, it goes on where it stopped.
 *
 * @param id `OWNER/NAME`
 * @throws {HubError} if the Hub does not answer or refuses, or the repository has nothing that we read
 * @throws {FileError} if what came is damaged, of a model that we do not compute, or the disk is full
 * @throws {OptionError} if `out` exists, or the id or revision is not one
 */
export async function pullModel(id: string, options: PullOptions = {}): Promise<Pulled> {
  const { revision = "main", file, out, offline = isOfflineSet(), signal, onProgress } = options;
  if (out !== undefined) checkNewFolder(out, "pull"); // before anything is downloaded
  const snapshot = await HubSnapshot.open(id, { revision, offline, signal });
  const measured = readQuality(bundleOf(id));
  const { names, kind, notes } = await choosePullFiles(snapshot, file);
  await snapshot.bring(names, (done, total) => onProgress?.("download", done, total));
  const { commit, folder } = snapshot;
  if (kind === "bundle") {
    const manifest = readManifest(folder, "ifprune-bundle"); // with the sizes of what came
    if (measured?.hash === manifestHash(folder) && !isDeepStrictEqual(measured.quality, manifest.quality))
      addQuality(folder, measured.quality);
    const damaged = offline ? [] : await damagedFiles(folder, manifest, signal);
    if (damaged.length > 0) {
      snapshot.drop(damaged);
      await snapshot.bring(damaged, (done, total) => onProgress?.("download", done, total));
      await verifyUnlessKnown(folder, manifest, { signal });
    }
    if (out !== undefined) await makeFolder(out, "pull", async (partial) => copyFiles(folder, partial, names));
    else setPulled(id, folder);
    return { path: out ?? folder, commit, isImported: false, notes };
  }
  const source = kind === "checkpoint" ? folder : join(folder, kind.gguf);
  const name = kind === "checkpoint" ? commit : `${commit}-${kind.gguf.replace(/\.gguf$/, "").replaceAll("/", "--")}`;
  const path = out ?? join(pulledFolder(id), name);
  if (out === undefined) {
    makeCacheFolder(dirname(path));
    removePartials(dirname(path));
    if (existsSync(path) && !(await isWhole(path, signal))) rmSync(path, { recursive: true });
  }
  if (out !== undefined || !existsSync(path)) {
    try {
      const imported = await importModel(source, path, {
        name: id,
        licence: cardLicence(folder),
        signal,
        onProgress: (done, total) => onProgress?.("import", done, total),
      });
      notes.push(...imported.notes);
    } catch (error) {
      if (out !== undefined || !existsSync(path)) throw error; // else another process was faster
    }
  }
  if (out === undefined) setPulled(id, path);
  return { path, commit, isImported: true, notes };
}

/** What was measured here of a bundle: bringing its manifest anew takes it away. */
function readQuality(folder: string | undefined): { quality: Quality; hash: string } | undefined {
  if (folder === undefined) return undefined;
  try {
    const { quality } = parseManifest(folder, "ifprune-bundle");
    return quality && { quality, hash: manifestHash(folder) };
  } catch (error) {
    if (error instanceof FileError) return undefined; // none, or one that is brought anew
    throw error;
  }
}

/** Whether a bundle that was made here is still as it was made. */
async function isWhole(folder: string, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    await verifyUnlessKnown(folder, readManifest(folder, "ifprune-bundle"), { signal });
    return true;
  } catch (error) {
    if (error instanceof FileError) return false;
    throw error;
  }
}

/** Names of files that are not what the manifest says: the download of an earlier time may have come to harm since. */
async function damagedFiles(
  folder: string,
  { files }: Pick<BundleManifest, "files">,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const damaged: string[] = [];
  for (const [name, about] of Object.entries(files)) {
    try {
      await verifyUnlessKnown(folder, { files: { [name]: about } }, { signal });
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      damaged.push(name);
    }
  }
  return damaged;
}

/** As the Hub's Python tools read it. */
function isOfflineSet(): boolean {
  return /^(1|on|yes|true)$/i.test(process.env.HF_HUB_OFFLINE ?? "");
}

/** @param from a snapshot, whose links lead into the repository's folder in the cache */
function copyFiles(from: string, to: string, names: readonly string[]): void {
  for (const name of names) {
    checkWithin(join(from, name), dirname(dirname(from)));
    makeFolders(dirname(join(to, name)));
    copyFileSync(join(from, name), join(to, name));
  }
}
