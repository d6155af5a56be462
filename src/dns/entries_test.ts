import assert from "node:assert/strict";
import fc from "fast-check";
import { asVector, fromVector, type VectorEntry } from "../../test/name_vectors.ts";
import { ProtocolError } from "../lib/errors.ts";
import { formatIpv4, parseIpv4 } from "../lib/ip.ts";
import { SILENT } from "../lib/log.ts";
import { parsePeerName, type PeerName } from "../lib/mac.ts";
import type { GossipData } from "../mesh/gossip.ts";
import type { GossipChannel } from "../mesh/hub.ts";
import { parseName } from "../wire/dns.ts";
import { compareOnWire, decodeNames, encodeNames, type NameEntry } from "../wire/nameserver.ts";
import { type Entry, NAME_RECORDS, Names, NAMESERVER, type NamesOutput } from "./entries.ts";

interface MergeCase {
  after: VectorEntry[];
  as: "gossip" | "broadcast";
  error?: string;
  incoming_hex: string;
  note: string;
  now: string;
  ours: VectorEntry[];
  own_broadcasts: VectorEntry[][];
  relayed: VectorEntry[] | null;
  unknown_peers: string[];
}

const A = parsePeerName("02:aa:00:00:00:01")!;
const B = parsePeerName("02:bb:00:00:00:02")!;
const C = parsePeerName("02:cc:00:00:00:03")!;
const NOW = 1_795_280_443;

for (const c of (vector("nameserver-merge.json") as { cases: MergeCase[] }).cases) {
  Deno.test(`Names merges as the vectors say: ${c.note}, as ${c.as}`, () => {
    const world = new World();
    // What is ours in the vector was put there by hand: here it is learned where it is another's, and added where it is our own.
    world.learn(c.ours.map(fromVector));
    world.unknown = c.unknown_peers.map((name) => parsePeerName(name)!);
    world.unixSeconds = Number(c.now);
    const payload = Uint8Array.fromHex(c.incoming_hex);
    const receive = () => c.as === "gossip" ? world.gossip(payload) : world.broadcast(B, payload);
    if (c.error) {
      assert.throws(receive, (error: unknown) => error instanceof ProtocolError && error.message.startsWith(c.error!));
      return;
    }
    const relayed = receive();
    assert.deepEqual(relayed && sorted(relayed.map(asVector)), c.relayed && sorted(c.relayed));
    assert.deepEqual(sorted(world.entries().map(asVector)), sorted(c.after));
    assert.deepEqual(world.told().map((entries) => entries.map(asVector)), c.own_broadcasts);
  });
}

interface LocalStep {
  args: { container?: string; fqdn?: string; ip?: string; peer?: string };
  broadcasts: VectorEntry[][];
  entries_after: VectorEntry[];
  op: string;
}

Deno.test("Names does what the vectors do with names of this host", () => {
  const { steps, lookups_before_last_step: lookups } = vector("nameserver-local.json") as {
    steps: LocalStep[];
    lookups_before_last_step: { lookup: string; result: string[] }[];
  };
  const world = new World();
  steps.forEach(({ op, args, broadcasts, entries_after }, i) => {
    const any = (text: string | undefined) => text === "*" ? undefined : text;
    if (op === "add") {
      world.names.add({ hostname: args.fqdn!, containerId: args.container!, data: parseIpv4(args.ip!)! });
    } else if (op === "container died") world.names.remove({ containerId: args.container! });
    else if (op.startsWith("delete")) {
      const data = any(args.ip) === undefined ? undefined : parseIpv4(args.ip!);
      world.names.remove({ hostname: any(args.fqdn), containerId: any(args.container), data });
    } else {
      assert.equal(i, steps.length - 1);
      for (const { lookup, result } of lookups) assert.deepEqual(world.lookup(lookup), result);
      world.names.handlePeerLeft(A);
    }
    assert.deepEqual(world.told().map((entries) => entries.map(asVector)), broadcasts, `step ${i}: ${op}`);
    assert.deepEqual(sorted(world.entries().map(asVector)), sorted(entries_after), `step ${i}: ${op}`);
  });
});

Deno.test("Names names both clocks where they are too far apart", () => {
  const world = new World();
  const payload = encodeNames("addresses", { timestamp: NOW + 3600, entries: [], leaving: 0n });
  assert.throws(() => world.gossip(payload), {
    message:
      "host clock skew of 3600s exceeds 900s limit: it is 2026-11-21T17:00:43Z here, and 2026-11-21T18:00:43Z there",
    name: "ProtocolError",
  });
});

Deno.test("Names answers for several addresses of a name and several names of an address, in any letter case", () => {
  const world = new World();
  world.add("web.weave.local", "10.0.0.1");
  world.learn([entry("Web.Weave.local.", "10.0.0.2", B), entry("other.weave.local.", "10.0.0.1", B)]);
  assert.deepEqual(world.lookup("wEb.weave.LOCAL").sort(), ["10.0.0.1", "10.0.0.2"]);
  assert.deepEqual(world.names.lookupAddress(parseIpv4("10.0.0.1")!), {
    state: "live",
    hostname: "other.weave.local.",
  });
  world.learn([{ ...entry("other.weave.local.", "10.0.0.1", B), version: 1, tombstone: NOW }]);
  const reverse = world.names.lookupAddress(parseIpv4("10.0.0.1")!);
  assert.equal(reverse.state === "live" && reverse.hostname.toLowerCase(), "web.weave.local.");
});

Deno.test("Names of this host never differ in letter case alone", () => {
  const world = new World();
  world.add("Web.weave.local", "10.0.0.1");
  world.add("web.weave.local", "10.0.0.1");
  assert.deepEqual(world.entries().map(({ hostname, version }) => [hostname, version]), [["Web.weave.local.", 0]]);
  assert.equal(world.names.remove({ hostname: "WEB.weave.local" }), 1);
  world.add("web.weave.local", "10.0.0.1");
  assert.deepEqual(world.entries().map(({ hostname, version }) => [hostname, version]), [["Web.weave.local.", 2]]);
  world.add("WEB.weave.local", "10.0.0.2");
  assert.equal(world.names.remove({ hostname: "WEB.weave.local" }), 1);
  assert.deepEqual(world.lookup("web.weave.local"), ["10.0.0.1"]);
});

Deno.test("Names ignores what is outside its domain, and what is no name", () => {
  const world = new World();
  for (const name of ["web.example.com", "weave.localx", `${"x".repeat(64)}.weave.local`, "a..weave.local"]) {
    assert.equal(world.names.add({ hostname: name, containerId: "c", data: 1 }), "outside", name);
  }
  assert.equal(world.names.add({ hostname: "weave.local", containerId: "c", data: 1 }), "added");
  assert.equal(world.names.add({ hostname: "x.weave.local", containerId: "c", data: "MX 1 x." }), "outside");
  assert.equal(world.entries().length, 1);
});

Deno.test("Names carries other records on a channel of their own", () => {
  const world = new World();
  world.names.addAll([
    { hostname: "web.weave.local", containerId: "c", data: 7 },
    { hostname: "web.weave.local", containerId: "c", data: "AAAA fd00::1" },
    { hostname: "_http._tcp.weave.local", containerId: "c", data: "SRV 0 1 80 web.weave.local." },
  ]);
  assert.deepEqual(world.toldOn().map(([channel, entries]) => [channel, entries.length]), [
    [NAMESERVER, 1],
    [NAME_RECORDS, 2],
  ]);
  assert.deepEqual(world.names.lookup(parseName("web.weave.local")!).records.map(({ text }) => text), ["AAAA fd00::1"]);
  assert.equal(world.names.lookup(parseName("_http._tcp.weave.local")!).state, "live");
  assert.equal(world.names.remove({ containerId: "c" }), 3);
  assert.equal(world.names.lookup(parseName("web.weave.local")!).state, "none");
});

Deno.test("Names suspends what a peer out of reach has named, hides it after the grace, and answers again when it is back", () => {
  const world = new World();
  world.learn([entry("web.weave.local.", "10.0.0.2", B), entry("db.weave.local.", "10.0.0.3", B)]);
  world.add("db.weave.local", "10.0.0.1");
  world.disappear(B);
  assert.deepEqual(world.lookup("web.weave.local"), ["10.0.0.2"]);
  world.pass(59_999);
  assert.deepEqual(world.lookup("db.weave.local").sort(), ["10.0.0.1", "10.0.0.3"]);
  assert.equal(world.names.pollTimeout()?.at, 60_000);
  world.pass(1);
  assert.equal(world.names.lookup(parseName("web.weave.local")!).state, "hidden");
  assert.equal(world.names.lookupAddress(parseIpv4("10.0.0.2")!).state, "hidden");
  assert.deepEqual(world.lookup("db.weave.local"), ["10.0.0.1"], "what others have is answered");
  assert.deepEqual(world.names.suspended(), [{ peer: B, entries: 2, since: 0, hidden: true }]);
  const told = world.completeState()!;
  assert.deepEqual(told.map(({ origin }) => origin), [A], "nobody is told of what is suspended");
  world.gossip(payloadOf([{ ...entry("web.weave.local.", "10.0.0.2", B), version: 9, tombstone: NOW }]));
  assert.equal(world.names.lookup(parseName("web.weave.local")!).state, "hidden", "its name is not taken in vain");

  world.reappear(B);
  assert.deepEqual(world.lookup("web.weave.local"), ["10.0.0.2"]);
  assert.deepEqual(world.names.suspended(), []);
  assert.deepEqual(world.gossiped().map((entries) => entries.length), [2], "it is asked whether that is still so");
});

Deno.test("Names of a peer that was away for a moment were never in doubt", () => {
  const world = new World();
  world.learn([entry("web.weave.local.", "10.0.0.2", B)]);
  world.disappear(B);
  world.pass(30_000);
  world.reappear(B);
  world.pass(120_000);
  assert.deepEqual(world.lookup("web.weave.local"), ["10.0.0.2"]);
});

Deno.test("Names forgets a peer that says it leaves, until its next life", () => {
  const world = new World();
  const theirs = new World(B);
  theirs.add("web.weave.local", "10.0.0.2");
  world.gossip(payloadOf(theirs.entries()));
  theirs.told();
  theirs.names.leave();
  const [farewell] = theirs.payloads();
  assert.ok(world.handleOwnBroadcast(B, farewell!), "it is passed on");
  assert.equal(world.names.lookup(parseName("web.weave.local")!).state, "none");
  assert.equal(world.handleOwnBroadcast(B, farewell!), undefined, "once");
  assert.equal(world.handleOwnBroadcast(C, farewell!), undefined, "nobody says it for others");

  // Others have not heard of it yet.
  world.gossip(payloadOf([entry("web.weave.local.", "10.0.0.2", B)]));
  assert.deepEqual(world.entries(), []);
  world.disappear(B);
  assert.deepEqual(world.names.suspended(), []);

  world.uids.set(B, 99n);
  world.reappear(B);
  world.gossip(payloadOf([entry("web.weave.local.", "10.0.0.2", B)]));
  assert.deepEqual(world.lookup("web.weave.local"), ["10.0.0.2"]);
});

Deno.test("Names forgets a peer that is out of reach and said to be gone, here and elsewhere", () => {
  const [here, there] = [new World(A), new World(C)];
  for (const world of [here, there]) {
    world.learn([entry("web.weave.local.", "10.0.0.2", B)]);
    assert.equal(world.names.removePeer(B), false, "it is there");
    world.disappear(B);
    world.pass(60_000);
    assert.equal(world.names.lookup(parseName("web.weave.local")!).state, "hidden");
  }
  assert.equal(here.names.removePeer(B), true);
  assert.equal(here.names.lookup(parseName("web.weave.local")!).state, "none");
  const [announcement] = here.payloads();
  assert.ok(there.handleOwnBroadcast(A, announcement!));
  assert.equal(there.names.lookup(parseName("web.weave.local")!).state, "none");
  const knowing = new World(C);
  knowing.learn([entry("web.weave.local.", "10.0.0.2", B)]);
  assert.equal(knowing.handleOwnBroadcast(A, announcement!), undefined, "whoever sees the peer knows better");
  assert.deepEqual(knowing.lookup("web.weave.local"), ["10.0.0.2"]);
});

Deno.test("an announcement waits beside entries, in any order", () => {
  const world = new World();
  world.names.add({ hostname: "a.weave.local", containerId: "c", data: "TXT a" });
  world.names.leave();
  world.names.add({ hostname: "b.weave.local", containerId: "c", data: "TXT b" });
  const parts: GossipData[] = [];
  for (let o = world.names.poll(); o; o = world.names.poll()) if (o.type === "broadcast") parts.push(o.data);
  const orders = [[0, 1, 2], [1, 0, 2], [0, 2, 1], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
  for (const order of orders) {
    const merged = order.map((i) => parts[i]!).reduce((all, part) => all.merge(part));
    const read = merged.encode().map((payload) => decodeNames("records", payload as Uint8Array));
    assert.deepEqual(read.flatMap(({ entries }) => entries.map(({ data }) => data)).sort(), ["TXT a", "TXT b"]);
    assert.equal(read.filter(({ leaving }) => leaving === 1n).length, 1);
  }
});

Deno.test("Names forgets tombstones after half an hour, those of no clock too", () => {
  const world = new World();
  world.add("web.weave.local", "10.0.0.1");
  world.names.remove({});
  world.learn([
    { ...entry("x.weave.local.", "10.0.0.2", B), tombstone: NOW + 1_000_000 },
    { ...entry("y.weave.local.", "10.0.0.2", B), version: 2 },
  ]);
  world.pass(29 * 60_000);
  assert.equal(world.entries().length, 3);
  world.pass(60_000);
  assert.deepEqual(world.entries().map(({ hostname }) => hostname).sort(), ["web.weave.local.", "y.weave.local."]);
  world.pass(30 * 60_000);
  assert.deepEqual(world.entries().map(({ hostname }) => hostname), ["y.weave.local."]);
});

Deno.test("Names bounds what one peer may name", () => {
  const world = new World();
  const many = Array.from({ length: 50_010 }, (_, i) => entry(`n${i}.weave.local.`, "10.0.0.2", B));
  world.learn(many);
  assert.equal(world.entries().length, 50_000);
  assert.equal(world.names.refused, 10);
  world.add("ours.weave.local", "10.0.0.1");
  assert.deepEqual(world.lookup("ours.weave.local"), ["10.0.0.1"]);
});

Deno.test("Names has room for what is ours, and forgets what is hidden where there are too many others", () => {
  const world = new World();
  const peers = [B, C, 4, 5, 6].map((name) => name as PeerName);
  for (const peer of peers) world.uids.set(peer, 9n);
  const fill = (peer: PeerName) =>
    world.learn(Array.from({ length: 50_000 }, (_, i) => entry(`n${i}.weave.local.`, "10.0.0.2", peer)));
  peers.forEach(fill);
  assert.equal(world.entries().length, 200_000);
  assert.equal(world.names.refused, 50_000);
  world.add("ours.weave.local", "10.0.0.1");
  world.disappear(B);
  world.pass(60_000);
  fill(peers.at(-1)!);
  assert.equal(world.entries().length, 200_000);
  assert.deepEqual(world.names.suspended(), []);
  assert.deepEqual(world.lookup("ours.weave.local"), ["10.0.0.1"]);
});

Deno.test("Names merges many names of one kind in time that grows with them alone", () => {
  const world = new World();
  const many = Array.from({ length: 20_000 }, (_, i) => ({ ...entry("same.weave.local.", formatIpv4(i + 1), B) }));
  const started = performance.now();
  world.learn(many);
  assert.equal(world.lookup("same.weave.local").length, 20_000);
  world.disappear(B);
  world.names.handlePeerLeft(B);
  assert.equal(world.names.lookup(parseName("same.weave.local")!).state, "none");
  assert.ok(performance.now() - started < 5_000);
});

Deno.test("what waits to be told is merged, however much it is", () => {
  const world = new World();
  let waiting: GossipData | undefined;
  for (let i = 0; i < 5_000; i++) {
    world.names.add({ hostname: `n${i % 1_000}.weave.local`, containerId: `c${i % 7}`, data: i % 1_000 });
    if (i % 3 === 0) world.names.remove({ containerId: "c1" });
    for (let o = world.names.poll(); o; o = world.names.poll()) {
      if (o.type === "broadcast") waiting = waiting === undefined ? o.data : waiting.merge(o.data);
    }
  }
  const entries = waiting!.encode().flatMap((payload) => [...decodeNames("addresses", payload as Uint8Array).entries]);
  const ours = new Map(world.entries().map((e) => [`${e.hostname} ${e.containerId}`, [e.version, e.tombstone]]));
  assert.equal(entries.length, ours.size);
  for (const e of entries) assert.deepEqual([e.version, e.tombstone], ours.get(`${e.hostname} ${e.containerId}`));
});

// Laws ------------------------------------------------------------------------------------------------

const anyEntry: fc.Arbitrary<NameEntry> = fc.record({
  hostname: fc.constantFrom("a.weave.local.", "A.weave.local.", "b.weave.local."),
  origin: fc.constantFrom(B, C),
  containerId: fc.constantFrom("c1", "c2"),
  data: fc.constantFrom(1, 2),
  version: fc.nat(3),
  tombstone: fc.constantFrom(0, 0, NOW - 5, NOW),
}, { noNullPrototype: true });
const payload = fc.array(anyEntry, { maxLength: 6 }).map(payloadOf);

Deno.test("merging names is commutative, associative and idempotent", () => {
  fc.assert(fc.property(payload, payload, payload, (x, y, z) => {
    const after = (...payloads: Uint8Array[]) => {
      const world = new World();
      for (const p of payloads) world.gossip(p);
      return sorted(world.entries().map(asVector));
    };
    const once = after(x, y, z);
    assert.deepEqual(after(z, x, y), once);
    assert.deepEqual(after(y, z, x, x, z), once);
  }));
});

Deno.test("routers that hear of each other's names in any order agree in the end", () => {
  const name = fc.constantFrom("a.weave.local", "b.weave.local");
  const step = fc.record({
    who: fc.nat(2),
    op: fc.constantFrom("add", "remove", "restart", "tell"),
    name,
    to: fc.nat(2),
  });
  fc.assert(fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
    const peers = [A, B, C];
    const worlds = peers.map((peer) => new World(peer));
    for (const { who, op, name, to } of steps) {
      const world = worlds[who]!;
      world.unixSeconds++;
      if (op === "add") world.names.add({ hostname: name, containerId: "c", data: 1 });
      else if (op === "remove") world.names.remove({ hostname: name });
      else if (op === "restart") worlds[who] = new World(peers[who]!, world.unixSeconds);
      else worlds[to]!.gossip(payloadOf(world.entries(), worlds[to]!.unixSeconds));
    }
    const own = worlds.map((world) => world.names.own().map(({ hostname }) => hostname).sort());
    for (let round = 0; round < 4; round++) {
      for (const from of worlds) for (const to of worlds) to.gossip(payloadOf(from.entries(), to.unixSeconds));
    }
    const [first, ...others] = worlds.map((world) => sorted(world.entries().map(asVector)));
    for (const other of others) assert.deepEqual(other, first);
    assert.deepEqual(worlds.map((world) => world.names.own().map(({ hostname }) => hostname).sort()), own);
    const live = worlds[0]!.entries().filter((e) => e.live).map((e) => [e.origin, e.hostname]);
    assert.equal(live.length, own.flat().length, "what lives is what its owner has");
  }));
});

/** A router's names, and all that is around them. */
class World {
  readonly names: Names;
  readonly uids = new Map<PeerName, bigint>([[A, 1n], [B, 2n], [C, 3n]]);
  unknown: PeerName[] = [];
  now = 0;
  readonly #channels: readonly GossipChannel[];

  constructor(readonly ourName: PeerName = A, public unixSeconds = NOW) {
    this.names = new Names({
      ourName,
      ourUid: this.uids.get(ourName)!,
      domain: "weave.local.",
      graceMs: 60_000,
      peerUid: (name) => this.unknown.includes(name) ? undefined : this.uids.get(name),
      unixSeconds: () => this.unixSeconds,
      log: SILENT,
    }, 0);
    this.#channels = this.names.channels();
  }

  add(hostname: string, address: string): void {
    assert.equal(this.names.add({ hostname, containerId: "c", data: parseIpv4(address)! }), "added");
  }

  /** Entries of our own among them get that version by claims of others. */
  learn(entries: readonly NameEntry[]): void {
    const others = entries.filter(({ origin }) => origin !== this.ourName);
    if (others.length > 0) this.gossip(payloadOf(others, this.unixSeconds));
    for (const { origin, hostname, containerId, data, version, tombstone } of entries) {
      if (origin !== this.ourName) continue;
      this.names.add({ hostname, containerId, data });
      const present = this.unixSeconds;
      if (tombstone !== 0) {
        this.unixSeconds = tombstone;
        this.names.remove({ hostname, containerId, data });
        this.unixSeconds = present;
      }
      const claim = { hostname, origin, containerId, data, version: version - 1, tombstone: tombstone === 0 ? 1 : 0 };
      if (version > (tombstone === 0 ? 0 : 1)) this.gossip(payloadOf([claim], this.unixSeconds));
    }
    this.told();
  }

  gossip(payload: Uint8Array): NameEntry[] | null {
    return read(this.#channels[0]!.handleGossip(payload, this.now, B));
  }

  broadcast(source: PeerName, payload: Uint8Array): NameEntry[] | null {
    return read(this.#channels[0]!.handleBroadcast(source, payload, this.now));
  }

  handleOwnBroadcast(source: PeerName, payload: Uint8Array): GossipData | undefined {
    return this.#channels[1]!.handleBroadcast(source, payload, this.now);
  }

  completeState(): NameEntry[] | null {
    return read(this.#channels[0]!.completeState(this.now));
  }

  disappear(peer: PeerName): void {
    this.unknown.push(peer);
    this.names.handlePeerGone(peer, this.now);
  }

  reappear(peer: PeerName): void {
    this.unknown = this.unknown.filter((name) => name !== peer);
    this.names.handleTopology();
  }

  pass(ms: number): void {
    this.now += ms;
    this.unixSeconds += ms / 1000;
    this.names.handleTimeout(this.now);
  }

  lookup(name: string): string[] {
    return this.names.lookup(parseName(name)!).addresses.map(formatIpv4);
  }

  entries(): readonly Entry[] {
    return this.names.addresses();
  }

  /** What was broadcast since the last time. */
  told(): NameEntry[][] {
    return this.toldOn().map(([, entries]) => entries);
  }

  toldOn(): [string, NameEntry[]][] {
    return this.#outputs().flatMap((o) => o.type === "broadcast" ? [[o.channel, read(o.data, o.channel)!]] : []);
  }

  gossiped(): NameEntry[][] {
    return this.#outputs().flatMap((o) => o.type === "gossip" ? [read(o.data, o.channel)!] : []);
  }

  payloads(): Uint8Array[] {
    return this.#outputs().flatMap((o) => o.type === "broadcast" ? [...o.data.encode()] as Uint8Array[] : []);
  }

  #outputs(): NamesOutput[] {
    const outputs: NamesOutput[] = [];
    for (let o = this.names.poll(); o; o = this.names.poll()) outputs.push(o);
    return outputs;
  }
}

function read(data: GossipData | undefined, channel = NAMESERVER): NameEntry[] | null {
  if (data === undefined) return null;
  const kind = channel === NAMESERVER ? "addresses" : "records";
  return data.encode().flatMap((payload) => [...decodeNames(kind, payload as Uint8Array).entries]);
}

function payloadOf(entries: readonly NameEntry[], timestamp = NOW): Uint8Array {
  return encodeNames("addresses", { timestamp, entries, leaving: 0n });
}

function entry(hostname: string, address: string, origin: PeerName): NameEntry {
  return { hostname, origin, containerId: "c", data: parseIpv4(address)!, version: 0, tombstone: 0 };
}

/** Entries that differ in letter case alone may stand in either order. */
function sorted(entries: readonly VectorEntry[]): VectorEntry[] {
  const parsed = entries.map(fromVector).sort(compareOnWire);
  return parsed.map(asVector);
}

function vector(file: string): unknown {
  return JSON.parse(Deno.readTextFileSync(`test/fixtures/vectors/${file}`));
}
