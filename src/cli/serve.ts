import { basename, resolve } from "node:path";
import { setFlagsFromString } from "node:v8";
import { Command, InvalidArgumentError, Option } from "commander";
import type { Budget } from "../bundle/estimate.ts";
import { DEFAULT_KV_TYPE, KV_TYPES, type KvType } from "../bundle/memory.ts";
import { OptionError } from "../errors.ts";
import { isLoopback } from "../serve/http/security.ts";
import type { InferenceService, MaskRequest } from "../serve/service.ts";
import { SERVICE_OPTIONS } from "../serve/serviceOptions.ts";
import { numberFlag } from "./numberFlag.ts";
import { budgetFlags, DEFAULT_MODEL, denseNote } from "./options.ts";

interface Options extends Budget {
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
  mask: string;
  cors?: string;
  allowModels: boolean;
  logPrompts: boolean;
  quiet: boolean;
}

const PORT = { words: "port to listen on; 0: any free one", isInteger: true, min: 0, max: 65_535, fallback: 8080 };

export function serveCommand(): Command {
  const command = new Command("serve")
    .description("Serve models over HTTP as OpenAI's API does, and a page to chat with them.")
    .argument(
      "[models...]",
      "bundle folders, or ids of models that were pulled; each is known by the last part of its name (default: the model in this package)",
    )
    .option("--host <address>", "address to listen on; beyond this machine only with --api-key", "127.0.0.1")
    .addOption(numberFlag("--port <n>", PORT))
    .addOption(new Option("--api-key <key>", "key that every request must have").env("IFPRUNE_API_KEY"))
    .addOption(numberFlag("--memory <bytes>", SERVICE_OPTIONS.memoryBytes, bytes))
    .addOption(numberFlag("--slots <n>", SERVICE_OPTIONS.slots))
    .addOption(numberFlag("--queue <n>", SERVICE_OPTIONS.maxQueued))
    .addOption(numberFlag("--threads <n>", SERVICE_OPTIONS.threads))
    .addOption(numberFlag("--context <n>", SERVICE_OPTIONS.contextLength))
    .addOption(numberFlag("--reuse-overlap <share>", SERVICE_OPTIONS.reuseOverlap))
    .addOption(
      new Option("--kv-type <type>", "type of the cached keys and values; with F32, probabilities are the model's own")
        .choices(KV_TYPES)
        .default(DEFAULT_KV_TYPE),
    )
    .option("--mask <mask>", "mask of requests that name none: auto, dense, task:NAME or id:ID", "auto")
    .option("--cors <origin>", "let pages of this origin ask, as https://chat.example", origin)
    .option(
      "--allow-models",
      "let whoever may ask have models added, from this machine's folders or downloaded from the Hub",
      false,
    )
    .option("--log-prompts", "write prompts to the log", false)
    .option("--quiet", "write no log of requests", false)
    .action(serve);
  for (const flag of budgetFlags()) command.addOption(flag);
  return command;
}

async function serve(folders: string[], options: Options): Promise<void> {
  const { host, port, apiKey, cors, allowModels, logPrompts, quiet } = options;
  if (apiKey === "") throw new OptionError("serve: wanted an API key, got empty text. Leave it out, or choose one.");
  if (!isLoopback(host) && apiKey === undefined) {
    throw new OptionError(
      `serve: wanted --api-key beside --host ${host}, which others can reach. Set one, or IFPRUNE_API_KEY.`,
    );
  }
  // Answers leave garbage all the time. Unless told so, V8 collects it once it is three times what is in use, and resident memory swings by 100 MB.
  setFlagsFromString("--heap-growing-percent=50");
  // Only here, as the other commands would wait for it too.
  const [{ openLocalService }, { createApp }, { readMaskRequest }, { openPage }, { listen }] = await Promise.all([
    import("../serve/localService.ts"),
    import("../serve/http/app.ts"),
    import("../serve/http/schemas.ts"),
    import("../serve/http/page.ts"),
    import("../serve/http/server.ts"),
  ]);
  const mask = readMaskRequest("--mask", options.mask);
  const paths = folders.length > 0 ? folders : [DEFAULT_MODEL];
  const models = paths.map((path) => ({ id: basename(resolve(path)), path }));
  await using service = await openLocalService(models, {
    memoryBytes: options.memory,
    keep: options.keep,
    maxLoss: options.maxLoss,
    tFfn: options.tFfn,
    slots: options.slots,
    maxQueued: options.queue,
    threads: options.threads,
    contextLength: options.context,
    reuseOverlap: options.reuseOverlap,
    kvType: options.kvType,
  });
  for (const { id } of models) checkMask(service, id, mask);
  const log = quiet ? undefined : (entry: object) => void process.stderr.write(`${JSON.stringify(entry)}\n`);
  const app = createApp(service, { host, apiKey, cors, allowModels, log, logPrompts, mask, page: await openPage() });
  await using server = await listen(app.fetch, { host, port });
  for (const served of service.models())
    if (!served.isTrained && served.tFfn === served.dFfn) process.stderr.write(`${served.id}: ${denseNote(served)}`);
  process.stdout.write(welcome(server.url, models[0]!.id, apiKey !== undefined));
  await interrupted();
  if (!quiet) process.stderr.write("Ending what runs. Once more: at once.\n");
  await Promise.all([server.close(), service.drain()]);
}

/** A mask that a model does not have would refuse every request. @throws {OptionError} @throws {InputError} */
function checkMask(service: InferenceService, model: string, mask: MaskRequest): void {
  if (mask.kind === "id") service.maskById(model, mask.id);
  if (mask.kind === "task" && !service.tasks(model).some(({ name }) => name === mask.name))
    throw new OptionError(`serve: wanted a task of "${model}" for --mask, got "${mask.name}". Save it first.`);
}

function welcome(url: string, model: string, needsKey: boolean): string {
  const key = needsKey ? " -H 'authorization: Bearer KEY'" : "";
  const content = model === basename(DEFAULT_MODEL) ? "What is the plural of wolf?" : "Say hello.";
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

/** `4GB`, `512MB`, `1.5 GiB`, or plain bytes. */
function bytes(text: string): number {
  const [, number, prefix = "", binary] = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?$/i.exec(text.trim()) ?? [];
  const value = Math.floor(Number(number) * (binary ? 1024 : 1000) ** " KMGT".indexOf(prefix.toUpperCase() || " "));
  if (!(value >= 1)) throw new InvalidArgumentError("Wanted bytes, as 4GB or 512MB.");
  return value;
}

function origin(text: string): string {
  if (!URL.canParse(text) || new URL(text).origin !== text)
    throw new InvalidArgumentError("Wanted an origin, as https://chat.example, without a path.");
  return text;
}
