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
import type { Random } from "../../src/random.ts";
import { type KilledRun, runKilled } from "../kill/kill.ts";
import type { World } from "./world.ts";

/** @returns what was lost */
export type Kind = (world: World, random: Random) => Promise<string | undefined>;

const numMasks = 6;
const build = fileURLToPath(new URL("build.ts", import.meta.url));

/** Writing calls of a build that nothing disturbs. */
let calls: Promise<number> | undefined;

async function numCalls(world: World): Promise<number> {
  calls ??= runBuild(world.newRoot(), 0, {}).then((run) => run.calls.length);
  return await calls;
}

function runBuild(root: string, number: number, how: { killAt?: number; by?: "ENOSPC" }): Promise<KilledRun> {
  return runKilled(build, [root, String(number)], { under: root, ...how });
}

const kill: Kind = async (world, random) => {
  const [root, number] = [world.newRoot(), random.int(numMasks)];
  const { signal, stderr } = await runBuild(root, number, { killAt: 1 + random.int(await numCalls(world)) });
  if (signal !== "SIGKILL") return `wanted a build that is killed, got one that was not: ${stderr}`;
  return await world.check(root, [number]);
};

const fullDisk: Kind = async (world, random) => {
  const [root, number] = [world.newRoot(), random.int(numMasks)];
  const how = { killAt: 1 + random.int(await numCalls(world)), by: "ENOSPC" } as const;
  const { code, stderr } = await runBuild(root, number, how);
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
  await runBuild(root, numbers[0]!, { killAt: 1 + random.int(await numCalls(world)) });
  for (let time = 0; time < 2; time++) {
    skew(root, random);
    const lost = await world.check(root, numbers);
    if (lost) return lost;
  }
  return undefined;
};

const words = ["wolf", "cat", "church", "city", "child", "mouse", "box", "leaf", "dog", "baby"];
const questions = words.flatMap((word) => [
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

/** By name, those that this machine permits. */
export function kinds(world: World): Record<string, Kind> {
  return {
    "killed at a write of the cache": kill,
    "full disk (injected)": fullDisk,
    ...(maySmallDisk(world) && { "full disk (tmpfs)": smallDisk }),
    "damaged cache file": damage,
    "skewed clock": clock,
    "clients that go away": droppedClients,
    "two servers on one cache": twoServers,
  };
}
