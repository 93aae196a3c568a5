/**
 * How many threads compute a step of llama.cpp.
 *
 * Its threads wait for each other by spinning, some hundred times a token. Where one of them loses its core in between, to another program or to another guest of the host, all wait: beside a
 * program that takes both of two cores, two threads read a prompt 15 times slower than one does; and where no program is to be seen two may say half as many tokens a second as one, though they
 * read a prompt nearly twice as fast. So where nobody says how many, no more are used than other programs leave cores, and for saying tokens the quickest number is found by trying.
 */
import { readFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";

/** Steps of each number that a trial takes. */
const TRIAL = 4;
/** Steps of each number whose times count. */
const REMEMBERED = 16;
/** Steps to the next trial, as programs come and go: first, and at most where trials change nothing. */
const [SOON, LATE] = [64, 1024];
/** Share of a number that has to be free for as many as there are to stand for it. */
const ENOUGH = 0.75;

/**
 * Finds the number of threads that takes the least time for steps that are alike, on the mean: of threads that lose a core now and then most steps are quick, and some are many times slower. It goes down from
 * the most, and on to the next number as long as that is quicker: the last ones of many would take long to try.
 */
export class QuickestThreads {
  /** The most, half of it, and so on down to one. */
  readonly #numbers: number[];
  /** Milliseconds of the last steps of each. */
  readonly #ms: number[][];
  #untilTrial = SOON;
  #pause = SOON;
  /** Place of the quickest at the last trial. */
  #before = 0;

  constructor(most: number) {
    this.#numbers = [most];
    for (let number = most; number > 1; this.#numbers.push(number)) number = Math.ceil(number / 2);
    this.#ms = this.#numbers.map(() => []);
  }

  /**
   * For the next step: a number not tried of late, the next to the quickest, or else the quickest. It may be a little above what is free.
   *
   * @param free cores, at least one
   */
  next(free: number): number {
    const possible = this.#numbers.findIndex((number) => free >= ENOUGH * number);
    const quickest = this.#quickest(possible);
    const untried = this.#ms.findIndex((ms, i) => i >= possible && ms.length < TRIAL && Math.abs(i - quickest) <= 1);
    return this.#numbers[untried === -1 ? quickest : untried]!;
  }

  /** @param ms that a step took, of a number as {@link next} gave it */
  learn(number: number, ms: number): void {
    const i = this.#numbers.indexOf(number);
    this.#ms[i] = [...this.#ms[i]!.slice(1 - REMEMBERED), ms];
    if (--this.#untilTrial > 0) return;
    const quickest = this.#quickest(0);
    this.#pause = quickest === this.#before ? Math.min(2 * this.#pause, LATE) : SOON;
    this.#untilTrial = this.#pause;
    this.#before = quickest;
    for (const beside of [quickest - 1, quickest + 1]) if (this.#ms[beside]) this.#ms[beside] = [];
  }

  /** Place of it, among those from a place on that were tried enough; that place where none was. */
  #quickest(from: number): number {
    const means = this.#ms.map((ms, i) =>
      i < from || ms.length < TRIAL ? Infinity : ms.reduce((sum, of) => sum + of) / ms.length,
    );
    const least = Math.min(...means);
    return least === Infinity ? from : means.indexOf(least);
  }
}

/** Milliseconds between two looks at the cores where steps come, at least, as the system counts in steps of ten; and where none come. */
const [GLANCE, REST] = [250, 1000];
/** Of a core, that may be taken and it still counts as free. */
const SLACK = 0.25;

/** What the system tells of its cores: milliseconds that they were idle or waited for a disk, all together, that this process computed, and the time. */
export interface CoreTimes {
  idle: number;
  own: number;
  at: number;
}

/** Cores that {@link coreTimes} tells of. */
function coresOfSystem(): number {
  return process.platform === "linux" ? readFileSync("/proc/stat", "utf8").match(/^cpu\d/gm)!.length : cpus().length;
}

function coreTimes(): CoreTimes {
  const { user, system } = process.cpuUsage();
  return { idle: idleTime(), own: (user + system) / 1000, at: performance.now() };
}

function idleTime(): number {
  if (process.platform !== "linux") return cpus().reduce((sum, { times }) => sum + times.idle, 0);
  // `cpus` asks for the frequency of every core too, which takes some of them 20 ms each. A hundredth of a second is the unit.
  const [, , , , idle, wait] = readFileSync("/proc/stat", "utf8").split(/\s+/, 6).map(Number);
  return 10 * (idle! + wait!);
}

/** How many cores other programs leave, by what was computed since the last look. */
export class FreeCores {
  readonly #look: () => CoreTimes;
  readonly #now: () => number;
  #before: CoreTimes;
  #free = Infinity;

  constructor(look: () => CoreTimes = coreTimes, now: () => number = () => performance.now()) {
    this.#look = look;
    this.#now = now;
    this.#before = look();
    setInterval(() => this.count(), REST).unref(); // what was an hour ago says nothing of now
  }

  /** At least one; infinite before there was time to see. */
  count(): number {
    if (this.#now() - this.#before.at >= GLANCE) this.#see();
    return this.#free;
  }

  #see(): void {
    const { idle, own, at } = this.#before;
    try {
      this.#before = this.#look();
    } catch {
      return; // as where too many files are open
    }
    const now = this.#before;
    this.#free = Math.max(1, Math.floor((now.idle - idle + now.own - own) / (now.at - at) + SLACK));
  }
}

/** Of the machine, from the first call on; all of them where the system does not tell, or tells of other cores than this process may use. */
export function freeCores(): Pick<FreeCores, "count"> {
  machine ??= seen();
  return machine;
}

let machine: Pick<FreeCores, "count"> | undefined;

function seen(): Pick<FreeCores, "count"> {
  try {
    if (coresOfSystem() === availableParallelism()) return new FreeCores();
  } catch {
    // as where /proc is not there
  }
  return { count: () => Infinity };
}

interface Wanted {
  threads: number;
  /** Whether it takes no more than are free. */
  yields: boolean;
}

/** The threads of a backend, which all steps at work share: one that is alone gets as many as it wants, and together they get no more than there are, nor those that yield more than are free. */
export class ThreadBudget {
  readonly #most: number;
  readonly #allow: (threads: number) => void;
  readonly #free: Pick<FreeCores, "count">;
  readonly #wanted = new Set<Wanted>();

  /** @param allow tells the backend how many threads all its contexts may use, from now on */
  constructor(most: number, allow: (threads: number) => void, free: Pick<FreeCores, "count">) {
    this.#most = most;
    this.#allow = allow;
    this.#free = free;
  }

  /** Cores for steps that yield, at least one. */
  free(): number {
    return this.#free.count();
  }

  async run<T>(wanted: Wanted, work: () => Promise<T>): Promise<T> {
    this.#wanted.add(wanted);
    this.#share();
    try {
      return await work();
    } finally {
      this.#wanted.delete(wanted);
      this.#share();
    }
  }

  /** What nobody asks for is there for those who do not ask. */
  #share(): void {
    const sum = (yields: boolean) =>
      [...this.#wanted].reduce((all, wanted) => all + (wanted.yields === yields ? wanted.threads : 0), 0);
    const wanted = sum(false) + Math.min(sum(true), this.#free.count());
    this.#allow(wanted === 0 ? this.#most : Math.min(this.#most, wanted));
  }
}

/** The threads of a context's steps. */
export class StepThreads {
  readonly #budget: ThreadBudget;
  readonly #threads: number;
  readonly #isFixed: boolean;
  /** By the number of sequences that say a token each. */
  readonly #quickest = new Map<number, QuickestThreads>();

  /** @param isFixed every step takes `threads`; else none takes more than are free, and one that says tokens as many as are quickest */
  constructor(budget: ThreadBudget, threads: number, isFixed: boolean) {
    this.#budget = budget;
    this.#threads = threads;
    this.#isFixed = isFixed;
  }

  /** @param numTokens that each sequence of the step reads; one: it says the next, or reads a prompt of one */
  async step<T>(numTokens: readonly number[], work: () => Promise<T>): Promise<T> {
    if (this.#isFixed) return await this.#budget.run({ threads: this.#threads, yields: false }, work);
    const free = this.#budget.free();
    const saysTokens = numTokens.every((number) => number === 1);
    const quickest = saysTokens ? this.#quickestOf(numTokens.length) : undefined;
    const wanted = quickest?.next(free) ?? this.#threads;
    const start = performance.now();
    const result = await this.#budget.run({ threads: wanted, yields: true }, work);
    quickest?.learn(wanted, performance.now() - start);
    return result;
  }

  #quickestOf(sequences: number): QuickestThreads {
    const known = this.#quickest.get(sequences) ?? new QuickestThreads(this.#threads);
    this.#quickest.set(sequences, known);
    return known;
  }
}
