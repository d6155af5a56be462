/**
 * One owner's records as we know them: a copy that follows on its owner's changes, each of which has a number.
 *
 *     delta (since, seq]     follows where we have `since` or more: each record with a greater number than ours is news
 *     full list              replaces everything, in several messages perhaps: what it does not name goes when the last has come
 *
 * Deltas may come twice, late and in any order: what is there after all of them is the same. One that does not follow changes nothing.
 */
import type { PeerName } from "../lib/mac.ts";
import type { Instant } from "../lib/time.ts";
import {
  checkOf,
  encodeRecord,
  type Head,
  keyOf,
  type Numbered,
  type RecordKey,
  type RecordsMessage,
  type Telling,
} from "../wire/service.ts";
import type { ServiceRecord } from "./records.ts";

/** Removals are remembered so long; who asks for older ones gets a full list. */
export const TOMBSTONE_MS = 3_600_000;

/** What one owner may have: what a large gateway needs, several times over. Removals count among the entries. */
export const MAX_RECORDS_OF_OWNER = 5_000;
const MAX_ENTRIES_OF_OWNER = 2 * MAX_RECORDS_OF_OWNER;
const MAX_OCTETS_OF_OWNER = 8 << 20;

interface Entry {
  readonly seq: number;
  readonly record: ServiceRecord | undefined;
  readonly octets: number;
  /** When we heard of the removal. */
  readonly goneAt: Instant;
}

interface PendingFull {
  readonly life: number;
  upTo: number;
  readonly named: Set<RecordKey>;
  refused: boolean;
}

/** What is to be done with records besides keeping them. */
export interface Surroundings {
  /** A live record takes the place of another; undefined: there is or was none. */
  replaced(key: RecordKey, before: ServiceRecord | undefined, after: ServiceRecord | undefined): void;
  /** So much more is kept. */
  grown(octets: number, records: number): void;
  /** There is room for one more live record, beyond what this owner may have. */
  hasRoom(octets: number): boolean;
  /** A record was not taken. */
  refuse(what: string, reason: string): void;
}

/** `behind`: it does not follow, ask; `partial`: more of a full list is to come; `differs`: we have something else, ask for everything. */
export type Applied = "applied" | "old" | "behind" | "partial" | "differs";

export class OwnerRecords {
  readonly owner: PeerName;
  readonly #around: Surroundings;
  readonly #entries = new Map<RecordKey, Entry>();
  #life: number;
  #seq = 0;
  /** Removals up to here may be forgotten. */
  #floor = 0;
  #check = 0;
  #live = 0;
  #octets = 0;
  #pending: PendingFull | undefined;
  /** Something was refused: no check is right any more. */
  #incomplete = false;
  /** It did not come from the owner. */
  secondHand = false;

  constructor(owner: PeerName, life: number, around: Surroundings) {
    this.owner = owner;
    this.#life = life;
    this.#around = around;
  }

  get head(): Head {
    return { owner: this.owner, life: this.#life, seq: this.#seq, check: this.#check };
  }

  get floor(): number {
    return this.#floor;
  }

  /** Live records. */
  get size(): number {
    return this.#live;
  }

  /** Of all records, as JSON. */
  get octets(): number {
    return this.#octets;
  }

  /** Nothing was ever heard. */
  get blank(): boolean {
    return this.#seq === 0 && this.#entries.size === 0;
  }

  get(key: RecordKey): ServiceRecord | undefined {
    return this.#entries.get(key)?.record;
  }

  *live(): Generator<readonly [RecordKey, ServiceRecord]> {
    for (const [key, { record }] of this.#entries) if (record !== undefined) yield [key, record];
  }

  /** For storing. */
  *numbered(): Generator<Numbered> {
    for (const [key, { seq, record, octets }] of this.#entries) yield { seq, key, record, octets };
  }

  // As the owner

  /** A change of the owner's own: it gets the next number. */
  change(key: RecordKey, record: ServiceRecord | undefined, now: Instant): void {
    this.#seq++;
    const octets = record === undefined ? key.length : JSON.stringify(encodeRecord(record)).length;
    this.#put(key, { seq: this.#seq, record, octets, goneAt: now });
  }

  // As one who listens

  /** @param trusted as an answer of the owner to our own question: it holds whatever we have */
  apply(message: RecordsMessage, { now, trusted }: { now: Instant; trusted: boolean }): Applied {
    return message.full ? this.#applyFull(message, now, trusted) : this.#applyDelta(message, now);
  }

  /** A delta for who has `since` of this life, else the full list; with what nobody lacks left out. */
  told(life: number, since: number, check: number): Telling {
    const { owner } = this;
    const same = life === this.#life && since <= this.#seq && (since !== this.#seq || check === this.#check);
    const full = !same || since < this.#floor;
    const records: Numbered[] = [];
    for (const [key, { seq, record, octets }] of this.#entries) {
      if (full ? record !== undefined : seq > since) records.push({ seq, key, record, octets });
    }
    records.sort((a, b) => a.seq - b.seq);
    return { owner, life: this.#life, since: full ? 0 : since, seq: this.#seq, check: this.#check, full, records };
  }

  /** What was changed after `since`, for everybody. */
  changedSince(since: number): Telling {
    return this.told(this.#life, since, this.#check);
  }

  expireTombstones(now: Instant): void {
    for (const [key, { seq, record, goneAt }] of this.#entries) {
      if (record !== undefined || now - goneAt < TOMBSTONE_MS) continue;
      this.#drop(key);
      this.#floor = Math.max(this.#floor, seq);
    }
  }

  /** Nothing is left of it; what comes must be of a later life. */
  clear(life: number): void {
    for (const key of [...this.#entries.keys()]) this.#drop(key);
    this.#restart(life, 0);
  }

  /** As it was stored. */
  restore(o: { life: number; floor: number; seq: number; records: readonly Numbered[] }, now: Instant): void {
    this.#life = o.life;
    for (const { seq, key, record, octets } of o.records) this.#put(key, { seq, record, octets, goneAt: now });
    this.#seq = o.seq;
    this.#floor = o.floor;
  }

  /** Throws where what is kept beside the entries does not agree with them. For tests. */
  checkInvariants(): void {
    let [live, check] = [0, 0];
    for (const [key, { seq, record }] of this.#entries) {
      if (record === undefined) continue;
      live++;
      check ^= checkOf(key, seq);
      if (keyOf(record) !== key) throw new Error(`${key} has a record of ${keyOf(record)}`);
    }
    if (live !== this.#live || check >>> 0 !== this.#check) throw new Error("live records were counted wrong");
    if (this.#floor > this.#seq) throw new Error("the floor is above the last number");
  }

  #applyDelta(message: RecordsMessage, now: Instant): Applied {
    const { life, since, seq, check } = message;
    if (life !== this.#life) {
      if (!this.blank || since !== 0) return life < this.#life && !this.secondHand ? "old" : "behind";
      this.#life = life;
    }
    if (since > this.#seq) return "behind";
    this.#takeEach(message, now, false);
    if (seq < this.#seq) return "old";
    this.#seq = seq;
    return this.#agrees(check) ? "applied" : "differs";
  }

  #applyFull(message: RecordsMessage, now: Instant, trusted: boolean): Applied {
    const { life, since, seq, last, check } = message;
    if (life < this.#life && !trusted && !this.secondHand) return "old";
    if (since === 0) this.#pending = { life, upTo: 0, named: new Set(), refused: false };
    const pending = this.#pending;
    if (pending === undefined || pending.life !== life || pending.upTo !== since) return "behind";
    pending.upTo = seq;
    for (const { key } of message.records) pending.named.add(key);
    this.#takeEach(message, now, trusted || life !== this.#life);
    if (!last) return "partial";
    if (life === this.#life && seq < this.#seq && !trusted) {
      this.#pending = undefined;
      return "old";
    }
    const gone = [...this.#entries.keys()].filter((key) => !pending.named.has(key));
    for (const key of gone) this.#drop(key);
    this.#restart(life, seq);
    this.#incomplete = pending.refused;
    // What is gone makes room for what was refused.
    return this.#agrees(check) && !(pending.refused && gone.length > 0) ? "applied" : "differs";
  }

  /** @param anyway also where we have a greater number, of another life */
  #takeEach({ records, refused }: RecordsMessage, now: Instant, anyway: boolean): void {
    for (const { what, reason } of refused) this.#refuse(what, reason);
    for (const { seq, key, record, octets } of records) {
      const entry = this.#entries.get(key);
      if (entry !== undefined && entry.seq >= seq && !anyway) continue;
      if (entry === undefined && record === undefined && seq <= this.#floor) continue;
      if (entry?.record === undefined && !this.#hasRoom(key, record, octets)) continue;
      this.#put(key, { seq, record: equalOr(entry?.record, record), octets, goneAt: now });
    }
  }

  #hasRoom(key: RecordKey, record: ServiceRecord | undefined, octets: number): boolean {
    if (record === undefined) {
      if (this.#entries.size < MAX_ENTRIES_OF_OWNER) return true;
      this.#refuse(key, `more than ${MAX_ENTRIES_OF_OWNER} records, removed ones among them`);
    } else if (this.#live >= MAX_RECORDS_OF_OWNER || this.#entries.size >= MAX_ENTRIES_OF_OWNER) {
      this.#refuse(key, `more than ${MAX_RECORDS_OF_OWNER} records of one peer`);
    } else if (this.#octets + octets > MAX_OCTETS_OF_OWNER) {
      this.#refuse(key, `more than ${MAX_OCTETS_OF_OWNER} octets of records of one peer`);
    } else if (this.#around.hasRoom(octets)) {
      return true;
    } else {
      this.#refuse(key, "there is no room for more records");
    }
    return false;
  }

  #refuse(what: string, reason: string): void {
    this.#incomplete = true;
    if (this.#pending !== undefined) this.#pending.refused = true;
    this.#around.refuse(what, reason);
  }

  #agrees(check: number | undefined): boolean {
    return check === undefined || this.#incomplete || check === this.#check;
  }

  #restart(life: number, seq: number): void {
    this.#life = life;
    this.#seq = seq;
    // Removals are not part of a full list.
    this.#floor = seq;
    this.#pending = undefined;
    this.#incomplete = false;
  }

  #put(key: RecordKey, entry: Entry): void {
    const before = this.#entries.get(key);
    this.#entries.set(key, entry);
    this.#count(key, before, -1);
    this.#count(key, entry, 1);
    if (before?.record !== entry.record) this.#around.replaced(key, before?.record, entry.record);
  }

  #drop(key: RecordKey): void {
    const before = this.#entries.get(key)!;
    this.#entries.delete(key);
    this.#count(key, before, -1);
    if (before.record !== undefined) this.#around.replaced(key, before.record, undefined);
  }

  #count(key: RecordKey, entry: Entry | undefined, by: 1 | -1): void {
    if (entry === undefined) return;
    this.#octets += by * entry.octets;
    this.#around.grown(by * entry.octets, entry.record === undefined ? 0 : by);
    if (entry.record === undefined) return;
    this.#live += by;
    this.#check = (this.#check ^ checkOf(key, entry.seq)) >>> 0;
  }
}

/** The earlier one where both say the same: who compares them sees that nothing is new. */
function equalOr(before: ServiceRecord | undefined, after: ServiceRecord | undefined): ServiceRecord | undefined {
  if (before === undefined || after === undefined) return after;
  return sameRecord(before, after) ? before : after;
}

export function sameRecord(a: ServiceRecord, b: ServiceRecord): boolean {
  return a === b || JSON.stringify(encodeRecord(a)) === JSON.stringify(encodeRecord(b));
}
