/** 48-bit names: MAC addresses and peer names, held as integers (they fit a double exactly). */
import { WireError } from "./errors.ts";

declare const macBrand: unique symbol;
declare const peerNameBrand: unique symbol;

/** An Ethernet address as a 48-bit integer, first octet most significant. */
export type Mac = number & { readonly [macBrand]: true };

/** A router's name as a 48-bit integer, first octet most significant. 0 means nobody. */
export type PeerName = number & { readonly [peerNameBrand]: true };

/** Nobody: placeholder where a peer name is needed and none is known. */
export const NO_PEER = 0 as PeerName;

/** Text form of either kind: six lower-case groups of two hexadecimal digits. */
export function formatMac(value: Mac | PeerName): string {
  const hex = value.toString(16).padStart(12, "0");
  return `${hex.slice(0, 2)}:${hex.slice(2, 4)}:${hex.slice(4, 6)}:${hex.slice(6, 8)}:${hex.slice(8, 10)}:${
    hex.slice(10, 12)
  }`;
}

/** Reads six octets at `at` as one number. */
export function readMac(octets: Uint8Array, at: number): number {
  if (at + 6 > octets.length) throw new WireError(`Cannot read name: 6 octets expected, ${octets.length - at} left`);
  return (octets[at]! * 0x100 + octets[at + 1]!) * 0x1_0000_0000 +
    ((octets[at + 2]! << 24 | octets[at + 3]! << 16 | octets[at + 4]! << 8 | octets[at + 5]!) >>> 0);
}

/** Writes a name as six octets at `at`. */
export function writeMac(octets: Uint8Array, at: number, value: number): void {
  const high = Math.floor(value / 0x1_0000_0000);
  octets[at] = high >>> 8;
  octets[at + 1] = high;
  octets[at + 2] = value / 0x1_00_0000 % 0x100;
  octets[at + 3] = value >>> 16 & 0xff;
  octets[at + 4] = value >>> 8 & 0xff;
  octets[at + 5] = value & 0xff;
}

/** At most so many groups stand beside a `::`. */
const ABBREVIATED_GROUPS = 4;

/**
 * A peer's name as people write it: six groups of one or two hexadecimal digits, or up to four with one `::` for the zeros between,
 * before or after them. Blanks before a group are passed over, as Weave Net 2.8 does. undefined where the text is anything else.
 */
export function parsePeerName(text: string): PeerName | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const groups = halves.map((half) => half === "" ? [] : half.split(":"));
  const given = groups.flat();
  if (halves.length === 1 ? given.length !== 6 : given.length < 1 || given.length > ABBREVIATED_GROUPS) {
    return undefined;
  }
  if (!given.every((group) => /^[ \t]*[0-9a-f]{1,2}$/i.test(group))) return undefined;
  const zeros = new Array<string>(6 - given.length).fill("0");
  const all = [...groups[0]!, ...zeros, ...groups[1] ?? []];
  return all.reduce((value, group) => value * 0x100 + parseInt(group, 16), 0) as PeerName;
}
