/** The campaign of faults in short: two of each kind, at moments that repeat. `run.ts` makes as many as there is time for. */
import { afterAll, describe, expect, test } from "vitest";
import { Random } from "../../src/random.ts";
import { kinds } from "./kinds.ts";
import { World } from "./world.ts";

const world = new World();
afterAll(() => world[Symbol.dispose]());
const { "killed in training": _, ...short } = kinds(world); // test/resume.test.ts kills training

describe.each(Object.entries(short))("%s", (name, kind) => {
  test.each([1, 2])("nothing is lost (seed %d)", { timeout: 600_000 }, async (seed) => {
    expect(await kind(world, new Random(`${seed} ${name} test`))).toBeUndefined();
  });
});
