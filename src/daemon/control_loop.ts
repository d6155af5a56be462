/**
 * The main thread's loop: input → core → drain outputs → next timeout. Whatever happens (octets of a control connection, a word of the
 * packet thread, a command, a timer) enters by `run()`, which carries out all that the cores then ask for before it returns.
 *
 *     octets ⇄ Session ⇄ messages ⇄ Mesh ⇄ Carriers ⇄ packet thread
 */
import type { Ipv4 } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import { type Deadline, earlier, type Instant } from "../lib/time.ts";
import type { PeerName } from "../lib/mac.ts";
import type { ConnectionId, Mesh, MeshOutput } from "../mesh/mesh.ts";
import { Session, type SessionCrypto } from "../mesh/session.ts";
import type { Clock } from "../host/clock.ts";
import type { ControlSocket, ControlSockets, Dial, Listener } from "../host/sockets.ts";
import type { Carriers } from "./carriers.ts";

export interface ControlLoopOptions {
  readonly mesh: Mesh;
  readonly carriers: Carriers;
  readonly sockets: ControlSockets;
  readonly crypto: SessionCrypto;
  readonly password: Uint8Array | undefined;
  /** Address to listen at and to dial from; undefined: all. */
  readonly host: Ipv4 | undefined;
  readonly port: number;
  readonly minProtocolVersion: number;
  readonly clock: Clock;
  /** Whether to tell peers our wall clock. */
  readonly tellClock: boolean;
  readonly log: Logger;
  /** Targets are others than before. */
  readonly onTargetsChanged: () => void;
}

/** Another core that the loop drives along with the mesh, on channels of its own: addresses, names. */
export interface Companion {
  /** Carries out what its core asks for. Called after every input, in turn with the mesh, until nothing is left to do. */
  drain(now: Instant): void;
  handleTimeout(now: Instant): void;
  pollTimeout(): Deadline | undefined;
  /** The peer is no longer part of the mesh. */
  handlePeerGone?(name: PeerName, now: Instant): void;
  /** Peers may have come, gone or begun another life. */
  handleTopology?(now: Instant): void;
}

/** Our wall clock went another way than time for so long: somebody has set it. */
const CLOCK_SET_MS = 1_000;

/** Sockets that may wait to be let in; further ones are closed. */
const WAITING_LIMIT = 256;

/** A control connection with a socket. Before its introduction the session keeps time, afterwards the mesh. */
interface Conversation {
  readonly id: ConnectionId;
  readonly socket: ControlSocket;
  readonly session: Session;
  introduced: boolean;
  /** The peer's wall clock less our monotonic one, as far as it told. */
  clock: number | undefined;
}

export class ControlLoop {
  readonly #o: ControlLoopOptions;
  readonly #conversations = new Map<ConnectionId, Conversation>();
  readonly #dials = new Map<ConnectionId, Dial>();
  readonly #companions: Companion[] = [];
  /** Whose sessions have octets for their sockets. */
  readonly #unsent = new Set<Conversation>();
  #listener: Listener | undefined;
  /** Accepted sooner than connections are let in; the first in line comes first. */
  readonly #waiting: ControlSocket[] = [];
  #waitTimer: number | undefined;
  #running = false;
  #stopped = false;
  /** Our wall clock less the monotonic one, as peers know it. */
  #clockTold: number;
  #timer: number | undefined;
  #timerAt: Instant = Infinity;

  constructor(o: ControlLoopOptions) {
    this.#o = o;
    this.#clockTold = this.#clock();
  }

  /** Before the first connection. */
  add(companion: Companion): void {
    this.#companions.push(companion);
  }

  /** @throws SysError EADDRINUSE, say */
  listen(): void {
    const { sockets, host, port } = this.#o;
    this.#listener = sockets.listen({ address: host, port }, { onAccepted: (socket) => this.#accept(socket) });
  }

  /** Hands an input to the cores, and carries out what they ask for. Inputs that come while it does so are part of it. */
  run<T>(input: (now: Instant) => T): T {
    if (this.#running) return input(this.#o.clock.monotonicMs());
    this.#running = true;
    try {
      const result = input(this.#o.clock.monotonicMs());
      this.#drain();
      return result;
    } finally {
      this.#running = false;
      this.#setTimer();
    }
  }

  /** Ends all connections. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#waitTimer);
    this.#listener?.close();
    for (const dial of this.#dials.values()) dial.cancel();
    for (const { socket } of this.#conversations.values()) socket.close();
    for (const socket of this.#waiting) socket.close();
    this.#dials.clear();
    this.#conversations.clear();
  }

  /** How far the wall clock of the peer at the other end is ahead of ours; undefined: it did not tell. */
  clockAheadMs(id: ConnectionId): number | undefined {
    const theirs = this.#conversations.get(id)?.clock;
    return theirs === undefined ? undefined : theirs - this.#clock();
  }

  #clock(): number {
    return this.#o.clock.wallMs() - this.#o.clock.monotonicMs();
  }

  #tellClock(now: Instant): void {
    const clock = this.#clock();
    if (!this.#o.tellClock || Math.abs(clock - this.#clockTold) < CLOCK_SET_MS) return;
    this.#clockTold = clock;
    for (const conversation of this.#conversations.values()) {
      if (conversation.clock === undefined) continue;
      conversation.session.send({ type: "clock", wallClockMs: now + clock });
      this.#unsent.add(conversation);
    }
  }

  // ── Inputs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #accept(socket: ControlSocket): void {
    if (this.#waiting.length >= WAITING_LIMIT) return socket.close();
    this.#waiting.push(socket);
    if (this.#waiting.length === 1) this.#letIn();
  }

  /** Connections are let in at a limited rate, as peers that all start at once are not to be turned away. */
  #letIn(): void {
    this.run((now) => {
      const at = this.#o.mesh.acceptableAt(now);
      while (this.#waiting.length > 0 && at <= now) {
        const socket = this.#waiting[0]!;
        const id = this.#o.mesh.handleAccepted(socket.remote, now);
        if (id === undefined) break;
        this.#waiting.shift();
        this.#converse(id, socket, false, now);
      }
      if (this.#waiting.length === 0) return;
      clearTimeout(this.#waitTimer);
      this.#waitTimer = setTimeout(() => this.#letIn(), Math.max(1, Math.ceil(at - now)));
    });
  }

  #dial({ id, endpoint }: MeshOutput & { type: "dial" }): void {
    const dial = this.#o.sockets.dial(endpoint, {
      onConnected: (socket) =>
        this.run((now) => {
          this.#dials.delete(id);
          this.#converse(id, socket, true, now);
        }),
      onFailed: (reason) =>
        this.run((now) => {
          this.#dials.delete(id);
          this.#o.mesh.handleDialFailed(id, reason, now);
        }),
    }, { source: this.#o.host });
    this.#dials.set(id, dial);
  }

  #converse(id: ConnectionId, socket: ControlSocket, outbound: boolean, now: Instant): void {
    const { mesh, password, crypto, minProtocolVersion, clock, tellClock } = this.#o;
    this.#tellClock(now);
    const features = { ...mesh.featuresFor(id, now), ...tellClock ? { wallClockMs: clock.wallMs() } : {} };
    const session = new Session({ outbound, features, password, crypto, minVersion: minProtocolVersion, now });
    const conversation: Conversation = { id, socket, session, introduced: false, clock: undefined };
    this.#conversations.set(id, conversation);
    this.#unsent.add(conversation);
    socket.start({
      onOctets: (octets) =>
        this.run((now) => {
          session.handleOctets(octets, now);
          mesh.handleAlive(id, now);
          this.#takeEvents(conversation, now);
        }),
      onClosed: (reason) =>
        this.run((now) => {
          if (this.#forget(id)) mesh.handleClosed(id, reason, now);
        }),
      onWritable: () => this.run((now) => mesh.handleWritable(id, true, now)),
    });
  }

  #takeEvents(conversation: Conversation, now: Instant): void {
    const { mesh } = this.#o;
    const { id, session } = conversation;
    for (let event = session.pollEvent(); event !== undefined; event = session.pollEvent()) {
      // What came before may have ended it.
      if (!this.#conversations.has(id)) return;
      switch (event.type) {
        case "introduced":
          conversation.introduced = true;
          if (event.features.wallClockMs !== undefined) conversation.clock = event.features.wallClockMs - now;
          mesh.handleIntroduced(id, event.features, event.sessionKey, now);
          break;
        case "message":
          if (event.message.type === "clock") conversation.clock = event.message.wallClockMs - now;
          mesh.handleMessage(id, event.message, now);
          break;
        case "failed":
          this.#end(conversation, event.reason, now);
          return;
        default:
          event satisfies never;
      }
      // Replies of one message go out before the next is looked at: what one input makes is bounded.
      this.#carryOut();
    }
    this.#unsent.add(conversation);
  }

  /** The session is over, by its own judgement. */
  #end(conversation: Conversation, reason: string, now: Instant): void {
    this.#send(conversation);
    this.#forget(conversation.id);
    conversation.socket.close();
    this.#o.mesh.handleSessionFailed(conversation.id, reason, now);
  }

  #handleTimeout(): void {
    this.#timerAt = Infinity;
    this.run((now) => {
      for (const conversation of [...this.#conversations.values()]) {
        const deadline = conversation.introduced ? undefined : conversation.session.pollTimeout();
        if (deadline === undefined || deadline.at > now) continue;
        conversation.session.handleTimeout(now);
        this.#takeEvents(conversation, now);
      }
      this.#o.mesh.handleTimeout(now);
      this.#o.carriers.handleTimeout(now);
      for (const companion of this.#companions) companion.handleTimeout(now);
      this.#tellClock(now);
    });
  }

  // ── Outputs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #drain(): void {
    this.#carryOut();
    for (const conversation of this.#unsent) this.#send(conversation);
    this.#unsent.clear();
    // A socket that takes no more tells the mesh, which may close it.
    this.#carryOut();
    const { mesh, carriers } = this.#o;
    carriers.publishRoutes(mesh.routes, () => mesh.peers().map(({ name }) => name));
  }

  #carryOut(): void {
    const { mesh, clock } = this.#o;
    let output = mesh.poll();
    do {
      for (; output !== undefined; output = mesh.poll()) this.#act(output);
      for (const companion of this.#companions) companion.drain(clock.monotonicMs());
      output = mesh.poll();
    } while (output !== undefined);
  }

  #act(output: MeshOutput): void {
    const { carriers } = this.#o;
    const now = this.#o.clock.monotonicMs;
    switch (output.type) {
      case "dial":
        return this.#dial(output);
      case "send": {
        const conversation = this.#conversations.get(output.id);
        if (conversation === undefined) return;
        conversation.session.send(output.message);
        this.#unsent.add(conversation);
        return;
      }
      case "close": {
        this.#dials.get(output.id)?.cancel();
        this.#dials.delete(output.id);
        const conversation = this.#conversations.get(output.id);
        if (conversation === undefined) return;
        this.#send(conversation);
        this.#forget(output.id);
        return conversation.socket.close();
      }
      case "confirmed":
        return carriers.confirm(output, now());
      case "ended":
        return carriers.end(output.id);
      case "overlayControl":
        return carriers.handleControl(output.id, output.overlay, output.subTag, output.payload, now());
      case "routesChanged":
        for (const companion of this.#companions) companion.handleTopology?.(now());
        return carriers.routesChanged();
      case "targetsChanged":
        return this.#o.onTargetsChanged();
      case "peerGone":
        for (const companion of this.#companions) companion.handlePeerGone?.(output.name, now());
        return;
      default:
        output satisfies never;
    }
  }

  #send({ id, socket, session }: Conversation): void {
    if (!this.#conversations.has(id)) return;
    let writable = true;
    for (let octets = session.pollOctets(); octets !== undefined; octets = session.pollOctets()) {
      writable = socket.send(octets);
    }
    if (!writable) this.#o.mesh.handleWritable(id, false, this.#o.clock.monotonicMs());
  }

  #forget(id: ConnectionId): boolean {
    const conversation = this.#conversations.get(id);
    if (conversation === undefined) return false;
    this.#unsent.delete(conversation);
    return this.#conversations.delete(id);
  }

  #setTimer(): void {
    if (this.#stopped) return;
    const at = this.#nextDeadline()?.at ?? Infinity;
    if (at === this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    if (at === Infinity) return;
    this.#timer = setTimeout(() => this.#handleTimeout(), Math.max(0, Math.ceil(at - this.#o.clock.monotonicMs())));
  }

  #nextDeadline(): Deadline | undefined {
    let next = earlier(this.#o.mesh.pollTimeout(), this.#o.carriers.pollTimeout());
    for (const companion of this.#companions) next = earlier(next, companion.pollTimeout());
    for (const { introduced, session } of this.#conversations.values()) {
      if (!introduced) next = earlier(next, session.pollTimeout());
    }
    return next;
  }
}
