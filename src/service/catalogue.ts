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
 *                 of them, `imports()` and `exports()` included. Where the disk fails, warn, and call it all the same: nothing but
 *                 what is remembered hangs on it
 *     persistOthers  write `others()` some time: what others said, and how our own records fared. At most every 30 s
 *     unicast     mesh.sendUnicast(CHANNEL, to, payload, now)
 *     broadcast   mesh.sendBroadcast(CHANNEL, data, now)
 *     gossip      mesh.sendGossip(CHANNEL, data, now)
 *     changed     look at these names again (plan, DNS, status): records came, changed or went, or their owner came or went
 *
 * Own records: `set()` with a whole record (what is equal to what is there changes nothing), `setStatus()`, `remove()`.
 */
import type { Logger } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { Deadline, Instant } from "../lib/time.ts";
import type { GossipData } from "../mesh/gossip.ts";
import type { GossipChannel } from "../mesh/hub.ts";
import type { ExportRecord, ImportRecord, Known, RecordKey, ServiceRecord } from "./records.ts";

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

/** An owner's records as kept between two starts; `encodeStored()` makes them JSON, and `checkStored()` reads that. */
export interface StoredOwner {
  readonly owner: PeerName;
  readonly life: number;
  readonly floor: number;
  readonly seq: number;
  readonly secondHand: boolean;
  readonly records: readonly StoredRecord[];
}

export interface StoredRecord {
  readonly key: RecordKey;
  readonly seq: number;
  /** Undefined: it was removed. */
  readonly record: ServiceRecord | undefined;
}

export type CatalogueOutput =
  | { readonly type: "persist" | "persistOthers" }
  | { readonly type: "unicast"; readonly to: PeerName; readonly payload: Uint8Array }
  | { readonly type: "broadcast" | "gossip"; readonly data: GossipData }
  | { readonly type: "changed"; readonly names: readonly string[] };

/** `same`: it is there already; `full`: we have as many records as one peer may have. */
export type SetResult = "changed" | "same" | "full";

/** Something of a peer that was not taken, for people. */
export interface Rejection {
  /** Who told it. */
  readonly peer: PeerName;
  /** The service or record, where that could be read. */
  readonly what: string;
  readonly reason: string;
  /** How often, and when the last time, Unix milliseconds. */
  readonly count: number;
  readonly lastUnixMs: number;
}

export interface OwnerStatus {
  readonly owner: PeerName;
  readonly reachable: boolean;
  readonly secondHand: boolean;
  /** Live ones. */
  readonly records: number;
  readonly seq: number;
}

/** See the file's header. */
export declare class Catalogue implements GossipChannel {
  readonly name: string;
  constructor(o: CatalogueOptions, now: Instant);

  // The channel
  handleGossip(payload: Uint8Array, now: Instant, from: PeerName): GossipData | undefined;
  handleBroadcast(source: PeerName, payload: Uint8Array, now: Instant): GossipData | undefined;
  handleUnicast(source: PeerName, payload: Uint8Array, now: Instant): void;
  completeState(now: Instant): GossipData | undefined;

  // Ours
  set(record: ServiceRecord, now: Instant): SetResult;
  /** Health, holding: what is not worth a write to disk before it is told. False: there is no such record, or it says so already. */
  setStatus<R extends ServiceRecord>(key: RecordKey, status: R["status"], now: Instant): boolean;
  /** False: there is no such record. */
  remove(key: RecordKey, now: Instant): boolean;
  own(): readonly ServiceRecord[];
  ownRecord(key: RecordKey): ServiceRecord | undefined;
  ownImport(name: string): ImportRecord | undefined;
  ownExports(name: string): readonly ExportRecord[];

  // Everybody's, ours among them, ascending by owner
  names(): readonly string[];
  imports(name: string): readonly Known<ImportRecord>[];
  exports(name: string): readonly Known<ExportRecord>[];
  owners(): readonly OwnerStatus[];
  rejections(): readonly Rejection[];
  /** Live records of all owners. */
  readonly size: number;

  // Peers
  handlePeerGone(peer: PeerName, now: Instant): void;
  /** Peers may have come or gone. */
  handleTopology(now: Instant): void;
  /** A peer that is out of reach will not come back: all are to forget its records. False: it is in reach, or has none. */
  removePeer(peer: PeerName, now: Instant): boolean;

  // Storing
  snapshot(): { readonly revision: number; readonly stored: StoredOwner };
  /** What `snapshot()` gave with this revision is on disk. */
  handlePersisted(revision: number, now: Instant): void;
  /** What we know of others, to be stored now and then. */
  others(): readonly StoredOwner[];

  // Time and outputs
  handleTimeout(now: Instant): void;
  pollTimeout(): Deadline | undefined;
  poll(): CatalogueOutput | undefined;
}

/** As JSON says it. */
export declare function encodeStored(owners: readonly StoredOwner[]): unknown;

/** From parsed JSON. Throws an Error that says what is wrong. */
export declare function checkStored(data: unknown): readonly StoredOwner[];
