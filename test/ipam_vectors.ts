/** How the vectors about addresses say things, and the same as our values. */
import { parseIpv4 } from "../src/lib/ip.ts";
import { parsePeerName, type PeerName } from "../src/lib/mac.ts";
import type { AddressRange, NodeClaims, NodeId, ProposalId, RingValue } from "../src/wire/ipam.ts";

export interface VectorRing {
  readonly start: string;
  readonly end: string;
  readonly peer: string;
  readonly entries:
    | readonly { readonly token: string; readonly peer: string; readonly version: number; readonly free: number }[]
    | null;
  readonly seeds: readonly string[] | null;
}

export interface VectorNode {
  readonly name: string;
  readonly uid: string;
}

export interface VectorProposal {
  readonly round: number;
  readonly proposer: VectorNode;
}

export type VectorSpan = readonly [start: string, end: string];

export function readVectors<T>(name: string): T {
  return JSON.parse(Deno.readTextFileSync(new URL(`fixtures/vectors/${name}`, import.meta.url)));
}

export function addressOf(text: string): number {
  return parseIpv4(text)!;
}

export function peerOf(text: string): PeerName {
  return parsePeerName(text)!;
}

export function rangeOf([start, end]: VectorSpan): AddressRange {
  return { start: addressOf(start), end: addressOf(end) };
}

export function ringOf({ start, end, peer, entries, seeds }: VectorRing): RingValue {
  return {
    start: addressOf(start),
    end: addressOf(end),
    peer: peerOf(peer),
    entries: (entries ?? []).map((e) => ({ ...e, token: addressOf(e.token), peer: peerOf(e.peer) })),
    seeds: (seeds ?? []).map(peerOf),
  };
}

export function nodeOf({ name, uid }: VectorNode): NodeId {
  return { name: peerOf(name), uid: BigInt(uid) };
}

export function proposalOf({ round, proposer }: VectorProposal): ProposalId {
  return { round, proposer: nodeOf(proposer) };
}

export interface VectorClaims {
  readonly promise: VectorProposal;
  readonly accepted: VectorProposal;
  readonly accepted_val: {
    readonly value?: readonly string[];
    readonly value_sorted?: readonly string[];
    readonly origin: VectorProposal;
  };
}

export function claimsOf(
  { promise, accepted, accepted_val: { value, value_sorted, origin } }: VectorClaims,
): NodeClaims {
  return {
    promise: proposalOf(promise),
    accepted: proposalOf(accepted),
    acceptedValue: { value: (value ?? value_sorted ?? []).map(peerOf), origin: proposalOf(origin) },
  };
}
