/** Masks that a server remembers: those made for instructions, for as long as there is room, and those saved for tasks. */
import { randomUUID } from "node:crypto";
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import type { Bundle } from "../bundle/bundle.ts";
import { maskHash } from "../bundle/subnetworkCache.ts";
import { FileError, InputError } from "../errors.ts";
import { readJson } from "../json.ts";
import { checkMask, type Mask } from "../mask/mask.ts";
import { maskFromJson, maskToJson } from "../mask/maskFile.ts";
import { zodWords } from "../words.ts";
import { type SavedTask, taskName } from "./service.ts";

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
const suffix = ".json";

const taskSchema = z.strictObject({ instruction: z.string(), mask: z.unknown() });

/** Masks of a bundle that have names, in a folder: `<root>/<bundle>/<name>.json` holds the instruction and the mask. */
export class TaskStore {
  readonly #folder: string;
  readonly #tasks = new Map<string, { task: SavedTask; mask: Mask }>();

  /**
   * @param root default: `$XDG_DATA_HOME/ifprune/tasks`, where unset `~/.local/share/…`
   * @throws {FileError} if a file in the folder is not a task of this bundle
   */
  constructor(
    bundle: Bundle,
    root = join(process.env.XDG_DATA_HOME || join(homedir(), ".local/share"), "ifprune/tasks"),
  ) {
    this.#folder = join(root, bundle.hash.slice(0, 32));
    for (const file of filesIn(this.#folder)) {
      const name = file.slice(0, -suffix.length);
      if (!file.endsWith(suffix) || !taskName.test(name)) continue; // unfinished
      const path = join(this.#folder, file);
      const { instruction, mask } = readTask(path);
      checkMask(mask, path, bundle);
      this.#tasks.set(name, { task: { name, instruction, maskId: maskHash(mask) }, mask });
    }
  }

  list(): SavedTask[] {
    return [...this.#tasks.values()].map(({ task }) => task).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws {InputError} if there is none of the name */
  get(name: string): NamedMask {
    const found = this.#tasks.get(name);
    if (!found) throw new InputError(`unknown task: "${name}".`);
    return { id: found.task.maskId, mask: found.mask, source: "task" };
  }

  byMask(id: string): NamedMask | undefined {
    const found = [...this.#tasks.values()].find(({ task }) => task.maskId === id);
    return found && { id, mask: found.mask, source: "task" };
  }

  /** @throws {InputError} if the name is none, or there are too many tasks */
  checkName(name: string): void {
    if (!taskName.test(name))
      throw new InputError(
        `task: wanted a name of up to 64 letters, digits, "_" and "-", got ${JSON.stringify(name)}.`,
      );
    if (this.#tasks.size >= maxTasks && !this.#tasks.has(name))
      throw new InputError(`task: wanted at most ${maxTasks} of them. Delete one first.`);
  }

  /** Saves a task, which replaces one of the same name. @throws {InputError} as {@link TaskStore.checkName} @throws {FileError} if the folder refuses */
  save(name: string, instruction: string, { id, mask }: NamedMask): SavedTask {
    this.checkName(name);
    const path = join(this.#folder, name + suffix);
    const partial = join(this.#folder, `.${randomUUID()}`);
    try {
      mkdirSync(this.#folder, { recursive: true });
      writeFileSync(partial, JSON.stringify({ instruction, mask: maskToJson(mask) }), { flush: true });
      renameSync(partial, path);
    } catch (cause) {
      rmSync(partial, { force: true });
      throw new FileError(path, `wanted to save a task, got ${(cause as NodeJS.ErrnoException).code}.`, { cause });
    }
    const task = { name, instruction, maskId: id };
    this.#tasks.set(name, { task, mask });
    return task;
  }

  /** @throws {InputError} if there is none of the name @throws {FileError} if the folder refuses */
  delete(name: string): void {
    this.get(name);
    const path = join(this.#folder, name + suffix);
    try {
      rmSync(path, { force: true });
    } catch (cause) {
      throw new FileError(path, `wanted to delete a task, got ${(cause as NodeJS.ErrnoException).code}.`, { cause });
    }
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

function readTask(path: string): { instruction: string; mask: Mask } {
  const parsed = taskSchema.safeParse(readJson(path));
  if (!parsed.success) throw new FileError(path, `wanted a saved task, got: ${zodWords(parsed.error)}. Remove it.`);
  return { instruction: parsed.data.instruction, mask: maskFromJson(parsed.data.mask, path) };
}
