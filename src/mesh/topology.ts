/** The gossip channel in which peers tell of themselves: names wait, records are looked up when they are sent. */
import type { PeerName } from "../lib/mac.ts";
import type { PeerRecord } from "../wire/topology.ts";
import type { GossipData } from "./gossip.ts";
import type { Peers } from "./peers.ts";

export const TOPOLOGY = "topology";

/** Octets of one payload, by a generous estimate: several messages are better than one that is refused. */
const PAYLOAD_OCTETS = 4 << 20;
const RECORD_OCTETS = 64;
const CONNECTION_OCTETS = 48;

/** Names whose records are to be told, as they are when they are sent. */
export class TopologyNews implements GossipData {
  readonly #peers: Peers;
  readonly #names: ReadonlySet<PeerName>;
  /** What was encoded last: one piece of news goes to many neighbours. */
  #encoded: readonly (readonly PeerRecord[])[] = [];
  #generation = -1;

  constructor(peers: Peers, names: Iterable<PeerName>) {
    this.#peers = peers;
    this.#names = new Set(names);
  }

  merge(later: GossipData): GossipData {
    return new TopologyNews(this.#peers, this.#names.union((later as TopologyNews).#names));
  }

  encode(): readonly (readonly PeerRecord[])[] {
    if (this.#generation !== this.#peers.generation) {
      this.#encoded = inPayloads(this.#records());
      this.#generation = this.#peers.generation;
    }
    return this.#encoded;
  }

  *#records(): Generator<PeerRecord> {
    for (const name of this.#names) {
      const record = this.#peers.get(name);
      if (record) yield record;
    }
  }
}

/** Everything we know. */
export function completeTopology(peers: Peers): TopologyNews {
  return new TopologyNews(peers, peers.names());
}

/** Cuts a topology into payloads that are no longer than a message may be; mostly one. */
function inPayloads(records: Iterable<PeerRecord>): PeerRecord[][] {
  const payloads: PeerRecord[][] = [];
  let octets = Infinity;
  for (const record of records) {
    const size = RECORD_OCTETS + 3 * record.nickName.length + CONNECTION_OCTETS * record.connections.length;
    if (octets + size > PAYLOAD_OCTETS) {
      payloads.push([]);
      octets = 0;
    }
    payloads.at(-1)!.push(record);
    octets += size;
  }
  return payloads;
}
