/**
 * Asking peers for space. The first of those who have some is asked for all of a subnet, and gives what it thinks fit; a claim asks for one
 * address. Who was asked and has not answered, or has nothing, is not asked for the same again at once: the ring changes often while
 * many wait.
 */
import type { PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { Instant } from "../lib/time.ts";
import type { AddressRange } from "./range.ts";
import type { Ring } from "./ring.ts";

/** A request, or the answer to it, that took longer is lost; and who had nothing may have something again. */
const PATIENCE_MS = 1_000;
const MAX_ASKED = 16_384;

export class Requests {
  /** What was asked for and when, by who was asked and the range. */
  readonly #asked = new Map<PeerName, Map<string, { readonly at: Instant; readonly denied: boolean }>>();
  #count = 0;

  /** Whether to ask now; it is taken for asked then. */
  begin(from: PeerName, range: AddressRange, now: Instant): boolean {
    const asked = this.#asked.get(from)?.get(keyOf(range));
    if (asked !== undefined && now - asked.at < PATIENCE_MS) return false;
    this.#set(from, range, { at: now, denied: false });
    return true;
  }

  handleDenied(from: PeerName, range: AddressRange, now: Instant): void {
    if (this.#asked.get(from)?.has(keyOf(range))) this.#set(from, range, { at: now, denied: true });
  }

  /** It told its ring, which comes last of an answer. True: something had been asked, and was not denied. */
  handleAnswer(from: PeerName): boolean {
    const ranges = this.#asked.get(from);
    let any = false;
    for (const [key, { denied }] of ranges ?? []) {
      if (denied) continue;
      any = true;
      ranges!.delete(key);
      this.#count--;
    }
    if (ranges?.size === 0) this.#asked.delete(from);
    return any;
  }

  #set(from: PeerName, range: AddressRange, asked: { at: Instant; denied: boolean }): void {
    if (this.#count >= MAX_ASKED) {
      this.#asked.clear();
      this.#count = 0;
    }
    let ranges = this.#asked.get(from);
    if (ranges === undefined) this.#asked.set(from, ranges = new Map());
    if (!ranges.has(keyOf(range))) this.#count++;
    ranges.set(keyOf(range), asked);
  }
}

function keyOf({ start, end }: AddressRange): string {
  return `${start} ${end}`;
}

/** Who may be asked for addresses of a range: at random, the more likely the earlier the more they have. */
export function donorsInOrder(ring: Ring, range: AddressRange, random: Random): PeerName[] {
  const weighted = [...ring.donorsIn(range)].map(([peer, free]) => ({ peer, weight: free * random.unit() }));
  return weighted.sort((a, b) => b.weight - a.weight).map(({ peer }) => peer);
}
