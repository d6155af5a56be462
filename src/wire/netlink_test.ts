import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../lib/errors.ts";
import {
  attributeString,
  attributeU32,
  attributeU8,
  AttributeWriter,
  decodeAcknowledgement,
  decodeAttributes,
  decodeMessages,
  encodeMessage,
  FLAG,
  NLMSG,
} from "./netlink.ts";

Deno.test("encodeMessage() lays out the header as linux/netlink.h says and pads the body to 4", () => {
  const octets = encodeMessage({ type: 16, flags: FLAG.request | FLAG.ack, sequence: 7, body: Uint8Array.of(1, 2, 3) });
  assert.deepEqual(
    [...octets],
    [19, 0, 0, 0, /* type */ 16, 0, /* flags */ 5, 0, /* sequence */ 7, 0, 0, 0, /* port */ 0, 0, 0, 0, 1, 2, 3, 0],
  );
});

Deno.test("AttributeWriter nests attributes with the kernel's flag and pads each to 4", () => {
  const body = new AttributeWriter().u8(1, 9).nest(18, (w) => w.string(1, "veth")).u32(4, 1376).finish();
  assert.deepEqual([...body], [
    ...[5, 0, 1, 0, 9, 0, 0, 0],
    ...[16, 0, 18, 0x80, /* inside */ 9, 0, 1, 0, 0x76, 0x65, 0x74, 0x68, 0, 0, 0, 0],
    ...[8, 0, 4, 0, 0x60, 0x05, 0, 0],
  ]);
});

Deno.test("AttributeWriter refuses a payload that its length field cannot say", () => {
  assert.throws(() => new AttributeWriter().bytes(1, new Uint8Array(65532)), RangeError);
  assert.throws(
    () => new AttributeWriter().nest(1, (w) => w.bytes(2, new Uint8Array(40000)).bytes(3, new Uint8Array(40000))),
    RangeError,
  );
});

Deno.test("decodeMessages() returns what encodeMessage() wrote, several to a datagram", () => {
  const message = fc.record({
    type: fc.integer({ min: 0, max: 0xffff }),
    flags: fc.integer({ min: 0, max: 0xffff }),
    sequence: fc.integer({ min: 0, max: 0xffffffff }),
    body: fc.uint8Array({ maxLength: 50 }),
  });
  fc.assert(fc.property(fc.array(message, { maxLength: 5 }), (messages) => {
    const octets = new Uint8Array(messages.flatMap((m) => [...encodeMessage(m)]));
    const back = decodeMessages(octets).map(({ type, flags, sequence, body }) => ({ type, flags, sequence, body }));
    assert.deepEqual(
      back.map((m) => ({ ...m, body: [...m.body] })),
      messages.map((m) => ({ ...m, body: [...m.body] })),
    );
  }));
});

Deno.test("decodeAttributes() returns what AttributeWriter wrote", () => {
  const attribute = fc.tuple(fc.integer({ min: 1, max: 0x3fff }), fc.uint8Array({ maxLength: 300 }));
  fc.assert(fc.property(fc.uniqueArray(attribute, { selector: (a) => a[0], maxLength: 20 }), (attributes) => {
    const writer = new AttributeWriter();
    for (const [type, payload] of attributes) writer.bytes(type, payload);
    const back = decodeAttributes(writer.finish());
    assert.deepEqual([...back].map(([type, payload]) => [type, [...payload]]), attributes.map(([t, p]) => [t, [...p]]));
  }));
});

Deno.test("decoders throw nothing but WireError on random octets", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (octets) => {
    onlyWireError(() => decodeMessages(octets));
    onlyWireError(() => decodeAttributes(octets));
    onlyWireError(() => attributeU8(octets));
    onlyWireError(() => attributeU32(octets));
    onlyWireError(() => attributeString(octets));
    onlyWireError(() =>
      decodeAcknowledgement({ type: 2, flags: FLAG.extendedAck | FLAG.capped, sequence: 0, port: 0, body: octets })
    );
    onlyWireError(() =>
      decodeAcknowledgement({ type: 2, flags: FLAG.extendedAck, sequence: 0, port: 0, body: octets })
    );
  }));
});

Deno.test("decodeAcknowledgement() finds the kernel's words behind a capped and behind a whole request", () => {
  const words = new AttributeWriter().string(1, "Device is already a port").u32(2, 36).finish();
  const original = encodeMessage({ type: 16, flags: FLAG.request, body: new Uint8Array(20) });
  for (const [flags, repeated] of [[FLAG.capped, original.subarray(0, 16)], [0, original]] as const) {
    const errno = Uint8Array.of(0xf0, 0xff, 0xff, 0xff); // -16, EBUSY
    const body = new Uint8Array([...errno, ...repeated, ...words]);
    const message = { type: NLMSG.error, flags: flags | FLAG.extendedAck, sequence: 1, port: 0, body };
    assert.deepEqual(decodeAcknowledgement(message), { errno: -16, text: "Device is already a port", offset: 36 });
  }
});

Deno.test("decodeAcknowledgement() does without words", () => {
  const message = { type: NLMSG.error, flags: 0, sequence: 1, port: 0, body: new Uint8Array(20) };
  assert.deepEqual(decodeAcknowledgement(message), { errno: 0 });
});

function onlyWireError(f: () => unknown): void {
  try {
    f();
  } catch (error) {
    assert.ok(error instanceof WireError, String(error));
  }
}
