/** Where two answers part, in the pieces of text that they came in: about a token each. */

export interface Parting {
  /** Pieces before it, the same in both. */
  pieces: number;
  /** The same in characters. */
  at: number;
}

/** Undefined where both are the same. */
export function partingOf(a: readonly string[], b: readonly string[]): Parting | undefined {
  const pieces = Array.from({ length: Math.max(a.length, b.length) }, (_, i) => i).find((i) => a[i] !== b[i]);
  return pieces === undefined ? undefined : { pieces, at: a.slice(0, pieces).join("").length };
}

/** Stands where they part. */
export const partingMark = "▸";

export function marked(text: string, parting: Parting | undefined): string {
  return parting ? `${text.slice(0, parting.at)}${partingMark}${text.slice(parting.at)}` : text;
}
