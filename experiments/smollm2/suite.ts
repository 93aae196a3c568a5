/**
 * The arms of the comparison, one after the other: pruned, healed on the same tokens with the same loss, measured before and after. What is finished stays, what was interrupted goes on, so the
 * command may be stopped at any time and started again.
 *
 *     npx ifprune import SmolLM2-135M-Instruct.gguf runs/smollm2/dense --checkpoint --licence Apache-2.0
 *     npx tsx experiments/smollm2/suite.ts [ARM…] [--steps 264] [--seed 1] [--keep 0.5] [--rate 1e-4] [--threads 2]
 *
 * Without names all arms, the most telling first. Results: `results/NAME.json` and the table of all, on stdout, by `evaluate.ts`. An arm of 264 steps, a quarter of a million tokens, takes about an hour on two cores.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { OptionError } from "../../src/errors.ts";
import { readSafetensors } from "../../src/formats/safetensors.ts";

/** What `prune` is told, beside the data. */
const ARMS: Readonly<Record<string, readonly string[]>> = {
  codebook: ["--masks", "16", "--reconstruct"],
  static: ["--masks", "1", "--reconstruct"],
  random: ["--masks", "16", "--random", "--reconstruct"],
  domains: ["--masks", "domains", "--reconstruct"],
  "codebook-free": ["--masks", "16", "--block", "1", "--reconstruct"],
  "static-free": ["--masks", "1", "--block", "1", "--reconstruct"],
  "codebook-16": ["--masks", "16", "--block", "16", "--reconstruct"],
  "codebook-32": ["--masks", "16", "--block", "32", "--reconstruct"],
  "codebook-128": ["--masks", "16", "--block", "128", "--reconstruct"],
  "codebook-core": ["--masks", "16", "--core", "0.75", "--reconstruct"],
  "codebook-as-found": ["--masks", "16"],
  "static-as-found": ["--masks", "1"],
};
const KINDS = ["rules", "sql", "math", "python", "roleplay", "tools", "stories", "code", "plain"];
/** Of their files together: data/LICENSES.md. */
const LICENCES = "Apache-2.0 and MIT and BSD-3-Clause and CC-BY-4.0 and public domain";
const FULL_WIDTH = 1536;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    steps: { type: "string", default: "264" },
    seed: { type: "string", default: "1" },
    keep: { type: "string", default: "0.5" },
    rate: { type: "string" }, // else that of the recipe
    threads: { type: "string", default: "2" },
  },
});
const unknown = positionals.find((name) => !Object.hasOwn(ARMS, name));
if (unknown !== undefined)
  throw new OptionError(`suite.ts: wanted arms of ${Object.keys(ARMS).join(", ")}, got "${unknown}".`);

const here = import.meta.dirname;
const root = join(here, "../..");
const runs = join(root, "runs/smollm2");
const dense = join(runs, "dense");
const { steps, seed, keep, rate, threads } = values;
const tFfn = Number(keep) * FULL_WIDTH;

/** Ends the suite where a part of it fails or is interrupted. */
function run(program: string, args: readonly string[]): void {
  console.error(`\n${program} ${args.join(" ")}`);
  const { status } = spawnSync(process.execPath, [program, ...args], { cwd: here, stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}
const ifprune = (...args: readonly string[]) => run(join(root, "bin/ifprune.js"), args);

/** Last commit of what `prune` is made of: what an older one has pruned is not taken for the same. */
const { stdout: madeBy } = spawnSync(
  "git",
  [
    "log",
    "-1",
    "--format=%h",
    "--",
    ...["train/prune.ts", "train/reconstruct.ts", "net", "mask"].map((name) => join(root, "src", name)),
  ],
  { cwd: here, encoding: "utf8" },
);

/** Entries of a pruned model's codebook. */
const entriesOf = (pruned: string) =>
  readSafetensors(join(pruned, "predictor/head.safetensors")).get("router.weight")!.shape[0]!;

mkdirSync(join(here, "results"), { recursive: true });
for (const arm of positionals.length > 0 ? positionals : Object.keys(ARMS)) {
  const pruned = join(runs, `pruned-${arm}-${keep}-s${seed}-${madeBy.trim()}`);
  const files = KINDS.map((kind) => `data/train/${kind}.jsonl.gz`);
  const importance = ["--prompts", "513", "--importance", join(runs, "importance"), "--threads", threads];
  if (!existsSync(pruned))
    ifprune(
      "prune",
      dense,
      pruned,
      "--keep",
      keep,
      "--data",
      ...files,
      "--licence",
      LICENCES,
      "--seed",
      seed,
      ...importance,
      ...ARMS[arm]!,
    );
  const block = ARMS[arm]![ARMS[arm]!.indexOf("--block") + 1];
  const name = ["smollm2", arm, keep, steps, ...(rate === undefined ? [] : [rate]), `s${seed}`].join("-");
  const changes = {
    name,
    "init.run": relative(here, pruned),
    "predictor.rank": entriesOf(pruned),
    "mask.tFfn": tFfn,
    "mask.block": ARMS[arm]!.includes("--block") ? Number(block) : 64,
    "stages.heal.steps": Number(steps),
    "stages.heal.budgets": null,
    ...(rate !== undefined && { "stages.heal.learningRate.llm": Number(rate) }),
  };
  const set = Object.entries(changes).flatMap(([path, value]) => ["--set", `${path}=${JSON.stringify(value)}`]);
  ifprune("train", "heal.json", "--seed", seed, "--threads", threads, "--runs", join(root, "runs"), ...set);
  const result = join(here, "results", `${name}.json`);
  const states = ["--states", join(runs, "states"), "--threads", threads];
  if (!existsSync(result))
    run(join(root, "node_modules/tsx/dist/cli.mjs"), [
      join(here, "evaluate.ts"),
      dense,
      pruned,
      join(root, "runs", name),
      "--keep",
      keep,
      "--prompts",
      "5",
      ...states,
      "--out",
      result,
    ]);
}
