/** Downloads from a stand-in of the Hub: the cache that Python tools share, interruptions, damage, refusals and hostile answers. */
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { FakeHub, type FakeRepository, setEnvironment } from "../../test/support/hub.ts";
import { temporaryFolder } from "../../test/support/models.ts";
import { FileError, HubError, OptionError } from "../errors.ts";
import { HubSnapshot, isHubId, type SnapshotOptions } from "./hubSnapshot.ts";

const disk = vi.hoisted(() => ({ isFull: false, isFaster: false, hasRoom: true }));
vi.mock("node:fs", async (original) => {
  const fs = await original<typeof import("node:fs")>();
  const symlinkSync: typeof fs.symlinkSync = (...args) => {
    fs.symlinkSync(...args);
    if (disk.isFaster) fs.symlinkSync(...args); // as if another process had made it
  };
  const statfsSync = (path: string) => ({ ...fs.statfsSync(path), ...(!disk.hasRoom && { bavail: 0 }) });
  return { ...fs, symlinkSync, statfsSync };
});
vi.mock("../files.ts", async (original) => {
  const files = await original<typeof import("../files.ts")>();
  const writeFully: typeof files.writeFully = (...args) => {
    if (disk.isFull) throw Object.assign(new Error("no space left"), { code: "ENOSPC", syscall: "write" });
    files.writeFully(...args);
  };
  return { ...files, writeFully };
});

const id = "owner/name";
const weights = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * i) % 251));
const sha256 = createHash("sha256").update(weights).digest("hex");
const repository: FakeRepository = {
  files: { "README.md": "# Model\n", "config.json": "{}", "sub/model.safetensors": weights, "other.txt": "not wanted" },
};
const names = ["README.md", "sub/model.safetensors"];

async function startHub(changes: Partial<FakeRepository> = {}) {
  const folder = temporaryFolder();
  const hub = await FakeHub.start(folder);
  const commit = hub.add(id, { ...repository, ...changes });
  const cache = join(folder, "huggingface/hub/models--owner--name");
  const open = (options: Partial<SnapshotOptions> = {}) =>
    HubSnapshot.open(id, { revision: "main", offline: false, ...options });
  const incomplete = join(cache, "blobs", `${sha256}.incomplete`);
  const downloads = () => hub.log.filter((line) => line.includes("/resolve/"));
  return { hub, commit, cache, open, incomplete, downloads };
}

async function refusal(work: Promise<unknown>, type: new (...args: never[]) => Error): Promise<string> {
  const error = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(type);
  return (error as Error).message;
}

function expectWeights({ folder }: HubSnapshot): void {
  expect(readFileSync(join(folder, "sub/model.safetensors")).equals(weights)).toBe(true);
}

describe("the cache", () => {
  test("has what was asked for and no more, in the layout of the Hub's Python tools; nothing comes twice", async () => {
    const { hub, commit, cache, open, downloads } = await startHub();
    const snapshot = await open();
    expect(snapshot).toMatchObject({ commit, folder: join(cache, "snapshots", commit) });
    expect([...snapshot.names].sort()).toEqual(Object.keys(repository.files).sort()); // of two pages
    const told: number[][] = [];
    await snapshot.bring(names, (...bytes) => told.push(bytes));
    const total = weights.length + 8;
    expect([told[0], told.at(-1)]).toEqual([
      [0, total],
      [total, total],
    ]);

    expect(readFileSync(join(cache, "refs/main"), "utf8")).toBe(commit);
    expect(readlinkSync(join(snapshot.folder, "sub/model.safetensors"))).toBe(join("../../../blobs", sha256));
    expectWeights(snapshot);
    const gitBlob = createHash("sha1").update("blob 8\0# Model\n").digest("hex");
    expect(readdirSync(join(cache, "blobs")).sort()).toEqual([gitBlob, sha256].sort());
    expect(downloads()).toHaveLength(2);
    expect(hub.leaked).toEqual([]);

    await (await open()).bring(names);
    await (await open({ revision: commit })).bring(names);
    expect(downloads()).toHaveLength(2);
  });

  test("that a Python tool filled is used: the bytes are there under another commit", async () => {
    const { cache, open, downloads } = await startHub();
    mkdirSync(join(cache, "blobs"), { recursive: true });
    writeFileSync(join(cache, "blobs", sha256), weights);
    const snapshot = await open();
    disk.hasRoom = false; // none is needed
    onTestFinished(() => {
      disk.hasRoom = true;
    });
    const progress: number[][] = [];
    await snapshot.bring(["sub/model.safetensors"], (...at) => progress.push(at));
    expectWeights(snapshot);
    expect(downloads()).toEqual([]);
    expect(progress).toEqual([[weights.length, weights.length]]);
  });

  test("is all there is offline: what it has is found without a word to the Hub, what it lacks is said", async () => {
    const { hub, cache, commit, open } = await startHub();
    expect(await refusal(open({ offline: true }), HubError)).toMatch(
      /^owner\/name: wanted the revision "main" in the cache ".*", got none\. Pull it without --offline/,
    );
    await (await open()).bring(names);
    const before = hub.log.length;
    for (const revision of ["main", commit]) {
      const offline = await open({ offline: true, revision });
      expect([...offline.names].sort()).toEqual(names);
      await offline.bring(names);
      expect(await refusal(offline.bring(["config.json"]), HubError)).toContain(
        'wanted the file "config.json", got none in the cache',
      );
    }
    expect(hub.log).toHaveLength(before);
    writeFileSync(join(cache, "refs/main"), "../../../elsewhere");
    await refusal(open({ offline: true }), HubError);
  });
});

test("a link that another process was faster to make is taken, and the bytes stay for other commits", async () => {
  const { hub, open, cache } = await startHub();
  const first = await open();
  await first.bring(names);
  hub.add(id, { ...repository, files: { ...repository.files, "README.md": "# Other\n" } });
  const second = await open();
  disk.isFaster = true;
  await second.bring(names);
  disk.isFaster = false;
  for (const snapshot of [first, second]) expectWeights(snapshot);
  expect(readdirSync(join(cache, "blobs"))).toContain(sha256);
});

test("hashing what came is stopped too", async () => {
  const { open, incomplete, cache } = await startHub();
  const stop = new AbortController();
  mkdirSync(join(cache, "blobs"), { recursive: true });
  writeFileSync(incomplete, weights);
  const snapshot = await open({ signal: stop.signal });
  const bringing = snapshot.bring(["sub/model.safetensors"], () => stop.abort(new Error("stopped")));
  await expect(bringing).rejects.toThrow("stopped");
  expect(existsSync(incomplete)).toBe(true);
});

test("two that bring the same at a time end with one whole file", async () => {
  const { cache, open } = await startHub();
  const both = await Promise.all([open(), open()]);
  await Promise.all(both.map((snapshot) => snapshot.bring(names)));
  expectWeights(both[0]);
  expect(readdirSync(join(cache, "blobs"))).toHaveLength(2);
});

describe("an interrupted download", () => {
  test("goes on where it stopped, with the bytes of before told as done", async () => {
    const { open, incomplete, downloads } = await startHub();
    const stop = new AbortController();
    const stopped = (await open({ signal: stop.signal })).bring(names, (done) => done > 100_000 && stop.abort());
    await expect(stopped).rejects.toThrow(expect.objectContaining({ name: "AbortError" }));
    const { size } = statSync(incomplete);
    expect(size).toBeGreaterThan(0);
    expect(size).toBeLessThan(weights.length);

    const snapshot = await open();
    const told: number[] = [];
    await snapshot.bring(names, (done) => told.push(done));
    expect(told[0]).toBe(size + 8);
    expect(downloads().at(-1)).toMatch(new RegExp(`model.safetensors bytes=${size}-$`));
    expectWeights(snapshot);
    expect(existsSync(incomplete)).toBe(false);
  });

  test("that the network broke is gone on with at once", async () => {
    const { hub, open, downloads } = await startHub();
    let breaks = 1;
    hub.spoil = (name, bytes) => (name === names[1] && breaks-- > 0 ? bytes.subarray(0, 70_000) : bytes);
    const snapshot = await open();
    await snapshot.bring([names[1]!]);
    expectWeights(snapshot);
    expect(downloads()).toEqual([expect.not.stringContaining("bytes="), expect.stringMatching(/ bytes=\d+-$/)]);
  });

  test("begins anew where a server sends no parts", async () => {
    const { hub, open, incomplete } = await startHub();
    mkdirSync(join(incomplete, ".."), { recursive: true });
    writeFileSync(incomplete, weights.subarray(0, 1000));
    hub.sendsParts = false;
    const snapshot = await open();
    const told: number[] = [];
    await snapshot.bring([names[1]!], (done) => told.push(done));
    expectWeights(snapshot);
    expect([told[0], told.at(-1)]).toEqual([1000, weights.length]);
  });

  test.each([
    ["as long as the file", weights.length],
    ["longer than it", weights.length + 1],
    ["shorter", 1000],
  ])("of other bytes, %s, is begun anew", async (_, length) => {
    const { open, incomplete } = await startHub();
    mkdirSync(join(incomplete, ".."), { recursive: true });
    writeFileSync(incomplete, Buffer.alloc(length, 7));
    const snapshot = await open();
    await snapshot.bring([names[1]!]);
    expectWeights(snapshot);
  });
});

describe("nothing is kept of", () => {
  test.each(["config.json", "sub/model.safetensors"])("%s where its bytes are not those of its hash", async (name) => {
    const { hub, open, cache } = await startHub();
    hub.spoil = (_, bytes) => Buffer.from(bytes.map((byte) => byte ^ 1));
    const snapshot = await open();
    expect(await refusal(snapshot.bring([name]), FileError)).toMatch(/wanted the hash \w+, got \w+\. .* pull again/);
    expect(readdirSync(join(cache, "blobs"))).toEqual([]);
    expect(existsSync(join(snapshot.folder, name))).toBe(false);
  });

  test("what a full disk cut off: it says so, and what to do", async () => {
    const { open } = await startHub();
    disk.isFull = true;
    const message = await refusal((await open()).bring([names[1]!]), FileError).finally(() => (disk.isFull = false));
    expect(message).toMatch(/wanted room on its disk, got no more\. Make room\. If need be, set HF_HUB_CACHE/);
  });

  test.each(["blobs", "refs", "snapshots"])("what would come through a link instead of %s", async (name) => {
    const { open, cache } = await startHub();
    const elsewhere = temporaryFolder();
    mkdirSync(cache, { recursive: true });
    symlinkSync(elsewhere, join(cache, name));
    const pulling = (async () => (await open()).bring(names))();
    expect(await refusal(pulling, FileError)).toContain("wanted to write here, got a link to elsewhere");
    expect(readdirSync(elsewhere)).toEqual([]);
  });

  test("a model that the disk has no room for: that is known before", async () => {
    const { hub, open, downloads } = await startHub();
    hub.list = ({ lfs, ...entry }) => (lfs ? { ...entry, lfs: { ...lfs, size: 1e15 } } : entry);
    const message = await refusal((await open()).bring(names), FileError);
    expect(message).toMatch(/wanted 1000000000 MB on its disk, got \d+ MB\./);
    expect(downloads()).toEqual([]);
  });
});

describe("a refusal says what to do:", () => {
  test("a gated model, without a token and with one of nobody who accepted its licence", async () => {
    const { hub, open } = await startHub({ gated: true });
    const attempt = async () => (await open()).bring(names); // its list is open
    const licence = `Accept its licence at ${process.env.HF_ENDPOINT}/${id} first.`;
    const without = await refusal(attempt(), HubError);
    expect(without).toContain(
      `${licence} Then make a token at ${process.env.HF_ENDPOINT}/settings/tokens and set HF_TOKEN`,
    );
    setEnvironment("HF_TOKEN", "hf_other");
    expect(await refusal(attempt(), HubError)).toContain(`${licence} The token in use is not of an account that has.`);
    setEnvironment("HF_TOKEN", hub.token);
    await attempt();
    expect(hub.leaked).toEqual([]); // the other server's business is the file alone
  });

  test("the token of `hf auth login` is taken where none is set", async () => {
    const { hub, open } = await startHub({ gated: true });
    mkdirSync(process.env.HF_HOME!, { recursive: true });
    writeFileSync(join(process.env.HF_HOME!, "token"), `${hub.token}\n`);
    await (await open()).bring(names);
  });

  test("a token of other characters, which is not told", async () => {
    const { open } = await startHub();
    for (const token of ["hf_secret\nX", "hf_“secret”"]) {
      setEnvironment("HF_TOKEN", token);
      const said = await refusal(open(), OptionError);
      expect(said).toMatch(/HF_TOKEN.*wanted a token/);
      expect(said).not.toContain("secret");
    }
  });

  test("no such model, revision, id or endpoint", async () => {
    const { open } = await startHub();
    expect(await refusal(HubSnapshot.open("owner/none", { revision: "main", offline: false }), HubError)).toMatch(
      /^owner\/none: wanted a model at http.*, got none \(401\)\. Check the name; of a private one, make a token/,
    );
    expect(await refusal(open({ revision: "v9" }), HubError)).toMatch(/wanted a revision of that name, got none/);
    await refusal(open({ revision: "../../x" }), OptionError);
    for (const wrong of ["name", "owner/../name", "a--b/name", "/etc/passwd", "owner/name/more"])
      await refusal(HubSnapshot.open(wrong, { revision: "main", offline: false }), OptionError);
    setEnvironment("HF_ENDPOINT", "http://127.0.0.1:1");
    expect(await refusal(open(), HubError)).toMatch(
      /wanted an answer of http:\/\/127.0.0.1:1, got .*Is there a network/,
    );
    setEnvironment("HF_ENDPOINT", "huggingface.co");
    await refusal(open(), OptionError);
  });
});

describe("a hostile repository", () => {
  test.each(["../../../../evil", "/tmp/evil", "a/../../evil", "a\\..\\evil", "C:evil"])(
    "cannot name %s",
    async (name) => {
      const { open, cache } = await startHub({ files: { [name]: "evil" } });
      const snapshot = await open();
      expect(await refusal(snapshot.bring([name]), HubError)).toContain("which may lie outside their folder");
      expect(existsSync(join(cache, "snapshots"))).toBe(false);
    },
  );

  test.each<[string, Record<string, unknown>]>([
    ["a hash that is a path", { oid: "../../../evil", lfs: undefined }],
    ["a hash in LFS that is a path", { lfs: { oid: "../../../evil", size: 4 } }],
    ["a size below 0", { size: -1 }],
    ["no name", { path: 7 }],
  ])("cannot list %s", async (_, change) => {
    const { hub, open } = await startHub();
    hub.list = (entry) => ({ ...entry, ...change });
    expect(await refusal(open(), HubError)).toMatch(/wanted an answer of the Hub, got/);
  });

  test("cannot send more than it listed", async () => {
    const { hub, open, incomplete } = await startHub();
    hub.list = ({ lfs, ...entry }) => (lfs ? { ...entry, lfs: { ...lfs, size: 1000 } } : entry);
    expect(await refusal((await open()).bring(names), HubError)).toMatch(/wanted 1000 bytes of .*, got more/);
    expect(statSync(incomplete).size).toBeLessThanOrEqual(1000);
  });
});

test("an id is an owner and a name", () => {
  expect(["a/b", "Org-1/Model_2.5-Instruct"].map(isHubId)).toEqual([true, true]);
  expect(["", "a", "a/b/c", "./b", "../b", "a/..", "a/b--c", "-a/b", "a/ b", `a/${"b".repeat(96)}`].some(isHubId)).toBe(
    false,
  );
});
