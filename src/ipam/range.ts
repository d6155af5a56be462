/** Half-open ranges of addresses. The end of the last one is 2^32, which is no address. */
import { type Cidr, formatCidr, formatIpv4, type Ipv4, networkOf } from "../lib/ip.ts";
import type { AddressRange } from "../wire/ipam.ts";

export type { AddressRange } from "../wire/ipam.ts";

/** Fewer addresses than these leave none to give, as the first and the last are not given. */
export const MIN_SUBNET_SIZE = 4;

export function sizeOf({ start, end }: AddressRange): number {
  return end - start;
}

export function contains({ start, end }: AddressRange, address: Ipv4): boolean {
  return address >= start && address < end;
}

export function overlap(a: AddressRange, b: AddressRange): boolean {
  return a.start < b.end && b.start < a.end;
}

/** Empty (its end at or before its start) where they do not overlap. */
export function intersection(a: AddressRange, b: AddressRange): AddressRange {
  return { start: Math.max(a.start, b.start), end: Math.min(a.end, b.end) };
}

/** All addresses of the network that `cidr` lies in. */
export function rangeOf(cidr: Cidr): AddressRange {
  const start = networkOf(cidr);
  return { start, end: start + 2 ** (32 - cidr.prefixLength) };
}

/** Those that may be given: neither the first nor the last (RFC 1122, 3.2.1.3). */
export function hostRangeOf(cidr: Cidr): AddressRange {
  const { start, end } = rangeOf(cidr);
  return { start: start + 1, end: end - 1 };
}

/** From one token of a ring to the next, over the end of the universe where need be; a token is a whole round away from itself. */
export function distance({ start, end }: AddressRange, a: Ipv4, b: Ipv4): number {
  return b > a ? b - a : end - a + (b - start);
}

/** A range from one token of a ring to another, as one or two that do not run over the end of the universe; ascending. */
export function splitOverEnd(universe: AddressRange, { start, end }: AddressRange): AddressRange[] {
  if (end === universe.start) return [{ start, end: universe.end }];
  if (end > start) return [{ start, end }];
  return [{ start: universe.start, end }, { start, end: universe.end }];
}

/** The largest block in a range that is a network; of several one that Weave Net 2.8 chooses as well. */
export function biggestCidrIn({ start, end }: AddressRange): AddressRange {
  const size = end - start;
  if (size < 1) return { start, end: start };
  const whole = 2 ** Math.floor(Math.log2(size));
  for (const block of [whole, whole / 2]) {
    const first = Math.ceil(start / block) * block;
    if (first + block <= end) return { start: first, end: first + block };
  }
  return { start, end: start + 1 }; // not reached: a half always fits
}

/** As a network where it is one, else its first and last address. */
export function formatRange({ start, end }: AddressRange): string {
  const bits = Math.log2(end - start);
  if (Number.isInteger(bits)) return formatCidr({ address: start, prefixLength: 32 - bits });
  return `${formatIpv4(start)}-${formatIpv4((end - 1) >>> 0)}`;
}
