import assert from "node:assert/strict";
import fc from "fast-check";
import {
  claimsOf,
  nodeOf,
  peerOf,
  rangeOf,
  readVectors,
  ringOf,
  type VectorClaims,
  type VectorNode,
  type VectorRing,
} from "../../test/ipam_vectors.ts";
import { mutated } from "../../test/mutated.ts";
import { WireError } from "../lib/errors.ts";
import type { PeerName } from "../lib/mac.ts";
import { encodeGob, map, slice, STRING, struct, UINT, unsigned } from "./gob.ts";
import {
  decodeIpamMessage,
  decodeIpamState,
  decodePaxosClaims,
  decodeRing,
  encodeIpamMessage,
  encodeIpamState,
  encodePaxosClaims,
  encodeRing,
  type IpamMessage,
  type IpamState,
  ipamTypeIds,
  type NodeClaims,
  type NodeId,
  type ProposalId,
  ringUpdateOf,
  type RingValue,
} from "./ipam.ts";

// Against what Go makes ---------------------------------------------------------------------------

interface VectorState {
  now: string;
  nicknames: Record<string, string>;
  paxos: ({ node: VectorNode } & VectorClaims)[] | null;
  ring: VectorRing | null;
}

interface StateCase {
  hex: string;
  note: string;
  state: VectorState;
}

for (const { hex, note, state } of readVectors<{ cases: StateCase[] }>("ipam-state.json").cases) {
  Deno.test(`decodeIpamState() and encodeIpamState() agree with the vectors on ${note}`, () => {
    const octets = Uint8Array.fromHex(hex);
    const decoded = decodeIpamState(octets);
    assert.deepEqual(unordered(decoded), unordered(stateOf(state)));
    assert.equal(encodeIpamState(decoded, ipamTypeIds(octets, "state")).toHex(), hex);
    assert.deepEqual(decodeIpamState(encodeIpamState(stateOf(state))), stateOf(state));
  });
}

interface MessageCase {
  hex: string;
  type: "space request" | "space request denied" | "ring update";
  start?: string;
  end?: string;
  state?: VectorState;
}

for (const message of readVectors<{ cases: MessageCase[] }>("ipam-messages.json").cases) {
  Deno.test(`decodeIpamMessage() and encodeIpamMessage() agree with the vectors on ${message.hex.slice(-48)}`, () => {
    const octets = Uint8Array.fromHex(message.hex);
    const decoded = decodeIpamMessage(octets);
    assert.deepEqual(decoded, messageOf(message));
    const ids = ipamTypeIds(octets.subarray(1), message.type === "ring update" ? "state" : "range");
    assert.equal(encodeIpamMessage(decoded, ids).toHex(), message.hex);
    assert.deepEqual(decodeIpamMessage(encodeIpamMessage(decoded)), decoded);
    if (decoded.type === "ring") assert.deepEqual(ringUpdateOf(octets.subarray(1)), octets);
  });
}

for (
  const { key, hex, value } of readVectors<{ values: { key: string; hex: string; value: VectorRing }[] }>(
    "persistence.json",
  )
    .values
) {
  if (key !== "ring") continue;
  Deno.test(`decodeRing() and encodeRing() agree with the vectors on the ring that is stored as ${hex.slice(-16)}`, () => {
    const octets = Uint8Array.fromHex(hex);
    assert.deepEqual(decodeRing(octets), ringOf(value));
    assert.equal(encodeRing(ringOf(value), ipamTypeIds(octets, "ring")).toHex(), hex);
  });
}

interface Scenario {
  note: string;
  steps: { state_hex?: string }[];
}

Deno.test("decodePaxosClaims() and encodePaxosClaims() agree with the vectors", () => {
  const all = readVectors<{ scenarios: Scenario[] }>("paxos.json").scenarios.flatMap(({ steps }) => steps);
  const states = all.flatMap(({ state_hex }) => state_hex ?? []);
  assert.ok(states.length > 5);
  for (const hex of states) {
    const octets = Uint8Array.fromHex(hex);
    const claims = decodePaxosClaims(octets);
    assert.equal(encodePaxosClaims(claims, ipamTypeIds(octets, "claims")).toHex(), hex);
  }
});

// What may come ------------------------------------------------------------------------------------

const PLAIN = { noNullPrototype: true };
const PEER = fc.integer({ min: 0, max: 0xffff_ffff_ffff }).map((n) => n as PeerName);
const U32 = fc.integer({ min: 0, max: 0xffff_ffff });
const NODE: fc.Arbitrary<NodeId> = fc.record({ name: PEER, uid: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }) }, PLAIN);
const PROPOSAL: fc.Arbitrary<ProposalId> = fc.record({
  round: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  proposer: NODE,
}, PLAIN);
const CLAIMS: fc.Arbitrary<NodeClaims> = fc.record({
  promise: PROPOSAL,
  accepted: PROPOSAL,
  acceptedValue: fc.record({ value: fc.array(PEER, { maxLength: 5 }), origin: PROPOSAL }, PLAIN),
}, PLAIN);
const RING: fc.Arbitrary<RingValue> = fc.record({
  start: U32,
  end: U32,
  peer: PEER,
  entries: fc.array(fc.record({ token: U32, peer: PEER, version: U32, free: U32 }, PLAIN), { maxLength: 5 }),
  seeds: fc.array(PEER, { maxLength: 5 }),
}, PLAIN);
const STATE: fc.Arbitrary<IpamState> = fc.record({
  now: fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }),
  nicknames: fc.array(fc.tuple(PEER, fc.string()), { maxLength: 5 }),
  paxos: fc.option(fc.array(fc.tuple(NODE, CLAIMS), { maxLength: 4 }), { nil: undefined }),
  ring: fc.option(RING, { nil: undefined }),
}, PLAIN);
const MESSAGE: fc.Arbitrary<IpamMessage> = fc.oneof(
  fc.record({
    type: fc.constantFrom("request" as const, "denied" as const),
    range: fc.record({ start: U32, end: U32 }, PLAIN),
  }, PLAIN),
  fc.record({ type: fc.constant("ring" as const), state: STATE }, PLAIN),
);

Deno.test("decodeIpamMessage() gives what encodeIpamMessage() was given", () => {
  fc.assert(
    fc.property(MESSAGE, (message) => assert.deepEqual(decodeIpamMessage(encodeIpamMessage(message)), message)),
  );
});

Deno.test("decodeIpamMessage() throws nothing but WireError for messages that are nearly right", () => {
  const nearly = MESSAGE.chain((message) => mutated(encodeIpamMessage(message)));
  fc.assert(fc.property(nearly, (octets) => throwsWireErrorAtMost(() => decodeIpamMessage(octets))), {
    numRuns: 1000,
  });
});

Deno.test("decodeIpamMessage() refuses an empty message and one of an unknown type", () => {
  assert.throws(() => decodeIpamMessage(new Uint8Array()), WireError);
  assert.throws(() => decodeIpamMessage(new Uint8Array([3, 0])), WireError);
});

Deno.test("decodeIpamState() refuses names, numbers and counts that nobody says", () => {
  const ring = (entries: { Token: bigint; Peer: bigint }[]) => {
    const entry = struct("entry", { Token: UINT, Peer: UINT });
    const schema = struct("gossipState", { Ring: struct("Ring", { Entries: slice(entry) }) });
    return encodeGob(schema, { Ring: { Entries: entries } });
  };
  assert.equal(decodeIpamState(ring([{ Token: 1n, Peer: 2n }])).ring?.entries.length, 1);
  assert.throws(() => decodeIpamState(ring([{ Token: 1n << 32n, Peer: 2n }])), WireError);
  assert.throws(() => decodeIpamState(ring([{ Token: 1n, Peer: 1n << 48n }])), WireError);
  const entries = Array.from({ length: (1 << 18) + 1 }, () => ({ Token: 1n, Peer: 2n }));
  assert.throws(() => decodeIpamState(ring(entries)), /at most 262144/);

  const nicknames = (pairs: [number, string][]) =>
    encodeGob(struct("gossipState", { Nicknames: map(unsigned(48), STRING) }), { Nicknames: pairs });
  assert.equal(decodeIpamState(nicknames([[1, "a"]])).nicknames.length, 1);
  assert.throws(() => decodeIpamState(nicknames([[1, "a".repeat(5000)]])), WireError);
  const many = Array.from({ length: 16_385 }, (_, i): [number, string] => [i, ""]);
  assert.throws(() => decodeIpamState(nicknames(many)), WireError);
});

Deno.test("decodeIpamState() refuses values with too many names in all", () => {
  const nobody = { round: 1, proposer: { name: 1 as PeerName, uid: 1n } };
  const value = Array.from({ length: 4096 }, (_, i) => i as PeerName);
  const claims = { promise: nobody, accepted: nobody, acceptedValue: { value, origin: nobody } };
  const state = (nodes: number) =>
    encodeIpamState({
      now: 0n,
      nicknames: [],
      ring: undefined,
      paxos: Array.from({ length: nodes }, (_, i) => [{ name: i as PeerName, uid: 1n }, claims] as const),
    });
  assert.equal(decodeIpamState(state(128)).paxos?.length, 128);
  assert.throws(() => decodeIpamState(state(129)), /names/);
});

function throwsWireErrorAtMost(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
  }
}

// Vectors ------------------------------------------------------------------------------------------

function messageOf({ type, start, end, state }: MessageCase): IpamMessage {
  if (type === "ring update") return { type: "ring", state: stateOf(state!) };
  const range = rangeOf([start!, end!]);
  return { type: type === "space request" ? "request" : "denied", range };
}

function stateOf({ now, nicknames, paxos, ring }: VectorState): IpamState {
  return {
    now: BigInt(now),
    nicknames: Object.entries(nicknames).map(([name, nickname]) => [peerOf(name), nickname]),
    paxos: paxos?.map(({ node, ...claims }) => [nodeOf(node), claimsOf(claims)]),
    ring: ring === null ? undefined : ringOf(ring),
  };
}

/** Pairs of maps in an order of ours, for comparing. */
function unordered({ nicknames, paxos, ...rest }: IpamState): unknown {
  return {
    ...rest,
    nicknames: new Map(nicknames),
    paxos: paxos && new Map(paxos.map(([{ name, uid }, claims]) => [`${name} ${uid}`, claims])),
  };
}
