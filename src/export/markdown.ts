/** Parts of model cards. */

/** A row of a table. */
export const row = (...cells: string[]): string => `| ${cells.map(plain).join(" | ")} |`;

export const thousands = (value: number): string => value.toLocaleString("en-US");

/** Text of others on one line, without what Markdown or HTML would take for its own. */
export function plain(text: string): string {
  return text
    .replace(/\s+/g, " ")
    .trim()
    .replace(/[\\|<>[\]`*_#]/g, "\\$&");
}
