import assert from "node:assert/strict";
import { formatMac, NO_PEER, type PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import type { ConnectionRecord, PeerRecord } from "../wire/topology.ts";
import { connectionsTo, names, peerName, readVector, record } from "../../test/sim/records.ts";
import { Peers } from "./peers.ts";
import { drawWeighted, gossipFanOut, Routes } from "./routes.ts";

interface RouteVectors {
  readonly cases: readonly {
    readonly note: string;
    readonly peers: number;
    readonly edges:
      | readonly {
        readonly from: string;
        readonly to: string;
        readonly from_established: boolean;
        readonly to_established: boolean;
        readonly one_way: boolean;
      }[]
      | null;
    readonly views: readonly {
      readonly us: string;
      readonly unicast: Readonly<Record<string, string>>;
      readonly unicast_all: Readonly<Record<string, string>>;
      readonly broadcast: Readonly<Record<string, readonly string[]>>;
      readonly broadcast_all: Readonly<Record<string, readonly string[]>>;
      readonly random_neighbours_max: number;
    }[];
  }[];
}

interface MiscVectors {
  readonly neighbours: readonly {
    readonly known_peers_including_self: number;
    readonly neighbours: number;
    readonly chosen: number;
  }[];
}

for (const testCase of readVector<RouteVectors>("routes").cases) {
  Deno.test(`Routes are those of the vectors, seen by every peer: ${testCase.note}`, () => {
    const all = recordsOf(testCase);
    for (const view of testCase.views) {
      const routes = routesOf(all, peerName(view.us));
      assert.deepEqual(asText(routes.unicast()), view.unicast);
      assert.deepEqual(asText(routes.unicastAll()), view.unicast_all);
      for (const [source, hops] of Object.entries(view.broadcast)) {
        assert.deepEqual(names(routes.broadcast(peerName(source))), [...hops].sort());
      }
      for (const [source, hops] of Object.entries(view.broadcast_all)) {
        assert.deepEqual(names(routes.broadcastAll(peerName(source))), [...hops].sort());
      }
      assert.equal(routes.randomNeighbours(NO_PEER, new SeededRandom(1)).length, view.random_neighbours_max);
    }
  });
}

Deno.test("Routes.randomNeighbours() chooses as many as the vectors, in the middle of a star", () => {
  for (
    const { known_peers_including_self: known, neighbours, chosen } of readVector<MiscVectors>("mesh-misc").neighbours
  ) {
    const others = Array.from({ length: neighbours }, (_, i) => i + 2);
    const routes = routesOf([record(1, { connections: connectionsTo(others) }), ...others.map((n) => record(n))], 1);
    const drawn = routes.randomNeighbours(NO_PEER, new SeededRandom(known));
    assert.equal(drawn.length, chosen, `${known} peers`);
    assert.equal(new Set(drawn).size, chosen);
    if (chosen < neighbours) assert.equal(gossipFanOut(known), chosen);
  }
});

Deno.test("Routes.randomNeighbours() leaves one out, and prefers those that lead to many", () => {
  // 1 in the middle of 40 neighbours; behind neighbour 2 there are 200 more peers.
  const near = Array.from({ length: 40 }, (_, i) => i + 2);
  const behind = Array.from({ length: 200 }, (_, i) => i + 100);
  const routes = routesOf([
    record(1, { connections: connectionsTo(near) }),
    record(2, { connections: connectionsTo(behind) }),
    ...near.slice(1).map((n) => record(n)),
    ...behind.map((n) => record(n)),
  ], 1);
  const random = new SeededRandom(3);
  const drawn = Array.from({ length: 100 }, () => routes.randomNeighbours(NO_PEER, random));
  assert.ok(drawn.every((hops) => hops.length === gossipFanOut(241)));
  assert.ok(drawn.filter((hops) => hops.includes(2 as PeerName)).length > 95);
  const without = Array.from({ length: 100 }, () => routes.randomNeighbours(2 as PeerName, random));
  assert.ok(without.every((hops) => !hops.includes(2 as PeerName) && hops.length === gossipFanOut(241)));
});

Deno.test("Routes changes with the topology, and knows nothing of strangers", () => {
  const peers = new Peers(record(1), new SeededRandom(1));
  const routes = new Routes(peers);
  peers.setOurConnections(connectionsTo([2]));
  peers.merge([record(2, { connections: connectionsTo([1, 3]) }), record(3, { connections: connectionsTo([2]) })]);
  assert.equal(routes.unicast().get(3 as PeerName), 2);
  assert.deepEqual(routes.broadcast(99 as PeerName), []);
  peers.merge([record(3, { version: 2n, connections: [] })]);
  assert.equal(routes.unicast().get(3 as PeerName), undefined);
  assert.equal(routes.unicastAll().get(3 as PeerName), 2);
});

Deno.test("drawWeighted() draws each key with the chance of its weight", () => {
  const random = new SeededRandom(5);
  let heavy = 0;
  for (let i = 0; i < 3000; i++) {
    const [first] = drawWeighted(new Map([[1 as PeerName, 1], [2 as PeerName, 2]]), 1, random);
    if (first === 2) heavy++;
  }
  assert.ok(Math.abs(heavy / 3000 - 2 / 3) < 0.03, String(heavy));
  assert.equal(drawWeighted(new Map([[1 as PeerName, 1]]), 5, random).length, 1);
});

function recordsOf({ peers, edges }: RouteVectors["cases"][number]): PeerRecord[] {
  const connections = new Map<PeerName, ConnectionRecord[]>();
  const base = peerName("02:00:00:00:00:00");
  for (let i = 0; i < peers; i++) connections.set(base + i as PeerName, []);
  for (const { from, to, from_established, to_established, one_way } of edges ?? []) {
    const [near, far] = [peerName(from), peerName(to)];
    connections.get(near)!.push(...connectionsTo([far], { established: from_established }));
    if (!one_way) {
      connections.get(far)!.push(...connectionsTo([near], { established: to_established, outbound: false }));
    }
  }
  return [...connections].map(([name, connections]) => record(name, { connections }));
}

function routesOf(all: readonly PeerRecord[], us: number): Routes {
  const ours = all.find((peer) => peer.name === us)!;
  const peers = new Peers(ours, new SeededRandom(1));
  peers.merge(all);
  return new Routes(peers);
}

function asText(table: ReadonlyMap<PeerName, PeerName>): Record<string, string> {
  return Object.fromEntries([...table].map(([to, via]) => [formatMac(to), via === NO_PEER ? "self" : formatMac(via)]));
}
