/**
 * Gossip's hub: takes what neighbours say on channels, hands it to those who understand the channel, passes on what was news, and
 * tells neighbours what we know from time to time. Relaying waits for a pending recalculation of routes, and is merged while it waits.
 */
import { ProtocolError, WireError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { formatMac, NO_PEER, type PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { Instant } from "../lib/time.ts";
import { type Message, type Payload, topologyOf } from "../wire/control.ts";
import { type Connection, OVERLOADED } from "./connection.ts";
import { compareSummary, digestOf, summaryOf } from "./digest.ts";
import { type GossipData, GossipSlots } from "./gossip.ts";
import { MAX_PEERS, type MergeResult, type Peers } from "./peers.ts";
import type { Routes } from "./routes.ts";
import { PassedOn, Surrogates } from "./surrogate.ts";
import { completeTopology, newsOf, TOPOLOGY, TopologyNews } from "./topology.ts";

/** A summary goes out on a connection at most once in this time. */
const SUMMARY_INTERVAL_MS = 1_000;

/** Octets of passed-on gossip that may wait for routes; more do not wait. */
const MAX_DEFERRED_OCTETS = 12 << 20;

/**
 * A gossip topic and who understands it. An error that a method throws closes the connection that the payload came on, with its
 * message as the reason. Payloads may be kept.
 */
export interface GossipChannel {
  readonly name: string;
  /** Folds gossip of a neighbour in; returns what was news to us, which is gossiped on, or undefined. */
  handleGossip(payload: Uint8Array, now: Instant, from: PeerName): GossipData | undefined;
  /** Folds a broadcast in; returns what is to be passed on in its place, or undefined. */
  handleBroadcast(source: PeerName, payload: Uint8Array, now: Instant): GossipData | undefined;
  handleUnicast(source: PeerName, payload: Uint8Array, now: Instant): void;
  /** Everything we know, for a new neighbour and every 30 s; undefined where there is nothing to say. */
  completeState(now: Instant): GossipData | undefined;
}

/** What the hub needs of the mesh around it. */
export interface HubSurroundings {
  readonly peers: Peers;
  readonly routes: Routes;
  readonly random: Random;
  readonly log: Logger;
  /** Confirmed connections by who is at the other end. */
  readonly connections: ReadonlyMap<PeerName, Connection>;
  send(connection: Connection, message: Message): void;
  /** Ends a connection whose peer broke the rules, or cannot be kept up with. */
  end(connection: Connection, reason: string, now: Instant): void;
  /** An update of the topology was folded in. */
  handleMerged(result: MergeResult, now: Instant): void;
  /** Routes are to be computed anew before they are used for gossip. */
  routesPending(): boolean;
  recalculate(now: Instant): void;
}

/** Messages that are gossip's. */
export type GossipMessage = Extract<
  Message,
  { type: "gossip" | "unicast" | "broadcast" | "digest" | "summary" | "want" }
>;

export class GossipHub {
  readonly #around: HubSurroundings;
  readonly #channels = new Map<string, GossipChannel>();
  readonly #surrogates = new Surrogates();
  /** What waits for routes, by the neighbour who is not to hear it. */
  readonly #deferredGossip = new Map<PeerName, GossipSlots>();
  #deferredBroadcasts = new GossipSlots();
  #digest = 0n;
  #digestGeneration = -1;

  constructor(around: HubSurroundings) {
    this.#around = around;
  }

  register(channel: GossipChannel): void {
    if (channel.name === TOPOLOGY || this.#channels.has(channel.name)) {
      throw new RangeError(`Cannot register channel "${channel.name}": the name is taken`);
    }
    this.#channels.set(channel.name, channel);
  }

  handleMessage(connection: Connection, message: GossipMessage, now: Instant): void {
    try {
      this.#dispatch(connection, message, now);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (!(error instanceof WireError || error instanceof ProtocolError)) {
        this.#around.log.error("gossip channel failed", { connection: connection.address, error: reason });
      }
      this.#around.end(connection, reason, now);
    }
  }

  /** Tells some neighbours, the one excepted not among them. */
  gossip(channel: string, except: PeerName, data: GossipData, now: Instant): void {
    if (this.#around.routesPending()) {
      let slots = this.#deferredGossip.get(except);
      if (!slots) this.#deferredGossip.set(except, slots = new GossipSlots());
      slots.put(channel, undefined, data);
      if (this.#deferredOctets() > MAX_DEFERRED_OCTETS) this.#around.recalculate(now);
      return;
    }
    this.#putGossip(channel, except, data, now);
    this.#flushAll(now);
  }

  /** Sends on what `source` broadcasts. */
  broadcast(channel: string, source: PeerName, data: GossipData, now: Instant): void {
    if (this.#around.routesPending()) {
      if (!this.#around.peers.get(source)) return; // leads nowhere
      this.#deferredBroadcasts.put(channel, source, data);
      if (this.#deferredOctets() > MAX_DEFERRED_OCTETS) this.#around.recalculate(now);
      return;
    }
    this.#putBroadcast(channel, source, data, now);
    this.#flushAll(now);
  }

  /** False: no way there. */
  sendUnicast(channel: string, destination: PeerName, payload: Uint8Array): boolean {
    const source = this.#around.peers.ourself.name;
    return this.#relayUnicast({ type: "unicast", channel, source, destination, payload }, undefined);
  }

  /** What waited for routes goes out. */
  handleRecalculated(now: Instant): void {
    for (const [except, slots] of this.#deferredGossip) {
      this.#deferredGossip.delete(except);
      for (let w = slots.take(); w; w = slots.take()) this.#putGossip(w.channel, except, w.data, now);
    }
    const broadcasts = this.#deferredBroadcasts;
    this.#deferredBroadcasts = new GossipSlots();
    for (let w = broadcasts.take(); w; w = broadcasts.take()) this.#putBroadcast(w.channel, w.source!, w.data, now);
    this.#flushAll(now);
  }

  /** A neighbour is new, or newly started: it hears everything. */
  tellAll(connection: Connection, now: Instant): void {
    this.#put(connection, TOPOLOGY, undefined, completeTopology(this.#around.peers), now);
    for (const channel of this.#channels.values()) {
      const state = this.#stateOf(channel, now);
      if (state) this.#put(connection, channel.name, undefined, state, now);
    }
    this.flush(connection, now);
  }

  /** The regular round: everything we know goes to some neighbours, of topology only to those who understand no digest. */
  tellNeighbours(now: Instant): void {
    for (const channel of this.#channels.values()) {
      const state = this.#stateOf(channel, now);
      if (state) this.gossip(channel.name, NO_PEER, state, now);
    }
    const topology = completeTopology(this.#around.peers);
    for (const connection of this.#someNeighbours()) {
      if (!connection.speaks("digest")) this.#put(connection, TOPOLOGY, undefined, topology, now);
    }
    this.#flushAll(now);
  }

  /** The short round: a digest of the topology goes to some neighbours. */
  tellDigests(): void {
    for (const connection of this.#someNeighbours()) this.tellDigest(connection);
  }

  tellDigest(connection: Connection): void {
    if (connection.speaks("digest") && connection.writable) {
      this.#around.send(connection, { type: "digest", digest: this.#ourDigest() });
    }
  }

  /** Sends what waits, as far as the socket takes it. */
  flush(connection: Connection, now: Instant): void {
    const sender = this.#around.peers.ourself.name;
    while (connection.writable && connection.with) {
      const waiting = connection.slots.take();
      if (!waiting) break;
      const { channel, source, data } = waiting;
      for (const payload of data.encode()) {
        this.#around.send(
          connection,
          source === undefined
            ? { type: "gossip", channel, sender, payload }
            : { type: "broadcast", channel, source, payload },
        );
      }
    }
    if (connection.with && connection.overloaded) this.#around.end(connection, OVERLOADED, now);
  }

  #dispatch(connection: Connection, message: GossipMessage, now: Instant): void {
    switch (message.type) {
      case "gossip":
        return this.#handleGossip(connection, message, now);
      case "broadcast":
        return this.#handleBroadcast(message, now);
      case "unicast":
        return this.#handleUnicast(connection, message, now);
      case "digest":
        return this.#handleDigest(connection, message.digest, now);
      case "summary":
        return this.#handleSummary(connection, message.entries, now);
      case "want":
        return this.#handleWant(connection, message.names, now);
      default:
        message satisfies never;
    }
  }

  #handleGossip(connection: Connection, message: Extract<Message, { type: "gossip" }>, now: Instant): void {
    const { channel, payload } = message;
    if (channel === TOPOLOGY) {
      const { improved } = this.#merge(payload, now);
      if (improved.length === 0) return;
      const news = new TopologyNews(this.#around.peers, improved);
      return this.gossip(TOPOLOGY, connection.with!.peer, news, now);
    }
    const octets = octetsOf(payload);
    const known = this.#channels.get(channel);
    const from = connection.with?.peer ?? NO_PEER;
    const news = known ? known.handleGossip(octets, now, from) : this.#surrogates.handleGossip(channel, octets, now);
    if (news) this.gossip(channel, from, news, now);
  }

  #handleBroadcast({ channel, source, payload }: Extract<Message, { type: "broadcast" }>, now: Instant): void {
    if (channel === TOPOLOGY) {
      this.#merge(payload, now);
      const told = newsOf(this.#around.peers, topologyOf(payload).map((record) => record.name));
      return this.broadcast(TOPOLOGY, source, told, now);
    }
    const octets = octetsOf(payload);
    const known = this.#channels.get(channel);
    const onward = known ? known.handleBroadcast(source, octets, now) : new PassedOn([octets]);
    if (onward) this.broadcast(channel, source, onward, now);
  }

  #handleUnicast(connection: Connection, message: Extract<Message, { type: "unicast" }>, now: Instant): void {
    const { channel, source, destination, payload } = message;
    if (destination !== this.#around.peers.ourself.name) {
      if (this.#relayUnicast(message, connection)) return;
      this.#around.log.debug("no way to relay a unicast", { channel, peer: formatMac(destination) });
    } else if (channel === TOPOLOGY) {
      throw new ProtocolError("unexpected topology gossip unicast");
    } else {
      this.#channels.get(channel)?.handleUnicast(source, payload, now);
    }
  }

  /** @param from where it came from: not the way onward, whatever the routes say while they change */
  #relayUnicast(message: Extract<Message, { type: "unicast" }>, from: Connection | undefined): boolean {
    const hop = this.#around.routes.unicastAll().get(message.destination);
    const connection = hop === undefined ? undefined : this.#around.connections.get(hop);
    if (!connection || connection === from) return false;
    this.#around.send(connection, message);
    return true;
  }

  #handleDigest(connection: Connection, digest: bigint, now: Instant): void {
    if (!connection.speaks("digest") || digest === this.#ourDigest()) return;
    if (now < connection.summaryAt + SUMMARY_INTERVAL_MS) return;
    connection.summaryAt = now;
    this.#around.send(connection, { type: "summary", entries: summaryOf(this.#around.peers) });
  }

  /** Computed again only when something is new. */
  #ourDigest(): bigint {
    const { peers } = this.#around;
    if (this.#digestGeneration !== peers.generation) {
      this.#digestGeneration = peers.generation;
      this.#digest = digestOf(peers);
    }
    return this.#digest;
  }

  #handleSummary(
    connection: Connection,
    entries: Extract<Message, { type: "summary" }>["entries"],
    now: Instant,
  ): void {
    if (!connection.speaks("digest")) return;
    if (entries.length > MAX_PEERS) throw new ProtocolError("summary of too many peers");
    const { peers } = this.#around;
    const { theyLack, weLack, earlierLife } = compareSummary(peers, entries);
    if (earlierLife && peers.outdo(earlierLife.uid, earlierLife.version)) {
      this.#around.handleMerged({ improved: [], ourselfChanged: true, refused: 0 }, now);
    }
    if (theyLack.length > 0) this.#put(connection, TOPOLOGY, undefined, newsOf(peers, theyLack), now);
    this.flush(connection, now);
    if (weLack.length > 0) this.#around.send(connection, { type: "want", names: weLack });
  }

  #handleWant(connection: Connection, names: readonly PeerName[], now: Instant): void {
    if (!connection.speaks("digest")) return;
    if (names.length > MAX_PEERS) throw new ProtocolError("too many peers asked for");
    this.#put(connection, TOPOLOGY, undefined, newsOf(this.#around.peers, names), now);
    this.flush(connection, now);
  }

  #merge(payload: Payload, now: Instant): MergeResult {
    const result = this.#around.peers.merge(topologyOf(payload));
    this.#around.handleMerged(result, now);
    return result;
  }

  #stateOf(channel: GossipChannel, now: Instant): GossipData | undefined {
    try {
      return channel.completeState(now);
    } catch (error) {
      this.#around.log.error("gossip channel failed", { channel: channel.name, error: String(error) });
      return undefined;
    }
  }

  #putGossip(channel: string, except: PeerName, data: GossipData, now: Instant): void {
    for (const connection of this.#someNeighbours(except)) this.#put(connection, channel, undefined, data, now);
  }

  #someNeighbours(except: PeerName = NO_PEER): Connection[] {
    const { routes, random, connections } = this.#around;
    return routes.randomNeighbours(except, random).flatMap((name) => connections.get(name) ?? []);
  }

  #putBroadcast(channel: string, source: PeerName, data: GossipData, now: Instant): void {
    for (const name of this.#around.routes.broadcastAll(source)) {
      const connection = this.#around.connections.get(name);
      if (connection) this.#put(connection, channel, source, data, now);
    }
  }

  #put(connection: Connection, channel: string, source: PeerName | undefined, data: GossipData, now: Instant): void {
    connection.slots.put(channel, source, data);
    if (connection.overloaded) this.flush(connection, now);
  }

  #flushAll(now: Instant): void {
    for (const connection of [...this.#around.connections.values()]) this.flush(connection, now);
  }

  #deferredOctets(): number {
    let octets = this.#deferredBroadcasts.heldOctets;
    for (const slots of this.#deferredGossip.values()) octets += slots.heldOctets;
    return octets;
  }
}

function octetsOf(payload: Payload): Uint8Array {
  if (payload instanceof Uint8Array) return payload;
  throw new ProtocolError("topology on another channel");
}
