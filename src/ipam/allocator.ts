/**
 * The allocator's front: addresses for containers, unique in the whole mesh. It decides; a shell stores what it says, carries answers to
 * callers and messages to the mesh, and tells it what happened. Time and randomness come in as arguments.
 *
 *     shell → allocator                                        allocator → shell (`poll()`)
 *     allocate, claim, prime, free, freeAll, takeOver, leave   persist     write `snapshot()`, then `handlePersisted()`
 *     cancel                                                   answer      to the operation of this number
 *     handleContainerDied, …Destroyed, …Started                unicast, broadcast   over the mesh
 *     handleGossip, …Broadcast, …Unicast (a gossip channel)
 *     handlePeerGone, handleTimeout ← pollTimeout
 *
 * Nothing that tells of a change leaves before the change is on disk: neither an answer, nor a grant, nor gossip, whose content is what
 * is on disk (outbox.ts). So a crash at any instant loses nothing that somebody else was told of, and gives no address out twice.
 *
 *     ring              who owns which ranges: agreed on once (election.ts), then merged (ring.ts, ring_merge.ts)
 *     space, holdings   what of ours is free, and who holds the rest (territory.ts)
 *     operations        what callers wait for (operations.ts), and whom we asked for space (requests.ts)
 *     reclaim           ranges of peers that are gone for good (reclaim.ts)
 */
import { ProtocolError, WireError } from "../lib/errors.ts";
import type { Cidr, Ipv4 } from "../lib/ip.ts";
import { formatCidr, formatIpv4 } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import { formatMac, NO_PEER, parsePeerName, type PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import { type Deadline, earlier, type Instant } from "../lib/time.ts";
import {
  decodeIpamMessage,
  decodeIpamState,
  encodeIpamMessage,
  encodeIpamState,
  type IpamState,
  ringUpdateOf,
  type RingValue,
} from "../wire/ipam.ts";
import { decodeReclaim, encodeReclaim } from "../wire/reclaim.ts";
import type { GossipChannel, GossipData } from "../mesh/mesh.ts";
import { Conflicts } from "./conflicts.ts";
import { Containers } from "./containers.ts";
import { Election, type ElectionStatus } from "./election.ts";
import { Nicknames } from "./nicknames.ts";
import {
  type AllocateRequest,
  type ClaimRequest,
  type OperationId,
  type OperationResult,
  Operations,
} from "./operations.ts";
import { EVERYBODY, Outbox } from "./outbox.ts";
import { Paxos, seedsOf } from "./paxos.ts";
import { type AddressRange, formatRange, rangeOf } from "./range.ts";
import { type Elapsed, Reclaim, RECLAIM_TICK_MS, RECLAIM_VERSIONS } from "./reclaim.ts";
import { donorsInOrder, Requests } from "./requests.ts";
import { RingConflict } from "./ring.ts";
import { type IpamStatus, statusOf } from "./status.ts";
import type { StoredIpam } from "./stored.ts";
import { type Claimant, Territory } from "./territory.ts";
import { Contests } from "./contests.ts";

export type { AllocateRequest, ClaimRequest, OperationId, OperationResult } from "./operations.ts";

/** The gossip channels. */
export const IPAM_CHANNEL = "IPallocation";
export const RECLAIM_CHANNEL = "weave-reclaim";

/** What waits is tried again so often, as messages may have been lost. */
const TICK_MS = 5_000;

/** How the first ring comes about. */
export type IpamInit =
  /** By agreement among so many peers; undefined: as many as we were told to connect with, and ourselves. */
  | { readonly mode: "consensus"; readonly peers: number | undefined }
  /** The universe is divided among these at once; every one of them must be told the same. */
  | { readonly mode: "seed"; readonly peers: readonly PeerName[] }
  /** Others agree, we are given it. */
  | { readonly mode: "observer" };

/** What the allocator asks of the mesh. */
export interface PeerView {
  /** Whether a way to this peer is known. */
  inReach(name: PeerName): boolean;
  /** How many peers we are told to connect with. */
  targetCount(): number;
}

export interface AllocatorOptions {
  readonly name: PeerName;
  readonly nickName: string;
  /** Of this start, as the mesh has it. */
  readonly uid: bigint;
  /** The universe, the same for all: a network of four addresses at least. */
  readonly range: Cidr;
  readonly init: IpamInit;
  /** What was last written; used if it is of this name and range. */
  readonly stored: StoredIpam | undefined;
  /** Addresses found in use when we start, on the bridge and in containers. */
  readonly existing: readonly Claimant[];
  /** Containers that run, where that is known: addresses of others are free. */
  readonly running: ReadonlySet<string> | undefined;
  /** `--ipalloc-reclaim`; off where `afterMs` is undefined. */
  readonly reclaim: { readonly afterMs: number | undefined; readonly elapsed: Elapsed };
  readonly peers: PeerView;
  readonly random: Random;
  readonly log: Logger;
  /** How far the wall clock is ahead of the instants that come in; for information only. */
  readonly wallAheadMs?: number;
}

export type AllocatorOutput =
  /** Write `snapshot()` to disk, and tell by `handlePersisted()`; a later one covers earlier ones. Until then much waits. */
  | { readonly type: "persist" }
  | { readonly type: "answer"; readonly operation: OperationId; readonly result: OperationResult }
  | { readonly type: "unicast"; readonly to: PeerName; readonly payload: Uint8Array }
  | { readonly type: "broadcast"; readonly channel: string; readonly data: GossipData };

export class Allocator implements GossipChannel {
  readonly name = IPAM_CHANNEL;
  /** What routers with the option say to each other; to be registered as well. */
  readonly reclaimChannel: GossipChannel;
  readonly #o: AllocatorOptions;
  readonly #universe: AddressRange;
  readonly #territory: Territory;
  readonly #containers: Containers;
  readonly #nicknames: Nicknames;
  readonly #operations: Operations;
  readonly #requests = new Requests();
  readonly #contests: Contests;
  readonly #conflicts = new Conflicts();
  readonly #outbox: Outbox<AllocatorOutput>;
  readonly #reclaim: Reclaim | undefined;
  /** Undefined once there is a ring that others may hear of. */
  #election: Election | undefined;
  /** The ring on disk, and those that are being written, by revision. */
  #storedRing: RingValue;
  readonly #rings = new Map<number, RingValue>();
  /** The state as octets, until it is another one. */
  #encoded: { readonly key: string; readonly ring: RingValue; readonly octets: Uint8Array } | undefined;
  /** See `keep()`. */
  #kept: { readonly wanted: readonly Claimant[]; readonly isOfKind: (id: string) => boolean } | undefined;
  #lastOperation = 0;
  #leaving = false;
  #now: Instant;
  #tickAt: Instant;
  #reclaimAt: Instant;

  constructor(o: AllocatorOptions, now: Instant) {
    this.#o = o;
    this.#now = now;
    this.#tickAt = now + TICK_MS;
    this.#reclaimAt = now + RECLAIM_TICK_MS;
    this.#universe = rangeOf(o.range);
    this.#territory = new Territory(this.#universe, o.name);
    this.#containers = new Containers(this.#territory);
    this.#nicknames = new Nicknames(o.name, o.nickName);
    this.#contests = new Contests(this.#territory);
    const restored = this.#restore();
    this.#storedRing = restored ? this.#territory.ring.value() : new Territory(this.#universe, o.name).ring.value();
    this.#outbox = new Outbox(restored ? this.#territory.revision : -1);
    this.#election = restored ? undefined : new Election({
      paxos: o.init.mode === "observer" ? undefined : new Paxos({ name: o.name, uid: o.uid }),
      quorum: () => this.#quorum(),
    });
    this.#operations = new Operations({
      territory: this.#territory,
      containers: this.#containers,
      nicknames: this.#nicknames,
      inReach: (name) => o.peers.inReach(name),
      fenced: () => this.#reclaim?.mayAllocate === false,
      establish: () => this.#establish(),
      request: (from, range) => this.#request(from, range),
      requestFromSomebody: (range) => this.#requestFromSomebody(range),
      answer: (operation, result) => this.#answer(operation, result),
      warn: (event, reason) => o.log.warn(event, { reason }),
    });
    const { afterMs, elapsed } = o.reclaim;
    const former = restored ? o.stored?.reclaim : undefined;
    this.#reclaim = afterMs === undefined ? undefined : new Reclaim({
      us: o.name,
      afterMs,
      stored: former && { state: former, elapsed },
      inReach: (name) => o.peers.inReach(name),
      log: o.log,
    }, now);
    this.reclaimChannel = {
      name: RECLAIM_CHANNEL,
      handleGossip: () => undefined,
      handleBroadcast: (source, payload, now) => this.#handleAnnouncement(source, payload, now),
      handleUnicast: () => {},
      completeState: () => undefined,
    };
    this.#begin(restored);
  }

  // What callers ask for

  /** Answers with the address, which the id holds from then on; the one that it holds already, where it holds one in this subnet. */
  allocate(request: AllocateRequest, now: Instant): OperationId {
    return this.#start(now, (operation) => this.#operations.allocate(operation, request));
  }

  claim(request: ClaimRequest, now: Instant): OperationId {
    return this.#start(now, (operation) => this.#operations.claim(operation, request));
  }

  /** Answers once there is a ring. */
  prime(now: Instant): OperationId {
    return this.#start(now, (operation) => this.#operations.prime(operation));
  }

  free(id: string, address: Ipv4, now: Instant): OperationId {
    return this.#doNow(now, () => {
      if (this.#territory.free(id, address)) return { outcome: "done" };
      return { outcome: "refused", reason: `Free: address ${formatIpv4(address)} not found for ${id}` };
    });
  }

  freeAll(id: string, now: Instant): OperationId {
    return this.#doNow(now, () => {
      if (this.#territory.freeAll(id) > 0) return { outcome: "done" };
      return { outcome: "refused", reason: `Delete: no addresses for ${id}` };
    });
  }

  /** Takes the ranges of a peer that is gone, by nickname or name. Answers with how many free addresses that brought. */
  takeOver(peer: string, now: Instant): OperationId {
    return this.#doNow(now, () => ({ outcome: "done", count: this.#takeOver(peer) }));
  }

  /** Gives all that is ours to others, and serves no more. Answers when they may hear of it. */
  leave(now: Instant): OperationId {
    return this.#doNow(now, () => {
      this.#leave();
      return { outcome: "done" };
    });
  }

  /** Nobody waits for the answer any more. One that was given already stays given. */
  cancel(operation: OperationId, now: Instant): void {
    this.#enter(now, () => this.#operations.cancel(operation));
  }

  /** What an id holds in a range. */
  lookup(id: string, range: AddressRange): readonly Cidr[] {
    return this.#territory.holdings.inRange(id, range);
  }

  /** Who holds an address here: an id, or the address itself as text where it was given without one. */
  holderOf(address: Ipv4): string | undefined {
    return this.#territory.holdings.holderOf(address);
  }

  /** Everything that is held here. */
  held(): readonly { readonly id: string; readonly isContainer: boolean; readonly cidrs: readonly Cidr[] }[] {
    return [...this.#territory.holdings.entries()].map(([id, holding]) => ({ id, ...holding }));
  }

  /**
   * Addresses that whoever owns their ranges is to hold, as they belong to nobody alone: those in our ranges are held from now on, and as
   * soon as ranges become ours; what ids of this kind hold otherwise is free.
   * @param isOfKind whether an id is one of those that are kept like this
   */
  keep(wanted: readonly Claimant[], isOfKind: (id: string) => boolean, now: Instant): void {
    this.#enter(now, () => {
      this.#kept = { wanted, isOfKind };
      this.#holdKept();
    });
  }

  #holdKept(): void {
    if (this.#kept === undefined) return;
    const { wanted, isOfKind } = this.#kept;
    const keys = new Set(wanted.map(({ id, cidr }) => `${id} ${cidr.address}`));
    for (const [id, { cidrs }] of [...this.#territory.holdings.entries()]) {
      if (!isOfKind(id)) continue;
      for (const { address } of cidrs) {
        // What became another's is held by him.
        if (!keys.has(`${id} ${address}`) || !this.#territory.owns(address)) this.#territory.free(id, address);
      }
    }
    for (const claimant of wanted) {
      if (this.#territory.owns(claimant.cidr.address)) this.#takeNote(claimant);
    }
  }

  // What happens to containers

  /** Its addresses are free in a while, unless it is started again. What it waits for is cancelled. */
  handleContainerDied(id: string, now: Instant): void {
    this.#enter(now, () => {
      this.#containers.handleDied(id, now);
      this.#operations.cancelFor(id);
    });
  }

  handleContainerStarted(id: string, now: Instant): void {
    this.#enter(now, () => this.#containers.handleAlive(id));
  }

  handleContainerDestroyed(id: string, now: Instant): void {
    this.#enter(now, () => this.#containers.handleDestroyed(id));
  }

  /** Addresses found in use here, as after events were missed. */
  handleExisting(claimants: readonly Claimant[], now: Instant): void {
    this.#enter(now, () => claimants.forEach((claimant) => this.#takeNote(claimant)));
  }

  /** These are all that run, as after events were missed. */
  handleRunning(ids: ReadonlySet<string>, now: Instant): void {
    this.#enter(now, () => this.#keepOnly(ids));
  }

  // From the mesh

  /** Throws what ends the connection. */
  handleGossip(payload: Uint8Array, now: Instant, from: PeerName = NO_PEER): undefined {
    const state = decodeIpamState(payload);
    this.#enter(now, () => this.#handleState(NO_PEER, state, from));
  }

  handleBroadcast(source: PeerName, payload: Uint8Array, now: Instant): GossipData | undefined {
    const state = this.#decoded(source, () => decodeIpamState(payload));
    if (state === undefined) return undefined;
    this.#enter(now, () => this.#handleState(source, state, source));
    // Who has nothing of its own to say does not stand between those who have; nor does a disk: what was told is no news of ours.
    const nothingToSay = this.#territory.ring.empty && this.#election?.votes !== true;
    return nothingToSay || this.#territory.revision > this.#outbox.stored ? new Octets(payload) : this.#state;
  }

  handleUnicast(source: PeerName, payload: Uint8Array, now: Instant): void {
    const message = this.#decoded(source, () => decodeIpamMessage(payload));
    if (message === undefined || source === this.#o.name) return;
    this.#enter(now, () => {
      switch (message.type) {
        case "request":
          return this.#donate(message.range, source);
        case "denied":
          this.#requests.handleDenied(source, message.range, now);
          this.#contests.handleDenied(source, message.range);
          return this.#operations.handleDenied(source, message.range);
        case "ring": {
          const answered = this.#requests.handleAnswer(source);
          this.#handleState(source, message.state, source);
          // What was given may have been told by its broadcast already, and not have been enough.
          return answered ? this.#operations.tryAll() : undefined;
        }
        default:
          message satisfies never;
      }
    });
  }

  completeState(now: Instant): GossipData {
    this.#now = now;
    return this.#state;
  }

  /** The mesh knows no way to it any more. */
  handlePeerGone(name: PeerName, now: Instant): void {
    this.#enter(now, () => {
      const owners = this.#territory.ring.owners();
      if (!owners.has(name)) this.#nicknames.prune((other) => other !== name);
    });
  }

  // Storing

  /** What to write; it is of the moment, and covers all that was to be written before. */
  snapshot(): { readonly revision: number; readonly stored: StoredIpam } {
    const { revision, ring, holdings } = this.#territory;
    this.#rings.set(revision, ring.value());
    return {
      revision,
      stored: {
        name: this.#o.name,
        range: this.#o.range,
        seeds: ring.seeds,
        entries: ring.entries,
        held: [...holdings.entries()],
        reclaim: this.#reclaim?.stored(),
      },
    };
  }

  /** A snapshot is on disk. */
  handlePersisted(revision: number, now: Instant): void {
    this.#enter(now, () => {
      this.#storedRing = this.#rings.get(revision) ?? this.#storedRing;
      for (const written of this.#rings.keys()) if (written <= revision) this.#rings.delete(written);
      this.#outbox.handleStored(revision);
      if (this.#storedRing.entries.length > 0) this.#election = undefined;
    });
  }

  // Time and outputs

  handleTimeout(now: Instant): void {
    this.#enter(now, () => {
      if (now >= this.#tickAt) this.#tick();
      if (now >= this.#reclaimAt) this.#tickReclaim();
    });
  }

  pollTimeout(): Deadline | undefined {
    return earlier(
      this.#busy ? { at: this.#tickAt, why: "addresses wait" } : undefined,
      this.#reclaim === undefined ? undefined : { at: this.#reclaimAt, why: "owners of addresses are looked after" },
    );
  }

  /** What to do next; undefined when there is nothing left. To be drained after every other call. */
  poll(): AllocatorOutput | undefined {
    return this.#outbox.poll({
      persist: () => ({ type: "persist" }),
      state: (to) =>
        to === EVERYBODY
          ? { type: "broadcast", channel: IPAM_CHANNEL, data: this.#state }
          : { type: "unicast", to, payload: ringUpdateOf(this.#encodeState()) },
    }, this.#now);
  }

  /** Undefined where nobody waits for an agreement. */
  get election(): ElectionStatus | undefined {
    return this.#election?.status();
  }

  /** For status, report and metrics. */
  status(now: Instant): IpamStatus {
    return statusOf({
      range: this.#o.range,
      territory: this.#territory,
      nicknames: this.#nicknames,
      election: this.#election,
      operations: this.#operations,
      contests: this.#contests,
      conflicts: this.#conflicts.list(now),
      reclaim: this.#reclaim,
      inReach: (name) => name === this.#o.name || this.#o.peers.inReach(name),
    });
  }

  // Inside

  /** Everything from outside comes through here: afterwards the ring knows what is free, and what is to be stored is. */
  #enter<T>(now: Instant, work: () => T): T {
    this.#now = now;
    // Ticks go on as if they had never paused.
    if (now > this.#tickAt && !this.#busy) this.#skipTicks();
    try {
      return work();
    } finally {
      const { ring } = this.#territory;
      // Nobody hears of it where we may be thought gone, and a version would be used up.
      if (!ring.empty && this.#reclaim?.mayDonate(ring.owners()) !== false) this.#territory.reportFree();
      this.#outbox.wantStored(this.#territory.revision);
    }
  }

  /** Whether ticks have anything to do. */
  get #busy(): boolean {
    return this.#election?.waiting === true || this.#operations.anyPending || this.#containers.anyDead ||
      this.#contests.any;
  }

  /** The next tick is the first one after now. */
  #skipTicks(): void {
    this.#tickAt += TICK_MS * Math.max(1, Math.ceil((this.#now - this.#tickAt + 1) / TICK_MS));
  }

  #start(now: Instant, begin: (operation: OperationId) => void): OperationId {
    const operation = ++this.#lastOperation as OperationId;
    this.#enter(now, () => {
      if (!this.#leaving) return begin(operation);
      this.#answer(operation, { outcome: "cancelled", reason: "the allocator stops" });
    });
    return operation;
  }

  #doNow(now: Instant, work: () => OperationResult): OperationId {
    const operation = ++this.#lastOperation as OperationId;
    this.#enter(now, () => this.#answer(operation, work()));
    return operation;
  }

  #answer(operation: OperationId, result: OperationResult): void {
    this.#outbox.putAnswer(this.#territory.revision, { type: "answer", operation, result });
  }

  /** Takes over what was stored, if it is ours. */
  #restore(): boolean {
    const { stored, name, range, log } = this.#o;
    if (stored === undefined) return false;
    if (stored.name !== name) {
      log.info("stored addresses are not used: they are of another peer", { peer: formatMac(stored.name) });
      return false;
    }
    if (formatCidr(stored.range) !== formatCidr(range)) {
      log.info("stored addresses are not used: they are of another range", { subnet: formatCidr(stored.range) });
      return false;
    }
    const { start, end } = this.#universe;
    try {
      this.#territory.restore({ start, end, peer: name, seeds: stored.seeds, entries: stored.entries }, stored.held);
    } catch (error) {
      if (!(error instanceof RingConflict)) throw error;
      log.warn("stored addresses are not used", { reason: error.message });
      return false;
    }
    return !this.#territory.ring.empty;
  }

  #begin(restored: boolean): void {
    const { init, running, existing } = this.#o;
    if (restored) {
      if (init.mode === "seed") this.#compareSeeds(seedsOf(init.peers));
    } else if (init.mode === "seed") {
      this.#divide(seedsOf(init.peers));
    }
    if (running !== undefined) this.#keepOnly(running);
    for (const claimant of existing) this.#takeNote(claimant);
    if (!restored) this.#territory.touch();
    this.#enter(this.#now, () => {});
  }

  #compareSeeds(given: readonly PeerName[]): void {
    const { seeds } = this.#territory.ring;
    if (`${given}` === `${seeds}`) return;
    const reason = `given: ${given.map(formatMac).join(" ")}, stored: ${seeds.map(formatMac).join(" ")}`;
    this.#o.log.warn("the stored ring was seeded by other peers; it is used, and the seed is not", { reason });
  }

  #keepOnly(running: ReadonlySet<string>): void {
    for (const id of this.#containers.keepOnly(running)) {
      this.#o.log.info("addresses of a container that is gone are free", { container: id });
    }
  }

  /** An address is in use here already. */
  #takeNote(claimant: Claimant): void {
    const noted = this.#territory.ring.contains(claimant.cidr.address)
      ? this.#territory.note(claimant)
      : this.#territory.claimOutside(claimant, () => false) === undefined;
    if (noted) return;
    const holder = this.#territory.holdings.holderOf(claimant.cidr.address) ?? "nobody";
    this.#o.log.warn("an address in use belongs to another holder", {
      address: formatCidr(claimant.cidr),
      container: claimant.id,
      value: holder,
    });
  }

  #quorum(): number {
    const { init, peers } = this.#o;
    const voters = init.mode === "consensus" && init.peers !== undefined ? init.peers : peers.targetCount() + 1;
    return Math.floor(voters / 2) + 1;
  }

  /** Makes for a ring, unless there is one or we are about it. */
  #establish(): void {
    if (this.#leaving || !this.#territory.ring.empty || this.#election?.begin() !== true) return;
    this.#broadcast();
    this.#conclude();
  }

  /** Divides the universe, if it is decided among whom. */
  #conclude(): void {
    const seeds = this.#territory.ring.empty ? this.#election?.decided() : undefined;
    if (seeds === undefined) return;
    this.#divide(seeds);
    this.#handleNewRing();
    this.#broadcast();
  }

  #divide(seeds: readonly PeerName[]): void {
    this.#o.log.info("the universe is divided", {
      value: seeds.map((name) => this.#nicknames.annotate(name)).join(" "),
    });
    this.#territory.divide(seeds);
  }

  /** The ring is another one than before: what waited may be had now. */
  #handleNewRing(): void {
    this.#election?.end();
    this.#holdKept();
    this.#operations.tryAll();
  }

  /** @param source of a broadcast or unicast; NO_PEER: gossip, which is answered by nobody */
  #handleState(source: PeerName, state: IpamState, from: PeerName): void {
    const { ring } = this.#territory;
    this.#nicknames.merge(state.nicknames, this.#worthKnowing(from, state.ring));
    if (state.ring !== undefined) {
      this.#merge(state.ring, from);
    } else if (!ring.empty) {
      if (source !== NO_PEER) this.#outbox.putState(source, this.#territory.revision, this.#now);
    } else if (state.paxos !== undefined) {
      if (this.#election?.handleState(state.paxos) === true) this.#broadcast();
      this.#conclude();
    } else if (source !== NO_PEER && this.#election?.votes === true) {
      this.#establish();
    }
  }

  #merge(theirs: RingValue, from: PeerName): void {
    const { ring } = this.#territory;
    try {
      const updated = this.#territory.merge(theirs, this.#yields);
      this.#conflicts.settle(from);
      if (!updated) return;
    } catch (error) {
      if (!(error instanceof RingConflict)) throw error;
      const reason = this.#reasonOf(error, theirs);
      if (this.#conflicts.note(from, reason, this.#now)) {
        this.#o.log.warn("rings of addresses cannot become one", { peer: this.#nicknames.annotate(from), reason });
      }
      throw new ProtocolError(reason);
    }
    const owners = ring.owners();
    this.#nicknames.prune((name) => owners.has(name) || this.#o.peers.inReach(name));
    this.#handleNewRing();
    // Somebody gave us what we had asked for.
    if (this.#leaving) this.#giveAway();
  }

  /** What was taken over from us while we were out of reach is let go. */
  get #yields(): boolean {
    return this.#reclaim !== undefined || this.#o.stored?.reclaim !== undefined;
  }

  #reasonOf(conflict: RingConflict, theirs: RingValue): string {
    const { ring } = this.#territory;
    const names = (seeds: readonly PeerName[]) => `[${seeds.map((name) => this.#nicknames.annotate(name)).join(" ")}]`;
    // Where the universes differ, the seeds do too, as a rule; that is not what one has to mend.
    const { start, end } = ring.universe;
    switch (theirs.start !== start || theirs.end !== end ? "universe" : conflict.kind) {
      case "seeds":
        return `IP allocation was seeded by different peers (received: ${names(theirs.seeds)}, ours: ${
          names(ring.seeds)
        })`;
      case "universe":
        return `Incompatible IP allocation ranges (received: ${formatRange(theirs)}, ours: ${
          formatRange(ring.universe)
        })`;
      case "malformed":
      case "entries":
        return conflict.message;
      default:
        throw new TypeError("There is no other kind of conflict");
    }
  }

  /** Whose nicknames matter: of who tells, of who is in reach, and of owners. */
  #worthKnowing(from: PeerName, theirs: RingValue | undefined): (name: PeerName) => boolean {
    let owners: ReadonlySet<PeerName> | undefined;
    return (name) => {
      if (name === from || this.#o.peers.inReach(name)) return true;
      owners ??= new Set([...this.#territory.ring.entries, ...theirs?.entries ?? []].map(({ peer }) => peer));
      return owners.has(name);
    };
  }

  /** Somebody asks for addresses. It always hears what the ring is: of what it got, or where else there may be some. */
  #donate(range: AddressRange, to: PeerName): void {
    const { ring } = this.#territory;
    if (ring.empty || this.#leaving || !this.#o.peers.inReach(to)) return;
    if (this.#reclaim?.mayDonate(ring.owners()) === false) return;
    const given = this.#territory.donate(range, to);
    if (given === undefined) {
      this.#outbox.put({ type: "unicast", to, payload: encodeIpamMessage({ type: "denied", range }) });
    } else {
      this.#o.log.debug("addresses given to a peer", { peer: formatMac(to), subnet: formatRange(given) });
      this.#broadcast();
    }
    this.#outbox.putState(to, this.#territory.revision, this.#now);
  }

  #request(from: PeerName, range: AddressRange): void {
    if (!this.#requests.begin(from, range, this.#now)) return;
    this.#outbox.put({ type: "unicast", to: from, payload: encodeIpamMessage({ type: "request", range }) });
  }

  #requestFromSomebody(range: AddressRange): void {
    const { ring } = this.#territory;
    const donor = donorsInOrder(ring, range, this.#o.random).find((peer) => this.#o.peers.inReach(peer));
    const { start, end } = range;
    // A subnet may reach beyond the universe, where an end may not even be an address.
    const wanted = { start: Math.max(start, ring.universe.start), end: Math.min(end, ring.universe.end) };
    if (donor !== undefined) this.#request(donor, wanted);
  }

  #takeOver(text: string): number {
    const peer = this.#findOwner(text);
    if (peer === undefined || peer === this.#o.name || !this.#territory.ring.owners().has(peer)) {
      this.#o.log.warn("no addresses are taken over: it is no other peer that has any", { name: text });
      return 0;
    }
    const count = this.#territory.transfer(peer, this.#o.name);
    this.#o.log.info("addresses taken over", { peer: this.#nicknames.annotate(peer), count });
    this.#handleNewRing();
    this.#broadcast();
    return count;
  }

  /** Of several peers with one nickname, one that owns something and is out of reach. */
  #findOwner(text: string): PeerName | undefined {
    const owners = this.#territory.ring.owners();
    const rank = (name: PeerName) => owners.has(name) ? this.#o.peers.inReach(name) ? 1 : 0 : 2;
    const called = this.#nicknames.calledSo(text).sort((a, b) => rank(a) - rank(b));
    return called[0] ?? parsePeerName(text);
  }

  #leave(): void {
    if (this.#leaving) return;
    this.#leaving = true;
    this.#operations.cancelAll();
    this.#giveAway();
  }

  /** All that is ours becomes an heir's, where there is one. */
  #giveAway(): void {
    const heir = this.#heir();
    if (heir === undefined || !this.#territory.ring.owners().has(this.#o.name)) return;
    this.#o.log.info("all addresses are given to another peer", { peer: this.#nicknames.annotate(heir) });
    this.#territory.transfer(this.#o.name, heir);
    this.#broadcast();
  }

  /** Who is given what is ours: somebody who is there rather than not, and who owns something rather than not. */
  #heir(): PeerName | undefined {
    const { name: us, peers } = this.#o;
    const owners = this.#territory.ring.entries.map(({ peer }) => peer).filter((peer) =>
      peer !== us && peer !== NO_PEER
    );
    const others = this.#nicknames.entries().map(([name]) => name).filter((name) => name !== us);
    const inReach = (name: PeerName) => peers.inReach(name);
    return owners.find(inReach) ?? others.find(inReach) ?? owners[0] ?? others[0];
  }

  #tick(): void {
    const { ring } = this.#territory;
    this.#skipTicks();
    if (ring.empty && this.#election?.waiting === true) {
      this.#election.repeat();
      this.#broadcast();
      this.#conclude();
    } else if (ring.empty && (this.#operations.anyPending || this.#contests.any)) {
      this.#establish();
    } else {
      this.#operations.tryAll();
    }
    for (const id of this.#containers.handleTick(this.#now)) {
      this.#o.log.info("addresses of a dead container are free", { container: id });
    }
    if (!ring.empty && !this.#leaving) {
      this.#contests.ask((owner, address) => {
        if (this.#o.peers.inReach(owner)) this.#request(owner, { start: address, end: address + 1 });
      });
    }
  }

  #tickReclaim(): void {
    this.#reclaimAt = this.#now + RECLAIM_TICK_MS;
    const reclaim = this.#reclaim;
    if (reclaim === undefined) return;
    const owners = this.#territory.ring.owners();
    const couldAllocate = reclaim.mayAllocate;
    reclaim.observe(owners, this.#now);
    const gone = this.#leaving ? undefined : reclaim.due(owners, this.#now);
    if (gone !== undefined) {
      const count = this.#territory.transfer(gone, this.#o.name, RECLAIM_VERSIONS);
      this.#o.log.warn("addresses of a peer that is gone taken over", { peer: this.#nicknames.annotate(gone), count });
      this.#handleNewRing();
      this.#broadcast();
    } else if (!couldAllocate && reclaim.mayAllocate) {
      this.#operations.tryAll();
    }
    if (reclaim.takeDirty(this.#now)) this.#territory.touch();
    const announcement = reclaim.announcement(this.#now);
    if (announcement === undefined) return;
    this.#outbox.put({ type: "broadcast", channel: RECLAIM_CHANNEL, data: new Octets(encodeReclaim(announcement)) });
  }

  #handleAnnouncement(source: PeerName, payload: Uint8Array, now: Instant): GossipData | undefined {
    const announcement = this.#decoded(source, () => decodeReclaim(payload));
    if (announcement === undefined) return undefined;
    this.#enter(now, () => this.#reclaim?.handleAnnouncement(source, announcement, now));
    return new Octets(payload);
  }

  /** Undefined where it cannot be read: whoever handed it on need not be to blame, so that nobody's connection ends. */
  #decoded<T>(source: PeerName, decode: () => T): T | undefined {
    try {
      return decode();
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#o.log.debug("message of a peer cannot be read", { peer: formatMac(source), error: error.message });
      return undefined;
    }
  }

  #broadcast(): void {
    this.#outbox.putState(EVERYBODY, this.#territory.revision, this.#now);
  }

  /** What others may hear of, as it is when it is sent. */
  readonly #state: GossipData = { merge: () => this.#state, encode: () => [this.#encodeState()] };

  #encodeState(): Uint8Array {
    const ring = this.#storedRing;
    const seconds = Math.floor((this.#now + (this.#o.wallAheadMs ?? 0)) / 1000);
    const paxos = ring.entries.length > 0 ? undefined : this.#election?.state();
    const key = `${seconds} ${this.#nicknames.generation}`;
    if (paxos === undefined && this.#encoded?.key === key && this.#encoded.ring === ring) return this.#encoded.octets;
    const octets = encodeIpamState({
      now: BigInt(seconds),
      nicknames: this.#nicknames.entries(),
      paxos,
      ring: ring.entries.length > 0 ? ring : undefined,
    });
    this.#encoded = paxos === undefined ? { key, ring, octets } : undefined;
    return octets;
  }
}

/** Octets to be passed on as they are. */
class Octets implements GossipData {
  readonly #payloads: readonly Uint8Array[];

  constructor(...payloads: readonly Uint8Array[]) {
    this.#payloads = payloads;
  }

  merge(later: GossipData): GossipData {
    return later instanceof Octets ? new Octets(...this.#payloads, ...later.#payloads) : later;
  }

  encode(): readonly Uint8Array[] {
    return this.#payloads;
  }

  get heldOctets(): number {
    return this.#payloads.reduce((sum, { length }) => sum + length, 0);
  }
}
