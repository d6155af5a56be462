/**
 * Asking peers for space. The first of those who have some is asked for all of a subnet, and gives what it thinks fit; a claim asks for one
 * address. Who was asked and has not answered is not asked for the same again at once: the ring changes often while many wait.
 */
import type { PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { Instant } from "../lib/time.ts";
import type { AddressRange } from "./range.ts";
import type { Ring } from "./ring.ts";

/** A request, or the answer to it, that took longer is lost. */
const PATIENCE_MS = 1_000;
const MAX_ASKED = 16_384;

export class Requests {
  /** When who was asked for what, by `peer start end`. */
  readonly #asked = new Map<PeerName, Map<string, Instant>>();
  #count = 0;

  /** Whether to ask now; it is taken for asked then. */
  begin(from: PeerName, { start, end }: AddressRange, now: Instant): boolean {
    let ranges = this.#asked.get(from);
    if (ranges === undefined) this.#asked.set(from, ranges = new Map());
    const key = `${start} ${end}`;
    const at = ranges.get(key);
    if (at !== undefined && now - at < PATIENCE_MS) return false;
    if (at === undefined && ++this.#count > MAX_ASKED) {
      this.#asked.clear();
      this.#asked.set(from, ranges = new Map());
      this.#count = 1;
    }
    ranges.set(key, now);
    return true;
  }

  /** It said something. */
  handleAnswer(from: PeerName): void {
    this.#count -= this.#asked.get(from)?.size ?? 0;
    this.#asked.delete(from);
  }
}

/** Who may be asked for addresses of a range: at random, the more likely the earlier the more they have. */
export function donorsInOrder(ring: Ring, range: AddressRange, random: Random): PeerName[] {
  const weighted = [...ring.donorsIn(range)].map(([peer, free]) => ({ peer, weight: free * random.unit() }));
  return weighted.sort((a, b) => b.weight - a.weight).map(({ peer }) => peer);
}
