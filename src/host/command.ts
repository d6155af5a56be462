/** Programs of the machine: found once, run with an argument list (never through a shell), their end awaited. */

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where system programs are even if the caller's PATH forgets it, as that of a plain user's `sudo` may. */
const SYSTEM_DIRECTORIES = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/** Path of an installed program; undefined where there is none. */
export function findProgram(name: string): string | undefined {
  const directories = (Deno.env.get("PATH") ?? "").split(":").filter((d) => d.startsWith("/"));
  for (const directory of new Set([...directories, ...SYSTEM_DIRECTORIES])) {
    const path = `${directory}/${name}`;
    try {
      const info = Deno.statSync(path);
      if (info.isFile && ((info.mode ?? 0) & 0o111) !== 0) return path;
    } catch {
      // Not here.
    }
  }
  return undefined;
}

/** Messages of the program in English, whatever the user speaks: some are read here. */
const ENVIRONMENT = { LC_ALL: "C" };

export interface RunOptions {
  /** For its standard input. */
  readonly input?: string;
  /** Starts the program inside: `(start) => withNetns(path, start)`. A child keeps the namespace of the thread that made it. */
  readonly within?: <T>(start: () => T) => T;
}

/** Runs a program to its end; what it exits with is for the caller to judge. */
export async function run(path: string, args: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
  const command = new Deno.Command(path, {
    args: [...args],
    env: ENVIRONMENT,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
  const within = options.within ?? ((start) => start());
  const child = within(() => command.spawn());
  const writer = child.stdin.getWriter();
  // A program that ends without reading breaks the pipe; its status says more than that.
  const fed = writer.write(new TextEncoder().encode(options.input ?? "")).then(() => writer.close()).catch(() => {});
  const [output] = await Promise.all([child.output(), fed]);
  const decoder = new TextDecoder();
  return { code: output.code, stdout: decoder.decode(output.stdout), stderr: decoder.decode(output.stderr) };
}
