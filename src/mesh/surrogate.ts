/**
 * Stands in for the channels that we do not know, so that those who do reach each other through us: gossip and broadcasts are passed on
 * unchanged, gossip only once.
 */
import type { Instant } from "../lib/time.ts";
import type { GossipData } from "./gossip.ts";

/** How long gossip is remembered as seen; what is older is dropped when more is stored. */
const REMEMBER_MS = 30_000;

/** Octets of gossip remembered, all channels together; the oldest makes room. */
export const MAX_REMEMBERED_OCTETS = 16 << 20;
const MAX_REMEMBERED = 4096;

interface Seen {
  readonly channel: string;
  readonly payload: Uint8Array;
  readonly at: Instant;
}

export class Surrogates {
  /** By hash; oldest first. */
  readonly #seen = new Map<bigint, Seen>();
  #octets = 0;

  get rememberedOctets(): number {
    return this.#octets;
  }

  /** What is to be passed on of gossip; undefined where the same was seen lately. The payload is kept. */
  handleGossip(channel: string, payload: Uint8Array, now: Instant): GossipData | undefined {
    const hash = fnv64a(payload);
    const seen = this.#seen.get(hash);
    if (seen?.channel === channel && equal(seen.payload, payload)) return undefined;
    this.#forget(hash);
    for (const [old, { at }] of this.#seen) {
      const full = this.#seen.size >= MAX_REMEMBERED || this.#octets + payload.length > MAX_REMEMBERED_OCTETS;
      if (!full && at > now - REMEMBER_MS) break;
      this.#forget(old);
    }
    this.#seen.set(hash, { channel, payload, at: now });
    this.#octets += payload.length;
    return new PassedOn([payload]);
  }

  #forget(hash: bigint): void {
    this.#octets -= this.#seen.get(hash)?.payload.length ?? 0;
    this.#seen.delete(hash);
  }
}

/** Payloads that nobody here understands: they cannot be merged, only queued. */
export class PassedOn implements GossipData {
  readonly heldOctets: number;

  constructor(readonly payloads: readonly Uint8Array[]) {
    this.heldOctets = payloads.reduce((sum, payload) => sum + payload.length + PAYLOAD_COST, 0);
  }

  merge(later: GossipData): GossipData {
    return new PassedOn([...this.payloads, ...(later as PassedOn).payloads]);
  }

  encode(): readonly Uint8Array[] {
    return this.payloads;
  }
}

/** What an empty payload costs: else a queue of them would have no end. */
const PAYLOAD_COST = 1024;

/** FNV-1a of 64 bits, in two halves: the prime is 2^40 + 0x1b3. */
export function fnv64a(octets: Uint8Array): bigint {
  let high = 0xcbf29ce4;
  let low = 0x84222325;
  for (let i = 0; i < octets.length; i++) {
    low = (low ^ octets[i]!) >>> 0;
    const product = low * 0x1b3;
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 0x1_0000_0000) + (low << 8)) >>> 0;
    low = product >>> 0;
  }
  return BigInt(high) << 32n | BigInt(low);
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
