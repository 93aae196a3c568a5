import { execFile, spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { goldenModel, randomMask, randomModel, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import { OptionError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";
import { ownTag } from "../processes.ts";
import { Bundle, partNames } from "./bundle.ts";
import { packBundle } from "./packBundle.ts";
import { openSubnetwork } from "./subnetworkCache.ts";

const model = goldenModel("qwen2");
const { numLayers: L, ffnWidth: F } = model.config;
const mask = randomMask(L, F, 16, "soft", 1);

async function anyBundle(of = model): Promise<Bundle> {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await writeCheckpoint(temporaryFolder(), of), folder, { type: "F32" });
  return new Bundle(folder);
}

const [metadata, shared, ffn] = partNames as [string, string, string];
const ffnFile = (path: string) => path.replace("00001-of", "00003-of");

/** Overwrites bytes in place, as a disk leaves them that had no time to write them. @param at from the end where below 0 */
function zero(path: string, at: number): void {
  const bytes = readFileSync(path);
  const start = at < 0 ? bytes.length + at : at;
  writeFileSync(path, bytes.fill(0, start, start + 64));
}

/** Puts one entry in the place of another. */
function replace(entry: string, other: string): void {
  rmSync(entry, { recursive: true });
  cpSync(other, entry, { recursive: true });
}

function relink(path: string, target: string): void {
  rmSync(path);
  symlinkSync(target, path);
}

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

test("the three files say that they are one model with this FFN width, and the first alone has a tokenizer, without merges", async () => {
  using bundle = await anyBundle();
  const { path } = await openSubnetwork(bundle, mask, { root: temporaryFolder() });
  using metadata = new GgufFile(path);
  using shared = new GgufFile(path.replace("00001-of", "00002-of"));
  using ffn = new GgufFile(ffnFile(path));
  expect(metadata.number("qwen2.feed_forward_length")).toBe(16);
  expect([metadata, shared, ffn].map((file) => file.number("split.no"))).toEqual([0, 1, 2]);
  for (const file of [metadata, shared, ffn]) {
    expect(file.number("split.tensors.count")).toBe(shared.tensors.size + ffn.tensors.size);
    const arrays = [...file.metadata].filter(([, entry]) => entry.type === "array" && entry.value.length > 0);
    expect(arrays.length > 0).toBe(file === metadata);
  }
  expect(metadata.metadata.get("tokenizer.ggml.merges")?.value).toEqual([]);
});

test.each<[string, (entry: string, others: { entry: string; base: string }) => void]>([
  ["a truncated one", (entry) => truncateSync(join(entry, ffn), 100)],
  ["one whose end was never written", (entry) => zero(join(entry, ffn), -64)],
  ["one with a broken header", (entry) => zero(join(entry, ffn), 0)],
  ["one without a file", (entry) => rmSync(join(entry, ffn))],
  ["one with damaged metadata", (entry) => zero(join(entry, metadata), 1000)],
  ["one that says nothing of itself", (entry) => rmSync(join(entry, "entry.json"))],
  ["one of another mask", (entry, others) => replace(entry, others.entry)],
  ["one that links to another model's tensors", (entry, { base }) => relink(join(entry, shared), base)],
])("an entry is used as it was written, or built again: %s", async (_, damage) => {
  using bundle = await anyBundle();
  using stranger = await anyBundle(randomModel({ family: "qwen2" }, 5));
  const root = temporaryFolder();
  const other = await openSubnetwork(bundle, randomMask(L, F, 16, "soft", 7), { root });
  const { path } = await openSubnetwork(bundle, mask, { root });
  const entry = dirname(path);
  const contents = () => readdirSync(entry).map((name) => [name, readFileSync(join(entry, name))]);
  const intact = contents();
  damage(entry, { entry: dirname(other.path), base: stranger.base.path });
  expect(await openSubnetwork(bundle, mask, { root })).toEqual({ path, cached: false });
  expect(contents()).toEqual(intact);
  expect((await openSubnetwork(bundle, mask, { root })).cached).toBe(true);
});

test("a copy of a bundle with other weights is refused, and leaves nothing for the genuine one", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  const copy = join(temporaryFolder(), "copy");
  cpSync(bundle.path, copy, { recursive: true });
  zero(join(copy, "ffn.gguf"), -1000);
  using altered = new Bundle(copy);
  await expect(openSubnetwork(altered, mask, { root })).rejects.toThrow(
    /ffn\.gguf: wanted sha256 .+changed or damaged/,
  );
  expect((await openSubnetwork(bundle, mask, { root })).cached).toBe(false);
});

test("a bundle that is altered while it is open is refused from then on", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  await openSubnetwork(bundle, mask, { root });
  zero(bundle.base.path, -200);
  await expect(openSubnetwork(bundle, mask, { root })).rejects.toThrow(/base\.gguf: wanted sha256/);
});

test("an entry serves two copies of one bundle, as long as what it links to is what both say", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  const copy = join(temporaryFolder(), "copy");
  cpSync(bundle.path, copy, { recursive: true });
  using twin = new Bundle(copy);
  await openSubnetwork(bundle, mask, { root });
  expect((await openSubnetwork(twin, mask, { root })).cached).toBe(true);
  zero(bundle.base.path, -200); // not its own, but the one that the entry links to
  const { path, cached } = await openSubnetwork(twin, mask, { root });
  expect([cached, realpathSync(path.replace("00001-of", "00002-of"))]).toEqual([false, realpathSync(twin.base.path)]);
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

test("what was unused for longest goes first, what was just used stays, and killed builds are swept, whatever the clock says", async () => {
  using bundle = await anyBundle();
  const root = temporaryFolder();
  const open = (seed: number, maxBytes?: number) =>
    openSubnetwork(bundle, randomMask(L, F, 16, "hard", seed), { root, maxBytes });
  const old = await open(1);
  const recent = await open(2);
  age(dirname(old.path));
  const { pid } = spawnSync(process.execPath, ["--version"]); // of a process that has ended
  const builds = [`${pid}-1-${hostname()}`, ownTag()].map((tag) => `${dirname(old.path)}.partial-${tag}`);
  for (const build of builds) {
    mkdirSync(build);
    age(build);
  }
  const current = await open(3, 1);
  expect([old, recent, current].map(({ path }) => existsSync(path))).toEqual([false, true, true]);
  expect(builds.map(existsSync)).toEqual([false, true]);
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
