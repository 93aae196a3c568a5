/** Values of many rows on one axis, a sign for each series. */
import { short, ticks } from "../../src/report/chart.ts";
import { line, MARGIN, sign, svg, text, textWidth, WIDTH } from "../../src/report/svg.ts";

export interface DotRow {
  name: string;
  /** One for each series, undefined where it was not measured. None: a heading. */
  values: readonly (number | undefined)[];
  isStrong?: boolean;
}

export interface DotsFigure {
  title: string;
  note: string;
  series: readonly string[];
  rows: readonly DotRow[];
  /** Positive values, on a logarithmic axis; else it begins at 0. */
  log?: boolean;
}

const [TOP, ROW_HEIGHT] = [26, 28];

export function dotsFigure({ title, note, series, rows, log = false }: DotsFigure): string {
  const left = MARGIN + Math.max(...rows.map(({ name }) => textWidth(name, 13))) + 12;
  const right = WIDTH - MARGIN;
  const bottom = TOP + ROW_HEIGHT * rows.length;
  const known = rows.map(({ values }) => values.filter((value) => value !== undefined));
  const most = Math.max(...known.flat());
  const marks = log ? logTicks(Math.min(...known.flat()), most) : ticks([0, most], 6);
  const [low, high] = log ? [Math.log(marks[0]!), Math.log(1.04 * most)] : [0, 1.04 * most];
  const x = (value: number) => left + (((log ? Math.log(value) : value) - low) / (high - low)) * (right - left);

  let legendX = left + 6;
  const legend = series.map((name, i) => {
    const at = legendX;
    legendX += textWidth(name, 13) + 40;
    return sign(i, at, 6) + text(at + 12, 6, name);
  });
  const grid = marks.map(
    (mark) =>
      line(x(mark), TOP, x(mark), bottom, "grid") +
      text(x(mark), bottom + 14, short(mark), { as: "soft", anchor: "middle" }),
  );
  const drawn = rows.map(({ name, values, isStrong }, row) => {
    const y = TOP + ROW_HEIGHT * (row + 0.5);
    const own = known[row]!;
    return [
      text(left - 10, y, name, { anchor: "end", ...(isStrong && { as: "strong" }) }),
      ...(own.length > 0 ? [line(x(Math.min(...own)), y, x(Math.max(...own)), y, "axis")] : []),
      ...values.map((value, i) => (value === undefined ? "" : sign(i, x(value), y))).reverse(), // the first one's on top
    ].join("");
  });
  return svg({ title, note }, bottom + 22, [...legend, ...grid, line(left, TOP, left, bottom, "axis"), ...drawn]);
}

/** 1, 2 and 5 of each decade, from the last one below `least`. */
function logTicks(least: number, most: number): number[] {
  const decades = Array.from({ length: 13 }, (_, i) => [1, 2, 5].map((one) => Number(`${one}e${i - 6}`))).flat();
  const first = decades.findLastIndex((tick) => tick <= least);
  return decades.slice(Math.max(first, 0)).filter((tick) => tick <= most);
}
