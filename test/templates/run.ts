/**
 * Chat templates of real models against Python's transformers: `npx tsx test/templates/run.ts FOLDER [--show]` renders every chat of `chats.ts` by each `*.jinja` of a
 * folder, and says where the texts differ. A template that takes no tools here is not asked for them.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ChatTemplate } from "../../src/text/chatTemplate.ts";
import { chats } from "./chats.ts";
import { ours, theirs } from "./compare.ts";

const {
  values: { show },
  positionals: [folder],
} = parseArgs({ allowPositionals: true, options: { show: { type: "boolean" } } });
if (!folder) throw new Error("wanted a folder of templates");
const names = readdirSync(folder).filter((name) => name.endsWith(".jinja"));
const sources = names.map((name) => readFileSync(join(folder, name), "utf8"));
const references = await theirs(sources, chats);
const total = {
  same: 0,
  "both refuse": 0,
  "we refuse": 0,
  "they refuse": 0,
  different: 0,
  "tools that are shown otherwise than ours": 0,
};
for (const [i, name] of names.entries()) {
  for (const [j, chat] of chats.entries()) {
    if (chat.tools && !new ChatTemplate(sources[i]!, name).hasTools) {
      total["tools that are shown otherwise than ours"]++;
      continue;
    }
    const reference = references[i]![j]!;
    const own = ours(sources[i]!, chat);
    const kind =
      "text" in own
        ? "text" in reference
          ? own.text === reference.text
            ? "same"
            : "different"
          : "they refuse"
        : "text" in reference
          ? "we refuse"
          : "both refuse";
    total[kind]++;
    if (kind === "same" || kind === "both refuse") continue;
    console.log(`${name}, ${chat.name}: ${kind}`);
    if (show || !("text" in own))
      console.log(
        `  transformers ${JSON.stringify(reference).slice(-600)}\n  ifprune      ${JSON.stringify(own).slice(-600)}`,
      );
  }
}
console.log(
  Object.entries(total)
    .map(([kind, count]) => `${kind} ${count}`)
    .join(", "),
);
