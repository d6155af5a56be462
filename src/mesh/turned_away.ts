/** Who wanted to connect with us lately and may not: the operator of either host looks for the reason at his own. */
import type { Ipv4 } from "../lib/ip.ts";
import type { Instant } from "../lib/time.ts";

export interface TurnedAway {
  readonly address: Ipv4;
  readonly reason: string;
  readonly at: Instant;
}

/** Routers try again at the latest after nine minutes. */
const REMEMBERED_MS = 600_000;
/** Addresses that are remembered, the latest ones. */
const LIMIT = 16;

export class TurnedAwayList {
  /** Oldest first. */
  readonly #byAddress = new Map<Ipv4, TurnedAway>();

  add(address: Ipv4, reason: string, at: Instant): void {
    this.#byAddress.delete(address);
    this.#byAddress.set(address, { address, reason, at });
    if (this.#byAddress.size > LIMIT) this.#byAddress.delete(this.#byAddress.keys().next().value!);
  }

  /** Somebody there is connected with us now. */
  forget(address: Ipv4): void {
    this.#byAddress.delete(address);
  }

  /** The last one first. */
  list(now: Instant): TurnedAway[] {
    return [...this.#byAddress.values()].filter(({ at }) => now - at < REMEMBERED_MS).reverse();
  }
}
