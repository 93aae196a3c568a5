import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InputError, OptionError } from "../errors.ts";
import { composePrompt, DEFAULT_PROMPT_TEMPLATE, instructionOf, PromptFormat, predictorIds } from "./prompt.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** One id per character, BOS 0. */
const characters: Pick<Tokenizer, "bosId" | "eosId" | "encode"> = {
  bosId: 0,
  eosId: 1,
  encode: (text) => Int32Array.from(text, (character) => character.charCodeAt(0)),
};
const tokenizer = characters as Tokenizer;
const format = new PromptFormat(tokenizer, DEFAULT_PROMPT_TEMPLATE);
const textOf = (ids: Int32Array) => String.fromCharCode(...ids.subarray(1));

describe("prompts", () => {
  test("an instruction with its input, and without", () => {
    expect(composePrompt("Write the plural.", "wolf")).toBe("Write the plural. Input: wolf");
    expect(composePrompt("Write a poem.")).toBe("Write a poem.");
  });

  test("an instruction's ids are the prompt's, and it says where in them the user's text is", () => {
    const of = (template: string, prompt: string) => {
      const { text, ids, user } = new PromptFormat(tokenizer, template).instruction(prompt);
      expect([text, ids]).toEqual([prompt, new PromptFormat(tokenizer, template).promptIds(prompt)]);
      return user && String.fromCharCode(...ids.subarray(...user));
    };
    expect(of(DEFAULT_PROMPT_TEMPLATE, "a cat")).toBe("a cat");
    expect(of("Ask: {prompt} Say: ", "Say: Ask: ")).toBe("Say: Ask: ");
    expect(of("{prompt}", "a cat")).toBe("a cat");
  });

  test("an instruction that has a place for its input takes it there, whole or in parts", () => {
    expect(composePrompt("What is the plural of {input}?", "wolf")).toBe("What is the plural of wolf?");
    expect(composePrompt("{input.2} from {input.1}", "94 29")).toBe("29 from 94");
    expect(composePrompt("{input.1} or {input.2}?", "polar bear, $&")).toBe("polar bear or $&?");
    expect(composePrompt("[a-z]{2}, {inputs}", "x")).toBe("[a-z]{2}, {inputs} Input: x");
    expect(composePrompt("What is {input}?")).toBe("What is {input}?");
    expect(() => composePrompt("{input.1} and {input.3}", "1 2")).toThrow(InputError);
    expect(instructionOf(composePrompt("What is {input}?", "this"))).toBe("What is this?");
  });

  test("instructionOf undoes composePrompt, whatever the input holds (seed 1)", () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), fc.string(), (instruction, input) => {
        fc.pre(!instruction.includes(" Input:") && !instruction.includes("{input"));
        expect(instructionOf(composePrompt(instruction, input))).toBe(instruction);
        expect(instructionOf(composePrompt(instruction, `${input} Input: ${input}`))).toBe(instruction);
      }),
      { seed: 1 },
    );
  });

  test("examples stand in the instruction, before the input; those that would end it are refused", () => {
    const examples = [
      { input: "cat", output: "cats" },
      { input: "$&", output: "{input}" },
    ];
    const shown = " Example: cat -> cats Example: $& -> {input}";
    expect(composePrompt("Write the plural.", "wolf", examples)).toBe(`Write the plural.${shown} Input: wolf`);
    expect(instructionOf(composePrompt("Write the plural.", "wolf", examples))).toBe(`Write the plural.${shown}`);
    expect(composePrompt("Write the plural.", undefined, examples)).toBe(`Write the plural.${shown}`);
    expect(composePrompt("The plural of {input}?", "wolf", examples)).toBe(`The plural of wolf?${shown}`);
    for (const example of [
      { input: "a Input: b", output: "c" },
      { input: "a", output: "Input: b" },
    ])
      expect(() => composePrompt("Write.", "wolf", [example])).toThrow(/wanted examples without " Input: "/);
  });

  test("an answer ends with EOS, and a later prompt follows it", () => {
    expect([...format.answerIds("ab")]).toEqual([97, 98, 1]);
    expect([...format.turnIds("ab")]).toEqual([97, 98, 10]);
    expect(format.endIds).toEqual([1]);
  });

  test("the predictor reads the raw prompt, the LLM reads it in the template; BOS comes first", () => {
    expect([...predictorIds(tokenizer, "ab")]).toEqual([0, 97, 98]);
    expect([...format.promptIds("ab")]).toEqual([0, 97, 98, 10]);
    expect(textOf(new PromptFormat(tokenizer, "<{prompt}>").promptIds("costs $& and $1"))).toBe("<costs $& and $1>");
  });

  test("empty instructions and templates without a place are refused", () => {
    for (const empty of ["", " \n"]) {
      expect(() => predictorIds(tokenizer, empty)).toThrow(InputError);
      expect(() => format.promptIds(empty)).toThrow(InputError);
    }
    expect(() => new PromptFormat(tokenizer, "prompt")).toThrow(OptionError);
  });
});
