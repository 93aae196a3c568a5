/** `run --compare`: two answers side by side, or one after the other where there is no room. */
import type { ComparedAnswer, Comparison } from "../answer/compareAnswers.ts";
import { milliseconds, percent } from "./options.ts";

/** The part of a stream that is needed; `process.stdout` is one. */
export interface ComparisonStream {
  /** Undefined elsewhere than on a terminal. */
  columns?: number | undefined;
  write(text: string): unknown;
}

/** Stands where the two answers part. */
const mark = "▸";
const narrowest = 80;
const between = " │ ";

export function printComparison(comparison: Comparison, stream: ComparisonStream): void {
  const { dense, subnetwork, agreement, firstDifference } = comparison;
  const columns = [column("Dense model", dense), column("Sub-network", subnetwork)] as const;
  const width = stream.columns ?? 0;
  const isWide = width >= narrowest && ![dense.text, subnetwork.text].some((text) => twoCells.test(text));
  stream.write(isWide ? sideBySide(columns, width) : `${columns.map((lines) => lines.join("\n")).join("\n\n")}\n`);
  const parts =
    firstDifference === undefined ? "The same answer." : `They part at ${mark}, token ${firstDifference + 1}.`;
  const count = `${dense.tokens.length} ${dense.tokens.length === 1 ? "token" : "tokens"}`;
  const agrees =
    agreement === undefined
      ? ""
      : ` The sub-network would write ${percent(agreement)} of the dense answer's ${count} too.`;
  stream.write(`\n${parts}${agrees}\n`);
}

/** Scripts and pictures of two cells a character, which columns would not fit. */
const twoCells =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]|\p{Extended_Pictographic}/u;

function column(
  title: string,
  { text, differsAt, keptShare, firstTokenMs, tokensPerSecond }: ComparedAnswer,
): string[] {
  const marked = differsAt === undefined ? text : `${text.slice(0, differsAt)}${mark}${text.slice(differsAt)}`;
  const speed = tokensPerSecond === undefined ? [] : [`${tokensPerSecond.toFixed(0)} tokens/s`];
  const facts = [`${percent(keptShare)} of the FFN`, milliseconds("first token", firstTokenMs), ...speed];
  return [title, "", ...marked.split("\n"), "", facts.join(" · ")];
}

function sideBySide([left, right]: readonly [string[], string[]], width: number): string {
  const room = Math.floor((width - between.length) / 2);
  // Titles, answers and facts each begin on one line.
  const sections = (lines: readonly string[]) => [
    lines.slice(0, 2),
    lines.slice(2, -2).flatMap((line) => wrapped(line, room)),
    lines.slice(-2).flatMap((line) => wrapped(line, room)),
  ];
  const [a, b] = [sections(left), sections(right)];
  return a
    .flatMap((lines, section) => {
      const others = b[section]!;
      return Array.from({ length: Math.max(lines.length, others.length) }, (_, i) =>
        `${padded(lines[i] ?? "", room)}${between}${others[i] ?? ""}`.trimEnd(),
      );
    })
    .map((line) => `${line}\n`)
    .join("");
}

/** Lines of at most `room` characters, broken at spaces where there are some. */
function wrapped(line: string, room: number): string[] {
  const lines: string[] = [];
  let rest = [...line];
  while (rest.length > room) {
    const space = rest.lastIndexOf(" ", room);
    const end = space > 0 ? space : room;
    lines.push(rest.slice(0, end).join(""));
    rest = rest.slice(space > 0 ? end + 1 : end);
  }
  return [...lines, rest.join("")];
}

const padded = (line: string, room: number): string => line + " ".repeat(Math.max(0, room - [...line].length));
