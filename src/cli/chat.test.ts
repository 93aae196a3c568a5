import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";
import { expect, test } from "vitest";
import { FakeService } from "../../test/support/fakeService.ts";
import { temporaryFolder } from "../../test/support/models.ts";
import { InputError } from "../errors.ts";
import { converse } from "./chat.ts";

const model = { id: "tiny", tFfn: 6, dFfn: 20 };
/** Not a terminal. */
const status = { write: () => {} };

/** What is written when these lines are typed, one after the other. */
async function typed(service: FakeService, ...lines: string[]): Promise<string> {
  const [input, output] = [new PassThrough(), new PassThrough()];
  let written = "";
  output.on("data", (chunk) => {
    written += chunk;
  });
  input.end(lines.map((line) => `${line}\n`).join(""));
  const options = {
    maxTokens: 20,
    temperature: 0.5,
    repeatPenalty: 1.1,
    seed: 3,
    system: "Be brief.",
    budget: { keep: 0.25 },
  };
  await converse(service, model, options, { input, output, status });
  return written;
}

test("messages of a conversation go on, each answer among them; /new begins another", async () => {
  const service = new FakeService();
  const written = await typed(service, "first", "", "second", "/new", "third");
  expect(written).toContain("one two three");
  expect(written).toMatch(/^tiny · 30 % of the FFN .+ · \/help /);
  expect(written).toContain(
    "30 % of the FFN (6 of 20 channels, the whole blocks nearest to 25 %), predictor (trained)",
  );
  const asked = service.requests.map(({ prompt }) => prompt.kind === "chat" && prompt.messages.map((m) => m.content));
  const answer = "one two three";
  expect(asked).toEqual([
    ["Be brief.", "first"],
    ["Be brief.", "first", answer, "second"],
    ["Be brief.", "third"],
  ]);
  expect(service.requests[0]).toMatchObject({
    maxTokens: 20,
    sampling: { temperature: 0.5, repeatPenalty: 1.1, seed: 3 },
    mask: { kind: "auto" },
  });
});

test("the part that answers can be chosen, saved and asked for", async () => {
  const service = new FakeService();
  const written = await typed(
    service,
    "/mask",
    "/remember early",
    "plural of wolf",
    "/mask",
    "/remember plurals",
    "/task plurals",
    "go on",
    "/dense",
    "go on",
    "/keep half",
    "/keep 75%",
    "go on",
    "/auto",
    "go on",
    "/task nothing",
    "/tasks",
  );
  expect(written).toContain("the part that your first message will ask for");
  expect(written).toContain("nothing to save yet");
  expect(written).toContain("6 of 20 channels in each layer");
  expect(written).toContain("plurals: plural of wolf");
  expect(written).toContain('no task "nothing"');
  expect(service.requests.map(({ mask }) => mask)).toEqual([
    { kind: "auto" },
    { kind: "task", name: "plurals" },
    { kind: "dense" },
    { kind: "auto", keep: 0.75 },
    { kind: "auto" },
  ]);
  expect(written).toContain('"share" must be a number above 0, at most 1, got NaN');
});

test("its mask is of what the model is told, too; what answers as a whole or as a task is not saved again", async () => {
  const service = new FakeService();
  const commands = [
    "/keep 75%",
    "wolf",
    "/mask",
    "/remember a",
    "/system",
    "/mask",
    "/dense",
    "/remember b",
    "/task a",
    "/remember c",
  ];
  const written = await typed(service, ...commands);
  expect(service.masked).toEqual([
    { instruction: "wolf", kind: "auto", keep: 0.75, system: "Be brief." },
    { instruction: "wolf", kind: "auto", keep: 0.75, system: "Be brief." },
    { instruction: "wolf", kind: "auto", keep: 0.75, system: undefined },
  ]);
  expect(service.tasks().map(({ name }) => name)).toEqual(["a"]);
  expect(written).toContain("the whole model answers now");
  expect(written).toContain("nothing to save: a, which answers now, is saved");
});

test("an answer that is asked for again stays until there is another", async () => {
  const service = new FakeService();
  const path = join(temporaryFolder(), "talk.json");
  let asked = 0;
  service.answer = () => {
    asked++;
    if (asked === 2) throw new InputError("no room");
    return `answer ${asked}`;
  };
  const written = await typed(service, "first", "/retry", `/save ${path}`, "second", "/retry");
  expect(written).toContain("no room");
  const said = (messages: readonly { content: string }[]) => messages.map(({ content }) => content);
  expect(said(JSON.parse(readFileSync(path, "utf8")).messages)).toEqual(["Be brief.", "first", "answer 1"]);
  const { prompt } = service.requests.at(-1)!;
  expect(prompt.kind === "chat" && said(prompt.messages)).toEqual(["Be brief.", "first", "answer 1", "second"]);
});

test("an error is said and the conversation goes on without the message; a fault of ours is not hidden", async () => {
  const service = new FakeService();
  service.failure = { error: new InputError("prompt: wanted fewer tokens."), afterWords: 1 };
  const written = await typed(service, "long", "/nonsense", "/help", "/quit", "never read");
  expect(written).toContain("prompt: wanted fewer tokens.");
  expect(written).toContain('no command "/nonsense". There are: /keep SHARE, /auto, ');
  expect(written).toContain("the whole model");
  expect(service.requests).toHaveLength(1);
  service.failure = { error: new Error("internal: broken"), afterWords: 0 };
  await expect(typed(service, "again")).rejects.toThrow("internal: broken");
});

test("what the model is told can be changed, and the last message asked again, answered or not", async () => {
  const service = new FakeService(({ sampling }) => `drawn of ${sampling.seed}`);
  const written = await typed(service, "/retry", "hello", "/system Rhyme.", "/retry", "/retry", "/system", "go on");
  expect(written).toContain("nothing to ask again yet");
  const asked = service.requests.map(({ prompt, sampling }) => [
    sampling.seed,
    prompt.kind === "chat" && prompt.messages.map(({ content }) => content),
  ]);
  expect(asked).toEqual([
    [3, ["Be brief.", "hello"]],
    [4, ["Rhyme.", "hello"]],
    [5, ["Rhyme.", "hello"]],
    [3, ["hello", "drawn of 5", "go on"]],
  ]);
  service.failure = { error: new InputError("too long"), afterWords: 0 };
  await typed(service, "unanswered", "/retry");
  expect(service.requests.slice(-2).map(({ prompt }) => prompt)).toEqual([
    service.requests.at(-1)!.prompt,
    service.requests.at(-1)!.prompt,
  ]);
});

test("a conversation is saved in a new file, and only there", async () => {
  const path = join(temporaryFolder(), "talk.json");
  const service = new FakeService();
  const written = await typed(service, `/save ${path}`, "first", "/save", `/save ${path}`, `/save ${path}`);
  expect(written).toContain("wanted a file, got none");
  expect(written).toContain(`${path}: wanted a new file, got one that exists. Choose another name.`);
  expect(existsSync(path)).toBe(true);
  expect(JSON.parse(readFileSync(path, "utf8"))).toEqual({
    model: "tiny",
    messages: [
      { role: "system", content: "Be brief." },
      { role: "user", content: "first" },
      { role: "assistant", content: "one two three" },
    ],
  });
});

test("an answer of nothing is said to be one", async () => {
  expect(await typed(new FakeService(() => ""), "hello")).toContain("The model answered nothing.");
});

test("Ctrl-C stops the answer and not the program", async () => {
  const service = new FakeService(() => "word ".repeat(1000));
  service.delay = 5;
  const input = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => {} });
  const output = new PassThrough();
  let written = "";
  output.on("data", (chunk) => {
    written += chunk;
  });
  const done = converse(
    service,
    model,
    { maxTokens: 1000, temperature: 0, repeatPenalty: 1, seed: 0 },
    { input, output, status },
  );
  input.write("talk\r");
  while (!written.includes("word word")) await wait(5);
  input.write("\x03");
  while (!written.includes("stopped")) await wait(5);
  expect(service.running).toBe(0);
  service.answer = () => "still here";
  input.write("more\r");
  while (!written.includes("still here")) await wait(5);
  input.write("\x03");
  await done;
});
