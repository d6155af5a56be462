/** What the mesh is made with, what it wants done, and what it shows of itself: plain values. See `mesh.ts`. */
import type { Cidr, Endpoint } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { Message } from "../wire/control.ts";
import type { ConnectionId } from "./connection.ts";
import type { Routes } from "./routes.ts";
import type { TargetStatus } from "./targets.ts";

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
  /**
   * A target without a connection: `connecting`, the first attempt is running; `retrying`, a later one; `failed`, it waits for its
   * next attempt, or (undefined) there will be none until it is configured again.
   */
  | TargetStatus;

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
export type MeshRoutes = Pick<Routes, "unicast" | "broadcast" | "unicastAll" | "broadcastAll">;
