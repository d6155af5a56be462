/**
 * What to do with a frame: decided by table look-up, nothing else. The packet thread asks, and carries it out.
 *
 * Frames carry the names of the peer that captured them and of the peer they are for, so that a router in between needs no
 * MAC. The rules are those of Weave Net 2.8.
 */
import { type Counters, DROP, TOTAL } from "./counters.ts";
import { ELSEWHERE, type Fdb, FULL, KNOWN, MOVED } from "./fdb.ts";
import { BITSET_WORDS, SLOT_HAS_ADDRESS, SLOT_STACK_FRAGMENTS, type Tables } from "./tables.ts";
import type { FrameMemory } from "../lib/frame_memory.ts";

/** Decisions. What goes with them is in the fields of the `Forwarder`. */
/** Discard; `reason` says why. */
export const DISCARD = 0;
/** Send to `slot`, as from `sourcePeer` to `destinationPeer`. */
export const SEND = 1;
/** Send to each slot in `sourcePeer`'s broadcast set, as from `sourcePeer` to the peer at the other end. */
export const FLOOD = 2;
/** Write to the TAP. */
export const INJECT = 3;
/** Write to the TAP, and send on as for FLOOD, but not where it came from. */
export const INJECT_AND_FLOOD = 4;
/** A message of the carrier itself from the connection's peer. */
export const SPECIAL = 5;

const ETHERNET_HEADER = 14;
/** Source and destination peer, and a length, stand before a frame in a packet. */
const FRAME_HEADER = 14;
const ETHERTYPE_IPV4 = 0x0800;

export class Forwarder {
  reason = 0;
  slot = -1;
  sourcePeer = -1;
  destinationPeer = -1;
  /** Seconds of a clock that only moves forward, for ageing. */
  nowS = 0;

  readonly #tables: Tables;
  readonly #fdb: Fdb;
  readonly #counters: Counters;

  constructor(tables: Tables, fdb: Fdb, counters: Counters) {
    this.#tables = tables;
    this.#fdb = fdb;
    this.#counters = counters;
  }

  /** Decides on a frame that the TAP gave us. */
  captured(m: FrameMemory, at: number, length: number): number {
    if (length < ETHERNET_HEADER || isSpecial(m, at)) return this.#discard(DROP.malformedFrame);
    const tables = this.#tables;
    const us = tables.ourPeer;
    if (us < 0) return this.#discard(DROP.unknownSourcePeer);
    const toHigh = m.get16(at), toLow = m.get32(at + 2);
    if (toHigh === 0x0180 && toLow === 0xc200_0000) return this.#discard(DROP.spanningTree);
    if (this.#learn(m, at, us, false) === ELSEWHERE) return this.#discard(DROP.macElsewhere);
    this.sourcePeer = us;
    const peer = (toHigh & 0x0100) !== 0 ? -1 : this.#fdb.lookup(toHigh, toLow);
    if (peer < 0) return FLOOD;
    if (peer === us) return this.#discard(DROP.macHere);
    this.destinationPeer = peer;
    this.slot = tables.peerRoute[peer]!;
    return this.slot < 0 ? this.#discard(DROP.noRoute) : SEND;
  }

  /**
   * Decides on a frame out of a packet of the connection in `slot`.
   * @param at of the frame's 14 octets of header: two names and the length, which the caller has checked
   */
  received(m: FrameMemory, at: number, slot: number): number {
    const tables = this.#tables;
    const frame = at + FRAME_HEADER;
    const length = m.get16(at + 12);
    if (length < ETHERNET_HEADER) return this.#discard(DROP.malformedFrame);
    const sourceHigh = m.get16(at), sourceLow = m.get32(at + 2);
    const us = tables.ourPeer;
    const forUs = us >= 0 && m.get32(at + 8) === tables.peerLow[us] && m.get16(at + 6) === tables.peerHigh[us];
    if (isSpecial(m, frame)) {
      const honoured = forUs && sourceHigh === tables.slotNameHigh[slot] && sourceLow === tables.slotNameLow[slot];
      return honoured ? SPECIAL : this.#discard(DROP.foreignSpecial);
    }
    const source = tables.peerOf(sourceHigh, sourceLow);
    if (source < 0) return this.#discard(DROP.unknownSourcePeer);
    if (source === us) return this.#discard(DROP.ownFrame);
    this.sourcePeer = source;
    return forUs ? this.#receivedForUs(m, frame, source, slot) : this.#receivedForAnother(m, at, slot);
  }

  #receivedForUs(m: FrameMemory, frame: number, source: number, slot: number): number {
    this.#learn(m, frame, source, true);
    const us = this.#tables.ourPeer;
    this.destinationPeer = us;
    const toHigh = m.get16(frame);
    if ((toHigh & 0x0100) === 0 && this.#fdb.lookup(toHigh, m.get32(frame + 2)) === us) return INJECT;
    return this.#hasBroadcastHops(source, slot) ? INJECT_AND_FLOOD : INJECT;
  }

  #receivedForAnother(m: FrameMemory, at: number, slot: number): number {
    const peer = this.#tables.peerOf(m.get16(at + 6), m.get32(at + 8));
    if (peer < 0) return this.#discard(DROP.unknownDestinationPeer);
    this.destinationPeer = peer;
    this.slot = this.#tables.peerRoute[peer]!;
    // Back where it came from is a loop: routers that do not agree on the way yet.
    return this.slot < 0 || this.slot === slot ? this.#discard(DROP.noRoute) : SEND;
  }

  /** Whether a frame that this peer broadcasts goes on to any connection but the one it came from. */
  #hasBroadcastHops(peer: number, slot: number): boolean {
    const bits = this.#tables.peerBroadcast;
    const first = peer * BITSET_WORDS;
    for (let i = 0; i < BITSET_WORDS; i++) {
      const except = i === slot >>> 5 ? 1 << (slot & 31) : 0;
      if ((bits[first + i]! & ~except) !== 0) return true;
    }
    return false;
  }

  /** Learns where a frame's sender is. A group address is nobody's. */
  #learn(m: FrameMemory, frame: number, peer: number, force: boolean): number {
    const high = m.get16(frame + 6);
    if ((high & 0x0100) !== 0) return KNOWN;
    const learned = this.#fdb.learn(high, m.get32(frame + 8), peer, this.nowS, force);
    if (learned === MOVED) this.#counters.add(TOTAL.fdbMoves, 1);
    else if (learned === FULL) this.#counters.add(TOTAL.fdbFull, 1);
    return learned;
  }

  #discard(reason: number): number {
    this.reason = reason;
    this.#counters.drop(reason);
    return DISCARD;
  }
}

/** Whether the Ethernet header is all zero: no frame of the network, but a message of the carrier. */
export function isSpecial(m: FrameMemory, frame: number): boolean {
  return m.get32(frame) === 0 && m.get32(frame + 4) === 0 && m.get32(frame + 8) === 0 && m.get16(frame + 12) === 0;
}

/** How a frame travels on one connection. */
/** In the class of packets the kernel may fragment. */
export const CARRY_PLAIN = 0;
/** In the class of packets that must not be fragmented. */
export const CARRY_DF = 1;
/** Cut into IPv4 fragments first; these in the DF class. */
export const CARRY_FRAGMENTS = 2;
/** Not at all; the sender is told the MTU by ICMP. */
export const TELL_TOO_BIG = 3;
export const CARRY_NOT_TOO_BIG = 4;
export const CARRY_NOT_NO_ADDRESS = 5;

/**
 * Chooses how a frame travels.
 * @param length of the frame, or of the longest segment of a super-frame
 * @param broadcast it goes to several peers: none of them answers for its size
 */
export function carriage(
  m: FrameMemory,
  frame: number,
  length: number,
  tables: Tables,
  slot: number,
  broadcast: boolean,
): number {
  const flags = tables.slotFlags[slot]!;
  if ((flags & SLOT_HAS_ADDRESS) === 0) return CARRY_NOT_NO_ADDRESS;
  if (length < ETHERNET_HEADER + 20 || m.get16(frame + 12) !== ETHERTYPE_IPV4) return CARRY_PLAIN;
  const tooBig = length > tables.slotMtu[slot]! + ETHERNET_HEADER;
  if ((m.u8[frame + ETHERNET_HEADER + 6]! & 0x40) !== 0) {
    if (!tooBig) return CARRY_DF;
    return broadcast ? CARRY_NOT_TOO_BIG : TELL_TOO_BIG;
  }
  if ((flags & SLOT_STACK_FRAGMENTS) !== 0) return CARRY_PLAIN;
  return tooBig ? CARRY_FRAGMENTS : CARRY_DF;
}
