/** Masks that a server remembers: those made for instructions, for as long as there is room, and those saved for tasks. */
import { createHash } from "node:crypto";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import type { Bundle } from "../bundle/bundle.ts";
import { dataRoot } from "../bundle/cacheFolder.ts";
import { maskHash } from "../bundle/subnetworkCache.ts";
import { FileError, InputError } from "../errors.ts";
import { makeFile, makeFolders, writing } from "../files.ts";
import { readJson } from "../json.ts";
import { checkMask, type Mask } from "../mask/mask.ts";
import { maskFromJson, maskToJson } from "../mask/maskFile.ts";
import { taskExample } from "../text/examples.ts";
import { zodWords } from "../words.ts";
import { type SavedTask, taskName, taskNameWords } from "./service.ts";

export interface NamedMask {
  id: string;
  mask: Mask;
  /** What made it. */
  source: string;
}

export function nameMask(mask: Mask, source: string): NamedMask {
  return { id: maskHash(mask), mask, source };
}

const maxBytes = 64 * 2 ** 20;
const maxKeys = 10_000;

/** The masks used latest, by what they were made for and by their ids. */
export class MaskMemo {
  readonly #byId = new Map<string, NamedMask>();
  readonly #idOf = new Map<string, string>();
  #bytes = 0;

  /** @param key of an instruction, short */
  find(key: string): NamedMask | undefined {
    const id = this.#idOf.get(key);
    return id === undefined ? undefined : this.get(id);
  }

  get(id: string): NamedMask | undefined {
    const named = this.#byId.get(id);
    if (!named) return undefined;
    this.#byId.delete(id); // to the end of the line
    this.#byId.set(id, named);
    return named;
  }

  add(key: string, named: NamedMask): void {
    if (!this.get(named.id)) {
      this.#byId.set(named.id, named);
      this.#bytes += bytesOf(named);
    }
    this.#idOf.delete(key);
    this.#idOf.set(key, named.id);
    for (const [id, oldest] of this.#byId) {
      if (this.#bytes <= maxBytes || id === named.id) break;
      this.#byId.delete(id);
      this.#bytes -= bytesOf(oldest);
    }
    if (this.#idOf.size > maxKeys) this.#idOf.delete(this.#idOf.keys().next().value!);
  }
}

function bytesOf({ mask: { layers, lambda = [] } }: NamedMask): number {
  return [...layers, ...lambda].reduce((sum, values) => sum + values.byteLength, 0);
}

const maxTasks = 1000;
const taskFile = /^[0-9a-f]{32}\.json$/;

const taskSchema = z.strictObject({
  name: z.string().regex(taskName, `wanted ${taskNameWords}`),
  instruction: z.string(),
  examples: z.array(taskExample).min(1).optional(),
  mask: z.unknown(),
});

/** Masks of a bundle that have names, in a folder: `<root>/<bundle>/<hash of the name>.json` holds the name, what made the mask, and the mask. */
export class TaskStore {
  readonly #folder: string;
  readonly #tasks = new Map<string, { task: SavedTask; mask: Mask }>();

  /**
   * @param root default: `$XDG_DATA_HOME/ifprune/tasks`
   * @throws {FileError} if a file in the folder is not a task of this bundle
   */
  constructor(bundle: Bundle, root = dataRoot("tasks")) {
    this.#folder = join(root, bundle.hash.slice(0, 32));
    for (const file of filesIn(this.#folder)) {
      if (!taskFile.test(file)) continue; // unfinished, or someone else's
      const path = join(this.#folder, file);
      const { mask, ...told } = readTask(path);
      checkMask(mask, path, bundle);
      this.#tasks.set(told.name, { task: { ...told, maskId: maskHash(mask) }, mask });
    }
  }

  list(): SavedTask[] {
    return [...this.#tasks.values()].map(({ task }) => task).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws {InputError} if there is none of the name */
  get(name: string): NamedMask {
    const found = this.#tasks.get(name);
    const names = [...this.#tasks.keys()].sort();
    const known =
      names.length > 0
        ? `there are ${names.join(", ")}`
        : "none is saved of this model. `/remember NAME` in a chat saves one, or the page";
    if (!found) throw new InputError(`unknown task: "${name}": ${known}.`);
    return { id: found.task.maskId, mask: found.mask, source: "task" };
  }

  byMask(id: string): NamedMask | undefined {
    const found = [...this.#tasks.values()].find(({ task }) => task.maskId === id);
    return found && { id, mask: found.mask, source: "task" };
  }

  /** @throws {InputError} if the name is none, or there are too many tasks */
  checkName(name: string): void {
    if (!taskName.test(name))
      throw new InputError(`task: wanted a name of ${taskNameWords}, got ${JSON.stringify(name.slice(0, 100))}.`);
    if (this.#tasks.size >= maxTasks && !this.#tasks.has(name))
      throw new InputError(`task: wanted at most ${maxTasks} of them. Delete one first.`);
  }

  /** Saves a task, which replaces one of the same name. @throws {InputError} as {@link TaskStore.checkName} @throws {FileError} if the folder refuses */
  save(task: SavedTask, mask: Mask): SavedTask {
    const { maskId: _, ...told } = task;
    this.checkName(task.name);
    const path = this.#path(task.name);
    makeFolders(this.#folder);
    const json = JSON.stringify({ ...told, mask: maskToJson(mask) });
    makeFile(path, (partial) => writeFileSync(partial, json, { flush: true }));
    this.#tasks.set(task.name, { task, mask });
    return task;
  }

  /** Names are text that a file's name may not be. */
  #path(name: string): string {
    return join(this.#folder, `${createHash("sha256").update(name).digest("hex").slice(0, 32)}.json`);
  }

  /** @throws {InputError} if there is none of the name @throws {FileError} if the folder refuses */
  delete(name: string): void {
    this.get(name);
    const path = this.#path(name);
    writing(path, () => rmSync(path, { force: true }));
    this.#tasks.delete(name);
  }
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") return [];
    throw new FileError(folder, `wanted a folder of tasks, got ${code}.`, { cause });
  }
}

function readTask(path: string): Omit<SavedTask, "maskId"> & { mask: Mask } {
  const parsed = taskSchema.safeParse(readJson(path));
  if (!parsed.success) throw new FileError(path, `wanted a saved task, got: ${zodWords(parsed.error)}. Remove it.`);
  const { mask, examples, ...told } = parsed.data;
  return { ...told, ...(examples && { examples }), mask: maskFromJson(mask, path) };
}
