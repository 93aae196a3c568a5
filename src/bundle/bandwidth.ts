/** How fast this machine reads memory: what bounds the tokens per second of decoding, for which every weight is read once per token. */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";

const bufferBytes = 1 << 28; // far beyond the caches of a core
const measureMs = 200;

/** Each searches its part for a byte that is not in it: `memchr` of the C library, as fast as memory gives. */
const search = `
const { parentPort, workerData: { buffer, from, to, start } } = require("node:worker_threads");
const bytes = Buffer.from(buffer, from, to - from).fill(1);
parentPort.postMessage("ready");
Atomics.wait(start, 0, 0);
const began = performance.now();
let read = 0;
let ms = 0;
do {
  bytes.indexOf(2);
  read += bytes.length;
  ms = performance.now() - began;
} while (ms < ${measureMs});
parentPort.postMessage((1000 * read) / ms);`;

/** Beyond so many threads none reads faster, and each takes its time to start. */
export const mostReaders = (): number => 4 * availableParallelism();

/** Bytes per second that `threads` threads read together. Takes about half a second, and 256 MB of memory meanwhile. */
export async function measureBandwidth(threads = availableParallelism()): Promise<number> {
  const buffer = new SharedArrayBuffer(bufferBytes);
  const start = new Int32Array(new SharedArrayBuffer(4));
  const share = Math.floor(bufferBytes / threads);
  const workers = Array.from(
    { length: threads },
    (_, i) => new Worker(search, { eval: true, workerData: { buffer, from: i * share, to: (i + 1) * share, start } }),
  );
  const messages = () =>
    Promise.all(
      workers.map(
        (worker) => new Promise<number>((resolve, reject) => worker.once("message", resolve).once("error", reject)),
      ),
    );
  try {
    await messages(); // all have touched their part
    const speeds = messages();
    Atomics.store(start, 0, 1);
    Atomics.notify(start, 0);
    return (await speeds).reduce((sum, speed) => sum + speed, 0);
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}
