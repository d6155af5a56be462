/**
 * Isolated networks: a namespace of its own for the links of a network, joined to this one by a veth. An address that is our own here,
 * or somebody's in another network, is an ordinary host there.
 *
 *     this namespace                       /run/netns/weave-NAME
 *     weave-net3  240.3.0.1 ── veth ── 240.3.0.2  weave-net3       eth1 192.168.1.1/24, moved there with its routes
 *
 * All of 240.N.0.0/16 is routed to the other side, from either side: rules there give its addresses a meaning.
 */
import type { Ipv4 } from "../lib/ip.ts";
import type { NetworkId } from "../service/plan.ts";

export interface IsolatedNetwork {
  readonly id: NetworkId;
  readonly name: string;
  /** Names of the links that are to be in it. */
  readonly interfaces: readonly string[];
}

export interface EnsuredNetwork {
  /** For `withNetns` and `nsenter --net=`. */
  readonly namespace: string;
  /** Of the veth's end here: the link by which the network is reached. */
  readonly link: string;
  /** Of the veth's end inside. */
  readonly innerLink: string;
  /** Sentences for the user: an interface that is not there, a route that could not be taken along. */
  readonly warnings: readonly string[];
}

/** Where a network's namespace is, whether it is there or not. */
export function networkNamespace(name: string): string {
  return `/run/netns/weave-${name}`;
}

/** The link by which an isolated network is reached; it has the same name on both sides. */
export function transitLink(network: NetworkId): string {
  return `weave-net${network}`;
}

/** An address of a network's transit: 1 is this side, 2 the inner one; rules have 3 to 65534 for backends and listeners. */
export function transitAddress(network: NetworkId, host: number): Ipv4 {
  return (240 << 24 | network << 16 | host) >>> 0;
}

/** Whether it is of any network's transit. */
export function isTransitAddress(address: Ipv4): boolean {
  return address >>> 24 === 240;
}

/**
 * Makes the namespace, or adopts what is there, and moves links in and out until they are as wanted. Synchronous; may be repeated
 * at any time, also after it was killed. What failed is undone.
 * @param stateDir where it is noted what links had, as long as they are away; lost at reboot like the namespaces
 */
export function ensureIsolatedNetwork(_network: IsolatedNetwork, _stateDir: string): EnsuredNetwork {
  throw new Error("to come");
}

/** Moves all links back and removes the namespace. @returns sentences on what is left, none where all is as it was */
export function removeIsolatedNetwork(_name: string, _stateDir: string): string[] {
  throw new Error("to come");
}

/** Names of the isolated networks that are there, whole or in parts. */
export function listIsolatedNetworks(_stateDir: string): string[] {
  throw new Error("to come");
}
