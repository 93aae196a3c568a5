import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Random } from "../random.ts";
import { type CoreTimes, FreeCores, QuickestThreads, StepThreads, ThreadBudget } from "./threads.ts";

/** The numbers that are taken where a step takes `ms` with each. */
function taken(quickest: QuickestThreads, steps: number, ms: (threads: number) => number): number[] {
  return Array.from({ length: steps }, () => {
    const threads = quickest.next();
    quickest.learn(threads, ms(threads));
    return threads;
  });
}

const share = (numbers: number[], threads: number) =>
  numbers.filter((number) => number === threads).length / numbers.length;

/** A promise, and what ends it. */
function held() {
  let [resolve, reject]: [() => void, (error: Error) => void] = [() => {}, () => {}];
  const promise = new Promise<void>((yes, no) => {
    [resolve, reject] = [yes, no];
  });
  return { promise, resolve, reject };
}

describe("the quickest number of threads", () => {
  test.each([
    [2, { 2: 15, 1: 8 }, 1],
    [2, { 2: 8, 1: 15 }, 2],
    [16, { 16: 30, 8: 12, 4: 10, 2: 14, 1: 25 }, 4],
    [6, { 6: 9, 3: 8, 2: 9, 1: 12 }, 3],
  ])("of %i is found within a few steps and kept", (most, ms, best) => {
    const numbers = taken(new QuickestThreads(most), 1000, (threads) => (ms as Record<number, number>)[threads]!);
    expect(numbers[0]).toBe(most);
    expect(share(numbers.slice(20, 60), best)).toBe(1);
    expect(share(numbers, best)).toBeGreaterThan(0.9);
  });

  test("changes when the machine does", () => {
    const quickest = new QuickestThreads(4);
    expect(
      share(
        taken(quickest, 200, (threads) => 40 / threads),
        4,
      ),
    ).toBeGreaterThan(0.9);
    taken(quickest, 200, (threads) => 10 * threads);
    expect(
      share(
        taken(quickest, 200, (threads) => 10 * threads),
        1,
      ),
    ).toBeGreaterThan(0.9);
    taken(quickest, 200, (threads) => 40 / threads);
    expect(
      share(
        taken(quickest, 200, (threads) => 40 / threads),
        4,
      ),
    ).toBeGreaterThan(0.9);
  });

  test("is the one of the least mean: two that are mostly quicker and now and then much slower lose to one", () => {
    const random = new Random("steps");
    const ms = (threads: number) => (threads === 1 ? 9 : random.float() < 0.3 ? 40 : 7);
    expect(share(taken(new QuickestThreads(2), 2000, ms), 1)).toBeGreaterThan(0.9);
  });

  test("is tried again less and less often where that changes nothing", () => {
    const numbers = taken(new QuickestThreads(2), 6000, (threads) => 10 * threads);
    expect(share(numbers, 1)).toBeGreaterThan(0.99);
    expect(numbers.slice(3000).includes(2)).toBe(true);
  });

  test("is one where there is one", () => {
    expect(new Set(taken(new QuickestThreads(1), 300, () => 1))).toEqual(new Set([1]));
  });
});

test("cores are free that were idle or computed for this process, since the last look", () => {
  let now: CoreTimes = { idle: 5000, own: 900, at: 1000 };
  const later = (ms: number, idle: number, own: number) => {
    now = { idle: now.idle + ms * idle, own: now.own + ms * own, at: now.at + ms };
  };
  const cores = new FreeCores(
    () => now,
    () => now.at,
  );
  later(100, 4, 0);
  expect(cores.count()).toBe(Infinity); // too soon
  for (const [idle, own, free] of [
    [4, 0, 4],
    [1.1, 2.7, 4],
    [0, 1.5, 1], // one core of two is taken, and half of the other computed for us
    [0.05, 2, 2],
    [0, 0.1, 1],
  ] as const) {
    later(600, idle, own);
    expect(cores.count()).toBe(free);
    later(20, 8, 0);
    expect(cores.count()).toBe(free);
    later(0, 0, 0);
    now = { ...now, idle: now.idle - 20 * 8 + 20 * idle, own: now.own + 20 * own }; // as if it had been like before
  }
});

describe("the threads of a backend", () => {
  test("are as many as steps at work want, no more than there are, and all where none is", async () => {
    let allowed = 4;
    const budget = new ThreadBudget(4, (threads) => {
      allowed = threads;
    });
    const seen: number[] = [];
    const work = Array.from({ length: 3 }, held);
    const runs = [1, 2, 3].map((threads, i) =>
      budget.run(threads, () => {
        seen.push(allowed);
        return work[i]!.promise;
      }),
    );
    expect(seen).toEqual([1, 3, 4]);
    work[2]!.resolve();
    await runs[2];
    expect(allowed).toBe(3);
    work[1]!.reject(new Error("no"));
    await expect(runs[1]).rejects.toThrow("no");
    expect(allowed).toBe(1);
    work[0]!.resolve();
    await runs[0];
    expect(allowed).toBe(4);
  });

  test("say of a step whether it was alone from beginning to end", async () => {
    const budget = new ThreadBudget(4, () => {});
    const [first, second] = [held(), held()];
    const a = budget.run(1, () => first.promise);
    const b = budget.run(1, () => second.promise);
    second.resolve();
    expect((await b).isAlone).toBe(false);
    first.resolve();
    expect((await a).isAlone).toBe(false);
    expect((await budget.run(1, async () => {})).isAlone).toBe(true);
  });
});

describe("the threads of a context's steps", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
  afterEach(() => void vi.useRealTimers());

  /** The threads of steps that say a token for each of `sequences`, where one thread is quickest. */
  async function says(threads: StepThreads, allowed: () => number, sequences: number, steps: number) {
    const numbers: number[] = [];
    for (let step = 0; step < steps; step++)
      await threads.step(Array<number>(sequences).fill(1), async () => {
        numbers.push(allowed());
        vi.advanceTimersByTime(4 * allowed());
      });
    return numbers;
  }

  test("are all for prompts, and learned for tokens, by how many are said at a time", async () => {
    let allowed = 0;
    const budget = new ThreadBudget(2, (threads) => {
      allowed = threads;
    });
    const threads = new StepThreads(budget, 2, { count: () => Infinity });
    expect((await says(threads, () => allowed, 1, 12)).slice(8)).toEqual(Array(4).fill(1));
    expect((await says(threads, () => allowed, 3, 12)).slice(0, 6)).toEqual([2, 2, 2, 2, 1, 1]);
    for (const numTokens of [[128], [1, 5], [0]]) expect(await threads.step(numTokens, async () => allowed)).toBe(2);
  });

  test("are no more than other programs leave, which teaches nothing of more", async () => {
    let [allowed, free] = [0, 1];
    const budget = new ThreadBudget(4, (threads) => {
      allowed = threads;
    });
    const threads = new StepThreads(budget, 4, { count: () => free });
    expect(new Set(await says(threads, () => allowed, 1, 12))).toEqual(new Set([1]));
    expect(await threads.step([128], async () => allowed)).toBe(1);
    free = 3;
    expect(await threads.step([128], async () => allowed)).toBe(3);
    free = 4;
    expect((await says(threads, () => allowed, 1, 12)).join("")).toBe("444422221111");
  });

  test("are what was asked for, where it was", async () => {
    let allowed = 0;
    const budget = new ThreadBudget(4, (threads) => {
      allowed = threads;
    });
    expect(new Set(await says(new StepThreads(budget, 3), () => allowed, 1, 12))).toEqual(new Set([3]));
  });
});
