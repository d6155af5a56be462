/**
 * Gluing: consecutive segments of a flow become one super-frame again, so that the kernel takes one instead of forty. The opposite
 * of `segment.ts`; nothing is copied: the super-frame is the first segment with its header rewritten, and pieces of the others.
 *
 *     segment 0:  [room for 12][Ethernet][IP][TCP][payload 0]   → piece 0, from the room on
 *     segment i:  [Ethernet][IP][TCP][payload i]                → piece i: payload i alone
 *
 * A segment joins only if its checksum is right and its headers differ from those before in nothing but what a cut makes
 * differ. Several flows may interleave: each has its lane. Within a flow the order is kept, also with frames that cannot be glued.
 */
import { checksumOf, foldSum, type FrameMemory, swap16 } from "../lib/frame_memory.ts";
import {
  GSO_ECN,
  GSO_TCP4,
  GSO_TCP6,
  GSO_UDP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  TCP_CWR,
  TCP_FIN,
  TCP_PSH,
  VIRTIO,
  VIRTIO_NEEDS_CHECKSUM,
} from "./segment.ts";

/** Takes whole frames for the TAP. */
export interface PieceSink {
  /**
   * Writes one frame with its virtio header: `count` pieces, of which piece i lies at `pieces[first + 2 * i]` and has
   * `pieces[first + 2 * i + 1]` octets. The pieces are read before it returns.
   * @param segments how many frames these were
   */
  write(pieces: Int32Array, first: number, count: number, segments: number): void;
}

export interface GlueOptions {
  /** Whether the TAP takes super-frames of UDP. */
  readonly udp: boolean;
}

const LANES = 8;
/** Segments of a super-frame: above what 64 KiB of ordinary ones make, and the kernel's limit for UDP. */
const PIECE_LIMIT = 64;
const IP_LIMIT = 65535;
const TCP_ACK = 0x10;
const TCP_ECE = 0x40;
const NONE = -1;

export class Glue {
  readonly #m: FrameMemory;
  readonly #sink: PieceSink;
  readonly #udp: boolean;
  /** Per lane: the first segment's offsets, and what the next one must look like. */
  readonly #frame = new Int32Array(LANES).fill(NONE);
  readonly #transport = new Int32Array(LANES);
  readonly #headerOctets = new Int32Array(LANES);
  readonly #protocol = new Int32Array(LANES);
  readonly #ports = new Uint32Array(LANES);
  readonly #nextSequence = new Uint32Array(LANES);
  readonly #segmentOctets = new Int32Array(LANES);
  readonly #totalOctets = new Int32Array(LANES);
  readonly #count = new Int32Array(LANES);
  readonly #lastFlags = new Int32Array(LANES);
  readonly #pieces = new Int32Array((LANES * PIECE_LIMIT + 1) * 2);
  #used = 0;
  #nextVictim = 0;
  #recent = 0;

  constructor(m: FrameMemory, sink: PieceSink, options: GlueOptions) {
    this.#m = m;
    this.#sink = sink;
    this.#udp = options.udp;
  }

  /**
   * Takes a frame for the TAP: at once or with `flush()`, until when its memory must stay. The 12 octets before it are overwritten, its
   * headers may be.
   */
  add(frame: number, length: number): void {
    const m = this.#m;
    const ethertype = length >= 14 + 20 + 8 ? m.get16(frame + 12) : 0;
    const ip = frame + 14;
    if (ethertype === 0x0800) {
      // No options, whole, and nothing behind it: padding could not be told from payload.
      const plain = m.u8[ip] === 0x45 && m.get16(ip + 2) === length - 14 && (m.get16(ip + 6) & 0x3fff) === 0 &&
        foldSum(m.sum(ip, 20)) === 0xffff;
      this.#addTransport(frame, length, ip + 20, m.u8[ip + 9]!, plain);
    } else if (ethertype === 0x86dd && length >= 14 + 40 + 8) {
      const plain = m.u8[ip]! >>> 4 === 6 && m.get16(ip + 4) === length - 54;
      this.#addTransport(frame, length, ip + 40, m.u8[ip + 6]!, plain);
    } else this.#writeAlone(frame, length);
  }

  /** Writes what the lanes hold. */
  flush(): void {
    if (this.#used === 0) return;
    for (let lane = 0; lane < LANES; lane++) if (this.#frame[lane] !== NONE) this.#flushLane(lane);
  }

  #addTransport(frame: number, length: number, transport: number, protocol: number, plain: boolean): void {
    const m = this.#m;
    const tcp = protocol === PROTOCOL_TCP;
    if (!tcp && !(protocol === PROTOCOL_UDP && this.#udp)) return this.#writeAlone(frame, length);
    const lane = this.#used === 0 ? NONE : this.#find(frame, transport, protocol);
    const headerOctets = transport - frame + (tcp ? m.u8[transport + 12]! >>> 4 << 2 : 8);
    const payload = length - headerOctets;
    if (
      !plain || payload <= 0 ||
      !(tcp
        ? isTcpData(m, transport, headerOctets - (transport - frame))
        : isUdpData(m, transport, length - (transport - frame)))
    ) {
      if (lane !== NONE) this.#flushLane(lane);
      return this.#writeAlone(frame, length);
    }
    if (!checksumIsRight(m, frame, transport, protocol, length)) {
      if (lane !== NONE) this.#flushLane(lane);
      return this.#writeAlone(frame, length);
    }
    if (lane !== NONE && this.#continues(lane, frame, transport, headerOctets, payload)) {
      return this.#append(lane, frame, transport, headerOctets, payload);
    }
    if (lane !== NONE) this.#flushLane(lane);
    const last = tcp && (m.u8[transport + 13]! & (TCP_PSH | TCP_FIN)) !== 0;
    if (last) this.#writeAlone(frame, length);
    else this.#begin(frame, length, transport, headerOctets, protocol);
  }

  #find(frame: number, transport: number, protocol: number): number {
    const m = this.#m;
    const ports = m.get32(transport);
    for (let n = 0; n < LANES; n++) {
      const lane = (this.#recent + n) & (LANES - 1);
      const first = this.#frame[lane]!;
      if (first === NONE || this.#ports[lane] !== ports || this.#protocol[lane] !== protocol) continue;
      const addresses = transport - frame === 34 ? 26 : 22;
      if (this.#transport[lane]! - first !== transport - frame) continue;
      if (!m.equal(first + addresses, frame + addresses, transport - frame - addresses)) continue;
      this.#recent = lane;
      return lane;
    }
    return NONE;
  }

  #continues(lane: number, frame: number, transport: number, headerOctets: number, payload: number): boolean {
    const m = this.#m;
    const first = this.#frame[lane]!;
    const count = this.#count[lane]!;
    if (headerOctets !== this.#headerOctets[lane] || payload > this.#segmentOctets[lane]!) return false;
    if (count >= PIECE_LIMIT || headerOctets - 14 + this.#totalOctets[lane]! + payload > IP_LIMIT) return false;
    if (!m.equal(first, frame, 14 + 2)) return false; // Ethernet; version and service
    if (transport - frame === 34) {
      // Fragmentation flags and time to live alike; identifications in sequence, unless DF makes them meaningless.
      const identification = (m.get16(first + 18) + count) & 0xffff;
      const flags = m.u8[frame + 20]!;
      if (flags !== m.u8[first + 20] || m.u8[frame + 22] !== m.u8[first + 22]) return false;
      if ((flags & 0x40) === 0 && m.get16(frame + 18) !== identification) return false;
    } else if (m.get16(first + 16) !== m.get16(frame + 16) || m.u8[first + 21] !== m.u8[frame + 21]) return false;
    if (this.#protocol[lane] === PROTOCOL_UDP) return true;
    const before = this.#transport[lane]!;
    const tcpOctets = headerOctets - (transport - frame);
    const flags = m.u8[transport + 13]!;
    return m.get32(transport + 4) === this.#nextSequence[lane] && (flags & TCP_CWR) === 0 &&
      ((flags ^ m.u8[before + 13]!) & ~(TCP_PSH | TCP_FIN | TCP_CWR)) === 0 &&
      m.equal(transport + 8, before + 8, 5) && m.equal(transport + 14, before + 14, 2) &&
      m.equal(transport + 20, before + 20, tcpOctets - 20);
  }

  #append(lane: number, frame: number, transport: number, headerOctets: number, payload: number): void {
    const count = this.#count[lane]!;
    const piece = (lane * PIECE_LIMIT + count) * 2;
    this.#pieces[piece] = frame + headerOctets;
    this.#pieces[piece + 1] = payload;
    this.#count[lane] = count + 1;
    this.#totalOctets[lane] = this.#totalOctets[lane]! + payload;
    let last = payload < this.#segmentOctets[lane]! || count + 1 === PIECE_LIMIT;
    if (this.#protocol[lane] === PROTOCOL_TCP) {
      this.#nextSequence[lane] = this.#nextSequence[lane]! + payload;
      const flags = this.#m.u8[transport + 13]! & (TCP_PSH | TCP_FIN);
      this.#lastFlags[lane] = flags;
      last ||= flags !== 0;
    }
    if (last) this.#flushLane(lane);
  }

  #begin(frame: number, length: number, transport: number, headerOctets: number, protocol: number): void {
    const m = this.#m;
    const lane = this.#freeLane();
    const payload = length - headerOctets;
    this.#frame[lane] = frame;
    this.#transport[lane] = transport;
    this.#headerOctets[lane] = headerOctets;
    this.#protocol[lane] = protocol;
    this.#ports[lane] = m.get32(transport);
    this.#nextSequence[lane] = m.get32(transport + 4) + payload;
    this.#segmentOctets[lane] = payload;
    this.#totalOctets[lane] = payload;
    this.#lastFlags[lane] = 0;
    this.#count[lane] = 1;
    const piece = lane * PIECE_LIMIT * 2;
    this.#pieces[piece] = frame - VIRTIO.octets;
    this.#pieces[piece + 1] = VIRTIO.octets + length;
    this.#used++;
    this.#recent = lane;
  }

  #freeLane(): number {
    if (this.#used < LANES) { for (let lane = 0; lane < LANES; lane++) if (this.#frame[lane] === NONE) return lane; }
    const lane = this.#nextVictim;
    this.#nextVictim = (lane + 1) & (LANES - 1);
    this.#flushLane(lane);
    return lane;
  }

  #flushLane(lane: number): void {
    const frame = this.#frame[lane]!;
    const count = this.#count[lane]!;
    if (count > 1) this.#finishHeader(lane, frame);
    else this.#m.u8.fill(0, frame - VIRTIO.octets, frame);
    this.#frame[lane] = NONE;
    this.#used--;
    this.#sink.write(this.#pieces, lane * PIECE_LIMIT * 2, count, count);
  }

  /** Makes the first segment's header that of the whole, with the partial checksum the virtio header announces. */
  #finishHeader(lane: number, frame: number): void {
    const m = this.#m;
    const transport = this.#transport[lane]!;
    const headerOctets = this.#headerOctets[lane]!;
    const tcp = this.#protocol[lane] === PROTOCOL_TCP;
    const ipv4 = transport - frame === 34;
    const transportOctets = headerOctets - (transport - frame) + this.#totalOctets[lane]!;
    if (ipv4) {
      m.set16(frame + 16, 20 + transportOctets);
      m.set16(frame + 24, 0);
      m.set16le(frame + 24, checksumOf(m.sum(frame + 14, 20)));
    } else m.set16(frame + 18, transportOctets);
    const addresses = ipv4 ? m.sum(frame + 26, 8) : m.sum(frame + 22, 32);
    const pseudo = addresses + swap16(transportOctets) + (this.#protocol[lane]! << 8);
    const virtio = frame - VIRTIO.octets;
    let type = tcp ? (ipv4 ? GSO_TCP4 : GSO_TCP6) : GSO_UDP;
    if (tcp) {
      const flags = m.u8[transport + 13]! | this.#lastFlags[lane]!;
      m.u8[transport + 13] = flags;
      if ((flags & TCP_CWR) !== 0) type |= GSO_ECN;
    } else m.set16(transport + 4, transportOctets);
    m.set16le(transport + (tcp ? 16 : 6), foldSum(pseudo));
    m.u8[virtio + VIRTIO.flags] = VIRTIO_NEEDS_CHECKSUM;
    m.u8[virtio + VIRTIO.gsoType] = type;
    m.set16le(virtio + VIRTIO.headerLength, headerOctets);
    m.set16le(virtio + VIRTIO.gsoSize, this.#segmentOctets[lane]!);
    m.set16le(virtio + VIRTIO.checksumStart, transport - frame);
    m.set16le(virtio + VIRTIO.checksumOffset, tcp ? 16 : 6);
    m.set16le(virtio + 10, 0);
  }

  #writeAlone(frame: number, length: number): void {
    const piece = LANES * PIECE_LIMIT * 2;
    this.#m.u8.fill(0, frame - VIRTIO.octets, frame);
    this.#pieces[piece] = frame - VIRTIO.octets;
    this.#pieces[piece + 1] = VIRTIO.octets + length;
    this.#sink.write(this.#pieces, piece, 1, 1);
  }
}

/** Data of an established stream: no SYN, RST or URG, and a header that is all there. */
function isTcpData(m: FrameMemory, transport: number, tcpOctets: number): boolean {
  return tcpOctets >= 20 && (m.u8[transport + 13]! & ~(TCP_PSH | TCP_FIN | TCP_ECE | TCP_CWR)) === TCP_ACK;
}

/** A datagram with a checksum (without, none could be made for the parts again), as long as it says. */
function isUdpData(m: FrameMemory, transport: number, octets: number): boolean {
  return m.get16(transport + 4) === octets && m.get16(transport + 6) !== 0;
}

function checksumIsRight(m: FrameMemory, frame: number, transport: number, protocol: number, length: number): boolean {
  const octets = length - (transport - frame);
  const addresses = transport - frame === 34 ? 26 : 22;
  // The addresses lie right before the transport header, in both versions of IP.
  const sum = m.sum(frame + addresses, length - addresses) + swap16(octets) + (protocol << 8);
  return foldSum(sum) === 0xffff;
}
