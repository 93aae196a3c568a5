/**
 * Templates in all that real ones use (namespaces, macros, slices, whitespace control, tools, thoughts, …), rendered by us as a server does: the texts are those
 * of Python's transformers.
 */
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { ChatTemplate } from "../../src/text/chatTemplate.ts";
import { chats } from "./chats.ts";
import { ours, type Rendered, theirs } from "./compare.ts";
import { isPythonMissing } from "./python.ts";

const corpus = fileURLToPath(new URL("corpus/", import.meta.url));
const names = readdirSync(corpus);
const sources = names.map((name) => readFileSync(`${corpus}${name}`, "utf8"));

describe.skipIf(isPythonMissing)("transformers", () => {
  let references: Rendered[][];
  beforeAll(async () => {
    references = await theirs(sources, chats);
  });

  test.each(names)("%s writes what transformers writes, and refuses what it refuses", (name) => {
    const index = names.indexOf(name);
    const source = sources[index]!;
    const { hasTools } = new ChatTemplate(source, name);
    let numTexts = 0;
    for (const [i, chat] of chats.entries()) {
      if (chat.tools && !hasTools) continue;
      const reference = references[index]![i]!;
      const own = ours(source, chat);
      if ("text" in reference) numTexts++;
      expect("text" in own ? own : "refused", `${chat.name}: ${JSON.stringify([own, reference])}`).toEqual(
        "text" in reference ? reference : "refused",
      );
    }
    expect(numTexts).toBeGreaterThanOrEqual(5);
  });
});
