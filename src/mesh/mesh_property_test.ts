/** Whatever peers say and the network does, a mesh does not throw, keeps its promises to the shell, and stays within its bounds. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { ProtocolError } from "../lib/errors.ts";
import { type Logger, SILENT } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import { type Random, SeededRandom } from "../lib/random.ts";
import type { Features, Message } from "../wire/control.ts";
import { encodeTopology, type PeerRecord } from "../wire/topology.ts";
import { endpoint } from "../../test/sim/records.ts";
import { type ConnectionId, Mesh, type MeshOutput } from "./mesh.ts";
import { PassedOn } from "./surrogate.ts";

const US = 1 as PeerName;
const CHANNELS = ["topology", "known", "new", "other"];
const EXTENSIONS = ["probe", "digest"];
const LIMIT = 5;

Deno.test("Mesh does not throw, and keeps its promises, whatever it is told", () => {
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      const chaos = new Chaos(seed);
      for (let i = 0; i < 300; i++) chaos.step();
    }),
    { numRuns: 150 },
  );
});

Deno.test("Mesh knows no more peers than it has room for, and says how little it took", () => {
  const chaos = new Chaos(1);
  const id = chaos.confirm(2);
  for (let from = 10; from < 20_000; from += 1000) {
    const payload = Array.from({ length: 1000 }, (_, i) => recordOf(from + i, 1, [from + i + 1, from + i + 30_000]));
    chaos.hear(id, { type: "gossip", channel: "topology", sender: 2 as PeerName, payload });
  }
  assert.ok(chaos.mesh.peerCount <= 4096);
  assert.ok(chaos.warnings.includes("records of peers found no room"));
});

/** A mesh, a shell that does as it is told, and everything else as it comes. */
class Chaos {
  readonly mesh: Mesh;
  readonly warnings: string[] = [];
  readonly #random: Random;
  readonly #errors: string[] = [];
  /** Attempts and sockets that the mesh has not heard the end of. */
  readonly #open = new Set<ConnectionId>();
  readonly #confirmed = new Map<ConnectionId, PeerName>();
  #now = 0;

  constructor(seed: number) {
    const random = this.#random = new SeededRandom(seed);
    const log: Logger = {
      ...SILENT,
      warn: (event) => this.warnings.push(event),
      error: (event) => this.#errors.push(event),
    };
    this.mesh = new Mesh({
      name: US,
      nickName: "us",
      uid: 7n,
      shortId: random.below(8),
      port: 6783,
      overlays: ["sleeve"],
      extensions: EXTENSIONS,
      discovery: random.below(2) === 0,
      connectionLimit: LIMIT,
      trustedSubnets: [],
      random: new SeededRandom(seed + 1),
      log,
    }, 0);
    this.mesh.register({
      name: "known",
      handleGossip: (payload) => this.#react(payload),
      handleBroadcast: (_, payload) => this.#react(payload),
      handleUnicast: (_, payload) => void this.#react(payload),
      completeState: () => new PassedOn([Uint8Array.of(1)]),
    });
  }

  step(): void {
    const random = this.#random;
    if (random.below(3) === 0) this.#now += random.below(random.below(10) === 0 ? 70_000 : 700);
    const ids = [...this.#open];
    const id = ids[random.below(ids.length)] ?? 99 as ConnectionId;
    switch (random.below(14)) {
      case 0:
        this.#accept();
        break;
      case 1:
      case 2:
        this.mesh.handleIntroduced(id, this.#features(), undefined, this.#now);
        break;
      case 3:
        if (random.below(3) > 0) break;
        this.#open.delete(id);
        this.mesh.handleClosed(id, "EOF", this.#now);
        break;
      case 4:
        this.mesh.handleCarrierEstablished(id, this.#now);
        break;
      case 5:
        if (random.below(4) === 0) this.mesh.handleCarrierFailed(id, "no working forwarders", this.#now);
        break;
      case 6:
        this.mesh.handleWritable(id, random.below(2) === 0, this.#now);
        break;
      case 7:
        this.#operate();
        break;
      default:
        this.mesh.handleMessage(id, this.#message(), this.#now);
    }
    this.#settle();
  }

  confirm(name: number): ConnectionId {
    const id = this.#accept()!;
    this.mesh.handleIntroduced(id, { ...this.#features(), name: name as PeerName }, undefined, this.#now);
    this.#settle();
    assert.ok(this.#confirmed.has(id));
    return id;
  }

  hear(id: ConnectionId, message: Message): void {
    this.mesh.handleMessage(id, message, this.#now);
    this.#settle();
  }

  #accept(): ConnectionId | undefined {
    const id = this.mesh.handleAccepted(endpoint(`10.0.0.${1 + this.#random.below(9)}:41000`), this.#now);
    if (id !== undefined) this.#open.add(id);
    return id;
  }

  #operate(): void {
    const random = this.#random;
    const text = `10.0.0.${1 + random.below(9)}:6783`;
    const target = { text, endpoint: endpoint(text), hasPort: random.below(2) === 0 };
    if (random.below(3) === 0) this.mesh.forget([text], this.#now);
    else this.mesh.connect([target], { replace: random.below(4) === 0 }, this.#now);
    this.mesh.sendBroadcast("known", new PassedOn([Uint8Array.of(2)]), this.#now);
    this.mesh.sendUnicast("known", this.#name(), Uint8Array.of(3), this.#now);
  }

  /** Carries out what the mesh wants, checking that it makes sense, and lets it have its time. */
  #settle(): void {
    this.#drain();
    const due = this.mesh.pollTimeout();
    if (due && due.at <= this.#now) this.mesh.handleTimeout(this.#now);
    this.#drain();
    const again = this.mesh.pollTimeout();
    assert.ok(!again || again.at > this.#now, `nothing is due twice: ${again?.why}`);
    this.#check();
  }

  #drain(): void {
    for (let output = this.mesh.poll(); output; output = this.mesh.poll()) this.#handleOutput(output);
  }

  #handleOutput(output: MeshOutput): void {
    switch (output.type) {
      case "dial":
        this.#open.add(output.id);
        break;
      case "send":
      case "overlayControl":
        assert.ok(this.#confirmed.has(output.id));
        break;
      case "close":
        assert.ok(this.#open.delete(output.id), "each connection ends once");
        assert.ok(output.reason !== "");
        break;
      case "confirmed":
        assert.ok(this.#open.has(output.id));
        assert.ok(![...this.#confirmed.values()].includes(output.peer));
        this.#confirmed.set(output.id, output.peer);
        assert.ok(this.#confirmed.size <= LIMIT);
        break;
      case "ended":
        assert.equal(this.#confirmed.get(output.id), output.peer);
        this.#confirmed.delete(output.id);
        break;
    }
  }

  #check(): void {
    assert.deepEqual(this.#errors, []);
    const live = this.mesh.connections().flatMap((row) => "peer" in row ? [row.id] : []);
    assert.deepEqual(new Set(live), new Set(this.#confirmed.keys()));
    const ours = this.mesh.peer(US)!;
    assert.equal(ours.uid, 7n);
    assert.deepEqual(
      ours.connections.map((connection) => connection.peer).sort((a, b) => a - b),
      [...this.#confirmed.values()].sort((a, b) => a - b),
    );
    for (const hop of this.mesh.routes.unicast().values()) {
      assert.ok(hop === 0 || ours.connections.some((connection) => connection.peer === hop && connection.established));
    }
  }

  /** What a channel makes of a payload: news, nothing, or a reason to close. */
  #react(payload: Uint8Array): PassedOn | undefined {
    if (payload.length > 5) throw new ProtocolError("conflicting rings");
    return payload.length > 2 ? new PassedOn([payload]) : undefined;
  }

  #name(): PeerName {
    return 1 + this.#random.below(8) as PeerName;
  }

  #features(): Features {
    const random = this.#random;
    return {
      name: random.below(20) === 0 ? 0 as PeerName : this.#name(),
      nickName: "n".repeat(random.below(3)),
      uid: BigInt(random.below(3)) + 6n,
      connectionId: BigInt(random.below(4)),
      shortId: random.below(2) === 0 ? undefined : random.below(8),
      trusted: random.below(2) === 0,
      overlays: [undefined, ["sleeve"], [], ["awsvpc"]][Math.max(0, random.below(10) - 6)],
      extensions: EXTENSIONS.filter(() => random.below(2) === 0),
    };
  }

  #message(): Message {
    const random = this.#random;
    const channel = CHANNELS[random.below(CHANNELS.length)]!;
    const payload = channel === "topology" ? this.#topology() : this.#octets();
    switch (random.below(12)) {
      case 0:
        return { type: "unicast", channel, source: this.#name(), destination: this.#name(), payload: this.#octets() };
      case 1:
      case 2:
        return { type: "broadcast", channel, source: this.#name(), payload };
      case 3:
        return { type: "overlayControl", overlay: random.below(20) === 0 ? 1 : 0, subTag: 1, payload: this.#octets() };
      case 4:
        return { type: "probe", number: random.u32() };
      case 5:
        return { type: "digest", digest: random.u64() };
      case 6:
        return { type: "summary", entries: this.#records().map(({ name, uid, version }) => ({ name, uid, version })) };
      case 7:
        return { type: "want", names: [this.#name(), this.#name()] };
      case 8:
        return { type: random.below(2) === 0 ? "heartbeat" : "unknown", tag: 99 };
      default:
        return { type: "gossip", channel, sender: this.#name(), payload };
    }
  }

  #topology(): Uint8Array | readonly PeerRecord[] {
    if (this.#random.below(20) === 0) return this.#octets();
    const records = this.#records();
    return this.#random.below(2) === 0 ? records : encodeTopology(records);
  }

  #records(): PeerRecord[] {
    const random = this.#random;
    return Array.from({ length: random.below(5) }, () => {
      const others = new Set(Array.from({ length: random.below(4) }, () => this.#name()));
      return recordOf(this.#name(), random.below(6), [...others], random);
    });
  }

  #octets(): Uint8Array {
    return Uint8Array.from({ length: this.#random.below(7) }, () => this.#random.u32());
  }
}

function recordOf(name: number, version: number, others: readonly number[], random?: Random): PeerRecord {
  const few = (limit: number) => random?.below(limit) ?? 0;
  return {
    name: name as PeerName,
    nickName: "r",
    uid: BigInt(few(3)) + 6n,
    version: few(30) === 29 ? (1n << 64n) - 1n : BigInt(version),
    shortId: few(2) === 0 ? undefined : few(8),
    connections: others.map((peer) => ({
      peer: peer as PeerName,
      address: few(4) === 0 ? "nonsense" : `10.0.0.${peer % 256}:6783`,
      outbound: few(2) === 0,
      established: few(2) === 0,
    })),
  };
}
