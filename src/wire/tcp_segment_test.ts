import assert from "node:assert/strict";
import { encodeEmptySegment, TCP_FLAG } from "./tcp_segment.ts";

Deno.test("encodeEmptySegment() lays out both headers, with the checksum of RFC 9293", () => {
  const packet = encodeEmptySegment({
    source: 0xc0a8_0101,
    sourcePort: 8000,
    destination: 0xc0a8_010a,
    destinationPort: 40_000,
    sequence: 0x9111_1111,
    acknowledgement: 0x0203_0405,
    flags: TCP_FLAG.syn | TCP_FLAG.ack,
  });
  assert.equal(
    packet.toHex(),
    // version and header length, total length 40, do not fragment, TTL 64, TCP; identification and checksum are the kernel's
    "45000028" + "00004000" + "40060000" + "c0a80101" + "c0a8010a" +
      "1f409c40" + "91111111" + "02030405" + "5012ffff" + packet.toHex().slice(72, 76) + "0000",
  );
  // Whoever receives it sums the same with the checksum, and gets all ones.
  const view = new DataView(packet.buffer);
  let sum = 6 + 20;
  for (let at = 12; at < 40; at += 2) sum += view.getUint16(at);
  assert.equal((sum & 0xffff) + (sum >>> 16), 0xffff);
});
