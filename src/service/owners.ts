/** Everybody's records, by owner and by name, and how many there may be. */
import type { PeerName } from "../lib/mac.ts";
import type { Instant } from "../lib/time.ts";
import type { Head } from "../wire/service.ts";
import { withOctets } from "./own_records.ts";
import { OwnerRecords } from "./owner_records.ts";
import type { Known, RecordKey } from "./records.ts";
import type { StoredOwner } from "./stored.ts";

/** Records of others, all together. */
const MAX_RECORDS = 50_000;
const MAX_OCTETS = 64 << 20;
const MAX_OWNERS = 2_000;

/** Of a peer all of whose records went at once that is remembered so long. */
const EMPTIED_MS = 24 * 3_600_000;

export interface Owner {
  readonly records: OwnerRecords;
  reachable: boolean;
  /** When everything it had went at once, with it or by somebody's word: others may not know yet. */
  emptiedAt: Instant | undefined;
}

export interface OwnersOptions {
  readonly ourName: PeerName;
  readonly isReachable: (peer: PeerName) => boolean;
  /** Some record of this name is not what it was. */
  readonly changed: (name: string, owner: PeerName) => void;
  /** A record was not taken. */
  readonly refuse: (what: string, reason: string) => void;
}

export class Owners {
  readonly own: OwnerRecords;
  readonly #o: OwnersOptions;
  readonly #owners = new Map<PeerName, Owner>();
  readonly #byName = new Map<string, Map<PeerName, Set<RecordKey>>>();
  /** Of others. */
  #records = 0;
  #octets = 0;

  /** @param life ours, where nothing is known of an earlier one */
  constructor(o: OwnersOptions, life: number) {
    this.#o = o;
    this.own = this.#newRecords(o.ourName, life);
    this.#owners.set(o.ourName, { records: this.own, reachable: true, emptiedAt: undefined });
  }

  get(name: PeerName): Owner | undefined {
    return this.#owners.get(name);
  }

  /** Undefined: there is no room for another one. */
  getOrAdd(name: PeerName, life = 0): Owner | undefined {
    let owner = this.#owners.get(name);
    if (owner === undefined) {
      if (this.#owners.size >= MAX_OWNERS && !this.#makeRoom()) return undefined;
      owner = { records: this.#newRecords(name, life), reachable: this.#o.isReachable(name), emptiedAt: undefined };
      this.#owners.set(name, owner);
    }
    return owner;
  }

  /** Ourselves among them. */
  all(): readonly Owner[] {
    return [...this.#owners.values()];
  }

  others(): readonly Owner[] {
    return this.all().filter(({ records }) => records !== this.own);
  }

  get hasRoom(): boolean {
    return this.#owners.size < MAX_OWNERS;
  }

  /** Live records of all. */
  get size(): number {
    return this.own.size + this.#records;
  }

  /** Names of records, ascending. */
  names(): readonly string[] {
    return [...this.#byName.keys()].sort();
  }

  /** All records of a name, ascending by owner. */
  known(name: string): readonly Known[] {
    const found: Known[] = [];
    for (const [owner, keys] of this.#byName.get(name) ?? []) {
      const { records, reachable } = this.#owners.get(owner)!;
      for (const key of keys) {
        found.push({ owner, reachable, secondHand: records.secondHand, record: records.get(key)! });
      }
    }
    return found.sort((a, b) => a.owner - b.owner);
  }

  /** How far we know those of whom there is anything to tell. */
  heads(names: ReadonlySet<PeerName> | undefined): readonly Head[] {
    const chosen = names === undefined ? this.all() : [...names].flatMap((name) => this.#owners.get(name) ?? []);
    return chosen
      .filter(({ records, emptiedAt }) => !records.blank || emptiedAt !== undefined)
      .map(({ records }) => records.head);
  }

  /** Everything of an owner went at once; what comes from him must be of a later life. */
  clear({ records }: Owner, life: number, now: Instant): void {
    records.clear(life);
    records.secondHand = true;
    this.#owners.get(records.owner)!.emptiedAt = now;
  }

  tidy(now: Instant): void {
    for (const { records, emptiedAt } of this.all()) {
      records.expireTombstones(now);
      const old = emptiedAt !== undefined && now - emptiedAt >= EMPTIED_MS;
      if (old && records.blank && records !== this.own) this.#owners.delete(records.owner);
    }
  }

  // Storing

  /** What is to be stored of others. */
  stored(): readonly StoredOwner[] {
    return this.others().filter(({ records }) => !records.blank).map(({ records }) => ({
      owner: records.owner,
      life: records.head.life,
      seq: records.head.seq,
      floor: records.floor,
      secondHand: records.secondHand,
      records: [...records.numbered()],
    }));
  }

  restore(stored: StoredOwner, now: Instant): void {
    const records = this.getOrAdd(stored.owner, stored.life)?.records;
    if (records === undefined || records === this.own) return;
    records.restore({ ...stored, records: withOctets(stored.records) }, now);
    records.secondHand = stored.secondHand;
  }

  /** Throws where indexes and counts do not agree with the records. For tests. */
  checkInvariants(): void {
    let [records, octets] = [0, 0];
    const keys = new Map<string, number>();
    for (const { records: each } of this.all()) {
      each.checkInvariants();
      if (each !== this.own) [records, octets] = [records + each.size, octets + each.octets];
      for (const [, { spec }] of each.live()) keys.set(spec.name, (keys.get(spec.name) ?? 0) + 1);
    }
    if (records !== this.#records || octets !== this.#octets) throw new Error("others were counted wrong");
    for (const [name, owners] of this.#byName) {
      const indexed = [...owners.values()].reduce((sum, { size }) => sum + size, 0);
      if (indexed !== keys.get(name)) throw new Error(`the index has ${indexed} records of ${name}`);
    }
    if (keys.size !== this.#byName.size) throw new Error("a name is not in the index");
  }

  /** Those go first of whom only others spoke. */
  #makeRoom(except?: PeerName): boolean {
    let most: Owner | undefined;
    for (const owner of this.others()) {
      const { records, reachable } = owner;
      if (!records.secondHand || reachable || records.owner === except) continue;
      if (most === undefined || records.octets > most.records.octets) most = owner;
    }
    if (most === undefined) return false;
    most.records.clear(most.records.head.life);
    this.#owners.delete(most.records.owner);
    return true;
  }

  #newRecords(owner: PeerName, life: number): OwnerRecords {
    // However much others say, there is room for what is ours.
    const ours = owner === this.#o.ourName;
    return new OwnerRecords(owner, life, {
      replaced: (key, before, after) => this.#index(owner, key, (before ?? after)!.spec.name, after !== undefined),
      grown: (octets, records) => {
        if (ours) return;
        this.#octets += octets;
        this.#records += records;
      },
      hasRoom: (octets) =>
        ours || this.#records < MAX_RECORDS && this.#octets + octets <= MAX_OCTETS || this.#makeRoom(owner),
      refuse: this.#o.refuse,
    });
  }

  #index(owner: PeerName, key: RecordKey, name: string, live: boolean): void {
    this.#o.changed(name, owner);
    let owners = this.#byName.get(name);
    if (owners === undefined) this.#byName.set(name, owners = new Map());
    let keys = owners.get(owner);
    if (keys === undefined) owners.set(owner, keys = new Set());
    if (live) keys.add(key);
    else keys.delete(key);
    if (keys.size === 0) owners.delete(owner);
    if (owners.size === 0) this.#byName.delete(name);
  }
}
