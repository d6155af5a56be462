/**
 * A simulated host: a mesh core, and the shell around it: what the router does with sockets is done here with the simulated network. What
 * crosses it is messages as values, or the octets that real sessions make of them, cut anywhere.
 */
import assert from "node:assert/strict";
import type { Endpoint } from "../../src/lib/ip.ts";
import { formatEndpoint } from "../../src/lib/ip.ts";
import type { Logger } from "../../src/lib/log.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import { SeededRandom } from "../../src/lib/random.ts";
import { type ConnectionId, Mesh, type MeshOutput } from "../../src/mesh/mesh.ts";
import { Session, type SessionCrypto } from "../../src/mesh/session.ts";
import type { Features, Message } from "../../src/wire/control.ts";
import type { VirtualClock } from "./clock.ts";
import type { Half, Network, Side } from "./network.ts";

/** What crosses the network: as values, each side's features come first. */
export type Item = Features | Message | Uint8Array;

export const PORT = 6783;

export interface HostOptions {
  readonly name: PeerName;
  readonly nickName: string;
  readonly address: number;
  readonly extensions: readonly string[];
  readonly discovery: boolean;
  readonly connectionLimit: number;
  /** Real sessions make octets of messages. */
  readonly octets: boolean;
  readonly seed: number;
}

/** What hosts have in common. */
export interface Surroundings {
  readonly clock: VirtualClock;
  readonly network: Network<Item>;
  readonly log: Logger;
  /** Called for everything that happens. */
  trace(host: SimHost, what: string, detail: number): void;
}

/** Another core on the same host, which speaks on channels of the mesh. */
export interface Part {
  /** Carries out what it asks for; whether there was anything. */
  pump(): boolean;
  nextAt(): number;
  handleTimeout(): void;
  handlePeerGone(name: PeerName): void;
  /** Peers may have come or gone. */
  handleTopology?(): void;
  /** The host says something to a neighbour. */
  handleSent?(message: Message): void;
}

interface Socket extends Side<Item> {
  readonly half: Half<Item>;
  begin(): void;
  send(message: Message): void;
  nextAt(): number;
  handleTimeout(): void;
}

export class SimHost {
  readonly o: HostOptions;
  readonly mesh: Mesh;
  readonly endpoint: Endpoint;
  running = true;
  part: Part | undefined;
  /** Peers that the mesh said are gone, and how often routes changed. */
  readonly gone: PeerName[] = [];
  routesChanged = 0;
  readonly #world: Surroundings;
  readonly #random: SeededRandom;
  readonly #sockets = new Map<ConnectionId, Socket>();
  /** Confirmed and not ended, as the mesh said. */
  readonly #confirmed = new Map<ConnectionId, PeerName>();
  #port = 32768;
  #wakeAt = Infinity;
  #stalledUntil = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(o: HostOptions, world: Surroundings) {
    this.o = o;
    this.#world = world;
    this.#random = new SeededRandom(o.seed);
    this.endpoint = { address: o.address, port: PORT };
    const uid = this.#random.u64() | 1n;
    const shortId = this.#random.below(4096);
    const { name, nickName, extensions, discovery, connectionLimit } = o;
    const random = new SeededRandom(o.seed ^ 0x5bd1e995);
    const fixed = { port: PORT, overlays: ["sleeve"], trustedSubnets: [] };
    const options = { ...fixed, name, nickName, uid, shortId, extensions, discovery, connectionLimit, random };
    this.mesh = new Mesh({ ...options, log: world.log }, world.clock.now);
    world.network.listen(o.address, { accept: (remote, half) => this.#accept(remote, half) });
    this.pump();
  }

  connect(...addresses: readonly Endpoint[]): void {
    const targets = addresses.map((endpoint) => ({ text: formatEndpoint(endpoint), endpoint, hasPort: false }));
    this.mesh.connect(targets, { replace: false }, this.#now);
    this.pump();
  }

  /** As by `kill -9`. */
  stop(): void {
    this.running = false;
    this.#world.network.unlisten(this.o.address);
  }

  /** As if the process were not run for so long: what arrives waits, and so does everything that is due. */
  stall(ms: number): void {
    this.#stalledUntil = this.#now + ms;
    this.#world.clock.plan(this.#stalledUntil, () => {
      if (this.#isStalled || !this.running) return;
      this.#wakeAt = Infinity;
      this.mesh.handleTimeout(this.#now); // timers come first: the worst order
      this.pump();
      for (const happened of this.#waiting.splice(0)) happened();
    });
  }

  /** Lets something happen to the host, now or when it is run again. */
  whenRun(happen: () => void): void {
    if (this.#isStalled) this.#waiting.push(happen);
    else happen();
  }

  get #isStalled(): boolean {
    return this.#stalledUntil > this.#now;
  }

  /** To be called after whatever was asked of the mesh from outside. */
  pump(): void {
    if (!this.running) return;
    do {
      for (let output = this.mesh.poll(); output; output = this.mesh.poll()) this.#handleOutput(output);
    } while (this.part?.pump());
    this.#planWake();
  }

  get #now(): number {
    return this.#world.clock.now;
  }

  #accept(remote: Endpoint, half: Half<Item>): Side<Item> | undefined {
    const id = this.mesh.handleAccepted(remote, this.#now);
    const socket = id === undefined ? undefined : this.#open(id, half, false);
    this.#trace("accept", id ?? 0);
    this.pump();
    return socket;
  }

  #open(id: ConnectionId, half: Half<Item>, outbound: boolean): Socket {
    const features = this.mesh.featuresFor(id, this.#now);
    const socket: Socket = this.o.octets
      ? new OctetSocket(this, id, half, features, outbound, this.#random)
      : new ValueSocket(this, id, half, features);
    this.#sockets.set(id, socket);
    socket.begin();
    return socket;
  }

  #handleOutput(output: MeshOutput): void {
    switch (output.type) {
      case "dial":
        return this.#dial(output.id, output.endpoint);
      case "send":
        this.part?.handleSent?.(output.message);
        return this.#sockets.get(output.id)?.send(output.message);
      case "close":
        this.#trace("close", output.id);
        return this.#close(output.id);
      case "confirmed":
        this.#trace("confirmed", output.id);
        assert.ok(this.#sockets.has(output.id), "confirmed without a socket");
        assert.ok(![...this.#confirmed.values()].includes(output.peer), "two connections to one peer");
        this.#confirmed.set(output.id, output.peer);
        return this.#startCarrier(output.id);
      case "ended":
        this.#trace("ended", output.id);
        assert.ok(this.#confirmed.delete(output.id), "ended without having been confirmed");
        return;
      case "peerGone":
        this.gone.push(output.name);
        this.part?.handlePeerGone(output.name);
        return;
      case "routesChanged":
        this.routesChanged++;
        this.part?.handleTopology?.();
        return;
      case "overlayControl":
      case "targetsChanged":
        return;
      default:
        output satisfies never;
    }
  }

  #dial(id: ConnectionId, to: Endpoint): void {
    this.#trace("dial", id);
    const from = { address: this.o.address, port: this.#port++ };
    this.#world.network.dial(from, to, {
      connected: (half) => {
        if (!this.running || !this.#isAttempt(id)) return undefined;
        const socket = this.#open(id, half, true);
        this.pump();
        return socket;
      },
      failed: (reason) => {
        if (!this.running) return;
        this.mesh.handleDialFailed(id, reason, this.#now);
        this.pump();
      },
    });
  }

  #isAttempt(id: ConnectionId): boolean {
    try {
      this.mesh.featuresFor(id, this.#now);
      return true;
    } catch (error) {
      if (error instanceof RangeError) return false;
      throw error;
    }
  }

  /** Carriers work after a while, on each side by itself. */
  #startCarrier(id: ConnectionId): void {
    this.#world.clock.plan(this.#now + 5 + this.#random.below(150), () =>
      this.whenRun(() => {
        if (!this.running) return;
        this.mesh.handleCarrierEstablished(id, this.#now);
        this.pump();
      }));
  }

  #close(id: ConnectionId): void {
    const socket = this.#sockets.get(id);
    this.#sockets.delete(id);
    socket?.half.close();
  }

  #planWake(): void {
    let at = Math.min(this.mesh.pollTimeout()?.at ?? Infinity, this.part?.nextAt() ?? Infinity);
    if (this.o.octets) { for (const socket of this.#sockets.values()) at = Math.min(at, socket.nextAt()); }
    if (at >= this.#wakeAt) return;
    this.#wakeAt = at;
    this.#world.clock.plan(at, () => {
      if (this.#wakeAt > this.#now || !this.running || this.#isStalled) return;
      this.#wakeAt = Infinity;
      if (this.o.octets) { for (const socket of [...this.#sockets.values()]) socket.handleTimeout(); }
      this.mesh.handleTimeout(this.#now);
      this.part?.handleTimeout();
      this.pump();
    });
  }

  #trace(what: string, detail: number): void {
    this.#world.trace(this, what, detail);
  }

  // For sockets

  get now(): number {
    return this.#now;
  }

  handleIntroduced(id: ConnectionId, features: Features): void {
    this.#trace("introduced", id);
    this.mesh.handleIntroduced(id, features, undefined, this.#now);
    this.pump();
  }

  handleMessage(id: ConnectionId, message: Message): void {
    this.#trace(message.type, id);
    this.mesh.handleMessage(id, message, this.#now);
    this.pump();
  }

  handleClosed(id: ConnectionId, reason: string): void {
    this.#trace("closed", id);
    this.#sockets.delete(id);
    this.mesh.handleClosed(id, reason, this.#now);
    this.pump();
  }

  handleWritable(id: ConnectionId, writable: boolean): void {
    this.mesh.handleWritable(id, writable, this.#now);
    this.pump();
  }

  handleAlive(id: ConnectionId): void {
    this.mesh.handleAlive(id, this.#now);
  }
}

class ValueSocket implements Socket {
  #introduced = false;

  constructor(
    readonly host: SimHost,
    readonly id: ConnectionId,
    readonly half: Half<Item>,
    readonly features: Features,
  ) {}

  begin(): void {
    this.half.send(this.features);
  }

  send(message: Message): void {
    this.half.send(message);
  }

  handleItem(item: Item): void {
    this.host.whenRun(() => this.#handleItem(item));
  }

  #handleItem(item: Item): void {
    if (!this.#introduced) {
      this.#introduced = true;
      this.host.handleIntroduced(this.id, item as Features);
    } else {
      this.host.handleMessage(this.id, item as Message);
    }
  }

  handleReset(): void {
    this.host.whenRun(() => this.host.handleClosed(this.id, "connection reset by peer"));
  }

  handleWritable(writable: boolean): void {
    this.host.handleWritable(this.id, writable);
  }

  nextAt(): number {
    return Infinity;
  }

  handleTimeout(): void {}
}

/** No password, no cryptography. */
const NO_CRYPTO: SessionCrypto = {
  generateKeyPair: unused,
  sessionKey: unused,
  seal: unused,
  open: unused,
};

class OctetSocket implements Socket {
  readonly #session: Session;

  constructor(
    readonly host: SimHost,
    readonly id: ConnectionId,
    readonly half: Half<Item>,
    features: Features,
    outbound: boolean,
    readonly random: SeededRandom,
  ) {
    const { now } = host;
    this.#session = new Session({ outbound, features, password: undefined, crypto: NO_CRYPTO, now });
  }

  begin(): void {
    this.#flush();
  }

  send(message: Message): void {
    this.#session.send(message);
    this.#flush();
  }

  handleItem(item: Item): void {
    this.host.whenRun(() => this.#handleItem(item));
  }

  #handleItem(item: Item): void {
    this.#session.handleOctets(item as Uint8Array, this.host.now);
    this.host.handleAlive(this.id);
    this.#handleEvents();
  }

  handleReset(): void {
    this.host.whenRun(() => this.host.handleClosed(this.id, "connection reset by peer"));
  }

  handleWritable(writable: boolean): void {
    this.host.handleWritable(this.id, writable);
  }

  nextAt(): number {
    return this.#session.pollTimeout()?.at ?? Infinity;
  }

  handleTimeout(): void {
    this.#session.handleTimeout(this.host.now);
    this.#handleEvents();
  }

  #handleEvents(): void {
    for (let event = this.#session.pollEvent(); event; event = this.#session.pollEvent()) {
      if (event.type === "introduced") {
        this.host.handleIntroduced(this.id, event.features);
      } else if (event.type === "message") {
        this.host.handleMessage(this.id, event.message);
      } else {
        this.half.close();
        this.host.handleClosed(this.id, event.reason);
      }
    }
    this.#flush();
  }

  /** Octets go out in pieces: the network is free to cut them as it likes. */
  #flush(): void {
    for (let octets = this.#session.pollOctets(); octets; octets = this.#session.pollOctets()) {
      let at = 0;
      for (let pieces = 0; pieces < 3 && octets.length - at > 1; pieces++) {
        const cut = at + 1 + this.random.below(octets.length - at - 1);
        this.half.send(octets.slice(at, cut));
        at = cut;
      }
      this.half.send(octets.slice(at));
    }
  }
}

function unused(): never {
  throw new Error("There is no password in this mesh");
}
