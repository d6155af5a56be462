/** Names of addresses: one for each, the first in order. An address that nobody has named is asked for elsewhere. */
import type { Ipv4 } from "../lib/ip.ts";
import { CLASS, encodeName, FLAG, parseName, RCODE, reverseAddress, TYPE } from "../wire/dns.ts";
import type { DnsCounters, Exchange, Handler } from "./chain.ts";
import type { ReverseAnswer } from "./name_index.ts";

export interface ReverseOptions {
  readonly lookupAddress: (address: Ipv4) => ReverseAnswer;
  readonly ttlSeconds: number;
  readonly counters: DnsCounters;
}

const ZONE = parseName("in-addr.arpa")!;

export class ReverseNames implements Handler {
  readonly #o: ReverseOptions;

  constructor(o: ReverseOptions) {
    this.#o = o;
  }

  handle({ query, answer, at, limit }: Exchange): boolean {
    if (!query.isWithin(ZONE)) return false;
    const { lookupAddress, ttlSeconds, counters } = this.#o;
    const asked = query.questions === 1 && query.type === TYPE.PTR;
    const address = asked ? reverseAddress(query.key) : undefined;
    const known = address === undefined ? undefined : lookupAddress(address);
    if (known !== undefined && known.state === "none") return false;
    counters.local++;
    if (known === undefined) {
      counters.unknown++;
      answer.begin(query, at, limit, FLAG.RA | RCODE.NXDOMAIN);
    } else if (known.state === "live") {
      answer.begin(query, at, limit, FLAG.RA | FLAG.AA);
      if (query.class === CLASS.IN || query.class === CLASS.ANY) {
        answer.add(TYPE.PTR, ttlSeconds, encodeName(known.hostname)!);
      }
    } else {
      counters.hidden++;
      answer.begin(query, at, limit, FLAG.RA | RCODE.SERVFAIL);
    }
    return true;
  }
}
