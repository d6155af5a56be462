/** Allocators on real mesh cores: topology, routes, gossip and broadcasts as they are, over a network that delays, cuts and heals. */
import assert from "node:assert/strict";
import { Allocator, type IpamInit } from "../../src/ipam/allocator.ts";
import type { OperationId, OperationResult } from "../../src/ipam/operations.ts";
import { checkStored, encodeStored } from "../../src/ipam/stored.ts";
import { type Cidr, formatCidr, type Ipv4, parseCidr } from "../../src/lib/ip.ts";
import { SILENT } from "../../src/lib/log.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import { SeededRandom } from "../../src/lib/random.ts";
import type { Part, SimHost } from "./host.ts";
import { addressOf, nameOf, withSeed, World } from "./world.ts";

const RANGE = parseCidr("10.32.0.0/24")!;

Deno.test("hosts in a line agree on a ring, and give to each other over others", () => {
  const mesh = new AddressMesh(1);
  line(mesh, 5, () => ({ mode: "consensus", peers: 5 }));
  mesh.world.runUntil("connected", () => mesh.nodes().every((node) => node.host.mesh.peerCount === 5), {
    within: 30_000,
  });
  let got = 0;
  mesh.node(1).allocate(() => got++);
  mesh.world.runUntil("the first address", () => got === 1, { within: 20_000 });
  for (const node of mesh.nodes()) node.allocate(() => got++);
  mesh.world.runUntil("addresses for all", () => got === 6, { within: 10_000 });
  // One uses up what it has, and asks for more, however far away.
  for (let i = 0; i < 150; i++) mesh.node(5).allocate(() => got++);
  mesh.world.runUntil("addresses of others", () => got === 156, { within: 60_000 });
  mesh.check();
});

Deno.test("requests go through a host that has no allocator", () => {
  const mesh = new AddressMesh(2);
  for (const number of [1, 3]) mesh.start(number, { mode: "consensus", peers: 2 });
  mesh.world.start(2);
  for (const number of [1, 3]) mesh.world.host(number).connect(addressOf(2));
  let got = 0;
  mesh.node(1).allocate(() => got++);
  mesh.node(3).allocate(() => got++);
  mesh.world.runUntil("addresses for both", () => got === 2, { within: 40_000 });
  for (let i = 0; i < 150; i++) mesh.node(3).allocate(() => got++);
  mesh.world.runUntil("addresses of the other one", () => got === 152, { within: 60_000 });
  mesh.check();
});

Deno.test("an observer in the middle does not keep voters apart", () => {
  const mesh = new AddressMesh(3);
  line(mesh, 3, (number) => number === 2 ? { mode: "observer" } : { mode: "consensus", peers: 2 });
  let got = 0;
  for (const node of mesh.nodes()) node.allocate(() => got++);
  mesh.world.runUntil("addresses for all", () => got === 3, { within: 60_000 });
  mesh.check();
});

Deno.test("a killed peer's space is to be had by others within 5 s after it was removed", () => {
  const mesh = new AddressMesh(4);
  line(mesh, 3, () => ({ mode: "seed", peers: [1, 2, 3].map(nameOf) }));
  mesh.world.runUntil("connected", () => mesh.nodes().every((node) => node.host.mesh.peerCount === 3), {
    within: 30_000,
  });
  let got = 0;
  for (let i = 0; i < 190; i++) mesh.node(1 + i % 2).allocate(() => got++);
  mesh.world.run(60_000);
  mesh.kill(3);
  for (let i = 0; i < 60; i++) mesh.node(2).allocate(() => got++);
  mesh.world.run(60_000);
  const before = got;
  assert.ok(before < 250);
  mesh.node(1).takeOver(nameOf(3));
  mesh.world.runUntil("the rest", () => got === 250, { within: 5_000 });
  mesh.check();
});

Deno.test("hosts with seeds that differ part, survive, and say what differs", () => {
  const mesh = new AddressMesh(5);
  mesh.start(1, { mode: "seed", peers: [nameOf(1)] });
  mesh.start(2, { mode: "seed", peers: [nameOf(2)] });
  mesh.world.host(1).connect(addressOf(2));
  mesh.world.run(20_000);
  for (const node of mesh.nodes()) {
    const conflicts = node.allocator.status(mesh.world.clock.now).conflicts;
    assert.equal(conflicts.length, 1);
    assert.match(conflicts[0]!.reason, /seeded by different peers \(received: \[.+\], ours: \[.+\]\)/);
    let got = 0;
    node.allocate(() => got++);
    mesh.world.run(100);
    assert.equal(got, 1);
  }
  const [row] = mesh.world.host(1).mesh.connections();
  assert.ok(row && (row.state === "failed" || row.state === "retrying" || row.state === "pending"), row?.state);
});

Deno.test("no address is held twice on a mesh that is cut, healed, and whose routers are killed", () => {
  const [from, to] = (Deno.env.get("WEAVE_SIM_SEEDS") ?? "1-300").split("-").map(Number);
  for (let seed = from!; seed <= to!; seed++) {
    withSeed(seed, () => {
      const mesh = new AddressMesh(seed);
      const size = 3 + mesh.random.below(4);
      for (let number = 1; number <= size; number++) {
        mesh.start(number, { mode: "consensus", peers: size });
        if (number > 1) mesh.world.host(number).connect(addressOf(1 + mesh.random.below(number - 1)));
      }
      for (let step = 0; step < 40; step++) {
        disturb(mesh, size);
        mesh.world.run(mesh.random.below(6_000));
        mesh.check();
      }
      mesh.world.network.heal();
      for (let number = 1; number <= size; number++) if (!mesh.world.hosts.has(nameOf(number))) mesh.restart(number);
      mesh.world.runUntil("one mind", () => mesh.agreed(size), { within: 1_800_000, every: 5_000 });
      mesh.check();
      for (const node of mesh.nodes()) {
        node.freeAll();
        let got = false;
        node.allocate(() => got = true);
        mesh.world.runUntil("an address", () => got, { within: 60_000 });
      }
      assert.deepEqual(mesh.world.errors, []);
    });
  }
});

function disturb(mesh: AddressMesh, size: number): void {
  const { random, world } = mesh;
  const number = 1 + random.below(size);
  const running = world.hosts.has(nameOf(number));
  switch (random.below(9)) {
    case 0:
      return running ? mesh.kill(number) : mesh.restart(number);
    case 1: {
      const all = Array.from({ length: size }, (_, i) => i + 1);
      const some = all.filter(() => random.below(2) === 0);
      return world.partition(some, all.filter((other) => !some.includes(other)));
    }
    case 2:
      return world.network.heal();
    case 3:
      return running ? mesh.node(number).freeOne(random) : mesh.restart(number);
    default:
      if (!running) return;
      for (let i = random.below(12); i >= 0; i--) mesh.node(number).allocate(() => {});
  }
}

function line(mesh: AddressMesh, length: number, init: (number: number) => IpamInit): void {
  for (let number = 1; number <= length; number++) {
    mesh.start(number, init(number));
    if (number > 1) mesh.world.host(number).connect(addressOf(number - 1));
  }
}

class AddressMesh {
  readonly world: World;
  readonly random: SeededRandom;
  /** What is held, by host, whether or not its router runs. */
  readonly held = new Map<PeerName, Map<string, Cidr>>();
  readonly disks = new Map<PeerName, string>();
  readonly #parts = new Map<PeerName, AllocatorPart>();
  readonly #inits = new Map<PeerName, IpamInit>();

  constructor(seed: number) {
    this.world = new World({ seed });
    this.random = new SeededRandom(seed ^ 0x77);
  }

  start(number: number, init: IpamInit): AllocatorPart {
    const name = nameOf(number);
    this.#inits.set(name, init);
    if (!this.held.has(name)) this.held.set(name, new Map());
    const part = new AllocatorPart(this, this.world.start(number), init);
    this.#parts.set(name, part);
    return part;
  }

  /** With the targets that it had. */
  restart(number: number): void {
    this.start(number, this.#inits.get(nameOf(number))!);
    if (number > 1) this.world.host(number).connect(addressOf(1 + this.random.below(number - 1)));
    else this.world.host(number).connect(addressOf(2));
  }

  kill(number: number): void {
    this.world.stop(number);
    this.#parts.delete(nameOf(number));
  }

  node(number: number): AllocatorPart {
    return this.#parts.get(nameOf(number))!;
  }

  nodes(): AllocatorPart[] {
    return [...this.#parts.values()];
  }

  agreed(size: number): boolean {
    const nodes = this.nodes();
    if (nodes.some(({ host }) => host.mesh.peerCount !== size)) return false;
    const rings = nodes.map(({ allocator }) => JSON.stringify(allocator.snapshot().stored.entries));
    return rings.every((ring) => ring === rings[0]) &&
      nodes.every(({ allocator }) => allocator.status(0).pendingAllocations.length === 0 || isFull(allocator));
  }

  check(): void {
    const holders = new Map<Ipv4, string>();
    for (const [name, held] of this.held) {
      for (const [id, cidr] of held) {
        assert.equal(holders.get(cidr.address), undefined, `${formatCidr(cidr)} is held by ${id} of ${name} too`);
        holders.set(cidr.address, `${id} of ${name}`);
      }
    }
  }
}

function isFull(allocator: Allocator): boolean {
  return allocator.snapshot().stored.entries.reduce((sum, { free }) => sum + free, 0) <= 2;
}

/** An allocator on a simulated host, whose disk takes a moment. */
class AllocatorPart implements Part {
  readonly allocator: Allocator;
  readonly #mesh: AddressMesh;
  readonly #waiting = new Map<OperationId, (result: OperationResult) => void>();
  #last = 0;
  #writing = false;
  #wanted = false;

  constructor(mesh: AddressMesh, readonly host: SimHost, init: IpamInit) {
    this.#mesh = mesh;
    const { name, nickName } = host.o;
    const disk = mesh.disks.get(name);
    const held = mesh.held.get(name)!;
    this.allocator = new Allocator({
      name,
      nickName,
      uid: host.mesh.peer(name)!.uid,
      range: RANGE,
      init,
      stored: disk === undefined ? undefined : checkStored(JSON.parse(disk)),
      existing: [...held].map(([id, cidr]) => ({ id, cidr, isContainer: true })),
      running: new Set(held.keys()),
      reclaim: { afterMs: undefined, elapsed: { ms: 0, exact: true } },
      peers: {
        inReach: (peer) => host.mesh.peer(peer) !== undefined,
        targetCount: () => host.mesh.activeTargets().length,
      },
      random: new SeededRandom(mesh.random.u32()),
      log: SILENT,
    }, this.#now);
    host.mesh.register(this.allocator);
    host.part = this;
    host.pump();
  }

  allocate(done: () => void): void {
    const id = `${this.host.o.nickName}-${this.#now}-${++this.#last}`;
    const operation = this.allocator.allocate({ id, subnet: RANGE, isContainer: true }, this.#now);
    this.#waiting.set(operation, (result) => {
      assert.equal(result.outcome, "done");
      if (result.outcome === "done") this.#mesh.held.get(this.host.o.name)!.set(id, result.cidr!);
      done();
    });
    this.host.pump();
  }

  freeOne(random: SeededRandom): void {
    const held = this.#mesh.held.get(this.host.o.name)!;
    const ids = [...held.keys()];
    const id = ids[random.below(ids.length || 1)];
    if (id !== undefined) this.#free(id);
  }

  freeAll(): void {
    for (const id of [...this.#mesh.held.get(this.host.o.name)!.keys()]) this.#free(id);
  }

  takeOver(name: PeerName): void {
    this.#waiting.set(this.allocator.takeOver(this.#nickNameOf(name), this.#now), () => {});
    this.host.pump();
  }

  pump(): boolean {
    const { mesh } = this.host;
    let any = false;
    for (let output = this.allocator.poll(); output; output = this.allocator.poll()) {
      any = true;
      if (output.type === "persist") this.#write();
      else if (output.type === "answer") this.#waiting.get(output.operation)!(output.result);
      else if (output.type === "unicast") mesh.sendUnicast("IPallocation", output.to, output.payload, this.#now);
      else mesh.sendBroadcast(output.channel, output.data, this.#now);
    }
    return any;
  }

  nextAt(): number {
    return this.allocator.pollTimeout()?.at ?? Infinity;
  }

  handleTimeout(): void {
    this.allocator.handleTimeout(this.#now);
  }

  handlePeerGone(name: PeerName): void {
    this.allocator.handlePeerGone(name, this.#now);
  }

  get #now(): number {
    return this.#mesh.world.clock.now;
  }

  #nickNameOf(name: PeerName): string {
    return `host${name - nameOf(0)}`;
  }

  #free(id: string): void {
    const held = this.#mesh.held.get(this.host.o.name)!;
    const { address } = held.get(id)!;
    held.delete(id);
    this.#waiting.set(this.allocator.free(id, address, this.#now), () => {});
    this.host.pump();
  }

  #write(): void {
    this.#wanted = true;
    if (this.#writing) return;
    this.#writing = true;
    this.#wanted = false;
    const { revision, stored } = this.allocator.snapshot();
    const text = JSON.stringify(encodeStored(stored));
    this.#mesh.world.clock.plan(this.#now + 1 + this.#mesh.random.below(40), () => {
      if (!this.host.running) return;
      this.#mesh.disks.set(this.host.o.name, text);
      this.#writing = false;
      this.allocator.handlePersisted(revision, this.#now);
      if (this.#wanted) this.#write();
      this.host.pump();
    });
  }
}
