/**
 * Plays routers of a recorded session over real sockets, each from a host of its own, against a router under test that stands for another
 * of that session. It keeps in step: before it does what was recorded, it waits for what the router under test must have said by then.
 * Compared is the meaning, as order and number of repetitions vary; octets are compared where nothing may vary.
 */

import type { ControlBoxes } from "../../ffi/control_boxes.ts";
import { check } from "../../ffi/errno.ts";
import { libc } from "../../ffi/libc.ts";
import { withNetns } from "../../ffi/netns.ts";
import { encodeAddress } from "../../ffi/socket.ts";
import { openUdpPair, type UdpPair } from "../../ffi/udp.ts";
import { type ControlSocket, ControlSockets } from "../../src/host/sockets.ts";
import { parseIpv4 } from "../../src/lib/ip.ts";
import type { EmulatedHost } from "./host.ts";
import {
  dialsFirst,
  nameOf,
  passwordOf,
  privateKeysOf,
  recordedSessionKey,
  type Recording,
  type RouterNumber,
} from "./recording.ts";
import { byUdp, containersAnswer, onConnection, type Step, writeScore } from "./score.ts";
import { readPacket, type SleeveSeal } from "./sleeve_packet.ts";
import { Transcript } from "./transcript.ts";
import { delay, waitFor } from "./wait.ts";
import { type Datagram, Wiretap } from "./wiretap.ts";
import { OWN_RECORD, wordOfFrame } from "./words.ts";

/** Where a router is played. */
export interface Place {
  readonly router: RouterNumber;
  readonly host: EmulatedHost;
  /** Addresses on the network between it and the router under test. */
  readonly local: string;
  readonly remote: string;
}

/** An event of the recording, with whom the router under test is connected meanwhile. */
export interface RecordedEvent {
  readonly what: string;
  readonly t: number;
  readonly connected: readonly RouterNumber[];
}

export interface PlayerOptions {
  readonly recording: Recording;
  /** The router under test, by its number in the recording, and its host. */
  readonly under: RouterNumber;
  readonly host: EmulatedHost;
  readonly places: readonly Place[];
  readonly boxes: ControlBoxes;
  /** Does what an operator did. */
  readonly operate: (event: RecordedEvent) => Promise<void>;
}

/** The longest pause that is kept between recorded items; the recordings idle for half a minute at a time. */
const LONGEST_PAUSE_MS = 100;
/** Attempts to connect again come after up to 7 s. */
const EXPECT_MS = 20_000;

interface Seat extends Place {
  readonly udp: UdpPair;
  /** Sockets that were accepted, and not waited for yet. */
  readonly accepted: ControlSocket[];
}

interface Conversation {
  readonly router: RouterNumber;
  readonly socket: ControlSocket;
  /** Why it ended, or that we ended it. */
  ended: string | undefined;
  /** The last word of the router under test on its own connections. */
  ownRecord: string | undefined;
}

export class Player implements AsyncDisposable {
  readonly #o: PlayerOptions;
  readonly #sockets = new ControlSockets();
  readonly #owned = new DisposableStack();
  readonly #seats = new Map<RouterNumber, Seat>();
  readonly #conversations = new Map<number, Conversation>();
  readonly #said = new Set<string>();
  readonly #seal: SleeveSeal | undefined;

  private constructor(o: PlayerOptions) {
    this.#o = o;
    const { keys } = o.recording.setting;
    const key = keys && Uint8Array.fromHex(keys.session_key);
    this.#seal = key && { boxes: o.boxes, key, outbound: dialsFirst(o.recording, o.under) };
  }

  static async create(o: PlayerOptions): Promise<Player> {
    const player = new Player(o);
    for (const place of o.places) {
      const link = Number(await place.host.sh("cat /sys/class/net/eth0/ifindex"));
      withNetns(`/proc/${place.host.pid}/ns/net`, () => player.#seat(place, link));
    }
    return player;
  }

  /** Opens a played router's sockets, in the namespace of its host. */
  #seat(place: Place, link: number): void {
    const { router } = place;
    const { port } = this.#o.recording.setting;
    const accepted: ControlSocket[] = [];
    this.#sockets.listen({ port }, { onAccepted: (socket) => accepted.push(socket) });
    const udp = this.#owned.use(openUdpPair({ address: 0, port }));
    const onDatagram = (datagram: Datagram) => this.#hearDatagram(router, datagram);
    this.#owned.use(new Wiretap({ link, port, sockets: this.#sockets, onDatagram }));
    this.#seats.set(router, { ...place, udp, accepted });
  }

  /** Plays to the end; throws when something that must come does not, and when something comes that must not. */
  async play(): Promise<void> {
    const score = writeScore(this.#o.recording, this.#o.under, this.#seal);
    let before = 0;
    for (const { t, step } of score.steps) {
      await delay(Math.min(LONGEST_PAUSE_MS, (t - before) * 1000));
      before = t;
      await this.#take(step, t);
    }
    const unexpected = [...this.#said].filter((word) => !score.allows(word));
    if (unexpected.length > 0) throw new Error(`The router under test said besides:\n${unexpected.join("\n")}`);
    // Whoever was refused tries again, as long as there is time.
    if (this.#o.recording.setting.passwords !== undefined) return;
    const accepted = [...this.#seats.values()].flatMap((seat) => seat.accepted);
    if (accepted.length > 0) throw new Error("The router under test connected more often than was recorded");
  }

  async #take(step: Step, t: number): Promise<void> {
    const { port } = this.#o.recording.setting;
    switch (step.do) {
      case "event":
        return await this.#o.operate({ what: step.what, t, connected: this.#connected });
      case "dial": {
        const seat = this.#seats.get(step.router)!;
        const { promise, resolve, reject } = Promise.withResolvers<ControlSocket>();
        withNetns(`/proc/${seat.host.pid}/ns/net`, () => {
          const onFailed = (reason: string) => reject(new Error(reason));
          this.#sockets.dial({ address: parseIpv4(seat.remote)!, port }, { onConnected: resolve, onFailed });
        });
        return this.#converse(step.connection, { router: step.router, socket: await promise, outbound: false });
      }
      case "accept": {
        const { accepted } = this.#seats.get(step.router)!;
        await this.#wait(`connection ${step.connection}`, () => accepted.length > 0);
        return this.#converse(step.connection, { router: step.router, socket: accepted.shift()!, outbound: true });
      }
      case "close":
        return this.#end(step.connection);
      case "awaitEnd": { // by a reset, as routers of Weave Net end connections
        const conversation = this.#conversations.get(step.connection)!;
        const isReset = () => conversation.ended?.endsWith("connection reset by peer") ?? false;
        return await this.#wait(`the reset of connection ${step.connection}`, isReset);
      }
      case "say":
        this.#conversations.get(step.connection)!.socket.send(step.octets);
        return;
      case "send": {
        const { udp, remote } = this.#seats.get(step.router)!;
        const to = encodeAddress({ address: parseIpv4(remote)!, port });
        const octets = step.packet.slice();
        const { raw } = step.df ? udp.df : udp.plain;
        check("sendto", () => libc.sendto(raw, octets, BigInt(octets.length), 0, to, to.length));
        return;
      }
      case "expectRecord": {
        const { connection, word } = step;
        return await this.#wait(`"${word}" at last`, () => this.#conversations.get(connection)!.ownRecord === word);
      }
      case "expect":
        return await this.#wait(`"${step.word}"`, () => this.#said.has(step.word));
      default:
        step satisfies never;
    }
  }

  #converse(connection: number, { router, socket, outbound }: {
    readonly router: RouterNumber;
    readonly socket: ControlSocket;
    /** The router under test made the connection. */
    readonly outbound: boolean;
  }): void {
    const { recording, under, boxes } = this.#o;
    const conversation: Conversation = { router, socket, ended: undefined, ownRecord: undefined };
    this.#conversations.set(connection, conversation);
    const transcript = new Transcript({
      speaker: nameOf(recording, under),
      outbound,
      boxes,
      keyFor: (publicKey) => this.#keyFor(publicKey, connection, router),
      onWord: (said) => {
        const word = onConnection(connection, said);
        this.#said.add(word);
        if (said.startsWith(OWN_RECORD)) conversation.ownRecord = word;
      },
    });
    socket.start({
      onOctets: (octets) => transcript.add(octets),
      onClosed: (reason) => conversation.ended = reason,
      onWritable: () => {},
    });
  }

  /** What the router under test seals with: as it was recorded, or, where its keys are not known, from the password it was given. */
  #keyFor(publicKey: Uint8Array, connection: number, router: RouterNumber): Uint8Array | undefined {
    const { recording, under, boxes } = this.#o;
    if (privateKeysOf(recording, under).length > 0) return recordedSessionKey(recording, connection);
    const privateKey = privateKeysOf(recording, router)[connection];
    const password = passwordOf(recording, under);
    if (privateKey === undefined || password === undefined) return undefined;
    return boxes.sessionKey(publicKey, Uint8Array.fromHex(privateKey), new TextEncoder().encode(password));
  }

  #end(connection: number): void {
    const conversation = this.#conversations.get(connection)!;
    conversation.socket.close();
    conversation.ended = "closed here";
  }

  get #connected(): RouterNumber[] {
    return [...this.#conversations.values()].filter(({ ended }) => ended === undefined).map(({ router }) => router);
  }

  #hearDatagram(router: RouterNumber, { payload, df }: Datagram): void {
    const speaker = nameOf(this.#o.recording, this.#o.under);
    const { sender, sealedDf = df, frames } = readPacket(payload, this.#seal);
    if (sender !== speaker || sealedDf !== df) throw new Error(`Cannot accept packet ${payload.toHex()}`);
    const context = { df, speaker, containersAnswer: containersAnswer(this.#o.under) };
    for (const frame of frames) this.#said.add(byUdp(router, wordOfFrame(frame, context)));
  }

  /** Waits for what the router under test must do. */
  async #wait(what: string, ask: () => boolean): Promise<void> {
    try {
      await waitFor(what, ask, EXPECT_MS, [this.#o.host]);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n\nIt said:\n${[...this.#said].join("\n")}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#owned.dispose();
    await this.#sockets.stop();
  }
}
