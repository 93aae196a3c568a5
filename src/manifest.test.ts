import { rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../test/support/models.ts";
import { FileError } from "./errors.ts";
import {
  addQuality,
  type CheckpointManifest,
  describeFiles,
  hashFile,
  manifestHash,
  manifestName,
  readManifest,
  verifyFiles,
  writeManifest,
} from "./manifest.ts";

async function sample(): Promise<{ folder: string; manifest: CheckpointManifest }> {
  const folder = temporaryFolder();
  writeFileSync(join(folder, "weights.bin"), "weights");
  const manifest: CheckpointManifest = {
    format: "ifprune-checkpoint",
    version: 1,
    tFfn: 64,
    epsilon: 0.3,
    lambda: "soft",
    predictorInput: "prompt",
    predictorPooling: "last",
    promptTemplate: "{prompt}\n",
    bosId: 0,
    eosId: 1,
    provenance: { recipe: "r", seed: 1, data: [{ name: "d", licence: "MIT" }], created: "2026-11-01T00:00:00Z" },
    files: await describeFiles(folder, ["weights.bin"]),
  };
  writeManifest(folder, manifest);
  return { folder, manifest };
}

test("what is written is read back, and its files verify", async () => {
  const { folder, manifest } = await sample();
  expect(readManifest(folder, "ifprune-checkpoint")).toEqual(manifest);
  await verifyFiles(folder, manifest);
});

test("a bundle's hash is that of its manifest's file, and stays when the bundle is measured, and measured again", async () => {
  const { folder, manifest } = await sample();
  const { predictorPooling: _, ...old } = { ...manifest, format: "ifprune-bundle" }; // as written before there was such a field
  const path = join(folder, manifestName);
  writeFileSync(path, `${JSON.stringify(old, null, 2)}\n`);
  const hash = manifestHash(folder);
  expect(hash).toBe(await hashFile(path));
  for (const loss of [0.5, 0.25]) {
    const quality = { prompts: 6, tokens: 90, rows: [{ source: "griffin", tFfn: 64, loss, agreement: 0.9 }] };
    addQuality(folder, quality);
    expect(readManifest(folder, "ifprune-bundle").quality).toEqual(quality);
    expect(manifestHash(folder)).toBe(hash);
  }
});

describe("refuses", () => {
  test("a file that is missing or of another size, at opening", async () => {
    const { folder } = await sample();
    truncateSync(join(folder, "weights.bin"), 3);
    expect(() => readManifest(folder, "ifprune-checkpoint")).toThrow(/wanted 7 bytes .* got 3/);
    rmSync(join(folder, "weights.bin"));
    expect(() => readManifest(folder, "ifprune-checkpoint")).toThrow(/got no file/);
  });

  test("changed bytes, when verifying", async () => {
    const { folder, manifest } = await sample();
    writeFileSync(join(folder, "weights.bin"), "weightz");
    await expect(verifyFiles(folder, manifest)).rejects.toThrow(FileError);
  });

  test.each<[string, object]>([
    ["another kind", { format: "ifprune-bundle" }],
    ["another version", { version: 2 }],
    ["an unknown key", { tffn: 3 }],
    ["a template without the prompt", { promptTemplate: "x" }],
    ["a path out of the folder", { files: { "../secret": { bytes: 1, sha256: "0".repeat(64) } } }],
    ["an absolute path", { files: { "/etc/passwd": { bytes: 1, sha256: "0".repeat(64) } } }],
    ["a path with dots inside", { files: { "a/../../b": { bytes: 1, sha256: "0".repeat(64) } } }],
    ["a file within a file", { files: { "weights.bin/x": { bytes: 1, sha256: "0".repeat(64) } } }],
    ["a name that no file can have", { files: { ["x".repeat(300)]: { bytes: 1, sha256: "0".repeat(64) } } }],
    ["a hash that is none", { files: { a: { bytes: 1, sha256: "x" } } }],
  ])("%s", async (_, changes) => {
    const { folder, manifest } = await sample();
    writeFileSync(join(folder, manifestName), JSON.stringify({ ...manifest, ...changes }));
    expect(() => readManifest(folder, "ifprune-checkpoint")).toThrow(FileError);
  });

  test("a folder of the other kind, and says what to do", async () => {
    const { folder, manifest } = await sample();
    expect(() => readManifest(folder, "ifprune-bundle")).toThrow(
      /: wanted a bundle, got a checkpoint\. `ifprune pack` makes a bundle of it\.$/,
    );
    const bundle = { ...manifest, format: "ifprune-bundle", files: 1 }; // whatever else is wrong with it
    writeFileSync(join(folder, manifestName), JSON.stringify(bundle));
    expect(() => readManifest(folder, "ifprune-checkpoint")).toThrow(/: wanted a checkpoint, got a bundle\. Give /);
  });

  test("flaws in one line, the first few", async () => {
    const { folder, manifest } = await sample();
    writeFileSync(
      join(folder, manifestName),
      JSON.stringify({ ...manifest, version: 2, tFfn: 0, eosId: -1, lambda: 1 }),
    );
    expect(() => readManifest(folder, "ifprune-checkpoint")).toThrow(
      /^[^\p{Cc}✖]*: wanted the manifest of a checkpoint, got: "version": [^\p{Cc}✖]+; "tFfn": [^\p{Cc}✖]+; and 1 more\. Is [^\p{Cc}]+\?$/u,
    );
  });

  test("a folder without one", () =>
    expect(() => readManifest(temporaryFolder(), "ifprune-bundle")).toThrow(FileError));
});
