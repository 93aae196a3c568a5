/** Where two answers part, in the pieces of text that they came in: about a token each. */

export interface Parting {
  /** Pieces of the first before it. */
  pieces: number;
  /** The same in characters. */
  at: number;
}

/** By their text, however it was cut into pieces; between pieces of the first. Undefined where both are the same. */
export function partingOf(a: readonly string[], b: readonly string[]): Parting | undefined {
  const [text, other] = [a.join(""), b.join("")];
  if (text === other) return undefined;
  let same = 0;
  while (same < text.length && text[same] === other[same]) same++;
  let [pieces, at] = [0, 0];
  while (pieces < a.length && at + a[pieces]!.length <= same) at += a[pieces++]!.length;
  return { pieces, at };
}

/** Stands where they part. */
export const partingMark = "▸";

export function marked(text: string, parting: Parting | undefined): string {
  return parting ? `${text.slice(0, parting.at)}${partingMark}${text.slice(parting.at)}` : text;
}
