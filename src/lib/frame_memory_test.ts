import assert from "node:assert/strict";
import fc from "fast-check";
import { checksumOf, foldSum, FrameMemory, swap16 } from "./frame_memory.ts";

const WIDE = FrameMemory.allocate(70_000);

Deno.test("sum() agrees with the definition for every alignment and length", () => {
  fc.assert(fc.property(
    fc.uint8Array({ minLength: 0, maxLength: 300 }),
    fc.integer({ min: 0, max: 7 }),
    (octets, at) => {
      const expected = normalized(definition(octets));
      for (const m of [WIDE, new FrameMemory(new ArrayBuffer(512))]) {
        m.u8.fill(0xa5, 0, 512);
        m.u8.set(octets, at);
        assert.equal(normalized(swap16(foldSum(m.sum(at, octets.length)))), expected);
      }
    },
  ));
});

Deno.test("sum() does not overflow over 64 KiB of ones", () => {
  for (const m of [WIDE, new FrameMemory(new ArrayBuffer(65536 + 8))]) {
    m.u8.fill(0xff, 0, 65536 + 8);
    assert.equal(foldSum(m.sum(2, 65536)), 0xffff);
    assert.equal(swap16(foldSum(m.sum(1, 65535))), definition(new Uint8Array(65535).fill(0xff)));
  }
});

Deno.test("checksumOf() gives the header checksum of RFC 1071's kind", () => {
  const header = "4500003044224000800600008c7c19acae241e2b";
  const m = new FrameMemory(new ArrayBuffer(32));
  m.u8.set(Uint8Array.from(header.match(/../g)!, (h) => parseInt(h, 16)));
  m.set16le(10, checksumOf(m.sum(0, 20)));
  assert.equal(m.get16(10), 0x442e);
  assert.equal(foldSum(m.sum(0, 20)), 0xffff);
});

Deno.test("get and set agree in both orders", () => {
  const m = new FrameMemory(new ArrayBuffer(16));
  m.set32(1, 0xfedcba98);
  assert.equal(m.get32(1), 0xfedcba98);
  assert.equal(m.get16(1), 0xfedc);
  assert.equal(m.get16le(1), 0xdcfe);
  m.copy(4, 1, 4);
  assert.ok(m.equal(4, 4, 4) && m.get32(4) === 0xfedcba98 && !m.equal(4, 0, 4));
});

Deno.test("equal() sees every difference at every alignment", () => {
  const m = new FrameMemory(new ArrayBuffer(128));
  for (let a = 0; a < 4; a++) {
    for (let b = 64; b < 68; b++) {
      for (let length = 0; length < 20; length++) {
        for (let different = 0; different < length; different++) {
          m.u8.fill(7);
          assert.ok(m.equal(a, b, length));
          m.u8[b + different] = 8;
          assert.ok(!m.equal(a, b, length));
        }
      }
    }
  }
});

/** RFC 1071 as it stands: add 16-bit words, carry around. */
function definition(octets: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < octets.length; i += 2) {
    sum += (octets[i]! << 8) + (octets[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

/** Zero has two faces in one's complement. */
function normalized(sum: number): number {
  return sum === 0xffff ? 0 : sum;
}
