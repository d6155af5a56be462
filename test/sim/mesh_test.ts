import assert from "node:assert/strict";
import { checkSettled, isSettled } from "./model.ts";
import { addressOf, nameOf, OURS, withSeed, World } from "./world.ts";
import type { HostOptions } from "./host.ts";

/** Back-off may have grown to minutes by the time a way is open again. */
const SETTLE = { within: 900_000, every: 1000 };

Deno.test("a hundred peers agree after joining, failing and coming back at random", () => {
  for (let seed = 1; seed <= 10; seed++) {
    withSeed(seed, () => {
      const world = new World({ seed });
      joinAtRandom(world, 100);
      disturb(world, 100, 40);
      world.runUntil("settled", () => isSettled(world), SETTLE);
      checkSettled(world, { samples: 30 });
    });
  }
});

Deno.test("peers of Weave Net 2.8 and ours agree in one mesh", () => {
  for (let seed = 1; seed <= 10; seed++) {
    withSeed(seed, () => {
      const world = new World({ seed });
      const extensions = [[], OURS, ["digest"], ["probe"]];
      joinAtRandom(world, 40, () => ({ extensions: extensions[world.random.below(4)]! }));
      disturb(world, 40, 25);
      world.runUntil("settled", () => isSettled(world), SETTLE);
      checkSettled(world);
    });
  }
});

Deno.test("peers that discover each other agree, whatever fails", () => {
  for (let seed = 1; seed <= 10; seed++) {
    withSeed(seed, () => {
      const world = new World({ seed });
      joinAtRandom(world, 25, () => ({ discovery: world.random.below(3) > 0 }));
      disturb(world, 25, 20);
      world.runUntil("settled", () => isSettled(world), SETTLE);
      checkSettled(world);
    });
  }
});

Deno.test("small meshes agree over real sessions, whose octets arrive in pieces", () => {
  for (let seed = 1; seed <= 10; seed++) {
    withSeed(seed, () => {
      const world = new World({ seed, octets: true, window: 8 });
      joinAtRandom(world, 12, () => ({ extensions: world.random.below(3) === 0 ? [] : OURS }));
      disturb(world, 12, 15);
      world.runUntil("settled", () => isSettled(world), SETTLE);
      checkSettled(world);
    });
  }
});

Deno.test("one seed makes one trace", () => {
  const trace = (seed: number, octets: boolean) => {
    const world = new World({ seed, octets });
    joinAtRandom(world, 15);
    disturb(world, 15, 15);
    return `${world.events} ${world.traceHash}`;
  };
  for (const octets of [false, true]) {
    assert.equal(trace(7, octets), trace(7, octets));
    assert.notEqual(trace(7, octets), trace(8, octets));
  }
});

Deno.test("a cut is noticed 2 s after the last answer, and both sides forget each other", () => {
  for (let seed = 1; seed <= 5; seed++) {
    withSeed(seed, () => {
      const world = new World({ seed });
      const [left, right] = [range(1, 10), range(11, 20)];
      chain(world, left);
      chain(world, right);
      world.host(11).connect(addressOf(10));
      world.runUntil("settled", () => isSettled(world), SETTLE);
      world.run(5_000);

      world.partition(left, right);
      const noticed = world.runUntil("noticed", () => isSettled(world, 2), { within: 10_000, every: 50 });
      assert.ok(noticed <= 2_000 + 600 + 2_000, `${noticed} ms`);
      const [ten] = world.host(10).mesh.connections().filter((row) => "peer" in row && row.peer === nameOf(11));
      assert.equal(ten, undefined);
      // The gossip of the change crosses nine hops on either side.
      world.runUntil("forgotten", () => forgotten(world, left, right) && forgotten(world, right, left), {
        within: 5_000,
      });
      checkSettled(world);

      world.network.heal();
      world.runUntil("healed", () => isSettled(world), { within: 30_000 });
      checkSettled(world);
    });
  }
});

Deno.test("a peer that is not run for a second loses no connection, nor do many that are not run for longer", () => {
  const world = new World({ seed: 5 });
  chain(world, range(1, 8));
  world.runUntil("settled", () => isSettled(world), SETTLE);
  const terminations = () => [...world.hosts.values()].map((host) => host.mesh.terminationCount);
  const before = terminations();
  for (let i = 0; i < 10; i++) {
    world.host(1 + world.random.below(8)).stall(1_000);
    world.run(2_000);
  }
  for (const host of world.hosts.values()) host.stall(10_000); // as when their machine sleeps
  world.run(20_000);
  assert.deepEqual(terminations(), before);
  checkSettled(world);

  // Others cannot know that it is not dead. It comes back by itself.
  world.host(4).stall(5_000);
  world.run(4_500);
  assert.equal(world.host(3).mesh.peer(nameOf(4)), undefined);
  world.runUntil("settled", () => isSettled(world), { within: 30_000 });
  checkSettled(world);
});

Deno.test("a peer that is started again takes its place in spite of what is told of its earlier life", () => {
  for (let seed = 1; seed <= 5; seed++) {
    withSeed(seed, () => {
      const world = new World({ seed });
      chain(world, range(1, 6));
      world.host(3).connect(addressOf(6)); // its version is higher than it will be after the restart
      world.runUntil("settled", () => isSettled(world), SETTLE);
      const before = world.host(1).mesh.peer(nameOf(3))!;
      world.stop(3);
      world.start(3).connect(addressOf(2), addressOf(6));
      world.runUntil("settled", () => isSettled(world), SETTLE);
      checkSettled(world);
      const after = world.host(1).mesh.peer(nameOf(3))!;
      assert.notEqual(after.uid, before.uid);
      assert.ok(after.version > before.version);
    });
  }
});

Deno.test("a peer that is gone for good is forgotten by all, without anybody's help", () => {
  const world = new World({ seed: 1 });
  chain(world, range(1, 8));
  world.host(8).connect(addressOf(1));
  world.runUntil("settled", () => isSettled(world), SETTLE);
  for (const host of world.hosts.values()) host.gone.length = 0;
  world.stop(4);
  world.runUntil("forgotten", () => isSettled(world), { within: 5_000 });
  for (const host of world.hosts.values()) {
    assert.deepEqual(host.gone, [nameOf(4)]);
    assert.equal(host.mesh.peerCount, 7);
  }
  checkSettled(world);
});

Deno.test("two peers of one name do not connect, and do not try again", () => {
  const world = new World({ seed: 1 });
  const one = world.start(1, { address: addressOf(101).address, nickName: "one" });
  const other = world.start(1, { address: addressOf(102).address, nickName: "other" });
  other.connect(addressOf(101));
  world.run(600_000);
  assert.deepEqual(other.mesh.connections(), [{
    state: "failed",
    address: addressOf(101),
    error: 'local "02:00:00:00:00:01(other)" and remote "02:00:00:00:00:01(one)" peer names collision',
    retryAt: undefined,
  }]);
  assert.deepEqual(one.mesh.connections(), []);
  assert.equal(one.mesh.terminationCount, 1);
});

Deno.test("a peer that is told to connect with itself does not, and does not count it", () => {
  const world = new World({ seed: 1 });
  const host = world.start(1);
  host.connect(addressOf(1));
  world.run(600_000);
  const [row] = host.mesh.connections();
  assert.ok(row?.state === "failed" && row.error === "cannot connect to ourself" && row.retryAt === undefined);
  assert.equal(host.mesh.terminationCount, 0);
  assert.deepEqual(host.mesh.activeTargets(), []);
});

Deno.test("discovery turns a chain into a full mesh, and without it a chain stays one", () => {
  for (const discovery of [true, false]) {
    const world = new World({ seed: 3 });
    chain(world, range(1, 10), { discovery });
    world.run(60_000);
    assert.ok(isSettled(world));
    checkSettled(world);
    const counts = [...world.hosts.values()].map((host) => host.mesh.connections().length);
    assert.deepEqual(counts, discovery ? Array(10).fill(9) : [1, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
  }
});

Deno.test("a peer with a limit takes no more connections than that", () => {
  const world = new World({ seed: 4 });
  world.start(1, { connectionLimit: 3 });
  for (let i = 2; i <= 6; i++) world.start(i).connect(addressOf(1));
  world.run(60_000);
  const rows = world.host(1).mesh.connections();
  assert.equal(rows.length, 3);
  const refused = range(2, 6).filter((i) => world.host(i).mesh.connections()[0]!.state !== "established");
  assert.equal(refused.length, 2);
});

Deno.test("two peers that are told of each other have one connection, and keep it", () => {
  for (let seed = 1; seed <= 20; seed++) {
    withSeed(seed, () => {
      const world = new World({ seed });
      const [a, b] = [world.start(1), world.start(2)];
      a.connect(addressOf(2));
      b.connect(addressOf(1));
      world.runUntil("settled", () => isSettled(world), SETTLE);
      world.run(10_000);
      const terminations = a.mesh.terminationCount;
      checkSettled(world);
      world.run(600_000);
      checkSettled(world);
      assert.equal(a.mesh.terminationCount, terminations);
    });
  }
});

/** Each host is told of one or two that came before it, so that there is a way from each to each. */
function joinAtRandom(world: World, count: number, options: () => Partial<HostOptions> = () => ({})): void {
  for (let i = 1; i <= count; i++) {
    const rest = options();
    world.start(i, rest);
    if (i > 1) reconnect(world, i);
    world.run(world.random.below(300));
  }
}

function reconnect(world: World, number: number): void {
  const targets = range(0, world.random.below(2)).map(() => 1 + world.random.below(number - 1));
  if (number > 1) world.host(number).connect(...targets.map(addressOf));
}

/** Connections are reset or die in silence, hosts are killed and started again, the network falls apart and heals. */
function disturb(world: World, count: number, events: number): void {
  const down = new Map<number, Partial<HostOptions>>();
  for (let i = 0; i < events; i++) {
    world.run(world.random.below(2_000));
    const connections = world.network.connections();
    const connection = connections[world.random.below(connections.length)];
    const number = 1 + world.random.below(count);
    switch (world.random.below(5)) {
      case 0:
        connection?.reset();
        break;
      case 1:
        connection?.kill();
        break;
      case 2:
        if (down.has(number)) break;
        down.set(number, world.host(number).o);
        world.stop(number);
        break;
      case 3:
        for (const [stopped, options] of down) startAgain(world, stopped, options);
        down.clear();
        break;
      default:
        world.partition(range(1, count).filter(() => world.random.below(2) === 0));
        world.run(world.random.below(4_000));
        world.network.heal();
    }
  }
  for (const [stopped, options] of down) startAgain(world, stopped, options);
}

function startAgain(world: World, number: number, { extensions, discovery }: Partial<HostOptions>): void {
  world.start(number, { ...extensions && { extensions }, ...discovery !== undefined && { discovery } });
  reconnect(world, number);
}

function chain(world: World, numbers: readonly number[], rest: Partial<HostOptions> = {}): void {
  for (const [i, number] of numbers.entries()) {
    const host = world.start(number, rest);
    if (i > 0) host.connect(addressOf(numbers[i - 1]!));
  }
}

function forgotten(world: World, by: readonly number[], whom: readonly number[]): boolean {
  return by.every((number) => whom.every((other) => !world.host(number).mesh.peer(nameOf(other))));
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}
