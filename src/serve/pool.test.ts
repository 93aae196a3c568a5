import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { MemoryError } from "../errors.ts";
import { type Lease, type Loaded, Pool, type PoolItem } from "./pool.ts";

/** Loads and frees nothing, when it is told to, and checks what a pool asks of it. */
class FakeMemory {
  /** Items that are loading, loaded, or being freed. */
  readonly live = new Map<string, PoolItem<FakeValue>>();
  /** Unfinished loading and freeing. */
  readonly pending: { key: string; finish(error?: Error): void }[] = [];
  loads = 0;
  peak = 0;

  item(key: string, bytes: number, shared = { key: "model", bytes: 10 }, ms = 1): PoolItem<FakeValue> {
    const item: PoolItem<FakeValue> = {
      key,
      bytes,
      shared,
      load: (signal) => {
        if (this.live.has(key)) throw new Error(`${key} is loaded twice`);
        this.live.set(key, item);
        this.loads++;
        this.peak = Math.max(this.peak, this.bytes);
        return new Promise<Loaded<FakeValue>>((resolve, reject) => {
          const value = new FakeValue(key, this);
          const finish = (error?: Error) => {
            if (error) this.live.delete(key);
            if (error) reject(error);
            else resolve({ value, from: "cold", ms: { gather: ms, load: 0 } });
          };
          const pending = { key, finish };
          this.pending.push(pending);
          signal.addEventListener("abort", () => {
            const at = this.pending.indexOf(pending);
            if (at < 0) return;
            this.pending.splice(at, 1);
            finish(signal.reason);
          });
        });
      },
    };
    return item;
  }

  get bytes(): number {
    const items = [...this.live.values()];
    const shared = new Map(items.map((item) => [item.shared.key, item.shared.bytes]));
    return [...items.map(({ bytes }) => bytes), ...shared.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Finishes one pending thing. */
  async step(index = 0, error?: Error): Promise<void> {
    const [pending] = this.pending.splice(index % Math.max(1, this.pending.length), 1);
    pending?.finish(error);
    await settled();
  }

  async finishAll(): Promise<void> {
    while (this.pending.length > 0) await this.step();
  }
}

class FakeValue implements AsyncDisposable {
  users = 0;
  isGone = false;
  constructor(
    readonly key: string,
    readonly memory: FakeMemory,
  ) {}

  [Symbol.asyncDispose](): Promise<void> {
    if (this.users > 0 || this.isGone) throw new Error(`${this.key} is freed while in use, or twice`);
    this.isGone = true;
    return new Promise((resolve) => {
      const finish = () => {
        this.memory.live.delete(this.key);
        resolve();
      };
      this.memory.pending.push({ key: this.key, finish });
    });
  }
}

const settled = () => new Promise<void>((resolve) => void setImmediate(resolve));
const never = new AbortController().signal;

/** What has become of a request. */
function follow(promise: Promise<Lease<FakeValue>>) {
  const state: { lease?: Lease<FakeValue>; error?: unknown } = {};
  promise.then(
    (lease) => {
      state.lease = lease;
    },
    (error) => {
      state.error = error;
    },
  );
  return state;
}

test("any order of requests, releases, departures, failures and slow frees keeps the budget, the single flight and every promise", async () => {
  const command = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant("acquire" as const), key: fc.nat(5) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("release" as const), which: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("abort" as const), which: fc.nat() }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("finish" as const), which: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("fail" as const), which: fc.nat() }) },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(command, { maxLength: 60 }),
      fc.integer({ min: 60, max: 160 }),
      fc.integer({ min: 1, max: 3 }),
      async (commands, budget, slots) => {
        const memory = new FakeMemory();
        const pool = new Pool<FakeValue>({ budget, slots });
        const requests: (ReturnType<typeof follow> & { controller: AbortController; isDone: boolean })[] = [];
        const isOpen = ({ isDone, error }: (typeof requests)[number]) => !isDone && error === undefined;
        const release = (request: (typeof requests)[number]) => {
          request.isDone = true;
          request.lease!.value.users--;
          request.lease!.release();
        };
        const check = () => {
          expect(memory.peak).toBeLessThanOrEqual(budget);
          expect(pool.bytes).toBe(memory.bytes);
          for (const { lease, isDone } of requests) if (lease && !isDone) expect(lease.value.isGone).toBe(false);
          for (const { users } of pool.items()) expect(users).toBeLessThanOrEqual(slots);
        };
        const lent = new Set<object>();
        const count = () => {
          for (const request of requests) {
            if (!request.lease || lent.has(request)) continue;
            lent.add(request);
            request.lease.value.users++;
          }
        };
        for (const one of commands) {
          if (one.do === "acquire") {
            const controller = new AbortController();
            const shared = { key: `model ${one.key % 2}`, bytes: 10 };
            const promise = pool.acquire(memory.item(`mask ${one.key}`, 20 + 5 * one.key, shared), controller.signal);
            requests.push(Object.assign(follow(promise), { controller, isDone: false }));
          } else if (one.do === "release") {
            const held = requests.filter((request) => request.lease && !request.isDone);
            if (held.length > 0) release(held[one.which % held.length]!);
          } else if (one.do === "abort") {
            const waiting = requests.filter((request) => isOpen(request) && !request.lease);
            waiting[one.which % waiting.length]?.controller.abort();
          } else {
            const { pending } = memory;
            const at = one.which % Math.max(1, pending.length);
            const isLoading = pool.items().some(({ key, isLoaded }) => key === pending[at]?.key && !isLoaded);
            const isFreeing = pending[at] && !isLoading;
            await memory.step(at, one.do === "fail" && !isFreeing ? new Error("failed") : undefined);
          }
          await settled();
          count();
          check();
        }
        // Now everybody gets what they came for.
        for (let round = 0; requests.some(isOpen); round++) {
          expect(round).toBeLessThan(1000);
          await memory.step();
          count();
          check();
          for (const request of requests) if (isOpen(request) && request.lease) release(request);
          await settled();
          count();
        }
        const closing = pool[Symbol.asyncDispose]();
        await memory.finishAll();
        await closing;
        expect([memory.live.size, pool.bytes]).toEqual([0, 0]);
      },
    ),
    { numRuns: 200 },
  );
});

describe("a pool", () => {
  test("loads once for all who wait, and says from where", async () => {
    const memory = new FakeMemory();
    const pool = new Pool<FakeValue>({ budget: 100, slots: 2 });
    const both = [1, 2].map(() => follow(pool.acquire(memory.item("a", 20), never)));
    await memory.step();
    expect(both.map(({ lease }) => lease?.from)).toEqual(["cold", "cold"]);
    const third = follow(pool.acquire(memory.item("a", 20), never));
    await settled();
    expect(third.lease).toBeUndefined(); // two slots
    both[0]!.lease!.release();
    both[0]!.lease!.release();
    await settled();
    expect(third.lease).toMatchObject({ from: "loaded", ms: { gather: 0, load: 0 } });
    expect([memory.loads, pool.items()[0]!.users]).toEqual([1, 2]);
  });

  test("tells all who wait what for: loading and its stages, or memory", async () => {
    const memory = new FakeMemory();
    const pool = new Pool<FakeValue>({ budget: 40, slots: 1 });
    let report: Parameters<PoolItem<FakeValue>["load"]>[1] = () => {};
    const item = memory.item("a", 20);
    const load: typeof item.load = (signal, told) => {
      report = told;
      return item.load(signal, told);
    };
    const told: string[] = [];
    const first = follow(pool.acquire({ ...item, load }, never, (stage) => told.push(`first ${stage}`)));
    report("load");
    follow(pool.acquire(item, never, (stage) => told.push(`second ${stage}`)));
    const other = follow(pool.acquire(memory.item("b", 20), never, (stage) => told.push(`other ${stage}`)));
    expect(told).toEqual(["first gather", "first load", "second load", "other queue"]);
    await memory.finishAll();
    expect(told.splice(4)).toEqual(["second queue"]); // for the one slot
    first.lease!.release();
    await memory.finishAll();
    expect([told.length, other.lease]).toEqual([4, undefined]);
  });

  test("abandons loading when the last who waits has gone, and begins anew for who comes then", async () => {
    const memory = new FakeMemory();
    const pool = new Pool<FakeValue>({ budget: 100, slots: 2 });
    const [first, second] = [new AbortController(), new AbortController()];
    const states = [first, second].map(({ signal }) => follow(pool.acquire(memory.item("a", 20), signal)));
    first.abort();
    await settled();
    expect([memory.live.size, states[1]!.error]).toEqual([1, undefined]);
    second.abort();
    const late = follow(pool.acquire(memory.item("a", 20), never));
    await settled();
    expect(memory.loads).toBe(2);
    await memory.step();
    expect(late.lease?.from).toBe("cold");
  });

  test("lets go what was used longest ago, but rather what is quick to load again", async () => {
    const memory = new FakeMemory();
    const pool = new Pool<FakeValue>({ budget: 70, slots: 1 });
    const use = async (key: string, ms = 1) => {
      const state = follow(pool.acquire(memory.item(key, 20, undefined, ms), never));
      await settled();
      await memory.finishAll();
      state.lease!.release();
      await settled();
    };
    for (const key of ["a", "b", "c", "a", "d"]) await use(key);
    expect([...memory.live.keys()].sort()).toEqual(["a", "c", "d"]);
    await use("slow", 1000);
    for (const key of ["e", "f", "g", "h"]) await use(key);
    expect([...memory.live.keys()].sort()).toEqual(["g", "h", "slow"]);
  });

  test("serves who waits for memory, though others keep coming for what is loaded", async () => {
    const memory = new FakeMemory();
    const pool = new Pool<FakeValue>({ budget: 40, slots: 2 });
    let held = follow(pool.acquire(memory.item("a", 20), never));
    await memory.step();
    const other = follow(pool.acquire(memory.item("b", 20), never));
    for (let i = 0; i < 40 && memory.loads < 2; i++) {
      const next = follow(pool.acquire(memory.item("a", 20), never));
      await settled();
      held.lease?.release();
      await settled();
      held = next;
      await memory.step();
    }
    await memory.finishAll();
    expect(other.lease).toBeDefined();
  });

  test("refuses what is more than its budget, at once", () => {
    const memory = new FakeMemory();
    const pool = new Pool<FakeValue>({ budget: 29, slots: 1 });
    expect(() => pool.acquire(memory.item("a", 20), never)).toThrow(MemoryError);
  });

  test("gives a failure to all who waited for it, and tries again for the next", async () => {
    const memory = new FakeMemory();
    const pool = new Pool<FakeValue>({ budget: 100, slots: 1 });
    const both = [1, 2].map(() => follow(pool.acquire(memory.item("a", 20), never)));
    await memory.step(0, new Error("broken"));
    expect(both.map(({ error }) => (error as Error).message)).toEqual(["broken", "broken"]);
    const next = follow(pool.acquire(memory.item("a", 20), never));
    await memory.step();
    expect(next.lease).toBeDefined();
  });
});

test("of items that can be turned, one that nobody uses becomes the next: only as many are loaded as are used at a time", async () => {
  const memory = new FakeMemory();
  const pool = new Pool<FakeValue>({ budget: 1000, slots: 1 });
  const turned: string[] = [];
  const item = (key: string): PoolItem<FakeValue> => ({
    ...memory.item(key, 20),
    turn: async (unused) => {
      if (key === "bad") throw new Error("cannot be turned");
      turned.push(`${unused.key} to ${key}`);
      return { value: unused, from: "loaded", ms: { gather: 0, load: 1 } };
    },
  });
  const acquire = async (key: string) => {
    const state = follow(pool.acquire(item(key), never));
    for (let turns = 0; turns < 3; turns++) {
      await memory.finishAll();
      await settled();
    }
    return state;
  };
  const a = await acquire("a");
  const b = await acquire("b"); // nobody has left: another is loaded
  expect([memory.loads, turned]).toEqual([2, []]);
  a.lease!.release();
  const c = await acquire("c");
  expect([memory.loads, turned]).toEqual([2, ["a to c"]]);
  expect(c.lease!.from).toBe("loaded");
  expect(pool.items().map(({ key }) => key)).toEqual(["b", "c"]);
  c.lease!.release();
  b.lease!.release();
  const bad = await acquire("bad");
  expect(bad.error).toEqual(new Error("cannot be turned"));
  expect(pool.items()).toHaveLength(1); // it is not known what the other is: it was freed
  const done = pool[Symbol.asyncDispose]();
  await memory.finishAll();
  await done;
});
