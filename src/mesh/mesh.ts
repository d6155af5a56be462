/**
 * The mesh core's front: who is in the mesh, how to reach them, and what is said to whom. It decides; a shell owns sockets and
 * sessions, hands in what happened, and does what `poll()` returns. Time and randomness come in as arguments.
 *
 *     shell → mesh                                   mesh → shell (`poll()`)
 *     connect, forget                                dial            open a TCP connection
 *     handleAccepted → featuresFor → handleIntroduced   send         a message on a connection
 *     handleMessage, handleAlive, handleWritable     close           this socket, now
 *     handleDialFailed, handleClosed,                confirmed       prepare and start the carriers of this connection
 *     handleCarrierEstablished, handleCarrierFailed  overlayControl  for the carriers of a confirmed connection
 *     handleSessionFailed                            ended           stop the carriers of this connection
 *     handleTimeout ← pollTimeout
 *
 * A connection's life: dialled or accepted → introduced → confirmed (it stands in our own record; `pending` in status) →
 * established (a carrier works) → ended. Every `ConnectionId` ends once: by a `close` of ours, after which the shell reports
 * nothing more about it, or by `handleDialFailed`, `handleClosed` or `handleSessionFailed`, after which the mesh says nothing more about it but `ended`.
 * Calls about a connection that has ended are ignored, so that what is in flight does no harm.
 */
import { cidrContains, type Endpoint } from "../lib/ip.ts";
import { NO_PEER, parsePeerName, type PeerName } from "../lib/mac.ts";
import { type Deadline, earlier, type Instant, TimerTable } from "../lib/time.ts";
import type { Features, Message } from "../wire/control.ts";
import type { ConnectionRecord, PeerRecord } from "../wire/topology.ts";
import { AcceptLimit } from "./accept_limit.ts";
import { describePeer, type Refusal, refusalOf } from "./admission.ts";
import { Connection, type ConnectionId, type Introduction, OVERLOADED } from "./connection.ts";
import type { GossipData } from "./gossip.ts";
import { type GossipChannel, GossipHub } from "./hub.ts";
import { type MergeResult, Peers } from "./peers.ts";
import { Routes } from "./routes.ts";
import { Targets, type TargetSpec } from "./targets.ts";
import { newsOf, TOPOLOGY } from "./topology.ts";
import { type TurnedAway, TurnedAwayList } from "./turned_away.ts";
import type { BroadcastRoute, ConnectionStatus, MeshOptions, MeshOutput, MeshRoutes, UnicastRoute } from "./types.ts";

export type { ConnectionId } from "./connection.ts";
export type { GossipData } from "./gossip.ts";
export type { GossipChannel } from "./hub.ts";
export type { TargetSpec } from "./targets.ts";
export type { TurnedAway } from "./turned_away.ts";
export type {
  BroadcastRoute,
  Confirmed,
  ConnectionStatus,
  MeshOptions,
  MeshOutput,
  MeshRoutes,
  UnicastRoute,
} from "./types.ts";

/** How often neighbours are told everything we know. */
const GOSSIP_MS = 30_000;
/** How often neighbours that understand it are told a digest of the topology: it costs little, and mends what went astray. */
const DIGEST_MS = 5_000;
/** Changes of our own connections are collected for so long before they are told. */
const TOPOLOGY_UPDATE_MS = 1_000;
/** The same where every neighbour is like us: a way that is new, or gone, is known everywhere the sooner. */
const QUICK_UPDATE_MS = 100;
const GARBAGE_MS = 1_000;
/** Routes are computed anew so long after a change, at the latest. */
const ROUTES_MS = 100;
/** Topology news make targets be looked over at most once in this time. */
const TARGETS_MS = 100;

/** Being called so much later than asked for means that we were not run. */
const STALL_MS = 100;
const LONG_STALL_MS = 1_000;

/** How often it is logged that there is no room for peers. */
const REFUSAL_LOG_MS = 60_000;

/** Accepted sockets that have not introduced themselves; beyond it the oldest goes. */
const MAX_INTRODUCING = 256;

type Timer = "routes" | "garbage" | "topology update" | "gossip" | "digest" | "targets";

/** How a connection ends. */
interface End {
  readonly reason: string;
  /** Whether its target, if it had one, is tried again. */
  readonly retry: "later" | "never";
  /** The shell does not know yet. */
  readonly tell: boolean;
  /** Another connection to the same peer takes its place at once. */
  readonly replaced?: boolean;
  /** It leads to ourselves. */
  readonly ourself?: boolean;
  /** Who is at the other end, where the connection was not confirmed. */
  readonly peer?: PeerName;
}

/** See the file's header. */
export class Mesh {
  readonly name: PeerName;
  readonly routes: MeshRoutes;

  readonly #o: MeshOptions;
  readonly #peers: Peers;
  readonly #routes: Routes;
  readonly #targets: Targets;
  readonly #hub: GossipHub;
  readonly #accepts: AcceptLimit;
  readonly #turnedAway = new TurnedAwayList();
  /** All that have not ended, oldest first. */
  readonly #connections = new Map<ConnectionId, Connection>();
  /** Those that are confirmed. */
  readonly #byPeer = new Map<PeerName, Connection>();
  readonly #timers = new TimerTable<Timer>();
  /** Whose records the next topology update tells of, besides ours. */
  readonly #updated = new Set<PeerName>();
  readonly #presetHalves: bigint[];
  #outputs: MeshOutput[] = [];
  #taken = 0;
  #lastId = 0;
  #terminations = 0;
  /** Records that found no room since that was last logged. */
  #refused = 0;
  #refusalLoggedAt: Instant = -Infinity;
  #targetsCheckedAt: Instant = -Infinity;
  /** When we asked to be called next, and when we were called last. */
  #awaited: Instant | undefined;
  #enteredAt: Instant = -Infinity;

  constructor(o: MeshOptions, now: Instant) {
    this.#o = o;
    this.name = o.name;
    const { name, nickName, uid, shortId, random, log } = o;
    this.#peers = new Peers({ name, nickName, uid, version: 0n, shortId, connections: [] }, random);
    this.#routes = this.routes = new Routes(this.#peers);
    this.#targets = new Targets(o);
    this.#accepts = new AcceptLimit(now);
    this.#presetHalves = [...o.connectionIds ?? []];
    this.#hub = new GossipHub({
      peers: this.#peers,
      routes: this.#routes,
      random,
      log,
      connections: this.#byPeer,
      send: (connection, message) => this.#send(connection, message),
      end: (connection, reason, now) => this.#end(connection, { reason, retry: "later", tell: true }, now),
      handleMerged: (result, now) => this.#handleMerged(result, now),
      routesPending: () => this.#timers.has("routes"),
      recalculate: (now) => this.#recalculate(now),
    });
    this.#timers.set("gossip", now + GOSSIP_MS);
    if (o.extensions.includes("digest")) this.#timers.set("digest", now + DIGEST_MS);
  }

  // What the operator asks for

  /** Adds targets, or (replace) makes them the only ones, and dials what is not connected at once, whatever happened before. */
  connect(targets: readonly TargetSpec[], options: { readonly replace: boolean }, now: Instant): void {
    this.#enter(now);
    if (this.#targets.connect(targets, options.replace, now)) this.#outputs.push({ type: "targetsChanged" });
    this.#checkTargets(now);
  }

  /** Takes targets away, named as they were given. Connections stay. */
  forget(texts: readonly string[], now: Instant): void {
    this.#enter(now);
    if (this.#targets.forget(texts)) this.#outputs.push({ type: "targetsChanged" });
    this.#checkTargets(now);
  }

  /** The targets as they were given. */
  targets(): readonly string[] {
    return this.#targets.texts();
  }

  /** Targets that are not given up (by collision of names, or because they are ourselves). */
  activeTargets(): readonly string[] {
    return this.#targets.activeTexts();
  }

  // From the shell

  /** When the next socket may be accepted, without being refused: now, or a little later. */
  acceptableAt(now: Instant): Instant {
    return this.#accepts.readyAt(now);
  }

  /** A socket was accepted. Undefined: too many at once; close it. */
  handleAccepted(remote: Endpoint, now: Instant): ConnectionId | undefined {
    this.#enter(now);
    if (!this.#accepts.take(now)) return undefined;
    this.#makeRoomForAccepted(now);
    const connection = this.#create({ remote, outbound: false, anyPeer: true }, now);
    this.#o.log.info("connection accepted", { connection: connection.address });
    return connection.id;
  }

  /** A socket is there: what we introduce ourselves with on it. Throws RangeError for a connection that has ended. */
  featuresFor(id: ConnectionId, now: Instant): Features {
    this.#enter(now);
    const connection = this.#connections.get(id);
    if (!connection) throw new RangeError(`Cannot introduce ourselves: connection ${id} has ended`);
    connection.handleConnected(now);
    const { name, nickName, uid, overlays, extensions } = this.#o;
    const { shortId } = this.#peers.ourself;
    const trusted = this.#trusts(connection.remote);
    return { name, nickName, uid, connectionId: connection.halfUid, shortId, trusted, overlays, extensions };
  }

  /** There is no connection to be had. */
  handleDialFailed(id: ConnectionId, reason: string, now: Instant): void {
    this.#enter(now);
    const connection = this.#connections.get(id);
    if (!connection) return;
    if (connection.with || !connection.outbound) return this.handleClosed(id, reason, now);
    this.#connections.delete(id);
    connection.end();
    this.#o.log.info("error during connection attempt", { connection: connection.address, reason });
    this.#targets.handleFailed(connection.remote, reason, now);
    this.#requestTargets(now);
  }

  handleIntroduced(id: ConnectionId, features: Features, sessionKey: Uint8Array | undefined, now: Instant): void {
    this.#enter(now);
    const connection = this.#connections.get(id);
    if (!connection || connection.with) return;
    const trustEachOther = features.trusted && this.#trusts(connection.remote);
    const overlayKey = trustEachOther ? undefined : sessionKey;
    const introduction: Introduction = {
      peer: features.name,
      nickName: features.nickName,
      uid: connection.halfUid ^ features.connectionId,
      overlays: common(this.#o.overlays, features.overlays ?? ["sleeve"]),
      extensions: common(this.#o.extensions, features.extensions),
      legacyOverlay: features.overlays === undefined,
      encrypted: overlayKey !== undefined,
    };
    const ours = this.#peers.ourself;
    const known = this.#peers.get(features.name);
    const refusal = refusalOf({ connection, features, introduction, ours, known });
    if (refusal) {
      this.#refuse(connection, refusal, now);
      if (refusal.ourself) this.#refuseOtherEnd(features.connectionId, refusal, now);
      return;
    }

    // Asked for before anything changes: whether the peer hears of the mesh in another way.
    const reachable = this.#routes.leadTo(features.name);
    const before = this.#byPeer.get(features.name);
    const restarted = known !== undefined && known.uid !== features.uid;
    if (before) {
      const won = this.#breakTie(before, connection, introduction, now);
      // Started anew, or two hosts that have one name, as cloned machines do: they take turns for ever.
      if (restarted) {
        const reason = `another peer is called ${describePeer(known)} as well`;
        this.#turnedAway.add((won ? before : connection).remote.address, reason, now);
      }
      if (!won) return;
    }
    const { connectionLimit } = this.#o;
    if (connectionLimit !== 0 && this.#byPeer.size >= connectionLimit) {
      return this.#refuse(connection, { reason: limitReached(connectionLimit), retry: "later" }, now, features.name);
    }
    const { name, nickName, uid, shortId } = features;
    if (!this.#peers.introduce({ name, nickName, uid, version: 0n, shortId, connections: [] })) {
      return this.#refuse(connection, { reason: "too many peers are known", retry: "later" }, now, name);
    }
    this.#confirm(connection, introduction, overlayKey, now);
    if (restarted || !reachable) this.#hub.tellAll(connection, now);
    else this.#hub.tellDigest(connection);
  }

  handleMessage(id: ConnectionId, message: Message, now: Instant): void {
    this.#enter(now);
    const connection = this.#connections.get(id);
    if (!connection?.with) return;
    connection.handleHeard(now);
    switch (message.type) {
      case "overlayControl":
        return this.#handleOverlayControl(connection, message, now);
      case "probe":
        return this.#send(connection, { type: "probeAnswer", number: message.number });
      case "heartbeat":
      case "probeAnswer":
      case "clock":
      case "unknown":
        return;
      default:
        return this.#hub.handleMessage(connection, message, now);
    }
  }

  /** Octets arrived that made no whole message yet: the peer is alive. */
  handleAlive(id: ConnectionId, now: Instant): void {
    this.#enter(now);
    this.#connections.get(id)?.handleHeard(now);
  }

  /** The socket or its session ended by itself, introduced or not. */
  handleClosed(id: ConnectionId, reason: string, now: Instant): void {
    this.#enter(now);
    const connection = this.#connections.get(id);
    if (connection) this.#end(connection, { reason, retry: "later", tell: false }, now);
  }

  /** Nothing can be said on this connection: what the peer sent is not what is expected. The shell closes it. */
  handleSessionFailed(id: ConnectionId, reason: string, now: Instant): void {
    this.#enter(now);
    const connection = this.#connections.get(id);
    if (!connection) return;
    this.#rememberTurnedAway(connection, reason, now);
    this.#end(connection, { reason, retry: "later", tell: false }, now);
  }

  /** Whether the socket takes more. While it does not, gossip waits here, merged; a peer that stays behind is closed. */
  handleWritable(id: ConnectionId, writable: boolean, now: Instant): void {
    this.#enter(now);
    const connection = this.#connections.get(id);
    if (!connection) return;
    connection.handleWritable(writable, now);
    if (connection.with) this.#hub.flush(connection, now);
  }

  /** The first carrier of a confirmed connection works. */
  handleCarrierEstablished(id: ConnectionId, now: Instant): void {
    this.#enter(now);
    const connection = this.#connections.get(id);
    if (!connection?.establish()) return;
    this.#logConnection("connection fully established", connection);
    this.#handleOwnChange([], now);
  }

  /** No carrier of the connection is left: it ends. */
  handleCarrierFailed(id: ConnectionId, reason: string, now: Instant): void {
    this.#enter(now);
    const connection = this.#connections.get(id);
    if (connection?.with) this.#end(connection, { reason, retry: "later", tell: true }, now);
  }

  sendOverlayControl(id: ConnectionId, overlay: number, subTag: number, payload: Uint8Array): void {
    const connection = this.#connections.get(id);
    if (connection?.with) this.#send(connection, { type: "overlayControl", overlay, subTag, payload });
  }

  handleTimeout(now: Instant): void {
    this.#enter(now);
    for (const connection of [...this.#connections.values()]) {
      for (let due = connection.takeDue(now); due; due = connection.takeDue(now)) {
        if (due.type === "end") this.#end(connection, { reason: due.reason, retry: "later", tell: true }, now);
        else if (due.type === "heartbeat" || connection.writable) this.#send(connection, due);
      }
    }
    for (let timer = this.#timers.takeDue(now); timer; timer = this.#timers.takeDue(now)) this.#handleTimer(timer, now);
    if ((this.#targets.nextAt() ?? Infinity) <= now) this.#checkTargets(now);
  }

  pollTimeout(): Deadline | undefined {
    let next = this.#timers.next();
    for (const connection of this.#connections.values()) {
      const at = connection.nextAt();
      if (at < (next?.at ?? Infinity)) next = { at, why: `connection ${connection.address}` };
    }
    const attemptAt = this.#targets.nextAt();
    if (attemptAt !== undefined) next = earlier(next, { at: attemptAt, why: "next attempt to connect" });
    this.#awaited = next && Math.max(next.at, this.#enteredAt);
    return next;
  }

  /** What to do next; undefined when there is nothing left. To be drained after every other call. */
  poll(): MeshOutput | undefined {
    const output = this.#outputs[this.#taken++];
    if (output === undefined) {
      this.#outputs = [];
      this.#taken = 0;
    }
    return output;
  }

  // Channels of others

  /** Makes a channel known, before the first connection. Throws RangeError for a name that is taken. */
  register(channel: GossipChannel): void {
    this.#hub.register(channel);
  }

  /** Sends to one peer, over others where need be. False: no way there. */
  sendUnicast(channel: string, destination: PeerName, payload: Uint8Array, now: Instant): boolean {
    this.#enter(now);
    return this.#hub.sendUnicast(channel, destination, payload);
  }

  /** Sends to all peers. */
  sendBroadcast(channel: string, data: GossipData, now: Instant): void {
    this.#enter(now);
    this.#hub.broadcast(channel, this.name, data, now);
  }

  /** Sends to some neighbours, who pass on what is news to them. */
  sendGossip(channel: string, data: GossipData, now: Instant): void {
    this.#enter(now);
    this.#hub.gossip(channel, NO_PEER, data, now);
  }

  // To look at: values, cheap

  /** Every peer we know, ourselves included, ascending by name. */
  peers(): readonly PeerRecord[] {
    return [...this.#peers.nodes()].map((node) => node.record).sort((a, b) => a.name - b.name);
  }

  get peerCount(): number {
    return this.#peers.size;
  }

  peer(name: PeerName): PeerRecord | undefined {
    return this.#peers.get(name);
  }

  /** Known peers by nickname or by name as text; several may share a nickname. */
  findPeers(text: string): readonly PeerName[] {
    const called = this.peers().filter((peer) => peer.nickName === text).map((peer) => peer.name);
    if (called.length > 0) return called;
    const name = parsePeerName(text);
    return name !== undefined && this.#peers.get(name) ? [name] : [];
  }

  /** Whose short id this is: the lowest name among those that have it. */
  shortIdOwner(shortId: number): PeerName | undefined {
    return this.#peers.shortIdOwner(shortId);
  }

  /** Confirmed connections, oldest first, then targets that have none. */
  connections(): readonly ConnectionStatus[] {
    const live = [...this.#connections.values()].flatMap((connection) => this.#statusOf(connection));
    return [...live, ...this.#targets.status()];
  }

  /** Who wanted to connect with us in the last minutes and may not, the last one first. */
  turnedAway(now: Instant): readonly TurnedAway[] {
    return this.#turnedAway.list(now);
  }

  /** Connections that ended so far, those with ourselves not counted. */
  get terminationCount(): number {
    return this.#terminations;
  }

  /** Over established connections; ascending by name. */
  unicastRoutes(): readonly UnicastRoute[] {
    const routes = [...this.#routes.unicast()].map(([destination, via]) => ({ destination, via }));
    return routes.sort((a, b) => a.destination - b.destination);
  }

  /** Over established connections, for every known peer; ascending by name. */
  broadcastRoutes(): readonly BroadcastRoute[] {
    return this.peers().map(({ name }) => ({ source: name, via: this.#routes.broadcast(name) }));
  }

  // Connections

  #create(
    o: { readonly remote: Endpoint; readonly outbound: boolean; readonly anyPeer: boolean },
    now: Instant,
  ): Connection {
    const id = ++this.#lastId as ConnectionId;
    const halfUid = this.#presetHalves.shift() ?? this.#o.random.u64();
    const connection = new Connection({ id, halfUid, ...o }, now);
    this.#connections.set(id, connection);
    return connection;
  }

  /** Whoever opens sockets and says nothing does not keep others out: the oldest of such makes room. */
  #makeRoomForAccepted(now: Instant): void {
    const silent = [...this.#connections.values()].filter((connection) => !connection.outbound && !connection.with);
    if (silent.length < MAX_INTRODUCING) return;
    this.#end(silent[0]!, { reason: "too many connections wait to be introduced", retry: "later", tell: true }, now);
  }

  /** Of two connections to one peer that with the smaller uid stays; both ends decide alike. True: the new one stays. */
  #breakTie(before: Connection, connection: Connection, introduction: Introduction, now: Instant): boolean {
    const peer = this.#peers.get(introduction.peer)!;
    const reason = `Multiple connections to ${describePeer(peer)} added to ${describePeer(this.#peers.ourself)}`;
    const won = introduction.uid < before.with!.uid;
    if (introduction.uid <= before.with!.uid) {
      this.#end(before, { reason, retry: "later", tell: true, replaced: won }, now);
    }
    if (!won) this.#end(connection, { reason, retry: "later", tell: true, peer: introduction.peer }, now);
    return won;
  }

  #confirm(
    connection: Connection,
    introduction: Introduction,
    overlayKey: Uint8Array | undefined,
    now: Instant,
  ): void {
    connection.confirm(introduction, now);
    this.#byPeer.set(introduction.peer, connection);
    this.#turnedAway.forget(connection.remote.address);
    if (connection.outbound) this.#targets.handleConnected(connection.remote, introduction.peer);
    const { id, outbound, remote } = connection;
    const { peer, uid, legacyOverlay, overlays, extensions } = introduction;
    this.#outputs.push({
      type: "confirmed",
      id,
      peer,
      uid,
      outbound,
      remote,
      overlayKey,
      legacyOverlay,
      overlays,
      extensions,
    });
    this.#logConnection("connection added", connection);
    this.#handleOwnChange([peer], now);
    this.#requestTargets(now);
  }

  #refuse(connection: Connection, refusal: Refusal, now: Instant, peer?: PeerName): void {
    const { reason, retry, ourself } = refusal;
    if (!ourself) this.#rememberTurnedAway(connection, reason, now);
    this.#end(
      connection,
      { reason, retry, tell: true, ...ourself && { ourself }, ...peer !== undefined && { peer } },
      now,
    );
  }

  /** Of connections that we make, the targets know. */
  #rememberTurnedAway(connection: Connection, reason: string, now: Instant): void {
    if (!connection.outbound && !connection.with) this.#turnedAway.add(connection.remote.address, reason, now);
  }

  /** A connection that leads to ourselves has two ends here. */
  #refuseOtherEnd(halfUid: bigint, refusal: Refusal, now: Instant): void {
    for (const connection of this.#connections.values()) {
      if (connection.halfUid === halfUid && !connection.with) return this.#refuse(connection, refusal, now);
    }
  }

  #end(connection: Connection, end: End, now: Instant): void {
    if (!this.#connections.delete(connection.id)) return;
    const { reason, retry } = end;
    const peer = connection.with?.peer ?? end.peer;
    this.#logConnection("connection shutting down", connection, reason);
    if (end.tell) this.#outputs.push({ type: "close", id: connection.id, reason });
    const confirmed = connection.with !== undefined;
    const { established } = connection;
    connection.end();
    if (!end.ourself) this.#terminations++;
    if (connection.outbound) {
      this.#targets.handleEnded(connection.remote, { error: reason, retry, peer, established }, now);
    }
    this.#requestTargets(now);
    if (!confirmed) return;
    this.#byPeer.delete(peer!);
    this.#outputs.push({ type: "ended", id: connection.id, peer: peer! });
    if (!end.replaced) return this.#handleOwnChange([], now);
    this.#peers.setOurConnections(this.#ourRecords()); // nobody is out of reach for it: the other connection is next
  }

  #handleOverlayControl(
    connection: Connection,
    { overlay, subTag, payload }: Extract<Message, { type: "overlayControl" }>,
    now: Instant,
  ): void {
    if (overlay < connection.with!.overlays.length) {
      this.#outputs.push({ type: "overlayControl", id: connection.id, overlay, subTag, payload });
    } else {
      const reason = `overlay control for overlay ${overlay}, which is none in common`;
      this.#end(connection, { reason, retry: "later", tell: true }, now);
    }
  }

  #send(connection: Connection, message: Message): void {
    if (!connection.with) return;
    this.#outputs.push({ type: "send", id: connection.id, message });
    connection.countDirect(octetsOf(message));
    if (connection.overloaded) {
      this.#end(connection, { reason: OVERLOADED, retry: "later", tell: true }, this.#enteredAt);
    }
  }

  // Topology

  /** Our own connections are others than before: everybody is to know, and of these peers too. */
  #handleOwnChange(peers: readonly PeerName[], now: Instant): void {
    this.#peers.setOurConnections(this.#ourRecords());
    // Before the update goes out, so that it tells of nobody who is out of reach.
    this.#collectGarbage(now);
    this.#announce(peers, now);
    this.#timers.setIfAbsent("routes", now + ROUTES_MS);
  }

  #ourRecords(): ConnectionRecord[] {
    return [...this.#byPeer.values()].map((connection) => connection.record);
  }

  #handleMerged({ improved, ourselfChanged, refused }: MergeResult, now: Instant): void {
    this.#refused += refused;
    if (refused > 0 && now >= this.#refusalLoggedAt + REFUSAL_LOG_MS) {
      this.#o.log.warn("records of peers found no room", { count: this.#refused });
      this.#refusalLoggedAt = now;
      this.#refused = 0;
    }
    if (ourselfChanged) this.#announce([], now);
    if (improved.length > 0 || ourselfChanged) this.#timers.setIfAbsent("routes", now + ROUTES_MS);
    if (improved.length > 0) this.#requestTargets(now);
    this.#timers.setIfAbsent("garbage", now + GARBAGE_MS);
  }

  #announce(peers: readonly PeerName[], now: Instant): void {
    for (const name of peers) this.#updated.add(name);
    const quick = [...this.#byPeer.values()].every((connection) => connection.speaks("digest"));
    this.#timers.setIfAbsent("topology update", now + (quick ? QUICK_UPDATE_MS : TOPOLOGY_UPDATE_MS));
  }

  #collectGarbage(now: Instant): void {
    const { removed, ourselfChanged } = this.#peers.collectGarbage();
    for (const record of removed) {
      this.#o.log.info("removed unreachable peer", { peer: describePeer(record) });
      this.#outputs.push({ type: "peerGone", name: record.name });
    }
    if (ourselfChanged) this.#announce([], now);
    if (removed.length > 0) {
      this.#timers.setIfAbsent("routes", now + ROUTES_MS);
      this.#requestTargets(now);
    }
  }

  #recalculate(now: Instant): void {
    this.#timers.clear("routes");
    this.#outputs.push({ type: "routesChanged" });
    this.#hub.handleRecalculated(now);
  }

  // Time

  #handleTimer(timer: Timer, now: Instant): void {
    switch (timer) {
      case "routes":
        return this.#recalculate(now);
      case "garbage":
        return this.#collectGarbage(now);
      case "topology update": {
        const news = newsOf(this.#peers, [...this.#updated, this.name]);
        this.#updated.clear();
        return this.#hub.gossip(TOPOLOGY, NO_PEER, news, now);
      }
      case "gossip":
        this.#timers.set("gossip", now + GOSSIP_MS);
        return this.#hub.tellNeighbours(now);
      case "digest":
        this.#timers.set("digest", now + DIGEST_MS);
        return this.#hub.tellDigests();
      case "targets":
        return this.#checkTargets(now);
      default:
        timer satisfies never;
    }
  }

  /** Every call from outside begins here: were we called when we asked to be? If not, silence in that time says nothing of peers. */
  #enter(now: Instant): void {
    const late = this.#awaited === undefined ? 0 : now - this.#awaited;
    this.#awaited = undefined;
    this.#enteredAt = now;
    if (late <= STALL_MS) return;
    this.#o.log[late < LONG_STALL_MS ? "debug" : "warn"]("was not run for a while", { duration_ms: Math.round(late) });
    for (const connection of this.#connections.values()) connection.forgive(late, now);
  }

  #requestTargets(now: Instant): void {
    this.#timers.setIfAbsent("targets", Math.max(now, this.#targetsCheckedAt + TARGETS_MS));
  }

  #checkTargets(now: Instant): void {
    this.#timers.clear("targets");
    this.#targetsCheckedAt = now;
    const connections = [...this.#byPeer.values()].map((connection) => {
      const { remote, outbound } = connection;
      return { remote, outbound, peer: connection.with!.peer };
    });
    const attempts = this.#targets.check({ ourName: this.name, connections, peers: this.#peers.nodes() }, now);
    for (const { endpoint, direct } of attempts) this.#dial(endpoint, direct, now);
  }

  #dial(remote: Endpoint, direct: boolean, now: Instant): void {
    const { connectionLimit, log } = this.#o;
    if (connectionLimit !== 0 && this.#byPeer.size >= connectionLimit) {
      return this.#targets.handleFailed(remote, limitReached(connectionLimit), now);
    }
    const connection = this.#create({ remote, outbound: true, anyPeer: direct }, now);
    log.info("attempting connection", { connection: connection.address });
    this.#outputs.push({ type: "dial", id: connection.id, endpoint: remote });
  }

  #trusts(remote: Endpoint): boolean {
    return this.#o.trustedSubnets.some((subnet) => cidrContains(subnet, remote.address));
  }

  #statusOf(connection: Connection): ConnectionStatus[] {
    const introduction = connection.with;
    if (!introduction) return [];
    const { id, remote: address, outbound, established } = connection;
    const { peer, encrypted, extensions } = introduction;
    const nickName = this.#peers.get(peer)?.nickName || introduction.nickName;
    const state = established ? "established" : "pending";
    return [{ state, id, address, outbound, peer, nickName, encrypted, extensions }];
  }

  #logConnection(event: string, connection: Connection, reason?: string): void {
    const fields = { connection: connection.address, ...reason !== undefined && { reason } };
    const introduction = connection.with;
    const peer = introduction && describePeer({ name: introduction.peer, nickName: introduction.nickName });
    this.#o.log.info(event, peer === undefined ? fields : { ...fields, peer });
  }
}

/** What stands in both, in the order of ours. */
function common(ours: readonly string[], theirs: readonly string[]): readonly string[] {
  return ours.filter((name) => theirs.includes(name));
}

function limitReached(limit: number): string {
  return `Connection limit reached (${limit})`;
}

/** What a message weighs that goes past the slots; those that are small and few weigh a little. */
function octetsOf(message: Message): number {
  switch (message.type) {
    case "unicast":
    case "overlayControl":
      return 64 + message.payload.length;
    case "summary":
      return 24 * message.entries.length;
    case "want":
      return 8 * message.names.length;
    default:
      return 64;
  }
}
