import assert from "node:assert/strict";
import { ProtocolError } from "../lib/errors.ts";
import { type Cidr, formatIpv4, parseCidr } from "../lib/ip.ts";
import { type Logger, SILENT } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import type { Features, Message } from "../wire/control.ts";
import { encodeTopology, type PeerRecord } from "../wire/topology.ts";
import { connectionsTo, endpoint, readVector, record } from "../../test/sim/records.ts";
import { type ConnectionId, type GossipChannel, Mesh, type MeshOptions, type MeshOutput } from "./mesh.ts";
import { PassedOn } from "./surrogate.ts";

const OURS = ["probe", "digest"];
const US = 1;

Deno.test("Mesh keeps of two connections to one peer that with the smaller uid, as the vectors do", () => {
  interface Tie {
    readonly first: readonly [string, string];
    readonly second: readonly [string, string];
    readonly first_uid: string;
    readonly winner: string;
  }
  for (const { first, second, first_uid, winner } of readVector<{ tie_break: readonly Tie[] }>("mesh-misc").tie_break) {
    const bench = new Bench({ connectionIds: [BigInt(first[0]), BigInt(second[0])] });
    const one = bench.confirm(2, { connectionId: BigInt(first[1]) });
    assert.equal(one.confirmed.uid, BigInt(first_uid));
    const two = bench.introduce(2, { connectionId: BigInt(second[1]) });
    const closed = bench.take("close").map(({ id, reason }) => {
      assert.equal(
        reason,
        "Multiple connections to 00:00:00:00:00:02(peer2) added to 00:00:00:00:00:01(us)",
      );
      return id;
    });
    const stays = bench.live().map((row) => row.id);
    if (winner === "first") assert.deepEqual([closed, stays], [[two], [one.id]]);
    else if (winner === "second") assert.deepEqual([closed, stays], [[one.id], [two]]);
    else assert.deepEqual([closed, stays], [[one.id, two], []]);
    assert.deepEqual(bench.take("ended").map(({ id }) => id), closed.filter((id) => id === one.id));
  }
});

Deno.test("Mesh tells everything to a peer that has no other way to hear it, or that was started again", () => {
  const bench = new Bench();
  bench.mesh.register(channel({ name: "IPallocation", completeState: () => new PassedOn([octets(7)]) }));
  const two = bench.confirm(2);
  assert.deepEqual(
    bench.sentTo(two.id).map((message) => message.type === "gossip" && message.channel),
    ["topology", "IPallocation"],
  );
  bench.establish(two.id);
  // 3 is known, and led to over 2, which has its connection with us established too.
  const all = [
    record(2, { version: 9n, connections: connectionsTo([1, 3]) }),
    record(3, { uid: 33n, version: 9n, connections: connectionsTo([2]) }),
  ];
  bench.hear(two.id, { type: "gossip", channel: "topology", sender: 2 as PeerName, payload: all });
  const three = bench.confirm(3, { uid: 33n });
  assert.deepEqual(bench.sentTo(three.id), []);
  bench.mesh.handleClosed(three.id, "EOF", bench.now);
  bench.drain();
  const ours = bench.confirm(3, { uid: 33n, extensions: OURS });
  assert.deepEqual(bench.sentTo(ours.id).map((message) => message.type), ["digest"]);
  bench.mesh.handleClosed(ours.id, "EOF", bench.now);
  bench.drain();
  const restarted = bench.confirm(3, { uid: 34n });
  assert.equal(bench.sentTo(restarted.id).length, 2);
});

Deno.test("Mesh refuses whom it does not know at an address that it discovered", () => {
  const bench = new Bench({ discovery: true });
  const two = bench.confirm(2);
  const told = record(2, { version: 9n, connections: connectionsTo([3], { address: "10.9.9.9:6783" }) });
  bench.hear(two.id, { type: "gossip", channel: "topology", sender: 2 as PeerName, payload: [told] });
  bench.run(200);
  const [dial] = bench.take("dial");
  assert.deepEqual(dial?.endpoint, endpoint("10.9.9.9:6783"));
  bench.mesh.handleIntroduced(dial!.id, features(4), undefined, bench.now);
  bench.drain();
  const reason = "Found unknown remote name: 00:00:00:00:00:04 at 10.9.9.9:6783";
  assert.deepEqual(bench.take("close"), [{ type: "close", id: dial!.id, reason }]);
  assert.equal(bench.mesh.peer(4 as PeerName), undefined);
  const row = bench.mesh.connections().at(-1)!;
  assert.ok(row.state === "failed" && row.error === reason && row.retryAt! > bench.now);
});

Deno.test("Mesh takes carriers that both offer, in our order, and sleeve from a peer that says nothing of them", () => {
  const bench = new Bench({ overlays: ["fastdp", "sleeve"] });
  assert.deepEqual(bench.confirm(2, { overlays: ["sleeve", "fastdp", "new"] }).confirmed.overlays, [
    "fastdp",
    "sleeve",
  ]);
  const legacy = bench.confirm(3, { overlays: undefined }).confirmed;
  assert.deepEqual([legacy.overlays, legacy.legacyOverlay], [["sleeve"], true]);
  const id = bench.introduce(4, { overlays: ["awsvpc"] });
  assert.deepEqual(bench.take("close"), [{ type: "close", id, reason: "no overlays in common with peer" }]);
});

Deno.test("Mesh gives carriers the key unless both sides trust each other's address", () => {
  const key = new Uint8Array(32);
  for (const trusts of [false, true]) {
    for (const trusted of [false, true]) {
      const bench = new Bench({ trustedSubnets: trusts ? [parseCidr("10.0.0.0/8") as Cidr] : [] });
      const id = bench.accept();
      assert.equal(bench.mesh.featuresFor(id, 0).trusted, trusts);
      bench.mesh.handleIntroduced(id, features(2, { trusted }), key, bench.now);
      bench.drain();
      const [confirmed] = bench.take("confirmed");
      assert.equal(confirmed!.overlayKey, trusts && trusted ? undefined : key);
      assert.equal(bench.live()[0]!.encrypted, !(trusts && trusted));
    }
  }
});

Deno.test("Mesh closes the connection that a malformed message came on, with the error as the reason", () => {
  const messages: [Message, RegExp][] = [
    [{ type: "gossip", channel: "topology", sender: 2 as PeerName, payload: octets(1, 2, 3) }, /./],
    [{ type: "broadcast", channel: "topology", source: 2 as PeerName, payload: octets(255) }, /./],
    [unicast("topology", 2, US, octets()), /unexpected topology gossip unicast/],
    [unicast("fussy", 2, US, octets()), /^conflicting rings$/],
    [{ type: "gossip", channel: "fussy", sender: 2 as PeerName, payload: octets() }, /^conflicting rings$/],
    [{ type: "broadcast", channel: "fussy", source: 2 as PeerName, payload: octets() }, /^conflicting rings$/],
    [{ type: "gossip", channel: "fussy", sender: 2 as PeerName, payload: [] }, /topology on another channel/],
    [{ type: "overlayControl", overlay: 1, subTag: 1, payload: octets() }, /overlay/],
  ];
  for (const [message, reason] of messages) {
    const bench = new Bench();
    const fail = () => {
      throw new ProtocolError("conflicting rings");
    };
    bench.mesh.register(channel({ name: "fussy", handleGossip: fail, handleBroadcast: fail, handleUnicast: fail }));
    const { id } = bench.confirm(2);
    const other = bench.confirm(3);
    bench.hear(id, message);
    const [close] = bench.take("close");
    assert.equal(close?.id, id);
    assert.match(close!.reason, reason);
    assert.deepEqual(bench.take("ended").map((ended) => ended.id), [id]);
    assert.deepEqual(bench.live().map((row) => row.id), [other.id]);
  }
});

Deno.test("Mesh survives a channel that is broken, and says so", () => {
  const errors: string[] = [];
  const log: Logger = { ...SILENT, error: (event) => errors.push(event) };
  const bench = new Bench({ log });
  const fail = () => {
    throw new TypeError("undefined is not a function");
  };
  bench.mesh.register(channel({ name: "broken", handleGossip: fail, completeState: fail }));
  const { id } = bench.confirm(2);
  bench.hear(id, { type: "gossip", channel: "broken", sender: 2 as PeerName, payload: octets() });
  assert.deepEqual(bench.take("close").map((close) => close.reason), ["undefined is not a function"]);
  bench.run(31_000);
  assert.deepEqual([...new Set(errors)], ["gossip channel failed"]);
});

Deno.test("Mesh passes on gossip of a channel that it does not know, once, to all but the sender", () => {
  const bench = new Bench();
  const [two, three, four] = [bench.confirm(2), bench.confirm(3), bench.confirm(4)];
  bench.run(200);
  bench.clear();
  const gossip: Message = { type: "gossip", channel: "new", sender: 2 as PeerName, payload: octets(1, 2) };
  bench.hear(two.id, gossip);
  bench.hear(three.id, { ...gossip, sender: 3 as PeerName });
  for (const id of [three.id, four.id]) assert.deepEqual(bench.sentTo(id), [{ ...gossip, sender: US }]);
  assert.deepEqual(bench.sentTo(two.id), []);
});

Deno.test("Mesh passes on broadcasts along the tree of their source, and drops those of nobody", () => {
  const bench = new Bench();
  const heard: unknown[] = [];
  const handleBroadcast = (source: PeerName, payload: Uint8Array) => {
    heard.push([source, [...payload]]);
    return new PassedOn([octets(9)]);
  };
  bench.mesh.register(channel({ name: "known", handleBroadcast }));
  const [two, three] = [bench.confirm(2), bench.confirm(3)];
  const far = [
    record(2, { version: 9n, connections: connectionsTo([1]) }),
    record(3, { version: 9n, connections: connectionsTo([1, 5]) }),
    record(5, { connections: connectionsTo([3]) }),
  ];
  bench.hear(three.id, { type: "gossip", channel: "topology", sender: 3 as PeerName, payload: far });
  bench.run(200);
  bench.clear();
  const broadcast = (channel: string, source: number): Message => {
    return { type: "broadcast", channel, source: source as PeerName, payload: octets(1) };
  };
  bench.hear(three.id, broadcast("new", 5));
  bench.hear(three.id, broadcast("known", 5));
  bench.hear(three.id, broadcast("new", 77));
  assert.deepEqual(bench.sentTo(two.id), [
    broadcast("new", 5),
    { ...broadcast("known", 5), payload: octets(9) },
  ]);
  assert.deepEqual(bench.sentTo(three.id), []);
  assert.deepEqual(heard, [[5, [1]]]);
  bench.mesh.sendBroadcast("known", new PassedOn([octets(4)]), bench.now);
  bench.drain();
  const own = { ...broadcast("known", US), payload: octets(4) };
  assert.deepEqual([bench.sentTo(two.id), bench.sentTo(three.id)], [[own], [own]]);
});

Deno.test("Mesh passes on all records of a topology broadcast, news or not, as it knows them", () => {
  const bench = new Bench();
  const [two, three] = [bench.confirm(2), bench.confirm(3)];
  const connections = connectionsTo([1]);
  const known = [record(2, { version: 9n, connections }), record(3, { version: 9n, connections })];
  bench.hear(two.id, { type: "gossip", channel: "topology", sender: 2 as PeerName, payload: known });
  bench.run(200);
  bench.clear();
  const payload = encodeTopology([record(2, { version: 1n }), record(3, { version: 9n })]);
  bench.hear(two.id, { type: "broadcast", channel: "topology", source: 2 as PeerName, payload });
  bench.run(200);
  assert.deepEqual(bench.sentTo(three.id), [
    { type: "broadcast", channel: "topology", source: 2, payload: known },
  ]);
});

Deno.test("Mesh hands unicasts to their channel, and passes on those of others unchanged", () => {
  const bench = new Bench();
  const heard: unknown[] = [];
  const handleUnicast = (source: PeerName, payload: Uint8Array) => void heard.push([source, [...payload]]);
  bench.mesh.register(channel({ name: "known", handleUnicast }));
  const [two, three] = [bench.confirm(2), bench.confirm(3)];
  bench.run(200);
  bench.clear();
  bench.hear(two.id, unicast("known", 2, US, octets(5)));
  bench.hear(two.id, unicast("new", 2, US, octets(5)));
  assert.deepEqual(heard, [[2, [5]]]);
  const onward = { ...unicast("new", 2, 3, octets(6)), raw: octets(5, 5, 5) };
  bench.hear(two.id, onward);
  bench.hear(two.id, unicast("new", 2, 99, octets(6)));
  bench.hear(three.id, unicast("new", 2, 3, octets(6))); // not back to where it came from
  assert.deepEqual(bench.sentTo(three.id), [onward]);
  assert.deepEqual(bench.sentTo(two.id), []);
  assert.ok(bench.mesh.sendUnicast("known", 3 as PeerName, octets(1), bench.now));
  assert.ok(!bench.mesh.sendUnicast("known", 99 as PeerName, octets(1), bench.now));
  assert.ok(!bench.mesh.sendUnicast("known", US as PeerName, octets(1), bench.now));
});

Deno.test("Mesh collects changes of its connections for a second, then tells of them what is true by then", () => {
  const bench = new Bench();
  const two = bench.confirm(2);
  bench.clear();
  bench.establish(two.id);
  bench.run(999);
  assert.deepEqual(bench.sentTo(two.id), []);
  bench.run(1);
  const [update] = bench.sentTo(two.id);
  assert.ok(update?.type === "gossip");
  const records = update.payload as readonly PeerRecord[];
  assert.deepEqual(records.map((record) => [record.name, record.version]), [[2, 0n], [1, 2n]]);
  assert.ok(records[1]!.connections[0]!.established);
});

Deno.test("Mesh tells of changes after 100 ms where all neighbours are like us, and after a second where one is not", () => {
  for (const [others, expected] of [[["digest"], 1], [[], 0]] as const) {
    const bench = new Bench({ extensions: ["probe", "digest"] });
    const { id } = bench.confirm(2, { extensions: ["digest"] });
    if (others.length === 0) bench.confirm(3);
    bench.run(1_500);
    bench.clear();
    bench.establish(id);
    bench.run(150);
    const gossip = bench.sentTo(id).filter((message) => message.type === "gossip");
    assert.equal(gossip.length, expected);
  }
});

Deno.test("Mesh relays topology news within 100 ms, merged, and computes routes once for all of it", () => {
  const bench = new Bench();
  const [two, three] = [bench.confirm(2), bench.confirm(3)];
  bench.run(2_000);
  bench.clear();
  for (let version = 1n; version <= 5n; version++) {
    const payload = [record(2, { version: 10n + version, connections: connectionsTo([4]) }), record(4, { version })];
    bench.hear(two.id, { type: "gossip", channel: "topology", sender: 2 as PeerName, payload });
    bench.run(15);
  }
  assert.deepEqual(bench.sentTo(three.id), []);
  bench.run(25);
  const [news, ...rest] = bench.sentTo(three.id);
  assert.ok(news?.type === "gossip" && rest.length === 0);
  assert.deepEqual((news.payload as PeerRecord[]).map(({ name, version }) => [name, version]), [[2, 15n], [4, 5n]]);
  assert.equal(bench.take("routesChanged").length, 1);
  assert.deepEqual(bench.sentTo(two.id), []);
});

Deno.test("Mesh merges what waits for a socket that takes nothing, and gives the peer up when it is too much", () => {
  const bench = new Bench();
  const [two, three] = [bench.confirm(2), bench.confirm(3)];
  bench.run(2_000);
  bench.mesh.handleWritable(three.id, false, bench.now);
  bench.clear();
  for (let version = 1n; version <= 5n; version++) {
    const payload = [record(2, { version: 10n + version })];
    bench.hear(two.id, { type: "gossip", channel: "topology", sender: 2 as PeerName, payload });
    bench.run(200);
  }
  assert.deepEqual(bench.sentTo(three.id), []);
  bench.mesh.handleWritable(three.id, true, bench.now);
  bench.drain();
  const sent = bench.sentTo(three.id);
  assert.equal(sent.length, 1);
  assert.ok(sent[0]!.type === "gossip" && (sent[0]!.payload as PeerRecord[])[0]!.version === 15n);

  bench.mesh.handleWritable(three.id, false, bench.now);
  for (let i = 0; i < 12; i++) {
    assert.deepEqual(bench.take("close"), [], `${i} MiB may wait`);
    const payload = new Uint8Array(1 << 20).fill(i);
    bench.hear(two.id, { type: "gossip", channel: "new", sender: 2 as PeerName, payload });
  }
  assert.deepEqual(bench.take("close").map((close) => close.id), [three.id]);
});

Deno.test("Mesh gives up a peer for which too many unicasts wait", () => {
  const bench = new Bench();
  const { id } = bench.confirm(2);
  bench.run(200);
  bench.mesh.handleWritable(id, false, bench.now);
  let sent = 0;
  while (bench.live().length > 0 && sent < 100) {
    bench.mesh.sendUnicast("known", 2 as PeerName, new Uint8Array(1 << 20), bench.now);
    bench.drain();
    sent++;
  }
  assert.equal(sent, 12);
  assert.match(bench.take("close")[0]!.reason, /cannot keep up/);
});

Deno.test("Mesh accepts 20 sockets at once, then one each 50 ms", () => {
  const bench = new Bench();
  const accept = () => bench.mesh.handleAccepted(endpoint("10.0.0.9:1000"), bench.now);
  const accepted = Array.from({ length: 25 }, accept).filter((id) => id !== undefined);
  assert.equal(accepted.length, 20);
  assert.equal(bench.mesh.acceptableAt(bench.now), 50);
  bench.now = 49;
  assert.equal(accept(), undefined);
  bench.now = 50;
  assert.notEqual(accept(), undefined);
  assert.equal(accept(), undefined);
  bench.now = 10_000;
  assert.equal(bench.mesh.acceptableAt(bench.now), bench.now);
  assert.equal(Array.from({ length: 25 }, accept).filter((id) => id !== undefined).length, 20);
});

Deno.test("Mesh drops the oldest of those that open sockets and say nothing", () => {
  const bench = new Bench();
  const ids: ConnectionId[] = [];
  while (ids.length < 257) {
    bench.now += 50;
    ids.push(bench.mesh.handleAccepted(endpoint("10.0.0.9:1000"), bench.now)!);
  }
  bench.drain();
  assert.deepEqual(bench.take("close").map((close) => close.id), [ids[0]]);
});

Deno.test("Mesh ends a connection 2 s after the last answer, and not because it was not run itself", () => {
  const bench = new Bench();
  const two = bench.confirm(2, { extensions: OURS });
  for (let i = 0; i < 10; i++) {
    bench.run(500);
    const probes = bench.sentTo(two.id).filter((message) => message.type === "probe");
    assert.equal(probes.length, i === 0 ? 2 : 1);
    bench.hear(two.id, { type: "probeAnswer", number: 1 });
  }
  // The shell did not call for ten seconds.
  bench.now += 10_000;
  bench.mesh.handleTimeout(bench.now);
  bench.drain();
  assert.deepEqual(bench.take("close"), []);
  bench.run(2_100);
  assert.deepEqual(bench.take("close"), [{ type: "close", id: two.id, reason: "no answer to probes for 2 s" }]);

  const three = bench.confirm(3, { extensions: OURS });
  bench.hear(three.id, { type: "probe", number: 77 });
  assert.deepEqual(bench.sentTo(three.id).at(-1), { type: "probeAnswer", number: 77 });
  for (let i = 0; i < 5; i++) {
    bench.run(1_900);
    bench.mesh.handleAlive(three.id, bench.now); // a long message is under way
  }
  assert.equal(bench.live().length, 1);
});

Deno.test("Mesh tells what it knows every 30 s to an old neighbour, and a digest every 5 s to one like us", () => {
  const bench = new Bench();
  const old = bench.confirm(2);
  const ours = bench.confirm(3, { extensions: ["digest"] });
  bench.mesh.register(channel({ name: "IPallocation", completeState: () => new PassedOn([octets(7)]) }));
  bench.run(4_000);
  bench.clear();
  const sent = { old: [] as string[], ours: [] as string[] };
  const note = (name: "old" | "ours", id: ConnectionId) => {
    for (const message of bench.sentTo(id)) {
      sent[name].push(`${bench.now} ${message.type}${message.type === "gossip" ? ` ${message.channel}` : ""}`);
    }
  };
  while (bench.now < 31_000) {
    bench.run(1_000 - bench.now % 1_000);
    bench.hear(old.id, { type: "heartbeat" });
    note("old", old.id);
    note("ours", ours.id);
  }
  const rest = (messages: readonly string[]) => messages.filter((message) => !message.endsWith("heartbeat")).sort();
  assert.deepEqual(rest(sent.old), ["30000 gossip IPallocation", "30000 gossip topology"]);
  const digests = [5, 10, 15, 20, 25, 30].map((at) => `${at}000 digest`);
  assert.deepEqual(rest(sent.ours), [...digests, "30000 gossip IPallocation"].sort());
});

Deno.test("Mesh answers a digest that differs with a summary, once a second, and asks for what it lacks", () => {
  const bench = new Bench();
  const { id } = bench.confirm(2, { extensions: OURS });
  bench.clear();
  for (let i = 0; i < 3; i++) bench.hear(id, { type: "digest", digest: 1n });
  const [summary, ...more] = bench.sentTo(id);
  assert.ok(summary?.type === "summary" && more.length === 0);
  assert.deepEqual(summary.entries.map((entry) => entry.name), [1, 2]);
  bench.run(1_000);
  bench.clear();
  bench.hear(id, { type: "digest", digest: 1n });
  assert.equal(bench.sentTo(id).length, 1);

  const entries = [
    { name: 2 as PeerName, uid: record(2).uid, version: 0n },
    { name: 3 as PeerName, uid: 5n, version: 5n },
  ];
  bench.hear(id, { type: "summary", entries });
  const [gossip, want] = bench.sentTo(id);
  assert.ok(gossip?.type === "gossip");
  assert.deepEqual((gossip.payload as PeerRecord[]).map((record) => record.name), [1]);
  assert.deepEqual(want, { type: "want", names: [3] });
  bench.hear(id, { type: "want", names: [2 as PeerName, 99 as PeerName] });
  const [answer] = bench.sentTo(id);
  assert.ok(answer?.type === "gossip" && answer.payload.length === 1);

  const version = bench.mesh.peer(US as PeerName)!.version;
  bench.hear(id, { type: "summary", entries: [{ name: US as PeerName, uid: 999n, version: version + 7n }] });
  assert.equal(bench.mesh.peer(US as PeerName)!.version, version + 8n, "an earlier life of ours is outdone");
});

Deno.test("Mesh takes extensions only from those that it agreed on them with", () => {
  const bench = new Bench();
  const { id } = bench.confirm(2);
  bench.clear();
  bench.hear(id, { type: "digest", digest: 1n });
  bench.hear(id, { type: "want", names: [1 as PeerName] });
  bench.hear(id, { type: "summary", entries: [] });
  assert.deepEqual(bench.sentTo(id), []);
  const ours = bench.confirm(3, { extensions: OURS });
  const names = Array.from({ length: 5000 }, (_, i) => i + 1 as PeerName);
  bench.hear(ours.id, { type: "want", names });
  assert.match(bench.take("close")[0]!.reason, /too many/);
});

Deno.test("Mesh lists connections and targets with their states", () => {
  const bench = new Bench();
  const target = (text: string) => ({ text, endpoint: endpoint(text), hasPort: true });
  bench.mesh.connect([target("10.0.0.7:6783"), target("10.0.0.8:6783")], { replace: false }, bench.now);
  bench.drain();
  const [seven, eight] = bench.take("dial");
  assert.equal(bench.take("targetsChanged").length, 1);
  bench.mesh.handleIntroduced(seven!.id, features(7), undefined, bench.now);
  bench.mesh.handleDialFailed(eight!.id, "connection refused", bench.now);
  bench.establish(seven!.id);
  const [live, failed] = bench.mesh.connections();
  assert.deepEqual(live, {
    state: "established",
    id: seven!.id,
    address: endpoint("10.0.0.7:6783"),
    outbound: true,
    peer: 7,
    nickName: "peer7",
    encrypted: false,
    extensions: [],
  });
  assert.ok(failed?.state === "failed" && failed.error === "connection refused");
  assert.equal(bench.mesh.terminationCount, 0, "it was no connection yet");
  bench.run(failed.retryAt! - bench.now);
  assert.equal(bench.mesh.connections()[1]!.state, "retrying");
  bench.mesh.handleClosed(seven!.id, "EOF", bench.now);
  assert.equal(bench.mesh.terminationCount, 1);
  assert.deepEqual(bench.mesh.targets(), ["10.0.0.7:6783", "10.0.0.8:6783"]);
  bench.mesh.forget(["10.0.0.7:6783"], bench.now);
  assert.deepEqual(bench.mesh.targets(), ["10.0.0.8:6783"]);
});

Deno.test("Mesh remembers who was turned away, but nobody who hung up, lost a tie, or is let in now", () => {
  const bench = new Bench();
  const away = () => bench.mesh.turnedAway(bench.now).map(({ reason }) => reason);
  bench.mesh.handleClosed(bench.accept(), "EOF", bench.now);
  assert.deepEqual(away(), []);
  bench.mesh.handleSessionFailed(bench.accept(), "Unable to decrypt TCP msg", bench.now);
  assert.deepEqual(away(), ["Unable to decrypt TCP msg"]);
  bench.introduce(2, { overlays: ["fastdp"] });
  assert.deepEqual(away(), ["no overlays in common with peer"]);
  bench.confirm(2);
  assert.deepEqual(away(), []);
  for (let i = 0; i < 5; i++) bench.introduce(2, { connectionId: BigInt(i) });
  assert.deepEqual(away(), []);
});

Deno.test("Mesh remembers which of two peers of one name lost, but not who started anew", () => {
  const bench = new Bench({ connectionIds: [0n, 0n, 0n, 0n] });
  const arrive = (from: string, uid: bigint, connectionId: bigint) => {
    bench.now += 50;
    const id = bench.mesh.handleAccepted(endpoint(`${from}:41000`), bench.now)!;
    bench.mesh.handleIntroduced(id, features(2, { uid, connectionId }), undefined, bench.now);
    bench.drain();
    return bench.mesh.turnedAway(bench.now).map(({ address, reason }) => `${formatIpv4(address)} ${reason}`);
  };
  const why = "another peer is called 00:00:00:00:00:02(peer2) as well";
  assert.deepEqual(arrive("10.0.0.2", 11n, 5n), []);
  assert.deepEqual(arrive("10.0.0.3", 22n, 9n), [`10.0.0.3 ${why}`]);
  assert.deepEqual(arrive("10.0.0.3", 22n, 3n), [`10.0.0.2 ${why}`]);
  assert.deepEqual(arrive("10.0.0.3", 33n, 1n), [`10.0.0.2 ${why}`]);
});

Deno.test("Mesh finds peers by nickname or name, and knows routes as values", () => {
  const bench = new Bench();
  const two = bench.confirm(2);
  bench.establish(two.id);
  const payload = [record(2, { version: 5n, connections: connectionsTo([1, 3]) }), record(3, { nickName: "peer2" })];
  bench.hear(two.id, { type: "gossip", channel: "topology", sender: 2 as PeerName, payload });
  assert.deepEqual(bench.mesh.findPeers("peer2"), [2, 3]);
  assert.deepEqual(bench.mesh.findPeers("00:00:00:00:00:03"), [3]);
  assert.deepEqual(bench.mesh.findPeers("nobody"), []);
  assert.deepEqual(bench.mesh.unicastRoutes(), [{ destination: 1, via: 0 }, { destination: 2, via: 2 }]);
  assert.deepEqual(bench.mesh.broadcastRoutes(), [
    { source: 1, via: [2] },
    { source: 2, via: [] },
    { source: 3, via: [] },
  ]);
  bench.mesh.handleClosed(two.id, "EOF", bench.now);
  bench.drain();
  assert.deepEqual(bench.take("peerGone").map((gone) => gone.name).sort(), [2, 3]);
});

Deno.test("Mesh ignores what is said of connections that have ended, and knows nothing of their features", () => {
  const bench = new Bench();
  const { id } = bench.confirm(2);
  bench.mesh.handleClosed(id, "EOF", bench.now);
  bench.clear();
  bench.hear(id, { type: "probe", number: 1 });
  bench.mesh.handleIntroduced(id, features(2), undefined, bench.now);
  bench.mesh.handleCarrierEstablished(id, bench.now);
  bench.mesh.handleCarrierFailed(id, "no working forwarders", bench.now);
  bench.mesh.handleWritable(id, true, bench.now);
  bench.mesh.handleClosed(id, "EOF", bench.now);
  bench.mesh.sendOverlayControl(id, 0, 1, octets());
  bench.drain();
  assert.deepEqual(bench.outputs, []);
  assert.throws(() => bench.mesh.featuresFor(id, bench.now), RangeError);
  assert.throws(() => bench.mesh.register(channel({ name: "topology" })), RangeError);
});

Deno.test("Mesh closes a connection whose carriers failed, and tries its target again", () => {
  const bench = new Bench();
  const two = endpoint("10.0.0.2:6783");
  bench.mesh.connect([{ text: "two", endpoint: two, hasPort: false }], { replace: false }, bench.now);
  bench.drain();
  const [dial] = bench.take("dial");
  bench.mesh.handleIntroduced(dial!.id, features(2), undefined, bench.now);
  const reason = "no working forwarders to 00:00:00:00:00:02(peer2)";
  bench.mesh.handleCarrierFailed(dial!.id, reason, bench.now);
  bench.drain();
  assert.deepEqual(bench.take("close"), [{ type: "close", id: dial!.id, reason }]);
  bench.run(3_000);
  assert.deepEqual(bench.take("dial").map((again) => again.endpoint), [two]);
});

/** A mesh, and everything it wants done, collected. */
class Bench {
  readonly mesh: Mesh;
  now = 0;
  outputs: MeshOutput[] = [];

  constructor(rest: Partial<MeshOptions> = {}) {
    this.mesh = new Mesh({
      name: US as PeerName,
      nickName: "us",
      uid: 1n,
      shortId: 1,
      port: 6783,
      overlays: ["sleeve"],
      extensions: OURS,
      discovery: false,
      connectionLimit: 0,
      trustedSubnets: [],
      random: new SeededRandom(1),
      log: SILENT,
      ...rest,
    }, 0);
  }

  accept(): ConnectionId {
    this.now += 50;
    const id = this.mesh.handleAccepted(endpoint("10.0.0.9:41000"), this.now);
    assert.ok(id !== undefined);
    return id;
  }

  introduce(name: number, rest: Partial<Features> = {}): ConnectionId {
    const id = this.accept();
    this.mesh.handleIntroduced(id, features(name, rest), undefined, this.now);
    this.drain();
    return id;
  }

  confirm(name: number, rest: Partial<Features> = {}) {
    const id = this.introduce(name, rest);
    const [confirmed] = this.take("confirmed");
    assert.equal(confirmed?.id, id);
    return { id, confirmed };
  }

  establish(id: ConnectionId): void {
    this.mesh.handleCarrierEstablished(id, this.now);
    this.drain();
  }

  hear(id: ConnectionId, message: Message): void {
    this.mesh.handleMessage(id, message, this.now);
    this.drain();
  }

  /** Lets time pass, with all that becomes due in it. */
  run(ms: number): void {
    const end = this.now + ms;
    for (let due = this.mesh.pollTimeout(); due && due.at <= end; due = this.mesh.pollTimeout()) {
      this.now = Math.max(this.now, due.at);
      this.mesh.handleTimeout(this.now);
      this.drain();
    }
    this.now = end;
  }

  drain(): void {
    for (let output = this.mesh.poll(); output; output = this.mesh.poll()) this.outputs.push(output);
    this.mesh.pollTimeout(); // as a shell does, every time
  }

  clear(): void {
    this.drain();
    this.outputs = [];
  }

  /** Takes the outputs of one kind away. */
  take<Type extends MeshOutput["type"]>(type: Type): Extract<MeshOutput, { type: Type }>[] {
    const isIt = (output: MeshOutput): output is Extract<MeshOutput, { type: Type }> => output.type === type;
    const taken = this.outputs.filter(isIt);
    this.outputs = this.outputs.filter((output) => !isIt(output));
    return taken;
  }

  /** Takes away what was sent on one connection. */
  sentTo(id: ConnectionId): Message[] {
    const sent = this.outputs.filter((output) => output.type === "send" && output.id === id);
    this.outputs = this.outputs.filter((output) => !sent.includes(output));
    return sent.map((output) => (output as Extract<MeshOutput, { type: "send" }>).message);
  }

  live() {
    return this.mesh.connections().flatMap((row) => "peer" in row ? [row] : []);
  }
}

function features(name: number, rest: Partial<Features> = {}): Features {
  return {
    name: name as PeerName,
    nickName: `peer${name}`,
    uid: record(name).uid,
    connectionId: BigInt(name),
    shortId: undefined,
    trusted: false,
    overlays: ["sleeve"],
    extensions: [],
    ...rest,
  };
}

function channel(rest: Partial<GossipChannel> & { name: string }): GossipChannel {
  return {
    handleGossip: () => undefined,
    handleBroadcast: () => undefined,
    handleUnicast: () => {},
    completeState: () => undefined,
    ...rest,
  };
}

function unicast(
  channel: string,
  source: number,
  destination: number,
  payload: Uint8Array,
): Extract<Message, { type: "unicast" }> {
  return { type: "unicast", channel, source: source as PeerName, destination: destination as PeerName, payload };
}

function octets(...values: number[]): Uint8Array {
  return Uint8Array.from(values);
}
