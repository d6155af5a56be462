/** Who has which short id. It belongs to the lowest name among those that have it; the others are to choose another one. */
import type { PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";

/** Short ids have 12 bits. */
export const SHORT_IDS = 4096;

const PROBES = 10;

export class ShortIds {
  /** Ascending by name; never empty. */
  readonly #holders = new Map<number, PeerName[]>();

  add(shortId: number | undefined, name: PeerName): void {
    if (shortId === undefined) return;
    const holders = this.#holders.get(shortId);
    if (!holders) this.#holders.set(shortId, [name]);
    else if (!holders.includes(name)) holders.splice(holders.findLastIndex((held) => held < name) + 1, 0, name);
  }

  remove(shortId: number | undefined, name: PeerName): void {
    if (shortId === undefined) return;
    const holders = this.#holders.get(shortId);
    const at = holders?.indexOf(name) ?? -1;
    if (at < 0) return;
    holders!.splice(at, 1);
    if (holders!.length === 0) this.#holders.delete(shortId);
  }

  owner(shortId: number): PeerName | undefined {
    return this.#holders.get(shortId)?.[0];
  }

  /** All who have it, the owner first. */
  holders(shortId: number): readonly PeerName[] {
    return this.#holders.get(shortId) ?? [];
  }

  /** One that nobody has, at random; undefined where there is none. */
  chooseFree(random: Random): number | undefined {
    for (let i = 0; i < PROBES; i++) {
      const shortId = random.below(SHORT_IDS);
      if (!this.#holders.has(shortId)) return shortId;
    }
    const free: number[] = [];
    for (let shortId = 0; shortId < SHORT_IDS; shortId++) if (!this.#holders.has(shortId)) free.push(shortId);
    return free.length === 0 ? undefined : free[random.below(free.length)];
  }
}
