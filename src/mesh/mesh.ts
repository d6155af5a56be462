/**
 * The mesh core's front: who is in the mesh, how to reach them, and what is said to whom. It decides; a shell owns sockets and
 * sessions, hands in what happened, and does what `poll()` returns. Time and randomness come in as arguments.
 *
 *     shell → mesh                                   mesh → shell (`poll()`)
 *     connect, forget                                dial            open a TCP connection
 *     handleAccepted → featuresFor → handleIntroduced   send         a message on a connection
 *     handleMessage, handleAlive, handleWritable     close           this socket, now
 *     handleDialFailed, handleClosed                 confirmed       prepare and start the carriers of this connection
 *     handleCarrierEstablished, handleCarrierFailed  overlayControl  for the carriers of a confirmed connection
 *     handleTimeout ← pollTimeout                    ended           stop the carriers of this connection
 *
 * A connection's life: dialled or accepted → introduced → confirmed (it stands in our own record; `pending` in status) →
 * established (a carrier works) → ended. Every `ConnectionId` ends once: by a `close` of ours, after which the shell reports
 * nothing more about it, or by `handleDialFailed` or `handleClosed`, after which the mesh says nothing more about it but `ended`.
 * Calls about a connection that has ended are ignored, so that what is in flight does no harm.
 */
import type { Cidr, Endpoint } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { Deadline, Instant } from "../lib/time.ts";
import type { Features, Message } from "../wire/control.ts";
import type { PeerRecord } from "../wire/topology.ts";

declare const connectionIdBrand: unique symbol;

/** Numbers one attempt to connect, or one accepted socket, for its life. Never used again. */
export type ConnectionId = number & { readonly [connectionIdBrand]: true };

/** An address that the operator wants us connected with. */
export interface TargetSpec {
  /** As the operator gave it: `forget` must name it so. */
  readonly text: string;
  /** What it stands for, resolved once, our own port filled in where none was given. */
  readonly endpoint: Endpoint;
  /** Whether a port was given. Without one it is not dialled while there is a connection from its address. */
  readonly hasPort: boolean;
}

export interface MeshOptions {
  readonly name: PeerName;
  readonly nickName: string;
  /** Random and not 0, another one at each start. */
  readonly uid: bigint;
  /** 0 to 4095; we leave it for another one where a peer with a lower name has it. */
  readonly shortId: number;
  /** Where we listen; also where discovered peers are assumed to, of which only the address is known. */
  readonly port: number;
  /** Carriers we offer, the best one first. */
  readonly overlays: readonly string[];
  /** What we understand beyond Weave Net 2.8: "probe", "digest". */
  readonly extensions: readonly string[];
  /** Whether to dial addresses that other peers are connected with. */
  readonly discovery: boolean;
  /** Connections there may be; 0 is no limit. */
  readonly connectionLimit: number;
  readonly trustedSubnets: readonly Cidr[];
  readonly random: Random;
  readonly log: Logger;
  /** The numbers that our first connections introduce themselves with, instead of random ones. For tests. */
  readonly connectionIds?: readonly bigint[];
}

/** What the shell is to do. */
export type MeshOutput =
  /**
   * Open a TCP connection. Then `featuresFor()`, and `handleIntroduced()`, `handleDialFailed()` or `handleClosed()`. One that is not
   * there after 10 s is closed by us.
   */
  | { readonly type: "dial"; readonly id: ConnectionId; readonly endpoint: Endpoint }
  | { readonly type: "send"; readonly id: ConnectionId; readonly message: Message }
  /** Close the socket, or stop dialling. Nothing more need be said about this connection. */
  | { readonly type: "close"; readonly id: ConnectionId; readonly reason: string }
  | Confirmed
  /** A confirmed connection is no more, however it ended: its carriers go. */
  | { readonly type: "ended"; readonly id: ConnectionId; readonly peer: PeerName }
  | {
    readonly type: "overlayControl";
    readonly id: ConnectionId;
    /** Index into `overlays` of the connection's `confirmed`; always within it. */
    readonly overlay: number;
    readonly subTag: number;
    readonly payload: Uint8Array;
  }
  /** `routes` gives other answers than before. At most once in 100 ms. */
  | { readonly type: "routesChanged" }
  /** A peer is no longer part of the mesh: what is kept on its behalf goes. */
  | { readonly type: "peerGone"; readonly name: PeerName }
  /** `targets()` gives another answer: to be persisted. */
  | { readonly type: "targetsChanged" };

/** Both sides know each other, and the connection stands in our record: carriers begin. */
export interface Confirmed {
  readonly type: "confirmed";
  readonly id: ConnectionId;
  readonly peer: PeerName;
  /** The connection's uid, the same at both ends. */
  readonly uid: bigint;
  readonly outbound: boolean;
  /** Of TCP: what we dialled, or where it came from. */
  readonly remote: Endpoint;
  /** For the carriers; undefined without a password and where both sides trust each other's address. */
  readonly overlayKey: Uint8Array | undefined;
  /** The peer named no carriers: sleeve it is, whose control messages travel in the old form. */
  readonly legacyOverlay: boolean;
  /** What both offer, in our order: an overlay's index in control messages is its place here. */
  readonly overlays: readonly string[];
  readonly extensions: readonly string[];
}

/** What is to be gossiped on a channel, merged with more while it waits, and encoded when it is sent. Immutable. */
export interface GossipData {
  /** Folds in what came later. */
  merge(later: GossipData): GossipData;
  /** Payloads, each a message. */
  encode(): readonly Uint8Array[];
}

/**
 * A gossip topic and who understands it. An error that a method throws closes the connection that the payload came on, with its message
 * as the reason. Methods must not call the mesh; what is to be sent beyond the return value, the daemon sends afterwards.
 */
export interface GossipChannel {
  readonly name: string;
  /** Folds gossip of a neighbour in; returns what was news to us, which is gossiped on, or undefined. */
  handleGossip(payload: Uint8Array, now: Instant): GossipData | undefined;
  /** Folds a broadcast in; returns what is to be passed on in its place, or undefined. */
  handleBroadcast(source: PeerName, payload: Uint8Array, now: Instant): GossipData | undefined;
  handleUnicast(source: PeerName, payload: Uint8Array, now: Instant): void;
  /** Everything we know, for a new neighbour and every 30 s; undefined where there is nothing to say. */
  completeState(now: Instant): GossipData | undefined;
}

/** A connection or a target that has none, as `weave status connections` lists them. */
export type ConnectionStatus =
  /** Live: confirmed, and (established) a carrier works. */
  | {
    readonly state: "pending" | "established";
    readonly id: ConnectionId;
    readonly address: Endpoint;
    readonly outbound: boolean;
    readonly peer: PeerName;
    readonly nickName: string;
    /** Whether carriers seal: false without a password and where both sides trust each other's address. */
    readonly encrypted: boolean;
    readonly extensions: readonly string[];
  }
  /** The first attempt at a target is running. */
  | { readonly state: "connecting"; readonly address: Endpoint }
  /** A later attempt is running; the error is that of the last one. */
  | { readonly state: "retrying"; readonly address: Endpoint; readonly error: string }
  /** Waits for its next attempt; undefined: there will be none until it is configured again. */
  | {
    readonly state: "failed";
    readonly address: Endpoint;
    readonly error: string;
    readonly retryAt: Instant | undefined;
  };

export interface UnicastRoute {
  readonly destination: PeerName;
  /** Next hop; NO_PEER for ourselves. */
  readonly via: PeerName;
}

export interface BroadcastRoute {
  readonly source: PeerName;
  readonly via: readonly PeerName[];
}

/** Next hops, computed when asked for and kept until the topology changes. */
export interface MeshRoutes {
  /** Destination → next hop over established connections; ourselves → NO_PEER. For frames. */
  unicast(): ReadonlyMap<PeerName, PeerName>;
  /** Neighbours to which a frame that `source` broadcasts goes on from here, ascending. */
  broadcast(source: PeerName): readonly PeerName[];
  /** The same over all connections, established or not. For gossip. */
  unicastAll(): ReadonlyMap<PeerName, PeerName>;
  broadcastAll(source: PeerName): readonly PeerName[];
}

/** See the file's header. */
export class Mesh {
  readonly name: PeerName;
  readonly routes: MeshRoutes;

  constructor(o: MeshOptions, now: Instant) {
    throw new Error(`not yet ${o} ${now}`);
  }

  // What the operator asks for

  /** Adds targets, or (replace) makes them the only ones, and dials what is not connected at once, whatever happened before. */
  connect(targets: readonly TargetSpec[], options: { readonly replace: boolean }, now: Instant): void {
    throw new Error("not yet");
  }
  /** Takes targets away, named as they were given. Connections stay. */
  forget(texts: readonly string[], now: Instant): void {
    throw new Error("not yet");
  }
  /** The targets as they were given. */
  targets(): readonly string[] {
    throw new Error("not yet");
  }
  /** Targets that are not given up (by collision of names, or because they are ourselves). */
  activeTargets(): readonly string[] {
    throw new Error("not yet");
  }

  // From the shell

  /** When the next socket may be accepted, without being refused: now, or a little later. */
  acceptableAt(now: Instant): Instant {
    throw new Error("not yet");
  }
  /** A socket was accepted. Undefined: too many at once; close it. */
  handleAccepted(remote: Endpoint, now: Instant): ConnectionId | undefined {
    throw new Error("not yet");
  }
  /** A socket is there: what we introduce ourselves with on it. Throws RangeError for a connection that has ended. */
  featuresFor(id: ConnectionId, now: Instant): Features {
    throw new Error("not yet");
  }
  /** There is no connection to be had. */
  handleDialFailed(id: ConnectionId, reason: string, now: Instant): void {
    throw new Error("not yet");
  }
  handleIntroduced(id: ConnectionId, features: Features, sessionKey: Uint8Array | undefined, now: Instant): void {
    throw new Error("not yet");
  }
  handleMessage(id: ConnectionId, message: Message, now: Instant): void {
    throw new Error("not yet");
  }
  /** Octets arrived that made no whole message yet: the peer is alive. */
  handleAlive(id: ConnectionId, now: Instant): void {
    throw new Error("not yet");
  }
  /** The socket or its session ended by itself, introduced or not. */
  handleClosed(id: ConnectionId, reason: string, now: Instant): void {
    throw new Error("not yet");
  }
  /** Whether the socket takes more. While it does not, gossip waits here, merged; a peer that stays behind is closed. */
  handleWritable(id: ConnectionId, writable: boolean, now: Instant): void {
    throw new Error("not yet");
  }
  /** The first carrier of a confirmed connection works. */
  handleCarrierEstablished(id: ConnectionId, now: Instant): void {
    throw new Error("not yet");
  }
  /** No carrier of the connection is left: it ends. */
  handleCarrierFailed(id: ConnectionId, reason: string, now: Instant): void {
    throw new Error("not yet");
  }
  sendOverlayControl(id: ConnectionId, overlay: number, subTag: number, payload: Uint8Array): void {
    throw new Error("not yet");
  }
  handleTimeout(now: Instant): void {
    throw new Error("not yet");
  }
  pollTimeout(): Deadline | undefined {
    throw new Error("not yet");
  }
  /** What to do next; undefined when there is nothing left. To be drained after every other call. */
  poll(): MeshOutput | undefined {
    throw new Error("not yet");
  }

  // Channels of others

  /** Makes a channel known, before the first connection. Throws RangeError for a name that is taken. */
  register(channel: GossipChannel): void {
    throw new Error("not yet");
  }
  /** Sends to one peer, over others where need be. False: no way there. */
  sendUnicast(channel: string, destination: PeerName, payload: Uint8Array, now: Instant): boolean {
    throw new Error("not yet");
  }
  /** Sends to all peers. */
  sendBroadcast(channel: string, data: GossipData, now: Instant): void {
    throw new Error("not yet");
  }
  /** Sends to some neighbours, who pass on what is news to them. */
  sendGossip(channel: string, data: GossipData, now: Instant): void {
    throw new Error("not yet");
  }

  // To look at; cheap, values

  /** Every peer we know, ourselves included, ascending by name. */
  peers(): readonly PeerRecord[] {
    throw new Error("not yet");
  }
  peer(name: PeerName): PeerRecord | undefined {
    throw new Error("not yet");
  }
  /** Known peers by nickname or by name as text; several may share a nickname. */
  findPeers(text: string): readonly PeerName[] {
    throw new Error("not yet");
  }
  /** Whose short id this is: the lowest name among those that have it. */
  shortIdOwner(shortId: number): PeerName | undefined {
    throw new Error("not yet");
  }
  connections(): readonly ConnectionStatus[] {
    throw new Error("not yet");
  }
  /** Connections that ended so far, those with ourselves not counted. */
  get terminationCount(): number {
    throw new Error("not yet");
  }
  unicastRoutes(): readonly UnicastRoute[] {
    throw new Error("not yet");
  }
  broadcastRoutes(): readonly BroadcastRoute[] {
    throw new Error("not yet");
  }
}
