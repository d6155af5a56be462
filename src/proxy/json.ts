/**
 * JSON that is changed in places and goes on: numbers stay as they were written, as a double would round the large ones. Keys are
 * found as Docker's engine finds them (Go's encoding/json): whatever their case, and of several the last one.
 */

/** A number as it was written; it can be written again and nothing else. */
export interface RawNumber {
  readonly rawJSON: string;
}

export type Json = null | boolean | string | RawNumber | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

/** What every engine of JavaScript has by now, and its types do not. */
interface JsonWithSource {
  parse(text: string, revive: (key: string, value: unknown, context: { source?: string }) => unknown): unknown;
  rawJSON(text: string): RawNumber;
  isRawJSON(value: unknown): boolean;
}
const WITH_SOURCE = JSON as unknown as JsonWithSource;

/** undefined for what is not JSON, or nested so deeply that nobody means it. */
export function parseJson(text: string): Json | undefined {
  try {
    return WITH_SOURCE.parse(
      text,
      (_key, value, { source }) => typeof value === "number" ? WITH_SOURCE.rawJSON(source!) : value,
    ) as Json;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) return undefined;
    throw error;
  }
}

export function printJson(value: Json): string {
  return JSON.stringify(value);
}

/** An integer, to be written. */
export function jsonInteger(value: number): RawNumber {
  return WITH_SOURCE.rawJSON(String(value));
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !WITH_SOURCE.isRawJSON(value);
}

/** undefined where it is not there, or null. */
export function get(object: JsonObject, key: string): Json | undefined {
  const found = keyOf(object, key);
  return found === undefined ? undefined : object[found] ?? undefined;
}

/** undefined where it is not there, or no object. */
export function getObject(object: JsonObject, key: string): JsonObject | undefined {
  const value = get(object, key);
  return isObject(value) ? value : undefined;
}

/** Empty where it is not there, or no text. */
export function getText(object: JsonObject, key: string): string {
  const value = get(object, key);
  return typeof value === "string" ? value : "";
}

/** undefined where it is not there, or no list of texts. */
export function getTexts(object: JsonObject, key: string): string[] | undefined {
  const value = get(object, key);
  return Array.isArray(value) && value.every((item) => typeof item === "string") ? value : undefined;
}

/** The one key that counts, under whatever spelling it has, gets this value; others of its kind go. */
export function set(object: JsonObject, key: string, value: Json): void {
  const name = keyOf(object, key) ?? key;
  for (const other of Object.keys(object)) if (other !== name && sameKey(other, key)) delete object[other];
  object[name] = value;
}

function keyOf(object: JsonObject, key: string): string | undefined {
  return Object.keys(object).findLast((name) => sameKey(name, key));
}

function sameKey(a: string, b: string): boolean {
  return a === b || a.length === b.length && a.toLowerCase() === b.toLowerCase();
}
