/**
 * A gateway's own records: as they are to be, and, in its replica, as they are on disk and known to others.
 *
 *     set, remove ─▶ wanted ─(on disk)─▶ replica ─▶ told          setStatus ─▶ both at once
 */
import type { Random } from "../lib/random.ts";
import type { Instant } from "../lib/time.ts";
import { encodeRecord, keyOf } from "../wire/service.ts";
import { MAX_RECORDS_OF_OWNER, type OwnerRecords, sameRecord } from "./owner_records.ts";
import type { ExportRecord, ImportRecord, RecordKey, ServiceRecord } from "./records.ts";
import type { StoredOwner, StoredRecord } from "./stored.ts";

/** `same`: it is there already; `full`: we have as many records as one peer may have. */
export type SetResult = "changed" | "same" | "full";

/** Numbers that may have been used since we stored the last one. */
const SKIPPED_NUMBERS = 2 ** 20;

export class OwnRecords {
  readonly #replica: OwnerRecords;
  readonly #wanted = new Map<RecordKey, ServiceRecord>();
  /** What is not on disk, with the revision that has it. */
  readonly #unstored = new Map<RecordKey, number>();
  #revision = 0;
  #statusChanged = false;

  constructor(replica: OwnerRecords) {
    this.#replica = replica;
  }

  /** Counts what is to be stored. */
  get revision(): number {
    return this.#revision;
  }

  /** Some status is not on disk. */
  get statusChanged(): boolean {
    return this.#statusChanged;
  }

  set(record: ServiceRecord, now: Instant): SetResult {
    const key = keyOf(record);
    const before = this.#wanted.get(key);
    if (before !== undefined && sameRecord(before, record)) return "same";
    if (before === undefined && this.#wanted.size >= MAX_RECORDS_OF_OWNER) return "full";
    if (before !== undefined && sameButStatus(before, record)) {
      this.setStatus(key, record.status, now);
    } else {
      this.#wanted.set(key, record);
      this.#store(key);
    }
    return "changed";
  }

  /** False: there is no such record, or it says so already. */
  setStatus(key: RecordKey, status: ServiceRecord["status"], now: Instant): boolean {
    const before = this.#wanted.get(key);
    if (before === undefined) return false;
    const after = { ...before, status } as ServiceRecord;
    if (sameRecord(before, after)) return false;
    this.#wanted.set(key, after);
    if (this.#unstored.has(key)) return true; // told with the rest
    this.#statusChanged = true;
    this.#replica.change(key, after, now);
    return true;
  }

  /** False: there is no such record. */
  remove(key: RecordKey): boolean {
    if (!this.#wanted.delete(key)) return false;
    this.#store(key);
    return true;
  }

  /** Makes them what they were. Where nothing but the status changed since, it stays. */
  revert(before: readonly ServiceRecord[], now: Instant): void {
    const keys = new Set(before.map(keyOf));
    for (const key of [...this.#wanted.keys()]) if (!keys.has(key)) this.remove(key);
    for (const record of before) {
      const there = this.#wanted.get(keyOf(record));
      if (there === undefined || !sameButStatus(there, record)) this.set(record, now);
    }
  }

  all(): readonly ServiceRecord[] {
    return [...this.#wanted.values()];
  }

  get(key: RecordKey): ServiceRecord | undefined {
    return this.#wanted.get(key);
  }

  import(name: string): ImportRecord | undefined {
    return this.#wanted.get(`import ${name}`) as ImportRecord | undefined;
  }

  exports(name: string): readonly ExportRecord[] {
    const exports = [...this.#wanted.values()].filter((record) => record.kind === "export");
    return exports.filter(({ spec }) => spec.name === name);
  }

  // Storing

  /** Status is to be stored too. */
  storeStatus(): void {
    if (this.#statusChanged) this.#revision++;
    this.#statusChanged = false;
  }

  snapshot(): { readonly revision: number; readonly stored: StoredOwner } {
    const told = new Map([...this.#replica.numbered()].map(({ key, seq }) => [key, seq]));
    const numberOf = (key: RecordKey) => this.#unstored.has(key) ? 0 : told.get(key) ?? 0;
    const records: StoredRecord[] = [...this.#wanted].map(([key, record]) => ({ key, seq: numberOf(key), record }));
    for (const key of told.keys()) {
      if (!this.#wanted.has(key)) records.push({ key, seq: numberOf(key), record: undefined });
    }
    const { owner, life, seq } = this.#replica.head;
    const stored = { owner, life, floor: this.#replica.floor, seq, secondHand: false, records };
    return { revision: this.#revision, stored };
  }

  /** What `snapshot()` gave with this revision is on disk: it is told. */
  handlePersisted(revision: number, now: Instant): void {
    for (const [key, unstored] of this.#unstored) {
      if (unstored > revision) continue;
      this.#unstored.delete(key);
      const record = this.#wanted.get(key);
      const told = this.#replica.get(key);
      // It was something else before anybody heard.
      if (record === undefined || told === undefined ? record === told : sameRecord(record, told)) continue;
      this.#replica.change(key, record, now);
    }
  }

  /** Before anything else. */
  restore(stored: StoredOwner, { random, now }: { random: Random; now: Instant }): void {
    const { owner, life } = this.#replica.head;
    const records = withOctets(stored.records);
    this.#replica.restore({
      // Whoever has another name now begins another life.
      life: stored.owner === owner ? stored.life : life,
      floor: stored.floor,
      seq: stored.seq + SKIPPED_NUMBERS + random.below(SKIPPED_NUMBERS),
      records: records.filter(({ seq }) => seq !== 0),
    }, now);
    for (const { key, seq, record } of records) if (seq === 0) this.#replica.change(key, record, now);
    for (const [key, record] of this.#replica.live()) this.#wanted.set(key, record);
  }

  #store(key: RecordKey): void {
    this.#revision++;
    this.#unstored.set(key, this.#revision);
  }
}

/** As a replica has them. */
export function withOctets(records: readonly StoredRecord[]) {
  return records.map(({ key, seq, record }) => ({
    key,
    seq,
    record,
    octets: record === undefined ? key.length : JSON.stringify(encodeRecord(record)).length,
  }));
}

function sameButStatus(a: ServiceRecord, b: ServiceRecord): boolean {
  return sameRecord(a, { ...b, status: a.status } as ServiceRecord);
}
