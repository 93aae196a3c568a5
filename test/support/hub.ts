/**
 * A stand-in of the Hugging Face Hub, as `@huggingface/hub` and downloads see it: what a revision is, lists of files in pages, files with parts of them,
 * those in LFS on a server of another origin, and refusals with the Hub's codes.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

/** A repository. */
export interface FakeRepository {
  files: Record<string, string | Buffer>;
  /** Names of those in LFS. Default: weights. */
  isLfs?: (name: string) => boolean;
  /** Only whoever has accepted the licence may have its files. */
  gated?: boolean;
}

/** What a response is to become: of its bytes. */
type Spoil = (name: string, bytes: Buffer, response: ServerResponse) => Buffer;

const pageLength = 3;
const digest = (algorithm: string, ...parts: (string | Buffer)[]) =>
  parts.reduce((hash, part) => hash.update(part), createHash(algorithm)).digest("hex");

export class FakeHub {
  readonly repositories = new Map<string, FakeRepository>();
  /** Requests so far: `/path`, or `/path bytes=…` of those for a part. */
  readonly log: string[] = [];
  /** Authorization headers that came to the server of LFS files. */
  readonly leaked: string[] = [];
  /** The token that may have gated files. */
  token = "hf_good";
  /** Changes what is sent. */
  spoil: Spoil = (_, bytes) => bytes;
  /** Changes what is listed of each file. */
  list: (entry: ReturnType<FakeHub["entry"]>) => object = (entry) => entry;
  /** Whether parts are sent. */
  sendsParts = true;
  #url = "";

  /** Starts it, as the Hub of this process, with caches of its own below `folder`. It ends with the test. */
  static async start(folder: string): Promise<FakeHub> {
    const hub = new FakeHub();
    const lfs = await listening((request, response) => {
      if (request.headers.authorization) hub.leaked.push(request.headers.authorization);
      const [, id, name] = /^\/lfs\/([^/]+\/[^/]+)\/(.*)$/.exec(decodeURIComponent(request.url!))!;
      hub.#send(request, response, id!, name!);
    });
    hub.#url = await listening((request, response) => hub.#answer(request, response, lfs));
    const environment = {
      HF_ENDPOINT: hub.#url,
      HF_HOME: `${folder}/huggingface`,
      XDG_CACHE_HOME: `${folder}/cache`,
      HF_HUB_CACHE: undefined,
      HF_TOKEN: undefined,
      HF_TOKEN_PATH: undefined,
      HF_HUB_OFFLINE: undefined,
    };
    for (const [name, value] of Object.entries(environment)) setEnvironment(name, value);
    return hub;
  }

  /** A repository and the name of its only revision but "main", its commit. */
  add(id: string, repository: FakeRepository): string {
    this.repositories.set(id, repository);
    return commitOf(repository);
  }

  #answer(request: IncomingMessage, response: ServerResponse, lfs: string) {
    const url = new URL(request.url!, this.#url);
    const path = decodeURIComponent(url.pathname);
    const { range } = request.headers;
    this.log.push(`${path}${range === undefined ? "" : ` ${range}`}`);
    const [, id, what, revision, rest] =
      /^\/(?:api\/models\/)?([^/]+\/[^/]+)\/(revision|tree|resolve)\/([^/]+)(?:\/(.*))?$/.exec(path) ?? [];
    const repository = this.repositories.get(id ?? "");
    if (!repository) return refuse(response, 401, "RepoNotFound");
    const commit = commitOf(repository);
    if (revision !== "main" && revision !== commit) return refuse(response, 404, "RevisionNotFound");
    switch (what) {
      case "revision": {
        const info = { _id: "0", id, sha: commit, private: false, gated: repository.gated ? "manual" : false };
        return json(response, { ...info, downloads: 0, likes: 0, lastModified: "2026-01-01T00:00:00Z" });
      }
      case "tree": {
        const entries = Object.keys(repository.files).map((name) => this.list(this.entry(repository, name)));
        const from = Number(url.searchParams.get("cursor") ?? 0);
        url.searchParams.set("cursor", String(from + pageLength));
        if (from + pageLength < entries.length) response.setHeader("link", `<${url.href}>; rel="next"`);
        return json(response, entries.slice(from, from + pageLength));
      }
      default: {
        const name = rest!;
        if (repository.gated && request.headers.authorization !== `Bearer ${this.token}`)
          return refuse(response, request.headers.authorization ? 403 : 401, "GatedRepo");
        if (repository.files[name] === undefined) return refuse(response, 404, "EntryNotFound");
        const { lfs: pointer, oid } = this.entry(repository, name);
        response.setHeader("x-repo-commit", commit);
        if (!pointer) {
          response.setHeader("etag", `"${oid}"`);
          return this.#send(request, response, id!, name);
        }
        response.setHeader("x-linked-etag", `"${pointer.oid}"`).setHeader("x-linked-size", pointer.size);
        response.writeHead(302, { location: `${lfs}/lfs/${id}/${encodeURIComponent(name)}` }).end();
      }
    }
  }

  /** What the Hub says of a file. */
  entry({ files, isLfs = (name) => /\.(safetensors|gguf|bin)$/.test(name) }: FakeRepository, name: string) {
    const bytes = Buffer.from(files[name]!);
    const oid = digest("sha1", `blob ${bytes.length}\0`, bytes);
    const pointer = { oid: digest("sha256", bytes), size: bytes.length, pointerSize: 130 };
    return { type: "file", path: name, size: bytes.length, oid, ...(isLfs(name) ? { lfs: pointer } : {}) };
  }

  #send(request: IncomingMessage, response: ServerResponse, id: string, name: string): void {
    const bytes = Buffer.from(this.repositories.get(id)!.files[name]!);
    const from = this.sendsParts ? Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0) : 0;
    const part = bytes.subarray(from);
    response.setHeader("content-length", part.length);
    if (from > 0) response.setHeader("content-range", `bytes ${from}-${bytes.length - 1}/${bytes.length}`);
    response.writeHead(from > 0 ? 206 : 200);
    const sent = this.spoil(name, part, response);
    if (sent.length === part.length) response.end(sent);
    else response.write(sent, () => response.destroy()); // the connection breaks
  }
}

const commitOf = ({ files }: FakeRepository): string =>
  digest("sha1", ...Object.entries(files).flatMap(([name, bytes]) => [name, Buffer.from(bytes)]));

function json(response: ServerResponse, body: unknown): void {
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { "x-error-code": code, "content-type": "application/json" }).end('{"error":"no"}');
}

async function listening(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server: Server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Until the test ends. */
export function setEnvironment(name: string, value: string | undefined): void {
  const before = process.env[name];
  const set = (to: string | undefined) => {
    if (to === undefined) delete process.env[name];
    else process.env[name] = to;
  };
  onTestFinished(() => set(before));
  set(value);
}
