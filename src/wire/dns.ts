/**
 * DNS messages (RFC 1035 section 4). What every query goes through is written by hand, on octets where they lie, and makes next to no
 * garbage; all that is rarer (odd messages, records in words, asking others) is dns-packet's, whose errors become WireError here.
 *
 *     header    id 16 | QR 1 opcode 4 AA TC RD | RA Z AD CD rcode 4 | counts of questions, answers, authorities, additionals 16 each
 *     question  name | type 16 | class 16
 *     record    name | type 16 | class 16 | TTL 32 | length 16 | data
 *     name      { length 8 | label } … 0; or, at the end of it, 0xc000 | offset of a name further in front
 *
 * Inside the program a name is a *key*: its labels with their lengths before them, a character an octet, ASCII letters in lower case, the
 * root's zero left out. Two names are equal where their keys are, and a name lies in a zone where its key ends with the zone's at a label.
 */
import { Buffer } from "node:buffer";
import { isIPv6 } from "node:net";
import packet from "dns-packet";
import { WireError } from "../lib/errors.ts";
import { formatIpv4, type Ipv4 } from "../lib/ip.ts";

export const TYPE = { A: 1, PTR: 12, TXT: 16, AAAA: 28, SRV: 33, OPT: 41 } as const;
export const CLASS = { IN: 1, ANY: 255 } as const;
export const RCODE = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 } as const;

/** Flags, as they stand in the header's second word. */
export const FLAG = { QR: 0x8000, AA: 0x0400, TC: 0x0200, RD: 0x0100, RA: 0x0080, CD: 0x0010 } as const;
const OPCODE = 0x7800;

export const HEADER_OCTETS = 12;
/** What TCP's length before a message can say. */
export const MAX_MESSAGE_OCTETS = 65_535;
/** What a client takes over UDP that says nothing else. */
export const PLAIN_UDP_OCTETS = 512;
/** More is not sent over UDP, whatever a client says it takes. */
export const MAX_UDP_OCTETS = 4096;

const MAX_NAME_OCTETS = 255;
const MAX_LABEL_OCTETS = 63;
/** Questions and records of a query that is not a plain one: there is no use for more. */
const MAX_ODD_RECORDS = 16;
/** An OPT record without options: root | type | size | extended rcode | version | flags | length. */
const OPT_OCTETS = 11;
/** A record that names what the question does: pointer | type | class | TTL | length. */
const RECORD_HEAD_OCTETS = 12;
/** The question's name stands right behind the header. */
const NAME_POINTER = 0xc000 | HEADER_OCTETS;

const ENCODER = new TextEncoder();
/** ASCII letters in lower case, everything else as it is. */
const LOWER = Uint8Array.from({ length: 256 }, (_, octet) => octet >= 65 && octet <= 90 ? octet + 32 : octet);

/** What is to be done with a message that came as a query. */
export type QueryKind =
  /** Answer it. */
  | "query"
  /** Nothing: it is too short, or itself an answer. */
  | "ignored"
  | "malformed"
  /** Another opcode than a query's. */
  | "notImplemented"
  /** A version of EDNS that nobody has. */
  | "badVersion";

/** A query, read where it lies. One object reads one after the other. */
export class Query {
  octets: Uint8Array = new Uint8Array();
  /** Where the message starts, and how long it is. */
  at = 0;
  length = 0;
  id = 0;
  flags = 0;
  questions = 0;
  /** Of the first question. */
  key = "";
  labels = 0;
  type = 0;
  class = 0;
  /** Octets from the message's start to the end of the first question. */
  questionEnd = 0;
  edns = false;
  /** What the client says it takes over UDP. */
  ednsOctets = 0;

  read(octets: Uint8Array, at: number, length: number): QueryKind {
    this.octets = octets;
    this.at = at;
    this.length = length;
    this.questionEnd = 0;
    this.edns = false;
    this.ednsOctets = 0;
    if (length < HEADER_OCTETS) return "ignored";
    this.id = octets[at]! << 8 | octets[at + 1]!;
    this.flags = octets[at + 2]! << 8 | octets[at + 3]!;
    if ((this.flags & FLAG.QR) !== 0) return "ignored";
    if ((this.flags & OPCODE) !== 0) return "notImplemented";
    this.questions = word(octets, at + 4);
    if (this.questions === 0 || !this.#readQuestion()) return "malformed";
    const plain = this.questions === 1 && word(octets, at + 6) === 0 && word(octets, at + 8) === 0;
    const additionals = word(octets, at + 10);
    if (plain && additionals === 0) return this.questionEnd === length ? "query" : "malformed";
    if (plain && additionals === 1 && this.#readOpt()) {
      return octets[at + this.questionEnd + 6] === 0 ? "query" : "badVersion";
    }
    return this.#readOdd();
  }

  /** Whether the first question's name is the zone's or lies below it. @param zone a key; not empty */
  isWithin(zone: string): boolean {
    return isWithin(this.key, zone);
  }

  #readQuestion(): boolean {
    const { octets } = this;
    const start = this.at + HEADER_OCTETS;
    const end = this.at + this.length;
    let labels = 0;
    let at = start;
    for (;;) {
      if (at >= end) return false;
      const length = octets[at]!;
      if (length === 0) break;
      // There is nothing in front that a pointer could mean.
      if (length > MAX_LABEL_OCTETS) return false;
      at += 1 + length;
      labels++;
    }
    if (at + 5 > end || at + 1 - start > MAX_NAME_OCTETS) return false;
    this.key = keyOf(octets, start, at);
    this.labels = labels;
    this.type = word(octets, at + 1);
    this.class = word(octets, at + 3);
    this.questionEnd = at + 5 - this.at;
    return true;
  }

  /** The usual one: an OPT record, and nothing behind it. */
  #readOpt(): boolean {
    const { octets, length } = this;
    const at = this.at + this.questionEnd;
    if (this.questionEnd + OPT_OCTETS > length || octets[at] !== 0 || word(octets, at + 1) !== TYPE.OPT) return false;
    if (this.questionEnd + OPT_OCTETS + word(octets, at + 9) !== length) return false;
    this.edns = true;
    this.ednsOctets = word(octets, at + 3);
    return true;
  }

  #readOdd(): QueryKind {
    const { octets, at, length } = this;
    let records = 0;
    for (let i = 4; i < HEADER_OCTETS; i += 2) records += word(octets, at + i);
    if (records > MAX_ODD_RECORDS) return "malformed";
    let opt: OptRecord | undefined;
    try {
      const { additionals } = decodeDns(octets.subarray(at, at + length));
      opt = additionals.find((record): record is OptRecord => record.type === "OPT");
    } catch (error) {
      if (error instanceof WireError) return "malformed";
      throw error;
    }
    if (opt === undefined) return "query";
    this.edns = true;
    this.ednsOctets = opt.udpPayloadSize;
    return opt.ednsVersion === 0 ? "query" : "badVersion";
  }
}

/** An answer being written. The query's header and question come first, then records; what does not fit is left out and said to be. */
export class Answer {
  /** Room for the largest that is asked for. */
  readonly octets: Uint8Array;
  #at = 0;
  #length = 0;
  #limit = 0;
  #records = 0;
  #edns = false;
  #extendedRcode = 0;

  constructor(octets: Uint8Array) {
    this.octets = octets;
  }

  /**
   * Begins with an answer that has no records yet.
   * @param at where in `octets`
   * @param limit octets that the client takes
   * @param flags those that are set beside QR and what comes from the query; the rcode among them
   */
  begin(query: Query, at: number, limit: number, flags: number): void {
    const { octets } = this;
    const question = query.questionEnd > 0 ? query.questionEnd : HEADER_OCTETS;
    this.#at = at;
    this.#limit = limit;
    this.#records = 0;
    this.#edns = query.edns;
    this.#extendedRcode = 0;
    copy(query.octets, query.at, octets, at, question);
    const word = FLAG.QR | query.flags & (OPCODE | FLAG.RD | FLAG.CD) | flags;
    octets[at + 2] = word >>> 8;
    octets[at + 3] = word;
    octets.fill(0, at + 4, at + HEADER_OCTETS);
    if (query.questionEnd > 0) octets[at + 5] = 1;
    this.#length = question;
  }

  /** Records that fit beside those that are there, each with so much data. */
  room(dataOctets: number): number {
    const left = this.#limit - this.#length - (this.#edns ? OPT_OCTETS : 0);
    return Math.max(0, Math.floor(left / (RECORD_HEAD_OCTETS + dataOctets)));
  }

  /** Adds a record of the name asked for, whether or not there is room. */
  addAddress(ttl: number, address: Ipv4): void {
    const at = this.#head(TYPE.A, ttl, 4);
    const { octets } = this;
    octets[at] = address >>> 24;
    octets[at + 1] = address >>> 16;
    octets[at + 2] = address >>> 8;
    octets[at + 3] = address;
  }

  /** As `addAddress()`, of any type. */
  add(type: number, ttl: number, data: Uint8Array): void {
    this.octets.set(data, this.#head(type, ttl, data.length));
  }

  /** Something was left out. */
  truncated(): void {
    this.octets[this.#at + 2]! |= FLAG.TC >>> 8;
  }

  /** An rcode above 15, which takes EDNS. */
  extendedRcode(rcode: number): void {
    this.octets[this.#at + 3]! |= rcode & 0xf;
    this.#extendedRcode = rcode >>> 4;
  }

  /** Ends it. @returns its length */
  end(): number {
    const { octets } = this;
    const start = this.#at;
    octets[start + 6] = this.#records >>> 8;
    octets[start + 7] = this.#records;
    if (this.#edns) {
      octets[start + 11] = 1;
      const at = start + this.#length;
      octets.fill(0, at, at + OPT_OCTETS);
      octets[at + 2] = TYPE.OPT;
      octets[at + 3] = MAX_UDP_OCTETS >>> 8;
      octets[at + 4] = MAX_UDP_OCTETS & 0xff;
      octets[at + 5] = this.#extendedRcode;
      this.#length += OPT_OCTETS;
    }
    return this.#length;
  }

  #head(type: number, ttl: number, dataOctets: number): number {
    const { octets } = this;
    const at = this.#at + this.#length;
    octets[at] = NAME_POINTER >>> 8;
    octets[at + 1] = NAME_POINTER & 0xff;
    octets[at + 2] = type >>> 8;
    octets[at + 3] = type;
    octets[at + 4] = 0;
    octets[at + 5] = CLASS.IN;
    octets[at + 6] = ttl >>> 24;
    octets[at + 7] = ttl >>> 16;
    octets[at + 8] = ttl >>> 8;
    octets[at + 9] = ttl;
    octets[at + 10] = dataOctets >>> 8;
    octets[at + 11] = dataOctets;
    this.#length += RECORD_HEAD_OCTETS + dataOctets;
    this.#records++;
    return at + RECORD_HEAD_OCTETS;
  }
}

// ── Names ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Whether a name is a zone's or lies below it, by their keys. */
export function isWithin(key: string, zone: string): boolean {
  if (!key.endsWith(zone)) return false;
  const boundary = key.length - zone.length;
  let start = 0;
  while (start < boundary) start += 1 + key.charCodeAt(start);
  return start === boundary;
}

/** The key of a name written with dots, the last of which may be missing; undefined where it is no name of DNS. */
export function parseName(text: string): string | undefined {
  const trimmed = text.endsWith(".") ? text.slice(0, -1) : text;
  if (trimmed === "") return "";
  let key = "";
  for (const label of trimmed.split(".")) {
    const octets = ENCODER.encode(label);
    if (octets.length === 0 || octets.length > MAX_LABEL_OCTETS) return undefined;
    key += String.fromCharCode(octets.length, ...octets.map((octet) => LOWER[octet]!));
  }
  return key.length + 1 > MAX_NAME_OCTETS ? undefined : key;
}

/** The octets of a name as a record's data holds it, letter case kept; undefined where it is no name of DNS. */
export function encodeName(text: string): Uint8Array | undefined {
  if (parseName(text) === undefined) return undefined;
  const labels = text.split(".").filter((label) => label !== "");
  const octets: number[] = [];
  for (const label of labels) {
    const encoded = ENCODER.encode(label);
    octets.push(encoded.length, ...encoded);
  }
  return Uint8Array.from([...octets, 0]);
}

const IN_ADDR_ARPA = parseName("in-addr.arpa")!;

/** The address that a reverse name means; undefined where it is none. */
export function reverseAddress(key: string): Ipv4 | undefined {
  if (!key.endsWith(IN_ADDR_ARPA)) return undefined;
  let address = 0;
  let factor = 1;
  let at = 0;
  for (let octet = 0; octet < 4; octet++) {
    const length = key.charCodeAt(at);
    const digits = key.slice(at + 1, at + 1 + length);
    if (length > 3 || !/^(?:0|[1-9]\d{0,2})$/.test(digits) || Number(digits) > 255) return undefined;
    address += Number(digits) * factor;
    factor *= 256;
    at += 1 + length;
  }
  return at === key.length - IN_ADDR_ARPA.length ? address : undefined;
}

/** `1.0.32.10.in-addr.arpa` of 10.32.0.1. */
export function reverseName(address: Ipv4): string {
  return `${formatIpv4(address).split(".").reverse().join(".")}.in-addr.arpa`;
}

/** Eight at a time, as one by one they would make a text for each. */
function keyOf(o: Uint8Array, start: number, end: number): string {
  let key = "";
  let i = start;
  for (; i + 8 <= end; i += 8) {
    key += String.fromCharCode(
      LOWER[o[i]!]!,
      LOWER[o[i + 1]!]!,
      LOWER[o[i + 2]!]!,
      LOWER[o[i + 3]!]!,
      LOWER[o[i + 4]!]!,
      LOWER[o[i + 5]!]!,
      LOWER[o[i + 6]!]!,
      LOWER[o[i + 7]!]!,
    );
  }
  for (; i < end; i++) key += String.fromCharCode(LOWER[o[i]!]!);
  return key;
}

// ── Records in words ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What a name may have beside IPv4 addresses. */
export interface WordRecord {
  readonly type: number;
  /** The one way it is written: `AAAA fd00::1`, `SRV 0 5 80 web.weave.local.`, `TXT hello`. */
  readonly text: string;
  /** Its data on the wire. */
  readonly data: Uint8Array;
}

const MAX_TEXT_OCTETS = 1024;
const MAX_STRING_OCTETS = 255;

/** Reads a record in words; undefined where it cannot be one. */
export function parseRecord(text: string): WordRecord | undefined {
  const [, type, rest] = /^(AAAA|SRV|TXT) ([^]+)$/i.exec(text) ?? [];
  switch (type?.toUpperCase()) {
    case "AAAA":
      return parseIpv6Record(rest!);
    case "SRV":
      return parseService(rest!);
    case "TXT":
      return parseText(rest!);
    default:
      return undefined;
  }
}

function parseIpv6Record(address: string): WordRecord | undefined {
  if (!/^[0-9a-f:.]{2,45}$/i.test(address) || !isIPv6(address)) return undefined;
  const data = recordData("AAAA", address);
  if (data?.length !== 16) return undefined;
  const again = decoded(() => packet.record("AAAA").decode(withLength(data)) as string);
  return { type: TYPE.AAAA, text: `AAAA ${again}`, data };
}

function parseService(text: string): WordRecord | undefined {
  const [, priority, weight, port, name] = /^(\d{1,5}) (\d{1,5}) (\d{1,5}) (\S+)$/.exec(text) ?? [];
  if (name === undefined || [priority, weight, port].some((number) => Number(number) > 65_535)) return undefined;
  if (parseName(name) === undefined) return undefined;
  const target = name.endsWith(".") ? name : `${name}.`;
  const numbers = { priority: Number(priority), weight: Number(weight), port: Number(port) };
  const data = recordData("SRV", { ...numbers, target });
  const words = `SRV ${numbers.priority} ${numbers.weight} ${numbers.port} ${target}`;
  return data && { type: TYPE.SRV, text: words, data };
}

function parseText(text: string): WordRecord | undefined {
  const octets = ENCODER.encode(text);
  if (octets.length > MAX_TEXT_OCTETS) return undefined;
  const strings: Buffer[] = [];
  for (let at = 0; at < octets.length; at += MAX_STRING_OCTETS) {
    strings.push(Buffer.from(octets.subarray(at, at + MAX_STRING_OCTETS)));
  }
  const data = recordData("TXT", strings);
  return data && { type: TYPE.TXT, text: `TXT ${text}`, data };
}

function recordData(type: string, value: unknown): Uint8Array | undefined {
  try {
    // Behind its length.
    return Uint8Array.from((packet.record(type).encode(value) as Uint8Array).subarray(2));
  } catch {
    return undefined;
  }
}

function withLength(data: Uint8Array): Buffer {
  return Buffer.from([data.length >>> 8, data.length, ...data]);
}

// ── Whole messages ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** As dns-packet has it, as far as we look. */
export interface DnsMessage {
  readonly id: number;
  readonly type: "query" | "response";
  readonly rcode: string;
  readonly flag_aa: boolean;
  readonly flag_ra: boolean;
  readonly flag_tc: boolean;
  readonly questions: readonly { readonly name: string; readonly type: string }[];
  readonly answers: readonly DnsRecord[];
  readonly authorities: readonly DnsRecord[];
  readonly additionals: readonly (DnsRecord | OptRecord)[];
}

export interface DnsRecord {
  readonly name: string;
  readonly type: string;
  readonly ttl?: number;
  readonly data?: unknown;
}

interface OptRecord extends DnsRecord {
  readonly type: "OPT";
  readonly udpPayloadSize: number;
  readonly ednsVersion: number;
}

const MIN_QUESTION_OCTETS = 5;
const MIN_RECORD_OCTETS = 11;

/** Throws WireError. No message takes more memory than its octets justify. */
export function decodeDns(octets: Uint8Array): DnsMessage {
  if (octets.length < HEADER_OCTETS) throw new WireError("Cannot read DNS message: it is too short");
  const questions = word(octets, 4);
  const records = word(octets, 6) + word(octets, 8) + word(octets, 10);
  if (HEADER_OCTETS + questions * MIN_QUESTION_OCTETS + records * MIN_RECORD_OCTETS > octets.length) {
    throw new WireError("Cannot read DNS message: it has fewer records than it says");
  }
  return decoded(() =>
    packet.decode(Buffer.from(octets.buffer, octets.byteOffset, octets.length)) as unknown as DnsMessage
  );
}

/** A copy with another id. */
export function withId(octets: Uint8Array, id: number): Uint8Array {
  const copied = octets.slice();
  copied[0] = id >>> 8;
  copied[1] = id;
  return copied;
}

/**
 * Whether these octets answer a query: they say that they do, have this id, and repeat its question.
 * @param questionEnd of the query's first question; further ones are not compared
 */
export function isAnswerTo(octets: Uint8Array, query: Uint8Array, id: number, questionEnd: number): boolean {
  if (octets.length < questionEnd || word(octets, 0) !== id) return false;
  if ((word(octets, 2) & (FLAG.QR | OPCODE)) !== FLAG.QR || word(octets, 4) !== word(query, 4)) return false;
  for (let i = HEADER_OCTETS; i < questionEnd; i++) if (LOWER[octets[i]!] !== LOWER[query[i]!]) return false;
  return true;
}

/** A query for one type of a name. */
export function encodeQuery(id: number, name: string, type: "A" | "PTR" | "AAAA" | "SRV" | "TXT" | "ANY"): Uint8Array {
  const additionals = [{ type: "OPT", name: ".", udpPayloadSize: MAX_UDP_OCTETS, flags: 0, options: [] }];
  return packet.encode({
    type: "query",
    id,
    flags: FLAG.RD,
    questions: [{ type, name }],
    additionals,
  }) as unknown as Uint8Array;
}

/** dns-packet throws whatever happens to it. */
function decoded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new WireError(`Cannot read DNS message: ${(error as Error).message.slice(0, 100)}`);
  }
}

function word(octets: Uint8Array, at: number): number {
  return octets[at]! << 8 | octets[at + 1]!;
}

/** A loop: for so few octets quicker than a view and `set()`. */
function copy(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, count: number): void {
  for (let i = 0; i < count; i++) to[toAt + i] = from[fromAt + i]!;
}
