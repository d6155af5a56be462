/**
 * Programs of the machine: found once, run with an argument list (never through a shell), their end awaited. Where this program runs in
 * a container that has the host's `/` somewhere below its own, they are the host's programs, run there.
 */
import { dirname, join, resolve } from "node:path";

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where system programs are even if the caller's PATH forgets it, as that of a plain user's `sudo` may. */
const SYSTEM_DIRECTORIES = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/** Where the host's `/` is mounted, in a container; undefined: this is the host. */
export function hostRoot(): string | undefined {
  return Deno.env.get("HOST_ROOT") || undefined;
}

/** A file of the host, by which path this process can read it. */
export function hostFile(path: string): string {
  const root = hostRoot();
  return root === undefined ? path : resolveBelow(root, path);
}

/** What runs a program in another root; in a container it is of our own image. */
const CHROOT = "/bin/chroot";

/** Path of an installed program, as the host has it; undefined where there is none. */
export function findProgram(name: string): string | undefined {
  const root = hostRoot();
  const directories = (Deno.env.get("PATH") ?? "").split(":").filter((d) => d.startsWith("/"));
  for (const directory of new Set([...directories, ...SYSTEM_DIRECTORIES])) {
    const path = `${directory}/${name}`;
    try {
      const info = Deno.statSync(root === undefined ? path : resolveBelow(root, path));
      if (info.isFile && ((info.mode ?? 0) & 0o111) !== 0) return path;
    } catch {
      // Not here.
    }
  }
  return undefined;
}

/** More links on the way to a file are a circle. */
const MAX_LINKS = 40;

/** Where `path` leads to when `root` is the root: what absolute links mean there they do not mean here. */
export function resolveBelow(root: string, path: string): string {
  let rest = path.split("/").filter(Boolean);
  let at = "/";
  for (let links = 0; rest.length > 0;) {
    const [name, ...more] = rest as [string, ...string[]];
    const next = resolve(at, name);
    rest = more;
    const { isSymlink } = Deno.lstatSync(join(root, next));
    if (!isSymlink) at = next;
    else if (++links > MAX_LINKS) throw new Error(`Cannot follow "${path}": its links go in a circle`);
    else {
      const target = Deno.readLinkSync(join(root, next));
      rest = [...resolve(dirname(next), target).split("/").filter(Boolean), ...rest];
      at = "/";
    }
  }
  return join(root, at);
}

/** Messages of the program in English, whatever the user speaks: some are read here. */
const ENVIRONMENT = { LC_ALL: "C" };

export interface RunOptions {
  /** For its standard input. */
  readonly input?: string | ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Variables besides our own. */
  readonly env?: Readonly<Record<string, string>>;
  /** Starts the program inside: `(start) => withNetns(path, start)`. A child keeps the namespace of the thread that made it. */
  readonly within?: <T>(start: () => T) => T;
}

/** Runs a program to its end; what it exits with is for the caller to judge. */
export async function run(path: string, args: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
  const root = hostRoot();
  const [program, ...all] = root === undefined ? [path, ...args] : [CHROOT, root, path, ...args];
  const command = new Deno.Command(program!, {
    args: all,
    env: { ...options.env, ...ENVIRONMENT },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
  const within = options.within ?? ((start) => start());
  const child = within(() => command.spawn());
  // A program that ends without reading breaks the pipe; its status says more than that.
  const fed = feed(child.stdin, options.input ?? "").catch(() => {});
  const [output] = await Promise.all([child.output(), fed]);
  const decoder = new TextDecoder();
  return { code: output.code, stdout: decoder.decode(output.stdout), stderr: decoder.decode(output.stderr) };
}

async function feed(stdin: WritableStream<Uint8Array<ArrayBuffer>>, input: NonNullable<RunOptions["input"]>) {
  if (typeof input !== "string") return await input.pipeTo(stdin);
  const writer = stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
}
