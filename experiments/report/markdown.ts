/** Words and numbers of tables in Markdown. */
import { type Estimate, percent } from "./experiments.ts";
import type { Interval } from "./statistics.ts";

/** Text that stays text in a cell. */
export function escapeMarkdown(text: string): string {
  return text.replace(/[\\`*[\]<>|~&]/g, "\\$&").replace(/\s+/g, " ");
}

/** A difference in points with its sign: "+8.2", "−0.4". */
export function points(difference: number): string {
  const digits = Math.abs(100 * difference).toFixed(1);
  return `${difference < 0 && digits !== "0.0" ? "−" : "+"}${digits}`;
}

/** As `percent`, of a difference: "+8.2 ± 3.2". */
export function percentSigned(difference: Estimate): string {
  return `${points(difference.mean)} ± ${percent(difference).split(" ± ")[1]}`;
}

/** In whole percent: "84–88". */
export function range([low, high]: Interval): string {
  return [low, high].map((end) => (100 * end).toFixed(0)).join("–");
}

/** In points, of differences: "−67 to +76". */
export function pointsRange([low, high]: Interval): string {
  return [low, high].map((end) => points(end)).join(" to ");
}

/** "0.034", "< 0.001". */
export function pValue(p: number): string {
  return p < 0.001 ? "< 0.001" : p.toFixed(3);
}

/** Numbers to the right, but for the first column and those named in `left`. */
export function markdownTable(
  titles: readonly string[],
  rows: readonly (readonly string[])[],
  left: readonly string[] = [],
): string[] {
  const rules = titles.map((title, i) => (i === 0 || left.includes(title) ? "---" : "---:"));
  return [`| ${titles.join(" | ")} |`, `|${rules.join("|")}|`, ...rows.map((cells) => `| ${cells.join(" | ")} |`)];
}
