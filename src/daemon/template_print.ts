/** How Go's fmt prints values, as far as templates show it: `{{.X}}`, `print`, `printf`. */

/** Values of a template: what a report holds; undefined is what a map does not hold. */
export type Value = string | number | bigint | boolean | null | undefined | readonly Value[] | ValueObject;
export interface ValueObject {
  readonly [key: string]: Value;
}

export interface PrintRules {
  /** Whether an object prints as `map[a:1]`, not as `{1}`. */
  readonly isMap: (object: object) => boolean;
  /** Called with the length of each piece before it is kept; throws where there has been too much. */
  readonly charge: (characters: number) => void;
}

/** Go refuses larger ones as well, from a million on. */
const MAX_WIDTH = 1000;
const VERB = /%([-+# 0]*)(\d*|\*)(?:\.(\d*))?([\s\S]?)/gu;

/** As `%v`. */
export function printValue(value: Value, rules: PrintRules): string {
  const text = formatPlain(value, rules);
  rules.charge(text.length);
  return text;
}

/** Like Go's `Sprint`: a space between two that are not strings. */
export function print(values: readonly Value[], rules: PrintRules): string {
  return values.map((value, i) => {
    const before = values[i - 1];
    const space = i > 0 && typeof value !== "string" && typeof before !== "string" ? " " : "";
    return space + printValue(value, rules);
  }).join("");
}

/** Like Go's `Sprintf`, with its complaints about wrong arguments in the text. */
export function printf(format: string, values: readonly Value[], rules: PrintRules): string {
  const pieces: string[] = [];
  const keep = (piece: string) => {
    rules.charge(piece.length);
    pieces.push(piece);
  };
  let next = 0;
  let at = 0;
  for (const found of format.matchAll(VERB)) {
    keep(format.slice(at, found.index));
    at = found.index + found[0].length;
    const [, flags, width, precision, verb] = found;
    if (verb === "%") keep("%");
    else if (verb === "") keep("%!(NOVERB)");
    else if (width === "*" || Number(width) > MAX_WIDTH || Number(precision ?? 0) > MAX_WIDTH) keep("%!(BADWIDTH)");
    else if (next >= values.length) keep(`%!${verb}(MISSING)`);
    else keep(formatVerb(values[next++], { flags: flags!, width: Number(width), precision, verb: verb! }, rules));
  }
  keep(format.slice(at));
  if (next < values.length) {
    const extra = values.slice(next).map((value) => `${typeName(value)}=${printValue(value, rules)}`);
    keep(`%!(EXTRA ${extra.join(", ")})`);
  }
  return pieces.join("");
}

interface Verb {
  readonly flags: string;
  readonly width: number;
  readonly precision: string | undefined;
  readonly verb: string;
}

function formatVerb(value: Value, verb: Verb, rules: PrintRules): string {
  const { flags, width } = verb;
  const text = convert(value, verb, rules);
  if (flags.includes("-")) return text.padEnd(width);
  const isNumber = typeof value === "number" || typeof value === "bigint";
  if (!flags.includes("0") || !isNumber) return text.padStart(width);
  const sign = /^[+-]?/.exec(text)![0];
  return sign + text.slice(sign.length).padStart(width - sign.length, "0");
}

function convert(value: Value, { flags, precision, verb }: Verb, rules: PrintRules): string {
  const cut = (text: string) => precision === undefined ? text : firstCharacters(text, Number(precision));
  const signed = (text: string) => flags.includes("+") && !text.startsWith("-") ? `+${text}` : text;
  const isInteger = typeof value === "bigint" || Number.isInteger(value);
  switch (verb) {
    case "v":
      return isInteger ? signed(String(value)) : formatPlain(value, rules);
    case "s":
      if (typeof value === "string" || Array.isArray(value)) return cut(formatPlain(value, rules));
      break;
    case "q":
      if (typeof value === "string") return JSON.stringify(cut(value));
      break;
    case "t":
      if (typeof value === "boolean") return String(value);
      break;
    case "d":
      if (isInteger) return signed(String(value));
      break;
    case "x":
    case "X": {
      if (!isInteger) break;
      const hex = `${flags.includes("#") ? "0x" : ""}${value!.toString(16)}`;
      return verb === "X" ? hex.toUpperCase() : hex;
    }
    case "f":
    case "e":
    case "g":
      // Integers of the report that may be any number, counters say, are numbers for these verbs as well.
      if (typeof value === "number") return signed(formatFloat(value, verb, precision));
      break;
  }
  return `%!${verb}(${typeName(value)}=${formatPlain(value, rules)})`;
}

function firstCharacters(text: string, count: number): string {
  return [...text.slice(0, 2 * count)].slice(0, count).join("");
}

function formatFloat(value: number, verb: string, precision: string | undefined): string {
  const digits = Math.min(precision === undefined ? 6 : Number(precision), 100);
  if (verb === "f") return value.toFixed(digits);
  if (verb === "e") return value.toExponential(digits).replace(/e([+-])(\d)$/, "e$10$2");
  return precision === undefined ? String(value) : String(Number(value.toPrecision(Math.max(1, digits))));
}

function formatPlain(value: Value, rules: PrintRules): string {
  if (value === undefined) return "<no value>";
  if (value === null) return "<nil>";
  if (typeof value !== "object") return String(value);
  if (Array.isArray(value)) return `[${value.map((item) => formatPlain(item, rules)).join(" ")}]`;
  const entries = Object.entries(value);
  if (!rules.isMap(value)) return `{${entries.map(([, item]) => formatPlain(item, rules)).join(" ")}}`;
  return `map[${entries.sort(byKey).map(([key, item]) => `${key}:${formatPlain(item, rules)}`).join(" ")}]`;
}

export function byKey(a: readonly [string, unknown], b: readonly [string, unknown]): number {
  return a[0] < b[0] ? -1 : 1;
}

/** What the value would be in Go, for messages. */
export function typeName(value: Value): string {
  switch (typeof value) {
    case "string":
      return "string";
    case "boolean":
      return "bool";
    case "bigint":
      return "int";
    case "number":
      return Number.isInteger(value) ? "int" : "float64";
    default:
      return value === null || value === undefined ? "nil" : Array.isArray(value) ? "list" : "object";
  }
}
