import assert from "node:assert/strict";
import fc from "fast-check";
import { importOf, knownOf, SUBNET } from "../../test/service_records.ts";
import { parseCidr } from "../lib/ip.ts";
import { virtualAddress, virtualAddresses } from "./records.ts";

const OTHER = parseCidr("10.64.0.0/24")!;

Deno.test("virtualAddresses() takes the oldest proposal of each subnet, and of equally old ones the lowest", () => {
  const imports = [
    knownOf(1, importOf("a", { offers: [{ address: 0x0a20_0009, since: 5 }] })),
    knownOf(
      2,
      importOf("a", { offers: [{ address: 0x0a20_0007, since: 5 }, { subnet: OTHER, address: 0x0a40_0001 }] }),
    ),
    knownOf(3, importOf("a", { offers: [{ address: 0x0a20_0001, since: 6 }] })),
    knownOf(4, importOf("a", { offers: [{ address: 0x0a20_0007, since: 5 }] }), false),
  ];
  assert.deepEqual(virtualAddresses(imports), [
    { subnet: { address: 0x0a20_0000, prefixLength: 12 }, address: 0x0a20_0007, since: 5, proposers: [2, 4] },
    { subnet: OTHER, address: 0x0a40_0001, since: 1_000, proposers: [2] },
  ]);
  assert.equal(virtualAddress(imports, { address: 0x0a2f_0101, prefixLength: 12 })?.address, 0x0a20_0007);
  assert.equal(virtualAddress(imports, parseCidr("10.32.0.0/13")!), undefined);
  assert.deepEqual(virtualAddresses([]), []);
});

Deno.test("an address stays when whoever proposed it first goes, as those who joined propose the same", () => {
  const first = knownOf(9, importOf("a", { offers: [{ address: 0x0a20_0009, since: 5 }] }));
  const second = knownOf(2, importOf("a", { offers: [{ address: 0x0a20_0009, since: 5 }] }));
  assert.equal(virtualAddress([first, second], SUBNET)?.address, virtualAddress([second], SUBNET)?.address);
});

Deno.test("everybody finds the same address, in whatever order records came, and an importer that joins changes none", () => {
  const offer = fc.record({
    owner: fc.integer({ min: 1, max: 9 }),
    address: fc.integer({ min: 0x0a20_0001, max: 0x0a20_0008 }),
    since: fc.nat(5),
  });
  const imports = fc.uniqueArray(offer, { selector: ({ owner }) => owner, minLength: 1 });
  fc.assert(fc.property(imports, fc.nat(), (all, turn) => {
    const known = all.map(({ owner, address, since }) =>
      knownOf(owner, importOf("a", { offers: [{ address, since }] }))
    );
    const found = virtualAddresses(known);
    const turned = [...known.slice(turn % known.length), ...known.slice(0, turn % known.length)].reverse();
    assert.deepEqual(virtualAddresses(turned), found);
    const { address, since } = found[0]!;
    const joined = virtualAddresses([...known, knownOf(99, importOf("a", { offers: [{ address, since }] }))]);
    assert.equal(joined[0]!.address, address);
    assert.ok(joined[0]!.proposers.includes(99 as never));
  }));
});
