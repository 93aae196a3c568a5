/**
 * What is asked of the Hugging Face Hub, through `@huggingface/hub`, and its refusals in words. The environment is that of the Hub's Python tools:
 * `HF_ENDPOINT`, `HF_TOKEN` or the file that `hf auth login` writes.
 */
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { HubError, OptionError } from "../errors.ts";
import { readText } from "../json.ts";
import { oneLine, zodWords } from "../words.ts";

/** A file of a repository at a commit. */
export interface HubFile {
  bytes: number;
  /** Of a file in LFS the SHA-256 of its bytes; of another its name as a blob of git, a SHA-1 (`gitBlob`). The blob's name in the cache. */
  hash: string;
}

/** A model's repository at a commit. */
export interface HubListing {
  /** 40 hexadecimal digits. */
  commit: string;
  /** By path within the repository, with "/" between its parts. */
  files: Map<string, HubFile>;
}

/** Far more than a model has; a listing without end would fill the memory. */
const mostFiles = 100_000;

const infoSchema = z.object({ sha: z.string().regex(/^[0-9a-f]{40}$/) });
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const fileSchema = z.object({
  path: z.string(),
  size: z.number().int().nonnegative(),
  oid: z.string().regex(/^[0-9a-f]{40}$/),
  lfs: z.object({ oid: sha256, size: z.number().int().nonnegative() }).optional(),
});

/** Asks the Hub for one model's files. */
export class HubClient {
  readonly #id: string;
  readonly #signal: AbortSignal | undefined;
  readonly #endpoint: string;
  readonly #token: string | undefined;

  /** @throws {OptionError} if `HF_ENDPOINT` is no address, or the token none */
  constructor(id: string, signal?: AbortSignal) {
    this.#id = id;
    this.#signal = signal;
    this.#endpoint = (process.env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, "");
    if (!/^https?:/.test(this.#endpoint) || !URL.canParse(this.#endpoint))
      throw new OptionError(`HF_ENDPOINT: wanted an address, as https://huggingface.co, got "${this.#endpoint}".`);
    this.#token = token();
    if (this.#token !== undefined && !/^[\x21-\x7e]+$/.test(this.#token))
      // never told: it is a secret
      throw new OptionError(
        "HF_TOKEN, or the file of `hf auth login`: wanted a token, as hf_…, got other characters in it.",
      );
  }

  /**
   * What a revision has.
   *
   * @param revision branch, tag or commit
   * @throws {HubError} if the Hub does not answer, or has no such model or revision
   */
  async list(revision: string): Promise<HubListing> {
    const { modelInfo, listFiles } = await import("@huggingface/hub"); // what is in the cache is used without
    const asked = { hubUrl: this.#endpoint, fetch: this.#fetch };
    return await this.#ask(async () => {
      const info = await modelInfo({ name: this.#id, revision, additionalFields: ["sha"], ...asked });
      const { sha: commit } = infoSchema.parse(info);
      const files = new Map<string, HubFile>();
      for await (const entry of listFiles({ repo: this.#id, revision: commit, recursive: true, ...asked })) {
        if (entry.type !== "file") continue;
        const { path, size, oid, lfs } = fileSchema.parse(entry);
        if (files.size >= mostFiles) throw new Error(`more than ${mostFiles} files`);
        files.set(path, lfs ? { bytes: lfs.size, hash: lfs.oid } : { bytes: size, hash: oid });
      }
      return { commit, files };
    });
  }

  /**
   * The bytes of a file from `from` on, or all of them where a server sends no parts. Not through the library, whose downloads neither go on after
   * an interruption nor compare hashes, nor say what broke them.
   *
   * @throws {HubError} if the Hub does not give it
   */
  async open(path: string, commit: string, from: number): Promise<{ from: number; body: AsyncIterable<Uint8Array> }> {
    const inUrl = path.split("/").map(encodeURIComponent).join("/");
    const headers = { "accept-encoding": "identity", ...(from > 0 && { range: `bytes=${from}-` }) };
    const response = await this.#fetch(`${this.#endpoint}/${this.#id}/resolve/${commit}/${inUrl}`, { headers });
    return { from: response.status === 206 ? from : 0, body: this.#read(response.body, path) };
  }

  /** What the library cannot read is no error of ours. */
  async #ask<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      if (cause instanceof HubError || this.#signal?.aborted) throw cause;
      throw this.#unread(cause instanceof z.ZodError ? zodWords(cause) : oneLine((cause as Error).message));
    }
  }

  async *#read(body: ReadableStream<Uint8Array> | null, path: string): AsyncGenerator<Uint8Array, void, void> {
    try {
      if (body) yield* body;
    } catch (cause) {
      throw this.#broken(`"${path}"`, cause);
    }
  }

  /** The token goes to the endpoint alone; `fetch` drops it where that sends us on to another host. */
  readonly #fetch = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const url = new URL(input instanceof Request ? input.url : input);
    const headers = new Headers(init.headers);
    if (this.#token !== undefined && url.origin === new URL(this.#endpoint).origin)
      headers.set("authorization", `Bearer ${this.#token}`);
    let response: Response;
    try {
      response = await fetch(url, { ...init, headers, signal: this.#signal ?? null });
    } catch (cause) {
      throw this.#broken("an answer", cause);
    }
    if (response.ok) return response;
    await response.body?.cancel();
    throw this.#refusal(response);
  };

  #broken(what: string, cause: unknown): unknown {
    if (this.#signal?.aborted) return this.#signal.reason;
    const { message, cause: deeper } = cause as Error;
    const words = oneLine(
      deeper instanceof Error ? deeper.message || String((deeper as NodeJS.ErrnoException).code) : message,
    );
    return new HubError(
      `${this.#id}: wanted ${what} of ${this.#endpoint}, got ${words}. Is there a network? Run it again: it goes on where it stopped.`,
      { cause, isTransient: true },
    );
  }

  #unread(words: string): HubError {
    return new HubError(`${this.#id}: wanted an answer of the Hub, got ${words}. Is HF_ENDPOINT a Hub?`);
  }

  #refusal({ status, headers }: Response): HubError {
    const [id, at] = [this.#id, this.#endpoint];
    const settings = `make a token at ${at}/settings/tokens and set HF_TOKEN to it`;
    switch (headers.get("x-error-code")) {
      case "GatedRepo": {
        const token =
          this.#token === undefined ? `Then ${settings}.` : "The token in use is not of an account that has.";
        return new HubError(
          `${id}: wanted a model that is open to you, got a gated one (${status}). Accept its licence at ${at}/${id} first. ${token}`,
        );
      }
      case "RevisionNotFound":
        return new HubError(`${id}: wanted a revision of that name, got none. ${at}/${id}/tree/main lists them.`);
      case "EntryNotFound":
        return new HubError(`${id}: wanted a file, got none of that name. Pull again.`);
    }
    if (status === 404 || (status === 401 && this.#token === undefined))
      return new HubError(
        `${id}: wanted a model at ${at}, got none (${status}). Check the name; of a private one, ${settings}.`,
      );
    if (status === 401 || status === 403)
      return new HubError(`${id}: wanted access, got ${status}. The Hub does not take the token: ${settings}.`);
    const isTransient = status === 429 || status >= 500;
    return new HubError(`${id}: wanted an answer of ${at}, got status ${status}. Try again later.`, { isTransient });
  }
}

/** As the Hub's Python tools find it. */
function token(): string | undefined {
  const given = process.env.HF_TOKEN?.trim();
  if (given) return given;
  const home = process.env.HF_HOME || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface");
  const path = process.env.HF_TOKEN_PATH || join(home, "token");
  return existsSync(path) ? readText(path, 1 << 12).trim() || undefined : undefined;
}
