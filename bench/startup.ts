/**
 * How long the command line lets one wait: until `--version`, help and a usage error end, and until the first token of the small model in this package.
 *
 *     npx tsx bench/startup.ts [--repeats 10] [--out FILE]
 *
 * Regime: every run is a process of its own; the cases take turns, a round of all after the other, and the first round does not count. Beside them, in
 * the same rounds, what cannot be undercut: `node -e 0`, and the same sub-network by node-llama-cpp alone, which is told the prompt's tokens. Warm: the
 * sub-network is on disk, files are in memory. Cold: neither (Linux; elsewhere files stay in memory). Wall time, and user time of the processor (Linux),
 * which says more on a machine with other work. Medians and extremes; last line: one JSON document.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { InstructionModel } from "../src/answer/instructionModel.ts";
import { TINY_MODEL } from "../src/bundle/pulledModels.ts";
import { version } from "../src/package.ts";

const { values } = parseArgs({ options: { repeats: { type: "string", default: "10" }, out: { type: "string" } } });
const root = fileURLToPath(new URL("..", import.meta.url));
const cache = mkdtempSync(join(tmpdir(), "ifprune-startup-"));
const env = { ...process.env, XDG_CACHE_HOME: cache };
const prompt = "What is the plural of wolf?";

interface Case {
  args: readonly string[];
  /** Whether it is over at its first output. */
  isFirstToken?: boolean;
  before?: () => void;
}

const entry = join(root, "bin/ifprune.js");
const cases: Record<string, Case> = {
  node: { args: ["-e", "0"] },
  version: { args: [entry, "--version"] },
  help: { args: [entry, "--help"] },
  "usage error": { args: [entry, "run", "--nonsense"] },
  "llama.cpp alone": { args: [bare()], isFirstToken: true },
  "first token, warm": { args: [entry, "run", "--model", TINY_MODEL, prompt], isFirstToken: true },
  "first token, cold": { args: [entry, "run", "--model", TINY_MODEL, prompt], isFirstToken: true, before: forget },
};

type Times = { wallMs: number; userMs: number | null };
const measured = new Map<string, Times[]>(Object.keys(cases).map((name) => [name, []]));
try {
  await timesOf(cases["first token, cold"]!); // builds what is built once
  const repeats = Number(values.repeats);
  for (let round = 0; round <= repeats; round++)
    for (const [name, one] of Object.entries(cases)) {
      one.before?.();
      const times = await timesOf(one);
      if (round > 0) measured.get(name)!.push(times);
      process.stderr.write(`\r\x1b[2K${round}/${repeats} ${name}`);
    }
  process.stderr.write("\n");
} finally {
  rmSync(cache, { recursive: true });
}

const rows = [...measured].map(([name, all]) => {
  const wall = spread(all.map(({ wallMs }) => wallMs));
  const user = spread(all.map(({ userMs }) => userMs ?? Number.NaN));
  return { name, wallMs: wall, userMs: user };
});
const base = Object.fromEntries(rows.map(({ name, wallMs }) => [name, wallMs.median]));
const table = rows.map(({ name, wallMs, userMs }) => ({
  case: name,
  "wall ms": Math.round(wallMs.median),
  "min–max": `${Math.round(wallMs.min)}–${Math.round(wallMs.max)}`,
  "user ms": Math.round(userMs.median),
  "× node": (wallMs.median / base.node!).toFixed(1),
  "× llama.cpp alone": (wallMs.median / base["llama.cpp alone"]!).toFixed(2),
}));
console.table(table);
const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version, load: loadavg()[0] };
const result = JSON.stringify({ benchmark: "startup", version, machine, repeats: Number(values.repeats), rows });
if (values.out) writeFileSync(values.out, `${result}\n`);
console.log(result);

async function timesOf({ args, isFirstToken }: Case): Promise<Times> {
  const userBefore = childrensUserMs();
  const start = performance.now();
  const child = spawn(process.execPath, args, { cwd: root, env, stdio: "pipe" });
  let firstMs: number | undefined;
  child.stdout.on("data", () => {
    firstMs ??= performance.now() - start;
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  child.stdin.end();
  await new Promise((resolve) => child.on("close", resolve));
  const wallMs = isFirstToken ? firstMs : performance.now() - start;
  if (wallMs === undefined) throw new Error(`${args.join(" ")}: wanted an output, got none. ${said}`);
  return { wallMs, userMs: userBefore === null ? null : childrensUserMs()! - userBefore };
}

/** Of all children that have ended, and theirs; Linux only. */
function childrensUserMs(): number | null {
  if (process.platform !== "linux") return null;
  const fields = readFileSync("/proc/self/stat", "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return 10 * Number(fields[13]); // cutime, in ticks of 10 ms
}

/** Takes sub-networks off the disk, and files of the program and the model out of the memory. */
function forget(): void {
  rmSync(join(cache, "ifprune"), { recursive: true, force: true });
  if (process.platform !== "linux") return;
  const folders = [
    TINY_MODEL,
    join(root, "dist"),
    ...["node-llama-cpp", "@node-llama-cpp", "@huggingface", "zod"].map((name) => join(root, "node_modules", name)),
  ];
  const files = folders.flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((name) => /\.(js|json|node|so|gguf|safetensors)$/.test(name))
      .map((name) => join(folder, name)),
  );
  spawnSync("sh", ["-c", 'for file do dd if="$file" iflag=nocache count=0 status=none; done', "sh", ...files]);
}

/** The path of a program of node-llama-cpp alone that writes the first token of the prompt, of the sub-network that `run` leaves in the cache. */
function bare(): string {
  using model = new InstructionModel(TINY_MODEL);
  const ids = JSON.stringify([...model.promptIds(prompt)]);
  const path = join(cache, "bare.mjs");
  const program = `import { readdirSync } from "node:fs";
import { join } from "node:path";
import { getLlama, LlamaLogLevel } from ${JSON.stringify(import.meta.resolve("node-llama-cpp"))};
const names = readdirSync(${JSON.stringify(cache)}, { recursive: true });
const modelPath = join(${JSON.stringify(cache)}, names.find((name) => name.includes("-00001-of-")));
const llama = await getLlama({ build: "never", skipDownload: true, gpu: false, logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({ contextSize: 256, threads: 1 });
for await (const token of context.getSequence().evaluate(${ids}, { temperature: 0 })) {
  process.stdout.write(model.detokenize([token]) + " ");
  break;
}
process.exit();`;
  writeFileSync(path, program);
  return path;
}

function spread(values: readonly number[]) {
  const sorted = values.toSorted((a, b) => a - b);
  return { median: sorted[sorted.length >> 1]!, min: sorted[0]!, max: sorted.at(-1)! };
}
