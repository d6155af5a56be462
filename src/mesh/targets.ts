/**
 * Whom to dial, and when. Candidates are what the operator configured (*direct*) and, with discovery, the addresses at which known peers
 * are connected with somebody that we are not connected with. Each candidate address has a state:
 *
 *     waiting ──due──▶ attempting ──confirmed──▶ connected
 *        ▲                 │ failed                  │ ended
 *        └──── back-off ───┴─────────────────────────┘
 *     waiting ◀──▶ suspended     configured, but to be left alone as long as a connection from there does the same
 *
 * What is neither a candidate any more nor attempting nor connected is forgotten.
 */
import { type Endpoint, formatEndpoint, type Ipv4, parseEndpoint } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { Instant } from "../lib/time.ts";
import type { PeerNode } from "./peers.ts";

/** Wait before the second attempt, on average; each further one is half as long again, up to the longest. */
export const FIRST_INTERVAL_MS = 2_000;
export const LONGEST_INTERVAL_MS = 360_000;

/** A connection that lived longer, counted from when its attempt was due, is tried again at once. */
const STABLE_MS = 60_000;
/** Ours: a connection that carried frames and lived so long has proved its target, which is tried again as if for the first time. */
const PROVEN_MS = 5_000;

/** Attempts that run at a time; the others wait for their turn. */
const MAX_ATTEMPTS = 100;

/** Discovered addresses that are kept at a time. */
const MAX_DISCOVERED = 1024;

/** An address that the operator wants us connected with. */
export interface TargetSpec {
  /** As the operator gave it: `forget` must name it so. */
  readonly text: string;
  /** What it stands for, resolved once, our own port filled in where none was given. */
  readonly endpoint: Endpoint;
  /** Whether a port was given. Without one it is not dialled while there is a connection from its address. */
  readonly hasPort: boolean;
}

type State =
  | { readonly in: "waiting" }
  | { readonly in: "attempting" }
  | { readonly in: "connected" }
  | { readonly in: "suspended" };

interface Target {
  readonly endpoint: Endpoint;
  state: State;
  /** When the next attempt is due, or the last one was; undefined: never again. */
  dueAt: Instant | undefined;
  intervalMs: number;
  error: string | undefined;
  /** Who was found there last. */
  peer: PeerName | undefined;
}

/** A live connection, as far as it matters here. */
export interface LiveConnection {
  readonly remote: Endpoint;
  readonly outbound: boolean;
  readonly peer: PeerName;
}

/** What the mesh is like when targets are looked over. */
export interface Surroundings {
  readonly ourName: PeerName;
  readonly connections: Iterable<LiveConnection>;
  readonly peers: Iterable<PeerNode>;
}

export interface Attempt {
  readonly endpoint: Endpoint;
  /** The operator configured it: whoever is there is welcome. Otherwise it must be a peer that is known. */
  readonly direct: boolean;
}

/** A target that has no connection, for status. */
export type TargetStatus =
  | { readonly state: "connecting"; readonly address: Endpoint }
  | { readonly state: "retrying"; readonly address: Endpoint; readonly error: string }
  | {
    readonly state: "failed";
    readonly address: Endpoint;
    readonly error: string;
    readonly retryAt: Instant | undefined;
  };

/** What follows a failure. */
export type Retry = "later" | "never";

export class Targets {
  readonly #port: number;
  readonly #discovery: boolean;
  readonly #random: Random;
  /** By the text they were given as. */
  readonly #direct = new Map<string, TargetSpec>();
  /** By address. */
  readonly #targets = new Map<string, Target>();

  constructor(o: { readonly port: number; readonly discovery: boolean; readonly random: Random }) {
    this.#port = o.port;
    this.#discovery = o.discovery;
    this.#random = o.random;
  }

  /** True if `texts()` is another list now. */
  connect(targets: readonly TargetSpec[], replace: boolean, now: Instant): boolean {
    const before = this.texts();
    if (replace) this.#direct.clear();
    for (const spec of targets) {
      this.#direct.set(spec.text, spec);
      const target = this.#targets.get(formatEndpoint(spec.endpoint));
      if (!target) continue;
      makeDue(target, now);
      target.peer = undefined; // whoever asks for it by name shall see it tried
    }
    const after = this.texts();
    return before.length !== after.length || before.some((text, i) => text !== after[i]);
  }

  /** True if `texts()` is another list now. */
  forget(texts: readonly string[]): boolean {
    const forgotten = texts.filter((text) => this.#direct.delete(text));
    return forgotten.length > 0;
  }

  texts(): string[] {
    return [...this.#direct.keys()];
  }

  /** Those that are not given up. */
  activeTexts(): string[] {
    const active: string[] = [];
    for (const { text, endpoint } of this.#direct.values()) {
      const target = this.#targets.get(formatEndpoint(endpoint));
      if (!target || target.dueAt !== undefined) active.push(text);
    }
    return active;
  }

  /** Looks everything over; what it returns counts as being attempted, and is to be dialled. */
  check(around: Surroundings, now: Instant): Attempt[] {
    const connections = [...around.connections];
    const connected = new Set(connections.map((connection) => formatEndpoint(connection.remote)));
    const direct = new Set<string>();
    const candidates = new Map<string, Endpoint>();
    this.#addDirect(connections, direct, candidates);
    if (this.#discovery) this.#addDiscovered(around, connections, candidates);
    for (const [address, endpoint] of candidates) {
      if (connected.has(address)) candidates.delete(address);
      else if (!this.#targets.has(address)) this.#targets.set(address, newTarget(endpoint, now));
    }
    return this.#takeDue(candidates, direct, now);
  }

  /** When the next attempt is due. */
  nextAt(): Instant | undefined {
    let next: Instant | undefined;
    let attempts = 0;
    for (const { state, dueAt } of this.#targets.values()) {
      if (state.in === "attempting") attempts++;
      if (state.in === "waiting" && dueAt !== undefined && (next === undefined || dueAt < next)) next = dueAt;
    }
    return attempts < MAX_ATTEMPTS ? next : undefined; // the end of an attempt calls for a check
  }

  /** There was no connection to be had. */
  handleFailed(endpoint: Endpoint, error: string, now: Instant): void {
    const target = this.#targets.get(formatEndpoint(endpoint));
    if (!target) return;
    target.state = { in: "waiting" };
    target.error = error;
    this.#backOff(target, now);
  }

  handleConnected(endpoint: Endpoint, peer: PeerName): void {
    const target = this.#targets.get(formatEndpoint(endpoint));
    if (!target) return;
    target.state = { in: "connected" };
    target.peer = peer;
  }

  /** A connection that was there is no more, or was refused. The peer: who was found there, if that became known. */
  handleEnded(
    endpoint: Endpoint,
    end: {
      readonly error: string;
      readonly retry: Retry;
      readonly peer: PeerName | undefined;
      /** A carrier of it worked. */
      readonly established: boolean;
    },
    now: Instant,
  ): void {
    const target = this.#targets.get(formatEndpoint(endpoint));
    if (!target) return;
    target.state = { in: "waiting" };
    target.error = end.error;
    target.peer = end.peer ?? target.peer;
    if (end.retry === "never") {
      target.dueAt = undefined;
      target.intervalMs = LONGEST_INTERVAL_MS;
    } else if (target.dueAt !== undefined && now > target.dueAt + STABLE_MS) {
      makeDue(target, now);
    } else {
      const proven = end.established && target.dueAt !== undefined && now > target.dueAt + PROVEN_MS;
      if (proven) target.intervalMs = FIRST_INTERVAL_MS;
      this.#backOff(target, now);
    }
  }

  /** Targets that wait or are being attempted. */
  status(): TargetStatus[] {
    const rows: TargetStatus[] = [];
    for (const { state, endpoint: address, error, dueAt } of this.#targets.values()) {
      if (state.in === "connected" || state.in === "suspended") continue;
      if (error === undefined) rows.push({ state: "connecting", address });
      else if (state.in === "attempting") rows.push({ state: "retrying", address, error });
      else rows.push({ state: "failed", address, error, retryAt: dueAt });
    }
    return rows;
  }

  #addDirect(connections: readonly LiveConnection[], direct: Set<string>, candidates: Map<string, Endpoint>): void {
    const inbound = new Set<Ipv4>();
    const peers = new Set<PeerName>();
    for (const { remote, outbound, peer } of connections) {
      if (!outbound) inbound.add(remote.address);
      peers.add(peer);
    }
    for (const { endpoint, hasPort } of this.#direct.values()) {
      const address = formatEndpoint(endpoint);
      direct.add(address);
      if (!hasPort && inbound.has(endpoint.address)) continue;
      // Where we found a peer that we are connected with by now, a second connection would only compete with the first.
      const found = this.#targets.get(address)?.peer;
      if (found !== undefined && peers.has(found)) continue;
      candidates.set(address, endpoint);
    }
  }

  #addDiscovered(
    around: Surroundings,
    connections: readonly LiveConnection[],
    candidates: Map<string, Endpoint>,
  ): void {
    const peers = new Set(connections.map((connection) => connection.peer));
    let room = MAX_DISCOVERED;
    for (const { name, record } of around.peers) {
      if (name === around.ourName) continue;
      for (const { peer, address, outbound } of record.connections) {
        if (peer === around.ourName || peers.has(peer)) continue;
        const recorded = parseEndpoint(address);
        if (!recorded || !isDialable(recorded)) continue;
        // The port of a connection that somebody accepted is a passing one.
        const endpoint = outbound ? recorded : { address: recorded.address, port: this.#port };
        const key = formatEndpoint(endpoint);
        if (candidates.has(key)) continue;
        candidates.set(key, endpoint);
        if (--room === 0) return;
      }
    }
  }

  #takeDue(candidates: ReadonlyMap<string, Endpoint>, direct: ReadonlySet<string>, now: Instant): Attempt[] {
    const due: Attempt[] = [];
    let attempts = 0;
    for (const target of this.#targets.values()) if (target.state.in === "attempting") attempts++;
    for (const [address, target] of this.#targets) {
      if (target.state.in !== "waiting" && target.state.in !== "suspended") continue;
      if (!candidates.has(address)) {
        if (direct.has(address)) target.state = { in: "suspended" };
        else this.#targets.delete(address);
        continue;
      }
      target.state = { in: "waiting" };
      if (target.dueAt === undefined || target.dueAt > now || attempts >= MAX_ATTEMPTS) continue;
      attempts++;
      target.state = { in: "attempting" };
      due.push({ endpoint: target.endpoint, direct: direct.has(address) });
    }
    return due;
  }

  #backOff(target: Target, now: Instant): void {
    target.dueAt = now + backOffMs(target.intervalMs, this.#random);
    target.intervalMs = nextIntervalMs(target.intervalMs);
  }
}

/** Half the interval to one and a half of it. */
export function backOffMs(intervalMs: number, random: Random): number {
  return intervalMs / 2 + random.unit() * intervalMs;
}

export function nextIntervalMs(intervalMs: number): number {
  return Math.min(intervalMs * 1.5, LONGEST_INTERVAL_MS);
}

function newTarget(endpoint: Endpoint, now: Instant): Target {
  return {
    endpoint,
    state: { in: "waiting" },
    dueAt: now,
    intervalMs: FIRST_INTERVAL_MS,
    error: undefined,
    peer: undefined,
  };
}

function makeDue(target: Target, now: Instant): void {
  target.dueAt = now;
  target.intervalMs = FIRST_INTERVAL_MS;
}

/** Whether an address that a peer names may be one of another host: what it says is not to make us dial ourselves or a crowd. */
function isDialable({ address, port }: Endpoint): boolean {
  const network = address >>> 24;
  return port !== 0 && network !== 0 && network !== 127 && network < 224;
}
