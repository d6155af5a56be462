/** Running programs: one call that waits, one that does not; both say what went wrong in full. */

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** How long it may take; it is killed then, and the call fails. */
  readonly timeoutMs?: number;
}

const DEFAULT_TIMEOUT_MS = 30_000;

class CommandError extends Error {
  override readonly name = "CommandError";

  constructor(command: readonly string[], readonly result: CommandResult, note = "") {
    super(
      `Cannot run "${command.join(" ")}": exit status ${result.code}${note}\n` +
        [result.stdout, result.stderr].map((text) => text.trim()).filter(Boolean).join("\n"),
    );
  }
}

/** Runs a command to its end; exit status other than 0 is a CommandError. */
export async function run(command: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const result = await attempt(command, options);
  if (result.code !== 0) throw new CommandError(command, result);
  return result;
}

/** Runs a command to its end, whatever its exit status is. */
export async function attempt(command: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  using child = start(command, options);
  return await child.finished(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
}

/** Starts a command and goes on; disposing of it kills it. */
export function start(command: readonly string[], options: CommandOptions = {}): RunningCommand {
  return new RunningCommand(command, options);
}

/** Of programs that run: a test that ends before they do would have left them behind. */
const running = new Set<Promise<unknown>>();

/** Resolves when all that was started has ended, which what was killed does in a moment; not for ever. */
export async function allEnded(patienceMs = 5_000): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, patienceMs);
  await Promise.race([Promise.allSettled(running), late.promise]);
  clearTimeout(timer);
}

/** A started program whose output is collected. */
export class RunningCommand implements Disposable, AsyncDisposable {
  readonly command: readonly string[];
  readonly #child: Deno.ChildProcess;
  readonly #result: Promise<CommandResult>;
  #stdout = "";
  #stderr = "";
  #ended = false;

  constructor(command: readonly string[], options: CommandOptions) {
    this.command = command;
    this.#child = new Deno.Command(command[0]!, {
      args: command.slice(1),
      stdin: options.input === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
      clearEnv: true,
      env: { ...baseEnvironment(), ...options.env },
    }).spawn();
    this.#result = this.#collect(options.input);
    running.add(this.#result);
    const forget = () => running.delete(this.#result);
    this.#result.then(forget, forget);
  }

  get pid(): number {
    return this.#child.pid;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** What it has printed so far. */
  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Waits for its end, at most so long: then it is killed, and this throws. */
  async finished(timeoutMs = DEFAULT_TIMEOUT_MS): Promise<CommandResult> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      this.#kill();
      const result = { code: -1, stdout: this.#stdout, stderr: this.#stderr };
      // Not its own end is waited for: whatever it started may hold its output open.
      late.reject(new CommandError(this.command, result, `, killed after ${timeoutMs} ms`));
    }, timeoutMs);
    try {
      return await Promise.race([this.#result, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Signals the program itself: `nsenter` forks to enter a PID namespace and does not hand signals on. */
  signal(signal: Deno.Signal): void {
    if (this.#ended) return;
    const children = this.command[0] === "nsenter" ? childrenOf(this.pid) : [];
    for (const pid of children.length > 0 ? children : [this.pid]) kill(pid, signal);
    // It stops when its child does, and would never reap that: the namespace could not end.
    if (children.length > 0 && signal === "SIGCONT") kill(this.pid, signal);
  }

  async #collect(input: string | undefined): Promise<CommandResult> {
    const writing = input === undefined ? undefined : this.#write(input);
    await Promise.all([
      forEachText(this.#child.stdout, (text) => this.#stdout += text),
      forEachText(this.#child.stderr, (text) => this.#stderr += text),
      writing,
    ]);
    const { code } = await this.#child.status;
    this.#ended = true;
    return { code, stdout: this.#stdout, stderr: this.#stderr };
  }

  async #write(input: string): Promise<void> {
    const writer = this.#child.stdin.getWriter();
    try {
      await writer.write(new TextEncoder().encode(input));
      await writer.close();
    } catch {
      // It ended without reading all of it, which its exit status tells.
      await writer.abort().catch(() => {});
    }
  }

  /** Kills it and whatever it has started: any of these may hold its output open. */
  #kill(): void {
    if (this.#ended) return;
    for (const pid of descendantsOf(this.pid)) kill(pid, "SIGKILL");
    kill(this.pid, "SIGKILL");
  }

  [Symbol.dispose](): void {
    this.#kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#kill();
    await this.#result;
  }
}

function kill(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** The processes that a process has started, and those these have; the last started first. */
function descendantsOf(pid: number): number[] {
  return childrenOf(pid).flatMap((child) => [child, ...descendantsOf(child)]).reverse();
}

/** The processes that a process has started, as this namespace numbers them. */
export function childrenOf(pid: number): number[] {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).split(" ").filter(Boolean).map(Number);
  } catch {
    return []; // it has ended
  }
}

/** Nothing of the caller's settings but where programs and caches are. */
function baseEnvironment(): Record<string, string> {
  const names = ["PATH", "HOME", "DENO_DIR", "XDG_CACHE_HOME"];
  const pairs = names.map((name) => [name, Deno.env.get(name)] as const);
  return Object.fromEntries(pairs.filter((pair): pair is [string, string] => pair[1] !== undefined));
}

async function forEachText(stream: ReadableStream<Uint8Array>, take: (text: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  for await (const octets of stream) take(decoder.decode(octets, { stream: true }));
}
