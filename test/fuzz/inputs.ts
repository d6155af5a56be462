/** Octets for decoders, all from one seed: random ones, and well-formed ones with something wrong. */

import assert from "node:assert/strict";
import { OptionError } from "../../src/lib/errors.ts";
import type { Random } from "../../src/lib/random.ts";

/** Lengths, counts and tags that decoders stumble over. */
const INTERESTING_OCTETS = [0, 1, 2, 4, 0x20, 0x7f, 0x80, 0xf7, 0xf8, 0xfc, 0xfe, 0xff];
const INTERESTING_WORDS = [
  0,
  1,
  0x7f,
  0x80,
  0xff,
  0x100,
  0x7fff,
  0x8000,
  0xffff,
  0x7fff_ffff,
  0x8000_0000,
  0xffff_ffff,
];
const LONGEST = 65_536;

/** One input: mostly something of `corpus` with a few changes, sometimes it as it is, sometimes nothing but random octets. */
export function makeInput(random: Random, corpus: readonly Uint8Array[]): Uint8Array {
  const kind = random.below(20);
  if (kind === 0 || corpus.length === 0) return randomOctets(random, random.below(300));
  let octets = corpus[random.below(corpus.length)]!.slice();
  if (kind === 1) return octets;
  for (let n = 1 + random.below(6); n > 0; n--) octets = change(random, octets, corpus);
  return octets;
}

export function randomOctets(random: Random, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, () => random.u32() & 0xff);
}

/** A part of a sequence that ends nowhere in particular. */
export function pick<T>(random: Random, list: readonly T[]): T {
  return list[random.below(list.length)]!;
}

function change(
  random: Random,
  octets: Uint8Array<ArrayBuffer>,
  corpus: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const at = random.below(octets.length + 1);
  const some = octets.subarray(at, at + 1 + random.below(16));
  switch (random.below(10)) {
    case 0:
      if (at < octets.length) octets[at]! ^= 1 << random.below(8);
      return octets;
    case 1:
    case 2:
      if (at < octets.length) octets[at] = random.below(2) ? pick(random, INTERESTING_OCTETS) : random.u32();
      return octets;
    case 3:
    case 4: {
      const width = pick(random, [2, 4] as const);
      if (at + width > octets.length) return octets;
      const value = random.below(3) ? pick(random, INTERESTING_WORDS) : random.below(2 * octets.length);
      const view = new DataView(octets.buffer);
      const little = random.below(2) === 0;
      if (width === 2) view.setUint16(at, value, little);
      else view.setUint32(at, value, little);
      return octets;
    }
    case 5:
      return octets.slice(0, at);
    case 6:
      return joined(octets.subarray(0, at), octets.subarray(at + some.length));
    case 7:
      return joined(octets.subarray(0, at), randomOctets(random, 1 + random.below(8)), octets.subarray(at));
    case 8: { // one thing many times
      const times = Math.min(1 << random.below(12), Math.floor(LONGEST / Math.max(1, some.length)));
      return joined(octets.subarray(0, at), ...Array.from({ length: times }, () => some), octets.subarray(at));
    }
    default: {
      const other = corpus[random.below(corpus.length)]!;
      return joined(octets.subarray(0, at), other.subarray(random.below(other.length + 1)));
    }
  }
}

export function joined(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(Math.min(2 * LONGEST, parts.reduce((n, part) => n + part.length, 0)));
  let at = 0;
  for (const part of parts) {
    const fits = part.subarray(0, whole.length - at);
    whole.set(fits, at);
    at += fits.length;
  }
  return whole;
}

/** What a decoder may take for any input, and for each octet of it: values in JavaScript are larger than on the wire, not by much. */
const ALLOWANCE_OCTETS = 4 << 20;
const ALLOWANCE_PER_OCTET = 512;

/**
 * Decodes, and checks what that allocated: a collection in between hides a part of it, but what a length field could make out of
 * nothing is more than that. Errors of these families are the decoder's answer; everything else is a defect.
 * @param allowance octets of memory for any input
 */
export function decodes<T>(
  octets: Uint8Array,
  decode: () => T,
  families: readonly ErrorFamily[],
  allowance = ALLOWANCE_OCTETS,
): T | undefined {
  const before = Deno.memoryUsage();
  let result: T | undefined;
  try {
    result = decode();
  } catch (error) {
    if (!families.some((family) => error instanceof family)) throw error;
    // A user may read again what he wrote; a log shall not grow by what peers write.
    assert.ok(
      error instanceof OptionError || (error as Error).message.length < 1000,
      "an error that repeats its input",
    );
  }
  const after = Deno.memoryUsage();
  const grown = after.heapUsed + after.external - before.heapUsed - before.external;
  const allowed = allowance + ALLOWANCE_PER_OCTET * octets.length;
  assert.ok(grown <= allowed, `${octets.length} octets took ${grown} octets of memory`);
  return result;
}

// deno-lint-ignore no-explicit-any
export type ErrorFamily = new (...args: any[]) => Error;
