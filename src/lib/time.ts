/** Time as cores see it: handed in, never asked for. */

/** Monotonic milliseconds since an arbitrary start; only differences mean something. */
export type Instant = number;

/** When a core wants to be called again, and on whose behalf ("sleeve heartbeat to ab:…"). */
export interface Deadline {
  readonly at: Instant;
  readonly why: string;
}

/** The earlier of two deadlines, where undefined means never. */
export function earlier(a: Deadline | undefined, b: Deadline | undefined): Deadline | undefined {
  if (a === undefined) return b;
  if (b === undefined) return a;
  return b.at < a.at ? b : a;
}

/** Named timers of one core. Setting a name again moves its timer. Meant for dozens of timers, not thousands. */
export class TimerTable<Name extends string> {
  readonly #timers = new Map<Name, Instant>();

  set(name: Name, at: Instant): void {
    this.#timers.set(name, at);
  }

  /** Sets the timer unless it is already set, whenever that is for. */
  setIfAbsent(name: Name, at: Instant): void {
    if (!this.#timers.has(name)) this.#timers.set(name, at);
  }

  clear(name: Name): void {
    this.#timers.delete(name);
  }

  has(name: Name): boolean {
    return this.#timers.has(name);
  }

  /** The earliest timer, or undefined when none is set. */
  next(): Deadline | undefined {
    let best: Deadline | undefined;
    for (const [why, at] of this.#timers) if (best === undefined || at < best.at) best = { at, why };
    return best;
  }

  /** Takes away and returns one timer that is due at `now`, earliest first; undefined when none is. */
  takeDue(now: Instant): Name | undefined {
    let name: Name | undefined;
    let at = Infinity;
    for (const [n, t] of this.#timers) {
      if (t <= now && t < at) {
        name = n;
        at = t;
      }
    }
    if (name !== undefined) this.#timers.delete(name);
    return name;
  }
}
