/**
 * What a router says, as lines of text that can be compared: the meaning, without what differs from one run to the next (the order of
 * map entries, ephemeral ports, how often something is repeated or which of two versions of a record is told).
 */

import { decodeFeatureMap, decodeMessage, topologyOf } from "../../src/wire/control.ts";
import type { ConnectionRecord, PeerRecord } from "../../src/wire/topology.ts";
import { formatMac, type PeerName } from "../../src/lib/mac.ts";
import { describeSpecial, type SleeveFrame } from "./sleeve_packet.ts";

export function wordsOfFeatures(octets: Uint8Array): string {
  return describeFeatures(Object.fromEntries(decodeFeatureMap(octets)));
}

export function describeFeatures(features: Readonly<Record<string, string>>): string {
  return `features ${Object.entries(features).sort().map(([key, value]) => `${key}=${value}`).join(" ")}`;
}

/** @param speaker whose message it is */
export function wordsOfMessage(octets: Uint8Array, speaker: PeerName): string[] {
  const message = decodeMessage(octets);
  switch (message.type) {
    case "heartbeat":
      return [];
    case "overlayControl":
      return [`control ${octets.toHex()}`];
    case "gossip":
      if (message.channel === "topology" && message.sender === speaker) {
        return topologyOf(message.payload).map((record) => wordOfRecord(record, speaker));
      }
      return [wordOfGossip(message.channel, message.sender, message.payload as Uint8Array)];
    case "unicast":
    case "broadcast":
      return [wordOfRelayed(octets)];
    default:
      return [`message ${octets.toHex()}`];
  }
}

export function wordOfGossip(channel: string, sender: PeerName, payload: Uint8Array): string {
  return `gossip ${channel} of ${formatMac(sender)} ${payload.toHex()}`;
}

/** A unicast or a broadcast. */
export function wordOfRelayed(octets: Uint8Array): string {
  return `relayed ${octets.toHex()}`;
}

/** A speaker's own record is told by its connections: how many steps led to them is its own affair. */
export function wordOfRecord(record: PeerRecord, speaker: PeerName): string {
  if (record.name === speaker) return wordOfOwnRecord(record.connections);
  const { name, nickName, uid, version, shortId, connections } = record;
  const texts = connections.map((connection) => describeConnection(connection, connection.address)).sort();
  return `peer ${formatMac(name)} v${version} ${nickName} ${uid} ${shortId} [${texts.join(", ")}]`;
}

/** How the word of an own record begins. */
export const OWN_RECORD = "ourself [";

export function wordOfOwnRecord(connections: readonly ConnectionRecord[]): string {
  const texts = connections.map((connection) => describeConnection(connection, hostOf(connection))).sort();
  return `${OWN_RECORD}${texts.join(", ")}]`;
}

/** Where a connection was accepted, the port is ephemeral. */
function hostOf({ address, outbound }: ConnectionRecord): string {
  return outbound ? address : address.slice(0, address.indexOf(":"));
}

function describeConnection({ peer, outbound, established }: ConnectionRecord, address: string): string {
  return `${formatMac(peer)} ${address} ${outbound ? "outbound" : "inbound"}${established ? " established" : ""}`;
}

export interface FrameContext {
  /** The packet that carries it forbids fragments. */
  readonly df: boolean;
  readonly speaker: PeerName;
  /** The speaker's containers answer what is recorded, and so with the same data; otherwise they ask, with data of their own. */
  readonly containersAnswer: boolean;
}

/** IPv4 header in a frame (RFC 791 section 3.1). */
const IPV4 = { ethertype: 0x0800, at: 14, length: 16, flags: 20, source: 26, data: 34 };

export function wordOfFrame(frame: SleeveFrame, { df, speaker, containersAnswer }: FrameContext): string {
  const { source, destination, octets } = frame;
  const how = df ? "df" : "may be fragmented";
  const special = describeSpecial(frame);
  if (special !== undefined) return `${special}, ${how}`;
  const from = `${formatMac(source)} to ${formatMac(destination)}, ${how}`;
  const view = new DataView(octets.buffer, octets.byteOffset, octets.byteLength);
  if (source !== speaker || view.getUint16(12) !== IPV4.ethertype) return `frame ${from}: ${octets.toHex()}`;
  // The identification is whatever the container's kernel chose, and checksums go with it.
  const header = [
    octets.subarray(0, IPV4.at).toHex(),
    view.getUint16(IPV4.length),
    view.getUint16(IPV4.flags).toString(16),
    octets.subarray(IPV4.source, IPV4.data).toHex(),
  ];
  const data = octets.subarray(IPV4.data);
  return `packet ${from}: ${header.join(" ")} ${containersAnswer ? data.toHex() : `${data.length} octets`}`;
}
