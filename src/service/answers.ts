/** Questions of peers, answered at most so often: who asks again sooner waits, and of what he asked meanwhile the last counts. */
import type { PeerName } from "../lib/mac.ts";
import type { Deadline, Instant } from "../lib/time.ts";

/** To one peer, about one owner. */
const INTERVAL_MS = 500;
/** Pairs of them that are remembered. */
const MAX_ASKED = 8_192;

export interface Want {
  readonly owner: PeerName;
  readonly life: number;
  readonly since: number;
  readonly check: number;
}

export interface Asked {
  readonly from: PeerName;
  readonly want: Want;
}

export class Answers {
  readonly #answered = new Map<string, Instant>();
  readonly #waiting = new Map<string, Asked & { readonly at: Instant }>();

  /** True: to be answered at once. */
  handleWant(asked: Asked, now: Instant): boolean {
    const key = `${asked.from} ${asked.want.owner}`;
    const next = (this.#answered.get(key) ?? -Infinity) + INTERVAL_MS;
    if (next > now) {
      this.#waiting.set(key, { ...asked, at: next });
      return false;
    }
    this.#remember(key, now);
    return true;
  }

  /** One that has waited long enough. */
  poll(now: Instant): Asked | undefined {
    for (const [key, asked] of this.#waiting) {
      if (asked.at > now) continue;
      this.#waiting.delete(key);
      this.#remember(key, now);
      return asked;
    }
    return undefined;
  }

  pollTimeout(): Deadline | undefined {
    // They stand in the order in which they came, which is that of their times but for some milliseconds.
    let at = Infinity;
    for (const asked of this.#waiting.values()) at = Math.min(at, asked.at);
    return at === Infinity ? undefined : { at, why: "peers that asked for records of services" };
  }

  #remember(key: string, now: Instant): void {
    this.#answered.delete(key);
    if (this.#answered.size >= MAX_ASKED) {
      for (const [old, at] of this.#answered) {
        if (at > now - INTERVAL_MS && this.#answered.size < MAX_ASKED) break;
        this.#answered.delete(old);
      }
    }
    this.#answered.set(key, now);
  }
}
