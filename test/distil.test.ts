/**
 * A pretrained chat model is pruned and healed: importance, blocks, a codebook and its router, then a dense teacher's states, kept, under the masks of the
 * prompts. What is trained is what the masked model computes; a run that stops goes on bit for bit; states that are not the teacher's are not used.
 */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { importModel } from "../src/bundle/importModel.ts";
import { toDenseMask } from "../src/mask/mask.ts";
import { joinParts, type Parts } from "../src/net/parameters.ts";
import type { BatchStream } from "../src/train/batches.ts";
import { loadLatestCheckpoint, loadModel, saveModel } from "../src/train/checkpoint.ts";
import { openLearner } from "../src/train/learner.ts";
import { readRecipe } from "../src/train/recipe/read.ts";
import { trainRecipe } from "../src/train/run.ts";
import { readRunLog } from "../src/train/runLog.ts";
import { RunState } from "../src/train/runState.ts";
import { type DistilStage, newStageState } from "../src/train/stage.ts";
import { prepareStage } from "../src/train/stages.ts";
import { shapes, writeCheckpointFolder } from "./support/checkpoints.ts";
import { inProcess, succeed } from "./support/cli.ts";
import { fixtures } from "./support/models.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-distil-"));
const at = (...parts: string[]) => join(folder, ...parts);
afterAll(() => rmSync(folder, { recursive: true }));

const rates = { llm: 0.003, down: 0.003, predictor: 0 };
const recipe = {
  name: "healed",
  seed: 1,
  init: { run: "../pruned" },
  predictor: { backbone: { llmLayers: 0 }, pooling: "mean", head: "codebook", rank: 2 },
  mask: { kind: "predictor", tFfn: 48, block: 16 },
  stages: [
    {
      name: "heal",
      kind: "distil",
      train: "llm",
      steps: 12,
      data: [{ domain: "questions", path: "train.jsonl", licence: "MIT" }],
      instructions: "instructions.json",
      teacher: { run: "../dense" },
      states: "../states",
      sequenceLength: 96,
      tokensPerBatch: 192,
      budgets: [48, 64],
      learningRate: { llm: 0.003 },
      weightDecay: 0,
      evaluate: { every: 6, path: "questions.jsonl" },
    },
  ],
  checkpointEvery: 5,
  threads: 1,
};

function writeRecipe(name: string, changes: object = {}, stage: object = {}): string {
  const path = at("tiny", `${name}.json`);
  writeFileSync(path, JSON.stringify({ ...recipe, name, ...changes, stages: [{ ...recipe.stages[0], ...stage }] }));
  return path;
}

beforeAll(async () => {
  cpSync(join(fixtures, "tiny"), at("tiny"), { recursive: true });
  const { config, ...rest } = shapes.SmolLM2!;
  await writeCheckpointFolder(at("source"), { ...rest, config: { ...config, contextLength: 256 } });
  await importModel(at("source"), at("dense"), { as: "checkpoint" });
  const report = await succeed("prune", at("dense"), at("pruned"), ...pruning(), "--json");
  expect(JSON.parse(report).entries).toHaveLength(2);
}, 300_000);

function pruning(): string[] {
  const data = ["--data", at("tiny/train.jsonl"), "--instructions", at("tiny/instructions.json")];
  const importance = ["--importance", at("kept/importance")];
  return [
    ...data,
    ...importance,
    "--masks",
    "2",
    "--block",
    "16",
    "--t-ffn",
    "48",
    "--prompts",
    "12",
    "--threads",
    "1",
  ];
}

/** What a command that fails says. */
async function fail(...args: readonly string[]): Promise<string> {
  const { code, stderr } = await inProcess(...args);
  expect(code).not.toBe(0);
  return stderr;
}

const lossesOf = (run: string) =>
  readRunLog(join(run, "metrics.jsonl")).flatMap((row) => (row.kind === "train" ? [row.loss] : []));

test("pruned: the dense model is the same but for the order of its channels", async () => {
  const [dense, pruned] = [await loadModel(at("dense")), await loadModel(at("pruned"))];
  const sorted = (model: typeof dense, name: string) => model.llm.weights.get(name)!.data.toSorted();
  for (const name of dense.llm.weights.keys()) expect(sorted(pruned, name)).toEqual(sorted(dense, name));
  expect(pruned.card).toMatchObject({ tFfn: 48, lambda: "hard", predictorPooling: "mean" });
});

test("reconstructed: FFN outputs under the masks are nearer to the dense ones; of the weights only down is another", async () => {
  const { stderr } = await inProcess("prune", at("dense"), at("reconstructed"), ...pruning(), "--reconstruct");
  const [, before, after] = /error of FFN outputs .+: (.+) %, reconstructed (.+) %/.exec(stderr)!;
  expect(Number(after)).toBeLessThan(0.9 * Number(before));
  const [plain, fitted] = [await loadModel(at("pruned")), await loadModel(at("reconstructed"))];
  expect(fitted.predictor!.head).toEqual(plain.predictor!.head);
  for (const [name, { data }] of fitted.llm.weights) {
    const isSame = data.every((value, i) => value === plain.llm.weights.get(name)!.data[i]);
    expect([name, isSame]).toEqual([name, !name.includes("down_proj")]);
  }
});

test("healed: closer to the teacher under each prompt's mask, and served as it was trained", {
  timeout: 300_000,
}, async () => {
  await succeed("train", writeRecipe("healed"), "--runs", at("runs"));
  const rows = readRunLog(at("runs/healed/metrics.jsonl"));
  const budgets = rows.flatMap((row) => (row.kind === "train" ? [row.tFfn] : []));
  expect(new Set(budgets)).toEqual(new Set([48, 64]));
  const measured = rows.flatMap((row) => (row.kind === "evaluation" ? [row.loss] : []));
  expect(measured.map((loss) => Object.keys(loss).sort())).toEqual(measured.map(() => ["dense", "foreign", "own"]));
  const [first, last] = [measured[0]!.own!, measured.at(-1)!.own!];
  expect(last).toBeLessThan(first);
  await succeed("pack", at("runs/healed"), at("bundle"), "--type", "F32");
  const answer = await succeed("run", "--model", at("bundle"), "--json", "--max-tokens", "3", "Say a letter.");
  expect(JSON.parse(answer)).toMatchObject({ keptShare: 48 / 96 });
});

test("stopped after any step, it goes on bit for bit as one that saved there; without its teacher's states too", {
  timeout: 300_000,
}, async () => {
  const path = writeRecipe("stopped");
  const train = async (runs: string, stopAt?: number) => {
    const controller = new AbortController();
    for await (const event of trainRecipe(readRecipe(path), {
      runDir: at(runs, "stopped"),
      signal: controller.signal,
      threads: 1,
    }))
      if (event.kind === "row" && event.row.kind === "train" && event.row.step === stopAt) controller.abort();
  };
  // checkpoints round moments, so an uninterrupted run has them at the same steps
  await train("whole", 7);
  await train("whole");
  await train("parts", 7);
  rmSync(at("states"), { recursive: true });
  await train("parts");
  const [whole, parts] = [
    (await loadLatestCheckpoint(at("whole/stopped")))!,
    (await loadLatestCheckpoint(at("parts/stopped")))!,
  ];
  expect(parts.llm.weights).toEqual(whole.llm.weights);
  expect(lossesOf(at("parts/stopped"))).toEqual(lossesOf(at("whole/stopped")));
});

test("a run goes on with the teacher that it began with, made again or not, and with no other", {
  timeout: 300_000,
}, async () => {
  await importModel(at("source"), at("teacher"), { as: "checkpoint" });
  const path = writeRecipe("taught", {}, { teacher: { run: "../teacher" } });
  const train = async (stopAt?: number) => {
    const controller = new AbortController();
    const how = { runDir: at("runs/taught"), signal: controller.signal, threads: 1 };
    for await (const event of trainRecipe(readRecipe(path), how))
      if (event.kind === "row" && event.row.kind === "train" && event.row.step === stopAt) controller.abort();
  };
  await train(3);
  rmSync(at("teacher"), { recursive: true });
  await importModel(at("source"), at("teacher"), { as: "checkpoint" });
  await train(4);
  rmSync(at("teacher"), { recursive: true });
  const other = shapes.SmolLM2!;
  await writeCheckpointFolder(at("other"), { ...other, config: { ...other.config, contextLength: 128 } });
  await importModel(at("other"), at("teacher"), { as: "checkpoint" });
  await expect(train()).rejects.toThrow(/teacher: wanted what the run began with, .+ --accept-changed-data/);
});

test("a second run on the same rows does not ask the teacher; altered states are made anew", {
  timeout: 300_000,
}, async () => {
  await succeed("train", writeRecipe("first"), "--runs", at("runs"));
  const files = () =>
    readdirSync(at("states"), { recursive: true })
      .map((name) => at("states", String(name)))
      .filter((path) => statSync(path).isFile());
  const written = () => files().map((path) => statSync(path).mtimeMs);
  const before = written();
  await succeed("train", writeRecipe("again"), "--runs", at("runs"));
  expect(lossesOf(at("runs/again"))).toEqual(lossesOf(at("runs/first")));
  expect(written()).toEqual(before);
  for (const path of files().filter((name) => name.endsWith("states"))) {
    const bytes = readFileSync(path);
    for (let i = 0; i < bytes.length; i += 97) bytes[i]! ^= 0x55;
    writeFileSync(path, bytes);
  }
  await succeed("train", writeRecipe("second"), "--runs", at("runs"));
  expect(lossesOf(at("runs/second"))).toEqual(lossesOf(at("runs/first")));
  expect(written()).not.toEqual(before);
});

test.each([
  ["of one batch", 192, 1],
  ["of several, each under its own mask,", 96, 6],
])(
  "a step %s on kept channels is the step of the masked model",
  {
    timeout: 300_000,
  },
  async (_, tokensPerBatch, accumulate) => {
    const name = `step-${accumulate}`;
    const file = readRecipe(writeRecipe(name, {}, { budgets: [48], tokensPerBatch, accumulate }));
    mkdirSync(at("runs", name), { recursive: true });
    const open = async () => {
      const run = await RunState.open(file, at("runs", name), undefined);
      const prepared = await prepareStage(file.recipe.stages[0]!, {
        file,
        format: run.format,
        parts: run.parts,
        session: { threads: 1 },
        runDir: at("runs", name),
      });
      return { parts: run.parts, stream: prepared.stream, stage: prepared.config as DistilStage };
    };
    const stepOf = async (stage: DistilStage, parts: Parts, stream: BatchStream) => {
      const learner = await openLearner(stage, parts, newStageState(stage, parts), { threads: 1 });
      const learned = await learner.step(stream, 1, rates);
      await learner.release();
      return learned;
    };
    const [kept, masked] = [await open(), await open()];
    const own = await stepOf(kept.stage, kept.parts, kept.stream);
    const { fixed, ...plain } = masked.stage;
    const masks = fixed!.masks.map((one) => one.get(48)!);
    const given = { kind: "given" as const, tFfn: 48, domains: masks.map((mask) => ({ domain: "any", mask })) };
    const used = new Set<number>();
    const next = () => {
      const batch = masked.stream.next();
      used.add(batch.mask!);
      return { ...batch, domains: Int32Array.from(batch.domains, () => batch.mask!) };
    };
    const whole = await stepOf({ ...plain, masks: given }, masked.parts, { next, skip: () => {} });
    expect(used.size).toBe(Math.min(accumulate, 2));
    expect([own.labels, own.tokens, own.positions]).toEqual([whole.labels, whole.tokens, whole.positions]);
    expect(own.loss).toBeCloseTo(whole.loss, 3);
    expect(own.gradientNorm).toBeCloseTo(whole.gradientNorm, 4);
    const dense = [...used].map((mask) => toDenseMask(masks[mask]!));
    const [before, a, b] = [(await open()).parts, kept.parts, masked.parts].map((parts) =>
      joinParts({ llm: parts.llm }),
    );
    let [largest, moved] = [0, 0];
    for (const [name, { data }] of a!) {
      const [, layer] = /layers\.(\d+)\.mlp\.gate/.exec(name) ?? [];
      for (const [i, value] of data.entries()) {
        largest = Math.max(largest, Math.abs(value - b!.get(name)!.data[i]!));
        if (value !== before!.get(name)!.data[i]) moved++;
        const channel = Number(layer) * 96 + Math.floor(i / kept.stage.llm.width);
        if (layer !== undefined && dense.every((mask) => mask[channel] === 0))
          expect(value).toBe(before!.get(name)!.data[i]);
      }
    }
    expect(moved).toBeGreaterThan(1000);
    expect(largest).toBeLessThan(2e-4); // the first step of Adam moves each weight by its rate, 0.003, whatever its gradient
  },
);

test("refused: a teacher with another tokenizer, blocks that do not divide, budgets of no blocks", {
  timeout: 300_000,
}, async () => {
  await succeed("train", join(fixtures, "tiny/recipe.json"), "--runs", at("other"));
  const other = writeRecipe("other", {}, { teacher: { run: "../other/tiny" } });
  expect(await fail("train", other, "--runs", at("runs"))).toMatch(
    /wanted a teacher with the tokenizer of the model that learns, got another/,
  );
  const dense = await loadModel(at("dense"));
  const { config, weights } = dense.llm;
  const name = "model.embed_tokens.weight";
  const { data: rows } = weights.get(name)!;
  const [V, D] = [config.vocabSize + 8, config.width];
  const wider = { shape: [V, D], data: new Float32Array(V * D) };
  wider.data.set(rows);
  const llm = {
    config: { ...config, vocabSize: V },
    weights: new Map(weights).set(name, wider),
  };
  await saveModel(at("wide"), { ...dense, llm });
  expect(await fail("train", writeRecipe("wide", {}, { teacher: { run: "../wide" } }), "--runs", at("runs"))).toMatch(
    new RegExp(`wanted a teacher with ${config.vocabSize} rows of its embedding.+, got ${V}`),
  );
  expect(await fail("train", writeRecipe("blocks", {}, { budgets: [40] }), "--runs", at("runs"))).toMatch(
    /"stages\[0\]\.budgets": wanted multiples of mask\.block = 16 up to llm\.ffnWidth = 96, got 40/,
  );
  const data = ["--data", at("tiny/train.jsonl"), "--instructions", at("tiny/instructions.json")];
  expect(await fail("prune", "not read", at("pruned"), ...data)).toMatch(/prune: wanted a new folder, got .+pruned/);
  expect(await fail("prune", at("dense"), at("no"), ...data, "--block", "36")).toMatch(
    /wanted blocks that divide 96 channels/,
  );
  expect(await fail("prune", at("dense"), at("no"), ...data, "--block", "16", "--masks", "500")).toMatch(
    /wanted at least 500 prompts/,
  );
});
