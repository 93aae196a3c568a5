/** Where faults happen: folders, processes that answer, and what they answer where nothing happened. */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import { contentsOf } from "../kill/contents.ts";
import type { Told } from "./asker.ts";
import { openBundle, openNumbered } from "./subnetworks.ts";

const program = (name: string) => fileURLToPath(new URL(`${name}.ts`, import.meta.url));

/** A process that answers one question after the other, begun anew when it has died. */
class Asker implements Disposable {
  #child: ChildProcess | undefined;
  #last: Promise<unknown> = Promise.resolve();

  ask(root: string, number: number): Promise<Told> {
    const asked = this.#last.then(() => this.#ask(root, number));
    this.#last = asked;
    return asked;
  }

  #ask(root: string, number: number): Promise<Told> {
    this.#child ??= fork(program("asker"), [], {
      execArgv: ["--import", "tsx"],
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
    const child = this.#child;
    return new Promise((resolve) => {
      const told = (message: Told) => {
        child.off("exit", died);
        resolve(message);
      };
      const died = (code: number | null, signal: string | null) => {
        this.#child = undefined;
        resolve({ error: `internal: the process died: ${signal ?? code}` });
      };
      child.once("message", told);
      child.once("exit", died);
      child.send({ root, number });
    });
  }

  [Symbol.dispose](): void {
    this.#child?.kill();
  }
}

/** A server of the tiny model. */
class Server implements Disposable {
  #child: ChildProcess | undefined;
  #url: string | undefined;

  constructor(readonly folder: string) {}

  async url(): Promise<string> {
    if (this.#url !== undefined) return this.#url;
    const child = spawn(process.execPath, ["--import", "tsx", program("server"), this.folder], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    this.#child = child;
    child.once("exit", () => {
      this.#url = undefined;
    });
    for await (const line of createInterface(child.stdout)) {
      this.#url = line;
      return line;
    }
    throw new Error("the server did not start");
  }

  /** As `kill -9` does. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }

  /** @returns the whole answer, or what of it had come when the client went away */
  async ask(prompt: string, signal?: AbortSignal): Promise<string> {
    const body = { model: "m", messages: [{ role: "user", content: prompt }], temperature: 0, max_tokens: 12 };
    const response = await fetch(`${await this.url()}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...body, stream: signal !== undefined }),
      signal: signal ?? null,
    });
    if (signal) return await response.text();
    if (!response.ok) throw new Error(`status ${response.status}: ${await response.text()}`);
    const { choices } = (await response.json()) as { choices: { message: { content: string } }[] };
    return choices[0]!.message.content;
  }

  async running(): Promise<number> {
    const response = await fetch(`${await this.url()}/ifprune/state`);
    return ((await response.json()) as { running: number }).running;
  }

  [Symbol.dispose](): void {
    this.#child?.kill("SIGKILL");
  }
}

export class World implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ifprune-faults-"));
  readonly askers = [new Asker(), new Asker()] as const;
  /** Two on one cache. */
  readonly servers = [0, 1].map(() => new Server(join(this.folder, "served"))) as [Server, Server];
  readonly #untouched = new Server(join(this.folder, "untouched-served"));
  readonly #references = new Map<number | string, Promise<string>>();
  readonly #bundle = openBundle();

  newRoot(): string {
    return mkdtempSync(join(this.folder, "root-"));
  }

  /** What is answered where nothing happens. */
  reference(asked: number | string): Promise<string> {
    const known = this.#references.get(asked);
    if (known) return known;
    const made = typeof asked === "string" ? this.#untouched.ask(asked) : this.#told(asked);
    this.#references.set(asked, made);
    return made;
  }

  async #told(number: number): Promise<string> {
    const told = await this.askers[0].ask(join(this.folder, "untouched"), number);
    if ("error" in told) throw new Error(told.error);
    return told.answer;
  }

  /** @returns what is wrong with the answers under some masks, each asked of the asker of its turn, all at once; undefined if nothing is */
  async check(root: string, numbers: readonly number[], { mayRefuse = false } = {}): Promise<string | undefined> {
    const wanted: string[] = [];
    for (const number of numbers) wanted.push(await this.reference(number));
    const told = await Promise.all(this.askers.map((asker, turn) => askInTurn(asker, root, numbers, turn)));
    for (const [i, one] of told.flat().entries()) {
      if ("answer" in one && one.answer !== wanted[i % numbers.length]) return "a wrong answer";
      if ("error" in one && !(mayRefuse && !one.error.startsWith("internal"))) return one.error;
    }
    return undefined;
  }

  /**
   * @param further opened after the others
   * @returns what is wrong with the files of some masks' sub-networks, once they have been opened; undefined if nothing is, and nothing half-written is left either
   */
  async checkFiles(root: string, numbers: readonly number[], further: number): Promise<string | undefined> {
    const open = async (number: number, at: string) => dirname(await openNumbered(this.#bundle, number, at));
    for (const number of [...numbers, further]) {
      const [entry, wanted] = [await open(number, root), await open(number, join(this.folder, "untouched-files"))];
      if (!isDeepStrictEqual(contentsOf(entry), contentsOf(wanted))) return `other files than wanted of mask ${number}`;
    }
    const left = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((name) => name.includes("partial-"));
    return left.length > 0 ? `left: ${left.join(", ")}` : undefined;
  }

  [Symbol.dispose](): void {
    this.#bundle[Symbol.dispose]();
    for (const one of [...this.askers, ...this.servers, this.#untouched]) one[Symbol.dispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function askInTurn(asker: Asker, root: string, numbers: readonly number[], turn: number): Promise<Told[]> {
  const told: Told[] = new Array(numbers.length);
  for (const i of numbers.keys()) {
    const at = turn === 0 ? i : numbers.length - 1 - i;
    told[at] = await asker.ask(root, numbers[at]!);
  }
  return told;
}
