/** What all views share: the served models, the chosen one, its tasks, the theme, whether the server is there and wants a key. */
import {
  ApiError,
  getModels,
  getState,
  getTasks,
  onUnauthorized,
  type SavedTask,
  type ServedModel,
  type ServiceState,
} from "./api.ts";
import { readStored, Store, writeStored } from "./store.ts";

export type Loaded<T> = { state: "loading" } | { state: "failed"; error: unknown } | { state: "ready"; value: T };

export const models = new Store<Loaded<ServedModel[]>>({ state: "loading" });
export const modelId = new Store<string>(
  readStored("model", (value): value is string => typeof value === "string", ""),
);
/** Of the chosen model. */
export const tasks = new Store<Loaded<SavedTask[]>>({ state: "loading" });
/** Whether the server wants a key that it was not given. `put away`: the reader gives none, until they ask the server for something. */
export const keyState = new Store<"given" | "wanted" | "put away">("given");
/** `undefined` before the first answer, `null` while the server does not answer. */
export const serviceState = new Store<ServiceState | null | undefined>(undefined);

onUnauthorized(() => keyState.set("wanted"));

/** @param isQuiet what is shown stays until others are there */
export async function loadModels(isQuiet = false): Promise<void> {
  if (!isQuiet) models.set({ state: "loading" });
  try {
    const value = await getModels();
    models.set({ state: "ready", value });
    keyState.set("given");
    if (!value.some(({ id }) => id === modelId.value)) modelId.set(value[0]?.id ?? "");
    await loadTasks();
  } catch (error) {
    models.set({ state: "failed", error });
  }
}

/** Puts a model that the server serves now among the others. */
export function addServed(model: ServedModel): void {
  const served = models.value;
  if (served.state !== "ready" || served.value.some(({ id }) => id === model.id)) return;
  models.set({ state: "ready", value: [...served.value, model] });
}

export function chooseModel(id: string): void {
  modelId.set(id);
  writeStored("model", id);
  tasks.set({ state: "loading" }); // not those of another model meanwhile
  void loadTasks();
}

export async function loadTasks(): Promise<void> {
  const model = modelId.value;
  if (!model) return tasks.set({ state: "ready", value: [] });
  try {
    const value = await getTasks(model);
    if (model === modelId.value) tasks.set({ state: "ready", value });
  } catch (error) {
    if (model === modelId.value) tasks.set({ state: "failed", error });
  }
}

/** Asks how the server is. One that came back, or has other models than are shown, gets them asked again. */
export async function askServer(): Promise<void> {
  if (document.hidden || keyState.value !== "given") return;
  try {
    const state = await getState(AbortSignal.timeout(10_000));
    const wasAway = serviceState.value === null; // it may be another one now
    serviceState.set(state);
    if (models.value.state === "failed") await loadModels();
    else if (wasAway || !isShown(state.models)) await loadModels(true);
  } catch (error) {
    // A server that answers with an error is there; a request that ran out of time is not answered.
    if (!(error instanceof ApiError) || error.status === "unreachable") serviceState.set(null);
  }
}

function isShown(ids: readonly string[]): boolean {
  const shown = models.value;
  return shown.state !== "ready" || shown.value.map(({ id }) => id).join(" ") === ids.join(" ");
}

/** Asks every few seconds while the page is seen. */
export function watchServer(): () => void {
  void askServer();
  const timer = setInterval(askServer, 4000);
  return () => clearInterval(timer);
}

export type Theme = "system" | "light" | "dark";
const isTheme = (value: unknown): value is Theme => value === "system" || value === "light" || value === "dark";
export const theme = new Store<Theme>(readStored("theme", isTheme, "system"));

export function setTheme(value: Theme): void {
  theme.set(value);
  if (value !== "system") document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
}
