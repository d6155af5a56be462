/**
 * Taking over the addresses of owners that are gone for good (`--ipalloc-reclaim`). Who is gone and who is only out of reach cannot be
 * told apart; what can be had is that never two take over the same, and that nothing happens unseen.
 *
 * **When.** A router, the *heir*, takes over an owner's ranges when all of this holds:
 *  1. The owner has told that it has the option too: it lets go what was taken over when it returns. Old routers never tell.
 *  2. The heir has missed it for the longer one of the two routers' times. Only time counts in which the heir ran, looked, and had a
 *     majority in reach: not what passed while it was down, stalled, suspended or itself cut off. Seeing the owner once starts it anew.
 *  3. A strict majority of the electorate is in reach, and has been for a while.
 *  4. No router with the option that was in reach within that while has a lower name, unless it says that it sees no majority.
 *  5. Every router with the option in reach has told, after the heir told its intent, that it misses the owner too; and if it ever
 *     saw it and counts, then for long enough.
 * The transfer counts versions up by so much that whatever the owner did meanwhile is older.
 *
 * **Two sides never both take.** The electorate is who owned something when a majority was last in reach, together with who owns
 * something now; votes are those in reach that are of both. The first part follows the ring only while a majority is in reach (or nobody
 * is missed). Cut a mesh in two: both sides begin with one electorate, and at most one has more than half of it; the other one's
 * stays as it is, however many join there or are given ranges: they raise the number that is needed, not the one that there is.
 * Members that change sides bring the ring along, so that new owners count at once, and who was taken over votes no more. And within one
 * side two heirs would both have had a majority all the while of (3). The two majorities have a member in common, over which the two
 * reach each other, so that by (4) the lower one alone goes on. Topology takes less than that while to agree.
 *
 * **The owner's side.** A router that others may think gone must not make it worse. While those out of its reach could be a majority
 * without it, it gives no range away, as who takes over must know all tokens, and does not tell free counts, which would count versions
 * up. Once that has lasted nearly as long as the time to wait it gives out no address either: others may have it by now. What is held
 * stays held. (Of two owners one alone is never a majority, so that neither stops when the other one dies.) Back in reach it
 * hears of the transfer, lets the ranges go, and asks their new owner for each address in use; what it is refused is held
 * twice, and shown.
 *
 * **Restarts.** Times are of the monotonic clock. They continue from what was stored if this is the same boot and the router was down
 * for minutes at most; otherwise missing an owner starts from nothing. Being cut off is counted the other way: time in which the
 * router was down, or of which nothing is known, counts as being cut off; by the wall clock where the machine has booted since.
 */
import type { Logger } from "../lib/log.ts";
import { formatMac, type PeerName } from "../lib/mac.ts";
import type { Instant } from "../lib/time.ts";
import { type Absence, MAX_ABSENT, type ReclaimAnnouncement } from "../wire/reclaim.ts";

export const RECLAIM_TICK_MS = 10_000;
/** By how much a transfer of this kind counts versions up: an owner that is cut off hardly counts at all. */
export const RECLAIM_VERSIONS = 1 << 20;

/** How long a majority must have been in reach, and lower names out of it; topology agrees within seconds, dead links within a minute. */
const SETTLE_MS = 120_000;
/** From telling that we take over to doing it. */
const INTENT_MS = 90_000;
/** Everybody tells so often. */
const ANNOUNCE_MS = 30_000;
/** What was told longer ago says nothing of now. */
const FRESH_MS = 75_000;
/** Who is in reach and has not told for so long does not have the option any more. */
const SILENT_MS = 5 * 60_000;
/** After having been cut off: gossip has come by then. */
const CONTACT_MS = 35_000;
/** A router that was down for longer does not know who was here meanwhile. */
const RESTART_MS = 10 * 60_000;
/** Of the time to wait, after which a router that is cut off gives out nothing: others may be a little quicker. */
const FENCE_SHARE = 0.9;
/** Times are stored so often at least while somebody is missed. */
const STORE_MS = 60_000;

const MAX_KNOWN = 4096;

/** What is to be remembered. */
export interface StoredReclaim {
  /** Who has the option, and its time. */
  readonly announced: readonly (readonly [PeerName, afterMs: number])[];
  readonly electorate: readonly PeerName[];
  readonly absent: readonly (readonly [PeerName, forMs: number, seen: boolean])[];
  readonly isolatedMs: number;
}

/** How long ago something was stored. */
export interface Elapsed {
  /** Infinity where nobody knows. */
  readonly ms: number;
  /** By a clock that never jumps. */
  readonly exact: boolean;
}

export interface ReclaimOptions {
  readonly us: PeerName;
  readonly afterMs: number;
  readonly stored: { readonly state: StoredReclaim; readonly elapsed: Elapsed } | undefined;
  /** Whether the mesh knows a way to a peer. */
  readonly inReach: (name: PeerName) => boolean;
  readonly log: Logger;
}

export interface ReclaimStatus {
  readonly afterMs: number;
  /** A strict majority of the electorate is in reach. */
  readonly majority: boolean;
  /** Others may have taken over what is ours: nothing is given out. */
  readonly fenced: boolean;
  readonly absent: readonly { readonly peer: PeerName; readonly forMs: number; readonly reclaimable: boolean }[];
}

interface Missed {
  forMs: number;
  readonly seen: boolean;
}

/** What a peer told, and when. */
interface Heard {
  readonly majority: boolean;
  readonly absent: ReadonlyMap<PeerName, Absence>;
  readonly at: Instant;
}

/** How the electorate stands. */
interface Standing {
  readonly size: number;
  readonly votes: number;
  readonly outOfReach: number;
}

export class Reclaim {
  readonly #o: ReclaimOptions;
  readonly #announced = new Map<PeerName, number>();
  /** What peers in reach told last. */
  readonly #heard = new Map<PeerName, Heard>();
  /** When peers with the option were last in reach. */
  readonly #reachedAt = new Map<PeerName, Instant>();
  readonly #missed = new Map<PeerName, Missed>();
  readonly #intents = new Map<PeerName, Instant>();
  #electorate = new Set<PeerName>();
  /** Owners that are to join it, and since when. */
  readonly #joining = new Map<PeerName, Instant>();
  #isolatedMs = 0;
  #majoritySince: Instant | undefined;
  /** Every owner is in reach. */
  #completeSince: Instant | undefined;
  #contactSince: Instant | undefined;
  #observedAt: Instant;
  #announceAt: Instant;
  #storedAt: Instant;
  #dirty = false;

  constructor(o: ReclaimOptions, now: Instant) {
    this.#o = o;
    this.#observedAt = this.#announceAt = this.#storedAt = now;
    if (o.stored !== undefined) this.#restore(o.stored.state, o.stored.elapsed);
  }

  /** Looks around; called every `RECLAIM_TICK_MS`. @param owners of the ring */
  observe(owners: ReadonlySet<PeerName>, now: Instant): void {
    const passed = now - this.#observedAt;
    this.#observedAt = now;
    this.#updateElectorate(owners, now);
    const standing = this.#standing(owners);
    const majority = isMajority(standing);
    this.#majoritySince = majority ? this.#majoritySince ?? now : undefined;
    // What we slept through we have not seen.
    this.#missOwners(owners, majority ? Math.min(passed, 2 * RECLAIM_TICK_MS) : 0);
    this.#noteIsolation(standing, passed, now);
    this.#notePeers(owners, now);
    const due = Math.max(STORE_MS, this.#o.afterMs / 20);
    if (now - this.#storedAt >= (this.#missed.size > 0 ? STORE_MS : due)) this.#dirty = true;
  }

  /** Whom to take over now, if anybody. @param owners of the ring */
  due(owners: ReadonlySet<PeerName>, now: Instant): PeerName | undefined {
    for (const [peer, { forMs }] of this.#missed) {
      const wait = this.#waitFor(peer);
      if (wait === undefined || forMs < wait || !this.#mayTake(peer, wait, owners, now)) {
        this.#intents.delete(peer);
        continue;
      }
      const since = this.#intents.get(peer);
      if (since === undefined) {
        this.#o.log.warn("about to take over the addresses of a peer that is gone", { peer: formatMac(peer) });
        this.#intents.set(peer, now);
        this.#announceAt = now;
      } else if (now - since >= INTENT_MS && this.#allHeardSince(since)) {
        this.#intents.delete(peer);
        return peer;
      }
    }
    return undefined;
  }

  /** What to tell, when it is time to. */
  announcement(now: Instant): ReclaimAnnouncement | undefined {
    if (now < this.#announceAt) return undefined;
    this.#announceAt = now + ANNOUNCE_MS;
    const absent = [...this.#missed].map(([peer, { forMs, seen }]) => ({ peer, forMs, seen }));
    // All tell of the same ones first, where they are too many.
    absent.sort((a, b) => a.peer - b.peer);
    return {
      afterMs: this.#o.afterMs,
      majority: this.#majoritySince !== undefined,
      absent: absent.slice(0, MAX_ABSENT),
      intends: [...this.#intents.keys()].slice(0, MAX_ABSENT),
    };
  }

  handleAnnouncement(peer: PeerName, announcement: ReclaimAnnouncement, now: Instant): void {
    if (peer === this.#o.us || !this.#o.inReach(peer)) return;
    if (!this.#heard.has(peer)) {
      if (this.#heard.size >= MAX_KNOWN) return;
      this.#announceAt = Math.min(this.#announceAt, now + RECLAIM_TICK_MS); // it is to know us too
    }
    const { majority, absent } = announcement;
    this.#heard.set(peer, { majority, absent: new Map(absent.map((absence) => [absence.peer, absence])), at: now });
    this.#reachedAt.set(peer, now);
    if (this.#announced.get(peer) === announcement.afterMs) return;
    if (!this.#announced.has(peer) && this.#announced.size >= MAX_KNOWN) return;
    this.#announced.set(peer, announcement.afterMs);
    this.#dirty = true;
  }

  /** Whether others could decide without us that we are gone: then who takes over must know all tokens. */
  mayDonate(owners: ReadonlySet<PeerName>): boolean {
    const { votes, outOfReach } = this.#standing(owners);
    return outOfReach <= votes && this.mayAllocate;
  }

  /** Whether nobody can have taken over what is ours. */
  get mayAllocate(): boolean {
    return this.#isolatedMs < FENCE_SHARE * this.#o.afterMs;
  }

  /** Whether there is something to store, once. */
  takeDirty(now: Instant): boolean {
    const dirty = this.#dirty;
    this.#dirty = false;
    if (dirty) this.#storedAt = now;
    return dirty;
  }

  stored(): StoredReclaim {
    return {
      announced: [...this.#announced],
      electorate: [...this.#electorate],
      absent: [...this.#missed].map(([peer, { forMs, seen }]) => [peer, forMs, seen]),
      isolatedMs: this.#isolatedMs,
    };
  }

  status(owners: ReadonlySet<PeerName>): ReclaimStatus {
    return {
      afterMs: this.#o.afterMs,
      majority: isMajority(this.#standing(owners)),
      fenced: !this.mayAllocate,
      absent: [...this.#missed].map(([peer, { forMs }]) => ({ peer, forMs, reclaimable: this.#announced.has(peer) })),
    };
  }

  #restore({ announced, electorate, absent, isolatedMs }: StoredReclaim, elapsed: Elapsed): void {
    for (const [peer, afterMs] of announced) this.#announced.set(peer, afterMs);
    this.#electorate = new Set(electorate);
    if (elapsed.exact && elapsed.ms <= RESTART_MS) {
      for (const [peer, forMs, seen] of absent) this.#missed.set(peer, { forMs, seen });
    }
    this.#isolatedMs = isolatedMs + elapsed.ms;
  }

  #standing(owners: ReadonlySet<PeerName>): Standing {
    const all = new Set([...this.#electorate, ...owners]);
    let votes = 0;
    let outOfReach = 0;
    for (const peer of all) {
      if (!this.#reaches(peer)) outOfReach++;
      else if (owners.has(peer) && this.#electorate.has(peer)) votes++;
    }
    return { size: all.size, votes, outOfReach };
  }

  #reaches(peer: PeerName): boolean {
    return peer === this.#o.us || this.#o.inReach(peer);
  }

  /** The electorate follows the ring only while a majority is in reach. */
  #updateElectorate(owners: ReadonlySet<PeerName>, now: Instant): void {
    if (this.#electorate.size === 0 && owners.size > 0) {
      this.#electorate = new Set(owners);
      this.#dirty = true;
    }
    const complete = [...owners].every((peer) => this.#reaches(peer));
    this.#completeSince = complete ? this.#completeSince ?? now : undefined;
    const settled = complete && now - this.#completeSince! >= SETTLE_MS;
    if (!settled && !isMajority(this.#standing(owners))) return this.#joining.clear();
    for (const peer of this.#electorate) {
      if (owners.has(peer)) continue;
      this.#electorate.delete(peer);
      this.#dirty = true;
    }
    for (const peer of this.#joining.keys()) if (!owners.has(peer)) this.#joining.delete(peer);
    for (const peer of owners) {
      if (this.#electorate.has(peer)) continue;
      const since = this.#joining.get(peer);
      if (since === undefined) {
        this.#joining.set(peer, now);
      } else if (now - since >= SETTLE_MS) {
        this.#joining.delete(peer);
        this.#electorate.add(peer);
        this.#dirty = true;
      }
    }
  }

  #missOwners(owners: ReadonlySet<PeerName>, passed: number): void {
    for (const peer of this.#missed.keys()) {
      if (!owners.has(peer) || this.#reaches(peer)) this.#missed.delete(peer);
    }
    for (const peer of owners) {
      if (this.#reaches(peer)) continue;
      const missed = this.#missed.get(peer);
      if (missed !== undefined) missed.forMs += passed;
      else if (this.#missed.size < MAX_KNOWN) {
        this.#missed.set(peer, { forMs: 0, seen: this.#reachedAt.has(peer) });
        this.#dirty = true;
      }
    }
  }

  #noteIsolation({ votes, outOfReach }: Standing, passed: number, now: Instant): void {
    const before = this.mayAllocate;
    if (outOfReach > votes) {
      this.#isolatedMs += passed;
      this.#contactSince = undefined;
    } else {
      this.#contactSince ??= now;
      if (now - this.#contactSince >= CONTACT_MS || before) this.#isolatedMs = 0;
    }
    if (before && !this.mayAllocate) {
      this.#o.log.warn("cut off for so long that others may have taken over our addresses: none are given out");
    }
  }

  #notePeers(owners: ReadonlySet<PeerName>, now: Instant): void {
    for (const peer of owners) if (this.#reaches(peer)) this.#reachedAt.set(peer, now);
    for (const peer of this.#announced.keys()) {
      if (this.#reaches(peer)) {
        this.#reachedAt.set(peer, now);
        const heard = this.#heard.get(peer);
        // Right after its start it has not told yet; then this is the first time it is in reach.
        if (heard === undefined) this.#heard.set(peer, { majority: true, absent: new Map(), at: now - FRESH_MS });
        else if (now - heard.at >= SILENT_MS) this.#forget(peer);
      } else {
        this.#heard.delete(peer);
        if (!owners.has(peer) && now - (this.#reachedAt.get(peer) ?? -Infinity) >= SETTLE_MS) this.#forget(peer);
      }
    }
    for (const peer of this.#reachedAt.keys()) {
      if (!this.#announced.has(peer) && !owners.has(peer)) this.#reachedAt.delete(peer);
    }
  }

  #forget(peer: PeerName): void {
    this.#announced.delete(peer);
    this.#heard.delete(peer);
    this.#dirty = true;
  }

  /** How long its owner must be missed; undefined: it has not told that it lets go. */
  #waitFor(peer: PeerName): number | undefined {
    const theirs = this.#announced.get(peer);
    return theirs === undefined ? undefined : Math.max(theirs, this.#o.afterMs);
  }

  #mayTake(missed: PeerName, wait: number, owners: ReadonlySet<PeerName>, now: Instant): boolean {
    if (!isMajority(this.#standing(owners)) || now - (this.#majoritySince ?? now) < SETTLE_MS) return false;
    for (const peer of this.#announced.keys()) {
      if (peer === missed || peer === this.#o.us) continue;
      const recently = now - (this.#reachedAt.get(peer) ?? -Infinity) < SETTLE_MS;
      if (peer < this.#o.us && recently && this.#heard.get(peer)?.majority !== false) return false;
      if (this.#reaches(peer) && !this.#agrees(peer, missed, wait, now)) return false;
    }
    return true;
  }

  #agrees(peer: PeerName, missed: PeerName, wait: number, now: Instant): boolean {
    const heard = this.#heard.get(peer);
    if (heard === undefined || now - heard.at >= FRESH_MS) return false;
    const absence = heard.absent.get(missed);
    return absence !== undefined && (!absence.seen || !heard.majority || absence.forMs >= wait);
  }

  #allHeardSince(since: Instant): boolean {
    return [...this.#announced.keys()].every((peer) =>
      peer === this.#o.us || !this.#reaches(peer) || (this.#heard.get(peer)?.at ?? -Infinity) > since
    );
  }
}

function isMajority({ size, votes }: Standing): boolean {
  return 2 * votes > size;
}
