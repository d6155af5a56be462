import assert from "node:assert/strict";
import fc from "fast-check";
import { mutated } from "../../test/mutated.ts";
import { WireError } from "../lib/errors.ts";
import { formatMac, type PeerName } from "../lib/mac.ts";
import { BOOL, BYTES, GobWriter, slice, STRING, struct, UINT } from "./gob.ts";
import { type ConnectionRecord, decodeTopology, encodeTopology, type PeerRecord, topologyIds } from "./topology.ts";

/** A peer as the vectors have it. */
interface VectorPeer {
  name: string;
  nickName: string;
  uid: string;
  version: string;
  shortID: number;
  hasShortID: boolean;
  connections: { name: string; remoteTCPAddr: string; outbound: boolean; established: boolean }[];
}

const UPDATES =
  (read("topology-updates.json") as { cases: { hex: string; note: string; peers: VectorPeer[] }[] }).cases;

for (const { hex, note, peers } of UPDATES) {
  Deno.test(`decodeTopology() and encodeTopology() agree with the vectors on ${note}`, () => {
    const octets = Uint8Array.fromHex(hex);
    const records = decodeTopology(octets);
    assert.deepEqual(records.map(asVector), peers.map(withoutBytes));
    assert.equal(encodeTopology(records, topologyIds(octets)).toHex(), hex);
    assert.deepEqual(decodeTopology(encodeTopology(records)), records);
  });
}

function asVector(record: PeerRecord): VectorPeer {
  return {
    name: formatMac(record.name),
    nickName: record.nickName,
    uid: String(record.uid),
    version: String(record.version),
    shortID: record.shortId ?? 0,
    hasShortID: record.shortId !== undefined,
    connections: record.connections.map(({ peer, address, outbound, established }) => ({
      name: formatMac(peer),
      remoteTCPAddr: address,
      outbound,
      established,
    })),
  };
}

function withoutBytes({ name, nickName, uid, version, shortID, hasShortID, connections }: VectorPeer): VectorPeer {
  return {
    name,
    nickName,
    uid,
    version,
    shortID,
    hasShortID,
    connections: connections.map(({ name, remoteTCPAddr, outbound, established }) => {
      return { name, remoteTCPAddr, outbound, established };
    }),
  };
}

const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const name = fc.integer({ min: 1, max: 2 ** 48 - 1 }).map((n) => n as PeerName);
const connection: fc.Arbitrary<ConnectionRecord> = fc.record({
  peer: name,
  address: fc.oneof(fc.string({ maxLength: 60, unit: "binary" }), fc.ipV4().map((ip) => `${ip}:6783`)),
  outbound: fc.boolean(),
  established: fc.boolean(),
}, { noNullPrototype: true });
const record: fc.Arbitrary<PeerRecord> = fc.record({
  name,
  nickName: fc.string({ maxLength: 200, unit: "binary" }),
  uid: u64,
  version: fc.oneof(u64, fc.bigInt({ min: 0n, max: 300n })),
  shortId: fc.option(fc.integer({ min: 0, max: 4095 }), { nil: undefined }),
  connections: fc.uniqueArray(connection, { selector: ({ peer }) => peer, maxLength: 40 }),
}, { noNullPrototype: true });

Deno.test("decodeTopology() returns what encodeTopology() wrote", () => {
  fc.assert(fc.property(fc.array(record), (records) => {
    assert.deepEqual(decodeTopology(encodeTopology(records)), records);
  }));
});

Deno.test("encodeTopology() of nobody is nothing", () => {
  assert.equal(encodeTopology([]).length, 0);
  assert.deepEqual(decodeTopology(new Uint8Array()), []);
});

Deno.test("decodeTopology() throws nothing but WireError at whatever octets", () => {
  const octets = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.array(record, { minLength: 1, maxLength: 4 }).chain((records) => mutated(encodeTopology(records))),
  );
  fc.assert(
    fc.property(octets, (octets) => {
      try {
        decodeTopology(octets);
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});

// A sender of another kind --------------------------------------------------------------------------

const OTHER_SUMMARY = struct("Peer", {
  Region: struct("Region", { Id: UINT }),
  Version: UINT,
  NameByte: BYTES,
  UID: UINT,
  Tags: slice(STRING),
});
const OTHER_CONNECTION = struct("Link", { Weight: UINT, Established: BOOL, NameByte: BYTES });
const OTHER_CONNECTIONS = slice(OTHER_CONNECTION);

Deno.test("decodeTopology() goes by the names of fields, and takes what is absent for zero", () => {
  const writer = new GobWriter();
  writer.write(OTHER_SUMMARY, { Region: { Id: 5n }, Version: 3n, NameByte: octetsOf(7), UID: 9n, Tags: ["a", "b"] });
  writer.write(OTHER_CONNECTIONS, [{ Weight: 1n, Established: true, NameByte: octetsOf(8) }]);
  assert.deepEqual(decodeTopology(writer.finish()), [{
    name: 7,
    nickName: "",
    uid: 9n,
    version: 3n,
    shortId: undefined,
    connections: [{ peer: 8, address: "", outbound: false, established: true }],
  }]);
});

Deno.test("decodeTopology() lets the last of several connections to one peer count", () => {
  for (const others of [0, 5, 50]) {
    const connections = Array.from({ length: others + 3 }, (_, i): ConnectionRecord => ({
      peer: Math.max(i, 2) as PeerName,
      address: `${i}`,
      outbound: false,
      established: false,
    }));
    const [decoded] = decodeTopology(encodeTopology([{ ...PEER, connections }]));
    assert.deepEqual(decoded!.connections, connections.slice(2));
  }
});

const PEER: PeerRecord = {
  name: 1 as PeerName,
  nickName: "",
  uid: 1n,
  version: 1n,
  shortId: undefined,
  connections: [],
};
const LINK: ConnectionRecord = { peer: 2 as PeerName, address: "", outbound: false, established: false };

const REFUSED: readonly (readonly [string, Uint8Array])[] = [
  ["a peer without a name", encodeTopology([{ ...PEER, name: 0 as PeerName }])],
  ["a connection to nobody", encodeTopology([{ ...PEER, connections: [{ ...LINK, peer: 0 as PeerName }] }])],
  ["a name of five octets", summaryOf({ NameByte: new Uint8Array(5).fill(1) })],
  ["a name of seven octets", summaryOf({ NameByte: new Uint8Array(7).fill(1) })],
  ["a peer without connections after it", summaryOf({ NameByte: octetsOf(1) })],
  ["a short id that is none", encodeTopology([{ ...PEER, shortId: 4096 }])],
  ["a nick name without end", encodeTopology([{ ...PEER, nickName: "n".repeat(5000) }])],
  ["an address without end", encodeTopology([{ ...PEER, connections: [{ ...LINK, address: "1".repeat(300) }] }])],
  ["more peers than there can be", encodeTopology(Array.from({ length: 16_385 }, () => PEER))],
  ["more connections than peers", encodeTopology([{ ...PEER, connections: new Array(16_385).fill(LINK) }])],
];

for (const [what, octets] of REFUSED) {
  Deno.test(`decodeTopology() refuses ${what}`, () => {
    assert.throws(() => decodeTopology(octets), WireError);
  });
}

Deno.test("decodeTopology() reads the longest update in a moment", () => {
  const connections = Array.from(
    { length: 16_000 },
    (_, i): ConnectionRecord => ({ ...LINK, peer: i + 1 as PeerName }),
  );
  const records = Array.from({ length: 70 }, (_, i): PeerRecord => ({ ...PEER, name: i + 1 as PeerName, connections }));
  const octets = encodeTopology(records);
  assert.ok(octets.length > 10_000_000, `${octets.length}`);
  const started = performance.now();
  assert.equal(decodeTopology(octets).length, 70);
  assert.ok(performance.now() - started < 5000);
});

function summaryOf(fields: { NameByte: Uint8Array }): Uint8Array {
  const writer = new GobWriter();
  writer.write(struct("peerSummary", { NameByte: BYTES }), fields);
  return writer.finish();
}

function octetsOf(name: number): Uint8Array {
  return Uint8Array.of(0, 0, 0, 0, 0, name);
}

function read(name: string): unknown {
  return JSON.parse(Deno.readTextFileSync(`test/fixtures/vectors/${name}`));
}
