import assert from "node:assert/strict";
import fc from "fast-check";
import { exportOf, importOf, type ImportVariation, knownOf } from "../../test/service_records.ts";
import type { PeerName } from "../lib/mac.ts";
import { parsePortRange } from "../lib/ports.ts";
import { type Candidate, electHolder, exportCandidates, importCandidates, sharesOf } from "./election.ts";

const VIRTUAL = 0x0a20_0005;
const PORT = parsePortRange("5432")!;

const candidate = (owner: number, rest: Partial<Candidate> = {}): Candidate => ({
  owner: owner as PeerName,
  priority: 0,
  standing: 2,
  incumbent: false,
  ...rest,
});

Deno.test("electHolder() asks for health, then for flows, then for priority", () => {
  assert.equal(electHolder("a", []), undefined);
  assert.equal(electHolder("a", [candidate(1, { standing: 0, incumbent: true })]), undefined);
  assert.equal(electHolder("a", [candidate(1, { standing: 1 }), candidate(2, { standing: 2, priority: 9 })]), 2);
  assert.equal(electHolder("a", [candidate(1, { standing: 1, priority: 1 }), candidate(2, { standing: 1 })]), 2);
  assert.equal(electHolder("a", [candidate(1), candidate(2, { incumbent: true, priority: 9 })]), 2);
  assert.equal(electHolder("a", [candidate(1), candidate(2, { incumbent: true, standing: 1 })]), 1);
  assert.equal(electHolder("a", [candidate(1, { priority: 1 }), candidate(2, { priority: 0 })]), 2);
});

Deno.test("two who both think they hold an address agree on one of them", () => {
  const both = [candidate(1, { incumbent: true }), candidate(2, { incumbent: true }), candidate(3)];
  const holder = electHolder("a", both);
  assert.ok(holder === 1 || holder === 2);
  assert.equal(electHolder("a", both.reverse()), holder);
});

Deno.test("services spread over gateways evenly, and move only where they must", () => {
  const gateways = Array.from({ length: 5 }, (_, i) => candidate(0x02aa_0000_0000 + i));
  const names = Array.from({ length: 5_000 }, (_, i) => `service-${i}`);
  const before = names.map((name) => electHolder(name, gateways));
  for (const { owner } of gateways) {
    const share = before.filter((holder) => holder === owner).length / names.length;
    assert.ok(share > 0.17 && share < 0.23, `${share}`);
  }
  const after = names.map((name) => electHolder(name, gateways.slice(1)));
  for (const [i, holder] of before.entries()) if (holder !== gateways[0]!.owner) assert.equal(after[i], holder);
});

Deno.test("electHolder() says the same in whatever order", () => {
  const any = fc.record({
    owner: fc.integer({ min: 1, max: 2 ** 48 - 1 }),
    priority: fc.nat(2),
    standing: fc.constantFrom<0 | 1 | 2>(0, 1, 2),
    incumbent: fc.boolean(),
  }).map((each) => each as Candidate);
  fc.assert(fc.property(fc.uniqueArray(any, { selector: ({ owner }) => owner }), fc.string(), (candidates, name) => {
    const holder = electHolder(name, candidates);
    assert.equal(electHolder(name, [...candidates].reverse()), holder);
    const able = candidates.filter(({ standing }) => standing > 0);
    assert.equal(holder === undefined, able.length === 0);
  }));
});

Deno.test("importCandidates() takes those within reach that offer it in the subnet, and do not shut it", () => {
  const record = (o: ImportVariation) => importOf("a", { health: ["up"], ...o });
  const flows = [[VIRTUAL, true]] as const;
  const candidates = importCandidates([
    knownOf(1, record({})),
    knownOf(2, record({}), false),
    knownOf(3, record({ offers: [{ subnet: { address: 0x0a40_0000, prefixLength: 24 }, address: 0x0a40_0001 }] })),
    knownOf(4, record({ health: ["down", "unknown"], spec: { priority: 7 }, holding: [[VIRTUAL, false]] })),
    knownOf(5, record({ spec: { state: "revoked" }, holding: flows })),
    knownOf(6, record({ spec: { state: "draining" } })),
    knownOf(7, record({ spec: { state: "draining" }, holding: flows })),
    knownOf(8, record({ health: ["down"], holding: flows })),
  ], VIRTUAL);
  assert.deepEqual(
    candidates.map(({ owner, standing, incumbent, priority }) => [owner, standing, incumbent, priority]),
    [
      [1, 2, false, 0],
      [4, 1, false, 7],
      [5, 0, true, 0],
      [6, 0, false, 0],
      [7, 2, true, 0],
      [8, 0, true, 0],
    ],
  );
});

Deno.test("exportCandidates() takes each gateway that listens at the address once", () => {
  const at = (port: string) => ({ network: "site", listen: { address: 0xc0a8_0164, ports: parsePortRange(port)! } });
  const candidates = exportCandidates(
    [
      knownOf(1, exportOf("a", at("80"), { ready: false })),
      knownOf(1, exportOf("a", at("81"), { holding: { address: 0xc0a8_0164, flows: true } })),
      knownOf(2, exportOf("a", at("80"), { ready: false })),
      knownOf(3, exportOf("a", { ...at("80"), network: "host" })),
      knownOf(4, exportOf("a", at("80")), false),
      knownOf(5, exportOf("a")),
    ],
    "site",
    0xc0a8_0164,
  );
  assert.deepEqual(candidates.map(({ owner, standing, incumbent }) => [owner, standing, incumbent]), [
    [1, 2, true],
    [2, 0, false],
  ]);
});

Deno.test("sharesOf() gives flows to the best priority of gateway and backend that is healthy, by weight", () => {
  const [near, far] = [importOf("a", { health: ["up", "up"] }), importOf("a", { health: ["up"], spec: { weight: 4 } })];
  assert.deepEqual(sharesOf([knownOf(2, far), knownOf(1, near)], PORT), [
    { owner: 1, weight: 2, backends: [{ index: 0, weight: 1 }, { index: 1, weight: 1 }] },
    { owner: 2, weight: 4, backends: [{ index: 0, weight: 4 }] },
  ]);
  const spare = importOf("a", { health: ["up"], spec: { priority: 1 } });
  assert.deepEqual(sharesOf([knownOf(1, spare), knownOf(2, far)], PORT).map(({ owner }) => owner), [2]);
  const ill = importOf("a", { health: ["down"] });
  assert.deepEqual(sharesOf([knownOf(1, spare), knownOf(2, ill)], PORT).map(({ owner }) => owner), [1]);
  const standby = near.spec.backends.map((backend, i) => ({ ...backend, priority: i }));
  const own = (health: ("up" | "down" | "unknown")[]) => importOf("a", { health, spec: { backends: standby } });
  const indexes = (health: ("up" | "down" | "unknown")[]) =>
    sharesOf([knownOf(1, own(health))], PORT).flatMap(({ backends }) => backends.map(({ index }) => index));
  assert.deepEqual(indexes(["up", "up"]), [0]);
  assert.deepEqual(indexes(["down", "up"]), [1]);
  assert.deepEqual(indexes(["unknown", "up"]), [1]);
  assert.deepEqual(indexes(["unknown", "unknown"]), [0]);
  assert.deepEqual(indexes(["down", "down"]), []);
});

Deno.test("sharesOf() leaves out who is out of reach or takes no new flows, and other ports", () => {
  const up = importOf("a", { health: ["up"] });
  assert.deepEqual(sharesOf([knownOf(1, up, false)], PORT), []);
  for (const state of ["draining", "revoked"] as const) {
    assert.deepEqual(sharesOf([knownOf(1, importOf("a", { health: ["up"], spec: { state } }))], PORT), []);
  }
  assert.deepEqual(sharesOf([knownOf(1, up)], parsePortRange("5432/udp")!), []);
  assert.deepEqual(sharesOf([knownOf(1, up)], parsePortRange("5432-5433")!), []);
});

Deno.test("sharesOf() keeps weights from 1 to 256, and their proportions as far as that goes", () => {
  const weighed = (weight: number, weights: readonly number[]) => {
    const record = importOf("a", { health: weights.map(() => "up" as const) });
    const backends = record.spec.backends.map((backend, i) => ({ ...backend, weight: weights[i]! }));
    return { ...record, spec: { ...record.spec, weight, backends } };
  };
  const shares = sharesOf([
    knownOf(1, weighed(256, [256, 256])),
    knownOf(2, weighed(1, [1])),
    knownOf(3, weighed(128, [256])),
  ], PORT);
  assert.deepEqual(shares.map(({ weight }) => weight), [256, 1, 64]);
  assert.deepEqual(shares[0]!.backends.map(({ weight }) => weight), [128, 128]);
});
