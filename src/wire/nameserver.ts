/**
 * Payload of the channels that carry names: who (origin) says that a host name has an address. One gob stream with one value:
 *
 *     GossipData  Timestamp int (Unix seconds) | Entries slice of Entry
 *     Entry       ContainerID string | Origin uint | Addr uint | Hostname string | Version int | Tombstone int
 *
 * That is channel `nameserver` of Weave Net 2.8. On our own channel an entry says something else than an IPv4 address, in words, and
 * a router that is about to stop says so, and so does one that was told that another will not come back:
 *
 *     RecordData  Timestamp int | Entries slice of Record | Leaving uint | Removed uint
 *     Record      ContainerID string | Origin uint | Record string | Hostname string | Version int | Tombstone int
 *
 * A payload with ten thousand entries comes from each neighbour every half a minute, so it is written and read by hand; the schemas say
 * what, and give the definitions. An old router ends itself over a payload that holds the same identity twice: none of ours ever does.
 */
import { WireError } from "../lib/errors.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import {
  GobReader,
  GobWriter,
  INT,
  slice,
  STRING,
  struct,
  type StructSchema,
  type TypeIds,
  UINT,
  unsigned,
} from "./gob.ts";

/** What a name has: an IPv4 address, or on our own channel what `records.ts` can say in words, `TXT hello`. */
export type NameData = Ipv4 | string;

/** Its identity is all but version and tombstone, letter case included. Only its origin changes an entry. */
export interface NameEntry {
  /** As it was registered, with a dot at its end. */
  readonly hostname: string;
  readonly origin: PeerName;
  readonly containerId: string;
  readonly data: NameData;
  readonly version: number;
  /** 0, or Unix seconds since when it is no more. */
  readonly tombstone: number;
}

export interface NamePayload {
  /** When the payload was made, Unix seconds by its sender's clock. */
  readonly timestamp: number;
  /** No identity twice. */
  readonly entries: readonly NameEntry[];
  /** The life (uid) of a peer that says it leaves; 0n: none does. Our own channel's alone. */
  readonly leaving: bigint;
  /** A peer that is known not to come back. Our own channel's alone. */
  readonly removed?: PeerName;
}

export interface DecodedNames extends NamePayload {
  readonly removed: PeerName;
  /** Entries left out because no router could have meant them. */
  readonly refused: number;
}

/** `addresses`: channel `nameserver`. `records`: our own. */
export type NameKind = "addresses" | "records";

/** As many as a message of the largest size has room for. */
const MAX_ENTRIES = 262_144;
/** Names in DNS have 255 octets, ids of containers 64. */
const MAX_HOSTNAME_OCTETS = 1024;
const MAX_ID_OCTETS = 1024;
const MAX_RECORD_OCTETS = 4096;
const MAX_PEER = 2n ** 48n - 1n;

interface Format {
  readonly data: StructSchema;
  readonly entries: ReturnType<typeof slice>;
  readonly entry: StructSchema;
  readonly ids: TypeIds;
}

/** Fields of the outer struct, and of an entry, by their numbers. */
const TIMESTAMP = 0, ENTRIES = 1, LEAVING = 2, REMOVED = 3;
const CONTAINER = 0, ORIGIN = 1, DATA = 2, HOSTNAME = 3, VERSION = 4, TOMBSTONE = 5;

const FORMATS: Readonly<Record<NameKind, Format>> = { addresses: addressFormat(), records: recordFormat() };

function addressFormat(): Format {
  const entry = struct("Entry", {
    ContainerID: STRING,
    Origin: UINT,
    Addr: unsigned(32),
    Hostname: STRING,
    Version: INT,
    Tombstone: INT,
  });
  const entries = slice(entry, "Entries");
  const data = struct("GossipData", { Timestamp: INT, Entries: entries });
  return {
    data,
    entries,
    entry,
    ids: new Map<StructSchema | typeof entries, number>([[data, 65], [entry, 66], [entries, 67]]),
  };
}

function recordFormat(): Format {
  const entry = struct("Record", {
    ContainerID: STRING,
    Origin: UINT,
    Record: STRING,
    Hostname: STRING,
    Version: INT,
    Tombstone: INT,
  });
  const entries = slice(entry, "Records");
  const data = struct("RecordData", { Timestamp: INT, Entries: entries, Leaving: UINT, Removed: UINT });
  return {
    data,
    entries,
    entry,
    ids: new Map<StructSchema | typeof entries, number>([[data, 65], [entry, 66], [entries, 67]]),
  };
}

/** Text that two entries share only where they are the same one. */
export function identityOf({ hostname, origin, containerId, data }: NameEntry): string {
  return `${hostname}\0${origin.toString(36)}\0${containerId}\0${data}`;
}

/** The order of the wire. */
export function compareOnWire(a: NameEntry, b: NameEntry): number {
  if (a.hostname !== b.hostname) return a.hostname < b.hostname ? -1 : 1;
  if (a.origin !== b.origin) return a.origin - b.origin;
  if (a.containerId !== b.containerId) return a.containerId < b.containerId ? -1 : 1;
  return a.data === b.data ? 0 : a.data < b.data ? -1 : 1;
}

/** Of two versions of one entry the one that holds. */
export function newerOf(a: NameEntry, b: NameEntry): NameEntry {
  return b.version > a.version || b.version === a.version && b.tombstone > a.tombstone ? b : a;
}

/** @param ids for the types, as `nameIds()` read them: a test makes the same octets with them */
export function encodeNames(kind: NameKind, payload: NamePayload, ids?: TypeIds): Uint8Array {
  const format = FORMATS[kind];
  const entries = onceEach(payload.entries);
  const writer = new GobWriter(256 + 80 * entries.length, ids ?? format.ids);
  writer.define(format.data);
  const start = writer.begin(format.data);
  let before = -1;
  if (payload.timestamp !== 0) {
    writer.uint(TIMESTAMP - before);
    writer.int(payload.timestamp);
    before = TIMESTAMP;
  }
  if (entries.length > 0) {
    writer.uint(ENTRIES - before);
    writer.uint(entries.length);
    for (const entry of entries) writeEntry(writer, entry);
    before = ENTRIES;
  }
  if (payload.leaving !== 0n && kind === "records") {
    writer.uint(LEAVING - before);
    writer.bigUint(payload.leaving);
    before = LEAVING;
  }
  if (payload.removed && kind === "records") {
    writer.uint(REMOVED - before);
    writer.uint(payload.removed);
  }
  writer.uint(0);
  writer.end(start);
  return writer.finish();
}

/** A field that is zero is left out; steps are counted over it. */
function writeEntry(writer: GobWriter, entry: NameEntry): void {
  let before = -1;
  const step = (field: number) => {
    writer.uint(field - before);
    before = field;
  };
  if (entry.containerId !== "") {
    step(CONTAINER);
    writer.string(entry.containerId);
  }
  if (entry.origin !== 0) {
    step(ORIGIN);
    writer.uint(entry.origin);
  }
  if (typeof entry.data === "number" ? entry.data !== 0 : entry.data !== "") {
    step(DATA);
    if (typeof entry.data === "number") writer.uint(entry.data);
    else writer.string(entry.data);
  }
  if (entry.hostname !== "") {
    step(HOSTNAME);
    writer.string(entry.hostname);
  }
  if (entry.version !== 0) {
    step(VERSION);
    writer.int(entry.version);
  }
  if (entry.tombstone !== 0) {
    step(TOMBSTONE);
    writer.int(entry.tombstone);
  }
  writer.uint(0);
}

/** In the order of the wire, each identity once. */
function onceEach(entries: readonly NameEntry[]): readonly NameEntry[] {
  const sorted = [...entries].sort(compareOnWire);
  let kept = 0;
  for (const entry of sorted) {
    const last = sorted[kept - 1];
    if (last !== undefined && compareOnWire(last, entry) === 0) sorted[kept - 1] = newerOf(last, entry);
    else sorted[kept++] = entry;
  }
  sorted.length = kept;
  return sorted;
}

/** Throws WireError. */
export function decodeNames(kind: NameKind, octets: Uint8Array): DecodedNames {
  return new NamesReader(octets, FORMATS[kind]).read();
}

/** The type ids in a payload, for a test. Throws WireError. */
export function nameIds(kind: NameKind, octets: Uint8Array): TypeIds {
  const reader = new NamesReader(octets, FORMATS[kind]);
  reader.read();
  return reader.gob.ids;
}

class NamesReader {
  readonly gob: GobReader;
  readonly #format: Format;
  #entries: NameEntry[] = [];
  #refused = 0;

  constructor(octets: Uint8Array, format: Format) {
    this.gob = new GobReader(octets);
    this.#format = format;
  }

  read(): DecodedNames {
    const { gob } = this;
    if (!gob.next()) throw malformed("there is nothing");
    const id = gob.valueId;
    const fields = gob.fieldsOf(this.#format.data, id);
    let timestamp: number | undefined = 0;
    let leaving = 0n;
    let removed = 0n;
    for (let field = gob.readField(-1, fields.length); field >= 0; field = gob.readField(field, fields.length)) {
      switch (fields[field]) {
        case TIMESTAMP:
          timestamp = safe(gob.readInt());
          break;
        case ENTRIES:
          this.#readEntries(gob.typeOfField(id, field));
          break;
        case LEAVING:
          leaving = gob.readUint();
          break;
        case REMOVED:
          removed = gob.readUint();
          break;
        default:
          gob.skipField(id, field);
      }
    }
    if (gob.next()) throw malformed("there is more than one value");
    if (timestamp === undefined) throw malformed("its time is beyond all time");
    if (removed > MAX_PEER) throw malformed("no peer has such a name");
    const entries = this.#once();
    return { timestamp, entries, leaving, removed: Number(removed) as PeerName, refused: this.#refused };
  }

  #readEntries(sliceId: number): void {
    const { gob } = this;
    const id = gob.elementOf(this.#format.entries, sliceId);
    const fields = gob.fieldsOf(this.#format.entry, id);
    const count = gob.readCount();
    if (count > MAX_ENTRIES) throw malformed(`${count} entries`);
    for (let i = 0; i < count; i++) {
      const entry = this.#entry(id, fields);
      if (entry === undefined) this.#refused++;
      else this.#entries.push(entry);
    }
  }

  /** undefined where it is no entry that a router could have meant; whoever relayed it may be innocent. */
  #entry(id: number, fields: Int32Array): NameEntry | undefined {
    const { gob } = this;
    const texts = this.#format === FORMATS.records;
    let containerId: string | undefined = "";
    let origin = 0n;
    let data: NameData | undefined = texts ? undefined : 0;
    let hostname: string | undefined = "";
    let version: number | undefined = 0;
    let tombstone: number | undefined = 0;
    for (let field = gob.readField(-1, fields.length); field >= 0; field = gob.readField(field, fields.length)) {
      switch (fields[field]) {
        case CONTAINER:
          containerId = gob.readStringWithin(MAX_ID_OCTETS);
          break;
        case ORIGIN:
          origin = gob.readUint();
          break;
        case DATA:
          data = texts ? gob.readStringWithin(MAX_RECORD_OCTETS) : gob.readNumber(0xffff_ffff);
          break;
        case HOSTNAME:
          hostname = gob.readStringWithin(MAX_HOSTNAME_OCTETS);
          break;
        case VERSION:
          version = safe(gob.readInt());
          break;
        case TOMBSTONE:
          tombstone = safe(gob.readInt());
          break;
        default:
          gob.skipField(id, field);
      }
    }
    if (containerId === undefined || data === undefined || hostname === undefined) return undefined;
    if (version === undefined || tombstone === undefined || tombstone < 0 || origin > MAX_PEER) return undefined;
    return { hostname, origin: Number(origin) as PeerName, containerId, data, version, tombstone };
  }

  /** What came twice, be it because two malformed texts were read as one, is merged. */
  #once(): readonly NameEntry[] {
    const entries = this.#entries;
    let ordered = true;
    for (let i = 1; i < entries.length && ordered; i++) ordered = compareOnWire(entries[i - 1]!, entries[i]!) < 0;
    return ordered ? entries : onceEach(entries);
  }
}

/** Greater ones are nobody's count of changes, nor time: and one more must still be a number. */
function safe(value: bigint): number | undefined {
  const number = Number(value);
  return Math.abs(number) < Number.MAX_SAFE_INTEGER - 1 ? number : undefined;
}

function malformed(what: string): WireError {
  return new WireError(`Cannot read names: ${what}`);
}
