/**
 * The page's files. They are read once, at the start: what a request asks for is looked up among them, so no path from a request reaches the file system.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync } from "node:fs";
import { extname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { ownPartial, removePartials } from "../../files.ts";

const web = fileURLToPath(new URL("../../../web", import.meta.url));
/** What the page is built of, in a checkout; a package has it built. */
const outer = ["report/chart.ts", "specialize/specialization.ts", "words.ts"].map((name) => `../src/${name}`);
const sources = ["index.html", "vite.config.ts", "public", "src", ...outer, "../package-lock.json"];
const types: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".ico": "image/x-icon",
  ".woff2": "font/woff2",
  ".txt": "text/plain; charset=utf-8",
  ".webmanifest": "application/manifest+json",
};

/** A file of the page, as it is served. */
export interface PageFile {
  bytes: Uint8Array<ArrayBuffer>;
  type: string;
  etag: string;
  /** Vite names the files in `assets/` by their content. */
  isImmutable: boolean;
}
/** By the path of a URL. */
export type PageFiles = ReadonlyMap<string, PageFile>;

/** Whether the page is there, and is of its sources as they are. */
export function isPageBuilt(folder = web): boolean {
  const builtAt = changedAt(join(folder, "dist/index.html"));
  return builtAt > 0 && sources.every((name) => changedAt(join(folder, name)) <= builtAt);
}

/** When a file was last changed, or anything in a folder: what left it changed the folder. 0: there is none. */
function changedAt(path: string): number {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat?.isDirectory()) return stat?.mtimeMs ?? 0;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((name) => changedAt(join(path, name))));
}

/**
 * Files of the page. In a checkout it is built first where its sources have changed, which `onBuild` is told. Where that fails, `onFailure` is told why,
 * and they are those of before, or else a text that says how to build them.
 *
 * @param folder internal
 */
export async function openPage(
  onBuild?: () => void,
  onFailure?: (error: Error) => void,
  folder = web,
): Promise<PageFiles> {
  if (!isPageBuilt(folder) && existsSync(join(folder, "index.html"))) {
    onBuild?.();
    try {
      await build(folder);
    } catch (error) {
      if (!isPageBuilt(folder)) onFailure?.(error as Error); // another process may have been faster
    }
  }
  const built = join(folder, "dist");
  if (existsSync(join(built, "index.html"))) return readPage(built);
  const text = "The page is not built. In a checkout: npm ci && npx vite build web\nThe API is at /v1.\n";
  return new Map([["/", pageFile(Buffer.from(text), ".txt", false)]]);
}

async function build(folder: string): Promise<void> {
  const begun = new Date();
  const vite = await import("vite");
  const built = join(folder, "dist");
  removePartials(folder, "dist.");
  const fresh = `${built}.${ownPartial()}`;
  try {
    await vite.build({ root: folder, build: { outDir: fresh }, logLevel: "silent" });
    utimesSync(join(fresh, "index.html"), begun, begun); // what has changed since is not in it
    rmSync(built, { recursive: true, force: true });
    renameSync(fresh, built);
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}

/** @param folder with an `index.html` in it, which is also served as `/` */
export function readPage(folder: string): PageFiles {
  const files = new Map<string, PageFile>();
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    const path = join(folder, name);
    if (!statSync(path).isFile()) continue;
    const url = `/${name.split(sep).join("/")}`;
    files.set(url, pageFile(readFileSync(path), extname(name), url.startsWith("/assets/")));
  }
  files.set("/", files.get("/index.html")!);
  return files;
}

function pageFile(bytes: Buffer, extension: string, isImmutable: boolean): PageFile {
  const etag = `"${createHash("sha256").update(bytes).digest("base64url").slice(0, 22)}"`;
  const type = types[extension] ?? "application/octet-stream";
  return { bytes: new Uint8Array(bytes), type, etag, isImmutable };
}

export function pageResponse({ bytes, type, etag, isImmutable }: PageFile, request: Request): Response {
  const headers = {
    etag,
    "content-type": type,
    "cache-control": isImmutable ? "public, max-age=31536000, immutable" : "no-cache",
  };
  if (request.headers.get("if-none-match") === etag) return new Response(null, { status: 304, headers });
  return new Response(request.method === "HEAD" ? null : bytes, { headers });
}
