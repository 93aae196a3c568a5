/**
 * Do tests depend on one CPU's rounding? Runs those that train a model and ask it with initial weights that are changed by 1e-7 to 1e-5 of their size,
 * and those that compute with llama.cpp with each of the given kernels. Not part of `npm test`: an hour of one core.
 *
 *     npx tsx test/perturb/run.ts                      all of it
 *     npx tsx test/perturb/run.ts --kernels x64        only these kernels
 *     npx tsx test/perturb/run.ts --values 1e-6,1e-5   only these changes
 *     npx tsx test/perturb/run.ts … FILE…              of these test files
 *
 * Prints what failed, at the end a table of settings and files, and exits with 1 if anything failed. Values need nothing but the checkout; kernels need
 * Linux on x64 and a CPU that has their instructions (x64: any, haswell: AVX2). node-llama-cpp takes the best kernels that are in the folder of its package
 * `@node-llama-cpp/linux-x64`; what is given to it here is a copy with one of them, in a temporary folder. The installed one stays as it is.
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = fileURLToPath(new URL("../..", import.meta.url));
const preload = new URL("preload.ts", import.meta.url).href;
const installed = join(root, "node_modules/@node-llama-cpp/linux-x64");

/** They train, and then ask what was trained or look at what it chose. */
const training = ["test/cli", "test/codebookRun", "test/trainImported"];
/** They run llama.cpp, on trained or random weights. */
const computing = [
  ...training,
  ...["test/subnetwork", "test/import", "test/llamaCpp", "test/tinyModel", "test/readme"],
  ...["test/serve/command", "test/serve/tools", "src/engine/llamaCpp", "src/serve/localService"],
  ...["src/export/export", "src/answer/", "src/cli/export"],
];

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: { values: { type: "string" }, kernels: { type: "string" } },
});
const isWhole = given.values === undefined && given.kernels === undefined;
const values = (given.values ?? (isWhole ? "1e-7,3e-7,1e-6,3e-6,1e-5" : "")).split(",").filter(Boolean);
const kernels = (given.kernels ?? (isWhole ? "x64,haswell" : "")).split(",").filter(Boolean);

const temporary = mkdtempSync(join(tmpdir(), "ifprune-perturb-"));
process.on("exit", () => rmSync(temporary, { recursive: true, force: true }));

/** A copy of llama.cpp's package with one kind of kernels. @returns its folder */
function packageWith(kernel: string): string {
  const folder = join(temporary, kernel);
  const others = /^libggml-cpu-(.*)\.so$/;
  const isWanted = (path: string) => (others.exec(basename(path))?.[1] ?? kernel) === kernel;
  cpSync(installed, folder, { recursive: true, dereference: true, filter: isWanted });
  const loaded = loadedKernels({ LLAMA_PACKAGE: folder });
  if (loaded !== kernel) throw new Error(`wanted llama.cpp with the kernels ${kernel}, got ${loaded || "none"}.`);
  return folder;
}

/** The kernels that a process which starts llama.cpp has mapped into its memory. */
function loadedKernels(env: Record<string, string>): string {
  const args = ["--import", "tsx", "--import", preload, fileURLToPath(new URL("kernels.ts", import.meta.url))];
  const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, env: { ...process.env, ...env } });
  return stdout.toString().trim().split("\n").at(-1) || stderr.toString();
}

/** What came of each file: how many tests failed, of how many; and of the run as a whole, from which a file is absent whose process died. */
function runTests(files: readonly string[], env: Record<string, string>): { of: Map<string, string>; isGood: boolean } {
  const report = join(temporary, "report.json");
  rmSync(report, { force: true });
  const config = ["--config", "test/perturb/vitest.config.ts", "--maxWorkers", "1"];
  const reporters = ["--reporter=dot", "--reporter=json", `--outputFile.json=${report}`];
  const { status } = spawnSync(
    process.execPath,
    ["node_modules/vitest/vitest.mjs", "run", ...config, ...reporters, ...files],
    {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", process.stderr, process.stderr],
    },
  );
  const { testResults }: { testResults: TestResult[] } = JSON.parse(readFileSync(report, "utf8"));
  const of = new Map(
    testResults.map(({ name, status, assertionResults }) => {
      const failed = assertionResults.filter((test) => test.status === "failed").length;
      const said =
        failed > 0 ? `${failed} of ${assertionResults.length} FAILED` : status === "passed" ? "ok" : "FAILED";
      return [relative(root, name), said];
    }),
  );
  return { of, isGood: status === 0 };
}

interface TestResult {
  name: string;
  status: string;
  assertionResults: { status: string }[];
}

const settings = [
  ...values.map((value) => ({ name: `weights ± ${value}`, env: { PERTURB: value }, files: training })),
  ...kernels.map((kernel) => ({
    name: `kernels ${kernel}`,
    env: { LLAMA_PACKAGE: packageWith(kernel) },
    files: computing,
  })),
];
const rows: string[] = [];
let isGood = settings.length > 0;
for (const { name, env, files } of settings) {
  process.stderr.write(`\n${name}\n`);
  const results = runTests(positionals.length > 0 ? positionals : files, env);
  isGood &&= results.isGood;
  for (const [file, said] of results.of) rows.push(`| ${name} | ${file} | ${said} |`);
  if (!results.isGood) rows.push(`| ${name} | all | FAILED |`);
}
console.log(["| setting | file | tests |", "|---|---|---|", ...rows].join("\n"));
process.exitCode = isGood ? 0 : 1;
