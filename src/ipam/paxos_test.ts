import assert from "node:assert/strict";
import {
  claimsOf,
  nodeOf,
  peerOf,
  proposalOf,
  readVectors,
  type VectorClaims,
  type VectorNode,
  type VectorProposal,
} from "../../test/ipam_vectors.ts";
import type { PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import type { NodeClaims, NodeId } from "../wire/ipam.ts";
import { Paxos, type PaxosState, precedes, seedsOf } from "./paxos.ts";

// Against Weave Net 2.8 ---------------------------------------------------------------------------

interface Step {
  op: "propose" | "deliver";
  node?: string;
  from?: string;
  to?: string;
  consensus: boolean;
  consensus_value: { value_sorted: string[]; origin: VectorProposal } | null;
  update_changed?: boolean;
  think_changed?: boolean;
  state_after: ({ node: VectorNode } & VectorClaims)[];
}

interface Scenario {
  note: string;
  quorum: number;
  nodes: Record<string, VectorNode>;
  steps: Step[];
}

for (const { note, quorum, nodes, steps } of readVectors<{ scenarios: Scenario[] }>("paxos.json").scenarios) {
  Deno.test(`Paxos does as the vectors say: ${note}`, () => {
    const voters = new Map(Object.entries(nodes).map(([name, node]) => [name, new Paxos(nodeOf(node))]));
    for (const voter of voters.values()) voter.quorum = quorum;
    for (const step of steps) {
      const voter = voters.get(step.node ?? step.to!)!;
      if (step.op === "propose") {
        voter.propose();
      } else {
        const updated = voter.update(voters.get(step.from!)!.state());
        assert.equal(updated, step.update_changed);
        assert.equal(updated && voter.think(), step.think_changed);
      }
      const expected = step.state_after.map(({ node, ...claims }) => [nodeOf(node), claimsOf(claims)] as const);
      assert.deepEqual(comparable(voter.state()), comparable(expected));
      const agreed = voter.consensus();
      assert.equal(agreed !== undefined, step.consensus);
      if (agreed === undefined) continue;
      assert.deepEqual([...agreed.value].sort(), step.consensus_value!.value_sorted.map(peerOf).sort());
      assert.deepEqual(agreed.origin, proposalOf(step.consensus_value!.origin));
    }
  });
}

Deno.test("precedes() orders proposals as the vectors say", () => {
  const { cases } = readVectors<{ cases: { a: VectorProposal; b: VectorProposal; a_precedes_b: boolean }[] }>(
    "paxos-order.json",
  );
  assert.ok(cases.length > 10);
  for (const { a, b, a_precedes_b } of cases) assert.equal(precedes(proposalOf(a), proposalOf(b)), a_precedes_b);
});

Deno.test("seedsOf() sorts names and drops doubles as the vectors say", () => {
  const { cases } = readVectors<{ cases: { value: string[]; seeds: string[] }[] }>("ipam-normalize.json");
  for (const { value, seeds } of cases) assert.deepEqual(seedsOf(value.map(peerOf)), seeds.map(peerOf));
});

// Whatever happens ---------------------------------------------------------------------------------

Deno.test("consensus() is the same everywhere and for ever, whatever is lost, doubled or late", () => {
  for (let seed = 1; seed <= 1000; seed++) {
    const random = new SeededRandom(seed);
    const count = 1 + random.below(6);
    const quorum = Math.floor(count / 2) + 1;
    let starts = 0n;
    const start = (name: number) => {
      const voter = new Paxos({ name: name as PeerName, uid: ++starts });
      voter.quorum = quorum;
      return voter;
    };
    const voters = Array.from({ length: count }, (_, i) => start(i + 1));
    const late: PaxosState[] = [];
    let agreed: string | undefined;
    for (let step = 0; step < 120; step++) {
      const voter = voters[random.below(count)]!;
      const what = random.below(10);
      if (what === 0) voter.propose();
      else if (what < 4) late.push(voter.state());
      else if (late.length > 0) {
        const state = random.below(3) === 0 ? late[random.below(late.length)]! : voters[random.below(count)]!.state();
        if (voter.update(state)) voter.think();
      }
      for (const each of voters) {
        const value = each.consensus();
        if (value === undefined) continue;
        agreed ??= `${seedsOf(value.value)}`;
        assert.equal(`${seedsOf(value.value)}`, agreed, `seed ${seed}`);
      }
    }
    // Left in peace, they agree: the one with the highest name proposes.
    voters.at(-1)!.propose();
    for (let round = 0; round < 6; round++) {
      for (const a of voters) for (const b of voters) if (a.update(b.state())) a.think();
    }
    for (const each of voters) {
      const value = each.consensus();
      assert.ok(value, `seed ${seed}`);
      agreed ??= `${seedsOf(value.value)}`;
      assert.equal(`${seedsOf(value.value)}`, agreed, `seed ${seed}`);
    }
  }
});

Deno.test("Paxos keeps within bounds, whoever floods it", () => {
  const paxos = new Paxos({ name: 1 as PeerName, uid: 1n });
  const none = { round: 0, proposer: { name: 0 as PeerName, uid: 0n } };
  const value = Array.from({ length: 4096 }, () => 7 as PeerName);
  const claims: NodeClaims = { promise: none, accepted: none, acceptedValue: { value, origin: none } };
  for (let i = 0; i < 300; i++) paxos.update([[{ name: 2 as PeerName, uid: BigInt(i) }, claims]]);
  assert.equal(paxos.knownNodes, 128);

  const many = new Paxos({ name: 1 as PeerName, uid: 1n });
  const short: NodeClaims = { promise: none, accepted: none, acceptedValue: { value: [], origin: none } };
  const flood: [NodeId, NodeClaims][] = Array.from(
    { length: 5000 },
    (_, i) => [{ name: 2 as PeerName, uid: BigInt(i) }, short],
  );
  assert.equal(many.update(flood), true);
  assert.equal(many.knownNodes, 4096);
  assert.equal(many.update(flood), false);
});

Deno.test("propose() does nothing above the highest round there can be", () => {
  const paxos = new Paxos({ name: 1 as PeerName, uid: 1n });
  const highest = { round: Number.MAX_SAFE_INTEGER, proposer: { name: 2 as PeerName, uid: 1n } };
  const none = { round: 0, proposer: { name: 0 as PeerName, uid: 0n } };
  const claims = { promise: highest, accepted: none, acceptedValue: { value: [], origin: none } };
  paxos.update([[{ name: 2 as PeerName, uid: 1n }, claims]]);
  paxos.propose();
  assert.equal(paxos.knownNodes, 1);
});

/** Maps have no order, and values neither. */
function comparable(state: PaxosState): unknown {
  return new Map(state.map(([{ name, uid }, { promise, accepted, acceptedValue: { value, origin } }]) => {
    return [`${name} ${uid}`, { promise, accepted, acceptedValue: { value: [...value].sort(), origin } }];
  }));
}
