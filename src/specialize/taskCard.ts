/** The card of a specialised model: what it is for, what it is made of, what it lost and gained. Every number in it was measured. */

import { byteSize } from "../bundle/memory.ts";
import { plain, row, thousands } from "../export/markdown.ts";
import { duration } from "../words.ts";
import type { Distance, Specialization } from "./specialization.ts";

/** Paths in it are those of the result's folder. */
export function taskCard(result: Specialization): string {
  const { model, data, tFfn, dFfn, parameters, tuned, after } = result;
  const { bytes, speed, perplexity, gold, quantized, auto } = result;
  const { task } = result.options;
  const licences = [...new Set([...model.data.map(({ licence }) => licence), data.licence])];
  const isOne = licences.length === 1 && /^[\w.-]+$/.test(licences[0]!) && licences[0] !== "unknown";
  const purpose = task === undefined ? `prompts as in ${data.name}` : `one task: ${task}`;
  const lines = [
    "---",
    "library_name: transformers",
    "pipeline_tag: text-generation",
    "tags: [ifprune, pruned]",
    ...(isOne ? [`license: ${licences[0]}`] : []),
    "---",
    "",
    `# ${plain(model.name)} for ${plain(purpose)}`,
    "",
    `A smaller ${plain(model.name)}: ${tFfn} of ${dFfn} channels of each layer's FFN, chosen for this task and then ${after.step > 0 ? "trained" : "fitted by least squares"} to say what the whole model says. At other tasks it may fail.`,
    ...(tuned ? ["", tunedWords(plain(model.name), tuned)] : []),
    "",
    "| | whole model | this one |",
    "|---|---:|---:|",
    row("parameters", thousands(parameters.dense), thousands(parameters.small)),
    row("weights, F16", byteSize(bytes.dense), byteSize(bytes.small)),
    row("first token, median", milliseconds(speed.dense.firstTokenMs), milliseconds(speed.small.firstTokenMs)),
    row("tokens a second, median", rate(speed.dense.tokensPerSecond), rate(speed.small.tokensPerSecond)),
    row("held out: KL from the whole model, nats a token", "0", after.kl.toFixed(3)),
    row("held out: same likeliest token", "100 %", share(after.agreement)),
    row("held out: perplexity of the answers", perplexity.dense.toFixed(2), perplexity.small.toFixed(2)),
    ...(gold
      ? [
          row("held out: the right answer exactly", share(gold.dense.exact), share(gold.small.exact)),
          row("held out: the right answer in it", share(gold.dense.contains), share(gold.small.contains)),
        ]
      : []),
    "",
    `${healedWords(result)} All of ${data.heldOut} held-out prompts that were never trained on, but by which the step to stop at was chosen; speed of both in turns, in one engine on one machine.`,
    "",
    ...(auto
      ? [
          "## Shares that were tried, in short runs",
          "",
          "| share | channels | KL | same token |",
          "|---:|---:|---:|---:|",
          ...auto.curve.map(({ keep, tFfn, kl, agreement }) =>
            row(share(keep), String(tFfn), kl.toFixed(3), share(agreement)),
          ),
          "",
          auto.isReached
            ? `The smallest within ${auto.maxLoss} nats was built.`
            : `None was within ${auto.maxLoss} nats; the nearest was built.`,
          "",
        ]
      : []),
    "## Use it",
    "",
    "```sh",
    `ifprune run --model path/to/this/folder "${shownPrompt(result)}"`,
    "```",
    "",
    "`huggingface/` opens in transformers and has a GGUF of F16 beside; `gguf/` has smaller ones:",
    "",
    "| file | size | KL from F16 | same token |",
    "|---|---:|---:|---:|",
    ...quantized.map(({ type, bytes, kl, agreement }) =>
      row(`gguf/${type}/model-${type}.gguf`, byteSize(bytes), kl.toFixed(4), share(agreement)),
    ),
    "",
    "## What it is made of",
    "",
    "| | |",
    "|---|---|",
    ...model.data.map(({ name, licence }) => row("model", `${name} (licence: ${licence})`)),
    row(
      "prompts",
      `${data.name} (licence: ${data.licence}): ${promptsWords(result)}; ${data.train} to learn from, ${data.heldOut} held out`,
    ),
    row("answers", data.answers === "gold" ? "given with the prompts" : "the whole model's own"),
    row(
      "left out",
      `${data.unanswered} without an end or text, ${data.looping} that repeat themselves, ${data.tooLong} longer than most, ${data.twice} given twice`,
    ),
    row("options", JSON.stringify(result.options)),
    row("made by", `ifprune ${result.ifprune}, ${result.created}, ${duration(result.seconds)}`),
    "",
    "## Answers beside the whole model's",
    "",
    ...result.answers.flatMap(({ prompt, gold, dense, small }) => [
      `**${plain(prompt)}**`,
      "",
      `- whole: ${plain(dense) || "(nothing)"}`,
      `- this: ${plain(small) || "(nothing)"}`,
      ...(gold === undefined ? [] : [`- right: ${plain(gold)}`]),
      "",
    ]),
  ];
  return `${lines.join("\n").trimEnd()}\n`;
}

function tunedWords(model: string, { step, loss, before }: NonNullable<Specialization["tuned"]>): string {
  return step > 0
    ? `The whole model here is ${model} after it has learned the answers given, which brought it from ${before.loss.toFixed(3)} to ${loss.toFixed(3)} nats a token of held-out ones.`
    : `The whole model here is ${model} as it came: learning the answers given made it no better on held-out ones (best at step 0, ${loss.toFixed(3)} nats a token).`;
}

function healedWords({ before, after, training: { steps, planned, tokens } }: Specialization): string {
  const read = `${steps} of ${planned} steps on ${thousands(tokens)} tokens`;
  return after.step > 0
    ? `Before training it was at ${distance(before)}; ${read}, the best at step ${after.step}, brought it to ${distance(after)}.`
    : `It is as it was cut, at ${distance(before)}: ${read} brought it no nearer to the whole model (best at step 0).`;
}

/** "20 given, 240 drafted by SmolLM2 in their manner" */
function promptsWords({ model, data: { prompts } }: Specialization): string {
  const { given, drafted } = prompts;
  return [
    ...(given > 0 ? [`${given} given`] : []),
    ...(drafted > 0 ? [`${drafted} drafted by ${model.name}${given > 0 ? " in their manner" : ""}`] : []),
  ].join(", ");
}

const distance = ({ kl, agreement }: Distance) =>
  `a KL of ${kl.toFixed(3)} nats and ${share(agreement)} the same token`;
const share = (value: number) => `${(100 * value).toFixed(1)} %`;
const milliseconds = (ms: number) => `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
const rate = (value: number | undefined) => value?.toFixed(1) ?? "–";

/** A prompt in the form that was learned, which stands between quotes in a shell. */
export function shownPrompt({ answers }: Specialization): string {
  return answers.map(({ prompt }) => prompt).find((prompt) => /^[^"\\`$!\n\p{Cc}]{1,200}$/u.test(prompt)) ?? "…";
}
