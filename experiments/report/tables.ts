/** Tables of experiments as Markdown. */
import { escapeHtml } from "../../src/report/chart.ts";
import {
  differenceOf,
  type Estimate,
  type Experiments,
  estimate,
  FACTS_TEST,
  NOT_RUN,
  percent,
  type Result,
  type Results,
  scoreOf,
  suiteScore,
  suiteTasks,
  type Table,
} from "./experiments.ts";
import { escapeMarkdown, percentSigned } from "./markdown.ts";
import { mean } from "./statistics.ts";

/** All tables: scores first, then the tasks behind the suite score of each. */
export function tablesMarkdown(experiments: Experiments, results: Results): string {
  const { tables, facts, allOrNothing } = experiments;
  const measured = tables.map((table) =>
    measure(table, experiments, table.seeds ? results.ofSeeds(table.seeds) : results),
  );
  const numTasks = measured.flatMap(({ rows }) => rows).find(({ tasks }) => tasks.size > 0)?.tasks.size;
  return `${[
    "Accuracy of greedy answers in %, mean ± sample standard deviation over seeds (– where there is one). *Suite score*: the mean over",
    `all ${numTasks ? `${numTasks} ` : ""}tasks; those that follow a rule are judged on unseen inputs, those of facts (${facts.map(escapeMarkdown).join(", ")})`,
    "on unseen wordings. The columns of tests are means over the tasks of one test.",
    ...(allOrNothing.length > 0 ? [asideNote(allOrNothing)] : []),
    ...measured.flatMap(({ table, rows }) => [
      "",
      `## ${escapeMarkdown(table.title)}`,
      "",
      ...overview(table, rows, experiments),
    ]),
    "",
    "## How alike masks are",
    "",
    ...overlaps(measured.flatMap(({ table, rows }) => rows.map((own) => ({ table, ...own })))),
    ...measured.flatMap(({ table, rows }) => ["", ...perTask(table, rows)]),
  ].join("\n")}\n`;
}

/** Share of kept channels that two prompts have in common, per layer, on unseen wordings; of every row with predicted masks, once for the same seeds. */
function overlaps(rows: readonly (Row & { table: Table })[]): string[] {
  const keyOf = ({ row, table }: Row & { table: Table }) => `${row.run} ${row.mask} ${table.seeds ?? "all"}`;
  const unique = rows.filter((own, i) => rows.findIndex((other) => keyOf(other) === keyOf(own)) === i);
  const shares = (list: readonly (number | null)[]) =>
    list.map((share) => (share === null || Number.isNaN(share) ? "–" : (100 * share).toFixed(0))).join(" ");
  const layer = (masks: readonly Masks[], key: "overlapWithin" | "overlapAcross" | "everUsed") =>
    shares(masks[0]![key].map((_, at) => mean(masks.map((own) => own[key][at] ?? Number.NaN))));
  return [
    "Share of kept channels in common, %, layer by layer, mean over seeds, on unseen wordings; beside it what masks drawn at random would",
    "have in common. The last column is over tasks: the mask of a wording that was trained on and of one that never was. Masks from the",
    "instruction alone are one per wording, and most tasks have one unseen wording: what they share within a task says nothing, and is left out.",
    "",
    "| table | masks | made from | same task | other task | chance | channels ever used | trained and unseen wording |",
    "|---|---|---|---:|---:|---:|---:|---:|",
    ...unique.flatMap(({ table, row, masks }) => {
      if (masks.length === 0) return [];
      const unseen = masks.flatMap(({ unseenWordings }) => unseenWordings ?? []);
      const cells = [
        row.mask === "task" ? "" : layer(masks, "overlapWithin"),
        layer(masks, "overlapAcross"),
        (100 * masks[0]!.chance).toFixed(1),
        layer(masks, "everUsed"),
        unseen.length > 0 ? percent(estimate(unseen)!) : "",
      ];
      return [`| ${[...[table.title, row.name, row.sees].map(escapeMarkdown), ...cells].join(" | ")} |`];
    }),
  ];
}

type Masks = NonNullable<Result["report"]["masks"]>;

interface MeasuredTable {
  table: Table;
  rows: Row[];
}

interface Row {
  row: Table["rows"][number];
  suite?: Estimate;
  /** Minus the table's headline. */
  difference?: Estimate;
  /** The two without the tasks that seeds find out as a whole or not at all. */
  aside: { suite?: Estimate; difference?: Estimate };
  /** In the order of the tests. */
  tests: (Estimate | undefined)[];
  /** The tasks of the suite score. */
  tasks: Map<string, Estimate>;
  /** Diagnostics of predicted masks on unseen wordings, by seed. */
  masks: Masks[];
}

function measure(table: Table, { tests, facts, allOrNothing }: Experiments, results: Results): MeasuredTable {
  const rows = table.rows.map((row): Row => {
    const seeds = results.seedsOf(row);
    const tasksOf = seeds.map((byTest) => suiteTasks(byTest, facts));
    const names = tasksOf.find((tasks) => tasks)?.map(({ task }) => task) ?? [];
    const difference = (without?: readonly string[]) =>
      table.headline && differenceOf(results, facts, row, table.headline, without);
    return {
      row,
      masks: seeds.flatMap((byTest) => byTest.get(FACTS_TEST)?.report.masks ?? []),
      suite: scoreOf(results, facts, row),
      difference: difference(),
      aside: {
        suite: estimate(seeds.map((byTest) => suiteScore(byTest, facts, allOrNothing))),
        difference: difference(allOrNothing),
      },
      tests: Object.keys(tests).map((test) => estimate(seeds.map((byTest) => byTest.get(test)?.report.mean.accuracy))),
      tasks: new Map(
        names.map((name) => [
          name,
          estimate(tasksOf.map((tasks) => tasks?.find(({ task }) => task === name)?.accuracy))!,
        ]),
      ),
    };
  });
  return { table, rows };
}

const asideNote = (tasks: readonly string[]) =>
  `*Without ${escapeMarkdown(tasks.join(", "))}*: the same without these tasks, which a seed finds out as a whole or not at all.`;

function overview({ note, headline }: Table, rows: readonly Row[], { tests, allOrNothing }: Experiments): string[] {
  const testNames = Object.keys(tests).map(escapeMarkdown);
  const paired = headline ? [`− ${escapeMarkdown(headline.name)}, seed by seed`] : [];
  const aside = allOrNothing.length > 0 ? [`without ${escapeMarkdown(allOrNothing.join(", "))}`, ...paired] : [];
  const titles = ["suite score", ...paired, ...aside, ...testNames, "seeds"];
  return [
    ...(note ? [escapeMarkdown(note), ""] : []),
    `| model | the mask sees | ${titles.join(" | ")} |`,
    `|---|---|${"---:|".repeat(titles.length)}`,
    ...rows.map(({ row, suite, difference, aside: other, tests: scores }) => {
      const seeds = suite?.n ?? 0;
      // a test that was evaluated for other seeds than the suite score says so
      const cells = scores.map((score) => `${cell(score)}${score && score.n !== seeds ? ` (n = ${score.n})` : ""}`);
      const isHeadline = row.run === headline?.run && row.mask === headline.mask;
      const compared = (one: Estimate | undefined) => (headline ? [isHeadline ? "" : signed(one)] : []);
      const score = suite ? `**${cell(suite)}**` : NOT_RUN;
      const asideCells = allOrNothing.length > 0 ? [cell(other.suite), ...compared(other.difference)] : [];
      const names = [escapeMarkdown(row.name), escapeMarkdown(row.sees)];
      return `| ${[...names, score, ...compared(difference), ...asideCells, ...cells, seeds].join(" | ")} |`;
    }),
  ];
}

function perTask({ title }: Table, rows: readonly Row[]): string[] {
  const names = [...new Set(rows.flatMap(({ tasks }) => [...tasks.keys()]))].sort();
  if (names.length === 0) return [];
  return [
    `<details><summary>${escapeHtml(title)}: per task</summary>`,
    "",
    `| task | ${rows.map(({ row }) => escapeMarkdown(row.name)).join(" | ")} |`,
    `|---|${"---:|".repeat(rows.length)}`,
    ...names.map(
      (name) => `| ${[escapeMarkdown(name), ...rows.map(({ tasks }) => cell(tasks.get(name)))].join(" | ")} |`,
    ),
    "",
    "</details>",
  ];
}

function signed(difference: Estimate | undefined): string {
  return difference ? percentSigned(difference) : "";
}

function cell(score: Estimate | undefined): string {
  return score ? percent(score) : NOT_RUN;
}
