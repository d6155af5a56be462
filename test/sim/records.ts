/** Short ways to say peers and records, and the records of the vectors. */
import { parseEndpoint } from "../../src/lib/ip.ts";
import type { Endpoint } from "../../src/lib/ip.ts";
import { formatMac, parsePeerName, type PeerName } from "../../src/lib/mac.ts";
import type { ConnectionRecord, PeerRecord } from "../../src/wire/topology.ts";

export interface VectorRecord {
  readonly name: string;
  readonly nickName: string;
  readonly uid: string;
  readonly version: string;
  readonly shortID: number;
  readonly hasShortID: boolean;
  readonly connections: readonly {
    readonly name: string;
    readonly remoteTCPAddr: string;
    readonly outbound: boolean;
    readonly established: boolean;
  }[];
}

export function readVector<T>(name: string): T {
  return JSON.parse(Deno.readTextFileSync(new URL(`../fixtures/vectors/${name}.json`, import.meta.url)));
}

export function peerName(text: string): PeerName {
  const name = parsePeerName(text);
  if (name === undefined) throw new Error(`No peer name: ${text}`);
  return name;
}

export function endpoint(text: string): Endpoint {
  const parsed = parseEndpoint(text);
  if (!parsed) throw new Error(`No endpoint: ${text}`);
  return parsed;
}

export function fromVector(record: VectorRecord): PeerRecord {
  return {
    name: peerName(record.name),
    nickName: record.nickName,
    uid: BigInt(record.uid),
    version: BigInt(record.version),
    shortId: record.hasShortID ? record.shortID : undefined,
    connections: record.connections.map(({ name, remoteTCPAddr, outbound, established }) => ({
      peer: peerName(name),
      address: remoteTCPAddr,
      outbound,
      established,
    })),
  };
}

/** In an order that does not depend on where records came from, for comparing. */
export function sorted(records: Iterable<PeerRecord>): PeerRecord[] {
  const byPeer = (a: ConnectionRecord, b: ConnectionRecord) => a.peer - b.peer;
  return [...records].map((record) => ({ ...record, connections: [...record.connections].sort(byPeer) }))
    .sort((a, b) => a.name - b.name);
}

export function names(peers: Iterable<PeerName>): string[] {
  return [...peers].sort((a, b) => a - b).map(formatMac);
}

/** A record with little in it. */
export function record(name: number, rest: Partial<PeerRecord> = {}): PeerRecord {
  return {
    name: name as PeerName,
    nickName: `peer${name}`,
    uid: BigInt(name) * 1000n + 1n,
    version: 1n,
    shortId: undefined,
    connections: [],
    ...rest,
  };
}

/** Connections to these peers, established unless said otherwise. */
export function connectionsTo(peers: readonly number[], rest: Partial<ConnectionRecord> = {}): ConnectionRecord[] {
  return peers.map((peer) => ({
    peer: peer as PeerName,
    address: `10.0.0.${peer % 256}:6783`,
    outbound: true,
    established: true,
    ...rest,
  }));
}
