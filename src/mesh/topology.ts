/** The gossip channel in which peers tell of themselves: names wait, records are looked up when they are sent. */
import type { PeerName } from "../lib/mac.ts";
import type { PeerRecord } from "../wire/topology.ts";
import type { GossipData } from "./gossip.ts";
import type { PeerNode, Peers } from "./peers.ts";

export const TOPOLOGY = "topology";

/** Octets of one payload, by a generous estimate: several messages are better than one that is refused. */
const PAYLOAD_OCTETS = 4 << 20;
const RECORD_OCTETS = 64;
const CONNECTION_OCTETS = 48;

/** Peers whose records are to be told, as they are when they are sent. */
export class TopologyNews implements GossipData {
  readonly #peers: Peers;
  readonly #nodes: readonly PeerNode[];
  readonly heldOctets: number;
  /** What was encoded last: one piece of news goes to many neighbours. */
  #encoded: readonly (readonly PeerRecord[])[] = [];
  #generation = -1;

  /** @param nodes each once */
  constructor(peers: Peers, nodes: readonly PeerNode[]) {
    this.#peers = peers;
    this.#nodes = nodes;
    this.heldOctets = 8 * nodes.length;
  }

  merge(later: GossipData): GossipData {
    const mark = this.#peers.nextMark();
    const nodes = this.#nodes.slice();
    for (const node of nodes) node.mark = mark;
    for (const node of (later as TopologyNews).#nodes) if (node.mark !== mark) nodes.push(node);
    return new TopologyNews(this.#peers, nodes);
  }

  encode(): readonly (readonly PeerRecord[])[] {
    if (this.#generation !== this.#peers.generation) {
      this.#encoded = inPayloads(this.#nodes.filter((node) => !node.gone).map((node) => node.record));
      this.#generation = this.#peers.generation;
    }
    return this.#encoded;
  }
}

/** What is known of peers with these names. */
export function newsOf(peers: Peers, names: Iterable<PeerName>): TopologyNews {
  const nodes = new Set<PeerNode>();
  for (const name of names) {
    const node = peers.node(name);
    if (node) nodes.add(node);
  }
  return new TopologyNews(peers, [...nodes]);
}

/** Everything we know. */
export function completeTopology(peers: Peers): TopologyNews {
  return new TopologyNews(peers, peers.nodes());
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
