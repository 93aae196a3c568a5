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

/** What is wrong with the browser's storage, for people; empty when nothing is. */
export const storageTrouble = new Store("");

/**
 * @param isValid whether parsed JSON has the wanted form: storage keeps what older versions and other pages of the same address wrote
 * @returns `fallback` where there is nothing of that form
 */
export function readStored<T>(key: string, isValid: (value: unknown) => value is T, fallback: T): T {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(`ifprune.${key}`) ?? "null");
    return isValid(value) ? value : fallback;
  } catch {
    return fallback;
  }
}

/** Keeps a value, or says in `storageTrouble` that it is not kept. @returns whether it is kept */
export function writeStored(key: string, value: unknown): boolean {
  try {
    localStorage.setItem(`ifprune.${key}`, JSON.stringify(value));
    storageTrouble.set("");
    return true;
  } catch {
    storageTrouble.set(
      "The browser's storage is full or switched off: what you do now is gone when you close the page.",
    );
    return false;
  }
}

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
