/**
 * Sessions recorded between routers of Weave Net 2.8: everything that was said to one of them is said to a mesh that has its ids, at the
 * same times. What the mesh knows is compared with what that router told of its topology; and so is what it relays.
 */
import assert from "node:assert/strict";
import { formatEndpoint } from "../lib/ip.ts";
import { SILENT } from "../lib/log.ts";
import { SeededRandom } from "../lib/random.ts";
import { decodeMessage, encodeMessage, type Features, type Message, topologyOf } from "../wire/control.ts";
import type { PeerRecord } from "../wire/topology.ts";
import { endpoint, peerName, readVector, sorted } from "../../test/sim/records.ts";
import { type ConnectionId, Mesh, type MeshOutput } from "./mesh.ts";

interface Recording {
  readonly setting: {
    readonly routers: Readonly<Record<string, { readonly ip: string | readonly string[] }>>;
    readonly connection_uids?: Readonly<Record<string, string>>;
  };
  readonly transcript: readonly {
    readonly t: number;
    readonly kind: string;
    readonly dir?: string;
    readonly conn?: number;
    readonly flags?: string;
    /** Of an event: what was done to the routers. */
    readonly what?: string;
    /** With its length in front. */
    readonly frame?: string;
    /** The message, where the frame is sealed. */
    readonly plaintext?: string;
    readonly decoded?: {
      readonly kind?: string;
      readonly channel?: string;
      readonly features?: Readonly<Record<string, string>>;
      readonly topology?: readonly { readonly connections: readonly { readonly remoteTCPAddr: string }[] }[];
    };
  }[];
}

const SESSIONS: readonly (readonly [recording: string, routers: readonly string[]])[] = [
  ["plain", ["1", "2"]],
  ["encrypted", ["1", "2"]],
  ["nofrag", ["1", "2"]],
  ["relay", ["1", "2", "3"]],
  ["dup", ["1", "2"]],
];

for (const [recording, routers] of SESSIONS) {
  for (const router of routers) {
    Deno.test(`Mesh knows in the end what router ${router} of the recorded session "${recording}" knew`, () => {
      const replay = new Replay(readVector<Recording>(`recorded-tcp-${recording}`), router);
      replay.run();
      assert.ok(replay.compared > 5, "there was something to compare");
      assert.deepEqual(replay.resetByUs.sort(), replay.reset.sort());
    });
  }
}

Deno.test("Mesh relays unicasts of others octet for octet, as router 2 of the recorded session did", () => {
  const replay = new Replay(readVector<Recording>("recorded-tcp-relay"), "2");
  replay.run();
  const unicasts = (messages: readonly Spoken[]) =>
    messages.filter(({ message }) => message.type === "unicast").map(({ connection, octets }) =>
      `${connection} ${octets}`
    );
  assert.equal(unicasts(replay.saidByRouter).length, 2);
  assert.deepEqual(unicasts(replay.saidByUs), unicasts(replay.saidByRouter));
});

interface Spoken {
  readonly connection: number;
  readonly message: Message;
  readonly octets: string;
}

class Replay {
  readonly saidByUs: Spoken[] = [];
  readonly saidByRouter: Spoken[] = [];
  readonly resetByUs: number[] = [];
  /** Connections that either router reset, whoever came first, before one was stopped. */
  readonly reset: number[] = [];
  compared = 0;
  readonly #recording: Recording;
  readonly #router: string;
  readonly #mesh: Mesh;
  readonly #ids = new Map<number, ConnectionId>();
  readonly #features = new Map<number, Features>();
  /** Every record that the mesh ever had, as text. */
  readonly #known = new Set<string>();

  constructor(recording: Recording, router: string) {
    this.#recording = recording;
    this.#router = router;
    const features = recording.transcript.flatMap((item) => {
      return item.dir?.startsWith(`${router}->`) && item.decoded?.features ? featuresOf(item.decoded.features) : [];
    });
    const { name, nickName, uid, shortId, overlays } = features[0]!;
    this.#mesh = new Mesh({
      name,
      nickName,
      uid,
      shortId: shortId!,
      port: 6783,
      overlays: overlays!,
      extensions: ["probe", "digest"],
      discovery: false,
      connectionLimit: 0,
      trustedSubnets: [],
      random: new SeededRandom(1),
      log: SILENT,
      connectionIds: features.map((own) => own.connectionId),
    }, 0);
  }

  run(): void {
    let stopped = false;
    for (const item of this.#recording.transcript) {
      const now = item.t * 1000;
      this.#advance(now);
      const [from, to] = item.dir?.split("->") ?? [];
      const connection = item.conn ?? 0;
      if (item.flags === "SYN" && from === this.#router) this.#dial(connection, to!, now);
      else if (item.flags === "SYN" && to === this.#router) this.#accept(connection, from!, now);
      else if (item.flags?.includes("RST") && !stopped) this.reset.push(connection);
      else if (item.flags?.includes("RST")) this.#mesh.handleClosed(this.#ids.get(connection)!, "reset", now);
      else if (item.what?.startsWith("stop")) stopped = true;
      else if (item.kind === "message" && to === this.#router) this.#hear(connection, item, now);
      else if (item.kind === "message" && from === this.#router) this.#say(connection, item);
      this.#drain(now);
    }
  }

  #advance(now: number): void {
    for (let due = this.#mesh.pollTimeout(); due && due.at <= now; due = this.#mesh.pollTimeout()) {
      this.#mesh.handleTimeout(due.at);
      this.#drain(due.at);
    }
  }

  #dial(connection: number, to: string, now: number): void {
    const { ip } = this.#recording.setting.routers[to]!;
    const all = typeof ip === "string" ? [ip] : ip;
    const remote = endpoint(`${this.#addressIn(connection, all)}:6783`);
    this.#mesh.connect([{ text: formatEndpoint(remote), endpoint: remote, hasPort: true }], { replace: false }, now);
    const dials = this.#drain(now).filter((output) => output.type === "dial");
    assert.equal(dials.length, 1);
    this.#begin(connection, dials[0]!.id, now);
  }

  #begin(connection: number, id: ConnectionId, now: number): void {
    this.#ids.set(connection, id);
    this.#features.set(connection, this.#mesh.featuresFor(id, now));
  }

  /** Which of the addresses of the other router it was: the two halves of a relay are in two networks. */
  #addressIn(connection: number, all: readonly string[]): string {
    return all[connection] ?? all[0]!;
  }

  #accept(connection: number, from: string, now: number): void {
    const { ip } = this.#recording.setting.routers[from]!;
    const remote = this.#acceptedFrom(typeof ip === "string" ? ip : ip[0]!, connection);
    this.#begin(connection, this.#mesh.handleAccepted(endpoint(remote), now)!, now);
  }

  /** With its passing port, which only the router's topology tells: that of the first gossip after this connection. */
  #acceptedFrom(ip: string, connection: number): string {
    const since = this.#recording.transcript.findIndex((item) => item.conn === connection);
    for (const item of this.#recording.transcript.slice(since)) {
      if (!item.dir?.startsWith(`${this.#router}->`)) continue;
      for (const record of item.decoded?.topology ?? []) {
        for (const { remoteTCPAddr } of record.connections) {
          if (remoteTCPAddr.startsWith(`${ip}:`) && !remoteTCPAddr.endsWith(":6783")) return remoteTCPAddr;
        }
      }
    }
    return `${ip}:1`;
  }

  #hear(connection: number, item: Recording["transcript"][number], now: number): void {
    const id = this.#ids.get(connection)!;
    if (item.decoded?.features) {
      const key = item.plaintext === undefined ? undefined : new Uint8Array(32);
      return this.#mesh.handleIntroduced(id, featuresOf(item.decoded.features), key, now);
    }
    this.#mesh.handleMessage(id, decodeMessage(octetsOf(item)), now);
  }

  /** What the router said: the mesh said the same of itself, and knows what the router tells of the topology. */
  #say(connection: number, item: Recording["transcript"][number]): void {
    const octets = octetsOf(item);
    this.compared++;
    if (item.decoded?.features) {
      assert.deepEqual({ ...this.#features.get(connection)!, extensions: [] }, featuresOf(item.decoded.features));
      return;
    }
    const message = decodeMessage(octets);
    this.saidByRouter.push({ connection, message, octets: octets.toHex() });
    if (message.type !== "gossip" || message.channel !== "topology") return;
    // The router may have told what it knew a moment before: then the mesh has it newer, and had it so. Of a peer whose connection was
    // replaced, routers lose what they know, and a mesh does not.
    for (const record of sorted(topologyOf(message.payload))) {
      assert.ok(this.#known.has(describe(record)), describe(record));
      const ahead = this.#mesh.peer(record.name)!.version - record.version;
      assert.ok(ahead <= 1n || this.#recording.setting.connection_uids?.["5"], describe(record));
    }
  }

  #drain(now: number): MeshOutput[] {
    const outputs: MeshOutput[] = [];
    for (let output = this.#mesh.poll(); output; output = this.#mesh.poll()) {
      outputs.push(output);
      const connection = [...this.#ids].find(([, id]) => "id" in output && id === output.id)?.[0] ?? -1;
      if (output.type === "close") this.resetByUs.push(connection);
      // Sub-tag 1 of sleeve: the other side heard us, the carrier works.
      if (output.type === "overlayControl" && output.subTag === 1) this.#mesh.handleCarrierEstablished(output.id, now);
      if (output.type !== "send") continue;
      const { message } = output;
      this.saidByUs.push({ connection, message, octets: encodeMessage(message, false).toHex() });
    }
    for (const record of sorted(this.#mesh.peers())) this.#known.add(describe(record));
    return outputs;
  }
}

function octetsOf(item: Recording["transcript"][number]): Uint8Array {
  return item.plaintext === undefined ? Uint8Array.fromHex(item.frame!).slice(4) : Uint8Array.fromHex(item.plaintext);
}

function describe(record: PeerRecord): string {
  return JSON.stringify(record, (_, value) => typeof value === "bigint" ? String(value) : value);
}

function featuresOf(map: Readonly<Record<string, string>>): Features {
  return {
    name: peerName(map.Name!),
    nickName: map.NickName!,
    uid: BigInt(map.UID!),
    connectionId: BigInt(map.ConnID!),
    shortId: Number(map.ShortID),
    trusted: map.Trusted === "true",
    overlays: map.Overlays!.split(" "),
    extensions: [],
  };
}
