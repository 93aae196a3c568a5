import { Command, InvalidArgumentError, Option } from "commander";
import { DEFAULT_KV_TYPE, KV_TYPES } from "../../bundle/memory.ts";
import { SERVICE_OPTIONS } from "../../serve/serviceOptions.ts";
import { appended, budgetFlags, formFlag, late, sourceFlags } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

const PORT = { words: "port to listen on; 0: any free one", isInteger: true, min: 0, max: 65_535, fallback: 8080 };

/** `4GB`, `512MB`, `1.5 GiB`, or plain bytes. */
function bytes(text: string): number {
  const [, number, prefix = "", binary] = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?$/i.exec(text.trim()) ?? [];
  const value = Math.floor(Number(number) * (binary ? 1024 : 1000) ** " KMGT".indexOf(prefix.toUpperCase() || " "));
  if (!(value >= 1)) throw new InvalidArgumentError("Wanted bytes, as 4GB or 512MB.");
  return value;
}

/** As browsers write it; those of apps and extensions are none to `URL`, whose schemes have none. */
function origin(text: string): string {
  const { protocol = "", origin = "" } = URL.canParse(text) ? new URL(text) : {};
  const isSerialised = /^https?:$/.test(protocol) ? origin === text : /^[a-z][a-z0-9+.-]*:\/\/[^/?#@\s]+$/.test(text);
  if (!isSerialised) throw new InvalidArgumentError("Wanted an origin, as https://chat.example, without a path.");
  return text;
}

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
    .addOption(formFlag())
    .addOption(numberFlag("--threads <n>", SERVICE_OPTIONS.threads))
    .addOption(numberFlag("--context <n>", SERVICE_OPTIONS.contextLength))
    .addOption(numberFlag("--reuse-overlap <share>", SERVICE_OPTIONS.reuseOverlap))
    .addOption(
      new Option("--kv-type <type>", "type of the cached keys and values; with F32, probabilities are the model's own")
        .choices(KV_TYPES)
        .default(DEFAULT_KV_TYPE),
    )
    .option("--mask <mask>", "mask of requests that name none: auto, dense, task:NAME or id:ID", "auto")
    .option(
      "--allow-host <name>",
      "another name by which clients reach this server, may be given more than once; with --api-key any will do",
      appended,
      [],
    )
    .option("--cors <origin>", "let pages of this origin ask, as https://chat.example or app://obsidian.md", origin)
    .option(
      "--allow-models",
      "let whoever may ask have models added, from this machine's folders or downloaded from the Hub",
      false,
    )
    .option(
      "--allow-specialize",
      "let whoever may ask have smaller models made for their tasks: hours of this machine's processor, and its disk",
      false,
    )
    .option("--log-prompts", "write prompts to the log", false)
    .option("--quiet", "write no log of requests", false)
    .action(late(async () => (await import("../serve.ts")).serveAction));
  for (const flag of [...sourceFlags(), ...budgetFlags()]) command.addOption(flag);
  return command;
}
