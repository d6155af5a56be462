/**
 * What two routers say to each other over the control connection, as values: the protocol header, the feature map and messages. Framing
 * and encryption are the session's.
 */
import type { PeerName } from "../lib/mac.ts";
import { decodeTopology, type PeerRecord } from "./topology.ts";

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
  /** To be ignored. */
  | { readonly type: "unknown"; readonly tag: number };

/** @param legacyOverlay the other side sent no overlays: overlay control goes out in the tags 1 to 3 */
export function encodeMessage(_message: Message, _legacyOverlay: boolean): Uint8Array {
  throw new Error("Not yet");
}

/**
 * Payloads are views of `octets`, and always octets: topology is decoded by whoever wants it (`topologyOf`). Throws WireError.
 */
export function decodeMessage(_octets: Uint8Array): Message {
  throw new Error("Not yet");
}

/** The records of a topology payload, in whichever form it came. Throws WireError. */
export function topologyOf(payload: Payload): readonly PeerRecord[] {
  return payload instanceof Uint8Array ? decodeTopology(payload) : payload;
}

/** The octets of the feature map. */
export function encodeFeatures(_features: Features): Uint8Array {
  throw new Error("Not yet");
}

/** Throws WireError where the map is malformed, ProtocolError where what it says is not acceptable. */
export function decodeFeatures(_octets: Uint8Array): Features {
  throw new Error("Not yet");
}

export const HEADER_OCTETS = 7;

/** Protocol versions that a side speaks, lowest and highest. */
export interface VersionRange {
  readonly min: number;
  readonly max: number;
}

export function encodeHeader(_range: VersionRange): Uint8Array {
  throw new Error("Not yet");
}

/** Throws ProtocolError unless the octets begin as a router's do. */
export function decodeHeader(_octets: Uint8Array): VersionRange {
  throw new Error("Not yet");
}

/** The version that both sides speak. Throws ProtocolError where there is none. */
export function negotiateVersion(_ours: VersionRange, _theirs: VersionRange): number {
  throw new Error("Not yet");
}
