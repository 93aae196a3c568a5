/**
 * The fuzzing campaign: `npx tsx test/fuzz/run.ts [--target NAME]… [--cases N] [--seed N]`. Each target runs in a process of its own, with little memory; one that
 * hangs or dies is told by its counter. A failing case is kept in `runs/fuzz/` with the seed that makes it.
 */
import { fork } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { emptySummary, Fuzzer, type Summary } from "./check.ts";
import { targets } from "./targets.ts";

/** Cases of one seed, which fast-check draws together. */
const batch = 500;
/** Without a new case. Long, for machines that have other work too. */
const hangMs = 300_000;
const heapMb = 512;

interface Report {
  summary: Summary;
  folder: string;
  failure?: string | undefined;
}

/** Runs one batch after the other, and reports after each. */
async function child(name: string, seed: number, batches: [number, number], counter: string): Promise<void> {
  using fuzzer = await Fuzzer.open(targets[name]!);
  const descriptor = openSync(counter, "w");
  const count = Buffer.alloc(4);
  const send = (report: Report) => new Promise<void>((resolve) => process.send!(report, () => resolve()));
  await send({ summary: fuzzer.summary, folder: fuzzer.folder });
  for (let i = batches[0]; i < batches[1]; i++) {
    const failure = await fuzzer.check(seed + i, batch, () => {
      count.writeUInt32LE(count.readUInt32LE() + 1);
      writeSync(descriptor, count, 0, 4, 0);
    });
    await send({ summary: fuzzer.summary, folder: fuzzer.folder, failure });
  }
  process.disconnect();
}

async function campaign(name: string, cases: number, seed: number): Promise<number> {
  const count = Math.ceil(cases / batch);
  const total = emptySummary();
  const kept = fileURLToPath(new URL(`../../runs/fuzz/${name}-`, import.meta.url));
  let failures = 0;
  const fail = (folder: string | undefined, at: number, message: string) => {
    failures++;
    const place = `${kept}${seed + at}`;
    mkdirSync(place, { recursive: true });
    if (folder && existsSync(folder)) cpSync(folder, join(place, "case"), { recursive: true, verbatimSymlinks: true });
    console.log(`${name}: ${message}\n  files: ${place}`);
  };
  for (let done = 0; done < count; ) {
    const from = done;
    const summary = await new Promise<Summary>((resolve) => {
      const root = mkdtempSync(join(tmpdir(), "ifprune-fuzz-"));
      const counter = join(root, "counter");
      writeFileSync(counter, "");
      const process_ = fork(
        fileURLToPath(import.meta.url),
        ["--child", name, String(seed), String(from), String(count), counter],
        {
          execArgv: ["--import", "tsx", `--max-old-space-size=${heapMb}`],
          env: { ...process.env, TMPDIR: root },
        },
      );
      let last: Report | undefined;
      process_.on("message", (report: Report) => {
        if (last) done++;
        last = report;
        if (report.failure) fail(report.folder, done - 1, report.failure);
      });
      let seen = "";
      const watch = setInterval(() => {
        const now = readFileSync(counter, "latin1");
        if (now === seen) process_.kill("SIGKILL");
        seen = now;
      }, hangMs);
      process_.on("exit", (code, signal) => {
        clearInterval(watch);
        if (code !== 0)
          fail(last?.folder, done++, `died in batch ${seed + done - 1}: ${signal ?? `exit code ${code}`}`);
        rmSync(root, { recursive: true, force: true });
        resolve(last?.summary ?? emptySummary());
      });
    });
    add(total, summary);
  }
  const { accepted, refused, slowestMs, largestBytes } = total;
  const codes = Object.entries(refused).map(([code, n]) => `${code} ${n}`);
  const numbers = `slowest ${slowestMs.toFixed(0)} ms, largest ${(largestBytes / 2 ** 20).toFixed(0)} MiB`;
  console.log(
    `${name}: ${total.cases} cases, seed ${seed}: accepted ${accepted}, ${codes.join(", ")}; ${numbers}; failures ${failures}`,
  );
  return failures;
}

function add(total: Summary, part: Summary): void {
  total.cases += part.cases;
  total.accepted += part.accepted;
  for (const [code, n] of Object.entries(part.refused)) total.refused[code] = (total.refused[code] ?? 0) + n;
  total.slowestMs = Math.max(total.slowestMs, part.slowestMs);
  total.largestBytes = Math.max(total.largestBytes, part.largestBytes);
}

if (process.argv[2] === "--child") {
  const [name, seed, from, to, counter] = process.argv.slice(3) as [string, string, string, string, string];
  process.on("disconnect", () => process.exit());
  await child(name, Number(seed), [Number(from), Number(to)], counter);
} else {
  const { values } = parseArgs({
    options: {
      target: { type: "string", multiple: true, default: Object.keys(targets) },
      cases: { type: "string", default: "100000" },
      seed: { type: "string", default: "1" },
    },
  });
  let failures = 0;
  for (const name of values.target) {
    if (!targets[name]) throw new Error(`targets: ${Object.keys(targets).join(", ")}`);
    failures += await campaign(name, Number(values.cases), Number(values.seed));
  }
  process.exitCode = failures > 0 ? 1 : 0;
}
