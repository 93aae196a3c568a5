import { execFile } from "node:child_process";
import { accessSync, constants, existsSync, lstatSync, readdirSync, statfsSync, statSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { CommanderError } from "commander";
import { DEFAULT_ENGINES } from "../answer/defaultEngines.ts";
import { cacheRoot } from "../bundle/cacheFolder.ts";
import { availableBytes, byteSize } from "../bundle/memory.ts";
import { DEFAULT_MODEL, modelFolder, packageName, pulledIds, TINY_MODEL } from "../bundle/pulledModels.ts";
import { loadOnnxRuntime } from "../graph/onnxRuntime.ts";
import { readManifest } from "../manifest.ts";
import { loadPeer, peerDependencies, version } from "../package.ts";
import { isPageBuilt } from "../serve/http/page.ts";
import { printJson } from "./options.ts";

/** Something that is there or not. */
export interface Finding {
  name: string;
  /** What it is, where there is something. */
  found?: string;
  /** What to do without it. */
  missing?: string;
  /** What it is for. */
  for: string;
  /** Whether every use needs it. */
  isNeeded?: boolean;
}

/** `ifprune doctor` */
export async function doctorAction({ json }: { json?: boolean }): Promise<void> {
  const findings = (
    await Promise.all([ours(), machine(), engine(), browser(), python(), packages(), storage()])
  ).flat();
  if (json) printJson({ version, findings });
  else process.stdout.write(findings.map(line).join(""));
  if (findings.some(isFatal)) throw new CommanderError(1, "ifprune.doctor", "what every use needs is missing"); // it was said
}

const isFatal = ({ found, isNeeded }: Finding) => isNeeded === true && found === undefined;

function line(finding: Finding): string {
  const { name, found, missing, for: use } = finding;
  const mark = found === undefined ? (isFatal(finding) ? "✗" : "–") : "✓";
  return `${mark} ${name.padEnd(18)} ${found ?? `not found${missing ? `: ${missing}` : ""}`} (${use})\n`;
}

function ours(): Finding[] {
  const use = "runs everything; 20.19 or later";
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const isNew = major > 20 || (major === 20 && minor >= 19);
  const node = { name: "Node.js", for: use, isNeeded: true };
  return [
    { name: "ifprune", found: version, for: "this program" },
    isNew
      ? { ...node, found: process.version }
      : { ...node, missing: `wanted Node.js 20.19 or later, got ${process.version}. Install one` },
  ];
}

function machine(): Finding[] {
  const cores = availableParallelism();
  return [
    { name: "processor", found: `${cpus()[0]?.model.trim() ?? process.arch}, ${cores} cores`, for: "computes" },
    { name: "memory", found: `${byteSize(availableBytes())} available`, for: "holds models" },
  ];
}

async function engine(): Promise<Finding[]> {
  try {
    const { name, processor, gpu } = await DEFAULT_ENGINES.describe("auto");
    const graphics = { name: "GPU", for: "faster answers, where asked for by the API" };
    return [
      { name: "engine", found: name, for: "runs models", isNeeded: true },
      { name: "kernels", found: processor.replaceAll(/ = 1| \|$/g, ""), for: "of the processor, that the engine uses" },
      gpu ? { ...graphics, found: gpu } : { ...graphics, missing: "the engine found none that it has kernels for" },
    ];
  } catch (error) {
    const missing = `${(error as Error).message}. Install again: npm ci`;
    return [{ name: "engine", missing, for: "runs models", isNeeded: true }];
  }
}

function browser(): Finding[] {
  const names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome"];
  const path = names.flatMap((name) => onPath(name) ?? [])[0];
  const about = { name: "Chromium", for: "tests of the page" };
  return [
    path
      ? { ...about, found: path }
      : { ...about, missing: "install it, as with apt-get install chromium-headless-shell" },
  ];
}

/** Packages that evaluation, and training on a GPU, use; asked for without loading them, which takes seconds. */
async function python(): Promise<Finding[]> {
  const modules = {
    torch: "trains on a GPU",
    transformers: "reads exports, to compare",
    "lm-eval": "scores a served model on public tasks",
  };
  const names = Object.keys(modules) as (keyof typeof modules)[];
  const script = `import json, sys
from importlib import metadata
def version(name):
    try: return metadata.version(name)
    except metadata.PackageNotFoundError: return None
print(json.dumps({"python": sys.version.split()[0], **{name: version(name) for name in ${JSON.stringify(names)}}}))`;
  let found: Record<string, string | null> = {};
  try {
    const { stdout } = await promisify(execFile)("python3", ["-c", script], { timeout: 10_000 });
    found = JSON.parse(stdout);
  } catch {
    // there is none, or it does not answer
  }
  const finding = (name: string, use: string, missing: string): Finding =>
    found[name] ? { name, found: found[name], for: use } : { name, missing, for: use };
  return [
    finding("python", "what stands below", "python3 did not answer. Install Python 3"),
    ...names.map((name) => finding(name, modules[name], `pip install ${name}`)),
  ];
}

async function packages(): Promise<Finding[]> {
  const peers = {
    "onnxruntime-node": { use: "training; masks by activations", load: loadOnnxRuntime },
    tokenizers: { use: "training tokenizers", load: () => import("tokenizers") },
  };
  return Promise.all(
    Object.entries(peers).map(async ([name, { use, load }]): Promise<Finding> => {
      const wanted = peerDependencies[name]!;
      try {
        await loadPeer<unknown>(name, use, load);
        return { name, found: wanted, for: use };
      } catch {
        return { name, missing: `npm install --ignore-scripts ${name}@${wanted}`, for: use };
      }
    }),
  );
}

function storage(): Finding[] {
  const root = dirname(cacheRoot("models"));
  const caches = ["models", "subnetworks", "scores"].map((name) => `${name} ${byteSize(bytesIn(cacheRoot(name)))}`);
  const use = "what is made once is found again there";
  const there = firstThere(root);
  const models = new Set([DEFAULT_MODEL, TINY_MODEL, ...pulledIds()]);
  const page = { name: "page", for: "chat in a browser, by `ifprune serve`" };
  return [
    isWritable(there)
      ? { name: "cache", found: `${root}: ${caches.join(", ")}`, for: use, isNeeded: true }
      : { name: "cache", missing: `${root} cannot be written. Set XDG_CACHE_HOME`, for: use, isNeeded: true },
    { name: "disk", found: `${byteSize(freeBytes(there))} free for the cache`, for: "models and sub-networks" },
    isPageBuilt() ? { ...page, found: "built" } : { ...page, missing: "serve builds it once" },
    ...[...models].map(model),
  ];
}

function model(name: string): Finding {
  const use = name === DEFAULT_MODEL ? "answers unless another is named" : `--model ${packageName(name) ?? name}`;
  const about = { name: "model", for: use };
  try {
    const path = modelFolder(name);
    const masks = readManifest(path, "ifprune-bundle").tFfn === undefined ? "no trained masks" : "trained masks";
    return { ...about, found: `${path}, ${byteSize(bytesIn(path))}, ${masks}` };
  } catch (error) {
    return { ...about, missing: (error as Error).message };
  }
}

/** Of files in a folder and below; links count as nothing. */
function bytesIn(folder: string): number {
  if (!existsSync(folder)) return 0;
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  const sizes = names.map((name) => lstatSync(join(folder, name), { throwIfNoEntry: false }));
  return sizes.reduce((sum, stat) => sum + (stat?.isFile() ? stat.size : 0), 0);
}

/** A folder, or the nearest above it that exists. */
function firstThere(folder: string): string {
  return existsSync(folder) ? folder : firstThere(dirname(folder));
}

function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return statSync(folder).isDirectory();
  } catch {
    return false;
  }
}

function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

function onPath(name: string): string | undefined {
  const folders = (process.env.PATH ?? "").split(delimiter);
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}
