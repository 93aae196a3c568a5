/** How answers are asked for. Kept in the browser for each model; what the page shows is that of the chosen one. */
import { modelId } from "./session.ts";
import { isObject, onStored, readStored, Store, writeStored } from "./store.ts";

export interface Settings {
  /** Which part of the model answers: `auto`, `dense` or `task:NAME`. */
  mask: string;
  /** Share of the FFN that masks made for a prompt keep, or `auto`. Absent: as the model does. */
  keep?: number | "auto" | undefined;
  /** System message; empty: none. */
  system: string;
  temperature: number;
  topP: number;
  /** Absent: another for each answer. */
  seed?: number | undefined;
  /** Texts that end an answer. */
  stop: string[];
  maxTokens: number;
}

export const defaultSettings: Settings = {
  mask: "auto",
  system: "",
  temperature: 0,
  topP: 1,
  stop: [],
  maxTokens: 256,
};

const isSettings = (value: unknown): value is Settings =>
  isObject(value) &&
  typeof value.mask === "string" &&
  (value.keep === undefined || value.keep === "auto" || typeof value.keep === "number") &&
  typeof value.system === "string" &&
  typeof value.temperature === "number" &&
  typeof value.topP === "number" &&
  (value.seed === undefined || typeof value.seed === "number") &&
  Array.isArray(value.stop) &&
  value.stop.every((text) => typeof text === "string") &&
  typeof value.maxTokens === "number";

const keyStart = "settings.";
/** By model, as the browser may not keep them. */
const byModel = new Map<string, Settings>();

function settingsOf(model: string): Settings {
  const found = byModel.get(model) ?? readStored(keyStart + model, isSettings, defaultSettings);
  byModel.set(model, found);
  return found;
}

/** Of the chosen model. */
export const settings = new Store<Settings>(settingsOf(modelId.value));
const showSettings = () => settings.set(settingsOf(modelId.value));
modelId.subscribe(showSettings);
// What another tab has changed counts here too, and is not undone by the next change.
onStored((key) => {
  if (key === undefined) byModel.clear();
  else if (key.startsWith(keyStart)) byModel.delete(key.slice(keyStart.length));
  else return;
  showSettings();
});

export function changeSettings(change: Partial<Settings>): void {
  settings.set({ ...settings.value, ...change });
  byModel.set(modelId.value, settings.value);
  writeStored(keyStart + modelId.value, settings.value);
}

/** The share that a request for a mask asks for, where the reader has chosen one. */
export function keptShare(): { keep?: number | "auto" } {
  const { keep } = settings.value;
  return keep === undefined ? {} : { keep };
}
