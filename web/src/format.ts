/** Numbers as text. A unit stays on the line of its number. */
import { duration as spoken } from "../../src/words.ts";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (value: number): string => whole.format(value);
export const percent = (share: number): string => `${(share < 0.2 ? oneDigit : whole).format(share * 100)}\u00a0%`;
export const milliseconds = (ms: number): string =>
  ms >= 10_000 ? `${oneDigit.format(ms / 1000)}\u00a0s` : `${(ms < 10 ? oneDigit : whole).format(ms)}\u00a0ms`;
/** As the command line says it: "40 s", "12 min", "1 h 5 min". */
export const duration = (seconds: number): string => spoken(seconds).replace(/(\d) /g, "$1\u00a0");
export const perSecond = (tokens: number, ms: number): string =>
  tokens > 0 && ms > 0 ? `${count((tokens / ms) * 1000)}\u00a0tokens/s` : "–";
export const bytes = (n: number): string =>
  n < 1e6
    ? `${whole.format(n / 1e3)}\u00a0kB`
    : n < 1e9
      ? `${oneDigit.format(n / 1e6)}\u00a0MB`
      : `${oneDigit.format(n / 1e9)}\u00a0GB`;
export const plural = (n: number, one: string, many = `${one}s`): string => `${count(n)} ${n === 1 ? one : many}`;
