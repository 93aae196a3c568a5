/** What a reader meets: views of the page in their states. Each is checked by `accessibility.test.ts`, and those with a picture are drawn by `figures.ts`. */
import type { Page } from "playwright-core";
import { ContextLengthError } from "../../src/errors.ts";
import type { InferenceService } from "../../src/serve/service.ts";
import type { SpecializeJobs } from "../../src/specialize/jobs.ts";
import { FakeService } from "./fakeService.ts";

interface State {
  name: string;
  /** In the address. */
  view: "chat" | "compare" | "race" | "tasks" | "models";
  /** Whether the server takes further models. */
  allowModels?: boolean;
  /** Whether it makes models for tasks. */
  allowSpecialize?: boolean;
}

/** A state that docs/figures has, as a real service brings it about. */
export interface FigureState extends State {
  isFigure: true;
  /** Brings the view, which is open, into its state. */
  show: (page: Page, service: InferenceService) => Promise<void>;
}

/** A state that wants what only the fake service does. */
export interface FakeState extends State {
  isFigure?: false;
  show: (page: Page, service: FakeService, jobs: SpecializeJobs) => Promise<void>;
}

export type ViewState = FigureState | FakeState;

/** A model of the size of SmolLM2-135M, pruned and not. */
export function smolService(): FakeService {
  const service = new FakeService({ numLayers: 30, dFfn: 1536, tFfn: 768 });
  const quality = {
    ...{ prompts: 6, tokens: 131 },
    rows: [
      { source: "griffin", tFfn: 1376, loss: 0.03, agreement: 0.97 },
      { source: "griffin", tFfn: 1152, loss: 0.21, agreement: 0.87 },
      { source: "griffin", tFfn: 768, loss: 1.34, agreement: 0.55 },
      { source: "weights", tFfn: 1376, loss: 0.62, agreement: 0.72 },
      { source: "weights", tFfn: 1152, loss: 2.1, agreement: 0.41 },
      { source: "weights", tFfn: 768, loss: 4.4, agreement: 0.12 },
    ],
  };
  const model = service.served[0]!;
  const id = "SmolLM2-135M-Instruct";
  service.served = [
    { ...model, id: "smollm2-pruned", location: "/models/smollm2-pruned", contextLength: 4096 },
    {
      ...model,
      id,
      location: `HuggingFaceTB/${id}`,
      isTrained: false,
      source: "griffin",
      tFfn: 1536,
      quality,
      contextLength: 4096,
    },
  ];
  service.tokenMs = 6;
  service.loadMs = 240;
  return service;
}

/** Of kinds that the tiny model knows, two of them the same. */
const instructions = [
  "What is the plural of window?",
  "What is the plural of wolf?",
  "How do you write 4711 in words?",
  "Write the first letter of the word. Input: tree",
];

async function send(page: Page, text: string): Promise<void> {
  const box = page.getByRole("textbox", { name: "Message" });
  await box.fill(text);
  await box.press("Enter");
}

async function ask(page: Page, text: string): Promise<void> {
  await send(page, text);
  await page.getByRole("slider").waitFor(); // the mask of its answer
}

const press = (page: Page, name: string) => page.getByRole("button", { name, exact: true }).click();

/** Of the last model with trained masks: the larger one, where there are two. */
async function race(page: Page, service: InferenceService): Promise<void> {
  const { id } = service.models().findLast(({ isTrained }) => isTrained)!;
  await page.getByRole("combobox", { name: "Model", exact: true }).selectOption(id);
  await page.getByRole("textbox", { name: "Prompt" }).fill("Name three fruits.");
  await page.getByRole("button", { name: "Start" }).click();
  await page.getByRole("table").waitFor();
}

export const states: readonly ViewState[] = [
  {
    name: "chat-empty",
    view: "chat",
    show: (page) => page.getByRole("textbox", { name: "Message" }).waitFor(),
  },
  {
    name: "chat",
    view: "chat",
    isFigure: true,
    show: async (page) => {
      await ask(page, instructions[2]!);
      await page.getByRole("button", { name: "New chat" }).click();
      await ask(page, instructions[0]!);
      await page.getByText("shared with 1 recent prompt").waitFor();
    },
  },
  {
    name: "chat-waiting",
    view: "chat",
    show: async (page, service) => {
      service.holdAt = "load";
      await send(page, "markdown");
      await page.getByRole("status").getByText("Loading").waitFor();
    },
  },
  {
    name: "chat-details",
    view: "chat",
    show: async (page) => {
      await ask(page, "markdown");
      await page.getByText("Details").click();
    },
  },
  {
    name: "chat-editing",
    view: "chat",
    show: async (page) => {
      await ask(page, "markdown");
      await press(page, "Edit the question");
      await page.getByRole("textbox", { name: "The question" }).waitFor();
    },
  },
  {
    name: "chat-renaming",
    view: "chat",
    show: async (page) => {
      await ask(page, "markdown");
      await press(page, "Rename");
    },
  },
  {
    name: "chat-stopped",
    view: "chat",
    show: async (page) => {
      await send(page, "endless");
      await page.getByText("word word").waitFor();
      await press(page, "Stop");
      await page.getByText("Stopped by you.").waitFor();
    },
  },
  {
    name: "chat-failed",
    view: "chat",
    show: async (page, service) => {
      service.failure = new ContextLengthError(2304, 2048);
      await send(page, "first");
      await page.getByRole("alert").waitFor();
    },
  },
  {
    name: "chat-badge",
    view: "chat",
    show: (page) => page.locator(".badge-words").click(),
  },
  {
    name: "chat-settings",
    view: "chat",
    show: async (page) => {
      await press(page, "Settings");
      await page.getByRole("dialog").waitFor();
    },
  },
  {
    name: "chat-list",
    view: "chat",
    show: async (page) => {
      await ask(page, "markdown");
      const list = page.getByRole("button", { name: "Conversations", exact: true });
      if (await list.isVisible()) await list.click(); // beside the chat on a wide screen
      await page.getByRole("searchbox").waitFor();
    },
  },
  {
    name: "compare-empty",
    view: "compare",
    show: (page) => page.getByText("What do instructions share?").waitFor(),
  },
  {
    name: "compare",
    view: "compare",
    isFigure: true,
    show: async (page) => {
      for (const [i, text] of instructions.entries()) {
        if (i > 1) await page.getByRole("button", { name: "Another instruction" }).click();
        await page.getByRole("textbox", { name: `Instruction ${i + 1}` }).fill(text);
      }
      await page.getByRole("button", { name: "Compare", exact: true }).click();
      await page.getByRole("button", { name: /^1 and 3/ }).click();
      await page.getByRole("heading", { name: "Instructions 1 and 3" }).waitFor();
    },
  },
  {
    name: "race-empty",
    view: "race",
    show: (page) => page.getByText("How much faster is the part?").waitFor(),
  },
  {
    name: "race",
    view: "race",
    isFigure: true,
    show: async (page, service) => {
      await race(page, service);
      await page.getByRole("button", { name: "The same again" }).click();
      await page.getByRole("row", { name: /^All 2/ }).waitFor();
    },
  },
  {
    name: "tasks-empty",
    view: "tasks",
    show: (page) => page.getByText("No tasks yet").waitFor(),
  },
  {
    name: "tasks",
    view: "tasks",
    isFigure: true,
    show: async (page, service) => {
      const { id } = service.models()[0]!;
      const examples = [
        { input: "wolf", output: "wolves" },
        { input: "child", output: "children" },
      ];
      await service.saveTask(id, "plurals", "Write the plural of the word.", { examples });
      await service.saveTask(id, "numbers & words", "Write the number in English words");
      await service.saveTask(id, "into French", "Write the French translation of the word");
      await page.reload();
      await page.getByRole("button", { name: "Edit task plurals" }).click();
      await page.getByRole("slider").nth(2).waitFor();
      await page.getByRole("table").waitFor();
    },
  },
  {
    name: "specialize", // jobs in all of their states, and the form with all of its fields
    view: "tasks",
    allowSpecialize: true,
    show: async (page, _, jobs) => {
      const model = "SmolLM2-135M-Instruct";
      const reaches = async (name: string, state: string) => {
        while (jobs.list().find(({ asked }) => asked.name === name)!.state !== state) await page.waitForTimeout(20);
      };
      const begin = async (name: string, task: string, rows?: "prompts", keep?: "auto") => {
        jobs.begin({ name, model, task, rows, keep }, model, rows);
        await reaches(name, "asks");
      };
      await begin("drafted", "Write the plural of the word.");
      jobs.goOn("drafted");
      await reaches("drafted", "asks");
      for (const [name, task, state] of [
        ["failed", "fails", "failed"],
        ["sql", "Translate the question into SQL:", "done"],
      ] as const) {
        await begin(name, task, "prompts");
        jobs.goOn(name);
        await reaches(name, state);
      }
      await begin("running", "endless", "prompts", "auto");
      jobs.goOn("running");
      await page.getByRole("combobox", { name: "Model", exact: true }).selectOption(model);
      await page.getByText("1 answer side by side").click();
      await page.getByRole("combobox", { name: "Keep" }).last().selectOption("auto");
      await page.getByText("Training", { exact: true }).waitFor();
    },
  },
  {
    name: "models",
    view: "models",
    isFigure: true,
    show: async (page) => {
      await page.getByText("What masks without training cost it").click();
      await page.getByRole("heading", { name: "More models" }).waitFor();
    },
  },
  {
    name: "models-adding",
    view: "models",
    allowModels: true,
    show: async (page) => {
      await page.getByRole("textbox", { name: /folder/ }).fill("owner/slow");
      await page.getByRole("button", { name: "Add" }).click();
      await page.getByText("24.5 MB of 98 MB").waitFor();
    },
  },
  {
    name: "models-failed",
    view: "models",
    allowModels: true,
    show: async (page) => {
      await page.getByRole("textbox", { name: /folder/ }).fill("nothing");
      await page.getByRole("button", { name: "Add" }).click();
      await page.getByRole("alert").waitFor();
    },
  },
];
