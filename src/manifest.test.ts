import { rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../test/support/models.ts";
import { FileError } from "./errors.ts";
import {
  type CheckpointManifest,
  describeFiles,
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
