/** JSON as text, with integers of 64 bits as numbers: `JSON.stringify` refuses bigint, and a double would round it. */

export type Json = null | boolean | number | bigint | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json | undefined;
}

/**
 * Writes a value; keys whose value is undefined are left out.
 * @param indent spaces a level, 0 for one compact line
 */
export function writeJson(value: unknown, indent = 0): string {
  const parts: string[] = [];
  writeValue(value, indent, indent === 0 ? "" : "\n", parts);
  return parts.join("");
}

/** @param lineStart line end and indentation of the value's own level; empty where all goes on one line */
function writeValue(value: unknown, indent: number, lineStart: string, parts: string[]): void {
  if (typeof value === "bigint") {
    parts.push(String(value));
  } else if (Array.isArray(value)) {
    writeList("[", "]", value.map((item) => ["", item] as const), { indent, lineStart, parts });
  } else if (typeof value === "object" && value !== null) {
    const colon = indent === 0 ? ":" : ": ";
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    const keyed = entries.map(([key, item]) => [JSON.stringify(key) + colon, item] as const);
    writeList("{", "}", keyed, { indent, lineStart, parts });
  } else {
    parts.push(JSON.stringify(value) ?? "null");
  }
}

function writeList(
  open: string,
  close: string,
  items: readonly (readonly [label: string, value: unknown])[],
  { indent, lineStart, parts }: { indent: number; lineStart: string; parts: string[] },
): void {
  if (items.length === 0) return void parts.push(open, close);
  const inner = indent === 0 ? "" : lineStart + " ".repeat(indent);
  parts.push(open);
  items.forEach(([label, item], i) => {
    parts.push(i === 0 ? "" : ",", inner, label);
    writeValue(item, indent, inner, parts);
  });
  parts.push(lineStart, close);
}
