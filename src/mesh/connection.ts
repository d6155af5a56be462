/**
 * One connection, from the attempt or the accepted socket to its end: its state, its timers, and what waits to be sent on it.
 *
 *     dialling ──featuresFor()──▶ introducing ──▶ confirmed ──▶ established
 *     accepted ───────────────────────▲
 *
 * Towards Weave Net 2.8 a heartbeat goes out every 30 s, and a peer that said nothing for 60 s is dead. Where both sides understand
 * probes, one goes out every 500 ms, and a peer that said nothing for 2 s is dead.
 */
import { type Endpoint, formatEndpoint } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import type { Instant } from "../lib/time.ts";
import type { ConnectionRecord } from "../wire/topology.ts";
import { GossipSlots } from "./gossip.ts";

declare const connectionIdBrand: unique symbol;

/** Numbers one attempt to connect, or one accepted socket, for its life. Never used again. */
export type ConnectionId = number & { readonly [connectionIdBrand]: true };

/** How long a TCP connection may take to be there. */
export const DIAL_MS = 10_000;

/** How long an introduction may take; the session's own limits are 10 s and 60 s, and say more clearly what is missing. */
export const INTRODUCTION_MS = 75_000;

const HEARTBEAT_MS = 30_000;
const SILENCE_MS = 60_000;
const PROBE_MS = 500;
const PROBE_SILENCE_MS = 2_000;

/** How long a socket may take nothing before its peer counts as one that cannot be kept up with. */
const STUCK_MS = 60_000;

/** Octets that may wait for a socket that takes nothing: a longest message, and a little more. */
const MAX_WAITING_OCTETS = 12 << 20;

export const OVERLOADED = "cannot keep up: too much waits to be sent";

/** What both sides agreed on, once the peer is introduced. */
export interface Introduction {
  readonly peer: PeerName;
  readonly nickName: string;
  /** The connection's uid, the same at both ends. */
  readonly uid: bigint;
  readonly overlays: readonly string[];
  readonly extensions: readonly string[];
  readonly legacyOverlay: boolean;
  /** Carriers seal what they carry. */
  readonly encrypted: boolean;
}

type State =
  | { readonly in: "dialling" | "introducing"; readonly until: Instant }
  | { readonly in: "confirmed"; readonly with: Introduction }
  | { readonly in: "established"; readonly with: Introduction }
  | { readonly in: "ended" };

/** What a connection wants done, now. */
export type Due =
  | { readonly type: "heartbeat" }
  | { readonly type: "probe"; readonly number: number }
  | { readonly type: "end"; readonly reason: string };

export class Connection {
  readonly id: ConnectionId;
  readonly remote: Endpoint;
  /** `remote` as text, as it stands in records. */
  readonly address: string;
  readonly outbound: boolean;
  /** Whoever is at the other end is welcome; otherwise it must be a peer that is known. */
  readonly anyPeer: boolean;
  /** Our half of the connection's uid. */
  readonly halfUid: bigint;
  /** What waits while the socket takes nothing. */
  readonly slots = new GossipSlots();
  /** When a summary of ours was sent last. */
  summaryAt: Instant = -Infinity;

  #state: State;
  #heardAt: Instant;
  #heartbeatAt = Infinity;
  #probeAt = Infinity;
  #probes = 0;
  /** Since when the socket takes nothing; undefined while it does. */
  #stuckSince: Instant | undefined;
  #directOctets = 0;

  constructor(
    o: {
      readonly id: ConnectionId;
      readonly remote: Endpoint;
      readonly outbound: boolean;
      readonly anyPeer: boolean;
      readonly halfUid: bigint;
    },
    now: Instant,
  ) {
    this.id = o.id;
    this.remote = o.remote;
    this.address = formatEndpoint(o.remote);
    this.outbound = o.outbound;
    this.anyPeer = o.anyPeer;
    this.halfUid = o.halfUid;
    this.#heardAt = now;
    this.#state = o.outbound
      ? { in: "dialling", until: now + DIAL_MS }
      : { in: "introducing", until: now + INTRODUCTION_MS };
  }

  /** Undefined until confirmed, and again once it ended. */
  get with(): Introduction | undefined {
    const state = this.#state;
    return state.in === "confirmed" || state.in === "established" ? state.with : undefined;
  }

  get established(): boolean {
    return this.#state.in === "established";
  }

  get writable(): boolean {
    return this.#stuckSince === undefined;
  }

  get record(): ConnectionRecord {
    const { address, outbound, established } = this;
    return { peer: this.with!.peer, address, outbound, established };
  }

  speaks(extension: string): boolean {
    return this.with?.extensions.includes(extension) ?? false;
  }

  /** The socket is there. */
  handleConnected(now: Instant): void {
    if (this.#state.in === "dialling") this.#state = { in: "introducing", until: now + INTRODUCTION_MS };
  }

  confirm(introduction: Introduction, now: Instant): void {
    this.#state = { in: "confirmed", with: introduction };
    this.#heardAt = now;
    this.#heartbeatAt = now + HEARTBEAT_MS;
    if (introduction.extensions.includes("probe")) this.#probeAt = now;
  }

  establish(): boolean {
    if (this.#state.in !== "confirmed") return false;
    this.#state = { in: "established", with: this.#state.with };
    return true;
  }

  end(): void {
    this.#state = { in: "ended" };
  }

  handleHeard(now: Instant): void {
    this.#heardAt = now;
  }

  /** For so long we ourselves were not run, and could hear nobody: that time does not count. */
  forgive(lateMs: number, now: Instant): void {
    this.#heardAt = Math.min(this.#heardAt + lateMs, now);
    if ("until" in this.#state) this.#state = { ...this.#state, until: this.#state.until + lateMs };
  }

  handleWritable(writable: boolean, now: Instant): void {
    if (writable) {
      this.#stuckSince = undefined;
      this.#directOctets = 0;
    } else {
      this.#stuckSince ??= now;
    }
  }

  /** Counts octets that go to the session past the slots. */
  countDirect(octets: number): void {
    if (!this.writable) this.#directOctets += octets;
  }

  /** What waits has grown beyond what is good. */
  get overloaded(): boolean {
    return this.#directOctets + this.slots.heldOctets > MAX_WAITING_OCTETS;
  }

  /** When it wants something done. */
  nextAt(): Instant {
    const state = this.#state;
    if (state.in === "ended") return Infinity;
    if (!("with" in state)) return state.until;
    return Math.min(this.#heartbeatAt, this.#probeAt, this.#deadAt(), this.#giveUpAt());
  }

  /** What is due at `now`; each call returns one thing, undefined when nothing is left. */
  takeDue(now: Instant): Due | undefined {
    if (this.nextAt() > now) return undefined;
    const state = this.#state;
    if (!("with" in state)) {
      return {
        type: "end",
        reason: state.in === "dialling" ? "timed out dialling" : "timed out waiting for introduction",
      };
    }
    if (this.#deadAt() <= now) return { type: "end", reason: this.#silenceReason() };
    if (this.#giveUpAt() <= now) return { type: "end", reason: "cannot keep up: takes nothing for 60 s" };
    if (this.#probeAt <= now) {
      this.#probeAt = now + PROBE_MS;
      this.#probes = this.#probes + 1 >>> 0;
      return { type: "probe", number: this.#probes };
    }
    this.#heartbeatAt = now + HEARTBEAT_MS;
    return { type: "heartbeat" };
  }

  #deadAt(): Instant {
    return this.#heardAt + (this.#probeAt < Infinity ? PROBE_SILENCE_MS : SILENCE_MS);
  }

  #giveUpAt(): Instant {
    return this.#stuckSince === undefined ? Infinity : this.#stuckSince + STUCK_MS;
  }

  #silenceReason(): string {
    return this.#probeAt < Infinity ? "no answer to probes for 2 s" : "timed out waiting for TCP heartbeat";
  }
}
