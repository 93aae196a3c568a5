/** The evidence as tables: arms, kinds of prompts, questions. */
import { OptionError } from "../../src/errors.ts";
import { NOT_RUN } from "../report/experiments.ts";
import { escapeMarkdown, markdownTable } from "../report/markdown.ts";
import { itemsInterval, mean } from "../report/statistics.ts";
import { meanCell, taskCell } from "../report/tinyModel.ts";
import type { Arm, Evidence, MaskName, Scores } from "./results.ts";

/** Names of masks in tables and figures, in their order. */
export const MASK_NAMES: Readonly<Record<MaskName, string>> = {
  own: "own mask",
  foreign: "another kind's",
  generic: "one for all",
  dense: "all channels",
};
const MASKS = Object.keys(MASK_NAMES) as MaskName[];
const NONE = "–";

const number = (value: number | undefined) => value?.toFixed(3) ?? NONE;
const both = (score: { kl: number; agreement: number } | undefined) =>
  score ? `${number(score.kl)} / ${number(score.agreement)}` : NONE;
const whole = (value: number | undefined) => value?.toLocaleString("en-US") ?? NONE;

export function armTitle({ name, result }: Arm): string {
  return result ? `${name}, keep ${result.keep}` : name;
}

interface Column {
  title: string;
  cell: (arm: Arm) => string;
}

/** A row per arm; columns that say nothing of any are left out. */
function armsTable(arms: readonly Arm[], columns: readonly Column[]): string[] {
  const shown = columns.filter(({ cell }) => arms.some((arm) => cell(arm) !== NONE));
  return markdownTable(
    ["masks", ...shown.map(({ title }) => title)],
    arms.map((arm) => [escapeMarkdown(arm.name), ...shown.map(({ cell }) => cell(arm))]),
  );
}

const KEEP: Column = { title: "keep", cell: ({ result }) => (result ? String(result.keep) : NOT_RUN) };
const ABOUT: readonly Column[] = [
  KEEP,
  { title: "prompts", cell: ({ result }) => whole(result?.prompts) },
  { title: "steps", cell: ({ healed }) => whole(healed?.steps) },
  { title: "tokens", cell: ({ healed }) => whole(healed?.tokens) },
  { title: "rate", cell: ({ healed }) => healed?.rate.toExponential() ?? NONE },
  ...MASKS.map((mask) => ({
    title: MASK_NAMES[mask],
    cell: ({ result }: Arm) => both(result?.scores[mask]),
  })),
];

/** KL by kind, of the own mask; of all channels where there are no masks. */
function kindColumns(arms: readonly Arm[]): Column[] {
  const byKind = ({ result }: Arm) => (result?.scores.own ?? result?.scores.dense)?.byKind ?? {};
  const kinds = new Set(arms.flatMap((arm) => Object.keys(byKind(arm))));
  return [...kinds].map((kind) => ({ title: kind, cell: (arm) => number(byKind(arm)[kind]?.kl) }));
}

/** All of it, for `results/tables.md`. */
export function tablesMarkdown({ tables, pairs, byStep }: Evidence): string {
  const sections = tables.flatMap(({ title, note, arms }) => [
    `## ${escapeMarkdown(title)}`,
    "",
    ...(note ? [escapeMarkdown(note), ""] : []),
    ...armsTable(arms, ABOUT),
    "",
    "KL of the own mask by kind:",
    "",
    ...armsTable(arms, [KEEP, ...kindColumns(arms)]),
    "",
  ]);
  const steps = Object.entries(byStep).flatMap(([run, { tokens, heldOut }]) =>
    heldOut.map(({ step, examples, kl, agreement }, i) => [
      i === 0 ? `${escapeMarkdown(run)}, ${whole(tokens)} tokens` : "",
      ...[step, examples].map(whole),
      ...MASKS.map((mask) => both(kl[mask] === undefined ? undefined : { kl: kl[mask], agreement: agreement[mask]! })),
    ]),
  );
  return [
    "# SmolLM2: tables",
    "",
    "Made by `npx tsx experiments/smollm2/report.ts` from the results beside it. KL(dense ‖ pruned) in nats a token / share of tokens of which both find the same one likeliest, over held-out answers, mean over kinds of prompts. A row is one run of one seed.",
    "",
    ...sections,
    ...pairsSection(pairs),
    "## While healing",
    "",
    "As `train` measured it, on held-out answers of the same files, some of them those above.",
    "",
    ...markdownTable(["run", "step", "answers", ...MASKS.map((mask) => MASK_NAMES[mask])], steps),
    "",
  ].join("\n");
}

/** How far one arm's KL is above another's, with what other prompts might have given. */
function pairsSection(pairs: Evidence["pairs"]): string[] {
  if (pairs.length === 0) return [];
  const rows = pairs.map(({ name, own, against }) => {
    const title = escapeMarkdown(name);
    if (!own?.byPrompt || !against?.byPrompt) return [title, NOT_RUN, "", ""];
    const kinds = differencesOf(own.byPrompt, against.byPrompt);
    const [low, high] = itemsInterval(kinds);
    const difference = own.kl - against.kl;
    const signed = (value: number) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
    const range = `${signed(difference)} (${signed(low)} to ${signed(high)})`;
    const lower = kinds.filter((items) => mean(items) < 0).length;
    return [title, (own.kl / against.kl).toFixed(2), range, `${lower} of ${kinds.length}`];
  });
  return [
    "## One against the other",
    "",
    "KL under own masks on the same prompts, mean over kinds: ratio, difference with 95 % over the prompts (one seed of each: another training run is not in it), and the kinds where the first is lower.",
    "",
    ...markdownTable(["arms", "ratio", "difference", "lower in"], rows),
    "",
  ];
}

/** Per kind a value of each prompt whose mean is the difference of the kind's KL a token, and whose spread is that of this ratio of sums. */
function differencesOf(own: ByPrompt, against: ByPrompt): number[][] {
  return Object.entries(own).map(([kind, prompts]) => {
    const others = against[kind] ?? [];
    if (prompts.length !== others.length || prompts.some(([, tokens], i) => tokens !== others[i]![1]))
      throw new OptionError(`pairs: wanted arms that were measured on the same prompts, got others of "${kind}".`);
    const differences = prompts.map(([kl], i) => kl - others[i]![0]);
    const tokens = prompts.reduce((sum, [, count]) => sum + count, 0);
    const ratio = differences.reduce((sum, value) => sum + value, 0) / tokens;
    return differences.map((value, i) => ratio + ((value - ratio * prompts[i]![1]) * prompts.length) / tokens);
  });
}
type ByPrompt = NonNullable<Scores["byPrompt"]>;

/** Tables that documents may show, by name. */
export function cardTables({ best, questions }: Evidence): Map<string, string[]> {
  return new Map([
    ["smollm2-kl", klTable(best)],
    ["smollm2-scores", scoresTable(questions)],
  ]);
}

function klTable({ healed, result, ...about }: Arm): string[] {
  if (!result) return [`${escapeMarkdown(about.name)}: ${NOT_RUN}.`];
  const { scores, prompts } = result;
  const masks = MASKS.filter((mask) => scores[mask]);
  const training = healed
    ? `, ${whole(healed.steps)} steps, ${whole(healed.tokens)} tokens, rate ${healed.rate.toExponential()}`
    : "";
  return [
    `${escapeMarkdown(armTitle({ ...about, result }))}${training}; ${prompts} held-out prompts.`,
    "",
    ...markdownTable(
      ["kind", ...masks.map((mask) => MASK_NAMES[mask])],
      [
        ["**mean**", ...masks.map((mask) => both(scores[mask]))],
        ...Object.keys(scores[masks[0]!]!.byKind).map((kind) => [
          escapeMarkdown(kind),
          ...masks.map((mask) => both(scores[mask]!.byKind[kind])),
        ]),
      ],
    ),
  ];
}

function scoresTable(models: Evidence["questions"]): string[] {
  const marks = models.map(({ result }) =>
    (result?.tasks ?? []).map(({ task, count, accuracy }) => ({
      task,
      items: Array.from({ length: count }, (_, i) => Number(i < Math.round(accuracy * count))),
    })),
  );
  const tasks = [...new Set(marks.flat().map(({ task }) => task))];
  const cells = (cell: (own: (typeof marks)[number]) => string) =>
    marks.map((own) => (own.length === 0 ? NOT_RUN : cell(own)));
  return markdownTable(
    ["questions", ...models.map(({ name }) => escapeMarkdown(name))],
    [
      ["**mean of kinds**", ...cells((own) => meanCell(own.map(({ items }) => items)))],
      ...tasks.map((task) => [
        escapeMarkdown(task),
        ...cells((own) => taskCell(own.find((one) => one.task === task)?.items)),
      ]),
    ],
  );
}
