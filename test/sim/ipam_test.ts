import assert from "node:assert/strict";
import type { PeerName } from "../../src/lib/mac.ts";
import { IpamNode, IpamWorld, type NodeOptions } from "./ipam_world.ts";
import { withSeed } from "./world.ts";

/** `WEAVE_SIM_SEEDS=100000-101000` for others than the usual ones. */
function seeds(count: number): Iterable<number> {
  const given = /^(\d+)-(\d+)$/.exec(Deno.env.get("WEAVE_SIM_SEEDS") ?? "");
  const [from, to] = given ? [Number(given[1]), Number(given[2])] : [1, count];
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

function total(counts: Map<string, number>, world: IpamWorld): void {
  for (const [what, count] of world.counts) counts.set(what, (counts.get(what) ?? 0) + count);
}

Deno.test("no address is held twice, whatever happens in a mesh of allocators", () => {
  const counts = new Map<string, number>();
  for (const seed of seeds(2000)) {
    withSeed(seed, () => {
      const world = new IpamWorld({
        seed,
        lossPerMille: seed % 3 === 0 ? 50 : 0,
        killPerMille: seed % 2 === 0 ? 20 : 0,
      });
      const size = 2 + world.random.below(4);
      const option = someInit(world, size);
      for (let number = 1; number <= size; number++) world.add(number, option(number));
      for (let step = 0; step < 60; step++) {
        disturb(world);
        world.run(world.random.below(10) === 0 ? world.random.below(60_000) : world.random.below(2_000));
      }
      settle(world);
      total(counts, world);
    });
  }
  console.log(Object.fromEntries([...counts].sort()));
  for (const what of ["allocate done", "claim done", "claim refused", "free done", "takeOver done", "leave done"]) {
    assert.ok(counts.get(what)! > 100, what);
  }
});

Deno.test("no address is held twice, at whatever write a router is killed", () => {
  let points = 0;
  for (let seed = 1; seed <= 12; seed++) {
    for (let write = 1;; write++) {
      const last = [false, true].map((after) => {
        const world = new IpamWorld({ seed, writeMs: 400, plugMs: 60_000, killAt: { write, after } });
        withSeed(seed, () => busyLife(world), ` killed ${after ? "after" : "before"} write ${write}`);
        points++;
        return world.writes < write;
      });
      if (last[0] && last[1]) break;
    }
  }
  console.log(`${points} lives`);
  assert.ok(points > 1000);
});

/** Three routers whose space is soon used up, so that they must ask each other. */
function busyLife(world: IpamWorld): void {
  const nodes = [1, 2, 3].map((number) => world.add(number, { init: { mode: "consensus", peers: 3 } }));
  const { random } = world;
  for (let step = 0; step < 25; step++) {
    const node = nodes[random.below(step < 12 ? 1 : 3)]!;
    const ids = [...node.containers.keys()];
    const what = random.below(8);
    if (what < 5) { for (let i = 0; i < 3; i++) node.allocate(); }
    //
    else if (what === 5) node.claim(world.range.address + random.below(64));
    else if (ids.length > 0) node.detach(ids[random.below(ids.length)]!);
    // In between they tell each other how things are.
    for (const other of nodes) if (other !== node) world.meet(node, other);
    world.run(random.below(500));
    for (const other of nodes) if (other !== node) world.meet(node, other);
    world.run(random.below(500));
  }
  quiesce(world);
  for (const node of nodes) node.allocate();
  world.run(70_000);
  world.check();
}

/** How the first ring comes about, and who takes part in it. */
function someInit(world: IpamWorld, size: number): (number: number) => NodeOptions {
  const name = (number: number) => 0x02_00_00_00_00_00 + number as PeerName;
  switch (world.random.below(3)) {
    case 0: {
      const peers = Array.from({ length: size }, (_, i) => name(i + 1));
      return () => ({ init: { mode: "seed", peers } });
    }
    case 1:
      return () => ({ init: { mode: "consensus", peers: size } });
    default: {
      // Those who watch are not among those who are to agree.
      const watching = Array.from({ length: size }, (_, i) => i > 0 && world.random.below(3) === 0);
      const peers = watching.filter((watches) => !watches).length;
      return (number) => ({ init: watching[number - 1] ? { mode: "observer" } : { mode: "consensus", peers } });
    }
  }
}

/** One thing happens. */
function disturb(world: IpamWorld): void {
  const { random } = world;
  const all = [...world.nodes.values()].filter((node) => !node.dead);
  const node = all[random.below(all.length)]!;
  switch (random.below(16)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
      return void node.allocate();
    case 5: {
      const address = world.range.address + random.below(64);
      return void node.claim(address);
    }
    case 6:
    case 7:
    case 8: {
      const ids = [...node.containers.keys()];
      const id = ids[random.below(ids.length || 1)];
      if (id === undefined) return;
      return random.below(2) === 0 ? node.detach(id) : node.stopContainer(id, random.below(2) === 0);
    }
    case 9:
      if (node.running) return node.kill();
      return node.start();
    case 10:
      return node.cancelSome();
    case 11: {
      if (world.partitioned) return world.partition([]);
      const some = all.filter(() => random.below(2) === 0);
      return world.partition([some]);
    }
    case 12:
      return removeDead(world, node);
    case 13:
      return moveAway(world, node);
    case 14:
      return node.prime();
    default:
      for (const other of all) if (!other.running) other.start();
  }
}

/** A host dies for good, and another one takes over once all that are left have heard what it said. */
function removeDead(world: IpamWorld, node: IpamNode): void {
  const alive = [...world.nodes.values()].filter((other) => !other.dead && other !== node);
  if (alive.length < 2 || world.random.below(3) > 0) return;
  // Who dies before there is a ring may be missing for one.
  if (!alive.every((other) => other.hasRing())) return;
  node.die();
  quiesce(world);
  const heir = world.running()[0];
  if (heir === undefined) return;
  heir.takeOver(node);
  // As soon as it has answered everybody may hear of it.
  world.run(2_000);
}

/** A host is reset: it gives its addresses away, and comes back with nothing. */
function moveAway(world: IpamWorld, node: IpamNode): void {
  if (!node.running || !node.hasRing() || world.random.below(3) > 0) return;
  quiesce(world);
  if (!node.running) return;
  for (const id of [...node.containers.keys()]) node.containers.delete(id);
  let left = false;
  node.leave(() => left = true);
  world.run(1_000);
  if (!left) return; // killed while it did so: it is as it was
  quiesce(world);
  node.reset();
  node.start();
}

/** Everybody is up and has told everybody. */
function quiesce(world: IpamWorld): void {
  world.partition([]);
  for (let tries = 0; tries < 20; tries++) {
    for (const node of world.nodes.values()) if (!node.running && !node.dead) node.start();
    world.run(35_000);
    if ([...world.nodes.values()].every((node) => node.running || node.dead)) break;
  }
}

/** In peace all is served that can be, and all are of one mind. */
function settle(world: IpamWorld): void {
  world.killing = false;
  quiesce(world);
  world.run(65_000);
  quiesce(world);
  world.check();
  for (const node of world.running()) {
    for (const contest of node.allocator.status(world.now).contests) assert.fail(`${node}: contested ${contest.cidr}`);
  }
  // With room for one, one more is to be had by everybody.
  for (const node of world.running()) for (const id of node.containers.keys()) node.detach(id);
  world.run(40_000);
  quiesce(world);
  for (const node of world.running()) {
    let got = false;
    node.allocate(undefined, (result) => got = result.outcome === "done");
    world.runUntil(`${node} gets an address`, () => got || !node.running, 60_000);
  }
  world.check();
}
