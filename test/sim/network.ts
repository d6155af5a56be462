/**
 * The network between simulated hosts: connections like those of TCP, with delay, cuts that nobody is told of, and resets. What is under
 * way when a link is cut arrives when it heals, as TCP sends again; a reset that meets a cut is lost.
 */
import type { Endpoint } from "../../src/lib/ip.ts";
import type { Random } from "../../src/lib/random.ts";
import type { VirtualClock } from "./clock.ts";

/** One side of a connection, as whoever is there sees it. */
export interface Side<Item> {
  handleItem(item: Item): void;
  handleReset(): void;
  /** Whether more may be sent: false when much is under way. */
  handleWritable(writable: boolean): void;
}

export interface NetworkOptions {
  readonly clock: VirtualClock;
  readonly random: Random;
  /** One way, shortest and longest. */
  readonly delayMs: readonly [number, number];
  /** Items under way on one connection beyond which its sender is asked to wait. */
  readonly window?: number;
}

interface Listener<Item> {
  /** Undefined: refused. */
  accept(remote: Endpoint, connection: Half<Item>): Side<Item> | undefined;
}

export class Network<Item> {
  readonly #o: NetworkOptions;
  /** By address: a host's. */
  readonly #listeners = new Map<number, Listener<Item>>();
  readonly #halves = new Set<Half<Item>>();
  /** Which part of the network each host is in; undefined: all in one. */
  #parts: ReadonlyMap<number, number> = new Map();

  constructor(o: NetworkOptions) {
    this.#o = o;
  }

  listen(address: number, listener: Listener<Item>): void {
    this.#listeners.set(address, listener);
  }

  /** The host is gone without a word: all its connections are reset, as by the kernel of a process that was killed. */
  unlisten(address: number): void {
    this.#listeners.delete(address);
    for (const half of [...this.#halves]) if (half.local.address === address) half.close();
  }

  /** Nothing passes between hosts of different parts; those that are in none form one. */
  partition(parts: readonly (readonly number[])[]): void {
    this.#parts = new Map(parts.flatMap((part, i) => part.map((address) => [address, i + 1] as const)));
    for (const half of this.#halves) half.resume();
  }

  heal(): void {
    this.partition([]);
  }

  passes(a: Endpoint, b: Endpoint): boolean {
    return (this.#parts.get(a.address) ?? 0) === (this.#parts.get(b.address) ?? 0);
  }

  delayMs(): number {
    const [least, most] = this.#o.delayMs;
    return least + this.#o.random.unit() * (most - least);
  }

  /** The outcome comes by `connected` or `failed`; where the way is cut, by neither. */
  dial(
    from: Endpoint,
    to: Endpoint,
    outcome: { connected(half: Half<Item>): Side<Item> | undefined; failed(reason: string): void },
  ): void {
    const { clock } = this.#o;
    clock.plan(clock.now + this.delayMs(), () => {
      if (!this.passes(from, to)) return;
      const listener = this.#listeners.get(to.address);
      const near = new Half<Item>(this, clock, from, to, this.#o.window ?? Infinity);
      const far = new Half<Item>(this, clock, to, from, this.#o.window ?? Infinity);
      near.join(far);
      const connectedAt = clock.now + this.delayMs();
      far.nothingBefore(connectedAt + 0.001);
      const accepted = listener?.accept(from, far);
      if (!accepted) return clock.plan(connectedAt, () => outcome.failed("connection refused"));
      far.side = accepted;
      this.#halves.add(near).add(far);
      clock.plan(connectedAt, () => {
        if (near.closed) return outcome.failed("connection reset by peer");
        const side = outcome.connected(near);
        if (side) near.side = side;
        else near.close();
      });
    });
  }

  /** Connections that are there, each once. */
  connections(): Half<Item>[] {
    return [...this.#halves].filter((half) => half.outbound);
  }

  forget(half: Half<Item>): void {
    this.#halves.delete(half);
  }
}

/** One end of a connection, and what is under way from it to the other. */
export class Half<Item> {
  side: Side<Item> | undefined;
  closed = false;
  /** Nothing passes on this connection any more, and nobody knows. */
  dead = false;
  outbound = false;
  #other!: Half<Item>;
  readonly #queue: Item[] = [];
  #lastAt = 0;
  #planned = false;
  #full = false;
  readonly #network: Network<Item>;
  readonly #clock: VirtualClock;
  readonly #window: number;

  constructor(
    network: Network<Item>,
    clock: VirtualClock,
    readonly local: Endpoint,
    readonly remote: Endpoint,
    window: number,
  ) {
    this.#network = network;
    this.#clock = clock;
    this.#window = window;
  }

  join(accepting: Half<Item>): void {
    this.#other = accepting;
    accepting.#other = this;
    this.outbound = true;
  }

  /** What is sent arrives later than this. */
  nothingBefore(at: number): void {
    this.#lastAt = at;
  }

  send(item: Item): void {
    if (this.closed) return;
    this.#queue.push(item);
    this.#plan();
    if (this.#queue.length < this.#window || this.#full) return;
    this.#full = true;
    this.side?.handleWritable(false);
  }

  /** A reset: what is under way to the other side is lost. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.#network.forget(this);
    this.#queue.length = 0;
    this.#tellReset();
  }

  /** The network is another one: what waits goes on, if it can. */
  resume(): void {
    if (this.#queue.length > 0) this.#plan();
  }

  /** As if a middle box had forgotten the connection: both sides hear nothing more. */
  kill(): void {
    this.dead = this.#other.dead = true;
  }

  /** As if the other side's kernel had sent a reset, to both. */
  reset(): void {
    this.#handleReset();
    this.#other.#handleReset();
  }

  get #passes(): boolean {
    return !this.dead && this.#network.passes(this.local, this.remote);
  }

  #plan(): void {
    if (this.#planned || !this.#passes) return;
    this.#planned = true;
    this.#lastAt = Math.max(this.#lastAt, this.#clock.now + this.#network.delayMs());
    this.#clock.plan(this.#lastAt, () => {
      this.#planned = false;
      this.#deliver();
    });
  }

  /** Everything that was sent so far arrives at once, in order. */
  #deliver(): void {
    if (!this.#passes || this.closed) return;
    if (this.#other.closed) return this.#clock.plan(this.#clock.now, () => this.#handleReset());
    for (const item of this.#queue.splice(0)) {
      if (this.#other.closed) break;
      this.#other.side?.handleItem(item);
    }
    if (!this.#full || this.closed) return;
    this.#full = false;
    this.side?.handleWritable(true);
  }

  #tellReset(): void {
    if (!this.#passes) return; // lost; whoever sends again will be told
    this.#clock.plan(Math.max(this.#lastAt, this.#clock.now + this.#network.delayMs()), () => {
      if (this.#passes) this.#other.#handleReset();
    });
  }

  #handleReset(): void {
    if (this.closed) return;
    this.closed = true;
    this.#network.forget(this);
    this.side?.handleReset();
  }
}
