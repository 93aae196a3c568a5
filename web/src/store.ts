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

const prefix = "ifprune.";

const kept = new Map<string, { store: Store<unknown>; initial: unknown }>();

/** State that outlives the view, and for its tab the page: it is there after a reload, and when a phone brings back a tab that it had let go. */
export function keptStore<T>(name: string, initial: T): Store<T> {
  let own = kept.get(name);
  if (!own) {
    const isLikeIt = (value: unknown): value is T => isLike(initial, value);
    const store = new Store<unknown>(parseStored(sessionText(keptKey(name)), isLikeIt) ?? initial);
    own = { store, initial };
    kept.set(name, own);
  }
  return own.store as Store<T>;
}

const keptKey = (name: string): string => `${prefix}kept.${name}`;

function sessionText(key: string): string | null {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

/** Has what is to outlive the page written once that may go: not at each key that is pressed, as what is typed may be megabytes. */
export function keepForTab(): void {
  addEventListener("pagehide", writeKept);
  document.addEventListener("visibilitychange", writeKept);
}

function writeKept(): void {
  for (const [name, { store, initial }] of kept)
    try {
      if (store.value === initial) sessionStorage.removeItem(keptKey(name));
      else sessionStorage.setItem(keptKey(name), JSON.stringify(store.value));
    } catch {
      // full or switched off: it goes with the page, as it did
    }
}

/** Whether a value has the form of another, all of whose entries it has: an older page may have written it. */
function isLike(form: unknown, value: unknown): boolean {
  if (form === undefined) return true;
  if (Array.isArray(form)) return Array.isArray(value) && value.every((one) => isLike(form[0], one));
  if (isObject(form)) return isObject(value) && Object.keys(form).every((key) => isLike(form[key], value[key]));
  return typeof value === typeof form;
}

export function useKept<T>(name: string, initial: T): [T, (value: T) => void] {
  const store = keptStore(name, initial);
  return [useStore(store), (value) => store.set(value)];
}

const held = new Map<string, Store<unknown>>();

/** State that outlives the view but not the page: results, which a server would give again. */
export function useHeld<T>(name: string): [T | undefined, (value: T | undefined) => void] {
  if (!held.has(name)) held.set(name, new Store<unknown>(undefined));
  const store = held.get(name) as Store<T | undefined>;
  return [useStore(store), (value) => store.set(value)];
}

/** What is wrong with the browser's storage, for people; empty when nothing is. */
export const storageTrouble = new Store("");

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
