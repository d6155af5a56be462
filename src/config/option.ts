/**
 * What an option is: how it is written, where else it may come from, how its text becomes a value. An option is declared once, in
 * options.ts; parsing, help, completions and the line a router is started again with all come from there.
 */
import { OptionError } from "../lib/errors.ts";
import { type Cidr, type Endpoint, type Ipv4, networkOf, parseCidr, parseEndpoint, parseIpv4 } from "../lib/ip.ts";
import { type ListenAddress, parseListenAddress } from "../lib/listen_address.ts";
import { parsePeerName, type PeerName } from "../lib/mac.ts";

export interface Option<T> {
  /** Without dashes: `--flag`. */
  readonly flag: string;
  /** Other spellings, with their dashes. */
  readonly aliases: readonly string[];
  /** Environment variable that says it where no flag does. */
  readonly env: string | undefined;
  /** What stands for its value in help; undefined for a switch. */
  readonly value: string | undefined;
  /** May be given more than once; otherwise the last one counts. */
  readonly repeats: boolean;
  readonly help: string;
  /** `later`: accepted for a part of Weave Net that this version does not have. */
  readonly kind: "usual" | "rare" | "hidden" | "later";
  readonly default: T;
  /** From texts as given, at least one. Throws `OptionError`. */
  read(texts: readonly string[]): T;
}

/** What was given: texts by flag, in order; a switch has "true" or "false". */
export type Given = ReadonlyMap<string, readonly string[]>;

export type Options = Readonly<Record<string, Option<unknown>>>;

/** The values of a table of options, by their names in it. */
export type Values<O extends Options> = { readonly [K in keyof O]: O[K] extends Option<infer T> ? T : never };

/** The value of each option of `table`: as given, else its default. Throws `OptionError` naming the first that is wrong. */
export function readOptions<O extends Options>(table: O, given: Given): Values<O> {
  const values: Record<string, unknown> = {};
  for (const [name, option] of Object.entries(table)) values[name] = readOption(option, given);
  return values as Values<O>;
}

export function readOption<T>(option: Option<T>, given: Given): T {
  const texts = given.get(option.flag);
  return texts === undefined ? option.default : option.read(texts);
}

/** What was given by flag, completed by the environment: after this nobody looks there again. */
export function withEnvironment(table: Options, given: Given, env: (name: string) => string | undefined): Given {
  const completed = new Map(given);
  for (const { flag, env: variable, value } of Object.values(table)) {
    const text = variable === undefined ? undefined : env(variable);
    if (text === undefined || completed.has(flag)) continue;
    // A switch is on whatever the variable says; an empty variable is as good as none, but where it has a meaning of its own.
    if (text === "" && flag !== "status-addr") continue;
    completed.set(flag, [value === undefined ? "true" : text]);
  }
  return completed;
}

/** The command line that says the same. */
export function toArguments(given: Given): string[] {
  return [...given].flatMap(([flag, texts]) => texts.map((text) => `--${flag}=${text}`));
}

/** What a kind of option needs to be told; the rest has its everyday value. */
interface Declaration {
  readonly flag: string;
  readonly help: string;
  readonly aliases?: readonly string[];
  readonly env?: string;
  readonly kind?: Option<unknown>["kind"];
}

function declare<T>(
  d: Declaration,
  rest: Pick<Option<T>, "value" | "default" | "read"> & { repeats?: boolean },
): Option<T> {
  const { flag, help, aliases = [], env, kind = "usual" } = d;
  return { flag, help, aliases, env, kind, repeats: false, ...rest };
}

/** An option whose last text is read by `parse`, which says undefined where it cannot be understood. */
function single<T, D>(
  d: Declaration,
  o: { value: string; default: D; expected: string; parse(text: string): T | undefined },
): Option<T | D> {
  return declare<T | D>(d, {
    value: o.value,
    default: o.default,
    read(texts) {
      const text = texts.at(-1)!;
      const value = o.parse(text);
      if (value === undefined) throw unusable(d.flag, text, `${o.expected} expected`);
      return value;
    },
  });
}

export function unusable(flag: string, text: string, why: string): OptionError {
  return new OptionError(`Cannot use "${text}" as ${flag}: ${why}`, flag);
}

/** A switch; off unless its default says otherwise. */
export function toggle(d: Declaration & { readonly default?: boolean }): Option<boolean> {
  return declare<boolean>(d, {
    value: undefined,
    default: d.default ?? false,
    read(texts) {
      const text = texts.at(-1)!;
      const value = parseBoolean(text);
      if (value === undefined) throw unusable(d.flag, text, "true or false expected");
      return value;
    },
  });
}

/** As Go reads a boolean, which scripts written for Weave Net may rely on. */
export function parseBoolean(text: string): boolean | undefined {
  if (/^(1|t|true)$/i.test(text)) return true;
  return /^(0|f|false)$/i.test(text) ? false : undefined;
}

export function text<D extends string | undefined>(d: Declaration & { value: string; default: D }): Option<string | D> {
  return single<string, D>(d, { value: d.value, default: d.default, expected: "text", parse: (given) => given });
}

export function texts(d: Declaration & { value: string }): Option<readonly string[]> {
  return declare<readonly string[]>(d, { value: d.value, default: [], repeats: true, read: (given) => given });
}

export function oneOf<T extends string>(
  d: Declaration & { value: string; default: T; choices: readonly T[]; also?: Readonly<Record<string, T>> },
): Option<T> {
  const { choices, also = {} } = d;
  return single<T, T>(d, {
    value: d.value,
    default: d.default,
    expected: choices.join(", ").replace(/, ([^,]*)$/, " or $1"),
    parse: (given) =>
      choices.find((choice) => choice === given) ?? (Object.hasOwn(also, given) ? also[given] : undefined),
  });
}

export function wholeNumber<D extends number | undefined>(
  d: Declaration & { value: string; default: D; from: number; to: number },
): Option<number | D> {
  return single<number, D>(d, {
    value: d.value,
    default: d.default,
    expected: `a number from ${d.from} to ${d.to}`,
    parse(given) {
      const number = /^\d{1,10}$/.test(given) ? Number(given) : NaN;
      return number >= d.from && number <= d.to ? number : undefined;
    },
  });
}

export function address(d: Declaration): Option<Ipv4 | undefined> {
  return single(d, { value: "IP", default: undefined, expected: "an IPv4 address", parse: parseIpv4 });
}

/** Comma-separated; host bits are cleared. */
export function subnets(d: Declaration): Option<readonly Cidr[]> {
  return declare<readonly Cidr[]>(d, {
    value: "CIDR,…",
    default: [],
    read: (given) =>
      given.at(-1)!.split(",").map((part) => part.trim()).filter((part) => part !== "").map((part) => {
        const cidr = parseCidr(part);
        if (cidr === undefined) throw unusable(d.flag, part, "a.b.c.d/length expected");
        return { address: networkOf(cidr), prefixLength: cidr.prefixLength };
      }),
  });
}

/** An empty text switches the listener off: undefined. */
export function listenAddress(
  d: Declaration & { default: ListenAddress | undefined },
): Option<ListenAddress | undefined> {
  return declare<ListenAddress | undefined>(d, {
    value: "IP:PORT",
    default: d.default,
    read(given) {
      const text = given.at(-1)!;
      const parsed = parseListenAddress(text);
      if (parsed === undefined && text !== "") {
        throw unusable(d.flag, text, "address:port, or the absolute path of a socket, expected");
      }
      return parsed;
    },
  });
}

/** `a.b.c.d:port`, `a.b.c.d` or `:port`. */
export function endpoint(d: Declaration & { defaultPort: number }): Option<Endpoint | undefined> {
  return single(d, {
    value: "IP:PORT",
    default: undefined,
    expected: "an IPv4 address and a port",
    parse(given) {
      const host = given.startsWith(":") ? `0.0.0.0${given}` : given;
      const parsed = parseEndpoint(host.includes(":") ? host : `${host}:${d.defaultPort}`);
      return parsed?.port === 0 ? undefined : parsed;
    },
  });
}

/** As Go writes durations, `5s`, `1m30s` or `500ms`, or a number of seconds; in milliseconds. */
export function duration<D extends number | undefined>(
  d: Declaration & { default: D; from?: number; to: number; example?: string },
): Option<number | D> {
  const { from = 0, to, example = "5s" } = d;
  return single<number, D>(d, {
    value: "TIME",
    default: d.default,
    expected: `a time such as ${example}`,
    parse(given) {
      const ms = parseDuration(given);
      return ms === undefined || ms < from || ms > to ? undefined : ms;
    },
  });
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

function parseDuration(text: string): number | undefined {
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  if (!/^(\d{1,9}(\.\d{1,9})?(ms|s|m|h))+$/.test(text)) return undefined;
  const parts = text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g);
  return Math.round([...parts].reduce((sum, [, count, unit]) => sum + Number(count) * UNIT_MS[unit!]!, 0));
}

/** A zone of DNS; its final dot may be left out, and is there afterwards. */
export function domain(d: Declaration & { default: string }): Option<string> {
  return single<string, string>(d, {
    value: "NAME",
    default: d.default,
    expected: "a domain such as weave.local",
    parse(given) {
      const name = given.replace(/\.$/, "");
      const labels = name.split(".").every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/i.test(label));
      return labels && name.length <= 200 ? `${name}.` : undefined;
    },
  });
}

export function peerName(d: Declaration): Option<PeerName | undefined> {
  return single(d, {
    value: "NAME",
    default: undefined,
    expected: "six octets such as 6e:23:66:a4:8c:09",
    parse: parsePeerName,
  });
}

/** A flag of a part that comes later: whatever is given with it is accepted. */
export function later(flag: string, value?: string, aliases: readonly string[] = []): Option<undefined> {
  return declare<undefined>(
    { flag, aliases, help: "not in this version yet", kind: "later" },
    { value, default: undefined, read: () => undefined },
  );
}
