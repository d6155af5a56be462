import assert from "node:assert/strict";
import { ProtocolError, WireError } from "../lib/errors.ts";
import { formatCidr, parseCidr, parseIpv4 } from "../lib/ip.ts";
import { SILENT } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import { decodeIpamMessage, decodeIpamState, encodeIpamMessage, encodeIpamState } from "../wire/ipam.ts";
import { Allocator, type AllocatorOptions, type AllocatorOutput, type IpamInit } from "./allocator.ts";
import type { OperationId, OperationResult } from "./operations.ts";
import { rangeOf } from "./range.ts";
import { checkStored, encodeStored, type StoredIpam } from "./stored.ts";

const A = 0x02aa00000001 as PeerName, B = 0x02bb00000002 as PeerName, C = 0x02cc00000003 as PeerName;
const NAMES: Record<number, string> = { [A]: "alpha", [B]: "beta", [C]: "gamma" };
const ALONE: IpamInit = { mode: "consensus", peers: 1 };
const OF_TWO: IpamInit = { mode: "consensus", peers: 2 };

// Allocating ---------------------------------------------------------------------------------------

Deno.test("allocate() gives the lowest free address of the subnet, with its prefix length", () => {
  const a = new Node(A);
  assert.equal(a.allocate("c1"), "10.32.0.1/24");
  assert.equal(a.allocate("c2"), "10.32.0.2/24");
  assert.equal(a.allocate("c3", "10.32.0.8/29"), "10.32.0.9/29");
  a.free("c1", "10.32.0.1");
  assert.equal(a.allocate("c4"), "10.32.0.1/24");
});

Deno.test("allocate() gives an id one address a subnet, the same one again", () => {
  const a = new Node(A);
  assert.equal(a.allocate("c1"), "10.32.0.1/24");
  assert.equal(a.allocate("c1"), "10.32.0.1/24");
  assert.equal(a.allocate("c1", "10.32.0.128/25"), "10.32.0.129/25");
  // In the larger subnet it holds two; the first is given.
  assert.equal(a.allocate("c1"), "10.32.0.1/24");
  assert.deepEqual(a.lookup("c1", "10.32.0.128/25"), ["10.32.0.129/25"]);
});

Deno.test("allocate() files what callers without an id get under the address", () => {
  const a = new Node(A);
  assert.equal(a.allocate("_"), "10.32.0.1/24");
  assert.equal(a.allocate("_"), "10.32.0.2/24");
  assert.deepEqual(a.lookup("10.32.0.2"), ["10.32.0.2/24"]);
  assert.equal(a.free("10.32.0.1", "10.32.0.1"), undefined);
});

Deno.test("allocate() refuses a subnet outside the universe, and uses the part inside of one that is larger", () => {
  const a = new Node(A);
  assert.equal(a.refusal(a.startAllocate("c1", "10.33.0.0/24")), "range 10.33.0.0/24 out of bounds: 10.32.0.0/24");
  assert.equal(a.allocate("c1", "10.0.0.0/8"), "10.32.0.0/8");
});

Deno.test("allocate() waits without a quorum; looking up, freeing and claims outside the universe do not", () => {
  const a = new Node(A, { init: OF_TWO });
  const waiting = a.startAllocate("c1");
  const claiming = a.startClaim("c2", "10.32.0.9/24");
  assert.equal(a.answer(waiting), undefined);
  assert.equal(a.answer(claiming), undefined);
  assert.deepEqual(a.lookup("c1"), []);
  assert.equal(a.free("c1", "10.32.0.1"), "Free: address 10.32.0.1 not found for c1");
  assert.equal(a.freeAll("c1"), "Delete: no addresses for c1");
  assert.equal(a.claim("c3", "192.168.1.1/24"), undefined);
  const { election, pendingAllocations, pendingClaims } = a.allocator.status(a.now);
  assert.deepEqual(election, { elector: true, knownNodes: 1, quorum: 2 });
  assert.deepEqual(pendingAllocations.map(({ id }) => id), ["c1"]);
  assert.deepEqual(pendingClaims.map(({ id }) => id), ["c2"]);

  a.allocator.cancel(waiting, a.now);
  a.allocator.handleContainerDied("c2", a.now);
  assert.equal(a.answer(waiting)?.outcome, "cancelled");
  assert.equal(a.answer(claiming)?.outcome, "cancelled");
});

Deno.test("answers, grants and gossip wait for the disk, messages that tell of nothing new do not", () => {
  const a = new Node(A, { writes: false });
  a.take();
  const operation = a.startAllocate("c1");
  assert.deepEqual(a.take().map(({ type }) => type), ["persist"]);
  assert.equal(decodeIpamState(a.state()).ring, undefined);
  const first = a.allocator.snapshot();
  const second = a.startAllocate("c2");
  assert.deepEqual(a.take().map(({ type }) => type), ["persist"]);
  a.allocator.handlePersisted(first.revision, a.now);
  const after = a.take();
  assert.deepEqual(after.map((o) => o.type === "answer" ? o.operation : o.type), [operation, "broadcast"]);
  // What is told is what is on disk.
  assert.equal(decodeIpamState(a.state()).ring!.entries[0]!.free, 255);
  a.allocator.handlePersisted(a.allocator.snapshot().revision, a.now);
  assert.deepEqual(a.take().map((o) => o.type === "answer" ? o.operation : o.type), [second]);
  assert.equal(decodeIpamState(a.state()).ring!.entries[0]!.free, 254);
});

Deno.test("allocate() refuses when too many wait already", () => {
  const a = new Node(A, { init: OF_TWO });
  for (let i = 0; i < 10_000; i++) a.startAllocate(`c${i}`);
  assert.match(a.refusal(a.startAllocate("one more"))!, /too many/);
});

// Claiming ------------------------------------------------------------------------------------------

Deno.test("claim() says why an address cannot be had", () => {
  const a = new Node(A);
  assert.equal(a.claim("c1", "10.32.0.9/24"), undefined);
  assert.equal(a.claim("c1", "10.32.0.9/24"), undefined);
  assert.equal(a.claim("c2", "10.32.0.9/24"), "address 10.32.0.9/24 is already owned by c1");
  assert.equal(a.claim("_", "10.32.0.9/24"), undefined);
  assert.equal(a.claim("_", "10.32.0.10/24"), undefined);
  assert.equal(a.claim("_", "10.32.0.10/24"), undefined);
  assert.equal(a.claim("c1", "10.32.0.10/24"), "address 10.32.0.10/24 already in use");
  assert.equal(a.allocate("c3"), "10.32.0.1/24");
  assert.equal(a.claim("c1", "172.16.0.1/16"), undefined);
  assert.equal(a.claim("c1", "172.16.0.1/16"), undefined);
  assert.equal(a.claim("_", "172.16.0.1/16"), undefined);
  assert.equal(a.claim("c2", "172.16.0.1/16"), "address 172.16.0.1/16 already in use by c1");
});

Deno.test("claim() outside the universe takes the place of a dead container, inside it does not", () => {
  const a = new Node(A);
  a.claim("c1", "172.16.0.1/16", { isContainer: true });
  a.claim("c1", "10.32.0.5/24", { isContainer: true });
  a.allocator.handleContainerDied("c1", a.now);
  assert.equal(a.claim("c2", "172.16.0.1/16"), undefined);
  assert.equal(a.claim("c2", "10.32.0.5/24"), "address 10.32.0.5/24 is already owned by c1");
  assert.deepEqual(a.lookup("c2", "172.16.0.0/16"), ["172.16.0.1/16"]);
});

Deno.test("claim() with noErrorOnUnknown says yes before there is a ring, and claims when there is one", () => {
  const [a, b] = two();
  assert.equal(a.claim("c1", "10.32.0.9/24", { noErrorOnUnknown: true }), undefined);
  assert.deepEqual(a.lookup("c1"), []);
  connect(a, b);
  exchange(a, b);
  b.tick();
  exchange(a, b);
  assert.deepEqual(a.lookup("c1"), ["10.32.0.9/24"]);
});

Deno.test("claim() asks the owner, who gives the address or not; out of reach it is given up after five tries", () => {
  const [a, b] = agreed();
  const far = a.startClaim("c1", "10.32.0.200/24");
  exchange(a, b);
  assert.equal(a.answer(far)?.outcome, "done");
  assert.equal(b.claim("c9", "10.32.0.200/24", {}), undefined, "not answered: it waits for the owner");

  assert.equal(b.allocate("c2", "10.32.0.128/25"), "10.32.0.129/25");
  const taken = a.startClaim("c3", "10.32.0.129/24");
  exchange(a, b);
  assert.equal(a.refusal(taken), "address 10.32.0.129/24 is owned by other peer 02:bb:00:00:00:02 (beta)");

  disconnect(a, b);
  const lost = a.startClaim("c4", "10.32.0.130/24");
  for (let tries = 0; tries < 4; tries++) a.tick();
  assert.equal(a.answer(lost), undefined);
  a.tick();
  assert.equal(
    a.refusal(lost),
    "address 10.32.0.130/24 is owned by other peer 02:bb:00:00:00:02 (beta) - unknown relay destination: 02:bb:00:00:00:02",
  );
});

Deno.test("a denial counts only from the owner", () => {
  const [a, b] = agreed();
  disconnect(a, b);
  a.peers.add(B);
  const claim = a.startClaim("c1", "10.32.0.200/24");
  const denied = encodeIpamMessage({ type: "denied", range: rangeOf(parseCidr("10.32.0.0/24")!) });
  a.allocator.handleUnicast(C, denied, a.now);
  assert.equal(a.answer(claim), undefined);
  a.allocator.handleUnicast(B, denied, a.now);
  assert.equal(a.answer(claim)?.outcome, "refused");
});

// The first ring --------------------------------------------------------------------------------------

Deno.test("two agree on a ring when one of them needs it, and divide the universe", () => {
  const [a, b] = two();
  connect(a, b);
  const waiting = a.startAllocate("c1");
  exchange(a, b);
  b.tick();
  exchange(a, b);
  assert.equal(a.address(waiting), "10.32.0.1/24");
  assert.equal(b.allocate("c2"), "10.32.0.128/24");
  assert.deepEqual(a.ring(), [["10.32.0.0", A], ["10.32.0.128", B]]);
  assert.deepEqual(b.ring(), a.ring());
});

Deno.test("an observer does not vote, is given a ring, and makes others agree when it needs one", () => {
  const a = new Node(A);
  const b = new Node(B, { init: { mode: "observer" } });
  connect(a, b);
  assert.equal(decodeIpamState(b.state()).paxos, undefined);
  assert.deepEqual(decodeIpamState(a.state()).paxos, []);
  assert.equal(a.allocator.status(0).entries.length, 0);
  const waiting = b.startAllocate("c1");
  assert.deepEqual(b.allocator.status(0).election, { elector: false, knownNodes: 0, quorum: 0 });
  exchange(a, b);
  b.tick();
  exchange(a, b);
  assert.equal(b.address(waiting), "10.32.0.128/24");
});

Deno.test("an observer hands on what voters broadcast as it came", () => {
  const o = new Node(C, { init: { mode: "observer" } });
  const payload = new Node(A, { init: OF_TWO }).state();
  const onward = o.allocator.handleBroadcast(A, payload, 0);
  assert.deepEqual(onward?.encode(), [payload]);
});

Deno.test("what others broadcast is handed on at once, also where it is not on disk yet", () => {
  const a = new Node(A);
  a.allocate("c1");
  const b = new Node(B, { init: OF_TWO, writes: false });
  const told = a.state();
  assert.deepEqual(b.allocator.handleBroadcast(A, told, b.now)?.encode(), [told]);
  b.allocator.handlePersisted(b.allocator.snapshot().revision, b.now);
  const [octets] = b.allocator.handleBroadcast(A, told, b.now)!.encode();
  assert.deepEqual(decodeIpamState(octets as Uint8Array).nicknames.map(([name]) => name).includes(B), true);
});

Deno.test("a seed divides the universe at once, and is not used where something is stored", () => {
  const init: IpamInit = { mode: "seed", peers: [C, A, B, A] };
  const a = new Node(A, { init });
  assert.deepEqual(a.ring(), [["10.32.0.0", A], ["10.32.0.128", B], ["10.32.0.192", C]]);
  const again = new Node(A, { init: { mode: "seed", peers: [A] }, stored: a.stored });
  assert.deepEqual(again.ring(), a.ring());
});

Deno.test("prime() answers when there is a ring", () => {
  const a = new Node(A);
  const primed = a.operate((now) => a.allocator.prime(now));
  assert.equal(a.answer(primed)?.outcome, "done");
  const b = new Node(B, { init: OF_TWO });
  const waiting = b.operate((now) => b.allocator.prime(now));
  assert.equal(b.answer(waiting), undefined);
});

Deno.test("the quorum is a majority of what was told, or of the targets and ourselves", () => {
  const quorum = (init: IpamInit, targets: number) => {
    const node = new Node(A, { init, targets });
    node.startAllocate("c1");
    return node.allocator.status(0).election?.quorum;
  };
  assert.equal(quorum({ mode: "consensus", peers: 5 }, 0), 3);
  assert.equal(quorum({ mode: "consensus", peers: undefined }, 1), 2);
  assert.equal(quorum({ mode: "consensus", peers: undefined }, 4), 3);
});

// Containers --------------------------------------------------------------------------------------------

Deno.test("a dead container keeps its addresses for 30 s, until the next tick", () => {
  const a = new Node(A);
  a.allocate("c1", undefined, true);
  a.advance(1_000);
  a.allocator.handleContainerDied("c1", a.now);
  a.advance(30_000);
  assert.deepEqual(a.lookup("c1"), ["10.32.0.1/24"]);
  a.advance(5_000);
  assert.deepEqual(a.lookup("c1"), []);
});

Deno.test("a container that is started again in time keeps its addresses", () => {
  for (const revive of ["start", "allocate", "claim"]) {
    const a = new Node(A);
    a.allocate("c1", undefined, true);
    a.allocator.handleContainerDied("c1", a.now);
    a.advance(20_000);
    if (revive === "start") a.allocator.handleContainerStarted("c1", a.now);
    else if (revive === "allocate") assert.equal(a.allocate("c1", undefined, true), "10.32.0.1/24");
    else assert.equal(a.claim("c1", "10.32.0.1/24"), undefined);
    a.advance(60_000);
    assert.deepEqual(a.lookup("c1"), ["10.32.0.1/24"], revive);
  }
});

Deno.test("a container that is removed loses its addresses at once; who is no container keeps them", () => {
  const a = new Node(A);
  a.allocate("c1", undefined, true);
  a.allocate("weave:expose");
  for (const id of ["c1", "weave:expose"]) {
    a.allocator.handleContainerDied(id, a.now);
    a.allocator.handleContainerDestroyed(id, a.now);
  }
  a.advance(60_000);
  assert.deepEqual(a.lookup("c1"), []);
  assert.deepEqual(a.lookup("weave:expose"), ["10.32.0.2/24"]);
});

Deno.test("addresses of containers that do not run at the start are free, others are kept", () => {
  const a = new Node(A);
  a.allocate("c1", undefined, true);
  a.allocate("c2", undefined, true);
  a.allocate("cni");
  const again = new Node(A, { stored: a.stored, running: new Set(["c2"]) });
  assert.deepEqual(["c1", "c2", "cni"].map((id) => again.lookup(id)[0]), [undefined, "10.32.0.2/24", "10.32.0.3/24"]);
  assert.equal(again.allocate("c9"), "10.32.0.1/24");
});

// Peers -------------------------------------------------------------------------------------------------

Deno.test("a peer that runs out of addresses is given half of what another one has", () => {
  const [a, b] = agreed();
  for (let i = 0; i < 127; i++) a.allocate(`c${i}`);
  const waiting = a.startAllocate("more");
  assert.equal(a.answer(waiting), undefined);
  exchange(a, b);
  assert.equal(a.address(waiting), "10.32.0.192/24");
  assert.deepEqual(a.ring(), [["10.32.0.0", A], ["10.32.0.128", B], ["10.32.0.192", A]]);
});

Deno.test("one request that cannot be served keeps no other waiting", () => {
  const [a, b] = agreed();
  for (let i = 0; i < 6; i++) a.allocate(`x${i}`, "10.32.0.0/29");
  const stuck = a.startAllocate("c1", "10.32.0.0/29");
  exchange(a, b);
  assert.equal(a.answer(stuck), undefined);
  assert.equal(a.allocate("c1", "10.32.0.64/29"), "10.32.0.65/29");
  a.free("x0", "10.32.0.1");
  a.tick();
  assert.equal(a.address(stuck), "10.32.0.1/29");
});

Deno.test("takeOver() takes the ranges of a peer by nickname or name, and counts what is free", () => {
  for (const text of ["beta", "02:bb:00:00:00:02", "2:bb::2"]) {
    const [a, b] = agreed();
    exchange(a, b);
    disconnect(a, b);
    const count = (who: string) => {
      const result = a.answer(a.operate((now) => a.allocator.takeOver(who, now)));
      return result?.outcome === "done" ? result.count : undefined;
    };
    assert.equal(count("nobody"), 0);
    assert.equal(count("alpha"), 0);
    assert.equal(count(text), 128);
    assert.equal(count(text), 0);
    assert.deepEqual(a.ring(), [["10.32.0.0", A], ["10.32.0.128", A]]);
  }
});

Deno.test("keep() holds what is wanted in our ranges, and lets go of what is not", () => {
  const [a] = agreed();
  keep(a, { "service:web": "10.32.0.7/24", "service:far": "10.32.0.200/24" });
  assert.deepEqual(a.lookup("service:web"), ["10.32.0.7/24"]);
  assert.deepEqual(a.lookup("service:far"), [], "its range is another's");
  for (let i = 0; i < 20; i++) assert.notEqual(a.allocate(`c${i}`), "10.32.0.7/24");
  a.allocate("service:web");
  keep(a, { "service:web": "10.32.0.7/24" });
  assert.deepEqual(a.lookup("service:web"), ["10.32.0.7/24"]);
  keep(a, {});
  assert.deepEqual(a.lookup("service:web"), []);
  assert.equal(a.lookup("c0").length, 1, "others are left alone");
});

Deno.test("keep() leaves an address with whoever has it", () => {
  const [a] = agreed();
  const taken = a.allocate("c1")!;
  keep(a, { "service:web": taken });
  assert.deepEqual(a.lookup("service:web"), []);
  assert.deepEqual(a.lookup("c1"), [taken]);
});

Deno.test("takeOver() holds what is kept before anything of it is given out", () => {
  const [a, b] = agreed();
  exchange(a, b);
  disconnect(a, b);
  keep(a, { "service:web": "10.32.0.128/24", "service:db": "10.32.0.130/24" });
  for (let i = 0; i < 127; i++) a.allocate(`c${i}`);
  const waiting = a.startAllocate("c127");
  a.operate((now) => a.allocator.takeOver("beta", now));
  assert.deepEqual(a.lookup("service:web"), ["10.32.0.128/24"]);
  assert.deepEqual(a.lookup("service:db"), ["10.32.0.130/24"]);
  assert.equal(a.address(waiting), "10.32.0.129/24");
});

Deno.test("keep() lets go of addresses whose ranges go to another, who holds them", () => {
  const [a, b] = agreed();
  exchange(a, b);
  const wanted = { "service:web": "10.32.0.7/24" };
  keep(a, wanted);
  keep(b, wanted);
  a.operate((now) => a.allocator.leave(now));
  exchange(a, b);
  assert.deepEqual(b.lookup("service:web"), ["10.32.0.7/24"]);
});

Deno.test("leave() gives all to somebody who is there, cancels what waits, and serves no more", () => {
  const [a, b] = agreed();
  a.allocate("c1");
  const stuck = a.startAllocate("c2", "10.32.0.128/30");
  const left = a.operate((now) => a.allocator.leave(now));
  assert.equal(a.answer(left)?.outcome, "done");
  assert.equal(a.answer(stuck)?.outcome, "cancelled");
  assert.equal(a.answer(a.startAllocate("c3"))?.outcome, "cancelled");
  // What it was given meanwhile it gives away again.
  exchange(a, b);
  assert.deepEqual(new Set(b.ring().map(([, peer]) => peer)), new Set([B]));
  assert.equal(b.allocate("c4"), "10.32.0.1/24");
});

Deno.test("rings that differ in range or seed end the connection, and are shown until they go together", () => {
  const a = new Node(A, { init: { mode: "seed", peers: [A, B] } });
  const other = new Node(B, { init: { mode: "seed", peers: [B, C] } });
  a.peers.add(B);
  const reason =
    "IP allocation was seeded by different peers (received: [02:bb:00:00:00:02(beta) 02:cc:00:00:00:03], " +
    "ours: [02:aa:00:00:00:01(alpha) 02:bb:00:00:00:02(beta)])";
  throwsProtocolError(() => a.allocator.handleGossip(other.state(), a.now, B), reason);
  const range = new Node(C, { init: { mode: "seed", peers: [A, B] }, range: "10.40.0.0/16" });
  const rangeReason = "Incompatible IP allocation ranges (received: 10.40.0.0/16, ours: 10.32.0.0/24)";
  throwsProtocolError(() => a.allocator.handleBroadcast(C, range.state(), a.now), rangeReason);
  assert.deepEqual(a.allocator.status(a.now).conflicts, [{ peer: B, reason }, { peer: C, reason: rangeReason }]);
  assert.equal(a.allocate("c1"), "10.32.0.1/24");

  const good = new Node(B, { init: { mode: "seed", peers: [A, B] } });
  a.allocator.handleGossip(good.state(), a.now, B);
  assert.deepEqual(a.allocator.status(a.now).conflicts.map(({ peer }) => peer), [C]);
  a.now += 16 * 60_000;
  assert.deepEqual(a.allocator.status(a.now).conflicts, []);
});

Deno.test("an address in use here that another peer owns is asked for, and shown where it is held twice", () => {
  const [a, b] = agreed();
  b.allocate("theirs", "10.32.0.128/25");
  const existing = ["10.32.0.129/24", "10.32.0.140/24", "10.32.0.3/24", "192.168.7.7/24"].map((cidr, i) => ({
    id: `c${i}`,
    cidr: parseCidr(cidr)!,
    isContainer: true,
  }));
  disconnect(a, b);
  const again = new Node(A, { stored: a.stored, existing, running: new Set(["c0", "c1", "c2", "c3"]) });
  assert.deepEqual(again.lookup("c3", "192.168.7.0/24"), ["192.168.7.7/24"]);
  assert.deepEqual(again.allocator.status(0).contests.map(({ cidr, heldTwice }) => [cidr, heldTwice]), [
    ["10.32.0.129/24", false],
    ["10.32.0.140/24", false],
  ]);
  connect(again, b);
  again.tick();
  exchange(again, b);
  assert.deepEqual(again.allocator.status(0).contests, [
    { id: "c0", cidr: "10.32.0.129/24", owner: B, heldTwice: true },
  ]);
  assert.deepEqual(again.lookup("c1"), ["10.32.0.140/24"]);
  // When the other one is free, it is had.
  b.free("theirs", "10.32.0.129");
  for (let i = 0; i < 13; i++) again.tick();
  exchange(again, b);
  assert.deepEqual(again.allocator.status(0).contests, []);
});

// Restarts ------------------------------------------------------------------------------------------------

Deno.test("what was stored is used by the same peer with the same range only", () => {
  const a = new Node(A);
  a.allocate("c1");
  const stored = a.stored;
  assert.deepEqual(new Node(A, { stored }).lookup("c1"), ["10.32.0.1/24"]);
  assert.deepEqual(new Node(B, { stored }).ring(), []);
  const otherRange = new Node(A, { stored, range: "10.40.0.0/24" });
  assert.deepEqual(otherRange.ring(), []);
  assert.equal(otherRange.allocate("c1", "10.40.0.0/24"), "10.40.0.1/24");
  const torn = { ...stored!, entries: stored!.entries.map((entry) => ({ ...entry, free: 999 })) };
  assert.deepEqual(new Node(A, { stored: torn }).ring(), []);
});

Deno.test("checkStored() gives what encodeStored() was given, and says what is wrong", () => {
  const a = new Node(A);
  a.allocate("__proto__");
  a.allocate("c1", undefined, true);
  a.claim("c1", "172.16.0.1/16", { isContainer: true });
  const json = JSON.parse(JSON.stringify(encodeStored(a.stored!)));
  assert.deepEqual(checkStored(json), a.stored);
  for (
    const [wrong, message] of [
      [null, /content is missing/],
      [{ ...json, name: 7 }, /no peer name/],
      [{ ...json, range: "10.32.0.0" }, /no address with a prefix/],
      [{ ...json, ring: { seeds: [], entries: [["10.32.0.0", "::1", -1, 2]] } }, /no number/],
      [{ ...json, ring: { seeds: [], entries: 5 } }, /no list/],
      [{ ...json, held: { c1: { addresses: ["x"] } } }, /no address/],
    ] as const
  ) {
    assert.throws(() => checkStored(wrong), message);
  }
});

// Malice ------------------------------------------------------------------------------------------------

Deno.test("messages that cannot be read are passed over, gossip of a neighbour ends the connection", () => {
  const a = new Node(A);
  for (const payload of [[], [0], [7, 1, 2], [1, 255, 255]].map((octets) => new Uint8Array(octets))) {
    a.allocator.handleUnicast(B, payload, 0);
    assert.equal(a.allocator.handleBroadcast(B, payload, 0), undefined);
    assert.equal(a.allocator.reclaimChannel.handleBroadcast(B, payload, 0), undefined);
    assert.throws(() => a.allocator.handleGossip(payload, 0, B), WireError);
  }
  assert.equal(a.allocate("c1"), "10.32.0.1/24");
});

Deno.test("a peer that nobody knows, or that says to be us, is given nothing", () => {
  const a = new Node(A);
  a.allocate("c1");
  a.take();
  const request = encodeIpamMessage({ type: "request", range: { start: 0, end: 0xffff_ffff } });
  for (const from of [C, A]) a.allocator.handleUnicast(from, request, 0);
  assert.deepEqual(a.take(), []);
  assert.deepEqual(a.ring(), [["10.32.0.0", A]]);
});

Deno.test("requests for ranges that make no sense are denied, and the ring is told once a second", () => {
  const a = new Node(A);
  a.allocate("c1");
  a.take();
  a.peers.add(B);
  for (const [start, end] of [[5, 5], [9, 3], [0, 1], [0xffff_fff0, 0xffff_ffff]] as const) {
    for (let i = 0; i < 50; i++) {
      a.allocator.handleUnicast(B, encodeIpamMessage({ type: "request", range: { start, end } }), a.now);
    }
  }
  const messages = a.take().flatMap((o) => o.type === "unicast" ? [decodeIpamMessage(o.payload).type] : []);
  assert.equal(messages.filter((type) => type === "denied").length, 200);
  assert.equal(messages.filter((type) => type === "ring").length, 1);
});

Deno.test("nicknames of strangers are not kept", () => {
  const a = new Node(A);
  a.allocate("c1");
  a.peers.add(B);
  const nicknames = Array.from({ length: 10_000 }, (_, i) => [0x0300_0000_0000 + i as PeerName, "x"] as const);
  const ring = decodeIpamState(a.state()).ring!;
  const state = encodeIpamState({ now: 0n, nicknames: [...nicknames, [B, "beta"]], paxos: undefined, ring });
  a.allocator.handleGossip(state, 0, B);
  assert.deepEqual(decodeIpamState(a.state()).nicknames, [[A, "alpha"], [B, "beta"]]);
  a.peers.delete(B);
  a.allocator.handlePeerGone(B, 0);
  assert.deepEqual(decodeIpamState(a.state()).nicknames, [[A, "alpha"]]);
});

Deno.test("a ring of a hundred thousand strange owners is merged and shown in reasonable time", () => {
  const a = new Node(A, { range: "10.0.0.0/8", init: { mode: "observer" } });
  const start = parseIpv4("10.0.0.0")!;
  const entries = Array.from({ length: 100_000 }, (_, i) => ({
    token: start + i * 160,
    peer: 0x0300_0000_0000 + i as PeerName,
    version: 1,
    free: 0,
  }));
  const nicknames = Array.from({ length: 16_000 }, (_, i) => [0x0300_0000_0000 + i as PeerName, "x"] as const);
  const ring = { start, end: start + 2 ** 24, peer: B, entries, seeds: [] };
  const state = encodeIpamState({ now: 0n, nicknames, paxos: undefined, ring });
  const begin = performance.now();
  a.allocator.handleGossip(state, 0, B);
  a.allocator.handleGossip(state, 0, B);
  assert.equal(a.allocator.status(0).entries.length, 100_000);
  assert.ok(performance.now() - begin < 5_000);
});

Deno.test("an address that was given without an id is known where it is found in a container", () => {
  const a = new Node(A);
  assert.equal(a.allocate("_"), "10.32.0.1/24");
  const found = { id: "c1", cidr: parseCidr("10.32.0.1/24")!, isContainer: true };
  const warnings: string[] = [];
  const log = { ...SILENT, warn: (event: string) => void warnings.push(event) };
  const again = new Node(A, { stored: a.stored, existing: [found], running: new Set(["c1"]), log });
  again.allocator.handleExisting([found], again.now);
  assert.deepEqual(warnings, []);
  assert.deepEqual(again.lookup("10.32.0.1"), ["10.32.0.1/24"]);
  assert.equal(again.allocate("_"), "10.32.0.2/24");
  again.allocator.handleExisting([{ ...found, id: "c2", cidr: parseCidr("10.32.0.2/24")! }], again.now);
  again.claim("c3", "10.32.0.3/24");
  again.allocator.handleExisting([{ ...found, id: "c2", cidr: parseCidr("10.32.0.3/24")! }], again.now);
  assert.equal(warnings.length, 1, "another one's is not");
});

// What the tests use -----------------------------------------------------------------------------------------------

interface NodeOptions {
  readonly init?: IpamInit;
  readonly range?: string;
  readonly targets?: number;
  readonly stored?: StoredIpam | undefined;
  readonly existing?: AllocatorOptions["existing"];
  readonly running?: ReadonlySet<string>;
  readonly log?: AllocatorOptions["log"];
  /** Whether what is to be written is, at once. */
  readonly writes?: boolean;
}

class Node {
  readonly allocator: Allocator;
  /** Who is in reach. */
  readonly peers = new Set<PeerName>();
  stored: StoredIpam | undefined;
  now = 0;
  readonly #range: string;
  readonly #writes: boolean;
  readonly #outputs: AllocatorOutput[] = [];
  readonly #answers = new Map<OperationId, OperationResult>();

  constructor(readonly name: PeerName, o: NodeOptions = {}) {
    this.#range = o.range ?? "10.32.0.0/24";
    this.#writes = o.writes ?? true;
    this.allocator = new Allocator({
      name,
      nickName: NAMES[name]!,
      uid: BigInt(name) + 7n,
      range: parseCidr(this.#range)!,
      init: o.init ?? ALONE,
      stored: o.stored,
      existing: o.existing ?? [],
      running: o.running,
      reclaim: { afterMs: undefined, elapsed: { ms: 0, exact: true } },
      peers: { inReach: (peer) => this.peers.has(peer), targetCount: () => o.targets ?? 0 },
      random: new SeededRandom(1),
      log: o.log ?? SILENT,
    }, 0);
    this.drain();
  }

  /** Does what outputs ask for, and keeps messages. */
  drain(): void {
    for (let output = this.allocator.poll(); output; output = this.allocator.poll()) {
      if (output.type === "answer") this.#answers.set(output.operation, output.result);
      if (output.type !== "persist" || !this.#writes) this.#outputs.push(output);
      if (output.type !== "persist" || !this.#writes) continue;
      const { revision, stored } = this.allocator.snapshot();
      this.stored = checkStored(JSON.parse(JSON.stringify(encodeStored(stored))));
      this.allocator.handlePersisted(revision, this.now);
    }
  }

  take(): AllocatorOutput[] {
    this.drain();
    return this.#outputs.splice(0);
  }

  advance(ms: number): void {
    const end = this.now + ms;
    for (let next = this.allocator.pollTimeout(); next && next.at <= end; next = this.allocator.pollTimeout()) {
      this.now = Math.max(this.now, next.at);
      this.allocator.handleTimeout(this.now);
      this.drain();
    }
    this.now = end;
  }

  tick(): void {
    this.advance(5_000);
  }

  state(): Uint8Array {
    return this.allocator.completeState(this.now).encode()[0] as Uint8Array;
  }

  operate(begin: (now: number) => OperationId): OperationId {
    const operation = begin(this.now);
    this.drain();
    return operation;
  }

  answer(operation: OperationId): OperationResult | undefined {
    this.drain();
    return this.#answers.get(operation);
  }

  refusal(operation: OperationId): string | undefined {
    const result = this.answer(operation);
    return result?.outcome === "refused" ? result.reason : undefined;
  }

  address(operation: OperationId): string | undefined {
    const result = this.answer(operation);
    return result?.outcome === "done" && result.cidr ? formatCidr(result.cidr) : undefined;
  }

  startAllocate(id: string, subnet = this.#range, isContainer = false): OperationId {
    return this.operate((now) => this.allocator.allocate({ id, subnet: parseCidr(subnet)!, isContainer }, now));
  }

  allocate(id: string, subnet?: string, isContainer?: boolean): string | undefined {
    return this.address(this.startAllocate(id, subnet, isContainer));
  }

  startClaim(id: string, cidr: string, o: { noErrorOnUnknown?: boolean; isContainer?: boolean } = {}): OperationId {
    const request = { id, cidr: parseCidr(cidr)!, isContainer: false, ...o };
    return this.operate((now) => this.allocator.claim(request, now));
  }

  claim(id: string, cidr: string, o?: { noErrorOnUnknown?: boolean; isContainer?: boolean }): string | undefined {
    return this.refusal(this.startClaim(id, cidr, o));
  }

  free(id: string, address: string): string | undefined {
    return this.refusal(this.operate((now) => this.allocator.free(id, parseIpv4(address)!, now)));
  }

  freeAll(id: string): string | undefined {
    return this.refusal(this.operate((now) => this.allocator.freeAll(id, now)));
  }

  lookup(id: string, subnet = this.#range): string[] {
    return this.allocator.lookup(id, rangeOf(parseCidr(subnet)!)).map(formatCidr);
  }

  ring(): [string, PeerName][] {
    const { entries } = this.allocator.snapshot().stored;
    return entries.map(({ token, peer }) => [formatCidr({ address: token, prefixLength: 0 }).slice(0, -2), peer]);
  }
}

/** @param wanted addresses by id */
function keep(node: Node, wanted: Readonly<Record<string, string>>): void {
  const claimants = Object.entries(wanted).map(([id, cidr]) => ({ id, cidr: parseCidr(cidr)!, isContainer: false }));
  node.allocator.keep(claimants, (id) => id.startsWith("service:"), node.now);
  node.take();
}

function two(): [Node, Node] {
  return [new Node(A, { init: OF_TWO }), new Node(B, { init: OF_TWO })];
}

/** Two that have a ring. */
function agreed(): [Node, Node] {
  const [a, b] = [A, B].map((name) => new Node(name, { init: { mode: "seed", peers: [A, B] } })) as [Node, Node];
  connect(a, b);
  exchange(a, b);
  return [a, b];
}

function connect(a: Node, b: Node): void {
  a.peers.add(b.name);
  b.peers.add(a.name);
  a.allocator.handleGossip(b.state(), a.now, b.name);
  b.allocator.handleGossip(a.state(), b.now, a.name);
}

function disconnect(a: Node, b: Node): void {
  a.peers.delete(b.name);
  b.peers.delete(a.name);
  a.take();
  b.take();
}

/** Delivers all that they have to say to each other, to and fro. */
function exchange(a: Node, b: Node): void {
  for (let round = 0; round < 100; round++) {
    const outputs = [[a, b], [b, a]].flatMap(([from, to]) =>
      from!.take().map((output) => ({ from: from!, to: to!, output }))
    );
    for (const { from, to, output } of outputs) {
      if (output.type === "unicast") {
        assert.equal(output.to, to.name);
        to.allocator.handleUnicast(from.name, output.payload, to.now);
      } else if (output.type === "broadcast") {
        to.allocator.handleBroadcast(from.name, output.data.encode()[0] as Uint8Array, to.now);
      }
    }
    if (outputs.every(({ output }) => output.type === "answer")) return;
  }
  assert.fail("they do not come to an end");
}

function throwsProtocolError(work: () => void, message: string): void {
  assert.throws(work, (error) => {
    assert.ok(error instanceof ProtocolError);
    assert.equal(error.message, message);
    return true;
  });
}
