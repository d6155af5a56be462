/** Completions for shells, made of what the commands say about themselves. */
import type { Command, Input } from "./command.ts";
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

function flagsOf(command: Command): string[] {
  return Object.values(command.options)
    .filter(({ kind }) => kind === "usual" || kind === "rare")
    .map(({ flag, value }) => value === undefined ? `--${flag}` : `--${flag}=`);
}

/** Words that a command takes, as shell code that prints them; empty where it is anything. */
function wordsOf({ name, completes }: Command, commands: readonly Command[]): string {
  if (completes === "containers") return `$(${CONTAINERS})`;
  return name === "help" ? commands.map((c) => c.name).join(" ") : (completes ?? []).join(" ");
}

function bash(commands: readonly Command[]): string {
  const cases = commands.map((c) =>
    `    ${c.name}) words="${wordsOf(c, commands)}" flags="${flagsOf(c).join(" ")}" ;;\n`
  );
  return `_weave() {
  local current="\${COMP_WORDS[COMP_CWORD]}" words="" flags=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${commands.map((c) => c.name).join(" ")}" -- "$current"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
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
  const cases = commands.map((c) =>
    `    ${c.name}) words_here=(${wordsOf(c, commands)}); flags_here=(${flagsOf(c).join(" ")}) ;;\n`
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
  case "$words[2]" in
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
    const within = `complete -c weave -n ${quoted(`__fish_seen_subcommand_from ${c.name}`)}`;
    const words = c.completes === "containers" ? `(${CONTAINERS})` : wordsOf(c, commands);
    if (words !== "") lines.push(`${within} -a ${quoted(words)}`);
    for (const { flag, value, help, kind } of Object.values(c.options)) {
      if (kind !== "usual" && kind !== "rare") continue;
      lines.push(`${within} -l ${flag}${value === undefined ? "" : " -r"} -d ${quoted(help)}`);
    }
  }
  return lines.join("\n") + "\n";
}

/** Means the same to all three shells. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
