/**
 * What `weave report -f` does: evaluates a template of Go's text/template over the report. Template and work are bounded, for anybody
 * on the host may ask: so many steps, so many characters made.
 */
import type { TemplateResult } from "../api/types.ts";
import { type Command, type Node, type Operand, parseTemplate, type Pipe, type Place } from "./template_syntax.ts";
import { TemplateSyntaxError } from "./template_syntax.ts";
import {
  byKey,
  print,
  printf,
  type PrintRules,
  printValue,
  typeName,
  type Value,
  type ValueObject,
} from "./template_print.ts";

export interface TemplateRules {
  /** The function `json`. */
  readonly json: (value: unknown) => string;
  /** Names of fields that hold a map: a key that is not there has no value; elsewhere such a field is an error. */
  readonly maps: ReadonlySet<string>;
  /** Fields of the whole that may be absent, and are nil then. */
  readonly optional: ReadonlySet<string>;
}

const MAX_STEPS = 1_000_000;
/** Characters made by all functions and actions together. */
const MAX_CHARACTERS = 16 * 1024 * 1024;

/** Never throws for what a user may write. `data` is made of plain objects, lists, strings, numbers and booleans. */
export function renderTemplate(template: string, data: object, rules: TemplateRules): TemplateResult {
  try {
    const nodes = parseTemplate(template, FUNCTION_NAMES);
    return { ok: true, text: new Execution(template, data as ValueObject, rules).run(nodes) };
  } catch (error) {
    if (error instanceof TemplateSyntaxError) return { ok: false, stage: "parse", message: error.message };
    if (error instanceof ExecutionError) return { ok: false, stage: "execute", message: error.message };
    throw error;
  }
}

class ExecutionError extends Error {
  override readonly name = "ExecutionError";
}

/** Thrown by functions; the call adds where it is. */
class FunctionError extends Error {
  override readonly name = "FunctionError";
}

type BuiltIn = (this: Execution, ...values: Value[]) => Value;

/** `and` and `or` are not here: they leave arguments unevaluated. */
const FUNCTIONS: ReadonlyMap<string, BuiltIn> = new Map<string, BuiltIn>([
  ["not", function (value) {
    return !this.truth(value);
  }],
  ["len", function (value) {
    if (typeof value === "string") return new TextEncoder().encode(this.made(value)).length;
    if (Array.isArray(value)) return value.length;
    if (isObject(value) && this.isMap(value)) return Object.keys(value).length;
    throw new FunctionError(
      `len of ${value === null || value === undefined ? "nil pointer" : `type ${typeName(value)}`}`,
    );
  }],
  ["index", function (value, ...keys) {
    return keys.reduce((item, key) => this.index(item, key), value);
  }],
  ["json", function (value) {
    return this.made(this.rules.json(value ?? null));
  }],
  ["print", function (...values) {
    return print(values, this.printing);
  }],
  ["println", function (...values) {
    return `${values.map((value) => printValue(value, this.printing)).join(" ")}\n`;
  }],
  ["printf", function (format, ...values) {
    if (typeof format !== "string") {
      throw new FunctionError(`wrong type for value; expected string; got ${typeName(format)}`);
    }
    return printf(format, values, this.printing);
  }],
  ["eq", function (value, ...others) {
    return others.some((other) => equal.call(this, value, other));
  }],
  ["ne", function (a, b) {
    return !equal.call(this, a, b);
  }],
  ["lt", less],
  ["le", function (a, b) {
    return less.call(this, a, b) || equal.call(this, a, b);
  }],
  ["gt", function (a, b) {
    return less.call(this, b, a);
  }],
  ["ge", function (a, b) {
    return less.call(this, b, a) || equal.call(this, a, b);
  }],
]);

const ARGUMENTS: Readonly<Record<string, readonly [least: number, most: number]>> = {
  not: [1, 1],
  len: [1, 1],
  index: [1, Infinity],
  json: [1, 1],
  print: [0, Infinity],
  println: [0, Infinity],
  printf: [1, Infinity],
  eq: [2, Infinity],
  ne: [2, 2],
  lt: [2, 2],
  le: [2, 2],
  gt: [2, 2],
  ge: [2, 2],
  and: [1, Infinity],
  or: [1, Infinity],
};

const FUNCTION_NAMES: ReadonlySet<string> = new Set(Object.keys(ARGUMENTS));

type Outcome = "done" | "break" | "continue";

class Execution {
  readonly rules: TemplateRules;
  readonly printing: PrintRules;
  readonly #template: string;
  readonly #root: ValueObject;
  readonly #variables: [name: string, value: Value][];
  readonly #output: string[] = [];
  /** Objects that were found in a field that holds maps. */
  readonly #maps = new WeakSet<object>();
  #steps = 0;
  #characters = 0;
  /** What is being evaluated, for limits that are met inside it. */
  #place: Place = { at: 0, source: "" };

  constructor(template: string, root: ValueObject, rules: TemplateRules) {
    this.#template = template;
    this.#root = root;
    this.rules = rules;
    this.#variables = [["$", root]];
    this.printing = { isMap: (object) => this.isMap(object), charge: (characters) => this.#charge(characters) };
  }

  run(nodes: readonly Node[]): string {
    this.#nodes(nodes, this.#root);
    return this.#output.join("");
  }

  truth(value: Value): boolean {
    if (Array.isArray(value)) return value.length > 0;
    if (isObject(value)) return !this.isMap(value) || Object.keys(value).length > 0;
    return Boolean(value);
  }

  isMap(object: object): boolean {
    return this.#maps.has(object);
  }

  index(item: Value, key: Value): Value {
    if (Array.isArray(item) || typeof item === "string") {
      const at = typeof key === "bigint" || typeof key === "number" ? Number(key) : NaN;
      if (!Number.isInteger(at)) throw new FunctionError(`cannot index slice/array with type ${typeName(key)}`);
      const found = Array.isArray(item) ? item[at] : new TextEncoder().encode(this.made(item))[at];
      if (at < 0 || found === undefined) throw new FunctionError(`index out of range: ${at}`);
      return found;
    }
    if (!isObject(item) || !this.isMap(item)) throw new FunctionError(`can't index item of type ${typeName(item)}`);
    if (typeof key !== "string") throw new FunctionError(`value has type ${typeName(key)}; should be string`);
    return this.#member(item, key);
  }

  /** Accounts for a text that a function made, or went through. */
  made(text: string): string {
    this.#charge(text.length);
    return text;
  }

  #nodes(nodes: readonly Node[], dot: Value): Outcome {
    for (const node of nodes) {
      const outcome = this.#node(node, dot);
      if (outcome !== "done") return outcome;
    }
    return "done";
  }

  #node(node: Node, dot: Value): Outcome {
    this.#step();
    switch (node.kind) {
      case "text":
        this.#output.push(this.made(node.text));
        return "done";
      case "action": {
        const value = this.#pipe(node.pipe, dot);
        if (node.pipe.variables.length === 0) this.#output.push(printValue(value, this.printing));
        return "done";
      }
      case "break":
      case "continue":
        return node.kind;
      case "if":
      case "with":
      case "range": {
        const scope = this.#variables.length;
        const outcome = node.kind === "range" ? this.#range(node, dot) : this.#choose(node, dot);
        this.#variables.length = scope;
        return outcome;
      }
      default:
        return node satisfies never;
    }
  }

  #choose(node: Node & { kind: "if" | "with" | "range" }, dot: Value): Outcome {
    const value = this.#pipe(node.pipe, dot);
    if (!this.truth(value)) return this.#nodes(node.otherwise, dot);
    return this.#nodes(node.body, node.kind === "with" ? value : dot);
  }

  #range(node: Node & { kind: "if" | "with" | "range" }, dot: Value): Outcome {
    const { pipe } = node;
    // The variables hold the list itself where it is empty, as in Go.
    const items = this.#items(this.#pipe(pipe, dot), pipe);
    this.#step(items.length);
    if (items.length === 0) return this.#nodes(node.otherwise, dot);
    const scope = this.#variables.length;
    for (const [key, item] of items) {
      const [first, second] = pipe.variables;
      if (second !== undefined) this.#assign(first!, key, pipe.declares);
      if (first !== undefined) this.#assign(second ?? first, item, pipe.declares);
      const outcome = this.#nodes(node.body, item);
      this.#variables.length = scope;
      if (outcome === "break") break;
    }
    return "done";
  }

  #items(list: Value, place: Place): readonly (readonly [Value, Value])[] {
    if (Array.isArray(list)) return list.map((item, i) => [i, item]);
    if (list === null || list === undefined) return [];
    if (isObject(list) && this.isMap(list)) return Object.entries(list).sort(byKey);
    throw this.#error(place, `range can't iterate over ${printValue(list, this.printing)}`);
  }

  #pipe(pipe: Pipe, dot: Value): Value {
    let value: Value;
    for (const [i, command] of pipe.commands.entries()) {
      value = this.#command(command, dot, i === 0 ? [] : [value]);
    }
    for (const name of pipe.variables) this.#assign(name, value, pipe.declares);
    return value;
  }

  #assign(name: string, value: Value, declares: boolean): void {
    if (declares) return void this.#variables.push([name, value]);
    this.#variable(name)[1] = value;
  }

  /** The parser knows all names; a declaration that `and` or `or` skipped leaves one without a value. */
  #variable(name: string): [string, Value] {
    const found = this.#variables.findLast(([known]) => known === name);
    if (found === undefined) throw this.#error(this.#place, `undefined variable: ${name}`);
    return found;
  }

  /** @param piped the value of the command before, as the last argument */
  #command(command: Command, dot: Value, piped: readonly Value[]): Value {
    const [first, ...rest] = command.operands;
    if (first.kind === "function") return this.#call(first, rest, dot, piped);
    if (rest.length > 0 || piped.length > 0) {
      throw this.#error(first, `can't give argument to non-function ${first.source}`);
    }
    return this.#operand(first, dot);
  }

  #operand(operand: Operand, dot: Value): Value {
    this.#step();
    this.#place = operand;
    let value = this.#term(operand, dot);
    for (const field of operand.fields) value = this.#field(value, field, operand);
    return value;
  }

  #term(operand: Operand, dot: Value): Value {
    switch (operand.kind) {
      case "dot":
        return dot;
      case "literal":
        return operand.value;
      case "variable":
        return this.#variable(operand.name)[1];
      case "pipe":
        return this.#pipe(operand.pipe, dot);
      case "function":
        return this.#call(operand, [], dot, []);
      default:
        return operand satisfies never;
    }
  }

  #field(value: Value, name: string, place: Place): Value {
    if (value === null || value === undefined) throw this.#error(place, `nil pointer evaluating ${place.source}`);
    if (isObject(value)) {
      if (Object.hasOwn(value, name) || this.isMap(value)) return this.#member(value, name);
      if (value === this.#root && this.rules.optional.has(name)) return null;
    }
    const known = isObject(value) ? `; it has ${Object.keys(value).join(", ")}` : "";
    throw this.#error(place, `can't evaluate field ${name} in type ${typeName(value)}${known}`);
  }

  /** A field, or what a map holds for a key. */
  #member(object: ValueObject, name: string): Value {
    const member = Object.hasOwn(object, name) ? object[name] : undefined;
    if (isObject(member) && this.rules.maps.has(name)) this.#maps.add(member);
    return member;
  }

  #call(fn: Operand & { kind: "function" }, operands: readonly Operand[], dot: Value, piped: readonly Value[]): Value {
    this.#step();
    const count = operands.length + piped.length;
    const [least, most] = ARGUMENTS[fn.name]!;
    if (count < least || count > most) {
      const want = least === most ? `${least}` : `at least ${least}`;
      throw this.#error(fn, `wrong number of args for ${fn.name}: want ${want} got ${count}`);
    }
    if (fn.name === "and" || fn.name === "or") return this.#andOr(fn.name, operands, dot, piped);
    const values = [...operands.map((operand) => this.#operand(operand, dot)), ...piped];
    this.#place = fn;
    try {
      return FUNCTIONS.get(fn.name)!.apply(this, values);
    } catch (error) {
      if (!(error instanceof FunctionError)) throw error;
      throw this.#error(fn, `error calling ${fn.name}: ${error.message}`);
    }
  }

  /** The first argument that decides, or the last. */
  #andOr(name: "and" | "or", operands: readonly Operand[], dot: Value, piped: readonly Value[]): Value {
    let value: Value;
    for (const operand of operands) {
      value = this.#operand(operand, dot);
      if (this.truth(value) === (name === "or")) return value;
    }
    return piped.length > 0 ? piped[0] : value;
  }

  #step(count = 1): void {
    this.#steps += count;
    if (this.#steps > MAX_STEPS) throw this.#error(this.#place, `more than ${MAX_STEPS} steps`);
  }

  #charge(characters: number): void {
    this.#characters += characters;
    if (this.#characters > MAX_CHARACTERS) {
      throw this.#error(this.#place, `makes more than ${MAX_CHARACTERS} characters`);
    }
  }

  #error({ at, source }: Place, message: string): ExecutionError {
    const before = this.#template.slice(0, at);
    const line = before.split("\n").length;
    const column = at - (before.lastIndexOf("\n") + 1);
    const shown = source.length > 20 ? `${source.slice(0, 20)}...` : source;
    return new ExecutionError(`template: :${line}:${column}: executing "" at <${shown}>: ${message}`);
  }
}

function isObject(value: Value): value is ValueObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Numbers of either kind compare by value. */
function comparable(value: Value): "string" | "number" | "boolean" | "nil" {
  if (value === null || value === undefined) return "nil";
  if (typeof value === "object") throw new FunctionError("non-comparable type");
  return typeof value === "bigint" ? "number" : typeof value as "string" | "number" | "boolean";
}

function equal(this: Execution, a: Value, b: Value): boolean {
  const [kindA, kindB] = [comparable(a), comparable(b)];
  if (kindA === "nil" || kindB === "nil") return kindA === kindB;
  if (kindA !== kindB) throw new FunctionError("incompatible types for comparison");
  if (typeof a === "string") this.made(a);
  // JavaScript orders the two kinds of numbers among each other, but never finds them identical.
  return typeof a === typeof b ? a === b : !((a as number) < (b as number)) && !((b as number) < (a as number));
}

function less(this: Execution, a: Value, b: Value): boolean {
  const [kindA, kindB] = [comparable(a), comparable(b)];
  if (kindA !== kindB) throw new FunctionError("incompatible types for comparison");
  if (kindA === "boolean" || kindA === "nil") throw new FunctionError("invalid type for comparison");
  if (typeof a === "string") this.made(a);
  return (a as number) < (b as number);
}
