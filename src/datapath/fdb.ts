/**
 * MAC → peer: what the frames teach. The packet thread writes it, the main thread may list it at any time.
 *
 *     words 0-3   0 version: odd while entries move · 1 entries in use · 2 the clock, seconds · 3 unused
 *     then SLOTS entries of 4 words
 *         0   low 32 bits of the address
 *         1   bit 31: in use; bits 15-0: high 16 bits of the address
 *         2   index of the peer in the tables
 *         3   when last seen, seconds of the packet thread's clock
 *
 * Open addressing with linear probing; a deletion moves followers back, so that no search needs to pass over gravestones.
 * Entries and entries per peer are limited: a peer, or a container that invents addresses, cannot push out those of others.
 */
import type { Mac } from "../lib/mac.ts";
import { hashName } from "./name_hash.ts";

const SLOTS = 32768;
const MASK = SLOTS - 1;
const HEADER_WORDS = 4;
const ENTRY_WORDS = 4;
const IN_USE = 0x8000_0000;

/** Entries in all, and of one peer. */
export const FDB_LIMIT = 16384;
export const FDB_PEER_LIMIT = 4096;
/** Seconds without a frame after which an entry goes; how late the last frame's time may be noted. */
export const FDB_AGE_S = 600;
export const FDB_REFRESH_S = 60;

export const FDB_OCTETS = (HEADER_WORDS + SLOTS * ENTRY_WORDS) * 4;

/** What `learn()` found. */
export const KNOWN = 0;
export const LEARNED = 1;
/** It was at another peer before. */
export const MOVED = 2;
/** It is at another peer and was left there. */
export const ELSEWHERE = 3;
/** There was no room. */
export const FULL = 4;

export class Fdb {
  readonly #words: Uint32Array;
  readonly #version: Int32Array;
  readonly #perPeer: Uint32Array;
  #sweepAt = 0;

  constructor(memory: ArrayBufferLike, peers: number) {
    this.#words = new Uint32Array(memory);
    this.#version = new Int32Array(memory, 0, 1);
    this.#perPeer = new Uint32Array(peers);
  }

  get size(): number {
    return this.#words[1]!;
  }

  /** Index of the peer that has the address, or -1. */
  lookup(high: number, low: number): number {
    const words = this.#words;
    for (let slot = hashName(high, low) & MASK;; slot = (slot + 1) & MASK) {
      const at = HEADER_WORDS + slot * ENTRY_WORDS;
      const state = words[at + 1]!;
      if (state === 0) return -1;
      if (words[at] === low && (state & 0xffff) === high) return words[at + 2]!;
    }
  }

  /** Notes that the address was seen at `peer`. @param force move it there if it was elsewhere */
  learn(high: number, low: number, peer: number, nowS: number, force: boolean): number {
    const words = this.#words;
    let slot = hashName(high, low) & MASK;
    for (;; slot = (slot + 1) & MASK) {
      const at = HEADER_WORDS + slot * ENTRY_WORDS;
      const state = words[at + 1]!;
      if (state === 0) break;
      if (words[at] !== low || (state & 0xffff) !== high) continue;
      const before = words[at + 2]!;
      if (before !== peer) {
        if (!force) return ELSEWHERE;
        this.#perPeer[before] = this.#perPeer[before]! - 1;
        this.#perPeer[peer] = this.#perPeer[peer]! + 1;
        words[at + 2] = peer;
        words[at + 3] = nowS;
        return MOVED;
      }
      if (nowS - words[at + 3]! >= FDB_REFRESH_S) words[at + 3] = nowS;
      return KNOWN;
    }
    if (words[1]! >= FDB_LIMIT || this.#perPeer[peer]! >= FDB_PEER_LIMIT) return FULL;
    const at = HEADER_WORDS + slot * ENTRY_WORDS;
    Atomics.add(this.#version, 0, 1);
    words[at] = low;
    words[at + 1] = (IN_USE | high) >>> 0;
    words[at + 2] = peer;
    words[at + 3] = nowS;
    words[1] = words[1]! + 1;
    this.#perPeer[peer] = this.#perPeer[peer]! + 1;
    Atomics.add(this.#version, 0, 1);
    return LEARNED;
  }

  /** Notes the time, from which a reader reckons ages. */
  setClock(nowS: number): void {
    this.#words[2] = nowS;
  }

  /** Removes what has aged, looking at `slots` places from where the last call ended. */
  sweep(nowS: number, slots: number): void {
    for (let n = 0; n < slots; n++) {
      const at = HEADER_WORDS + this.#sweepAt * ENTRY_WORDS;
      // What a removal moves here may have aged as well: look again before going on.
      if (this.#words[at + 1] !== 0 && nowS - this.#words[at + 3]! >= FDB_AGE_S) this.#remove(this.#sweepAt);
      else this.#sweepAt = (this.#sweepAt + 1) & MASK;
    }
  }

  /** Removes every entry of a peer. Looks at the whole table: for when a peer is forgotten, not per packet. */
  forgetPeer(peer: number): void {
    for (let slot = 0; slot < SLOTS && this.#perPeer[peer]! > 0; slot++) {
      const at = HEADER_WORDS + slot * ENTRY_WORDS;
      while (this.#words[at + 1] !== 0 && this.#words[at + 2] === peer) this.#remove(slot);
    }
    // A chain around the end of the table may have put entries where the walk had been.
    if (this.#perPeer[peer]! > 0) this.forgetPeer(peer);
  }

  /** Empties a place and closes the gap: followers whose own place is not after the gap move into it. */
  #remove(slot: number): void {
    const words = this.#words;
    let gap = slot;
    const peer = words[HEADER_WORDS + gap * ENTRY_WORDS + 2]!;
    this.#perPeer[peer] = this.#perPeer[peer]! - 1;
    Atomics.add(this.#version, 0, 1);
    words[1] = words[1]! - 1;
    for (let next = (gap + 1) & MASK;; next = (next + 1) & MASK) {
      const from = HEADER_WORDS + next * ENTRY_WORDS;
      if (words[from + 1] === 0) break;
      const home = hashName(words[from + 1]! & 0xffff, words[from]!) & MASK;
      if (((next - home) & MASK) < ((next - gap) & MASK)) continue;
      const to = HEADER_WORDS + gap * ENTRY_WORDS;
      words.copyWithin(to, from, from + ENTRY_WORDS);
      gap = next;
    }
    words.fill(0, HEADER_WORDS + gap * ENTRY_WORDS, HEADER_WORDS + (gap + 1) * ENTRY_WORDS);
    Atomics.add(this.#version, 0, 1);
  }
}

export interface FdbEntry {
  readonly mac: Mac;
  readonly peer: number;
  /** Seconds since it was last seen, to the minute. */
  readonly ageS: number;
}

/** Main thread: all entries at one moment, or as near to that as a busy table allows. */
export function listFdb(memory: ArrayBufferLike): FdbEntry[] {
  const shared = new Uint32Array(memory);
  const version = new Int32Array(memory, 0, 1);
  const copy = new Uint32Array(shared.length);
  for (let tries = 0; tries < 8; tries++) {
    const before = Atomics.load(version, 0);
    copy.set(shared);
    if ((before & 1) === 0 && Atomics.load(version, 0) === before) break;
  }
  const entries: FdbEntry[] = [];
  for (let at = HEADER_WORDS; at < copy.length; at += ENTRY_WORDS) {
    const state = copy[at + 1]!;
    if (state === 0) continue;
    entries.push({
      mac: ((state & 0xffff) * 0x1_0000_0000 + copy[at]!) as Mac,
      peer: copy[at + 2]!,
      ageS: Math.max(0, copy[2]! - copy[at + 3]!),
    });
  }
  return entries;
}
