/** The cache of sub-networks survives `kill -9` inside any write: what is opened afterwards is as if nobody had been killed, and nothing is left over. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Bundle } from "../src/bundle/bundle.ts";
import { packBundle } from "../src/bundle/packBundle.ts";
import { openSubnetwork } from "../src/bundle/subnetworkCache.ts";
import { Random } from "../src/random.ts";
import { contentsOf } from "./kill/contents.ts";
import { expectKilledOrDone, type KilledRun, runKilled } from "./kill/kill.ts";
import { masksOf } from "./kill/masks.ts";
import { goldenModel, randomMask, writeCheckpoint } from "./support/models.ts";

const KILLS = 8;
const program = fileURLToPath(new URL("kill/subnetworks.ts", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "cache-kill-"));
afterAll(() => rmSync(folder, { recursive: true }));

const build = (name: string, killAt?: number) =>
  runKilled(program, [join(folder, "bundle"), join(folder, name)], { under: join(folder, name), killAt });

let whole: KilledRun;
beforeAll(async () => {
  const checkpoint = await writeCheckpoint(join(folder, "checkpoint"), goldenModel("qwen2"));
  await packBundle(checkpoint, join(folder, "bundle"), { type: "F32" });
  whole = await build("whole");
  expectKilledOrDone(whole);
});

const random = new Random("moments of the cache");
for (let kill = 0; kill < KILLS; kill++) {
  const at = random.float();
  test(`killed at ${(100 * at).toFixed(1)} % of the writes`, async () => {
    const name = `kill-${kill}`;
    const killed = await build(name, 1 + Math.floor(at * whole.calls.length));
    expect(killed.signal, killed.stderr).toBe("SIGKILL");
    using bundle = new Bundle(join(folder, "bundle"));
    const root = join(folder, name);
    for (const mask of masksOf(bundle)) await openSubnetwork(bundle, mask, { root });
    // What the killed one left goes with the next build, which is not one of theirs.
    const { path } = await openSubnetwork(bundle, randomMask(bundle.numLayers, bundle.ffnWidth, 16, "hard", 3), {
      root,
    });
    rmSync(dirname(path), { recursive: true });
    expect(contentsOf(root)).toEqual(contentsOf(join(folder, "whole")));
  });
}
