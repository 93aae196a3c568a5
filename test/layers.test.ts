/** ARCHITECTURE.md: each folder of `src` imports from those above it only, and answering a prompt does not load what training needs. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const source = fileURLToPath(new URL("../src", import.meta.url));
const order = [
  "graph",
  "text",
  "model",
  "formats",
  "mask",
  "predictor",
  "joint",
  "train",
  "subnet",
  "export",
  "engine",
  "sources",
  "serve",
  "eval",
  "report",
  "bench",
  "cli",
];

/** Imports of all files, without tests: file and imported file, relative to `src`, and whether only a call loads it. */
const imports = readdirSync(source, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"))
  .flatMap((file) =>
    [...readFileSync(join(source, file), "utf8").matchAll(/(from|import\()\s*"(\.[^"]+)"/g)].map(
      ([, keyword, target]) => [file, normalize(join(dirname(file), target!)), keyword === "import("] as const,
    ),
  );
const folderOf = (file: string) => (file.includes("/") ? file.split("/")[0]! : undefined);

test("every folder has its place", () => {
  const folders = readdirSync(source, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  expect(folders.map(({ name }) => name).sort()).toEqual(order.toSorted());
});

test("imports go up", () => {
  const wrong = imports.filter(([file, target]) => {
    const [from, to] = [folderOf(file), folderOf(target)];
    return from !== undefined && to !== undefined && order.indexOf(to) > order.indexOf(from);
  });
  expect(wrong).toEqual([]);
});

/** All that is loaded with a file, without what only a call loads. */
function loadedWith(file: string, reached = new Set<string>()): string[] {
  if (reached.has(file)) return [];
  reached.add(file);
  for (const [from, to, isLate] of imports) if (from === file && !isLate) loadedWith(to, reached);
  return [...reached];
}

test("the path from prompt to answer loads no ONNX Runtime, unless a mask is made from activations", () => {
  expect(loadedWith("serve/model.ts").filter((file) => /^(graph|joint|train)\//.test(file))).toEqual([]);
});

test("a command does not start what a process of `bench` starts", () => {
  const loaded = loadedWith("cli/main.ts");
  expect(loaded).toContain("bench/bench.ts");
  expect(loaded).not.toContain("bench/worker.ts");
});
