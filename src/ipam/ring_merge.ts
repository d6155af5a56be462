/**
 * How two rings become one: entry by entry, in the order of their tokens.
 *
 *     one has a token that the other lacks   it is taken over; in a range of ours only where we use none of what it cuts off
 *     newer version                          wins; over a range of ours only where we use none of it
 *     newer version, both say it is ours     what we know of our own stands: we count up over it (it comes from an earlier life)
 *     same version, another owner            the larger free space wins, ours where it is equal; not over a range that we use
 *
 * What cannot be decided so ends the merge as a conflict. A router that yields has no conflicts of this kind: it lets the range go, and
 * what it uses in there it has to ask the new owner for. Of two owners with the same version and the same free space the lower name
 * wins for it, so that all that yield decide alike.
 */
import { formatIpv4, type Ipv4 } from "../lib/ip.ts";
import { formatMac, type PeerName } from "../lib/mac.ts";
import type { RingEntry } from "../wire/ipam.ts";
import { type AddressRange, distance, splitOverEnd } from "./range.ts";

/** Versions have 32 bits; one that came to the end is not counted further. */
export const MAX_VERSION = 0xffff_ffff;

export interface MergeRules {
  /** Whether we use an address in one of these ranges. */
  hasAllocations(ranges: readonly AddressRange[]): boolean;
  /** Ranges of ours are let go where others say they are theirs, used or not. */
  readonly yields?: boolean;
}

export interface MergedEntries {
  /** Ours themselves where nothing is another than before. */
  readonly entries: readonly RingEntry[];
  /** At least one of theirs was taken over. */
  readonly updated: boolean;
  /** Versions of ours that were counted up, by token; they stand even if there is a conflict. */
  readonly outdone: ReadonlyMap<Ipv4, number>;
  readonly conflict: string | undefined;
}

interface Ours {
  readonly universe: AddressRange;
  readonly us: PeerName;
  readonly entries: readonly RingEntry[];
}

export function mergeEntries(ours: Ours, theirs: readonly RingEntry[], rules: MergeRules): MergedEntries {
  return new Merge(ours, rules).run(theirs);
}

class Merge {
  readonly #o: Ours;
  readonly #rules: MergeRules;
  readonly #result: RingEntry[] = [];
  readonly #outdone = new Map<Ipv4, number>();
  #updated = false;
  #clipped = false;
  #conflict: string | undefined;
  /** The entry before this place is one of ours that stayed. */
  #afterOurs = false;

  constructor(ours: Ours, rules: MergeRules) {
    this.#o = ours;
    this.#rules = rules;
  }

  run(theirs: readonly RingEntry[]): MergedEntries {
    const { entries } = this.#o;
    let i = 0;
    let j = 0;
    while (i < entries.length && j < theirs.length && this.#conflict === undefined) {
      const mine = entries[i]!;
      const other = theirs[j]!;
      if (mine.token < other.token) {
        this.#keep(mine);
        i++;
      } else if (mine.token > other.token) {
        this.#insert(other, mine.token);
        j++;
      } else {
        this.#mergeToken(mine, other, i);
        i++;
        j++;
      }
    }
    for (; j < theirs.length && this.#conflict === undefined; j++) this.#append(theirs[j]!);
    for (; i < entries.length; i++) this.#result.push(entries[i]!);
    this.#clip();
    const same = !this.#updated && !this.#clipped && this.#outdone.size === 0;
    return {
      entries: same ? entries : this.#result,
      updated: this.#updated,
      outdone: this.#outdone,
      conflict: this.#conflict,
    };
  }

  /** A token that we lack, before one of ours. */
  #insert(other: RingEntry, nextToken: Ipv4): void {
    if (this.#cutsOurs(other) && this.#uses(other.token, nextToken)) return this.#refuse(intrusion(other));
    this.#take(other);
  }

  /** A token that we lack, behind all of ours. */
  #append(other: RingEntry): void {
    if (this.#cutsOurs(other) && this.#rules.yields !== true) return this.#refuse(intrusion(other));
    this.#take(other);
  }

  #mergeToken(mine: RingEntry, other: RingEntry, place: number): void {
    const isOurs = mine.peer === this.#o.us;
    if (mine.version > other.version || mine.version === other.version && mine.peer === other.peer) {
      return this.#keep(mine);
    }
    const usesIt = () => this.#uses(mine.token, this.#tokenAfter(place));
    if (mine.version === other.version) {
      if (isOurs && usesIt()) return this.#refuse(inconsistency(mine, other));
      return this.#theyWinTie(mine, other) ? this.#take(other) : this.#keep(mine);
    }
    if (!isOurs) return this.#take(other);
    if (other.peer !== this.#o.us) return usesIt() ? this.#refuse(takeOver(mine, other)) : this.#take(other);
    const version = Math.min(other.version + 1, MAX_VERSION);
    this.#outdone.set(mine.token, version);
    this.#result.push({ ...mine, version });
  }

  #theyWinTie(mine: RingEntry, other: RingEntry): boolean {
    if (mine.free !== other.free) return other.free > mine.free;
    return this.#rules.yields === true && other.peer < mine.peer;
  }

  #cutsOurs(other: RingEntry): boolean {
    return this.#afterOurs && other.peer !== this.#o.us;
  }

  #uses(token: Ipv4, nextToken: Ipv4): boolean {
    if (this.#rules.yields === true) return false;
    return this.#rules.hasAllocations(splitOverEnd(this.#o.universe, { start: token, end: nextToken }));
  }

  #keep(mine: RingEntry): void {
    this.#result.push(mine);
    this.#afterOurs = mine.peer === this.#o.us;
  }

  #take(other: RingEntry): void {
    this.#result.push(other);
    this.#updated = true;
    this.#afterOurs = false;
  }

  #refuse(conflict: string): void {
    this.#conflict = conflict;
  }

  #tokenAfter(place: number): Ipv4 {
    const { entries } = this.#o;
    return entries[(place + 1) % entries.length]!.token;
  }

  /** A range of ours that was cut has not more free addresses than it has addresses. */
  #clip(): void {
    const result = this.#result;
    for (const [i, entry] of result.entries()) {
      if (entry.peer !== this.#o.us && this.#rules.yields !== true) continue;
      const most = distance(this.#o.universe, entry.token, result[(i + 1) % result.length]!.token);
      if (entry.free <= most) continue;
      result[i] = { ...entry, free: most };
      this.#clipped = true;
    }
  }
}

function inconsistency(mine: RingEntry, other: RingEntry): string {
  return `Inconsistent entries for ${formatIpv4(mine.token)}: owned by ${
    formatMac(mine.peer)
  } but incoming message says ${formatMac(other.peer)}`;
}

function intrusion(other: RingEntry): string {
  return `Peer ${formatMac(other.peer)} says it owns the IP range from ${formatIpv4(other.token)}, which I think I own`;
}

function takeOver(mine: RingEntry, other: RingEntry): string {
  return `Received update for IP range I own at ${
    formatIpv4(mine.token)
  } v${mine.version}: incoming message says owner ${formatMac(other.peer)} v${other.version}`;
}
