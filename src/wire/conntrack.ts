/**
 * Connection tracking as ctnetlink says it (linux/netfilter/nfnetlink_conntrack.h): requests to encode, flows to decode. IPv4 only.
 * Integers in attributes are in network order here, unlike in the rest of netlink.
 */
import type { Ipv4 } from "../lib/ip.ts";

/** Protocol number for socket(AF_NETLINK, …). */
export const NETLINK_NETFILTER = 12;

/** Which flows: `mark & mask` of theirs is `mark`. */
export interface FlowFilter {
  readonly mark: number;
  readonly mask: number;
}

/** One direction of a flow, as its packets arrive. */
export interface FlowTuple {
  /** IPPROTO_*. */
  readonly protocol: number;
  readonly source: Ipv4;
  readonly destination: Ipv4;
  /** 0 where the protocol has none. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** Connection-tracking zone of this direction alone; 0 where it has none, or both have one. */
  readonly zone: number;
}

export interface Flow {
  readonly original: FlowTuple;
  readonly reply: FlowTuple;
  readonly mark: number;
  /** Tells it from another flow with the same tuples. */
  readonly id: number;
  /** Zone of both directions. */
  readonly zone: number;
  /** TCP_CONNTRACK_*; undefined for other protocols. */
  readonly tcpState?: number;
}
