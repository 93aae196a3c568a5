/** `pull` as a command, and what other commands make of an id. What it brings is tested beside `src/bundle/pullModel.ts`. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { shapes, writeCheckpointFolder } from "../../test/support/checkpoints.ts";
import { inProcess, succeed } from "../../test/support/cli.ts";
import { FakeHub } from "../../test/support/hub.ts";
import { temporaryFolder } from "../../test/support/models.ts";

beforeAll(() => {
  process.setMaxListeners(0); // every command listens for Ctrl-C
});

test("a model is pulled with its progress, and then named by its id in every command", async () => {
  const folder = temporaryFolder();
  const hub = await FakeHub.start(folder);
  const source = temporaryFolder();
  await writeCheckpointFolder(source, shapes.SmolLM2!);
  const files = Object.fromEntries(readdirSync(source).map((name) => [name, readFileSync(join(source, name))]));
  hub.add("owner/name", { files });

  const early = await inProcess("mask", "hello", "--model", "owner/name");
  expect(early).toMatchObject({ code: 1, stderr: expect.stringContaining("or run: ifprune pull owner/name\n") });

  const pulled = await inProcess("pull", "owner/name");
  expect(pulled).toMatchObject({ code: 0, stdout: "" });
  expect(pulled.stderr).toMatch(
    /^download [\s\S]*\(100 %\).*\nimport [\s\S]*\(100 %\).*\n[\s\S]*owner--name.*: bundle\. Ask it: ifprune run --model owner\/name /,
  );
  const mask = ["--t-ffn", "32", "--source", "weights"];
  expect(await succeed("mask", "hello", "--model", "owner/name", ...mask)).toMatch(/^32 of /);
  expect(JSON.parse(await succeed("estimate", "owner/name", "--t-ffn", "32", "--json"))).toMatchObject({ tFfn: 32 });
  expect(await succeed("mask", "hello", "--model", "name", ...mask)).toMatch(/^32 of /); // as a server names it
  const unknown = await inProcess("mask", "hello", "--model", "nome");
  expect(unknown.stderr).toMatch(
    /nome: wanted a folder, or the name of a model, got neither\. .+: tiny, default, owner\/name\.$/m,
  );
  const exported = join(folder, "exported");
  await succeed("export", "owner/name", exported, "--task", "hello", "--format", "hf", ...mask);
  expect(readFileSync(join(exported, "README.md"), "utf8")).toContain("owner/name");

  expect(await inProcess("pull", "owner/name", "--offline", "--revision", "v2")).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^ifprune: owner\/name: wanted the revision "v2" in the cache/),
  });
  expect(await inProcess("pull", "name")).toMatchObject({ code: 1, stderr: expect.stringContaining("OWNER/NAME") });
});
