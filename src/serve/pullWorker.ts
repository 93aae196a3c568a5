/** The thread that pulls a model: an import computes for seconds at a time, and what is in its files is anybody's. */
import { workerData } from "node:worker_threads";
import { pullModel } from "../bundle/pullModel.ts";
import { workApart } from "./apart.ts";

await workApart((signal, onProgress) => pullModel(workerData, { signal, onProgress }));
