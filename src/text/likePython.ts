/**
 * Where the interpreter of templates is not as Python's, for which they are written: `x.strip(characters)`, `lstrip` and `rstrip` take the characters, and of
 * what is none or undefined, `map`, `select` and their like make an empty list.
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
const FILTERS_OF_NOTHING: readonly unknown[] = ["map", "select", "reject", "selectattr", "rejectattr"];

/** What is read here of calls and of filters. */
interface Parts {
  type?: string;
  callee?: { computed?: boolean; object?: Node; property?: { value?: unknown } };
  args?: readonly Node[];
  operand?: Node;
  filter?: { callee?: { value?: unknown } };
}

/** Makes an interpreter do as Python's. */
export function doAsPython(interpreter: Interpreter): void {
  const evaluate = interpreter.evaluate.bind(interpreter);
  const runtimeValue = (value: unknown) => new Environment().set("value", value);
  interpreter.evaluate = (...[node, environment]: Parameters<Evaluate>) => {
    const { type, callee, args = [], operand, filter } = (node ?? {}) as Parts;
    if (type === "CallExpression" && callee?.computed === false && args.length === 1) {
      const sides = STRIPS.get(callee.property?.value);
      if (!sides) return evaluate(node, environment);
      const [text, characters] = [callee.object, args[0]].map((part) => interpreter.evaluate(part, environment).value);
      if (typeof text === "string" && typeof characters === "string")
        return runtimeValue(stripped(text, new Set(characters), sides));
    } else if (type === "FilterExpression" && FILTERS_OF_NOTHING.includes(filter?.callee?.value)) {
      const filtered = interpreter.evaluate(operand, environment).type;
      if (filtered === "NullValue" || filtered === "UndefinedValue") return runtimeValue([]);
    }
    return evaluate(node, environment);
  };
}

function stripped(text: string, characters: ReadonlySet<string>, { start, end }: Sides): string {
  const all = [...text];
  let [from, to] = [0, all.length];
  while (start && from < to && characters.has(all[from]!)) from++;
  while (end && from < to && characters.has(all[to - 1]!)) to--;
  return all.slice(from, to).join("");
}
