/** The built page and a browser to show it in, for tests and pictures. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, chromium } from "playwright-core";
import { build } from "vite";
import { type AppOptions, createApp } from "../../src/serve/http/app.ts";
import { type PageFiles, readPage } from "../../src/serve/http/page.ts";
import { listen, type RunningServer } from "../../src/serve/http/server.ts";
import type { InferenceService } from "../../src/serve/service.ts";
import { chromiumPath } from "./chromium.ts";

export interface BuiltPage extends AsyncDisposable {
  files: PageFiles;
  browser: Browser;
}

/** Builds the page as it is now, and starts a browser that asks nothing of the network by itself. */
export async function openBrowser(): Promise<BuiltPage> {
  const folder = mkdtempSync(join(tmpdir(), "ifprune-page-"));
  const root = fileURLToPath(new URL("../../web", import.meta.url));
  await build({ root, logLevel: "error", build: { outDir: join(folder, "dist"), emptyOutDir: true } });
  const files = readPage(join(folder, "dist"));
  const browser = await chromium.launch({
    executablePath: chromiumPath,
    args: [
      ..."--no-sandbox --disable-gpu --disable-quic --no-first-run".split(" "),
      ..."--disable-background-networking --disable-component-update --disable-sync".split(" "),
    ],
  });
  const close = async () => {
    await browser.close();
    rmSync(folder, { recursive: true, force: true });
  };
  return { files, browser, [Symbol.asyncDispose]: close };
}

/** Serves the page over a service, on this machine alone. */
export function servePage(
  service: InferenceService,
  files: PageFiles,
  { port = 0, ...options }: AppOptions & { port?: number | undefined } = {},
): Promise<RunningServer> {
  return listen(createApp(service, { ...options, page: files }).fetch, { host: "127.0.0.1", port });
}
