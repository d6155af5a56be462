/**
 * What gateways tell each other about services, on the channel `weave-services`: JSON, checked field by field, of which nothing is
 * believed that is not checked; fields that are not known are passed over.
 *
 *     heads    { type, by, heads: [[owner, life, seq, check], …] }      how far a peer knows each owner's records
 *     want     { type, owner, life, since, check }                      I have this much: tell me what changed after it
 *     records  { type, owner, life, since, seq, check?, full?, last?, records: [[seq, key] | [seq, record], …] }
 *     forget   { type, owner, life }                                    the owner will not come back
 *
 * Peers are written as `aa:bb:cc:dd:ee:ff`, addresses, subnets and ports as people write them.
 */
import { WireError } from "../lib/errors.ts";
import {
  broadcastOf,
  type Cidr,
  cidrContains,
  formatCidr,
  formatIpv4,
  type Ipv4,
  networkOf,
  parseCidr,
  parseIpv4,
} from "../lib/ip.ts";
import type { Json, JsonObject } from "../lib/json.ts";
import { formatMac, parsePeerName, type PeerName } from "../lib/mac.ts";
import { isNetworkName } from "../lib/network_name.ts";
import {
  formatPortRange,
  MAX_PORT,
  parsePortRange,
  portCount,
  type PortRange,
  portsOverlap,
  samePorts,
} from "../lib/ports.ts";

/** A backend: where a service really is, and which of the service's ports it serves. */
export interface Backend {
  /** An address of `network`, or a DNS name: of a container where it lies in the DNS domain, else as the gateway's host resolves it. */
  readonly host: Ipv4 | string;
  /** `host`, `weave`, or a named one of the owner. */
  readonly network: string;
  /** One of the service's port ranges. */
  readonly serves: PortRange;
  /** What its first port is here; the others keep their distance to it. */
  readonly firstPort: number;
  /** Lower is better, 0 to 255. */
  readonly priority: number;
  /** 1 to 256. */
  readonly weight: number;
}

/** How a backend is found to be healthy. */
export interface CheckSpec {
  readonly kind: "tcp" | "udp" | "http" | "none";
  /** Of `http`: the path; of `udp`: what is sent. Empty for others. */
  readonly payload: string;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** How many successes in a row make it healthy, how many failures ill. */
  readonly rise: number;
  readonly fall: number;
}

/** `draining`: no new flows; `revoked`: no flows at all, those there were are reset. */
export type ImportState = "active" | "draining" | "revoked";

/** What the user asked for. */
export interface ImportSpec {
  /** One DNS label in lower case. */
  readonly name: string;
  /** Of backends for which nothing else is said. */
  readonly network: string;
  /** Not empty, none overlaps another. */
  readonly ports: readonly PortRange[];
  /** Not empty. */
  readonly backends: readonly Backend[];
  readonly check: CheckSpec;
  /** Of this gateway: lower is better, 0 to 255. */
  readonly priority: number;
  /** Of this gateway, 1 to 256. */
  readonly weight: number;
  /** Where it is offered; empty: in the default subnet of the gateway. */
  readonly subnets: readonly Cidr[];
  readonly allowLocal: boolean;
  readonly state: ImportState;
}

/** Where a service can be seen in a subnet. */
export interface Offer {
  readonly subnet: Cidr;
  /** The virtual address that the owner proposes; see `virtualAddresses()`. */
  readonly address: Ipv4;
  /** Unix milliseconds: when this address was first proposed, by whomever. */
  readonly since: number;
  /** Where other gateways reach the owner's backends, with the service's own ports; undefined while nobody needs it. */
  readonly relay: Ipv4 | undefined;
}

export type BackendHealth = "up" | "down" | "unknown";

/** An address that a gateway answers for. */
export interface Held {
  readonly address: Ipv4;
  /** There are flows through it: whoever holds it keeps it. */
  readonly flows: boolean;
}

export interface ImportStatus {
  /** Of each backend, in the order of `spec.backends`. */
  readonly health: readonly BackendHealth[];
  /** Virtual addresses that the owner answers for. */
  readonly holding: readonly Held[];
}

export interface ImportRecord {
  readonly kind: "import";
  readonly spec: ImportSpec;
  readonly offers: readonly Offer[];
  readonly status: ImportStatus;
}

/** Where clients of a network find a service. */
export interface Listen {
  /** `own`: every address of the gateway in that network. */
  readonly address: Ipv4 | "own";
  readonly ports: PortRange;
}

/** What the user asked for. */
export interface ExportSpec {
  /** A service's name, or the DNS name of a container in the domain, with dots, without a dot at its end. */
  readonly name: string;
  /** The service's first port, of the protocol that `listen` has; undefined: its only range of that protocol. */
  readonly port: number | undefined;
  /** `host`, or a named one. */
  readonly network: string;
  readonly listen: Listen;
  /** Sources that may use it; undefined: all. */
  readonly allow: readonly Cidr[] | undefined;
  /** The name is answered with the address on that network. */
  readonly dns: boolean;
  /** Also where the host itself listens. */
  readonly force: boolean;
}

export interface ExportStatus {
  /** Some target is healthy: the owner can answer. */
  readonly ready: boolean;
  /** Where `listen.address` is nobody's own: the owner answers for it. */
  readonly holding: Held | undefined;
}

export interface ExportRecord {
  readonly kind: "export";
  readonly spec: ExportSpec;
  readonly status: ExportStatus;
}

export type ServiceRecord = ImportRecord | ExportRecord;

/** Which of an owner's records: `import NAME`, or `export NAME NETWORK LISTEN`. */
export type RecordKey = string;

export function keyOf(record: ServiceRecord): RecordKey {
  const { kind, spec } = record;
  if (kind === "import") return `import ${spec.name}`;
  return `export ${spec.name} ${spec.network} ${formatListen(spec.listen)}`;
}

/** `[ADDRESS:]PORT[-PORT][/udp]`, as `--listen` takes it. */
export function formatListen({ address, ports }: Listen): string {
  return `${address === "own" ? "" : `${formatIpv4(address)}:`}${formatPortRange(ports)}`;
}

/** What a peer may say in one message, and with one record. */
export const MAX_MESSAGE_OCTETS = 256 * 1024;
export const MAX_RECORD_OCTETS = 32 * 1024;
/** Lives, sequence numbers and times. */
export const MAX_NUMBER = 2 ** 52;
const MAX_CHECK = 0xffff_ffff;
/** Owners in one message. */
export const MAX_HEADS = 2_000;

export const MAX_PORT_RANGES = 32;
export const MAX_BACKENDS = 64;
export const MAX_SUBNETS = 16;
export const MAX_ALLOWED = 256;
export const MAX_PRIORITY = 255;
export const MAX_WEIGHT = 256;
export const MAX_PAYLOAD = 512;
export const MIN_INTERVAL_MS = 100;
export const MAX_INTERVAL_MS = 3_600_000;
export const MAX_COUNT = 100;

/** How far somebody knows an owner's records. */
export interface Head {
  readonly owner: PeerName;
  /** Greater than before when the owner begins anew. */
  readonly life: number;
  /** Of the last change. */
  readonly seq: number;
  /** `checkOf()` all live records. */
  readonly check: number;
}

export interface Numbered {
  readonly seq: number;
  readonly key: RecordKey;
  /** Undefined: it was removed. */
  readonly record: ServiceRecord | undefined;
  /** Of its JSON. */
  readonly octets: number;
}

export interface RecordsMessage {
  readonly type: "records";
  readonly owner: PeerName;
  readonly life: number;
  /** It has what changed after `since` up to `seq`. */
  readonly since: number;
  readonly seq: number;
  /** Of all live records at `seq`; undefined: not known at this point. */
  readonly check: number | undefined;
  /** It has everything there is, up to `seq`: begins at `since` 0, and goes on in further messages up to the `last`. */
  readonly full: boolean;
  readonly last: boolean;
  /** Ascending by number. */
  readonly records: readonly Numbered[];
  /** What was not well formed. */
  readonly refused: readonly { readonly what: string; readonly reason: string }[];
}

export type ServiceMessage =
  /** `by` whom: gossip comes from who passes it on. */
  | { readonly type: "heads"; readonly by: PeerName; readonly heads: readonly Head[] }
  /** Life 0: everything is wanted. */
  | {
    readonly type: "want";
    readonly owner: PeerName;
    readonly life: number;
    readonly since: number;
    readonly check: number;
  }
  | { readonly type: "forget"; readonly owner: PeerName; readonly life: number }
  | RecordsMessage;

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { fatal: true });

/** What one record adds to `Head.check`, to be combined by exclusive or. */
export function checkOf(key: RecordKey, seq: number): number {
  const text = `${seq} ${key}`;
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  // Of numbers that differ in the last place alone, the upper half differs too.
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
  return (hash ^ hash >>> 13) >>> 0;
}

export function encodeHeads(by: PeerName, heads: readonly Head[]): Uint8Array[] {
  const payloads: Uint8Array[] = [];
  for (let at = 0; at < heads.length; at += MAX_HEADS) {
    const some = heads.slice(at, at + MAX_HEADS);
    payloads.push(encode({
      type: "heads",
      by: formatMac(by),
      heads: some.map(({ owner, life, seq, check }) => [formatMac(owner), life, seq, check]),
    }));
  }
  return payloads;
}

/** Asks for what comes after what we have. */
export function encodeWant({ owner, life, seq, check }: Head): Uint8Array {
  return encode({ type: "want", owner: formatMac(owner), life, since: seq, check });
}

export function encodeForget(owner: PeerName, life: number): Uint8Array {
  return encode({ type: "forget", owner: formatMac(owner), life });
}

/** What is to be told of an owner. */
export type Telling = Omit<RecordsMessage, "type" | "last" | "refused">;

/** In messages of a bearable size. */
export function encodeRecords(o: Telling): Uint8Array[] {
  const { life, seq, check, full } = o;
  const payloads: Uint8Array[] = [];
  let { since } = o;
  let texts: string[] = [];
  let octets = 0;
  const close = (upTo: number, last: boolean) => {
    const head = {
      type: "records",
      owner: formatMac(o.owner),
      life,
      since,
      seq: upTo,
      ...last && check !== undefined ? { check } : {},
      ...full ? { full, last } : {},
    };
    payloads.push(ENCODER.encode(`${JSON.stringify(head).slice(0, -1)},"records":[${texts.join(",")}]}`));
    [since, texts, octets] = [upTo, [], 0];
  };
  let previous = since;
  for (const { seq, key, record } of o.records) {
    const text = JSON.stringify([seq, record === undefined ? key : encodeRecord(record)]);
    // A character has three octets at most.
    const size = ASCII.test(text) ? text.length : 3 * text.length;
    if (texts.length > 0 && octets + size > CHUNK_OCTETS && seq > previous) close(previous, false);
    texts.push(text);
    octets += size;
    previous = seq;
  }
  close(seq, true);
  return payloads;
}

/** So much is put into one message, by a cautious count. */
const CHUNK_OCTETS = MAX_MESSAGE_OCTETS - 3 * MAX_RECORD_OCTETS - 1024;
const ASCII = /^[\0-\x7f]*$/;

/** Throws WireError. */
export function decodeService(octets: Uint8Array): ServiceMessage {
  if (octets.length > MAX_MESSAGE_OCTETS) {
    throw new WireError(`Cannot read services: ${octets.length} octets, at most ${MAX_MESSAGE_OCTETS} may be`);
  }
  const message = fields(parseJson(octets), "message");
  const { type } = message;
  switch (type) {
    case "heads":
      return {
        type,
        by: peer(message["by"]),
        heads: list(message["heads"], "heads", MAX_HEADS).map(checkHead),
      };
    case "want":
      return {
        type,
        owner: peer(message["owner"]),
        life: count(message, "life"),
        since: count(message, "since"),
        check: whole(message["check"], "check", 0, MAX_CHECK),
      };
    case "forget":
      return { type, owner: peer(message["owner"]), life: count(message, "life") };
    case "records":
      return checkRecords(message);
    default:
      throw new WireError(`Cannot read services: ${quoted(type)} is no type of message`);
  }
}

/** As JSON says it. */
export function encodeRecord(record: ServiceRecord): JsonObject {
  return record.kind === "import" ? encodeImport(record) : encodeExport(record);
}

/** From parsed JSON. Throws WireError. */
export function checkRecord(value: unknown): ServiceRecord {
  const raw = fields(value, "record");
  switch (raw["kind"]) {
    case "import":
      return checkImport(raw);
    case "export":
      return checkExport(raw);
    default:
      throw new WireError(`${quoted(raw["kind"])} is no kind of record`);
  }
}

/** A service's name: one DNS label in lower case. */
export function isServiceName(text: string): boolean {
  return /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(text);
}

/** A host's name in DNS, in lower case and without a dot at its end; no address. */
export function isHostName(text: string): boolean {
  return text.length <= 253 && /[a-z]/.test(text) &&
    /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*$/.test(text);
}

/** An address that a single host can have. */
export function isHostAddress(address: Ipv4): boolean {
  return address >>> 24 !== 0 && address < 0xe000_0000;
}

/** An address that a host can have in that subnet. */
export function isHostOf(subnet: Cidr, address: Ipv4): boolean {
  if (!cidrContains(subnet, address) || !isHostAddress(address)) return false;
  return subnet.prefixLength > 30 || address !== networkOf(subnet) && address !== broadcastOf(subnet);
}

// Imports

function encodeImport({ spec, offers, status }: ImportRecord): JsonObject {
  const { name, network, ports, backends, check, priority, weight, subnets, allowLocal, state } = spec;
  return {
    kind: "import",
    name,
    network,
    ports: ports.map(formatPortRange),
    backends: backends.map((backend) => encodeBackend(backend, ports)),
    check: encodeCheck(check),
    ...priority === 0 ? {} : { priority },
    ...weight === 1 ? {} : { weight },
    ...subnets.length === 0 ? {} : { subnets: subnets.map(formatCidr) },
    ...allowLocal ? { local: true } : {},
    ...state === "active" ? {} : { state },
    offers: offers.map(({ subnet, address, since, relay }) => [
      formatCidr(subnet),
      formatIpv4(address),
      since,
      ...relay === undefined ? [] : [formatIpv4(relay)],
    ]),
    health: status.health.map((health) => LETTER_OF[health]).join(""),
    ...status.holding.length === 0 ? {} : { holding: status.holding.map(encodeHeld) },
  };
}

/** [host, network, place of what it serves, first port, priority?, weight?] */
function encodeBackend({ host, network, serves, firstPort, priority, weight }: Backend, ports: readonly PortRange[]) {
  const place = ports.findIndex((range) => samePorts(range, serves));
  const rest = weight !== 1 ? [priority, weight] : priority !== 0 ? [priority] : [];
  return [typeof host === "number" ? formatIpv4(host) : host, network, place, firstPort, ...rest];
}

function encodeCheck({ kind, payload, intervalMs, timeoutMs, rise, fall }: CheckSpec): Json {
  return [kind, intervalMs, timeoutMs, rise, fall, ...payload === "" ? [] : [payload]];
}

function encodeHeld({ address, flows }: Held): Json {
  return [formatIpv4(address), flows];
}

function checkImport(raw: Fields): ImportRecord {
  const ports = list(raw["ports"], "ports", MAX_PORT_RANGES, 1).map(checkPorts);
  if (ports.some((a, i) => ports.some((b, j) => i < j && portsOverlap(a, b)))) {
    throw new WireError("ports overlap each other");
  }
  const backends = list(raw["backends"], "backends", MAX_BACKENDS, 1).map((item) => checkBackend(item, ports));
  const spec: ImportSpec = {
    name: checkName(raw["name"]),
    network: checkNetwork(raw["network"]),
    ports,
    backends,
    check: checkCheck(raw["check"]),
    priority: whole(raw["priority"] ?? 0, "priority", 0, MAX_PRIORITY),
    weight: whole(raw["weight"] ?? 1, "weight", 1, MAX_WEIGHT),
    subnets: list(raw["subnets"] ?? [], "subnets", MAX_SUBNETS).map(checkCidr),
    allowLocal: flag(raw["local"] ?? false, "local"),
    state: oneOf(raw["state"] ?? "active", "state", ["active", "draining", "revoked"]),
  };
  const offers = list(raw["offers"], "offers", MAX_SUBNETS).map(checkOffer);
  if (new Set(offers.map(({ subnet }) => formatCidr(subnet))).size < offers.length) {
    throw new WireError("a subnet is offered twice");
  }
  return { kind: "import", spec, offers, status: checkImportStatus(raw, backends.length) };
}

function checkBackend(value: unknown, ports: readonly PortRange[]): Backend {
  const [host, network, place, firstPort, priority = 0, weight = 1] = list(value, "backend", 6, 4);
  const serves = ports[whole(place, "backend", 0, ports.length - 1)]!;
  return {
    host: checkHost(host),
    network: checkNetwork(network),
    serves,
    firstPort: whole(firstPort, "port of a backend", 1, MAX_PORT + 1 - portCount(serves)),
    priority: whole(priority, "priority of a backend", 0, MAX_PRIORITY),
    weight: whole(weight, "weight of a backend", 1, MAX_WEIGHT),
  };
}

function checkHost(value: unknown): Ipv4 | string {
  const host = text(value, "host of a backend", 253);
  const address = parseIpv4(host);
  if (address !== undefined ? !isHostAddress(address) : !isHostName(host)) {
    throw new WireError(`${quoted(host)} is no host of a backend`);
  }
  return address ?? host;
}

function checkCheck(value: unknown): CheckSpec {
  const [kind, intervalMs, timeoutMs, rise, fall, payload = ""] = list(value, "check", 6, 5);
  return {
    kind: oneOf(kind, "kind of check", ["tcp", "udp", "http", "none"]),
    payload: text(payload, "payload", MAX_PAYLOAD),
    intervalMs: whole(intervalMs, "interval", MIN_INTERVAL_MS, MAX_INTERVAL_MS),
    timeoutMs: whole(timeoutMs, "timeout", 1, MAX_INTERVAL_MS),
    rise: whole(rise, "rise", 1, MAX_COUNT),
    fall: whole(fall, "fall", 1, MAX_COUNT),
  };
}

function checkOffer(value: unknown): Offer {
  const [subnetText, address, since, relay] = list(value, "offer", 4, 3);
  const subnet = checkCidr(subnetText);
  const hostOf = (item: unknown, what: string) => {
    const host = checkAddress(item, what);
    if (!isHostOf(subnet, host)) throw new WireError(`${formatIpv4(host)} is no host of ${formatCidr(subnet)}`);
    return host;
  };
  return {
    subnet,
    address: hostOf(address, "virtual address"),
    since: whole(since, "time of an offer", 0, MAX_NUMBER),
    relay: relay === undefined ? undefined : hostOf(relay, "relay address"),
  };
}

function checkImportStatus(raw: Fields, backends: number): ImportStatus {
  const letters = text(raw["health"], "health", MAX_BACKENDS);
  if (letters.length !== backends) {
    throw new WireError(`health of ${letters.length} backends, of ${backends} there are`);
  }
  return {
    health: [...letters].map((letter) => {
      const health = HEALTH_OF.get(letter);
      if (health === undefined) throw new WireError(`${quoted(letter)} is no health`);
      return health;
    }),
    holding: list(raw["holding"] ?? [], "holding", MAX_SUBNETS).map(checkHeld),
  };
}

const LETTER_OF: Readonly<Record<BackendHealth, string>> = { up: "u", down: "d", unknown: "?" };
const HEALTH_OF = new Map(Object.entries(LETTER_OF).map(([health, letter]) => [letter, health as BackendHealth]));

function checkHeld(value: unknown): Held {
  const [address, flows] = list(value, "held address", 2, 2);
  return { address: checkAddress(address, "held address"), flows: flag(flows, "flows") };
}

// Exports

function encodeExport({ spec, status }: ExportRecord): JsonObject {
  const { name, port, network, listen, allow, dns, force } = spec;
  return {
    kind: "export",
    name,
    port,
    network,
    listen: formatListen(listen),
    allow: allow?.map(formatCidr),
    ...dns ? { dns } : {},
    ...force ? { force } : {},
    ready: status.ready,
    ...status.holding === undefined ? {} : { holding: encodeHeld(status.holding) },
  };
}

function checkExport(raw: Fields): ExportRecord {
  const name = text(raw["name"], "name", 253);
  if (!isServiceName(name) && !(name.includes(".") && isHostName(name))) {
    throw new WireError(`${quoted(name)} is no name of a service or container`);
  }
  const listenText = text(raw["listen"], "listen", 64);
  const listen = parseListenText(listenText);
  if (listen === undefined) throw new WireError(`${quoted(listenText)} is no address and ports to listen on`);
  return {
    kind: "export",
    spec: {
      name,
      port: raw["port"] === undefined ? undefined : whole(raw["port"], "port", 1, MAX_PORT),
      network: checkNetwork(raw["network"]),
      listen,
      allow: raw["allow"] === undefined ? undefined : list(raw["allow"], "allow", MAX_ALLOWED).map(checkCidr),
      dns: flag(raw["dns"] ?? false, "dns"),
      force: flag(raw["force"] ?? false, "force"),
    },
    status: {
      ready: flag(raw["ready"], "ready"),
      holding: raw["holding"] === undefined ? undefined : checkHeld(raw["holding"]),
    },
  };
}

/** `[ADDRESS:]PORT[-PORT][/udp]`; undefined where the text is anything else. */
export function parseListenText(listen: string): Listen | undefined {
  const colon = listen.indexOf(":");
  const ports = parsePortRange(listen.slice(colon + 1));
  const address = colon < 0 ? "own" : parseIpv4(listen.slice(0, colon));
  if (ports === undefined || address === undefined) return undefined;
  return address === "own" || isHostAddress(address) ? { address, ports } : undefined;
}

// Messages

function encode(message: JsonObject): Uint8Array {
  return ENCODER.encode(JSON.stringify(message));
}

function parseJson(octets: Uint8Array): unknown {
  try {
    return JSON.parse(DECODER.decode(octets));
  } catch {
    throw new WireError("Cannot read services: not JSON");
  }
}

function checkHead(value: unknown): Head {
  const [owner, life, seq, check] = list(value, "head", 4, 4);
  return {
    owner: peer(owner),
    life: whole(life, "life", 0, MAX_NUMBER),
    seq: whole(seq, "seq", 0, MAX_NUMBER),
    check: whole(check, "check", 0, MAX_CHECK),
  };
}

function checkRecords(message: Fields): RecordsMessage {
  const [since, seq] = [count(message, "since"), count(message, "seq")];
  if (since > seq) throw new WireError("since is above seq");
  const full = flag(message["full"] ?? false, "full");
  const records: Numbered[] = [];
  const refused: { what: string; reason: string }[] = [];
  let previous = since;
  for (const item of list(message["records"], "records", MAX_MESSAGE_OCTETS)) {
    const [number, said] = list(item, "numbered record", 2, 2);
    const numbered = whole(number, "number of a record", previous, seq);
    previous = numbered;
    try {
      records.push(checkNumbered(numbered, said));
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      refused.push({ what: nameOf(said), reason: error.message });
    }
  }
  return {
    type: "records",
    owner: peer(message["owner"]),
    life: count(message, "life"),
    since,
    seq,
    check: message["check"] === undefined ? undefined : whole(message["check"], "check", 0, MAX_CHECK),
    full,
    last: full && flag(message["last"] ?? false, "last"),
    records,
    refused,
  };
}

function checkNumbered(seq: number, said: unknown): Numbered {
  if (typeof said === "string") {
    if (said.length > MAX_KEY || !/^(?:import|export) [\x21-\x7e ]+$/.test(said)) {
      throw new WireError(`${quoted(said)} is no record`);
    }
    return { seq, key: said, record: undefined, octets: said.length };
  }
  const size = JSON.stringify(said).length;
  if (size > MAX_RECORD_OCTETS) throw new WireError(`a record of ${size} octets, at most ${MAX_RECORD_OCTETS} may be`);
  const record = checkRecord(said);
  return { seq, key: keyOf(record), record, octets: size };
}

/** The longest key there is: two names, and where to listen. */
const MAX_KEY = 7 + 254 + 32 + 40;

/** For messages about what is not well formed. */
function nameOf(said: unknown): string {
  const name = (said as { name?: unknown } | null)?.name;
  return typeof name === "string" ? name.slice(0, 64) : "";
}

// Fields

type Fields = Readonly<Record<string, unknown>>;

function fields(value: unknown, what: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new WireError(`${what} is no object`);
  return value as Fields;
}

function list(value: unknown, what: string, most: number, least = 0): readonly unknown[] {
  if (!Array.isArray(value)) throw new WireError(`${what} is no list`);
  if (value.length > most || value.length < least) {
    throw new WireError(`${what} has ${value.length} items: from ${least} to ${most} may be`);
  }
  return value;
}

function text(value: unknown, what: string, most: number): string {
  if (typeof value !== "string") throw new WireError(`${what} is no text`);
  if (value.length > most) throw new WireError(`${what} has ${value.length} characters: at most ${most} may be`);
  return value;
}

function flag(value: unknown, what: string): boolean {
  if (typeof value !== "boolean") throw new WireError(`${what} is neither true nor false`);
  return value;
}

function whole(value: unknown, what: string, least: number, most: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most) {
    throw new WireError(`${what} is ${quoted(value)}: a whole number from ${least} to ${most} is expected`);
  }
  return value === 0 ? 0 : value; // JSON knows -0
}

function count(message: Fields, what: string): number {
  return whole(message[what], what, 0, MAX_NUMBER);
}

function oneOf<T extends string>(value: unknown, what: string, known: readonly T[]): T {
  if (!known.includes(value as T)) throw new WireError(`${what} is ${quoted(value)}: ${known.join(", ")} are known`);
  return value as T;
}

function peer(value: unknown): PeerName {
  const name = typeof value === "string" ? parsePeerName(value) : undefined;
  if (!name) throw new WireError(`${quoted(value)} is no peer`);
  return name;
}

function checkAddress(value: unknown, what: string): Ipv4 {
  const address = typeof value === "string" ? parseIpv4(value) : undefined;
  if (address === undefined) throw new WireError(`${what} is ${quoted(value)}: an address is expected`);
  return address;
}

function checkCidr(value: unknown): Cidr {
  const cidr = typeof value === "string" ? parseCidr(value) : undefined;
  if (cidr === undefined) throw new WireError(`${quoted(value)} is no subnet`);
  return { address: networkOf(cidr), prefixLength: cidr.prefixLength };
}

function checkPorts(value: unknown): PortRange {
  const ports = typeof value === "string" ? parsePortRange(value) : undefined;
  if (ports === undefined) throw new WireError(`${quoted(value)} is no port or range of ports`);
  return ports;
}

function checkName(value: unknown): string {
  const name = text(value, "name", 63);
  if (!isServiceName(name)) throw new WireError(`${quoted(name)} is no name of a service`);
  return name;
}

function checkNetwork(value: unknown): string {
  const name = text(value, "network", 31);
  if (!isNetworkName(name)) throw new WireError(`${quoted(name)} is no name of a network`);
  return name;
}

/** A value of a peer's, for a message. */
function quoted(value: unknown): string {
  const said = JSON.stringify(value) ?? "undefined";
  return said.length > 64 ? `${said.slice(0, 60)}…` : said;
}
