/**
 * Everybody's services: a replica of all records of the mesh, gossiped on the channel `weave-services`. A core without I/O.
 *
 * Each owner numbers its changes; who has heard of numbers greater than those it has asks the owner for what came after.
 *
 *     own change ─▶ persist ─▶ broadcast "records (since, seq]" ──▶ applied where it follows on what is there, else: want
 *     new neighbour, every 30 s ─▶ heads ──▶ owner ahead of us ─▶ want ─▶ owner (out of reach: the teller, second-hand) ─▶ records
 *
 * How the shell drives it. It is a `GossipChannel`: `mesh.register(catalogue)`. It is a companion of the control loop: after every input
 * drain `poll()` until undefined; call `handleTimeout(now)` at `pollTimeout()`; call `handlePeerGone()` and `handleTopology()`.
 * What `poll()` asks for:
 *
 *     persist     write `snapshot().stored`, then `handlePersisted(snapshot's revision)`: own changes wait for it, before anybody hears
 *                 of them, `imports()` and `exports()` included. Where the disk fails, `revert()`, or warn and call it all the same:
 *                 nothing but what is remembered hangs on it
 *     persistOthers  write `others()` some time: what others said, and how our own records fared. At most every 30 s
 *     unicast     mesh.sendUnicast(CHANNEL, to, payload, now); where that is false, `handleUndelivered(to, now)`
 *     broadcast   mesh.sendBroadcast(CHANNEL, data, now)
 *     gossip      mesh.sendGossip(CHANNEL, data, now)
 *     changed     look at these names again (plan, DNS, status): records came, changed or went, or their owner came or went
 *
 * Own records: `set()` with a whole record (what is equal to what is there changes nothing), `setStatus()`, `remove()`.
 */
import { WireError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { formatMac, NO_PEER, type PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import { type Deadline, earlier, type Instant, TimerTable } from "../lib/time.ts";
import type { GossipData } from "../mesh/gossip.ts";
import type { GossipChannel } from "../mesh/hub.ts";
import {
  decodeService,
  encodeForget,
  encodeRecords,
  encodeWant,
  type Head,
  MAX_NUMBER,
  type RecordsMessage,
  type ServiceMessage,
} from "../wire/service.ts";
import { Answers, type Asked } from "./answers.ts";
import { OwnRecords, type SetResult } from "./own_records.ts";
import type { Applied, OwnerRecords } from "./owner_records.ts";
import { type Owner, Owners } from "./owners.ts";
import { Pursuits } from "./pursuit.ts";
import type { ExportRecord, ImportRecord, Known, RecordKey, ServiceRecord } from "./records.ts";
import { type Rejection, Rejections } from "./rejections.ts";
import { Heads, OwnChanges, Payloads } from "./service_gossip.ts";
import type { StoredOwner } from "./stored.ts";

export { type SetResult } from "./own_records.ts";
export { type Rejection } from "./rejections.ts";
export { checkStored, encodeStored, type StoredOwner, type StoredRecord } from "./stored.ts";

export const CHANNEL = "weave-services";

export interface CatalogueOptions {
  readonly ourName: PeerName;
  /** The DNS domain, `weave.local.`: containers that are exported have names in it. */
  readonly domain: string;
  /** The peer is part of the mesh now: `mesh.peer(name) !== undefined`. */
  readonly isReachable: (peer: PeerName) => boolean;
  /** The wall clock. */
  readonly unixMs: () => number;
  readonly log: Logger;
  readonly random: Random;
  /** What `snapshot()` and `others()` gave, of the last time. */
  readonly stored: StoredOwner | undefined;
  readonly others: readonly StoredOwner[];
}

export type CatalogueOutput =
  | { readonly type: "persist" | "persistOthers" }
  | { readonly type: "unicast"; readonly to: PeerName; readonly payload: Uint8Array }
  | { readonly type: "broadcast" | "gossip"; readonly data: GossipData }
  | { readonly type: "changed"; readonly names: readonly string[] };

export interface OwnerStatus {
  readonly owner: PeerName;
  readonly reachable: boolean;
  readonly secondHand: boolean;
  /** Live ones. */
  readonly records: number;
  readonly seq: number;
}

const TIDY_MS = 10 * 60_000;
const STORE_MS = 30_000;
/** What came by asking is told to neighbours, together with what comes shortly after. */
const TELL_MS = 100;
const TELL_OURSELVES_MS = 5_000;

/** See the file's header. */
export class Catalogue implements GossipChannel {
  readonly name = CHANNEL;
  readonly #o: CatalogueOptions;
  readonly #owners: Owners;
  readonly #own: OwnerRecords;
  /** Ours as they are to be; `#own` has what is on disk. */
  readonly #wanted: OwnRecords;
  readonly #pursuits: Pursuits;
  readonly #answers = new Answers();
  readonly #rejections: Rejections;
  readonly #timers = new TimerTable<"old removals" | "storing services" | "news of services" | "our own head">();
  readonly #domainEnd: string;
  #outputs: CatalogueOutput[] = [];
  #changed = new Set<string>();
  #news = new Set<PeerName>();
  #askedRevision = 0;
  #toldSeq: number;
  #othersChanged = false;
  #toldOurselvesAt = -Infinity;
  /** Who is to blame for what is refused meanwhile. */
  #teller: PeerName = NO_PEER;

  constructor(o: CatalogueOptions, now: Instant) {
    this.#o = o;
    this.#domainEnd = `.${o.domain.replace(/\.$/, "").toLowerCase()}`;
    this.#rejections = new Rejections(o.log, o.unixMs);
    this.#pursuits = new Pursuits((peer) => peer !== o.ourName && o.isReachable(peer));
    this.#owners = new Owners({
      ourName: o.ourName,
      isReachable: o.isReachable,
      changed: (name, owner) => {
        this.#changed.add(name);
        if (owner !== o.ourName) this.#othersChanged = true;
      },
      refuse: (what, reason) => this.#rejections.add(this.#teller, what, reason),
    }, Math.floor(o.unixMs()));
    for (const stored of o.others) this.#owners.restore(stored, now);
    this.#own = this.#owners.own;
    this.#wanted = new OwnRecords(this.#own);
    if (o.stored !== undefined) this.#wanted.restore(o.stored, { random: o.random, now });
    this.#toldSeq = this.#own.head.seq;
    this.#timers.set("old removals", now + TIDY_MS);
    this.#changed.clear();
    this.#othersChanged = false;
  }

  // Ours

  /** Adds or replaces a record. What is there already in every word is left as it is. */
  set(record: ServiceRecord, now: Instant): SetResult {
    const result = this.#wanted.set(record, now);
    this.#storeSome(now);
    return result;
  }

  /** Health, holding: what is not worth a write to disk before it is told. False: there is no such record, or it says so already. */
  setStatus<R extends ServiceRecord>(key: RecordKey, status: R["status"], now: Instant): boolean {
    const changed = this.#wanted.setStatus(key, status, now);
    this.#storeSome(now);
    return changed;
  }

  /** False: there is no such record. */
  remove(key: RecordKey): boolean {
    return this.#wanted.remove(key);
  }

  /** Makes our records what `own()` was. Nobody hears of what was otherwise meanwhile and not on disk. */
  revert(before: readonly ServiceRecord[], now: Instant): void {
    this.#wanted.revert(before, now);
    this.#storeSome(now);
  }

  /** As they are to be, whether or not they are on disk. */
  own(): readonly ServiceRecord[] {
    return this.#wanted.all();
  }

  ownRecord(key: RecordKey): ServiceRecord | undefined {
    return this.#wanted.get(key);
  }

  ownImport(name: string): ImportRecord | undefined {
    return this.#wanted.import(name);
  }

  ownExports(name: string): readonly ExportRecord[] {
    return this.#wanted.exports(name);
  }

  // Everybody's, ours among them as far as they are on disk

  /** Ascending. */
  names(): readonly string[] {
    return this.#owners.names();
  }

  /** Ascending by owner. */
  imports(name: string): readonly Known<ImportRecord>[] {
    return this.#owners.known(name).filter((known): known is Known<ImportRecord> => known.record.kind === "import");
  }

  /** Ascending by owner. */
  exports(name: string): readonly Known<ExportRecord>[] {
    return this.#owners.known(name).filter((known): known is Known<ExportRecord> => known.record.kind === "export");
  }

  owners(): readonly OwnerStatus[] {
    return this.#owners.all()
      .map(({ records, reachable }) => ({
        owner: records.owner,
        reachable,
        secondHand: records.secondHand,
        records: records.size,
        seq: records.head.seq,
      }))
      .filter(({ owner, records }) => records > 0 || owner === this.#o.ourName)
      .sort((a, b) => a.owner - b.owner);
  }

  /** What of peers was not taken; the last one last. */
  rejections(): readonly Rejection[] {
    return this.#rejections.list();
  }

  /** Live records of all owners. */
  get size(): number {
    return this.#owners.size;
  }

  // Peers

  handlePeerGone(_peer: PeerName, now: Instant): void {
    this.handleTopology(now);
  }

  /** Peers may have come or gone. */
  handleTopology(now: Instant): void {
    for (const owner of this.#owners.others()) {
      const { records } = owner;
      const reachable = this.#o.isReachable(records.owner);
      if (reachable === owner.reachable) continue;
      owner.reachable = reachable;
      for (const [, record] of records.live()) this.#changed.add(record.spec.name);
      // It may have begun another life without a neighbour of ours knowing.
      if (reachable) this.#pursue(records.owner, records.owner, records.secondHand, now);
    }
    this.#pursuits.handleTopology(now);
    this.#askDue(now);
  }

  /** A peer that is out of reach will not come back: all are to forget its records. False: it is in reach, or has none. */
  removePeer(peer: PeerName, now: Instant): boolean {
    const owner = this.#owners.get(peer);
    if (owner === undefined || peer === this.#o.ourName || this.#o.isReachable(peer)) return false;
    if (owner.records.size === 0) return false;
    const life = Math.min(owner.records.head.life + 1, MAX_NUMBER);
    this.#forget(owner, life, now);
    this.#outputs.push({ type: "broadcast", data: new Payloads([encodeForget(peer, life)]) });
    return true;
  }

  // Storing

  snapshot(): { readonly revision: number; readonly stored: StoredOwner } {
    return this.#wanted.snapshot();
  }

  /** What `snapshot()` gave with this revision is on disk. */
  handlePersisted(revision: number, now: Instant): void {
    this.#wanted.handlePersisted(revision, now);
  }

  /** What we know of others, to be stored now and then. */
  others(): readonly StoredOwner[] {
    return this.#owners.stored();
  }

  // The channel

  handleGossip(payload: Uint8Array, now: Instant, from: PeerName): GossipData | undefined {
    const message = this.#decode(payload, from);
    if (message?.type === "heads") {
      // Who passes it on may understand nothing of it.
      const teller = message.by === this.#o.ourName ? from : message.by;
      for (const head of message.heads) this.#handleHead(head, teller, now);
      this.#askDue(now);
    } else if (message !== undefined) {
      this.#rejections.add(from, "", `a message of type ${message.type} came as gossip`);
    }
    return undefined;
  }

  handleBroadcast(source: PeerName, payload: Uint8Array, now: Instant): GossipData | undefined {
    if (source === this.#o.ourName) return undefined;
    const message = this.#decode(payload, source);
    if (message === undefined) return undefined;
    switch (message.type) {
      case "records":
        return this.#handleTold(message, source, now) ? new Payloads([payload]) : undefined;
      case "forget":
        return this.#handleForget(message, source, now) ? new Payloads([payload]) : undefined;
      default:
        this.#rejections.add(source, "", `a message of type ${message.type} came as a broadcast`);
        return undefined;
    }
  }

  handleUnicast(source: PeerName, payload: Uint8Array, now: Instant): void {
    const message = this.#decode(payload, source);
    if (message?.type === "want") {
      const asked = { from: source, want: message };
      if (this.#answers.handleWant(asked, now)) this.#answer(asked);
    } else if (message?.type === "records") {
      this.#handleAnswer(message, source, now);
      this.#askDue(now);
    } else if (message !== undefined) {
      this.#rejections.add(source, "", `a message of type ${message.type} came to us alone`);
    }
  }

  /** There is no way to a peer that something was to be sent to. */
  handleUndelivered(to: PeerName, now: Instant): void {
    this.#pursuits.handleUndelivered(to, now);
  }

  completeState(): GossipData | undefined {
    return this.#owners.heads(undefined).length === 0 ? undefined : this.#headsData();
  }

  // Time and outputs

  handleTimeout(now: Instant): void {
    for (let timer = this.#timers.takeDue(now); timer; timer = this.#timers.takeDue(now)) {
      switch (timer) {
        case "old removals":
          this.#timers.set(timer, now + TIDY_MS);
          this.#owners.tidy(now);
          break;
        case "storing services":
          this.#wanted.storeStatus();
          if (this.#othersChanged) this.#outputs.push({ type: "persistOthers" });
          this.#othersChanged = false;
          break;
        case "news of services":
          this.#outputs.push({ type: "gossip", data: this.#headsData(this.#news) });
          this.#news = new Set();
          break;
        case "our own head":
          this.#tellOurselves(now);
          break;
        default:
          timer satisfies never;
      }
    }
    for (let asked = this.#answers.poll(now); asked; asked = this.#answers.poll(now)) this.#answer(asked);
    this.#askDue(now);
  }

  pollTimeout(): Deadline | undefined {
    return earlier(this.#timers.next(), earlier(this.#pursuits.pollTimeout(), this.#answers.pollTimeout()));
  }

  poll(): CatalogueOutput | undefined {
    if (this.#wanted.revision > this.#askedRevision) {
      this.#askedRevision = this.#wanted.revision;
      return { type: "persist" };
    }
    if (this.#own.head.seq > this.#toldSeq) {
      const since = this.#toldSeq;
      this.#toldSeq = this.#own.head.seq;
      return { type: "broadcast", data: new OwnChanges(this.#own, since) };
    }
    if (this.#changed.size > 0) {
      const names = [...this.#changed];
      this.#changed = new Set();
      return { type: "changed", names };
    }
    return this.#outputs.shift();
  }

  /** Throws where indexes and counts do not agree with the records. For tests. */
  checkInvariants(): void {
    this.#owners.checkInvariants();
  }

  // What neighbours say they know

  #handleHead(head: Head, teller: PeerName, now: Instant): void {
    if (head.owner === this.#o.ourName) return this.#handleOwnHead(head, now);
    const records = this.#owners.get(head.owner)?.records;
    if (records === undefined) {
      if (head.seq > 0 && this.#owners.hasRoom) this.#pursue(head.owner, teller, false, now);
      return;
    }
    const ours = records.head;
    const further = head.life > ours.life || head.life === ours.life && head.seq > ours.seq;
    const other = head.life !== ours.life || head.seq === ours.seq && head.check !== ours.check;
    if (further || other && this.#o.isReachable(head.owner)) this.#pursue(head.owner, teller, false, now);
  }

  /** Somebody knows other records of us than there are: he is to ask. */
  #handleOwnHead({ life, seq, check }: Head, now: Instant): void {
    const ours = this.#own.head;
    if (life === ours.life && (seq < ours.seq || seq === ours.seq && check === ours.check)) return;
    this.#planToTellOurselves(now);
  }

  #planToTellOurselves(now: Instant): void {
    // However little it is.
    this.#owners.get(this.#o.ourName)!.emptiedAt = now;
    this.#timers.setIfAbsent("our own head", Math.max(now, this.#toldOurselvesAt + TELL_OURSELVES_MS));
  }

  #tellOurselves(now: Instant): void {
    this.#toldOurselvesAt = now;
    this.#outputs.push({ type: "gossip", data: this.#headsData(new Set([this.#o.ourName])) });
  }

  #headsData(owners?: ReadonlySet<PeerName>): Heads {
    return new Heads(this.#o.ourName, (some) => this.#owners.heads(some), owners);
  }

  // What owners say, and others of them

  /** @returns whether it is to be passed on */
  #handleTold(message: RecordsMessage, source: PeerName, now: Instant): boolean {
    const { owner } = message;
    if (owner !== source) return this.#reject(source, message, `it belongs to ${formatMac(owner)}, who did not say so`);
    if (message.full) return this.#reject(source, message, "a full list that nobody asked for");
    if (!this.#o.isReachable(source)) return false;
    const records = this.#owners.getOrAdd(source)?.records;
    if (records === undefined) return this.#reject(source, message, "there are too many gateways");
    this.#take(records, message, { from: source, trusted: false, now });
    this.#askDue(now);
    return true;
  }

  #handleAnswer(message: RecordsMessage, source: PeerName, now: Instant): void {
    const { owner } = message;
    if (owner === this.#o.ourName) return void this.#reject(source, message, "it is ours, and not as we say");
    const asked = this.#pursuits.waitsFor(owner, source);
    if (owner !== source && this.#o.isReachable(owner)) {
      if (!asked) this.#reject(source, message, `it belongs to ${formatMac(owner)}, who is within reach`);
      return;
    }
    // We wait no more: it took too long, and comes again.
    if (!asked) return;
    const records = this.#owners.getOrAdd(owner)?.records;
    if (records === undefined) {
      this.#pursuits.forget(owner);
      return void this.#reject(source, message, "there are too many gateways");
    }
    const before = records.head;
    const outcome = this.#take(records, message, { from: source, trusted: owner === source, now });
    if (outcome === "partial") return this.#pursuits.handlePart(owner, now);
    if (outcome !== "behind") {
      this.#owners.get(owner)!.emptiedAt = records.blank ? now : undefined;
      if (!sameHead(records.head, before)) this.#tellNews(owner, now);
    }
    this.#pursuits.handleAnswer(owner, outcome === "applied" || outcome === "old", now);
  }

  #take(
    records: OwnerRecords,
    message: RecordsMessage,
    { from, trusted, now }: { from: PeerName; trusted: boolean; now: Instant },
  ): Applied {
    const checked = this.#withinDomain(message);
    const before = records.head;
    this.#teller = from;
    const outcome = records.apply(checked, { now, trusted });
    this.#storeSome(now);
    if (from !== records.owner) {
      if (outcome === "partial" || !sameHead(before, records.head)) records.secondHand = true;
    } else if (trusted && message.full && outcome === "applied") {
      records.secondHand = false;
    }
    // An answer that is not enough is the pursuit's to see to.
    if (!trusted && from === records.owner && (outcome === "behind" || outcome === "differs")) {
      this.#pursue(records.owner, from, outcome === "differs", now);
    }
    return outcome;
  }

  #withinDomain(message: RecordsMessage): RecordsMessage {
    const outside = ({ record }: RecordsMessage["records"][number]) => {
      const name = record?.spec.name;
      return name !== undefined && name.includes(".") && !name.endsWith(this.#domainEnd);
    };
    if (!message.records.some(outside)) return message;
    const refused = message.records.filter(outside).map(({ record }) => ({
      what: record!.spec.name,
      reason: "its name lies outside the DNS domain",
    }));
    return {
      ...message,
      records: message.records.filter((numbered) => !outside(numbered)),
      refused: [...message.refused, ...refused],
    };
  }

  /** @returns whether it is to be passed on */
  #handleForget({ owner: name, life }: { owner: PeerName; life: number }, source: PeerName, now: Instant): boolean {
    if (name === this.#o.ourName) {
      this.#planToTellOurselves(now);
      return false;
    }
    if (this.#o.isReachable(name)) {
      this.#rejections.add(source, "", `records of ${formatMac(name)}, who is within reach, were to be forgotten`);
      return false;
    }
    const owner = this.#owners.get(name);
    if (owner !== undefined && life > owner.records.head.life) this.#forget(owner, life, now);
    return true;
  }

  #forget(owner: Owner, life: number, now: Instant): void {
    this.#owners.clear(owner, life, now);
    this.#storeSome(now);
    this.#pursuits.forget(owner.records.owner);
  }

  // Asking and answering

  #pursue(owner: PeerName, teller: PeerName, everything: boolean, now: Instant): void {
    this.#pursuits.handleNews(owner, { teller, everything, now });
  }

  #askDue(now: Instant): void {
    for (const { owner, of, everything } of this.#pursuits.takeDue(now)) {
      const records = this.#owners.get(owner)?.records;
      // What is second-hand is not compared, but replaced.
      const all = everything || records === undefined || records.secondHand && of === owner;
      const head = all ? { owner, life: 0, seq: 0, check: 0 } : records.head;
      this.#outputs.push({ type: "unicast", to: of, payload: encodeWant(head) });
    }
  }

  #answer({ from, want }: Asked): void {
    const records = this.#owners.get(want.owner)?.records;
    // Whoever is within reach speaks for himself.
    if (records === undefined || records !== this.#own && this.#o.isReachable(want.owner)) return;
    const telling = records.told(want.life, want.since, want.check);
    for (const payload of encodeRecords(telling)) this.#outputs.push({ type: "unicast", to: from, payload });
  }

  #tellNews(owner: PeerName, now: Instant): void {
    this.#news.add(owner);
    this.#timers.setIfAbsent("news of services", now + TELL_MS);
  }

  // What we keep

  /** What need not be on disk at once. */
  #storeSome(now: Instant): void {
    if (!this.#othersChanged && !this.#wanted.statusChanged) return;
    this.#timers.setIfAbsent("storing services", now + STORE_MS);
  }

  #decode(payload: Uint8Array, from: PeerName): ServiceMessage | undefined {
    try {
      return decodeService(payload);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#rejections.add(from, "", error.message);
      return undefined;
    }
  }

  #reject(from: PeerName, message: RecordsMessage, reason: string): false {
    this.#rejections.add(from, message.records[0]?.key ?? "", reason);
    return false;
  }
}

function sameHead(a: Head, b: Head): boolean {
  return a.life === b.life && a.seq === b.seq && a.check === b.check;
}
