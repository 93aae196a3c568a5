/** The evidence as figures, of the arm that is the best. */
import { HEAT_STEPS, MARGIN, round, svg, text, textWidth, WIDTH } from "../../src/report/svg.ts";
import { dotsFigure } from "../report/dots.ts";
import { linesFigure } from "../report/figures.ts";
import type { Arm, MaskName } from "./results.ts";
import { armTitle, MASK_NAMES } from "./tables.ts";

type Result = NonNullable<Arm["result"]>;
type Matrix = NonNullable<Result["matrix"]>;

/** SVG by name; what was not measured is not drawn. */
export function drawEvidence(best: Arm): Map<string, string> {
  const { result } = best;
  const title = armTitle(best);
  return new Map([
    ...(result ? [["smollm2-kl", klFigure(title, result)] as const] : []),
    ...(result?.matrix
      ? ([
          ["smollm2-matrix", matrixFigure(title, result.matrix)],
          ["smollm2-overlap", overlapFigure(title, result.matrix)],
        ] as const)
      : []),
  ]);
}

/** KL by kind, a sign for each mask. */
function klFigure(title: string, { scores, prompts }: Result): string {
  const masks = (Object.keys(MASK_NAMES) as MaskName[]).filter((mask) => scores[mask]);
  const kinds = Object.keys(scores[masks[0]!]!.byKind);
  const rows = [undefined, ...kinds].map((kind) => ({
    name: kind ?? "mean",
    values: masks.map((mask) => (kind === undefined ? scores[mask]! : scores[mask]!.byKind[kind]!).kl),
    isStrong: kind === undefined,
  }));
  return dotsFigure({
    title: `SmolLM2 under its masks and others: ${title}`,
    note: `KL to the dense model in nats a token, by kind of prompt; ${prompts} held-out prompts, one seed.`,
    series: masks.map((mask) => MASK_NAMES[mask]),
    rows,
  });
}

/** KL of a kind's prompts (row) under a kind's masks (column), shaded by how it compares with that under their own. */
function matrixFigure(title: string, { kinds, kl }: Matrix): string {
  const left = MARGIN + Math.max(...kinds.map((kind) => textWidth(kind, 13))) + 12;
  const [top, height] = [26, 32];
  const width = (WIDTH - MARGIN - left) / kinds.length;
  const ratios = kl.map((row, i) => row.map((one) => one / row[i]!));
  const [low, high] = [Math.min(...ratios.flat()), Math.max(...ratios.flat())];
  const shade = (ratio: number) => Math.round(((ratio - low) / (high - low || 1)) * (HEAT_STEPS - 1));
  const cells = kl.flatMap((row, i) =>
    row.map((one, j) => {
      const step = shade(ratios[i]![j]!);
      const [x, y] = [left + j * width, top + i * height];
      return (
        `<rect x="${round(x)}" y="${y}" width="${round(width - 1)}" height="${height - 1}" class="h${step}"/>` +
        text(x + width / 2, y + height / 2, one.toFixed(2), { anchor: "middle", ...(step >= DARK && { as: "paper" }) })
      );
    }),
  );
  const names = kinds.map(
    (kind, i) =>
      text(left - 10, top + (i + 0.5) * height, kind, { anchor: "end" }) +
      text(left + (i + 0.5) * width, 12, kind, { anchor: "middle" }),
  );
  const note =
    "KL to the dense model in nats a token: rows are kinds of prompts, columns the kinds whose prompts the masks are of. " +
    `Shade: KL as a multiple of that under the own kind's masks, from ${low.toFixed(2)} to ${high.toFixed(2)}.`;
  return svg({ title: `SmolLM2, own and foreign masks: ${title}`, note }, top + kinds.length * height, [
    ...names,
    ...cells,
  ]);
}

/** Shades from here on are nearer to the ink than to the paper, in both schemes. */
const DARK = 18;

function overlapFigure(title: string, { chance, overlapWithin, overlapAcross }: Matrix): string {
  const series = { "prompts of one kind": overlapWithin, "of two kinds": overlapAcross };
  const points = Object.entries(series).flatMap(([name, shares]) =>
    shares.flatMap((mean, layer) =>
      mean === null ? [] : [{ series: name, x: layer + 1, score: { mean, std: Number.NaN, n: 1 } }],
    ),
  );
  const note = `Share of kept channels that the masks of two prompts have in common, %. Chance: ${(100 * chance).toFixed(0)} %.`;
  return linesFigure({ title: `SmolLM2, overlap of masks: ${title}`, note, xLabel: "layer" }, points);
}
