/**
 * One channel's entries, ours and everybody's: what is added, removed and merged. An entry is changed by its origin alone; of two
 * versions the greater holds, of equal ones the later tombstone. Who asks for names looks into the index, which is told of every change.
 */
import type { PeerName } from "../lib/mac.ts";
import type { GossipData } from "../mesh/gossip.ts";
import { identityOf, type NameData, type NameEntry, type NameKind, newerOf } from "../wire/nameserver.ts";
import { compareEntries, Entry, type NameIndex } from "./name_index.ts";
import { CompleteNames, SomeNames } from "./names_gossip.ts";

export interface ReplicaOptions {
  readonly kind: NameKind;
  readonly ourName: PeerName;
  readonly index: NameIndex;
  /** Entries of peers that are out of reach: nobody is told of them. */
  readonly isSuspended: (origin: PeerName) => boolean;
  /** Makes room for entries, where that can be done without a loss that matters. */
  readonly makeRoom: () => void;
  /** The wall clock. */
  readonly unixSeconds: () => number;
}

/** Which of our entries; what is undefined matches all. */
export interface Selection {
  readonly hostname?: string | undefined;
  readonly containerId?: string | undefined;
  readonly data?: NameData | undefined;
}

export interface Merged {
  /** What was news to us. */
  readonly news: readonly NameEntry[];
  /** Claims about ourselves that were wrong, with our word on them: everybody is to hear it. */
  readonly imposed: readonly NameEntry[];
  /** All of it, as it is to be passed on. */
  readonly passedOn: readonly NameEntry[];
  /** There was no room for so many. */
  readonly refused: number;
}

/** Tombstones are kept so long, as old ones of entries may still be under way. */
const TOMBSTONE_SECONDS = 30 * 60;
/** Clocks may differ by so much. */
export const MAX_SKEW_SECONDS = 15 * 60;

/** Together, and of one origin: what 1,000 hosts with 200 names each need. */
const MAX_ENTRIES = 200_000;
const MAX_ENTRIES_OF_ORIGIN = 50_000;

export class Replica {
  readonly kind: NameKind;
  readonly #o: ReplicaOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #byOrigin = new Map<PeerName, Set<Entry>>();
  /** Ours by their identity in lower case. */
  readonly #ours = new Map<string, Entry>();
  #sorted: readonly Entry[] | undefined;

  constructor(o: ReplicaOptions) {
    this.#o = o;
    this.kind = o.kind;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** In the order of `compareEntries()`, tombstones among them. */
  list(): readonly Entry[] {
    return this.#sorted ??= [...this.#entries.values()].sort(compareEntries);
  }

  of(origin: PeerName): ReadonlySet<Entry> {
    return this.#byOrigin.get(origin) ?? NOTHING;
  }

  /**
   * Adds an entry of ours, or brings it back; undefined where there are too many. What it returns is to be broadcast. A name that is there
   * in other letter case stays as it is: of two entries that differ in nothing else, routers of Weave Net 2.8 make more and more.
   */
  add(hostname: string, containerId: string, data: NameData): NameEntry | undefined {
    const fresh = new Entry(hostname, this.#o.ourName, containerId, data, 0, 0);
    const entry = this.#entries.get(identityOf(fresh)) ?? this.#ours.get(foldedIdentity(fresh));
    if (entry === undefined) return this.#insert(identityOf(fresh), fresh) ? snapshot(fresh) : undefined;
    if (!entry.live) this.#change(entry, entry.version + 1, 0);
    return snapshot(entry);
  }

  /** Removes live entries of ours; those it returns are to be broadcast. A name's letter case counts where it decides between several. */
  remove({ hostname, containerId, data }: Selection): readonly NameEntry[] {
    const candidates = [...this.of(this.#o.ourName)].filter((entry) =>
      entry.live &&
      (containerId === undefined || entry.containerId === containerId) &&
      (data === undefined || entry.data === data)
    );
    const exact = candidates.filter((entry) => hostname === undefined || entry.hostname === hostname);
    const folded = hostname?.toLowerCase();
    const chosen = exact.length > 0 ? exact : candidates.filter((entry) => entry.hostname.toLowerCase() === folded);
    const now = this.#o.unixSeconds();
    for (const entry of chosen) this.#change(entry, entry.version + 1, now);
    return chosen.map(snapshot);
  }

  /** @param incoming of peers that are known, no identity twice */
  merge(incoming: readonly NameEntry[]): Merged {
    const news: NameEntry[] = [];
    const imposed: NameEntry[] = [];
    const passedOn: NameEntry[] = [];
    let refused = 0;
    for (const claim of incoming) {
      const identity = identityOf(claim);
      const entry = this.#entries.get(identity);
      const right = claim.origin === this.#o.ourName ? this.#rightOf(claim, entry) : claim;
      if (right !== claim) imposed.push(right);
      if (entry === undefined) {
        const { hostname, origin, containerId, data, version, tombstone } = right;
        if (!this.#insert(identity, new Entry(hostname, origin, containerId, data, version, tombstone))) {
          refused++;
          continue;
        }
        news.push(right);
      } else if (newerOf(entry, right) === right) {
        this.#change(entry, right.version, right.tombstone);
        news.push(right);
      }
      passedOn.push(right);
    }
    return { news, imposed, passedOn, refused };
  }

  /** Forgets old tombstones. */
  expire(): void {
    const now = this.#o.unixSeconds();
    const old = [...this.#entries.values()].filter(({ tombstone }) =>
      // One in the future comes from nobody's clock, and would stay for ever.
      tombstone !== 0 && (now - tombstone > TOMBSTONE_SECONDS || tombstone - now > 2 * MAX_SKEW_SECONDS)
    );
    this.#forget(old);
  }

  /** Forgets all entries of an origin, without a word. */
  removeOrigin(origin: PeerName): void {
    this.#forget(this.of(origin));
  }

  /** These entries, for gossip. */
  data(entries: readonly NameEntry[], timestamp = this.#o.unixSeconds()): GossipData {
    return new SomeNames(this.kind, entries, timestamp);
  }

  /** Everything that is within reach, as it is when it is sent; undefined where there is nothing. */
  complete(): GossipData | undefined {
    if (this.#entries.size === 0) return undefined;
    return new CompleteNames(this.kind, () => this.#reachable(), this.#o.unixSeconds);
  }

  /** What is right about an entry that claims to be ours. */
  #rightOf(claim: NameEntry, entry: Entry | undefined): NameEntry {
    if (entry === undefined) {
      if (claim.tombstone !== 0) return claim;
      return { ...claim, version: claim.version + 1, tombstone: this.#o.unixSeconds() };
    }
    const differs = claim.version > entry.version ||
      claim.version === entry.version && claim.tombstone !== entry.tombstone;
    return differs ? { ...snapshot(entry), version: claim.version + 1 } : claim;
  }

  #reachable(): readonly NameEntry[] {
    const { isSuspended } = this.#o;
    return [...this.#byOrigin].flatMap(([origin, entries]) => isSuspended(origin) ? [] : [...entries]);
  }

  #insert(identity: string, entry: Entry): boolean {
    // However much others say, there is room for what is ours.
    const counts = entry.origin !== this.#o.ourName;
    if (counts && this.#entries.size >= MAX_ENTRIES) this.#o.makeRoom();
    let others = this.#byOrigin.get(entry.origin);
    if (counts && this.#entries.size >= MAX_ENTRIES || (others?.size ?? 0) >= MAX_ENTRIES_OF_ORIGIN) return false;
    if (others === undefined) this.#byOrigin.set(entry.origin, others = new Set());
    others.add(entry);
    this.#entries.set(identity, entry);
    if (entry.origin === this.#o.ourName) {
      const folded = foldedIdentity(entry);
      if (!this.#ours.has(folded)) this.#ours.set(folded, entry);
    }
    this.#o.index.add(entry);
    this.#sorted = undefined;
    return true;
  }

  #change(entry: Entry, version: number, tombstone: number): void {
    entry.version = version;
    entry.tombstone = tombstone;
    this.#o.index.changed(entry);
  }

  #forget(entries: Iterable<Entry>): void {
    const gone = new Set(entries);
    if (gone.size === 0) return;
    for (const entry of gone) {
      this.#entries.delete(identityOf(entry));
      const folded = foldedIdentity(entry);
      if (this.#ours.get(folded) === entry) this.#ours.delete(folded);
      const others = this.#byOrigin.get(entry.origin)!;
      others.delete(entry);
      if (others.size === 0) this.#byOrigin.delete(entry.origin);
    }
    this.#o.index.remove(gone);
    this.#sorted = undefined;
  }
}

const NOTHING: ReadonlySet<Entry> = new Set();

function foldedIdentity({ hostname, origin, containerId, data }: NameEntry): string {
  return identityOf({ hostname: hostname.toLowerCase(), origin, containerId, data, version: 0, tombstone: 0 });
}

function snapshot({ hostname, origin, containerId, data, version, tombstone }: Entry): NameEntry {
  return { hostname, origin, containerId, data, version, tombstone };
}
