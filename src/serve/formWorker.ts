/** The thread that writes a form of a mask while requests are answered in another, behind them in the system's order where it knows one of threads. */
import { constants, setPriority } from "node:os";
import { workerData } from "node:worker_threads";
import { Bundle } from "../bundle/bundle.ts";
import { type CacheOptions, withoutOwnFolder } from "../bundle/cacheEntries.ts";
import type { Form } from "../bundle/formOptions.ts";
import { openMaskModel } from "../bundle/maskModel.ts";
import type { Mask } from "../mask/mask.ts";
import { workApart } from "./apart.ts";

/** What it is given. */
export interface WrittenForm {
  /** Of the bundle. */
  path: string;
  mask: Mask;
  form: Form;
  cache: Omit<CacheOptions, "signal"> | undefined;
}

const { path, mask, form, cache }: WrittenForm = workerData;
if (process.platform === "linux") setPriority(constants.priority.PRIORITY_BELOW_NORMAL); // of this thread; elsewhere it would be of the process
withoutOwnFolder();
await workApart(async (signal) => {
  using bundle = new Bundle(path);
  await openMaskModel(bundle, mask, form, { ...cache, signal });
});
