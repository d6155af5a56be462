import assert from "node:assert/strict";
import fc from "fast-check";
import type { PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import type { PeerRecord } from "../wire/topology.ts";
import { connectionsTo, names, record } from "../../test/sim/records.ts";
import { compareSummary, digestOf, summaryOf } from "./digest.ts";
import { Peers } from "./peers.ts";

const US = 1;

Deno.test("digestOf() is the same for the same records in any order, and another one for any other", () => {
  const all = [record(2, { connections: connectionsTo([9]) }), record(3), record(4)];
  const digest = digestOf(know(all));
  assert.equal(digestOf(know(all.toReversed())), digest);
  const others = [
    all.slice(1),
    [...all, record(5)],
    [...all.slice(1), record(2, { version: 2n })],
    [...all.slice(1), record(2, { uid: 1n << 63n })],
    [...all.slice(1), record(2 + 2 ** 40)],
  ];
  const digests = new Set([digest, ...others.map((records) => digestOf(know(records)))]);
  assert.equal(digests.size, others.length + 1);
});

Deno.test("digestOf() and summaryOf() leave placeholders out", () => {
  const peers = know([record(2, { connections: connectionsTo([3]) })]);
  assert.ok(peers.get(3 as PeerName));
  assert.deepEqual(summaryOf(peers).map((entry) => entry.name), [US, 2]);
  peers.merge([record(3, { uid: 0n, version: 0n })]);
  assert.deepEqual(summaryOf(peers).map((entry) => entry.name), [US, 2]);
});

Deno.test("compareSummary() finds what either side lacks", () => {
  const ours = know([record(2), record(3, { version: 5n }), record(4, { version: 5n }), record(6)]);
  const theirs = know([record(3, { version: 6n }), record(4, { version: 4n }), record(5), record(6)]);
  const { theyLack, weLack, earlierLife } = compareSummary(ours, summaryOf(theirs));
  assert.deepEqual(names(theyLack), names([2, 4] as PeerName[]));
  assert.deepEqual(names(weLack), names([3, 5] as PeerName[]));
  assert.equal(earlierLife, undefined);
});

Deno.test("compareSummary() notices an earlier life of ours", () => {
  const peers = know([]);
  const entry = { name: US as PeerName, uid: 5n, version: 40n };
  assert.deepEqual(compareSummary(peers, [entry]), {
    theyLack: [US],
    weLack: [],
    earlierLife: { uid: 5n, version: 40n },
  });
});

Deno.test("one exchange of digest, summary and difference makes both sides know the same", () => {
  const side = fc.array(fc.tuple(fc.integer({ min: 2, max: 9 }), fc.bigInt({ min: 1n, max: 4n })), { maxLength: 8 });
  fc.assert(fc.property(side, side, (forA, forB) => {
    const [a, b] = [forA, forB].map((list) => know(list.map(([name, version]) => record(name, { version }))));
    const { theyLack, weLack } = compareSummary(b!, summaryOf(a!));
    const [toA, toB] = [pick(b!, theyLack), pick(a!, weLack)];
    assert.deepEqual(
      a!.merge(toA).improved.map((node) => node.name).sort(),
      [...theyLack].filter((name) => name !== US).sort(),
    );
    assert.deepEqual(b!.merge(toB).improved.map((node) => node.name).sort(), [...weLack].sort());
    assert.equal(digestOf(a!), digestOf(b!));
  }));
});

function know(records: readonly PeerRecord[]): Peers {
  const peers = new Peers(record(US), new SeededRandom(1));
  peers.merge(records);
  return peers;
}

function pick(peers: Peers, names: readonly PeerName[]): PeerRecord[] {
  return names.map((name) => peers.get(name)!);
}
