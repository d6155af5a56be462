/**
 * What two routers say to each other over the control connection, as values: the protocol header, the feature map and messages. Framing
 * and encryption are the session's.
 *
 *     header     "weave" | u8 lowest version | u8 highest version
 *     features   gob map of string to string
 *     message    u8 tag | body                        nothing at all is as good as a heartbeat
 *
 *       0 heartbeat       -
 *     1-3 overlayControl  payload                     legacy form: the tag is the sub-tag, the overlay is the only one
 *       4 gossip          gob: string channel, uint sender, bytes payload
 *       5 unicast         gob: string channel, uint source, uint destination, bytes payload
 *       6 broadcast       gob: string channel, uint source, bytes payload
 *       7 overlayControl  u8 overlay | u8 sub-tag | payload
 *
 * Ours, between routers that both offer the extension; others ignore tags they do not know. All numbers are big-endian.
 *
 *      64 probe           u32 number                  extension "probe"
 *      65 probeAnswer     u32 number
 *      66 digest          u64 digest                  extension "digest"
 *      67 summary         { name 6 | u64 uid | u64 version } …
 *      68 want            { name 6 } …
 *      69 clock           u64 Unix milliseconds       to who said his clock when he introduced himself
 */
import { ProtocolError, WireError } from "../lib/errors.ts";
import { formatMac, parsePeerName, type PeerName, readMac, writeMac } from "../lib/mac.ts";
import { BYTES, decodeGob, encodeGob, GobReader, GobWriter, map, STRING, unsigned } from "./gob.ts";
import { decodeTopology, encodeTopology, type PeerRecord, SHORT_IDS } from "./topology.ts";

/** Longest message in either direction, sealed or not. */
export const MAX_MESSAGE_OCTETS = 10_485_760;

/** What each side says of itself before anything else. */
export interface Features {
  readonly name: PeerName;
  readonly nickName: string;
  readonly uid: bigint;
  /** This side's half of the connection's uid. */
  readonly connectionId: bigint;
  /** 0 to 4095. */
  readonly shortId: number | undefined;
  /** The sender has the other side's address in one of its trusted subnets. */
  readonly trusted: boolean;
  /** In order of preference; undefined from a legacy peer, which says sleeve control in the tags 1 to 3. */
  readonly overlays: readonly string[] | undefined;
  /** What only routers like ours know: "probe", "digest". Empty where the peer is another kind. */
  readonly extensions: readonly string[];
  /** The sender's wall clock when it said so, Unix milliseconds; only from routers like ours. */
  readonly wallClockMs?: number;
}

/** Octets, or topology as a value, which is encoded when it is sent and crosses as it is in the simulator. */
export type Payload = Uint8Array | readonly PeerRecord[];

export interface SummaryEntry {
  readonly name: PeerName;
  readonly uid: bigint;
  readonly version: bigint;
}

export type Message =
  /** Nothing but a sign of life; an empty message is read as one. */
  | { readonly type: "heartbeat" }
  /** `sender` put it on this connection. */
  | { readonly type: "gossip"; readonly channel: string; readonly sender: PeerName; readonly payload: Payload }
  | {
    readonly type: "unicast";
    readonly channel: string;
    readonly source: PeerName;
    readonly destination: PeerName;
    readonly payload: Uint8Array;
    /** The whole message as received: it is sent instead of the rest, so that what is relayed is not changed. */
    readonly raw?: Uint8Array;
  }
  | {
    readonly type: "broadcast";
    readonly channel: string;
    readonly source: PeerName;
    readonly payload: Payload;
    /** As in a unicast. Leave it out where the payload was made anew. */
    readonly raw?: Uint8Array;
  }
  /** `overlay` is the position in the list of common overlays. */
  | {
    readonly type: "overlayControl";
    readonly overlay: number;
    readonly subTag: number;
    readonly payload: Uint8Array;
  }
  /** Extension "probe": is anybody there? The number, 32 bits, comes back in the answer. */
  | { readonly type: "probe"; readonly number: number }
  | { readonly type: "probeAnswer"; readonly number: number }
  /** Extension "digest": the sender's whole topology in 64 bits. */
  | { readonly type: "digest"; readonly digest: bigint }
  /** Extension "digest": the sender's topology in short. */
  | { readonly type: "summary"; readonly entries: readonly SummaryEntry[] }
  /** Extension "digest": please send these records as gossip. */
  | { readonly type: "want"; readonly names: readonly PeerName[] }
  /** The sender's wall clock was set since it last said what it shows. */
  | { readonly type: "clock"; readonly wallClockMs: number }
  /** To be ignored. */
  | { readonly type: "unknown"; readonly tag: number };

const TAG = {
  heartbeat: 0,
  firstLegacyControl: 1,
  lastLegacyControl: 3,
  gossip: 4,
  unicast: 5,
  broadcast: 6,
  overlayControl: 7,
  probe: 64,
  probeAnswer: 65,
  digest: 66,
  summary: 67,
  want: 68,
  clock: 69,
} as const;

const PEER_NAME = unsigned(48);
const NAME_OCTETS = 6;
/** name 6 | uid 8 | version 8 */
const SUMMARY_OCTETS = 22;
/** Real ones have a dozen. */
const MAX_CHANNEL_OCTETS = 256;
/** 15 digits, in the year 33658: what text and numbers hold exactly. */
const MAX_CLOCK = 999_999_999_999_999n;

/**
 * The octets of a message; for one that has `raw`, those.
 * @param legacyOverlay the other side sent no overlays: overlay control goes out in the tags 1 to 3
 */
export function encodeMessage(message: Message, legacyOverlay: boolean): Uint8Array {
  switch (message.type) {
    case "heartbeat":
      return Uint8Array.of(TAG.heartbeat);
    case "gossip":
      return encodeGossip(TAG.gossip, message.channel, [message.sender], octetsOf(message.payload));
    case "unicast": {
      const { channel, source, destination, payload } = message;
      return message.raw ?? encodeGossip(TAG.unicast, channel, [source, destination], payload);
    }
    case "broadcast":
      return message.raw ??
        encodeGossip(TAG.broadcast, message.channel, [message.source], octetsOf(message.payload));
    case "overlayControl": {
      const { overlay, subTag, payload } = message;
      return concat(legacyOverlay ? [subTag] : [TAG.overlayControl, overlay, subTag], payload);
    }
    case "probe":
      return encodeNumbered(TAG.probe, message.number);
    case "probeAnswer":
      return encodeNumbered(TAG.probeAnswer, message.number);
    case "digest": {
      const octets = new Uint8Array(9);
      octets[0] = TAG.digest;
      viewOf(octets).setBigUint64(1, message.digest);
      return octets;
    }
    case "summary":
      return encodeSummary(message.entries);
    case "want": {
      const octets = new Uint8Array(1 + NAME_OCTETS * message.names.length);
      octets[0] = TAG.want;
      message.names.forEach((name, i) => writeMac(octets, 1 + NAME_OCTETS * i, name));
      return octets;
    }
    case "clock": {
      const octets = new Uint8Array(9);
      octets[0] = TAG.clock;
      viewOf(octets).setBigUint64(1, BigInt(Math.trunc(message.wallClockMs)));
      return octets;
    }
    case "unknown":
      return Uint8Array.of(message.tag);
    default:
      return message satisfies never;
  }
}

/** Octets around a payload: tag, four values, their lengths and types. */
const ENVELOPE_OCTETS = 64;

function encodeGossip(tag: number, channel: string, peers: readonly PeerName[], payload: Uint8Array): Uint8Array {
  const writer = new GobWriter(ENVELOPE_OCTETS + channel.length + payload.length);
  writer.uint(tag); // one octet, like every number below 128
  writer.write(STRING, channel);
  for (const peer of peers) writer.write(PEER_NAME, peer);
  writer.write(BYTES, payload);
  return writer.finish();
}

function encodeNumbered(tag: number, number: number): Uint8Array {
  const octets = new Uint8Array(5);
  octets[0] = tag;
  viewOf(octets).setUint32(1, number);
  return octets;
}

function encodeSummary(entries: readonly SummaryEntry[]): Uint8Array {
  const octets = new Uint8Array(1 + SUMMARY_OCTETS * entries.length);
  const view = viewOf(octets);
  octets[0] = TAG.summary;
  let at = 1;
  for (const { name, uid, version } of entries) {
    writeMac(octets, at, name);
    view.setBigUint64(at + 6, uid);
    view.setBigUint64(at + 14, version);
    at += SUMMARY_OCTETS;
  }
  return octets;
}

function octetsOf(payload: Payload): Uint8Array {
  return payload instanceof Uint8Array ? payload : encodeTopology(payload);
}

/**
 * Payloads are views of `octets`, and always octets: topology is decoded by whoever wants it (`topologyOf`). Throws WireError.
 */
export function decodeMessage(octets: Uint8Array): Message {
  if (octets.length === 0) return { type: "heartbeat" };
  const tag = octets[0]!;
  switch (tag) {
    case TAG.heartbeat:
      return { type: "heartbeat" };
    case TAG.gossip: {
      const { channel, peers: [sender], payload } = decodeGossip(octets, 1);
      return { type: "gossip", channel, sender: sender!, payload };
    }
    case TAG.unicast: {
      const { channel, peers: [source, destination], payload } = decodeGossip(octets, 2);
      return { type: "unicast", channel, source: source!, destination: destination!, payload, raw: octets };
    }
    case TAG.broadcast: {
      const { channel, peers: [source], payload } = decodeGossip(octets, 1);
      return { type: "broadcast", channel, source: source!, payload, raw: octets };
    }
    case TAG.overlayControl:
      if (octets.length < 3) throw malformed("overlay control", `at least 3 octets expected, is ${octets.length}`);
      return { type: "overlayControl", overlay: octets[1]!, subTag: octets[2]!, payload: octets.subarray(3) };
    case TAG.probe:
      return { type: "probe", number: decodeNumbered(octets) };
    case TAG.probeAnswer:
      return { type: "probeAnswer", number: decodeNumbered(octets) };
    case TAG.digest:
      if (octets.length !== 9) throw malformed("digest", `9 octets expected, is ${octets.length}`);
      return { type: "digest", digest: viewOf(octets).getBigUint64(1) };
    case TAG.summary:
      return { type: "summary", entries: decodeSummary(octets) };
    case TAG.want: {
      const names = Array.from({ length: countOf("want", octets, NAME_OCTETS) }, (_, i) => {
        return readMac(octets, 1 + NAME_OCTETS * i) as PeerName;
      });
      return { type: "want", names };
    }
    case TAG.clock: {
      if (octets.length !== 9) throw malformed("clock", `9 octets expected, is ${octets.length}`);
      const wallClockMs = viewOf(octets).getBigUint64(1);
      if (wallClockMs > MAX_CLOCK) throw malformed("clock", `at most ${MAX_CLOCK} expected, is ${wallClockMs}`);
      return { type: "clock", wallClockMs: Number(wallClockMs) };
    }
    default:
      if (tag >= TAG.firstLegacyControl && tag <= TAG.lastLegacyControl) {
        return { type: "overlayControl", overlay: 0, subTag: tag, payload: octets.subarray(1) };
      }
      return { type: "unknown", tag };
  }
}

/** What may follow the last value is passed over, as in Weave Net 2.8. */
function decodeGossip(octets: Uint8Array, peerCount: number) {
  const reader = new GobReader(octets.subarray(1));
  const next = () => {
    if (!reader.next()) throw malformed("gossip", "a value is missing");
  };
  next();
  const channel = reader.read(STRING);
  if (channel.length > MAX_CHANNEL_OCTETS) throw malformed("gossip", "the channel has too long a name");
  const peers: PeerName[] = [];
  for (let i = 0; i < peerCount; i++) {
    next();
    peers.push(reader.read(PEER_NAME) as PeerName);
  }
  next();
  return { channel, peers, payload: reader.read(BYTES) };
}

function decodeNumbered(octets: Uint8Array): number {
  if (octets.length !== 5) throw malformed("probe", `5 octets expected, is ${octets.length}`);
  return viewOf(octets).getUint32(1);
}

function decodeSummary(octets: Uint8Array): SummaryEntry[] {
  const view = viewOf(octets);
  return Array.from({ length: countOf("summary", octets, SUMMARY_OCTETS) }, (_, i) => {
    const at = 1 + SUMMARY_OCTETS * i;
    return {
      name: readMac(octets, at) as PeerName,
      uid: view.getBigUint64(at + 6),
      version: view.getBigUint64(at + 14),
    };
  });
}

/** How many entries follow the tag. */
function countOf(what: string, octets: Uint8Array, entryOctets: number): number {
  const count = (octets.length - 1) / entryOctets;
  if (!Number.isInteger(count)) {
    throw malformed(what, `entries of ${entryOctets} octets expected, ${octets.length - 1} follow`);
  }
  return count;
}

/** The records of a topology payload, in whichever form it came. Throws WireError. */
export function topologyOf(payload: Payload): readonly PeerRecord[] {
  return payload instanceof Uint8Array ? decodeTopology(payload) : payload;
}

const FEATURE_MAP = map(STRING, STRING);
const FLAVOUR = "mac";
const MAX_NICK_NAME_OCTETS = 4096;
/** An overlay's position in the common list has one octet. */
const MAX_OVERLAYS = 256;
const MAX_EXTENSIONS = 64;
const MAX_U64 = 2n ** 64n - 1n;

/** The octets of the feature map. */
export function encodeFeatures(features: Features): Uint8Array {
  const { shortId, overlays, extensions } = features;
  const entries: [string, string][] = [
    ["PeerNameFlavour", FLAVOUR],
    ["Name", formatMac(features.name)],
    ["NickName", features.nickName],
    ["UID", String(features.uid)],
    ["ConnID", String(features.connectionId)],
    ["Trusted", String(features.trusted)],
  ];
  if (shortId !== undefined) entries.push(["ShortID", String(shortId)]);
  if (overlays) entries.push(["Overlays", overlays.join(" ")]);
  if (extensions.length > 0) entries.push(["Extensions", extensions.join(" ")]);
  if (features.wallClockMs !== undefined) entries.push(["Clock", String(Math.trunc(features.wallClockMs))]);
  return encodeFeatureMap(entries);
}

/** The feature map as it is, in the order given. */
export function encodeFeatureMap(entries: readonly (readonly [string, string])[]): Uint8Array {
  return encodeGob(FEATURE_MAP, entries);
}

/** The feature map as it is, in its order; a key may come twice. Throws WireError. */
export function decodeFeatureMap(octets: Uint8Array): readonly (readonly [string, string])[] {
  return decodeGob(octets, FEATURE_MAP);
}

/** Throws WireError where the map is malformed, ProtocolError where what it says is not acceptable. */
export function decodeFeatures(octets: Uint8Array): Features {
  const given = new Map(decodeFeatureMap(octets));
  const required = (key: string) => {
    const value = given.get(key);
    if (value === undefined) throw new ProtocolError(`Cannot accept features: "${key}" is missing`);
    return value;
  };
  const flavour = required("PeerNameFlavour");
  if (flavour !== FLAVOUR) throw unacceptable("PeerNameFlavour", flavour);
  const shortId = given.get("ShortID");
  const overlays = given.get("Overlays");
  return {
    name: peerName(required("Name")),
    nickName: nickName(required("NickName")),
    uid: u64("UID", required("UID")),
    connectionId: u64("ConnID", required("ConnID")),
    shortId: shortId === undefined ? undefined : shortIdOf(shortId),
    trusted: boolean("Trusted", given.get("Trusted") ?? "false"),
    overlays: overlays === undefined ? undefined : words(overlays, MAX_OVERLAYS),
    extensions: words(given.get("Extensions") ?? "", MAX_EXTENSIONS),
    ...wallClock(given.get("Clock")),
  };
}

/** What is no time is not worth refusing a peer for. */
function wallClock(text: string | undefined): { wallClockMs?: number } {
  return text !== undefined && /^[0-9]{1,15}$/.test(text) ? { wallClockMs: Number(text) } : {};
}

/** 0 is nobody's name. */
function peerName(text: string): PeerName {
  const name = parsePeerName(text);
  if (!name) throw unacceptable("Name", text);
  return name;
}

function nickName(text: string): string {
  if (text.length > MAX_NICK_NAME_OCTETS) throw unacceptable("NickName", text);
  return text;
}

function u64(key: string, text: string): bigint {
  const value = /^[0-9]{1,40}$/.test(text) ? BigInt(text) : undefined;
  if (value === undefined || value > MAX_U64) throw unacceptable(key, text);
  return value;
}

function shortIdOf(text: string): number {
  const value = u64("ShortID", text);
  if (value >= SHORT_IDS) throw unacceptable("ShortID", text);
  return Number(value);
}

/** As Go reads one. */
function boolean(key: string, text: string): boolean {
  if (/^(1|t|T|TRUE|true|True)$/.test(text)) return true;
  if (/^(0|f|F|FALSE|false|False)$/.test(text)) return false;
  throw unacceptable(key, text);
}

function words(text: string, limit: number): string[] {
  return text.split(" ").filter((word) => word !== "").slice(0, limit);
}

/** How much of a wrong value an error quotes. */
const QUOTED_LENGTH = 64;

function unacceptable(key: string, value: string): ProtocolError {
  return new ProtocolError(`Cannot accept features: "${key}" is ${JSON.stringify(value.slice(0, QUOTED_LENGTH))}`);
}

const GREETING = "weave";
export const HEADER_OCTETS = 7;
/** The protocol version that is spoken here. */
export const PROTOCOL_VERSION = 2;

/** Protocol versions that a side speaks, lowest and highest. */
export interface VersionRange {
  readonly min: number;
  readonly max: number;
}

export function encodeHeader(range: VersionRange): Uint8Array {
  return concat(new TextEncoder().encode(GREETING), Uint8Array.of(range.min, range.max));
}

/** @param octets seven of them. Throws ProtocolError unless they begin as a router's do. */
export function decodeHeader(octets: Uint8Array): VersionRange {
  const greeting = octets.subarray(0, GREETING.length);
  if (String.fromCharCode(...greeting) !== GREETING) {
    throw new ProtocolError(`remote protocol header not recognised: [${greeting.join(" ")}]`);
  }
  return { min: octets[GREETING.length]!, max: octets[GREETING.length + 1]! };
}

/** The version that both sides speak. Throws ProtocolError where there is none. */
export function negotiateVersion(ours: VersionRange, theirs: VersionRange): number {
  const max = Math.min(ours.max, theirs.max);
  if (Math.max(ours.min, theirs.min) > max) {
    const range = ({ min, max }: VersionRange) => `[${min},${max}]`;
    throw new ProtocolError(`remote version range ${range(theirs)} is incompatible with ours ${range(ours)}`);
  }
  return max;
}

function concat(head: ArrayLike<number>, tail: Uint8Array): Uint8Array {
  const octets = new Uint8Array(head.length + tail.length);
  octets.set(head);
  octets.set(tail, head.length);
  return octets;
}

function viewOf(octets: Uint8Array): DataView {
  return new DataView(octets.buffer, octets.byteOffset, octets.byteLength);
}

function malformed(what: string, why: string): WireError {
  return new WireError(`Cannot read ${what}: ${why}`);
}
