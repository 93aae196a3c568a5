/** The page in a browser, against the real HTTP side and a fake service: what a reader does, what goes wrong, and what a hostile model writes. */
import type { BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { BusyError } from "../../src/errors.ts";
import { maskFromJson } from "../../src/mask/maskFile.ts";
import type { RunningServer } from "../../src/serve/http/server.ts";
import { type BuiltPage, openBrowser, servePage } from "./browser.ts";
import { isChromiumMissing } from "./chromium.ts";
import { FakeService } from "./fakeService.ts";

describe.skipIf(isChromiumMissing)("the page", () => {
  let built: BuiltPage;
  let context: BrowserContext;
  let service: FakeService;
  let server: RunningServer;
  let page: Page;
  /** What the console and uncaught errors said, and addresses that were asked beyond the server. */
  let complaints: string[];

  beforeAll(async () => {
    built = await openBrowser();
  }, 120_000);
  afterAll(() => built?.[Symbol.asyncDispose]());

  beforeEach(async () => {
    service = new FakeService();
    server = await serve();
    context = await built.browser.newContext({
      viewport: { width: 1280, height: 800 },
      permissions: ["clipboard-read", "clipboard-write"],
    });
    page = await context.newPage();
    page.setDefaultTimeout(30_000);
    complaints = [];
    page.on("console", (message) => {
      if (message.type() === "error") complaints.push(message.text());
    });
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("request", (request) => {
      if (!/^(http:\/\/127\.0\.0\.1:|blob:)/.test(request.url())) complaints.push(`asked ${request.url()}`);
    });
  });
  afterEach(async () => {
    await context.close();
    await server[Symbol.asyncDispose]();
  });

  const serve = (options: { apiKey?: string; port?: number } = {}) => servePage(service, built.files, options);
  const open = (view = "chat") => page.goto(`${server.url}/#/${view}`);
  const button = (name: string) => page.getByRole("button", { name, exact: true });
  const message = () => page.getByRole("textbox", { name: "Message" });
  const answers = () => page.getByRole("article", { name: "Answer" });
  const answered = (count: number) =>
    answers()
      .and(page.locator("[aria-busy=false]"))
      .nth(count - 1)
      .waitFor();
  async function ask(text: string) {
    await message().fill(text);
    await message().press("Enter");
  }
  async function addTask(name: string, instruction: string) {
    await page.getByRole("textbox", { name: "Name" }).fill(name);
    await page.getByRole("textbox", { name: "Instruction" }).fill(instruction);
    await page.getByRole("textbox", { name: "Instruction" }).press("Enter");
    await page.getByRole("heading", { name, exact: true }).waitFor();
  }
  const horizontalScroll = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

  test("a mask made of blocks is shown and told by its blocks", async () => {
    await open();
    await ask("blocks");
    await page.getByText("4 layers of 512 channels in blocks of 16.").waitFor();
    const strip = page.getByRole("slider");
    await strip.focus();
    await page.getByText("Layer 0: 4 of 32 blocks of 16 channels").waitFor();
    await strip.hover({ position: { x: 2, y: 40 } });
    await page.getByText(/Layer 2: .* block 0: (not )?kept/).waitFor();
  });

  test("what a model or a name says stays text", async () => {
    service.saved.push({ name: "<img src=x onerror=wasHacked=1>", instruction: "<b>bold</b>", maskId: "x" });
    service.served.push({ ...service.served[0]!, id: "<script>wasHacked=1</script>" });
    await open();
    await ask("hostile <img src=x onerror=wasHacked=1>");
    await answered(1);
    const markdown = answers().locator(".markdown");
    expect(await markdown.innerText()).toContain("<script>window.wasHacked = true</script>");
    expect(await markdown.locator("script, img, svg, [style], [onerror], [onload]").count()).toBe(0);
    const links = await markdown
      .locator("a")
      .evaluateAll((found) => found.map((link) => [link.getAttribute("href"), link.getAttribute("rel")]));
    expect(links).toEqual([
      [null, "noopener noreferrer"],
      ["https://example.org/track.png", "noopener noreferrer"],
    ]);
    await open("tasks");
    await page.getByRole("heading", { name: "<img src=x onerror=wasHacked=1>" }).waitFor();
    expect(await page.evaluate(() => "wasHacked" in window)).toBe(false);
    expect(complaints.filter((text) => !text.includes("404"))).toEqual([]); // the task's mask is nowhere
  });

  test("compare shows both masks and their overlap beside chance", async () => {
    await open("compare");
    await page.getByRole("textbox", { name: "Instruction 1" }).fill("plural of wolf");
    await page.getByRole("textbox", { name: "Instruction 2" }).fill("plural of cat");
    await page.keyboard.press("Enter");
    await page.getByText("100 % of the kept channels are shared; by chance it would be 12.5 %").waitFor();
    await page.getByRole("textbox", { name: "Instruction 2" }).fill("number of cats");
    await button("Compare").click();
    await page.getByText(/^5\d\s% of the kept channels/).waitFor();
    expect(await page.getByRole("slider").count()).toBe(2);
    expect(await page.getByRole("row").count()).toBe(1 + 4 + 1);
    expect(complaints).toEqual([]);
  });

  test.each(["One after the other", "At once"])("race: %s", async (order) => {
    await open("race");
    await page.getByLabel(order).check();
    await page.getByRole("textbox", { name: "Prompt" }).fill("markdown");
    await button("Start").click();
    for (const name of ["Dense model", "Sub-network"]) {
      const lane = page.getByRole("region", { name });
      await lane.getByText("decode").waitFor();
      await lane.getByRole("heading", { name: "A heading" }).waitFor();
      expect(await lane.locator("dt").allInnerTexts()).toEqual([
        ...["Getting ready", "Answering", "Total", "First token", "Speed"],
      ]);
      expect(await lane.locator("dd").allInnerTexts()).toEqual([
        name === "Dense model" ? "57\u00a0ms" : "87\u00a0ms", // only a sub-network is gathered
        ...Array.from({ length: 3 }, () => expect.stringMatching(/ms$/)),
        expect.stringMatching(/^[\d,]+\stokens\/s$/),
      ]);
    }
    await page.getByText("Both gave the same answer.").waitFor();
    expect(service.asked.map(({ mask }) => mask.kind).sort()).toEqual(["auto", "dense"]);
    expect(complaints).toEqual([]);
  });

  test("a race shows where the answers part", async () => {
    await open("race");
    await page.getByRole("textbox", { name: "Prompt" }).fill("parting");
    await page.keyboard.press("Enter");
    await page.getByText("The answers part at ▸, after 2 of the dense answer's 5 tokens.").waitFor();
    await page.getByRole("region", { name: "Dense model" }).getByText("One thing▸ there, and more").waitFor();
    await page.getByRole("region", { name: "Sub-network" }).getByText("One thing▸ here").waitFor();
  });

  test("a race that is stopped or left stops at the server", async () => {
    await open("race");
    await page.getByRole("textbox", { name: "Prompt" }).fill("endless");
    await button("Start").dblclick(); // its second click is not for Stop
    await page.getByRole("region", { name: "Dense model" }).getByText("word word").waitFor();
    await page.keyboard.press("Escape");
    await expect.poll(() => service.aborted).toBe(1);
    await button("Start").click();
    await expect.poll(() => service.state().running).toBe(1);
    await button("Stop").click();
    await expect.poll(() => service.aborted).toBe(2);
    await button("Start").click();
    await expect.poll(() => service.state().running).toBe(1);
    await page.getByRole("link", { name: "Tasks" }).click();
    await expect.poll(() => service.aborted).toBe(3);
    expect(service.asked.length).toBe(3);
  });

  test("tasks: add, overlap, download, delete", async () => {
    await open("tasks");
    await page.getByText("No tasks yet").waitFor();
    await addTask("animals", "plural of the word");
    await addTask("numbers", "number in words");
    const cells = page.getByRole("table").locator("tbody td");
    await expect
      .poll(() => cells.allInnerTexts())
      .toEqual(["100", expect.stringMatching(/^5\d$/), expect.anything(), "100"]);
    const download = page.waitForEvent("download");
    await button("Mask as a file").first().click();
    const file = await download;
    expect(file.suggestedFilename()).toBe("animals.mask.json");
    const chunks: Buffer[] = [];
    for await (const chunk of await file.createReadStream()) chunks.push(chunk as Buffer);
    const mask = maskFromJson(JSON.parse(Buffer.concat(chunks).toString()), "mask.json");
    expect(mask.layers).toEqual(service.maskById("default", service.saved[0]!.maskId).layers);
    await button("Delete task animals").click();
    await page.keyboard.press("Escape");
    await button("Delete task animals").click();
    await button("Delete task animals: sure?").click();
    await expect.poll(() => service.saved.map(({ name }) => name)).toEqual(["numbers"]);
    expect(complaints).toEqual([]);
  });

  test("everything in reach of the Tab key, with a visible focus", async () => {
    await open();
    await message().waitFor();
    await page.keyboard.type("plural of wolf");
    await page.keyboard.press("Enter");
    await answered(1);
    await button("Skip to content").focus();
    const names: string[] = [];
    for (let i = 0; i < 30 && !names.includes("TEXTAREA Message"); i++) {
      await page.keyboard.press("Tab");
      const [name, outline] = await page.evaluate(() => {
        const element = document.activeElement!;
        const label = element.getAttribute("aria-label") ?? (element as HTMLElement).innerText.trim();
        return [`${element.tagName} ${label}`, getComputedStyle(element).outlineStyle] as const;
      });
      expect(outline, name).toBe("solid");
      names.push(name);
    }
    expect(names).toEqual([
      "A ifprune",
      "A Chat",
      "A Compare",
      "A Race",
      "A Tasks",
      "A Models",
      "SELECT Model",
      "BUTTON Theme: system. Switch to light",
      "BUTTON New chat",
      "INPUT Search conversations",
      "BUTTON plural of wolf",
      "BUTTON Delete conversation plural of wolf",
      "BUTTON Rename",
      "BUTTON Save as Markdown",
      "BUTTON Save as JSON",
      "BUTTON Edit the question",
      "BUTTON Copy",
      "BUTTON Retry",
      "DIV Mask of 4 layers. Arrow keys walk through the layers.",
      "SUMMARY Details",
      "TEXTAREA Message",
    ]);
  });

  test("nothing is wider than a phone, in any view", async () => {
    await page.setViewportSize({ width: 360, height: 720 });
    await open();
    await ask("markdown");
    await answered(1);
    await ask("x".repeat(300));
    await answered(2);
    expect(await horizontalScroll()).toBe(0);
    await button("Conversations").click();
    await page.locator(".conversation").first().waitFor();
    expect(await horizontalScroll()).toBe(0);
    await page.getByRole("link", { name: "Compare" }).click();
    await page.getByRole("textbox", { name: "Instruction 1" }).fill("plural");
    await page.getByRole("textbox", { name: "Instruction 2" }).fill(`number ${"y".repeat(300)}`);
    await button("Compare").click();
    await page.getByRole("table").waitFor();
    expect(await horizontalScroll()).toBe(0);
    await page.getByRole("link", { name: "Race" }).click();
    await page.getByRole("textbox", { name: "Prompt" }).fill("markdown");
    await button("Start").click();
    await page.getByRole("region", { name: "Sub-network" }).getByText("decode").waitFor();
    expect(await horizontalScroll()).toBe(0);
    await page.getByRole("link", { name: "Tasks" }).click();
    for (let i = 0; i < 12; i++) await addTask(`${"long-name-".repeat(4)}${i}`, `task${i} ${"z".repeat(100)}`);
    await expect.poll(() => page.locator(".heat tbody td").count()).toBe(144);
    expect(await horizontalScroll()).toBe(0);
  });

  test("themes: the system's, and the reader's choice, which is kept", async () => {
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.emulateMedia({ colorScheme: "dark" });
    await open();
    await message().waitFor();
    const dark = await background();
    await page.emulateMedia({ colorScheme: "light" });
    const light = await background();
    expect(dark).not.toBe(light);
    await button("Theme: system. Switch to light").click();
    await button("Theme: light. Switch to dark").click();
    expect(await background()).toBe(dark);
    await page.reload();
    await message().waitFor();
    expect(await background()).toBe(dark);
  });

  test("a key is asked for, a wrong one again, and kept for the tab", async () => {
    const { port } = server;
    await server[Symbol.asyncDispose]();
    server = await serve({ apiKey: "right", port });
    await open();
    const dialog = page.getByRole("dialog");
    const field = dialog.getByLabel("Key", { exact: true });
    const use = dialog.getByRole("button");
    await field.fill("wrong");
    await use.click();
    await expect.poll(() => field.inputValue()).toBe(""); // or the next key would be cleared away
    await field.fill("right");
    await use.click();
    await message().waitFor();
    await dialog.waitFor({ state: "hidden" });
    await page.reload();
    await message().waitFor();
    expect(await dialog.isVisible()).toBe(false);
    expect(await page.evaluate(() => JSON.stringify(localStorage))).not.toContain("right");
  });

  test("a key that is not given is asked for again when the reader tries again, and not before", async () => {
    const { port } = server;
    await server[Symbol.asyncDispose]();
    server = await serve({ apiKey: "right", port });
    await page.clock.install();
    const polled = page.waitForResponse("**/ifprune/state"); // the dialog comes by whichever is refused first
    await open();
    await polled;
    const dialog = page.getByRole("dialog");
    await dialog.waitFor();
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
    let asked = 0;
    page.on("request", () => asked++);
    await page.clock.runFor(20_000);
    await button("Try again").click();
    await dialog.waitFor();
    expect(asked).toBe(1);
  });

  test("what is corrected while a busy server is waited for is what is tried again", async () => {
    await open("tasks");
    service.failure = new BusyError("The queue is full.", 3);
    await page.getByRole("textbox", { name: "Name" }).fill("wrong");
    await page.getByRole("textbox", { name: "Instruction" }).fill("plural of the word");
    await page.getByRole("textbox", { name: "Instruction" }).press("Enter");
    await page.getByText(/Trying again in \d s/).waitFor();
    await page.getByRole("textbox", { name: "Name" }).fill("right");
    await page.getByRole("heading", { name: "right", exact: true }).waitFor();
    expect(service.saved.map(({ name }) => name)).toEqual(["right"]);
  });

  test("a server that is gone is named, and found again when it is back", async () => {
    await open();
    await message().waitFor();
    const { port } = server;
    await server[Symbol.asyncDispose]();
    await ask("plural of wolf");
    await page.getByRole("alert").getByText("The server does not answer").waitFor();
    await page.getByText("No answer").waitFor();
    server = await serve({ port });
    await button("Try again").click();
    await page.getByText("You said: plural of wolf").waitFor();
    await page.getByText("Ready").waitFor();
  });
});
