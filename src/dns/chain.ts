/**
 * The handlers that a query passes, in their order, until one has answered it:
 *
 *     local     names of our domain, and single labels        always answers those
 *     reverse   names of addresses                            passes on addresses that it does not know
 *     upstream  everything else                               answers later, or not at all
 *
 * What is no query, or none that anybody could answer, does not come so far. Everything is counted.
 */
import { Answer, FLAG, MAX_MESSAGE_OCTETS, MAX_UDP_OCTETS, PLAIN_UDP_OCTETS, Query, RCODE } from "../wire/dns.ts";

/** One query and room for its answer. There is one, used again and again. */
export interface Exchange {
  readonly query: Query;
  readonly answer: Answer;
  /** Where in the answer's octets it goes. */
  readonly at: number;
  /** Octets that the client takes. */
  readonly limit: number;
}

/** Answers a query by beginning an answer and adding to it, or passes it on by doing neither. */
export interface Handler {
  handle(exchange: Exchange): boolean;
}

/** What came, and what became of it; they only grow. */
export interface DnsCounters {
  /** Messages that came. */
  queries: number;
  /** Answered from what we know. */
  local: number;
  /** Names that are not there. */
  unknown: number;
  /** Names whose owners are out of reach. */
  hidden: number;
  /** Answers that were cut to what the client takes. */
  truncated: number;
  forwarded: number;
  /** Asked for while the same was being asked for already. */
  joined: number;
  /** Not forwarded: too many are under way. */
  crowded: number;
  /** Not forwarded: the one we ask asks us. */
  loops: number;
  /** No server upstream answered. */
  failed: number;
  /** Answers of nobody whom we asked this. */
  spoofed: number;
  malformed: number;
  /** Too short, or answers where a query belongs. */
  ignored: number;
  /** Neither a query nor malformed. */
  unsupported: number;
  /** Connections that were turned away, or cut off. */
  refused: number;
}

export function newCounters(): DnsCounters {
  return {
    queries: 0,
    local: 0,
    unknown: 0,
    hidden: 0,
    truncated: 0,
    forwarded: 0,
    joined: 0,
    crowded: 0,
    loops: 0,
    failed: 0,
    spoofed: 0,
    malformed: 0,
    ignored: 0,
    unsupported: 0,
    refused: 0,
  };
}

/** `Chain.handle()`: nothing is to be sent, or somebody else is to be asked. */
export const NOTHING = 0;
export const FORWARD = -1;

const BAD_VERSION = 16;

export class Chain {
  readonly #handlers: readonly Handler[];
  readonly #counters: DnsCounters;
  readonly #exchange: { query: Query; answer: Answer; at: number; limit: number };

  /** @param room octets of answers, where `handle()` puts them */
  constructor(handlers: readonly Handler[], counters: DnsCounters, room: Uint8Array) {
    this.#handlers = handlers;
    this.#counters = counters;
    this.#exchange = { query: new Query(), answer: new Answer(room), at: 0, limit: 0 };
  }

  /** The query that was handled last. */
  get query(): Query {
    return this.#exchange.query;
  }

  /**
   * @param at where in `octets` the message lies
   * @param answerAt where in the room its answer goes; it takes `MAX_UDP_OCTETS`, over TCP `MAX_MESSAGE_OCTETS`
   * @returns the length of the answer, NOTHING or FORWARD
   */
  handle(octets: Uint8Array, at: number, length: number, answerAt: number, transport: "udp" | "tcp"): number {
    const counters = this.#counters;
    const exchange = this.#exchange;
    const { query, answer } = exchange;
    counters.queries++;
    const kind = query.read(octets, at, length);
    exchange.at = answerAt;
    exchange.limit = transport === "tcp" ? MAX_MESSAGE_OCTETS : udpLimit(query);
    switch (kind) {
      case "query":
        for (const handler of this.#handlers) if (handler.handle(exchange)) return answer.end();
        return FORWARD;
      case "ignored":
        counters.ignored++;
        return NOTHING;
      case "malformed":
        counters.malformed++;
        return this.#error(RCODE.FORMERR);
      case "notImplemented":
        counters.unsupported++;
        return this.#error(RCODE.NOTIMP);
      case "badVersion":
        counters.unsupported++;
        return this.#error(BAD_VERSION);
      default:
        return kind satisfies never;
    }
  }

  #error(rcode: number): number {
    const { query, answer, at, limit } = this.#exchange;
    answer.begin(query, at, limit, FLAG.RA);
    answer.extendedRcode(rcode);
    return answer.end();
  }
}

/** Octets of an answer over UDP. */
export function udpLimit(query: Query): number {
  if (!query.edns) return PLAIN_UDP_OCTETS;
  return Math.min(Math.max(query.ednsOctets, PLAIN_UDP_OCTETS), MAX_UDP_OCTETS);
}
