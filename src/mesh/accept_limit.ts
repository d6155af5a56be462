/** How many sockets may be accepted at once and after another: a bucket of tokens that fills slowly. */
import type { Instant } from "../lib/time.ts";

const CAPACITY = 20;
const TOKEN_MS = 50;

export class AcceptLimit {
  /** When the oldest token that is not spent came into being. */
  #token: Instant;

  constructor(now: Instant) {
    this.#token = now - (CAPACITY - 1) * TOKEN_MS;
  }

  /** When there is a token: now, or a little later. */
  readyAt(now: Instant): Instant {
    return Math.max(now, this.#token);
  }

  /** Spends a token. False: there is none. */
  take(now: Instant): boolean {
    if (this.#token > now) return false;
    this.#token = Math.max(this.#token, now - (CAPACITY - 1) * TOKEN_MS) + TOKEN_MS;
    return true;
  }
}
