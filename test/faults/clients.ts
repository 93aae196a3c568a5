/** Clients of `ifprune serve` for a long time, all at once: nothing is lost, nothing wrong, and the server's memory stays as it is. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { TINY_MODEL } from "../../src/bundle/pulledModels.ts";
import { Random } from "../../src/random.ts";
import { questions } from "./kinds.ts";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));

/** Resident memory grows until all caches are full; later thirds of the time may differ by so much. */
const mostGrowth = 1.05;

/** Each client asks one question after the other, whole or streamed in turns. What is lost is counted, and a growing memory as one more. */
export async function askForLong({ clients, minutes, seed }: { clients: number; minutes: number; seed: string }) {
  const folder = mkdtempSync(join(tmpdir(), "ifprune-clients-"));
  const server = serve(folder, clients);
  try {
    const url = await urlOf(server);
    const wanted = new Map<string, string>();
    for (const question of questions) wanted.set(question, await ask(url, question, false));
    const end = Date.now() + 60_000 * minutes;
    const count = { tried: 0, held: 0, lost: 0 };
    const losses = new Map<string, number>();
    const lose = (why: string) => {
      count.lost++;
      losses.set(why, (losses.get(why) ?? 0) + 1);
    };
    const askOn = async (client: number) => {
      const random = new Random(`${seed} client ${client}`);
      while (Date.now() < end) {
        const question = questions[random.int(questions.length)]!;
        count.tried++;
        const answer = await ask(url, question, random.int(2) === 0).catch((error: Error) => error);
        if (answer === wanted.get(question)) count.held++;
        else lose(answer instanceof Error ? answer.message : `a wrong answer to "${question}"`);
      }
    };
    const all = Promise.all(Array.from({ length: clients }, (_, client) => askOn(client)));
    const sizes: number[] = [];
    for (let second = 0; Date.now() < end; second++) {
      sizes.push(residentMegabytes(server));
      if (second % 60 === 0) console.log(`${second / 60} min: ${sizes.at(-1)} MB, ${count.tried} asked`);
      await wait(1000);
    }
    await all;
    console.log(`end: ${residentMegabytes(server)} MB, ${count.tried} asked`);
    const third = Math.floor(sizes.length / 3);
    const [before, after] = [mean(sizes.slice(third, 2 * third)), mean(sizes.slice(2 * third))];
    if (!(after <= mostGrowth * before)) lose(`memory grew from ${before.toFixed()} to ${after.toFixed()} MB`);
    server.kill("SIGTERM");
    const code = await new Promise((resolve) => server.once("exit", resolve));
    if (code !== 0) lose(`the server ended with ${code}`);
    for (const [why, times] of losses) console.log(`${times} times: ${why}`);
    return count;
  } finally {
    server.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Sub-networks come and go within its memory. */
function serve(folder: string, clients: number): ChildProcess {
  const flags = ["--port", "0", "--quiet", "--memory", "32MB", "--queue", String(clients)];
  return spawn(process.execPath, ["--import", "tsx", main, "serve", TINY_MODEL, ...flags], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, XDG_CACHE_HOME: join(folder, "cache"), XDG_DATA_HOME: join(folder, "data") },
  });
}

async function urlOf(server: ChildProcess): Promise<string> {
  for await (const line of createInterface(server.stdout!)) {
    const [, url] = /^API: +(\S+)$/.exec(line) ?? [];
    if (url !== undefined) return url;
  }
  throw new Error("the server did not start");
}

async function ask(url: string, question: string, stream: boolean): Promise<string> {
  const messages = [{ role: "user", content: question }];
  const response = await fetch(`${url}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "tiny", messages, temperature: 0, max_tokens: 12, stream }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`status ${response.status}: ${text}`);
  if (!stream) return JSON.parse(text).choices[0].message.content;
  const events = [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => data!);
  if (events.pop() !== "[DONE]") throw new Error("a stream without an end");
  return events.map((data) => JSON.parse(data).choices[0]?.delta.content ?? "").join("");
}

const residentMegabytes = ({ pid }: ChildProcess): number =>
  Math.round(Number(execFileSync("ps", ["-o", "rss=", "-p", String(pid)], { encoding: "utf8" })) / 1024);

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
