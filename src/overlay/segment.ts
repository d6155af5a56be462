/**
 * Cutting: a super-frame, as the TAP hands out one stretch of a TCP stream (or several datagrams of a UDP flow) with one header,
 * into frames that stand for themselves, each with complete checksums.
 *
 *     TAP buffer:   [virtio header 12][Ethernet 14(+4n)][IP][TCP or UDP][payload 0][payload 1] … [payload n-1]
 *     segment i:                      [Ethernet, IP, TCP or UDP rewritten][payload i]
 *
 * Lengths, the IPv4 identification (one more per segment), the TCP sequence number and the flags are rewritten as Linux does it:
 * PSH and FIN stay on the last segment, CWR on the first.
 */
import { checksumOf, foldSum, type FrameMemory, swap16 } from "../lib/frame_memory.ts";

/** struct virtio_net_hdr_v1, offsets in octets; little endian (linux/virtio_net.h). */
export const VIRTIO = {
  flags: 0,
  gsoType: 1,
  headerLength: 2,
  gsoSize: 4,
  checksumStart: 6,
  checksumOffset: 8,
  octets: 12,
} as const;
export const VIRTIO_NEEDS_CHECKSUM = 1;
export const GSO_TCP4 = 1;
export const GSO_TCP6 = 4;
export const GSO_UDP = 5;
export const GSO_ECN = 0x80;

/** More than 64 KiB in the smallest segments that Linux makes (48 octets). Whoever may choose the size could ask for 64 Ki. */
const SEGMENT_LIMIT = 2048;

/** The longest header a super-frame may have: Ethernet with two tags, IP and TCP with all options. */
export const HEADER_LIMIT = 14 + 8 + 60 + 60;

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const ETHERTYPE_VLAN = 0x8100;
const ETHERTYPE_SERVICE_VLAN = 0x88a8;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const TCP_FIN = 0x01;
export const TCP_PSH = 0x08;
export const TCP_CWR = 0x80;

/**
 * The super-frame being cut. Fields hold until the next `open()`. It keeps a copy of the header, so that segments may be written over
 * the original.
 */
export class SuperFrame {
  /** Segments in it. */
  count = 0;
  /** Octets before the payload, alike in each segment. */
  headerOctets = 0;
  /** Where segment 0's payload is; that of segment i is `i * segmentOctets` further on. */
  payloadAt = 0;
  /** Payload octets of each segment but the last. */
  segmentOctets = 0;

  readonly #m: FrameMemory;
  readonly #templateAt: number;
  #payloadOctets = 0;
  #ip = 0;
  #transport = 0;
  #ipv4 = false;
  #tcp = false;
  #identification = 0;
  #sequence = 0;
  #flags = 0;
  /** Sum over the header, its variable fields counted as zero. */
  #ipSum = 0;
  /** The same for the transport header with its pseudo header. */
  #transportSum = 0;

  /** @param templateAt of HEADER_LIMIT octets of memory for this object alone */
  constructor(m: FrameMemory, templateAt: number) {
    this.#m = m;
    this.#templateAt = templateAt;
  }

  /**
   * Reads a super-frame's headers. Returns false where they do not agree with each other or with the virtio header; such a frame must be
   * discarded.
   * @param virtio offset of the virtio header
   * @param frame offset of the frame itself, of `length` octets
   */
  open(virtio: number, frame: number, length: number): boolean {
    const m = this.#m;
    const type = m.u8[virtio + VIRTIO.gsoType]! & ~GSO_ECN;
    this.#tcp = type !== GSO_UDP;
    if (type !== GSO_TCP4 && type !== GSO_TCP6 && type !== GSO_UDP) return false;
    const ip = networkOffset(m, frame, length);
    const transport = m.get16le(virtio + VIRTIO.checksumStart);
    const segment = m.get16le(virtio + VIRTIO.gsoSize);
    if (ip < 0 || transport < ip + 20 || transport + 20 > length && this.#tcp || transport + 8 > length) return false;
    const ethertype = m.get16(frame + ip - 2);
    this.#ipv4 = ethertype === ETHERTYPE_IPV4;
    if (!this.#ipv4 && (ethertype !== ETHERTYPE_IPV6 || transport < ip + 40)) return false;
    if (this.#ipv4 && (m.u8[frame + ip]! & 15) * 4 !== transport - ip) return false;
    const header = transport + (this.#tcp ? m.u8[frame + transport + 12]! >>> 4 << 2 : 8);
    if (header < transport + (this.#tcp ? 20 : 8) || header >= length || header > HEADER_LIMIT) return false;
    if (length - header > segment * SEGMENT_LIMIT) return false;
    this.headerOctets = header;
    this.segmentOctets = segment;
    this.payloadAt = frame + header;
    this.#payloadOctets = length - header;
    this.count = Math.ceil(this.#payloadOctets / segment);
    this.#ip = ip;
    this.#transport = transport;
    this.#keepHeader(frame);
    return true;
  }

  /** Payload octets of segment i. */
  payloadOctets(i: number): number {
    return i < this.count - 1 ? this.segmentOctets : this.#payloadOctets - i * this.segmentOctets;
  }

  /** Length of the frame of a full segment. */
  get frameOctets(): number {
    return this.headerOctets + Math.min(this.segmentOctets, this.#payloadOctets);
  }

  /**
   * Writes the header of segment i to `to`. The segment's payload must still be in its place (or what overwrites it come later);
   * the header may be written right before it, over the end of the payload before.
   */
  writeHeader(i: number, to: number): void {
    const m = this.#m;
    const payload = this.payloadOctets(i);
    const sum = m.sum(this.payloadAt + i * this.segmentOctets, payload);
    m.copy(to, this.#templateAt, this.headerOctets);
    const ip = to + this.#ip;
    const transport = to + this.#transport;
    const transportOctets = this.headerOctets - this.#transport + payload;
    if (this.#ipv4) {
      const total = this.#transport - this.#ip + transportOctets;
      const identification = (this.#identification + i) & 0xffff;
      m.set16(ip + 2, total);
      m.set16(ip + 4, identification);
      m.set16le(ip + 10, checksumOf(this.#ipSum + swap16(total) + swap16(identification)));
    } else m.set16(ip + 4, this.headerOctets - this.#ip - 40 + payload);
    const partial = this.#transportSum + swap16(transportOctets) + foldSum(sum);
    if (this.#tcp) this.#finishTcp(i, transport, partial);
    else {
      m.set16(transport + 4, transportOctets);
      const checksum = checksumOf(partial + swap16(transportOctets));
      m.set16le(transport + 6, checksum === 0 ? 0xffff : checksum);
    }
  }

  #finishTcp(i: number, transport: number, partial: number): void {
    const m = this.#m;
    const sequence = (this.#sequence + i * this.segmentOctets) >>> 0;
    let flags = this.#flags;
    if (i > 0) flags &= ~TCP_CWR;
    if (i < this.count - 1) flags &= ~(TCP_PSH | TCP_FIN);
    m.set32(transport + 4, sequence);
    m.u8[transport + 13] = flags;
    const sum = partial + swap16(sequence >>> 16) + swap16(sequence & 0xffff) + (flags << 8);
    m.set16le(transport + 16, checksumOf(sum));
  }

  /**
   * Completes the checksum of a single frame that came with a partial one: the field holds the sum of the pseudo header. Returns
   * false where the virtio header points outside the frame.
   */
  complete(virtio: number, frame: number, length: number): boolean {
    const m = this.#m;
    const start = m.get16le(virtio + VIRTIO.checksumStart);
    const field = start + m.get16le(virtio + VIRTIO.checksumOffset);
    if (start < 14 || field + 2 > length) return false;
    const sum = m.sum(frame + start, length - start);
    const checksum = checksumOf(sum);
    // Zero would mean "no checksum" in UDP, and is the same number as all ones in every other.
    m.set16le(frame + field, checksum === 0 ? 0xffff : checksum);
    return true;
  }

  /** Copies the header, clears what varies, and sums the rest once for all segments. */
  #keepHeader(frame: number): void {
    const m = this.#m;
    const at = this.#templateAt;
    m.copy(at, frame, this.headerOctets);
    const ip = at + this.#ip;
    const transport = at + this.#transport;
    const addresses = this.#ipv4 ? m.sum(ip + 12, 8) : m.sum(ip + 8, 32);
    if (this.#ipv4) {
      this.#identification = m.get16(ip + 4);
      m.set16(ip + 2, 0);
      m.set16(ip + 4, 0);
      m.set16(ip + 10, 0);
      this.#ipSum = foldSum(m.sum(ip, this.#transport - this.#ip));
    }
    if (this.#tcp) {
      this.#sequence = m.get32(transport + 4);
      this.#flags = m.u8[transport + 13]!;
      m.set32(transport + 4, 0);
      m.u8[transport + 13] = 0;
      m.set16(transport + 16, 0);
    } else m.set32(transport + 4, 0);
    this.#transportSum = foldSum(
      m.sum(transport, this.headerOctets - this.#transport) + addresses +
        ((this.#tcp ? PROTOCOL_TCP : PROTOCOL_UDP) << 8),
    );
  }
}

/** Offset of the network header in a frame, after up to two VLAN tags; -1 where the frame is too short for one. */
function networkOffset(m: FrameMemory, frame: number, length: number): number {
  let at = 14;
  for (let tags = 0; tags <= 2; tags++) {
    if (at + 20 > length) return -1;
    const type = m.get16(frame + at - 2);
    if (type !== ETHERTYPE_VLAN && type !== ETHERTYPE_SERVICE_VLAN) return at;
    at += 4;
  }
  return -1;
}
