/**
 * Whether a Jinja template does more with the contents of messages than to write them, joined with other text and trimmed: then what it writes around some
 * contents is what it writes around all that are not blank. What looks into them is found as the template runs on placeholders.
 */
import type { Interpreter } from "@huggingface/jinja";

type Evaluate = Interpreter["evaluate"];
type Value = ReturnType<Evaluate>;

/** What is read here of the nodes of a template. */
interface Node {
  type: string;
  operator?: { value: string };
  filter?: { value?: string };
  test?: { value?: string };
  property?: { value?: unknown };
  computed?: boolean;
  callee?: Node;
  args?: Node[];
  body?: Node[];
  alternate?: Node[];
  defaultBlock?: Node[];
}

/** A part of a node, and its value. */
interface Operand {
  part: Node;
  value: Value;
}

/**
 * Watches what an interpreter does, from now on, with texts in which `mark` is.
 *
 * @param charge is told what the watching costs
 *
 * @returns `isLookedInto`: whether it did anything with them that may depend on what else they are. When in doubt, yes.
 */
export function watchContents(
  interpreter: Interpreter,
  mark: string,
  charge: (work: number) => void,
): { isLookedInto: boolean } {
  const holds = markFinder(mark, charge);
  const evaluate = interpreter.evaluate.bind(interpreter);
  const found = { isLookedInto: false };
  let operands: Operand[] = [];
  interpreter.evaluate = (...[node, environment]: Parameters<Evaluate>) => {
    const outer = operands;
    operands = [];
    try {
      const value = evaluate(node, environment);
      if (node) {
        found.isLookedInto ||= looksInto(node as Node, operands, holds);
        outer.push({ part: node as Node, value });
      }
      return value;
    } finally {
      operands = outer; // loops are left by exceptions
    }
  };
  return found;
}

const STRIPS: readonly unknown[] = ["strip", "lstrip", "rstrip"];
/** Tests of a text, and filters of a list, that do not depend on what is in it. */
const TYPE_TESTS: readonly unknown[] = ["string", "defined", "undefined", "none", "mapping", "iterable", "number"];
const COUNTS: readonly unknown[] = ["length", "first", "last"];

function looksInto(node: Node, operands: readonly Operand[], holds: (value: Value) => boolean): boolean {
  const isText = ({ value }: Value) => typeof value === "string";
  const holding = operands.filter(({ value }) => holds(value));
  const texts = holding.filter(({ value }) => isText(value));
  const others = holding.filter(({ value }) => !isText(value)); // lists and objects of messages
  switch (node.type) {
    case "Program":
    case "If":
    case "For":
    case "Set": {
      const written = [node.body, node.alternate, node.defaultBlock].flat();
      return others.some(({ part }) => written.includes(part));
    }
    case "UnaryExpression":
    case "Ternary":
    case "SelectExpression":
      return false; // they ask whether a text is empty
    case "CallExpression":
      return holding.length > 0 && !(node.args?.length === 0 && STRIPS.includes(node.callee?.property?.value));
    case "MemberExpression":
      return texts.length > 0 && (node.computed === true || !STRIPS.includes(node.property?.value));
    case "TestExpression":
      return texts.length > 0 && !TYPE_TESTS.includes(node.test?.value);
    case "FilterExpression":
      return texts.length > 0
        ? node.filter?.value !== "trim"
        : others.length > 0 && !COUNTS.includes(node.filter?.value);
    case "BinaryExpression":
      switch (node.operator?.value) {
        case "and":
        case "or":
          return false;
        case "+":
        case "~":
          return others.length > 0;
        case "in":
        case "not in":
          return texts.length > 0 || others.some(({ value }) => !(value.value instanceof Map)); // of an object: a key
        default:
          return holding.length > 0;
      }
    default:
      return holding.length > 0;
  }
}

/** Of looking at a value, as work is counted. */
const LOOK_WORK = 20;

/** Tells whether a text has the mark in it, or anything in a list or object, which is looked through once: only namespaces change. */
function markFinder(mark: string, charge: (work: number) => void): (value: Value) => boolean {
  const known = new WeakMap<Value, boolean>();
  const holds = (value: Value, isWithin = false): boolean => {
    const found = known.get(value);
    if (found !== undefined) return found;
    const content = value.value;
    charge(LOOK_WORK + (typeof content === "string" ? content.length : 0));
    if (typeof content === "string") return content.includes(mark);
    const changes = value.type === "NamespaceValue";
    if (changes && isWithin) return true; // when in doubt
    const items: Iterable<Value> = Array.isArray(content) ? content : content instanceof Map ? content.values() : [];
    let isHolding = false;
    for (const item of items) isHolding ||= holds(item, true);
    if (!changes) known.set(value, isHolding);
    return isHolding;
  };
  return holds;
}
