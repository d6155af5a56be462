/** From the arguments of the program to an exit status. */
import type { Options } from "../config/option.ts";
import { OperationError, OptionError, RouterAbsentError } from "../lib/errors.ts";
import { cniProgram } from "./cni_name.ts";
import { type Command, subcommandWord } from "./command.ts";
import { commandLater, COMMANDS, COMMANDS_LATER, REMOVED } from "./commands.ts";
import { commandHelp, overview } from "./help.ts";
import { type Line, parseLine, UsageError } from "./parse.ts";
import { whyAbsent } from "./router_client.ts";
import { suggest } from "./suggest.ts";
import { ReaderGoneError, TERMINAL, type Terminal } from "./terminal.ts";

/** Wrong usage of what Weave Net has; of our own commands it is 2. */
const WRONG_USAGE = 1;

export async function run(args: readonly string[], terminal: Terminal = TERMINAL): Promise<number> {
  const plugin = cniProgram();
  if (plugin !== undefined) return await (await import("./cni.ts")).runCni(plugin, terminal);
  const [name, ...rest] = args[0] === "--local" ? args.slice(1) : args;
  if (name === "--help" || name === "-h") return await run(["help"], terminal);
  if (name === "--version") return await run(["version"], terminal);
  const command = COMMANDS.find((c) => c.name === name);
  if (command !== undefined) {
    const subcommand = command.subcommands?.find((c) => subcommandWord(c) === rest[0]);
    if (subcommand !== undefined) return await runCommand(subcommand, rest.slice(1), terminal);
    return await runCommand(command, rest, terminal);
  }
  if (name !== undefined && Object.hasOwn(COMMANDS_LATER, name)) return commandLater(name, terminal);
  terminal.warn(name === undefined ? overview(COMMANDS) : unknownCommand(name));
  return WRONG_USAGE;
}

function unknownCommand(name: string): string {
  if (REMOVED.includes(name)) {
    return `The '${name}' command has been removed as of Weave Net version 2.0\n` +
      "Please see the release notes for further information";
  }
  const meant = suggest(name, COMMANDS.filter((c) => c.group !== undefined).map((c) => c.name));
  const hint = meant === undefined ? "" : `: did you mean '${meant}'?`;
  return `Unknown weave command '${name}'${hint}\n\n${overview(COMMANDS)}`;
}

async function runCommand(command: Command, args: readonly string[], terminal: Terminal): Promise<number> {
  let line: Line | undefined;
  try {
    line = parseLine(args, command.options as Options, command.leading);
    if (line.given.has("help")) {
      terminal.warn(commandHelp(command));
      return 0;
    }
    if (command.root === true) requireRoot(command, args);
    return await command.run(line, terminal);
  } catch (error) {
    if (error instanceof RouterAbsentError) {
      terminal.warn(await whyAbsent(line?.given ?? new Map()) ?? error.message);
      return error.exitStatus;
    }
    return report(error, command, terminal);
  }
}

/** Says what went wrong, once, and returns the exit status. */
function report(error: unknown, command: Command, terminal: Terminal): number {
  if (error instanceof ReaderGoneError) return 0;
  if (error instanceof OptionError) {
    if (error.message !== "") terminal.warn(error.message);
    if (!(error instanceof UsageError)) terminal.warn(`See 'weave ${command.name} --help'.`);
    else terminal.warn(error.message === "" ? commandHelp(command) : `\n${commandHelp(command)}`);
    return command.ours === true ? 2 : WRONG_USAGE;
  }
  const { message } = error as Error;
  if (message !== "") terminal.warn(message);
  if (!(error instanceof OperationError) && Deno.env.get("WEAVE_DEBUG")) terminal.warn(String((error as Error).stack));
  return error instanceof OperationError ? error.exitStatus : 1;
}

/** Whoever reads the hint may paste it: it holds no password. */
function requireRoot(command: Command, args: readonly string[]): void {
  if (Deno.uid() === 0) return;
  const shown = args.some((arg) => /^--?password/.test(arg)) ? ["…"] : args.map(quote);
  throw new OperationError(`needs root: sudo ${["weave", command.name, ...shown].join(" ")}`);
}

function quote(arg: string): string {
  return /^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", "'\\''")}'`;
}
