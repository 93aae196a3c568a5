/** Weights looked at on their way into a bundle or a checkpoint: what no training leaves behind is found now, not in an answer. */
import { FileError } from "../errors.ts";

/** The largest weight that a type holds; of blocks, that their scale of half precision does. */
const LARGEST: Readonly<Record<string, number>> = { F16: 65504, Q8_0: 127 * 65504, Q4_0: 8 * 65504 };

/** A plain loop: there are billions. */
function firstBeyond(largest: number, values: Float32Array): number | undefined {
  for (let i = 0; i < values.length; i++) if (!(Math.abs(values[i]!) <= largest)) return i;
  return undefined;
}

/** Looks at a model's weights, each value once. */
export class WeightCheck {
  /** Matrices seen, and whether one of their values is not zero. */
  readonly #matrices = new Map<string, boolean>();

  /** @param path of the model, for messages */
  constructor(readonly path: string) {}

  /**
   * @param values of the parameter: all, or whole rows
   * @param firstRow of `values` within it
   * @param type that they are stored in
   * @throws {FileError} for the first value that is NaN or infinite, or would be in that type
   */
  look(name: string, shape: readonly number[], values: Float32Array, { firstRow = 0, type = "F32" } = {}): void {
    const largest = LARGEST[type] ?? Number.MAX_VALUE;
    const bad = firstBeyond(largest, values);
    if (bad !== undefined) {
      const width = shape.at(-1)!;
      const at = shape.length === 1 ? [bad] : [firstRow + Math.floor(bad / width), bad % width];
      const got = `got ${values[bad]} at [${at.join(", ")}].`;
      throw new FileError(
        this.path,
        Number.isFinite(values[bad])
          ? `tensor "${name}": wanted weights of at most ${largest}, which ${type} holds, ${got} Give another --type.`
          : `tensor "${name}": wanted finite weights, ${got} Is the file whole? Else its training went wrong.`,
      );
    }
    if (shape.length > 1 && !this.#matrices.get(name))
      this.#matrices.set(
        name,
        values.some((value) => value !== 0),
      );
  }

  /** Matrices of nothing but zeros, which new layers may begin with and pruned ones end with, for people. */
  notes(): string[] {
    const zeros = [...this.#matrices].flatMap(([name, hasValues]) => (hasValues ? [] : [name]));
    if (zeros.length === 0) return [];
    const more = zeros.length > 4 ? `, … (${zeros.length})` : "";
    return [`Nothing but zeros: ${zeros.slice(0, 4).join(", ")}${more}. If it was not made so, the file is damaged.`];
  }
}
