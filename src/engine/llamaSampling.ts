/** What llama.cpp's own sampler is told: numbers, biases, penalties and grammars. */
import type {
  LlamaGrammarEvaluationState,
  LlamaModel,
  SequenceEvaluateOptions,
  Token,
  TokenBias,
} from "node-llama-cpp";
import { OptionError } from "../errors.ts";
import type { Sampling } from "./sampling.ts";

/** Longest schema as JSON, and longest grammar made of one, in characters. */
const [maxSchemaLength, maxGrammarLength] = [1 << 16, 1 << 18];

/** @param answer grows while it is generated */
export async function llamaSampling(
  model: LlamaModel,
  sampling: Sampling,
  room: number,
  answer: Token[],
  schema?: object,
): Promise<SequenceEvaluateOptions> {
  const { temperature, seed, topK, topP, minP, logitBias } = sampling;
  const { repeatPenalty: penalty, frequencyPenalty, presencePenalty } = sampling;
  const penalizes = penalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0;
  return {
    ...{ temperature, seed, topK, topP, minP },
    ...(logitBias.size > 0 && { tokenBias: await biasOf(model, logitBias) }),
    ...(penalizes && {
      repeatPenalty: { punishTokens: () => answer, maxPunishTokens: room, penalty, frequencyPenalty, presencePenalty },
    }),
    ...(schema && { grammarEvaluationState: await grammarState(model, schema) }),
  };
}

async function biasOf(model: LlamaModel, logitBias: Sampling["logitBias"]): Promise<TokenBias> {
  const { TokenBias: Bias } = await import("node-llama-cpp");
  const bias = new Bias(model.tokenizer);
  for (const [id, logit] of logitBias) bias.set(id as Token, { logit });
  return bias;
}

/** @throws {OptionError} if the schema is too large, or no grammar can be made of it */
async function grammarState(model: LlamaModel, schema: object): Promise<LlamaGrammarEvaluationState> {
  const { LlamaGrammarEvaluationState: State } = await import("node-llama-cpp");
  let flaw: unknown;
  try {
    if (JSON.stringify(schema).length > maxSchemaLength) throw new Error(`more than ${maxSchemaLength} characters`);
    const { grammar: rules, stopGenerationTriggers } = await model.llama.createGrammarForJsonSchema(
      schema as { type: "object" },
    );
    if (rules.length <= maxGrammarLength) {
      const grammar = await model.llama.createGrammar({ grammar: withHeldNumbers(rules), stopGenerationTriggers });
      return new State({ model, grammar });
    }
    flaw = new Error(`a grammar of more than ${maxGrammarLength} characters`);
  } catch (error) {
    flaw = error;
  }
  const { message } = flaw as Error;
  throw new OptionError(`schema: wanted one that a grammar can be made of, got: ${message}.`, { cause: flaw });
}

const DIGITS = '"-"? ("0" | [1-9] [0-9]{0,14})';
const NUMBER_RULES: Readonly<Record<string, string>> = {
  "integer-number-rule": DIGITS,
  "fractional-number-rule": `${DIGITS} ("." [0-9]{1,16})? ([eE] [-+]? ("0" | [1-9] [0-9]?))?`,
};

/** A grammar of node-llama-cpp's with numbers that a double holds: its integers have exponents, and 1e9999999999999999 is one of them. */
function withHeldNumbers(rules: string): string {
  return rules.replace(/^([\w-]+) ::= .*$/gm, (line, name: string) =>
    Object.hasOwn(NUMBER_RULES, name) ? `${name} ::= ${NUMBER_RULES[name]}` : line,
  );
}

/** @throws {OptionError} if a biased token is none, or one that ends an answer */
export function checkBias(logitBias: Sampling["logitBias"], model: LlamaModel, vocabSize: number): void {
  for (const id of logitBias.keys()) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize)
      throw new OptionError(`sampling: wanted a bias of tokens below ${vocabSize}, got one of ${id}.`);
    if (model.isEogToken(id as Token))
      // node-llama-cpp would leave it out
      throw new OptionError(`sampling: wanted no bias of tokens that end an answer, got one of ${id}.`);
  }
}
