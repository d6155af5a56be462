/** How the name of a container becomes its hostname: `--hostname-from-label`, `--hostname-match`, `--hostname-replacement`. */

export interface HostnameRuleOptions {
  /** Key of a label that holds the name; undefined: the container's own. */
  readonly label: string | undefined;
  /** A regular expression as Go writes it. */
  readonly match: string;
  /** `$1`, `${1}`, `$name` and `${name}` stand for groups. */
  readonly replacement: string;
}

/** Longer names are no hostnames, and would only make an expression slow. */
const MAX_NAME = 255;

export class HostnameRule {
  readonly label: string | undefined;
  readonly #match: RegExp;
  readonly #replacement: string;

  /** @throws SyntaxError where `match` is no regular expression */
  constructor({ label, match, replacement }: HostnameRuleOptions) {
    this.label = label;
    this.#match = compile(match);
    this.#replacement = replacement;
  }

  /** The hostname of a container called `name`; empty where it has none. */
  apply(name: string): string {
    if (name.length > MAX_NAME) return name;
    let result = "";
    let end = 0;
    let matchedTo = -1;
    for (const found of name.matchAll(this.#match)) {
      // Go takes no empty match right behind another match.
      if (found[0] === "" && found.index === matchedTo) continue;
      result += name.slice(end, found.index) + expand(this.#replacement, found);
      end = matchedTo = found.index + found[0].length;
    }
    return result + name.slice(end);
  }
}

/** What differs between Go's expressions and ours, as far as people use it: `(?P<name>…)`, `(?i)` at the start, `\z`, `\A`. */
function compile(match: string): RegExp {
  const [, flags = "", rest] = /^(?:\(\?([ims]+)\))?(.*)$/s.exec(match)!;
  const pattern = rest!.replace(/\\.|\(\?P</gs, (part) => {
    if (part === "(?P<") return "(?<";
    return part === "\\A" ? "^" : part === "\\z" ? "$" : part;
  });
  return new RegExp(pattern, `gu${flags}`);
}

/** As Go's `Regexp.Expand`: a group that is not there is empty, `$$` is a dollar. */
function expand(template: string, found: RegExpExecArray): string {
  return template.replace(/\$(?:\$|\{(\w+)\}|(\w+))/g, (part, braced?: string, bare?: string) => {
    if (part === "$$") return "$";
    const name = braced ?? bare!;
    return (/^\d+$/.test(name) ? found[Number(name)] : found.groups?.[name]) ?? "";
  });
}
