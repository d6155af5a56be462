/**
 * Connection tracking as ctnetlink says it (linux/netfilter/nfnetlink_conntrack.h): requests to encode, flows to decode. IPv4 only.
 * Integers in attributes are in network order here, unlike in the rest of netlink.
 */
import { WireError } from "../lib/errors.ts";
import type { Ipv4 } from "../lib/ip.ts";
import { AttributeWriter, encodeMessage, FLAG, HEADER } from "./netlink.ts";

/** Protocol number for socket(AF_NETLINK, …). */
export const NETLINK_NETFILTER = 12;

/** NFNL_SUBSYS_CTNETLINK in the upper octet. */
const MESSAGE = { new: 0x100, get: 0x101, delete: 0x102 } as const;
const AF_INET = 2;
/** struct nfgenmsg: family u8, version u8, resource u16. */
const GENERIC_OCTETS = 4;

/** CTA_*: attributes of a flow, of a tuple, of the two halves of a tuple, and of TCP's state. */
const CTA = { original: 1, reply: 2, protocolInfo: 4, mark: 8, id: 12, zone: 18, markMask: 21 } as const;
const TUPLE = { ip: 1, protocol: 2, zone: 3 } as const;
const IP = { source: 1, destination: 2 } as const;
const PROTOCOL = { number: 1, sourcePort: 2, destinationPort: 3 } as const;
const INFO = { tcp: 1, tcpState: 1 } as const;

export const IPPROTO = { tcp: 6, udp: 17 } as const;

/** TCP_CONNTRACK_* of linux/netfilter/nf_conntrack_tcp.h. */
export const TCP_STATE = {
  synSent: 1,
  synReceived: 2,
  established: 3,
  finWait: 4,
  closeWait: 5,
  lastAck: 6,
  timeWait: 7,
  close: 8,
  synSent2: 9,
} as const;

/** Which flows: `mark & mask` of theirs is `mark`. */
export interface FlowFilter {
  readonly mark: number;
  readonly mask: number;
}

/** One direction of a flow, as its packets arrive. */
export interface FlowTuple {
  /** IPPROTO_*. */
  readonly protocol: number;
  readonly source: Ipv4;
  readonly destination: Ipv4;
  /** 0 where the protocol has none. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** Connection-tracking zone of this direction alone; 0 where it has none, or both have one. */
  readonly zone: number;
}

export interface Flow {
  readonly original: FlowTuple;
  readonly reply: FlowTuple;
  readonly mark: number;
  /** Tells it from another flow with the same tuples. */
  readonly id: number;
  /** Zone of both directions. */
  readonly zone: number;
  /** `TCP_STATE`; undefined for other protocols. */
  readonly tcpState?: number;
}

/** Asks for all flows that match. */
export function encodeListFlows(filter: FlowFilter): Uint8Array {
  return request(MESSAGE.get, FLAG.dump, writeFilter(body(), filter));
}

/** Has all flows that match forgotten. */
export function encodeDeleteFlows(filter: FlowFilter): Uint8Array {
  // Without anything to tell flows by, the kernel would forget all of them.
  if (filter.mask === 0) throw new RangeError("Cannot delete flows by mark: the mask is 0");
  return request(MESSAGE.delete, FLAG.ack, writeFilter(body(), filter));
}

/** Has one flow forgotten, of TCP or UDP; ENOENT where it is not there. */
export function encodeDeleteFlow(flow: Flow): Uint8Array {
  const w = body();
  w.nest(CTA.original, () => writeTuple(w, flow.original));
  if (flow.zone !== 0) w.bytes(CTA.zone, u16(flow.zone));
  return request(MESSAGE.delete, FLAG.ack, w.bytes(CTA.id, u32(flow.id)));
}

/** Calls back for every IPv4 flow in a datagram of the kernel's. */
export function decodeFlows(datagram: Uint8Array, onFlow: (flow: Flow) => void): void {
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.length);
  for (let at = 0; at < datagram.length;) {
    if (datagram.length - at < HEADER.octets) throw tooShort("message", HEADER.octets, datagram.length - at);
    const octets = view.getUint32(at + HEADER.length, true);
    const isFlow = view.getUint16(at + HEADER.type, true) === MESSAGE.new;
    const least = HEADER.octets + (isFlow ? GENERIC_OCTETS : 0);
    if (octets < least || octets > datagram.length - at) throw tooShort("message", octets, datagram.length - at);
    const start = at + HEADER.octets;
    if (isFlow && datagram[start] === AF_INET) onFlow(readFlow(view, start + GENERIC_OCTETS, at + octets));
    at += align(octets);
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** A table may have hundreds of thousands: read in place, without anything made on the way. */
function readFlow(view: DataView, from: number, end: number): Flow {
  const flow: Mutable<Flow> = { original: emptyTuple(), reply: emptyTuple(), mark: 0, id: 0, zone: 0 };
  for (let at = from; at < end;) {
    const next = attributeEnd(view, at, end);
    const payload = at + 4;
    switch (typeAt(view, at)) {
      case CTA.original:
        readTuple(view, payload, next, flow.original);
        break;
      case CTA.reply:
        readTuple(view, payload, next, flow.reply);
        break;
      case CTA.protocolInfo: {
        const state = readTcpState(view, payload, next);
        if (state !== undefined) flow.tcpState = state;
        break;
      }
      case CTA.mark:
        flow.mark = readU32(view, payload, next);
        break;
      case CTA.id:
        flow.id = readU32(view, payload, next);
        break;
      case CTA.zone:
        flow.zone = readU16(view, payload, next);
        break;
    }
    at = align4(at, next);
  }
  return flow;
}

function emptyTuple(): Mutable<FlowTuple> {
  return { protocol: 0, source: 0, destination: 0, sourcePort: 0, destinationPort: 0, zone: 0 };
}

function readTuple(view: DataView, from: number, end: number, tuple: Mutable<FlowTuple>): void {
  for (let at = from; at < end;) {
    const next = attributeEnd(view, at, end);
    const type = typeAt(view, at);
    if (type === TUPLE.ip) readAddresses(view, at + 4, next, tuple);
    else if (type === TUPLE.protocol) readProtocol(view, at + 4, next, tuple);
    else if (type === TUPLE.zone) tuple.zone = readU16(view, at + 4, next);
    at = align4(at, next);
  }
}

function readAddresses(view: DataView, from: number, end: number, tuple: Mutable<FlowTuple>): void {
  for (let at = from; at < end;) {
    const next = attributeEnd(view, at, end);
    const type = typeAt(view, at);
    if (type === IP.source) tuple.source = readU32(view, at + 4, next);
    else if (type === IP.destination) tuple.destination = readU32(view, at + 4, next);
    at = align4(at, next);
  }
}

function readProtocol(view: DataView, from: number, end: number, tuple: Mutable<FlowTuple>): void {
  for (let at = from; at < end;) {
    const next = attributeEnd(view, at, end);
    const type = typeAt(view, at);
    if (type === PROTOCOL.number) tuple.protocol = readU8(view, at + 4, next);
    else if (type === PROTOCOL.sourcePort) tuple.sourcePort = readU16(view, at + 4, next);
    else if (type === PROTOCOL.destinationPort) tuple.destinationPort = readU16(view, at + 4, next);
    at = align4(at, next);
  }
}

function readTcpState(view: DataView, from: number, end: number): number | undefined {
  const tcp = findAttribute(view, INFO.tcp, from, end);
  if (tcp === undefined) return undefined;
  const tcpEnd = attributeEnd(view, tcp, end);
  const state = findAttribute(view, INFO.tcpState, tcp + 4, tcpEnd);
  return state === undefined ? undefined : readU8(view, state + 4, attributeEnd(view, state, tcpEnd));
}

function findAttribute(view: DataView, type: number, from: number, end: number): number | undefined {
  for (let at = from; at < end;) {
    if (typeAt(view, at) === type) return at;
    at = align4(at, attributeEnd(view, at, end));
  }
  return undefined;
}

/** Where the payload of the attribute at `at` ends. @throws WireError where that is not within `end` */
function attributeEnd(view: DataView, at: number, end: number): number {
  const octets = end - at < 4 ? 0 : view.getUint16(at, true);
  if (octets < 4 || octets > end - at) throw tooShort("attribute", Math.max(octets, 4), end - at);
  return at + octets;
}

/** Without the flags that say it is nested or in network order. */
function typeAt(view: DataView, at: number): number {
  return view.byteLength - at < 4 ? 0 : view.getUint16(at + 2, true) & 0x3fff;
}

/** Where the next attribute begins: padded to 4, which the last need not be. */
function align4(at: number, payloadEnd: number): number {
  return at + align(payloadEnd - at);
}

function readU8(view: DataView, at: number, end: number): number {
  if (end - at < 1) throw tooShort("number", 1, end - at);
  return view.getUint8(at);
}

function readU16(view: DataView, at: number, end: number): number {
  if (end - at < 2) throw tooShort("number", 2, end - at);
  return view.getUint16(at);
}

function readU32(view: DataView, at: number, end: number): number {
  if (end - at < 4) throw tooShort("number", 4, end - at);
  return view.getUint32(at);
}

function tooShort(what: string, expected: number, left: number): WireError {
  return new WireError(`Cannot read ${what} of connection tracking: ${expected} octets expected, ${left} left`);
}

const align = (octets: number) => (octets + 3) & ~3;

function body(): AttributeWriter {
  return new AttributeWriter().raw(Uint8Array.of(AF_INET, 0, 0, 0));
}

function writeFilter(w: AttributeWriter, { mark, mask }: FlowFilter): AttributeWriter {
  return mask === 0 ? w : w.bytes(CTA.mark, u32(mark)).bytes(CTA.markMask, u32(mask));
}

function writeTuple(w: AttributeWriter, tuple: FlowTuple): void {
  w.nest(TUPLE.ip, () => w.bytes(IP.source, u32(tuple.source)).bytes(IP.destination, u32(tuple.destination)));
  w.nest(TUPLE.protocol, () => {
    w.u8(PROTOCOL.number, tuple.protocol);
    w.bytes(PROTOCOL.sourcePort, u16(tuple.sourcePort)).bytes(PROTOCOL.destinationPort, u16(tuple.destinationPort));
  });
  if (tuple.zone !== 0) w.bytes(TUPLE.zone, u16(tuple.zone));
}

function u16(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value);
}

function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

function request(type: number, flags: number, w: AttributeWriter): Uint8Array {
  return encodeMessage({ type, flags: FLAG.request | flags, body: w.finish() });
}
