/** What the allocator has to show, as values; texts are made elsewhere. */
import type { Cidr, Ipv4 } from "../lib/ip.ts";
import { NO_PEER, type PeerName } from "../lib/mac.ts";
import type { Conflict } from "./conflicts.ts";
import type { Contest, Contests } from "./contests.ts";
import type { Election, ElectionStatus } from "./election.ts";
import type { Nicknames } from "./nicknames.ts";
import type { AllocateRequest, ClaimRequest, Operations } from "./operations.ts";
import { sizeOf } from "./range.ts";
import type { Reclaim, ReclaimStatus } from "./reclaim.ts";
import type { Territory } from "./territory.ts";

export interface IpamStatus {
  readonly range: Cidr;
  /** Addresses of the universe. */
  readonly size: number;
  /** Addresses of ours that are in use. */
  readonly active: number;
  /** Undefined where nobody waits for an agreement. */
  readonly election: ElectionStatus | undefined;
  /** The ring; a range that runs over the end of the universe is two. */
  readonly entries: readonly EntryStatus[];
  readonly pendingClaims: readonly Pick<ClaimRequest, "id" | "cidr">[];
  readonly pendingAllocations: readonly AllocateRequest[];
  readonly conflicts: readonly Conflict[];
  readonly contests: readonly Contest[];
  /** Undefined where the option is off. */
  readonly reclaim: ReclaimStatus | undefined;
}

export interface EntryStatus {
  readonly token: Ipv4;
  readonly size: number;
  /** NO_PEER: nobody's, since a peer left without an heir. */
  readonly peer: PeerName;
  readonly nickname: string;
  readonly inReach: boolean;
  readonly version: number;
}

export interface StatusSources {
  readonly range: Cidr;
  readonly territory: Territory;
  readonly nicknames: Nicknames;
  readonly election: Election | undefined;
  readonly operations: Operations;
  readonly contests: Contests;
  readonly conflicts: readonly Conflict[];
  readonly reclaim: Reclaim | undefined;
  /** Ourselves too. */
  readonly inReach: (name: PeerName) => boolean;
}

export function statusOf(s: StatusSources): IpamStatus {
  const { ring } = s.territory;
  const reached = new Map<PeerName, boolean>();
  const inReach = (peer: PeerName) => {
    let known = reached.get(peer);
    if (known === undefined) reached.set(peer, known = peer !== NO_PEER && s.inReach(peer));
    return known;
  };
  return {
    range: s.range,
    size: sizeOf(ring.universe),
    active: s.territory.activeCount,
    election: s.election?.status(),
    entries: ring.entries.flatMap(({ peer, version }, i) =>
      ring.rangesOf(i).map((range) => ({
        token: range.start,
        size: sizeOf(range),
        peer,
        nickname: s.nicknames.get(peer) ?? "",
        inReach: inReach(peer),
        version,
      }))
    ),
    pendingClaims: s.operations.pendingClaims,
    pendingAllocations: s.operations.pendingAllocations,
    conflicts: s.conflicts,
    contests: s.contests.list(),
    reclaim: s.reclaim?.status(ring.owners()),
  };
}
