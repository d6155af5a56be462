/**
 * Plays one side of a recorded session between two routers over real sockets, against a router under test that stands for the
 * other. It keeps in step: before it sends what was recorded, it waits for what the router under test must have sent by then.
 * Compared is the meaning, as order and number of repetitions vary; octets are compared where nothing may vary.
 */

import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { delay, waitFor } from "./wait.ts";

/** A session as the recordings have it: control connection and data packets of one run. */
export interface Recording {
  readonly setting: {
    readonly routers: Readonly<
      Record<string, { readonly name: string; readonly nick: string; readonly ip: string | string[] }>
    >;
    readonly port: number;
    readonly session_keys?: readonly { readonly side: string; readonly private_key: string }[];
  };
  readonly transcript: readonly RecordedItem[];
}

interface RecordedItem {
  readonly t: number;
  readonly kind: string;
  readonly dir?: string;
  readonly conn?: number;
  readonly what?: string;
  readonly flags?: string;
  readonly hex?: string;
  readonly frame?: string;
  /** The message of an encrypted frame. */
  readonly plaintext?: string;
  readonly decoded?: {
    readonly kind?: string;
    readonly channel?: string;
    readonly src?: string;
    readonly features?: Readonly<Record<string, string>>;
  };
}

export interface RecordedPackets {
  readonly packets: readonly {
    readonly t: number;
    readonly kind?: string;
    readonly dir?: string;
    readonly payload?: string;
    readonly payload_len?: number;
    readonly payload_prefix?: string;
    readonly frames?: readonly { readonly kind: string; readonly mtu?: number }[];
  }[];
}

/** What happens next: something to send, something to wait for, or something to do. */
type Step =
  | { readonly do: "dial" | "accept" | "close" | "awaitClose"; readonly connection: number }
  | { readonly do: "sendTcp"; readonly connection: number; readonly octets: Uint8Array }
  | { readonly do: "sendUdp"; readonly octets: Uint8Array }
  | { readonly do: "expect"; readonly key: string }
  | { readonly do: "event"; readonly what: string };

export interface PlayerOptions {
  readonly recording: Recording;
  readonly packets: RecordedPackets;
  /** The router that is played, and the one under test, by their numbers in the recording. */
  readonly plays: string;
  readonly against: string;
  /** Addresses: of ours, and of the router under test. */
  readonly local: string;
  readonly remote: string;
  /** Carries out what an operator did to the router under test. */
  readonly operate: (what: string) => Promise<void>;
  /** Does the router under test have a container that answers? */
  readonly containerAnswers: boolean;
}

/** The longest pause that is kept between recorded items; the recordings idle for half a minute at a time. */
const LONGEST_PAUSE_MS = 100;

const EXPECT_MS = 8_000;

export class Player implements AsyncDisposable {
  readonly #options: PlayerOptions;
  readonly #connections = new Map<number, ControlConnection>();
  readonly #seen = new Set<string>();
  readonly #udp: Socket = createSocket("udp4");
  readonly #listener: Deno.TcpListener;

  constructor(options: PlayerOptions) {
    this.#options = options;
    this.#listener = Deno.listen({ hostname: options.local, port: options.recording.setting.port });
    this.#udp.on("message", (packet: Uint8Array) => this.#takePacket(packet));
  }

  /** Plays to the end; throws when something that must come does not. */
  async play(): Promise<void> {
    const { port } = this.#options.recording.setting;
    this.#udp.bind(port, this.#options.local);
    await once(this.#udp, "listening");
    let before = 0;
    for (const { t, step } of this.#steps()) {
      await delay(Math.min(LONGEST_PAUSE_MS, (t - before) * 1000));
      before = t;
      await this.#take(step);
    }
  }

  async #take(step: Step): Promise<void> {
    switch (step.do) {
      case "event":
        return await this.#options.operate(step.what);
      case "dial": {
        const { port } = this.#options.recording.setting;
        const socket = await Deno.connect({ hostname: this.#options.remote, port });
        this.#connections.set(step.connection, new ControlConnection(socket, step.connection, this.#seen));
        return;
      }
      case "accept": {
        const late = delay(EXPECT_MS).then(() => undefined);
        const socket = await Promise.race([this.#listener.accept(), late]);
        if (!socket) throw new Error(`Connection ${step.connection} did not come`);
        this.#connections.set(step.connection, new ControlConnection(socket, step.connection, this.#seen));
        return;
      }
      case "close":
        return this.#connections.get(step.connection)?.close();
      case "awaitClose":
        await waitFor(
          `the end of connection ${step.connection}`,
          () => this.#connections.get(step.connection)?.ended,
          EXPECT_MS,
        );
        return;
      case "sendTcp":
        return await this.#connections.get(step.connection)?.send(step.octets);
      case "sendUdp":
        this.#udp.send(step.octets, this.#options.recording.setting.port, this.#options.remote);
        return;
      case "expect":
        await waitFor(`"${step.key}", of ${[...this.#seen].join(", ")}`, () => this.#seen.has(step.key), EXPECT_MS);
        return;
      default:
        step satisfies never;
    }
  }

  /** The recorded items that concern us, in their order, as steps. */
  #steps(): { t: number; step: Step }[] {
    const { recording, packets, plays, against } = this.#options;
    const [ours, theirs] = [`${plays}->${against}`, `${against}->${plays}`];
    const steps: { t: number; step: Step }[] = [];
    for (const item of recording.transcript) {
      const add = (step: Step) => steps.push({ t: item.t, step });
      const connection = item.conn ?? 0;
      if (item.kind === "EVENT") add({ do: "event", what: item.what! });
      else if (item.flags === "SYN" && item.dir === ours) add({ do: "dial", connection });
      else if (item.flags === "SYN" && item.dir === theirs) add({ do: "accept", connection });
      else if (item.flags?.includes("RST") && item.dir === ours) add({ do: "close", connection });
      else if (item.flags?.includes("RST") && item.dir === theirs) add({ do: "awaitClose", connection });
      else if (item.kind !== "tcp" && item.dir === ours) {
        add({ do: "sendTcp", connection, octets: Uint8Array.fromHex(item.hex ?? item.frame!) });
      } else if (item.kind !== "tcp" && item.dir === theirs) {
        for (const key of expectedOf(item, recording.setting.routers[against]!.name)) {
          add({ do: "expect", key: `${connection} ${key}` });
        }
      }
    }
    for (const packet of packets.packets) {
      if (packet.dir === ours) steps.push({ t: packet.t, step: { do: "sendUdp", octets: packetOctets(packet) } });
      if (packet.dir !== theirs) continue;
      const frame = packet.frames![0]!;
      const answer = frame.kind === "ethernet" && !this.#options.containerAnswers;
      if (answer) continue;
      const keys = frame.kind === "ethernet" ? keysOfPacket(Uint8Array.fromHex(packet.payload!)) : [specialKey(frame)];
      for (const key of keys) steps.push({ t: packet.t, step: { do: "expect", key } });
    }
    return steps.sort((a, b) => a.t - b.t);
  }

  #takePacket(packet: Uint8Array): void {
    for (const key of keysOfPacket(packet)) this.#seen.add(key);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.#connections.values()) await connection[Symbol.asyncDispose]();
    this.#listener.close();
    const closed = once(this.#udp, "close");
    this.#udp.close();
    await closed;
  }
}

/** One control connection: collects what the other side says, cut into greeting, flag and messages. */
class ControlConnection implements AsyncDisposable {
  ended = false;
  readonly #reading: Promise<void>;
  #pending = new Uint8Array();
  #part: "greeting" | "flag" | "messages" = "greeting";

  constructor(readonly socket: Deno.TcpConn, readonly number: number, readonly seen: Set<string>) {
    this.#reading = this.#read();
  }

  async send(octets: Uint8Array): Promise<void> {
    await this.socket.write(octets).catch(() => {}); // the other side may have refused already
  }

  close(): void {
    if (!this.ended) this.socket.close();
    this.ended = true;
  }

  async #read(): Promise<void> {
    const buffer = new Uint8Array(65536);
    try {
      for (let count = await this.socket.read(buffer); count !== null; count = await this.socket.read(buffer)) {
        this.#pending = new Uint8Array([...this.#pending, ...buffer.subarray(0, count)]);
        while (this.#cut());
      }
    } catch {
      // Reset, or closed by us.
    }
    this.close();
  }

  /** Takes one part off what has arrived; false when it is not whole yet. */
  #cut(): boolean {
    const octets = this.#pending;
    if (octets.length === 0) return false;
    let length: number;
    if (this.#part === "greeting") length = 7;
    else if (this.#part === "flag") length = octets[0] === 1 ? 33 : 1;
    else length = octets.length < 4 ? Infinity : 4 + new DataView(octets.buffer).getUint32(0);
    if (octets.length < length) return false;
    const part = octets.slice(0, length);
    this.#pending = octets.slice(length);
    if (this.#part === "messages") {
      for (const key of keysOfMessage(part.subarray(4))) this.seen.add(`${this.number} ${key}`);
    } else this.seen.add(`${this.number} ${part.toHex()}`);
    this.#part = this.#part === "greeting" ? "flag" : "messages";
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    await this.#reading;
  }
}

/** What must come from the router under test for a recorded item of its. Gossip of its own is compared through its report. */
function expectedOf(item: RecordedItem, name: string): string[] {
  if (item.hex) return [item.hex];
  switch (item.decoded?.kind) {
    case "features":
      return Object.entries(item.decoded.features!).map(([key, value]) => `feature ${key}=${value}`);
    case "overlay control":
      return keysOfMessage(Uint8Array.fromHex(item.plaintext ?? item.frame!.slice(8)));
    case "gossip unicast":
      return item.decoded.src === name ? [] : [`relayed ${item.frame!.slice(8)}`];
    case "gossip broadcast":
      return item.decoded.src === name ? [] : keysOfMessage(Uint8Array.fromHex(item.frame!.slice(8)));
    default:
      return [];
  }
}

/** What a message says, in comparable words (control protocol: tag 5 unicast, 6 broadcast, 7 overlay control). */
function keysOfMessage(message: Uint8Array): string[] {
  const tag = message[0];
  if (tag === 7) return [`control ${message.toHex()}`];
  if (tag === 5) return [`relayed ${message.toHex()}`];
  const text = new TextDecoder("latin1").decode(message);
  if (tag === 6) {
    const channel = ["IPallocation", "nameserver"].find((channel) => text.includes(channel));
    return channel ? [`broadcast ${channel}`] : [];
  }
  // The feature map: texts with their lengths before them, key and value by turns.
  return FEATURES.flatMap((key) => {
    const at = text.indexOf(String.fromCharCode(key.length) + key);
    if (at < 0) return [];
    const value = at + 1 + key.length;
    return [`feature ${key}=${text.slice(value + 1, value + 1 + message[value]!)}`];
  });
}

const FEATURES = ["PeerNameFlavour", "Name", "NickName", "ShortID", "UID", "ConnID", "Trusted", "Overlays"];

/** What a data packet in clear carries: sender, then frames of source, destination, length and octets. */
function keysOfPacket(packet: Uint8Array): string[] {
  const keys: string[] = [];
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  for (let at = 6; at + 14 <= packet.length;) {
    const length = view.getUint16(at + 12);
    const frame = packet.subarray(at + 14, at + 14 + length);
    keys.push(keyOfFrame(frame, packet.subarray(at, at + 12).toHex()));
    at += 14 + length;
  }
  return keys;
}

function keyOfFrame(frame: Uint8Array, names: string): string {
  if (frame.every((octet, i) => octet === 0 || i >= 14 && frame.length === 22)) {
    if (frame.length === 22) return "heartbeat";
    return frame.length === 60001 ? "frag test" : `probe ${frame.length - 14}`;
  }
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (view.getUint16(12) !== 0x0800) return `frame ${names} ${frame.toHex()}`;
  // The identification in the IP header is whatever the container's kernel chose.
  return `ip ${names} ${view.getUint16(20)} ${frame.subarray(34).toHex()}`;
}

function specialKey(frame: { readonly kind: string; readonly mtu?: number }): string {
  if (frame.kind === "PMTU probe") return `probe ${frame.mtu}`;
  return frame.kind;
}

/** A recorded packet whole; large ones are recorded by their beginning, and zeros follow. */
function packetOctets(packet: RecordedPackets["packets"][number]): Uint8Array {
  if (packet.payload) return Uint8Array.fromHex(packet.payload);
  const octets = new Uint8Array(packet.payload_len!);
  octets.set(Uint8Array.fromHex(packet.payload_prefix!));
  return octets;
}
