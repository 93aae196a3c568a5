/** Kinds of faults. Each is one trial: it makes a fault, and asks what should be answered all the same. */
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import type { Random } from "../../src/random.ts";
import { expectKilledOrDone, type KilledRun, runKilled } from "../kill/kill.ts";
import { type Remains, remainsOf, trainTiny } from "../kill/training.ts";
import type { World } from "./world.ts";

/** @returns what was lost */
export type Kind = (world: World, random: Random) => Promise<string | undefined>;

const numMasks = 6;
const build = fileURLToPath(new URL("build.ts", import.meta.url));

/** Writing calls of builds that nothing disturbs, by how many sub-networks there are to build. */
const calls = new Map<number, Promise<number>>();

async function numCalls(world: World, numBuilds = 1): Promise<number> {
  const known = calls.get(numBuilds) ?? runBuild(world.newRoot(), numbersFrom(0, numBuilds)).then(lengthOfCalls);
  calls.set(numBuilds, known);
  return await known;
}

const lengthOfCalls = (run: KilledRun): number => run.calls.length;

const numbersFrom = (first: number, count: number) => Array.from({ length: count }, (_, i) => (first + i) % numMasks);

function runBuild(root: string, numbers: readonly number[], how: Moment & { by?: "ENOSPC" } = {}): Promise<KilledRun> {
  return runKilled(build, [root, ...numbers.map(String)], { under: root, ...how });
}

interface Moment {
  killAt?: number;
  laterMs?: number;
}

/**
 * Kills what runs at a random moment: inside a writing call, with half of it done, or at any time up to `mostMs` after one.
 *
 * @param run runs it, alike each time
 */
async function killAtRandom(
  random: Random,
  { numCalls, mostMs }: { numCalls: number; mostMs: number },
  run: (moment: Moment) => Promise<KilledRun>,
): Promise<void> {
  const killAt = 1 + random.int(numCalls);
  const moments = [{ killAt, laterMs: random.float() * mostMs }, { killAt }]; // the second where it was faster
  for (const moment of moments.slice(random.int(2))) {
    const { signal, code, stderr } = await run(moment);
    if (signal === "SIGKILL") return;
    if (code !== 0 || moment.laterMs === undefined) throw new Error(`the program ended with ${code}:\n${stderr}`);
  }
}

/** While it gathers, writes or opens sub-networks. Their files show what a next process would answer with; of some it is asked for all the same. */
const kill: Kind = async (world, random) => {
  const numbers = numbersFrom(random.int(numMasks), 2);
  let root: string;
  await killAtRandom(random, { numCalls: await numCalls(world, 2), mostMs: 20 }, (moment) => {
    root = world.newRoot();
    return runBuild(root, numbers, moment);
  });
  const answered = random.int(20) === 0 ? await world.check(root!, numbers) : undefined;
  const lost = answered ?? (await world.checkFiles(root!, numbers, numMasks));
  if (lost === undefined) rmSync(root!, { recursive: true });
  return lost;
};

/** A step takes some of `mostMs`, so that it dies between writes too. */
const killedTraining: Kind = async (world, random) => {
  const { calls, remains } = await uninterrupted(world);
  let runs: string;
  await killAtRandom(random, { numCalls: calls.length, mostMs: 100 }, (moment) => {
    runs = world.newRoot();
    return trainTiny(runs, moment);
  });
  expectKilledOrDone(await trainTiny(runs!));
  const lost = isDeepStrictEqual(await remainsOf(runs!), remains) ? undefined : "another checkpoint or log than wanted";
  if (lost === undefined) rmSync(runs!, { recursive: true });
  return lost;
};

let whole: Promise<{ calls: KilledRun["calls"]; remains: Remains }> | undefined;

/** The run that nothing interrupts. */
function uninterrupted(world: World): NonNullable<typeof whole> {
  whole ??= (async () => {
    const runs = world.newRoot();
    const run = await trainTiny(runs);
    expectKilledOrDone(run);
    return { calls: run.calls, remains: await remainsOf(runs) };
  })();
  return whole;
}

const fullDisk: Kind = async (world, random) => {
  const [root, number] = [world.newRoot(), random.int(numMasks)];
  const how = { killAt: 1 + random.int(await numCalls(world)), by: "ENOSPC" } as const;
  const { code, stderr } = await runBuild(root, [number], how);
  if (code !== 0 && !stderr.includes("ENOSPC")) return `ended with ${code}: ${stderr}`;
  return await world.check(root, [number]);
};

/** A disk that is small, and later large enough. */
const smallDisk: Kind = async (world, random) => {
  const [root, number] = [world.newRoot(), random.int(numMasks)];
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${16 + random.int(1000)}k`, "tmpfs", root]);
  try {
    const lost = await world.check(root, [number], { mayRefuse: true });
    if (lost) return lost;
    execFileSync("mount", ["-o", "remount,size=64m", root]);
    return await world.check(root, [number]);
  } finally {
    execFileSync("umount", ["-l", root]);
  }
};

/** Whether this process may have disks of its own. */
function maySmallDisk(world: World): boolean {
  const root = world.newRoot();
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=16k", "tmpfs", root], { stdio: "ignore" });
    execFileSync("umount", [root]);
    return true;
  } catch {
    return false;
  }
}

/** Ways to damage a file, given the file of that name in another entry. */
const damages: ((path: string, random: Random, other: string) => void)[] = [
  (path, random) => truncateSync(path, random.int(lstatSync(path).size)),
  (path, random) => changeBytes(path, (bytes) => bytes.fill(0, random.int(bytes.length))),
  (path, random) => changeBytes(path, (bytes) => bytes.fill(0, 0, 1 + random.int(64))),
  (path, random) => changeBytes(path, (bytes) => (bytes[random.int(bytes.length)]! ^= 1 << random.int(8))),
  (path, _, other) => copyFileSync(other, path),
  (path) => rmSync(path),
  (path) => {
    rmSync(path);
    mkdirSync(path);
  },
];

function changeBytes(path: string, change: (bytes: Buffer) => unknown): void {
  const bytes = readFileSync(path);
  change(bytes);
  writeFileSync(path, bytes);
}

/** Files of a cache that are its own, not links. */
const ownFiles = (root: string): string[] =>
  pathsIn(root)
    .filter((path) => lstatSync(path).isFile())
    .sort();

const damage: Kind = async (world, random) => {
  const root = world.newRoot();
  const numbers = [random.int(numMasks), numMasks] as const;
  const before = await world.check(root, numbers);
  if (before) return before;
  const files = ownFiles(root);
  const path = files[random.int(files.length)]!;
  const other = files.find((one) => dirname(one) !== dirname(path) && one.endsWith(path.slice(dirname(path).length)))!;
  damages[random.int(damages.length)]!(path, random, other);
  return await world.check(root, numbers);
};

/** Gives folders and files of a cache times that are years away, or now. */
function skew(root: string, random: Random): void {
  for (const path of pathsIn(root)) {
    const time = Date.now() / 1000 + (random.int(3) - 1) * random.int(1e8);
    unlessGone(() => !lstatSync(path).isSymbolicLink() && utimesSync(path, time, time));
  }
}

/** A server may just have removed it. */
function unlessGone<T>(use: () => T): T | undefined {
  try {
    return use();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return undefined;
  }
}

/** All that is in a folder. */
const pathsIn = (root: string): string[] =>
  (unlessGone(() => readdirSync(root, { recursive: true, encoding: "utf8" })) ?? []).map((name) => join(root, name));

const clock: Kind = async (world, random) => {
  const root = world.newRoot();
  const numbers = [0, 1, 2].map((i) => (random.int(numMasks) + i) % numMasks);
  await runBuild(root, [numbers[0]!], { killAt: 1 + random.int(await numCalls(world)) });
  for (let time = 0; time < 2; time++) {
    skew(root, random);
    const lost = await world.check(root, numbers);
    if (lost) return lost;
  }
  return undefined;
};

const nouns = ["wolf", "cat", "church", "city", "child", "mouse", "box", "leaf", "dog", "baby"];
export const questions = nouns.flatMap((word) => [
  `What is the plural of ${word}?`,
  `Write ${word} backwards.`,
  `How many letters has ${word}?`,
]);

const drawn = (random: Random, count: number) =>
  Array.from({ length: count }, () => questions[random.int(questions.length)]!);

/** Clients that go away in the middle, while others wait for their answers. */
const droppedClients: Kind = async (world, random) => {
  const [server] = world.servers;
  await server.url();
  const dropped = drawn(random, 6).map(async (question) => {
    const signal = AbortSignal.timeout(random.int(300));
    await server.ask(question, signal).catch(() => {});
  });
  const lost = await answersOf(world, server, drawn(random, 3));
  await Promise.all(dropped);
  for (let time = 0; time < 200 && (await server.running()) > 0; time++) await wait(50);
  return lost ?? ((await server.running()) > 0 ? "a dropped request runs on" : undefined);
};

async function answersOf(
  world: World,
  server: World["servers"][number],
  asked: readonly string[],
): Promise<string | undefined> {
  const wanted = new Map<string, string>();
  for (const question of asked) wanted.set(question, await world.reference(question));
  const told = await Promise.all(
    asked.map((question) =>
      server.ask(question).then(
        (answer) => (answer === wanted.get(question) ? undefined : "a wrong answer"),
        (error: Error) => error.message,
      ),
    ),
  );
  return told.find((one) => one !== undefined);
}

/** Both build and remove what the other uses, with times that are years away; now and then one is killed. */
const twoServers: Kind = async (world, random) => {
  if (random.int(8) === 0) await world.servers[random.int(2)]!.kill();
  await Promise.all(world.servers.map((server) => server.url()));
  const asked = world.servers.map((server) => answersOf(world, server, drawn(random, 6)));
  skew(world.servers[0].folder, random);
  return (await Promise.all(asked)).find((lost) => lost !== undefined);
};

/** Kinds of which several trials may run at once. */
export const apart: readonly string[] = ["killed at the cache", "killed in training"];

/** By name, those that this machine permits. */
export function kinds(world: World): Record<string, Kind> {
  return {
    "killed at the cache": kill,
    "killed in training": killedTraining,
    "full disk (injected)": fullDisk,
    ...(maySmallDisk(world) && { "full disk (tmpfs)": smallDisk }),
    "damaged cache file": damage,
    "skewed clock": clock,
    "clients that go away": droppedClients,
    "two servers on one cache": twoServers,
  };
}
