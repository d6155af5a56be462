import assert from "node:assert/strict";
import fc from "fast-check";
import { parseIpv4 } from "../lib/ip.ts";
import type { Mac } from "../lib/mac.ts";
import { decodeArp, encodeArp, encodeArpProbe, encodeGratuitousArp } from "./arp.ts";

Deno.test("encodeGratuitousArp() is a request for oneself to everybody", () => {
  assert.deepEqual([...encodeGratuitousArp(0x0202_0304_0506 as Mac, parseIpv4("10.0.0.1")!)], [
    ...[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 2, 3, 4, 5, 6, 0x08, 0x06],
    ...[/* Ethernet */ 0, 1, /* IPv4 */ 8, 0, 6, 4, /* request */ 0, 1],
    ...[2, 2, 3, 4, 5, 6, 10, 0, 0, 1],
    ...[0, 0, 0, 0, 0, 0, 10, 0, 0, 1],
  ]);
});

Deno.test("encodeArpProbe() claims nothing", () => {
  const probe = decodeArp(encodeArpProbe(5 as Mac, 0x0a000001));
  assert.deepEqual(probe, { operation: "request", senderMac: 5, senderIp: 0, targetMac: 0, targetIp: 0x0a000001 });
});

Deno.test("decodeArp() returns what encodeArp() wrote", () => {
  const mac = fc.integer({ min: 0, max: 2 ** 48 - 1 }).map((n) => n as Mac);
  const ip = fc.integer({ min: 0, max: 0xffffffff });
  const operation = fc.constantFrom("request" as const, "reply" as const);
  const arp = fc.record({ operation, senderMac: mac, senderIp: ip, targetMac: mac, targetIp: ip }, {
    noNullPrototype: true,
  });
  fc.assert(fc.property(arp, mac, (arp, to) => assert.deepEqual(decodeArp(encodeArp(to, arp)), arp)));
});

Deno.test("decodeArp() passes over what is no ARP about IPv4 over Ethernet", () => {
  const frame = encodeArpProbe(5 as Mac, 1);
  assert.notEqual(decodeArp(new Uint8Array([...frame, ...new Uint8Array(18)])), undefined); // padded to 60
  for (let length = 0; length < 42; length++) assert.equal(decodeArp(frame.subarray(0, length)), undefined);
  for (const at of [12, 13, 14, 15, 16, 17, 18, 19, 20]) {
    const other = frame.slice();
    other[at] = 0x7f;
    assert.equal(decodeArp(other), undefined, `octet ${at}`);
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (octets) => void decodeArp(octets)));
});
