/** `ifprune serve` while someone writes over the files that it serves from. */
import { spawn } from "node:child_process";
import { readdirSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import OpenAI from "openai";
import { expect, test } from "vitest";
import { importModel } from "../../src/bundle/importModel.ts";
import { stories, temporaryFolder } from "../support/models.ts";

const entry = fileURLToPath(new URL("../../bin/ifprune.js", import.meta.url));

/** Empties all files of a model in a folder and below, also through links, where they are: as `cp` does before it writes anew. */
function empty(folder: string): void {
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }))
    if (/\.(gguf|safetensors)$/.test(name)) truncateSync(join(folder, name));
}

test("a server whose model and cache are truncated under it goes on with what it has loaded, and refuses the rest", async () => {
  const [folder, cache] = [join(temporaryFolder(), "model"), temporaryFolder()];
  const tokenizer = join(stories, "tok512.bin");
  await importModel(join(stories, "stories260K.bin"), folder, { tokenizer, type: "F32" });
  const env = { ...process.env, XDG_CACHE_HOME: cache, XDG_DATA_HOME: temporaryFolder() };
  const child = spawn(process.execPath, [entry, "serve", folder, "--port", "0", "--threads", "1"], {
    env,
    stdio: "pipe",
  });
  let out = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    out += text;
  });
  child.stderr.resume();
  const ended = new Promise((resolve) => child.on("exit", (code, signal) => resolve(signal ?? code)));
  try {
    await expect.poll(() => out, { timeout: 180_000 }).toMatch("Try:");
    const openai = new OpenAI({ baseURL: /http:\S+\/v1/.exec(out)![0], apiKey: "none", maxRetries: 0 });
    const ask = (own: object = {}) => {
      const asked = { model: "model", messages: [{ role: "user" as const, content: "Once upon a time" }] };
      return openai.chat.completions.create({ ...asked, temperature: 0, max_tokens: 100, stream: true, ...own });
    };
    const textOf = async (meanwhile = () => {}) => {
      let text = "";
      for await (const { choices } of await ask()) {
        if (text === "") meanwhile();
        text += choices[0]?.delta.content ?? "";
      }
      return text;
    };
    const before = await textOf();
    expect(before.length).toBeGreaterThan(100);
    const during = await textOf(() => [folder, cache].forEach(empty));
    expect([during, await textOf()]).toEqual([before, before]);
    await expect(ask({ keep: 0.5 })).rejects.toMatchObject({ status: 503, code: "model_unavailable" });
    expect(await textOf()).toBe(before);
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
  } finally {
    child.kill("SIGKILL");
  }
}, 300_000);
