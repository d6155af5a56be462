/**
 * A simulated mesh of allocators, with a network that only says who reaches whom, disks that remember what was written, and containers
 * that hold what they were told they hold, whatever becomes of their router. It checks at every step that no two hold the same.
 */
import assert from "node:assert/strict";
import { Allocator, type AllocatorOutput, IPAM_CHANNEL, type IpamInit } from "../../src/ipam/allocator.ts";
import type { Claimant } from "../../src/ipam/territory.ts";
import type { OperationId, OperationResult } from "../../src/ipam/operations.ts";
import { type AddressRange, overlap, rangeOf } from "../../src/ipam/range.ts";
import { checkStored, encodeStored, type StoredIpam } from "../../src/ipam/stored.ts";
import { ProtocolError } from "../../src/lib/errors.ts";
import { type Cidr, formatCidr, formatIpv4, type Ipv4, parseCidr } from "../../src/lib/ip.ts";
import { type Logger, SILENT } from "../../src/lib/log.ts";
import { formatMac, parsePeerName, type PeerName } from "../../src/lib/mac.ts";
import { SeededRandom } from "../../src/lib/random.ts";
import type { GossipData } from "../../src/mesh/mesh.ts";
import { VirtualClock } from "./clock.ts";

export interface IpamWorldOptions {
  readonly seed: number;
  readonly range?: string;
  /** Messages in a thousand that are lost for no reason. */
  readonly lossPerMille?: number;
  /** Write points in a thousand at which the router is killed. */
  readonly killPerMille?: number;
  /** The one write at which a router is killed, before or after, and started again at once. */
  readonly killAt?: { readonly write: number; readonly after: boolean };
  /** How long a write may take. */
  readonly writeMs?: number;
  /** How long it may take from an answer until the container has the address. */
  readonly plugMs?: number;
  /** Rings may conflict, and addresses be held twice, where the test brings that about itself. */
  readonly lenient?: boolean;
  /** Peers may be taken over while they are out of reach: then an address that they held already may be held twice. */
  readonly reclaiming?: boolean;
}

export interface NodeOptions {
  readonly init: IpamInit;
  readonly targets?: number;
  readonly reclaimMs?: number;
}

/** What the allocator logs when it has done so. */
const TAKEN_OVER = "addresses of a peer that is gone taken over";

const GOSSIP_MS = 30_000;
/** How long a view of who is in reach may lag behind. */
const TOPOLOGY_MS = 3_000;

/** A container that holds an address, as its host's kernel sees it. */
interface Container {
  readonly id: string;
  readonly cidr: Cidr;
  readonly since: number;
  /** From when on the address is to be seen on its interface. */
  readonly pluggedAt: number;
}

export class IpamWorld {
  readonly clock = new VirtualClock();
  readonly random: SeededRandom;
  readonly range: Cidr;
  readonly nodes = new Map<PeerName, IpamNode>();
  /** Why connections would have been ended. */
  readonly conflicts: string[] = [];
  /** Who took over whom, and when. */
  readonly takes: { readonly heir: PeerName; readonly gone: PeerName; readonly at: number }[] = [];
  readonly errors: string[] = [];
  readonly counts = new Map<string, number>();
  /** Whether routers are killed where they write. */
  killing = true;
  writes = 0;
  readonly o: IpamWorldOptions;
  #groups: readonly ReadonlySet<PeerName>[] = [];
  #changedAt = -Infinity;
  /** Groups before the last change, which nodes may still believe in. */
  #before: readonly ReadonlySet<PeerName>[] = [];

  constructor(o: IpamWorldOptions) {
    this.o = o;
    this.random = new SeededRandom(o.seed);
    this.range = parseCidr(o.range ?? "10.32.0.0/26")!;
  }

  get now(): number {
    return this.clock.now;
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  add(number: number, o: NodeOptions): IpamNode {
    const name = 0x02_00_00_00_00_00 + number as PeerName;
    const node = new IpamNode(this, name, o);
    this.nodes.set(name, node);
    node.start();
    return node;
  }

  /** Those that run. */
  running(): IpamNode[] {
    return [...this.nodes.values()].filter((node) => node.running);
  }

  /** Cuts the mesh; who is in no group is in one with all others that are in none. */
  partition(groups: readonly (readonly IpamNode[])[]): void {
    this.#before = this.#groups;
    this.#changedAt = this.now;
    this.#groups = groups.map((group) => new Set(group.map((node) => node.name)));
    // Who meets somebody new tells everything.
    for (const a of this.running()) for (const b of this.running()) if (a !== b) this.meet(a, b);
  }

  get partitioned(): boolean {
    return this.#groups.length > 0;
  }

  connected(a: PeerName, b: PeerName): boolean {
    return connectedIn(this.#groups, a, b) && this.nodes.get(a)?.running === true &&
      this.nodes.get(b)?.running === true;
  }

  /** What `a` believes of `b`. */
  inReach(a: PeerName, b: PeerName): boolean {
    if (this.connected(a, b)) return true;
    return this.now - this.#changedAt < TOPOLOGY_MS && connectedIn(this.#before, a, b) &&
      this.nodes.get(b)?.running === true;
  }

  meet(a: IpamNode, b: IpamNode): void {
    if (this.connected(a.name, b.name)) this.gossip(a, b);
  }

  gossip(from: IpamNode, to: IpamNode): void {
    const data = from.allocator.completeState(this.now);
    for (const payload of data.encode() as Uint8Array[]) {
      this.send(from, to.name, (node) => void node.allocator.handleGossip(payload, this.now, from.name));
    }
  }

  /** Delivers after a while, if there still is a way then. */
  send(from: IpamNode, to: PeerName, deliver: (node: IpamNode) => void): void {
    const life = from.life;
    if (this.random.below(1000) < (this.o.lossPerMille ?? 0)) return this.count("lost");
    this.clock.plan(this.now + 1 + this.random.below(40), () => {
      const node = this.nodes.get(to);
      if (node === undefined || from.life !== life || !this.connected(from.name, to)) {
        return this.count("undeliverable");
      }
      node.receive(() => deliver(node));
    });
  }

  run(ms: number): void {
    this.clock.runTo(this.now + ms);
  }

  runUntil(what: string, isSo: () => boolean, withinMs: number): void {
    const end = this.now + withinMs;
    while (!isSo()) {
      if (this.now >= end) throw new Error(`Not so after ${withinMs} ms: ${what}`);
      this.run(100);
    }
  }

  // What must hold

  /** Who holds what, as far as it is the same address. */
  heldTwice(): { address: Ipv4; holders: { node: IpamNode; id: string }[] }[] {
    const holders = new Map<Ipv4, { node: IpamNode; id: string }[]>();
    for (const node of this.nodes.values()) {
      for (const { id, cidr } of node.containers.values()) {
        const list = holders.get(cidr.address) ?? [];
        holders.set(cidr.address, [...list, { node, id }]);
      }
    }
    return [...holders].filter(([, list]) => list.length > 1).map(([address, holders]) => ({ address, holders }));
  }

  /** No address is held twice, and none is taken for their own by two. */
  check(): void {
    assert.deepEqual(this.errors, []);
    if (this.o.lenient) return;
    assert.deepEqual(this.conflicts, []);
    for (const { address, holders } of this.heldTwice()) {
      if (this.o.reclaiming && this.#wasTakenOver(holders)) continue;
      assert.fail(
        `${formatIpv4(address)} is held by ${holders.map(({ node, id }) => `${id} on ${node}`).join(" and ")}`,
      );
    }
    if (!this.o.reclaiming) this.checkOwners();
  }

  /** All but the last one who came by an address were taken over since, and before that. */
  #wasTakenOver(holders: readonly { node: IpamNode; id: string }[]): boolean {
    const inOrder = holders.map(({ node, id }) => ({ node, since: node.containers.get(id)!.since }))
      .sort((a, b) => a.since - b.since);
    return inOrder.every(({ node, since }, i) => {
      const next = inOrder[i + 1];
      return next === undefined ||
        this.takes.some(({ gone, at }) => gone === node.name && at >= since && at <= next.since);
    });
  }

  /** No two take the same for their own. */
  checkOwners(): void {
    const owned = [...this.nodes.values()].filter((node) => !node.dead).map((node) => ({
      node,
      ranges: node.ownRanges(),
    }));
    for (const [i, a] of owned.entries()) {
      for (const b of owned.slice(i + 1)) {
        const both = a.ranges.find((x) => b.ranges.some((y) => overlap(x, y)));
        if (both) assert.fail(`${a.node} and ${b.node} both take ${formatIpv4(both.start)} for their own`);
      }
    }
  }

  /** All that run have the same ring. */
  agreed(): boolean {
    const rings = this.running().map((node) => JSON.stringify(node.stored()?.ring));
    return rings.every((ring) => ring === rings[0]);
  }
}

function connectedIn(groups: readonly ReadonlySet<PeerName>[], a: PeerName, b: PeerName): boolean {
  const groupOf = (name: PeerName) => groups.findIndex((group) => group.has(name));
  return groupOf(a) === groupOf(b);
}

interface Waiting {
  readonly kind: string;
  readonly done: (result: OperationResult) => void;
}

/** A host: its disk, its containers, and its router while it runs. */
export class IpamNode {
  readonly name: PeerName;
  readonly containers = new Map<string, Container>();
  allocator!: Allocator;
  running = false;
  /** Gone for good, its containers too. */
  dead = false;
  /** Another number for each start. */
  life = 0;
  /** Another number for each boot of its machine. */
  boot = 0;
  #storedBoot = 0;
  #disk: string | undefined;
  #storedAt = 0;
  #writing = false;
  #wanted = false;
  #wakeAt = Infinity;
  #waiting = new Map<OperationId, Waiting>();
  #lastContainer = 0;
  readonly #world: IpamWorld;
  #o: NodeOptions;

  constructor(world: IpamWorld, name: PeerName, o: NodeOptions) {
    this.#world = world;
    this.name = name;
    this.#o = o;
  }

  toString(): string {
    return formatMac(this.name);
  }

  start(): void {
    const world = this.#world;
    assert.ok(!this.running && !this.dead);
    this.life++;
    this.running = true;
    this.#writing = this.#wanted = false;
    this.#wakeAt = Infinity;
    const stored = this.#disk === undefined ? undefined : checkStored(JSON.parse(this.#disk));
    const existing: Claimant[] = [...this.containers.values()].filter(({ pluggedAt }) => pluggedAt <= world.now)
      .map(({ id, cidr }) => ({ id, cidr, isContainer: true }));
    const log: Logger = {
      ...SILENT,
      error: (event, fields) => world.errors.push(`${event} ${JSON.stringify(fields ?? {})}`),
      warn: (event, fields) => {
        if (event !== TAKEN_OVER) return;
        world.takes.push({ heir: this.name, gone: parsePeerName(fields!.peer!.slice(0, 17))!, at: world.now });
        world.count("reclaimed");
      },
    };
    this.allocator = new Allocator({
      name: this.name,
      nickName: `host${this.name % 100}`,
      uid: world.random.u64() | 1n,
      range: world.range,
      init: this.#o.init,
      stored,
      existing,
      running: new Set(this.containers.keys()),
      reclaim: {
        afterMs: this.#o.reclaimMs,
        elapsed: { ms: world.now - this.#storedAt, exact: this.boot === this.#storedBoot },
      },
      peers: {
        inReach: (name) => world.inReach(this.name, name),
        targetCount: () => this.#o.targets ?? 0,
      },
      random: new SeededRandom(world.random.u32()),
      log,
    }, world.now);
    this.#act();
    for (const other of world.running()) {
      if (other === this) continue;
      world.meet(this, other);
      world.meet(other, this);
    }
    this.#planGossip();
  }

  /** As by `kill -9`: what callers waited for they do not get. */
  kill(): void {
    this.#world.count("killed");
    this.running = false;
    this.#waiting.clear();
  }

  /** The host is gone for good. */
  die(): void {
    if (this.running) this.kill();
    this.dead = true;
    this.containers.clear();
  }

  /** The host's disk is wiped, and its containers are gone. Who knows that there is a ring waits for it. */
  reset(): void {
    if (this.running) this.kill();
    this.#disk = undefined;
    this.containers.clear();
    this.#o = { ...this.#o, init: { mode: "observer" } };
  }

  stored(): StoredIpam & { ring: unknown } | undefined {
    if (this.#disk === undefined) return undefined;
    return { ...checkStored(JSON.parse(this.#disk)), ring: JSON.parse(this.#disk).ring };
  }

  /** Whether it has stored a ring. */
  hasRing(): boolean {
    return (this.stored()?.entries.length ?? 0) > 0;
  }

  /** What it takes for its own: now, or when it is started again. */
  ownRanges(): AddressRange[] {
    const { entries } = this.running ? this.allocator.snapshot().stored : this.stored() ?? { entries: [] };
    const { start, end } = rangeOf(this.#world.range);
    return entries.flatMap((entry, i) => {
      if (entry.peer !== this.name) return [];
      const next = entries[(i + 1) % entries.length]!.token;
      if (next > entry.token) return [{ start: entry.token, end: next }];
      return [{ start: entry.token, end }, { start, end: next }].filter((range) => range.end > range.start);
    });
  }

  // What callers do

  /** A new container asks for an address; `done` hears what became of it. */
  allocate(subnet = this.#world.range, done: (result: OperationResult) => void = () => {}): string {
    const id = `c${this.name % 100}-${++this.#lastContainer}`;
    this.#call("allocate", (now) => this.allocator.allocate({ id, subnet, isContainer: true }, now), (result) => {
      if (result.outcome === "done") this.#plug(id, result.cidr!);
      done(result);
    });
    return id;
  }

  /** A new container wants this very address. */
  claim(address: Ipv4, done: (result: OperationResult) => void = () => {}): string {
    const id = `m${this.name % 100}-${++this.#lastContainer}`;
    const cidr = { address, prefixLength: this.#world.range.prefixLength };
    this.#call("claim", (now) => this.allocator.claim({ id, cidr, isContainer: true }, now), (result) => {
      if (result.outcome === "done") this.#plug(id, cidr);
      done(result);
    });
    return id;
  }

  #plug(id: string, cidr: Cidr): void {
    const world = this.#world;
    const pluggedAt = world.now + world.random.below(1 + (world.o.plugMs ?? 0));
    this.containers.set(id, { id, cidr, since: world.now, pluggedAt });
  }

  /** A container is detached: it gives its address up, then it is freed. */
  detach(id: string): void {
    const container = this.containers.get(id);
    if (container === undefined) return;
    this.containers.delete(id);
    this.#call("free", (now) => this.allocator.free(id, container.cidr.address, now));
  }

  /** A container dies, and is removed at once or not. */
  stopContainer(id: string, removed: boolean): void {
    this.containers.delete(id);
    if (!this.running) return;
    this.receive(() => {
      this.allocator.handleContainerDied(id, this.#world.now);
      if (removed) this.allocator.handleContainerDestroyed(id, this.#world.now);
    });
  }

  takeOver(peer: IpamNode, done: (result: OperationResult) => void = () => {}): void {
    this.#call("takeOver", (now) => this.allocator.takeOver(formatMac(peer.name), now), done);
  }

  leave(done: (result: OperationResult) => void = () => {}): void {
    this.#call("leave", (now) => this.allocator.leave(now), done);
  }

  prime(done: (result: OperationResult) => void = () => {}): void {
    this.#call("prime", (now) => this.allocator.prime(now), done);
  }

  cancelSome(): void {
    for (const operation of this.#waiting.keys()) {
      if (this.#world.random.below(3) === 0) this.receive(() => this.allocator.cancel(operation, this.#world.now));
    }
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  // The shell

  /** Hands something in, and does what follows from it. */
  receive(work: () => void): void {
    if (!this.running) return;
    try {
      work();
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#world.conflicts.push(`${this}: ${error.message}`);
    }
    this.#act();
  }

  #call(kind: string, begin: (now: number) => OperationId, done: (result: OperationResult) => void = () => {}): void {
    if (!this.running) return;
    this.receive(() => {
      const operation = begin(this.#world.now);
      this.#waiting.set(operation, { kind, done });
    });
  }

  #act(): void {
    while (this.running) {
      const output = this.allocator.poll();
      if (output === undefined) break;
      this.#perform(output);
    }
    this.#planWake();
  }

  #perform(output: AllocatorOutput): void {
    const world = this.#world;
    switch (output.type) {
      case "persist":
        return this.#write();
      case "answer": {
        const waiting = this.#waiting.get(output.operation)!;
        this.#waiting.delete(output.operation);
        world.count(`${waiting.kind} ${output.result.outcome}`);
        waiting.done(output.result);
        return world.check();
      }
      case "unicast": {
        const { to, payload } = output;
        return world.send(this, to, (node) => node.allocator.handleUnicast(this.name, payload, world.now));
      }
      case "broadcast":
        return this.#broadcast(output.channel, output.data);
      default:
        output satisfies never;
    }
  }

  #broadcast(channel: string, data: GossipData): void {
    const world = this.#world;
    for (const other of world.running()) {
      if (other === this || !world.connected(this.name, other.name)) continue;
      for (const payload of data.encode() as Uint8Array[]) {
        world.send(this, other.name, (node) => {
          const channelOf = channel === IPAM_CHANNEL ? node.allocator : node.allocator.reclaimChannel;
          channelOf.handleBroadcast(this.name, payload, world.now);
        });
      }
    }
  }

  /** Writing takes a while; the router may be killed before and after. */
  #write(): void {
    const world = this.#world;
    this.#wanted = true;
    if (this.#writing) return;
    this.#writing = true;
    this.#wanted = false;
    const { revision, stored } = this.allocator.snapshot();
    const text = JSON.stringify(encodeStored(stored));
    const { life } = this;
    const { killAt, killPerMille = 0 } = world.o;
    const chosen = ++world.writes === killAt?.write;
    const killed = chosen || world.killing && world.random.below(1000) < killPerMille;
    const fate = !killed ? undefined : chosen ? Number(killAt!.after) : world.random.below(2);
    world.clock.plan(world.now + world.random.below(world.o.writeMs ?? 30), () => {
      if (!this.running || this.life !== life) return;
      if (fate !== 0) {
        this.#disk = text;
        this.#storedAt = world.now;
        this.#storedBoot = this.boot;
      }
      if (fate !== undefined) {
        this.kill();
        // Who looks after routers starts them again.
        if (chosen || world.random.below(2) === 0) {
          world.clock.plan(world.now + world.random.below(1000), () => {
            if (!this.running && !this.dead) this.start();
          });
        }
        return;
      }
      this.#writing = false;
      this.receive(() => this.allocator.handlePersisted(revision, world.now));
      if (this.#wanted && this.running) this.#write();
    });
  }

  #planWake(): void {
    const at = this.running ? this.allocator.pollTimeout()?.at ?? Infinity : Infinity;
    if (at >= this.#wakeAt) return;
    this.#wakeAt = at;
    const { life } = this;
    this.#world.clock.plan(at, () => {
      if (!this.running || this.life !== life || this.#wakeAt > this.#world.now) return;
      this.#wakeAt = Infinity;
      this.receive(() => this.allocator.handleTimeout(this.#world.now));
    });
  }

  #planGossip(): void {
    const world = this.#world;
    const { life } = this;
    world.clock.plan(world.now + GOSSIP_MS, () => {
      if (!this.running || this.life !== life) return;
      for (const other of world.running()) if (other !== this) world.meet(this, other);
      this.#planGossip();
    });
  }
}

/** For messages. */
export function describeHeld(node: IpamNode): string {
  return [...node.containers.values()].map(({ id, cidr }) => `${id} ${formatCidr(cidr)}`).join(", ");
}
