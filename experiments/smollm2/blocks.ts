/**
 * What blocks of channels cost on a pretrained model: the share of a kind of prompt's importance that masks keep with free channels, with blocks of
 * channels as stored, and with channels regrouped. No training.
 *
 *     npx ifprune import SmolLM2-135M-Instruct.Q4_1.gguf CHECKPOINT --checkpoint --licence Apache-2.0
 *     npx tsx experiments/smollm2/blocks.ts CHECKPOINT [--prompts 6] [--seed 1] [--threads 1]
 *
 * Eight kinds of prompts from the suite's validation rows and texts, gold answers, ChatML without the system turn, at most 128 tokens each. Orders and
 * masks are made from half of the prompts of every kind; what they keep is measured on these, and on the other half.
 * Two minutes on one thread beside other work, 2 GB. Last line of stdout: one JSON document.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";
import { OptionError } from "../../src/errors.ts";
import { type ChannelOrder, groupChannels, keptImportance, storedOrder } from "../../src/mask/blocks.ts";
import type { LabelledSequence } from "../../src/net/evaluator.ts";
import { importanceScores } from "../../src/net/importance.ts";
import { labelledTurns } from "../../src/net/labels.ts";
import { parameterArrays } from "../../src/net/parameters.ts";
import { Random } from "../../src/random.ts";
import { composePrompt } from "../../src/text/prompt.ts";
import { loadModel, savedFormat } from "../../src/train/checkpoint.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    prompts: { type: "string", default: "6" },
    seed: { type: "string", default: "1" },
    threads: { type: "string", default: "1" },
  },
});
const [numPrompts, seed, threads] = [values.prompts, values.seed, values.threads].map(Number) as [
  number,
  number,
  number,
];
const checkpoint = positionals[0];
if (checkpoint === undefined)
  throw new OptionError("blocks.ts: wanted a checkpoint, got none. See the head of the file.");
if (!Number.isInteger(numPrompts) || numPrompts < 2 || numPrompts % 2 !== 0)
  throw new OptionError(`--prompts: wanted an even number of at least 2, got "${values.prompts}".`);

const MAX_TOKENS = 128;
const KEEP = [0.5, 0.25];
const BLOCKS = [16, 32, 64, 128];
const CHAT_ML =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

interface Pair {
  prompt: string;
  answer: string;
}

const data = join(import.meta.dirname, "../suite/data");
const linesOf = (name: string) => {
  const bytes = readFileSync(join(data, name));
  const text = (name.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString();
  return text.trimEnd().split("\n");
};

/** Instructions of some tasks, with the first of the accepted answers. */
function questions(name: string, ...tasks: string[]): Pair[] {
  return linesOf(name)
    .map((line) => JSON.parse(line) as { task: string; instruction: string; input?: string; answers: string[] })
    .filter(({ task }) => tasks.includes(task))
    .map(({ instruction, input, answers }) => ({ prompt: composePrompt(instruction, input), answer: answers[0]! }));
}

const texts = (name: string) => linesOf(name).map((line) => (JSON.parse(line) as { text: string }).text);

/** A text to go on with, cut into what is shown and what follows. */
const continued = (name: string, instruction: string): Pair[] =>
  texts(name)
    .filter((text) => text.length > 400)
    .map((text) => ({ prompt: `${instruction}\n\n${text.slice(0, 160)}`, answer: text.slice(160, 400) }));

const solved = (name: string): Pair[] =>
  texts(name).map((text) => {
    const end = text.indexOf("\n");
    return { prompt: text.slice(0, end), answer: text.slice(end + 1) };
  });

const kinds: Record<string, Pair[]> = {
  sql: questions("extra-validation.jsonl", "sql"),
  "word problems": questions("extra-validation.jsonl", "word_problem"),
  stories: questions("extra-validation.jsonl", "story"),
  sentences: questions("validation-suite.jsonl", "active_to_passive", "negation", "sentiment"),
  words: questions("validation-suite.jsonl", "singular_to_plural", "antonyms", "letters_list", "num_to_verbal"),
  Python: continued("text-code.jsonl.gz", "Complete this Python program."),
  novels: continued("text-novels.jsonl.gz", "Continue this novel."),
  reasoning: solved("text-maths.jsonl.gz"),
};

const model = await loadModel(checkpoint);
const { llm } = model;
const format = savedFormat({ ...model, chatTemplate: CHAT_ML }, checkpoint);
const { numLayers: L, ffnWidth: F } = llm.config;

/** The same prompts for the same seed. */
function sequencesOf(kind: string): LabelledSequence[] {
  const pairs = kinds[kind]!;
  const encoded = Array.from(new Random(`${seed}/${kind}`).permutation(pairs.length), (i) => {
    const { prompt, answer } = pairs[i]!;
    return labelledTurns([{ prompt: format.promptIds(prompt), answer: format.answerIds(answer) }]);
  });
  return encoded.filter(({ ids }) => ids.length <= MAX_TOKENS).slice(0, numPrompts);
}

const names = Object.keys(kinds);
const sequences = names.map(sequencesOf);
const tokens = sequences.flat().reduce((sum, { ids }) => sum + ids.length, 0);
console.error(`${names.length} kinds × ${numPrompts} prompts, ${tokens} tokens`);
const scores = await importanceScores(
  { llm: llm.config, parameters: parameterArrays({ llm: llm.weights }) },
  sequences.flat(),
  { threads, spinning: false, onProgress: (done, total) => console.error(`importance ${done}/${total}`) },
);

/** Each kind's importance over half of its prompts, each prompt counting alike. */
function profilesOf(half: 0 | 1): Float64Array[] {
  return names.map((_, kind) => {
    const profile = new Float64Array(L * F);
    for (let i = half; i < numPrompts; i += 2) {
      const row = scores[kind * numPrompts + i]!;
      const total = row.reduce((sum, score) => sum + score, 0);
      for (let c = 0; c < profile.length; c++) profile[c]! += row[c]! / total;
    }
    return profile;
  });
}
const [seen, unseen] = [profilesOf(0), profilesOf(1)];

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
const overall = seen[0]!.map((_, c) => mean(seen.map((profile) => profile[c]!)));

/** Mean over kinds, of what masks chosen by the seen half keep of a half's importance. */
const shares = (half: readonly Float64Array[], order: ChannelOrder, block: number, chosenBy: readonly Float64Array[]) =>
  KEEP.map((keep) =>
    mean(half.map((profile, k) => keptImportance(profile, order, { block, tFfn: keep * F, chosenBy: chosenBy[k]! }))),
  );

const stored = storedOrder(L, F);
const rows: { channels: string; seen: number[]; unseen: number[] }[] = [];
const add = (channels: string, order: ChannelOrder, block: number, chosenBy = seen) => {
  const [ofSeen, ofUnseen] = [seen, unseen].map((half) => shares(half, order, block, chosenBy));
  rows.push({ channels, seen: ofSeen!, unseen: ofUnseen! });
};
const everyone = names.map(() => overall);
const another = names.map((_, k) => seen[(k + names.length / 2) % names.length]!);
add("free, the kind's own mask", stored, 1);
add("free, one mask for all", stored, 1, everyone);
add("free, another kind's mask", stored, 1, another);
for (const block of BLOCKS) {
  add(`own, blocks of ${block} as stored`, stored, block);
  add(`own, blocks of ${block} regrouped`, groupChannels(seen, { dFfn: F, block }), block);
}

const cell = (numbers: readonly number[]) => numbers.map((value) => value.toFixed(3)).join(" / ");
console.log(`| channels | of the prompts' own importance, keep ${KEEP.join(" / ")} | of other prompts' of the kind |`);
console.log("|---|---:|---:|");
for (const row of rows) console.log(`| ${row.channels} | ${cell(row.seen)} | ${cell(row.unseen)} |`);
console.log(JSON.stringify({ seed, numPrompts, tokens, rows }));
