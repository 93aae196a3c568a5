/** Values that views share, and the browser's storage. */
import { useLayoutEffect, useReducer } from "preact/hooks";

/** A value that tells its readers when it changes. */
export class Store<T> {
  #listeners = new Set<() => void>();
  #value: T;
  constructor(value: T) {
    this.#value = value;
  }
  get value(): T {
    return this.#value;
  }
  set(value: T): void {
    this.#value = value;
    for (const listener of this.#listeners) listener();
  }
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

export function useStore<T>(store: Store<T>): T {
  const [, update] = useReducer((count: number) => count + 1, 0);
  useLayoutEffect(() => store.subscribe(() => update(undefined)), [store]);
  return store.value;
}

const kept = new Map<string, Store<unknown>>();

/** State that outlives the view, though not the page. */
export function keptStore<T>(name: string, initial: T): Store<T> {
  if (!kept.has(name)) kept.set(name, new Store<unknown>(initial));
  return kept.get(name) as Store<T>;
}

export function useKept<T>(name: string, initial: T): [T, (value: T) => void] {
  const store = keptStore(name, initial);
  return [useStore(store), (value) => store.set(value)];
}

/** What is wrong with the browser's storage, for people; empty when nothing is. */
export const storageTrouble = new Store("");

const prefix = "ifprune.";

/** Keys under which something is kept, of those that begin so. */
export function storedKeys(start: string): string[] {
  try {
    const keys = Array.from({ length: localStorage.length }, (_, i) => localStorage.key(i) ?? "");
    return keys.filter((key) => key.startsWith(prefix + start)).map((key) => key.slice(prefix.length));
  } catch {
    return [];
  }
}

/** What is kept, as it was written; null where there is nothing, or the browser says nothing. */
export function storedText(key: string): string | null {
  try {
    return localStorage.getItem(prefix + key);
  } catch {
    return null;
  }
}

/** Calls back when another tab has written something or removed it (null). It may be late: there may be something else now. No key: all is gone. */
export function onStored(listener: (key: string | undefined, text: string | null) => void): void {
  addEventListener("storage", ({ key, newValue }) => {
    if (key !== null && !key.startsWith(prefix)) return;
    const own = key?.slice(prefix.length);
    noteLost(own, false); // it is now as that tab has left it
    listener(own, newValue);
  });
}

/**
 * @param isValid whether parsed JSON has the wanted form: storage keeps what older versions and other pages of the same address wrote
 * @returns `fallback` where there is nothing of that form
 */
export function readStored<T>(key: string, isValid: (value: unknown) => value is T, fallback: T): T {
  return parseStored(storedText(key), isValid) ?? fallback;
}

/** @returns nothing where a text is not JSON of the wanted form */
export function parseStored<T>(text: string | null, isValid: (value: unknown) => value is T): T | undefined {
  try {
    const value: unknown = JSON.parse(text ?? "null");
    return isValid(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Keys whose last value is not kept. */
const lost = new Set<string>();

/** @param key none: all */
function noteLost(key: string | undefined, isLost: boolean): void {
  if (key === undefined) lost.clear();
  else if (isLost) lost.add(key);
  else lost.delete(key);
  storageTrouble.set(
    lost.size > 0
      ? "The browser's storage is full or switched off: what you do now is gone when you close the page."
      : "",
  );
}

/** Keeps a value, or says in `storageTrouble` that it is not kept. @returns whether it is kept */
export function writeStored(key: string, value: unknown): boolean {
  let isKept = true;
  try {
    localStorage.setItem(prefix + key, JSON.stringify(value));
  } catch {
    isKept = false;
  }
  noteLost(key, !isKept);
  return isKept;
}

export function removeStored(key: string): void {
  noteLost(key, false);
  try {
    localStorage.removeItem(prefix + key);
  } catch {
    // where nothing may be written, there is nothing
  }
}

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
