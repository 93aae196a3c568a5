/** The log of a server, which nobody may be reading: a pipe that is full, a terminal that was stopped. It keeps no one waiting, and takes no more memory for that. */
import type { Writable } from "node:stream";

/** What may wait for a reader, in bytes, beside what the system keeps. */
export const MAX_WAITING = 1 << 20;

/** Lines on a stream. Those that come while too much waits are left out, and counted. */
export class LineLog {
  readonly #stream: Pick<Writable, "write" | "writableLength">;
  #numLeftOut = 0;

  constructor(stream: Pick<Writable, "write" | "writableLength">) {
    this.#stream = stream;
  }

  write(line: string): void {
    const stream = this.#stream;
    const isBehind = this.#numLeftOut > 0;
    if (stream.writableLength > (isBehind ? MAX_WAITING / 2 : MAX_WAITING)) {
      this.#numLeftOut++;
      return;
    }
    if (isBehind) stream.write(`${this.#numLeftOut} lines are left out here, as nobody read them.\n`);
    this.#numLeftOut = 0;
    stream.write(`${line}\n`);
  }
}

/** A log on stderr. */
export function openLog(): LineLog {
  // Node has writes to a terminal wait until it takes them, which one that was stopped (Ctrl-S) never does.
  const { _handle: handle } = process.stderr as { _handle?: { setBlocking?(isBlocking: boolean): void } };
  handle?.setBlocking?.(false);
  return new LineLog(process.stderr);
}
