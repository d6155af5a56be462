import assert from "node:assert/strict";
import fc from "fast-check";
import { mutated } from "../../test/mutated.ts";
import { WireError } from "../lib/errors.ts";
import {
  BOOL,
  BYTES,
  decodeGob,
  encodeGob,
  GobReader,
  GobWriter,
  INT,
  map,
  optional,
  type Schema,
  type SchemaOf,
  slice,
  STRING,
  struct,
  UINT,
  unsigned,
} from "./gob.ts";

// Against what Go makes ---------------------------------------------------------------------------

interface Primitive {
  type: string;
  value?: string | boolean;
  value_hex?: string;
}

interface PrimitiveCase extends Primitive {
  hex: string;
  values?: Primitive[];
}

for (const { hex, values, ...single } of (read("gob-primitives.json") as { cases: PrimitiveCase[] }).cases) {
  const all = values ?? [single as Primitive];
  Deno.test(`GobReader and GobWriter agree with the vectors on ${hex.slice(0, 40)}`, () => {
    const reader = new GobReader(Uint8Array.fromHex(hex));
    const writer = new GobWriter();
    for (const expected of all) {
      const { schema, value } = primitive(expected);
      assert.equal(reader.next(), true);
      assert.deepEqual(reader.read(schema), value);
      writer.write(schema, value);
    }
    assert.equal(reader.next(), false);
    assert.equal(writer.finish().toHex(), hex);
  });
}

function primitive({ type, value, value_hex }: Primitive): { schema: SchemaOf<unknown>; value: unknown } {
  switch (type) {
    case "uint":
      return { schema: UINT, value: BigInt(value as string) };
    case "int":
      return { schema: INT, value: BigInt(value as string) };
    case "bool":
      return { schema: BOOL, value };
    case "string":
      return { schema: STRING, value };
    case "bytes":
      return { schema: BYTES, value: Uint8Array.fromHex(value_hex!) };
    default:
      throw new Error(`Unknown type ${type}`);
  }
}

/** What two real routers said about addresses and names, as Go's declarations have it; it leaves out some of their names. */
const NODE = struct("", /* NodeID */ { Name: UINT, UID: UINT });
const PROPOSAL = struct("ProposalID", { Round: UINT, Proposer: NODE });
const ACCEPTED = struct("AcceptedValue", { Value: slice(UINT, "Value"), Origin: PROPOSAL });
const CLAIMS = struct("", /* NodeClaims */ { Promise: PROPOSAL, Accepted: PROPOSAL, AcceptedVal: ACCEPTED });
const ENTRY = struct("", /* entry */ { Token: unsigned(32), Peer: UINT, Version: unsigned(32), Free: unsigned(32) });
const RING = struct("Ring", {
  Start: unsigned(32),
  End: unsigned(32),
  Peer: UINT,
  Entries: slice(ENTRY, "entries"),
  Seeds: slice(UINT, "[]mesh.PeerName"),
});
const ADDRESSES = struct("gossipState", {
  Now: INT,
  Nicknames: map(UINT, STRING, "map[mesh.PeerName]string"),
  Paxos: optional(map(NODE, CLAIMS, "GossipState")),
  Ring: optional(RING),
});
const NAMES = struct("GossipData", {
  Timestamp: INT,
  Entries: slice(
    struct("Entry", {
      ContainerID: STRING,
      Origin: UINT,
      Addr: unsigned(32),
      Hostname: STRING,
      Version: INT,
      Tombstone: INT,
    }),
    "Entries",
  ),
});

for (const session of ["plain", "encrypted", "relay", "nofrag", "dup"]) {
  Deno.test(`decodeGob() and GobWriter agree with a recorded session, ${session}, on addresses and names`, () => {
    let addresses = 0;
    let names = 0;
    for (const { payload, said } of recordedGossip(`recorded-tcp-${session}.json`)) {
      if (said.ipam) {
        const state = roundTrip(ADDRESSES, payload);
        assert.equal(String(state.Now), said.ipam.now);
        assert.deepEqual(state.Nicknames.map(([, nick]) => nick), Object.values(said.ipam.nicknames));
        assert.equal(state.Paxos?.length ?? 0, said.ipam.paxos?.length ?? 0);
        addresses++;
      }
      if (said.nameserver) {
        const state = roundTrip(NAMES, payload);
        assert.equal(String(state.Timestamp), said.nameserver.timestamp);
        assert.equal(state.Entries.length, said.nameserver.entries.length);
        names++;
      }
    }
    assert.ok(addresses > 0 && names > 0, `${addresses} and ${names}`);
  });
}

interface Said {
  kind?: string;
  ipam?: { now: string; nicknames: Record<string, string>; paxos?: unknown[] };
  nameserver?: { timestamp: string; entries: unknown[] };
}

/** Payloads of gossip and broadcasts, cut out of their envelopes: the bytes at the end. */
function* recordedGossip(name: string): Generator<{ payload: Uint8Array; said: Said }> {
  const { transcript } = read(name) as {
    transcript: { frame?: string; plaintext?: string; decoded?: Said }[];
  };
  for (const { frame, plaintext, decoded } of transcript) {
    if (!decoded?.kind?.startsWith("gossip") || decoded.kind.includes("unicast")) continue;
    const reader = new GobReader(Uint8Array.fromHex(plaintext ?? frame!.slice(8)).subarray(1));
    reader.next();
    reader.read(STRING);
    reader.next();
    reader.read(UINT);
    reader.next();
    yield { payload: reader.read(BYTES), said: decoded };
  }
}

/** Decodes, and checks that the same octets come out again with the same ids. */
function roundTrip<T>(schema: SchemaOf<T>, octets: Uint8Array): T {
  const reader = new GobReader(octets);
  assert.equal(reader.next(), true);
  const value = reader.read(schema);
  assert.equal(reader.next(), false);
  const writer = new GobWriter(16, reader.ids);
  writer.write(schema, value);
  assert.equal(writer.finish().toHex(), octets.toHex());
  return value;
}

Deno.test("encodeGob() makes the annotated example of a map with one entry", () => {
  assert.equal(
    encodeGob(map(STRING, STRING), [["Name", "02:aa:00:00:00:01"]]).toHex(),
    "0eff81040102ff8200010c010c00001bff820001044e616d651130323a61613a30303a30303a30303a3031",
  );
});

// What a sender may do otherwise than we do ---------------------------------------------------------

const SMALL = struct("Small", { A: UINT, B: STRING, C: BOOL });

Deno.test("decodeGob() goes by the names of fields, whatever their order, numbers and types around them", () => {
  const nested = struct("Nested", { Deep: slice(map(STRING, BYTES)), N: INT });
  const theirs = struct("Other", {
    Unknown: nested,
    C: BOOL,
    Alien: slice(nested),
    A: UINT,
    Strange: BYTES,
    B: STRING,
  });
  const inner = { Deep: [[["k", Uint8Array.of(1)]], []] as [string, Uint8Array][][], N: -300n };
  const octets = encodeGob(theirs, {
    Unknown: inner,
    C: true,
    Alien: [inner, inner],
    A: 7n,
    Strange: new Uint8Array(300),
    B: "b",
  });
  assert.deepEqual(decodeGob(octets, SMALL), { A: 7n, B: "b", C: true });
});

Deno.test("decodeGob() makes what is absent zero, and tells an absent map from an empty one", () => {
  const other = struct("S", { A: UINT });
  assert.deepEqual(decodeGob(encodeGob(other, { A: 0n }), SMALL), { A: 0n, B: "", C: false });
  const maps = struct("M", { A: UINT, Maybe: optional(map(UINT, UINT)), Always: map(UINT, UINT) });
  for (const Maybe of [undefined, []]) {
    assert.deepEqual(decodeGob(encodeGob(maps, { A: 1n, Maybe, Always: [] }), maps), { A: 1n, Maybe, Always: [] });
  }
});

Deno.test("decodeGob() takes definitions in any order, before the value that needs them", () => {
  // A slice of 100 whose element, 70, is a struct that is defined after it; and one that nobody uses.
  const octets = stream(
    [...int(-100), 2, 1, 2, ...int(100), 0, 1, ...int(70), 0, 0],
    [...int(-80), 2, 1, 2, ...int(80), 0, 1, ...int(9999), 0, 0],
    [...int(-70), 3, 1, 2, ...int(70), 0, 1, 1, 1, 1, 65, 1, ...int(3), 0, 0, 0],
    [...int(100), 0, 2, 1, 5, 0, 0],
  );
  const s = slice(struct("", { A: UINT }));
  assert.deepEqual(decodeGob(octets, s), [{ A: 5n }, { A: 0n }]);
});

Deno.test("decodeGob() passes over every kind of value that it does not know", () => {
  // struct { F float; C complex; Y array of 2 bool; O opaque; A uint }
  const fields = [["F", 4], ["C", 7], ["Y", 66], ["O", 67], ["A", 3]] as const;
  const octets = stream(
    [...int(-65), 3, 1, 2, ...int(65), 0, 1, fields.length, ...fields.flatMap(([n, id]) => field(n, id)), 0, 0],
    [...int(-66), 1, 1, 2, ...int(66), 0, 1, ...int(1), 1, ...int(2), 0, 0],
    [...int(-67), 5, 1, 2, ...int(67), 0, 0, 0],
    [...int(65), 1, 0xfe, 0xf0, 0x3f, 1, 1, 0xfe, 0x08, 0x40, 1, 2, 1, 0, 1, 3, 9, 9, 9, 1, 6, 0],
  );
  assert.deepEqual(decodeGob(octets, struct("", { A: UINT })), { A: 6n });
});

Deno.test("decodeGob() makes replacement characters of what is no UTF-8", () => {
  for (const length of [3, 40]) {
    const text = [0xc3, ...new Array(length - 2).fill(0x61), 0xff];
    const value = decodeGob(stream([...int(6), 0, length, ...text]), STRING);
    assert.equal(value, "\ufffd" + "a".repeat(length - 2) + "\ufffd");
  }
  assert.equal(decodeGob(encodeGob(STRING, "\ufeffbom"), STRING), "\ufeffbom");
});

Deno.test("decodeGob() accepts numbers that are longer than they must be", () => {
  assert.equal(decodeGob(stream([...int(3), 0, 0xfd, 0, 0, 5]), UINT), 5n);
});

// What a sender must not do -------------------------------------------------------------------------

const ELEMENT_ITSELF = [...int(-65), 2, 1, 2, ...int(65), 0, 1, ...int(65), 0, 0];
const STRUCT_OF_66 = [...int(-67), 3, 1, 2, ...int(67), 0, 1, 2, ...field("X", 65), ...field("A", 3), 0, 0];

const MALFORMED: readonly (readonly [string, Schema, Uint8Array])[] = [
  ["nothing at all", UINT, new Uint8Array()],
  ["a message without content", UINT, Uint8Array.of(0)],
  ["a message longer than the stream", UINT, Uint8Array.of(4, 6, 0, 1)],
  ["a message with something behind its value", UINT, stream([...int(3), 0, 1, 1])],
  ["two values for one", UINT, stream([...int(3), 0, 1], [...int(3), 0, 1])],
  ["a value without its zero", UINT, stream([...int(3), 1])],
  ["a number of nine octets", UINT, stream([...int(3), 0, 0xf7, 1, 1, 1, 1, 1, 1, 1, 1, 1])],
  ["a number cut short", UINT, stream([...int(3), 0, 0xf8, 1])],
  ["a number too great for its place", unsigned(16), encodeGob(UINT, 0x1_0000n)],
  ["a number far too great for its place", unsigned(53), encodeGob(UINT, 2n ** 64n - 1n)],
  ["a bool that is neither", BOOL, stream([...int(1), 0, 2])],
  ["another kind", UINT, encodeGob(INT, 1n)],
  ["another kind of element", slice(UINT), encodeGob(slice(INT), [1n])],
  ["a map for a slice", slice(UINT), encodeGob(map(UINT, UINT), [[1n, 1n]])],
  ["another kind of field", SMALL, encodeGob(struct("", { A: STRING }), { A: "" })],
  ["a struct without a field that we know", SMALL, encodeGob(struct("", { Z: UINT }), { Z: 1n })],
  ["a string longer than its message", STRING, stream([...int(6), 0, 5, 65])],
  ["more elements than octets", slice(UINT), stream(...definitions(slice(UINT)), [...int(65), 0, 0xfb, 1, 0, 0, 0, 0])],
  ["more pairs than octets", map(UINT, UINT), stream(...definitions(map(UINT, UINT)), [...int(65), 0, 3, 0, 0])],
  ["a type that is not defined", slice(UINT), stream([...int(65), 0, 0])],
  ["a type defined twice", slice(UINT), stream(...definitions(slice(UINT)), ...definitions(slice(UINT)))],
  ["a definition of a type that Go has", UINT, stream([...int(-3), 2, 1, 2, ...int(3), 0, 1, ...int(3), 0, 0])],
  ["a definition of nothing", UINT, stream([...int(-65), 0])],
  ["a definition of two things", UINT, stream([...int(-65), 1, 0, 1, 0, 0])],
  ["a definition of a kind there is not", UINT, stream([...int(-65), 9, 0, 0])],
  ["a field past the end of a struct", SMALL, stream(...definitions(SMALL), [...int(65), 4, 1, 0])],
  ["a field far past the end", SMALL, stream(...definitions(SMALL), [...int(65), 0xf8, ...Array(8).fill(0xff), 1, 0])],
  ["a struct that does not end", SMALL, stream(...definitions(SMALL), [...int(65), 1, 1])],
  [
    "values lying too deep in each other",
    struct("", { A: UINT }),
    stream(STRUCT_OF_66, ELEMENT_ITSELF, [...int(67), 1, ...new Array(100).fill(1), 0, 1, 1, 0]),
  ],
  [
    "too many definitions",
    UINT,
    stream(...Array.from({ length: 257 }, (_, i) => [...int(-65 - i), 2, 1, 2, ...int(65 + i), 0, 1, ...int(3), 0, 0])),
  ],
];

for (const [what, schema, octets] of MALFORMED) {
  Deno.test(`decodeGob() refuses ${what}`, () => {
    assert.throws(() => decodeGob(octets, schema as SchemaOf<unknown>), WireError);
  });
}

Deno.test("decodeGob() takes no room for elements that are all zero", () => {
  const zeros = new Uint8Array(1_000_000);
  const octets = new Uint8Array([
    ...stream(...definitions(slice(SMALL))),
    ...[...uint(zeros.length + 7), ...int(65), 0, 0xfd, 0x0f, 0x42, 0x40],
    ...zeros,
  ]);
  const values = decodeGob(octets, slice(SMALL));
  assert.equal(values.length, 1_000_000);
  assert.ok(values.every((value) => value === values[0]));
});

Deno.test("decodeGob() stays quick with a struct of many fields that is used many times", () => {
  const names = Array.from({ length: 20_000 }, (_, i) => `f${i}`);
  const definition = [...int(-65), 3, 1, 2, ...int(65), 0, 1, ...uint(names.length + 1)];
  for (const name of [...names, "A"]) definition.push(...field(name, 3));
  const slices = [...int(-66), 2, 1, 2, ...int(66), 0, 1, ...int(65), 0, 0];
  const value = [...int(66), 0, ...uint(50_000)];
  for (let i = 0; i < 50_000; i++) value.push(0xfe, 0x4e, 0x21, 1, 0); // the last field of all
  const octets = stream([...definition, 0, 0], slices, value);
  const started = performance.now();
  assert.equal(decodeGob(octets, slice(struct("", { A: UINT })))[49_999]!.A, 1n);
  assert.ok(performance.now() - started < 2000);
});

// Properties ----------------------------------------------------------------------------------------

const RICH = struct("Rich", {
  Int: INT,
  Uint: UINT,
  Number: unsigned(48),
  Bool: BOOL,
  String: STRING,
  Bytes: BYTES,
  Small: SMALL,
  Smalls: slice(SMALL),
  Lists: slice(slice(INT)),
  Map: map(STRING, SMALL),
  Maybe: optional(map(UINT, BYTES)),
});

const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const i64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const text = fc.string({ unit: "binary" });
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }) => fc.record(model, { noNullPrototype: true });
const small = record({ A: u64, B: text, C: fc.boolean() });
const rich = record({
  Int: i64,
  Uint: u64,
  Number: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
  Bool: fc.boolean(),
  String: text,
  Bytes: fc.uint8Array({ maxLength: 300 }),
  Small: small,
  Smalls: fc.array(small),
  Lists: fc.array(fc.array(i64)),
  Map: fc.array(fc.tuple(text, small)),
  Maybe: fc.option(fc.array(fc.tuple(u64, fc.uint8Array())), { nil: undefined }),
});

Deno.test("decodeGob() returns what encodeGob() wrote", () => {
  fc.assert(fc.property(rich, (value) => assert.deepEqual(decodeGob(encodeGob(RICH, value), RICH), value)));
});

Deno.test("decodeGob() throws nothing but WireError at whatever octets", () => {
  const octets = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    rich.map((value) => encodeGob(RICH, value)).chain(mutated),
  );
  fc.assert(
    fc.property(octets, (octets) => {
      for (const schema of [RICH, SMALL, slice(SMALL), UINT] as SchemaOf<unknown>[]) {
        try {
          decodeGob(octets, schema);
        } catch (error) {
          assert.ok(error instanceof WireError, String(error));
        }
      }
    }),
    { numRuns: 2000 },
  );
});

// Octets by hand ------------------------------------------------------------------------------------

/** Messages with their lengths before them. */
function stream(...messages: number[][]): Uint8Array {
  return Uint8Array.from(messages.flatMap((message) => [...uint(message.length), ...message]));
}

function uint(value: number): number[] {
  if (value < 128) return [value];
  const octets = [];
  for (let rest = value; rest > 0; rest = Math.floor(rest / 256)) octets.unshift(rest % 256);
  return [256 - octets.length, ...octets];
}

function int(value: number): number[] {
  return uint(value < 0 ? ~value * 2 + 1 : value * 2);
}

/** fieldType: a name and an id. */
function field(name: string, id: number): number[] {
  return [1, name.length, ...new TextEncoder().encode(name), 1, ...int(id), 0];
}

/** The contents of the messages that define a type. */
function definitions(schema: Schema): number[][] {
  const writer = new GobWriter();
  writer.define(schema);
  const octets = writer.finish();
  const messages = [];
  for (let at = 0; at < octets.length; at += 1 + octets[at]!) {
    messages.push([...octets.subarray(at + 1, at + 1 + octets[at]!)]);
  }
  return messages;
}

function read(name: string): unknown {
  return JSON.parse(Deno.readTextFileSync(`test/fixtures/vectors/${name}`));
}
