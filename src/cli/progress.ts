/** Progress of a long job: one line that is redrawn on a terminal, a plain line now and then elsewhere. */

/** The part of a stream that is needed; `process.stderr` is one. */
export interface ProgressStream {
  isTTY?: boolean;
  columns?: number;
  write(text: string): unknown;
}

export interface ProgressOptions {
  label: string;
  /** Steps of the whole job, or bytes. */
  total: number;
  /** What was done before this process; it says nothing about its speed. */
  done?: number | undefined;
  /** Default: steps. */
  unit?: "steps" | "bytes" | undefined;
  stream?: ProgressStream | undefined;
  /** Clock, ms. */
  now?: (() => number) | undefined;
}

const TERMINAL_INTERVAL_MS = 100;
const PLAIN_INTERVAL_MS = 10_000;
const CLEAR_LINE = "\r\x1b[2K";

export class Progress {
  readonly #job: Required<ProgressOptions>;
  readonly #started: number;
  #shown = Number.NEGATIVE_INFINITY;
  #line = "";

  constructor(options: ProgressOptions) {
    this.#job = { done: 0, unit: "steps", stream: process.stderr, now: () => performance.now(), ...options };
    this.#started = this.#job.now();
  }

  /**
   * Shows how far the job is, if the last time is long enough ago or it is done.
   *
   * @param done of the whole job
   * @param detail words about this moment, given the seconds since the start
   */
  update(done: number, detail?: (seconds: number) => string): void {
    const { label, total, done: doneBefore, unit, stream, now } = this.#job;
    const time = now();
    if (done < total && time - this.#shown < (stream.isTTY ? TERMINAL_INTERVAL_MS : PLAIN_INTERVAL_MS)) return;
    this.#shown = time;
    const seconds = (time - this.#started) / 1000;
    const left = (seconds / (done - doneBefore)) * (total - done); // of no meaning until something was done
    const share = Math.floor((100 * done) / total);
    const count = unit === "bytes" ? inBytes(done, total) : `${done}/${total}`;
    const end = done < total ? `ETA ${done > doneBefore ? duration(left) : "?"}` : `done in ${duration(seconds)}`;
    this.#line = [`${label} ${count} (${share} %)`, ...(detail ? [detail(seconds)] : []), end].join("  ");
    if (stream.isTTY) this.#redraw();
    else stream.write(`${this.#line}\n`);
  }

  /** Prints a line of its own, above the progress. */
  note(text: string): void {
    const { stream } = this.#job;
    stream.write(`${stream.isTTY ? CLEAR_LINE : ""}${text}\n`);
    if (stream.isTTY) this.#redraw();
  }

  /** Leaves the last state on the screen. Call at the end, however it came. */
  finish(): void {
    if (this.#job.stream.isTTY && this.#line !== "") this.#job.stream.write("\n");
  }

  #redraw(): void {
    const { stream } = this.#job;
    stream.write(CLEAR_LINE + this.#line.slice(0, (stream.columns || 80) - 1));
  }
}

/** `1.50/8.00 GB`, or in MB. */
function inBytes(done: number, total: number): string {
  const [unit, name] = total < 1e9 ? [1e6, "MB"] : [1e9, "GB"];
  return `${(done / unit).toFixed(2)}/${(total / unit).toFixed(2)} ${name}`;
}

/** `1:02:03` or `02:03`, rounded to seconds. */
function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const pad = (n: number) => String(n).padStart(2, "0");
  const clock = `${pad(Math.floor(whole / 60) % 60)}:${pad(whole % 60)}`;
  return whole < 3600 ? clock : `${Math.floor(whole / 3600)}:${clock}`;
}

/** A wait shorter than this is none. */
const PATIENCE_MS = 500;
const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

export interface WaitingOptions {
  stream?: ProgressStream | undefined;
  /** For programs that read the output. */
  isQuiet?: boolean | undefined;
  /** When the wait began, by `performance.now`, which is 0 at the start of the process. */
  since?: number | undefined;
}

/**
 * A line that says what is being waited for, from half a second on, with something that moves; it goes away at the end. On a terminal only: elsewhere it
 * is noise.
 */
export class Waiting implements Disposable {
  readonly #stream: ProgressStream;
  readonly #since: number;
  readonly #timer: NodeJS.Timeout | undefined;
  #words: string;
  #frame = 0;

  constructor(
    words: string,
    { stream = process.stderr, isQuiet = false, since = performance.now() }: WaitingOptions = {},
  ) {
    this.#words = words;
    this.#stream = stream;
    this.#since = since;
    if (stream.isTTY && !isQuiet) this.#timer = setInterval(() => this.#redraw(), TERMINAL_INTERVAL_MS).unref();
  }

  /** What is being waited for now. */
  say(words: string): void {
    this.#words = words;
    if (this.#frame > 0) this.#redraw(); // what comes next may leave the timer no turn
  }

  /** Prints lines of their own above it, also where it is not shown. */
  note(lines: string): void {
    this.#stream.write(`${this.#frame > 0 ? CLEAR_LINE : ""}${lines}`);
  }

  /** Takes the line away, for good. */
  end(): void {
    clearInterval(this.#timer);
    if (this.#frame > 0) this.#stream.write(CLEAR_LINE);
    this.#frame = 0;
  }

  [Symbol.dispose](): void {
    this.end();
  }

  #redraw(): void {
    if (performance.now() - this.#since < PATIENCE_MS) return;
    const line = `${FRAMES[this.#frame++ % FRAMES.length]} ${this.#words} …`;
    this.#stream.write(CLEAR_LINE + line.slice(0, (this.#stream.columns || 80) - 1));
  }
}
