/**
 * What the number of threads is worth: as the engine chooses it, one per core, and one, at rest and beside a program that takes a core.
 *
 *     npx tsx bench/threads.ts [BUNDLE…] [--keep 0.5] [--prompt 64] [--answer 128] [--rounds 3] [--out FILE]
 *
 * Sub-networks of random masks, loaded before; prompts of random tokens, greedy answers that go on to their end; first one answer at a time, then eight. Bundles and numbers of threads in turns, each
 * in an engine of its own that keeps what it has learned; medians over rounds. The table goes to FILE, results/threads.md by default.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { markdownTable } from "../experiments/report/markdown.ts";
import { DEFAULT_ENGINES as engines } from "../src/answer/defaultEngines.ts";
import { Bundle } from "../src/bundle/bundle.ts";
import { openSubnetwork } from "../src/bundle/subnetworkCache.ts";
import type { Engine } from "../src/engine/engine.ts";
import { randomMask } from "../src/mask/baselines.ts";
import { median } from "../src/median.ts";
import { Random } from "../src/random.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    keep: { type: "string", default: "0.5" },
    prompt: { type: "string", default: "64" },
    answer: { type: "string", default: "128" },
    rounds: { type: "string", default: "3" },
    out: { type: "string", default: join(import.meta.dirname, "results/threads.md") },
  },
});
const bundles = positionals.length > 0 ? positionals : ["models/default"];
const [keep, promptTokens, maxTokens, rounds] = [values.keep, values.prompt, values.answer, values.rounds].map(
  Number,
) as [number, number, number, number];
const THREADS: Readonly<Record<string, number | undefined>> = {
  "as chosen": undefined,
  "one per core": availableParallelism(),
  one: 1,
};
/** Ids that every vocabulary has. */
const LOW_IDS = 2000;
const BESIDE = ["nothing", "a busy program"];
const TITLES = ["beside", "answers at a time", "threads", "model", "first token, ms", "tokens/s, all together"];

interface Arm {
  row: string[];
  engine: Engine;
  firstMs: number[];
  tokensPerSecond: number[];
}

await engines.start();
const root = mkdtempSync(join(tmpdir(), "threads-"));
const rows: string[][] = [];
try {
  const files = await Promise.all(bundles.map(subnetworkOf));
  for (const beside of BESIDE)
    for (const sequences of [1, 8]) {
      const arms = await openArms([beside, String(sequences)], files, sequences);
      const busy = beside === "nothing" ? undefined : spawn(process.execPath, ["-e", "for(;;);"]);
      try {
        for (let round = 0; round < rounds; round++) for (const arm of arms) await answer(arm, sequences, round);
      } finally {
        busy?.kill("SIGKILL");
      }
      for (const { row, engine, firstMs, tokensPerSecond } of arms) {
        await engine[Symbol.asyncDispose]();
        rows.push([...row, ...[firstMs, tokensPerSecond].map((all) => median(all).toFixed(0))]);
        console.error(rows.at(-1)!.join(", "));
      }
    }
} finally {
  rmSync(root, { recursive: true });
}
const machine = `${cpus()[0]!.model.trim()}, ${cpus().length} cores, Node ${process.version}`;
const names = bundles.map((path) => basename(resolve(path)));
const command = [
  "npx tsx bench/threads.ts",
  ...names,
  ...["keep", "prompt", "answer", "rounds"].map((key) => `--${key} ${values[key as keyof typeof values]}`),
];
const text = `# The number of threads

\`${command.join(" ")}\` on ${machine}: ${keep * 100} % of the FFN's channels, prompts of ${promptTokens} tokens, answers of ${maxTokens}, medians of ${rounds} rounds.

${markdownTable(TITLES, rows, ["threads", "model"]).join("\n")}
`;
writeFileSync(values.out, text);
process.stdout.write(text);
process.exit(0);

async function subnetworkOf(path: string): Promise<{ name: string; path: string }> {
  using bundle = new Bundle(path);
  const { numLayers, ffnWidth: dFfn } = bundle;
  const mask = randomMask({ numLayers, dFfn, tFfn: keep * dFfn }, 0, "threads");
  return { ...(await openSubnetwork(bundle, mask, { root })), name: basename(resolve(path)) };
}

async function openArms(
  row: string[],
  files: Awaited<ReturnType<typeof subnetworkOf>>[],
  sequences: number,
): Promise<Arm[]> {
  const contextLength = promptTokens + maxTokens;
  const arms: Arm[] = [];
  for (const [words, threads] of Object.entries(THREADS))
    for (const { name, path } of files) {
      const engine = await engines.open(path, { contextLength, sequences, threads });
      arms.push({ row: [...row, words, name], engine, firstMs: [], tokensPerSecond: [] });
    }
  return arms;
}

async function answer({ engine, firstMs, tokensPerSecond }: Arm, sequences: number, round: number): Promise<void> {
  const start = performance.now();
  let [first, count] = [0, 0];
  const one = async (sequence: number) => {
    const random = new Random(`threads/${round}/${sequence}`);
    const ids = Int32Array.from({ length: promptTokens }, () => random.int(LOW_IDS));
    for await (const _ of engine.generate(ids, { maxTokens, ignoreEos: true })) {
      if (count++ === 0) first = performance.now();
    }
  };
  await Promise.all(Array.from({ length: sequences }, (_, sequence) => one(sequence)));
  firstMs.push(first - start);
  tokensPerSecond.push((1000 * (count - sequences)) / (performance.now() - first));
}
