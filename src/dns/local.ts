/**
 * Names of our domain. A name of one label means one of our domain too, and neither is ever asked for elsewhere. Who asks for a type that
 * a name has not hears that there is none, and not that there is no such name: else its IPv6 question would hide an IPv4 address.
 */
import type { Ipv4 } from "../lib/ip.ts";
import type { Random } from "../lib/random.ts";
import { CLASS, FLAG, RCODE, TYPE } from "../wire/dns.ts";
import type { DnsCounters, Exchange, Handler } from "./chain.ts";
import type { NameAnswer } from "./name_index.ts";

export interface LocalOptions {
  /** Key of the domain. */
  readonly domainKey: string;
  readonly lookup: (key: string) => NameAnswer;
  readonly ttlSeconds: number;
  /** For the order of addresses; it need not be hard to guess. */
  readonly random: Random;
  readonly counters: DnsCounters;
}

const ADDRESS_OCTETS = 4;

export class LocalNames implements Handler {
  readonly #o: LocalOptions;

  constructor(o: LocalOptions) {
    this.#o = o;
  }

  handle(exchange: Exchange): boolean {
    const { domainKey, lookup, counters } = this.#o;
    const { query, answer, at, limit } = exchange;
    const single = query.labels === 1 && query.questions === 1;
    if (!single && !query.isWithin(domainKey)) return false;
    counters.local++;
    const known = query.questions === 1 ? lookup(single ? query.key + domainKey : query.key) : undefined;
    if (known === undefined || known.state === "none") {
      counters.unknown++;
      answer.begin(query, at, limit, FLAG.RA | RCODE.NXDOMAIN);
    } else if (known.state === "hidden") {
      counters.hidden++;
      answer.begin(query, at, limit, FLAG.RA | RCODE.SERVFAIL);
    } else {
      answer.begin(query, at, limit, FLAG.RA | FLAG.AA);
      if (query.class === CLASS.IN || query.class === CLASS.ANY) this.#add(exchange, known);
    }
    return true;
  }

  #add(exchange: Exchange, { addresses, records }: NameAnswer): void {
    const { query, answer } = exchange;
    if (query.type === TYPE.A) return this.#addAddresses(exchange, addresses);
    let first = true;
    for (const { type, data } of records) {
      if (type !== query.type) continue;
      // One alone is not cut: what could be said instead?
      if (!first && answer.room(data.length) === 0) return this.#truncate(exchange);
      answer.add(type, this.#o.ttlSeconds, data);
      first = false;
    }
  }

  /** As many as fit, in an order that is another one each time. */
  #addAddresses(exchange: Exchange, addresses: Ipv4[]): void {
    const { answer } = exchange;
    const { random, ttlSeconds } = this.#o;
    const count = addresses.length;
    const fits = Math.min(count, Math.max(1, answer.room(ADDRESS_OCTETS)));
    for (let i = 0; i < fits; i++) {
      const chosen = i === count - 1 ? i : i + random.below(count - i);
      const address = addresses[chosen]!;
      addresses[chosen] = addresses[i]!;
      addresses[i] = address;
      answer.addAddress(ttlSeconds, address);
    }
    if (fits < count) this.#truncate(exchange);
  }

  #truncate({ answer }: Exchange): void {
    this.#o.counters.truncated++;
    answer.truncated();
  }
}
