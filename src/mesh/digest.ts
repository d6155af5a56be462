/**
 * Telling quickly whether two peers know the same, and if not, what each lacks: a digest of 64 bits, a summary of versions, and then only
 * the records that differ.
 *
 *     A                          B
 *     ── digest ───────────────▶    differs from ours
 *     ◀─────────────── summary ──
 *     ── gossip: what B lacks ──▶
 *     ── want: what A lacks ────▶
 *     ◀─── gossip: what A lacks ──
 *
 * Placeholders stand in neither: whoever knows the record that mentions them has them too.
 */
import type { PeerName } from "../lib/mac.ts";
import type { SummaryEntry } from "../wire/control.ts";
import type { PeerRecord } from "../wire/topology.ts";
import { isPlaceholder, type Peers } from "./peers.ts";

export interface Difference {
  /** They lack these, or have them older. */
  readonly theyLack: readonly PeerName[];
  readonly weLack: readonly PeerName[];
  /** They know an earlier life of ours: its version, the highest one. */
  readonly earlierLife: { readonly uid: bigint; readonly version: bigint } | undefined;
}

/** The same for the same records, in whichever order. */
export function digestOf(peers: Peers): bigint {
  let high = 0;
  let low = 0;
  for (const { record } of peers.nodes()) {
    if (isPlaceholder(record)) continue;
    const a = hashOf(record, 0x9e3779b9);
    const b = hashOf(record, 0x85ebca6b);
    high = (high + a) >>> 0;
    low = (low + b) >>> 0;
  }
  return BigInt(high) << 32n | BigInt(low);
}

export function summaryOf(peers: Peers): SummaryEntry[] {
  const entries: SummaryEntry[] = [];
  for (const { record } of peers.nodes()) {
    if (!isPlaceholder(record)) entries.push({ name: record.name, uid: record.uid, version: record.version });
  }
  return entries;
}

/** Compares what we know with a summary of theirs. */
export function compareSummary(peers: Peers, entries: readonly SummaryEntry[]): Difference {
  const theyLack = new Set<PeerName>();
  const weLack = new Set<PeerName>();
  let earlierLife: Difference["earlierLife"];
  for (const { record } of peers.nodes()) if (!isPlaceholder(record)) theyLack.add(record.name);
  for (const { name, uid, version } of entries) {
    const ours = peers.get(name);
    if (ours === peers.ourself) {
      if (uid !== ours.uid && (!earlierLife || version > earlierLife.version)) earlierLife = { uid, version };
      else if (version === ours.version) theyLack.delete(name);
    } else if (!ours || order(version, uid, ours) > 0) {
      theyLack.delete(name);
      weLack.add(name);
    } else if (order(version, uid, ours) === 0) {
      theyLack.delete(name);
    }
  }
  return { theyLack: [...theyLack], weLack: [...weLack], earlierLife };
}

function order(version: bigint, uid: bigint, ours: PeerRecord): number {
  if (version !== ours.version) return version > ours.version ? 1 : -1;
  return uid === ours.uid ? 0 : uid > ours.uid ? 1 : -1;
}

/** Mixes name, uid and version (MurmurHash3's rounds). */
function hashOf(record: PeerRecord, seed: number): number {
  let h = seed;
  h = round(h, record.name / 0x1_0000_0000);
  h = round(h, record.name);
  h = round(h, Number(record.uid >> 32n));
  h = round(h, Number(BigInt.asUintN(32, record.uid)));
  h = round(h, Number(record.version >> 32n));
  h = round(h, Number(BigInt.asUintN(32, record.version)));
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function round(h: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51);
  k = k << 15 | k >>> 17;
  h ^= Math.imul(k, 0x1b873593);
  h = h << 13 | h >>> 19;
  return Math.imul(h, 5) + 0xe6546b64 | 0;
}
