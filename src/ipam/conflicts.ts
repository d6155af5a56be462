/** Peers whose rings cannot become one with ours: what differs, for whoever has to decide which of the two is right. */
import type { PeerName } from "../lib/mac.ts";
import type { Instant } from "../lib/time.ts";

/** A peer of whom nothing was heard for so long may have been set right. Connections are tried again within six minutes. */
const FORGET_MS = 15 * 60_000;
const MAX_CONFLICTS = 64;

export interface Conflict {
  /** Who said it; NO_PEER where that is not known. */
  readonly peer: PeerName;
  /** One line, with both values. */
  readonly reason: string;
}

export class Conflicts {
  readonly #byPeer = new Map<PeerName, { readonly reason: string; readonly at: Instant }>();

  /** True: this is new. */
  note(peer: PeerName, reason: string, now: Instant): boolean {
    const known = this.#byPeer.get(peer)?.reason === reason;
    this.#byPeer.delete(peer);
    if (this.#byPeer.size >= MAX_CONFLICTS) this.#byPeer.delete(this.#byPeer.keys().next().value!);
    this.#byPeer.set(peer, { reason, at: now });
    return !known;
  }

  /** Its ring and ours went together. */
  settle(peer: PeerName): void {
    this.#byPeer.delete(peer);
  }

  list(now: Instant): Conflict[] {
    return [...this.#byPeer].filter(([, { at }]) => now - at < FORGET_MS).map(([peer, { reason }]) => ({
      peer,
      reason,
    }));
  }
}
