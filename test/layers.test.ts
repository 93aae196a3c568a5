/** ARCHITECTURE.md: what each room of `src` may import, and that answering a prompt does not load what training needs. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const source = fileURLToPath(new URL("../src", import.meta.url));

const ground = ["mask", "model", "text", "formats"];
const learn = [...ground, "graph", "net"];
const use = [...ground, "hub", "bundle", "engine", "answer"];

/** Rooms, and those that each may import from; files directly in `src` belong to all. */
const edges: Record<string, readonly string[]> = {
  model: [],
  mask: ["model"],
  text: [],
  formats: ["model", "text"],
  // learn
  graph: [],
  net: [...ground, "graph"],
  train: learn,
  // use
  hub: [],
  bundle: [...ground, "hub"],
  engine: [...ground, "bundle"],
  answer: [...ground, "bundle", "engine", "net"], // `net` for masks from activations alone, and only once they are wanted: see below
  serve: [...use, "specialize"], // its jobs, which do the work in a process of their own: see below
  // both
  eval: [...learn, ...use, "train"],
  export: [...ground, "bundle"],
  report: ["train", "text"],
  specialize: [...learn, ...use, "train", "export", "report"],
  bench: [...use, "export", "report"],
  cli: [...learn, ...use, "train", "serve", "eval", "export", "report", "specialize", "bench"],
};

/** Files of all rooms, without tests, relative to `src`. */
const files = readdirSync(source, { recursive: true, encoding: "utf8" }).filter(
  (file) => file.endsWith(".ts") && !file.endsWith(".test.ts"),
);

/** Imports of all files: file and imported file, relative to `src`, and whether only a call loads it. Types load nothing. */
const imports = files.flatMap((file) =>
  [
    ...readFileSync(join(source, file), "utf8").matchAll(/(import type \{[^}]*\} from|from|import\()\s*"(\.[^"]+)"/g),
  ].map(([, keyword, target]) => ({
    file,
    target: normalize(join(dirname(file), target!)),
    loads: keyword!.startsWith("import type") ? "never" : keyword === "import(" ? "late" : "at once",
  })),
);
const roomOf = (file: string) => (file.includes("/") ? file.split("/")[0]! : undefined);

test("every room has its place", () => {
  const rooms = readdirSync(source, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  expect(rooms.map(({ name }) => name).sort()).toEqual(Object.keys(edges).sort());
});

test("rooms import from those that they may", () => {
  const wrong = imports.filter(({ file, target }) => {
    const [from, to] = [roomOf(file), roomOf(target)];
    if (file === "index.ts" || target === "../package.json") return false; // the public surface; our version
    if (from === undefined) return to !== undefined; // what all rooms share knows none of them
    return to !== undefined && to !== from && !edges[from]!.includes(to);
  });
  expect(wrong).toEqual([]);
});

test("folders are made by `makeFolders`: Node's own recursion spins for ever where the system refuses, as in /proc", () => {
  const makers = files.filter((file) => /mkdir(Sync)?\([^;]*recursive/.test(readFileSync(join(source, file), "utf8")));
  expect(makers).toEqual([]);
});

test("llama.cpp is one engine of many: one place takes it where no other is given, all else is given one", () => {
  const users = imports.filter(({ target }) => target === "engine/llamaCpp.ts").map(({ file }) => file);
  expect(users).toEqual(["answer/defaultEngines.ts"]);
});

/** Names that are in more than one place. */
function repeated(entries: readonly (readonly [name: string, file: string])[]): string[] {
  const placesOf = new Map<string, string[]>();
  for (const [name, file] of entries) placesOf.set(name, [...(placesOf.get(name) ?? []), file]);
  return [...placesOf].filter(([, places]) => places.length > 1).map(([name, places]) => `${name}: ${places}`);
}

test("a name means one thing: none is exported by two files, and no two files have one, commands aside", () => {
  const declared = /^export (?:abstract |async )*(?:class|const|function\*?|interface|type) (\w+)/gm;
  const exported = files.flatMap((file) =>
    [...readFileSync(join(source, file), "utf8").matchAll(declared)].map(([, name]) => [name!, file] as const),
  );
  expect(exported.length).toBeGreaterThan(300); // the expression sees what it should
  expect(repeated(exported)).toEqual([]);
  const named = files.filter((file) => roomOf(file) !== "cli").map((file) => [basename(file), file] as const);
  expect(repeated(named)).toEqual([]);
});

/** All that is loaded with a file, without what only a call loads. */
function loadedWith(file: string, reached = new Set<string>()): string[] {
  if (reached.has(file)) return [];
  reached.add(file);
  for (const { file: from, target, loads } of imports)
    if (from === file && loads === "at once") loadedWith(target, reached);
  return [...reached];
}

test("the path from prompt to answer loads no ONNX Runtime, unless a mask is made from activations", () => {
  const loaded = loadedWith("answer/instructionModel.ts");
  expect(loaded).toContain("bundle/gather.ts"); // the walk sees what it should
  expect(loaded.filter((file) => /^(graph|net|train)\//.test(file))).toEqual([]);
});

test("a server loads no training: the process of a job does", () => {
  const loaded = loadedWith("cli/serve.ts");
  expect(loaded).toContain("specialize/jobs.ts"); // the walk sees what it should
  expect(loaded.filter((file) => /^(graph|net|train)\//.test(file))).toEqual([]);
});

test("a command does not start what a process of `bench` starts", () => {
  const loaded = loadedWith("cli/bench.ts");
  expect(loaded).toContain("bench/bench.ts");
  expect(loaded).not.toContain("bench/worker.ts");
});

test("help, the version and wrong usage load the table of commands alone: no package but its own, and nothing that reads a model", () => {
  const loaded = loadedWith("cli/main.ts");
  expect(loaded).toContain("cli/commands/prune.ts"); // the walk sees what it should
  const packages = loaded.flatMap((file) =>
    [...readFileSync(join(source, file), "utf8").matchAll(/^import (?!type)[^;]*?"([^."][^"]*)";/gm)].map(
      ([, name]) => name!,
    ),
  );
  expect([...new Set(packages.filter((name) => !name.startsWith("node:")))]).toEqual(["commander"]);
  const early = loaded.filter(
    (file) => !/^cli\/|Options\.ts$|\/(sourceNames|budget|controls|exportTypes)\.ts$/.test(file),
  );
  expect(early.sort()).toEqual([
    "bundle/memory.ts",
    "engine/sampling.ts",
    "errors.ts",
    "formats/quantize.ts",
    "model/families.ts",
    "options.ts",
    "package.ts",
    "refusals.ts",
  ]);
});
