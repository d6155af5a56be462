/**
 * What is done to IPv4 frames above the path MTU, in the packet thread's memory: an ICMP message to the sender (RFC 792, RFC 1191), or
 * fragments (RFC 791 section 3.2), as Weave Net 2.8 makes them.
 *
 * All take frames without a VLAN tag, as `carriage()` lets through.
 */
import { checksumOf, type FrameMemory } from "../lib/frame_memory.ts";

const ETHERNET = 14;
/** IPv4 header (RFC 791 section 3.1); offsets in octets. */
const IP = {
  length: 2,
  id: 4,
  fragment: 6,
  ttl: 8,
  protocol: 9,
  checksum: 10,
  source: 12,
  destination: 16,
  minimum: 20,
};
const MORE_FRAGMENTS = 0x2000;
const OFFSET_MASK = 0x1fff;
const ICMP_OCTETS = 8;
const ICMP_PROTOCOL = 1;
const ICMP_UNREACHABLE = 3;
const ICMP_FRAGMENTATION_NEEDED = 4;
const ICMP_TTL = 64;
/** Octets of the payload that an ICMP message quotes. */
const QUOTED_PAYLOAD = 8;
const SHORTEST_FRAME = 60;

export class TooBigFrames {
  readonly #m: FrameMemory;

  constructor(m: FrameMemory) {
    this.#m = m;
  }

  /**
   * Writes to `to` the ICMP message "fragmentation needed" for a frame, as if its receiver had sent it. Returns its length; 0 where the
   * frame's header is cut short.
   */
  writeTooBig(to: number, frame: number, length: number, mtu: number): number {
    const m = this.#m;
    const header = this.#headerOctets(frame, length);
    const quoted = header + QUOTED_PAYLOAD;
    if (header === 0 || ETHERNET + quoted > length) return 0;
    const from = frame + ETHERNET;
    const ip = to + ETHERNET;
    const icmp = ip + IP.minimum;
    const total = IP.minimum + ICMP_OCTETS + quoted;
    m.copy(to, frame + 6, 6);
    m.copy(to + 6, frame, 6);
    m.copy(to + 12, frame + 12, 2);
    m.u8.fill(0, ip, icmp + ICMP_OCTETS);
    m.u8[ip] = 0x45;
    m.u8[ip + 1] = m.u8[from + 1]!;
    m.set16(ip + IP.length, total);
    m.u8[ip + IP.ttl] = ICMP_TTL;
    m.u8[ip + IP.protocol] = ICMP_PROTOCOL;
    m.copy(ip + IP.source, from + IP.destination, 4);
    m.copy(ip + IP.destination, from + IP.source, 4);
    m.set16le(ip + IP.checksum, checksumOf(m.sum(ip, IP.minimum)));
    m.u8[icmp] = ICMP_UNREACHABLE;
    m.u8[icmp + 1] = ICMP_FRAGMENTATION_NEEDED;
    m.set16(icmp + 6, mtu);
    m.copy(icmp + ICMP_OCTETS, from, quoted);
    m.set16le(icmp + 2, checksumOf(m.sum(icmp, ICMP_OCTETS + quoted)));
    return ETHERNET + total;
  }

  /** Payload octets of each fragment of a frame but the last; 0 where none can be made. */
  fragmentOctets(frame: number, length: number, mtu: number): number {
    const header = this.#headerOctets(frame, length);
    return header === 0 ? 0 : Math.max(0, (mtu - header) & ~7);
  }

  /**
   * Writes to `to` the fragment that begins `offset` octets into a frame's payload, a multiple of `fragmentOctets()`. Returns its length; 0
   * behind the end.
   */
  writeFragment(to: number, frame: number, length: number, mtu: number, offset: number): number {
    const m = this.#m;
    const header = this.#headerOctets(frame, length);
    const from = frame + ETHERNET;
    const payload = m.get16(from + IP.length) - header;
    if (header === 0 || offset >= payload || ETHERNET + header + payload > length) return 0;
    const octets = Math.min(this.fragmentOctets(frame, length, mtu), payload - offset);
    const original = m.get16(from + IP.fragment);
    const position = (original & OFFSET_MASK) + (offset >>> 3);
    if (position > OFFSET_MASK) return 0;
    const flags = offset + octets < payload ? (original & ~OFFSET_MASK) | MORE_FRAGMENTS : original & ~OFFSET_MASK;
    const ip = to + ETHERNET;
    m.copy(to, frame, ETHERNET + header);
    m.copy(ip + header, from + header + offset, octets);
    m.set16(ip + IP.length, header + octets);
    m.set16(ip + IP.fragment, flags | position);
    m.set16(ip + IP.checksum, 0);
    m.set16le(ip + IP.checksum, checksumOf(m.sum(ip, header)));
    const end = ETHERNET + header + octets;
    if (end >= SHORTEST_FRAME) return end;
    m.u8.fill(0, to + end, to + SHORTEST_FRAME);
    return SHORTEST_FRAME;
  }

  /** Octets of the IPv4 header, 0 where it is none. */
  #headerOctets(frame: number, length: number): number {
    const first = this.#m.u8[frame + ETHERNET]!;
    const header = (first & 15) << 2;
    return first >>> 4 === 4 && header >= IP.minimum && ETHERNET + header <= length ? header : 0;
  }
}
