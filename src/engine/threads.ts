/**
 * How many threads compute a step of llama.cpp.
 *
 * Its threads wait for each other by spinning, some hundred times a token. Where one of them loses its core in between, to another program or to another guest of the host, all wait: beside a
 * program that takes both of two cores, two threads read a prompt 15 times slower than one does; and where no program is to be seen two may say half as many tokens a second as one, though they
 * read a prompt nearly twice as fast. So where nobody says how many, no more are used than other programs leave cores, and for saying tokens the quickest number is found by trying.
 */
import { cpus } from "node:os";

/** Steps of each number that a trial takes. */
const TRIAL = 4;
/** Steps of each number whose times count. */
const REMEMBERED = 16;
/** Steps to the next trial, as programs come and go: first, and at most where trials change nothing. */
const [SOON, LATE] = [64, 1024];

/** Finds the number of threads that takes the least time for steps that are alike, on the mean: of threads that lose a core now and then most steps are quick, and some are many times slower. */
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

  /** For the next step: a number not tried of late, the next to the quickest, or else the quickest. */
  next(): number {
    const quickest = this.#quickest();
    const untried = this.#ms.findIndex((ms, i) => ms.length < TRIAL && Math.abs(i - quickest) <= 1);
    return this.#numbers[untried === -1 ? quickest : untried]!;
  }

  /** @param ms that a step of `number` threads took */
  learn(number: number, ms: number): void {
    const i = this.#numbers.indexOf(number);
    this.#ms[i] = [...this.#ms[i]!.slice(1 - REMEMBERED), ms];
    if (--this.#untilTrial > 0) return;
    const quickest = this.#quickest();
    this.#pause = quickest === this.#before ? Math.min(2 * this.#pause, LATE) : SOON;
    this.#untilTrial = this.#pause;
    this.#before = quickest;
    for (const beside of [quickest - 1, quickest + 1]) if (this.#ms[beside]) this.#ms[beside] = [];
  }

  /** Of those that were tried enough. */
  #quickest(): number {
    const means = this.#ms.map((ms) => (ms.length < TRIAL ? Infinity : ms.reduce((sum, of) => sum + of) / ms.length));
    return means.indexOf(Math.min(...means));
  }
}

/** Milliseconds between two looks at the cores, at least: the system counts in steps of ten, and a look takes a tenth of one or, where there are many, some. */
const GLANCE = 250;
/** Of a core, that may be taken and it still counts as free. */
const SLACK = 0.25;

/** What the system tells of its cores: milliseconds that they were idle, all together, that this process computed, and the time. */
export interface CoreTimes {
  idle: number;
  own: number;
  at: number;
}

function coreTimes(): CoreTimes {
  const { user, system } = process.cpuUsage();
  const idle = cpus().reduce((sum, { times }) => sum + times.idle, 0);
  return { idle, own: (user + system) / 1000, at: performance.now() };
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
  }

  /** At least one; infinite before there was time to see. */
  count(): number {
    if (this.#now() - this.#before.at < GLANCE) return this.#free;
    const { idle, own, at } = this.#before;
    const now = this.#look();
    this.#before = now;
    this.#free = Math.max(1, Math.floor((now.idle - idle + now.own - own) / (now.at - at) + SLACK));
    return this.#free;
  }
}

/** The threads of a backend, which all steps at work share: no step gets more than it wants where it is alone, and together they get no more than there are. */
export class ThreadBudget {
  readonly #most: number;
  readonly #allow: (threads: number) => void;
  readonly #wanted = new Set<{ threads: number }>();
  /** Steps that have begun so far. */
  #begun = 0;

  /** @param allow tells the backend how many threads all its contexts may use, from now on */
  constructor(most: number, allow: (threads: number) => void) {
    this.#most = most;
    this.#allow = allow;
  }

  /** @returns what `work` does, how long it took, and whether nothing else was at work */
  async run<T>(threads: number, work: () => Promise<T>): Promise<{ result: T; ms: number; isAlone: boolean }> {
    const step = { threads };
    this.#wanted.add(step);
    const before = ++this.#begun;
    const wasAlone = this.#wanted.size === 1;
    this.#share();
    const start = performance.now();
    try {
      const result = await work();
      return { result, ms: performance.now() - start, isAlone: wasAlone && this.#begun === before };
    } finally {
      this.#wanted.delete(step);
      this.#share();
    }
  }

  /** What nobody asks for is there for those who do not ask, such as a context that is made. */
  #share(): void {
    const wanted = [...this.#wanted].reduce((sum, { threads }) => sum + threads, 0);
    this.#allow(wanted === 0 ? this.#most : Math.min(this.#most, wanted));
  }
}

/** The threads of a context's steps. */
export class StepThreads {
  readonly #budget: ThreadBudget;
  readonly #threads: number;
  readonly #free: Pick<FreeCores, "count"> | undefined;
  /** By the number of sequences that say a token each. */
  readonly #quickest = new Map<number, QuickestThreads>();

  /** @param free absent: every step takes `threads`; else none takes more than these, and one that says tokens as many as are quickest */
  constructor(budget: ThreadBudget, threads: number, free?: Pick<FreeCores, "count">) {
    this.#budget = budget;
    this.#threads = threads;
    this.#free = free;
  }

  /** @param numTokens that each sequence of the step reads; one: it says the next, or reads a prompt of one */
  async step<T>(numTokens: readonly number[], work: () => Promise<T>): Promise<T> {
    if (!this.#free) return (await this.#budget.run(this.#threads, work)).result;
    const saysTokens = numTokens.every((number) => number === 1);
    const quickest = saysTokens ? this.#quickestOf(numTokens.length) : undefined;
    const wanted = quickest?.next() ?? this.#threads;
    const threads = Math.min(wanted, this.#free.count());
    const { result, ms, isAlone } = await this.#budget.run(threads, work);
    if (isAlone && threads === wanted) quickest?.learn(threads, ms);
    return result;
  }

  #quickestOf(sequences: number): QuickestThreads {
    const known = this.#quickest.get(sequences) ?? new QuickestThreads(this.#threads);
    this.#quickest.set(sequences, known);
    return known;
  }
}
