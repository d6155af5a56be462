/**
 * Sleeve packets as the tests make and read them, apart from the router's own code.
 *
 *     sender 6 | frames                                             in clear
 *     sender 6 | u64 DF bit and sequence number | box of frames     sealed; the nonce ends in these eight octets
 *     frame: source 6 | destination 6 | u16 octets | Ethernet frame
 */

import { createHash } from "node:crypto";
import type { ControlBoxes } from "../../ffi/control_boxes.ts";
import { type PeerName, readMac, writeMac } from "../../src/lib/mac.ts";
import { parsePeerName } from "../../src/lib/mac.ts";
import type { RecordedFrame, RecordedPacket } from "./recording.ts";

export interface SleeveFrame {
  readonly source: PeerName;
  readonly destination: PeerName;
  readonly octets: Uint8Array;
}

export interface SleeveSeal {
  readonly boxes: ControlBoxes;
  readonly key: Uint8Array;
  /** The sender of the packets made the connection. */
  readonly outbound: boolean;
}

const NAME_OCTETS = 6;
const SEQUENCE_OCTETS = 8;
const NONCE_OCTETS = 24;
const FRAME_HEADER_OCTETS = 14;
const ETHERNET_HEADER_OCTETS = 14;
const FRAGMENTATION_TEST_OCTETS = 60001;

/** A packet in clear. */
export function makePacket(sender: PeerName, frames: readonly SleeveFrame[]): Uint8Array {
  const body = frames.map(({ source, destination, octets }) => {
    const frame = new Uint8Array(FRAME_HEADER_OCTETS + octets.length);
    writeMac(frame, 0, source);
    writeMac(frame, NAME_OCTETS, destination);
    new DataView(frame.buffer).setUint16(2 * NAME_OCTETS, octets.length);
    frame.set(octets, FRAME_HEADER_OCTETS);
    return frame;
  });
  return joined(nameOctets(sender), ...body);
}

/** What a packet carries. @throws Error where it does not open */
export function readPacket(
  packet: Uint8Array,
  seal: SleeveSeal | undefined,
): { readonly sender: PeerName; readonly sealedDf: boolean | undefined; readonly frames: SleeveFrame[] } {
  const sender = readMac(packet, 0) as PeerName;
  let body = packet.subarray(NAME_OCTETS);
  let sealedDf: boolean | undefined;
  if (seal) {
    const sequence = body.subarray(0, SEQUENCE_OCTETS);
    sealedDf = sequence[0]! >= 0x80;
    const opened = seal.boxes.open(body.subarray(SEQUENCE_OCTETS), nonceOf(seal, sequence), seal.key);
    if (!opened) throw new Error(`Cannot open packet ${sequence.toHex()}`);
    body = opened;
  }
  const frames: SleeveFrame[] = [];
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  for (let at = 0; at < body.length;) {
    const end = at + FRAME_HEADER_OCTETS + view.getUint16(at + 2 * NAME_OCTETS);
    frames.push({
      source: readMac(body, at) as PeerName,
      destination: readMac(body, at + NAME_OCTETS) as PeerName,
      octets: body.subarray(at + FRAME_HEADER_OCTETS, end),
    });
    at = end;
  }
  return { sender, sealedDf, frames };
}

/** A recorded packet whole. */
export function recordedPacket(packet: RecordedPacket, seal: SleeveSeal | undefined): Uint8Array {
  if (packet.payload) return Uint8Array.fromHex(packet.payload);
  const frames = packet.frames!.map((frame) => ({
    source: parsePeerName(frame.src)!,
    destination: parsePeerName(frame.dst)!,
    octets: specialFrame(frame),
  }));
  const clear = makePacket(frames[0]!.source, frames);
  const whole = seal ? sealed(clear, seal, Uint8Array.fromHex(packet.nonce!).subarray(-SEQUENCE_OCTETS)) : clear;
  const hash = createHash("sha256").update(whole).digest("hex");
  if (hash !== packet.payload_sha256) throw new Error(`Cannot make the packet at ${packet.t} s again`);
  return whole;
}

/** The frames of a recorded packet. */
export function recordedFrames(packet: RecordedPacket): SleeveFrame[] {
  if (packet.frames!.every((frame) => frame.kind !== "ethernet" || frame.frame !== undefined)) {
    return packet.frames!.map((frame) => ({
      source: parsePeerName(frame.src)!,
      destination: parsePeerName(frame.dst)!,
      octets: frame.frame === undefined ? specialFrame(frame) : Uint8Array.fromHex(frame.frame),
    }));
  }
  return readPacket(Uint8Array.fromHex(packet.payload!), undefined).frames;
}

/** What routers say to each other in place of frames: zeros, of a length that tells what is meant. */
function specialFrame({ kind, len, uid }: Pick<RecordedFrame, "kind" | "len" | "uid">): Uint8Array {
  const octets = new Uint8Array(len);
  if (kind === "heartbeat") new DataView(octets.buffer).setBigUint64(ETHERNET_HEADER_OCTETS, BigInt(uid!));
  return octets;
}

export function heartbeatFrame(uid: bigint): Uint8Array {
  return specialFrame({ kind: "heartbeat", len: ETHERNET_HEADER_OCTETS + 8, uid: String(uid) });
}

export function fragmentationTestFrame(): Uint8Array {
  return new Uint8Array(FRAGMENTATION_TEST_OCTETS);
}

export function probeFrame(mtu: number): Uint8Array {
  return new Uint8Array(mtu + ETHERNET_HEADER_OCTETS);
}

/** "heartbeat UID", "frag test" or "probe MTU"; undefined for a frame that is somebody's. */
export function describeSpecial({ octets }: SleeveFrame): string | undefined {
  if (octets.subarray(0, ETHERNET_HEADER_OCTETS).some((octet) => octet !== 0)) return undefined;
  const view = new DataView(octets.buffer, octets.byteOffset, octets.byteLength);
  if (octets.length === ETHERNET_HEADER_OCTETS + 8) return `heartbeat ${view.getBigUint64(ETHERNET_HEADER_OCTETS)}`;
  if (octets.some((octet) => octet !== 0)) return undefined;
  return octets.length === FRAGMENTATION_TEST_OCTETS ? "frag test" : `probe ${octets.length - ETHERNET_HEADER_OCTETS}`;
}

function sealed(clear: Uint8Array, seal: SleeveSeal, sequence: Uint8Array): Uint8Array {
  const box = seal.boxes.seal(clear.subarray(NAME_OCTETS), nonceOf(seal, sequence), seal.key);
  return joined(clear.subarray(0, NAME_OCTETS), sequence, box);
}

function nonceOf({ outbound }: SleeveSeal, sequence: Uint8Array): Uint8Array {
  const nonce = new Uint8Array(NONCE_OCTETS);
  nonce[0] = outbound ? 0x80 : 0;
  nonce.set(sequence, NONCE_OCTETS - SEQUENCE_OCTETS);
  return nonce;
}

function nameOctets(name: PeerName): Uint8Array {
  const octets = new Uint8Array(NAME_OCTETS);
  writeMac(octets, 0, name);
  return octets;
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((octets, part) => octets + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
