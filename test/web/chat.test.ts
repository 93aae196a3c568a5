/** The chat in a browser: settings, branches, what is kept, what goes wrong. */
import type { BrowserContext, Download, Locator, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { BusyError, ContextLengthError } from "../../src/errors.ts";
import type { RunningServer } from "../../src/serve/http/server.ts";
import { type BuiltPage, openBrowser, servePage } from "./browser.ts";
import { isChromiumMissing } from "./chromium.ts";
import { FakeService } from "./fakeService.ts";

describe.skipIf(isChromiumMissing)("the chat", () => {
  let built: BuiltPage;
  let context: BrowserContext;
  let service: FakeService;
  let server: RunningServer;
  let page: Page;
  /** What the console and uncaught errors said. */
  let complaints: string[];

  beforeAll(async () => {
    built = await openBrowser();
  }, 120_000);
  afterAll(() => built?.[Symbol.asyncDispose]());

  beforeEach(async () => {
    service = new FakeService();
    server = await servePage(service, built.files);
    context = await built.browser.newContext({
      viewport: { width: 1280, height: 800 },
      permissions: ["clipboard-read", "clipboard-write"],
    });
    complaints = [];
    page = await newPage();
  });
  afterEach(async () => {
    await context.close();
    await server[Symbol.asyncDispose]();
  });

  async function newPage(): Promise<Page> {
    const one = await context.newPage();
    one.setDefaultTimeout(30_000);
    one.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    one.on("pageerror", (error) => complaints.push(error.message));
    return one;
  }
  const open = (on = page) => on.goto(`${server.url}/#/chat`);
  const button = (name: string | RegExp, on = page) => on.getByRole("button", { name, exact: true });
  const answers = (on = page) => on.getByRole("article", { name: "Answer" });
  const questions = (on = page) => on.getByRole("article", { name: "You" });
  const answered = (count: number, on = page) =>
    answers(on)
      .and(on.locator("[aria-busy=false]"))
      .nth(count - 1)
      .waitFor();
  async function ask(text: string, on = page) {
    const message = on.getByRole("textbox", { name: "Message" });
    await message.fill(text);
    await message.press("Enter");
  }
  const keep = () => page.getByLabel("Keep");
  const titles = (on = page) => on.locator(".conversation").allInnerTexts();
  const choose = (title: string, on = page) =>
    on.getByRole("complementary").getByRole("button", { name: title, exact: true }).click();
  const said = (on = page) => on.locator(".question p, .answer .markdown, .answer .outcome").allInnerTexts();
  const lastMessages = () => {
    const { prompt } = service.asked.at(-1)!;
    return prompt.kind === "chat" ? prompt.messages.map(({ content }) => content) : [];
  };

  test("answers, shows the mask with three figures and the rest on demand, copies, tries again, and is there after a reload", async () => {
    await open();
    await ask("plural of wolf");
    await page.getByText("You said: plural of wolf").waitFor();
    await answered(1);
    expect(await page.locator(".figures dd").allInnerTexts()).toEqual([
      expect.stringMatching(/ms$/),
      expect.stringMatching(/tokens\/s$/),
      "12.5\u00a0%",
    ]);
    await page.getByText("Details").click();
    await page.getByText("built now").waitFor();
    await page.getByText("64 of 512 in each layer").waitFor();
    await button("Copy").click();
    await button("Copied").waitFor();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("You said: plural of wolf");

    await button("Retry").press("Enter");
    await answered(1);
    await expect.poll(() => page.evaluate(() => document.activeElement?.role)).toBe("log"); // its button was another's
    await page.getByText("Details").click();
    await page.getByText("from memory").waitFor();
    expect(await answers().count()).toBe(1);

    await button("New chat").click();
    await ask("number of wolves");
    await page.getByText("shared with 1 recent prompt").waitFor();

    const message = page.getByRole("textbox", { name: "Message" });
    await message.fill("not sent");
    await page.reload();
    await page.getByText("You said: number of wolves").waitFor();
    expect(await message.inputValue()).toBe("not sent");
    await choose("plural of wolf");
    await page.getByText("You said: plural of wolf").waitFor();
    await button("Delete conversation plural of wolf").dblclick();
    await button("Delete conversation plural of wolf: sure?").click();
    await page.getByText("You said: plural of wolf").waitFor({ state: "detached" });
    await page.reload();
    await button("number of wolves").waitFor();
    await expect.poll(() => titles()).toEqual(["number of wolves"]);
    expect(complaints).toEqual([]);
  });

  test("which part answers is chosen in one place, with what it costs, and remembered for the model", async () => {
    const quality = { prompts: 6, tokens: 100, rows: [{ source: "griffin", tFfn: 384, loss: 0.21, agreement: 0.87 }] };
    const untrained = { tFfn: 512, isTrained: false, source: "griffin" as const, quality, autoTFfn: 384 };
    service.served = service.served.map((model) => (model.id === "default" ? { ...model, ...untrained } : model));
    await service.saveTask("default", "animals", "plural of the word");
    await open();
    await page.getByText("This model has no trained masks").waitFor();
    const badge = page.locator(".badge-words");
    const asked = async (choice: string) => {
      await keep().selectOption(choice);
      const words = await badge.innerText();
      await button("New chat").click();
      await ask(`with ${choice}`);
      await page.getByText(`You said: with ${choice}`).waitFor();
      return [words, service.asked.at(-1)!.mask];
    };
    expect(await badge.innerText()).toBe("whole model");
    expect(await keep().getByText("75").textContent()).toBe("75\u00a0%: 0.21 nats lost, 87\u00a0% agree");
    expect(await asked("0.75")).toEqual(["0.21 nats lost, 87\u00a0% agree", { kind: "auto", keep: 0.75 }]);
    await badge.click();
    await page.getByText("a token of the whole model's own answers loses 0.21 nats").waitFor();
    expect(await asked("0.5")).toEqual(["not measured", { kind: "auto", keep: 0.5 }]);
    expect(await asked("auto")).toEqual(["75\u00a0%: 0.21 nats lost", { kind: "auto", keep: "auto" }]);
    expect(await asked("task:animals")).toEqual(["saved mask", { kind: "task", name: "animals" }]);

    await page.reload();
    expect(await keep().inputValue()).toBe("task:animals");
    await page.getByRole("combobox", { name: "Model" }).selectOption("other");
    expect([await keep().inputValue(), await badge.innerText()]).toEqual(["", "trained masks"]);
    expect(await asked("dense")).toEqual(["whole model", { kind: "dense" }]);
    await page.getByRole("combobox", { name: "Model" }).selectOption("default");
    expect(await keep().inputValue()).toBe("task:animals");
    expect(complaints).toEqual([]);
  });

  test("settings are asked for with, kept, and put back", async () => {
    await open();
    await button("Settings").click();
    const dialog = page.getByRole("dialog", { name: "Settings of default" });
    await dialog.getByLabel("System prompt").fill("Be brief.");
    await dialog.getByLabel("Temperature").fill("0.65");
    await dialog.getByLabel("Top-p").fill("0.92");
    await dialog.getByLabel("Seed").fill("42");
    await dialog.getByLabel("Tokens").fill("99");
    await dialog.getByLabel("Tokens").fill("0"); // out of range: the last one counts
    await dialog.getByLabel("Stop texts").fill("END\n\nSTOP");
    await button("Done").click();
    expect(await dialog.isVisible()).toBe(true);
    await dialog.getByLabel("Tokens").fill("98");
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
    await page.reload();
    await ask("first");
    await answered(1);
    expect(service.asked.at(-1)).toMatchObject({
      prompt: { messages: [{ role: "system", content: "Be brief." }, { content: "first" }] },
      sampling: { temperature: 0.65, topP: 0.92, seed: 42 },
      stop: ["END", "STOP"],
      maxTokens: 98,
    });
    await button("Settings").click();
    expect(await dialog.getByLabel("Seed").inputValue()).toBe("42");
    await button("Defaults").click();
    expect(await dialog.getByLabel("Temperature").inputValue()).toBe("0");
    await button("Done").click();
    await ask("second");
    await answered(2);
    expect(service.asked.at(-1)).toMatchObject({ sampling: { temperature: 0, topP: 1 }, stop: [], maxTokens: 256 });
    expect(lastMessages()).toEqual(["first", "You said: first", "second"]);
  });

  test("a model without a chat template is sent no system prompt, and says that it takes none", async () => {
    await open();
    await button("Settings").click();
    await page.getByLabel("System prompt").fill("Be brief.");
    await button("Done").click();
    service.served = service.served.map((model) => ({ ...model, hasChatTemplate: false }));
    await page.reload();
    await button("Settings").click();
    expect(await page.getByLabel("System prompt").isDisabled()).toBe(true);
    await page.getByPlaceholder("it takes none").waitFor();
    await button("Done").click();
    await ask("first");
    await answered(1);
    expect(lastMessages()).toEqual(["first"]);
  });

  test("what comes before the first token is told stage by stage", async () => {
    await open();
    for (const [stage, words] of [
      ["predict", "Choosing channels"],
      ["load", "Loading"],
      ["prefill", "Reading the prompt"],
    ] as const) {
      service.holdAt = stage;
      await button("New chat").click();
      await ask(`hold at ${stage}`);
      await page.getByRole("status").getByText(words).waitFor();
      expect(await page.locator(".waiting li.current").innerText()).toBe(words);
      service.go();
      await answered(1);
    }
    await page.locator(".waiting").waitFor({ state: "detached" });
  });

  test("an earlier question that is changed goes on in a branch; what was said stays", async () => {
    await open();
    await ask("first");
    await answered(1);
    await ask("second");
    await answered(2);
    await button("Edit the question").first().click();
    const field = page.getByRole("textbox", { name: "The question" });
    expect(await field.inputValue()).toBe("first");
    await field.fill("changed");
    await page.getByText("what was said so far stays in “first”").waitFor();
    await button("Ask again").click();
    await page.getByText("You said: changed").waitFor();
    await answered(1);
    await expect.poll(() => said()).toEqual(["changed", "You said: changed"]);
    expect(lastMessages()).toEqual(["changed"]);
    expect(await page.getByRole("main").getByRole("heading", { level: 2 }).first().innerText()).toBe("first (2)");
    await page.reload();
    await expect.poll(() => titles()).toEqual(["first (2)", "first"]);
    await choose("first (2)");
    await page.locator(".thread-head").getByRole("button", { name: "first", exact: true }).click();
    await expect.poll(() => said()).toEqual(["first", "You said: first", "second", "You said: second"]);

    await button("Retry").first().click(); // of an answer that others followed
    await page.getByRole("heading", { level: 2, name: "first (3)" }).waitFor();
    await answered(1);
    await expect.poll(() => said()).toEqual(["first", "You said: first"]);
    await expect.poll(() => titles()).toEqual(["first (3)", "first (2)", "first"]);
  });

  test("a change is left as it was with Escape, and does not stop or send anything", async () => {
    await open();
    await ask("first");
    await answered(1);
    await button("Edit the question").click();
    await page.getByRole("textbox", { name: "The question" }).fill("changed");
    await page.keyboard.press("Escape");
    await expect.poll(() => said()).toEqual(["first", "You said: first"]);
    await button("Edit the question").click();
    expect(await page.getByRole("textbox", { name: "The question" }).inputValue()).toBe("first");
    expect(service.asked.length).toBe(1);
  });

  test("a question that is being changed stays so: nothing else is asked for it, and what is sent or looked at meanwhile leaves it", async () => {
    await page.clock.install();
    await open();
    service.failure = new BusyError("The queue is full.", 3);
    await ask("first");
    await page.getByText(/Trying again in \d s/).waitFor();
    await page.getByRole("alert").getByRole("button", { name: "Edit the question" }).click();
    const field = page.getByRole("textbox", { name: "The question" });
    await field.fill("changed");
    await page.getByText(/Trying again in \d s/).waitFor({ state: "detached" });
    await page.clock.runFor(5000);
    expect(await field.inputValue()).toBe("changed");
    await ask("second");
    await answered(1);
    expect(await field.inputValue()).toBe("changed");
    await page.getByRole("link", { name: "Compare" }).click();
    await page.getByRole("textbox", { name: "Instruction 1" }).waitFor();
    await page.getByRole("link", { name: "Chat" }).click();
    expect(await field.inputValue()).toBe("changed");
    await button("Ask again").click();
    await page.getByText("You said: changed").waitFor();
    await answered(1);
    expect(service.asked.length).toBe(3);
  });

  test("the name can be typed while an answer comes, and Escape leaves the name and not the answer", async () => {
    service.tokenMs = 20;
    await open();
    await ask("endless");
    await answers().getByText("word word").waitFor();
    await button("Rename").press("Enter"); // a click would scroll, against the page that follows the answer
    const name = page.getByRole("textbox", { name: "Name of the conversation" });
    await name.pressSequentially("words", { delay: 60 });
    expect(await name.inputValue()).toBe("words");
    await name.press("Escape");
    await name.waitFor({ state: "detached" });
    const { sent } = service;
    await expect.poll(() => service.sent).toBeGreaterThan(sent + 20);
    expect(service.aborted).toBe(0);
    await button("Stop").click();
    await page.getByText("Stopped by you.").waitFor();
  });

  test("a double click on Send does not stop the answer, and Stop does not send what is written meanwhile", async () => {
    await open();
    const message = page.getByRole("textbox", { name: "Message" });
    await message.fill("endless");
    await button("Send").dblclick();
    await answers().getByText("word word word").waitFor();
    await message.fill("next");
    await button("Stop").click();
    await page.getByText("Stopped by you.").waitFor();
    await button("Send").waitFor();
    expect(await message.inputValue()).toBe("next");
    expect(service.asked.length).toBe(1);
  });

  test("Escape stops the answer, the server hears of it, what came is kept, and it says so and how to go on", async () => {
    await open();
    await ask("endless");
    await answers().getByText("word word word").waitFor();
    await page.keyboard.press("Escape");
    await page.getByText("Stopped by you.").waitFor();
    await page.getByRole("slider").waitFor(); // its mask is known from the start
    await expect.poll(() => service.aborted).toBe(1);
    expect(await answers().innerText()).toContain("word word");
    await answers().getByRole("button", { name: "Edit the question" }).click();
    await page.getByRole("textbox", { name: "The question" }).fill("again");
    await page.keyboard.press("Enter");
    await page.getByText("You said: again").waitFor();
    await expect.poll(() => titles()).toEqual(["endless (2)", "endless"]);
  });

  test("an answer that is stopped before its first word says so, and can be asked for again", async () => {
    service.holdAt = "load";
    await open();
    await ask("first");
    await page.getByRole("status").getByText("Loading").waitFor();
    await button("Stop").click();
    await page.getByText("Stopped by you.").waitFor();
    service.go();
    service.holdAt = undefined;
    await ask("second");
    await page.getByText("You said: second").waitFor();
    expect(lastMessages()).toEqual(["second"]); // models know turns alone
    await page.reload();
    await choose("first");
    await page.getByText("Stopped by you.").waitFor();
  });

  test("a busy server is asked again by itself; another error by a button", async () => {
    await open();
    service.failure = new BusyError("The queue is full.", 2);
    await ask("plural of wolf");
    await page.getByRole("alert").getByText("The queue is full.").waitFor();
    const countdown = page.getByText(/Trying again in \d s/);
    await countdown.and(page.locator("[aria-live=off]")).waitFor(); // each second would be an alert
    await page.getByText("You said: plural of wolf").waitFor();
    service.failure = new Error("internal: secret");
    await ask("number of wolves");
    await page.getByRole("alert").waitFor();
    expect(await page.getByText("secret").count()).toBe(0);
    await button("Try again").click();
    await page.getByText("You said: number of wolves").waitFor();
    await page.getByRole("alert").waitFor({ state: "detached" });
  });

  test("an answer that breaks off keeps what came, says why, and offers to try again and to edit", async () => {
    await open();
    await ask("broken");
    const alert = page.getByRole("alert");
    await alert.getByText("The server failed.").waitFor();
    await page.getByText("Broken off.").waitFor();
    expect(await answers().locator(".markdown").innerText()).toBe("You");
    await alert.getByRole("button", { name: "Edit the question" }).click();
    await page.getByRole("textbox", { name: "The question" }).fill("whole");
    await button("Ask again").click();
    await page.getByText("You said: whole").waitFor();
    await choose("broken");
    await page.getByText("Broken off.").waitFor();
    expect(complaints.filter((text) => !text.includes("500"))).toEqual([]);
  });

  test("a prompt that is too long says by how much", async () => {
    await open();
    service.failure = new ContextLengthError(2304, 2048);
    await ask("first");
    await page
      .getByText("Too long by 257 tokens: the prompt has 2,304, and with an answer the model reads 2,048.")
      .waitFor();
    service.failure = new ContextLengthError(5000, 2048, false);
    await button("Try again").click();
    await page.getByText("Too long by at least 2,953 tokens").waitFor();
  });

  test("a question that got no answer is not asked again with the next one", async () => {
    await open();
    service.failure = new Error("internal");
    await ask("first");
    await page.getByRole("alert").waitFor();
    await ask("second");
    await page.getByText("You said: second").waitFor();
    expect(lastMessages()).toEqual(["second"]);
    await questions().first().getByText("Not answered.").waitFor();
  });

  test("an answer stays where trying again brings none", async () => {
    await open();
    await ask("plural of wolf");
    await answered(1);
    service.failure = new Error("internal");
    await button("Retry").click();
    await page.getByRole("alert").waitFor();
    expect(await page.getByText("You said: plural of wolf").count()).toBe(1);
    await page.reload();
    await choose("plural of wolf");
    await page.getByText("You said: plural of wolf").waitFor();
  });

  test("an answer stays in what is kept until another one begins, whatever becomes of the page", async () => {
    await open();
    await ask("plural of wolf");
    await answered(1);
    service.holdAt = "load";
    await button("Retry").click();
    await page.getByRole("status").getByText("Loading").waitFor();
    const other = await newPage();
    await open(other);
    await choose("plural of wolf", other);
    await other.getByText("You said: plural of wolf").waitFor();
    service.go();
    await answered(1);
    expect(await titles()).toEqual(["plural of wolf"]);
  });

  test("a model that thinks is waited for in that word; where its tokens were all thoughts, that is said", async () => {
    service.served = service.served.map((one) => ({ ...one, thoughts: "open" }));
    Object.assign(service.answers, { Quickly: "<think> hm </think> Paris.", Slowly: `<think> ${"hm ".repeat(400)}` });
    await open();
    await ask("Quickly");
    await page.getByText("Paris.").waitFor();
    await answered(1);
    await ask("Slowly");
    await page.locator(".waiting .current").getByText("Thinking").waitFor();
    await page.getByText("It only thought: more tokens let it come to an answer.").waitFor();
    expect(await page.getByText("without a word").count()).toBe(0);
  });

  test("an answer asked for again is out of sight while a new one is thought about, and back where none comes", async () => {
    service.served = service.served.map((one) => ({ ...one, thoughts: "open" }));
    service.answers.Capital = "Paris.";
    await open();
    await ask("Capital");
    await page.getByText("Paris.").waitFor();
    await answered(1);
    service.answers.Capital = `<think> ${"hm ".repeat(400)}`;
    service.tokenMs = 30;
    await button("Retry").click();
    await page.locator(".waiting .current").getByText("Thinking").waitFor();
    await expect.poll(() => said()).toEqual(["Capital"]);
    await button("Stop").click();
    await answered(1);
    await expect.poll(() => said()).toEqual(["Capital", "Paris."]);
  });

  test("a model that says nothing is said to", async () => {
    await open();
    await ask("nothing");
    await page.getByText("The model ended its answer at once, without a word.").waitFor();
    await button("Retry").waitFor();
    await ask("more");
    await page.getByText("You said: more").waitFor();
    expect(lastMessages()).toEqual(["more"]);
  });

  test("a server that goes while it answers leaves what came, and is asked again when it is back", async () => {
    await open();
    await ask("endless");
    await answers().getByText("word word word").waitFor();
    const { port } = server;
    await server[Symbol.asyncDispose]();
    await page.getByRole("alert").getByText("The connection ended before the answer did.").waitFor();
    expect(await answers().innerText()).toContain("word word");
    await button("Try again").click();
    await page.getByRole("alert").getByText("The server does not answer").waitFor();
    await answers().getByText("word word").waitFor(); // no new answer: the old one stays
    server = await servePage(service, built.files, { port });
    await page.getByRole("alert").getByRole("button", { name: "Edit the question" }).click();
    await page.getByRole("textbox", { name: "The question" }).fill("short");
    await button("Ask again").click();
    await page.getByText("You said: short").waitFor();
  });

  test("first prompts fit the model: what chat models do, what it was trained on, its tasks, or none", async () => {
    const [model] = service.served;
    const offered = async (changes: object) => {
      service.served = [{ ...model!, ...changes }];
      await page.reload();
      await page.getByRole("heading", { name: "Give an instruction" }).waitFor();
      return page.locator(".examples button").allInnerTexts();
    };
    await open();
    expect(await offered({ trainedOn: ["sql"] })).toContain("List five fruits.");
    expect(await offered({ hasChatTemplate: false })).toContain("What is the plural of wolf?");
    expect(await offered({ trainedOn: [], hasChatTemplate: false })).toEqual([]);
    await service.saveTask("default", "animals", "plural of the word");
    expect(await offered({ trainedOn: [], hasChatTemplate: false })).toEqual(["plural of the word"]);
    await button("plural of the word").click();
    await page.getByText("You said: plural of the word").waitFor();
  });

  test("conversations are searched, renamed, and saved as files", async () => {
    await open();
    for (const text of ["plural of wolf", "number of wolves"]) {
      await button("New chat").click();
      await ask(text);
      await answered(1);
    }
    await page.getByRole("searchbox").fill("SAID: PLURAL"); // in what was said
    await expect.poll(() => titles()).toEqual(["plural of wolf"]);
    await page.getByRole("searchbox").fill("zebra");
    await page.getByText("None has these words.").waitFor();
    await page.getByRole("searchbox").fill("");
    await choose("plural of wolf");
    await button("Rename").click();
    const name = page.getByRole("textbox", { name: "Name of the conversation" });
    await name.fill("Wolves: a *plural*/1");
    await name.press("Enter");
    await page.getByRole("heading", { level: 2, name: "Wolves: a *plural*/1" }).waitFor();
    await page.reload();
    await choose("Wolves: a *plural*/1");

    const markdown = page.waitForEvent("download");
    await button("Save as Markdown").click();
    expect((await markdown).suggestedFilename()).toBe("Wolves-a-plural-1.md");
    expect(await textOf(await markdown)).toMatch(
      /^# Wolves: a \*plural\*\/1\n\ndefault, \d{4}-\d\d-\d\d\n\n## Question\n\nplural of wolf\n\n## Answer\n\nYou said: plural of wolf\n$/,
    );
    const json = page.waitForEvent("download");
    await button("Save as JSON").click();
    expect(JSON.parse(await textOf(await json))).toMatchObject({
      title: "Wolves: a *plural*/1",
      model: "default",
      messages: [
        { role: "user", content: "plural of wolf" },
        { role: "assistant", answer: { finishReason: "stop" } },
      ],
    });

    await button("Rename").click();
    await name.fill(" ");
    await name.press("Enter"); // without a name, it is called as it began
    await page.getByRole("heading", { level: 2, name: "plural of wolf" }).waitFor();
  });

  test("two tabs follow each other's settings, and the masks that they met", async () => {
    await open();
    const other = await newPage();
    await open(other);
    await other.getByLabel("Keep").selectOption("0.5");
    await expect.poll(() => keep().inputValue()).toBe("0.5");
    await button("Settings").click();
    await page.getByLabel("Temperature").fill("1");
    await button("Done").click();
    await other.reload();
    await button("Settings", other).click();
    expect(await other.getByLabel("Temperature").inputValue()).toBe("1");
    await button("Done", other).click();
    expect(await other.getByLabel("Keep").inputValue()).toBe("0.5");

    await ask("plural of wolf");
    await page.getByText("Colours come with a second chat").waitFor();
    await ask("number of wolves", other);
    await page.getByText("shared with 1 recent prompt").waitFor();
  });

  test("two tabs keep the conversations of both", async () => {
    await open();
    const other = await newPage();
    await open(other);
    await ask("first of all");
    await answered(1);
    await ask("second of all", other);
    await answered(1, other);
    await button("second of all").waitFor();
    await choose("second of all");
    await button("Rename", other).click();
    await other.getByRole("textbox", { name: "Name of the conversation" }).fill("renamed");
    await other.keyboard.press("Enter");
    await page.getByRole("heading", { level: 2, name: "renamed" }).waitFor();
    await page.reload();
    await expect.poll(() => titles()).toEqual(["renamed", "first of all"]);
  });

  test("what is written where another tab deletes the conversation goes on as a new one", async () => {
    await open();
    await ask("first");
    await answered(1);
    const other = await newPage();
    await open(other);
    const message = page.getByRole("textbox", { name: "Message" });
    await message.fill("half written");
    await button("Delete conversation first", other).click();
    await button("Delete conversation first: sure?", other).click();
    await page.getByText("You said: first").waitFor({ state: "detached" });
    expect(await message.inputValue()).toBe("half written");
  });

  test("two tabs that answer in one conversation: what each got stays, one of them as a branch", async () => {
    await open();
    await ask("first");
    await answered(1);
    const other = await newPage();
    await open(other);
    await choose("first", other);

    await ask("endless");
    await answers().nth(1).getByText("word word").waitFor();
    await other.getByText("endless").waitFor();
    await ask("second", other);
    await answered(2, other);
    await page.keyboard.press("Escape");
    await page.getByText("Stopped by you.").waitFor();
    for (const one of [page, other]) {
      // Which of them is the branch depends on whose word came first.
      await expect.poll(async () => (await titles(one)).sort()).toEqual(["first", "first (2)"]);
      await one.reload();
      const both: string[][] = [];
      for (const title of ["first", "first (2)"]) {
        await choose(title, one);
        await one.getByRole("heading", { level: 2, name: title, exact: true }).waitFor();
        await expect.poll(() => said(one)).not.toContain(""); // answers are drawn after the rest
        both.push(await said(one));
      }
      expect(both.sort((a, b) => a.length - b.length)).toEqual([
        ["first", "You said: first", "endless", expect.stringMatching(/^word word/), "Stopped by you."],
        ["first", "You said: first", "endless", "Not answered.", "second", "You said: second"],
      ]);
    }
  });

  test("a conversation that is renamed while both tabs answer in it overwrites nothing, and its answer can be stopped", async () => {
    service.tokenMs = 20;
    await open();
    await ask("first");
    await answered(1);
    const other = await newPage();
    await open(other);
    await choose("first", other);
    await button("Edit the question").click();
    const edited = page.getByRole("textbox", { name: "The question" });
    await edited.fill("changed");
    await ask("endless");
    await answers().nth(1).getByText("word word").waitFor();
    await other.getByText("endless").waitFor();
    await ask("second", other);
    await answered(2, other);
    const next = page.getByRole("textbox", { name: "Message" });
    await next.fill("next");

    await button("Rename").press("Enter"); // a click would scroll, against the page that follows the answer
    await page.getByRole("textbox", { name: "Name of the conversation" }).fill("renamed");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 2, name: "renamed", exact: true }).waitFor();
    await button("Stop").click();
    await page.getByText("Stopped by you.").waitFor();
    await button("Send").waitFor();
    expect([await next.inputValue(), await edited.inputValue()]).toEqual(["next", "changed"]);
    await choose("first");
    await page.getByText("You said: second").waitFor();
    expect([await next.inputValue(), await edited.count()]).toEqual(["", 0]);
    await page.reload();
    await expect.poll(async () => (await titles()).sort()).toEqual(["first", "renamed"]);
    await choose("first");
    await expect
      .poll(() => said())
      .toEqual(["first", "You said: first", "endless", "Not answered.", "second", "You said: second"]);
    await choose("renamed");
    await page.getByText("Stopped by you.").waitFor();
    expect(await edited.inputValue()).toBe("changed"); // what is typed outlives the page
    await button("Cancel").click();
    await expect
      .poll(() => said())
      .toEqual(["first", "You said: first", "endless", expect.stringMatching(/^word word/), "Stopped by you."]);
  });

  test("a tab that got no new answer takes what another went on with, and makes no branch", async () => {
    await open();
    await ask("first");
    await answered(1);
    const other = await newPage();
    await open(other);
    await choose("first", other);
    service.holdAt = "load";
    await button("Retry").click();
    await page.getByRole("status").getByText("Loading").waitFor();
    const { go } = service;
    service.holdAt = undefined;
    const change = () => page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await change(); // as when a reader goes to the other tab, and comes back
    await ask("second", other);
    await answered(2, other);
    await change();
    await button("Stop").click();
    go();
    await expect.poll(() => said()).toEqual(["first", "You said: first", "second", "You said: second"]);
    expect(await titles()).toEqual(["first"]);
  });

  test("what a tab renames while another answers is no other branch; what it deletes comes back with the answer", async () => {
    await open();
    await ask("endless");
    await answers().getByText("word word").waitFor();
    const other = await newPage();
    await open(other);
    await choose("endless", other);
    await button("Rename", other).click();
    await other.getByRole("textbox", { name: "Name of the conversation" }).fill("renamed");
    await other.keyboard.press("Enter");
    await page.keyboard.press("Escape");
    await page.getByRole("heading", { level: 2, name: "renamed" }).waitFor();
    await expect.poll(() => titles()).toEqual(["renamed"]);

    await ask("endless");
    await answers().nth(1).getByText("word word").waitFor();
    await other.getByText("Not answered.").waitFor();
    await button("Delete conversation renamed", other).click();
    await button("Delete conversation renamed: sure?", other).click();
    await page.keyboard.press("Escape");
    await button("renamed", other).waitFor();
  });

  test("what came of an answer is there after a reload in its middle", async () => {
    await open();
    await ask("endless");
    await answers().getByText("word word word").waitFor();
    await page.reload();
    await choose("endless");
    await answers().getByText("word word word").waitFor();
    await page.getByText("Broken off.").waitFor();
  });

  test.each(["visibilitychange", "pagehide"])(
    "what came to a page that is not drawn stays at its %s",
    async (event) => {
      service.tokenMs = 20;
      await open();
      await ask("endless");
      await answers().getByText("word word word").waitFor();
      await page.evaluate(() => Object.assign(window, { requestAnimationFrame: () => 1 })); // as in a hidden tab
      const drawn = (await said())[1]!.length;
      const { sent } = service;
      await expect.poll(() => service.sent).toBeGreaterThan(sent + 20);
      await page.evaluate((name) => document.dispatchEvent(new Event(name, { bubbles: true })), event);
      const other = await newPage();
      await open(other);
      await choose("endless", other);
      await answers(other).getByText("word word word").waitFor();
      await expect.poll(async () => (await said(other))[1]?.length).toBeGreaterThan(drawn);
    },
  );

  test.each(["full", "forbidden"])("a storage that is %s does not stop the chat, and it says so", async (how) => {
    await page.addInitScript((how) => {
      if (how === "forbidden") {
        for (const name of ["localStorage", "sessionStorage"]) {
          Object.defineProperty(window, name, {
            get: () => {
              throw new DOMException("forbidden", "SecurityError");
            },
          });
        }
        return;
      }
      for (const key of ["conversation.x", "masks.default", "settings.default", "theme", "model"]) {
        localStorage.setItem(`ifprune.${key}`, '{"id": "x", "messages": 7, "recent": [{}], "masks": {"a": [7]}}');
      }
      const set = Storage.prototype.setItem;
      Storage.prototype.setItem = function (key, value) {
        if (this === localStorage && key.startsWith("ifprune.")) throw new DOMException("full", "QuotaExceededError");
        set.call(this, key, value);
      };
    }, how);
    await open();
    await keep().selectOption("0.5");
    await ask("plural of wolf");
    await page.getByText("You said: plural of wolf").waitFor();
    await page.getByText("The browser's storage is full or switched off").waitFor();
    await page.getByRole("slider").waitFor();
    await ask("more");
    await page.getByText("You said: more").waitFor();
    expect(service.asked.at(-1)!.mask).toEqual({ kind: "auto", keep: 0.5 });
    await button("Delete conversation plural of wolf").click();
    await button("Delete conversation plural of wolf: sure?").click();
    await expect.poll(() => titles()).toEqual([]);
    expect(complaints).toEqual([]);
  });

  test("a conversation that is not kept is said to be so, whatever else is, until it is deleted", async () => {
    await page.addInitScript(() => {
      const set = Storage.prototype.setItem;
      Storage.prototype.setItem = function (key, value) {
        if (key.startsWith("ifprune.conversation.")) throw new DOMException("full", "QuotaExceededError");
        set.call(this, key, value);
      };
    });
    await open();
    await ask("plural of wolf");
    await answered(1);
    await button(/^Theme/).click();
    await expect.poll(() => page.evaluate(() => localStorage.getItem("ifprune.theme"))).toBe('"light"');
    const notice = page.getByText("The browser's storage is full or switched off");
    await notice.waitFor();
    await button("Delete conversation plural of wolf").click();
    await button("Delete conversation plural of wolf: sure?").click();
    await notice.waitFor({ state: "detached" });
  });

  test("a conversation that is not kept is not said to be so once another tab has removed it", async () => {
    await open();
    await ask("plural of wolf");
    await answered(1);
    const other = await newPage();
    await open(other);
    await choose("plural of wolf", other);
    await page.evaluate(() => {
      const set = Storage.prototype.setItem;
      Storage.prototype.setItem = function (key, value) {
        if (key.startsWith("ifprune.conversation.")) throw new DOMException("full", "QuotaExceededError");
        set.call(this, key, value);
      };
    });
    await ask("number of wolves");
    await answered(2);
    const notice = page.getByText("The browser's storage is full or switched off");
    await notice.waitFor();
    await button("Delete conversation plural of wolf", other).click();
    await button("Delete conversation plural of wolf: sure?", other).click();
    await expect.poll(() => titles()).toEqual([]);
    await notice.waitFor({ state: "detached" });
  });

  test("the end of an answer, its mask and its numbers are in sight", async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    await open();
    for (const [i, text] of ["plural of wolf", "markdown"].entries()) {
      await ask(text);
      await answered(i + 1);
    }
    await page.getByRole("slider").nth(1).waitFor();
    const below = () => page.evaluate(() => document.documentElement.scrollHeight - innerHeight - scrollY);
    await expect.poll(below).toBeLessThan(2);
    await page.mouse.wheel(0, -300);
    await expect.poll(below).toBeGreaterThan(200); // a reader who scrolls up stays there

    await button("Edit the question").first().click();
    await expect.poll(() => isInSight(page.getByRole("textbox", { name: "The question" }))).toBe(true);
    await page.getByRole("textbox", { name: "The question" }).press("Escape");
    service.failure = new ContextLengthError(2304, 2048);
    await ask("first");
    await expect.poll(() => isInSight(page.getByRole("alert"))).toBe(true);
  });

  /** Below the header, above the composer. */
  const isInSight = (locator: Locator) =>
    locator.evaluate((element) => {
      const { top, bottom } = element.getBoundingClientRect();
      return top >= 0 && bottom <= document.querySelector(".composer")!.getBoundingClientRect().top;
    });
});

async function textOf(file: Download): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of await file.createReadStream()) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}
