/**
 * What routers with `--ipalloc-reclaim` tell each other, on a channel of their own: whom they miss and for how long, and whose addresses
 * they are about to take over. A router says so of itself; who says it stands in the envelope.
 *
 *     AfterMs uint | Majority bool | Absent slice of {Peer uint, ForMs uint, Seen bool} | Intends slice of uint
 */
import type { PeerName } from "../lib/mac.ts";
import { BOOL, decodeGob, encodeGob, type SchemaOf, slice, struct, unsigned } from "./gob.ts";

/** An owner of addresses that is out of reach of who tells it. */
export interface Absence {
  readonly peer: PeerName;
  /** At least so long. */
  readonly forMs: number;
  /** Who tells it saw the peer before; otherwise the peer may have been here until a moment before the teller was. */
  readonly seen: boolean;
}

export interface ReclaimAnnouncement {
  /** After how long an absence addresses may be taken over. */
  readonly afterMs: number;
  /** The teller has a majority in reach. */
  readonly majority: boolean;
  readonly absent: readonly Absence[];
  /** Whose addresses the teller takes over shortly, unless somebody objects. */
  readonly intends: readonly PeerName[];
}

/** More owners than these are hardly missed at once; each in its turn. */
export const MAX_ABSENT = 1024;

const PEER = unsigned(48) as SchemaOf<number> as SchemaOf<PeerName>;
const MS = unsigned(53);
const ANNOUNCEMENT = struct("ReclaimAnnouncement", {
  AfterMs: MS,
  Majority: BOOL,
  Absent: slice(struct("Absence", { Peer: PEER, ForMs: MS, Seen: BOOL }), "", MAX_ABSENT),
  Intends: slice(PEER, "", MAX_ABSENT),
});

export function encodeReclaim({ afterMs, majority, absent, intends }: ReclaimAnnouncement): Uint8Array {
  return encodeGob(ANNOUNCEMENT, {
    AfterMs: afterMs,
    Majority: majority,
    Absent: absent.map(({ peer, forMs, seen }) => ({ Peer: peer, ForMs: Math.floor(forMs), Seen: seen })),
    Intends: intends,
  });
}

/** Throws WireError. */
export function decodeReclaim(octets: Uint8Array): ReclaimAnnouncement {
  const { AfterMs, Majority, Absent, Intends } = decodeGob(octets, ANNOUNCEMENT);
  return {
    afterMs: AfterMs,
    majority: Majority,
    absent: Absent.map(({ Peer, ForMs, Seen }) => ({ peer: Peer, forMs: ForMs, seen: Seen })),
    intends: Intends,
  };
}
