/**
 * The data plane of a router in memory: everything between the TAP and the sockets is the real thing, the kernel's side is lists. It uses
 * memory as the packet thread does: what must stay until a flush stays, and everything else is overwritten.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import {
  Counters,
  countersOctets,
  DROP,
  DROP_REASONS,
  type DropReason,
  TOTAL,
  type Total,
} from "../src/datapath/counters.ts";
import { Fdb, FDB_OCTETS } from "../src/datapath/fdb.ts";
import { Forwarder } from "../src/datapath/forward.ts";
import { Mover, MOVER_SCRATCH_OCTETS } from "../src/datapath/mover.ts";
import { type DatagramSink, PacketBuilder } from "../src/datapath/packet_builder.ts";
import { ReplayWindows } from "../src/datapath/replay.ts";
import {
  type ConnectionEntry,
  type PeerRoutes,
  PEERS,
  SLOT_ENCRYPTED,
  SLOT_OUTBOUND,
  SLOTS,
  Tables,
  TABLES_OCTETS,
  TableWriter,
} from "../src/datapath/tables.ts";
import { TooBigFrames } from "../src/datapath/too_big.ts";
import { BoxIo } from "../src/host/packet_boxes.ts";
import { PacketMemory } from "../src/host/packet_io.ts";
import type { FrameMemory } from "../src/lib/frame_memory.ts";
import type { PeerName } from "../src/lib/mac.ts";
import { Glue } from "../src/overlay/glue.ts";
import { HEADER_LIMIT, SuperFrame } from "../src/overlay/segment.ts";

/** A datagram as it would leave. */
export interface SentPacket {
  readonly slot: number;
  readonly df: boolean;
  readonly octets: Uint8Array;
}

/** A message of the carrier that the main thread would be told of. */
export interface SpecialFrame {
  readonly slot: number;
  readonly octets: Uint8Array;
}

/** What is not said of a connection is as on an ordinary path. */
export type Neighbour = Pick<ConnectionEntry, "peer"> & Partial<ConnectionEntry>;

export interface PacketRouterOptions {
  readonly name: PeerName;
  /** By slot. */
  readonly connections: readonly Neighbour[];
  readonly routes: readonly PeerRoutes[];
  readonly webAssembly?: boolean;
}

const KIB = 1024;
const ARENA_OCTETS = 256 * KIB;
const CAPTURE_OCTETS = 512 * KIB;
const CAPTURE_HEADROOM = 34;
const TAP_FRAME_OCTETS = 70_000;
const RECEIVE_OCTETS = 1024 * KIB;
const VIRTIO_OCTETS = 12;
/** For whoever lays out frames by hand. */
const SPARE_OCTETS = 128 * KIB;
/** What memory that nobody may rely on holds. */
const JUNK = 0xee;
const UNTOUCHED = Buffer.alloc(128 * KIB, JUNK);
const SENDER = { address: 0x0a00_0001, port: 6783 };

export class PacketRouter {
  readonly memory: PacketMemory;
  tables!: Tables;
  counters!: Counters;
  builder!: PacketBuilder;
  /** Next sequence numbers by slot * 2 + class. */
  readonly sequences = new Float64Array(SLOTS * 2);
  readonly specials: SpecialFrame[] = [];
  /** What the kernel's queue would say. */
  queueIsFull = false;
  /** Frames written to the TAP, with their virtio headers. */
  readonly written: Uint8Array[] = [];
  readonly #sent: SentPacket[] = [];
  readonly #boxes: BoxIo;
  readonly #arenaAt: number;
  readonly #captureAt: number;
  readonly #receiveAt: number;
  readonly #templateAt: number;
  readonly #scratchAt: number;
  #writer!: TableWriter;
  #mover!: Mover;
  #glue!: Glue;
  #captureNext = 0;
  #name!: PeerName;

  private constructor(memory: PacketMemory, boxes: BoxIo) {
    this.memory = memory;
    this.#boxes = boxes;
    this.#arenaAt = memory.take(ARENA_OCTETS);
    this.#captureAt = memory.take(CAPTURE_OCTETS);
    this.#receiveAt = memory.take(RECEIVE_OCTETS) + 2;
    this.#templateAt = memory.take(HEADER_LIMIT);
    this.#scratchAt = memory.take(MOVER_SCRATCH_OCTETS);
  }

  static async open(o: PacketRouterOptions): Promise<PacketRouter> {
    const octets = ARENA_OCTETS + CAPTURE_OCTETS + RECEIVE_OCTETS + MOVER_SCRATCH_OCTETS + BoxIo.octets(SLOTS) +
      SPARE_OCTETS;
    const memory = new PacketMemory(octets);
    const boxes = await BoxIo.open(memory, SLOTS, o.webAssembly ?? false);
    memory.frames.u8.fill(JUNK, memory.take(0));
    const router = new PacketRouter(memory, boxes);
    router.restart(o);
    return router;
  }

  /** Becomes a router that has just started; memory and the library of boxes are used again. */
  restart(o: Omit<PacketRouterOptions, "webAssembly">): void {
    const m = this.memory.frames;
    this.#name = o.name;
    this.#captureNext = this.#captureAt;
    this.queueIsFull = false;
    this.sequences.fill(0);
    for (const list of [this.specials, this.written, this.#sent]) list.length = 0;
    const shared = new ArrayBuffer(TABLES_OCTETS);
    this.#writer = new TableWriter(shared);
    const tables = this.tables = new Tables(shared);
    const counters = this.counters = new Counters(new ArrayBuffer(countersOctets(SLOTS)));
    this.builder = new PacketBuilder({
      memory: m,
      tables,
      sink: new ListSink(m, this.#sent, () => this.queueIsFull),
      sealer: this.#boxes,
      counters,
      sequences: this.sequences,
      arenaAt: this.#arenaAt,
      arenaOctets: ARENA_OCTETS,
      ourName: o.name,
    });
    this.#glue = new Glue(m, { write: (pieces, first, count) => this.#write(pieces, first, count) }, { udp: true });
    this.#mover = new Mover({
      memory: m,
      tables,
      counters,
      forwarder: new Forwarder(tables, new Fdb(new ArrayBuffer(FDB_OCTETS), PEERS), counters),
      captured: this.builder,
      relayed: this.builder,
      segments: new SuperFrame(m, this.#templateAt),
      glue: this.#glue,
      opener: this.#boxes,
      replay: new ReplayWindows(SLOTS),
      listener: {
        special: (slot, frame, length) => void this.specials.push({ slot, octets: m.u8.slice(frame, frame + length) }),
      },
      tooBig: new TooBigFrames(m),
      scratchAt: this.#scratchAt,
    });
    o.connections.forEach((neighbour, slot) => this.connect(slot, neighbour));
    this.route(o.routes);
  }

  connect(slot: number, neighbour: Neighbour): void {
    this.#writer.publishConnection(slot, {
      generation: 1,
      outbound: true,
      confirmed: true,
      established: true,
      remote: { address: 0x0a00_0002, port: 6783 },
      mtu: neighbour.key ? 1414 : 1438,
      maxPayload: 1472,
      stackFragments: true,
      ...neighbour,
    });
    this.#refresh();
  }

  route(routes: readonly PeerRoutes[]): void {
    this.#writer.publishRoutes(this.#name, routes);
    this.#refresh();
  }

  /** Takes a frame from the TAP. */
  capture(frame: Uint8Array, virtio: Uint8Array = new Uint8Array(VIRTIO_OCTETS)): void {
    const { u8 } = this.memory.frames;
    const end = this.#captureAt + CAPTURE_OCTETS;
    if (this.#captureNext + CAPTURE_HEADROOM + TAP_FRAME_OCTETS > end) {
      this.builder.flush(); // what the full queue does not take is dropped, or not right
      u8.fill(JUNK, this.#captureAt, this.#captureNext);
      this.#captureNext = this.#captureAt;
    }
    const at = this.#captureNext + CAPTURE_HEADROOM;
    u8.set(virtio, at);
    u8.set(frame, at + VIRTIO_OCTETS);
    this.#mover.capture(at, VIRTIO_OCTETS + frame.length);
    // Only the header of a frame in a packet may be written before it, and nothing behind it.
    this.#checkUntouched(this.#captureNext, at - 2);
    this.#checkUntouched(at + VIRTIO_OCTETS + frame.length, this.#receiveAt + RECEIVE_OCTETS - 2);
    this.#captureNext = (at + VIRTIO_OCTETS + frame.length + 63) & ~63;
  }

  /** Takes datagrams from a socket, side by side as the kernel leaves them. */
  receive(...packets: readonly Uint8Array[]): void {
    const { u8 } = this.memory.frames;
    this.#mover.begin();
    let at = this.#receiveAt;
    for (const packet of packets) {
      assert.ok(at + packet.length <= this.#receiveAt + RECEIVE_OCTETS - 2, "too many packets for one batch");
      u8.set(packet, at);
      this.#mover.datagram(at, packet.length, SENDER.address, SENDER.port);
      at += packet.length;
    }
    this.#glue.flush();
    this.builder.flush();
    this.#checkUntouched(at, this.#receiveAt + RECEIVE_OCTETS - 2);
    u8.fill(JUNK, this.#receiveAt, at);
  }

  /** A packet of ours with any text at all, sealed where the connection is: what a router that means ill could send. */
  packetOf(slot: number, df: boolean, text: Uint8Array): Uint8Array {
    const m = this.memory.frames;
    const at = this.#receiveAt;
    m.set16(at, Math.floor(this.#name / 0x1_0000_0000));
    m.set32(at + 2, this.#name % 0x1_0000_0000);
    if ((this.tables.slotFlags[slot]! & SLOT_ENCRYPTED) === 0) {
      m.u8.set(text, at + 6);
      return this.#takeAway(at, 6 + text.length);
    }
    const key = slot * 2 + (df ? 1 : 0);
    m.set32(at + 6, df ? 0x8000_0000 : 0);
    m.set32(at + 10, this.sequences[key]!);
    this.sequences[key] = this.sequences[key]! + 1;
    m.u8.set(text, at + 30);
    this.#boxes.seal(slot, at, at + 30, text.length);
    return this.#takeAway(at, 30 + text.length);
  }

  /** The text of a packet of a neighbour's: its frames, in clear. Throws where it does not open. */
  textOf(slot: number, packet: Uint8Array): Uint8Array {
    if ((this.tables.slotFlags[slot]! & SLOT_ENCRYPTED) === 0) return packet.subarray(6);
    const at = this.#receiveAt;
    this.memory.frames.u8.set(packet, at);
    assert.ok(this.#boxes.open(slot, at, packet.length));
    return this.#takeAway(at, packet.length).subarray(30);
  }

  /** What has left since the last call. */
  takeSent(): SentPacket[] {
    if (this.builder.flush()) {
      this.memory.frames.u8.fill(JUNK, this.#captureAt, this.#captureNext);
      this.#captureNext = this.#captureAt;
    }
    return this.#sent.splice(0);
  }

  /** What has left, without taking it. */
  peekSent(): readonly SentPacket[] {
    this.builder.flush();
    return this.#sent;
  }

  /** What was written to the TAP since the last call, without virtio headers. */
  takeInjected(): Uint8Array[] {
    return this.written.splice(0).map((frame) => frame.subarray(VIRTIO_OCTETS));
  }

  peer(name: PeerName): number {
    return this.tables.peerOf(Math.floor(name / 0x1_0000_0000), name % 0x1_0000_0000);
  }

  drops(): Partial<Record<DropReason, number>> {
    const counts = DROP_REASONS.map((reason) => [reason, this.counters.cells[DROP[reason]]!] as const);
    return Object.fromEntries(counts.filter(([, count]) => count > 0));
  }

  total(name: Total): number {
    return this.counters.cells[TOTAL[name]]!;
  }

  #takeAway(at: number, octets: number): Uint8Array {
    const { u8 } = this.memory.frames;
    const taken = u8.slice(at, at + octets);
    u8.fill(JUNK, at, at + octets);
    return taken;
  }

  /** A part of what must hold nothing but junk is looked at: the nearest, and as far as an offset of 16 bits and one more reach. */
  #checkUntouched(from: number, to: number): void {
    const length = Math.min(to - from, UNTOUCHED.length);
    if (length <= 0) return;
    const seen = Buffer.from(this.memory.frames.buffer, from, length);
    if (!seen.equals(UNTOUCHED.subarray(0, length))) assert.fail(`memory at ${from} was written outside of a frame`);
  }

  #refresh(): void {
    this.tables.refresh({
      connectionReplaced() {},
      connectionChanged: (slot) => {
        this.#boxes.setKey(slot, this.tables.slotKey, (this.tables.slotFlags[slot]! & SLOT_OUTBOUND) !== 0);
      },
      peerReplaced() {},
    });
    this.#mover.begin();
  }

  #write(pieces: Int32Array, first: number, count: number): void {
    this.written.push(gather(this.memory.frames, pieces, first, count));
  }
}

/** Collects datagrams; checks that their pieces are memory of ours, and as long as was said. */
class ListSink implements DatagramSink {
  readonly #begun: { slot: number; df: boolean; octets: number; pieces: number[] }[] = [];

  constructor(readonly m: FrameMemory, readonly sent: SentPacket[], readonly isFull: () => boolean) {}

  begin(slot: number, packetClass: number, octets: number): boolean {
    if (this.#begun.length >= 500) return false;
    this.#begun.push({ slot, df: packetClass === 1, octets, pieces: [] });
    return true;
  }

  piece(at: number, octets: number): void {
    this.#begun.at(-1)!.pieces.push(at, octets);
  }

  flush(): boolean {
    if (this.isFull()) return false;
    for (const { slot, df, octets, pieces } of this.#begun.splice(0)) {
      const whole = gather(this.m, pieces, 0, pieces.length / 2);
      assert.equal(whole.length, octets);
      assert.ok(octets <= 65507, `a datagram of ${octets} octets`);
      this.sent.push({ slot, df, octets: whole });
    }
    return true;
  }
}

function gather(m: FrameMemory, pieces: ArrayLike<number>, first: number, count: number): Uint8Array {
  let octets = 0;
  for (let i = first; i < first + count * 2; i += 2) {
    const at = pieces[i]!, length = pieces[i + 1]!;
    assert.ok(length > 0 && at >= 0 && at + length <= m.u8.length, `piece at ${at} of ${length}`);
    octets += length;
  }
  const whole = new Uint8Array(octets);
  for (let i = first, to = 0; i < first + count * 2; i += 2) {
    const at = pieces[i]!, length = pieces[i + 1]!;
    whole.set(m.u8.subarray(at, at + length), to);
    to += length;
  }
  return whole;
}
