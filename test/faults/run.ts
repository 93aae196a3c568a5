/**
 * The campaign of faults: `npx tsx test/faults/run.ts [--minutes N] [--seed N] [--kind NAME]…` makes one fault of each kind after the other and asks what should be answered all the
 * same. It prints how many of each were tried, held and lost: a wrong answer, a refusal after the fault, a process that died. Where anything is lost, it exits with 1.
 */
import { parseArgs } from "node:util";
import { Random } from "../../src/random.ts";
import { kinds } from "./kinds.ts";
import { World } from "./world.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: "1" },
    kind: { type: "string", multiple: true },
  },
});
using world = new World();
const all = kinds(world);
const chosen = values.kind ?? Object.keys(all);
for (const name of chosen)
  if (!all[name]) throw new Error(`wanted one of ${Object.keys(all).join(", ")}, got "${name}".`);
const counts = new Map(chosen.map((name) => [name, { tried: 0, held: 0, lost: 0 }]));
const end = Date.now() + 60_000 * Number(values.minutes);
for (let round = 0; Date.now() < end; round++) {
  for (const [name, count] of counts) {
    if (Date.now() >= end) break;
    const seed = `${values.seed} ${name} ${round}`;
    const lost = await all[name]!(world, new Random(seed));
    count.tried++;
    if (lost === undefined) count.held++;
    else {
      count.lost++;
      console.log(`${name}, round ${round}: ${lost}`);
    }
  }
}
console.log("kind: tried / held / lost");
for (const [name, { tried, held, lost }] of counts) console.log(`${name}: ${tried} / ${held} / ${lost}`);
process.exitCode = [...counts.values()].some(({ lost }) => lost > 0) ? 1 : 0;
