/**
 * Payload of the topology channel: what each peer says of itself and of its connections, as a gob stream.
 */
import type { PeerName } from "../lib/mac.ts";

/** A connection as its owner sees it. */
export interface ConnectionRecord {
  /** The other end. */
  readonly peer: PeerName;
  /** `ip:port` of the other end, as on the wire: dialled, or the ephemeral port of an accepted connection. */
  readonly address: string;
  /** The owner of the record made the connection. */
  readonly outbound: boolean;
  /** Its overlay is up, as the owner sees it. */
  readonly established: boolean;
}

/** What is known of a peer. Immutable: a change makes a new one, so that records may be shared. */
export interface PeerRecord {
  readonly name: PeerName;
  readonly nickName: string;
  /** 0 in a placeholder: a peer known only as the far end of somebody's connection. */
  readonly uid: bigint;
  readonly version: bigint;
  /** 0 to 4095; undefined where the peer has none. */
  readonly shortId: number | undefined;
  /** No two to the same peer. */
  readonly connections: readonly ConnectionRecord[];
}

/** The octets of an update, in the order given. */
export function encodeTopology(_records: readonly PeerRecord[]): Uint8Array {
  throw new Error("Not yet");
}

/** The records of an update, in their order; a name may come twice. Throws WireError. */
export function decodeTopology(_octets: Uint8Array): PeerRecord[] {
  throw new Error("Not yet");
}
