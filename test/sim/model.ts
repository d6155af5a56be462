/**
 * What a mesh should be like once it has settled, worked out in the slow and obvious way: from the connections that there are, without a
 * look at how the mesh core does it.
 */
import assert from "node:assert/strict";
import { NO_PEER, type PeerName } from "../../src/lib/mac.ts";
import type { Random } from "../../src/lib/random.ts";
import type { PeerRecord } from "../../src/wire/topology.ts";
import { describeHost, type World } from "./world.ts";
import type { SimHost } from "./host.ts";

type Graph = ReadonlyMap<PeerName, ReadonlySet<PeerName>>;

/** Whether there are so many groups of connected hosts, and in each group every host knows the same, and what is true. */
export function isSettled(world: World, groups = 1): boolean {
  const graph = connectionsOf(world);
  const components = componentsOf(graph);
  if (components.length !== groups) return false;
  for (const host of world.hosts.values()) {
    if (host.mesh.connections().some((row) => row.state === "pending" || row.state === "connecting")) return false;
  }
  for (const [name, peers] of graph) for (const peer of peers) if (!graph.get(peer)!.has(name)) return false;
  return components.every((component) => {
    const truth = truthOf(world, component);
    return component.every((name) => knows(world.hosts.get(name)!, truth));
  });
}

/**
 * Fails unless everything is as it should be: what is known, who is connected with whom, and all ways.
 * @param samples hosts of each group whose ways are checked, at random
 */
export function checkSettled(world: World, { samples = Infinity }: { samples?: number } = {}): void {
  assert.deepEqual(world.errors, []);
  const graph = connectionsOf(world);
  checkConnections(world);
  for (const component of componentsOf(graph)) {
    const truth = truthOf(world, component);
    for (const name of component) {
      const host = world.hosts.get(name)!;
      assert.equal(host.mesh.peerCount, truth.size, describeHost(host));
      for (const record of truth.values()) {
        const known = host.mesh.peer(record.name);
        if (known !== record) assert.deepEqual(known && identity(known), identity(record), describeHost(host));
      }
    }
    checkShortIds([...truth.values()]);
    const some = component.length <= samples ? component : sample(component, samples, world.random);
    for (const name of some) checkUnicast(world, name, graph, component);
    for (const source of some) {
      checkBroadcast(world, source, component, (host) => host.mesh.routes.broadcast(source));
      checkBroadcast(world, source, component, (host) => host.mesh.routes.broadcastAll(source));
    }
  }
}

/** Both ends have the connection, established, one as the one who made it. */
function checkConnections(world: World): void {
  for (const host of world.hosts.values()) {
    for (const row of host.mesh.connections()) {
      if (row.state !== "established" && row.state !== "pending") continue;
      assert.equal(row.state, "established", describeHost(host));
      const far = world.hosts.get(row.peer);
      assert.ok(far, `${describeHost(host)} is connected with somebody who is not there`);
      const back = far.mesh.connections().filter((other) => "peer" in other && other.peer === host.o.name);
      assert.equal(back.length, 1);
      assert.ok("outbound" in back[0]! && back[0].outbound === !row.outbound);
    }
  }
}

function checkShortIds(records: readonly PeerRecord[]): void {
  const ids = new Set(records.map((record) => record.shortId));
  assert.equal(ids.size, records.length, "two peers have one short id");
}

/** Following next hops leads to every peer, in as few steps as there can be. */
function checkUnicast(world: World, from: PeerName, graph: Graph, component: readonly PeerName[]): void {
  const distances = distancesFrom(from, graph);
  const table = world.hosts.get(from)!.mesh.routes.unicast();
  assert.equal(table.size, component.length);
  for (const to of component) {
    if (to === from) {
      assert.equal(table.get(to), NO_PEER);
      continue;
    }
    const hop = table.get(to)!;
    assert.ok(graph.get(from)!.has(hop), "the next hop is a neighbour");
    assert.equal(distances.get(to), 1 + distancesFrom(hop, graph).get(to)!, "the next hop is nearer");
  }
}

const distanceCache = new WeakMap<Graph, Map<PeerName, Map<PeerName, number>>>();

function distancesFrom(from: PeerName, graph: Graph): Map<PeerName, number> {
  let cache = distanceCache.get(graph);
  if (!cache) distanceCache.set(graph, cache = new Map());
  let distances = cache.get(from);
  if (distances) return distances;
  cache.set(from, distances = new Map([[from, 0]]));
  const reached = [from];
  for (const name of reached) {
    for (const far of graph.get(name)!) {
      if (distances.has(far)) continue;
      distances.set(far, distances.get(name)! + 1);
      reached.push(far);
    }
  }
  return distances;
}

/** What the source broadcasts reaches everybody else once. */
function checkBroadcast(
  world: World,
  source: PeerName,
  component: readonly PeerName[],
  hops: (host: SimHost) => readonly PeerName[],
): void {
  const received = new Map<PeerName, number>();
  const underWay = [source];
  for (let name = underWay.pop(); name !== undefined; name = underWay.pop()) {
    for (const hop of hops(world.hosts.get(name)!)) {
      received.set(hop, (received.get(hop) ?? 0) + 1);
      assert.equal(received.get(hop), 1, "a broadcast reaches a peer more than once");
      underWay.push(hop);
    }
  }
  assert.equal(received.has(source), false);
  assert.equal(received.size, component.length - 1, "a broadcast reaches everybody");
}

/** Who is connected with whom, as those that run say. */
function connectionsOf(world: World): Graph {
  const graph = new Map<PeerName, Set<PeerName>>();
  for (const [name, host] of world.hosts) {
    const far = host.mesh.connections().flatMap((row) => "peer" in row ? [row.peer] : []);
    graph.set(name, new Set(far.filter((peer) => world.hosts.has(peer))));
  }
  return graph;
}

function componentsOf(graph: Graph): PeerName[][] {
  const left = new Set(graph.keys());
  const found: PeerName[][] = [];
  for (const name of graph.keys()) {
    if (!left.has(name)) continue;
    const component = [...distancesFrom(name, graph).keys()];
    for (const member of component) left.delete(member);
    found.push(component.sort((a, b) => a - b));
  }
  return found;
}

/** What each member says of itself. */
function truthOf(world: World, component: readonly PeerName[]): Map<PeerName, PeerRecord> {
  return new Map(component.map((name) => [name, world.hosts.get(name)!.mesh.peer(name)!]));
}

function knows(host: SimHost, truth: ReadonlyMap<PeerName, PeerRecord>): boolean {
  const { mesh } = host;
  let count = 0;
  for (const [name, record] of truth) {
    const known = mesh.peer(name);
    if (!known || known.version !== record.version || known.uid !== record.uid) return false;
    count++;
  }
  return mesh.peerCount === count;
}

function sample<T>(all: readonly T[], count: number, random: Random): T[] {
  return Array.from({ length: count }, () => all[random.below(all.length)]!);
}

function identity(record: PeerRecord): unknown {
  const { name, nickName, uid, version, shortId } = record;
  const connections = record.connections.map((connection) => ({ ...connection })).sort((a, b) => a.peer - b.peer);
  return { name, nickName, uid, version, shortId, connections };
}
