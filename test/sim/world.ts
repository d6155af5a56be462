/** A whole simulated mesh: hosts, network, clock, and one seed from which everything that is random follows. */
import type { Endpoint } from "../../src/lib/ip.ts";
import { formatIpv4 } from "../../src/lib/ip.ts";
import { type Logger, SILENT } from "../../src/lib/log.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import { SeededRandom } from "../../src/lib/random.ts";
import { VirtualClock } from "./clock.ts";
import { type HostOptions, type Item, PORT, SimHost, type Surroundings } from "./host.ts";
import { Network } from "./network.ts";

export interface WorldOptions {
  readonly seed: number;
  /** Real sessions and their octets, or messages as values. */
  readonly octets?: boolean;
  readonly delayMs?: readonly [number, number];
  /** Items on a connection that may be under way; less makes for slow connections. */
  readonly window?: number;
}

export const OURS = ["probe", "digest"];

export class World {
  readonly clock = new VirtualClock();
  readonly random: SeededRandom;
  readonly network: Network<Item>;
  /** Those that run, by name. */
  readonly hosts = new Map<PeerName, SimHost>();
  /** What was logged as an error: there is to be none. */
  readonly errors: string[] = [];
  /** Changes with everything that happened. */
  traceHash = 0;
  events = 0;
  /** How often each kind of thing happened. */
  readonly counts = new Map<string, number>();
  readonly #o: WorldOptions;
  readonly #surroundings: Surroundings;

  constructor(o: WorldOptions) {
    this.#o = o;
    const { clock } = this;
    this.random = new SeededRandom(o.seed);
    const random = new SeededRandom(o.seed ^ 0x2545f491);
    const window = o.window;
    this.network = new Network({ clock, random, delayMs: o.delayMs ?? [1, 30], ...window !== undefined && { window } });
    const log: Logger = {
      ...SILENT,
      error: (event, fields) => this.errors.push(`${event} ${JSON.stringify(fields ?? {})}`),
    };
    const trace = (host: SimHost, what: string, detail: number) => this.#trace(host, what, detail);
    this.#surroundings = { clock, network: this.network, log, trace };
  }

  /** Starts a host, for the first time or again; it has another uid each time. */
  start(number: number, rest: Partial<HostOptions> = {}): SimHost {
    const name = nameOf(number);
    const host = new SimHost({
      name,
      nickName: `host${number}`,
      address: addressOf(number).address,
      extensions: OURS,
      discovery: false,
      connectionLimit: 0,
      octets: this.#o.octets ?? false,
      seed: this.random.u32(),
      ...rest,
    }, this.#surroundings);
    this.hosts.set(host.o.name, host);
    return host;
  }

  host(number: number): SimHost {
    const host = this.hosts.get(nameOf(number));
    if (!host) throw new Error(`Host ${number} does not run`);
    return host;
  }

  stop(number: number): void {
    this.host(number).stop();
    this.hosts.delete(nameOf(number));
  }

  partition(...parts: readonly (readonly number[])[]): void {
    this.network.partition(parts.map((part) => part.map((number) => addressOf(number).address)));
  }

  run(ms: number): void {
    this.clock.runTo(this.clock.now + ms);
  }

  /** Runs until it is so, looking every so often. Returns how long it took. */
  runUntil(what: string, isSo: () => boolean, { within, every = 500 }: { within: number; every?: number }): number {
    const begin = this.clock.now;
    while (!isSo()) {
      if (this.clock.now - begin >= within) throw new Error(`Not so after ${within} ms: ${what}`);
      this.run(every);
    }
    return this.clock.now - begin;
  }

  #trace(host: SimHost, what: string, detail: number): void {
    this.events++;
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
    let h = this.traceHash;
    for (
      const word of [
        Math.round(this.clock.now * 1000),
        host.o.name % 0x1_0000_0000,
        what.length,
        what.charCodeAt(0),
        detail,
      ]
    ) {
      h = Math.imul(h ^ word, 0x9e3779b1);
      h ^= h >>> 15;
    }
    this.traceHash = h >>> 0;
  }
}

/** The name of the host with this number. */
export function nameOf(number: number): PeerName {
  return 0x02_00_00_00_00_00 + number as PeerName;
}

export function addressOf(number: number): Endpoint {
  return { address: 0x0a00_0000 + number, port: PORT };
}

/** A seed that failed is what one needs to know. */
export function withSeed(seed: number, test: (seed: number) => void, rest = ""): void {
  try {
    test(seed);
  } catch (error) {
    throw new Error(`With seed ${seed}${rest}: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
}

/** Who a name or an address belongs to, for messages. */
export function describeHost(host: SimHost): string {
  return `${host.o.nickName} (${formatIpv4(host.o.address)})`;
}
