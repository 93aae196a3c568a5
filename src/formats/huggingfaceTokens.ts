/** The tokens that open and end sequences of a Hugging Face folder: its tokenizer names them, and its configs have ids of them. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { readJson } from "../json.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { readGenerationConfig } from "./huggingfaceConfig.ts";

/** The first of `eosIds` is the tokenizer's own, which templates write; any of them ends an answer. */
export interface SequenceTokens {
  bosId?: number | undefined;
  /** Whether the tokenizer begins what it encodes with BOS. */
  addsBos: boolean;
  eosIds: readonly number[];
}

/** @throws {FileError} if a file has something else than ids and tokens, or nothing says what ends an answer */
export function readSequenceTokens(folder: string): SequenceTokens {
  const config = join(folder, "tokenizer_config.json");
  const said = existsSync(config) ? tokenizerConfigSchema.safeParse(readJson(config)).data : undefined;
  const tokenizer = tokenizerSchema.safeParse(readJson(join(folder, "tokenizer.json"))).data;
  const { added_tokens = [], post_processor } = tokenizer ?? {}; // whoever reads all of it says what it is not
  const idOf = (token: NamedToken | undefined) => {
    const name = typeof token === "object" ? token?.content : token;
    return added_tokens.find(({ content }) => content === name)?.id;
  };
  const generation = readGenerationConfig(folder);
  const first = [post_processor, ...(post_processor?.processors ?? [])].flatMap(firstId)[0];
  // A tokenizer that says "null" has none, whatever its model's configs were copied from.
  const bosId = said?.bos_token === null ? first : (idOf(said?.bos_token) ?? generation.bosId ?? first);
  const own = idOf(said?.eos_token);
  const eosIds = generation.eosIds.length > 0 ? generation.eosIds : own === undefined ? [eosByName(folder)] : [own];
  return {
    bosId,
    addsBos: bosId !== undefined && (said?.add_bos_token ?? first === bosId),
    eosIds: own === undefined ? eosIds : [own, ...eosIds.filter((id) => id !== own)],
  };
}

function eosByName(folder: string): number {
  try {
    return loadTokenizer(join(folder, "tokenizer.json")).eosId;
  } catch (cause) {
    throw new FileError(
      folder,
      "wanted an eos_token_id in generation_config.json or config.json, got none. Add the id of the token that ends an answer.",
      { cause },
    );
  }
}

/** What a post-processor puts before a text. */
function firstId(part: z.infer<typeof postProcessor> | null | undefined): number[] {
  const first = part?.single?.[0]?.SpecialToken?.id;
  const specials = part?.special_tokens ?? {};
  return first !== undefined && Object.hasOwn(specials, first) ? specials[first]!.ids.slice(0, 1) : [];
}

// What is of another form is as if it were not there: tools write much into these files, and little of it is needed.
const namedToken = z
  .union([z.string(), z.object({ content: z.string() })])
  .nullish()
  .catch(undefined);
type NamedToken = z.infer<typeof namedToken>;
const tokenizerConfigSchema = z.object({
  add_bos_token: z.boolean().nullish().catch(undefined),
  bos_token: namedToken,
  eos_token: namedToken,
});
const postProcessor = z.object({
  single: z.array(z.object({ SpecialToken: z.object({ id: z.string() }).optional() })).optional(),
  special_tokens: z.record(z.string(), z.object({ ids: z.array(z.number()).min(1) })).optional(),
});
const tokenizerSchema = z.object({
  added_tokens: z
    .array(z.object({ id: z.number(), content: z.string() }))
    .optional()
    .catch(undefined),
  post_processor: postProcessor
    .extend({ processors: z.array(postProcessor).optional() })
    .nullish()
    .catch(undefined),
});
