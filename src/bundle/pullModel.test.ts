/** From a stand-in of the Hub to a bundle that its id names. Downloads themselves are tested in `src/hub/hubSnapshot.test.ts`. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { shapes, writeCheckpointFolder } from "../../test/support/checkpoints.ts";
import { ggufParts, writeParts } from "../../test/support/gguf.ts";
import { FakeHub, setEnvironment } from "../../test/support/hub.ts";
import { temporaryFolder } from "../../test/support/models.ts";
import { FileError, HubError, OptionError } from "../errors.ts";
import { tokenizerMetadata } from "../formats/ggufTokenizer.ts";
import { addQuality, readManifest } from "../manifest.ts";
import { Bundle } from "./bundle.ts";
import { importModel } from "./importModel.ts";
import { modelFolder, pulledIds } from "./pulledModels.ts";
import { type PullOptions, pullModel } from "./pullModel.ts";

const id = "owner/name";

/** The files of a folder, by name. */
function filesOf(folder: string): Record<string, Buffer> {
  return Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]));
}

/** A checkpoint in several shards, as on the Hub: with a card, and with files that nobody needs. */
async function checkpoint(): Promise<Record<string, string | Buffer>> {
  const folder = temporaryFolder();
  await writeCheckpointFolder(folder, shapes.SmolLM2!);
  const card = "---\nlicense: apache-2.0\n---\n# Model\n";
  return { ...filesOf(folder), "README.md": card, "onnx/model.onnx": "no", "pytorch_model.bin": "no", "run.py": "no" };
}

/** GGUF files of the same model, of the given names. */
async function ggufs(...names: string[]): Promise<Record<string, Buffer>> {
  const folder = temporaryFolder();
  const model = await writeCheckpointFolder(folder, shapes.SmolLM2!);
  const parts = ggufParts(model);
  const boundary = { bosId: 1, eosIds: [2], addBos: false };
  for (const [key, value] of tokenizerMetadata(join(folder, "tokenizer.json"), model.config, boundary))
    parts.metadata.set(key, value);
  const bytes = readFileSync(await writeParts(temporaryFolder(), parts));
  return Object.fromEntries(names.map((name) => [name, bytes]));
}

async function hubOf(files: Record<string, string | Buffer>) {
  const folder = temporaryFolder();
  const hub = await FakeHub.start(folder);
  const commit = hub.add(id, { files });
  const downloads = () =>
    hub.log.flatMap((line) =>
      line.includes("/resolve/") ? [line.slice(line.indexOf(commit) + commit.length + 1)] : [],
    );
  return { hub, commit, folder, downloads };
}

async function refused(
  options: PullOptions | undefined,
  type: new (...args: never[]) => Error,
  message: RegExp,
): Promise<void> {
  const pulling = pullModel(id, options);
  await expect(pulling).rejects.toThrow(type);
  await expect(pulling).rejects.toThrow(message);
  expect(() => modelFolder(id)).toThrow(/ifprune pull owner\/name/);
}

describe("a checkpoint", () => {
  test("is imported into a bundle that its id names: only what an import reads is downloaded", async () => {
    const { commit, folder, downloads } = await hubOf(await checkpoint());
    expect(() => new Bundle(id)).toThrow(
      /wanted a folder, or a model of the Hub that was pulled, got neither\. .* ifprune pull owner\/name/,
    );
    const stages = new Map<string, number[][]>();
    const { path, commit: pulled } = await pullModel(id, {
      onProgress: (stage, ...bytes) => stages.set(stage, [...(stages.get(stage) ?? []), bytes]),
    });
    expect([pulled, path]).toEqual([commit, join(folder, "cache/ifprune/models/owner--name", commit)]);
    expect([...new Set(downloads())].filter((name) => !name.startsWith("model-")).sort()).toEqual(
      ["README.md", "config.json", "generation_config.json", "model.safetensors.index.json"].concat([
        "tokenizer.json",
        "tokenizer_config.json",
      ]),
    );
    expect([...stages.keys()]).toEqual(["download", "import"]);
    for (const told of stages.values()) expect(told.at(-1)![0]).toBe(told.at(-1)![1]);

    using bundle = new Bundle(id);
    expect(bundle.path).toBe(path);
    expect(bundle.manifest.provenance.data).toEqual([{ name: id, licence: "apache-2.0" }]);
    const before = downloads().length;
    expect((await pullModel(id)).path).toBe(path);
    expect(downloads()).toHaveLength(before);
  });

  test("that came to harm in the cache is made anew by another pull", async () => {
    const { downloads } = await hubOf(await checkpoint());
    const { path } = await pullModel(id);
    const weights = join(path, "ffn.gguf");
    const sound = readFileSync(weights);
    writeFileSync(weights, Buffer.concat([sound.subarray(0, -64), Buffer.alloc(64, 7)]));
    using harmed = new Bundle(id);
    await expect(harmed.verify()).rejects.toThrow(/changed or damaged: make or pull it again/);
    const before = downloads().length;
    await pullModel(id);
    expect(downloads()).toHaveLength(before);
    expect(readFileSync(weights).equals(sound)).toBe(true);
  });

  test.each<[string, (folder: string) => void]>([
    ["a file that is cut off", (folder) => truncateSync(join(folder, "ffn.gguf"), 1000)],
    ["a file that is gone", (folder) => rmSync(join(folder, "ffn.gguf"))],
    ["a manifest that is empty", (folder) => writeFileSync(join(folder, "ifprune.json"), "")],
  ])("with %s is made anew by another pull", async (_, harm) => {
    const { downloads } = await hubOf(await checkpoint());
    const { path } = await pullModel(id);
    harm(path);
    const before = downloads().length;
    await pullModel(id);
    expect(downloads()).toHaveLength(before);
    using bundle = new Bundle(id);
    await bundle.verify();
  });

  test("pulled again at another commit, its id names that one", async () => {
    const { hub } = await hubOf(await checkpoint());
    const first = await pullModel(id);
    const commit = hub.add(id, { files: { ...(await checkpoint()), "README.md": "---\nlicense: mit\n---\n" } });
    const second = await pullModel(id, { revision: commit });
    expect(second.path).not.toBe(first.path);
    using bundle = new Bundle(id);
    expect(bundle.manifest.provenance.data).toEqual([{ name: id, licence: "mit" }]);
  });

  test("is made of the Hub's cache alone where the network is not to be asked, by flag or environment", async () => {
    const { hub, folder } = await hubOf(await checkpoint());
    await refused({ offline: true }, HubError, /Pull it without --offline/);
    const out = join(folder, "out");
    await pullModel(id, { out });
    expect(() => modelFolder(id)).toThrow(FileError); // it is made elsewhere: the id names nothing
    const before = hub.log.length;
    setEnvironment("HF_HUB_OFFLINE", "1");
    await pullModel(id);
    using bundle = new Bundle(id);
    using same = new Bundle(out);
    expect(bundle.manifest.files).toEqual(same.manifest.files);
    expect(hub.log).toHaveLength(before);
    await expect(pullModel(id, { out })).rejects.toThrow(OptionError);
  });

  test("that we do not compute is refused before its weights come", async () => {
    const { downloads } = await hubOf({ ...(await checkpoint()), "config.json": '{"model_type": "mamba"}' });
    await refused(undefined, FileError, /mamba/);
    expect(downloads().filter((name) => name.endsWith(".safetensors"))).toEqual([]);
  });

  test("without a tokenizer.json, or with a shard that is not there, is refused", async () => {
    const { "tokenizer.json": _, ...files } = await checkpoint();
    const { hub } = await hubOf(files);
    await refused(undefined, HubError, /wanted a tokenizer\.json, got none in the repository/);
    const whole = await checkpoint();
    const shard = Object.keys(whole).find((name) => name.startsWith("model-00002"))!;
    delete whole[shard];
    hub.add(id, { files: whole });
    await refused(undefined, HubError, new RegExp(`wanted the file "${shard}", got none`));
    hub.add(id, {
      files: { ...whole, "model.safetensors.index.json": '{"weight_map": {"a": "../../evil.safetensors"}}' },
    });
    await refused(
      undefined,
      FileError,
      /wanted a \.safetensors file of this folder, got "\.\.\/\.\.\/evil\.safetensors"/,
    );
  });
});

describe("a repository of GGUF files", () => {
  test("gives that of Q8_0, and says so; --file takes another", async () => {
    const names = ["m.Q4_K_M.gguf", "m.Q8_0.gguf", "m.F16.gguf", "mmproj-m.Q8_0.gguf"];
    const { commit, folder, downloads } = await hubOf(await ggufs(...names));
    const { path, notes } = await pullModel(id);
    expect(path).toBe(join(folder, `cache/ifprune/models/owner--name/${commit}-m.Q8_0`));
    expect(notes).toEqual(["m.Q8_0.gguf: chosen of m.Q4_K_M.gguf, m.Q8_0.gguf, m.F16.gguf. --file chooses another."]);
    expect(downloads()).toEqual(["m.Q8_0.gguf"]);
    expect((await pullModel(id, { file: "m.F16.gguf" })).notes).toEqual([]);
    using bundle = new Bundle(id);
    expect(bundle.path).toMatch(/m\.F16$/);
    await expect(pullModel(id, { file: "m.Q2_K.gguf" })).rejects.toThrow(
      /wanted --file of owner\/name, one of m\.Q4_K_M.*, got "m\.Q2_K\.gguf"/,
    );
  });

  test("of one name in two folders are two models", async () => {
    await hubOf(await ggufs("a/model.gguf", "b/model.gguf"));
    const paths = [await pullModel(id, { file: "a/model.gguf" }), await pullModel(id, { file: "b/model.gguf" })];
    expect(new Set(paths.map(({ path }) => path)).size).toBe(2);
  });

  test("is not taken for one where it only belongs to one, wherever its name says so", async () => {
    const { downloads } = await hubOf(await ggufs("m-imatrix-Q4_0.gguf", "m-mmproj-Q8_0.gguf", "imatrix-Q8_0.gguf"));
    await pullModel(id);
    expect(downloads()).toEqual(["m-imatrix-Q4_0.gguf"]);
  });

  test("with one file gives that; with several of no known type wants --file", async () => {
    const { hub } = await hubOf(await ggufs("odd.gguf"));
    await pullModel(id);
    hub.add(id, { files: await ggufs("odd.gguf", "even.gguf") });
    await expect(pullModel(id)).rejects.toThrow(/wanted --file of owner\/name, one of odd\.gguf, even\.gguf, got none/);
  });

  test("takes all parts of a split one", async () => {
    const parts = [1, 2, 3].map((part) => `big/m-Q8_0-0000${part}-of-00003.gguf`);
    const { commit, folder } = await hubOf(await ggufs(...parts));
    await pullModel(id); // each is a whole model here, and their bytes come once: how parts are joined is the reader's business
    const snapshot = join(folder, "huggingface/hub/models--owner--name/snapshots", commit);
    expect(readdirSync(join(snapshot, "big")).map((name) => `big/${name}`)).toEqual(parts);
  });
});

describe("a repository that is a bundle", () => {
  async function bundleFiles(): Promise<{ files: Record<string, string | Buffer>; folder: string }> {
    const source = temporaryFolder();
    await writeCheckpointFolder(source, shapes.SmolLM2!);
    const folder = join(temporaryFolder(), "bundle");
    await importModel(source, folder, { licence: "MIT" });
    return { files: { ...filesOf(folder), "README.md": "# A bundle\n", ".gitattributes": "no" }, folder };
  }

  test("is used where it lies, with the files that its manifest names; --out copies it", async () => {
    const { files, folder: original } = await bundleFiles();
    const { downloads, folder } = await hubOf(files);
    const { path } = await pullModel(id);
    expect(path).toContain("huggingface/hub/models--owner--name/snapshots");
    expect(downloads().sort()).toEqual(readdirSync(original).sort());
    using bundle = new Bundle(id);
    await bundle.verify();
    const out = join(folder, "copy");
    await pullModel(id, { out });
    expect(Object.keys(filesOf(out))).toEqual(readdirSync(original));
    expect(statSync(join(out, "base.gguf")).nlink).toBe(1);
  });

  test("of which a file came to harm is whole after another pull, which brings that file alone", async () => {
    const { files } = await bundleFiles();
    const { downloads } = await hubOf(files);
    const { path } = await pullModel(id);
    writeFileSync(join(path, "ffn.gguf"), Buffer.alloc(files["ffn.gguf"]!.length, 7));
    const before = downloads().length;
    await pullModel(id);
    expect(downloads().slice(before)).toEqual(["ffn.gguf"]);
    expect(readFileSync(join(path, "ffn.gguf")).equals(Buffer.from(files["ffn.gguf"]!))).toBe(true);
  });

  test("that was published with what was measured stays as it came", async () => {
    const { files, folder } = await bundleFiles();
    addQuality(folder, { prompts: 1, tokens: 2, rows: [{ source: "griffin", tFfn: 32, loss: 0.5, agreement: 0.5 }] });
    const { downloads } = await hubOf({ ...files, ...filesOf(folder) });
    const { path } = await pullModel(id);
    const before = downloads().length;
    await pullModel(id);
    expect(lstatSync(join(path, "ifprune.json")).isSymbolicLink()).toBe(true);
    expect(downloads()).toHaveLength(before);
  });

  test("keeps what was measured of it through another pull, unless it is another bundle by then", async () => {
    const { files } = await bundleFiles();
    const { hub } = await hubOf(files);
    const { path } = await pullModel(id);
    const quality = { prompts: 1, tokens: 2, rows: [{ source: "griffin", tFfn: 32, loss: 0.5, agreement: 0.5 }] };
    addQuality(path, quality);
    await pullModel(id);
    expect(readManifest(path, "ifprune-bundle").quality).toEqual(quality);
    hub.add(id, { files: { ...files, "README.md": "# Another card\n" } });
    const same = await pullModel(id);
    expect(same.path).not.toBe(path);
    expect(readManifest(same.path, "ifprune-bundle").quality).toEqual(quality);
    hub.add(id, { files: { ...files, ...(await bundleFiles()).files } });
    const other = await pullModel(id);
    expect(readManifest(other.path, "ifprune-bundle").quality).toBeUndefined();
  });

  test("is refused where its manifest is of something else, or names what is not there", async () => {
    const { files } = await bundleFiles();
    const manifest = JSON.parse(files["ifprune.json"]!.toString());
    const { hub } = await hubOf({
      ...files,
      "ifprune.json": JSON.stringify({ ...manifest, format: "ifprune-checkpoint" }),
    });
    await refused(undefined, FileError, /wanted a bundle, got a checkpoint/);
    const { "base.gguf": _, ...fewer } = files;
    hub.add(id, { files: fewer });
    await refused(undefined, HubError, /wanted the file "base.gguf", got none/);
    hub.add(id, { files: { ...files, "base.gguf": "short" } });
    await refused(undefined, FileError, /wanted \d+ bytes as in ifprune\.json, got 5/);
  });
});

test("pickles, and what is no model, are refused before anything is downloaded", async () => {
  const { hub, downloads } = await hubOf({ "config.json": "{}", "pytorch_model.bin": "no", "tokenizer.json": "{}" });
  await refused(undefined, HubError, /got "pytorch_model\.bin"\. Such files are Python pickles, which can run code/);
  hub.add(id, { files: { "data.csv": "1,2" } });
  await refused(
    undefined,
    HubError,
    /wanted an ifprune bundle, config\.json with model\.safetensors, or a \.gguf file, got none/,
  );
  expect(downloads()).toEqual([]);
});

test("a note of a pull that came to harm keeps no other model from being found", async () => {
  const { folder } = await hubOf(await ggufs("m.gguf"));
  const { path } = await pullModel(id);
  writeFileSync(join(folder, "cache/ifprune/models/other--model.json"), "");
  expect([modelFolder("name"), modelFolder(id), pulledIds()]).toEqual([path, path, [id]]);
  expect(() => modelFolder("other/model")).toThrow(/ifprune pull other\/model/);
});

test("what was pulled and then removed is to be pulled again; a folder of the same name goes first", async () => {
  const { folder } = await hubOf({});
  const models = join(folder, "cache/ifprune/models");
  mkdirSync(models, { recursive: true });
  writeFileSync(join(models, "owner--name.json"), JSON.stringify({ bundle: join(folder, "gone") }));
  expect(() => modelFolder(id)).toThrow(/ifprune pull owner\/name/);
  expect(modelFolder("src/bundle")).toBe("src/bundle");
  expect(existsSync("src/bundle")).toBe(true);
  expect(() => modelFolder("a")).toThrow(/wanted a folder, or the name of a model, got neither/);
  for (const path of ["./a/b", "/a/b", "a/b/c"]) expect(modelFolder(path)).toBe(path); // whoever opens it says more
});
