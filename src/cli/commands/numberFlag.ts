/** Flags of numbers that the library has in tables. */
import { InvalidArgumentError, Option } from "commander";
import { isInRange, type NumberOption, rangeOf } from "../../options.ts";

const suchAs = ({ example }: NumberOption) => (example === undefined ? "" : `, such as ${example}`);

/**
 * A flag with an option's words, range and default.
 *
 * @param parse of the text, where it may be more than a number
 */
export function numberFlag(flags: string, option: NumberOption, parse: (text: string) => number = Number): Option {
  const { words, fallback, otherwise } = option;
  const help = otherwise === undefined ? words : `${words} (default: ${otherwise})`;
  return new Option(flags, help).default(fallback).argParser((text) => {
    const value = text.trim() === "" ? Number.NaN : parse(text);
    if (!isInRange(value, option)) throw new InvalidArgumentError(`Wanted ${rangeOf(option)}${suchAs(option)}.`);
    return value;
  });
}
