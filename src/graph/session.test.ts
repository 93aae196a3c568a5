import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { quiet } from "../../test/support/graphs.ts";
import { temporaryFolder } from "../../test/support/models.ts";
import { Graph } from "./graph.ts";
import { ops } from "./ops.ts";
import { compile, SessionCache } from "./session.ts";

/** y = x · factor */
function scaling(factor: number): Graph {
  const graph = new Graph("scaling");
  graph.output("y", ops.scale(graph.input("x", [3]), factor));
  return graph;
}
const x = Float32Array.of(1, 2, 3);

describe("a session", () => {
  test("writes results into one buffer of its own, or into the caller's", async () => {
    const session = await compile(scaling(2), quiet);
    const first = await session.run({ x });
    const second = await session.run({ x: Float32Array.of(5, 6, 7) });
    expect(second.y).toBe(first.y);
    expect([...second.y!]).toEqual([10, 12, 14]);
    const own = new Float32Array(3);
    const third = await session.run({ x }, { y: own });
    expect(third.y).toBe(own);
    expect([...own]).toEqual([2, 4, 6]);
    expect([...second.y!]).toEqual([10, 12, 14]);
    await session.release();
  });

  test("refuses an input that is missing or of another length", async () => {
    const session = await compile(scaling(2), quiet);
    for (const [feeds, got] of [
      [{}, "nothing"],
      [{ x: new Float32Array(4) }, "4"],
    ] as const) {
      const message = `scaling: input "x": wanted [3], got [${got}].`;
      await expect(session.run(feeds)).rejects.toThrow(expect.objectContaining({ name: "ShapeError", message }));
    }
    await session.release();
  });

  test("counts the work of matrix products", async () => {
    const graph = new Graph("products");
    const [a, b] = [graph.input("a", [2, 3, 4]), graph.input("b", [4, 5])];
    graph.output("c", ops.matmul(a, b));
    expect(graph.flops).toBe(2 * 2 * 3 * 4 * 5);
  });
});

test("a cache builds and compiles each key once, even when asked twice at once", async () => {
  const cache = new SessionCache(quiet);
  let built = 0;
  const get = (key: string, factor: number) =>
    cache.get(key, () => {
      built++;
      return scaling(factor);
    });
  const [a, again, b] = await Promise.all([get("a", 2), get("a", 2), get("b", 3)]);
  expect(again).toBe(a);
  expect(built).toBe(2);
  expect([...(await b.run({ x })).y!]).toEqual([3, 6, 9]);
  await cache.release();
});

test("a cache of 24: the 25th takes the place of the one that was not asked for the longest, which is built again when asked", async () => {
  const cache = new SessionCache(quiet);
  const built: number[] = [];
  const get = (factor: number) =>
    cache.get(String(factor), () => {
      built.push(factor);
      return scaling(factor);
    });
  const first = await get(0);
  const second = await get(1);
  for (let factor = 2; factor < 24; factor++) await get(factor);
  expect(await get(0)).toBe(first); // so that 1 is the oldest
  await get(24);
  expect(built).toEqual(Array.from({ length: 25 }, (_, i) => i));
  expect(await get(0)).toBe(first);
  await expect(second.run({ x })).rejects.toThrow(); // released
  const again = await get(1);
  expect(built.at(-1)).toBe(1);
  expect(again).not.toBe(second);
  expect([...(await again.run({ x })).y!]).toEqual([1, 2, 3]);
  await cache.release();
});

test("a compiled graph is an ONNX file of the stated name; equal constants are stored once", () => {
  const graph = new Graph("constants");
  const y = ops.scale(ops.scale(graph.input("x", [3]), 2), 2);
  graph.output("y", y);
  expect(graph.scalar(2)).toBe(graph.scalar(2));
  expect(graph.scalar(2)).not.toBe(graph.scalar(3));
  expect(graph.constant(Int32Array.of(2), [])).not.toBe(graph.constant(Float32Array.of(2), []));
  expect(Buffer.from(graph.encode()).includes("constants")).toBe(true);
});

describe("ONNX Runtime", () => {
  const startThread = `
    import { startThread } from "./src/processes.ts";
    const worker = startThread("compileOne", "${new URL("../../test/support/graphs.ts", import.meta.url)}", {});
    await new Promise((resolve, reject) => worker.on("error", reject).on("exit", resolve));`;
  test.each([
    ["a process", `await import("./test/support/compileOne.ts")`],
    ["a thread of ours", startThread],
  ])("in %s leaves no number of the device in the user's cache, and no events to send", async (_, code) => {
    const home = temporaryFolder();
    // Its makers spare tests and continuous integration.
    const { CI: _1, GITHUB_ACTIONS: _2, ORT_DISABLE_TELEMETRY: _3, XDG_CACHE_HOME: _4, ...env } = process.env;
    const args = ["--import", "tsx", "--input-type=module", "--eval", code];
    await promisify(execFile)(process.execPath, args, { env: { ...env, HOME: home } });
    expect(readdirSync(home, { recursive: true })).toEqual([]);
  });
});
