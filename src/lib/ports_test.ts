import assert from "node:assert/strict";
import { formatPortRange, parsePortRange, portCount, portsOverlap } from "./ports.ts";

Deno.test("parsePortRange() reads what people write", () => {
  assert.deepEqual(parsePortRange("6379"), { protocol: "tcp", first: 6379, last: 6379 });
  assert.deepEqual(parsePortRange("80/tcp"), { protocol: "tcp", first: 80, last: 80 });
  assert.deepEqual(parsePortRange("10000-20000/udp"), { protocol: "udp", first: 10_000, last: 20_000 });
  for (const text of ["1", "65535", "5060/udp", "1-65535", "7-8/udp"]) {
    assert.equal(formatPortRange(parsePortRange(text)!), text);
  }
  for (const bad of ["", "0", "65536", "80-", "-80", "90-80", "80/sctp", "80,81", " 80", "8 0", "0x50", "80/udp/tcp"]) {
    assert.equal(parsePortRange(bad), undefined, bad);
  }
});

Deno.test("portsOverlap() and portCount() count both ends", () => {
  const range = (text: string) => parsePortRange(text)!;
  assert.ok(portsOverlap(range("80-90"), range("90-99")));
  assert.ok(!portsOverlap(range("80-90"), range("91-99")));
  assert.ok(!portsOverlap(range("80"), range("80/udp")));
  assert.equal(portCount(range("80-90")), 11);
});
