/** The thread that reads long prompts, see `promptReader.ts`. */
import { parentPort, workerData } from "node:worker_threads";
import { readByPredictor } from "../answer/maskSource.ts";
import { readPrompt } from "../answer/prompts.ts";
import { IfpruneError } from "../errors.ts";
import { openFormat } from "../text/prompt.ts";
import { type ReaderAnswer, type ReaderData, type ReaderTask, readPredictorText } from "./promptReader.ts";
import { toPlain } from "./threadErrors.ts";

const data = workerData as ReaderData;
const model = { ...data, format: openFormat(data.formatSource) };
const say = (answer: ReaderAnswer) => parentPort!.postMessage(answer);

function readTask(task: ReaderTask): Extract<ReaderAnswer, { read: unknown }>["read"] {
  if ("text" in task) {
    const { text, contextLength } = task;
    const ids = readPredictorText(model, text, contextLength);
    return { ids, instruction: { text, ids } };
  }
  const { decoder: _, instruction, ...read } = readPrompt(model, task.prompt, task.contextLength);
  const predictorIds = model.hasPredictor ? readByPredictor(model, instruction.text) : undefined;
  return { ...read, instruction: { ...instruction, predictorIds } };
}

parentPort!.on("message", (task: ReaderTask) => {
  try {
    say({ read: readTask(task) });
  } catch (error) {
    if (!(error instanceof IfpruneError)) throw error;
    say({ error: toPlain(error) });
  }
});
say("ready");
