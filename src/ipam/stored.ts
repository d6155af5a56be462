/**
 * What is stored between two starts: who we were, the ring, who holds what. As JSON:
 *
 *     { name, range, ring: { seeds: […], entries: [[token, peer, version, free], …] },
 *       held: { ID: { container, addresses: ["10.32.0.1/12", …] } }, reclaim?: { … } }
 */
import { type Cidr, formatCidr, formatIpv4, parseCidr, parseIpv4 } from "../lib/ip.ts";
import { formatMac, parsePeerName, type PeerName } from "../lib/mac.ts";
import { MAX_RING_ENTRIES, type RingEntry } from "../wire/ipam.ts";
import { type Holding, MAX_HELD } from "./holdings.ts";
import type { StoredReclaim } from "./reclaim.ts";

export interface StoredIpam {
  readonly name: PeerName;
  /** The universe. */
  readonly range: Cidr;
  readonly seeds: readonly PeerName[];
  readonly entries: readonly RingEntry[];
  readonly held: readonly (readonly [id: string, holding: Holding])[];
  readonly reclaim: StoredReclaim | undefined;
}

/** As JSON says it. */
export function encodeStored({ name, range, seeds, entries, held, reclaim }: StoredIpam): unknown {
  return {
    name: formatMac(name),
    range: formatCidr(range),
    ring: {
      seeds: seeds.map(formatMac),
      entries: entries.map((e) => [formatIpv4(e.token), formatMac(e.peer), e.version, e.free]),
    },
    held: Object.fromEntries(held.map(([id, { isContainer, cidrs }]) => [
      id,
      { container: isContainer, addresses: cidrs.map(formatCidr) },
    ])),
    ...reclaim === undefined ? {} : { reclaim: encodeReclaimed(reclaim) },
  };
}

/** From parsed JSON. Throws an Error that says what is wrong. */
export function checkStored(data: unknown): StoredIpam {
  const { name, range, ring, held, reclaim } = fields(data, "the content");
  const { seeds, entries } = fields(ring, "ring");
  return {
    name: checkPeer(name),
    range: checkCidr(range),
    seeds: checkList(seeds, "seeds").map(checkPeer),
    entries: checkList(entries, "entries", MAX_RING_ENTRIES).map(checkEntry),
    held: Object.entries(fields(held, "held")).map(([id, holding]) => [id, checkHolding(holding)] as const),
    reclaim: reclaim === undefined ? undefined : checkReclaimed(reclaim),
  };
}

function encodeReclaimed({ announced, electorate, absent, isolatedMs }: StoredReclaim): unknown {
  return {
    announced: announced.map(([peer, afterMs]) => [formatMac(peer), afterMs]),
    electorate: electorate.map(formatMac),
    absent: absent.map(([peer, forMs, seen]) => [formatMac(peer), Math.floor(forMs), seen]),
    // JSON has no infinity.
    isolatedMs: Math.min(Math.ceil(isolatedMs), Number.MAX_SAFE_INTEGER),
  };
}

function checkReclaimed(data: unknown): StoredReclaim {
  const { announced, electorate, absent, isolatedMs } = fields(data, "reclaim");
  return {
    announced: checkList(announced, "announced").map((item) => {
      const [peer, afterMs] = checkList(item, "announced");
      return [checkPeer(peer), checkNumber(afterMs, Number.MAX_SAFE_INTEGER)] as const;
    }),
    electorate: checkList(electorate, "electorate").map(checkPeer),
    absent: checkList(absent, "absent").map((item) => {
      const [peer, forMs, seen] = checkList(item, "absent");
      return [checkPeer(peer), checkNumber(forMs, Number.MAX_SAFE_INTEGER), seen === true] as const;
    }),
    isolatedMs: checkNumber(isolatedMs, Number.MAX_SAFE_INTEGER),
  };
}

function checkEntry(data: unknown): RingEntry {
  const [token, peer, version, free] = checkList(data, "entry");
  const address = typeof token === "string" ? parseIpv4(token) : undefined;
  if (address === undefined) throw new Error(`"${token}" is no address`);
  return {
    token: address,
    peer: checkPeer(peer),
    version: checkNumber(version, 0xffff_ffff),
    free: checkNumber(free, 2 ** 32),
  };
}

function checkHolding(data: unknown): Holding {
  const { container, addresses } = fields(data, "holding");
  return { isContainer: container === true, cidrs: checkList(addresses, "addresses", MAX_HELD).map(checkCidr) };
}

function checkPeer(data: unknown): PeerName {
  const name = typeof data === "string" ? parsePeerName(data) : undefined;
  if (name === undefined) throw new Error(`"${data}" is no peer name`);
  return name;
}

function checkCidr(data: unknown): Cidr {
  const cidr = typeof data === "string" ? parseCidr(data) : undefined;
  if (cidr === undefined) throw new Error(`"${data}" is no address with a prefix length`);
  return cidr;
}

function checkNumber(data: unknown, max: number): number {
  if (typeof data !== "number" || !Number.isInteger(data) || data < 0 || data > max) {
    throw new Error(`"${data}" is no number from 0 to ${max}`);
  }
  return data;
}

function checkList(data: unknown, what: string, most = 1 << 20): readonly unknown[] {
  if (!Array.isArray(data)) throw new Error(`${what} is no list`);
  if (data.length > most) throw new Error(`${what} has ${data.length} items, at most ${most} may be`);
  return data;
}

function fields(data: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof data !== "object" || data === null || Array.isArray(data)) throw new Error(`${what} is missing`);
  return data as Record<string, unknown>;
}
