/**
 * Moves frames: takes what the TAP and the sockets gave, has it decided, and hands it on. It follows one frame from where it
 * came in to where it goes out; memory, system calls and keys are others' business.
 *
 *     capture()   TAP → decide → cut, send to one peer or all
 *     datagram()  socket → open, replay → each frame: decide → glue and inject, relay, flood, tell the main thread
 */
import { type Counters, DROP, TOTAL } from "./counters.ts";
import {
  carriage,
  CARRY_DF,
  CARRY_FRAGMENTS,
  CARRY_NOT_NO_ADDRESS,
  CARRY_NOT_TOO_BIG,
  CARRY_PLAIN,
  DISCARD,
  FLOOD,
  type Forwarder,
  INJECT,
  INJECT_AND_FLOOD,
  SEND,
  SPECIAL,
} from "./forward.ts";
import { CLASS_DF, CLASS_PLAIN, type PacketBuilder } from "./packet_builder.ts";
import type { ReplayWindows } from "./replay.ts";
import { BITSET_WORDS, SLOT_ENCRYPTED, type Tables } from "./tables.ts";
import type { TooBigFrames } from "./too_big.ts";
import type { FrameMemory } from "../lib/frame_memory.ts";
import type { Glue } from "../overlay/glue.ts";
import type { SuperFrame } from "../overlay/segment.ts";

export interface Opener {
  /** Opens the box of a packet in its place; the text begins 30 octets into the packet. False where it is none of ours. */
  open(slot: number, packet: number, octets: number): boolean;
}

/** Told of what the main thread must know. */
export interface SpecialListener {
  /** A message of the carrier came, whose frame of `length` octets is at `frame`, from this address. */
  special(slot: number, frame: number, length: number, address: number, port: number): void;
}

const NAME = 6;
const SEALED_HEADER = 30;
const FRAME_HEADER = 14;
const ETHERNET_HEADER = 14;
/** Above this, a frame's memory is sent from where it lies, see PacketBuilder. */
const COPIED_FRAME = 640;
const TAP_MTU = 65521;
/** What decides on a received frame: names, MACs and type. */
const KEY_OCTETS = FRAME_HEADER + ETHERNET_HEADER;
/** virtio_net_hdr. */
const GSO_TYPE = 1;
const NEEDS_CHECKSUM = 1;
const NO_SLOT = -1;

const SCRATCH_HEADROOM = 64;
const SCRATCH_OCTETS = 65536;
/** Scratch memory a Mover needs. */
export const MOVER_SCRATCH_OCTETS = SCRATCH_HEADROOM + 2 * SCRATCH_OCTETS + 4096;

export interface MoverParts {
  readonly memory: FrameMemory;
  readonly tables: Tables;
  readonly counters: Counters;
  readonly forwarder: Forwarder;
  /** For what was captured: held back while the kernel's queue is full. */
  readonly captured: PacketBuilder;
  /** For everything else: dropped while the kernel's queue is full. */
  readonly relayed: PacketBuilder;
  readonly segments: SuperFrame;
  readonly glue: Glue;
  readonly opener: Opener;
  readonly replay: Pick<ReplayWindows, "isNew">;
  readonly listener: SpecialListener;
  readonly tooBig: TooBigFrames;
  /** MOVER_SCRATCH_OCTETS of memory for frames made here. */
  readonly scratchAt: number;
}

export class Mover {
  readonly #m: FrameMemory;
  readonly #tables: Tables;
  readonly #counters: Counters;
  readonly #forwarder: Forwarder;
  readonly #captured: PacketBuilder;
  readonly #relayed: PacketBuilder;
  readonly #segments: SuperFrame;
  readonly #glue: Glue;
  readonly #opener: Opener;
  readonly #replay: Pick<ReplayWindows, "isNew">;
  readonly #listener: SpecialListener;
  readonly #tooBig: TooBigFrames;
  readonly #scratchAt: number;
  readonly #keyAt: number;
  /** The last received frame's decision, while it holds for the next one like it. */
  #keySlot = -1;
  #keyDecision = DISCARD;
  #keyRoute = -1;
  #nameHigh = -1;
  #nameLow = -1;
  #nameSlot = -1;

  constructor(parts: MoverParts) {
    this.#m = parts.memory;
    this.#tables = parts.tables;
    this.#counters = parts.counters;
    this.#forwarder = parts.forwarder;
    this.#captured = parts.captured;
    this.#relayed = parts.relayed;
    this.#segments = parts.segments;
    this.#glue = parts.glue;
    this.#opener = parts.opener;
    this.#replay = parts.replay;
    this.#listener = parts.listener;
    this.#tooBig = parts.tooBig;
    this.#scratchAt = parts.scratchAt + SCRATCH_HEADROOM;
    this.#keyAt = parts.scratchAt;
  }

  /** To be called when tables may have changed, and before each batch of datagrams: decisions are taken anew. */
  begin(): void {
    this.#keySlot = -1;
    this.#nameHigh = -1;
  }

  // ── From the TAP ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Takes what the TAP gave: a virtio header and a frame, with at least 2 octets of memory before them that may be overwritten. All of it
   * must stay until the builder was flushed.
   */
  capture(virtio: number, octets: number): void {
    const frame = virtio + 12;
    const length = octets - 12;
    this.#counters.add(TOTAL.capturedFrames, 1);
    this.#counters.add(TOTAL.capturedOctets, length);
    const decision = this.#forwarder.captured(this.#m, frame, length);
    if (decision === DISCARD) return;
    const isSuper = this.#m.u8[virtio + GSO_TYPE] !== 0;
    if (isSuper) {
      if (!this.#segments.open(virtio, frame, length)) return this.#counters.drop(DROP.malformedFrame);
    } else if ((this.#m.u8[virtio]! & NEEDS_CHECKSUM) !== 0 && !this.#segments.complete(virtio, frame, length)) {
      return this.#counters.drop(DROP.malformedFrame);
    }
    const forwarder = this.#forwarder;
    if (decision === SEND) {
      this.#send(this.#captured, forwarder.slot, forwarder.destinationPeer, frame, length, isSuper, false, false);
    } else this.#flood(this.#captured, forwarder.sourcePeer, frame, length, isSuper, NO_SLOT);
  }

  /** Sends to every connection in the source's broadcast set. @param except the connection it came from */
  #flood(
    builder: PacketBuilder,
    source: number,
    frame: number,
    length: number,
    isSuper: boolean,
    except: number,
  ): void {
    const tables = this.#tables;
    this.#counters.add(TOTAL.floodedFrames, 1);
    for (let word = 0; word < BITSET_WORDS; word++) {
      let bits = tables.peerBroadcast[source * BITSET_WORDS + word]!;
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits);
        bits = (bits & ~(1 << bit)) >>> 0;
        const slot = word * 32 + bit;
        if (slot === except) continue;
        const peer = tables.peerOf(tables.slotNameHigh[slot]!, tables.slotNameLow[slot]!);
        if (peer < 0) this.#counters.drop(DROP.unknownDestinationPeer);
        else this.#send(builder, slot, peer, frame, length, isSuper, true, true);
      }
    }
  }

  /** Sends a frame from the forwarder's source peer, the way its size and the path ask for. */
  #send(
    builder: PacketBuilder,
    slot: number,
    peer: number,
    frame: number,
    length: number,
    isSuper: boolean,
    broadcast: boolean,
    keep: boolean,
  ): void {
    const source = this.#forwarder.sourcePeer;
    const frameOctets = isSuper ? this.#segments.frameOctets : length;
    const how = carriage(this.#m, frame, frameOctets, this.#tables, slot, broadcast);
    if (how === CARRY_DF || how === CARRY_PLAIN) {
      const packetClass = how === CARRY_DF ? CLASS_DF : CLASS_PLAIN;
      if (isSuper) builder.addSegments(slot, packetClass, source, peer, this.#segments, keep);
      else builder.add(slot, packetClass, source, peer, frame, length);
    } else if (how === CARRY_NOT_NO_ADDRESS) this.#counters.drop(DROP.noAddress);
    else if (how === CARRY_NOT_TOO_BIG) this.#counters.drop(DROP.broadcastTooBig);
    else if (how === CARRY_FRAGMENTS) {
      if (isSuper) this.#fragmentSegments(builder, slot, peer);
      else this.#fragment(builder, slot, peer, frame, length);
    } else this.#tellTooBig(slot, peer, frame, frameOctets);
  }

  #fragmentSegments(builder: PacketBuilder, slot: number, peer: number): void {
    const segments = this.#segments;
    const at = this.#scratchAt + SCRATCH_OCTETS;
    for (let i = 0; i < segments.count; i++) {
      const payload = segments.payloadOctets(i);
      segments.writeHeader(i, at);
      this.#m.copy(at + segments.headerOctets, segments.payloadAt + i * segments.segmentOctets, payload);
      this.#fragment(builder, slot, peer, at, segments.headerOctets + payload);
    }
  }

  #fragment(builder: PacketBuilder, slot: number, peer: number, frame: number, length: number): void {
    const mtu = this.#tables.slotMtu[slot]!;
    const step = this.#tooBig.fragmentOctets(frame, length, mtu);
    this.#counters.add(TOTAL.fragmentedFrames, 1);
    if (step <= 0) return this.#counters.drop(DROP.malformedFrame);
    for (let offset = 0;; offset += step) {
      const octets = this.#tooBig.writeFragment(this.#scratchAt, frame, length, mtu, offset);
      if (octets === 0 && offset === 0) this.#counters.drop(DROP.malformedFrame);
      if (octets === 0) return;
      builder.add(slot, CLASS_DF, this.#forwarder.sourcePeer, peer, this.#scratchAt, octets);
      // The scratch memory is used again: what is not copied must be gone.
      if (octets > COPIED_FRAME && !builder.flush()) return this.#counters.drop(DROP.queueFull);
    }
  }

  /** Answers a frame's sender with an ICMP message as if its receiver had sent it, be the sender here or elsewhere. */
  #tellTooBig(slot: number, peer: number, frame: number, length: number): void {
    const tables = this.#tables;
    this.#counters.drop(DROP.tooBig);
    if ((this.#m.u8[frame]! & 1) !== 0) return;
    const octets = this.#tooBig.writeTooBig(this.#scratchAt, frame, length, tables.slotMtu[slot]!);
    if (octets === 0) return;
    this.#counters.add(TOTAL.icmpSent, 1);
    const source = this.#forwarder.sourcePeer;
    if (source === tables.ourPeer) return this.#inject(this.#scratchAt, octets);
    const back = tables.peerRoute[source]!;
    if (back < 0) return this.#counters.drop(DROP.noRoute);
    const how = carriage(this.#m, this.#scratchAt, octets, tables, back, false);
    if (how !== CARRY_DF && how !== CARRY_PLAIN) return this.#counters.drop(DROP.tooBig);
    this.#relayed.add(back, how === CARRY_DF ? CLASS_DF : CLASS_PLAIN, peer, source, this.#scratchAt, octets);
  }

  // ── From the sockets ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Takes a datagram from this address. Its memory must stay until glue and builder were flushed. */
  datagram(packet: number, octets: number, address: number, port: number): void {
    const m = this.#m;
    const tables = this.#tables;
    if (octets < NAME) return this.#counters.drop(DROP.shortPacket);
    const high = m.get16(packet), low = m.get32(packet + 2);
    if (high !== this.#nameHigh || low !== this.#nameLow) {
      this.#nameHigh = high;
      this.#nameLow = low;
      this.#nameSlot = tables.slotOf(high, low);
    }
    const slot = this.#nameSlot;
    if (slot < 0) return this.#counters.drop(DROP.unknownSender);
    let at = packet + NAME;
    if ((tables.slotFlags[slot]! & SLOT_ENCRYPTED) !== 0) {
      if (octets < SEALED_HEADER) return this.#counters.drop(DROP.shortPacket);
      if (!this.#opener.open(slot, packet, octets)) return this.#counters.drop(DROP.undecryptable);
      if (!this.#replay.isNew(slot, m.get32(packet + 6), m.get32(packet + 10))) {
        return this.#counters.drop(DROP.replayed);
      }
      at = packet + SEALED_HEADER;
    }
    this.#counters.received(slot, octets);
    const end = packet + octets;
    while (at + FRAME_HEADER <= end) {
      const next = at + FRAME_HEADER + m.get16(at + 12);
      if (next > end) break;
      this.#receive(at, next - at - FRAME_HEADER, slot, address, port);
      at = next;
    }
    if (at !== end) this.#counters.drop(DROP.malformedPacket);
  }

  #receive(at: number, length: number, slot: number, address: number, port: number): void {
    const frame = at + FRAME_HEADER;
    if (slot === this.#keySlot && length >= ETHERNET_HEADER && this.#hasKey(at)) {
      if (this.#keyDecision === INJECT) this.#inject(frame, length);
      else this.#relay(this.#keyRoute, frame, length);
      return;
    }
    const forwarder = this.#forwarder;
    const decision = forwarder.received(this.#m, at, slot);
    if (decision === INJECT || decision === SEND) {
      this.#m.copy(this.#keyAt, at, KEY_OCTETS);
      this.#keySlot = slot;
      this.#keyDecision = decision;
      this.#keyRoute = forwarder.slot;
    } else if (decision !== SPECIAL) this.#keySlot = -1;
    if (decision === INJECT) this.#inject(frame, length);
    else if (decision === SEND) this.#relay(forwarder.slot, frame, length);
    else if (decision === INJECT_AND_FLOOD || decision === FLOOD) this.#injectAndFlood(frame, length, slot);
    else if (decision === SPECIAL) this.#listener.special(slot, frame, length, address, port);
  }

  /** Whether a frame is between the same peers and the same addresses as the last one. The length may differ. */
  #hasKey(at: number): boolean {
    const m = this.#m;
    const key = this.#keyAt;
    return m.equal(at, key, 12) && m.equal(at + FRAME_HEADER, key + FRAME_HEADER, ETHERNET_HEADER);
  }

  /** The forwarder's peers are those of the frame: set by the decision, and left alone while decisions repeat. */
  #relay(slot: number, frame: number, length: number): void {
    this.#counters.add(TOTAL.relayedFrames, 1);
    const broadcast = (this.#m.u8[frame]! & 1) !== 0;
    this.#send(this.#relayed, slot, this.#forwarder.destinationPeer, frame, length, false, broadcast, false);
  }

  #injectAndFlood(frame: number, length: number, slot: number): void {
    this.#flood(this.#relayed, this.#forwarder.sourcePeer, frame, length, false, slot);
    // Gluing rewrites headers: what is sent from where it lies must be gone.
    if (length > COPIED_FRAME) this.#relayed.flush();
    this.#inject(frame, length);
  }

  #inject(frame: number, length: number): void {
    if (length > TAP_MTU + ETHERNET_HEADER) return this.#counters.drop(DROP.tapTooBig);
    this.#glue.add(frame, length);
  }
}
