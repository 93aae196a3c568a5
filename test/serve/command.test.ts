/** `ifprune serve` as a user starts it. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import OpenAI from "openai";
import { expect, test } from "vitest";
import { TINY_MODEL } from "../../src/bundle/pulledModels.ts";
import { listen } from "../../src/serve/http/server.ts";
import { inProcess } from "../support/cli.ts";
import { temporaryFolder } from "../support/models.ts";

const entry = fileURLToPath(new URL("../../bin/ifprune.js", import.meta.url));

test("serves, ends what runs at the first signal, and then itself", async () => {
  const env = { ...process.env, XDG_CACHE_HOME: temporaryFolder(), XDG_DATA_HOME: temporaryFolder() };
  const child = spawn(process.execPath, [entry, "serve", TINY_MODEL, "--port", "0", "--slots", "2"], {
    env,
    stdio: "pipe",
  });
  let [out, log] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text) => {
    out += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text) => {
    log += text;
  });
  const ended = new Promise((resolve) => child.on("close", resolve));
  try {
    await expect.poll(() => out, { timeout: 180_000 }).toMatch("Try:");
    const openai = new OpenAI({ baseURL: /http:\S+\/v1/.exec(out)![0], apiKey: "none", maxRetries: 0 });
    const { data } = await openai.models.list();
    const messages = [{ role: "user" as const, content: "Tell me a story about a dog that I will not tell." }];
    const stream = await openai.chat.completions.create({ model: data[0]!.id, messages, stream: true, max_tokens: 40 });
    let text = "";
    let last: unknown;
    for await (const chunk of stream) {
      if (last === undefined) child.kill("SIGTERM");
      text += chunk.choices[0]?.delta.content ?? "";
      last = chunk;
    }
    expect(text.length).toBeGreaterThan(0);
    expect(last).toMatchObject({ ifprune: { mask: { source: "predictor", from: "cold" } } });
    expect(await ended).toBe(0);
    expect(out).toMatch("What is the plural of wolf?");
    expect(log).toMatch("tiny: this small model answers 22 kinds of short questions");
    expect(log).toMatch('"route":"/v1/chat/completions","status":200');
    expect(log).not.toMatch("story");
  } finally {
    child.kill("SIGKILL");
  }
}, 300_000);

test("answers on when nobody reads its output any more, and still ends at a signal", async () => {
  const env = { ...process.env, XDG_CACHE_HOME: temporaryFolder(), XDG_DATA_HOME: temporaryFolder() };
  const child = spawn(process.execPath, [entry, "serve", TINY_MODEL, "--port", "0"], { env, stdio: "pipe" });
  const ended = new Promise((resolve) => child.on("close", resolve));
  try {
    const url = /http:\S+\/v1/.exec(String((await once(child.stdout, "data"))[0]))![0];
    child.stdout.destroy();
    child.stderr.destroy();
    for (let i = 0; i < 3; i++) expect((await fetch(`${url}/models/none`)).status).toBe(404); // each writes to its log
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
  } finally {
    child.kill("SIGKILL");
  }
}, 300_000);

test("refuses to be reached from elsewhere without a key, and options out of range, before anything is loaded", async () => {
  for (const [args, message] of [
    [["--host", "0.0.0.0"], "wanted --api-key"],
    [["--host", "192.168.1.2"], "wanted --api-key"],
    [["--host", "::"], "wanted --api-key"],
    [["--api-key", ""], "got empty text"],
    [["--port", "70000"], "0..65535"],
    [["--memory", "much"], "Wanted bytes"],
    [["--memory", "0GB"], "Wanted bytes"],
    [["--reuse-overlap", "2"], "Wanted a number above 0"],
    [["--cors", "https://chat.example/path"], "Wanted an origin"],
    [["--cors", "*"], "Wanted an origin"],
    [["--mask", "task:"], 'wanted "auto"'],
    [["/nowhere"], "/nowhere"],
  ] as const) {
    const { code, stdout, stderr } = await inProcess("serve", ...args);
    expect([args, code, stdout]).toEqual([args, 1, ""]);
    expect(stderr).toMatch(message);
  }
});

test("a port in use is said, and what to do", async () => {
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as AddressInfo;
  try {
    const listening = listen(() => new Response(), { host: "127.0.0.1", port });
    await expect(listening).rejects.toThrow(
      `wanted port ${port} of 127.0.0.1, got one that is in use. Take another: --port `,
    );
  } finally {
    taken.close();
  }
});

test("refuses a mask that the model does not have before it listens", async () => {
  const { code, stdout, stderr } = await inProcess("serve", TINY_MODEL, "--mask", "task:nobody-saved-it");
  expect([code, stdout]).toEqual([1, ""]);
  expect(stderr).toMatch('wanted a task of "tiny" for --mask');
});
