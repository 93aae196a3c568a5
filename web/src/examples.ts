/** Prompts to begin with, of the kind that a model can answer. */
import type { SavedTask, ServedModel } from "./api.ts";

/** By the data that a small model was trained on. */
const trained: Record<string, readonly string[]> = {
  questions: ["What is the plural of wolf?", "How do you write 4711 in words?", "What is house in German?"],
  sql: ["What was the date for game 9?"],
  word_problem: ["Emma lays out crayons in 8 rows of 5. How many crayons does she lay out?"],
};
const general = [
  "Explain in two sentences why the sky is blue.",
  "Write one sentence about the sea.",
  "List five fruits.",
  "What is the capital of Japan?",
];
const most = 4;

/** None for a model of which nothing is known. A chat model knows more than the data of its last training. */
export function examplesFor({ trainedOn, hasChatTemplate }: ServedModel, tasks: readonly SavedTask[]): string[] {
  if (hasChatTemplate) return general;
  const known = trainedOn.flatMap((name) => trained[name] ?? []);
  if (known.length > 0) return known.slice(0, most);
  return tasks.map(({ instruction }) => instruction).slice(0, most);
}
