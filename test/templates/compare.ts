/** Chat templates rendered by us, as a server does, and by Python's transformers. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { IfpruneError } from "../../src/errors.ts";
import { ApiError } from "../../src/serve/http/apiErrors.ts";
import { parseChat } from "../../src/serve/http/schemas.ts";
import { plainMessages, toolUse } from "../../src/serve/http/tools.ts";
import { ChatTemplate } from "../../src/text/chatTemplate.ts";
import { pythonPath } from "./python.ts";

/** As clients send it. */
export interface Chat {
  name: string;
  messages: object[];
  tools?: object[];
}
export type Rendered = { text: string } | { error: string };

const ends = { bosToken: "<s>", eosToken: "</s>", specialTokens: ["<s>", "</s>", "<|im_start|>", "<|im_end|>"] };

export function ours(source: string, chat: Chat): Rendered {
  try {
    const body = parseChat({ model: "m", messages: chat.messages, tools: chat.tools });
    const parts = new ChatTemplate(source, "x.jinja").render(plainMessages(body.messages), ends, toolUse(body)?.tools);
    return { text: parts.map(({ text }) => text).join("") };
  } catch (error) {
    if (error instanceof IfpruneError || error instanceof ApiError) return { error: error.message };
    throw error;
  }
}

/** By template and chat. Arguments of calls, texts of JSON, are objects to transformers. */
export async function theirs(sources: readonly string[], chats: readonly Chat[]): Promise<Rendered[][]> {
  const asked = {
    templates: sources,
    chats: JSON.parse(JSON.stringify(chats), (key, value) =>
      key === "arguments" && typeof value === "string" ? JSON.parse(value) : value,
    ),
    ends: { bos_token: ends.bosToken, eos_token: ends.eosToken },
  };
  const script = fileURLToPath(new URL("reference.py", import.meta.url));
  return new Promise((resolve, reject) => {
    const child = execFile(pythonPath, [script], { maxBuffer: 1 << 28 }, (error, out) =>
      error ? reject(error) : resolve(JSON.parse(out)),
    );
    child.stdin!.end(JSON.stringify(asked));
  });
}
