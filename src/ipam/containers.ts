/**
 * Containers' lives, as far as their addresses are concerned. A container that died keeps them for a while, as it may be started again;
 * one that was removed does not.
 */
import type { Instant } from "../lib/time.ts";
import type { Territory } from "./territory.ts";

/** How long a dead container keeps its addresses. */
const LINGER_MS = 30_000;

export class Containers {
  readonly #territory: Territory;
  readonly #diedAt = new Map<string, Instant>();

  constructor(territory: Territory) {
    this.#territory = territory;
  }

  /** Whether any is about to lose its addresses. */
  get anyDead(): boolean {
    return this.#diedAt.size > 0;
  }

  isDead(id: string): boolean {
    return this.#diedAt.has(id);
  }

  handleDied(id: string, now: Instant): void {
    if (this.#holdsSome(id)) this.#diedAt.set(id, now);
  }

  /** It was started, or asks for addresses. */
  handleAlive(id: string): void {
    this.#diedAt.delete(id);
  }

  handleDestroyed(id: string): void {
    if (this.#holdsSome(id)) this.#territory.freeAll(id);
    this.#diedAt.delete(id);
  }

  /** Those that run are all there are: what others held is free. Which ones held something. */
  keepOnly(running: ReadonlySet<string>): string[] {
    const gone = [...this.#territory.holdings.entries()].filter(([id, { isContainer }]) =>
      isContainer && !running.has(id)
    );
    for (const [id] of gone) this.#territory.freeAll(id);
    return gone.map(([id]) => id);
  }

  /** Takes their addresses from those that have been dead for long enough. Who they were. */
  handleTick(now: Instant): string[] {
    const gone: string[] = [];
    for (const [id, at] of this.#diedAt) {
      if (now - at <= LINGER_MS) continue;
      this.#diedAt.delete(id);
      if (this.#territory.freeAll(id) > 0) gone.push(id);
    }
    return gone;
  }

  #holdsSome(id: string): boolean {
    return this.#territory.holdings.get(id)?.isContainer === true;
  }
}
