/** Which files of a repository on the Hugging Face Hub a bundle is made of: no more than these are downloaded. */
import { join } from "node:path";
import { HubError, OptionError } from "../errors.ts";
import { isPickle, NO_PICKLES, readWeightsIndex, WEIGHTS_FILE, WEIGHTS_INDEX } from "../formats/huggingface.ts";
import { readModelConfig } from "../formats/huggingfaceConfig.ts";
import type { HubSnapshot } from "../hub/hubSnapshot.ts";
import { manifestName, parseManifest } from "../manifest.ts";
import { chatTemplateName } from "../text/chatTemplate.ts";

/** What is taken of a repository. */
export interface PullFiles {
  names: string[];
  /** What they are; `gguf` is the file to import, of a split one the first. */
  kind: "bundle" | "checkpoint" | { gguf: string };
  notes: string[];
}

/**
 * Chooses them: a bundle's where it is one, else a checkpoint's in safetensors, else those of a GGUF file. The small files that tell are brought.
 *
 * @param file the GGUF file to take
 * @throws {HubError} if the repository has nothing that we read, or not all of it
 * @throws {FileError} if the model is one that we do not compute
 * @throws {OptionError} if `file` is none of its GGUF files, or one must be chosen
 */
export async function choosePullFiles(snapshot: HubSnapshot, file: string | undefined): Promise<PullFiles> {
  const { id, names, folder } = snapshot;
  const list = [...names];
  if (file !== undefined) return chooseGguf(snapshot, file);
  if (names.has(manifestName)) {
    await snapshot.bring([manifestName]);
    const { files } = parseManifest(folder, "ifprune-bundle");
    return { names: [manifestName, ...Object.keys(files)], kind: "bundle", notes: [] };
  }
  if (names.has("config.json") && (names.has(WEIGHTS_FILE) || names.has(WEIGHTS_INDEX)))
    return await chooseCheckpoint(snapshot);
  if (list.some((name) => name.endsWith(".gguf"))) return chooseGguf(snapshot, undefined);
  const pickle = list.find(isPickle);
  if (pickle === undefined)
    throw snapshot.lacks(`an ifprune bundle, config.json with ${WEIGHTS_FILE}, or a .gguf file`);
  throw new HubError(
    `${id}: wanted weights as .safetensors or .gguf, got "${pickle}". ${NO_PICKLES}: look for a conversion of the model.`,
  );
}

/** What an import reads beside config, tokenizer and weights, where it is there. */
const beside = [
  "generation_config.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.json",
  chatTemplateName,
  "README.md",
];

async function chooseCheckpoint(snapshot: HubSnapshot): Promise<PullFiles> {
  const { names, folder } = snapshot;
  if (!names.has("tokenizer.json")) throw snapshot.lacks("a tokenizer.json");
  const small = ["config.json", "tokenizer.json", ...beside.filter((name) => names.has(name))];
  if (!names.has(WEIGHTS_FILE)) small.push(WEIGHTS_INDEX);
  await snapshot.bring(small);
  readModelConfig(folder); // before gigabytes of a model that we do not compute
  const shards = names.has(WEIGHTS_FILE)
    ? [WEIGHTS_FILE]
    : new Set(readWeightsIndex(join(folder, WEIGHTS_INDEX)).map(([, file]) => file));
  return { names: [...small, ...shards], kind: "checkpoint", notes: [] };
}

/** Types of GGUF files as their names say them, the default first: what an import stores a checkpoint in, then less, then more than needed. */
const preferredTypes = "Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 F16 BF16 F32".split(" ");

function chooseGguf({ id, names }: HubSnapshot, file: string | undefined): PullFiles {
  const models = [...names].filter((name) => name.endsWith(".gguf") && !/(^|[-._/])mmproj|(^|\/)imatrix/i.test(name));
  const firsts = models.filter((name) => (partOf(name)?.part ?? 1) === 1);
  const few = firsts.length > 8 ? [...firsts.slice(0, 8), `and ${firsts.length - 8} more`] : firsts;
  const byType = (type: string) => firsts.find((name) => new RegExp(`(^|[-._/])${type}[-.]`, "i").test(name));
  const [preferred] = preferredTypes.flatMap((type) => byType(type) ?? []);
  const chosen = file ?? preferred ?? (firsts.length === 1 ? firsts[0]! : undefined);
  if (chosen === undefined || !firsts.includes(chosen)) {
    const got = file === undefined ? "none" : `"${file}"`;
    throw new OptionError(`pull: wanted --file of ${id}, one of ${few.join(", ") || "none"}, got ${got}.`);
  }
  const { stem, count } = partOf(chosen) ?? {};
  const parts = stem === undefined ? [chosen] : Array.from({ length: count! }, (_, i) => partName(stem, i + 1, count!));
  const others = file === undefined && firsts.length > 1;
  return {
    names: [...parts, ...(names.has("README.md") ? ["README.md"] : [])],
    kind: { gguf: chosen },
    notes: others ? [`${chosen}: chosen of ${few.join(", ")}. --file chooses another.`] : [],
  };
}

/** Of a split file, which part it is. */
function partOf(name: string): { stem: string; part: number; count: number } | undefined {
  const [, stem, part, count] = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/.exec(name) ?? [];
  return stem === undefined ? undefined : { stem, part: Number(part), count: Number(count) };
}

function partName(stem: string, part: number, count: number): string {
  const digits = (n: number) => String(n).padStart(5, "0");
  return `${stem}-${digits(part)}-of-${digits(count)}.gguf`;
}
