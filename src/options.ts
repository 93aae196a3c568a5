/**
 * Numbers that someone may choose, in tables: the range of each, its default and its words are stated once, and serve the library's checks, the command
 * line's flags and help, and the bodies of requests.
 */
import { OptionError } from "./errors.ts";

export interface NumberOption {
  /** What it is, as help says it: "requests that may wait". */
  words: string;
  isInteger?: boolean;
  min?: number;
  max?: number;
  /** Whether `min` itself is out of range. */
  isAboveMin?: boolean;
  /** What it is where it is not given. */
  fallback?: number;
  /** The same in words, where it follows from something else. */
  otherwise?: string;
  /** As someone may write it, where that is more than a number. */
  example?: string;
}

/** What may be given of a table. */
export type Given<Table> = { [Name in keyof Table]?: number | undefined };
/** The same with defaults. */
export type Complete<Table> = {
  [Name in keyof Table]: Table[Name] extends { fallback: number } ? number : number | undefined;
};

/** "an integer of at least 1", "a number in 0..1" */
export function rangeOf({ isInteger, min, max, isAboveMin }: NumberOption): string {
  const kind = isInteger ? "an integer" : "a number";
  if (min === undefined) return kind;
  if (isAboveMin) return `${kind} above ${min}${max === undefined ? "" : `, at most ${max}`}`;
  return max === undefined ? `${kind} of at least ${min}` : `${kind} in ${min}..${max}`;
}

export function isInRange(
  value: number,
  { isInteger, min = -Infinity, max = Infinity, isAboveMin }: NumberOption,
): boolean {
  const isKind = isInteger ? Number.isSafeInteger(value) : Number.isFinite(value);
  return isKind && (isAboveMin ? value > min : value >= min) && value <= max;
}

/** @param where what takes the option, for the message @throws {OptionError} unless the value is in range */
export function checkNumber(where: string, name: string, value: number, option: NumberOption): void {
  if (!isInRange(value, option))
    throw new OptionError(`${where}: "${name}" must be ${rangeOf(option)}, got ${String(value)}.`);
}

/**
 * The options of a table as they were given, else by default. What else was given is left to others.
 *
 * @throws {OptionError} as {@link checkNumber}
 */
export function readNumbers<const Table extends Record<string, NumberOption>>(
  where: string,
  table: Table,
  given: Given<Table>,
): Complete<Table> {
  const entries = Object.entries(table).map(([name, option]) => {
    const value = given[name];
    if (value !== undefined) checkNumber(where, name, value, option);
    return [name, value ?? option.fallback] as const;
  });
  return Object.fromEntries(entries) as Complete<Table>;
}

/** @throws {OptionError} if a value that is given is none of the choices */
export function checkChoice<Choice>(
  where: string,
  name: string,
  value: Choice | undefined,
  choices: readonly Choice[],
): void {
  if (value === undefined || choices.includes(value)) return;
  throw new OptionError(`${where}: wanted ${name} to be one of ${choices.join(", ")}, got ${value}.`);
}
