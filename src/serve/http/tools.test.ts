/** An answer means the same however it is cut into pieces. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { CallReader, plainMessages, type Said } from "./tools.ts";

const unset = { description: undefined, parameters: undefined, strict: undefined };
const tools = [{ type: "function" as const, function: { name: "f", ...unset } }];
const call = '<tool_call>\n{"name": "f", "arguments": {"a": "</tool_call"}}\n</tool_call>';
const parts = fc.constantFrom("a", "<", "<tool_call>", "</tool_call>", "\n", call, '{"name": "f"}', "é😀", "<tool_");

const read = (pieces: readonly string[], isWhole: boolean): Said[] => {
  const reader = new CallReader(tools);
  return [...pieces.flatMap((piece) => reader.push(piece)), ...reader.end(isWhole)];
};
const shown = (said: readonly Said[]) =>
  said
    .map((one) => ("text" in one ? one.text : "call" in one ? `[${one.call.function.arguments}]` : "a thought"))
    .join("");

test("calls are found in any pieces, and no text is lost", () => {
  fc.assert(
    fc.property(
      fc.array(parts),
      fc.boolean(),
      fc.infiniteStream(fc.integer({ min: 1, max: 9 })),
      (list, isWhole, cuts) => {
        const text = list.join("");
        const pieces: string[] = [];
        for (let at = 0; at < text.length; ) {
          const length = cuts.next().value!;
          pieces.push(text.slice(at, at + length));
          at += length;
        }
        const said = read(pieces, isWhole);
        expect(shown(said)).toBe(shown(read([text], isWhole)));
        const calls = said.filter((one) => "call" in one).length;
        if (calls === 0) expect(shown(said)).toBe(text);
        for (const one of said) if ("text" in one) expect(one.text).not.toBe("");
      },
    ),
  );
});

test("a call is whole at its mark, or at the end of an answer that ended by itself", () => {
  expect(shown(read([`a${call}b${call}`], true))).toBe('a[{"a": "</tool_call"}]b[{"a": "</tool_call"}]');
  const open = '<tool_call>{"name": "f"}';
  expect(shown(read([open], true))).toBe("[{}]");
  expect(shown(read([open], false))).toBe(open);
});

test("a call whose arguments have another name stays text: they would be lost", () => {
  const call = '<tool_call>{"name": "f", "args": {"a": 1}}</tool_call>';
  expect(shown(read([call], true))).toBe(call);
  expect(shown(read(['<tool_call>{"name": "f", "id": 1, "arguments": {}}</tool_call>'], true))).toBe("[{}]");
});

test("numbers of a call keep their digits, on the way to a client and back", () => {
  const given = '{"id": 1234567890123456789, "x": 1e999}';
  expect(shown(read([`<tool_call>{"arguments": ${given}, "name": "f"}</tool_call>`], true))).toBe(`[${given}]`);
  const tool_calls = [{ id: "c", type: "function" as const, function: { name: "f", arguments: given } }];
  const [message] = plainMessages([{ role: "assistant", content: "", tool_calls }] as never);
  expect(message).toMatchObject({ calls: [{ arguments: { id: "1234567890123456789", x: "1e999" } }] });
});
