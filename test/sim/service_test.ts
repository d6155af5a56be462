/** Catalogues on real mesh cores: who hears of what, over a network that delays, cuts and heals, from owners that forget. */
import assert from "node:assert/strict";
import { cpuUsage } from "node:process";
import { exportOf as recordOfExport, importOf as recordOf, SUBNET } from "../service_records.ts";
import { SILENT } from "../../src/lib/log.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import { SeededRandom } from "../../src/lib/random.ts";
import { Catalogue, CHANNEL, checkStored, encodeStored, type StoredOwner } from "../../src/service/catalogue.ts";
import {
  type ExportRecord,
  type ImportRecord,
  keyOf,
  type Offer,
  type ServiceRecord,
  virtualAddress,
} from "../../src/service/records.ts";
import type { Message } from "../../src/wire/control.ts";
import { encodeRecord } from "../../src/wire/service.ts";
import type { Part, SimHost } from "./host.ts";
import { addressOf, nameOf, withSeed, World } from "./world.ts";

Deno.test("a change is known to all, over hosts that have no services", () => {
  const mesh = new ServiceMesh(1);
  mesh.line(2);
  mesh.world.start(3); // knows nothing of services
  mesh.world.host(3).connect(addressOf(2));
  mesh.start(4).host.connect(addressOf(3));
  mesh.untilConnected(4);
  mesh.node(1).set(importOf("db"));
  mesh.world.runUntil("all know it", () => mesh.nodes().every((node) => node.catalogue.imports("db").length === 1), {
    within: 1_000,
    every: 10,
  });
  mesh.node(1).status("db", "up");
  const took = mesh.world.runUntil("all know that it is up", () => mesh.agreed(), { within: 1_000, every: 10 });
  assert.ok(took <= 200, `${took} ms`);
  mesh.node(1).remove("import db");
  mesh.world.runUntil("all know that it is gone", () => mesh.nodes().every((node) => node.catalogue.size === 0), {
    within: 1_000,
    every: 10,
  });
  mesh.check();
});

Deno.test("parts that were cut off agree when they meet again, about one virtual address too", () => {
  const mesh = new ServiceMesh(2);
  mesh.line(6);
  mesh.untilConnected(6);
  mesh.node(1).set(importOf("old"));
  mesh.world.run(2_000);
  mesh.world.partition([1, 2, 3], [4, 5, 6]);
  mesh.world.runUntil("they miss each other", () => mesh.nodes().every((node) => node.host.mesh.peerCount === 3), {
    within: 120_000,
  });
  const [left] = mesh.node(4).catalogue.imports("old");
  assert.ok(left !== undefined && !left.reachable, "what an owner out of reach said is kept and marked");
  mesh.node(2).set(importOf("db", { address: 0x0a20_0009, since: 2_000 }));
  mesh.node(5).set(importOf("db", { address: 0x0a20_0007, since: 3_000 }));
  mesh.node(1).remove("import old");
  mesh.world.run(5_000);
  mesh.world.network.heal();
  mesh.untilConnected(6);
  const took = mesh.world.runUntil("agreed", () => mesh.agreed(), { within: 40_000, every: 50 });
  assert.ok(took <= 3_000, `${took} ms`);
  for (const { catalogue } of mesh.nodes()) {
    assert.equal(catalogue.imports("old").length, 0);
    assert.deepEqual(catalogue.imports("db").map(({ owner }) => owner), [nameOf(2), nameOf(5)]);
    assert.equal(virtualAddress(catalogue.imports("db"), SUBNET)?.address, 0x0a20_0009);
    assert.ok(catalogue.owners().every(({ reachable, secondHand }) => reachable && !secondHand));
  }
  mesh.check();
});

Deno.test("who joins late hears of owners out of reach from neighbours, and the owner's own word replaces that", () => {
  const mesh = new ServiceMesh(3);
  mesh.line(3);
  mesh.untilConnected(3);
  for (const name of ["a", "b", "c"]) mesh.node(1).set(importOf(name));
  mesh.world.run(2_000);
  mesh.kill(1);
  mesh.world.runUntil("it is missed", () => mesh.node(3).host.mesh.peerCount === 2, { within: 120_000 });
  mesh.start(4).host.connect(addressOf(3));
  mesh.world.runUntil("the late one knows", () => mesh.node(4).catalogue.imports("b").length === 1, {
    within: 10_000,
    every: 50,
  });
  const [late] = mesh.node(4).catalogue.imports("b");
  assert.ok(late!.secondHand && !late!.reachable);
  assert.equal(mesh.node(4).catalogue.size, 3);
  mesh.restart(1);
  mesh.untilConnected(4);
  mesh.world.runUntil("first-hand", () => !mesh.node(4).catalogue.imports("b")[0]!.secondHand, { within: 10_000 });
  mesh.world.runUntil("agreed", () => mesh.agreed(), { within: 40_000 });
  mesh.check();
});

Deno.test("hosts without services in between do not keep a late one from what is known of an owner that is gone", () => {
  const mesh = new ServiceMesh(8);
  mesh.line(2);
  mesh.untilConnected(2);
  mesh.node(1).set(importOf("a"));
  mesh.world.run(2_000);
  mesh.kill(1);
  mesh.world.runUntil("it is missed", () => mesh.node(2).host.mesh.peerCount === 1, { within: 120_000 });
  for (const number of [3, 4]) mesh.world.start(number).connect(addressOf(number - 1));
  mesh.start(5).host.connect(addressOf(4));
  mesh.world.runUntil("it is known", () => mesh.node(5).catalogue.imports("a").length === 1, { within: 90_000 });
  mesh.check();
});

for (const [what, clockMs] of [["a later clock", 0], ["its clock set back", -86_400_000]] as const) {
  Deno.test(`an owner that lost its state, with ${what}, is believed when it comes back`, () => {
    const mesh = new ServiceMesh(4);
    mesh.line(4);
    mesh.untilConnected(4);
    for (let i = 0; i < 20; i++) mesh.node(1).set(importOf(`s${i}`));
    mesh.world.run(2_000);
    assert.equal(mesh.node(4).catalogue.size, 20);
    mesh.kill(1);
    mesh.disks.delete(nameOf(1));
    mesh.wallSkewMs.set(nameOf(1), clockMs);
    mesh.world.run(50);
    mesh.restart(1); // so soon that nobody has missed it
    mesh.world.runUntil("everybody forgets", () => mesh.nodes().every((node) => node.catalogue.size === 0), {
      within: 60_000,
    });
    mesh.node(1).set(importOf("s3"));
    mesh.node(1).set(importOf("new"));
    mesh.world.runUntil("agreed", () => mesh.agreed(), { within: 10_000, every: 50 });
    assert.deepEqual(mesh.node(4).catalogue.names(), ["new", "s3"]);
    mesh.check();
  });
}

Deno.test("an owner that was set back to an earlier state is believed", () => {
  const mesh = new ServiceMesh(5);
  mesh.line(3);
  mesh.untilConnected(3);
  mesh.node(1).set(importOf("a"));
  mesh.world.run(2_000);
  const backup = mesh.disks.get(nameOf(1))!;
  mesh.node(1).set(importOf("b"));
  mesh.node(1).remove("import a");
  mesh.world.run(2_000);
  mesh.kill(1);
  mesh.disks.set(nameOf(1), backup);
  mesh.restart(1);
  mesh.node(1).set(importOf("c"));
  mesh.world.runUntil("agreed", () => mesh.agreed() && mesh.node(3).catalogue.size === 2, { within: 60_000 });
  assert.deepEqual(mesh.node(3).catalogue.names(), ["a", "c"]);
  mesh.check();
});

Deno.test("what a killed router had told is told again after its start, and nothing that it had not stored was heard", () => {
  for (let seed = 1; seed <= 40; seed++) {
    withSeed(seed, () => {
      const mesh = new ServiceMesh(seed);
      mesh.line(2);
      mesh.untilConnected(2);
      for (let round = 0; round < 4; round++) {
        for (let i = 0; i < 5; i++) {
          mesh.node(1).set(importOf(`s${mesh.random.below(4)}`, { since: mesh.random.below(1_000) }));
          if (mesh.random.below(3) === 0) mesh.node(1).remove(`import s${mesh.random.below(4)}`);
          if (mesh.random.below(3) === 0) mesh.node(1).status(`s${mesh.random.below(4)}`, "down");
          mesh.world.run(mesh.random.below(60));
        }
        mesh.kill(1);
        mesh.world.run(mesh.random.below(100));
        const disk = mesh.disks.get(nameOf(1));
        const stored = disk === undefined ? [] : checkStored(JSON.parse(disk))[0]!.records;
        const specs = new Map(stored.map(({ key, record }) => [key, record && JSON.stringify(record.spec)]));
        for (const { record } of mesh.node(2).catalogue.imports("s1")) {
          // It may have been removed or changed on disk since, but never be unknown to it.
          assert.ok(specs.has(keyOf(record)), "heard of what was not stored");
        }
        mesh.restart(1);
        mesh.untilConnected(2);
      }
      mesh.world.runUntil("agreed", () => mesh.agreed(), { within: 60_000 });
      mesh.check();
    });
  }
});

Deno.test("removals that are older than an hour are not missed by who was away for longer", () => {
  const mesh = new ServiceMesh(6);
  mesh.line(3);
  mesh.untilConnected(3);
  for (const name of ["a", "b", "c"]) mesh.node(1).set(importOf(name));
  mesh.world.run(2_000);
  mesh.world.partition([1, 2], [3]);
  mesh.world.run(60_000);
  mesh.node(1).remove("import a");
  mesh.world.run(2 * 3_600_000);
  mesh.node(1).set(importOf("d"));
  mesh.world.run(2_000);
  mesh.world.network.heal();
  mesh.untilConnected(3);
  mesh.world.runUntil("agreed", () => mesh.agreed(), { within: 60_000 });
  assert.deepEqual(mesh.node(3).catalogue.names(), ["b", "c", "d"]);
  mesh.check();
});

Deno.test("records of a peer that was removed do not come back from who missed that, until the peer itself does", () => {
  const mesh = new ServiceMesh(7);
  mesh.line(4);
  mesh.untilConnected(4);
  mesh.node(1).set(importOf("a"));
  mesh.world.run(2_000);
  mesh.kill(1);
  mesh.world.partition([2, 3], [4]);
  mesh.world.run(120_000);
  assert.equal(mesh.node(2).catalogue.removePeer(nameOf(3), mesh.world.clock.now), false, "it is within reach");
  assert.equal(mesh.node(2).catalogue.removePeer(nameOf(1), mesh.world.clock.now), true);
  mesh.node(2).host.pump();
  mesh.world.run(1_000);
  assert.equal(mesh.node(3).catalogue.size, 0);
  assert.equal(mesh.node(4).catalogue.size, 1);
  mesh.world.network.heal();
  mesh.world.runUntil("all forget", () => mesh.nodes().every((node) => node.catalogue.size === 0), { within: 120_000 });
  mesh.restart(1);
  mesh.untilConnected(4);
  mesh.world.runUntil("it is back", () => mesh.nodes().every((node) => node.catalogue.size === 1), { within: 60_000 });
  assert.ok(mesh.agreed());
  mesh.check();
});

Deno.test("all agree after any disturbance", () => {
  const [from, to] = (Deno.env.get("WEAVE_SIM_SEEDS") ?? "1-150").split("-").map(Number);
  for (let seed = from!; seed <= to!; seed++) {
    withSeed(seed, () => {
      const mesh = new ServiceMesh(seed, seed % 3 === 0);
      const size = 3 + mesh.random.below(4);
      for (let number = 1; number <= size; number++) {
        const { host } = mesh.start(number);
        if (number > 1) host.connect(addressOf(1 + mesh.random.below(number - 1)));
      }
      for (let step = 0; step < 40; step++) {
        disturb(mesh, size);
        mesh.world.run(mesh.random.below(6_000));
        for (const { catalogue } of mesh.nodes()) catalogue.checkInvariants();
      }
      mesh.world.network.heal();
      for (let number = 1; number <= size; number++) if (!mesh.world.hosts.has(nameOf(number))) mesh.restart(number);
      mesh.world.runUntil("one mind", () => mesh.connected(size) && mesh.agreed(), { within: 600_000, every: 1_000 });
      for (const { catalogue } of mesh.nodes()) {
        assert.deepEqual(catalogue.rejections().map(({ reason }) => reason), []);
      }
      mesh.check();
    });
  }
});

function disturb(mesh: ServiceMesh, size: number): void {
  const { random, world } = mesh;
  const number = 1 + random.below(size);
  const running = world.hosts.has(nameOf(number));
  switch (random.below(10)) {
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
      if (!running && random.below(3) === 0) mesh.disks.delete(nameOf(number));
      return running ? undefined : mesh.restart(number);
    default:
      if (!running) return;
      for (let i = random.below(6); i >= 0; i--) {
        const name = `s${random.below(6)}`;
        const kind = random.below(8);
        if (kind < 4) mesh.node(number).set(importOf(name, { since: random.below(1_000) }));
        else if (kind < 6) mesh.node(number).remove(`import ${name}`);
        else if (kind === 6) mesh.node(number).set(exportOf(name, 1 + random.below(3)));
        else mesh.node(number).status(name, random.below(2) === 0 ? "up" : "down");
      }
  }
}

Deno.test("10,000 records of 100 peers", () => {
  const began = performance.now();
  const usageBefore = cpuUsage();
  const mesh = new ServiceMesh(100);
  const [peers, each] = [100, 100];
  for (let number = 1; number <= peers; number++) {
    const { host } = mesh.start(number);
    for (let n = 0; n < Math.min(3, number - 1); n++) host.connect(addressOf(1 + mesh.random.below(number - 1)));
  }
  mesh.untilConnected(peers);
  mesh.octets = 0;
  const all = () => mesh.nodes().every((node) => node.catalogue.size === peers * each);
  for (const node of mesh.nodes()) {
    for (let i = 0; i < each; i++) node.set(importOf(`service-${node.host.o.nickName}-${i}`));
  }
  const spread = mesh.world.runUntil("all know all", all, { within: 120_000, every: 100 });
  const spreadOctets = mesh.octets;
  const perRecord = spreadOctets / (peers - 1) / (peers * each);

  mesh.octets = 0;
  mesh.node(1).status("service-host1-5", "up");
  const isUp = ({ catalogue }: CataloguePart) =>
    catalogue.imports("service-host1-5")[0]!.record.status.health[0] === "up";
  const one = mesh.world.runUntil("one change", () => mesh.nodes().every(isUp), { within: 10_000, every: 10 });
  const oneOctets = mesh.octets;

  mesh.octets = 0;
  mesh.world.run(60_000);
  const idleOctets = mesh.octets;

  mesh.octets = 0;
  mesh.start(peers + 1).host.connect(addressOf(1));
  const late = mesh.world.runUntil("the late one knows all", all, { within: 60_000, every: 50 });
  const lateOctets = mesh.octets;
  assert.ok(mesh.agreed());
  mesh.check();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  const kib = (octets: number) => `${(octets / 1024).toFixed(octets < 10240 ? 1 : 0)} KiB`;
  const { user, system } = cpuUsage(usageBefore);
  console.log(
    `${peers * each} records of ${peers} peers: known to all after ${spread} ms, ${kib(spreadOctets)} on all links ` +
      `(${perRecord.toFixed(0)} octets a record and peer); one change ${one} ms, ${kib(oneOctets)}; ` +
      `idle ${kib(idleOctets)} a minute; a late one knows all after ${late} ms, ${
        kib(lateOctets)
      }; ${seconds} s of real ` +
      `time, ${((user + system) / 1e6).toFixed(1)} s of processor time`,
  );
  assert.ok(spread <= 10_000 && one <= 500 && late <= 10_000);
  assert.ok(perRecord < 600, "each link carries each record about once");
});

function importOf(name: string, offer: Partial<Offer> = {}): ImportRecord {
  return recordOf(name, { offers: [offer] });
}

function exportOf(name: string, port: number): ExportRecord {
  return recordOfExport(name, { listen: { address: "own", ports: { protocol: "tcp", first: port, last: port } } });
}

class ServiceMesh {
  readonly world: World;
  readonly random: SeededRandom;
  readonly disks = new Map<PeerName, string>();
  readonly otherDisks = new Map<PeerName, string>();
  /** How far a host's wall clock is off. */
  readonly wallSkewMs = new Map<PeerName, number>();
  /** What hosts said to neighbours about services. */
  octets = 0;
  readonly #parts = new Map<PeerName, CataloguePart>();

  /** @param slow connections that take a second, and little at once */
  constructor(seed: number, slow = false) {
    this.world = new World(slow ? { seed, window: 2, delayMs: [50, 900] } : { seed });
    this.random = new SeededRandom(seed ^ 0x77);
  }

  line(length: number): void {
    for (let number = 1; number <= length; number++) {
      const { host } = this.start(number);
      if (number > 1) host.connect(addressOf(number - 1));
    }
  }

  start(number: number): CataloguePart {
    const part = new CataloguePart(this, this.world.start(number));
    this.#parts.set(nameOf(number), part);
    return part;
  }

  restart(number: number): void {
    this.start(number).host.connect(addressOf(number > 1 ? 1 + this.random.below(number - 1) : 2));
  }

  kill(number: number): void {
    this.world.stop(number);
    this.#parts.delete(nameOf(number));
  }

  node(number: number): CataloguePart {
    return this.#parts.get(nameOf(number))!;
  }

  nodes(): CataloguePart[] {
    return [...this.#parts.values()];
  }

  connected(size: number): boolean {
    return this.nodes().every((node) => node.host.mesh.peerCount === size);
  }

  untilConnected(size: number): void {
    this.world.runUntil("connected", () => this.connected(size), { within: 240_000 });
  }

  /** Everybody knows of each owner what the owner says itself. */
  agreed(): boolean {
    const nodes = this.nodes();
    const known = nodes.map(({ catalogue }) => textsOf(catalogue));
    return nodes.every(({ host, catalogue }) => {
      const word = catalogue.own().map(textOf).sort().join();
      return known.every((texts) => (texts.get(host.o.name) ?? "") === word);
    });
  }

  check(): void {
    for (const { catalogue } of this.nodes()) catalogue.checkInvariants();
    assert.deepEqual(this.world.errors, []);
  }
}

/** What is known of each owner. */
function textsOf(catalogue: Catalogue): Map<PeerName, string> {
  const texts = new Map<PeerName, string[]>();
  for (const name of catalogue.names()) {
    for (const { owner, record } of [...catalogue.imports(name), ...catalogue.exports(name)]) {
      let some = texts.get(owner);
      if (some === undefined) texts.set(owner, some = []);
      some.push(textOf(record));
    }
  }
  return new Map([...texts].map(([owner, some]) => [owner, some.sort().join()]));
}

function textOf(record: ServiceRecord): string {
  return JSON.stringify(encodeRecord(record));
}

/** A catalogue on a simulated host, whose disk takes a moment. */
class CataloguePart implements Part {
  readonly catalogue: Catalogue;
  readonly #mesh: ServiceMesh;
  #writing = false;
  #wanted = false;

  constructor(mesh: ServiceMesh, readonly host: SimHost) {
    this.#mesh = mesh;
    const { name } = host.o;
    const read = (disk: string | undefined): readonly StoredOwner[] => {
      return disk === undefined ? [] : checkStored(JSON.parse(disk));
    };
    this.catalogue = new Catalogue({
      ourName: name,
      domain: "weave.local.",
      isReachable: (peer) => host.mesh.peer(peer) !== undefined,
      unixMs: () => 1_800_000_000_000 + this.#now + (mesh.wallSkewMs.get(name) ?? 0),
      random: new SeededRandom(mesh.random.u32()),
      log: SILENT,
      stored: read(mesh.disks.get(name))[0],
      others: read(mesh.otherDisks.get(name)),
    }, this.#now);
    host.mesh.register(this.catalogue);
    host.part = this;
    host.pump();
  }

  set(record: ServiceRecord): void {
    this.catalogue.set(record, this.#now);
    this.host.pump();
  }

  status(name: string, health: "up" | "down"): void {
    this.catalogue.setStatus<ImportRecord>(`import ${name}`, { health: [health], holding: [] }, this.#now);
    this.host.pump();
  }

  remove(key: string): void {
    this.catalogue.remove(key);
    this.host.pump();
  }

  pump(): boolean {
    const { mesh } = this.host;
    let any = false;
    for (let output = this.catalogue.poll(); output; output = this.catalogue.poll()) {
      any = true;
      switch (output.type) {
        case "persist":
          this.#write();
          break;
        case "persistOthers":
          this.#mesh.otherDisks.set(this.host.o.name, JSON.stringify(encodeStored(this.catalogue.others())));
          break;
        case "unicast":
          if (!mesh.sendUnicast(CHANNEL, output.to, output.payload, this.#now)) {
            this.catalogue.handleUndelivered(output.to, this.#now);
          }
          break;
        case "broadcast":
          mesh.sendBroadcast(CHANNEL, output.data, this.#now);
          break;
        case "gossip":
          mesh.sendGossip(CHANNEL, output.data, this.#now);
          break;
        case "changed":
          break;
        default:
          output satisfies never;
      }
    }
    return any;
  }

  nextAt(): number {
    return this.catalogue.pollTimeout()?.at ?? Infinity;
  }

  handleTimeout(): void {
    this.catalogue.handleTimeout(this.#now);
  }

  handlePeerGone(name: PeerName): void {
    this.catalogue.handlePeerGone(name, this.#now);
  }

  handleTopology(): void {
    this.catalogue.handleTopology(this.#now);
  }

  handleSent(message: Message): void {
    if ("channel" in message && message.channel === CHANNEL && message.payload instanceof Uint8Array) {
      this.#mesh.octets += message.payload.length;
    }
  }

  get #now(): number {
    return this.#mesh.world.clock.now;
  }

  #write(): void {
    this.#wanted = true;
    if (this.#writing) return;
    this.#writing = true;
    this.#wanted = false;
    const { revision, stored } = this.catalogue.snapshot();
    const text = JSON.stringify(encodeStored([stored]));
    this.#mesh.world.clock.plan(this.#now + 1 + this.#mesh.random.below(40), () => {
      if (!this.host.running) return;
      this.#mesh.disks.set(this.host.o.name, text);
      this.#writing = false;
      this.catalogue.handlePersisted(revision, this.#now);
      if (this.#wanted) this.#write();
      this.host.pump();
    });
  }
}
