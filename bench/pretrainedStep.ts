/**
 * What a training step of a pretrained model takes: memory and time of next-token, distilling and kept-channel steps, optimiser included, beside the bare matrix
 * product of the same run.
 *
 *     npx tsx bench/pretrainedStep.ts [--small] [--steps 5] [--memory-steps 8] [--threads 2]
 *
 * Regime: the trainer's own steps (`openLearner`) on random weights of SmolLM2-135M's shape (--small: d 256, 6 layers), float32, embedding and head frozen, four rows of
 * 256 tokens, masks of blocks of 64 at 0.5 and 0.25 of the channels, a new one each step; the teacher is another model of the same shape. "cached": its states
 * lie on the disk, "uncached": it reads the rows in the step.
 *
 * Memory: each kind of step in a process of its own, so that its peak is its own; resident set after every step. Next-token steps there have ever other
 * numbers of labels, and so ever other graphs; growth is the largest resident set of the second half of the steps over that of the first, without two that warm up.
 * Time: afterwards, all kinds in turn in one process, with a 2048³ product between them whose best time is the peak; medians, without a first round. FLOPs are
 * 2·m·n·k over all matrix products of a step's graph (of the uncached step without the teacher's). Last line: one JSON document.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as ort from "onnxruntime-node";
import { Graph } from "../src/graph/graph.ts";
import * as n from "../src/graph/nodes.ts";
import { compile } from "../src/graph/session.ts";
import { randomMask } from "../src/mask/baselines.ts";
import { median } from "../src/median.ts";
import type { ModelConfig } from "../src/model/config.ts";
import { IGNORED } from "../src/net/labels.ts";
import { joinParts, type Parts, randomDecoder } from "../src/net/parameters.ts";
import { trainingGraph } from "../src/net/step.ts";
import { Random } from "../src/random.ts";
import type { Batch } from "../src/train/batches.ts";
import { type Learner, openLearner } from "../src/train/learner.ts";
import { type DistilStage, type NextTokenStage, newStageState } from "../src/train/stage.ts";
import { Teacher } from "../src/train/teacher.ts";

const { values } = parseArgs({
  options: {
    small: { type: "boolean", default: false },
    steps: { type: "string", default: "5" },
    "memory-steps": { type: "string" },
    threads: { type: "string", default: "2" },
    // what this script calls itself with
    job: { type: "string" },
    states: { type: "string" },
  },
});
const steps = Number(values.steps);
const memorySteps = Number(values["memory-steps"] ?? Math.max(4, steps));
const session = { threads: Number(values.threads) };

const llm: ModelConfig = values.small
  ? {
      ...{ family: "llama", width: 256, numLayers: 6, numHeads: 4, numKvHeads: 2, headWidth: 64, ffnWidth: 1024 },
      ...{ vocabSize: 4096, contextLength: 256, normEps: 1e-5, ropeTheta: 10_000, tieEmbeddings: true },
    }
  : {
      ...{ family: "llama", width: 576, numLayers: 30, numHeads: 9, numKvHeads: 3, headWidth: 64, ffnWidth: 1536 },
      ...{ vocabSize: 49_152, contextLength: 8192, normEps: 1e-5, ropeTheta: 100_000, tieEmbeddings: true },
    };
const { numLayers, ffnWidth: dFfn } = llm;
const [B, T, block, numMasks] = [4, 256, 64, 8];

const keeps = { "kept 0.5": 0.5, "kept 0.25": 0.25 } as const;
const kinds = ["next-token", "distil cached", "distil uncached", "kept 0.5", "kept 0.25"] as const;
type Kind = (typeof kinds)[number];

/** Rows that the teacher has read before, and those that it reads once, in the steps. */
const numCached = 4 * B;
const random = new Random("rows");
const rows = Array.from({ length: numCached + B * (2 + Math.max(steps, memorySteps)) }, () => ({
  ids: Int32Array.from({ length: T }, () => random.int(llm.vocabSize)),
}));
const cachedRows = Int32Array.from({ length: numCached }, (_, place) => place);

const openTeacher = (folder: string) =>
  new Teacher({ config: llm, weights: randomDecoder(llm, new Random("teacher")) }, rows, {
    ...{ folder, sequenceLength: T, session },
  });

/** Takes steps of the kinds that it is asked for. Parameters and moments are one set, gradients are each learner's own. */
class Steps {
  readonly #parts: Parts = { llm: randomDecoder(llm, new Random("model")) };
  readonly #learners = new Map<string, Learner>();
  readonly #folder: string;
  readonly #changesLabels: boolean;
  #state: ReturnType<typeof newStageState> | undefined;
  #teacher: Teacher | undefined;
  #step = 0;
  #fresh = numCached;

  /** @param changesLabels whether next-token steps have ever other numbers of labels, else labels everywhere */
  constructor(folder: string, changesLabels: boolean) {
    this.#folder = folder;
    this.#changesLabels = changesLabels;
  }

  async take(kind: Kind): Promise<void> {
    const stage = this.#stageOf(kind);
    this.#state ??= newStageState(stage, this.#parts);
    const name = kind === "distil uncached" ? "distil cached" : kind; // the same step, of other rows
    const learner = this.#learners.get(name) ?? (await openLearner(stage, this.#parts, this.#state, session));
    this.#learners.set(name, learner);
    const stream = { next: () => this.#batch(kind), skip: () => {} };
    await learner.step(stream, ++this.#step, { llm: 1e-5, down: 1e-5, predictor: 0 });
  }

  /** 2·m·n·k over the matrix products of a step. */
  flops(kind: Kind): number {
    const stage = this.#stageOf(kind);
    const ffnWidth = kind in keeps ? dFfn * keeps[kind as keyof typeof keeps] : dFfn;
    const trained = new Set(trainedNames(this.#parts));
    return trainingGraph({ ...stage, llm: { ...llm, ffnWidth } }, { B, T, Tp: 1, chunks: 1 }, trained).flops;
  }

  #stageOf(kind: Kind): NextTokenStage | DistilStage {
    const common = {
      ...{ name: kind, llm, steps, accumulate: 1, masks: { kind: "none" as const } },
      ...{ optimizer: { beta1: 0.9, beta2: 0.95, weightDecay: 0, clipNorm: 1 }, freezesEmbedding: true },
      schedule: { peaks: { llm: 1e-5, predictor: 0 }, downShare: 1, warmupSteps: 0, minShare: 1 },
      trains: { llm: true, predictor: false },
    };
    if (kind === "next-token") return { kind: "next-token", ...common, chunks: 1 };
    this.#teacher ??= openTeacher(this.#folder);
    const distil: DistilStage = { kind: "distil", ...common, teacher: this.#teacher.head, states: this.#teacher };
    if (!(kind in keeps)) return distil;
    const tFfn = dFfn * keeps[kind as keyof typeof keeps];
    const masks = Array.from(
      { length: numMasks },
      (_, entry) => new Map([[tFfn, randomMask({ numLayers, dFfn, tFfn, block }, 1, `mask ${entry}`)]]),
    );
    return { ...distil, fixed: { masks, budgets: [tFfn], seed: "bench", tFfn } };
  }

  #batch(kind: Kind): Batch {
    const places = Int32Array.from({ length: B }, (_, i) =>
      kind === "distil uncached" ? this.#fresh++ : (this.#step * B + i) % numCached,
    );
    const ids = Int32Array.from([...places].flatMap((place) => [...rows[place]!.ids]));
    // a seventh of the positions at least; 41 and 97 are coprime, so counts change at every step
    const labelled =
      kind === "next-token" && this.#changesLabels
        ? Math.floor((B * T * (14 + ((41 * this.#step) % 97))) / 110)
        : B * T;
    return {
      ...{
        B,
        T,
        P: 0,
        Tp: 0,
        ids,
        starts: new Int32Array(B * T),
        shared: new Int32Array(B * T),
        tokens: B * T,
        labelled,
        rows: places,
        mask: this.#step % numMasks,
      },
      labels: ids.map((id, i) => (i < labelled ? id : IGNORED)),
      predictorIds: new Int32Array(),
      predictorLast: new Int32Array(),
      domains: new Int32Array(B),
      questions: [],
    };
  }
}

/** All but the embedding. */
const trainedNames = (parts: Parts) =>
  [...joinParts(parts).keys()].filter((name) => !/embed_tokens|lm_head/.test(name));

const mb = (bytes: number) => Math.round(bytes / 1e6);

/** In a process of its own: resident set after each step, and the largest ever. */
async function memoryOf(kind: Kind, folder: string): Promise<{ peakMb: number; rssMb: number[] }> {
  const own = new Steps(folder, true);
  const rssMb: number[] = [];
  for (let step = 0; step < memorySteps; step++) {
    await own.take(kind);
    rssMb.push(mb(process.memoryUsage.rss()));
  }
  return { peakMb: mb(process.resourceUsage().maxRSS * 1024), rssMb };
}

async function runJob(job: string, folder: string): Promise<object> {
  if (job !== "teach") return memoryOf(job as Kind, folder);
  await using teacher = openTeacher(folder);
  await teacher.states(cachedRows);
  return {};
}

/** Calls this script for one job, and returns the JSON that it prints. */
function inProcess<R>(job: string, folder: string): R {
  const options = ["--steps", `${steps}`, "--memory-steps", `${memorySteps}`, "--threads", values.threads];
  const own = [...process.execArgv, process.argv[1]!, ...(values.small ? ["--small"] : []), ...options];
  const { status, stdout } = spawnSync(process.execPath, [...own, "--job", job, "--states", folder], {
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`"${job}" ended with ${status}`);
  return JSON.parse(stdout) as R;
}

const rounded = (value: number, digits = 3) => Number(value.toFixed(digits));

/** Seconds of each step of each kind, and of the products between them. */
async function timeInTurns(all: Steps): Promise<{ seconds: Record<Kind, number[]>; product: number[]; flops: number }> {
  const S = 2048;
  const graph = new Graph("product");
  graph.output("c", n.matmul(graph.input("a", [S, S]), graph.input("b", [S, S]), { transB: true }));
  const bare = await compile(graph, session);
  const matrix = () => Float32Array.from({ length: S * S }, () => random.float() - 0.5);
  const feeds = { a: matrix(), b: matrix() };
  const timed = async (into: number[], work: () => Promise<unknown>) => {
    const start = performance.now();
    await work();
    into.push((performance.now() - start) / 1000);
  };
  const product: number[] = [];
  const seconds = Object.fromEntries(kinds.map((kind) => [kind, [] as number[]])) as Record<Kind, number[]>;
  for (let round = -1; round < steps; round++) {
    for (const kind of kinds) {
      await timed(product, () => bare.run(feeds));
      await timed(round < 0 ? [] : seconds[kind], () => all.take(kind));
    }
  }
  return { seconds, product, flops: bare.flops };
}

async function main(): Promise<void> {
  const folder = mkdtempSync(join(os.tmpdir(), "ifprune-step-"));
  try {
    inProcess("teach", folder);
    const memory = new Map(
      kinds.map((kind) => {
        const found = inProcess<{ peakMb: number; rssMb: number[] }>(kind, folder);
        console.log(`${kind}: ${found.peakMb} MB at most, after steps ${found.rssMb.join(", ")}`);
        return [kind, found];
      }),
    );
    const all = new Steps(folder, false);
    const { seconds, product, flops } = await timeInTurns(all);
    const peak = flops / Math.min(...product) / 1e9;
    console.log(
      `2048³ product: best ${peak.toFixed(0)} GFLOP/s, median ${(flops / median(product) / 1e9).toFixed(0)}; ${values.threads} threads, ${os.cpus()[0]!.model}`,
    );
    const dense = { seconds: median(seconds["distil cached"]), flops: all.flops("distil cached") };
    const report = kinds.map((kind) => {
      const [time, work] = [median(seconds[kind]), all.flops(kind)];
      const { peakMb, rssMb } = memory.get(kind)!;
      const steady = rssMb.slice(2);
      const [first, second] = [steady.slice(0, steady.length >> 1), steady.slice(steady.length >> 1)];
      const row = {
        kind,
        seconds: rounded(time),
        range: [rounded(Math.min(...seconds[kind])), rounded(Math.max(...seconds[kind]))],
        gflops: rounded(work / time / 1e9, 1),
        shareOfPeak: rounded(work / time / 1e9 / peak),
        speedOfDense: rounded(dense.seconds / time),
        boundByFlops: rounded(dense.flops / work),
        peakMb,
        growth: rounded(Math.max(...second) / Math.max(...first) - 1, 4),
        rssMb,
      };
      console.log(
        `${kind.padEnd(15)} ${row.seconds} s (${row.range.join(" to ")}), ${row.gflops} GFLOP/s = ${(100 * row.shareOfPeak).toFixed(0)} % of the product's; ` +
          `${row.speedOfDense} × the dense distilling step (bound by FLOPs ${row.boundByFlops}); ${peakMb} MB, growth ${(100 * row.growth).toFixed(1)} %`,
      );
      return row;
    });
    const machine = { onnxruntime: ort.env.versions.common, threads: session.threads, cpu: os.cpus()[0]!.model };
    const date = new Date().toISOString().slice(0, 10);
    console.log(JSON.stringify({ date, ...machine, shape: llm, positions: B * T, peak: rounded(peak, 1), report }));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (values.job !== undefined) console.log(JSON.stringify(await runJob(values.job, values.states!)));
else await main();
process.exit(0);
