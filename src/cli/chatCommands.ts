/** What may be typed in `ifprune chat` beside messages. */
export const CHAT_COMMANDS = [
  ["/keep SHARE", "so much of the model, as 75% or auto, by what the first message asks for"],
  ["/auto", "the part of the model that this conversation's first message asks for (as at the start)"],
  ["/dense", "the whole model"],
  ["/task NAME", "a saved part; /tasks lists them"],
  ["/remember NAME", "save this conversation's part as a task"],
  ["/mask", "which part answers now"],
  ["/system TEXT", "what the model is told before the conversation; without text, nothing"],
  ["/retry", "ask the last message again; with --temperature the answer is another one"],
  ["/save FILE", "write the conversation to a new file, as JSON"],
  ["/new", "begin a new conversation"],
  ["/help", "this list"],
  ["/quit", "end; so does Ctrl-D. Ctrl-C stops an answer"],
] as const;

export function chatHelp(): string {
  return CHAT_COMMANDS.map(([command, words]) => `  ${command.padEnd(14)} ${words}`).join("\n");
}
