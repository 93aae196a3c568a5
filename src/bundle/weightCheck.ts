/** Weights looked at on their way into a bundle or a checkpoint: what no training leaves behind is found now, not in an answer. */
import { FileError } from "../errors.ts";

/** A plain loop: there are billions. */
function firstNotFinite(values: Float32Array): number | undefined {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return i;
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
   * @throws {FileError} for the first value that is NaN or infinite
   */
  look(name: string, shape: readonly number[], values: Float32Array, firstRow = 0): void {
    const bad = firstNotFinite(values);
    if (bad !== undefined) {
      const width = shape.at(-1)!;
      const at = shape.length === 1 ? [bad] : [firstRow + Math.floor(bad / width), bad % width];
      throw new FileError(
        this.path,
        `tensor "${name}": wanted finite weights, got ${values[bad]} at [${at.join(", ")}]. Is the file whole? Else its training went wrong.`,
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
