/** Masks that the page has met: by id from the server, and those of recent prompts from the browser's storage, to compare with. */
import { getMask } from "./api.ts";
import { type Bits, decodeLayers } from "./channels.ts";
import { isObject, onStored, readStored, Store, writeStored } from "./store.ts";

/** Prompts whose masks a mask is compared with. */
const maxRecent = 24;

interface History {
  /** Latest last. A prompt is a conversation: regenerating its answer is not another prompt. */
  recent: { prompt: string; id: string }[];
  /** Layers in base64, by id. */
  masks: Record<string, string[]>;
}

const isHistory = (value: unknown): value is History =>
  isObject(value) &&
  Array.isArray(value.recent) &&
  value.recent.every((entry) => isObject(entry) && typeof entry.prompt === "string" && typeof entry.id === "string") &&
  isObject(value.masks) &&
  Object.values(value.masks).every((mask) => Array.isArray(mask) && mask.every((layer) => typeof layer === "string"));

const keyStart = "masks.";
const readHistory = (model: string): History => readStored(keyStart + model, isHistory, { recent: [], masks: {} });
/** By model. */
const histories = new Map<string, Store<History>>();
// What another tab has met counts here too, and is not undone by what is met next.
onStored((key) => {
  for (const [model, history] of histories)
    if (key === undefined || key === keyStart + model) history.set(readHistory(model));
});

export function maskHistory(model: string): Store<History> {
  let history = histories.get(model);
  if (!history) {
    history = new Store(readHistory(model));
    histories.set(model, history);
  }
  return history;
}

export function rememberMask(model: string, prompt: string, id: string, layers: string[]): void {
  const history = maskHistory(model);
  const recent = [...history.value.recent.filter((entry) => entry.prompt !== prompt), { prompt, id }].slice(-maxRecent);
  const known: Record<string, string[]> = { ...history.value.masks, [id]: layers };
  const masks = Object.fromEntries(recent.map((entry) => [entry.id, known[entry.id]!]));
  history.set({ recent, masks });
  writeStored(keyStart + model, history.value);
}

/** Masks of other recent prompts. Those that cannot be decoded are left out. */
export function otherMasks({ recent, masks }: History, prompt: string): Bits[] {
  return recent
    .filter((entry) => entry.prompt !== prompt)
    .flatMap(({ id }) => {
      try {
        return [decodeLayers(masks[id] ?? [])];
      } catch {
        return [];
      }
    });
}

const loading = new Map<string, Promise<string[]>>();

/** Layers of a mask in base64; asked of the server once. @throws {ApiError} */
export function maskLayers(model: string, id: string): Promise<string[]> {
  const key = `${model}\n${id}`;
  let layers = loading.get(key);
  if (!layers) {
    const stored = maskHistory(model).value.masks[id];
    layers = stored ? Promise.resolve(stored) : getMask(model, id).then((mask) => mask.layers);
    loading.set(key, layers);
    layers.catch(() => loading.delete(key));
  }
  return layers;
}
