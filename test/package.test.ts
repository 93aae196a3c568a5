/** The package as others get it: made, installed into an empty folder, and used from plain Node and TypeScript. */
import { execFile, spawn } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { version } from "../src/package.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "ifprune-package-"));
const consumer = join(folder, "consumer");
const packed = join(folder, "made/by/the/release");
const tarball = join(packed, `ifprune-${version}.tgz`);
const minutes = 60_000;

interface Ended {
  stdout: string;
  stderr: string;
}

/** Runs a program of the consumer's; what it prints is in the error where it fails. */
async function run(file: string, args: readonly string[], cwd = consumer): Promise<Ended> {
  const env = { ...process.env, NODE_OPTIONS: "", XDG_CACHE_HOME: join(folder, "cache") };
  try {
    return await promisify(execFile)(file, args, { cwd, env });
  } catch (error) {
    const { message, stdout } = error as Error & Ended;
    throw new Error(`${message}\n${stdout}`);
  }
}
const node = (...args: string[]) => run(process.execPath, args);
const tool = (path: string, ...args: string[]) => node(join(root, "node_modules", path), ...args);

beforeAll(async () => {
  mkdirSync(consumer);
  await run(process.execPath, [join(root, "node_modules/tsx/dist/cli.mjs"), "scripts/release.ts", packed], root);
  writeFileSync(join(consumer, "package.json"), JSON.stringify({ private: true, type: "module" }));
  await run("npm", ["install", "--prefer-offline", "--ignore-scripts=false", tarball, "@types/node@20.19.43"]);
  for (const name of ["answer.ts", "server.ts"]) cpSync(join(root, "examples", name), join(consumer, name));
}, 8 * minutes);
afterAll(() => rmSync(folder, { recursive: true }));

function megabytes(path: string): number {
  const files = readdirSync(path, { recursive: true, encoding: "utf8" }).map((name) => statSync(join(path, name)));
  return files.reduce((sum, file) => sum + (file.isFile() ? file.size : 0), 0) / 1e6;
}

test("it installs without GPU binaries, what only training needs, and the large model", () => {
  const modules = join(consumer, "node_modules");
  expect(readdirSync(join(modules, "@node-llama-cpp")).join()).not.toMatch(/cuda|vulkan/);
  expect(readdirSync(modules)).not.toContain("onnxruntime-node");
  expect(readdirSync(modules)).not.toContain("tokenizers");
  expect(readdirSync(join(modules, "ifprune/models"))).toEqual(["tiny"]);
  expect(megabytes(modules)).toBeLessThan(350);
});

test("what it is compiled to does not depend on where that was done, and names nothing outside the package", async () => {
  const elsewhere = join(folder, "another/checkout");
  mkdirSync(elsewhere, { recursive: true });
  for (const name of ["src", "package.json", "tsconfig.json", "tsconfig.build.json"])
    cpSync(join(root, name), join(elsewhere, name), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(elsewhere, "node_modules"));
  await tool("typescript/bin/tsc", "-p", join(elsewhere, "tsconfig.build.json"));
  const installed = join(consumer, "node_modules/ifprune");
  const compiled = texts(join(installed, "dist"));
  expect(texts(join(elsewhere, "dist"))).toEqual(compiled);

  const all = [...compiled, ...texts(join(installed, "web/dist"))];
  const machine = [root, folder, join(tmpdir(), "ifprune-release-")];
  expect(all.filter(([, text]) => machine.some((path) => text.includes(path))).map(([name]) => name)).toEqual([]);
  expect(all.filter(([, text]) => text.includes("sourceMappingURL")).map(([name]) => name)).toEqual([]);
  const outside = compiled.flatMap(([name, text]) => {
    const paths = [...text.matchAll(/["'`](\.\.?\/[^"'`\s]*)["'`]/g)].map((match) =>
      join("dist", name, "..", match[1]!),
    );
    return paths.filter((path) => path.startsWith("..")).map((path) => `${name}: ${path}`);
  });
  expect(outside).toEqual([]);
}, 60_000);

/** The files below a folder: name and text, sorted by name. */
function texts(path: string): [name: string, text: string][] {
  const names = readdirSync(path, { recursive: true, encoding: "utf8" }).sort();
  const files = names.filter((name) => statSync(join(path, name)).isFile());
  return files.map((name) => [name, readFileSync(join(path, name), "utf8")]);
}

test("importing it loads no engine", async () => {
  const engines = /^(node-llama-cpp|onnxruntime-node|tokenizers)$/;
  const hooks = `export async function resolve(name, context, next) {
    if (${engines}.test(name)) throw new Error("loaded " + name);
    return next(name, context);
  }`;
  const register = `import { register } from "node:module"; register(${JSON.stringify(dataUrl(hooks))})`;
  const program = `import { InstructionModel } from "ifprune";
    new InstructionModel();
    await import("node-llama-cpp").catch((error) => console.log(error.message));`;
  const { stdout, stderr } = await node("--import", dataUrl(register), "--input-type=module", "--eval", program);
  expect([stdout, stderr]).toEqual(["loaded node-llama-cpp\n", ""]); // the hook works, and Node warns of nothing
});

function dataUrl(source: string): string {
  return `data:text/javascript,${encodeURIComponent(source)}`;
}

test(
  "its types hold in a strict program that checks those of libraries too; what is compiled of it runs",
  async () => {
    const compilerOptions = {
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      module: "nodenext",
      target: "es2022",
      types: ["node"],
    };
    writeFileSync(join(consumer, "tsconfig.json"), JSON.stringify({ compilerOptions }));
    await tool("typescript/bin/tsc");
    expect((await node("answer.js")).stdout).toMatch(/^wolves\n128 of 1024 channels\n$/);
  },
  4 * minutes,
);

test(
  "plain Node runs the example as it is",
  async () => {
    cpSync(join(root, "examples/answer.ts"), join(consumer, "plain.mjs"));
    expect((await node("plain.mjs")).stdout).toMatch(/^wolves\n128 of 1024 channels\n$/);
  },
  2 * minutes,
);

test(
  "its server answers beside a route of one's own",
  async () => {
    const env = {
      ...process.env,
      PORT: "0",
      XDG_CACHE_HOME: join(folder, "cache"),
      XDG_DATA_HOME: join(folder, "data"),
    };
    const server = spawn(process.execPath, ["server.js"], { cwd: consumer, env, stdio: ["ignore", "pipe", "inherit"] });
    const ended = new Promise((resolve) => server.once("exit", resolve));
    try {
      const url = await new Promise<string>((resolve) =>
        server.stdout.once("data", (line) => resolve(`${line}`.trim())),
      );
      expect(await (await fetch(`${url}/hello`)).text()).toBe("Hello.\n");
      const messages = [{ role: "user", content: "What is the plural of wolf?" }];
      const body = JSON.stringify({ model: "default", messages, temperature: 0 });
      const headers = { "content-type": "application/json" };
      const response = await fetch(`${url}/v1/chat/completions`, { method: "POST", headers, body });
      expect(await response.json()).toMatchObject({ choices: [{ message: { content: "wolves" } }] });
    } finally {
      server.kill("SIGINT");
    }
    expect(await ended).toBe(0);
  },
  2 * minutes,
);

test(
  "training says which package it wants",
  async () => {
    cpSync(join(root, "test/fixtures/tiny"), join(consumer, "tiny"), { recursive: true });
    await expect(
      run("npx", ["ifprune", "train", "tiny/recipe.json", "--runs", "runs", "--threads", "1"]),
    ).rejects.toThrow(
      /wanted the package (tokenizers|onnxruntime-node), got none\. Run: npm install --ignore-scripts \1@\d/,
    );
  },
  2 * minutes,
);

test("the release says in one line why it failed", async () => {
  writeFileSync(join(folder, "file"), "");
  const tsx = join(root, "node_modules/tsx/dist/cli.mjs");
  const failed = run(process.execPath, [tsx, "scripts/release.ts", join(folder, "file")], root);
  await expect(failed).rejects.toThrow(/^Command failed: .*\nrelease: EEXIST: file already exists, mkdir '.*'\n+$/);
});

test(
  "its command line runs",
  async () => {
    expect((await run("npx", ["ifprune", "--version"])).stdout).toBe(`${version}\n`);
    const { stdout, stderr } = await run("npx", ["ifprune", "run", "What is the plural of wolf?"]);
    expect(stdout).toBe("wolves\n");
    expect(stderr).toMatch(/^tiny: this small model answers 22 kinds of short questions/); // nothing larger is in the package
  },
  2 * minutes,
);

test(
  "publint and Are the Types Wrong find nothing",
  async () => {
    await tool("publint/src/cli.js", "run", tarball, "--strict");
    await tool("@arethetypeswrong/cli/dist/index.js", tarball, "--profile", "esm-only", "--no-color");
  },
  2 * minutes,
);
