/**
 * Where the interpreter of templates is not as Python's, for which they are written: `x.strip(characters)`, `lstrip` and `rstrip` take the characters, without
 * them, as `trim`, Python's white space; and of what is none or undefined, `map`, `select` and their like make an empty list.
 */
import { Environment, type Interpreter } from "@huggingface/jinja";

type Evaluate = Interpreter["evaluate"];
type Node = Parameters<Evaluate>[0];

interface Sides {
  start: boolean;
  end: boolean;
}
const STRIPS = new Map<unknown, Sides>([
  ["strip", { start: true, end: true }],
  ["lstrip", { start: true, end: false }],
  ["rstrip", { start: false, end: true }],
]);
/** Python's: not the byte order mark, which JavaScript's is too, but separators of the ASCII's. */
export const whiteSpace: ReadonlySet<string> = new Set(
  "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000",
);

const FILTERS_OF_NOTHING: readonly unknown[] = ["map", "select", "reject", "selectattr", "rejectattr"];

/** What is read here of calls and of filters. */
interface Parts {
  type?: string;
  callee?: { computed?: boolean; object?: Node; property?: { value?: unknown } };
  args?: readonly Node[];
  operand?: Node;
  filter?: { value?: unknown; callee?: { value?: unknown } };
}

/** Makes an interpreter do as Python's. */
export function doAsPython(interpreter: Interpreter): void {
  const evaluate = interpreter.evaluate.bind(interpreter);
  const runtimeValue = (value: unknown) => new Environment().set("value", value);
  interpreter.evaluate = (...[node, environment]: Parameters<Evaluate>) => {
    const { type, callee, args = [], operand, filter } = (node ?? {}) as Parts;
    if (type === "CallExpression" && callee?.computed === false && args.length <= 1) {
      const sides = STRIPS.get(callee.property?.value);
      if (!sides) return evaluate(node, environment);
      const text = interpreter.evaluate(callee.object, environment).value;
      const characters = args.length === 0 ? whiteSpace : interpreter.evaluate(args[0], environment).value;
      if (typeof text === "string" && (typeof characters === "string" || characters === whiteSpace))
        return runtimeValue(stripped(text, new Set(characters), sides));
    } else if (type === "FilterExpression" && filter?.value === "trim") {
      const text = interpreter.evaluate(operand, environment).value;
      if (typeof text === "string") return runtimeValue(stripped(text, whiteSpace, { start: true, end: true }));
    } else if (type === "FilterExpression" && FILTERS_OF_NOTHING.includes(filter?.callee?.value)) {
      const filtered = interpreter.evaluate(operand, environment).type;
      if (filtered === "NullValue" || filtered === "UndefinedValue") return runtimeValue([]);
    }
    return evaluate(node, environment);
  };
}

/** A text without the characters at its sides. */
export function stripped(text: string, characters: ReadonlySet<string>, { start, end }: Sides): string {
  let [from, to] = [0, text.length];
  while (start && from < to) {
    const first = String.fromCodePoint(text.codePointAt(from)!);
    if (!characters.has(first)) break;
    from += first.length;
  }
  while (end && from < to) {
    const last = /.$/su.exec(text.slice(Math.max(from, to - 2), to))![0];
    if (!characters.has(last)) break;
    to -= last.length;
  }
  return text.slice(from, to);
}
