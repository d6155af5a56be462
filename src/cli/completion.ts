/** Completions for shells, made of what the commands say about themselves. */
import { type Command, type Input, subcommandWord } from "./command.ts";
import { SHELLS } from "./commands.ts";
import { UsageError } from "./parse.ts";

export function completion({ words, terminal }: Input, commands: readonly Command[]): number {
  const [shell, more] = words;
  const write = SCRIPTS[shell as keyof typeof SCRIPTS];
  if (write === undefined || more !== undefined) throw new UsageError(`One of ${SHELLS.join(", ")} expected`);
  terminal.print(write(commands.filter((command) => command.group !== undefined)));
  return 0;
}

const SCRIPTS: Readonly<Record<typeof SHELLS[number], (commands: readonly Command[]) => string>> = { bash, zsh, fish };

const CONTAINERS = "docker ps --format '{{.Names}}' 2>/dev/null";
const SERVICES = "weave service ls 2>/dev/null | cut -d' ' -f1";

function flagsOf(command: Command): string[] {
  return Object.values(command.options)
    .filter(({ kind }) => kind === "usual" || kind === "rare")
    .map(({ flag, value }) => value === undefined ? `--${flag}` : `--${flag}=`);
}

/** Words that a command takes, as shell code that prints them; empty where it is anything. */
function wordsOf({ name, completes, subcommands }: Command, commands: readonly Command[]): string {
  if (completes === "containers") return `$(${CONTAINERS})`;
  if (completes === "services") return `$(${SERVICES})`;
  if (subcommands !== undefined) return subcommands.map(subcommandWord).join(" ");
  return name === "help" ? commands.map((c) => c.name).join(" ") : (completes ?? []).join(" ");
}

/** Subcommands come first, so that what has both words of one is not taken for the first alone. */
function withSubcommands(commands: readonly Command[]): readonly Command[] {
  return [...commands.flatMap((c) => c.subcommands ?? []), ...commands];
}

/** What a `case` of a shell compares with the first two words, while the second one is no longer being typed. */
function patternOf({ name }: Command): string {
  return name.includes(" ") ? `"${name}"` : `${name}" "*`;
}

function bash(commands: readonly Command[]): string {
  const cases = withSubcommands(commands).map((c) =>
    `    ${patternOf(c)}) words="${wordsOf(c, commands)}" flags="${flagsOf(c).join(" ")}" ;;\n`
  );
  return `_weave() {
  local current="\${COMP_WORDS[COMP_CWORD]}" words="" flags=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${commands.map((c) => c.name).join(" ")}" -- "$current"))
    return
  fi
  local second=""
  [ "$COMP_CWORD" -eq 2 ] || second="\${COMP_WORDS[2]}"
  case "\${COMP_WORDS[1]} $second" in
${cases.join("")}  esac
  case "$current" in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$current")) ;;
    *) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
  esac
  case "\${COMPREPLY[0]}" in
    *=) compopt -o nospace ;;
  esac
}
complete -F _weave weave
`;
}

function zsh(commands: readonly Command[]): string {
  const cases = withSubcommands(commands).map((c) =>
    `    ${patternOf(c)}) words_here=(${wordsOf(c, commands)}); flags_here=(${flagsOf(c).join(" ")}) ;;\n`
  );
  // Once sourced, once found by its name in the path of functions: both ways it is the function that completes.
  return `#compdef weave
compdef _weave weave
_weave() {
  local -a words_here flags_here commands_here
  if (( CURRENT == 2 )); then
    commands_here=(
${commands.map((c) => `      ${quoted(`${c.name}:${c.summary}`)}\n`).join("")}    )
    _describe command commands_here
    return
  fi
  local second=""
  (( CURRENT == 3 )) || second="$words[3]"
  case "$words[2] $second" in
${cases.join("")}  esac
  if [[ "$words[CURRENT]" == -* ]]; then
    compadd -S '' -- \${(M)flags_here:#*=}
    compadd -- \${flags_here:#*=}
  else
    compadd -- $words_here
    _files
  fi
}
[ "$funcstack[1]" != _weave ] || _weave
`;
}

function fish(commands: readonly Command[]): string {
  const lines = ["complete -c weave -f"];
  for (const c of commands) {
    lines.push(`complete -c weave -n __fish_use_subcommand -a ${c.name} -d ${quoted(c.summary)}`);
    lines.push(...fishWithin(c, `__fish_seen_subcommand_from ${c.name}`, commands));
    for (const sub of c.subcommands ?? []) {
      const seen = `__fish_seen_subcommand_from ${c.name}; and __fish_seen_subcommand_from ${subcommandWord(sub)}`;
      lines.push(...fishWithin(sub, seen, commands));
    }
  }
  return lines.join("\n") + "\n";
}

/** What completes a command once the words of the condition are there. */
function fishWithin(command: Command, condition: string, commands: readonly Command[]): string[] {
  const within = `complete -c weave -n ${quoted(condition)}`;
  const { completes } = command;
  const words = completes === "containers"
    ? `(${CONTAINERS})`
    : completes === "services"
    ? `(${SERVICES})`
    : wordsOf(command, commands);
  return [
    ...words === "" ? [] : [`${within} -a ${quoted(words)}`],
    ...Object.values(command.options).filter(({ kind }) => kind === "usual" || kind === "rare").map((
      { flag, value, help },
    ) => `${within} -l ${flag}${value === undefined ? "" : " -r"} -d ${quoted(help)}`),
  ];
}

/** Means the same to all three shells. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
