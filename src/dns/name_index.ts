/**
 * What names are answered with: entries by the key of their name, and by their address. Changes only mark what they concern; the answer of
 * a name is put together when it is asked for, and kept until the next change.
 */
import type { Ipv4 } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import { parseName, parseRecord, type WordRecord } from "../wire/dns.ts";
import type { NameData, NameEntry } from "../wire/nameserver.ts";

/** An entry as a replica keeps it: its identity stays, its version and tombstone change in place. */
export class Entry implements NameEntry {
  /** undefined: no name that DNS can ask for. */
  readonly key: string | undefined;

  constructor(
    readonly hostname: string,
    readonly origin: PeerName,
    readonly containerId: string,
    readonly data: NameData,
    public version: number,
    public tombstone: number,
  ) {
    this.key = parseName(hostname);
  }

  get live(): boolean {
    return this.tombstone === 0;
  }
}

/** What is known of a name. */
export interface NameAnswer {
  /**
   * `live`: there is something, perhaps not of the type asked for. `hidden`: all there is belongs to peers that are out of reach.
   * `none`: there is no such name.
   */
  readonly state: "live" | "hidden" | "none";
  /** No address twice, in no order; whoever answers may change the order. */
  readonly addresses: Ipv4[];
  readonly records: readonly WordRecord[];
}

/** What is known of an address: its name, or as above. */
export type ReverseAnswer = { readonly state: "live"; readonly hostname: string } | {
  readonly state: "hidden" | "none";
};

interface Bucket<Answer> {
  entries: Entry[];
  /** undefined: to be put together. */
  answer: Answer | undefined;
}

const NO_NAME: NameAnswer = { state: "none", addresses: [], records: [] };
const NO_ADDRESS: ReverseAnswer = { state: "none" };
const HIDDEN_ADDRESS: ReverseAnswer = { state: "hidden" };

export class NameIndex {
  readonly #names = new Map<string, Bucket<NameAnswer>>();
  readonly #addresses = new Map<Ipv4, Bucket<ReverseAnswer>>();
  readonly #hidden: ReadonlySet<PeerName>;

  /** @param hidden whose entries are not answered; `changed()` tells of each entry that this concerns */
  constructor(hidden: ReadonlySet<PeerName>) {
    this.#hidden = hidden;
  }

  lookup(key: string): NameAnswer {
    const bucket = this.#names.get(key);
    if (bucket === undefined) return NO_NAME;
    return bucket.answer ??= this.#answerOf(bucket.entries);
  }

  lookupAddress(address: Ipv4): ReverseAnswer {
    const bucket = this.#addresses.get(address);
    if (bucket === undefined) return NO_ADDRESS;
    return bucket.answer ??= this.#reverseOf(bucket.entries);
  }

  add(entry: Entry): void {
    if (entry.key === undefined) return;
    addTo(this.#names, entry.key, entry);
    if (typeof entry.data === "number") addTo(this.#addresses, entry.data, entry);
  }

  /** Its version, its tombstone, or whether its origin is hidden. */
  changed(entry: Entry): void {
    const named = entry.key === undefined ? undefined : this.#names.get(entry.key);
    if (named !== undefined) named.answer = undefined;
    const addressed = typeof entry.data === "number" ? this.#addresses.get(entry.data) : undefined;
    if (addressed !== undefined) addressed.answer = undefined;
  }

  remove(entries: ReadonlySet<Entry>): void {
    const keys = new Set<string>();
    const addresses = new Set<Ipv4>();
    for (const { key, data } of entries) {
      if (key !== undefined) keys.add(key);
      if (typeof data === "number") addresses.add(data);
    }
    for (const key of keys) removeFrom(this.#names, key, entries);
    for (const address of addresses) removeFrom(this.#addresses, address, entries);
  }

  #answerOf(entries: readonly Entry[]): NameAnswer {
    const live = entries.filter((entry) => entry.live);
    const visible = live.filter((entry) => !this.#hidden.has(entry.origin));
    if (visible.length === 0) return live.length === 0 ? NO_NAME : { state: "hidden", addresses: [], records: [] };
    const addresses = new Set<Ipv4>();
    const records = new Map<string, WordRecord>();
    for (const { data } of visible) {
      if (typeof data === "number") addresses.add(data);
      else if (!records.has(data)) {
        const record = parseRecord(data);
        if (record !== undefined) records.set(data, record);
      }
    }
    return { state: "live", addresses: [...addresses], records: [...records.values()] };
  }

  #reverseOf(entries: readonly Entry[]): ReverseAnswer {
    let first: Entry | undefined;
    let hidden = false;
    for (const entry of entries) {
      if (!entry.live) continue;
      if (this.#hidden.has(entry.origin)) hidden = true;
      else if (first === undefined || compareEntries(entry, first) < 0) first = entry;
    }
    if (first !== undefined) return { state: "live", hostname: first.hostname };
    return hidden ? HIDDEN_ADDRESS : NO_ADDRESS;
  }
}

/** The order in which entries are listed: by name in lower case, origin, container, address. */
export function compareEntries(a: Entry, b: Entry): number {
  const left = a.hostname.toLowerCase();
  const right = b.hostname.toLowerCase();
  if (left !== right) return left < right ? -1 : 1;
  if (a.origin !== b.origin) return a.origin - b.origin;
  if (a.containerId !== b.containerId) return a.containerId < b.containerId ? -1 : 1;
  return a.data === b.data ? 0 : a.data < b.data ? -1 : 1;
}

function addTo<Key, Answer>(buckets: Map<Key, Bucket<Answer>>, key: Key, entry: Entry): void {
  const bucket = buckets.get(key);
  if (bucket === undefined) {
    buckets.set(key, { entries: [entry], answer: undefined });
  } else {
    bucket.entries.push(entry);
    bucket.answer = undefined;
  }
}

function removeFrom<Key, Answer>(buckets: Map<Key, Bucket<Answer>>, key: Key, gone: ReadonlySet<Entry>): void {
  const bucket = buckets.get(key);
  if (bucket === undefined) return;
  bucket.entries = bucket.entries.filter((entry) => !gone.has(entry));
  bucket.answer = undefined;
  if (bucket.entries.length === 0) buckets.delete(key);
}
