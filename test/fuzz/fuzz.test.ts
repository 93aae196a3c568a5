/** A short run of every target; the campaign is `run.ts`. */
import { expect, test } from "vitest";
import { Fuzzer } from "./check.ts";
import { targets } from "./targets.ts";

const [seed, cases] = [1, 200];

test.each(Object.entries(targets))(
  `${cases} hostile cases of %s are read or refused, seed ${seed}`,
  async (_, target) => {
    using fuzzer = await Fuzzer.open(target);
    expect(await fuzzer.check(seed, cases)).toBeUndefined();
    expect(fuzzer.summary.accepted).toBeGreaterThan(0); // else the valid files are not
    expect(fuzzer.summary.accepted).toBeLessThan(cases);
  },
);
