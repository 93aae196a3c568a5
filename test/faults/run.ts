/**
 * The campaign of faults: `npx tsx test/faults/run.ts [--minutes N] [--count N] [--seed N] [--kind NAME]…` makes one fault of each kind after the other, for so long and at most so many
 * of each, and asks what should be answered all the same. It prints how many of each were tried, held and lost: a wrong answer, a refusal after the fault, a process that died. Where
 * anything is lost, it exits with 1. With `--clients N` it is clients of `ifprune serve` instead (`clients.ts`).
 *
 *     npx tsx test/faults/run.ts --kind "killed at the cache" --count 1000
 *     npx tsx test/faults/run.ts --kind "killed in training" --count 100
 *     npx tsx test/faults/run.ts --clients 300 --minutes 10
 */
import { parseArgs } from "node:util";
import { Random } from "../../src/random.ts";
import { askForLong } from "./clients.ts";
import { apart, kinds } from "./kinds.ts";
import { World } from "./world.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string" },
    count: { type: "string" },
    clients: { type: "string" },
    seed: { type: "string", default: "1" },
    kind: { type: "string", multiple: true },
  },
});
const { seed } = values;
const minutes = Number(values.minutes ?? (values.count === undefined ? 10 : Number.POSITIVE_INFINITY));

interface Count {
  tried: number;
  held: number;
  lost: number;
}

async function makeFaults(count: number): Promise<Record<string, Count>> {
  using world = new World();
  const all = kinds(world);
  const chosen = values.kind ?? Object.keys(all);
  for (const name of chosen)
    if (!all[name]) throw new Error(`wanted one of ${Object.keys(all).join(", ")}, got "${name}".`);
  const counts: Record<string, Count> = {};
  for (const name of chosen) counts[name] = { tried: 0, held: 0, lost: 0 };
  const end = Date.now() + 60_000 * minutes;
  const mayTry = (name: string) => Date.now() < end && counts[name]!.tried < count;
  const tryOne = async (name: string) => {
    const told = counts[name]!;
    const trial = told.tried++;
    const lost = await all[name]!(world, new Random(`${seed} ${name} ${trial}`));
    told[lost === undefined ? "held" : "lost"]++;
    if (lost !== undefined) console.log(`${name}, trial ${trial}: ${lost}`);
    if ((trial + 1) % 100 === 0) console.log(`${name}: ${trial + 1} tried`);
  };
  while (chosen.some(mayTry))
    for (const name of chosen) {
      const atOnce = apart.includes(name) ? [1, 2] : [1];
      await Promise.all(atOnce.map(() => mayTry(name) && tryOne(name)));
    }
  return counts;
}

const counts: Record<string, Count> =
  values.clients === undefined
    ? await makeFaults(Number(values.count ?? Number.POSITIVE_INFINITY))
    : { [`${values.clients} clients`]: await askForLong({ clients: Number(values.clients), minutes, seed }) };
console.log("kind: tried / held / lost");
for (const [name, { tried, held, lost }] of Object.entries(counts))
  console.log(`${name}: ${tried} / ${held} / ${lost}`);
process.exitCode = Object.values(counts).some(({ lost }) => lost > 0) ? 1 : 0;
