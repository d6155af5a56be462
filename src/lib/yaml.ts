/** YAML files that people write: values, and on which line each of them stands, so that what is wrong can be said with its place. */
import { isNode, LineCounter, parseDocument, stringify } from "yaml";
import { OptionError } from "./errors.ts";

export interface YamlFile {
  readonly value: unknown;
  /** The line, from 1, of what stands at a path of keys and places, or of what is nearest above it. */
  lineOf(path: readonly (string | number)[]): number;
}

/** More than any file of ours has. */
const SIZE_LIMIT = 1024 * 1024;

/** @param what names the file in messages @throws OptionError with line and column */
export function parseYaml(text: string, what: string): YamlFile {
  if (text.length > SIZE_LIMIT) {
    throw new OptionError(`${what}: it has ${text.length} characters, ${SIZE_LIMIT} may be`);
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, version: "1.2", uniqueKeys: true });
  const problem = document.errors[0] ?? document.warnings[0];
  if (problem !== undefined) {
    const { line, col } = lines.linePos(problem.pos[0]);
    throw new OptionError(`${what}: line ${line}, column ${col}: ${problem.message.split("\n")[0]}`);
  }
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
    if (isCyclic(value, [])) throw new Error("an alias stands within what it means");
  } catch (error) {
    throw new OptionError(`${what}: ${(error as Error).message}`);
  }
  return {
    value,
    lineOf(path) {
      for (let length = path.length; length > 0; length--) {
        const node = document.getIn(path.slice(0, length), true);
        if (isNode(node) && node.range) return lines.linePos(node.range[0]).line;
      }
      return 1;
    },
  };
}

function isCyclic(value: unknown, above: readonly unknown[]): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (above.includes(value)) return true;
  return Object.values(value).some((inner) => isCyclic(inner, [...above, value]));
}

/** Text that reads as this value, of JSON's kinds. */
export function formatYaml(value: unknown): string {
  return stringify(value, { lineWidth: 120 });
}
