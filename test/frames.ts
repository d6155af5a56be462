/** Frames as containers and kernels make them, for tests: whole ones, and super-frames with their virtio headers. */

import type { Random } from "../src/lib/random.ts";

export interface TransportFrame {
  readonly to: string;
  readonly from: string;
  readonly ipv4: boolean;
  readonly tcp: boolean;
  readonly payload: number;
  /** Octets of payload in each segment; none: one frame with a whole checksum. */
  readonly segment?: number;
  readonly dontFragment?: boolean;
  readonly tags?: number;
  readonly identification?: number;
  readonly sequence?: number;
  readonly flags?: number;
  readonly tcpOptions?: number;
  readonly port?: number;
  /** Sets the payload's content. */
  readonly content?: number;
}

export interface CapturedFrame {
  readonly virtio: Uint8Array<ArrayBuffer>;
  readonly frame: Uint8Array<ArrayBuffer>;
}

const TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_ACK = 0x10, TCP_CWR = 0x80;

/** With a segment size, the checksum field holds the sum of the pseudo header, as the kernel hands it out. */
export function transportFrame(o: TransportFrame): CapturedFrame {
  const tags = o.tags ?? 0;
  const ip = 14 + 4 * tags;
  const transport = ip + (o.ipv4 ? 20 : 40);
  const header = o.tcp ? 20 + (o.tcpOptions ?? 0) : 8;
  const frame = new Uint8Array(transport + header + o.payload);
  const v = new DataView(frame.buffer);
  frame.set(Uint8Array.fromHex(o.to + o.from));
  for (let i = 0; i < tags; i++) v.setUint32(12 + 4 * i, 0x8100_0005);
  v.setUint16(ip - 2, o.ipv4 ? 0x0800 : 0x86dd);
  if (o.ipv4) {
    v.setUint16(ip, 0x4500);
    v.setUint16(ip + 2, frame.length - ip);
    v.setUint16(ip + 4, o.identification ?? 0x1234);
    v.setUint16(ip + 6, o.dontFragment ?? true ? 0x4000 : 0);
    v.setUint16(ip + 8, 0x4000 | (o.tcp ? 6 : 17));
    v.setUint32(ip + 12, 0x0a20_0001);
    v.setUint32(ip + 16, 0x0a20_0002);
    v.setUint16(ip + 10, 0xffff ^ onesSum(frame.subarray(ip, ip + 20)));
  } else {
    v.setUint32(ip, 0x6000_0000);
    v.setUint16(ip + 4, frame.length - transport);
    frame[ip + 6] = o.tcp ? 6 : 17;
    frame[ip + 7] = 64;
    for (let i = 8; i < 40; i++) frame[ip + i] = i * 5;
  }
  v.setUint16(transport, o.port ?? 40_000);
  v.setUint16(transport + 2, 5201);
  const flags = o.flags ?? TCP_ACK;
  if (o.tcp) {
    v.setUint32(transport + 4, o.sequence ?? 1);
    v.setUint32(transport + 8, 0x0102_0304);
    frame[transport + 12] = header << 2;
    frame[transport + 13] = flags;
    v.setUint16(transport + 14, 512);
    for (let i = 20; i < header; i++) frame[transport + i] = i;
  } else v.setUint16(transport + 4, frame.length - transport);
  for (let i = transport + header; i < frame.length; i++) frame[i] = i * 7 + (o.content ?? 0);
  const field = transport + (o.tcp ? 16 : 6);
  const virtio = new Uint8Array(12);
  if (o.segment === undefined) {
    const sum = 0xffff ^ onesSum(withPseudoHeader(frame, ip, transport, o.ipv4));
    v.setUint16(field, sum === 0 && !o.tcp ? 0xffff : sum); // 0 would be no checksum, in UDP
    return { virtio, frame };
  }
  v.setUint16(field, onesSum(pseudoHeader(frame, ip, transport, o.ipv4)));
  const w = new DataView(virtio.buffer);
  virtio[0] = 1;
  virtio[1] = o.tcp ? (o.ipv4 ? 1 : 4) | (flags & TCP_CWR) : 5;
  w.setUint16(2, transport + header, true);
  w.setUint16(4, o.segment, true);
  w.setUint16(6, transport, true);
  w.setUint16(8, field - transport, true);
  return { virtio, frame };
}

/** What a super-frame is cut into, told by how it was made: the rules of Linux, without a word of the code that does it. */
export function expectedSegments(o: TransportFrame): Uint8Array<ArrayBuffer>[] {
  const { segment, ...same } = o;
  if (segment === undefined) return [transportFrame(o).frame];
  const count = Math.ceil(o.payload / segment);
  const flags = o.flags ?? TCP_ACK;
  return Array.from({ length: count }, (_, i) => {
    const isLast = i === count - 1;
    return transportFrame({
      ...same,
      payload: isLast ? o.payload - i * segment : segment,
      identification: ((o.identification ?? 0x1234) + i) & 0xffff,
      sequence: ((o.sequence ?? 1) + i * segment) >>> 0,
      flags: flags & ~(isLast ? 0 : TCP_PSH | TCP_FIN) & ~(i > 0 ? TCP_CWR : 0),
      content: (o.content ?? 0) + 7 * i * segment,
    }).frame;
  });
}

/** Random content for a frame of this kind, of any size that a container may send. */
export function randomTransport(random: Random, to: string, from: string): TransportFrame {
  const tcp = random.below(3) > 0;
  const isSuper = random.below(2) === 0;
  const payload = random.below(isSuper ? 50_000 : 1500);
  return {
    to,
    from,
    tcp,
    ipv4: random.below(4) > 0,
    payload,
    dontFragment: random.below(4) > 0,
    tags: random.below(6) === 0 ? 1 + random.below(2) : 0,
    identification: random.below(0x10000),
    sequence: random.u32(),
    flags: [0x10, 0x18, 0x11, 0x19, 0x50, 0xd0, 0x90][random.below(7)]!,
    tcpOptions: [0, 12, 40][random.below(3)]!,
    port: 40_000 + random.below(8),
    content: random.below(256),
    // A super-frame has at least one octet of payload.
    ...(isSuper && payload > 0 ? { segment: 48 + random.below(8900) } : {}),
  };
}

function withPseudoHeader(frame: Uint8Array, ip: number, transport: number, ipv4: boolean): Uint8Array {
  const text = frame.subarray(transport);
  const padded = text.length + (text.length & 1);
  const whole = new Uint8Array(padded + 40);
  whole.set(text);
  whole.set(pseudoHeader(frame, ip, transport, ipv4), padded);
  return whole;
}

function pseudoHeader(frame: Uint8Array, ip: number, transport: number, ipv4: boolean): Uint8Array {
  const octets = frame.length - transport;
  const addresses = ipv4 ? frame.subarray(ip + 12, ip + 20) : frame.subarray(ip + 8, ip + 40);
  return Uint8Array.from([...addresses, 0, frame[ipv4 ? ip + 9 : ip + 6]!, octets >>> 8, octets & 0xff]);
}

/** RFC 1071 as it stands. */
function onesSum(octets: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < octets.length; i += 2) {
    sum += (octets[i]! << 8) + (octets[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}
