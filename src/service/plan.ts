/**
 * What the kernel of this host is to do for services: computed whole from what we know, and applied as the difference to what is there.
 * The planner (`planner.ts`) decides, `src/host` carries out, and neither knows more of the other than these types.
 *
 *     client ─▶ listener (network, address, protocol, ports) ─▶ one of its targets ─▶ backend (network, address)
 */
import type { Cidr, Ipv4 } from "../lib/ip.ts";

/** 1 to 62, as marks carry it; the same across restarts. */
export type NetworkId = number;

/** The mesh: the bridge `weave`. */
export const WEAVE_NETWORK = 1;
/** The host's own routing. Clients on the host itself are of this network too. */
export const HOST_NETWORK = 2;
export const FIRST_NAMED_NETWORK: NetworkId = 3;
export const LAST_NETWORK: NetworkId = 62;

/** 1 to 65535, as marks carry it: one per service and backend, the same across restarts, not used again while flows have it. */
export type BackendId = number;

export type Protocol = "tcp" | "udp";

/** What has a number of its own: other ports of an address are another backend, to which a service may move. */
export interface BackendPlace {
  readonly service: string;
  readonly network: NetworkId;
  readonly address: Ipv4;
  /** The first one; undefined where the address is nothing else, so that all ports of it are one. */
  readonly port?: BackendPort | undefined;
}

export interface BackendPort {
  readonly protocol: Protocol;
  readonly first: number;
}

export interface ServicePlan {
  /** Networks with an interface of their own; the mesh and the host are always there. */
  readonly networks: readonly NetworkPlan[];
  /** Where we take part in the mesh: what enters it for a service has our address as its source. */
  readonly subnets: readonly GatewaySubnet[];
  /** Addresses that nobody has as his own, for which we answer ARP on that network's link. */
  readonly answered: readonly AnsweredAddress[];
  /** Addresses of the mesh that others answer for, and that programs on this host reach like those that it answers for itself. */
  readonly reached?: readonly Ipv4[];
  readonly backends: readonly BackendPlan[];
  /** No two of them overlap in network, address, protocol and port. */
  readonly listeners: readonly ListenerPlan[];
}

export interface NetworkPlan {
  readonly id: NetworkId;
  readonly name: string;
  /** Names of links: the first answers for addresses, all are of the network. */
  readonly interfaces: readonly string[];
  /** The links live in a namespace of their own, `weave-NAME`. */
  readonly isolated: boolean;
}

export interface GatewaySubnet {
  readonly subnet: Cidr;
  readonly address: Ipv4;
  /** The bridge has this address already, as the host is exposed by it: it is used, and left as it is. */
  readonly exposed?: true;
}

export interface AnsweredAddress {
  /** Never `HOST_NETWORK`, whose addresses are the host's own. */
  readonly network: NetworkId;
  readonly address: Ipv4;
}

export interface BackendPlan {
  readonly id: BackendId;
  readonly service: string;
  /** Where its address means something. */
  readonly network: NetworkId;
  readonly address: Ipv4;
  /** Packets of its flows are refused in both directions, TCP by a reset; no listener has it as a target. */
  readonly revoked?: true;
}

export interface ListenerPlan {
  readonly service: string;
  /** Where clients come from. */
  readonly network: NetworkId;
  /**
   * `own`: every address that the network's links have, whatever they are now; for the host, all of its addresses, and 127.0.0.1 for
   * clients on it.
   */
  readonly address: Ipv4 | "own";
  readonly protocol: Protocol;
  readonly firstPort: number;
  readonly lastPort: number;
  /** Sources that may; undefined: all. As the client has them, before any translation. */
  readonly allow: readonly Cidr[] | undefined;
  /** None: it is refused at once, TCP with a reset, else by ICMP "port unreachable". */
  readonly targets: readonly TargetPlan[];
}

/** A new flow gets one of a listener's targets at random, by weight, and keeps it. */
export interface TargetPlan {
  readonly backend: BackendId;
  /** What the listener's first port becomes; the others keep their distance to it. */
  readonly firstPort: number;
  /** 1 to 256. */
  readonly weight: number;
}
