/**
 * Frames and datagrams in and out of the packet thread's memory: one TAP and two UDP sockets, in batches, without garbage. It moves
 * octets and decides nothing.
 *
 * The memory is one slab; others name places in it by offset. Addresses go into the kernel's structs as two halves of 32
 * bits, so that no bigint is made on the way.
 */
import { FrameMemory } from "../lib/frame_memory.ts";
import { C, cmsghdr, iovec, mmsghdr, msghdr, sockaddr_in } from "../../ffi/layout.ts";
import { addressOf, ERRNO, readVector, receiveMessages, sendMessages, writeVector } from "../../ffi/packet_calls.ts";

/** What the hot path needs of the structs, as plain numbers. */
const IOVEC_OCTETS = iovec.octets;
const IOV_LENGTH = iovec.offset.iov_len;
const MMSGHDR_OCTETS = mmsghdr.octets;
const MSG = {
  name: msghdr.offset.msg_name,
  nameOctets: msghdr.offset.msg_namelen,
  iov: msghdr.offset.msg_iov,
  iovCount: msghdr.offset.msg_iovlen,
  control: msghdr.offset.msg_control,
  controlOctets: msghdr.offset.msg_controllen,
  received: mmsghdr.offset.msg_len,
};
/** A control message with one number: space for either of the two there are. */
const CMSG = {
  octets: cmsghdr.offset.cmsg_len,
  level: cmsghdr.offset.cmsg_level,
  type: cmsghdr.offset.cmsg_type,
  data: cmsghdr.octets,
  space: cmsghdr.octets + 8,
};
const SOCKADDR_IN_OCTETS = sockaddr_in.octets;
const NAME = { port: sockaddr_in.offset.sin_port, address: sockaddr_in.offset.sin_addr };
const { SOL_UDP, UDP_SEGMENT, UDP_GRO, AF_INET } = C;

const { EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, ENOBUFS } = ERRNO;

/** Memory of the packet thread, handed out once at the start. */
export class PacketMemory {
  readonly frames: FrameMemory;
  readonly #base: number;
  readonly #octets: number;
  #next = 0;

  constructor(octets: number) {
    this.frames = FrameMemory.allocate(octets);
    this.#base = Number(addressOf(this.frames.u8));
    this.#octets = octets;
  }

  /** Takes a stretch, its beginning a multiple of 64. Throws RangeError when there is none left. */
  take(octets: number): number {
    const at = this.#next;
    this.#next = Math.ceil((at + octets) / 64) * 64;
    if (this.#next > this.#octets) throw new RangeError(`Cannot take ${octets} octets of packet memory: too few left`);
    return at;
  }

  /** Address of an offset. Makes garbage: for what is set up once. */
  address(at: number): bigint {
    return BigInt(this.#base + at);
  }

  /** Writes the address of `of` at `at`, a multiple of 8. */
  writeAddress(at: number, of: number): void {
    const address = this.#base + of;
    const u32 = this.frames.u32;
    u32[at >>> 2] = address >>> 0;
    u32[(at >>> 2) + 1] = address / 0x1_0000_0000;
  }
}

// ── TAP ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The longest frame with its virtio header that a TAP gives or takes. */
const TAP_FRAME_OCTETS = 12 + 14 + 8 + 65535;
const TAP_PIECES = 130;

export class TapIo {
  readonly #fd: number;
  readonly #memory: PacketMemory;
  readonly #iovAt: number;
  readonly #iov: bigint;
  readonly #readIovAt: number;
  readonly #readIov: bigint;

  constructor(fd: number, memory: PacketMemory) {
    this.#fd = fd;
    this.#memory = memory;
    this.#iovAt = memory.take(TAP_PIECES * IOVEC_OCTETS);
    this.#iov = memory.address(this.#iovAt);
    this.#readIovAt = memory.take(IOVEC_OCTETS);
    this.#readIov = memory.address(this.#readIovAt);
    memory.frames.u32[(this.#readIovAt + IOV_LENGTH) >>> 2] = TAP_FRAME_OCTETS;
  }

  static readonly frameOctets = TAP_FRAME_OCTETS;

  /** Reads one frame with its virtio header to `at`, where `frameOctets` are free: its octets, or a negative errno. */
  read(at: number): number {
    this.#memory.writeAddress(this.#readIovAt, at);
    return readVector(this.#fd, this.#readIov, 1);
  }

  /** Writes one frame: `count` pieces by offset and length from `pieces[first]` on. Octets written, or a negative errno. */
  write(pieces: Int32Array, first: number, count: number): number {
    const u32 = this.#memory.frames.u32;
    let iov = this.#iovAt;
    for (let i = first; i < first + count * 2; i += 2) {
      this.#memory.writeAddress(iov, pieces[i]!);
      u32[(iov + IOV_LENGTH) >>> 2] = pieces[i + 1]!;
      iov += IOVEC_OCTETS;
    }
    return writeVector(this.#fd, this.#iov, count);
  }
}

// ── Receiving ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Datagrams the kernel glued (UDP_GRO) come in one buffer, whose size is the largest it makes. */
const RECEIVE_OCTETS = 65536;
/** Room before each buffer: the frame's IP header then lies at a multiple of 4 for one frame in a packet. */
const RECEIVE_SHIFT = 2;

/** One batch of received datagrams for either socket. */
export class ReceiveBatch {
  readonly #memory: PacketMemory;
  readonly #count: number;
  readonly #headersAt: number;
  readonly #headers: bigint;
  readonly #namesAt: number;
  readonly #controlsAt: number;
  readonly #buffersAt: number;

  constructor(memory: PacketMemory, buffers: number) {
    this.#memory = memory;
    this.#count = buffers;
    this.#headersAt = memory.take(buffers * MMSGHDR_OCTETS);
    this.#headers = memory.address(this.#headersAt);
    this.#namesAt = memory.take(buffers * SOCKADDR_IN_OCTETS);
    this.#controlsAt = memory.take(buffers * CMSG.space);
    const iovAt = memory.take(buffers * IOVEC_OCTETS);
    this.#buffersAt = memory.take(buffers * (RECEIVE_OCTETS + 64)) + RECEIVE_SHIFT;
    const u32 = memory.frames.u32;
    for (let i = 0; i < buffers; i++) {
      const header = this.#headersAt + i * MMSGHDR_OCTETS;
      const iov = iovAt + i * IOVEC_OCTETS;
      memory.writeAddress(header + MSG.name, this.#namesAt + i * SOCKADDR_IN_OCTETS);
      memory.writeAddress(header + MSG.iov, iov);
      u32[(header + MSG.iovCount) >>> 2] = 1;
      memory.writeAddress(header + MSG.control, this.#controlsAt + i * CMSG.space);
      memory.writeAddress(iov, this.at(i));
      u32[(iov + IOV_LENGTH) >>> 2] = RECEIVE_OCTETS;
    }
  }

  static octets(buffers: number): number {
    return buffers * (MMSGHDR_OCTETS + SOCKADDR_IN_OCTETS + CMSG.space + IOVEC_OCTETS + RECEIVE_OCTETS + 64) + 512;
  }

  /** Receives what is there: how many buffers were filled, or a negative errno. */
  receive(fd: number): number {
    const u32 = this.#memory.frames.u32;
    for (let i = 0; i < this.#count; i++) {
      const header = (this.#headersAt + i * MMSGHDR_OCTETS) >>> 2;
      u32[header + (MSG.nameOctets >>> 2)] = SOCKADDR_IN_OCTETS;
      u32[header + (MSG.controlOctets >>> 2)] = CMSG.space;
    }
    return receiveMessages(fd, this.#headers, this.#count);
  }

  /** Where buffer i is. */
  at(i: number): number {
    return this.#buffersAt + i * (RECEIVE_OCTETS + 64);
  }

  /** Octets in buffer i. */
  octets(i: number): number {
    return this.#memory.frames.u32[(this.#headersAt + i * MMSGHDR_OCTETS + MSG.received) >>> 2]!;
  }

  /** Octets of each datagram in buffer i but the last; the last may be shorter. */
  segmentOctets(i: number): number {
    const u32 = this.#memory.frames.u32;
    const header = (this.#headersAt + i * MMSGHDR_OCTETS) >>> 2;
    const octets = u32[header + (MSG.received >>> 2)]!;
    if (u32[header + (MSG.controlOctets >>> 2)]! < CMSG.data + 4) return octets;
    const control = (this.#controlsAt + i * CMSG.space) >>> 2;
    const isGro = u32[control + (CMSG.level >>> 2)] === SOL_UDP && u32[control + (CMSG.type >>> 2)] === UDP_GRO;
    const segment = u32[control + (CMSG.data >>> 2)]!;
    return isGro && segment > 0 ? segment : octets;
  }

  /** Source address of what is in buffer i, first octet most significant. */
  address(i: number): number {
    return this.#memory.frames.get32(this.#namesAt + i * SOCKADDR_IN_OCTETS + NAME.address);
  }

  port(i: number): number {
    return this.#memory.frames.get16(this.#namesAt + i * SOCKADDR_IN_OCTETS + NAME.port);
  }
}

// ── Sending ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Where connections live, as far as sending goes. */
export interface Destinations {
  readonly slotAddress: Uint32Array;
  readonly slotPort: Uint32Array;
}

/** What became of datagrams, told as it happens. */
export interface SendListener {
  /** The kernel says they are above the path MTU: dropped. */
  tooBig(slot: number, datagrams: number): void;
  /** The kernel refused them for good. */
  failed(slot: number, datagrams: number, errno: number): void;
  /** The queue was full, and they were dropped. */
  queueFull(slot: number, datagrams: number): void;
  /** A run was refused as such and is sent one by one. */
  gsoRefused(): void;
  called(): void;
}

const MESSAGES = 128;
const PIECES = 132;
/** The kernel's limits for one run. */
const RUN_DATAGRAMS = 64;
const RUN_OCTETS = 65507;
const NONE = -1;

/**
 * Datagrams to send, gathered so that a run of equal size to one connection (the last may be shorter) is one message with
 * UDP_SEGMENT: the kernel then does its work once for the run.
 */
export class SendBatch {
  readonly #memory: PacketMemory;
  readonly #destinations: Destinations;
  readonly #listener: SendListener;
  readonly #hold: boolean;
  /** Socket of each class. */
  readonly #fds: readonly [number, number];
  readonly #headersAt: number;
  readonly #headers: bigint[];
  readonly #namesAt: number;
  readonly #controlsAt: number;
  readonly #iovAt: number;
  readonly #slot = new Int32Array(MESSAGES);
  readonly #class = new Int32Array(MESSAGES);
  readonly #segment = new Int32Array(MESSAGES);
  readonly #datagrams = new Int32Array(MESSAGES);
  readonly #octets = new Int32Array(MESSAGES);
  readonly #pieces = new Int32Array(MESSAGES);
  /** Offset of the last piece of each message. */
  readonly #lastAt = new Int32Array(MESSAGES);
  /** Message that takes more of a connection's class, by slot * 2 + class. */
  readonly #running: Int32Array;
  #count = 0;
  #sent = 0;
  #current = 0;
  /** Where the last piece ended, to join what lies side by side. */
  #pieceEnd = NONE;
  #gso = true;

  /**
   * @param o.hold what the full queue refuses stays for another flush; otherwise it is dropped
   * @param o.fds socket of packets that may be fragmented, and of those that may not
   */
  constructor(
    o: {
      memory: PacketMemory;
      destinations: Destinations;
      listener: SendListener;
      hold: boolean;
      fds: readonly [number, number];
      slots: number;
    },
  ) {
    this.#memory = o.memory;
    this.#destinations = o.destinations;
    this.#listener = o.listener;
    this.#hold = o.hold;
    this.#fds = o.fds;
    this.#running = new Int32Array(o.slots * 2).fill(NONE);
    const memory = o.memory;
    this.#headersAt = memory.take((MESSAGES + 1) * MMSGHDR_OCTETS);
    this.#namesAt = memory.take(MESSAGES * SOCKADDR_IN_OCTETS);
    this.#controlsAt = memory.take(MESSAGES * CMSG.space);
    this.#iovAt = memory.take((MESSAGES + 1) * PIECES * IOVEC_OCTETS);
    this.#headers = Array.from(
      { length: MESSAGES + 1 },
      (_, i) => memory.address(this.#headersAt + i * MMSGHDR_OCTETS),
    );
    for (let i = 0; i <= MESSAGES; i++) this.#layOut(i);
  }

  static readonly octets = (MESSAGES + 1) * (MMSGHDR_OCTETS + PIECES * IOVEC_OCTETS) +
    MESSAGES * (SOCKADDR_IN_OCTETS + CMSG.space) + 512;

  static readonly messages = MESSAGES;

  /** Messages that can still be begun. */
  get room(): number {
    return MESSAGES - this.#count;
  }

  /** Class of the datagram that waits for room, after a `flush()` that returned false. */
  get blockedClass(): number {
    return this.#class[this.#sent]!;
  }

  begin(slot: number, packetClass: number, octets: number, runs: boolean): boolean {
    const key = slot * 2 + packetClass;
    const running = this.#running[key]!;
    this.#pieceEnd = NONE;
    if (
      running !== NONE && runs && octets <= this.#segment[running]! && this.#datagrams[running]! < RUN_DATAGRAMS &&
      this.#octets[running]! + octets <= RUN_OCTETS && this.#pieces[running]! + 2 <= PIECES
    ) {
      this.#datagrams[running] = this.#datagrams[running]! + 1;
      this.#octets[running] = this.#octets[running]! + octets;
      if (octets < this.#segment[running]!) this.#running[key] = NONE;
      this.#current = running;
      const last = (this.#iovAt + (running * PIECES + this.#pieces[running]! - 1) * IOVEC_OCTETS) >>> 2;
      this.#pieceEnd = this.#lastAt[running]! + this.#memory.frames.u32[last + 2]!;
      return true;
    }
    if (this.#count === MESSAGES) return false;
    const message = this.#count++;
    this.#slot[message] = slot;
    this.#class[message] = packetClass;
    this.#segment[message] = octets;
    this.#datagrams[message] = 1;
    this.#octets[message] = octets;
    this.#pieces[message] = 0;
    this.#running[key] = runs && this.#gso ? message : NONE;
    this.#current = message;
    return true;
  }

  piece(at: number, octets: number): void {
    const message = this.#current;
    const u32 = this.#memory.frames.u32;
    const count = this.#pieces[message]!;
    if (at === this.#pieceEnd) {
      const last = (this.#iovAt + (message * PIECES + count - 1) * IOVEC_OCTETS + IOV_LENGTH) >>> 2;
      u32[last] = u32[last]! + octets;
    } else {
      const iov = this.#iovAt + (message * PIECES + count) * IOVEC_OCTETS;
      this.#memory.writeAddress(iov, at);
      u32[(iov + IOV_LENGTH) >>> 2] = octets;
      this.#pieces[message] = count + 1;
      this.#lastAt[message] = at;
    }
    this.#pieceEnd = at + octets;
  }

  /** Sends what was begun; true when nothing is left. */
  flush(): boolean {
    this.#finishHeaders();
    while (this.#sent < this.#count) {
      const first = this.#sent;
      const packetClass = this.#class[first]!;
      let end = first + 1;
      while (end < this.#count && this.#class[end] === packetClass) end++;
      this.#listener.called();
      const result = sendMessages(this.#fds[packetClass]!, this.#headers[first]!, end - first);
      if (result > 0) this.#sent = first + result;
      else if (result === -EAGAIN || result === -ENOBUFS) {
        if (this.#hold) return false;
        this.#listener.queueFull(this.#slot[first]!, this.#datagrams[first]!);
        this.#sent++;
      } else if (result !== -EINTR) {
        this.#refused(first, -result);
        this.#sent++;
      }
    }
    this.#count = 0;
    this.#sent = 0;
    return true;
  }

  /** Drops what a full queue made wait. */
  discard(): void {
    for (; this.#sent < this.#count; this.#sent++) {
      this.#listener.queueFull(this.#slot[this.#sent]!, this.#datagrams[this.#sent]!);
    }
  }

  /** Completes the headers of messages that were not tried yet, and ends their runs. */
  #finishHeaders(): void {
    const m = this.#memory.frames;
    for (let i = this.#sent; i < this.#count; i++) {
      const slot = this.#slot[i]!;
      this.#running[slot * 2 + this.#class[i]!] = NONE;
      const header = (this.#headersAt + i * MMSGHDR_OCTETS) >>> 2;
      const name = this.#namesAt + i * SOCKADDR_IN_OCTETS;
      m.set32(name + NAME.address, this.#destinations.slotAddress[slot]!);
      m.set16(name + NAME.port, this.#destinations.slotPort[slot]!);
      m.u32[header + (MSG.iovCount >>> 2)] = this.#pieces[i]!;
      const isRun = this.#datagrams[i]! > 1;
      m.u32[header + (MSG.controlOctets >>> 2)] = isRun ? CMSG.space : 0;
      if (isRun) m.set16le(this.#controlsAt + i * CMSG.space + CMSG.data, this.#segment[i]!);
    }
  }

  #refused(message: number, errno: number): void {
    const slot = this.#slot[message]!;
    const datagrams = this.#datagrams[message]!;
    const isRun = datagrams > 1;
    if (isRun && (errno === EIO || errno === EINVAL || (errno === EMSGSIZE && this.#class[message] === 0))) {
      // EIO: the device cannot checksum for us, which no later run will change.
      if (errno === EIO) this.#gso = false;
      this.#listener.gsoRefused();
      this.#sendSingly(message);
    } else if (errno === EMSGSIZE) this.#listener.tooBig(slot, datagrams);
    else this.#listener.failed(slot, datagrams, errno);
  }

  /** Sends the datagrams of a run one by one, through a message of its own. */
  #sendSingly(message: number): void {
    const u32 = this.#memory.frames.u32;
    const header = (this.#headersAt + MESSAGES * MMSGHDR_OCTETS) >>> 2;
    const single = this.#iovAt + MESSAGES * PIECES * IOVEC_OCTETS;
    this.#memory.writeAddress(header * 4 + MSG.name, this.#namesAt + message * SOCKADDR_IN_OCTETS);
    u32[header + (MSG.controlOctets >>> 2)] = 0;
    let from = (this.#iovAt + message * PIECES * IOVEC_OCTETS) >>> 2;
    let skip = 0;
    for (let left = this.#octets[message]!; left > 0;) {
      const datagram = Math.min(left, this.#segment[message]!);
      left -= datagram;
      let pieces = 0;
      for (let need = datagram; need > 0;) {
        const take = Math.min(need, u32[from + 2]! - skip);
        const to = (single + pieces++ * IOVEC_OCTETS) >>> 2;
        const low = u32[from]! + skip;
        u32[to] = low >>> 0;
        u32[to + 1] = u32[from + 1]! + (low > 0xffff_ffff ? 1 : 0);
        u32[to + 2] = take;
        need -= take;
        skip += take;
        if (skip === u32[from + 2]) {
          skip = 0;
          from += IOVEC_OCTETS >>> 2;
        }
      }
      u32[header + (MSG.iovCount >>> 2)] = pieces;
      const result = sendMessages(this.#fds[this.#class[message]! as 0 | 1], this.#headers[MESSAGES]!, 1);
      const slot = this.#slot[message]!;
      if (result > 0) continue;
      if (result === -EAGAIN || result === -ENOBUFS) this.#listener.queueFull(slot, 1);
      else if (result === -EMSGSIZE) this.#listener.tooBig(slot, 1);
      else this.#listener.failed(slot, 1, -result);
    }
  }

  /** Writes what never changes of a message's structs. */
  #layOut(i: number): void {
    const memory = this.#memory;
    const m = memory.frames;
    const header = this.#headersAt + i * MMSGHDR_OCTETS;
    memory.writeAddress(header + MSG.iov, this.#iovAt + i * PIECES * IOVEC_OCTETS);
    m.u32[(header + MSG.nameOctets) >>> 2] = SOCKADDR_IN_OCTETS;
    if (i === MESSAGES) return;
    const name = this.#namesAt + i * SOCKADDR_IN_OCTETS;
    const control = this.#controlsAt + i * CMSG.space;
    m.set16le(name, AF_INET);
    memory.writeAddress(header + MSG.name, name);
    memory.writeAddress(header + MSG.control, control);
    m.u32[(control + CMSG.octets) >>> 2] = CMSG.data + 2;
    m.u32[(control + CMSG.level) >>> 2] = SOL_UDP;
    m.u32[(control + CMSG.type) >>> 2] = UDP_SEGMENT;
  }
}
