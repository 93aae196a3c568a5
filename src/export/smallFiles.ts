/** What transformers and other tools read beside the weights: tokenizer, chat template, generation. Made of the bundle alone. */
import { join } from "node:path";
import type { Bundle } from "../bundle/bundle.ts";
import { tokenizerFromGguf } from "../formats/ggufTokenizer.ts";
import { readJson } from "../json.ts";

/**
 * The small files that transformers reads beside the weights: the bundle's, or made from its tokenizer. Code of others is never referred to.
 *
 * @throws {FileError} if one of the bundle's is not JSON
 */
export function smallFiles(bundle: Bundle): Map<string, string> {
  const files = new Map([["tokenizer.json", tokenizerText(bundle)]]);
  for (const name of ["tokenizer_config.json", "generation_config.json"]) {
    const text = withoutAutoMap(bundle, name);
    if (text !== undefined) files.set(name, text);
  }
  const template = chatTemplate(bundle);
  for (const [name, text] of [
    ["special_tokens_map.json", bundle.text("special_tokens_map.json")],
    ["chat_template.jinja", template],
  ] as const)
    if (text !== undefined) files.set(name, text);
  if (files.has("tokenizer_config.json") && files.has("generation_config.json")) return files;

  const { bosId, eosIds, addBos } = tokenizerFromGguf(bundle.metadata, bundle.path);
  const tokenizerConfig = {
    tokenizer_class: "PreTrainedTokenizerFast",
    ...(bosId !== undefined && { bos_token: tokenOf(bundle, bosId) }),
    eos_token: tokenOf(bundle, eosIds[0]!),
    add_bos_token: addBos,
    clean_up_tokenization_spaces: false,
    model_max_length: bundle.contextLength,
    chat_template: template,
  };
  const generationConfig = { bos_token_id: bosId, eos_token_id: eosIds.length === 1 ? eosIds[0] : eosIds };
  const add = (name: string, json: object) => files.has(name) || files.set(name, jsonText(json));
  add("tokenizer_config.json", tokenizerConfig);
  add("generation_config.json", generationConfig);
  return files;
}

/** The bundle's; of a model that was trained on prompts of our format that format as a template, so that tools which know none prompt it rightly. */
export function chatTemplate(bundle: Bundle): string | undefined {
  const { promptTemplate, bosId } = bundle.manifest;
  const own = bundle.text("chat_template.jinja");
  if (own !== undefined || promptTemplate === "{prompt}") return own;
  const [before, after] = promptTemplate.split("{prompt}").map((text) => JSON.stringify(text));
  return [
    ...(bosId === undefined ? [] : ["{{ bos_token }}"]), // transformers adds none to what a template wrote
    "{% for message in messages %}",
    "{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}",
    `{% else %}{{ ${before} + message['content'] + ${after} }}{% endif %}`,
    "{% endfor %}",
  ].join("");
}

const jsonText = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;

function tokenOf({ metadata }: Bundle, id: number): string {
  const entry = metadata.get("tokenizer.ggml.tokens");
  return String(entry?.type === "array" ? entry.value[id] : undefined);
}

/** `auto_map` has transformers run code from elsewhere, which an export does not have and does not need. */
function withoutAutoMap(bundle: Bundle, name: string): string | undefined {
  const text = bundle.text(name);
  if (text === undefined) return undefined;
  const json = readJson(join(bundle.path, name));
  if (typeof json !== "object" || json === null || !("auto_map" in json)) return text;
  const { auto_map: _, ...rest } = json;
  return jsonText(rest);
}

/** With BOS first where the model wants it: the tokenizers that we train leave that to us, transformers leaves it to the tokenizer. */
function tokenizerText(bundle: Bundle): string {
  const { bosId } = bundle.manifest;
  const text = bundle.text("tokenizer.json")!;
  const json = readJson(bundle.tokenizerPath) as { post_processor?: unknown };
  if (bosId === undefined || json.post_processor || bundle.text("tokenizer_config.json") !== undefined) return text;
  const bos = tokenOf(bundle, bosId);
  const first = { SpecialToken: { id: bos, type_id: 0 } };
  const sequence = (id: string) => ({ Sequence: { id, type_id: 0 } });
  const post_processor = {
    type: "TemplateProcessing",
    single: [first, sequence("A")],
    pair: [first, sequence("A"), sequence("B")],
    special_tokens: { [bos]: { id: bos, ids: [bosId], tokens: [bos] } },
  };
  return `${JSON.stringify({ ...json, post_processor })}\n`;
}
