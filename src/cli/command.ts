/** What a command is, to the line that starts it, to its help and to completions. */
import { type Given, type Options, readOptions, type Values, withEnvironment } from "../config/option.ts";
import type { Leading, Line } from "./parse.ts";
import type { Terminal } from "./terminal.ts";

/** What a command gets to work with. */
export interface Input<O extends Options = Options> {
  readonly values: Values<O>;
  /** Flags and environment, as text. */
  readonly given: Given;
  readonly words: readonly string[];
  /** Arguments for another program. */
  readonly rest: readonly string[];
  readonly terminal: Terminal;
}

export type Group = "Router" | "Containers" | "Names" | "Services" | "This host" | "Other";

/** A command as it is declared. */
export interface Declaration<O extends Options> {
  readonly name: string;
  /** undefined: not listed in help. */
  readonly group?: Group;
  /** One line, as `weave help` shows it. */
  readonly summary: string;
  /** What follows the options. */
  readonly usage: string;
  readonly options: O;
  /** More about it, in lines of at most 80 characters. */
  readonly details?: string;
  readonly examples: readonly string[];
  /** Weave Net has no such command: wrong usage of it exits with 2, not with 1. */
  readonly ours?: true;
  /** Refuses anybody else before it touches anything. */
  readonly root?: true;
  /** See `parseLine`. */
  readonly leading?: Leading;
  /** What its words may be, for completions. */
  readonly completes?: readonly string[] | "containers" | "services";
  /** It is but the first word of these, each of which has both words as its name. */
  readonly subcommands?: readonly Command[];
  /** Imported when it is run: a command costs nothing to the others. */
  readonly load: () => Promise<(input: Input<O>) => number | Promise<number>>;
}

/** The second word of a subcommand's name. */
export function subcommandWord({ name }: Pick<Command, "name">): string {
  return name.slice(name.indexOf(" ") + 1);
}

export interface Command extends Omit<Declaration<Options>, "load"> {
  run(line: Line, terminal: Terminal): Promise<number>;
}

export function command<O extends Options>(declaration: Declaration<O>): Command {
  const { load, ...rest } = declaration;
  return {
    ...rest,
    async run(line, terminal) {
      const given = withEnvironment(rest.options, line.given, (name) => Deno.env.get(name));
      const values = readOptions(declaration.options, given);
      const start = await load();
      return await start({ values, given, words: line.words, rest: line.rest, terminal });
    },
  };
}
