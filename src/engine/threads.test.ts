import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Random } from "../random.ts";
import { type CoreTimes, FreeCores, QuickestThreads, StepThreads, ThreadBudget } from "./threads.ts";

/** The numbers that are taken where a step takes `ms` with each. */
function taken(quickest: QuickestThreads, steps: number, ms: (threads: number) => number): number[] {
  return Array.from({ length: steps }, () => {
    const threads = quickest.next(Infinity);
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
    [3, { 3: 9, 2: 8, 1: 9 }, 2],
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

  test("changes to more and to fewer, and soon again", () => {
    const quickest = new QuickestThreads(4);
    let least = 2;
    const ms = (threads: number) => 10 + Math.abs(Math.log2(threads / least));
    expect(share(taken(quickest, 3000, ms), 2)).toBeGreaterThan(0.9);
    for (const [number, within] of [
      [1, 1100],
      [2, 100],
      [4, 200],
    ] as const) {
      least = number;
      expect(share(taken(quickest, within, ms).slice(-20), number)).toBeGreaterThan(0.5); // not one of a trial
    }
  });

  test("stays through a step now and then that waited for something else", () => {
    let step = 0;
    const ms = (threads: number) => (threads === 2 ? 12 : step++ % 12 === 0 ? 30 : 9);
    const quickest = new QuickestThreads(2);
    taken(quickest, 60, ms);
    expect(share(taken(quickest, 2000, ms), 1)).toBeGreaterThan(0.95);
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
  later(240, 4, 0);
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

const free = (cores: number) => ({ count: () => cores });
const yielding = (threads: number) => ({ threads, yields: true });
const fixed = (threads: number) => ({ threads, yields: false });

test("cores are as free as before where the system cannot be asked", () => {
  let at = 0;
  const looks = [
    { idle: 0, own: 0, at: 0 },
    { idle: 1800, own: 0, at: 600 },
  ];
  const cores = new FreeCores(
    () => {
      const look = looks.shift();
      if (!look) throw new Error("EMFILE");
      return look;
    },
    () => at,
  );
  at = 600;
  expect(cores.count()).toBe(3);
  at = 1200;
  expect(cores.count()).toBe(3);
});

describe("the threads of a backend", () => {
  test("are as many as steps at work want, no more than there are, and all where none is", async () => {
    let allowed = 4;
    const budget = new ThreadBudget(
      4,
      (threads) => {
        allowed = threads;
      },
      free(Infinity),
    );
    const seen: number[] = [];
    const work = Array.from({ length: 3 }, held);
    const runs = [1, 2, 3].map((threads, i) =>
      budget.run(yielding(threads), () => {
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

  test("are no more than are free for all that yield together, beside those that do not", async () => {
    const allowed: number[] = [];
    const budget = new ThreadBudget(16, (threads) => void allowed.push(threads), free(8));
    const nested = (wanted: ReturnType<typeof yielding>[]): Promise<void> =>
      wanted.length === 0 ? Promise.resolve() : budget.run(wanted[0]!, () => nested(wanted.slice(1)));
    await nested([yielding(6), yielding(6), fixed(3), fixed(9)]);
    expect(allowed).toEqual([6, 8, 11, 16, 11, 8, 6, 16]);
  });
});

describe("the threads of a context's steps", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
  afterEach(() => void vi.useRealTimers());

  /** A context on a machine where one thread says tokens quickest. */
  function context({ most = 2, cores = Infinity, isFixed = false }) {
    const machine = { cores };
    let allowed = 0;
    const allow = (threads: number) => {
      allowed = threads;
    };
    const threads = new StepThreads(new ThreadBudget(most, allow, { count: () => machine.cores }), most, isFixed);
    const step = (...numTokens: number[]) =>
      threads.step(numTokens, async () => {
        vi.advanceTimersByTime(4 * allowed);
        return allowed;
      });
    const says = async (sequences: number, steps: number) => {
      const numbers: number[] = [];
      for (let i = 0; i < steps; i++) numbers.push(await step(...Array<number>(sequences).fill(1)));
      return numbers.join("");
    };
    return { step, says, machine };
  }

  test("are all for prompts, and learned for tokens, by how many are said at a time", async () => {
    const { step, says } = context({});
    expect(await says(1, 12)).toBe("222211111111");
    expect(await says(2, 12)).toBe("222211111111");
    for (const numTokens of [[128], [1, 5], [0], [0, 1]]) expect(await step(...numTokens)).toBe(2);
    expect(await says(3, 6)).toBe("222211");
  });

  test("are no more than other programs leave, which teaches nothing of more", async () => {
    const { step, says, machine } = context({ most: 4, cores: 1 });
    expect(await says(1, 12)).toBe("111111111111");
    expect(await step(128)).toBe(1);
    machine.cores = 3;
    expect(await step(128)).toBe(3);
    machine.cores = 4;
    expect(await says(1, 12)).toBe("222211111111");
  });

  test("are found where some cores are always taken: what is nearly all stands for all", async () => {
    const { says } = context({ most: 16, cores: 15 });
    expect(await says(1, 24)).toBe("1515151588884444222211111111");
    const { says: onFew } = context({ most: 16, cores: 9 });
    expect(await onFew(1, 18)).toBe("888844442222111111");
  });

  test("are what was asked for, where it was", async () => {
    const { step, says } = context({ most: 3, cores: 1, isFixed: true });
    expect(await says(1, 12)).toBe("333333333333");
    expect(await step(128)).toBe(3);
  });
});
