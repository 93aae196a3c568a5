/**
 * What `serve --reuse-overlap` costs in quality: the questions of a test, asked of a service one after the other, with masks of their own and
 * with loaded ones that overlap them by at least so much.
 *
 *     npx tsx bench/reuse.ts [--model FOLDER] [--questions FILE] [--memory BYTES] [--thresholds off,0.9,…] [--threads N] [--out PREFIX]
 *
 * Answers are greedy, by `openLocalService` as `ifprune serve` uses it. Questions come in one random order, the same for each threshold, to a service that has nothing
 * loaded yet. Writes `PREFIX.json` and `.md`.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { TINY_MODEL } from "../src/bundle/pulledModels.ts";
import { Random } from "../src/random.ts";
import { type LocalService, openLocalService } from "../src/serve/localService.ts";
import { readJsonLines } from "../src/text/jsonl.ts";
import { composePrompt } from "../src/text/prompt.ts";
import { type EvalRow, evalRow, isCorrect } from "../src/text/scorers.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values } = parseArgs({
  options: {
    model: { type: "string", default: TINY_MODEL },
    questions: { type: "string", default: join(root, "experiments/suite/data/test-inputs.jsonl") },
    memory: { type: "string", default: String(2 ** 30) },
    thresholds: { type: "string", default: "off,0.9,0.7,0.5,0.3,0.2,0.1,0.05" },
    threads: { type: "string", default: "1" },
    out: { type: "string", default: join(root, "bench/results/reuse") },
  },
});
const maxTokens = 40;
const sampling = {
  ...{ temperature: 0, topP: 1, topK: 0, minP: 0, seed: 0 },
  ...{ frequencyPenalty: 0, presencePenalty: 0, repeatPenalty: 1, logitBias: new Map<number, number>() },
};

const rows: EvalRow[] = [];
for await (const { row } of readJsonLines(values.questions, evalRow)) rows.push(row);
const questions = [...new Random("reuse").permutation(rows.length)].map((i) => rows[i]!);
const tasks = [...new Set(rows.map(({ task }) => task))];

async function ask(service: LocalService, prompt: string): Promise<{ text: string; mask: string }> {
  let [text, mask] = ["", ""];
  const request = {
    mask: { kind: "auto" },
    maxTokens,
    stop: [],
    sampling,
    signal: new AbortController().signal,
  } as const;
  for await (const event of service.generate("m", {
    ...request,
    prompt: { kind: "chat", messages: [{ role: "user", content: prompt }] },
  })) {
    if (event.type === "start") mask = event.mask.id;
    if (event.type === "text") text += event.text;
  }
  return { text, mask };
}

async function measure(threshold: string, cache: string) {
  await using service = await openLocalService([{ id: "m", path: resolve(values.model) }], {
    threads: Number(values.threads),
    memoryBytes: Number(values.memory),
    cache: { root: join(cache, "subnetworks") },
    tasksRoot: join(cache, "tasks"),
    reuseOverlap: threshold === "off" ? undefined : Number(threshold),
  });
  const used = new Set<string>();
  let reused = 0;
  const right = new Map(tasks.map((task) => [task, [] as number[]]));
  for (const { task, instruction, input, scorer, answers } of questions) {
    const prompt = composePrompt(instruction, input);
    const { text, mask } = await ask(service, prompt);
    used.add(mask);
    if (mask !== (await service.mask("m", prompt)).info.id) reused++;
    right.get(task)!.push(isCorrect(scorer, text, answers) ? 1 : 0);
  }
  const mean = (numbers: readonly number[]) => numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
  const accuracy = mean([...right.values()].map(mean));
  return { threshold, accuracy, reusedShare: reused / questions.length, numSubnetworks: used.size };
}

const results = [];
const cache = mkdtempSync(join(tmpdir(), "ifprune-reuse-"));
try {
  for (const threshold of values.thresholds.split(",")) {
    results.push(await measure(threshold, cache));
    console.log(JSON.stringify(results.at(-1)));
  }
} finally {
  rmSync(cache, { recursive: true, force: true });
}
const percent = (share: number) => (100 * share).toFixed(1);
writeFileSync(
  `${values.out}.md`,
  [
    "# Loaded masks instead of a prompt's own",
    "",
    `\`npx tsx bench/reuse.ts\` on ${basename(values.model)}: ${questions.length} questions of ${basename(values.questions)}, in one random order, each asked alone. Accuracy is the mean over ${tasks.length} tasks, greedy answers.`,
    "",
    "| `--reuse-overlap` | accuracy, % | answered under another mask, % | sub-networks that were used |",
    "| ---: | ---: | ---: | ---: |",
    ...results.map(
      ({ threshold, accuracy, reusedShare, numSubnetworks }) =>
        `| ${threshold} | ${percent(accuracy)} | ${percent(reusedShare)} | ${numSubnetworks} |`,
    ),
    "",
  ].join("\n"),
);
writeFileSync(`${values.out}.json`, `${JSON.stringify(results, null, 2)}\n`);
