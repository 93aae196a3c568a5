/** Small random checkpoints in the shapes in which people have theirs: Hugging Face folders with a tokenizer, a chat template and configs. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sentencePieceJson, tokenType } from "../../src/formats/ggufTokenizer.ts";
import { type Model, writeModel } from "../../src/formats/huggingface.ts";
import type { ModelConfig } from "../../src/model/config.ts";
import type { ModelFamily } from "../../src/model/families.ts";
import { byteTokens } from "../../src/text/tokenizer.ts";
import { type ByteLevelName, byteLevelKinds, byteLevelParts } from "../../src/text/tokenizerFile.ts";
import { quietFfn } from "./gguf.ts";
import { randomModel } from "./models.ts";

interface Shape {
  config: Partial<ModelConfig> & { family: ModelFamily };
  tokenizer: ByteLevelName | "llama-2" | "gemma";
  /** Whether the tokenizer begins with BOS. */
  addsBos: boolean;
  chatTemplate: string;
  /** Changes to `config.json`. */
  file?: Record<string, unknown>;
}

const chatml =
  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/** As Qwen's own, in short: it shows tools, and how to call them. */
const chatmlWithTools = `{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '# Tools\\n\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\\n</tools>\\n\\nCall one by <tool_call>\\n{"name": <name>, "arguments": <arguments>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
{%- for m in messages %}
{%- if m.role != 'system' or not loop.first %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}`;
const inst = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}";
const headers =
  "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content | trim }}<|im_end|>{% endfor %}<|im_start|>assistant\n\n";
const turns =
  "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}{{ '<start_of_turn>model\n' }}";

const llama3 = { kind: "llama3", factor: 8, lowFactor: 1, highFactor: 4, originalContextLength: 8192 } as const;
/** More rows than tokens, as most have. */
const vocabSize = 320;

export const shapes: Record<string, Shape> = {
  "Llama 2": { config: { family: "llama" }, tokenizer: "llama-2", addsBos: true, chatTemplate: inst },
  "Llama 3.1": {
    config: { family: "llama", ropeTheta: 500_000, ropeScaling: llama3 },
    tokenizer: "llama-bpe",
    addsBos: true,
    chatTemplate: headers,
  },
  "Llama 3.2": {
    config: { family: "llama", ropeTheta: 500_000, ropeScaling: { ...llama3, factor: 32 }, tieEmbeddings: true },
    tokenizer: "llama-bpe",
    addsBos: true,
    chatTemplate: headers,
  },
  Mistral: {
    config: { family: "llama", headWidth: 32 },
    tokenizer: "llama-2",
    addsBos: true,
    chatTemplate: inst,
    file: { model_type: "mistral", architectures: ["MistralForCausalLM"], sliding_window: 64 },
  },
  SmolLM2: {
    config: { family: "llama", tieEmbeddings: true },
    tokenizer: "smollm",
    addsBos: false,
    chatTemplate: chatml,
  },
  "Qwen2.5": {
    config: { family: "qwen2", tieEmbeddings: true },
    tokenizer: "qwen2",
    addsBos: false,
    chatTemplate: chatmlWithTools,
  },
  Qwen3: { config: { family: "qwen3", headWidth: 32 }, tokenizer: "qwen2", addsBos: false, chatTemplate: chatml },
  "Gemma 2": { config: { family: "gemma2" }, tokenizer: "gemma", addsBos: true, chatTemplate: turns },
  "Gemma 3": { config: { family: "gemma3" }, tokenizer: "gemma", addsBos: true, chatTemplate: turns },
};

/**
 * Writes a folder: BF16 weights in several files, `config.json`, `generation_config.json`, tokenizer and template.
 *
 * @returns the model; its weights are those of the folder before they were rounded
 */
export async function writeCheckpointFolder(
  folder: string,
  { config: changes, tokenizer, addsBos, chatTemplate, file }: Shape,
): Promise<Model> {
  const model = quietFfn(randomModel({ ...changes, vocabSize }, 4));
  await writeModel(folder, model.config, (name) => model.weights.get(name)!, { type: "BF16", maxShardBytes: 60_000 });
  const configPath = join(folder, "config.json");
  const config = { ...JSON.parse(readFileSync(configPath, "utf8")), bos_token_id: 1, eos_token_id: 2, ...file };
  const write = (name: string, json: object) => writeFileSync(join(folder, name), JSON.stringify(json));
  write("config.json", config);
  write("generation_config.json", { bos_token_id: 1, eos_token_id: [2, 4] });
  const names = boundaryNames(tokenizer);
  write("tokenizer.json", tokenizerJson(tokenizer, names));
  write("tokenizer_config.json", {
    bos_token: names[1],
    eos_token: names[2],
    add_bos_token: addsBos,
    chat_template: chatTemplate,
  });
  return model;
}

/** Unknown or padding, BOS, EOS, and what begins and ends a turn. */
function boundaryNames(tokenizer: Shape["tokenizer"]): string[] {
  if (tokenizer === "gemma") return ["<unk>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"];
  if (tokenizer === "llama-2") return ["<unk>", "<s>", "</s>", "<turn>", "</turn>"];
  return ["<|pad|>", "<|begin_of_text|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"];
}

/** A tokenizer of single bytes and, where it is SentencePiece's, a few characters. */
function tokenizerJson(tokenizer: Shape["tokenizer"], names: readonly string[]): object {
  if (tokenizer === "llama-2" || tokenizer === "gemma") {
    const token = (text: string, type: number) => ({ text, type, score: 0 });
    return sentencePieceJson(
      [
        ...names.map((name, id) => token(name, id === 0 ? tokenType.unknown : tokenType.control)),
        ...byteTokens(false).map((text) => token(text, tokenType.byte)),
        ...[..."\u2581abcdefghijklmnopqrstuvwxyz"].map((text) => token(text, tokenType.normal)),
      ],
      tokenizer === "llama-2",
      undefined,
      "test",
    );
  }
  const { composes, ignoreMerges } = byteLevelKinds[tokenizer];
  const tokens = [...names, ...byteTokens(true)];
  return {
    version: "1.0",
    added_tokens: names.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: composes ? { type: "NFC" } : null,
    pre_tokenizer: { type: "Sequence", pretokenizers: byteLevelParts(tokenizer) },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      byte_fallback: false,
      ignore_merges: ignoreMerges,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [],
    },
  };
}
