/**
 * Differences between rows over fresh seeds, for the tasks of rules and of facts apart. The seeds' differences are paired, as all rows of a seed
 * saw the same batches; the interval is Student's over seeds. The test over tasks flips the signs of the tasks' mean differences: whether *these*
 * models differ on more than a few tasks, not whether another seed would.
 */
import {
  type Claims,
  type Experiments,
  estimate,
  NOT_RUN,
  type Results,
  type Source,
  suiteTasks,
} from "./experiments.ts";
import { escapeMarkdown, markdownTable, percentSigned, points, pointsRange, pValue } from "./markdown.ts";
import { mean, signFlipTest, tInterval } from "./statistics.ts";

/** Groups of tasks that are claimed apart. */
function groupsOf({ facts, allOrNothing }: Experiments): { name: string; has: (task: string) => boolean }[] {
  const isRule = (task: string) => !facts.includes(task);
  return [
    { name: "all", has: () => true },
    { name: "rules", has: isRule },
    ...(allOrNothing.length > 0
      ? [
          {
            name: `rules without ${escapeMarkdown(allOrNothing.join(", "))}`,
            has: (task: string) => isRule(task) && !allOrNothing.includes(task),
          },
        ]
      : []),
    { name: "facts", has: (task) => !isRule(task) },
  ];
}

/** The difference of each task of a seed, in the order of their names; nothing if one of the two was not run. */
function taskDifferences(results: Results, facts: readonly string[], seed: number, of: Source, over: Source) {
  const [first, second] = [of, over].map((source) => suiteTasks(results.seedOf({ ...source, seed }), facts));
  if (!first || !second) return undefined;
  return first.map(({ task, accuracy }) => ({
    task,
    difference: accuracy - second.find((other) => other.task === task)!.accuracy,
  }));
}

export function claimsMarkdown(claims: Claims, experiments: Experiments, results: Results): string[] {
  const { of, over, fresh, chosenOn } = claims;
  const titles = [
    `${escapeMarkdown(of.name)} minus`,
    "tasks",
    `seed${fresh.length > 1 ? "s" : ""} ${fresh.join(", ")}`,
    "by seed",
    "95 % over seeds",
    "p over tasks",
    ...(chosenOn.length > 0 ? [`not counted: seed${chosenOn.length > 1 ? "s" : ""} ${chosenOn.join(", ")}`] : []),
  ];
  const rows = over.flatMap((other) =>
    groupsOf(experiments).map(({ name, has }, i) => {
      const differences = (seeds: readonly number[]) =>
        seeds.flatMap((seed) => {
          const all = taskDifferences(results, experiments.facts, seed, of, other);
          return all ? [all.filter(({ task }) => has(task))] : [];
        });
      const counted = differences(fresh);
      const bySeed = (seeds: ReturnType<typeof differences>) =>
        seeds.map((tasks) => mean(tasks.map(({ difference }) => difference)));
      const title = i === 0 ? `**${escapeMarkdown(other.name)}**` : "";
      const chosen = chosenOn.length > 0 ? [bySeed(differences(chosenOn)).map(points).join(", ")] : [];
      if (counted.length === 0) return [title, name, NOT_RUN, "", "", "", ...chosen];
      const seeds = bySeed(counted);
      const interval = tInterval(seeds);
      const perTask = counted[0]!.map((_, at) => mean(counted.map((tasks) => tasks[at]!.difference)));
      const cells = [
        percentSigned(estimate(seeds)!),
        seeds.map(points).join(", "),
        interval ? pointsRange(interval) : "–",
        pValue(signFlipTest(perTask)),
      ];
      return [title, `${name} (${perTask.length})`, ...cells, ...chosen];
    }),
  );
  return [...(claims.note ? [escapeMarkdown(claims.note), ""] : []), ...markdownTable(titles, rows, ["tasks"])];
}
