/**
 * The rules of iptables as data: what `iptables-save` printed, what we want, and the difference as input for
 * `iptables-restore --noflush`, which applies each table as a whole or not at all. Pure; `firewall.ts` runs the programs.
 */

/** A rule without its chain, in the words and order of `iptables-save`: `-i weave -o weave -j ACCEPT`. */
export type Rule = string;

export type TableName = "filter" | "nat" | "mangle" | "raw" | "security";

/** Chain → its rules, in order. */
export type Chains = ReadonlyMap<string, readonly Rule[]>;

/** All tables that were printed. */
export type Ruleset = ReadonlyMap<string, Chains>;

/** What one table shall hold; rules and chains not named here are somebody else's and stay as they are. */
export interface Wanted {
  /** Chains that are wholly ours: exactly these rules. */
  readonly chains: ReadonlyMap<string, readonly Rule[]>;
  /** Chains of ours that shall not be there. */
  readonly noChains: readonly string[];
  /** Rules to stand in this order at the top of a chain of the system, put there together when one is missing or stands wrong. */
  readonly top: ReadonlyMap<string, readonly Rule[]>;
  /** Rules to stand anywhere in a chain of the system, appended where missing. */
  readonly anywhere: ReadonlyMap<string, readonly Rule[]>;
  /** Rules to take out of a chain of the system, wherever and however often they stand. */
  readonly gone: ReadonlyMap<string, readonly Rule[]>;
  /** Says of a rule in a `top` chain whether it would make ours pointless by standing above them. */
  readonly shadows?: (rule: Rule, chains: Chains) => boolean;
}

export type WantedTables = ReadonlyMap<TableName, Wanted>;

/** Reads the output of `iptables-save`; lines of no known form are passed over. */
export function parseSave(text: string): Ruleset {
  const tables = new Map<string, Map<string, Rule[]>>();
  let chains: Map<string, Rule[]> | undefined;
  for (const line of text.split("\n")) {
    if (line.startsWith("*")) {
      chains = new Map();
      tables.set(line.slice(1).trim(), chains);
    } else if (line === "COMMIT") {
      chains = undefined;
    } else if (line.startsWith(":")) {
      chains?.set(line.slice(1).split(" ", 1)[0]!, []);
    } else if (line.startsWith("-A ")) {
      const end = line.indexOf(" ", 3);
      const chain = end < 0 ? line.slice(3) : line.slice(3, end);
      chains?.get(chain)?.push(end < 0 ? "" : line.slice(end + 1));
    }
  }
  return tables;
}

/**
 * Two spellings of one rule give one text: options in a fixed order, `-m` left out (the options say which match), lists sorted.
 * Versions of iptables differ in these things.
 */
export function canonical(rule: Rule): string {
  const options: string[] = [];
  let current: string[] = [];
  let negated = false;
  const close = () => {
    if (current.length > 0 && current[0] !== "-m" && current[0] !== "! -m") options.push(current.join(" "));
    current = [];
  };
  for (const token of tokens(rule)) {
    if (token === "!") {
      close();
      negated = true;
    } else if (/^--?[a-zA-Z]/.test(token)) {
      close();
      current = [(negated ? "! " : "") + token];
      negated = false;
    } else {
      current.push(token.includes(",") ? token.split(",").sort().join(",") : token);
    }
  }
  close();
  return options.sort().join(" ");
}

/** Splits at spaces, minding double quotes and backslashes as `iptables-save` writes them. */
export function tokens(rule: Rule): string[] {
  const found = rule.match(/"(?:\\.|[^"\\])*"|\S+/g) ?? [];
  return found.map((t) => t.startsWith('"') ? t.slice(1, -1).replace(/\\(.)/g, "$1") : t);
}

/** Input for `iptables-restore --noflush` that turns `actual` into `wanted`; empty where nothing is to be done. */
export function planRestore(actual: Ruleset, wanted: WantedTables): string {
  let script = "";
  for (const [name, table] of wanted) {
    const lines = planTable(actual.get(name) ?? new Map(), table);
    if (lines.length > 0) script += `*${name}\n${lines.join("\n")}\nCOMMIT\n`;
  }
  return script;
}

function planTable(actual: Chains, wanted: Wanted): string[] {
  const made: string[] = [];
  const filled: string[] = [];
  const removed: string[] = [];
  const added: string[] = [];
  const dropped: string[] = [];

  for (const [chain, rules] of wanted.chains) {
    const there = actual.get(chain);
    if (there !== undefined && sameRules(there, rules)) continue;
    made.push(`:${chain} - [0:0]`); // makes it, or empties it
    for (const rule of rules) filled.push(`-A ${chain} ${rule}`);
  }
  for (const [chain, rules] of wanted.gone) {
    const unwanted = new Set(rules.map(canonical));
    for (const rule of actual.get(chain) ?? []) {
      if (unwanted.has(canonical(rule))) removed.push(`-D ${chain} ${rule}`);
    }
  }
  for (const [chain, rules] of wanted.top) {
    const there = actual.get(chain) ?? [];
    if (standsWell(there, rules, (rule) => wanted.shadows?.(rule, actual) ?? false)) continue;
    const ours = new Set(rules.map(canonical));
    for (const rule of there) if (ours.has(canonical(rule))) removed.push(`-D ${chain} ${rule}`);
    rules.forEach((rule, i) => added.push(`-I ${chain} ${i + 1} ${rule}`));
  }
  for (const [chain, rules] of wanted.anywhere) {
    const there = new Set((actual.get(chain) ?? []).map(canonical));
    for (const rule of rules) if (!there.has(canonical(rule))) added.push(`-A ${chain} ${rule}`);
  }
  for (const chain of wanted.noChains) {
    if (!actual.has(chain)) continue;
    made.push(`:${chain} - [0:0]`);
    dropped.push(`-X ${chain}`);
  }
  return [...made, ...filled, ...removed, ...added, ...dropped];
}

/** All of `rules` are there, in order, with nothing that shadows them above the last. */
function standsWell(there: readonly Rule[], rules: readonly Rule[], shadows: (rule: Rule) => boolean): boolean {
  let next = 0;
  for (const rule of there) {
    if (next === rules.length) return true;
    if (canonical(rule) === canonical(rules[next]!)) next++;
    else if (shadows(rule)) return false;
  }
  return next === rules.length;
}

function sameRules(a: readonly Rule[], b: readonly Rule[]): boolean {
  return a.length === b.length && a.every((rule, i) => canonical(rule) === canonical(b[i]!));
}

/** What `rule` jumps to; undefined for one that only counts. */
export function targetOf(rule: Rule): string | undefined {
  const list = tokens(rule);
  const at = list.findIndex((t) => t === "-j" || t === "-g");
  return at < 0 ? undefined : list[at + 1];
}

/** The value of an option such as `-i`, and whether it is negated. */
export function optionOf(
  rule: Rule,
  option: string,
): { readonly value: string; readonly negated: boolean } | undefined {
  const list = tokens(rule);
  const at = list.indexOf(option);
  const value = list[at + 1];
  return at < 0 || value === undefined ? undefined : { value, negated: list[at - 1] === "!" };
}
