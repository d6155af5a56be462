/** What of peers was not taken, and why: the last of each kind, for people. */
import type { Logger } from "../lib/log.ts";
import { formatMac, type PeerName } from "../lib/mac.ts";

/** Something of a peer that was not taken. */
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

const MAX_REMEMBERED = 64;
const MAX_OF_PEER = 8;
/** Lines in the log about one peer in a minute: its words are in them, and may be others each time. */
const MAX_LINES = 8;
const MINUTE_MS = 60_000;
const MAX_PEERS = 1_024;

export class Rejections {
  readonly #log: Logger;
  readonly #unixMs: () => number;
  readonly #rejections = new Map<string, Rejection>();
  readonly #lines = new Map<PeerName, { readonly sinceMs: number; count: number }>();
  #count = 0;

  constructor(log: Logger, unixMs: () => number) {
    this.#log = log;
    this.#unixMs = unixMs;
  }

  /** All there ever were. */
  get count(): number {
    return this.#count;
  }

  add(peer: PeerName, what: string, reason: string): void {
    this.#count++;
    // One reason of one peer is told once, however many records it is about.
    const key = `${peer} ${reason}`;
    const before = this.#rejections.get(key);
    this.#rejections.delete(key);
    if (before === undefined) this.#makeRoom(peer);
    this.#rejections.set(key, { peer, what, reason, count: (before?.count ?? 0) + 1, lastUnixMs: this.#unixMs() });
    if (before === undefined && this.#mayLog(peer)) {
      this.#log.warn("a record of a peer was not taken", { peer: formatMac(peer), service: what, reason });
    }
  }

  /** The last one last. */
  list(): readonly Rejection[] {
    return [...this.#rejections.values()];
  }

  #mayLog(peer: PeerName): boolean {
    const now = this.#unixMs();
    let lines = this.#lines.get(peer);
    if (lines === undefined || now - lines.sinceMs >= MINUTE_MS) {
      if (this.#lines.size >= MAX_PEERS) this.#lines.clear();
      this.#lines.set(peer, lines = { sinceMs: now, count: 0 });
    }
    return lines.count++ < MAX_LINES;
  }

  #makeRoom(peer: PeerName): void {
    const ofPeer = [...this.#rejections].filter(([, rejection]) => rejection.peer === peer).map(([key]) => key);
    if (ofPeer.length >= MAX_OF_PEER) this.#rejections.delete(ofPeer[0]!);
    const [oldest] = this.#rejections.keys();
    if (this.#rejections.size >= MAX_REMEMBERED) this.#rejections.delete(oldest!);
  }
}
