/**
 * Names of services as a network beside the mesh is to see them: these and nothing else. Who asks for another name is refused, and asks
 * his other server, for we forward nothing.
 */
import type { Ipv4 } from "../lib/ip.ts";
import { CLASS, FLAG, RCODE, TYPE } from "../wire/dns.ts";
import type { DnsCounters, Exchange, Handler } from "./chain.ts";

export interface SiteNamesOptions {
  /** By key; undefined: it is no name of ours. */
  readonly lookup: (key: string) => readonly Ipv4[] | undefined;
  readonly ttlSeconds: number;
  readonly counters: DnsCounters;
}

const ADDRESS_OCTETS = 4;

export class SiteNames implements Handler {
  readonly #o: SiteNamesOptions;

  constructor(o: SiteNamesOptions) {
    this.#o = o;
  }

  handle({ query, answer, at, limit }: Exchange): boolean {
    const { lookup, ttlSeconds, counters } = this.#o;
    const isOurs = query.questions === 1 && (query.class === CLASS.IN || query.class === CLASS.ANY);
    const addresses = isOurs ? lookup(query.key) : undefined;
    if (addresses === undefined) {
      counters.unknown++;
      answer.begin(query, at, limit, RCODE.REFUSED);
      return true;
    }
    counters.local++;
    answer.begin(query, at, limit, FLAG.AA);
    if (query.type !== TYPE.A && query.type !== ANY) return true;
    const fitting = addresses.slice(0, answer.room(ADDRESS_OCTETS));
    for (const address of fitting) answer.addAddress(ttlSeconds, address);
    if (fitting.length < addresses.length) {
      counters.truncated++;
      answer.truncated();
    }
    return true;
  }
}

/** The question for whatever there is. */
const ANY = 255;
