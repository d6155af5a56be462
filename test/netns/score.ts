/**
 * A recorded session as a score: what the played routers do, in its order, and between it what must have come by then from the router
 * under test, which stands for one of the recorded ones.
 *
 * That one has neither addresses to give out nor names to answer for, which the recorded routers had. What they said of that on their own
 * account is left out here, and must not come; what they passed on of it is passed on all the same, by the rules for channels that a router
 * does not know: gossip and broadcasts unchanged to the others, unicasts unchanged on their way.
 */

import { decodeMessage } from "../../src/wire/control.ts";
import { formatMac, type PeerName } from "../../src/lib/mac.ts";
import { Allowance } from "./allowance.ts";
import {
  addressesBetween,
  connectionUid,
  messageOf,
  nameOf,
  privateKeysOf,
  type RecordedItem,
  type RecordedPacket,
  type Recording,
  routerNamed,
  type RouterNumber,
} from "./recording.ts";
import {
  fragmentationTestFrame,
  heartbeatFrame,
  makePacket,
  probeFrame,
  recordedFrames,
  recordedPacket,
  type SleeveSeal,
} from "./sleeve_packet.ts";
import {
  describeFeatures,
  type FrameContext,
  OWN_RECORD,
  wordOfFrame,
  wordOfGossip,
  wordOfRelayed,
  wordsOfMessage,
} from "./words.ts";

/** `router` is the one that is played. */
export type Step =
  | { readonly do: "dial" | "accept" | "close"; readonly connection: number; readonly router: RouterNumber }
  /** The router under test ends a connection. */
  | { readonly do: "awaitEnd"; readonly connection: number }
  | { readonly do: "say"; readonly connection: number; readonly octets: Uint8Array }
  | { readonly do: "send"; readonly router: RouterNumber; readonly packet: Uint8Array; readonly df: boolean }
  | { readonly do: "expect"; readonly word: string }
  /** The last word of the router under test on its own connections, as far as they know on this one. */
  | { readonly do: "expectRecord"; readonly connection: number; readonly word: string }
  | { readonly do: "event"; readonly what: string };

export interface Score {
  readonly steps: readonly { readonly t: number; readonly step: Step }[];
  /** Whether the router under test may say this besides what is expected of it. */
  readonly allows: (word: string) => boolean;
}

/** Something said on a connection. */
export function onConnection(connection: number, word: string): string {
  return `${connection}: ${word}`;
}

/** Something that reached a played router by UDP. */
export function byUdp(router: RouterNumber, word: string): string {
  return `udp ${router}: ${word}`;
}

/** Routers of Weave Net offer versions 1 and 2, the one under test version 2 alone; they agree on 2. */
const HEADERS: Readonly<Record<string, string>> = { "77656176650102": "77656176650202" };

export function writeScore(recording: Recording, under: RouterNumber, seal: SleeveSeal | undefined): Score {
  const writer = new Writer(recording, under, seal);
  for (const item of recording.transcript) writer.addItem(item);
  for (const packet of recording.packets) writer.addPacket(packet);
  const steps = writer.steps.sort((a, b) => a.t - b.t);
  const expected = new Set(steps.flatMap(({ step }) => "word" in step ? [step.word] : []));
  const allowance = new Allowance(recording, under);
  return { steps, allows: (word) => expected.has(word) || allowance.allows(word) };
}

/** Where a connection that is going on stands. */
interface Line {
  readonly router: RouterNumber;
  /** Both sides are introduced. */
  introduced: boolean;
  /** A played router has said what the other side must refuse. */
  refusable: boolean;
}

class Writer {
  readonly steps: { t: number; step: Step }[] = [];
  readonly #recording: Recording;
  readonly #under: RouterNumber;
  readonly #seal: SleeveSeal | undefined;
  readonly #lines = new Map<number, Line>();
  /** The last broadcast on a channel by a source, as it reached the router under test. */
  readonly #broadcasts = new Map<string, Uint8Array>();
  /** Whom the router under test has dialled. */
  readonly #dialled = new Set<RouterNumber>();
  readonly #privateKeys: readonly string[];
  /** Routers are being stopped: connections end because of that. */
  #stopping = false;

  constructor(recording: Recording, under: RouterNumber, seal: SleeveSeal | undefined) {
    this.#recording = recording;
    this.#under = under;
    this.#seal = seal;
    this.#privateKeys = privateKeysOf(recording, under);
  }

  addItem(item: RecordedItem): void {
    const { t, kind, dir, conn: connection = 0 } = item;
    if (kind === "EVENT") {
      this.#stopping ||= item.what!.startsWith("stop");
      return this.#add(t, { do: "event", what: item.what! });
    }
    const [from, to] = dir!.split("->") as [RouterNumber, RouterNumber];
    if (from !== this.#under && to !== this.#under) return;
    const router = from === this.#under ? to : from;
    const ours = from === router;
    if (kind === "tcp") return this.#addTcp(item, connection, router, ours);
    if (ours) this.#addSaid(item, connection);
    else this.#addExpected(item, connection);
  }

  #addTcp({ t, flags }: RecordedItem, connection: number, router: RouterNumber, ours: boolean): void {
    if (flags === "SYN") {
      if (!ours) this.#addReminder(t, router);
      this.#lines.set(connection, { router, introduced: false, refusable: false });
      return this.#add(t, { do: ours ? "dial" : "accept", connection, router });
    }
    if (!flags!.includes("RST")) return;
    const weClose = ours && !this.#mustEnd(this.#lines.get(connection)!);
    this.#lines.delete(connection);
    this.#add(t, weClose ? { do: "close", connection, router } : { do: "awaitEnd", connection });
  }

  /**
   * Whether the router under test ends a connection by its own decision, whoever was recorded to be faster: two that refuse each other both
   * close, and of two connections between the same routers both sides keep the same one.
   */
  #mustEnd(line: Line): boolean {
    return this.#recording.setting.passwords === undefined ? !this.#stopping : line.refusable;
  }

  /**
   * Recorded routers compete: told of an address with a port, they dial it again and again, connected or not. The router under test leaves
   * an address alone where it has found a peer that it is connected with, unless an operator begins anew.
   */
  #addReminder(t: number, router: RouterNumber): void {
    const isConnected = [...this.#lines.values()].some((line) => line.router === router);
    const [address] = addressesBetween(this.#recording, router, this.#under);
    const target = `${address}:${this.#recording.setting.port}`;
    if (isConnected && this.#dialled.has(router)) {
      this.#add(t, { do: "event", what: `router ${this.#under} told again to connect to ${target}` });
    }
    this.#dialled.add(router);
  }

  #addSaid(item: RecordedItem, connection: number): void {
    const line = this.#lines.get(connection)!;
    const isFeatures = item.decoded?.kind === "features";
    line.refusable ||= this.#refuses(item);
    if (item.kind === "message" && !isFeatures) this.#addSleeveBefore(item, connection, line);
    this.#add(item.t, { do: "say", connection, octets: Uint8Array.fromHex(item.hex ?? item.frame!) });
    if (item.kind === "message" && !isFeatures) this.#addPassedOn(item, connection);
  }

  /** Whether the router under test must refuse who says this: by its flag, or because it has another password. */
  #refuses(item: RecordedItem): boolean {
    const { passwords } = this.#recording.setting;
    if (passwords === undefined) return false;
    const bothHavePasswords = Object.values(passwords).every((password) => password !== null);
    return bothHavePasswords ? item.kind === "message" : item.kind.startsWith("encryption flag");
  }

  #addExpected(item: RecordedItem, connection: number): void {
    const line = this.#lines.get(connection)!;
    const expect = (said: string) => {
      const word = onConnection(connection, said);
      if (said.startsWith(OWN_RECORD)) this.#add(item.t, { do: "expectRecord", connection, word });
      else this.#expect(item.t, word);
    };
    if (item.hex !== undefined) {
      if (item.kind === "protocol header") return expect(`header ${HEADERS[item.hex] ?? item.hex}`);
      expect(`flag ${item.hex.slice(0, 2)}`);
      if (this.#privateKeys.length > 0) expect(`key ${item.hex.slice(2)}`);
      return;
    }
    if (item.decoded?.kind === "features") {
      line.introduced = true;
      return expect(describeFeatures(item.decoded.features!));
    }
    this.#addSleeveBefore(item, connection, line);
    for (const word of this.#expectedWords(messageOf(item), line.router)) expect(word);
  }

  #expectedWords(octets: Uint8Array, to: RouterNumber): string[] {
    const us = nameOf(this.#recording, this.#under);
    const message = decodeMessage(octets);
    switch (message.type) {
      case "overlayControl":
        return wordsOfMessage(octets, us);
      case "gossip": {
        if (message.channel !== "topology") return [];
        // Which version of its own record the other side is told depends on who was faster.
        const notOfReceiver = (word: string) => !word.startsWith(`peer ${formatMac(nameOf(this.#recording, to))} `);
        return wordsOfMessage(octets, us).filter(notOfReceiver);
      }
      case "unicast":
        return message.source === us ? [] : [wordOfRelayed(octets)];
      case "broadcast":
        return message.source === us ? [] : [wordOfRelayed(this.#broadcasts.get(broadcastKey(message))!)];
      default:
        return [];
    }
  }

  /** Gossip on a channel that the router under test does not know reaches its other neighbours; broadcasts are expected as recorded. */
  #addPassedOn(item: RecordedItem, connection: number): void {
    const octets = messageOf(item);
    const message = decodeMessage(octets);
    if (message.type === "broadcast") this.#broadcasts.set(broadcastKey(message), octets);
    if (message.type !== "gossip" || message.channel === "topology") return;
    const sender = nameOf(this.#recording, this.#under);
    const word = wordOfGossip(message.channel, sender, message.payload as Uint8Array);
    for (const [other, { introduced }] of this.#lines) {
      if (other !== connection && introduced) this.#expect(item.t, onConnection(other, word));
    }
  }

  /** Where only the control connections were recorded, sleeve is played by what they say of it. */
  #addSleeveBefore(item: RecordedItem, connection: number, { router }: Line): void {
    if (this.#recording.packets.length > 0) return;
    const message = decodeMessage(messageOf(item));
    if (message.type !== "overlayControl") return;
    const uid = connectionUid(this.#recording, connection);
    const { subTag, payload } = message;
    const octets = [
      heartbeatFrame(uid),
      fragmentationTestFrame(),
      probeFrame((payload[0] ?? 0) << 8 | (payload[1] ?? 0)),
    ][subTag - 1]!;
    const df = subTag !== 2;
    const [ours, theirs] = [nameOf(this.#recording, router), nameOf(this.#recording, this.#under)];
    if (item.dir!.startsWith(router)) {
      const word = wordOfFrame({ source: theirs, destination: ours, octets }, this.#frameContext(df));
      return this.#expect(item.t, byUdp(router, word));
    }
    const packet = makePacket(ours, [{ source: ours, destination: theirs, octets }]);
    this.#add(item.t, { do: "send", router, packet, df });
  }

  addPacket(packet: RecordedPacket): void {
    const [from, to] = packet.dir!.split("->") as [RouterNumber, RouterNumber];
    if (to === this.#under) {
      const octets = recordedPacket(packet, this.#sealOf(from));
      return this.#add(packet.t, { do: "send", router: from, packet: octets, df: packet.df });
    }
    if (from !== this.#under) return;
    for (const frame of recordedFrames(packet)) {
      if (isNeighbourTimer(frame.octets) && routerNamed(this.#recording, frame.source) === this.#under) continue;
      this.#expect(packet.t, byUdp(to, wordOfFrame(frame, this.#frameContext(packet.df))));
    }
  }

  /** What a router seals with: the side that made the connection uses other nonces. */
  #sealOf(router: RouterNumber): SleeveSeal | undefined {
    return this.#seal &&
      { ...this.#seal, outbound: router === this.#under ? this.#seal.outbound : !this.#seal.outbound };
  }

  #frameContext(df: boolean): FrameContext {
    return {
      df,
      speaker: nameOf(this.#recording, this.#under),
      containersAnswer: containersAnswer(this.#under),
    };
  }

  #expect(t: number, word: string): void {
    this.#add(t, { do: "expect", word });
  }

  #add(t: number, step: Step): void {
    this.steps.push({ t, step });
  }
}

/** In all recordings it is router 1's container that asks, and the others that answer. */
export function containersAnswer(router: RouterNumber): boolean {
  return router !== "1";
}

function broadcastKey({ channel, source }: { readonly channel: string; readonly source: PeerName }): string {
  return `${source} ${channel}`;
}

/** A container's kernel asks its neighbour, and not everybody, for an address that it knows already: when a timer says so. */
function isNeighbourTimer(octets: Uint8Array): boolean {
  const isArpRequest = octets.subarray(12, 14).toHex() === "0806" && octets[21] === 1;
  return isArpRequest && octets[0] !== 0xff;
}
