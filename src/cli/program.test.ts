/** What every command does alike: bad numbers, readers that leave, and a start that loads nothing. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { inProcess, succeed } from "../../test/support/cli.ts";
import { Bundle } from "../bundle/bundle.ts";
import { DEFAULT_MODEL } from "../bundle/pulledModels.ts";
import { servedModels } from "./options.ts";

test.each(["0", "150%", "half", "-1", "1.5", ""])(
  "a share of “%s” is refused wherever one is taken, with one as it may be",
  async (share) => {
    for (const args of [
      ["run", "Hello"],
      ["chat"],
      ["serve"],
      ["mask", "Hello"],
      ["export", "a", "b"],
      ["bench", "a"],
    ]) {
      const { code, stderr } = await inProcess(...args, `--keep=${share}`);
      expect(code).toBe(1);
      expect(stderr).toContain("Wanted a number above 0, at most 1, such as 75% or 0.75.");
    }
  },
);

test.each(["stdout", "stderr"] as const)("whoever stops reading %s sees no stack", async (name) => {
  const entry = fileURLToPath(new URL("../../bin/ifprune.js", import.meta.url));
  const args = name === "stdout" ? ["run", "--help"] : ["run", "--nonsense"];
  const child = spawn(process.execPath, [entry, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  child[name].destroy();
  const other = name === "stdout" ? child.stderr : child.stdout;
  let said = "";
  other.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  expect({ code, said }).toEqual({ code: expect.any(Number), said: "" });
});

test("where no model is named, the default one is asked", async () => {
  const flags = ["--source", "random", "--keep", "50%", "--json"]; // which load nothing
  const mask = JSON.parse(await succeed("mask", "Name three fruits.", ...flags));
  using bundle = new Bundle(DEFAULT_MODEL);
  expect([mask.dFfn, mask.layers.length]).toEqual([bundle.ffnWidth, bundle.numLayers]);
  expect(servedModels([])).toEqual([{ id: "default", path: DEFAULT_MODEL }]);
  expect(servedModels(["owner/name"])).toEqual([{ id: "name", path: "owner/name" }]);
});
