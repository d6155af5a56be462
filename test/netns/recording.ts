/**
 * Sessions recorded between real routers of Weave Net, and what follows from them: who was there, with which ids and keys, who knew what
 * of the mesh at a time. Times are seconds from the first event on.
 */

import { decodeMessage, topologyOf } from "../../src/wire/control.ts";
import type { PeerRecord } from "../../src/wire/topology.ts";
import { formatMac, parsePeerName, type PeerName } from "../../src/lib/mac.ts";

/** Routers and their containers go by numbers: "1". */
export type RouterNumber = string;

export interface Recording {
  readonly setting: {
    readonly routers: Readonly<Record<RouterNumber, RecordedRouter>>;
    readonly port: number;
    /** By connection; where there was only one, its alone. */
    readonly connection_uids?: Readonly<Record<string, string>>;
    readonly connection_uid?: string;
    /** Of a session with one password. */
    readonly keys?: RecordedKeys;
    /** Of sessions in which passwords differ; null where there is none. */
    readonly passwords?: Readonly<Record<RouterNumber, string | null>>;
    /** By connection: router 1's, who accepted them all. */
    readonly session_keys?: readonly { readonly private_key: string; readonly session_key: string }[];
  };
  /** What crossed the control connections, and what operators did. */
  readonly transcript: readonly RecordedItem[];
  /** What sleeve sent; empty where only the control connections were recorded. */
  readonly packets: readonly RecordedPacket[];
  readonly containers: Readonly<Record<RouterNumber, { readonly mac: string; readonly ip: string }>>;
}

interface RecordedRouter {
  readonly name: string;
  readonly nick: string;
  readonly ip: string | readonly string[];
}

interface RecordedKeys {
  readonly password: string;
  readonly session_key: string;
  /** Of the router that made the connection, and of the one that accepted it. */
  readonly outbound_side: { readonly private_key: string };
  readonly inbound_side: { readonly private_key: string };
}

export interface RecordedItem {
  readonly t: number;
  /** "EVENT", "tcp" (a connection begins or ends), or what was said: a header, a flag, a message. */
  readonly kind: string;
  /** `sender->receiver` */
  readonly dir?: string;
  readonly conn?: number;
  /** Of an event. */
  readonly what?: string;
  readonly flags?: string;
  /** Of headers and flags, with the public key that may follow. */
  readonly hex?: string;
  /** A message with its length before it, as it crossed. */
  readonly frame?: string;
  /** The message of a sealed frame. */
  readonly plaintext?: string;
  readonly decoded?: { readonly kind?: string; readonly features?: Readonly<Record<string, string>> };
}

export interface RecordedPacket {
  readonly t: number;
  readonly dir?: string;
  readonly df: boolean;
  readonly nonce?: string;
  /** Large packets are recorded by their beginning and their hash. */
  readonly payload?: string;
  readonly payload_len?: number;
  readonly payload_sha256?: string;
  readonly frames?: readonly RecordedFrame[];
}

export interface RecordedFrame {
  readonly src: string;
  readonly dst: string;
  readonly len: number;
  readonly kind: string;
  /** Of a heartbeat: the connection's. */
  readonly uid?: string;
  /** Octets of an Ethernet frame that was sealed. */
  readonly frame?: string;
}

const VECTORS = new URL("../fixtures/vectors/", import.meta.url);

export async function readRecording(session: string): Promise<Recording> {
  const tcp = await readVector<Omit<Recording, "packets" | "containers">>(`recorded-tcp-${session}.json`);
  const sleeve = await readVector<Pick<Recording, "packets" | "containers">>(`recorded-sleeve-${session}.json`);
  const { packets, containers } = sleeve ?? { packets: [], containers: {} };
  return { ...tcp!, packets: packets.filter((packet) => packet.dir !== undefined), containers };
}

async function readVector<T>(name: string): Promise<T | undefined> {
  try {
    return JSON.parse(await Deno.readTextFile(new URL(name, VECTORS)));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** The message of a recorded item. */
export function messageOf(item: RecordedItem): Uint8Array {
  return Uint8Array.fromHex(item.plaintext ?? item.frame!.slice(8));
}

/** Whom a router had connections with. */
export function neighboursOf({ transcript }: Recording, router: RouterNumber): RouterNumber[] {
  const pairs = transcript.flatMap(({ dir }) => dir === undefined ? [] : [dir.split("->")]);
  const neighbours = pairs.filter((pair) => pair.includes(router)).map((pair) => pair.find((one) => one !== router)!);
  return [...new Set(neighbours)].sort();
}

/** The addresses of two routers on the network between them. */
export function addressesBetween({ setting }: Recording, a: RouterNumber, b: RouterNumber): [string, string] {
  const [ofA, ofB] = [a, b].map((router) => [setting.routers[router]!.ip].flat());
  for (const address of ofA!) {
    const other = ofB!.find((other) => networkOf(other) === networkOf(address));
    if (other !== undefined) return [address, other];
  }
  throw new Error(`Routers ${a} and ${b} have no network in common`);
}

/** The network of a host: routers were recorded on networks of 256 addresses. */
function networkOf(address: string): string {
  return address.slice(0, address.lastIndexOf("."));
}

export function passwordOf({ setting }: Recording, router: RouterNumber): string | undefined {
  return setting.keys?.password ?? setting.passwords?.[router] ?? undefined;
}

/** The ids and keys that a router had, as the hidden option of the executable takes them. Unknown ids are made up. */
export function identityOf(recording: Recording, router: RouterNumber) {
  const byConnection = new Map(
    featureItems(recording, router).map((item) => [item.conn!, item.decoded!.features!] as const),
  );
  const [some] = byConnection.values();
  const connections = [...new Set(recording.transcript.flatMap((item) => item.conn ?? []))]
    .filter((conn) => recording.transcript.some((item) => item.conn === conn && item.dir!.includes(router)));
  return {
    uid: some?.UID ?? "1",
    shortId: Number(some?.ShortID ?? 1),
    connectionIds: connections.map((conn) => byConnection.get(conn)?.ConnID ?? String(1 + conn)),
    privateKeys: privateKeysOf(recording, router),
  };
}

/** Whether it made the first connection. */
export function dialsFirst({ transcript }: Recording, router: RouterNumber): boolean {
  return transcript.find((item) => item.flags === "SYN")!.dir!.startsWith(router);
}

/** By connection; empty where they are not known. */
export function privateKeysOf(recording: Recording, router: RouterNumber): string[] {
  const { keys, session_keys: ofRouter1 } = recording.setting;
  if (keys) return [dialsFirst(recording, router) ? keys.outbound_side.private_key : keys.inbound_side.private_key];
  return router === "1" ? ofRouter1?.map((one) => one.private_key) ?? [] : [];
}

/** What a router says of itself on every connection; undefined where nothing of it was recorded. */
export function featuresOf(recording: Recording, router: RouterNumber): Readonly<Record<string, string>> | undefined {
  return featureItems(recording, router)[0]?.decoded?.features;
}

function featureItems({ transcript }: Recording, router: RouterNumber): RecordedItem[] {
  return transcript.filter((item) => item.dir?.startsWith(router) && item.decoded?.kind === "features");
}

/** The records in all topology that was said in one direction, up to a time. */
export function recordsSaid(recording: Recording, dir: string, until = Infinity): PeerRecord[] {
  const items = recording.transcript.filter((item) => item.dir === dir && item.kind === "message" && item.t <= until);
  return items.filter((item) => item.decoded?.kind !== "features").flatMap((item) => {
    const message = decodeMessage(messageOf(item));
    return message.type === "gossip" && message.channel === "topology" ? [...topologyOf(message.payload)] : [];
  });
}

/**
 * The peers that a router must know at a time, of what it was told until then, and the next hops to them; itself left out.
 * @param connected whom it is connected with
 */
export function meshSeenBy(
  recording: Recording,
  router: RouterNumber,
  { connected, at }: { readonly connected: readonly RouterNumber[]; readonly at: number },
): Map<PeerName, { readonly record: PeerRecord; readonly via: PeerName }> {
  const ourself = nameOf(recording, router);
  const latest = new Map<PeerName, PeerRecord>();
  for (const neighbour of neighboursOf(recording, router)) {
    for (const record of recordsSaid(recording, `${neighbour}->${router}`, at)) {
      const known = latest.get(record.name);
      if (!known || record.version > known.version) latest.set(record.name, record);
    }
  }
  const seen: ReturnType<typeof meshSeenBy> = new Map();
  const reached = connected.map((neighbour) => nameOf(recording, neighbour)).map((name) => ({ name, via: name }));
  for (const { name, via } of reached) {
    const record = latest.get(name);
    if (!record || name === ourself || seen.has(name)) continue;
    seen.set(name, { record, via });
    reached.push(...record.connections.map(({ peer }) => ({ name: peer, via })));
  }
  return seen;
}

export function nameOf({ setting }: Recording, router: RouterNumber): PeerName {
  return parsePeerName(setting.routers[router]!.name)!;
}

/** Which router has this name. */
export function routerNamed({ setting }: Recording, name: PeerName): RouterNumber {
  return Object.keys(setting.routers).find((router) => setting.routers[router]!.name === formatMac(name))!;
}

export function connectionUid({ setting }: Recording, connection: number): bigint {
  return BigInt(setting.connection_uids?.[connection] ?? setting.connection_uid!);
}

/** The password that both sides of a session had goes into the key; otherwise there is one for each side. */
export function recordedSessionKey({ setting }: Recording, connection: number): Uint8Array | undefined {
  const key = setting.keys?.session_key ?? setting.session_keys?.[connection]?.session_key;
  return key === undefined ? undefined : Uint8Array.fromHex(key);
}
