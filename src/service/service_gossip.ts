/** What is told of services, as it waits to be sent on a connection. */
import type { PeerName } from "../lib/mac.ts";
import type { GossipData } from "../mesh/gossip.ts";
import { encodeHeads, encodeRecords, type Head } from "../wire/service.ts";
import type { OwnerRecords } from "./owner_records.ts";

/** So much of others' broadcasts waits for one slow connection; who misses some asks for it. */
const MAX_WAITING_OCTETS = 1 << 20;
/** What a payload takes beside its octets. */
const PAYLOAD_COST = 1024;

/** How far we know some owners, or all (undefined), as it is when it is sent. */
export class Heads implements GossipData {
  constructor(
    readonly by: PeerName,
    readonly headsOf: (owners: ReadonlySet<PeerName> | undefined) => readonly Head[],
    readonly owners?: ReadonlySet<PeerName>,
  ) {}

  merge(later: GossipData): GossipData {
    const { owners } = later as Heads;
    if (this.owners === undefined || owners === undefined) return new Heads(this.by, this.headsOf);
    return new Heads(this.by, this.headsOf, new Set([...this.owners, ...owners]));
  }

  encode(): readonly Uint8Array[] {
    return encodeHeads(this.by, this.headsOf(this.owners));
  }
}

/** What we changed after `since`, as it is when it is sent. */
export class OwnChanges implements GossipData {
  constructor(readonly own: OwnerRecords, readonly since: number) {}

  merge(later: GossipData): GossipData {
    if (later instanceof OwnChanges) return this.since <= later.since ? this : later;
    return new Payloads([...this.encode(), ...later.encode() as Uint8Array[]]);
  }

  encode(): readonly Uint8Array[] {
    const telling = this.own.changedSince(this.since);
    // It has waited so long that removals are forgotten: who missed them asks for everything.
    return telling.full ? [] : encodeRecords(telling);
  }
}

/** Broadcasts as they came, or as they are to go. */
export class Payloads implements GossipData {
  readonly heldOctets: number;

  constructor(readonly payloads: readonly Uint8Array[]) {
    this.heldOctets = payloads.reduce((sum, { length }) => sum + length + PAYLOAD_COST, 0);
  }

  merge(later: GossipData): GossipData {
    const all = [...this.payloads, ...later.encode() as Uint8Array[]];
    let octets = all.reduce((sum, { length }) => sum + length + PAYLOAD_COST, 0);
    let first = 0;
    while (octets > MAX_WAITING_OCTETS && first < all.length - 1) octets -= all[first++]!.length + PAYLOAD_COST;
    return new Payloads(first === 0 ? all : all.slice(first));
  }

  encode(): readonly Uint8Array[] {
    return this.payloads;
  }
}
