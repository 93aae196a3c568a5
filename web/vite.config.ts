/** `npx vite build web` writes the page to `web/dist`, which `ifprune serve` serves; `npx vite web` develops it beside a running server. */
import { defineConfig } from "vite";

const server = process.env.IFPRUNE_SERVER ?? "http://127.0.0.1:8080";

export default defineConfig({
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: ["chrome123", "firefox121", "safari17.5"], // the first with `light-dark()`
    assetsInlineLimit: 0, // the server's content policy refuses data: addresses
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/v1": server, "/ifprune": server } },
});
