/** An open descriptor that somebody owns: closed once, by `close()` or at the end of `using`. */
import { libc } from "./libc.ts";

export class Fd implements Disposable {
  /** What it is, for messages: "netlink socket". */
  readonly what: string;
  #raw: number;

  /** Takes an open descriptor over. */
  constructor(raw: number, what: string) {
    this.#raw = raw;
    this.what = what;
    for (const trace of traces) trace.opened(this);
  }

  /** The number, for a call; whoever keeps it has no say when it is closed. */
  get raw(): number {
    if (this.#raw < 0) throw new Error(`Cannot use ${this.what}: it is closed`);
    return this.#raw;
  }

  get closed(): boolean {
    return this.#raw < 0;
  }

  /** Again is harmless. What close(2) says is of no use: the descriptor is gone in any case. */
  close(): void {
    if (this.#raw < 0) return;
    const raw = this.#raw;
    this.#raw = -1;
    libc.close(raw);
    for (const trace of traces) trace.closed(this);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

const traces = new Set<DescriptorTrace>();

/** For tests: follows the descriptors that this thread opens from now on. `using trace = new DescriptorTrace()` */
export class DescriptorTrace implements Disposable {
  readonly #open = new Map<Fd, string>();

  constructor() {
    traces.add(this);
  }

  /** What is open still, and where it was opened. */
  left(): string[] {
    return [...this.#open].map(([fd, stack]) => `${fd.what}, opened ${stack}`);
  }

  opened(fd: Fd): void {
    this.#open.set(fd, new Error().stack?.split("\n").slice(3).map((line) => line.trim()).join(" ") ?? "");
  }

  closed(fd: Fd): void {
    this.#open.delete(fd);
  }

  [Symbol.dispose](): void {
    traces.delete(this);
  }
}
