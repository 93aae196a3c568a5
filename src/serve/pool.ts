/**
 * Things that are costly to load, such as sub-networks, kept within a budget of bytes and lent to several users at a time.
 *
 * Who waits longest is served first, with one exception: while someone waits for memory, what is loaded is still lent to those behind, a limited number
 * of times. What goes first is decided by GreedyDual-Size: unused for long, quick to load for its bytes.
 *
 * @see Cao & Irani, "Cost-Aware WWW Proxy Caching Algorithms", USITS 1997
 */

import { byteSize } from "../bundle/memory.ts";
import { InputError, MemoryError } from "../errors.ts";

/** What loading does, one after the other. */
export type LoadStage = "gather" | "load";

export interface Loaded<T> {
  value: T;
  /** "loaded" where most of it was. */
  from: "loaded" | "disk" | "cold";
  /** What it took. */
  ms: Record<LoadStage, number>;
}

export interface PoolItem<T> {
  key: string;
  /** While it is loading and loaded, beside what it shares. */
  bytes: number;
  /** Memory that all items of this key have in common. */
  shared: { key: string; bytes: number };
  /**
   * @param signal aborts when nobody waits for it any more
   * @param report what it does now
   */
  load(signal: AbortSignal, report: (stage: LoadStage) => void): Promise<Loaded<T>>;
  /**
   * Makes it of one that nobody uses, where that is much cheaper than loading and keeping another: of those that share memory with it. Without it each is
   * loaded.
   */
  turn?: ((unused: T) => Promise<Loaded<T>>) | undefined;
}

export interface Lease<T> {
  value: T;
  from: Loaded<T>["from"];
  ms: Loaded<T>["ms"];
  /** The first call counts. */
  release(): void;
}

interface Entry<T> {
  item: PoolItem<T>;
  /** Undefined while it loads. */
  loaded: Loaded<T> | undefined;
  loading: AbortController;
  /** Of its loading. */
  stage: LoadStage;
  isClosing: boolean;
  users: number;
  /** The lowest goes first. */
  rank: number;
}

interface Waiter<T> {
  item: PoolItem<T>;
  /** What was loaded when it came. */
  found: Entry<T> | undefined;
  /** How often someone behind was served while it was waiting for memory. */
  overtaken: number;
  /** What it waited for when it was last told. */
  stage: LoadStage | "queue" | undefined;
  report(stage: LoadStage | "queue"): void;
  accept(lease: Lease<T>): void;
  refuse(error: unknown): void;
}

const maxOvertaken = 16;

export interface PoolOptions {
  /** Bytes of all that is loaded, loading, or being freed. */
  budget: number;
  /** Most users of one item at a time. */
  slots: number;
}

export class Pool<T extends AsyncDisposable> implements AsyncDisposable {
  readonly #options: PoolOptions;
  readonly #entries = new Map<string, Entry<T>>();
  readonly #waiters = new Set<Waiter<T>>();
  /** Rank of what went last: what is used now ranks above it. */
  #age = 0;
  #closed: (() => void) | undefined;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /**
   * Lends an item. It is loaded once for all who ask meanwhile; loading is abandoned when all of them have gone.
   *
   * @param signal ends the wait
   * @param report what is waited for: memory or a slot ("queue"), or loading
   * @throws {MemoryError} if the item alone is more than the budget
   * @throws what loading it throws
   */
  acquire(
    item: PoolItem<T>,
    signal: AbortSignal,
    report: (stage: LoadStage | "queue") => void = () => {},
  ): Promise<Lease<T>> {
    signal.throwIfAborted();
    if (this.#closed) throw new InputError("pool: wanted one that is open, got a closed one.");
    const { budget } = this.#options;
    const needed = item.bytes + item.shared.bytes;
    if (needed > budget) {
      throw new MemoryError(
        `memory: wanted ${byteSize(needed)} for one model, got a limit of ${byteSize(budget)}. Raise it, or use a smaller context, fewer sequences or a smaller t_ffn.`,
      );
    }
    return new Promise((resolve, reject) => {
      const settle = () => {
        signal.removeEventListener("abort", leave);
        this.#waiters.delete(waiter);
      };
      const entry = this.#entries.get(item.key);
      const waiter: Waiter<T> = {
        item,
        found: entry?.loaded && entry,
        overtaken: 0,
        stage: undefined,
        report,
        accept: (lease) => {
          settle();
          resolve(lease);
        },
        refuse: (error) => {
          settle();
          reject(error);
        },
      };
      const leave = () => {
        waiter.refuse(signal.reason);
        const isWanted = [...this.#waiters].some((other) => other.item.key === item.key);
        const left = this.#entries.get(item.key);
        if (left && !left.loaded && !isWanted) left.loading.abort();
        this.#serve();
      };
      signal.addEventListener("abort", leave);
      this.#waiters.add(waiter);
      this.#serve();
    });
  }

  /** What is loaded, loading or being freed, with the bytes of its own. */
  items(): { key: string; shared: string; bytes: number; users: number; isLoaded: boolean }[] {
    return [...this.#entries.values()].map(({ item: { key, shared, bytes }, users, loaded, isClosing }) => {
      return { key, shared: shared.key, bytes, users, isLoaded: loaded !== undefined && !isClosing };
    });
  }

  /** All bytes that count against the budget. */
  get bytes(): number {
    return totalBytes([...this.#entries.values()].map(({ item }) => item));
  }

  /** Refuses who waits, and frees everything once it is not in use. */
  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#closed = resolve;
    });
    for (const waiter of this.#waiters)
      waiter.refuse(new InputError("pool: wanted one that is open, got a closed one."));
    for (const entry of this.#entries.values()) {
      entry.loading.abort();
      this.#closeIfIdle(entry);
    }
    if (this.#entries.size > 0) await closed;
  }

  /** Gives out all that can be given, and starts loading and freeing for the rest. Called after every change. */
  #serve(): void {
    let starving: Waiter<T> | undefined;
    for (const waiter of this.#waiters) {
      const entry = this.#entries.get(waiter.item.key);
      const unused = entry ? undefined : this.#turnable(waiter.item);
      const isThere = entry ? entry.loaded && !entry.isClosing && entry.users < this.#options.slots : unused;
      if (isThere) {
        if (starving && ++starving.overtaken > maxOvertaken) continue;
        if (entry) this.#lend(waiter, entry, entry.loaded!);
        else void this.#load(waiter.item, unused);
      } else if (!entry && !starving) {
        if (this.#makeRoom(waiter.item)) void this.#load(waiter.item);
        else starving = waiter;
      }
    }
    this.#tell();
  }

  /** Tells who waits what for, where that has changed. */
  #tell(): void {
    for (const waiter of this.#waiters) {
      const entry = this.#entries.get(waiter.item.key);
      const stage = entry && !entry.loaded ? entry.stage : "queue";
      if (stage !== waiter.stage) waiter.report(stage);
      waiter.stage = stage;
    }
  }

  /** Whether an item may be loaded now. Frees what is needed, but nothing where that would not be enough. */
  #makeRoom(item: PoolItem<T>): boolean {
    const { budget } = this.#options;
    const entries = [...this.#entries.values()];
    const staying = new Set(entries.filter(({ isClosing }) => !isClosing));
    const fits = () => totalBytes([item, ...[...staying].map((entry) => entry.item)]) <= budget;
    const goes: Entry<T>[] = [];
    for (const entry of entries.filter(isIdle).sort((a, b) => a.rank - b.rank)) {
      if (fits()) break;
      staying.delete(entry);
      goes.push(entry);
    }
    if (!fits()) return false;
    for (const entry of goes) {
      this.#age = Math.max(this.#age, entry.rank);
      this.#closeIfIdle(entry);
    }
    return totalBytes([item, ...entries.map((entry) => entry.item)]) <= budget; // else when they are gone
  }

  /** What an item can be made of: of those that are not in use, the one that goes first. */
  #turnable({ turn, shared }: PoolItem<T>): Entry<T> | undefined {
    if (!turn) return undefined;
    const unused = [...this.#entries.values()].filter((one) => isIdle(one) && one.item.shared.key === shared.key);
    return unused.sort((a, b) => a.rank - b.rank)[0];
  }

  /** @param unused what it is made of, where it is not loaded */
  async #load(item: PoolItem<T>, unused?: Entry<T>): Promise<void> {
    if (unused) this.#entries.delete(unused.item.key);
    const loading = new AbortController();
    const entry: Entry<T> = { item, loaded: undefined, loading, stage: "gather", isClosing: false, users: 0, rank: 0 };
    this.#entries.set(item.key, entry);
    try {
      const report = (stage: LoadStage) => {
        entry.stage = stage;
        this.#tell();
      };
      entry.loaded = await (unused ? turned(item, unused.loaded!.value) : item.load(loading.signal, report));
      this.#touch(entry);
    } catch (error) {
      this.#entries.delete(item.key);
      const waiting = [...this.#waiters].filter((waiter) => waiter.item.key === item.key);
      // Whoever came after it was abandoned waits for the next.
      if (!loading.signal.aborted) for (const waiter of waiting) waiter.refuse(error);
    }
    this.#afterChange(entry);
  }

  #lend(waiter: Waiter<T>, entry: Entry<T>, { value, from, ms }: Loaded<T>): void {
    entry.users++;
    let isHeld = true;
    const release = () => {
      if (!isHeld) return;
      isHeld = false;
      entry.users--;
      this.#touch(entry);
      this.#afterChange(entry);
    };
    const wasLoaded = waiter.found === entry;
    waiter.accept({
      value,
      from: wasLoaded ? "loaded" : from,
      ms: wasLoaded ? { gather: 0, load: 0 } : ms,
      release,
    });
  }

  #touch(entry: Entry<T>): void {
    const { gather, load } = entry.loaded!.ms;
    entry.rank = this.#age + (gather + load) / entry.item.bytes;
    this.#entries.delete(entry.item.key); // of equal ranks the one used longest ago comes first
    this.#entries.set(entry.item.key, entry);
  }

  #afterChange(entry: Entry<T>): void {
    if (!this.#closed) {
      this.#serve();
      return;
    }
    this.#closeIfIdle(entry);
    if (this.#entries.size === 0) this.#closed();
  }

  #closeIfIdle(entry: Entry<T>): void {
    if (isIdle(entry)) void this.#close(entry, entry.loaded!.value);
  }

  async #close(entry: Entry<T>, value: T): Promise<void> {
    entry.isClosing = true;
    await value[Symbol.asyncDispose]();
    this.#entries.delete(entry.item.key);
    this.#afterChange(entry);
  }
}

/** What cannot be turned is of no use to others either. */
async function turned<T extends AsyncDisposable>({ turn }: PoolItem<T>, unused: T): Promise<Loaded<T>> {
  try {
    return await turn!(unused);
  } catch (error) {
    await unused[Symbol.asyncDispose]();
    throw error;
  }
}

function isIdle<T>({ loaded, isClosing, users }: Entry<T>): boolean {
  return loaded !== undefined && !isClosing && users === 0;
}

function totalBytes(items: readonly Pick<PoolItem<unknown>, "bytes" | "shared">[]): number {
  const shared = new Map(items.map((item) => [item.shared.key, item.shared.bytes]));
  return [...items.map(({ bytes }) => bytes), ...shared.values()].reduce((sum, bytes) => sum + bytes, 0);
}
