/** Help texts: one screen each, made of what commands and options say about themselves. */
import type { Option } from "../config/option.ts";
import { type Command, type Group, type Input, subcommandWord } from "./command.ts";
import { UsageError } from "./parse.ts";

const GROUPS: readonly Group[] = ["Router", "Containers", "Names", "Services", "This host", "Other"];
const WIDTH = 80;

/** `weave help`. It goes to stderr, as from Weave Net. */
export function help({ words, terminal }: Input, commands: readonly Command[]): number {
  const [name, ...more] = words;
  const found = commands.find((command) => command.name === name);
  const subcommand = found?.subcommands?.find((command) => subcommandWord(command) === more[0]);
  const tooMuch = more[subcommand === undefined ? 0 : 1];
  if (tooMuch !== undefined || (name !== undefined && found === undefined)) {
    throw new UsageError(`Unknown weave command '${tooMuch ?? name}'`);
  }
  terminal.warn(found === undefined ? overview(commands) : commandHelp(subcommand ?? found));
  return 0;
}

/** The list of all commands. */
export function overview(commands: readonly Command[]): string {
  const listed = (group: Group) =>
    commands.filter((c) => c.group === group).map((c) => `  ${c.name.padEnd(12)}${c.summary}`);
  return [
    "Usage: weave COMMAND [OPTION…] [ARGUMENT…]",
    "",
    "Joins hosts and their containers into one network.",
    ...GROUPS.flatMap((group) => ["", `${group}:`, ...listed(group)]),
    "",
    "'weave COMMAND --help' says more about one, with an example.",
  ].join("\n");
}

export function commandHelp(command: Command): string {
  const options = Object.values(command.options);
  const usual = options.filter((option) => option.kind === "usual");
  const rare = options.filter((option) => option.kind === "rare");
  const { name, usage, summary, details, examples, subcommands } = command;
  const lines = [
    ["Usage: weave", name, options.length > 0 ? "[OPTION…]" : "", usage].filter((part) => part !== "").join(" "),
    "",
    `${summary}.`,
  ];
  if (details !== undefined) lines.push(...details.split("\n"));
  if (subcommands !== undefined) {
    lines.push("", ...subcommands.map((c) => `  ${subcommandWord(c).padEnd(15)}${c.summary}`));
    lines.push("", `'weave ${name} COMMAND --help' says more about one.`);
  }
  if (usual.length > 0) lines.push("", ...table(usual));
  if (rare.length > 0) lines.push("", ...wrap(`Rarely needed: ${rare.map(({ flag }) => `--${flag}`).join(", ")}`));
  lines.push("", ...examples.map((example, i) => `${i === 0 ? "Example:" : "        "} ${example}`));
  return lines.join("\n");
}

function table(options: readonly Option<unknown>[]): string[] {
  const left = options.map((option) => `  ${[describe(option), ...shortSpellings(option)].join(", ")}`);
  const column = Math.max(...left.map((text) => text.length)) + 2;
  return options.map((option, i) => {
    const env = option.env === undefined || option.flag === "password" ? "" : ` (${option.env})`;
    return `${left[i]!.padEnd(column)}${option.help}${env}`;
  });
}

function describe({ flag, value }: Option<unknown>): string {
  return value === undefined ? `--${flag}` : `--${flag} ${value}`;
}

function shortSpellings({ aliases }: Option<unknown>): string[] {
  return aliases.filter((alias) => alias.length === 2);
}

function wrap(text: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(/(?<=,) /)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length < WIDTH) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(lines.length === 0 ? word : `  ${word}`);
  }
  return lines;
}
