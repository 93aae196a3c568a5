import { once } from "node:events";
import { createInterface } from "node:readline/promises";

/**
 * Asks a person yes or no. All but a yes is a no, the end of the input too.
 *
 * @throws the signal's reason where that comes first: the terminal makes a signal of Ctrl-C, as it is left in lines
 */
export async function isConfirmed(
  question: string,
  signal: AbortSignal,
  streams: { input: NodeJS.ReadableStream; output: NodeJS.WritableStream } = {
    input: process.stdin,
    output: process.stderr,
  },
): Promise<boolean> {
  const lines = createInterface({ ...streams, terminal: false });
  try {
    const ended = once(lines, "close").then(() => "");
    const answer = await Promise.race([lines.question(`${question} [y/N] `, { signal }), ended]);
    return /^y(es)?$/i.test(answer.trim());
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    lines.close();
  }
}
