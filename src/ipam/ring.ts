/**
 * Who owns which addresses: a ring of tokens, each of which begins a range that runs to the next token and, for the last one, over the end of
 * the universe to the first. Every router has the whole of it, changes only what it owns, and merges what others say; the rules of
 * merging are in ring_merge.ts.
 *
 *     start                                                    end = start
 *       ├── alpha v4 ──┼─ beta v0 ─┼───── alpha v1 ─────┼─ gamma ─┤
 *
 * A token is never taken away. Its owner counts its version up with each change, so that newer and older can be told apart; a
 * transfer by somebody else counts up by more than the owner will have done meanwhile.
 */
import { ProtocolError } from "../lib/errors.ts";
import { formatIpv4, type Ipv4 } from "../lib/ip.ts";
import { NO_PEER, type PeerName } from "../lib/mac.ts";
import type { RingEntry, RingValue } from "../wire/ipam.ts";
import { type AddressRange, contains, distance, formatRange, overlap, splitOverEnd } from "./range.ts";
import { MAX_VERSION, mergeEntries, type MergeRules } from "./ring_merge.ts";

/** By how much a transfer counts a version up. */
export const TRANSFER_VERSIONS = 100;

/** Why two rings cannot become one; the message says it as Weave Net 2.8 does. */
export class RingConflict extends ProtocolError {
  /** @param kind `malformed`: no ring at all; `entries`: both say that a range is theirs */
  constructor(readonly kind: "malformed" | "seeds" | "universe" | "entries", message: string) {
    super(message);
  }
}

export class Ring {
  readonly universe: AddressRange;
  readonly us: PeerName;
  /** Ascending by token. Never changed in place, so that a value of a moment stays. */
  #entries: readonly RingEntry[] = [];
  #seeds: readonly PeerName[] = [];

  constructor(universe: AddressRange, us: PeerName) {
    this.universe = universe;
    this.us = us;
  }

  get entries(): readonly RingEntry[] {
    return this.#entries;
  }

  get seeds(): readonly PeerName[] {
    return this.#seeds;
  }

  /** Nobody owns anything yet. */
  get empty(): boolean {
    return this.#entries.length === 0;
  }

  value(): RingValue {
    const { start, end } = this.universe;
    return { start, end, peer: this.us, entries: this.#entries, seeds: this.#seeds };
  }

  /** Takes over a stored ring of the same universe. Throws RingConflict where it is none. */
  restore(value: RingValue): void {
    checkRing(value);
    if (value.start !== this.universe.start || value.end !== this.universe.end) {
      throw new RingConflict("universe", "Received range differs from ours");
    }
    this.#entries = value.entries;
    this.#seeds = value.seeds;
  }

  /** The first division, among peers that are sorted and distinct: along the lines of networks. */
  divide(peers: readonly PeerName[]): void {
    if (!this.empty || peers.length === 0) {
      throw new RangeError("Cannot divide the ring: it must be empty, peers must not");
    }
    const entries: RingEntry[] = [];
    divideAmong(this.universe, peers, entries);
    this.#entries = entries;
    this.#seeds = peers;
  }

  /**
   * Folds in what another router says. True: something was news to us. Throws RingConflict; the ring is as before then, except for
   * versions of our own that had to be counted up.
   */
  merge(theirs: RingValue, rules: MergeRules): boolean {
    checkRing(theirs);
    if (this.#seeds.length > 0 && theirs.seeds.length > 0 && !sameNames(this.#seeds, theirs.seeds)) {
      throw new RingConflict("seeds", "Received ring was seeded differently from ours");
    }
    if (theirs.start !== this.universe.start || theirs.end !== this.universe.end) {
      throw new RingConflict("universe", "Received range differs from ours");
    }
    const { entries, updated, outdone, conflict } = mergeEntries(this, theirs.entries, rules);
    if (conflict === undefined) {
      const problem = problemOf({ ...this.universe, entries });
      if (problem === undefined) {
        this.#entries = entries;
        if (this.#seeds.length === 0) this.#seeds = theirs.seeds;
        return updated;
      }
      this.#outdo(outdone);
      throw new RingConflict("entries", `Merge of incoming data causes: ${problem}`);
    }
    this.#outdo(outdone);
    throw new RingConflict("entries", conflict);
  }

  /** Counts our versions up, as a merge found necessary. @param versions by token */
  #outdo(versions: ReadonlyMap<Ipv4, number>): void {
    if (versions.size === 0) return;
    this.#entries = this.#entries.map((entry) => {
      const version = versions.get(entry.token);
      return version === undefined ? entry : { ...entry, version };
    });
  }

  /** Whether a range is ours to give away: not where versions have come to their end, which only malice brings about. */
  canGrant(range: AddressRange): boolean {
    if (this.empty) return false;
    const first = this.#entries[this.#placeOf(range.start)]!;
    const within = this.#entries.filter(({ token }) => token > range.start && token < range.end);
    return [first, ...within].every((entry) => entry.peer === this.us && entry.version < MAX_VERSION);
  }

  /** Gives a part of what we own to another peer. Throws RangeError for what is not ours. */
  grant(range: AddressRange, to: PeerName): void {
    const { start, end } = range;
    const { universe, us } = this;
    if (start >= end || start < universe.start || end > universe.end || !this.canGrant(range)) {
      throw new RangeError(`Cannot grant ${formatRange(range)}: it is not ours`);
    }
    const place = this.#placeOf(start);
    const first = this.#entries[place]!;
    const startFree = Math.min(this.#distance(start, this.#tokenAfter(place)), end - start);
    const entries = this.#entries.map((entry) => {
      if (entry.token <= start || entry.token >= end) return entry;
      return changed(entry, { peer: to, free: Math.min(entry.free, end - entry.token) });
    });
    if (first.token === start) {
      entries[place] = changed(first, { peer: to, free: startFree });
    } else {
      entries[place] = changed(first, { free: this.#distance(first.token, start) });
      insertEntry(entries, { token: start, peer: to, version: 0, free: startFree });
    }
    // Behind the end of the universe comes its start.
    const behind = end === universe.end ? universe.start : end;
    if (!entries.some(({ token }) => token === behind)) {
      const following = (entries.find(({ token }) => token > behind) ?? entries[0]!).token;
      insertEntry(entries, { token: behind, peer: us, version: 0, free: this.#distance(behind, following) });
    }
    this.#entries = entries;
  }

  /** Makes one peer's ranges another's; which they are. @param versions by how much they count up */
  transfer(from: PeerName, to: PeerName, versions = TRANSFER_VERSIONS): AddressRange[] {
    const ranges = this.ownedRanges(from);
    this.#entries = this.#entries.map((entry) => {
      if (entry.peer !== from) return entry;
      return { ...entry, peer: to, version: Math.min(entry.version + versions, MAX_VERSION) };
    });
    return ranges;
  }

  /** Takes note of how much is free in each of our ranges. True: that is something new. */
  reportFree(freeIn: (range: AddressRange) => number): boolean {
    let entries: RingEntry[] | undefined;
    for (let i = 0; i < this.#entries.length; i++) {
      const entry = this.#entries[i]!;
      if (entry.peer !== this.us) continue;
      const free = this.rangesOf(i).reduce((sum, range) => sum + freeIn(range), 0);
      if (free === entry.free) continue;
      entries ??= this.#entries.slice();
      entries[i] = changed(entry, { free });
    }
    if (entries === undefined) return false;
    this.#entries = entries;
    return true;
  }

  /** Who owns an address of the universe; NO_PEER: nobody yet. */
  ownerOf(address: Ipv4): PeerName {
    if (this.empty) return NO_PEER;
    return this.#entries[this.#placeOf(address)]!.peer;
  }

  /** What belongs to a token, by its place: one range, or two where it runs over the end of the universe. */
  rangesOf(place: number): AddressRange[] {
    return splitOverEnd(this.universe, { start: this.#entries[place]!.token, end: this.#tokenAfter(place) });
  }

  /** Ascending; ranges of neighbouring tokens are not joined. */
  ownedRanges(peer: PeerName = this.us): AddressRange[] {
    const ranges: AddressRange[] = [];
    this.#entries.forEach((entry, i) => {
      if (entry.peer !== peer) return;
      const [first, second] = this.rangesOf(i);
      if (second === undefined) return ranges.push(first!);
      ranges.unshift(first!);
      ranges.push(second);
    });
    return ranges;
  }

  /** How many addresses each owner has. */
  sizes(): Map<PeerName, number> {
    const sizes = new Map<PeerName, number>();
    this.#entries.forEach(({ token, peer }, i) => {
      sizes.set(peer, (sizes.get(peer) ?? 0) + this.#distance(token, this.#tokenAfter(i)));
    });
    return sizes;
  }

  owners(): Set<PeerName> {
    return new Set(this.#entries.map((entry) => entry.peer));
  }

  /** Who else says to have free addresses in ranges that overlap this one, and how many in all of those. */
  donorsIn(range: AddressRange): Map<PeerName, number> {
    const donors = new Map<PeerName, number>();
    this.#entries.forEach(({ peer, free }, i) => {
      if (peer === this.us || peer === NO_PEER || free === 0) return;
      const overlaps = this.rangesOf(i).some((part) => overlap(part, range));
      if (overlaps) donors.set(peer, (donors.get(peer) ?? 0) + free);
    });
    return donors;
  }

  contains(address: Ipv4): boolean {
    return contains(this.universe, address);
  }

  /** Place of the token whose range an address lies in. */
  #placeOf(address: Ipv4): number {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#entries[middle]!.token > address) high = middle;
      else low = middle + 1;
    }
    return low === 0 ? this.#entries.length - 1 : low - 1;
  }

  #tokenAfter(place: number): Ipv4 {
    return this.#entries[(place + 1) % this.#entries.length]!.token;
  }

  #distance(a: Ipv4, b: Ipv4): number {
    return distance(this.universe, a, b);
  }
}

function divideAmong({ start, end }: AddressRange, peers: readonly PeerName[], entries: RingEntry[]): void {
  const size = end - start;
  if (size === 0) return;
  if (size === 1 || peers.length === 1) {
    entries.push({ token: start, peer: peers[0]!, version: 0, free: size });
    return;
  }
  const half = Math.floor(size / 2);
  const peersOfHalf = Math.floor(peers.length / 2);
  divideAmong({ start, end: start + half }, peers.slice(0, peersOfHalf), entries);
  divideAmong({ start: start + half + size % 2, end }, peers.slice(peersOfHalf), entries);
}

/** Throws RingConflict for what is no ring. */
function checkRing(value: RingValue): void {
  const problem = problemOf(value);
  if (problem !== undefined) throw new RingConflict("malformed", problem);
}

/** What is wrong with a ring, in itself. */
function problemOf({ start, end, entries }: Pick<RingValue, "start" | "end" | "entries">): string | undefined {
  for (let i = 1; i < entries.length; i++) if (entries[i - 1]!.token > entries[i]!.token) return "Ring not sorted";
  for (let i = 1; i < entries.length; i++) {
    if (entries[i - 1]!.token === entries[i]!.token) return "Token appears twice in ring";
  }
  if (entries.length === 0) return undefined;
  if (entries[0]!.token < start || entries.at(-1)!.token >= end) return "Token is out of range";
  for (const [i, { token, free }] of entries.entries()) {
    const next = entries[(i + 1) % entries.length]!.token;
    const most = distance({ start, end }, token, next);
    if (free > most) {
      return `Entry ${formatIpv4(token)}-${formatIpv4(next)} reporting too much free space: ${free} > ${most}`;
    }
  }
  return undefined;
}

function changed(entry: RingEntry, change: Partial<Pick<RingEntry, "peer" | "free">>): RingEntry {
  return { ...entry, ...change, version: Math.min(entry.version + 1, MAX_VERSION) };
}

function sameNames(a: readonly PeerName[], b: readonly PeerName[]): boolean {
  return a.length === b.length && a.every((name, i) => name === b[i]);
}

/** @param entries ascending by token, and without this one's */
function insertEntry(entries: RingEntry[], entry: RingEntry): void {
  const place = entries.findIndex(({ token }) => token > entry.token);
  entries.splice(place < 0 ? entries.length : place, 0, entry);
}
