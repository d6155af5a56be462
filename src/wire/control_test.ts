import assert from "node:assert/strict";
import fc from "fast-check";
import { mutated } from "../../test/mutated.ts";
import { ProtocolError, WireError } from "../lib/errors.ts";
import { formatMac, NO_PEER, parsePeerName, type PeerName } from "../lib/mac.ts";
import {
  decodeFeatureMap,
  decodeFeatures,
  decodeHeader,
  decodeMessage,
  encodeFeatureMap,
  encodeFeatures,
  encodeHeader,
  encodeMessage,
  type Features,
  type Message,
  negotiateVersion,
  topologyOf,
} from "./control.ts";
import { GobReader, GobWriter, map, STRING } from "./gob.ts";
import { encodeTopology, type PeerRecord, topologyIds } from "./topology.ts";

// Header --------------------------------------------------------------------------------------------

interface HeaderCase {
  ours: [number, number];
  received: string;
  sent?: string;
  version?: number;
  error?: string;
}

for (const { ours: [min, max], received, sent, version, error } of vectors<HeaderCase>("protocol-header.json")) {
  Deno.test(`encodeHeader(), decodeHeader() and negotiateVersion() agree with the vectors on ${min} to ${max} and ${received}`, () => {
    if (sent) assert.equal(encodeHeader({ min, max }).toHex(), sent);
    const negotiated = () => negotiateVersion({ min, max }, decodeHeader(Uint8Array.fromHex(received)));
    if (error) assert.throws(negotiated, { name: "ProtocolError", message: error });
    else assert.equal(negotiated(), version);
  });
}

// Features ------------------------------------------------------------------------------------------

interface FeaturesCase {
  deterministic_order: boolean;
  features: Record<string, string>;
  hex: string;
  note: string;
}

for (const { features, hex, note } of vectors<FeaturesCase>("features.json")) {
  Deno.test(`decodeFeatureMap() and encodeFeatureMap() agree with the vectors on ${note}`, () => {
    const entries = decodeFeatureMap(Uint8Array.fromHex(hex));
    assert.deepEqual(Object.fromEntries(entries), features);
    assert.equal(encodeFeatureMap(entries).toHex(), hex);
  });
}

Deno.test("decodeFeatures() reads what the vectors' routers say of themselves", () => {
  const [, , minimal, usual, rich] = vectors<FeaturesCase>("features.json").map(({ hex }) => Uint8Array.fromHex(hex));
  assert.deepEqual(decodeFeatures(minimal!), {
    name: 0x02aa00000001,
    nickName: "alpha",
    uid: 6148914691236517205n,
    connectionId: 12297829382473034410n,
    shortId: undefined,
    trusted: false,
    overlays: undefined,
    extensions: [],
  });
  assert.deepEqual(decodeFeatures(usual!), {
    name: 0x02aa00000001,
    nickName: "alpha",
    uid: 2n ** 64n - 1n,
    connectionId: 1n,
    shortId: 2748,
    trusted: false,
    overlays: ["sleeve"],
    extensions: [],
  });
  assert.deepEqual(decodeFeatures(rich!), {
    name: 0x02bb00000002,
    nickName: "",
    uid: 1n,
    connectionId: 2n ** 64n - 1n,
    shortId: 0,
    trusted: true,
    overlays: ["fastdp", "sleeve"],
    extensions: [],
  });
});

const ACCEPTED: Readonly<Record<string, string>> = {
  PeerNameFlavour: "mac",
  Name: "02:aa::1",
  NickName: "alpha",
  UID: "1",
  ConnID: "2",
};

const UNACCEPTABLE: readonly (readonly [string, string | undefined])[] = [
  ...Object.keys(ACCEPTED).map((key) => [key, undefined] as const),
  ["PeerNameFlavour", "hash"],
  ["PeerNameFlavour", ""],
  ["Name", "alpha"],
  ["Name", "00:00:00:00:00:00"],
  ["NickName", "n".repeat(5000)],
  ["UID", ""],
  ["UID", "-1"],
  ["UID", "+1"],
  ["UID", "0x1"],
  ["UID", "18446744073709551616"],
  ["UID", "9".repeat(5000)],
  ["ConnID", " 1"],
  ["ConnID", "1.0"],
  ["ShortID", "4096"],
  ["ShortID", "-0"],
  ["ShortID", ""],
  ["Trusted", "yes"],
  ["Trusted", ""],
];

for (const [key, value] of UNACCEPTABLE) {
  const shown = value === undefined ? "is missing" : `is ${JSON.stringify(value.slice(0, 24))}`;
  Deno.test(`decodeFeatures() refuses a map in which ${key} ${shown}`, () => {
    const entries = Object.entries({ ...ACCEPTED, [key]: value }).filter((e): e is [string, string] =>
      e[1] !== undefined
    );
    assert.throws(() => decodeFeatures(encodeFeatureMap(entries)), (error: Error) => {
      return error instanceof ProtocolError && error.message.includes(`"${key}"`) && error.message.length < 200;
    });
  });
}

Deno.test("decodeFeatures() reads booleans as Go does, and lists with stray blanks", () => {
  const read = (more: Record<string, string>) =>
    decodeFeatures(encodeFeatureMap(Object.entries({ ...ACCEPTED, ...more })));
  for (const text of ["1", "t", "T", "TRUE", "true", "True"]) assert.equal(read({ Trusted: text }).trusted, true);
  for (const text of ["0", "f", "F", "FALSE", "false", "False"]) assert.equal(read({ Trusted: text }).trusted, false);
  assert.deepEqual(read({ Overlays: "  a  b " }).overlays, ["a", "b"]);
  assert.deepEqual(read({ Overlays: "" }).overlays, []);
  assert.deepEqual(read({ Extensions: "probe digest" }).extensions, ["probe", "digest"]);
  assert.equal(read({ Overlays: "x ".repeat(9000), Extensions: "x ".repeat(9000) }).overlays?.length, 256);
  assert.equal(read({ Extensions: "x ".repeat(9000) }).extensions.length, 64);
});

Deno.test("encodeFeatures() says nothing of extensions, overlays and short id where there are none", () => {
  const features: Features = { ...featuresOf(1), shortId: undefined, overlays: undefined, extensions: [] };
  const keys = decodeFeatureMap(encodeFeatures(features)).map(([key]) => key);
  assert.deepEqual(keys, ["PeerNameFlavour", "Name", "NickName", "UID", "ConnID", "Trusted"]);
});

function featuresOf(name: number): Features {
  return {
    name: name as PeerName,
    nickName: "n",
    uid: 1n,
    connectionId: 2n,
    shortId: 3,
    trusted: true,
    overlays: ["sleeve"],
    extensions: ["probe"],
  };
}

const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const octet = fc.integer({ min: 0, max: 255 });
const name = fc.integer({ min: 1, max: 2 ** 48 - 1 }).map((n) => n as PeerName);
const anyName = fc.integer({ min: 0, max: 2 ** 48 - 1 }).map((n) => n as PeerName);
const words = fc.array(fc.stringMatching(/^[a-z]{1,8}$/), { maxLength: 8 });
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }) => fc.record(model, { noNullPrototype: true });
const features = record<Features>({
  name,
  nickName: fc.string({ unit: "binary", maxLength: 300 }),
  uid: u64,
  connectionId: u64,
  shortId: fc.option(fc.integer({ min: 0, max: 4095 }), { nil: undefined }),
  trusted: fc.boolean(),
  overlays: fc.option(words, { nil: undefined }),
  extensions: words,
});

Deno.test("decodeFeatures() returns what encodeFeatures() wrote", () => {
  fc.assert(fc.property(features, (features) => assert.deepEqual(decodeFeatures(encodeFeatures(features)), features)));
});

Deno.test("decodeFeatures() throws nothing but its two errors at whatever octets", () => {
  const octets = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    features.chain((features) => mutated(encodeFeatures(features))),
  );
  fc.assert(
    fc.property(octets, (octets) => {
      try {
        decodeFeatures(octets);
      } catch (error) {
        assert.ok(error instanceof WireError || error instanceof ProtocolError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

// Messages ------------------------------------------------------------------------------------------

interface EnvelopeCase {
  kind: "gossip" | "unicast" | "broadcast";
  channel: string;
  src: string;
  dst?: string;
  payload: string;
  message: string;
}

for (const c of vectors<EnvelopeCase>("gossip-envelopes.json")) {
  Deno.test(`decodeMessage() and encodeMessage() agree with the vectors on ${c.kind} of ${c.payload.length / 2} octets in ${c.channel}`, () => {
    const octets = Uint8Array.fromHex(c.message);
    const message = decodeMessage(octets);
    assert.deepEqual(withoutRaw(message), envelope(c));
    if ("raw" in message) assert.equal(message.raw, octets);
    assert.equal(encodeMessage(envelope(c), false).toHex(), c.message);
  });
}

function envelope({ kind, channel, src, dst, payload }: EnvelopeCase): Message {
  const common = { channel, payload: Uint8Array.fromHex(payload) };
  const source = parsePeerName(src)!;
  if (kind === "gossip") return { type: kind, sender: source, ...common };
  return kind === "unicast"
    ? { type: kind, source, destination: parsePeerName(dst!)!, ...common }
    : { type: kind, source, ...common };
}

function withoutRaw(message: Message): Message {
  if (!("raw" in message)) return message;
  const { raw: _, ...rest } = message;
  return rest;
}

interface Recorded {
  kind: string;
  frame?: string;
  plaintext?: string;
  n?: number;
  decoded?: {
    kind: string;
    channel?: string;
    src?: string;
    dst?: string;
    overlay_index?: number;
    sub_tag?: number;
    mtu?: number;
    features?: Record<string, string>;
    topology?: { name: string; uid: string; version: string; connections: unknown[] }[];
  };
}

for (const session of ["plain", "encrypted", "relay", "nofrag", "dup", "badpw"]) {
  Deno.test(`every message of the recorded session ${session} is read, and written to the same octets`, () => {
    const counts = new Map<string, number>();
    for (const { frame, plaintext, decoded } of recordedMessages(`recorded-tcp-${session}.json`)) {
      const octets = Uint8Array.fromHex(plaintext ?? frame!.slice(8));
      const kind = decoded!.kind;
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
      if (kind === "features") checkFeatures(octets, decoded!.features!);
      else checkMessage(octets, decoded!);
    }
    if (session !== "badpw") assert.ok((counts.get("gossip") ?? 0) >= 4, JSON.stringify([...counts]));
    assert.ok(counts.get("features")! >= 2);
  });
}

function recordedMessages(file: string): Recorded[] {
  const { transcript } = readJson(file) as { transcript: Recorded[] };
  return transcript.filter((item) => item.decoded && (item.frame ?? item.plaintext));
}

function checkFeatures(octets: Uint8Array, expected: Record<string, string>): void {
  assert.deepEqual(Object.fromEntries(decodeFeatureMap(octets)), expected);
  const features = decodeFeatures(octets);
  assert.equal(formatMac(features.name), expected.Name);
  assert.equal(String(features.uid), expected.UID);
  assert.equal(features.overlays?.join(" "), expected.Overlays);
  // The same octets, with the order of the sample and its id.
  const reader = new GobReader(octets);
  const schema = map(STRING, STRING);
  reader.next();
  const entries = reader.read(schema);
  const writer = new GobWriter(64, reader.ids);
  writer.write(schema, entries);
  assert.equal(writer.finish().toHex(), octets.toHex());
}

function checkMessage(octets: Uint8Array, decoded: NonNullable<Recorded["decoded"]>): void {
  const message = decodeMessage(octets);
  assert.equal(encodeMessage(withoutRaw(message), false).toHex(), octets.toHex());
  assert.equal(encodeMessage(message, false).toHex(), octets.toHex());
  switch (message.type) {
    case "gossip":
      assert.equal(formatMac(message.sender), decoded.src);
      break;
    case "unicast":
      assert.deepEqual([formatMac(message.source), formatMac(message.destination)], [decoded.src, decoded.dst]);
      break;
    case "broadcast":
      assert.equal(formatMac(message.source), decoded.src);
      break;
    case "overlayControl":
      assert.deepEqual([message.overlay, message.subTag], [decoded.overlay_index, decoded.sub_tag]);
      if (decoded.mtu !== undefined) assert.equal(message.payload[0]! << 8 | message.payload[1]!, decoded.mtu);
      return;
    default:
      assert.deepEqual([message.type, decoded.kind], ["heartbeat", "heartbeat"]);
      return;
  }
  assert.equal(message.channel, decoded.channel);
  if (message.channel === "topology") checkTopology(message.payload as Uint8Array, decoded.topology!);
}

function checkTopology(
  payload: Uint8Array,
  expected: NonNullable<NonNullable<Recorded["decoded"]>["topology"]>,
): void {
  const records = topologyOf(payload);
  assert.equal(encodeTopology(records, topologyIds(payload)).toHex(), payload.toHex());
  assert.deepEqual(
    records.map((r) => [formatMac(r.name), String(r.uid), String(r.version), r.connections.length]),
    expected.map((r) => [r.name, r.uid, r.version, r.connections.length]),
  );
}

const RECORD: PeerRecord = {
  name: 1 as PeerName,
  nickName: "n",
  uid: 2n,
  version: 3n,
  shortId: 4,
  connections: [{ peer: 5 as PeerName, address: "10.0.0.1:6783", outbound: true, established: false }],
};

Deno.test("encodeMessage() encodes topology that is handed over as a value", () => {
  for (
    const message of [
      { type: "gossip", channel: "topology", sender: 1 as PeerName, payload: [RECORD] },
      { type: "broadcast", channel: "topology", source: 1 as PeerName, payload: [RECORD] },
    ] satisfies Message[]
  ) {
    const decoded = decodeMessage(encodeMessage(message, false));
    assert.ok(decoded.type === message.type && decoded.payload instanceof Uint8Array);
    assert.deepEqual(topologyOf(decoded.payload), [RECORD]);
    assert.equal(topologyOf(message.payload), message.payload);
  }
});

Deno.test("encodeMessage() sends what is relayed as it came", () => {
  const raw = Uint8Array.of(5, 1, 2, 3);
  const payload = new Uint8Array();
  const [source, destination] = [1 as PeerName, 2 as PeerName];
  assert.equal(encodeMessage({ type: "unicast", channel: "c", source, destination, payload, raw }, false), raw);
  assert.equal(encodeMessage({ type: "broadcast", channel: "c", source, payload, raw }, false), raw);
});

/** The octets as drawn in the header of the file. */
const LAYOUTS: readonly (readonly [Message, string, boolean?])[] = [
  [{ type: "heartbeat" }, "00"],
  [{ type: "overlayControl", overlay: 1, subTag: 3, payload: Uint8Array.of(5, 0x86) }, "0701030586"],
  [{ type: "overlayControl", overlay: 0, subTag: 3, payload: Uint8Array.of(5, 0x86) }, "030586", true],
  [{ type: "overlayControl", overlay: 0, subTag: 1, payload: new Uint8Array() }, "01", true],
  [{ type: "probe", number: 0xfedcba98 }, "40fedcba98"],
  [{ type: "probeAnswer", number: 1 }, "4100000001"],
  [{ type: "digest", digest: 2n ** 63n + 5n }, "428000000000000005"],
  [{ type: "summary", entries: [] }, "43"],
  [
    { type: "summary", entries: [{ name: 0x02aa00000001 as PeerName, uid: 2n ** 64n - 1n, version: 7n }] },
    "4302aa00000001ffffffffffffffff0000000000000007",
  ],
  [{ type: "want", names: [] }, "44"],
  [{ type: "clock", wallClockMs: 1_763_990_000_123 }, "450000019ab5ff51fb"],
  [{ type: "want", names: [0x02aa00000001 as PeerName, 3 as PeerName] }, "4402aa00000001000000000003"],
  [{ type: "unknown", tag: 200 }, "c8"],
];

for (const [message, hex, legacyOverlay = false] of LAYOUTS) {
  Deno.test(`encodeMessage() and decodeMessage() have ${message.type} as ${hex}`, () => {
    assert.equal(encodeMessage(message, legacyOverlay).toHex(), hex);
    assert.deepEqual(decodeMessage(Uint8Array.fromHex(hex)), message);
  });
}

Deno.test("decodeMessage() takes an empty message for a sign of life, and passes over unknown tags", () => {
  assert.deepEqual(decodeMessage(new Uint8Array()), { type: "heartbeat" });
  assert.deepEqual(decodeMessage(Uint8Array.of(8, 1, 2)), { type: "unknown", tag: 8 });
  assert.deepEqual(decodeMessage(Uint8Array.of(255)), { type: "unknown", tag: 255 });
});

const REFUSED: readonly (readonly [string, string])[] = [
  ["overlay control without a sub-tag", "0700"],
  ["overlay control without anything", "07"],
  ["gossip without values", "04"],
  ["gossip without a payload", "040b0c0008746f706f6c6f6779090600fa02aa00000001"],
  ["gossip whose channel is a number", "0403060001"],
  ["gossip from a name of seven octets", "04" + "040c000163" + "0a0600f901000000000000" + "040a000100"],
  ["gossip cut short", "040b0c0008746f706f6c6f"],
  ["gossip on a channel with too long a name", longChannel()],
  ["a probe without its number", "40"],
  ["a probe that is too long", "400000000100"],
  ["an answer that is too short", "41000001"],
  ["a digest that is too short", "4200000000000000"],
  ["a summary with half an entry", "43" + "00".repeat(21)],
  ["a want with half a name", "44000000"],
  ["a clock that is too short", "4500000000000000"],
  ["a clock past what numbers hold", "4500038d7ea4c68000"],
];

for (const [what, hex] of REFUSED) {
  Deno.test(`decodeMessage() refuses ${what}`, () => {
    assert.throws(() => decodeMessage(Uint8Array.fromHex(hex)), WireError);
  });
}

/** Gossip on a channel of 300 letters. */
function longChannel(): string {
  const message: Message = { type: "gossip", channel: "c".repeat(300), sender: NO_PEER, payload: new Uint8Array() };
  return encodeMessage(message, false).toHex();
}

Deno.test("decodeMessage() passes over what follows the values of gossip", () => {
  const octets = Uint8Array.fromHex("040b0c0008746f706f6c6f6779090600fa02aa00000001060a0003010203" + "030600ff");
  assert.deepEqual(decodeMessage(octets), {
    type: "gossip",
    channel: "topology",
    sender: 0x02aa00000001,
    payload: Uint8Array.of(1, 2, 3),
  });
});

const channel = fc.string({ maxLength: 60, unit: "binary" });
const payload = fc.uint8Array({ maxLength: 400 });
const message: fc.Arbitrary<Message> = fc.oneof<fc.Arbitrary<Message>[]>(
  fc.constant({ type: "heartbeat" }),
  record({ type: fc.constant("gossip"), channel, sender: anyName, payload }),
  record({ type: fc.constant("unicast"), channel, source: anyName, destination: anyName, payload }),
  record({ type: fc.constant("broadcast"), channel, source: anyName, payload }),
  record({ type: fc.constant("overlayControl"), overlay: octet, subTag: octet, payload }),
  record({ type: fc.constant("probe"), number: u32 }),
  record({ type: fc.constant("probeAnswer"), number: u32 }),
  record({ type: fc.constant("digest"), digest: u64 }),
  record({ type: fc.constant("summary"), entries: fc.array(record({ name: anyName, uid: u64, version: u64 })) }),
  record({ type: fc.constant("clock"), wallClockMs: fc.integer({ min: 0, max: 999_999_999_999_999 }) }),
  record({ type: fc.constant("want"), names: fc.array(anyName) }),
);

Deno.test("decodeMessage() returns what encodeMessage() wrote", () => {
  fc.assert(fc.property(message, (message) => {
    assert.deepEqual(withoutRaw(decodeMessage(encodeMessage(message, false))), message);
  }));
});

Deno.test("decodeMessage() throws nothing but WireError at whatever octets", () => {
  const octets = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    message.chain((message) => mutated(encodeMessage(message, false))),
  );
  fc.assert(
    fc.property(octets, (octets) => {
      try {
        decodeMessage(octets);
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});

function vectors<T>(file: string): T[] {
  return (readJson(file) as { cases: T[] }).cases;
}

function readJson(file: string): unknown {
  return JSON.parse(Deno.readTextFileSync(`test/fixtures/vectors/${file}`));
}

Deno.test("decodeFeatures() takes a wall clock that is a time, and passes over what is none", () => {
  const features: Features = {
    name: 0x02aa_0000_0001 as PeerName,
    nickName: "a",
    uid: 1n,
    connectionId: 2n,
    shortId: undefined,
    trusted: false,
    overlays: ["sleeve"],
    extensions: [],
    wallClockMs: 1_763_990_000_123,
  };
  const entries = decodeFeatureMap(encodeFeatures(features));
  assert.deepEqual(decodeFeatures(encodeFeatureMap(entries)), features);
  for (
    const [text, expected] of [["soon", undefined], ["-1", undefined], ["9".repeat(16), undefined], ["0", 0]] as const
  ) {
    const changed = entries.map(([key, value]) => [key, key === "Clock" ? text : value] as const);
    assert.equal(decodeFeatures(encodeFeatureMap(changed)).wallClockMs, expected);
  }
});
