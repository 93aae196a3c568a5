/**
 * Importing a model of someone else's: a Hugging Face folder, a GGUF file, a llama2.c checkpoint. It becomes a bundle, which is run, pruned and
 * exported, or a checkpoint, which is trained. A bundle that was imported becomes a checkpoint too.
 */
import { existsSync, readdirSync, realpathSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { FileError, OptionError } from "../errors.ts";
import { checkNewFolder, checkWithin, makeFolder } from "../files.ts";
import type { GgufMetadata } from "../formats/gguf.ts";
import { GgufModel, llamaCppFlaw } from "../formats/ggufModel.ts";
import { tokenizerFromGguf, tokenizerMetadata } from "../formats/ggufTokenizer.ts";
import { ModelFolder, writeModel } from "../formats/huggingface.ts";
import { readSequenceTokens, type SequenceTokens } from "../formats/huggingfaceTokens.ts";
import { llama2cIds, readLlama2c, readLlama2cTokenizer } from "../formats/llama2c.ts";
import { isHubId } from "../hub/hubSnapshot.ts";
import { readText } from "../json.ts";
import {
  type BundleManifest,
  describeFiles,
  formatOfFolder,
  IMPORT_RECIPE,
  manifestName,
  writeManifest,
} from "../manifest.ts";
import { countParameters } from "../model/config.ts";
import { inMemory, type ModelSource } from "../model/source.ts";
import { ChatTemplate, chatTemplateName, readChatTemplate } from "../text/chatTemplate.ts";
import { checkBoundary, readTokenizerFile } from "../text/tokenizerFile.ts";
import { Bundle } from "./bundle.ts";
import { defaultType, type PackOptions, writeBundle } from "./packBundle.ts";
import { modelFolder } from "./pulledModels.ts";
import { WeightCheck } from "./weightCheck.ts";

/** How {@link importModel} writes a model. */
export interface ImportOptions extends Partial<PackOptions> {
  /** Of the model, for its provenance. Default: that of its folder or file. */
  name?: string | undefined;
  /** Of the weights. Default: what the model says of itself, else "unknown". */
  licence?: string | undefined;
  /** llama2.c only: its tokenizer. */
  tokenizer?: string | undefined;
  /** "checkpoint" for training: float32, in memory while it is written. Default: "bundle". */
  as?: "bundle" | "checkpoint" | undefined;
}

/** What an import has to say: where something was left out or chosen. */
export interface Imported {
  notes: string[];
}

/** A model that was opened to be imported. */
interface Opened {
  llm: ModelSource;
  /** Default type of the bundle's weights. */
  type: PackOptions["type"];
  tokenizer: GgufMetadata;
  bosId?: number | undefined;
  eosId?: number | undefined;
  /** Small files to take along, `tokenizer.json` among them. */
  texts: Map<string, string>;
  licence?: string | undefined;
  /** What a bundle says of itself. */
  manifest?: Pick<BundleManifest, "promptTemplate" | "provenance"> | undefined;
  notes: string[];
}

/**
 * Imports a model. Memory of a bundle: one layer's FFN in float32 and about 64 MB, whatever the model's size.
 *
 * @param source Hugging Face folder with safetensors, GGUF file (of a split one, the first), or llama2.c checkpoint (.bin); for a checkpoint also a
 *   bundle without a predictor, whose weights are then what they were rounded to
 * @param outFolder must not exist; it appears whole or not at all
 * @throws {FileError} if the source is damaged, of another kind, a model that we do not compute, or has a weight that is not finite, or would not be in the type
 * @throws {OptionError} if the type does not fit the model, or the folder exists
 */
export async function importModel(source: string, outFolder: string, options: ImportOptions = {}): Promise<Imported> {
  if (options.as === "checkpoint" && options.type !== undefined)
    throw new OptionError(`import: wanted no type of a checkpoint, whose weights are F32, got ${options.type}.`);
  checkNewFolder(outFolder, "import");
  const opened = open(source, options);
  using llm = opened.llm;
  const { texts, notes, bosId } = opened;
  const eosId = checkTokenizer(source, opened);
  const manifest: Omit<BundleManifest, "format" | "files"> = {
    version: 1,
    lambda: "hard",
    predictorInput: "prompt",
    predictorPooling: "last",
    promptTemplate: "{prompt}",
    bosId,
    eosId,
    provenance: {
      recipe: IMPORT_RECIPE,
      data: [
        { name: options.name ?? basename(resolve(source)), licence: options.licence ?? opened.licence ?? "unknown" },
      ],
      created: new Date().toISOString(),
    },
    ...opened.manifest,
  };
  const flaw = options.as === "checkpoint" ? undefined : llamaCppFlaw(llm.config);
  if (flaw !== undefined)
    throw new FileError(
      source,
      `wanted a model that llama.cpp computes. ${flaw} --checkpoint takes it, to be trained.`,
    );
  if (llm instanceof Bundle) await llm.verify({ signal: options.signal });
  if (options.as === "checkpoint") {
    const check = new WeightCheck(llm.path);
    await makeFolder(outFolder, "import", (partial) => writeCheckpoint(partial, llm, texts, manifest, check, options));
    notes.push(...check.notes());
  } else {
    const { type = opened.type, block, signal, onProgress } = options;
    const contents = { llm, tokenizer: opened.tokenizer, texts, manifest };
    notes.push(...(await writeBundle(outFolder, contents, { type, block, signal, onProgress })));
  }
  return { notes };
}

/** A GGUF file may hold a tokenizer that does not fit together. @returns the EOS */
function checkTokenizer(source: string, { llm, texts, bosId, eosId }: Opened): number {
  checkBoundary(
    readTokenizerFile(JSON.parse(texts.get("tokenizer.json")!), source, llm.config.vocabSize),
    [bosId, eosId],
    source,
  );
  if (eosId === undefined) throw new FileError(source, "wanted a token that ends answers, got none.");
  return eosId;
}

async function writeCheckpoint(
  folder: string,
  llm: ModelSource,
  texts: ReadonlyMap<string, string>,
  manifest: Omit<BundleManifest, "format" | "files">,
  check: WeightCheck,
  { signal, onProgress }: Pick<ImportOptions, "signal" | "onProgress">,
): Promise<void> {
  const total = 4 * countParameters(llm.config);
  let done = 0;
  const read = (name: string) => {
    signal?.throwIfAborted();
    const weight = llm.read(name);
    check.look(name, weight.shape, weight.data);
    done += 4 * weight.data.length;
    onProgress?.(done, total);
    return weight;
  };
  const weights = await writeModel(join(folder, "llm"), llm.config, read, { type: "F32" });
  const kept = ["tokenizer.json", chatTemplateName].filter((name) => texts.has(name));
  for (const name of kept) writeFileSync(join(folder, "llm", name), texts.get(name)!);
  const files = await describeFiles(
    folder,
    [...weights, ...kept].map((name) => `llm/${name}`),
    signal,
  );
  writeManifest(folder, { ...manifest, format: "ifprune-checkpoint", files });
}

function open(given: string, options: ImportOptions): Opened {
  const source = options.as === "checkpoint" && !existsSync(given) ? modelFolder(given) : given;
  const stat = statSync(source, { throwIfNoEntry: false });
  if (!stat) {
    const next = isHubId(source) ? `Check the path, or run: ifprune pull ${source}` : "Check the path.";
    throw new FileError(source, `wanted a model to import, got nothing of that name. ${next}`);
  }
  if (options.tokenizer !== undefined && !source.endsWith(".bin"))
    throw new OptionError("import: wanted --tokenizer with a llama2.c checkpoint only; other models bring theirs.");
  if (options.as === "checkpoint" && formatOfFolder(source) === "ifprune-bundle") return openBundle(source, options);
  if (stat.isDirectory() && existsSync(join(source, manifestName)))
    throw new FileError(source, `wanted a model of another tool, got ${ours(source)}`);
  if (stat.isDirectory()) return openFolder(source);
  switch (extname(source)) {
    case ".gguf":
      return openGguf(source);
    case ".bin":
      return openLlama2c(source, options.tokenizer);
    default:
      throw new FileError(
        source,
        "wanted a Hugging Face folder, a .gguf file or a llama2.c .bin file, got another. Is it another format?",
      );
  }
}

/** What a folder of ours is, and what to do with it. */
function ours(folder: string): string {
  switch (formatOfFolder(folder)) {
    case "ifprune-checkpoint":
      return "a checkpoint of ours. `ifprune pack` makes a bundle of it.";
    case "ifprune-bundle":
      return "a bundle of ours. It needs no import, but with --checkpoint, to be trained.";
    default:
      return "a folder of ours. It needs no import.";
  }
}

/** Weights of a predictor's model were trained under its masks: dense they are no model of their own. */
function openBundle(folder: string, { name, licence }: ImportOptions): Opened {
  if (name !== undefined || licence !== undefined)
    throw new OptionError("import: wanted no name or licence of a bundle, which has its own, got one. Leave it out.");
  return reading(new Bundle(folder), (bundle) => {
    if (bundle.predictor)
      throw new FileError(
        folder,
        "wanted a dense model, got a bundle with a predictor. Give the checkpoint that it was packed from.",
      );
    const { promptTemplate, provenance, bosId, eosId } = bundle.manifest;
    return {
      type: "keep",
      tokenizer: bundle.metadata,
      bosId,
      eosId,
      texts: textsOf(["tokenizer.json", chatTemplateName].map((name) => [name, bundle.text(name)])),
      manifest: { promptTemplate, provenance },
      notes: [],
    };
  });
}

/** Small files that transformers reads beside the weights. */
const takenAlong = ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"];

/** What is read of a model's folder. */
const isRead = /\.(json|jinja|safetensors|gguf|md|model)$/;

/**
 * A model from elsewhere must not bring other files of this machine along, by links to them.
 *
 * @throws {FileError} if one leads out of the folder; in the Hub's cache, out of what it has of the repository
 */
function checkLinks(folder: string, isOurs = (name: string) => isRead.test(name)): void {
  const [, repository] = /^(.*[\\/]models--[^\\/]+)[\\/]snapshots[\\/]/.exec(realpathSync(folder)) ?? [];
  for (const name of readdirSync(folder).filter(isOurs)) checkWithin(join(folder, name), repository ?? folder);
}

function openFolder(folder: string): Opened {
  checkLinks(folder);
  if (!existsSync(join(folder, "config.json")))
    throw new FileError(
      folder,
      "wanted a Hugging Face folder, a .gguf file or a llama2.c .bin file, got a folder without config.json. Is it another folder?",
    );
  const path = join(folder, "tokenizer.json");
  if (!existsSync(path)) {
    const hint = existsSync(join(folder, "tokenizer.model"))
      ? "a tokenizer.model only. Save it as a fast tokenizer with transformers first"
      : "none";
    throw new FileError(folder, `wanted a tokenizer.json, got ${hint}.`);
  }
  return reading(new ModelFolder(folder), (llm) => {
    const tokens = readSequenceTokens(folder);
    const notes = [...llm.notes];
    const template = usableTemplate(() => readChatTemplate(folder), folder, notes);
    const addBos = opensWithBos(tokens, template);
    const { eosIds } = tokens;
    const ids = { bosId: addBos ? tokens.bosId : undefined, eosIds };
    const along = takenAlong.filter((name) => existsSync(join(folder, name)));
    return {
      type: defaultType(llm.config),
      tokenizer: tokenizerMetadata(path, llm.config, { ...ids, addBos, chatTemplate: template, notes }),
      bosId: ids.bosId,
      eosId: eosIds[0],
      texts: textsOf([
        ...["tokenizer.json", ...along].map((name) => [name, readText(join(folder, name))] as const),
        [chatTemplateName, template],
      ]),
      licence: cardLicence(folder),
      notes,
    };
  });
}

/** A template that is none would keep the bundle from opening; other tools leave it out too. */
function usableTemplate(read: () => string | undefined, where: string, notes: string[]): string | undefined {
  try {
    const source = read();
    if (source !== undefined) new ChatTemplate(source, where);
    return source;
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    notes.push(`The chat template is left out: ${error.message} Prompts are read as they are.`);
    return undefined;
  }
}

/** Some tokenizers leave BOS to the template, which would write it twice otherwise; here it is the tokenizer that has it, and a template's own is not doubled. */
function opensWithBos({ bosId, addsBos }: Pick<SequenceTokens, "bosId" | "addsBos">, template = ""): boolean {
  return bosId !== undefined && (addsBos || /\bbos_token\b/.test(template));
}

/** The licence that a folder's model card names, if it does. */
export function cardLicence(folder: string): string | undefined {
  return /^license: *(\S+) *$/m.exec(frontMatter(join(folder, "README.md")))?.[1];
}

/** The YAML at the top of a model card, or nothing, also of one that is no text. */
function frontMatter(path: string): string {
  try {
    return existsSync(path) ? (/^---\n([\s\S]*?)\n---/.exec(readText(path))?.[1] ?? "") : "";
  } catch (error) {
    if (error instanceof FileError) return "";
    throw error;
  }
}

function openGguf(path: string): Opened {
  const [, stem] = /^(.+-)\d{5}-of-\d{5}\.gguf$/.exec(basename(path)) ?? [];
  if (stem !== undefined) checkLinks(dirname(path), (name) => name.startsWith(stem) && name !== basename(path));
  return reading(new GgufModel(path), ({ metadata }) => {
    const { tokenizerJson, bosId, eosIds, addBos: addsBos, chatTemplate: found } = tokenizerFromGguf(metadata, path);
    const notes: string[] = [];
    const chatTemplate = usableTemplate(() => found, path, notes);
    const addBos = opensWithBos({ bosId, addsBos }, chatTemplate);
    const licence = metadata.get("general.license")?.value;
    return {
      type: "keep",
      tokenizer: new Map(
        [...metadata].filter(
          ([key]) => key.startsWith("tokenizer.") && (chatTemplate !== undefined || key !== "tokenizer.chat_template"),
        ),
      ),
      bosId: addBos ? bosId : undefined,
      eosId: eosIds[0],
      texts: textsOf([
        ["tokenizer.json", `${JSON.stringify(tokenizerJson)}\n`],
        [chatTemplateName, chatTemplate],
      ]),
      licence: typeof licence === "string" ? licence : undefined,
      notes,
    };
  });
}

function openLlama2c(path: string, tokenizerPath: string | undefined): Opened {
  if (tokenizerPath === undefined)
    throw new OptionError(
      "import: wanted the tokenizer of a llama2.c checkpoint too, got none. Give --tokenizer FILE.",
    );
  const { config, weights } = readLlama2c(path);
  const json = readLlama2cTokenizer(tokenizerPath, config.vocabSize);
  const ids = { bosId: llama2cIds.bos, eosIds: [llama2cIds.eos] };
  return reading(inMemory(path, { config, weights }), () => ({
    type: defaultType(config),
    tokenizer: tokenizerMetadata({ path: tokenizerPath, json }, config, { ...ids, addBos: true }),
    bosId: ids.bosId,
    eosId: llama2cIds.eos,
    texts: textsOf([["tokenizer.json", `${JSON.stringify(json)}\n`]]),
    notes: [],
  }));
}

/** What else `read` finds of a model that is open. Where it fails, the model is closed. */
function reading<Model extends ModelSource>(llm: Model, read: (llm: Model) => Omit<Opened, "llm">): Opened {
  try {
    return { llm, ...read(llm) };
  } catch (error) {
    llm[Symbol.dispose]();
    throw error;
  }
}

/** Those that there are. */
function textsOf(all: readonly (readonly [name: string, text: string | undefined])[]): Opened["texts"] {
  return new Map(all.flatMap(([name, text]) => (text === undefined ? [] : [[name, text]])));
}
