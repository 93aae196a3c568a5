/**
 * What is fuzzed: every parser of files that come from elsewhere. A case is a valid file or folder with a few changes (`edits.ts`); its reader gives something that
 * holds what its type promises, or throws an IfpruneError.
 */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { z } from "zod";
import { openBundlePredictor } from "../../src/answer/bundlePredictor.ts";
import { Bundle } from "../../src/bundle/bundle.ts";
import { readHead, scoreFeature } from "../../src/bundle/head.ts";
import { importModel } from "../../src/bundle/importModel.ts";
import { packBundle } from "../../src/bundle/packBundle.ts";
import { GgufFile, type GgufMetadata } from "../../src/formats/gguf.ts";
import { GgufModel, splitMetadata } from "../../src/formats/ggufModel.ts";
import { sentencePieceJson, tokenizerFromGguf, tokenizerMetadata, tokenType } from "../../src/formats/ggufTokenizer.ts";
import { ModelFolder, writeModel, writeModelFolder } from "../../src/formats/huggingface.ts";
import { readGenerationConfig } from "../../src/formats/huggingfaceConfig.ts";
import { readLlama2c, readLlama2cTokenizer } from "../../src/formats/llama2c.ts";
import { encodeWeights } from "../../src/formats/quantize.ts";
import { SafetensorsFile, writeSafetensors } from "../../src/formats/safetensors.ts";
import { readJson } from "../../src/json.ts";
import { boundaryOf } from "../../src/manifest.ts";
import { maskFlaw } from "../../src/mask/mask.ts";
import { maskFromJson } from "../../src/mask/maskFile.ts";
import { parameterShapes, type Weights } from "../../src/model/config.ts";
import { MODEL_FAMILIES, type ModelFamily } from "../../src/model/families.ts";
import type { ModelSource } from "../../src/model/source.ts";
import { ChatTemplate } from "../../src/text/chatTemplate.ts";
import { readJsonLines } from "../../src/text/jsonl.ts";
import { type Boundary, byteTokens, createTokenizer, loadTokenizer } from "../../src/text/tokenizer.ts";
import { type ByteLevelName, byteLevelKinds, byteLevelParts } from "../../src/text/tokenizerFile.ts";
import { readRecipe } from "../../src/train/recipe/read.ts";
import { FakeEngines } from "../support/fakeEngines.ts";
import { ggufParts } from "../support/gguf.ts";
import { anyPredictor, fixtures, goldenModel, randomModel, stories, writeCheckpoint } from "../support/makeModels.ts";
import {
  anyText,
  anyWord,
  byteEdit,
  type Content,
  editBytes,
  editGguf,
  editJson,
  editText,
  encodeRawGguf,
  ggufEdit,
  jsonEdit,
  type RawGguf,
  rawGguf,
  textEdit,
} from "./edits.ts";

/** The folder of one case, and the real bytes that were put there. */
export class Scratch {
  bytes = 0;
  constructor(readonly folder: string) {}

  path(name: string): string {
    return join(this.folder, name);
  }

  /** @returns the file's path */
  put(name: string, content: Uint8Array | string | Content): string {
    const path = this.path(name);
    mkdirSync(dirname(path), { recursive: true });
    const { bytes, size } =
      typeof content === "object" && "bytes" in content ? content : { bytes: Buffer.from(content), size: 0 };
    writeFileSync(path, bytes);
    if (size > bytes.length) truncateSync(path, size);
    this.bytes += bytes.length;
    return path;
  }
}

/** A parser, and what it is given. */
export interface Prepared<Case> {
  cases: fc.Arbitrary<Case>;
  run(input: Case, scratch: Scratch): void | Promise<void>;
}
export type Target = (folder: string) => Promise<Prepared<unknown>> | Prepared<unknown>;
/** @param prepare makes the valid files in a folder that stays */
function target<Case>(prepare: (folder: string) => Promise<Prepared<Case>> | Prepared<Case>): Target {
  return prepare as Target;
}

const few = <T>(edit: fc.Arbitrary<T>) => fc.array(edit, { minLength: 1, maxLength: 3 });
const seldom = <T>(edit: fc.Arbitrary<T>): fc.Arbitrary<T[]> =>
  fc.oneof({ arbitrary: fc.constant<T[]>([]), weight: 3 }, fc.array(edit, { maxLength: 2 }));
type CaseOf<A> = A extends fc.Arbitrary<infer T> ? T : never;

const tiny = { width: 32, numHeads: 2, numKvHeads: 1, headWidth: 8, ffnWidth: 32, vocabSize: 12, contextLength: 16 };
const tinyModel = (family: ModelFamily, changes = {}) => randomModel({ ...tiny, numLayers: 2, family, ...changes }, 1);

function readAll(source: ModelSource): void {
  for (const name of parameterShapes(source.config).keys()) source.read(name);
}

const jsonFile = fc.record({ json: few(jsonEdit), bytes: seldom(byteEdit) });
type JsonFile = CaseOf<typeof jsonFile>;
const editedJson = (text: string, { json, bytes }: JsonFile) => editBytes(editJson(text, json), bytes);

const safetensorsFile = fc.record({
  header: fc.array(jsonEdit, { maxLength: 3 }),
  length: fc.option(anyWord, { freq: 4 }),
  bytes: seldom(byteEdit),
});
type SafetensorsCase = CaseOf<typeof safetensorsFile>;
function editedSafetensors(file: Buffer, { header, length, bytes }: SafetensorsCase): Content {
  const end = 8 + Number(file.readBigUInt64LE());
  const json = editJson(file.toString("utf8", 8, end), header);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(length ?? BigInt(json.length));
  return editBytes(Buffer.concat([size, json, file.subarray(end)]), bytes);
}

const ggufFile = fc.record({ header: fc.array(ggufEdit, { maxLength: 3 }), bytes: seldom(byteEdit) });
type GgufCase = CaseOf<typeof ggufFile>;
const editedGguf = (raw: RawGguf, { header, bytes }: GgufCase) =>
  editBytes(encodeRawGguf(editGguf(raw, header)), bytes);

function rawOf(path: string): RawGguf {
  using file = new GgufFile(path);
  const tensors = [...file.tensors.values()].map((tensor) => {
    const bytes = new Uint8Array(tensor.bytes);
    file.readInto(bytes, tensor, 0);
    return { ...tensor, bytes };
  });
  return rawGguf(file.metadata, tensors);
}

/** Tokenizers of all kinds: BOS 0, EOS 1. */
function tokenizerJsons(): object[] {
  const specials = ["<s>", "</s>", "<|im_end|>", "<unk>"];
  const added = specials.map((content, id) => ({ id, content, special: true }));
  const merges = [
    ["a", "b"],
    ["ab", "c"],
  ];
  const byteLevel = (Object.keys(byteLevelKinds) as ByteLevelName[]).map((name) => {
    const tokens = [...specials, ...byteTokens(true), "ab", "abc"];
    return {
      added_tokens: added,
      normalizer: byteLevelKinds[name].composes ? { type: "NFC" } : null,
      pre_tokenizer: { type: "Sequence", pretokenizers: byteLevelParts(name) },
      post_processor: {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        special_tokens: { "<s>": { id: "<s>", ids: [0], tokens: ["<s>"] } },
      },
      decoder: { type: "ByteLevel" },
      model: {
        type: "BPE",
        ignore_merges: byteLevelKinds[name].ignoreMerges,
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges,
      },
    };
  });
  const pieces = [
    ...["<s>", "</s>", "<|im_end|>"].map((text) => ({ text, score: 0, type: tokenType.control })),
    { text: "<unk>", score: 0, type: tokenType.unknown },
    ...byteTokens(false).map((text) => ({ text, score: 0, type: tokenType.byte })),
    ...["a", "b", "ab", "\u2581", "\u2581ab"].map((text, i) => ({ text, score: -i, type: tokenType.normal })),
  ];
  return [...byteLevel, sentencePieceJson(pieces, true, 0, "test"), sentencePieceJson(pieces, false, 0, "test")];
}
const boundary = { bosId: 0, eosIds: [1] };
const vocabSize = 266;
const sample = `ab c\n12 <s> é\0${"a".repeat(40)}`;

/** A conversation template of every construct, and words of the language. */
const templates = [
  "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}{% elif message.role == 'system' %}{{ raise_exception('no system') }}{% else %}{{ message.content ~ eos_token }}{% endif %}{% endfor %}",
  "{%- set ns = namespace(first=true, list=[1, 2]) -%}{%- for m in messages[::-1] if m.content is string -%}{%- if loop.first and not loop.last -%}{% set ns.first = false %}{%- endif -%}<|{{ m.role }}|>\n{{ m['content'] }}{{ '\\n' }}{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}",
  "{% macro show(m, n=3) %}{{ m.content }}{% endmacro %}{% for i in range(messages | length) %}{{ show(messages[i]) }}{% endfor %}{% set d = {'a': [1, {'b': none}], 'c': 1.5} %}{{ d.a[1].b is none }}{{ d | tojson }}{# a comment #}",
];
const jinja = [
  ...[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "'",
    '"',
    "\\",
    "|",
    ".",
    "~",
    "+",
    "-",
    "*",
    "/",
    "%",
    "//",
    "**",
  ],
  ...[
    " in ",
    " not ",
    " is ",
    " and ",
    " or ",
    " if ",
    " else ",
    "==",
    "!=",
    "<",
    ",",
    ":",
    "=",
    "0",
    "-1",
    "1e308",
    "99999999999999999999",
  ],
  ...[
    "{% for x in messages %}",
    "{% endfor %}",
    "{% if x %}",
    "{% endif %}",
    "{% set x = x ~ x %}",
    "{% set x = messages + messages %}",
  ],
  ...[
    "{% macro f(x) %}",
    "{% endmacro %}",
    "{{ f(f) }}",
    "{% break %}",
    "{% continue %}",
    "{% call f() %}",
    "{% generation %}",
    "{% filter upper %}",
  ],
  ...[
    "messages",
    "content",
    "constructor",
    "__proto__",
    "toString",
    "namespace",
    "range(9999)",
    "range(0, 1, 0)",
    "raise_exception()",
    "strftime_now('%Y')",
  ],
  ...[
    " | tojson",
    " | join",
    " | list",
    " | items",
    " | length",
    " | replace('a', 'aa')",
    " | int",
    " | sort",
    " | map",
    " | selectattr('a')",
    ".split('')",
    ".items()",
  ],
  ...["none", "true", "undefined", "loop.index", "self", "\u{f0000}0\u{f0001}", "\u2003"],
];

export const targets: Record<string, Target> = {
  safetensors: target((folder: string) => {
    writeModelFolder(folder, tinyModel("llama"));
    const file = readFileSync(join(folder, "model.safetensors"));
    return {
      cases: safetensorsFile,
      run(input, scratch) {
        const content = editedSafetensors(file, input);
        using tensors = new SafetensorsFile(scratch.put("x.safetensors", content));
        if (content.size === content.bytes.length) for (const name of tensors.shapes.keys()) tensors.read(name);
      },
    };
  }),

  folder: target(async (folder: string) => {
    const bases = await Promise.all(
      MODEL_FAMILIES.flatMap((family) =>
        [Number.POSITIVE_INFINITY, 6000].map(async (maxShardBytes) => {
          const path = join(folder, `${family}-${maxShardBytes}`);
          const { config, weights } = tinyModel(family);
          await writeModel(path, config, (name) => weights.get(name)!, { type: "F16", maxShardBytes });
          writeFileSync(join(path, "generation_config.json"), '{"bos_token_id": 1, "eos_token_id": [2, 3]}');
          return path;
        }),
      ),
    );
    const edit = fc.oneof(
      fc.record({ name: fc.constantFrom("config", "config", "index", "generation_config"), json: jsonFile }),
      fc.record({ name: fc.nat(9), safetensors: safetensorsFile }),
      fc.record({
        name: fc.nat(9),
        becomes: fc.constantFrom("missing", "a folder", "a pickle", "another's", "a name that leads outside"),
      }),
    );
    return {
      cases: fc.record({ base: fc.nat(bases.length - 1), edits: few(edit) }),
      run({ base, edits }, scratch) {
        const files = new Map(
          readdirSync(bases[base]!).map((name) => [name, readFileSync(join(bases[base]!, name)) as Buffer | Content]),
        );
        const folders: string[] = [];
        const changed = new Set<string>();
        for (const edit of edits) {
          const names = [...files.keys()];
          const name =
            typeof edit.name === "number"
              ? names[edit.name % names.length]!
              : names.find((one) => one.includes(edit.name as string));
          const old = name && files.get(name);
          if (!name || !Buffer.isBuffer(old) || changed.has(name)) continue;
          changed.add(name);
          if ("json" in edit) files.set(name, editedJson(old.toString(), edit.json));
          else if ("safetensors" in edit) {
            if (name.endsWith(".safetensors")) files.set(name, editedSafetensors(old, edit.safetensors));
          } else if (edit.becomes === "another's")
            files.set(name, files.get(names.find((one) => one !== name)!) ?? old);
          else {
            files.delete(name);
            if (edit.becomes === "a folder") folders.push(name);
            if (edit.becomes === "a pickle") files.set("pytorch_model.bin", old);
            if (edit.becomes === "a name that leads outside")
              files.set("model.safetensors.index.json", Buffer.from('{"weight_map": {"a": "../x.safetensors"}}'));
          }
        }
        mkdirSync(scratch.path("m"));
        for (const name of folders) mkdirSync(scratch.path(`m/${name}`));
        for (const [name, content] of files) if (!folders.includes(name)) scratch.put(`m/${name}`, content);
        readGenerationConfig(scratch.path("m"));
        using model = new ModelFolder(scratch.path("m"));
        readAll(model);
      },
    };
  }),

  gguf: target(() => {
    const { metadata, tensors } = ggufParts(tinyModel("llama", { numLayers: 1 }));
    const more: GgufMetadata = new Map([
      ...metadata,
      ["u8", { type: "uint8", value: 255 }],
      ["i64", { type: "int64", value: -1n }],
      ["f64", { type: "float64", value: 1.5 }],
      ["yes", { type: "bool", value: true }],
      ["scores", { type: "array", of: "float32", value: [1, -2] }],
      ["general.alignment", { type: "uint32", value: 32 }],
    ]);
    const raw = rawGguf(more, tensors);
    return {
      cases: ggufFile,
      run(input, scratch) {
        const content = editedGguf(raw, input);
        using file = new GgufFile(scratch.put("x.gguf", content));
        if (content.size > content.bytes.length) return;
        for (const tensor of file.tensors.values()) file.readInto(new Uint8Array(tensor.bytes), tensor, 0);
      },
    };
  }),

  "gguf-model": target(() => {
    const llama3 = { kind: "llama3", factor: 8, lowFactor: 1, highFactor: 4, originalContextLength: 8192 };
    const yarn = { kind: "yarn", factor: 4, originalContextLength: 16, betaFast: 32, betaSlow: 1 };
    const bases = [
      ...MODEL_FAMILIES.map((family) => tinyModel(family, { headWidth: family === "qwen2" ? 16 : 8 })),
      ...[llama3, yarn].map((ropeScaling) => tinyModel("llama", { ropeScaling })),
    ].map((model) => {
      const stored = [...model.weights].flatMap(([name, { data }]) =>
        name.includes("mlp") ? [[name, { type: "Q8_0" as const, bytes: encodeWeights(data, "Q8_0") }] as const] : [],
      );
      return ggufParts(model, new Map(stored));
    });
    const files = bases.map(({ metadata, tensors }) => [rawGguf(metadata, tensors)]);
    const { metadata, tensors } = bases[0]!;
    const parts = [[], tensors.slice(0, 9), tensors.slice(9)].map((part, i) =>
      rawGguf(new Map([...(i === 0 ? metadata : []), ...splitMetadata(i, 3, tensors.length)]), part),
    );
    files.push(parts, parts);
    return {
      cases: fc.record({
        base: fc.nat(files.length - 1),
        part: fc.nat(2),
        edits: ggufFile,
        missing: fc.option(fc.nat(2), { freq: 20 }),
      }),
      run({ base, part, edits, missing }, scratch) {
        const raws = files[base]!;
        const nameOf = (i: number) => `m-0000${i + 1}-of-0000${raws.length}.gguf`;
        let isSparse = false;
        for (const [i, raw] of raws.entries()) {
          if (i === missing) continue;
          const content = i === part % raws.length ? editedGguf(raw, edits) : editBytes(encodeRawGguf(raw), []);
          isSparse ||= content.size > content.bytes.length;
          scratch.put(nameOf(i), content);
        }
        using model = new GgufModel(scratch.path(nameOf(0)));
        if (!isSparse) readAll(model);
      },
    };
  }),

  "gguf-tokenizer": target(() => {
    const raws = tokenizerJsons().map((json) => {
      const metadata = tokenizerMetadata(
        { path: "x", json },
        { vocabSize },
        { ...boundary, addBos: true, chatTemplate: "{{ x }}" },
      );
      return rawGguf(metadata, []);
    });
    const keys = [...new Set(raws.flatMap(({ entries }) => entries.map(({ key }) => key)))];
    return {
      cases: fc.record({
        base: fc.nat(raws.length - 1),
        edits: few(ggufEdit),
        text: fc.option(fc.tuple(fc.constantFrom(...keys), anyText), { freq: 2 }),
      }),
      run({ base, edits, text }) {
        const { entries } = editGguf(raws[base]!, edits);
        const metadata: GgufMetadata = new Map(entries.map(({ key, value }) => [key, value]));
        if (text) metadata.set(text[0], { type: "string", value: text[1] });
        const { tokenizerJson, eosIds, bosId, addBos } = tokenizerFromGguf(metadata, "x.gguf");
        const tokenizer = createTokenizer(tokenizerJson, "x.gguf", { bosId: addBos ? bosId : undefined, eosIds });
        tokenizer.decode(tokenizer.encode(sample));
      },
    };
  }),

  tokenizer: target(() => {
    const texts = tokenizerJsons().map((json) => JSON.stringify(json));
    return {
      cases: fc.record({ base: fc.nat(texts.length - 1), edits: jsonFile, byName: fc.boolean() }),
      run({ base, edits, byName }, scratch) {
        const path = scratch.put("tokenizer.json", editedJson(texts[base]!, edits));
        const tokenizer = loadTokenizer(path, byName ? undefined : boundary);
        const ids = tokenizer.encode(sample);
        tokenizer.encodeParts([{ text: sample, isTrusted: true }]);
        tokenizer.decode(ids);
        tokenizer.decode(Array.from({ length: tokenizer.vocabSize }, (_, id) => id));
      },
    };
  }),

  "tokenizer-metadata": target(() => {
    const texts = tokenizerJsons().map((json) => JSON.stringify(json));
    return {
      cases: fc.record({ base: fc.nat(texts.length - 1), edits: jsonFile }),
      run({ base, edits }, scratch) {
        const path = scratch.put("tokenizer.json", editedJson(texts[base]!, edits));
        tokenizerMetadata(path, { vocabSize: vocabSize + 2 }, { ...boundary, addBos: true });
      },
    };
  }),

  "chat-template": target(() => ({
    cases: fc.record({ base: fc.nat(templates.length - 1), edits: few(textEdit(jinja)), system: fc.boolean() }),
    run({ base, edits, system }) {
      const template = new ChatTemplate(editText(templates[base]!, edits), "x.jinja");
      const messages = [
        ...(system ? [{ role: "system" as const, content: "S" }] : []),
        { role: "user" as const, content: " hi " },
      ];
      template.render(messages, { bosToken: "<s>", eosToken: "</s>", specialTokens: ["<s>", "</s>"] });
    },
  })),

  llama2c: target(() => {
    const { config, weights } = tinyModel("llama", { width: 8, headWidth: 4, numHeads: 2, ffnWidth: 8 });
    const { width, ffnWidth, numLayers, numHeads, numKvHeads, contextLength } = config;
    const header = Int32Array.of(width, ffnWidth, numLayers, numHeads, numKvHeads, -config.vocabSize, contextLength);
    const bytes = [...weights.values()].reduce(
      (sum, { data }) => sum + data.byteLength,
      4 * contextLength * config.headWidth,
    );
    const file = Buffer.concat([Buffer.from(header.buffer), Buffer.alloc(bytes, 60)]);
    const words = fc.tuple(fc.nat(6), fc.oneof(fc.integer({ min: -1, max: 64 }), fc.integer()));
    return {
      cases: fc.record({ header: fc.array(words, { maxLength: 2 }), bytes: fc.array(byteEdit, { maxLength: 2 }) }),
      run({ header, bytes }, scratch) {
        const changed = Buffer.from(file);
        for (const [at, value] of header) changed.writeInt32LE(value, 4 * at);
        readLlama2c(scratch.put("x.bin", editBytes(changed, bytes)));
      },
    };
  }),

  "llama2c-tokenizer": target(() => {
    const file = readFileSync(join(stories, "tok512.bin"));
    return {
      cases: fc.record({
        bytes: few(byteEdit),
        vocabSize: fc.oneof(fc.constant(512), fc.constantFrom(1, 511, 513, 1 << 21)),
      }),
      run({ bytes, vocabSize }, scratch) {
        const json = readLlama2cTokenizer(scratch.put("tok.bin", editBytes(file, bytes)), vocabSize);
        createTokenizer(json, "tok.bin", { bosId: 1, eosIds: [2] });
      },
    };
  }),

  bundle: target(async (folder: string) => {
    const model = goldenModel("llama");
    const checkpoint = await writeCheckpoint(join(folder, "checkpoint"), model, anyPredictor(model, "soft"));
    const path = join(folder, "bundle");
    await packBundle(checkpoint, path, { type: "F16" });
    const manifest = readFileSync(join(path, "ifprune.json"), "utf8");
    const raws = {
      "metadata.gguf": rawOf(join(path, "metadata.gguf")),
      "base.gguf": rawOf(join(path, "base.gguf")),
      "ffn.gguf": rawOf(join(path, "ffn.gguf")),
    };
    const none: GgufCase = { header: [], bytes: [] };
    const change = fc.record({
      manifest: fc.record({ json: fc.array(jsonEdit, { maxLength: 2 }), bytes: seldom(byteEdit) }),
      "metadata.gguf": fc.oneof(fc.constant(none), ggufFile),
      "base.gguf": fc.oneof(fc.constant(none), ggufFile),
      "ffn.gguf": fc.oneof(fc.constant(none), ggufFile),
      /** Whether the manifest says the sizes that the files have. */
      fits: fc.boolean(),
      head: fc.option(safetensorsFile),
    });
    return {
      cases: change,
      async run(input, scratch) {
        const contents = new Map<string, Content>();
        for (const name of ["metadata.gguf", "base.gguf", "ffn.gguf"] as const)
          if (input[name] !== none) contents.set(name, editedGguf(raws[name], input[name]));
        if (input.head)
          contents.set("head.safetensors", editedSafetensors(readFileSync(join(path, "head.safetensors")), input.head));
        const json = JSON.parse(manifest);
        for (const [name, { size }] of contents) if (input.fits) json.files[name].bytes = size;
        scratch.put("b/ifprune.json", editedJson(JSON.stringify(json), input.manifest));
        for (const name of readdirSync(path)) {
          const content = contents.get(name);
          if (content) scratch.put(`b/${name}`, content);
          else if (name !== "ifprune.json") symlinkSync(join(path, name), scratch.path(`b/${name}`));
        }
        using bundle = new Bundle(scratch.path("b"));
        bundle.text("tokenizer.json");
        if ([...contents.values()].some(({ bytes, size }) => size > bytes.length)) return;
        readAll(bundle);
        if (bundle.predictor) await openBundlePredictor(new FakeEngines(), bundle, {});
        await bundle.verify();
      },
    };
  }),

  mask: target(() => {
    const text = JSON.stringify({ tFfn: 2, dFfn: 5, layers: [[0, 3], [1, 4]], lambda: [[1, 0.5], [0.25, 1]] }); // biome-ignore format: rows
    return {
      cases: jsonFile,
      run(input, scratch) {
        const path = scratch.put("mask.json", editedJson(text, input));
        const flaw = maskFlaw(maskFromJson(readJson(path), path));
        if (flaw) throw new Error(`a mask was read that is none: ${flaw}`);
      },
    };
  }),

  head: target((folder: string) => {
    const tensor = (...shape: number[]) => ({
      shape,
      data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5),
    });
    const heads: Weights[] = [
      new Map([["w1.weight", tensor(3, 4)], ["w2.weight", tensor(12, 3)], ["importance", tensor(2, 6)]]), // biome-ignore format: rows
      new Map([["router.weight", tensor(3, 4)], ["codebook.weight", tensor(6, 3)]]), // biome-ignore format: rows
    ];
    const files = heads.map((head, i) => {
      const path = join(folder, `${i}.safetensors`);
      writeSafetensors(path, new Map([["feature.mean", tensor(4)], ["feature.std", tensor(4)], ...head])); // biome-ignore format: rows
      return readFileSync(path);
    });
    return {
      cases: fc.record({ base: fc.nat(files.length - 1), edits: safetensorsFile }),
      run({ base, edits }, scratch) {
        const content = editedSafetensors(files[base]!, edits);
        const head = readHead(scratch.put("head.safetensors", content), { featureWidth: 4, numLayers: 2, ffnWidth: 6 });
        const scores = scoreFeature(head, Float32Array.of(1, 2, 3, 4));
        if (scores.length !== 12) throw new Error(`${scores.length} scores`);
      },
    };
  }),

  jsonl: target(() => {
    const text = '{"text":"a","n":1}\n\n{"text":"é🙂","n":2}\r\n{"text":"c","n":null}'.repeat(3);
    const schema = z.object({ text: z.string(), n: z.number().nullish() });
    return {
      cases: fc.record({ bytes: few(byteEdit), json: jsonEdit, zip: fc.option(seldom(byteEdit)) }),
      async run({ bytes, json, zip }, scratch) {
        const lines = Buffer.concat([editJson('{"text":"a","n":1}', [json]), Buffer.from(`\n${text}`)]);
        const plain = editBytes(lines, bytes);
        const tooLarge = plain.size > 2 ** 24 ? { ...plain, size: 2 ** 25 } : plain; // a whole sparse file would be read
        const path = scratch.put(
          zip ? "x.jsonl.gz" : "x.jsonl",
          zip ? { ...editBytes(gzipSync(plain.bytes), zip), size: 0 } : tooLarge,
        );
        for await (const { row } of readJsonLines(path, schema)) schema.parse(row);
      },
    };
  }),

  recipe: target(() => {
    const text = readFileSync(join(fixtures, "tiny/recipe.json"), "utf8");
    const json = JSON.parse(text) as { stages: { name: string }[] };
    const stages = Object.fromEntries(json.stages.map(({ name }) => [name, { steps: 3 }]));
    const change = JSON.stringify({ extends: "base.json", seed: 7, threads: 1, stages });
    return {
      cases: fc.record({
        base: fc.record({ json: fc.array(jsonEdit, { maxLength: 2 }), bytes: seldom(byteEdit) }),
        change: fc.option(jsonFile),
      }),
      run({ base, change: edits }, scratch) {
        const path = scratch.put("base.json", editedJson(text, base));
        readRecipe(edits ? scratch.put("change.json", editedJson(change, edits)) : path);
      },
    };
  }),

  "import-folder": target(async (folder: string) => {
    const { config, weights } = tinyModel("llama", { vocabSize, width: 8, headWidth: 4, ffnWidth: 8, numLayers: 1 });
    const path = join(folder, "m");
    await writeModel(path, config, (name) => weights.get(name)!, { type: "F16" });
    const texts = tokenizerJsons().map((json) => JSON.stringify(json));
    const files = {
      "config.json": readFileSync(join(path, "config.json"), "utf8"),
      "generation_config.json": '{"bos_token_id": 0, "eos_token_id": [1, 2]}',
      "tokenizer_config.json": JSON.stringify({ add_bos_token: true, chat_template: templates[0] }),
      "chat_template.json": JSON.stringify({ chat_template: [{ name: "default", template: "{{ messages }}" }] }),
      "README.md": "---\nlicense: mit\n---\n# A model\n",
    };
    const names = [...Object.keys(files), "tokenizer.json", "tokenizer.json"] as (keyof typeof files)[];
    return {
      cases: fc.record({
        tokenizer: fc.nat(texts.length - 1),
        edits: few(fc.tuple(fc.constantFrom(...names), jsonFile)),
        leave: fc.array(fc.constantFrom(...names), { maxLength: 1 }),
        as: fc.constantFrom("bundle", "checkpoint"),
      }),
      async run({ tokenizer, edits, leave, as }, scratch) {
        mkdirSync(scratch.path("m"));
        copyFileSync(join(path, "model.safetensors"), scratch.path("m/model.safetensors"));
        for (const [name, text] of Object.entries({ ...files, "tokenizer.json": texts[tokenizer]! })) {
          const edit = edits.find(([one]) => one === name)?.[1];
          const content = name === "README.md" ? text : edit ? editedJson(text, edit) : text;
          if (!leave.includes(name as keyof typeof files)) scratch.put(`m/${name}`, content);
        }
        await imported(scratch, "m", as);
      },
    };
  }),

  "import-gguf": target(() => {
    const raws = tokenizerJsons().map((json) => {
      const { metadata, tensors } = ggufParts(
        tinyModel("llama", { vocabSize, width: 8, headWidth: 4, ffnWidth: 8, numLayers: 1 }),
      );
      const plain = [...metadata].filter(([key]) => !key.startsWith("tokenizer."));
      const tokenizer = tokenizerMetadata(
        { path: "x", json },
        { vocabSize },
        { ...boundary, addBos: true, chatTemplate: templates[0] },
      );
      return rawGguf(new Map([...plain, ...tokenizer, ["general.license", { type: "string", value: "mit" }]]), tensors);
    });
    return {
      cases: fc.record({ base: fc.nat(raws.length - 1), edits: ggufFile, as: fc.constantFrom("bundle", "checkpoint") }),
      async run({ base, edits, as }, scratch) {
        scratch.put("m.gguf", editedGguf(raws[base]!, edits));
        await imported(scratch, "m.gguf", as);
      },
    };
  }),
};

/** Imports, after which there is a bundle that opens, or nothing. */
async function imported(scratch: Scratch, source: string, as: "bundle" | "checkpoint"): Promise<void> {
  const before = readdirSync(scratch.folder);
  try {
    await importModel(scratch.path(source), scratch.path("out"), { as });
  } catch (error) {
    const left = readdirSync(scratch.folder).filter((name) => !before.includes(name));
    if (left.length > 0) throw new Error(`the import failed and left ${left}`, { cause: error });
    throw error;
  }
  if (as === "checkpoint") return;
  let tokenizer: { path: string; boundary: Boundary };
  try {
    using bundle = new Bundle(scratch.path("out"));
    readAll(bundle);
    tokenizer = { path: bundle.tokenizerPath, boundary: boundaryOf(bundle.manifest, bundle.config) };
  } catch (error) {
    throw new Error(`what was imported does not open: ${(error as Error).message}`, { cause: error });
  }
  loadTokenizer(tokenizer.path, tokenizer.boundary); // need not cover every text to be exported
}
