/**
 * The page's files. They are read once, at the start: what a request asks for is looked up among them, so no path from a request reaches the file system.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { extname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../web", import.meta.url));
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

const folder = join(root, "dist");

export function isPageBuilt(): boolean {
  return existsSync(join(folder, "index.html"));
}

/** Files of the built page; of one that is not built, a text that says how. It is built first where Vite is installed, which `onBuild` is told. */
export async function openPage(onBuild?: () => void): Promise<PageFiles> {
  if (!isPageBuilt() && existsSync(root)) {
    onBuild?.();
    await build().catch(() => {});
  }
  if (isPageBuilt()) return readPage(folder);
  const text = "The page is not built. In a checkout: npm ci && npx vite build web\nThe API is at /v1.\n";
  return new Map([["/", pageFile(Buffer.from(text), ".txt", false)]]);
}

async function build(): Promise<void> {
  const vite = await import("vite");
  await vite.build({ root, logLevel: "error" });
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
