/** Compare, race, tasks and models as a reader uses them, over a fake service; and the command that a task is exported with, run as it is shown. */
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { TINY_MODEL } from "../../src/bundle/pulledModels.ts";
import type { RunningServer } from "../../src/serve/http/server.ts";
import { openLocalService } from "../../src/serve/localService.ts";
import { temporaryFolder } from "../support/models.ts";
import { type BuiltPage, openBrowser, servePage } from "./browser.ts";
import { isChromiumMissing } from "./chromium.ts";
import { fakeJobs } from "./fakeJobs.ts";
import { FakeService } from "./fakeService.ts";

const cli = fileURLToPath(new URL("../../bin/ifprune.js", import.meta.url));

describe.skipIf(isChromiumMissing)("views", () => {
  let built: BuiltPage;
  let context: BrowserContext;
  let service: FakeService;
  let server: RunningServer;
  let page: Page;

  beforeAll(async () => {
    built = await openBrowser();
  });
  afterAll(() => built?.[Symbol.asyncDispose]());
  beforeEach(async () => {
    service = new FakeService();
    server = await servePage(service, built.files);
    context = await built.browser.newContext({ viewport: { width: 1280, height: 800 }, hasTouch: true });
    page = await context.newPage();
    page.setDefaultTimeout(90_000);
  });
  afterEach(async () => {
    await context.close();
    await server[Symbol.asyncDispose]();
  });

  const open = (view: string) => page.goto(`${server.url}/#/${view}`);
  const button = (name: string) => page.getByRole("button", { name, exact: true });
  const textbox = (name: string | RegExp) => page.getByRole("textbox", { name });

  test("several instructions are compared each with each, and a pair of them in detail", async () => {
    await open("compare");
    await button("Another instruction").click();
    for (const [i, text] of ["plural of wolf", "number of wolves", "plural of cat"].entries())
      await textbox(`Instruction ${i + 1}`).fill(text);
    await button("Compare").click();
    const cells = page.locator(".heat-cell");
    await expect
      .poll(() => cells.allInnerTexts())
      .toEqual([
        "100",
        expect.stringMatching(/^5\d$/),
        "100",
        expect.anything(),
        "100",
        ...Array(4).fill(expect.anything()),
      ]);
    await page.getByText(/^5\d\s% of the kept channels are shared; by chance it would be 12.5\s%/).waitFor();
    await page.getByText(/^Layer \d differs most \(\d\d\s% shared\), layer \d least/).waitFor();
    await button("1 and 3: 100 per cent").click();
    await page.getByText(/^100\s% of the kept channels/).waitFor();
    await page.getByText("All layers share as much.").waitFor();
    expect(await button("1 and 3: 100 per cent").getAttribute("aria-pressed")).toBe("true");
    await button("Remove instruction 1").click();
    await expect.poll(() => textbox(/^Instruction/).count()).toBe(2);
  });

  test("the numbers of a mask are there for a finger, and for the keys", async () => {
    await open("compare");
    await textbox("Instruction 1").fill("plural");
    await textbox("Instruction 2").fill("number");
    await button("Compare").click();
    const strip = page.getByRole("slider").first();
    await strip.waitFor();
    const { x, y } = (await strip.boundingBox())!;
    await page.touchscreen.tap(x + 1, y + 40);
    await page.getByText(/Layer 2: 64 of 512 channels · \d+\s% specific · channels 0–3: \d of 4 kept/).waitFor();
    await strip.press("End");
    await page.getByText(/Layer 2: .* · channels 508–511: \d of 4 kept/).waitFor();
    await strip.press("ArrowUp");
    await strip.press("ArrowLeft");
    await page.getByText(/Layer 1: .* · channels 504–507: \d of 4 kept/).waitFor();
    expect(await strip.getAttribute("aria-valuetext")).toMatch(/^Layer 1: .* channels 504–507/);
  });

  test("a race tells why who won; further prompts run under its mask, warm, and are added up", async () => {
    await open("race");
    await textbox("Prompt").fill("plural of wolf");
    await button("Start").click();
    await page.getByText(/^(The .* was .* faster: .* instead of|Both took about as long)/).waitFor();
    await page.getByRole("cell", { name: /built and loaded in 87\sms/ }).waitFor();
    await textbox("Another prompt under the same mask").fill("number of wolves");
    await button("Run it").click();
    await page.getByRole("row", { name: /^2 number of wolves .*warm .*warm/ }).waitFor();
    await page.getByRole("row", { name: /^All 2/ }).waitFor();
    const [first, second] = service.asked.filter(({ mask }) => mask.kind !== "dense").map(({ mask }) => mask);
    expect(first).toEqual({ kind: "auto" });
    expect(second).toEqual({ kind: "id", id: expect.stringMatching(/^[0-9a-f]{16}$/) });
    await button("The same again").click();
    await page.getByRole("row", { name: /^All 3/ }).waitFor();
    await page.getByRole("link", { name: "Tasks" }).click();
    await page.getByRole("link", { name: "Race" }).click();
    await page.getByRole("row", { name: /^All 3/ }).waitFor(); // what was seen is there when the reader is back
    await button("Start").click(); // another race begins anew
    await expect.poll(() => page.getByRole("row", { name: /^All/ }).count()).toBe(0);
  });

  test("a task has any name and examples, which are edited", async () => {
    await open("tasks");
    await textbox("Name").fill("Bob's plurals, 100 %");
    await textbox("Instruction").fill("Write the plural.");
    await button("Add an example").click();
    await textbox("Input of example 1").fill("wolf");
    await textbox("Output of example 1").fill("wolves");
    await button("Save task").click();
    await page.getByRole("heading", { name: "Bob's plurals, 100 %" }).waitFor();
    expect(service.saved).toMatchObject([{ examples: [{ input: "wolf", output: "wolves" }] }]);
    await page.reload();
    await button("Edit task Bob's plurals, 100 %").click();
    expect(await textbox("Output of example 1").inputValue()).toBe("wolves");
    await textbox("Output of example 1").fill("wolfs");
    await button("Replace task").click();
    await page.getByText("1 example").click();
    await page.getByText("wolf → wolfs").waitFor();
    await button("Delete task Bob's plurals, 100 %").click();
    await button("Delete task Bob's plurals, 100 %: sure?").click();
    await expect.poll(() => service.saved).toEqual([]);
  });

  test("what is typed while a task is saved stays, and makes way for another task only after a question", async () => {
    await service.saveTask("default", "animals", "plural of the word");
    await open("tasks");
    let saved = () => {};
    const held = new Promise<void>((resolve) => {
      saved = resolve;
    });
    await page.route("**/ifprune/tasks/default/numbers", async (route) => {
      await held;
      await route.continue();
    });
    await textbox("Name").fill("numbers");
    await textbox("Instruction").fill("number in words");
    await button("Save task").click();
    await button("Saving …").waitFor();
    await textbox("Name").fill("next");
    saved();
    await page.getByRole("heading", { name: "numbers" }).waitFor();
    expect(await textbox("Name").inputValue()).toBe("next");
    await button("Edit task animals").click();
    await page.getByText("Replace what is typed?").waitFor();
    expect(await textbox("Name").inputValue()).toBe("next");
    await button("Edit task animals: sure?").click();
    await expect.poll(() => textbox("Name").inputValue()).toBe("animals");
    await button("Edit task numbers").click(); // what is saved as it stands there makes way at once
    await expect.poll(() => textbox("Name").inputValue()).toBe("numbers");
  });

  test("a task is exported by the command as it is shown", async () => {
    process.env.XDG_DATA_HOME = temporaryFolder();
    await using real = await openLocalService([{ id: "plurals", path: TINY_MODEL }]);
    await using serving = await servePage(real, built.files);
    await page.goto(`${serving.url}/#/tasks`);
    await textbox("Name").fill("Bob's plurals");
    await textbox("Instruction").fill("Write the plural form of the given word.");
    await button("Save task").click();
    const command = await page.locator(".command").innerText();
    expect(command).toBe("ifprune export tiny Bob-s-plurals --mask 'task:Bob'\\''s plurals'");
    const cwd = temporaryFolder();
    execFileSync("bash", ["-c", `ifprune() { "${process.execPath}" "${cli}" "$@"; }; ${command}`], { cwd });
    expect(readdirSync(`${cwd}/Bob-s-plurals`)).toContain("model-keep.gguf");
  });

  test("a model for one task: estimated, begun, stopped, gone on with after a reload; what comes is tried beside the whole one", async () => {
    service.served[1] = { ...service.served[1]!, isTrained: false, tFfn: 512 };
    await open("tasks");
    await page.getByText("ifprune serve --allow-specialize").waitFor(); // this server does not
    await using jobs = fakeJobs();
    await using making = await servePage(service, built.files, { jobs });
    await page.goto(`${making.url}/#/tasks`);
    await page.getByText("default is none to begin with").waitFor(); // its channels were trained under masks
    await button("Take other").click();
    const task = textbox(/^Task in words/);
    await task.fill("endless");
    await page.getByLabel("File of prompts").setInputFiles({
      ...{ name: "prompts.txt", mimeType: "text/plain" },
      buffer: Buffer.from("one\ntwo\n"),
    });
    await page.getByText("2 lines.").waitFor();
    await page.getByRole("spinbutton", { name: "Drafts like them" }).fill("40");
    await button("Estimate").click();
    await page.getByText(/^about 25\smin \(answers 4\smin/).waitFor();
    await page.getByText("prompts given, 40 more drafted").waitFor();
    await button("Start").dblclick();
    await button("Use these").click();
    await page.getByText(/63 of 96.*KL 0\.430.*about 25\smin in all/).waitFor();
    await page.getByRole("img", { name: /^Held-out KL/ }).waitFor();
    await button("Stop").click();
    await page.getByText("stopped", { exact: true }).waitFor();
    await task.fill("written later");
    await page.reload();
    expect(await task.inputValue()).toBe("written later");
    await button("Go on").click();
    await page.getByText("at work", { exact: true }).waitFor();
    await jobs.stop("endless");
    await button("Delete job endless").click();
    await button("Delete job endless: sure?").click();
    await expect.poll(() => jobs.list()).toEqual([]);

    await textbox(/^Task in words/).fill("Into SQL");
    await page.getByLabel("None: the model drafts them").check();
    await button("Estimate").click();
    await button("Start").click();
    await page.getByText("Do these drafts belong to the task?").waitFor();
    await button("Use these").click();
    await page.getByRole("row", { name: /^Held out: KL, nats a token 0 0\.440/ }).waitFor();
    await button("Try it beside other").click();
    await button("Start").click();
    await page.getByText(/“(other|Into-SQL)” was .* faster|Both took about as long/).waitFor();
    for (const name of ["other", "Into-SQL"]) await page.getByRole("heading", { name, exact: true }).waitFor();
    expect(service.asked.map(({ mask }) => mask.kind)).toEqual(["dense", "dense"]);
  });

  test("what a job was given stays in the form until the job has read it", async () => {
    service.served = service.served.map((one) => ({ ...one, isTrained: false, tFfn: 512 }));
    await using jobs = fakeJobs();
    await using making = await servePage(service, built.files, { jobs });
    await page.goto(`${making.url}/#/tasks`);
    const task = textbox(/^Task in words/);
    const rows = textbox(/^One a line/);
    await task.fill("unread");
    await rows.fill("one\ntwo\n");
    await button("Estimate").click();
    await page.getByText("wanted at least 32 different prompts, got 2").waitFor();
    expect(await rows.inputValue()).toBe("one\ntwo\n");
    await task.fill("read");
    await button("Estimate").click();
    await page.getByText(/^about 25\smin/).waitFor();
    await expect.poll(() => rows.inputValue()).toBe("");
  });

  test("a model that is added while another is tried stays", async () => {
    await using jobs = fakeJobs();
    jobs.begin({ name: "sql", model: "gone", rows: "prompts" }, "/models/gone", "How many films?\n");
    await expect.poll(() => jobs.list()[0]!.state).toBe("asks");
    jobs.goOn("sql");
    await expect.poll(() => jobs.list()[0]!.state).toBe("done");
    await using making = await servePage(service, built.files, { jobs, allowModels: true });
    await page.goto(`${making.url}/#/tasks`);
    let serve = () => {};
    const held = new Promise<void>((resolve) => {
      serve = resolve;
    });
    await page.route("**/sql/serve", async (route) => {
      await held;
      await route.continue();
    });
    await button("Try it").click();
    await page.getByRole("link", { name: "Models" }).click();
    await textbox(/folder/).fill("owner/quick");
    await button("Add").click();
    await page.getByRole("heading", { name: "quick" }).waitFor();
    serve();
    const chosen = page.getByRole("combobox", { name: "Model" });
    await expect.poll(() => chosen.inputValue()).toBe("sql");
    expect(await chosen.getByRole("option").allInnerTexts()).toEqual(["default", "other", "quick", "sql"]);
  });

  test("models are listed with sizes and what their masks cost, and chosen", async () => {
    const rows = [{ source: "griffin", tFfn: 384, loss: 0.21, agreement: 0.87 }];
    const quality = { prompts: 6, tokens: 100, rows };
    service.served[1] = { ...service.served[1]!, isTrained: false, source: "griffin", tFfn: 512, quality };
    await open("models");
    const cards = page.getByRole("listitem");
    expect(await cards.nth(0).innerText()).toMatch(
      /trained masks[\s\S]*135 M parameters, 98\sMB on disk[\s\S]*12.5\s% of the FFN/,
    );
    await cards
      .nth(1)
      .getByText(/^untrained masks: 0\.21 nats lost at 75\s%$/)
      .waitFor();
    await cards.nth(1).getByText("What masks without training cost it").click();
    await page.getByRole("row", { name: /^75\s% griffin 0\.21 87\s%/ }).waitFor();
    await cards.nth(1).getByRole("button", { name: "Use" }).click();
    expect(await page.getByRole("combobox", { name: "Model" }).inputValue()).toBe("other");
    await page.getByText("ifprune serve --allow-models").waitFor(); // this server does not
  });

  test("a model that came to the server by another way is shown without a reload", async () => {
    await open("models");
    await page.getByRole("heading", { name: "other" }).waitFor();
    service.served.push({ ...service.served[0]!, id: "newcomer" });
    await page.getByRole("heading", { name: "newcomer" }).waitFor(); // the page asks every four seconds
    expect(await page.getByRole("combobox", { name: "Model" }).innerText()).toContain("newcomer");
  });

  test("a model is added with its progress where the server allows it; stopping stops it there", async () => {
    await using allowing = await servePage(service, built.files, { allowModels: true });
    await page.goto(`${allowing.url}/#/models`);
    const name = textbox(/folder/);
    await name.fill("nothing");
    await button("Add").click();
    await page.getByRole("alert").getByText("wanted a folder, or the name of a model, got neither").waitFor();
    await name.fill("owner/slow");
    await button("Add").click();
    await page.getByText("Downloading: owner/slow").waitFor();
    await page.getByRole("link", { name: "Tasks" }).click();
    await page.getByRole("link", { name: "Models" }).click();
    await page.getByText("Downloading: owner/slow").waitFor(); // it goes on meanwhile
    await button("Stop").click();
    await expect.poll(() => service.stopped).toBe(1);
    expect(await page.getByRole("alert").count()).toBe(0);
    await name.fill("owner/quick");
    await button("Add").click();
    await page.getByRole("heading", { name: "quick" }).waitFor();
    await expect.poll(() => page.getByRole("combobox", { name: "Model" }).innerText()).toContain("quick");
  });
});
