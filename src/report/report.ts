/** Reports: one self-contained HTML file from the logs of training runs and the results of evaluations. */

import { existsSync } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { FileError, OptionError } from "../errors.ts";
import { writeWhole } from "../files.ts";
import { type EvaluationRow, type MaskRow, type MetricsRow, readRunLog, type TrainRow } from "../train/runLog.ts";
import { duration } from "../words.ts";
import { type Chart, escapeHtml, lineChart, type Point, type Series, short } from "./chart.ts";
import { type Evaluation, evaluationSections, mean, readEvaluation } from "./evaluations.ts";
import { style } from "./style.ts";

/** Charts of what no log has, above all else. */
export interface ReportCharts {
  title: string;
  charts: readonly Chart[];
}

/**
 * Writes a report.
 *
 * @param inputs run folders, their `metrics.jsonl`, and JSON files that `ifprune eval --out` wrote
 * @throws {OptionError} if there are no inputs
 * @throws {FileError} if an input is missing or none of these, or the output cannot be written
 */
export function writeReport(inputs: readonly string[], output: string, more?: ReportCharts): void {
  if (inputs.length === 0) throw new OptionError("report: wanted at least one run folder or evaluation, got none.");
  const runs: string[] = [];
  const evaluations: Evaluation[] = [];
  for (const path of inputs) {
    if (extname(path) === ".json") evaluations.push(readEvaluation(path));
    else {
      const log = extname(path) === ".jsonl" ? path : join(path, "metrics.jsonl");
      if (!existsSync(log)) {
        const got = existsSync(path) ? "another" : "nothing of that name";
        throw new FileError(
          path,
          `wanted a run folder, its metrics.jsonl or an evaluation's .json, got ${got}. Check the path.`,
        );
      }
      runs.push(runSection(readRunLog(log), basename(dirname(resolve(log)))));
    }
  }
  const first = more && [
    `<section><h2>${escapeHtml(more.title)}</h2><div class="charts">${more.charts.map(lineChart).join("")}</div></section>`,
  ];
  const html = page([...(first ?? []), ...evaluationSections(evaluations), ...runs]);
  writeWhole(output, html);
}

function page(sections: readonly string[]): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>ifprune report</title><style>${style}</style></head>
<body><main>${sections.join("\n")}</main></body></html>
`;
}

function runSection(rows: readonly MetricsRow[], fallbackName: string): string {
  const run = rows.find((row) => row.kind === "run");
  const steps = rows.filter((row) => row.kind === "train");
  const evaluations = rows.filter((row) => row.kind === "evaluation");
  const masks = rows.filter((row) => row.kind === "masks");
  const marks = steps
    .filter((row, i) => row.stage !== steps[i - 1]?.stage)
    .map(({ step, stage }) => ({ x: step, name: stage }));
  const charts = [...trainingCharts(steps), ...evaluationCharts(evaluations), ...maskCharts(masks)];
  return `<section><h2>${escapeHtml(run?.name ?? fallbackName)}</h2>${facts(run, steps)}
<div class="charts">${charts.map((chart) => lineChart({ xLabel: "step", marks, ...chart })).join("")}</div>
${lastMasks(masks)}
${run ? `<details><summary>Recipe</summary><pre>${escapeHtml(JSON.stringify(run.recipe, null, 2))}</pre></details>` : ""}</section>`;
}

function facts(run: Extract<MetricsRow, { kind: "run" }> | undefined, steps: readonly TrainRow[]): string {
  const sum = (f: (row: TrainRow) => number) => steps.reduce((total, row) => total + f(row), 0);
  const [tokens, positions, ms] = [sum((row) => row.tokens), sum((row) => row.positions), sum((row) => row.ms)];
  const list: [string, string][] = Object.entries(run?.parameters ?? {}).map(([part, count]) => [
    `parameters, ${part}`,
    short(count),
  ]);
  if (steps.length > 0) {
    list.push(
      ["steps", String(steps.at(-1)!.step)],
      ["tokens", short(tokens)],
      ["training time", duration(ms / 1000)],
      ["tokens per second", ms > 0 ? short((tokens / ms) * 1000) : "–"],
      ["padding", `${short(100 * (1 - tokens / positions))} %`],
    );
  }
  return `<dl>${list.map(([name, value]) => `<div><dt>${escapeHtml(name)}</dt><dd>${value}</dd></div>`).join("")}</dl>`;
}

interface StepChart {
  title: string;
  series: Series[];
  fromZero?: boolean;
}

function trainingCharts(steps: readonly TrainRow[]): StepChart[] {
  const line = (name: string, f: (row: TrainRow) => number): Series => ({
    name,
    points: steps.map((row): Point => [row.step, f(row)]),
  });
  const parts = [...new Set(steps.flatMap((row) => Object.keys(row.learningRate)))].filter((part) =>
    steps.some((row) => row.learningRate[part]),
  );
  return [
    { title: "Training loss, nats per label", series: [line("training", (row) => row.loss)] },
    {
      title: "Learning rate",
      series: parts.map((part) => line(part, (row) => row.learningRate[part] ?? Number.NaN)),
      fromZero: true,
    },
    {
      title: "Tokens per second",
      series: [line("without padding", (row) => (row.tokens / row.ms) * 1000)],
      fromZero: true,
    },
    {
      title: "Gradient norm before clipping",
      series: [line("global norm", (row) => row.gradientNorm)],
      fromZero: true,
    },
  ];
}

function evaluationCharts(evaluations: readonly EvaluationRow[]): StepChart[] {
  const masks = [...new Set(evaluations.flatMap((row) => Object.keys(row.loss)))];
  const byMask = (measure: "loss" | "accuracy" | "exactMatch"): Series[] =>
    masks.map((name) => ({
      name,
      points: evaluations.map((row): Point => [row.step, row[measure][name] ?? Number.NaN]),
    }));
  return [
    { title: "Held-out loss by mask, nats per label", series: byMask("loss") },
    { title: "Held-out exact match by mask, teacher-forced", series: byMask("exactMatch"), fromZero: true },
    { title: "Held-out token accuracy by mask", series: byMask("accuracy"), fromZero: true },
  ];
}

function maskCharts(masks: readonly MaskRow[]): StepChart[] {
  return [...new Set(masks.map((row) => row.predictorInput))].flatMap((input) => {
    const rows = masks.filter((row) => row.predictorInput === input);
    const line = (name: string, f: (row: MaskRow) => number, dashed = false): Series => ({
      name,
      points: rows.map((row): Point => [row.step, f(row)]),
      dashed,
    });
    return [
      {
        title: `Overlap of masks made from the ${input}`,
        series: [
          line("same domain", (row) => mean(row.overlapWithin)),
          line("other domain", (row) => mean(row.overlapAcross)),
          line("chance", (row) => row.chance, true),
        ],
        fromZero: true,
      },
      {
        title: `Use of channels, masks made from the ${input}`,
        series: [
          line("share ever used", (row) => mean(row.everUsed)),
          line("mean λ of kept channels", (row) => mean(row.meanLambda)),
          line("std of scores over prompts", (row) => mean(row.scoreStd ?? [])),
        ],
        fromZero: true,
      },
    ];
  });
}

/** The newest masks of each kind in detail: overlap by layer and by pair of domains. */
function lastMasks(masks: readonly MaskRow[]): string {
  const newest = new Map(masks.map((row) => [row.predictorInput, row]));
  return [...newest.values()]
    .map(({ predictorInput, step, overlapWithin, overlapAcross, chance, domains, matrix }) => {
      const byLayer = (name: string, values: readonly (number | null)[], dashed = false): Series => ({
        name,
        points: values.map((value, layer): Point => [layer, value ?? Number.NaN]),
        dashed,
      });
      const chart = lineChart({
        title: `Overlap by layer at step ${step}, masks made from the ${predictorInput}`,
        xLabel: "layer",
        series: [
          byLayer("same domain", overlapWithin),
          byLayer("other domain", overlapAcross),
          byLayer(
            "chance",
            overlapWithin.map(() => chance),
            true,
          ),
        ],
        fromZero: true,
      });
      return `<div class="charts">${chart}${heatmap(`Overlap by domain at step ${step}, masks made from the ${predictorInput}`, domains, matrix)}</div>`;
    })
    .join("");
}

/** Shares in 0..1 as a table of shaded cells. */
function heatmap(title: string, names: readonly string[], values: readonly (readonly (number | null)[])[]): string {
  const cells = (row: readonly (number | null)[]) =>
    row.map((value) =>
      value === null
        ? "<td>–</td>"
        : `<td style="--share:${value.toFixed(3)}">${value.toFixed(2).replace(/^0/, "")}</td>`,
    );
  const head = names.map((name) => `<th scope="col"><span>${escapeHtml(name)}</span></th>`).join("");
  const body = values
    .map((row, i) => `<tr><th scope="row">${escapeHtml(names[i] ?? "")}</th>${cells(row).join("")}</tr>`)
    .join("");
  return `<figure><figcaption><h3>${escapeHtml(title)}</h3></figcaption><div class="scroll">
<table class="heat"><thead><tr><td></td>${head}</tr></thead><tbody>${body}</tbody></table></div></figure>`;
}
