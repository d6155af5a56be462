/**
 * The addresses of our ranges, and which of them are free. Sets of addresses are boundaries: each one starts or ends an interval, so that
 * a million free addresses take two numbers.
 */
import type { Ipv4 } from "../lib/ip.ts";
import { type AddressRange, biggestCidrIn, intersection, sizeOf } from "./range.ts";

export class Space {
  readonly #owned = new AddressSet();
  readonly #free = new AddressSet();

  /** Makes these ranges all we have: what is new is free, what is missing is ours no more, free or not. */
  setRanges(ranges: readonly AddressRange[]): void {
    const now = new AddressSet();
    for (const range of ranges) now.add(range);
    for (const gap of gapsBetween(now)) this.#free.remove(gap);
    for (const range of now.intervals()) {
      for (const gained of this.#owned.missingIn(range)) this.#free.add(gained);
    }
    this.#owned.become(now);
  }

  owns(address: Ipv4): boolean {
    return this.#owned.has(address);
  }

  isFree(address: Ipv4): boolean {
    return this.#free.has(address);
  }

  /** Takes the lowest free address of a range. */
  allocate(range: AddressRange): Ipv4 | undefined {
    const address = this.#free.firstIn(range);
    if (address !== undefined) this.#free.remove({ start: address, end: address + 1 });
    return address;
  }

  /** Takes this address. False where it is not free. */
  claim(address: Ipv4): boolean {
    if (!this.#free.has(address)) return false;
    this.#free.remove({ start: address, end: address + 1 });
    return true;
  }

  /** Gives an address back. What is not ours is passed over. */
  free(address: Ipv4): void {
    if (this.#owned.has(address)) this.#free.add({ start: address, end: address + 1 });
  }

  /** How many addresses of a range are free. */
  freeIn(range: AddressRange): number {
    return this.#free.countIn(range);
  }

  get freeCount(): number {
    return this.#free.countIn(EVERYTHING);
  }

  /** Whether some address in these ranges is not free: it is held, or it is not ours. */
  hasAllocations(ranges: readonly AddressRange[]): boolean {
    return ranges.some((range) => this.freeIn(range) !== sizeOf(range));
  }

  /**
   * What to give away of a range: the largest free network in it, the last one of that size; not more than half of what is free, but
   * one address at least. Undefined: nothing is free. The space keeps it until `setRanges()` says that it is gone.
   */
  donation(range: AddressRange): AddressRange | undefined {
    let best: AddressRange | undefined;
    let bestSize = 0;
    for (const interval of this.#free.intervals(range)) {
      if (sizeOf(interval) < bestSize) continue;
      const block = biggestCidrIn(interval);
      if (sizeOf(block) < bestSize) continue;
      best = block;
      bestSize = sizeOf(block);
    }
    if (best === undefined) return undefined;
    if (bestSize <= Math.floor(this.freeIn(range) / 2)) return best;
    return { start: best.start + Math.floor(bestSize / 2), end: best.end };
  }
}

const EVERYTHING: AddressRange = { start: 0, end: 2 ** 32 };

/** What lies before, between and behind the intervals of a set. */
function* gapsBetween(set: AddressSet): Generator<AddressRange> {
  let at = 0;
  for (const { start, end } of set.intervals()) {
    if (start > at) yield { start: at, end: start };
    at = end;
  }
  if (at < EVERYTHING.end) yield { start: at, end: EVERYTHING.end };
}

/** A set of addresses. */
export class AddressSet {
  /** Ascending: starts at even places, ends at odd ones. Intervals neither overlap nor touch. */
  #bounds: number[] = [];

  has(address: Ipv4): boolean {
    return (this.#firstAbove(address) & 1) === 1;
  }

  add(range: AddressRange): void {
    this.#put(range, 0);
  }

  remove(range: AddressRange): void {
    this.#put(range, 1);
  }

  /** Takes over the content of another set, which may not be used any more. */
  become(other: AddressSet): void {
    this.#bounds = other.#bounds;
  }

  /** The intervals, as far as they lie in a range; ascending. */
  *intervals(within: AddressRange = EVERYTHING): Generator<AddressRange> {
    const bounds = this.#bounds;
    // The interval that the range starts in, or the next one.
    for (let i = this.#firstAbove(within.start) & ~1; i < bounds.length; i += 2) {
      const part = intersection({ start: bounds[i]!, end: bounds[i + 1]! }, within);
      if (part.start >= within.end) return;
      if (part.start < part.end) yield part;
    }
  }

  /** The parts of a range that are not in the set. */
  *missingIn(range: AddressRange): Generator<AddressRange> {
    let at = range.start;
    for (const { start, end } of this.intervals(range)) {
      if (start > at) yield { start: at, end: start };
      at = end;
    }
    if (at < range.end) yield { start: at, end: range.end };
  }

  firstIn(range: AddressRange): Ipv4 | undefined {
    for (const { start } of this.intervals(range)) return start;
    return undefined;
  }

  countIn(range: AddressRange): number {
    let count = 0;
    for (const interval of this.intervals(range)) count += sizeOf(interval);
    return count;
  }

  /** @param inside 0: what is in the range joins the set, 1: it leaves */
  #put({ start, end }: AddressRange, inside: 0 | 1): void {
    if (start >= end) return;
    const from = this.#firstAbove(start - 1);
    const to = this.#firstAbove(end);
    const kept: number[] = [];
    if ((from & 1) === inside) kept.push(start);
    if ((to & 1) === inside) kept.push(end);
    if (to - from === kept.length) { for (let i = 0; i < kept.length; i++) this.#bounds[from + i] = kept[i]!; }
    //
    else this.#bounds.splice(from, to - from, ...kept);
  }

  /** Place of the first boundary that is greater. */
  #firstAbove(address: number): number {
    let low = 0;
    let high = this.#bounds.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#bounds[middle]! > address) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
