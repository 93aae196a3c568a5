/**
 * What it costs to run a Jinja template, counted before it is spent: a template of a few characters can ask for any time and memory, much of it in single
 * operations that nothing interrupts (`join`, `indent`, `replace`, `in`). Work is in characters and items that are read or made; a unit takes about 10 ns.
 */
import type { Interpreter } from "@huggingface/jinja";

type Evaluate = Interpreter["evaluate"];
type Value = ReturnType<Evaluate>;

/** What is read here of the nodes of a template. */
interface Node {
  type: string;
  operator?: { value: string };
  assignee?: { object?: Node };
  value?: unknown;
  filter?: { value?: string; callee?: { value?: string } };
  object?: Node;
  property?: { type?: string; value?: unknown };
  callee?: Node;
  iterable?: Node & { lhs?: Node };
  test?: unknown;
}

/** A node that is being evaluated: what is evaluated within it comes before its own operation. */
interface Frame {
  node: Node;
  /** Of its first two parts, so far. */
  values: Value[];
  /** Of a method: what it is called on. */
  object?: Value | undefined;
  /** Of a call: whether its parts are there. What is evaluated then is the body of a macro. */
  isCalled?: boolean;
  /** Characters that a block has written. */
  written: number;
}

/** Of any evaluation. */
const NODE_WORK = 50;
/** Of an item that a loop goes through. */
const ITEM_WORK = 100;
/** Of an item of a list that is made, and of one, or a character, of what is sliced. */
const [MADE_WORK, SLICED_WORK] = [10, 5];
/** Of each item, beyond the first, where at most so many are sorted. */
const COMPARISONS = 16;
/** A search compares several characters at a time. */
const SEARCHED_AT_A_TIME = 8;
const MAX_DEPTH = 1000;

/** Reads of a method or filter that go through lists and objects with all that is in them. */
const DEEP: readonly unknown[] = ["tojson", "string", "join", "sort", "dictsort"];
const SEARCHES: readonly unknown[] = ["split", "replace", "startswith", "endswith"];

/**
 * Makes an interpreter stop before it does more than `budget` in all.
 *
 * @returns takes further work from the budget
 */
export function limitWork(interpreter: Interpreter, budget: number): (work: number) => void {
  const evaluate = interpreter.evaluate.bind(interpreter);
  let left = budget;
  const charge = (work: number): void => {
    left -= work;
    if (!(left >= 0)) throw new RangeError(`more than ${budget} of work`);
  };
  /** Of all that is in a value, written out; `perLevel` more for each level that something is deep. */
  const chargeDeep = ({ value }: Value, perLevel = 0, depth = 0): void => {
    charge(NODE_WORK + perLevel * depth);
    if (depth > MAX_DEPTH) throw new RangeError("lists or objects nested too deep");
    if (typeof value === "string") charge(value.length);
    for (const item of itemsOf(value)) {
      if (typeof item === "string") charge(item.length);
      else chargeDeep(item, perLevel, depth + 1);
    }
  };
  const chargeReading = (name: unknown, value: Value): void => {
    const before = left;
    if (DEEP.includes(name)) chargeDeep(value);
    else charge(lengthOf(value));
    if (name === "sort" || name === "dictsort") charge(COMPARISONS * (before - left));
  };
  /** Of a value that stands in a block. */
  const chargeWriting = (frame: Frame, value: Value): void => {
    if (isText(value)) frame.written += lengthOf(value);
    else chargeDeep(value);
  };
  const frames: Frame[] = [];

  /** Charges what a node will do with a part that was just evaluated, and those before it. */
  const chargeUse = (frame: Frame, part: Node, value: Value, made: Frame): void => {
    const { node, values } = frame;
    const [first, second] = values;
    switch (node.type) {
      case "BinaryExpression":
        if (first !== undefined) chargeOperator(node.operator?.value, first, value);
        break;
      case "FilterExpression": {
        const name = node.filter?.value ?? node.filter?.callee?.value;
        if (first === undefined) chargeReading(name, value);
        else chargeArgument(name, first, value);
        break;
      }
      case "MemberExpression":
        if (part !== node.object) break;
        frame.object = value;
        if (node.property?.type === "SliceExpression") charge(SLICED_WORK * lengthOf(value));
        break;
      case "CallExpression":
        if (frame.isCalled) chargeWriting(frame, value);
        else if (part === node.callee) {
          frame.isCalled = true;
          if (made.object !== undefined) chargeMethod(part.property?.value, made.object, [first, second]);
        }
        break;
      case "For":
        if (part === node.iterable || part === node.iterable?.lhs) charge(ITEM_WORK * lengthOf(value));
        else chargeWriting(frame, value);
        break;
      case "FilterStatement":
        if (isText(value))
          charge(searchWork(frame.written, lengthOf(value))); // an argument of the filter, or written
        else charge(frame.written * numberIn(value));
        chargeWriting(frame, value);
        break;
      case "Set":
        if (part !== node.value && part !== node.assignee?.object) chargeWriting(frame, value);
        break;
      case "If":
        if (part !== node.test) chargeWriting(frame, value);
        break;
      case "Program":
      case "CallStatement":
        chargeWriting(frame, value);
        break;
    }
  };

  const chargeOperator = (operator: string | undefined, left: Value, right: Value): void => {
    if (operator === "in" || operator === "not in") {
      charge(searchWork(lengthOf(right), lengthOf(left)));
      return;
    }
    const becomesText = operator === "~" || operator === "+" || isText(left) !== isText(right);
    for (const one of [left, right]) {
      if (isText(one)) charge(lengthOf(one) / SEARCHED_AT_A_TIME);
      else if (becomesText) chargeDeep(one);
    }
  };

  /** Of a filter. Keyword arguments come one by one. */
  const chargeArgument = (filter: unknown, operand: Value, argument: Value): void => {
    if (filter === "indent") charge(lengthOf(operand) * numberIn(argument));
    else if (filter === "tojson") chargeDeep(operand, numberIn(argument) + lengthOf(argument));
    else if (isText(argument)) charge(lengthOf(operand) * (1 + lengthOf(argument)));
  };

  const chargeMethod = (name: unknown, object: Value, [sought, replacement]: (Value | undefined)[]): void => {
    chargeReading(name, object);
    if (!SEARCHES.includes(name) || sought === undefined) return;
    for (const text of isText(sought) ? [sought] : itemsOf(sought.value))
      charge(searchWork(lengthOf(object), typeof text === "string" ? text.length : lengthOf(text)));
    if (name === "replace" && replacement) charge((1 + lengthOf(object)) * lengthOf(replacement));
  };

  interpreter.evaluate = (...[node, environment]: Parameters<Evaluate>) => {
    if (!node) return evaluate(node, environment);
    const own = node as Node;
    charge(NODE_WORK + (own.type === "Macro" || own.type === "CallStatement" ? NODE_WORK * sizeOf(own) : 0));
    if (frames.length > MAX_DEPTH) throw new RangeError("evaluations nested too deep");
    const outer = frames.at(-1);
    const frame: Frame = { node: own, values: [], written: 0 };
    frames.push(frame);
    try {
      const value = evaluate(node, environment);
      if (own.type !== "Identifier" && own.type !== "MemberExpression")
        charge(lengthOf(value) * (isText(value) ? 1 : MADE_WORK)); // those two are not made anew
      if (outer) {
        chargeUse(outer, own, value, frame);
        if (outer.values.length < 2) outer.values.push(value);
      }
      return value;
    } finally {
      frames.pop(); // loops are left by exceptions
    }
  };
  return charge;
}

const searchWork = (text: number, sought: number): number => text + (text * sought) / SEARCHED_AT_A_TIME;

const isText = ({ value }: Value): boolean => typeof value === "string";

/** Characters of a text, items of a list or an object. */
function lengthOf({ value }: Value): number {
  if (typeof value === "string" || Array.isArray(value)) return value.length;
  return value instanceof Map ? value.size : 1;
}

/** A number, or those of an object together: keyword arguments come as one. */
const numberIn = ({ value }: Value): number => (typeof value === "number" ? Math.max(1, value) : 1);

/** Of a list, or of an object with its names. */
function* itemsOf(value: unknown): Generator<Value | string> {
  if (Array.isArray(value)) yield* value;
  else if (value instanceof Map)
    for (const [key, item] of value) {
      yield String(key);
      yield item;
    }
}

const sizes = new WeakMap<object, number>();

/** Nodes of a part of a template. What defines a macro walks through all of it. */
function sizeOf(node: object): number {
  const known = sizes.get(node);
  if (known !== undefined) return known;
  let size = 1;
  for (const part of Object.values(node)) if (typeof part === "object" && part !== null) size += sizeOf(part);
  sizes.set(node, size);
  return size;
}
