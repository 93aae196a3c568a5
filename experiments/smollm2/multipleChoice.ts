/**
 * Scores of a bundle on the four multiple-choice sets, by stock lm-eval through `ifprune serve`; the last line of the output is one JSON document.
 *
 *     MULTIPLE_CHOICE=FOLDER npx tsx experiments/smollm2/multipleChoice.ts BUNDLE TOKENIZER [--limit N] [--mask dense|question|task:NAME|auto] [--threads N]
 *
 * TOKENIZER is a Hugging Face folder of the same model (`ifprune export`). LM_EVAL is the program. `--mask question`: each question under its own mask.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const tasks = ["local_arc_easy", "local_openbookqa", "local_piqa", "local_winogrande"];
const lmEval = process.env.LM_EVAL ?? "/opt/lm-eval/bin/lm_eval";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    limit: { type: "string" },
    mask: { type: "string", default: "dense" },
    threads: { type: "string", default: "1" },
    context: { type: "string", default: "1024" },
  },
});
const [bundle, tokenizer] = positionals;
if (!bundle || !tokenizer) throw new Error("multipleChoice: wanted a bundle and a folder with its tokenizer.");
if (!process.env.MULTIPLE_CHOICE) throw new Error("multipleChoice: wanted the folder of the sets in MULTIPLE_CHOICE.");

const isPerQuestion = values.mask === "question";
const out = mkdtempSync(join(tmpdir(), "multiple-choice-"));
const server = spawn(
  process.execPath,
  [
    ...[here("../../bin/ifprune.js"), "serve", bundle, "--port", "0", "--quiet"],
    ...["--threads", values.threads, "--context", values.context, "--kv-type", "F32"],
    ...(isPerQuestion ? [] : ["--mask", values.mask]),
  ],
  { stdio: ["ignore", "pipe", "inherit"] },
);
try {
  const url = await urlOf(server);
  const model = {
    ...{ model: basename(resolve(bundle)), base_url: `${url}/v1/completions`, max_length: values.context },
    ...{ tokenizer: resolve(tokenizer), tokenizer_backend: "huggingface", timeout: 3600 },
  };
  const modelArguments = Object.entries(model).map(([key, value]) => `${key}=${value}`);
  const program = isPerQuestion ? [join(dirname(lmEval), "python"), here("lm-eval/masked.py")] : [lmEval];
  const harness = spawn(
    program[0]!,
    [
      ...[...program.slice(1), "run", "--model", isPerQuestion ? "masked-completions" : "local-completions"],
      ...["--model_args", modelArguments.join(","), "--include_path", here("lm-eval"), "--tasks", tasks.join(",")],
      ...["--output_path", out, ...(values.limit ? ["--limit", values.limit] : [])],
    ],
    { stdio: ["ignore", "inherit", "inherit"], env: { ...process.env, HF_HUB_OFFLINE: "1" } },
  );
  const [code] = await once(harness, "close");
  if (code !== 0) throw new Error(`multipleChoice: wanted lm-eval to end well, got exit code ${code}.`);
  process.stdout.write(`${JSON.stringify({ model: model.model, mask: values.mask, ...scores() })}\n`);
} finally {
  server.kill();
  rmSync(out, { recursive: true, force: true });
}

async function urlOf({ stdout }: ChildProcess): Promise<string> {
  let said = "";
  for await (const text of stdout!) {
    said += text;
    const url = /API: +(\S+)\/v1\n/.exec(said)?.[1];
    if (url) return url;
  }
  throw new Error("multipleChoice: wanted `ifprune serve` to start, got its end.");
}

/** Shares of right answers with their standard errors, by task, and of how many. */
function scores(): object {
  const file = readdirSync(out, { recursive: true, encoding: "utf8" }).find((path) => /results_.*\.json$/.test(path))!;
  const { results, "n-samples": counts } = JSON.parse(readFileSync(join(out, file), "utf8"));
  const byTask = tasks.map((task) => {
    const { "acc,none": acc, "acc_stderr,none": accError } = results[task];
    const { "acc_norm,none": norm, "acc_norm_stderr,none": normError } = results[task];
    return [
      task.replace("local_", ""),
      { count: counts[task].effective, acc, accError, accNorm: norm, accNormError: normError },
    ];
  });
  return { scores: Object.fromEntries(byTask) };
}
