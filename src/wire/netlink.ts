/**
 * Netlink messages and attributes (linux/netlink.h, RFC 3549 §2.3). Integers are in host byte order, which is little-endian
 * on both machines we build for; what is in network order (addresses) travels as octets.
 *
 *      0               4       6       8               12              16
 *     +---------------+-------+-------+---------------+---------------+--------- - -
 *     | length        | type  | flags | sequence      | port          | body, padded to 4
 *     +---------------+-------+-------+---------------+---------------+--------- - -
 *
 * An attribute is [length u16][type u16][payload], its length without the padding to 4.
 */
import { WireError } from "../lib/errors.ts";

/** struct nlmsghdr; offsets in octets. */
export const HEADER = { length: 0, type: 4, flags: 6, sequence: 8, port: 12, octets: 16 } as const;

/** Message types that every protocol shares. */
export const NLMSG = { noop: 1, error: 2, done: 3, overrun: 4 } as const;

/** nlmsg_flags. `replace`, `exclusive`, `create`, `append` are for requests that make something. */
export const FLAG = {
  request: 0x001,
  multi: 0x002,
  ack: 0x004,
  dumpInterrupted: 0x010,
  dump: 0x300,
  replace: 0x100,
  exclusive: 0x200,
  create: 0x400,
  append: 0x800,
  /** On an error: the request is not repeated in it. */
  capped: 0x100,
  /** On an error: attributes with the kernel's own words follow. */
  extendedAck: 0x200,
} as const;

/** Flag in an attribute's type: its payload is attributes. */
const NESTED = 0x8000;
/** The type without NESTED and NET_BYTEORDER. */
const TYPE_MASK = 0x3fff;
const ATTRIBUTE_HEADER = 4;
/** nla_len and a u16 of our own: more cannot be said. */
const ATTRIBUTE_LIMIT = 0xffff;

/** One message; `body` is a view into what it was read from. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly port: number;
  readonly body: Uint8Array;
}

const align = (n: number) => (n + 3) & ~3;

/** A whole message, header included; whoever sends it sets the sequence. */
export function encodeMessage(
  message: { type: number; flags: number; sequence?: number; body: Uint8Array },
): Uint8Array {
  const octets = new Uint8Array(HEADER.octets + align(message.body.length));
  const view = new DataView(octets.buffer);
  view.setUint32(HEADER.length, HEADER.octets + message.body.length, true);
  view.setUint16(HEADER.type, message.type, true);
  view.setUint16(HEADER.flags, message.flags, true);
  view.setUint32(HEADER.sequence, message.sequence ?? 0, true);
  octets.set(message.body, HEADER.octets);
  return octets;
}

/** All messages of one datagram. */
export function decodeMessages(octets: Uint8Array): NetlinkMessage[] {
  const view = viewOf(octets);
  const messages: NetlinkMessage[] = [];
  let at = 0;
  while (at < octets.length) {
    if (octets.length - at < HEADER.octets) {
      throw new WireError(`Cannot read netlink message: header of 16 octets expected, ${octets.length - at} left`);
    }
    const length = view.getUint32(at + HEADER.length, true);
    if (length < HEADER.octets || length > octets.length - at) {
      throw new WireError(`Cannot read netlink message: length ${length} does not fit ${octets.length - at} octets`);
    }
    messages.push({
      type: view.getUint16(at + HEADER.type, true),
      flags: view.getUint16(at + HEADER.flags, true),
      sequence: view.getUint32(at + HEADER.sequence, true),
      port: view.getUint32(at + HEADER.port, true),
      body: octets.subarray(at + HEADER.octets, at + length),
    });
    at += align(length);
  }
  return messages;
}

/** What the kernel answered to a request: 0 where it did as told, else a negative errno, with its own words if it gave any. */
export interface Acknowledgement {
  readonly errno: number;
  readonly text?: string;
  /** Octets into the request where the offending attribute starts. */
  readonly offset?: number;
}

/** Reads the body of an NLMSG_ERROR: [errno i32][header of the request, its body unless capped][attributes]. */
export function decodeAcknowledgement(message: NetlinkMessage): Acknowledgement {
  const { body, flags } = message;
  if (body.length < 4) throw new WireError(`Cannot read netlink error: 4 octets expected, ${body.length} left`);
  const view = viewOf(body);
  const errno = view.getInt32(0, true);
  if ((flags & FLAG.extendedAck) === 0 || body.length < 4 + HEADER.octets) return { errno };
  const repeated = (flags & FLAG.capped) !== 0 ? HEADER.octets : align(view.getUint32(4 + HEADER.length, true));
  if (repeated < HEADER.octets || 4 + repeated > body.length) return { errno };
  const attributes = decodeAttributes(body.subarray(4 + repeated));
  const text = attributes.get(1);
  const offset = attributes.get(2);
  return {
    errno,
    ...(text === undefined ? {} : { text: attributeString(text) }),
    ...(offset === undefined ? {} : { offset: attributeU32(offset) }),
  };
}

/** Builds the fixed part and the attributes of a body. */
export class AttributeWriter {
  #octets: Uint8Array<ArrayBuffer> = new Uint8Array(256);
  #length = 0;

  /** Appends octets as they are: the fixed struct that precedes the attributes. */
  raw(octets: Uint8Array): this {
    this.#octets.set(octets, this.#reserve(octets.length));
    return this;
  }

  bytes(type: number, payload: Uint8Array): this {
    if (payload.length > ATTRIBUTE_LIMIT - ATTRIBUTE_HEADER) {
      throw new RangeError(`Netlink attribute ${type}: at most 65531 octets, is ${payload.length}`);
    }
    const at = this.#header(type, payload.length);
    this.#octets.set(payload, at);
    return this;
  }

  u8(type: number, value: number): this {
    return this.bytes(type, Uint8Array.of(value));
  }

  u16(type: number, value: number): this {
    return this.bytes(type, Uint8Array.of(value, value >>> 8));
  }

  u32(type: number, value: number): this {
    return this.bytes(type, Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24));
  }

  /** As the kernel likes names: UTF-8 and a final NUL. */
  string(type: number, text: string): this {
    return this.bytes(type, new TextEncoder().encode(text + "\0"));
  }

  /** An attribute that holds whatever `fill` writes. */
  nest(type: number, fill: (inner: this) => void): this {
    const at = this.#header(type | NESTED, 0);
    fill(this);
    const length = this.#length - at + ATTRIBUTE_HEADER;
    if (length > ATTRIBUTE_LIMIT) throw new RangeError(`Netlink attribute ${type}: at most 65535 octets, is ${length}`);
    viewOf(this.#octets).setUint16(at - ATTRIBUTE_HEADER, length, true);
    return this;
  }

  /** The body; the writer may not be used again. */
  finish(): Uint8Array {
    return this.#octets.subarray(0, this.#length);
  }

  /** @returns where the payload starts */
  #header(type: number, payloadOctets: number): number {
    const at = this.#reserve(ATTRIBUTE_HEADER + payloadOctets);
    const view = viewOf(this.#octets);
    view.setUint16(at, ATTRIBUTE_HEADER + payloadOctets, true);
    view.setUint16(at + 2, type, true);
    return at + ATTRIBUTE_HEADER;
  }

  /** Room for `octets`, padded to 4 with zeros; returns where it starts. */
  #reserve(octets: number): number {
    const at = this.#length;
    this.#length += align(octets);
    if (this.#length > this.#octets.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#octets.length));
      larger.set(this.#octets);
      this.#octets = larger;
    }
    return at;
  }
}

/** Type → payload, flags of the type taken off; payloads are views. Of several of one type the last counts, as in the kernel. */
export function decodeAttributes(octets: Uint8Array): Map<number, Uint8Array> {
  const view = viewOf(octets);
  const attributes = new Map<number, Uint8Array>();
  let at = 0;
  while (octets.length - at >= ATTRIBUTE_HEADER) {
    const length = view.getUint16(at, true);
    if (length < ATTRIBUTE_HEADER || length > octets.length - at) {
      throw new WireError(`Cannot read netlink attribute: length ${length} does not fit ${octets.length - at} octets`);
    }
    const type = view.getUint16(at + 2, true) & TYPE_MASK;
    attributes.set(type, octets.subarray(at + ATTRIBUTE_HEADER, at + length));
    at += align(length);
  }
  return attributes;
}

export function attributeU8(payload: Uint8Array): number {
  if (payload.length < 1) throw new WireError("Cannot read netlink attribute: 1 octet expected, is empty");
  return payload[0]!;
}

export function attributeU32(payload: Uint8Array): number {
  if (payload.length < 4) {
    throw new WireError(`Cannot read netlink attribute: 4 octets expected, ${payload.length} left`);
  }
  return viewOf(payload).getUint32(0, true);
}

/** Text up to the first NUL, or all of it. */
export function attributeString(payload: Uint8Array): string {
  const end = payload.indexOf(0);
  return new TextDecoder().decode(end < 0 ? payload : payload.subarray(0, end));
}

function viewOf(octets: Uint8Array): DataView {
  return new DataView(octets.buffer, octets.byteOffset, octets.byteLength);
}
