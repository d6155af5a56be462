/**
 * Payload of the topology channel: what each peer says of itself and of its connections. One gob stream, two values for each peer:
 *
 *     peerSummary        NameByte bytes 6 | NickName string | UID uint | Version uint | ShortID uint | HasShortID bool
 *     connectionSummary… NameByte bytes 6 | RemoteTCPAddr string | Outbound bool | Established bool
 *
 * A mesh says this all the time, so it is written and read by hand; the schemas say what, and give the definitions.
 */
import { WireError } from "../lib/errors.ts";
import { type PeerName, readMac, writeMac } from "../lib/mac.ts";
import { BOOL, BYTES, GobReader, GobWriter, slice, STRING, struct, type TypeIds, UINT, unsigned } from "./gob.ts";

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

/** Short ids have 12 bits. */
export const SHORT_IDS = 4096;

/** Peers in an update. Short ids end at 4,096 peers. */
const MAX_PEERS = 16_384;
/** Connections of one peer: one to each other, at most. */
const MAX_CONNECTIONS = MAX_PEERS;
const MAX_NICK_NAME_OCTETS = 4096;
/** `ip:port`, of whatever kind. */
const MAX_ADDRESS_OCTETS = 256;
const NAME_OCTETS = 6;

const SUMMARY = struct("peerSummary", {
  NameByte: BYTES,
  NickName: STRING,
  UID: UINT,
  Version: UINT,
  ShortID: unsigned(16),
  HasShortID: BOOL,
});
/** The summary's fields, by their numbers. */
const NAME = 0, NICK_NAME = 1, UID = 2, VERSION = 3, SHORT_ID = 4, HAS_SHORT_ID = 5;

const CONNECTION = struct("connectionSummary", {
  NameByte: BYTES,
  RemoteTCPAddr: STRING,
  Outbound: BOOL,
  Established: BOOL,
});
const PEER = 0, ADDRESS = 1, OUTBOUND = 2, ESTABLISHED = 3;

const CONNECTIONS = slice(CONNECTION);

/**
 * The octets of an update, in the order given.
 * @param ids for the types, as `topologyIds()` read them: a test makes the same octets with them
 */
export function encodeTopology(records: readonly PeerRecord[], ids: TypeIds = OUR_IDS): Uint8Array {
  const writer = new GobWriter(512 + 64 * records.length, ids);
  const name = new Uint8Array(NAME_OCTETS);
  for (const record of records) {
    writer.define(SUMMARY);
    const summary = writer.begin(SUMMARY);
    writeSummary(writer, record, name);
    writer.end(summary);
    writer.define(CONNECTIONS);
    const connections = writer.begin(CONNECTIONS);
    writer.uint(record.connections.length);
    for (const connection of record.connections) writeConnection(writer, connection, name);
    writer.end(connections);
  }
  return writer.finish();
}

/** As Go gives them where nothing else was encoded before. */
const OUR_IDS: TypeIds = new Map<(typeof SUMMARY) | (typeof CONNECTION) | (typeof CONNECTIONS), number>([
  [SUMMARY, 65],
  [CONNECTION, 66],
  [CONNECTIONS, 67],
]);

/** A field that is zero is left out; steps are counted over it. @param name room for six octets */
function writeSummary(writer: GobWriter, record: PeerRecord, name: Uint8Array): void {
  writer.uint(1);
  writeMac(name, 0, record.name);
  writer.bytes(name);
  let before = NAME;
  if (record.nickName !== "") {
    writer.uint(NICK_NAME - before);
    writer.string(record.nickName);
    before = NICK_NAME;
  }
  if (record.uid !== 0n) {
    writer.uint(UID - before);
    writer.bigUint(record.uid);
    before = UID;
  }
  if (record.version !== 0n) {
    writer.uint(VERSION - before);
    writer.bigUint(record.version);
    before = VERSION;
  }
  if (record.shortId) {
    writer.uint(SHORT_ID - before);
    writer.uint(record.shortId);
    before = SHORT_ID;
  }
  if (record.shortId !== undefined) {
    writer.uint(HAS_SHORT_ID - before);
    writer.uint(1);
  }
  writer.uint(0);
}

function writeConnection(writer: GobWriter, connection: ConnectionRecord, name: Uint8Array): void {
  writer.uint(1);
  writeMac(name, 0, connection.peer);
  writer.bytes(name);
  let before = PEER;
  if (connection.address !== "") {
    writer.uint(ADDRESS - before);
    writer.string(connection.address);
    before = ADDRESS;
  }
  if (connection.outbound) {
    writer.uint(OUTBOUND - before);
    writer.uint(1);
    before = OUTBOUND;
  }
  if (connection.established) {
    writer.uint(ESTABLISHED - before);
    writer.uint(1);
  }
  writer.uint(0);
}

/** The records of an update, in their order; a name may come twice. Throws WireError. */
export function decodeTopology(octets: Uint8Array): PeerRecord[] {
  return new TopologyReader(octets).read();
}

/** The type ids in an update, for a test. Throws WireError. */
export function topologyIds(octets: Uint8Array): TypeIds {
  const reader = new TopologyReader(octets);
  reader.read();
  return reader.gob.ids;
}

class TopologyReader {
  readonly gob: GobReader;
  /** Of the wire's structs by their ids: which of our fields is which of theirs. */
  readonly #summaries = new Map<number, Int32Array>();
  readonly #connections = new Map<number, Int32Array>();

  constructor(octets: Uint8Array) {
    this.gob = new GobReader(octets);
  }

  read(): PeerRecord[] {
    const records: PeerRecord[] = [];
    while (this.gob.next()) {
      if (records.length === MAX_PEERS) throw malformed(`more than ${MAX_PEERS} peers`);
      records.push(this.#record());
    }
    return records;
  }

  #record(): PeerRecord {
    const { gob } = this;
    const id = gob.valueId;
    let fields = this.#summaries.get(id);
    if (!fields) this.#summaries.set(id, fields = gob.fieldsOf(SUMMARY, id));
    let name = 0;
    let nickName = "";
    let uid = 0n;
    let version = 0n;
    let shortId = 0;
    let hasShortId = false;
    for (let field = gob.readField(-1, fields.length); field >= 0; field = gob.readField(field, fields.length)) {
      switch (fields[field]) {
        case NAME:
          name = readName(gob);
          break;
        case NICK_NAME:
          nickName = gob.readString(MAX_NICK_NAME_OCTETS);
          break;
        case UID:
          uid = gob.readUint();
          break;
        case VERSION:
          version = gob.readUint();
          break;
        case SHORT_ID:
          shortId = gob.readNumber(SHORT_IDS - 1);
          break;
        case HAS_SHORT_ID:
          hasShortId = gob.readBool();
          break;
        default:
          gob.skipField(id, field);
      }
    }
    if (name === 0) throw malformed("a peer has no name");
    if (!gob.next()) throw malformed("a peer has no list of connections");
    const connections = this.#readConnections();
    return {
      name: name as PeerName,
      nickName,
      uid,
      version,
      shortId: hasShortId ? shortId : undefined,
      connections,
    };
  }

  #readConnections(): ConnectionRecord[] {
    const { gob } = this;
    const id = gob.elementOf(CONNECTIONS, gob.valueId);
    let fields = this.#connections.get(id);
    if (!fields) this.#connections.set(id, fields = gob.fieldsOf(CONNECTION, id));
    const count = gob.readCount();
    if (count > MAX_CONNECTIONS) throw malformed(`${count} connections of one peer`);
    const connections: ConnectionRecord[] = [];
    for (let i = 0; i < count; i++) connections.push(this.#connection(id, fields));
    return withoutRepetition(connections);
  }

  #connection(id: number, fields: Int32Array): ConnectionRecord {
    const { gob } = this;
    let peer = 0;
    let address = "";
    let outbound = false;
    let established = false;
    for (let field = gob.readField(-1, fields.length); field >= 0; field = gob.readField(field, fields.length)) {
      switch (fields[field]) {
        case PEER:
          peer = readName(gob);
          break;
        case ADDRESS:
          address = gob.readString(MAX_ADDRESS_OCTETS);
          break;
        case OUTBOUND:
          outbound = gob.readBool();
          break;
        case ESTABLISHED:
          established = gob.readBool();
          break;
        default:
          gob.skipField(id, field);
      }
    }
    if (peer === 0) throw malformed("a connection leads to nobody");
    return { peer: peer as PeerName, address, outbound, established };
  }
}

function readName(gob: GobReader): number {
  const at = gob.readSpan();
  if (gob.octetsRead !== NAME_OCTETS) throw malformed(`a name has ${gob.octetsRead} octets`);
  return readMac(gob.octets, at);
}

/** Up to here comparing each with each is quickest. */
const FEW_CONNECTIONS = 12;

/** Of several connections to one peer the last counts, as in Weave Net 2.8; peers of ours never say two. */
function withoutRepetition(connections: ConnectionRecord[]): ConnectionRecord[] {
  if (connections.length <= FEW_CONNECTIONS && !repeats(connections)) return connections;
  return [...new Map(connections.map((connection) => [connection.peer, connection])).values()];
}

function repeats(connections: readonly ConnectionRecord[]): boolean {
  for (let i = 1; i < connections.length; i++) {
    const { peer } = connections[i]!;
    for (let j = 0; j < i; j++) if (connections[j]!.peer === peer) return true;
  }
  return false;
}

function malformed(what: string): WireError {
  return new WireError(`Cannot read topology: ${what}`);
}
