/** What all that people ask for has in common: how it is refused, and its smallest parts. */
import { OptionError } from "../lib/errors.ts";

/** What is wrong with what the user asked for. */
export class SpecError extends OptionError {
  /** @param field of `ImportInput`, `ExportInput` or `NetworkSpec` */
  constructor(readonly field: string, message: string) {
    super(oneLine(message));
  }
}

/** Whatever the user's words have in them. */
export function oneLine(message: string): string {
  return message.replace(/[\p{Cc}\u2028\u2029]/gu, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

/** @throws SpecError */
export function parseWhole(field: string, text: string, least: number, most: number, what = field): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most)) {
    throw new SpecError(field, `Cannot use "${text}" as ${what}: a number from ${least} to ${most} is expected`);
  }
  return value;
}

/** In front of the first separator, and behind it; undefined where there is none. */
export function splitAt(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}
