/**
 * Makes the package: `npm run release [-- FOLDER]` writes ifprune-VERSION.tgz, which `npm publish FILE` takes. A plain `npm pack` would not do:
 * scripts do not run here (.npmrc), and what dependents get is not what a checkout has.
 *
 * node-llama-cpp goes into the package, as it is installed here, but for three things: its optional dependencies, among them 600 MB of GPU binaries that no
 * dependent could refuse (the CPU binaries are our own optional dependencies); its install script, which downloads or compiles where a GPU is found; and
 * the sources of llama.cpp (35 MB) for that.
 */
import { spawnSync } from "node:child_process";
import { accessSync, constants, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = fileURLToPath(new URL("..", import.meta.url));

try {
  const { positionals } = parseArgs({ allowPositionals: true });
  if (positionals.length > 1) throw new Error(`wanted one folder, got ${positionals.join(", ")}`);
  const out = resolve(positionals[0] ?? ".");
  mkdirSync(out, { recursive: true });
  accessSync(out, constants.W_OK);
  const stage = mkdtempSync(join(tmpdir(), "ifprune-release-"));
  try {
    console.log(join(out, await release(stage, out)));
  } finally {
    rmSync(stage, { recursive: true });
  }
} catch (error) {
  console.error(`release: ${(error as Error).message.trim().replaceAll(/\s*\n\s*/g, " ")}`);
  process.exitCode = 1;
}

/** Gathers what the package holds in the folder `stage`, and packs it into the folder `out`; the name of the file. */
async function release(stage: string, out: string): Promise<string> {
  const { files }: { files: string[] } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const written = files.filter((name) => !name.endsWith("dist"));
  for (const name of ["package.json", "package-lock.json", "README.md", "LICENSE", ...written])
    cpSync(join(root, name), join(stage, name), { recursive: true });
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  run(stage, process.execPath, tsc, "-p", join(root, "tsconfig.build.json"), "--outDir", join(stage, "dist"));
  process.env.NODE_ENV = "production"; // under another, JSX is compiled for development: with the paths of its sources
  const { build } = await import("vite");
  await build({ root: join(root, "web"), build: { outDir: join(stage, "web/dist") }, logLevel: "warn" });

  run(stage, "npm", "ci", "--ignore-scripts", "--omit=dev", "--omit=optional", "--prefer-offline");
  const llama = join(stage, "node_modules/node-llama-cpp");
  rmSync(join(llama, "llama/gitRelease.bundle"));
  rewrite(join(llama, "package.json"), ["optionalDependencies", "scripts", "devDependencies"]);
  const left = ["private", "scripts", "devDependencies", "overrides"];
  rewrite(join(stage, "package.json"), left, { bundleDependencies: ["node-llama-cpp"] });
  return run(stage, "npm", "pack", "--ignore-scripts", "--loglevel=error", "--pack-destination", out).trim();
}

/** What a program prints; where it fails, an error that names the program and the line in which it says why. */
function run(cwd: string, command: string, ...args: string[]): string {
  const { error, status, signal, stdout, stderr } = spawnSync(command, args, { cwd, encoding: "utf8" });
  if (status === 0) return stdout;
  const lines = `${stderr}\n${stdout}`.split("\n").map((line) => line.trim());
  const cause = lines.find(
    (line) => /error/i.test(line) && !/^npm error( (code|syscall|path|dest|errno)\b.*)?$/.test(line),
  );
  throw new Error(`${[command, ...args].join(" ")}: ${error?.message ?? cause ?? `ended with ${status ?? signal}`}`);
}

/** Leaves fields of a JSON file out, and adds others. */
function rewrite(path: string, without: readonly string[], added: object = {}): void {
  const fields = Object.entries(JSON.parse(readFileSync(path, "utf8"))).filter(([name]) => !without.includes(name));
  writeFileSync(path, `${JSON.stringify({ ...Object.fromEntries(fields), ...added }, null, 2)}\n`);
}
