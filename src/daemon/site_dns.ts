/**
 * Answers names of exported services on the networks where they are exported (`--dns`). For each address at which it is asked there is a
 * server of its own on loopback, where rules of services lead what comes for port 53 of that address: so it sees nobody, but answers as the
 * plan has it for that network.
 */
import { Chain, newCounters } from "../dns/chain.ts";
import { SiteNames } from "../dns/site.ts";
import { type DnsHandler, type DnsListener, DnsRoom, listenForDns } from "../host/dns_sockets.ts";
import type { ControlSockets } from "../host/sockets.ts";
import { OperationError } from "../lib/errors.ts";
import { formatEndpoint, type Ipv4 } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import type { SiteView } from "../service/planner.ts";
import { parseName } from "../wire/dns.ts";

export interface SiteDnsOptions {
  /** Without its final dot. */
  readonly domain: string;
  readonly ttlSeconds: number;
  readonly sockets: ControlSockets;
  readonly log: Logger;
}

interface Server {
  readonly listener: DnsListener;
  /** Addresses by key. */
  names: ReadonlyMap<string, readonly Ipv4[]>;
}

export class SiteDns implements Disposable {
  readonly #o: SiteDnsOptions;
  /** By endpoint. */
  readonly #servers = new Map<string, Server>();
  readonly #troubles = new Map<string, string>();
  #room: DnsRoom | undefined;

  constructor(o: SiteDnsOptions) {
    this.#o = o;
  }

  /** Names that are not answered, and why. */
  get warnings(): readonly string[] {
    return [...this.#troubles.values()];
  }

  /** From now on these are answered. What cannot be listened at is tried again with the next call. */
  set(views: readonly SiteView[]): void {
    const wanted = new Map(views.map((view) => [formatEndpoint(view.server), view]));
    for (const [at, { listener }] of this.#servers) {
      if (wanted.has(at)) continue;
      listener.close();
      this.#servers.delete(at);
    }
    for (const at of this.#troubles.keys()) if (!wanted.has(at)) this.#troubles.delete(at);
    for (const [at, view] of wanted) {
      const names = this.#keys(view);
      const server = this.#servers.get(at);
      if (server === undefined) this.#listen(at, view, names);
      else server.names = names;
    }
  }

  [Symbol.dispose](): void {
    this.set([]);
  }

  #listen(at: string, view: SiteView, names: Server["names"]): void {
    const { sockets, ttlSeconds, log } = this.#o;
    const room = this.#room ??= new DnsRoom();
    const counters = newCounters();
    const lookup = (key: string) => this.#servers.get(at)?.names.get(key);
    const chain = new Chain([new SiteNames({ lookup, ttlSeconds, counters })], counters, room.answers);
    const handler: DnsHandler = {
      handle: (octets, from, length, answerAt, transport) => chain.handle(octets, from, length, answerAt, transport),
      forward: () => {},
      refused: () => {
        counters.refused++;
      },
    };
    try {
      this.#servers.set(at, { listener: listenForDns({ at: view.server, sockets, room, handler }), names });
      this.#troubles.delete(at);
    } catch (error) {
      if (!(error instanceof OperationError)) throw error;
      if (!this.#troubles.has(at)) log.warn("names of services are not answered", { error: error.message });
      this.#troubles.set(at, error.message);
    }
  }

  /** A name is known with and without our domain. */
  #keys({ names }: SiteView): Map<string, readonly Ipv4[]> {
    const ending = `.${this.#o.domain}`;
    const keys = new Map<string, readonly Ipv4[]>();
    for (const [name, addresses] of names) {
      const short = name.endsWith(ending) ? name.slice(0, -ending.length) : name;
      for (const each of [short, short + ending]) {
        const key = parseName(each);
        if (key !== undefined) keys.set(key, addresses);
      }
    }
    return keys;
  }
}
