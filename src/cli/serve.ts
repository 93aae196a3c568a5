import { setFlagsFromString } from "node:v8";
import type { Budget } from "../bundle/budget.ts";
import type { WantedForm } from "../bundle/formOptions.ts";
import type { KvType } from "../bundle/memory.ts";
import { isTiny } from "../bundle/pulledModels.ts";
import { OptionError } from "../errors.ts";
import { readText } from "../json.ts";
import { checkPeer } from "../package.ts";
import { createApp } from "../serve/http/app.ts";
import { openPage } from "../serve/http/page.ts";
import { readMaskRequest } from "../serve/http/schemas.ts";
import { isLoopback } from "../serve/http/security.ts";
import { listen } from "../serve/http/server.ts";
import { openLocalService } from "../serve/localService.ts";
import type { InferenceService, MaskRequest } from "../serve/service.ts";
import { SpecializeJobs } from "../specialize/jobs.ts";
import { TINY_NOTE } from "./commands/flags.ts";
import { openLog } from "./lineLog.ts";
import { denseNote, isWhole, keptLine, type MaskFlags, servedModels } from "./options.ts";
import { Waiting } from "./progress.ts";

interface Options extends Pick<MaskFlags, "source" | "text" | keyof Budget> {
  host: string;
  port: number;
  apiKey?: string;
  memory?: number;
  slots: number;
  queue: number;
  threads?: number;
  context?: number;
  reuseOverlap?: number;
  kvType: KvType;
  form: WantedForm;
  mask: string;
  allowHost: string[];
  cors?: string;
  allowModels: boolean;
  allowSpecialize: boolean;
  logPrompts: boolean;
  quiet: boolean;
}

/** `ifprune serve` */
export async function serveAction(folders: string[], options: Options): Promise<void> {
  const { host, port, apiKey, allowHost: hosts, cors, allowModels, logPrompts, quiet } = options;
  if (apiKey === "") throw new OptionError("serve: wanted an API key, got empty text. Leave it out, or choose one.");
  if (!isLoopback(host) && apiKey === undefined) {
    throw new OptionError(
      `serve: wanted --api-key beside --host ${host}, which others can reach. Set one, or IFPRUNE_API_KEY.`,
    );
  }
  // Answers leave garbage all the time. Unless told so, V8 collects it once it is three times what is in use, and resident memory swings by 100 MB.
  setFlagsFromString("--heap-growing-percent=50");
  const stderr = openLog();
  using waiting = new Waiting("loading", { isQuiet: quiet, since: 0 });
  const mask = readMaskRequest("--mask", options.mask);
  const models = servedModels(folders);
  if (options.allowSpecialize) checkPeer("onnxruntime-node", "serve: --allow-specialize"); // here, not in a job
  await using service = await openLocalService(models, {
    memoryBytes: options.memory,
    keep: options.keep,
    maxLoss: options.maxLoss,
    tFfn: options.tFfn,
    source: options.source,
    text: options.text === undefined ? undefined : readText(options.text),
    slots: options.slots,
    maxQueued: options.queue,
    threads: options.threads,
    contextLength: options.context,
    reuseOverlap: options.reuseOverlap,
    kvType: options.kvType,
    form: options.form,
    onFault: (id, error) =>
      stderr.write(`${id}: ${error.message} It answers no more. Bring the model anew and start again.`),
  });
  for (const { id } of models) checkMask(service, id, mask);
  const log = quiet ? undefined : (entry: object) => stderr.write(JSON.stringify(entry));
  const page = await openPage(
    () => waiting.say("building the page (once)"),
    ({ message }) => stderr.write(`The page could not be built anew: ${message}`),
  );
  waiting.end();
  await using jobs = options.allowSpecialize ? new SpecializeJobs({ threads: options.threads }) : undefined;
  const app = createApp(service, { host, apiKey, hosts, cors, allowModels, jobs, log, logPrompts, mask, page });
  await using server = await listen(app.fetch, { host, port });
  for (const { id, path } of models) if (isTiny(path)) stderr.write(`${id}: ${TINY_NOTE.trimEnd()}`);
  for (const served of service.models()) {
    if (isWhole(served)) stderr.write(`${served.id}: ${denseNote(served).trimEnd()}`);
    else if (options.keep !== undefined) stderr.write(`${served.id}: ${keptLine(served, options)}`);
  }
  for (const { id, formFlaw } of service.models())
    if (formFlaw !== undefined) stderr.write(`${id}: masks are gathered, none is resident: ${formFlaw}.`);
  process.stdout.removeAllListeners("error").on("error", () => {}); // a server outlives who reads its output
  process.stdout.write(welcome(server.url, models[0]!, apiKey !== undefined));
  await interrupted();
  if (!quiet) stderr.write("Ending what runs. Once more: at once.");
  await Promise.all([server.close(), service.drain(), jobs?.[Symbol.asyncDispose]()]);
}

/** A mask that a model does not have would refuse every request. @throws {OptionError} @throws {InputError} */
function checkMask(service: InferenceService, model: string, mask: MaskRequest): void {
  if (mask.kind === "id") service.maskById(model, mask.id);
  if (mask.kind === "task" && !service.tasks(model).some(({ name }) => name === mask.name))
    throw new OptionError(`serve: wanted a task of "${model}" for --mask, got "${mask.name}". Save it first.`);
}

function welcome(url: string, { id: model, path }: { id: string; path: string }, needsKey: boolean): string {
  const key = needsKey ? " -H 'authorization: Bearer KEY'" : "";
  const content = isTiny(path) ? "What is the plural of wolf?" : "Say hello.";
  const body = JSON.stringify({ model, messages: [{ role: "user", content }], temperature: 0 });
  return `Chat:  ${url}/
API:   ${url}/v1
Try:   curl ${url}/v1/chat/completions${key} -H 'content-type: application/json' -d '${body}'
`;
}

/** Resolves at the first Ctrl-C or SIGTERM; the second ends the process at once. */
function interrupted(): Promise<void> {
  let isSecond = false;
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.on(signal, () => {
        if (isSecond) process.exit(130);
        isSecond = true;
        resolve();
      });
    }
  });
}
