/**
 * The grammar of a command line, Weave Net's and a little more: flags stand anywhere, `--flag value` or `--flag=value`, a switch
 * alone or with `=true` or `=false`; `--` ends them. The parser of @stricli/core would not do: `-h` means a name to `expose`, some
 * long flags have one dash, help goes to stderr, and what follows the addresses of `run` is Docker's.
 */
import type { Given, Option, Options } from "../config/option.ts";
import { OptionError } from "../lib/errors.ts";
import { suggest } from "./suggest.ts";

/** Wrong usage: what is wrong, if that needs to be said, goes before the command's help. */
export class UsageError extends OptionError {}

export interface Line {
  /** Last wins or all count, as the option says. */
  readonly given: Given;
  /** What is no flag, in order. */
  readonly words: readonly string[];
  /** With `leading`: all from the first argument on that is neither. */
  readonly rest: readonly string[];
}

/** Words that come before arguments for somebody else. */
export type Leading = (word: string) => boolean;

/** Throws `OptionError` for a flag that there is not, `UsageError` for one without its value. */
export function parseLine(args: readonly string[], options: Options, leading?: Leading): Line {
  const spellings = spellingsOf(options);
  const given = new Map<string, string[]>();
  const words: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--") {
      const after = args.slice(i + 1);
      return leading === undefined ? { given, words: [...words, ...after], rest: [] } : { given, words, rest: after };
    }
    const flag = readFlag(arg, spellings);
    if (flag === undefined) {
      if (leading !== undefined && !leading(arg)) return { given, words, rest: args.slice(i) };
      if (isFlag(arg)) throw unknownFlag(arg, spellings);
      words.push(arg);
      continue;
    }
    const { option, value } = flag;
    const text = value ?? (option.value === undefined ? "true" : args[++i]);
    if (text === undefined) throw new UsageError(`Missing value for ${arg}: ${option.value} expected`, option.flag);
    given.set(option.flag, [...given.get(option.flag) ?? [], text]);
  }
  return { given, words, rest: [] };
}

type Spellings = ReadonlyMap<string, Option<unknown>>;

function spellingsOf(options: Options): Spellings {
  const all = Object.values(options);
  return new Map([
    ...all.flatMap((option) => option.aliases.map((alias) => [alias, option] as const)),
    ...all.map((option) => [`--${option.flag}`, option] as const),
  ]);
}

function readFlag(arg: string, spellings: Spellings): { option: Option<unknown>; value?: string } | undefined {
  const whole = spellings.get(arg);
  if (whole !== undefined) return { option: whole };
  const equals = arg.indexOf("=");
  const option = equals < 0 ? undefined : spellings.get(arg.slice(0, equals));
  return option === undefined ? undefined : { option, value: arg.slice(equals + 1) };
}

/** A single dash is a name by custom. */
function isFlag(arg: string): boolean {
  return arg.startsWith("-") && arg !== "-";
}

function unknownFlag(arg: string, spellings: Spellings): OptionError {
  const flag = arg.split("=", 1)[0]!;
  // A dash too few is the commonest mistake.
  const meant = suggest(
    flag.startsWith("--") ? flag : `-${flag}`,
    [...spellings.keys()].filter((s) => s.startsWith("--")),
  );
  return new OptionError(`Unknown flag ${flag}${meant === undefined ? "" : `: did you mean ${meant}?`}`);
}
