import assert from "node:assert/strict";
import fc from "fast-check";
import type { PeerName } from "../lib/mac.ts";
import { type Random, SeededRandom } from "../lib/random.ts";
import { decodeTopology, type PeerRecord } from "../wire/topology.ts";
import {
  connectionsTo,
  fromVector,
  names,
  peerName,
  readVector,
  record,
  sorted,
  type VectorRecord,
} from "../../test/sim/records.ts";
import { MAX_PEERS, Peers } from "./peers.ts";

interface MergeVectors {
  readonly initial: readonly VectorRecord[];
  readonly steps: readonly {
    readonly op: "apply" | "gc";
    readonly note: string;
    readonly error?: string;
    readonly update?: readonly VectorRecord[];
    readonly update_hex?: string;
    readonly improved?: readonly string[];
    readonly removed?: readonly string[];
    readonly our_short_id_changed?: boolean;
    readonly short_ids?: Readonly<Record<string, { readonly owner: string; readonly others: readonly string[] }>>;
    readonly after: readonly VectorRecord[];
  }[];
}

Deno.test("Peers merges the updates of the vectors, and forgets as they do", () => {
  const { initial, steps } = readVector<MergeVectors>("topology-merge");
  const [ourself, beta] = initial.map(fromVector);
  const random = new ScriptedRandom();
  const peers = new Peers({ ...ourself!, version: 0n, connections: [] }, random);
  peers.introduce(beta!);
  peers.setOurConnections(ourself!.connections);
  assert.deepEqual(records(peers), sorted([ourself!, beta!]));
  for (const step of steps) {
    const after = sorted(step.after.map(fromVector));
    random.next = after.find((record) => record.name === ourself!.name)!.shortId!;
    if (step.op === "gc") {
      assert.deepEqual(names(peers.collectGarbage().removed.map((record) => record.name)), step.removed, step.note);
    } else if (step.error) {
      assert.throws(() => peers.merge(decodeTopology(Uint8Array.fromHex(step.update_hex!))), step.note);
    } else {
      const update = step.update!.map(fromVector);
      assert.deepEqual(sorted(decodeTopology(Uint8Array.fromHex(step.update_hex!))), sorted(update));
      const before = peers.ourself;
      const result = peers.merge(update);
      assert.deepEqual(names(result.improved.map((node) => node.name)), step.improved, step.note);
      assert.equal(result.ourselfChanged, peers.ourself.version !== before.version, step.note);
      assert.equal(peers.ourself.shortId !== before.shortId, step.our_short_id_changed ?? false, step.note);
    }
    assert.deepEqual(records(peers), after, step.note);
    for (const [shortId, { owner, others }] of Object.entries(step.short_ids ?? {})) {
      const holders = peers.shortIdHolders(Number(shortId));
      assert.equal(holders[0], peerName(owner), step.note);
      assert.deepEqual(names(holders.slice(1)), others, step.note);
    }
  }
});

Deno.test("Peers.merge() is commutative, associative and idempotent", () => {
  fc.assert(fc.property(fc.array(updates(), { minLength: 1, maxLength: 6 }), fc.integer(), (sequence, seed) => {
    const inOrder = peersAfter(sequence);
    const shuffled = [...sequence, ...sequence.slice(0, 2)];
    const random = new SeededRandom(seed);
    for (let i = shuffled.length - 1; i > 0; i--) {
      const j = random.below(i + 1);
      [shuffled[i], shuffled[j]] = [shuffled[j]!, shuffled[i]!];
    }
    assert.deepEqual(records(peersAfter(shuffled)), records(inOrder));
    assert.deepEqual(records(peersAfter([sequence.flat()])), records(inOrder));
    for (const update of sequence) assert.deepEqual(inOrder.merge(update).improved, []);
  }));
});

Deno.test("Peers.merge() keeps links, placeholders and short ids right whatever comes", () => {
  fc.assert(fc.property(fc.array(fc.oneof(updates(), fc.constant("gc" as const)), { maxLength: 12 }), (sequence) => {
    const peers = new Peers(record(OURSELF, { shortId: 1 }), new SeededRandom(1));
    for (const step of sequence) {
      if (step === "gc") peers.collectGarbage();
      else peers.merge(step);
      checkInvariants(peers);
    }
    peers.collectGarbage();
    assert.equal(peers.size, 1 + reachableByHand(peers).size);
  }));
});

Deno.test("Peers.merge() takes no more than it has room for, and makes up for it", () => {
  const peers = new Peers(record(1), new SeededRandom(1));
  const many = Array.from({ length: MAX_PEERS + 10 }, (_, i) => i + 2);
  assert.equal(peers.merge(many.map((name) => record(name))).refused, 11);
  assert.equal(peers.size, MAX_PEERS);
  assert.ok(!peers.introduce(record(MAX_PEERS + 100)));

  // A connection to a peer that found no room is found again once there is some.
  const far = MAX_PEERS + 200;
  peers.merge([record(2, { version: 2n, connections: connectionsTo([far]) })]);
  peers.setOurConnections(connectionsTo([2]));
  assert.equal(peers.get(far as PeerName), undefined);
  peers.collectGarbage();
  assert.deepEqual(records(peers).map((peer) => peer.name), [1, 2, far]);
});

Deno.test("Peers.outdo() goes beyond an earlier life, but not beyond what a version can be", () => {
  const peers = new Peers(record(1, { uid: 7n, version: 3n }), new SeededRandom(1));
  assert.ok(!peers.outdo(7n, 100n));
  assert.ok(!peers.outdo(8n, 2n));
  assert.ok(!peers.outdo(8n, (1n << 64n) - 1n));
  assert.ok(peers.outdo(8n, 3n));
  assert.equal(peers.ourself.version, 4n);
});

Deno.test("Peers leaves a short id that a lower name has, and tries again when all were taken", () => {
  const all = Array.from({ length: MAX_PEERS - 1 }, (_, i) => record(i + 1, { shortId: i }));
  const peers = new Peers(record(OURSELF, { shortId: 5 }), new SeededRandom(1));
  peers.setOurConnections(connectionsTo(all.slice(0, 100).map((peer) => peer.name)));
  peers.merge(all);
  assert.equal(peers.ourself.shortId, MAX_PEERS - 1, "the one that is free");

  const ours = MAX_PEERS - 1;
  peers.merge([record(1, { version: 2n, shortId: ours })]);
  assert.equal(peers.ourself.shortId, 0, "the one that the other peer left");
});

/** The highest name, so that others come first. */
const OURSELF = 0xffff_ffff_ffff;

/** Everything that is drawn is this. */
class ScriptedRandom implements Random {
  next = 0;
  u32 = () => this.next;
  u64 = () => BigInt(this.next);
  unit = () => 0;
  below = () => this.next;
}

/** Updates about few peers; a record's content follows from name, uid and version, as it does where nobody lies. */
function updates(): fc.Arbitrary<PeerRecord[]> {
  const one = fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 2 }), fc.integer({ min: 0, max: 4 }));
  return fc.array(one.map(([name, uid, version]) => recordOf(name, uid, version)), { maxLength: 5 });
}

function recordOf(name: number, uid: number, version: number): PeerRecord {
  const random = new SeededRandom(name * 100 + uid * 10 + version);
  const others = Array.from({ length: random.below(4) }, () => 1 + random.below(8)).filter((other) => other !== name);
  return record(name, {
    nickName: `${name}-${uid}-${version}`,
    uid: BigInt(uid),
    version: BigInt(version),
    shortId: random.below(4) === 0 ? undefined : random.below(6),
    connections: connectionsTo([...new Set(others)], { established: random.below(2) === 0 }),
  });
}

function peersAfter(sequence: readonly (readonly PeerRecord[])[]): Peers {
  const peers = new Peers(record(OURSELF), new SeededRandom(1));
  for (const update of sequence) peers.merge(update);
  // Placeholders that nobody speaks of any more stay until they are collected; who has a record is reachable here.
  const described = [...peers.nodes()].filter((node) => node.record.uid !== 0n && node.name !== OURSELF);
  peers.setOurConnections(connectionsTo(described.map((node) => node.name).sort((a, b) => a - b)));
  peers.collectGarbage();
  return peers;
}

function records(peers: Peers): PeerRecord[] {
  return sorted([...peers.nodes()].map((node) => node.record));
}

function checkInvariants(peers: Peers): void {
  for (const node of peers.nodes()) {
    const far = node.record.connections.map((connection) => connection.peer).filter((name) => name !== node.name);
    const links = node.links.filter((link) => link !== undefined);
    assert.deepEqual(names(links.map((link) => link.name)), names(far), "every far end is known");
    for (const link of links) assert.equal(peers.node(link.name), link);
    const { shortId, name } = node.record;
    if (shortId === undefined) continue;
    const holders = peers.shortIdHolders(shortId);
    assert.ok(holders.includes(name));
    assert.deepEqual([...holders], [...holders].sort((a, b) => a - b));
  }
  const { shortId, name } = peers.ourself;
  if (shortId !== undefined) assert.equal(peers.shortIdOwner(shortId), name);
}

/** Whom a chain of recorded connections leads to from us. */
function reachableByHand(peers: Peers): Set<PeerName> {
  const reached = new Set<PeerName>();
  const visit = (name: PeerName) => {
    for (const { peer } of peers.get(name)?.connections ?? []) {
      if (peer === peers.ourself.name || reached.has(peer)) continue;
      reached.add(peer);
      visit(peer);
    }
  };
  visit(peers.ourself.name);
  return reached;
}
