/**
 * An IPv4 packet with a TCP segment that has no data (RFC 791 §3.1, RFC 9293 §3.1).
 *
 *      0        20                      40
 *     +--------+----------------------+
 *     | IPv4   | TCP, without options |
 *     +--------+----------------------+
 */
import type { Ipv4 } from "../lib/ip.ts";

/** Offsets in octets from the packet's first; what is not here is zero, or filled in by the kernel. */
const IP = { version: 0, octets: 2, flags: 6, ttl: 8, protocol: 9, source: 12, destination: 16 } as const;
const TCP = {
  source: 20,
  destination: 22,
  sequence: 24,
  acknowledgement: 28,
  flags: 32,
  window: 34,
  checksum: 36,
} as const;
const TCP_HEADER_OCTETS = 20;
const OCTETS = 40;
const VERSION_4_HEADER_20 = 0x45;
const DO_NOT_FRAGMENT = 0x4000;
const TTL = 64;
const IPPROTO_TCP = 6;
const DATA_OFFSET_20 = 0x5000;
const WINDOW = 0xffff;

export const TCP_FLAG = { syn: 0x02, ack: 0x10 } as const;

export interface EmptySegment {
  readonly source: Ipv4;
  readonly sourcePort: number;
  readonly destination: Ipv4;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  /** Of `TCP_FLAG`. */
  readonly flags: number;
}

/** A packet for a raw socket: the kernel sets identification and checksum of the IPv4 header (raw(7)). */
export function encodeEmptySegment(segment: EmptySegment): Uint8Array<ArrayBuffer> {
  const packet = new Uint8Array(OCTETS);
  const view = new DataView(packet.buffer);
  packet[IP.version] = VERSION_4_HEADER_20;
  view.setUint16(IP.octets, OCTETS);
  view.setUint16(IP.flags, DO_NOT_FRAGMENT);
  packet[IP.ttl] = TTL;
  packet[IP.protocol] = IPPROTO_TCP;
  view.setUint32(IP.source, segment.source);
  view.setUint32(IP.destination, segment.destination);
  view.setUint16(TCP.source, segment.sourcePort);
  view.setUint16(TCP.destination, segment.destinationPort);
  view.setUint32(TCP.sequence, segment.sequence);
  view.setUint32(TCP.acknowledgement, segment.acknowledgement);
  view.setUint16(TCP.flags, DATA_OFFSET_20 | segment.flags);
  view.setUint16(TCP.window, WINDOW);
  view.setUint16(TCP.checksum, tcpChecksum(view));
  return packet;
}

/** Over addresses, protocol and length (the pseudo-header), and the segment, whose checksum must be zero yet. */
function tcpChecksum(view: DataView): number {
  let sum = IPPROTO_TCP + TCP_HEADER_OCTETS;
  for (let at: number = IP.source; at < OCTETS; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
