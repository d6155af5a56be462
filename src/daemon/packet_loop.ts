/**
 * The packet thread's loop: input → decide → output, between a TAP and two UDP sockets, until it is told to stop. It blocks in
 * epoll_wait, wakes for a frame, a datagram or a word from the main thread, works off each source in turn within a budget, and
 * blocks again.
 *
 * When the kernel's sending queue is full, what was captured waits and the TAP is not read: its queue fills, and the kernel
 * slows the senders down. Receiving goes on meanwhile.
 */
import { drainEventFd, ERRNO, pathMtu, Readiness } from "../../ffi/packet_calls.ts";
import { Counters, DROP, TOTAL } from "../datapath/counters.ts";
import { Fdb } from "../datapath/fdb.ts";
import { Forwarder } from "../datapath/forward.ts";
import { Mover, MOVER_SCRATCH_OCTETS } from "../datapath/mover.ts";
import { CLASS_DF, CLASS_PLAIN, PacketBuilder } from "../datapath/packet_builder.ts";
import { ReplayWindows } from "../datapath/replay.ts";
import { RingReader, RingWriter } from "../datapath/ring.ts";
import { PEERS, SLOT_HAS_ADDRESS, SLOT_OUTBOUND, SLOTS, type TableListener, Tables } from "../datapath/tables.ts";
import { TooBigFrames } from "../datapath/too_big.ts";
import { PacketMemory, ReceiveBatch, SendBatch, type SendListener, TapIo } from "../host/packet_io.ts";
import { BoxIo } from "../host/packet_boxes.ts";
import { Glue } from "../overlay/glue.ts";
import { HEADER_LIMIT, SuperFrame } from "../overlay/segment.ts";
import {
  COMMAND_FORGET_PEER,
  COMMAND_SPECIAL,
  EVENT_SPECIAL,
  EVENT_TOO_BIG,
  type StartMessage,
} from "./packet_messages.ts";

const KIB = 1024;
const RECEIVE_BUFFERS = 16;
const ARENA_OCTETS = 256 * KIB;
const CAPTURE_OCTETS = 512 * KIB;
/** Before each captured frame: room for the header of a frame, and the virtio header at an offset that aligns the IP header. */
const CAPTURE_HEADROOM = 34;
/** What a super-frame may need of arena and messages: below this, the builder is flushed before the TAP is read. */
const SUPER_FRAME_ARENA = 128 * KIB;
/** Frames read from the TAP, and octets, before another source has its turn. */
const CAPTURE_BUDGET_FRAMES = 128;
const CAPTURE_BUDGET_OCTETS = 256 * KIB;
/** A frame this long is sent at once, while it is in the cache. */
const FLUSH_OCTETS = 8 * KIB;
/** Frames up to this are copied by the builder, and their memory is free again. */
const COPIED_OCTETS = 600;
/** Turns of every source before the kernel is asked again which are ready. */
const ROUNDS = 4;
const TICK_MS = 1000;
/** Slots of the fdb looked at per tick: the whole table within a minute. */
const SWEEP_SLOTS = 1024;
/** How long captured frames wait for a queue that does not move, and how often it is tried meanwhile. */
const BLOCKED_LIMIT_MS = 200;
const BLOCKED_RETRY_MS = 20;
const TOO_BIG_INTERVAL_MS = 10;
/** Messages of the carrier that the main thread is told of, per connection and second: a peer sends a handful. */
const SPECIALS_PER_TICK = 64;
const NOT_BLOCKED = -1;

const MEMORY_OCTETS = ReceiveBatch.octets(RECEIVE_BUFFERS) + 2 * SendBatch.octets + 2 * ARENA_OCTETS +
  CAPTURE_OCTETS + MOVER_SCRATCH_OCTETS + BoxIo.octets(SLOTS) + 64 * KIB;

export class PacketLoop {
  readonly secretBox: string;
  readonly #o: StartMessage;
  readonly #wakeMain: () => void;
  readonly #memory: PacketMemory;
  readonly #tables: Tables;
  readonly #fdb: Fdb;
  readonly #counters: Counters;
  readonly #commands: RingReader;
  readonly #events: RingWriter;
  readonly #boxes: BoxIo;
  readonly #tap: TapIo;
  readonly #receiveBatch: ReceiveBatch;
  readonly #capturedBatch: SendBatch;
  readonly #captured: PacketBuilder;
  readonly #relayed: PacketBuilder;
  readonly #forwarder: Forwarder;
  readonly #glue: Glue;
  readonly #mover: Mover;
  readonly #captureAt: number;
  #captureNext: number;
  readonly #replay = new ReplayWindows(SLOTS);
  readonly #sequences = new Float64Array(SLOTS * 2);
  readonly #tooBigToldMs = new Float64Array(SLOTS).fill(-Infinity);
  readonly #specialsTold = new Uint8Array(SLOTS);
  readonly #readiness = new Readiness();
  readonly #listener: TableListener;
  #nowMs = 0;
  #tickMs = 0;
  /** Since when captured frames wait for the queue; 0 when none do. */
  #blockedSinceMs = 0;
  #watchedClass = NOT_BLOCKED;

  private constructor(o: StartMessage, wakeMain: () => void, memory: PacketMemory, boxes: BoxIo) {
    this.#o = o;
    this.#wakeMain = wakeMain;
    this.#memory = memory;
    this.#boxes = boxes;
    const frames = memory.frames;
    this.#tables = new Tables(o.shared.tables);
    this.#fdb = new Fdb(o.shared.fdb, PEERS);
    this.#counters = new Counters(o.shared.counters);
    this.#commands = new RingReader(o.shared.commands);
    this.#events = new RingWriter(o.shared.events);
    this.secretBox = boxes.implementation;
    this.#tap = new TapIo(o.tapFd, memory);
    this.#receiveBatch = new ReceiveBatch(memory, RECEIVE_BUFFERS);
    this.#capturedBatch = this.#makeBatch(true);
    this.#captured = this.#makeBuilder(this.#capturedBatch);
    this.#relayed = this.#makeBuilder(this.#makeBatch(false));
    this.#captureAt = memory.take(CAPTURE_OCTETS);
    this.#captureNext = this.#captureAt;
    this.#forwarder = new Forwarder(this.#tables, this.#fdb, this.#counters);
    this.#glue = new Glue(frames, { write: (...piece) => this.#writeTap(...piece) }, { udp: o.tapUdpSegments });
    this.#mover = new Mover({
      memory: frames,
      tables: this.#tables,
      counters: this.#counters,
      forwarder: this.#forwarder,
      captured: this.#captured,
      relayed: this.#relayed,
      segments: new SuperFrame(frames, memory.take(HEADER_LIMIT)),
      glue: this.#glue,
      opener: boxes,
      replay: this.#replay,
      listener: { special: (...special) => this.#tellSpecial(...special) },
      tooBig: new TooBigFrames(frames),
      scratchAt: memory.take(MOVER_SCRATCH_OCTETS),
    });
    this.#listener = {
      connectionReplaced: (slot) => this.#replaceConnection(slot),
      connectionChanged: (slot) => {
        const outbound = (this.#tables.slotFlags[slot]! & SLOT_OUTBOUND) !== 0;
        boxes.setKey(slot, this.#tables.slotKey, outbound);
      },
      peerReplaced: (index) => this.#fdb.forgetPeer(index),
    };
    for (const fd of [o.tapFd, o.dfFd, o.plainFd, o.wakeFd]) this.#readiness.add(fd);
  }

  /** @param wakeMain makes the main thread look into the event ring */
  static async open(o: StartMessage, wakeMain: () => void): Promise<PacketLoop> {
    const memory = new PacketMemory(MEMORY_OCTETS);
    return new PacketLoop(o, wakeMain, memory, await BoxIo.open(memory, SLOTS, o.webAssemblyBoxes));
  }

  /** Moves frames until the tables say stop. */
  run(): void {
    const { tapFd, dfFd, plainFd, wakeFd } = this.#o;
    for (;;) {
      const waiting = this.#blockedSinceMs !== 0;
      const count = this.#readiness.wait(waiting ? BLOCKED_RETRY_MS : TICK_MS);
      this.#nowMs = performance.now();
      if (this.#tables.stopRequested) return;
      this.#counters.add(TOTAL.wakeUps, 1);
      this.#tables.refresh(this.#listener);
      this.#mover.begin();
      let tap = false, df = false, plain = false;
      for (let i = 0; i < count; i++) {
        const fd = this.#readiness.fd(i);
        if (fd === tapFd) tap = true;
        else if (fd === dfFd) df = true;
        else if (fd === plainFd) plain = true;
        else if (fd === wakeFd) this.#drainWake();
      }
      if (waiting) this.#resume();
      for (let round = 0; round < ROUNDS && (tap || df || plain); round++) {
        if (tap) tap = this.#blockedSinceMs === 0 && this.#capture();
        if (df) df = this.#receive(dfFd);
        if (plain) plain = this.#receive(plainFd);
      }
      if (this.#nowMs - this.#tickMs >= TICK_MS) this.#tick();
    }
  }

  // ── Sources ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Reads the TAP until it is empty or the budget is spent; false when it is empty or must wait. */
  #capture(): boolean {
    let octets = 0;
    for (let i = 0; i < CAPTURE_BUDGET_FRAMES && octets < CAPTURE_BUDGET_OCTETS; i++) {
      if (!this.#hasCaptureRoom() && !this.#flushCaptured()) return false;
      const virtio = this.#captureNext + CAPTURE_HEADROOM;
      const got = this.#tap.read(virtio);
      if (got <= 0) {
        if (got !== -ERRNO.EAGAIN) throw new Error(`Cannot read TAP: ${got === 0 ? "it is gone" : `errno ${-got}`}`);
        this.#flushCaptured();
        return false;
      }
      octets += got;
      this.#mover.capture(virtio, got);
      if (got >= FLUSH_OCTETS) {
        if (!this.#flushCaptured()) return false;
      } else if (got > COPIED_OCTETS) this.#captureNext += (got + CAPTURE_HEADROOM + 63) & ~63;
    }
    return this.#flushCaptured();
  }

  #hasCaptureRoom(): boolean {
    return this.#captureNext + CAPTURE_HEADROOM + TapIo.frameOctets <= this.#captureAt + CAPTURE_OCTETS &&
      this.#captured.room >= SUPER_FRAME_ARENA && this.#capturedBatch.room >= SendBatch.messages / 2;
  }

  /** Sends what was captured; when the queue is full, stops reading the TAP and returns false. */
  #flushCaptured(): boolean {
    if (this.#captured.flush()) {
      this.#captureNext = this.#captureAt;
      return true;
    }
    if (this.#blockedSinceMs === 0) this.#blockedSinceMs = this.#nowMs;
    this.#watch(this.#capturedBatch.blockedClass);
    return false;
  }

  /** Tries again to send what waits; after too long, drops it. */
  #resume(): void {
    if (!this.#flushCaptured()) {
      if (this.#nowMs - this.#blockedSinceMs < BLOCKED_LIMIT_MS) return;
      this.#capturedBatch.discard();
      this.#flushCaptured();
    }
    this.#blockedSinceMs = 0;
    this.#watch(NOT_BLOCKED);
  }

  /** Waits for room in the socket of the class that has none, and not for the TAP meanwhile; or for the TAP again. */
  #watch(blockedClass: number): void {
    if (blockedClass === this.#watchedClass) return;
    this.#watchedClass = blockedClass;
    const { tapFd, dfFd, plainFd } = this.#o;
    this.#readiness.change(tapFd, blockedClass === NOT_BLOCKED, false);
    this.#readiness.change(dfFd, true, blockedClass === CLASS_DF);
    this.#readiness.change(plainFd, true, blockedClass === CLASS_PLAIN);
  }

  /** Receives one batch from a socket; false when there is no more. */
  #receive(fd: number): boolean {
    const batch = this.#receiveBatch;
    const count = batch.receive(fd);
    if (count <= 0) return false;
    this.#counters.add(TOTAL.receiveCalls, 1);
    const mover = this.#mover;
    mover.begin();
    for (let i = 0; i < count; i++) {
      const end = batch.at(i) + batch.octets(i);
      const segment = batch.segmentOctets(i);
      const address = batch.address(i), port = batch.port(i);
      let at = batch.at(i);
      do {
        mover.datagram(at, Math.min(segment, end - at), address, port);
        at += segment;
      } while (at < end);
    }
    this.#glue.flush();
    this.#relayed.flush();
    return count === RECEIVE_BUFFERS;
  }

  #writeTap(pieces: Int32Array, first: number, count: number, segments: number): void {
    const result = this.#tap.write(pieces, first, count);
    if (result < 0) return this.#counters.drop(DROP.tapError);
    this.#counters.add(TOTAL.injectedFrames, 1);
    this.#counters.add(TOTAL.injectedOctets, result - 12);
    if (segments > 1) this.#counters.add(TOTAL.gluedSegments, segments);
  }

  // ── The main thread ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  #drainWake(): void {
    drainEventFd(this.#o.wakeFd);
    const { words } = this.#commands;
    for (let at = this.#commands.peek(); at >= 0; at = this.#commands.peek()) {
      // What the command is about may have been published since this wake-up began.
      this.#tables.refresh(this.#listener);
      const slot = words[at + 1]!;
      if (words[at] === COMMAND_FORGET_PEER) this.#fdb.forgetPeer(slot);
      else if (words[at] === COMMAND_SPECIAL && this.#tables.slotGeneration[slot] === words[at + 2]) {
        if ((this.#tables.slotFlags[slot]! & SLOT_HAS_ADDRESS) === 0) this.#counters.drop(DROP.noAddress);
        else {
          const packetClass = words[at + 4] !== 0 ? CLASS_DF : CLASS_PLAIN;
          this.#relayed.addSpecial(slot, packetClass, words[at + 3]!, words[at + 5]!, words[at + 6]!);
        }
      }
      this.#commands.release();
    }
    this.#relayed.flush();
    this.#mover.begin();
  }

  #tellSpecial(slot: number, frame: number, length: number, address: number, port: number): void {
    const m = this.#memory.frames;
    if (this.#specialsTold[slot]! >= SPECIALS_PER_TICK) return this.#counters.drop(DROP.eventLost);
    const at = this.#events.reserve();
    if (at < 0) return this.#counters.drop(DROP.eventLost);
    this.#specialsTold[slot] = this.#specialsTold[slot]! + 1;
    const { words } = this.#events;
    words[at] = EVENT_SPECIAL;
    words[at + 1] = slot;
    words[at + 2] = this.#tables.slotGeneration[slot]!;
    words[at + 3] = length;
    words[at + 4] = address;
    words[at + 5] = port;
    words[at + 6] = length >= 22 ? m.get32(frame + 14) : 0;
    words[at + 7] = length >= 22 ? m.get32(frame + 18) : 0;
    this.#commitEvent();
  }

  /** The kernel found packets above the path MTU: drops them, and tells what the kernel knows of the path. */
  #tooBig(slot: number, datagrams: number): void {
    for (let i = 0; i < datagrams; i++) this.#counters.drop(DROP.txTooBig);
    if (this.#nowMs - this.#tooBigToldMs[slot]! < TOO_BIG_INTERVAL_MS) return;
    this.#tooBigToldMs[slot] = this.#nowMs;
    const mtu = pathMtu(this.#tables.slotAddress[slot]!, this.#tables.slotPort[slot]!);
    if (mtu === undefined) return;
    const at = this.#events.reserve();
    if (at < 0) return this.#counters.drop(DROP.eventLost);
    const { words } = this.#events;
    words[at] = EVENT_TOO_BIG;
    words[at + 1] = slot;
    words[at + 2] = this.#tables.slotGeneration[slot]!;
    words[at + 3] = mtu;
    this.#commitEvent();
  }

  #commitEvent(): void {
    this.#events.commit();
    if (this.#events.wakeNeeded()) this.#wakeMain();
  }

  #replaceConnection(slot: number): void {
    this.#sequences[slot * 2] = 0;
    this.#sequences[slot * 2 + 1] = 0;
    this.#tooBigToldMs[slot] = -Infinity;
    this.#replay.reset(slot);
    this.#counters.resetSlot(slot);
  }

  /** Once a second: the clock of the fdb, and a part of its ageing. */
  #tick(): void {
    this.#tickMs = this.#nowMs;
    this.#specialsTold.fill(0);
    const nowS = Math.floor(this.#nowMs / 1000);
    this.#forwarder.nowS = nowS;
    this.#fdb.setClock(nowS);
    this.#fdb.sweep(nowS, SWEEP_SLOTS);
  }

  // ── Construction ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #makeBatch(hold: boolean): SendBatch {
    const drop = (reason: number) => (_slot: number, datagrams: number) => {
      for (let i = 0; i < datagrams; i++) this.#counters.drop(reason);
    };
    const listener: SendListener = {
      tooBig: (slot, datagrams) => this.#tooBig(slot, datagrams),
      failed: drop(DROP.txError),
      queueFull: drop(DROP.queueFull),
      gsoRefused: () => this.#counters.add(TOTAL.gsoRefused, 1),
      called: () => this.#counters.add(TOTAL.sendCalls, 1),
    };
    return new SendBatch({
      memory: this.#memory,
      destinations: this.#tables,
      listener,
      hold,
      fds: [this.#o.plainFd, this.#o.dfFd],
      slots: SLOTS,
    });
  }

  #makeBuilder(sink: SendBatch): PacketBuilder {
    return new PacketBuilder({
      memory: this.#memory.frames,
      tables: this.#tables,
      sink,
      sealer: this.#boxes,
      counters: this.#counters,
      sequences: this.#sequences,
      arenaAt: this.#memory.take(ARENA_OCTETS),
      arenaOctets: ARENA_OCTETS,
      ourName: this.#o.ourName,
    });
  }
}
