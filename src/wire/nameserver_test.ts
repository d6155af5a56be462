import assert from "node:assert/strict";
import fc from "fast-check";
import { asVector, fromVector, type VectorEntry } from "../../test/name_vectors.ts";
import { mutated } from "../../test/mutated.ts";
import { WireError } from "../lib/errors.ts";
import type { PeerName } from "../lib/mac.ts";
import { GobWriter, INT, slice, STRING, struct, UINT } from "./gob.ts";
import { compareOnWire, decodeNames, encodeNames, identityOf, type NameEntry, nameIds } from "./nameserver.ts";

interface GossipCase {
  hex: string;
  input: VectorEntry[];
  note: string;
  timestamp: string;
  wire_order: VectorEntry[];
}

for (const { hex, input, note, timestamp, wire_order } of vectors<GossipCase>("nameserver-gossip.json")) {
  Deno.test(`encodeNames() and decodeNames() agree with the vectors on ${note}`, () => {
    const octets = Uint8Array.fromHex(hex);
    const decoded = decodeNames("addresses", octets);
    assert.equal(String(decoded.timestamp), timestamp);
    assert.deepEqual(decoded.entries.map(asVector), wire_order);
    assert.equal(decoded.refused, 0);
    const payload = { timestamp: Number(timestamp), entries: input.map(fromVector), leaving: 0n };
    assert.equal(encodeNames("addresses", payload, nameIds("addresses", octets)).toHex(), hex);
  });
}

interface MergeCase {
  incoming: VectorEntry[];
  incoming_hex: string;
  note: string;
  timestamp: string;
}

Deno.test("decodeNames() reads what the merges of the vectors are given", () => {
  for (const { incoming, incoming_hex, note, timestamp } of vectors<MergeCase>("nameserver-merge.json")) {
    const octets = Uint8Array.fromHex(incoming_hex);
    const decoded = decodeNames("addresses", octets);
    assert.deepEqual(decoded.entries, incoming.map(fromVector).sort(compareOnWire), note);
    assert.equal(String(decoded.timestamp), timestamp);
    assert.equal(encodeNames("addresses", decoded, nameIds("addresses", octets)).toHex(), incoming_hex, note);
  }
});

const integer = fc.oneof(fc.nat(300), fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER - 2 }));
function entryWith(data: fc.Arbitrary<number> | fc.Arbitrary<string>): fc.Arbitrary<NameEntry> {
  return fc.record({
    hostname: fc.string({ maxLength: 100, unit: "grapheme" }),
    origin: fc.integer({ min: 0, max: 2 ** 48 - 1 }).map((n) => n as PeerName),
    containerId: fc.string({ maxLength: 70, unit: "binary-ascii" }),
    data: data as fc.Arbitrary<number | string>,
    version: fc.oneof(integer, fc.integer({ min: -5, max: 5 })),
    tombstone: integer,
  }, { noNullPrototype: true });
}

Deno.test("decodeNames() returns what encodeNames() was given, sorted", () => {
  const addresses = entryWith(fc.integer({ min: 0, max: 2 ** 32 - 1 }));
  const records = entryWith(fc.string({ minLength: 1, maxLength: 200, unit: "grapheme" }));
  const entries = (entry: fc.Arbitrary<NameEntry>) => fc.uniqueArray(entry, { selector: identityOf, maxLength: 30 });
  fc.assert(fc.property(integer, entries(addresses), (timestamp, list) => {
    const decoded = decodeNames("addresses", encodeNames("addresses", { timestamp, entries: list, leaving: 0n }));
    assert.deepEqual(decoded, {
      timestamp,
      entries: [...list].sort(compareOnWire),
      leaving: 0n,
      removed: 0,
      refused: 0,
    });
  }));
  fc.assert(
    fc.property(entries(records), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.nat(9), (list, leaving, peer) => {
      const payload = { timestamp: 1, entries: list, leaving, removed: peer as PeerName };
      const decoded = decodeNames("records", encodeNames("records", payload));
      assert.deepEqual(decoded, { ...payload, entries: [...list].sort(compareOnWire), refused: 0 });
    }),
  );
});

Deno.test("encodeNames() and decodeNames() let no identity through twice, and keep the version that holds", () => {
  const old = fromVector(ENTRY);
  const payload = (entries: NameEntry[]) => ({ timestamp: 5, entries, leaving: 0n });
  const dead = { ...old, tombstone: 9 };
  const newer = { ...old, version: 1 };
  const once = decodeNames("addresses", encodeNames("addresses", payload([old, newer, dead])));
  assert.deepEqual(once.entries, [newer]);
  assert.deepEqual(decodeNames("addresses", encodeNames("addresses", payload([dead, old]))).entries, [dead]);
  const twice = decodeNames("addresses", written([{ ...RAW, Version: 3n }, RAW, { ...RAW, Hostname: "A." }]));
  assert.deepEqual(twice.entries.map(({ hostname, version }) => [hostname, version]), [["A.", 0], ["a.", 3]]);
});

Deno.test("decodeNames() leaves out what no router could have meant, and reads the rest", () => {
  const wrong = [
    { ...RAW, Origin: 2n ** 48n },
    { ...RAW, Hostname: "a".repeat(1025) },
    { ...RAW, ContainerID: "a".repeat(1025) },
    { ...RAW, Version: 2n ** 62n },
    { ...RAW, Version: 2n ** 53n - 1n },
    { ...RAW, Tombstone: -1n },
  ];
  const decoded = decodeNames("addresses", written([...wrong, RAW]));
  assert.equal(decoded.refused, wrong.length);
  assert.deepEqual(decoded.entries.map(({ hostname }) => hostname), ["a."]);
});

Deno.test("decodeNames() refuses what is no payload of this channel", () => {
  const whole = written([RAW]);
  for (const octets of [new Uint8Array(), whole.subarray(0, -1), new Uint8Array([...whole, ...whole])]) {
    assert.throws(() => decodeNames("addresses", octets), WireError);
  }
  assert.equal(decodeNames("records", whole).refused, 1, "an entry without a record");
  assert.throws(() => decodeNames("addresses", written([{ ...RAW, Addr: 2n ** 32n }])), WireError);
});

Deno.test("decodeNames() survives any octets", () => {
  const known = vectors<GossipCase>("nameserver-gossip.json").map(({ hex }) => Uint8Array.fromHex(hex));
  fc.assert(fc.property(fc.constantFrom(...known).chain(mutated), (octets) => {
    for (const kind of ["addresses", "records"] as const) {
      try {
        const decoded = decodeNames(kind, octets);
        assert.deepEqual(decodeNames(kind, encodeNames(kind, decoded)), { ...decoded, refused: 0 });
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
      }
    }
  }));
});

const ENTRY: VectorEntry = {
  addr: "10.32.0.1",
  containerID: "c1",
  hostname: "a.weave.local.",
  origin: "02:aa:00:00:00:01",
  tombstone: "0",
  version: 0,
};

const RAW = { ContainerID: "c", Origin: 1n, Addr: 2n, Hostname: "a.", Version: 0n, Tombstone: 0n };

/** As no encoder of ours would write it. */
function written(entries: (typeof RAW)[]): Uint8Array {
  const entry = struct("Entry", {
    ContainerID: STRING,
    Origin: UINT,
    Addr: UINT,
    Hostname: STRING,
    Version: INT,
    Tombstone: INT,
  });
  const writer = new GobWriter();
  writer.write(struct("GossipData", { Timestamp: INT, Entries: slice(entry) }), { Timestamp: 7n, Entries: entries });
  return writer.finish();
}

function vectors<T>(file: string): T[] {
  return JSON.parse(Deno.readTextFileSync(`test/fixtures/vectors/${file}`)).cases;
}
