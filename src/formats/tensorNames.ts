import { FileError } from "../errors.ts";

/** Names, as keys of a map or in a set. */
interface Names {
  keys(): Iterable<string>;
  has(name: string): boolean;
}

/**
 * Holds the tensors of a model to those that it should have.
 *
 * @param isIgnored of others, which may stand beside them
 * @param what wanted, and what to ask oneself where it is not there
 * @throws {FileError} with the names that are missing and that are too many
 */
export function checkTensorNames(
  path: string,
  { wanted, got, isIgnored }: { wanted: Names; got: Names; isIgnored: (name: string) => boolean },
  what: { tensors: string; hint: string },
): void {
  const missing = [...wanted.keys()].filter((name) => !got.has(name));
  const extra = [...got.keys()].filter((name) => !wanted.has(name) && !isIgnored(name));
  if (missing.length === 0 && extra.length === 0) return;
  const list = (names: string[]) =>
    names.slice(0, 4).join(", ") + (names.length > 4 ? `, … (${names.length})` : "") || "none";
  throw new FileError(
    path,
    `wanted the tensors of ${what.tensors}, got missing: ${list(missing)}; extra: ${list(extra)}. ${what.hint}`,
  );
}
