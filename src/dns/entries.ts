/**
 * The names of the whole mesh, and the two channels that carry them: `nameserver`, which is Weave Net 2.8's and has IPv4 addresses, and our
 * own for all else a name may have. A core without I/O: the shell tells what happens, and drains `poll()`.
 *
 * A peer that goes out of reach, and what becomes of its entries:
 *
 *     reachable ──(gone from the topology)──▶ suspended: answered ──(grace is over)──▶ suspended: hidden
 *         ▲                                        │                                        │
 *         └────────────────(back)──────────────────┴────────────────(back)──────────────────┘
 *     any of them ──(said that it leaves, or was removed)──▶ forgotten
 *
 * While all entries of a name are hidden nobody can say whether there is such a name, and whoever asks is told so.
 */
import { ProtocolError } from "../lib/errors.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import { formatMac, NO_PEER, type PeerName } from "../lib/mac.ts";
import { type Deadline, earlier, type Instant, TimerTable } from "../lib/time.ts";
import type { GossipData } from "../mesh/gossip.ts";
import type { GossipChannel } from "../mesh/hub.ts";
import { isWithin, parseName, parseRecord } from "../wire/dns.ts";
import { decodeNames, encodeNames, type NameData, type NameEntry, type NameKind } from "../wire/nameserver.ts";
import { type Entry, type NameAnswer, NameIndex, type ReverseAnswer } from "./name_index.ts";
import { Announcement } from "./names_gossip.ts";
import { MAX_SKEW_SECONDS, Replica, type Selection } from "./replica.ts";

export { type Entry, type NameAnswer, type ReverseAnswer } from "./name_index.ts";
export { type Selection } from "./replica.ts";

/** Weave Net's channel, and ours. */
export const NAMESERVER = "nameserver";
export const NAME_RECORDS = "weave-name-records";

const EXPIRE_MS = 30 * 60_000;

export interface NamesOptions {
  readonly ourName: PeerName;
  /** Of this life. */
  readonly ourUid: bigint;
  /** The zone, `weave.local.`; what is registered outside it is ignored. */
  readonly domain: string;
  /** How long entries of a peer that is out of reach are answered. */
  readonly graceMs: number;
  /** The life of a peer that is part of the mesh; undefined: it is not. */
  readonly peerUid: (name: PeerName) => bigint | undefined;
  /** The wall clock. */
  readonly unixSeconds: () => number;
  readonly log: Logger;
}

export type NamesOutput =
  | { readonly type: "broadcast" | "gossip"; readonly channel: string; readonly data: GossipData }
  /** `own()` gives another answer. */
  | { readonly type: "ownChanged" };

/** A name of this host's. */
export interface OwnName {
  readonly hostname: string;
  readonly containerId: string;
  readonly data: NameData;
}

export interface SuspendedPeer {
  readonly peer: PeerName;
  /** Live entries. */
  readonly entries: number;
  readonly since: Instant;
  /** The grace is over. */
  readonly hidden: boolean;
}

/** `outside` the domain, or no name that DNS can ask for; `full`: there is no room. */
export type Added = "added" | "outside" | "full";

interface Suspension {
  readonly since: Instant;
  hidden: boolean;
}

/** See the file's header. */
export class Names {
  readonly domainKey: string;
  readonly #o: NamesOptions;
  readonly #hidden = new Set<PeerName>();
  readonly #index = new NameIndex(this.#hidden);
  readonly #replicas: Readonly<Record<NameKind, Replica>>;
  readonly #suspended = new Map<PeerName, Suspension>();
  /** Peers that said they leave, with the life that they meant. */
  readonly #left = new Map<PeerName, bigint>();
  readonly #timers = new TimerTable<"old tombstones">();
  #outputs: NamesOutput[] = [];
  #taken = 0;
  #refused = 0;

  /** Throws RangeError for a domain that is none. */
  constructor(o: NamesOptions, now: Instant) {
    const key = parseName(o.domain);
    if (key === undefined || key === "") throw new RangeError(`Cannot use "${o.domain}" as DNS domain`);
    this.#o = o;
    this.domainKey = key;
    const replica = (kind: NameKind) =>
      new Replica({
        kind,
        ourName: o.ourName,
        index: this.#index,
        isSuspended: (origin) => this.#suspended.has(origin),
        makeRoom: () => this.#forgetHidden(),
        unixSeconds: o.unixSeconds,
      });
    this.#replicas = { addresses: replica("addresses"), records: replica("records") };
    this.#timers.set("old tombstones", now + EXPIRE_MS);
  }

  /** For the mesh. */
  channels(): readonly GossipChannel[] {
    return [this.#channel(NAMESERVER, this.#replicas.addresses), this.#channel(NAME_RECORDS, this.#replicas.records)];
  }

  // Names of this host

  /** @param data an address, or a record in words as `parseRecord()` writes it */
  add({ hostname, containerId, data }: OwnName): Added {
    return this.addAll([{ hostname, containerId, data }])[0]!;
  }

  /** Adds many at once, and tells of them in one message. */
  addAll(names: readonly OwnName[]): Added[] {
    const told: Record<NameKind, NameEntry[]> = { addresses: [], records: [] };
    const results = names.map((name): Added => {
      const hostname = fullyQualified(name.hostname);
      if (!this.#isOurs(hostname) || typeof name.data === "string" && parseRecord(name.data) === undefined) {
        return "outside";
      }
      const kind = kindOf(name.data);
      const entry = this.#replicas[kind].add(hostname, name.containerId, name.data);
      if (entry === undefined) return "full";
      told[kind].push(entry);
      return "added";
    });
    this.#tell(told);
    return results;
  }

  /** Removes names of this host, exactly as they were registered; undefined matches all. */
  remove(selection: Selection): number {
    const hostname = selection.hostname === undefined ? undefined : fullyQualified(selection.hostname);
    const chosen = { ...selection, hostname };
    const { data } = selection;
    const addresses = typeof data === "string" ? [] : this.#replicas.addresses.remove(chosen);
    const records = typeof data === "number" ? [] : this.#replicas.records.remove(chosen);
    this.#tell({ addresses: [...addresses], records: [...records] });
    return addresses.length + records.length;
  }

  /** What is registered here now. */
  own(): readonly OwnName[] {
    const { ourName } = this.#o;
    return [...this.#replicas.addresses.of(ourName), ...this.#replicas.records.of(ourName)]
      .filter((entry) => entry.live)
      .map(({ hostname, containerId, data }) => ({ hostname, containerId, data }));
  }

  /** Before we stop: nobody needs to wait for us. */
  leave(): void {
    this.#announce({ leaving: this.#o.ourUid });
  }

  /** A peer that is out of reach will not come back: all are to forget it. False: it is not out of reach. */
  removePeer(peer: PeerName): boolean {
    if (!this.#suspended.has(peer)) return false;
    this.handlePeerLeft(peer);
    this.#announce({ leaving: 0n, removed: peer });
    return true;
  }

  // Peers

  /** A peer is no longer part of the mesh. */
  handlePeerGone(peer: PeerName, now: Instant): void {
    if (this.#left.delete(peer)) return this.handlePeerLeft(peer);
    if (this.#suspended.has(peer) || this.#entriesOf(peer).length === 0) return;
    this.#suspended.set(peer, { since: now, hidden: false });
    this.#o.log.info("names of a peer out of reach are suspended", { peer: formatMac(peer) });
    this.handleTimeout(now);
  }

  /** A peer will not come back, as it was: what it named is no more. */
  handlePeerLeft(peer: PeerName): void {
    this.#suspended.delete(peer);
    this.#hidden.delete(peer);
    for (const replica of this.#bothReplicas()) replica.removeOrigin(peer);
  }

  /** Peers may have come or gone. */
  handleTopology(): void {
    for (const peer of [...this.#suspended.keys()]) {
      if (this.#o.peerUid(peer) !== undefined) this.#resume(peer);
    }
    for (const [peer, uid] of [...this.#left]) {
      const now = this.#o.peerUid(peer);
      if (now !== undefined && now !== uid) this.#left.delete(peer);
    }
  }

  // Look-ups

  /** @param key of a name, as `Query` has it */
  lookup(key: string): NameAnswer {
    return this.#index.lookup(key);
  }

  lookupAddress(address: Ipv4): ReverseAnswer {
    return this.#index.lookupAddress(address);
  }

  /** Entries of channel `nameserver`, tombstones among them, in their order. */
  addresses(): readonly Entry[] {
    return this.#replicas.addresses.list();
  }

  /** Those of our own channel. */
  records(): readonly Entry[] {
    return this.#replicas.records.list();
  }

  suspended(): readonly SuspendedPeer[] {
    return [...this.#suspended].map(([peer, { since, hidden }]) => ({
      peer,
      entries: this.#entriesOf(peer).filter((entry) => entry.live).length,
      since,
      hidden,
    }));
  }

  isHidden(origin: PeerName): boolean {
    return this.#hidden.has(origin);
  }

  /** Entries of peers that found no room, or that no router could have meant. */
  get refused(): number {
    return this.#refused;
  }

  // Time and outputs

  handleTimeout(now: Instant): void {
    for (let timer = this.#timers.takeDue(now); timer; timer = this.#timers.takeDue(now)) {
      this.#timers.set(timer, now + EXPIRE_MS);
      for (const replica of this.#bothReplicas()) replica.expire();
    }
    for (const [peer, suspension] of this.#suspended) {
      if (suspension.hidden || now < suspension.since + this.#o.graceMs) continue;
      suspension.hidden = true;
      this.#setHidden(peer, true);
      this.#o.log.info("names of a peer out of reach are hidden", { peer: formatMac(peer) });
    }
  }

  pollTimeout(): Deadline | undefined {
    let next = this.#timers.next();
    for (const { since, hidden } of this.#suspended.values()) {
      if (!hidden) next = earlier(next, { at: since + this.#o.graceMs, why: "names of a peer out of reach" });
    }
    return next;
  }

  poll(): NamesOutput | undefined {
    const output = this.#outputs[this.#taken++];
    if (output === undefined) {
      this.#outputs = [];
      this.#taken = 0;
    }
    return output;
  }

  // Gossip

  #channel(name: string, replica: Replica): GossipChannel {
    return {
      name,
      handleGossip: (payload) => {
        const merged = this.#merge(replica, payload);
        return merged.news.length === 0 ? undefined : replica.data(merged.news);
      },
      handleBroadcast: (source, payload) => {
        const { passedOn, timestamp, leaving, removed } = this.#merge(replica, payload);
        if (leaving !== 0n) return this.#handleLeaving(source, leaving, payload);
        if (removed !== NO_PEER) return this.#handleRemoved(removed, payload);
        return passedOn.length === 0 ? undefined : replica.data(passedOn, timestamp);
      },
      handleUnicast: () => {},
      completeState: () => replica.complete(),
    };
  }

  /** Throws WireError, or ProtocolError where the clocks of two hosts are too far apart. */
  #merge(replica: Replica, payload: Uint8Array) {
    const { timestamp, entries, leaving, removed, refused } = decodeNames(replica.kind, payload);
    this.#checkClock(timestamp);
    const merged = replica.merge(entries.filter(({ origin }) => this.#takes(origin)));
    this.#refused += refused + merged.refused;
    this.#tellKind(replica, merged.imposed);
    return { ...merged, timestamp, leaving, removed };
  }

  #checkClock(timestamp: number): void {
    const ours = this.#o.unixSeconds();
    const skew = timestamp - ours;
    if (Math.abs(skew) <= MAX_SKEW_SECONDS) return;
    const limit = `host clock skew of ${skew}s exceeds ${MAX_SKEW_SECONDS}s limit`;
    throw new ProtocolError(`${limit}: it is ${timeText(ours)} here, and ${timeText(timestamp)} there`);
  }

  /** Whether entries of this origin are taken from others. */
  #takes(origin: PeerName): boolean {
    const uid = this.#o.peerUid(origin);
    return uid !== undefined && this.#left.get(origin) !== uid;
  }

  /** Whoever leaves says so itself, and of this life. */
  #handleLeaving(source: PeerName, uid: bigint, payload: Uint8Array): GossipData | undefined {
    if (source === this.#o.ourName || this.#o.peerUid(source) !== uid || this.#left.get(source) === uid) {
      return undefined;
    }
    this.#o.log.info("a peer leaves, and takes its names with it", { peer: formatMac(source) });
    this.#left.set(source, uid);
    this.handlePeerLeft(source);
    return new Announcement([payload]);
  }

  /** Passed on by all, as those behind us may have it still. */
  #handleRemoved(peer: PeerName, payload: Uint8Array): GossipData | undefined {
    if (this.#o.peerUid(peer) !== undefined) return undefined;
    if (this.#suspended.has(peer)) this.handlePeerLeft(peer);
    return new Announcement([payload]);
  }

  #announce(what: { readonly leaving: bigint; readonly removed?: PeerName }): void {
    const payload = encodeNames("records", { timestamp: this.#o.unixSeconds(), entries: [], ...what });
    this.#outputs.push({ type: "broadcast", channel: NAME_RECORDS, data: new Announcement([payload]) });
  }

  #resume(peer: PeerName): void {
    this.#suspended.delete(peer);
    this.#setHidden(peer, false);
    this.#o.log.info("names of a peer that is back are answered", { peer: formatMac(peer) });
    // If it has begun a new life it says what is no longer so, as soon as it hears of it.
    for (const [kind, replica] of Object.entries(this.#replicas)) {
      const entries = [...replica.of(peer)];
      if (entries.length === 0) continue;
      this.#outputs.push({ type: "gossip", channel: channelOf(kind as NameKind), data: replica.data(entries) });
    }
  }

  /** Names that are not answered any more are the first to go where there are too many. */
  #forgetHidden(): void {
    for (const peer of [...this.#hidden]) {
      this.#o.log.warn("names of a peer out of reach are forgotten: there are too many", { peer: formatMac(peer) });
      this.handlePeerLeft(peer);
    }
  }

  #setHidden(peer: PeerName, hidden: boolean): void {
    if (hidden) this.#hidden.add(peer);
    else this.#hidden.delete(peer);
    for (const entry of this.#entriesOf(peer)) this.#index.changed(entry);
  }

  #tell(told: Readonly<Record<NameKind, readonly NameEntry[]>>): void {
    for (const replica of this.#bothReplicas()) this.#tellKind(replica, told[replica.kind]);
    if (told.addresses.length + told.records.length > 0) this.#outputs.push({ type: "ownChanged" });
  }

  #tellKind(replica: Replica, entries: readonly NameEntry[]): void {
    if (entries.length === 0) return;
    this.#outputs.push({ type: "broadcast", channel: channelOf(replica.kind), data: replica.data(entries) });
  }

  #entriesOf(peer: PeerName): Entry[] {
    return this.#bothReplicas().flatMap((replica) => [...replica.of(peer)]);
  }

  #bothReplicas(): readonly Replica[] {
    return [this.#replicas.addresses, this.#replicas.records];
  }

  #isOurs(hostname: string): boolean {
    const key = parseName(hostname);
    return key !== undefined && isWithin(key, this.domainKey);
  }
}

function channelOf(kind: NameKind): string {
  return kind === "addresses" ? NAMESERVER : NAME_RECORDS;
}

function kindOf(data: NameData): NameKind {
  return typeof data === "number" ? "addresses" : "records";
}

function fullyQualified(name: string): string {
  return name.endsWith(".") ? name : `${name}.`;
}

/** Seconds as people read them; a peer may say any number. */
function timeText(unixSeconds: number): string {
  const date = new Date(unixSeconds * 1000);
  return Number.isNaN(date.getTime()) ? `${unixSeconds}` : date.toISOString().replace(/\.\d+Z$/, "Z");
}
