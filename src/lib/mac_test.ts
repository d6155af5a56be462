import assert from "node:assert/strict";
import fc from "fast-check";
import { formatMac, parsePeerName, type PeerName, readMac, writeMac } from "./mac.ts";

interface Case {
  input: string;
  uint?: string;
  bytes?: string;
  canonical?: string;
  error?: boolean;
}

const VECTORS = JSON.parse(Deno.readTextFileSync("test/fixtures/vectors/peer-names.json")) as { cases: Case[] };

for (const { input, uint, bytes, canonical, error } of VECTORS.cases) {
  Deno.test(`parsePeerName() ${error ? "refuses" : "reads"} "${input}" as the vectors say`, () => {
    const name = parsePeerName(input);
    if (error) return assert.equal(name, undefined);
    assert.equal(name, Number(uint));
    assert.equal(formatMac(name!), canonical);
    const octets = new Uint8Array(6);
    writeMac(octets, 0, name!);
    assert.equal(octets.toHex(), bytes);
    assert.equal(readMac(octets, 0), name);
  });
}

Deno.test("parsePeerName() returns what formatMac() wrote", () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 48 - 1 }), (n) => {
    assert.equal(parsePeerName(formatMac(n as PeerName)), n);
    assert.equal(parsePeerName(formatMac(n as PeerName).toUpperCase()), n);
  }));
});

Deno.test("parsePeerName() refuses what has a group too many, too few or malformed", () => {
  const wrong = [
    "1:::2",
    "::1::",
    "1::2::3",
    ":1:2:3:4:5:6",
    "1:2:3:4:5:",
    "1:2:3:4:5:6:",
    "1:2:3:4::5",
    "1:2:3:4:5:6::",
  ];
  for (const text of [...wrong, "-1::", "0x1::", "1.2::", "1:2:3:4:5:6\n", "１::", "::\u00a01"]) {
    assert.equal(parsePeerName(text), undefined, text);
  }
});
