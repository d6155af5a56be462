/**
 * How routers that have no ring agree, once, among whom to divide the universe: Paxos for a single value, spread by gossip. Each voter
 * tells all it knows of what every voter has promised and accepted, which only grows, so that messages may be lost, doubled or late.
 *
 *     propose      our promise becomes a proposal above all known ones
 *     update       take over what others know better
 *     think        promise the highest proposal; if it is ours and a quorum promised it, accept a value for it: one that was accepted
 *                  before, or else the names of all voters known; accept what others accepted of what we promised
 *     consensus    a quorum has accepted values of one origin
 *
 * A voter is a router between two starts: it keeps its promises as long as it lives, and its next life is somebody else.
 */
import type { PeerName } from "../lib/mac.ts";
import {
  type AcceptedValue,
  MAX_NODES,
  MAX_VALUE_NAMES,
  type NodeClaims,
  type NodeId,
  type ProposalId,
} from "../wire/ipam.ts";

const NO_PROPOSAL: ProposalId = { round: 0, proposer: { name: 0 as PeerName, uid: 0n } };
const NO_VALUE: AcceptedValue = { value: [], origin: NO_PROPOSAL };
const NO_CLAIMS: NodeClaims = { promise: NO_PROPOSAL, accepted: NO_PROPOSAL, acceptedValue: NO_VALUE };

/** What every voter claims, as pairs. */
export type PaxosState = readonly (readonly [NodeId, NodeClaims])[];

/** The order in which proposals outdo each other: by round, then by name and start of who made them. */
export function precedes(a: ProposalId, b: ProposalId): boolean {
  if (a.round !== b.round) return a.round < b.round;
  if (a.proposer.name !== b.proposer.name) return a.proposer.name < b.proposer.name;
  return a.proposer.uid < b.proposer.uid;
}

/** The names in a value, ascending, each once: the seeds of the ring. */
export function seedsOf(value: readonly PeerName[]): PeerName[] {
  return [...new Set(value)].sort((a, b) => a - b);
}

export class Paxos {
  readonly #us: NodeId;
  /** How many voters must agree; 0: not known yet, there is no consensus then. */
  #quorum = 0;
  readonly #knows = new Map<string, readonly [NodeId, NodeClaims]>();
  /** Names in the values of all claims together. */
  #valueNames = 0;

  constructor(us: NodeId) {
    this.#us = us;
  }

  get quorum(): number {
    return this.#quorum;
  }

  set quorum(quorum: number) {
    this.#quorum = quorum;
  }

  get knownNodes(): number {
    return this.#knows.size;
  }

  state(): PaxosState {
    return [...this.#knows.values()];
  }

  propose(): void {
    let round = 0;
    for (const [, { promise, accepted }] of this.#knows.values()) {
      round = Math.max(round, promise.round, accepted.round);
    }
    // Only malice gets there; numbers beyond it are no longer exact.
    if (round >= Number.MAX_SAFE_INTEGER) return;
    this.#set(this.#us, { ...this.#ours, promise: { round: round + 1, proposer: this.#us } });
    if (this.#quorum === 1) this.think();
  }

  /** Takes over what others know; whether anything was news. */
  update(theirs: PaxosState): boolean {
    let changed = false;
    for (const [node, claims] of theirs) {
      const known = this.#knows.get(keyOf(node))?.[1];
      if (known === undefined) {
        if (this.#knows.size < MAX_NODES && this.#set(node, claims)) changed = true;
        continue;
      }
      const promise = precedes(known.promise, claims.promise) ? claims.promise : known.promise;
      const better = precedes(known.accepted, claims.accepted) ? claims : known;
      if (promise === known.promise && better === known) continue;
      const { accepted, acceptedValue } = better;
      if (this.#set(node, { promise, accepted, acceptedValue })) changed = true;
    }
    return changed;
  }

  /** Draws conclusions from what is known; whether we now claim something else. */
  think(): boolean {
    const before = this.#ours;
    let { promise, accepted, acceptedValue } = before;
    const claims = [...this.#knows.values()].map(([, claims]) => claims);
    for (const other of claims) if (precedes(promise, other.promise)) promise = other.promise;
    if (sameNode(promise.proposer, this.#us)) {
      const value = this.#valueFor(promise, claims);
      if (value !== undefined) {
        accepted = promise;
        acceptedValue = value;
      }
    }
    const follower = claims.find((other) => sameProposal(other.accepted, promise));
    if (follower !== undefined) ({ accepted, acceptedValue } = follower);
    const same = sameProposal(promise, before.promise) && sameProposal(accepted, before.accepted) &&
      sameProposal(acceptedValue.origin, before.acceptedValue.origin);
    return !same && this.#set(this.#us, { promise, accepted, acceptedValue });
  }

  /** What was agreed on; undefined: nothing yet. */
  consensus(): AcceptedValue | undefined {
    if (this.#quorum === 0) return undefined;
    const counts = new Map<string, number>();
    for (const [, { accepted, acceptedValue }] of this.#knows.values()) {
      if (accepted.round === 0) continue;
      const { round, proposer } = acceptedValue.origin;
      const origin = `${round} ${keyOf(proposer)}`;
      const count = (counts.get(origin) ?? 0) + 1;
      if (count >= this.#quorum) return acceptedValue;
      counts.set(origin, count);
    }
    return undefined;
  }

  /** The value to accept for a proposal of ours, if a quorum has promised it. */
  #valueFor(promise: ProposalId, all: readonly NodeClaims[]): AcceptedValue | undefined {
    let count = 0;
    let best: NodeClaims = NO_CLAIMS;
    for (const claims of all) {
      if (!sameProposal(claims.promise, promise)) continue;
      count++;
      if (precedes(best.accepted, claims.accepted)) best = claims;
    }
    if (count < this.#quorum) return undefined;
    if (best.accepted.round > 0) return best.acceptedValue;
    return { value: [...this.#knows.values()].map(([{ name }]) => name), origin: promise };
  }

  get #ours(): NodeClaims {
    return this.#knows.get(keyOf(this.#us))?.[1] ?? NO_CLAIMS;
  }

  /** False: there is no room, which only malice takes up. */
  #set(node: NodeId, claims: NodeClaims): boolean {
    const key = keyOf(node);
    const before = this.#knows.get(key)?.[1] ?? NO_CLAIMS;
    const names = this.#valueNames + claims.acceptedValue.value.length - before.acceptedValue.value.length;
    if (names > MAX_VALUE_NAMES) return false;
    this.#valueNames = names;
    this.#knows.set(key, [node, claims]);
    return true;
  }
}

function keyOf({ name, uid }: NodeId): string {
  return `${name} ${uid}`;
}

function sameNode(a: NodeId, b: NodeId): boolean {
  return a.name === b.name && a.uid === b.uid;
}

function sameProposal(a: ProposalId, b: ProposalId): boolean {
  return a.round === b.round && sameNode(a.proposer, b.proposer);
}
