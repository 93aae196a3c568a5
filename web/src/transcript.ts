/** A conversation as a file. */
import type { Conversation } from "./conversations.ts";

export type TranscriptType = "markdown" | "json";

export function transcript(conversation: Conversation, title: string, type: TranscriptType): string {
  const { id, model, changed, messages } = conversation;
  const date = new Date(changed).toISOString();
  if (type === "json") return `${JSON.stringify({ id, title, model, changed: date, messages }, null, 2)}\n`;
  const turns = messages.map(({ role, content, answer }) => {
    const end = answer && endings[answer.finishReason];
    return `## ${role === "user" ? "Question" : "Answer"}\n\n${content.trim()}\n${end ? `\n*${end}*\n` : ""}`;
  });
  return `# ${title}\n\n${model}, ${date.slice(0, 10)}\n\n${turns.join("\n")}`;
}

/** How an answer ended, where not by itself. */
export const endings: Record<string, string> = {
  stopped: "Stopped by you.",
  failed: "Broken off.",
  length: "Ended at the token limit.",
};

/** Of letters and digits of any script, and dashes. */
export function transcriptName(title: string, type: TranscriptType): string {
  const name = title
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 60);
  return `${name || "conversation"}.${type === "json" ? "json" : "md"}`;
}
