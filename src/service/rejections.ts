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

export class Rejections {
  readonly #log: Logger;
  readonly #unixMs: () => number;
  readonly #rejections = new Map<string, Rejection>();
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
    if (before === undefined) {
      this.#log.warn("a record of a peer was not taken", { peer: formatMac(peer), service: what, reason });
    }
  }

  /** The last one last. */
  list(): readonly Rejection[] {
    return [...this.#rejections.values()];
  }

  #makeRoom(peer: PeerName): void {
    const ofPeer = [...this.#rejections].filter(([, rejection]) => rejection.peer === peer).map(([key]) => key);
    if (ofPeer.length >= MAX_OF_PEER) this.#rejections.delete(ofPeer[0]!);
    const [oldest] = this.#rejections.keys();
    if (this.#rejections.size >= MAX_REMEMBERED) this.#rejections.delete(oldest!);
  }
}
