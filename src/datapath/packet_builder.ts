/**
 * Sleeve packets on their way out: frames become packets in one stretch of memory (the arena), sealed where the connection has a
 * key, and are handed to a sink that sends many at once.
 *
 *     in clear:   name 6 | frames                          a large frame stays where it is, as a second piece
 *     encrypted:  name 6 | class and sequence 8 | box      the box goes from where the frame is into the arena: the copy is the sealing
 *     frames:     { source 6 | destination 6 | length 2 | frame }…
 *
 * Small frames that follow each other to one connection share a packet, up to the path's payload; large ones have their own. Packets of
 * one connection and class keep their order.
 */
import { type Counters, DROP } from "./counters.ts";
import { SLOT_ENCRYPTED, SLOTS, type Tables } from "./tables.ts";
import type { FrameMemory } from "../lib/frame_memory.ts";
import type { SuperFrame } from "../overlay/segment.ts";

/** Class of a packet: whether the kernel may fragment it. */
export const CLASS_PLAIN = 0;
export const CLASS_DF = 1;

/** Where datagrams go: begun, given in pieces, sent by `flush()`. */
export interface DatagramSink {
  /**
   * Begins a datagram; its pieces follow. False when there is no room before a flush.
   * @param runs it may be sent in one go with others of its size (it fits the path)
   */
  begin(slot: number, packetClass: number, octets: number, runs: boolean): boolean;
  /** The memory must stay as it is until `flush()` has sent it. */
  piece(at: number, octets: number): void;
  /** Sends what was begun. False when the kernel's queue is full and something is left, for another `flush()`. */
  flush(): boolean;
}

export interface Sealer {
  /**
   * Makes the box of a packet: 16 octets of authenticator and the ciphertext, from 14 octets into the packet on.
   * @param packet with its name and u64 written, the latter being the nonce's end
   * @param text may be where the ciphertext goes, but may not overlap it otherwise
   */
  seal(slot: number, packet: number, text: number, octets: number): void;
}

const NAME = 6;
const SEALED_HEADER = 30;
const FRAME_HEADER = 14;
/** Frames up to this share packets. Two of these fit an ordinary path. */
const SMALL_FRAME = 640;
const FRAMES_PER_PACKET = 100;
/** Aggregates are no longer than this even where the path seems to allow it: before it is known, every path does. */
const AGGREGATE_OCTETS = 4096;
const UNKNOWN_PATH_OCTETS = 1400;
const UDP_PAYLOAD_LIMIT = 65507;
/** Room for the longest header of a segment with a frame's header before it. */
const ASIDE_OCTETS = 256;

export class PacketBuilder {
  readonly #m: FrameMemory;
  readonly #tables: Tables;
  readonly #sink: DatagramSink;
  readonly #sealer: Sealer;
  readonly #counters: Counters;
  readonly #sequences: Float64Array;
  readonly #arenaAt: number;
  readonly #arenaEnd: number;
  /** Holds what a header overwrote. */
  readonly #asideAt: number;
  readonly #nameHigh: number;
  readonly #nameLow: number;
  #arenaNext: number;
  /** Packets still taking frames, by slot * 2 + class. */
  readonly #openAt = new Int32Array(SLOTS * 2).fill(-1);
  readonly #openEnd = new Int32Array(SLOTS * 2);
  readonly #openLimit = new Int32Array(SLOTS * 2);
  readonly #openFrames = new Int32Array(SLOTS * 2);
  readonly #openKeys = new Int32Array(SLOTS * 2);
  #openCount = 0;
  #blocked = false;

  /**
   * @param o.sequences next sequence number by slot * 2 + class; shared between builders of one thread
   * @param o.arenaOctets at least 128 KiB: a whole super-frame's packets
   */
  constructor(
    o: {
      memory: FrameMemory;
      tables: Tables;
      sink: DatagramSink;
      sealer: Sealer;
      counters: Counters;
      sequences: Float64Array;
      arenaAt: number;
      arenaOctets: number;
      ourName: number;
    },
  ) {
    this.#m = o.memory;
    this.#tables = o.tables;
    this.#sink = o.sink;
    this.#sealer = o.sealer;
    this.#counters = o.counters;
    this.#sequences = o.sequences;
    this.#arenaAt = o.arenaAt;
    this.#arenaEnd = o.arenaAt + o.arenaOctets - ASIDE_OCTETS;
    this.#asideAt = this.#arenaEnd;
    this.#arenaNext = o.arenaAt;
    this.#nameHigh = Math.floor(o.ourName / 0x1_0000_0000);
    this.#nameLow = o.ourName % 0x1_0000_0000;
  }

  /** Whether the kernel's queue is full: what is added meanwhile may be dropped. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** Octets that can still be added before a flush. */
  get room(): number {
    return this.#arenaEnd - this.#arenaNext;
  }

  /**
   * Adds a frame. Its memory must stay until the flush; the 14 octets before it are overwritten.
   * @param source, destination indices of peers
   */
  add(slot: number, packetClass: number, source: number, destination: number, frame: number, length: number): void {
    if (length <= SMALL_FRAME) {
      const at = this.#place(slot, packetClass, source, destination, length);
      if (at >= 0) this.#m.copy(at, frame, length);
      return;
    }
    const encrypted = this.#isEncrypted(slot);
    const octets = (encrypted ? SEALED_HEADER : NAME) + FRAME_HEADER + length;
    const limit = packetClass === CLASS_DF ? this.#tables.slotMaxPayload[slot]! : UDP_PAYLOAD_LIMIT;
    if (octets > limit) return this.#counters.drop(DROP.oversized);
    this.#closeOpen(slot * 2 + packetClass);
    const packet = this.#take(encrypted ? octets : NAME + FRAME_HEADER);
    if (packet < 0 || !this.#begin(slot, packetClass, octets)) return this.#counters.drop(DROP.queueFull);
    if (encrypted) {
      this.#writeFrameHeader(frame - FRAME_HEADER, source, destination, length);
      this.#seal(slot, packetClass, packet, frame - FRAME_HEADER, FRAME_HEADER + length);
      this.#sink.piece(packet, octets);
    } else {
      this.#writeName(packet);
      this.#writeFrameHeader(packet + NAME, source, destination, length);
      this.#sink.piece(packet, NAME + FRAME_HEADER);
      this.#sink.piece(frame, length);
    }
  }

  /**
   * Adds every segment of a super-frame, each as a frame of its own. When sealing, each segment's header is written over the end of the
   * payload before it, which is sealed by then: the text is in one piece without a copy.
   * @param keep the super-frame is needed once more: puts back what was overwritten
   */
  addSegments(
    slot: number,
    packetClass: number,
    source: number,
    destination: number,
    segments: SuperFrame,
    keep: boolean,
  ): void {
    const frameOctets = segments.frameOctets;
    const encrypted = this.#isEncrypted(slot);
    const limit = packetClass === CLASS_DF ? this.#tables.slotMaxPayload[slot]! : UDP_PAYLOAD_LIMIT;
    if ((encrypted ? SEALED_HEADER : NAME) + FRAME_HEADER + frameOctets > limit) {
      for (let i = 0; i < segments.count; i++) this.#counters.drop(DROP.oversized);
    } else if (frameOctets <= SMALL_FRAME) this.#addSmallSegments(slot, packetClass, source, destination, segments);
    else if (encrypted) this.#sealSegments(slot, packetClass, source, destination, segments, keep);
    else this.#pieceSegments(slot, packetClass, source, destination, segments);
  }

  #addSmallSegments(
    slot: number,
    packetClass: number,
    source: number,
    destination: number,
    segments: SuperFrame,
  ): void {
    for (let i = 0; i < segments.count; i++) {
      const payload = segments.payloadOctets(i);
      const at = this.#place(slot, packetClass, source, destination, segments.headerOctets + payload);
      if (at < 0) continue;
      segments.writeHeader(i, at);
      this.#m.copy(at + segments.headerOctets, segments.payloadAt + i * segments.segmentOctets, payload);
    }
  }

  #pieceSegments(slot: number, packetClass: number, source: number, destination: number, segments: SuperFrame): void {
    this.#closeOpen(slot * 2 + packetClass);
    const headers = NAME + FRAME_HEADER + segments.headerOctets;
    for (let i = 0; i < segments.count; i++) {
      const payload = segments.payloadOctets(i);
      const packet = this.#take(headers);
      if (packet < 0 || !this.#begin(slot, packetClass, headers + payload)) {
        this.#counters.drop(DROP.queueFull);
        continue;
      }
      this.#writeName(packet);
      this.#writeFrameHeader(packet + NAME, source, destination, segments.headerOctets + payload);
      segments.writeHeader(i, packet + NAME + FRAME_HEADER);
      this.#sink.piece(packet, headers);
      this.#sink.piece(segments.payloadAt + i * segments.segmentOctets, payload);
    }
  }

  #sealSegments(
    slot: number,
    packetClass: number,
    source: number,
    destination: number,
    segments: SuperFrame,
    keep: boolean,
  ): void {
    this.#closeOpen(slot * 2 + packetClass);
    const headers = FRAME_HEADER + segments.headerOctets;
    for (let i = 0; i < segments.count; i++) {
      const payload = segments.payloadOctets(i);
      const octets = SEALED_HEADER + headers + payload;
      const packet = this.#take(octets);
      if (packet < 0 || !this.#begin(slot, packetClass, octets)) {
        this.#counters.drop(DROP.queueFull);
        continue;
      }
      const text = segments.payloadAt + i * segments.segmentOctets - headers;
      if (keep) this.#m.copy(this.#asideAt, text, headers);
      this.#writeFrameHeader(text, source, destination, segments.headerOctets + payload);
      segments.writeHeader(i, text + FRAME_HEADER);
      this.#seal(slot, packetClass, packet, text, headers + payload);
      this.#sink.piece(packet, octets);
      if (keep) this.#m.copy(text, this.#asideAt, headers);
    }
  }

  /**
   * Adds a message of the carrier: a frame of zeros, with `uid` after its header where it is a heartbeat's. It is sent by itself: a run
   * that the kernel refuses for the size of a probe would be lost whole.
   */
  addSpecial(slot: number, packetClass: number, length: number, uidHigh: number, uidLow: number): void {
    const m = this.#m;
    const encrypted = this.#isEncrypted(slot);
    const header = encrypted ? SEALED_HEADER : NAME;
    const octets = header + FRAME_HEADER + length;
    if (octets > UDP_PAYLOAD_LIMIT) return this.#counters.drop(DROP.oversized);
    this.#closeOpen(slot * 2 + packetClass);
    const packet = this.#take(octets);
    if (packet < 0 || !this.#begin(slot, packetClass, octets, false)) return this.#counters.drop(DROP.queueFull);
    const text = packet + header;
    const peer = this.#tables;
    writeName(m, text, this.#nameHigh, this.#nameLow);
    writeName(m, text + 6, peer.slotNameHigh[slot]!, peer.slotNameLow[slot]!);
    m.set16(text + 12, length);
    m.u8.fill(0, text + FRAME_HEADER, text + FRAME_HEADER + length);
    if (length === 22) {
      m.set32(text + FRAME_HEADER + 14, uidHigh);
      m.set32(text + FRAME_HEADER + 18, uidLow);
    }
    if (encrypted) this.#seal(slot, packetClass, packet, text, FRAME_HEADER + length);
    else this.#writeName(packet);
    this.#sink.piece(packet, octets);
  }

  /** Sends everything. False when the kernel took only a part: then nothing more fits before a `flush()` that returns true. */
  flush(): boolean {
    for (let i = 0; i < this.#openCount; i++) this.#close(this.#openKeys[i]!);
    this.#openCount = 0;
    this.#blocked = !this.#sink.flush();
    if (!this.#blocked) this.#arenaNext = this.#arenaAt;
    return !this.#blocked;
  }

  /** A place for a frame of `length` in a packet shared with others, its header written; -1 (counted) when there is none. */
  #place(slot: number, packetClass: number, source: number, destination: number, length: number): number {
    const key = slot * 2 + packetClass;
    const need = FRAME_HEADER + length;
    if (
      this.#openAt[key]! >= 0 &&
      (this.#openEnd[key]! + need > this.#openLimit[key]! || this.#openFrames[key]! >= FRAMES_PER_PACKET)
    ) this.#closeOpen(key);
    if (this.#openAt[key]! < 0 && !this.#open(slot, key, need)) return -1;
    const at = this.#openEnd[key]!;
    this.#openEnd[key] = at + need;
    this.#openFrames[key] = this.#openFrames[key]! + 1;
    this.#writeFrameHeader(at, source, destination, length);
    return at + FRAME_HEADER;
  }

  #open(slot: number, key: number, need: number): boolean {
    const path = this.#tables.slotMaxPayload[slot]!;
    const header = this.#isEncrypted(slot) ? SEALED_HEADER : NAME;
    const usual = path >= UDP_PAYLOAD_LIMIT ? UNKNOWN_PATH_OCTETS : Math.min(path, AGGREGATE_OCTETS);
    const octets = Math.max(usual, header + need);
    const packet = this.#take(octets);
    if (packet < 0) {
      this.#counters.drop(DROP.queueFull);
      return false;
    }
    this.#openAt[key] = packet;
    this.#openEnd[key] = packet + header;
    this.#openLimit[key] = packet + octets;
    this.#openFrames[key] = 0;
    this.#openKeys[this.#openCount++] = key;
    return true;
  }

  #closeOpen(key: number): void {
    if (this.#openAt[key]! < 0) return;
    this.#close(key);
    for (let i = 0; i < this.#openCount; i++) {
      if (this.#openKeys[i] !== key) continue;
      this.#openKeys[i] = this.#openKeys[--this.#openCount]!;
      return;
    }
  }

  /** Seals a shared packet and hands it on. */
  #close(key: number): void {
    const slot = key >>> 1;
    const packetClass = key & 1;
    const packet = this.#openAt[key]!;
    const end = this.#openEnd[key]!;
    this.#openAt[key] = -1;
    // What it reserved and did not use is free again if it was the last to reserve.
    if (this.#openLimit[key] === this.#arenaNext) this.#arenaNext = end;
    if (!this.#begin(slot, packetClass, end - packet)) {
      for (let i = this.#openFrames[key]!; i > 0; i--) this.#counters.drop(DROP.queueFull);
      return;
    }
    if (this.#isEncrypted(slot)) {
      const text = packet + SEALED_HEADER;
      this.#seal(slot, packetClass, packet, text, end - text);
    } else this.#writeName(packet);
    this.#sink.piece(packet, end - packet);
  }

  /** Reserves arena memory, sending what is in it when it is full; -1 when that does not help. */
  #take(octets: number): number {
    if (this.#arenaNext + octets > this.#arenaEnd && (this.#blocked || !this.flush())) return -1;
    const at = this.#arenaNext;
    if (at + octets > this.#arenaEnd) return -1;
    this.#arenaNext = at + octets;
    return at;
  }

  /** @param runs it need not be sent by itself if it fits the path */
  #begin(slot: number, packetClass: number, octets: number, runs = true): boolean {
    runs &&= octets <= this.#tables.slotMaxPayload[slot]!;
    if (!this.#sink.begin(slot, packetClass, octets, runs)) {
      // Only what was begun is sent: shared packets that are open keep their memory.
      if (this.#blocked || !this.#sink.flush()) {
        this.#blocked = true;
        return false;
      }
      if (!this.#sink.begin(slot, packetClass, octets, runs)) return false;
    }
    this.#counters.sent(slot, 1, octets);
    return true;
  }

  #isEncrypted(slot: number): boolean {
    return (this.#tables.slotFlags[slot]! & SLOT_ENCRYPTED) !== 0;
  }

  #writeName(packet: number): void {
    writeName(this.#m, packet, this.#nameHigh, this.#nameLow);
  }

  #writeFrameHeader(at: number, source: number, destination: number, length: number): void {
    const m = this.#m;
    const tables = this.#tables;
    writeName(m, at, tables.peerHigh[source]!, tables.peerLow[source]!);
    writeName(m, at + 6, tables.peerHigh[destination]!, tables.peerLow[destination]!);
    m.set16(at + 12, length);
  }

  #seal(slot: number, packetClass: number, packet: number, text: number, octets: number): void {
    const m = this.#m;
    const key = slot * 2 + packetClass;
    const sequence = this.#sequences[key]!;
    this.#sequences[key] = sequence + 1;
    this.#writeName(packet);
    m.set32(packet + 6, (Math.floor(sequence / 0x1_0000_0000) | packetClass << 31) >>> 0);
    m.set32(packet + 10, sequence >>> 0);
    this.#sealer.seal(slot, packet, text, octets);
  }
}

function writeName(m: FrameMemory, at: number, high: number, low: number): void {
  m.set16(at, high);
  m.set32(at + 2, low);
}
