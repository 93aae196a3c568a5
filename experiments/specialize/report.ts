/**
 * The table and the figure of the committed results:
 *
 *     npx tsx experiments/specialize/report.ts
 *
 * Written are `results/tables.md` and `docs/figures/specialize-kl.svg`.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type DotRow, dotsFigure } from "../report/dots.ts";
import { type Estimate, estimate } from "../report/experiments.ts";
import { markdownTable } from "../report/markdown.ts";
import { ARMS, type Result, readResults, WHOLE } from "./results.ts";

/** What is written, by path. Nothing is written here. */
export function renderResults(folder: string, figures: string): Map<string, string> {
  const models = overSeeds(readResults(join(folder, "results")));
  return new Map([
    [join(folder, "results/tables.md"), tablesMarkdown(models)],
    [join(figures, "specialize-kl.svg"), klFigure(models)],
  ]);
}

/** Results that differ in nothing but their seed. */
type Seeds = readonly [Result, ...Result[]];

function overSeeds(results: readonly Result[]): Seeds[] {
  const groups = new Map<string, [Result, ...Result[]]>();
  for (const result of results) {
    const { task, arm, recipe, keep, tokens } = result;
    const key = [task, arm, recipe, keep, tokens].join();
    const group = groups.get(key);
    if (group) group.push(result);
    else groups.set(key, [result]);
  }
  return [...groups.values()];
}

const TITLES = ["arm", "keep", "tokens", "seeds", "KL", "the same token, %", "perplexity", "right, %", "of"];

function tablesMarkdown(models: readonly Seeds[]): string {
  const tasks = [...new Set(models.map(([{ task }]) => task))];
  const table = (rows: readonly Seeds[]) => markdownTable(TITLES, rows.map(cells));
  const sections = tasks.flatMap((task) => {
    const own = models.filter(([one]) => one.task === task);
    const recipes = [...new Set(own.map(([{ recipe }]) => recipe))].filter((recipe) => recipe !== undefined);
    return [
      `## ${task}`,
      "",
      ...table(own.filter(([{ recipe }]) => !recipe)),
      "",
      ...recipes.flatMap((recipe) => [
        `As \`specialize\` was at ${recipe}:`,
        "",
        ...table(own.filter(([one]) => one.recipe === recipe)),
        "",
      ]),
    ];
  });
  return [
    "# One task, one smaller model: tables",
    "",
    "Made by `npx tsx experiments/specialize/report.ts` from the results beside it; [what tasks and arms are](../README.md). KL from the teacher in nats a token of held-out answers, mean ± sample standard deviation where there are several seeds.",
    "",
    ...sections,
  ].join("\n");
}

function cells(models: Seeds): string[] {
  const [{ arm, keep, tokens, exact }] = models;
  const number = (of: (result: Result) => number | undefined, digits: number) => {
    const over = estimate(models.map(of));
    return over ? words(over, digits) : "–";
  };
  const isUntrained = arm === "dense" || arm === "griffin" || arm === "unhealed";
  return [
    arm,
    String(keep),
    isUntrained ? "–" : tokens.toLocaleString("en-US"),
    models.map(({ seed }) => seed).join(", "),
    number(({ kl }) => kl, 3),
    number(({ agreement }) => 100 * agreement, 1),
    number(({ perplexity }) => perplexity, 2),
    number(({ exact }) => exact && 100 * exact.share, 1),
    exact ? String(exact.asked) : "–",
  ];
}

const words = ({ mean, std, n }: Estimate, digits: number) =>
  mean.toFixed(digits) + (n > 1 ? ` ± ${std.toFixed(digits)}` : "");

/** KL of the arms at each share, by task: those with the number of tokens that most have. */
function klFigure(models: readonly Seeds[]): string {
  const shares = [0.75, 0.5, 0.25];
  const shown = models.filter(
    ([{ arm, recipe, tokens }]) => !WHOLE.includes(arm) && !recipe && tokens === FIGURE_TOKENS,
  );
  const rows = [...new Set(shown.map(([{ task }]) => task))].flatMap((task): DotRow[] => {
    const own = shown.filter(([result]) => result.task === task);
    const arms = ARMS.filter((arm) => own.some(([one]) => one.arm === arm));
    const kl = (arm: string, share: number) =>
      own
        .filter(([one]) => one.arm === arm && one.keep === share)
        .map((group) => estimate(group.map(({ kl }) => kl))!.mean)[0];
    return [
      { name: task, values: [], isStrong: true },
      ...arms.map((arm) => ({ name: arm, values: shares.map((share) => kl(arm, share)) })),
    ];
  });
  return dotsFigure({
    title: "One task, one smaller model of SmolLM2-135M",
    note: `KL to the whole model in nats a token of held-out answers, by arm; ${FIGURE_TOKENS.toLocaleString("en-US")} tokens of healing, one to three seeds.`,
    series: shares.map((share) => `keep ${share}`),
    rows,
    log: true,
  });
}

const FIGURE_TOKENS = 60_000;

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const here = import.meta.dirname;
  for (const [path, content] of renderResults(here, join(here, "../../docs/figures"))) {
    writeFileSync(path, content);
    console.error(path);
  }
}
