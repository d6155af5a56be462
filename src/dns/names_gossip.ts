/** What is told of names, as it waits to be sent: some entries, all of them, or an announcement. */
import type { GossipData } from "../mesh/gossip.ts";
import type { Payload } from "../wire/control.ts";
import { encodeNames, identityOf, type NameEntry, type NameKind, newerOf } from "../wire/nameserver.ts";

/** Entries in one message, which must stay below 10 MiB: each has a few kilobytes at most, and usually a hundred octets. */
const ENTRIES_OF_MESSAGE = 2_000;
/** What an entry takes while it waits, beside its texts. */
const ENTRY_OCTETS = 150;
/** So many are not worth sorting out. */
const UNSORTED = 64;

function encodeAll(kind: NameKind, entries: readonly NameEntry[], timestamp: number): Uint8Array[] {
  const payloads: Uint8Array[] = [];
  for (let at = 0; at === 0 || at < entries.length; at += ENTRIES_OF_MESSAGE) {
    const some = entries.slice(at, at + ENTRIES_OF_MESSAGE);
    payloads.push(encodeNames(kind, { timestamp, entries: some, leaving: 0n }));
  }
  return payloads;
}

/** Some entries as they were. What comes later is put behind it, and sorted out now and then: many may come, one by one. */
export class SomeNames implements GossipData {
  readonly heldOctets: number;
  readonly #kind: NameKind;
  readonly #earlier: SomeNames | undefined;
  readonly #entries: readonly NameEntry[];
  readonly #timestamp: number;
  /** Entries, and those there were when all were sorted out. */
  readonly #count: number;
  readonly #distinct: number;

  constructor(kind: NameKind, entries: readonly NameEntry[], timestamp: number, earlier?: SomeNames) {
    this.#kind = kind;
    this.#entries = entries;
    this.#earlier = earlier;
    this.#timestamp = earlier === undefined ? timestamp : Math.max(timestamp, earlier.#timestamp);
    this.#count = earlier === undefined ? entries.length : earlier.#count + entries.length;
    this.#distinct = earlier === undefined ? entries.length : earlier.#distinct;
    let octets = earlier?.heldOctets ?? 0;
    for (const { hostname, containerId } of entries) octets += ENTRY_OCTETS + hostname.length + containerId.length;
    this.heldOctets = octets;
  }

  merge(later: GossipData): GossipData {
    if (later instanceof Announcement) return later.behind(this);
    if (!(later instanceof SomeNames)) return later;
    const both = new SomeNames(this.#kind, later.#all(), later.#timestamp, this);
    if (both.#count <= 2 * both.#distinct + UNSORTED) return both;
    return new SomeNames(this.#kind, both.#all(), both.#timestamp);
  }

  encode(): readonly Uint8Array[] {
    return encodeAll(this.#kind, this.#all(), this.#timestamp);
  }

  #all(): readonly NameEntry[] {
    if (this.#earlier === undefined) return this.#entries;
    const parts = [this.#entries];
    for (let part: SomeNames | undefined = this.#earlier; part; part = part.#earlier) parts.push(part.#entries);
    const all = new Map<string, NameEntry>();
    for (const entry of parts.reverse().flat()) {
      const identity = identityOf(entry);
      const before = all.get(identity);
      all.set(identity, before === undefined ? entry : newerOf(before, entry));
    }
    return [...all.values()];
  }
}

/** All there is: whatever comes while it waits is part of it. */
export class CompleteNames implements GossipData {
  constructor(
    readonly kind: NameKind,
    readonly entries: () => readonly NameEntry[],
    readonly unixSeconds: () => number,
  ) {}

  merge(later: GossipData): GossipData {
    return later instanceof Announcement ? later.behind(this) : this;
  }

  encode(): readonly Uint8Array[] {
    return encodeAll(this.kind, this.entries(), this.unixSeconds());
  }
}

/** What is said besides entries; it does not get lost where something else waits. */
export class Announcement implements GossipData {
  readonly heldOctets: number;

  constructor(readonly payloads: readonly Uint8Array[], readonly others?: GossipData) {
    this.heldOctets = payloads.reduce((sum, { length }) => sum + length, others?.heldOctets ?? 0);
  }

  /** With what waits already. */
  behind(earlier: GossipData): GossipData {
    if (earlier instanceof Announcement) return earlier.merge(this);
    return new Announcement(this.payloads, this.others === undefined ? earlier : earlier.merge(this.others));
  }

  merge(later: GossipData): GossipData {
    const [payloads, others] = later instanceof Announcement ? [later.payloads, later.others] : [[], later];
    const both = this.others === undefined || others === undefined ? this.others ?? others : this.others.merge(others);
    const all = [...this.payloads, ...payloads];
    return both === undefined ? new Announcement(all) : new Announcement(all, both);
  }

  encode(): readonly Payload[] {
    return [...this.others?.encode() ?? [], ...this.payloads];
  }
}
