/**
 * Makes the package: `npm run release [-- FOLDER]` writes ifprune-VERSION.tgz, which `npm publish FILE` takes. A plain `npm pack` would not do:
 * scripts do not run here (.npmrc), and what dependents get is not what a checkout has.
 *
 * node-llama-cpp goes into the package, as it is installed here, but for three things: its optional dependencies, among them 600 MB of GPU binaries that no
 * dependent could refuse (the CPU binaries are our own optional dependencies); its install script, which downloads or compiles where a GPU is found; and
 * the sources of llama.cpp (35 MB) for that.
 */
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const root = fileURLToPath(new URL("..", import.meta.url));
const out = resolve(process.argv[2] ?? ".");
const stage = mkdtempSync(join(tmpdir(), "ifprune-release-"));
const run = (command: string, ...args: string[]) => execFileSync(command, args, { cwd: stage, stdio: "inherit" });

try {
  const { files }: { files: string[] } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const written = files.filter((name) => !name.endsWith("dist"));
  for (const name of ["package.json", "package-lock.json", "README.md", "LICENSE", ...written])
    cpSync(join(root, name), join(stage, name), { recursive: true });
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  run(process.execPath, tsc, "-p", join(root, "tsconfig.build.json"), "--outDir", join(stage, "dist"));
  await build({ root: join(root, "web"), build: { outDir: join(stage, "web/dist") }, logLevel: "warn" });

  run("npm", "ci", "--ignore-scripts", "--omit=dev", "--omit=optional", "--prefer-offline");
  const llama = join(stage, "node_modules/node-llama-cpp");
  rmSync(join(llama, "llama/gitRelease.bundle"));
  rewrite(join(llama, "package.json"), ["optionalDependencies", "scripts", "devDependencies"]);
  const left = ["private", "scripts", "devDependencies", "overrides"];
  rewrite(join(stage, "package.json"), left, { bundleDependencies: ["node-llama-cpp"] });
  run("npm", "pack", "--ignore-scripts", "--loglevel=error", "--pack-destination", out);
} finally {
  rmSync(stage, { recursive: true });
}

/** Leaves fields of a JSON file out, and adds others. */
function rewrite(path: string, without: readonly string[], added: object = {}): void {
  const fields = Object.entries(JSON.parse(readFileSync(path, "utf8"))).filter(([name]) => !without.includes(name));
  writeFileSync(path, `${JSON.stringify({ ...Object.fromEntries(fields), ...added }, null, 2)}\n`);
}
