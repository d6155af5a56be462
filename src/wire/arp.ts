/**
 * ARP for IPv4 over Ethernet (RFC 826): reading what a frame says, and the two frames we send ourselves.
 *
 *      0        6        12   14  16  18 19 20  22       28       32       38       42
 *     +--------+--------+----+---+---+--+--+---+--------+--------+--------+--------+
 *     | to     | from   |0806| 1 |800|6 |4 |op |sender's MAC, IP | target's MAC, IP|
 *     +--------+--------+----+---+---+--+--+---+--------+--------+--------+--------+
 */
import type { Ipv4 } from "../lib/ip.ts";
import { type Mac, readMac, writeMac } from "../lib/mac.ts";

export const ARP_ETHERTYPE = 0x0806;

/** Offsets in octets from the frame's first. */
const ARP = {
  type: 12,
  hardware: 14,
  operation: 20,
  senderMac: 22,
  senderIp: 28,
  targetMac: 32,
  targetIp: 38,
  octets: 42,
} as const;
/** Ethernet, IPv4, and the lengths of their addresses: the fixed part of the header. */
const FIXED = [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4];
const BROADCAST = 0xffff_ffff_ffff as Mac;
const NOBODY = 0 as Mac;

export interface Arp {
  readonly operation: "request" | "reply";
  readonly senderMac: Mac;
  /** 0 in a probe: the sender has no address yet. */
  readonly senderIp: Ipv4;
  readonly targetMac: Mac;
  readonly targetIp: Ipv4;
}

/** undefined for every frame that is no ARP request or reply about IPv4 over Ethernet. */
export function decodeArp(frame: Uint8Array): Arp | undefined {
  if (frame.length < ARP.octets || FIXED.some((octet, i) => frame[ARP.type + i] !== octet)) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, ARP.octets);
  const operation = view.getUint16(ARP.operation);
  if (operation !== 1 && operation !== 2) return undefined;
  return {
    operation: operation === 1 ? "request" : "reply",
    senderMac: readMac(frame, ARP.senderMac) as Mac,
    senderIp: view.getUint32(ARP.senderIp),
    targetMac: readMac(frame, ARP.targetMac) as Mac,
    targetIp: view.getUint32(ARP.targetIp),
  };
}

/** A whole frame. @param to the frame's destination */
export function encodeArp(to: Mac, arp: Arp): Uint8Array {
  const frame = new Uint8Array(ARP.octets);
  const view = new DataView(frame.buffer);
  writeMac(frame, 0, to);
  writeMac(frame, 6, arp.senderMac);
  frame.set(FIXED, ARP.type);
  view.setUint16(ARP.operation, arp.operation === "request" ? 1 : 2);
  writeMac(frame, ARP.senderMac, arp.senderMac);
  view.setUint32(ARP.senderIp, arp.senderIp);
  writeMac(frame, ARP.targetMac, arp.targetMac);
  view.setUint32(ARP.targetIp, arp.targetIp);
  return frame;
}

/** Tells everybody that `address` is at `mac` now (RFC 5227 §2.3: a request for oneself, which all hosts take notice of). */
export function encodeGratuitousArp(mac: Mac, address: Ipv4): Uint8Array {
  return encodeArp(BROADCAST, {
    operation: "request",
    senderMac: mac,
    senderIp: address,
    targetMac: NOBODY,
    targetIp: address,
  });
}

/** Asks who has `address` without saying that we do (RFC 5227 §2.1.1). */
export function encodeArpProbe(mac: Mac, address: Ipv4): Uint8Array {
  return encodeArp(BROADCAST, {
    operation: "request",
    senderMac: mac,
    senderIp: 0,
    targetMac: NOBODY,
    targetIp: address,
  });
}
