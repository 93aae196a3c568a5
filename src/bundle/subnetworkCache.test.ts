import { execFile } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { goldenModel, randomMask, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import { OptionError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";
import { Bundle } from "./bundle.ts";
import { packBundle } from "./packBundle.ts";
import { openSubnetwork } from "./subnetworkCache.ts";

const model = goldenModel("qwen2");
const { numLayers: L, ffnWidth: F } = model.config;
const mask = randomMask(L, F, 16, "soft", 1);

async function anyBundle(): Promise<Bundle> {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await writeCheckpoint(temporaryFolder(), model), folder, { type: "F32" });
  return new Bundle(folder);
}

const ffnFile = (path: string) => path.replace("00001-of", "00003-of");

/** Makes an entry look unused for an hour. */
function age(path: string): void {
  const then = new Date(Date.now() - 3_600_000 - 1000);
  utimesSync(path, then, then);
}

test("a mask is built once; other λ, other channels, or none, are another sub-network", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  const first = await openSubnetwork(bundle, mask, { root });
  expect(first.cached).toBe(false);
  expect(await openSubnetwork(bundle, { ...mask, lambda: mask.lambda!.map((row) => row.slice()) }, { root })).toEqual({
    ...first,
    cached: true,
  });
  const others = [
    { ...mask, lambda: undefined },
    { ...mask, lambda: mask.lambda!.map((row) => row.map((v) => v / 2)) },
    randomMask(L, F, 16, "soft", 2),
  ];
  for (const other of others) expect((await openSubnetwork(bundle, other, { root })).path).not.toBe(first.path);
  expect(readdirSync(dirname(dirname(first.path))).length).toBe(4);
});

test("the three files say that they are one model with this FFN width", async () => {
  using bundle = await anyBundle();
  const { path } = await openSubnetwork(bundle, mask, { root: temporaryFolder() });
  using metadata = new GgufFile(path);
  using shared = new GgufFile(path.replace("00001-of", "00002-of"));
  using ffn = new GgufFile(ffnFile(path));
  expect(metadata.number("qwen2.feed_forward_length")).toBe(16);
  expect([metadata, shared, ffn].map((file) => file.number("split.no"))).toEqual([0, 1, 2]);
  for (const file of [metadata, shared, ffn]) {
    expect(file.number("split.tensors.count")).toBe(shared.tensors.size + ffn.tensors.size);
  }
});

test("a damaged entry is built again", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  const { path } = await openSubnetwork(bundle, mask, { root });
  const intact = readFileSync(ffnFile(path));
  truncateSync(ffnFile(path), 100);
  expect((await openSubnetwork(bundle, mask, { root })).cached).toBe(false);
  expect(readFileSync(ffnFile(path))).toEqual(intact);
});

test("a bundle that was moved still opens, with new links", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  await openSubnetwork(bundle, mask, { root });
  renameSync(bundle.path, `${bundle.path}-moved`);
  using moved = new Bundle(`${bundle.path}-moved`);
  const { path } = await openSubnetwork(moved, mask, { root });
  new GgufFile(path.replace("00001-of", "00002-of"))[Symbol.dispose]();
});

test("a bad mask leaves nothing behind", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  await expect(openSubnetwork(bundle, { ...mask, tFfn: 15 }, { root })).rejects.toThrow(OptionError);
  expect(readdirSync(root)).toEqual([]);
});

test("processes that build the same sub-network at once all get a whole one", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  const inProcess = Array.from({ length: 4 }, () => openSubnetwork(bundle, mask, { root }));
  const script = `
    import { Bundle } from ${JSON.stringify(fileURLToPath(new URL("./bundle.ts", import.meta.url)))};
    import { openSubnetwork } from ${JSON.stringify(fileURLToPath(new URL("./subnetworkCache.ts", import.meta.url)))};
    const bundle = new Bundle(${JSON.stringify(bundle.path)});
    const rows = (values, type) => values.map((row) => type.from(row));
    const mask = ${JSON.stringify({ ...mask, layers: mask.layers.map((row) => [...row]), lambda: mask.lambda!.map((row) => [...row]) })};
    mask.layers = rows(mask.layers, Int32Array);
    mask.lambda = rows(mask.lambda, Float32Array);
    console.log((await openSubnetwork(bundle, mask, { root: ${JSON.stringify(root)} })).path);`;
  const node = () =>
    promisify(execFile)(process.execPath, ["--import", "tsx", "--input-type=module", "--eval", script]);
  const children = await Promise.all([node(), node()]);
  const paths = [
    ...(await Promise.all(inProcess)).map(({ path }) => path),
    ...children.map(({ stdout }) => stdout.trim()),
  ];
  expect(new Set(paths).size).toBe(1);
  expect(readdirSync(dirname(dirname(paths[0]!))).length).toBe(1); // and no half-built ones beside it
  new GgufFile(ffnFile(paths[0]!))[Symbol.dispose]();
});

test("what was unused for longest goes first, what was just used stays, and killed builds are swept", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  const open = (seed: number, maxBytes?: number) =>
    openSubnetwork(bundle, randomMask(L, F, 16, "hard", seed), { root, maxBytes });
  const old = await open(1);
  const recent = await open(2);
  age(dirname(old.path));
  const abandoned = join(dirname(dirname(old.path)), "partial-of-a-killed-build");
  mkdirSync(abandoned);
  age(abandoned);
  const current = await open(3, 1);
  expect([old, recent, current].map(({ path }) => existsSync(path))).toEqual([false, true, true]);
  expect(existsSync(abandoned)).toBe(false);
});

test("shared tensors that had to be copied count", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  const { path } = await openSubnetwork(bundle, mask, { root });
  const shared = path.replace("00001-of", "00002-of");
  rmSync(shared);
  copyFileSync(bundle.base.path, shared); // as where there are no links
  age(dirname(path));
  const { size } = statSync(shared);
  await openSubnetwork(bundle, { ...mask, lambda: undefined }, { root, maxBytes: size });
  expect(existsSync(path)).toBe(false);
});

test("nothing goes while the limit is kept", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  const { path } = await openSubnetwork(bundle, mask, { root });
  age(dirname(path));
  await openSubnetwork(bundle, { ...mask, lambda: undefined }, { root, maxBytes: 1e6 });
  expect(existsSync(path)).toBe(true);
});
