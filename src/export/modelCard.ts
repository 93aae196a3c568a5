/** The model card of an export: what it is, where it comes from, how to load it, what to check. Every number in it is counted. */

import { type BundleManifest, IMPORT_RECIPE } from "../manifest.ts";
import { countParameters, type ModelConfig } from "../model/config.ts";
import { type ExportManifest, exportManifestName, ggufFileName } from "./exportManifest.ts";
import { plain, row, thousands } from "./markdown.ts";
import { describe, title } from "./weights.ts";

/** @param source the whole model's shape and manifest */
export function modelCard(about: ExportManifest, source: { config: ModelConfig; manifest: BundleManifest }): string {
  const { task, instruction, maskSource, tFfn, dFfn, hf, gguf, files } = about;
  const { config, manifest } = source;
  const { recipe, data } = manifest.provenance;
  const isImported = recipe === IMPORT_RECIPE;
  const licences = [...new Set(data.map(({ licence }) => licence))];
  const [before, after] = [dFfn, tFfn].map((ffnWidth) => countParameters({ ...config, ffnWidth }));
  const bytesOf = (ending: string) =>
    thousands(Object.entries(files).reduce((sum, [name, { bytes }]) => sum + (name.endsWith(ending) ? bytes : 0), 0));
  const lines = [
    "---",
    "library_name: transformers",
    "pipeline_tag: text-generation",
    "tags: [ifprune, pruned]",
    ...(licences.length === 1 && licences[0] !== "unknown" && /^[\w.-]+$/.test(licences[0]!)
      ? [`license: ${licences[0]}`]
      : []),
    "---",
    "",
    `# ${plain(title(about))}`,
    "",
    plain(describe(about)),
    "The kept channels are the source's own, scaled by the mask's weights where it has any; nothing was trained for this export.",
    "",
    "| | |",
    "|---|---|",
    row("Source model", `${about.source.name} (bundle ${about.source.sha256.slice(0, 16)}…)`),
    ...data.map(({ name, licence }) => row(`Licence of ${isImported ? "the source" : `its data "${name}"`}`, licence)),
    ...(task === undefined ? [] : [row("Task", task)]),
    ...(instruction === undefined ? [] : [row("Instruction", instruction)]),
    row("Mask from", maskSource ?? "a mask that was given"),
    row("FFN channels per layer", `${tFfn} of ${dFfn}`),
    row("Parameters", `${thousands(after!)}; the source has ${thousands(before!)}`),
    ...(hf ? [row("Hugging Face weights", `${hf}, ${bytesOf(".safetensors")} bytes`)] : []),
    ...(gguf ? [row("GGUF", `${gguf === "keep" ? "types of the bundle" : gguf}, ${bytesOf(".gguf")} bytes`)] : []),
    row("Made by", `ifprune ${about.ifprune}, ${about.created}`),
    "",
    "## Load it",
    "",
    ...(hf
      ? [
          "```python",
          "from transformers import AutoModelForCausalLM, AutoTokenizer",
          'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")',
          'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
          "```",
          "",
        ]
      : []),
    ...(gguf
      ? [
          "```sh",
          `llama-cli -m ${ggufFileName(gguf)}   # llama.cpp`,
          `echo "FROM ./${ggufFileName(gguf)}" > Modelfile && ollama create my-model -f Modelfile   # Ollama`,
          "```",
          "",
        ]
      : []),
    promptFormat(manifest),
    "",
    "## Limits",
    "",
    "It is meant for the kind of instruction that its mask was chosen for, and may fail at any other. How well it does is not measured here:",
    "compare its answers with the source model's before you use it.",
    "",
    `\`ifprune verify\` checks this folder against \`${exportManifestName}\`, and against the source bundle where it is at hand.`,
  ];
  return `${lines.join("\n")}\n`;
}

function promptFormat({ promptTemplate }: BundleManifest): string {
  if (promptTemplate === "{prompt}") return "Prompts are written in its chat template, where it has one.";
  return `A prompt is given as ${plain(JSON.stringify(promptTemplate))}, with the text in place of \`{prompt}\`, as its chat template does.`;
}
