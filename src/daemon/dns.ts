/**
 * Names, put together: the mesh's entries, this host's server, the API, and what is remembered of this host's names while the router does
 * not run. Those of the host's own addresses come back with the addresses, those of a container with the container, and all others always.
 *
 *     API, attach, expose ─▶ Names ⇄ mesh          DnsServer ─ look-ups ─▶ Names
 *                              └─▶ names file ─▶ the next start
 */
import type { ApiAnswer, ApiRequest, Route } from "../api/types.ts";
import { type Entry, Names, type OwnName } from "../dns/entries.ts";
import type { RouterOptions } from "../config/options.ts";
import type { Clock } from "../host/clock.ts";
import { dockerIsThere, fqdnOf, inspectContainer, runningContainers } from "../host/docker.ts";
import type { Links } from "../host/links.ts";
import type { ControlSockets } from "../host/sockets.ts";

import { OperationError } from "../lib/errors.ts";
import { cidrContains, formatEndpoint, formatIpv4, type Ipv4, parseIpv4 } from "../lib/ip.ts";
import { writeJson } from "../lib/json.ts";
import type { Logger } from "../lib/log.ts";
import { formatMac, parsePeerName, type PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { Deadline, Instant } from "../lib/time.ts";
import type { Mesh } from "../mesh/mesh.ts";
import { parseName, parseRecord } from "../wire/dns.ts";
import type { NameData } from "../wire/nameserver.ts";
import { EXPOSE_ID } from "./address_book.ts";
import type { Companion } from "./control_loop.ts";
import { DnsServer } from "./dns_server.ts";
import { namesFile } from "./names_file.ts";
import { isAlive, type Plumbing } from "./plumbing.ts";
import { ps, type PsEntry } from "./ps.ts";
import type { DnsReport } from "./status.ts";

export interface DnsOptions {
  readonly options: Pick<
    RouterOptions,
    | "dbPrefix"
    | "dnsDomain"
    | "dnsTtl"
    | "dnsFallbackTimeoutMs"
    | "dnsGraceMs"
    | "dnsListenAddress"
    | "dockerBridge"
    | "dockerBridgeIp"
    | "ipam"
    | "resolvConf"
  >;
  readonly ourName: PeerName;
  readonly ourUid: bigint;
  readonly mesh: Pick<Mesh, "peer" | "peers" | "register" | "sendBroadcast" | "sendGossip">;
  /** Hands an input to the cores, and carries out what they ask for. */
  readonly run: <T>(input: (now: Instant) => T) => T;
  readonly sockets: ControlSockets;
  readonly plumbing: Plumbing;
  readonly links: Links;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Owner of names that belong to no container. */
export const EXTERN_ID = "weave:extern";
/** Owner of names of services. */
export const SERVICE_ID = "weave:service";

/** Docker is asked again so soon where it did not answer. */
const DOCKER_RETRY_MS = 10_000;
/** How long the start waits for Docker; what it says later still counts. */
const DOCKER_WAIT_MS = 3_000;
const DOCKER_ID = /^[0-9a-f]{64}$/;
const NETNS_ID = /^netns-/;

export class Dns implements Companion {
  readonly #o: DnsOptions;
  readonly #names: Names;
  readonly #server: DnsServer;
  readonly #file: ReturnType<typeof namesFile>;
  /** Names of containers of which nobody could say yet whether they are there. */
  #doubtful: readonly OwnName[] = [];
  /** Of peers: they are wanted when a peer is not there any more. */
  readonly #nickNames = new Map<PeerName, string>();
  #retry: number | undefined;
  #saveFailed: string | undefined;
  #stopped = false;

  private constructor(o: DnsOptions, names: Names, server: DnsServer) {
    this.#o = o;
    this.#names = names;
    this.#server = server;
    this.#file = namesFile(o.options.dbPrefix);
  }

  /** Before the mesh has its first connection. @throws OperationError where `--dns-listen-address` cannot be had */
  static async start(o: DnsOptions): Promise<Dns> {
    const { mesh, clock, log, links, sockets, random, plumbing, ourName, ourUid } = o;
    const { dnsDomain, dnsGraceMs, dnsTtl, dnsFallbackTimeoutMs, dnsListenAddress } = o.options;
    const names = new Names({
      ourName,
      ourUid,
      domain: dnsDomain,
      graceMs: dnsGraceMs,
      peerUid: (name) => mesh.peer(name)?.uid,
      unixSeconds: () => Math.floor(clock.wallMs() / 1000),
      log,
    }, clock.monotonicMs());
    const { dockerBridge, dockerBridgeIp, resolvConf } = o.options;
    const server = DnsServer.start({
      domainKey: names.domainKey,
      lookup: (key) => names.lookup(key),
      lookupAddress: (address) => names.lookupAddress(address),
      ttlSeconds: dnsTtl,
      upstreamTimeoutMs: dnsFallbackTimeoutMs,
      resolvConf,
      listenAddress: dnsListenAddress,
      dockerBridge,
      dockerBridgeIp,
      bridge: plumbing.host.bridge,
      links,
      sockets,
      clock,
      random,
      log,
    });
    const dns = new Dns(o, names, server);
    try {
      for (const channel of names.channels()) mesh.register(channel);
      await dns.#restore();
      return dns;
    } catch (error) {
      server.stop();
      throw error;
    }
  }

  /** Tells the others that they need not wait for us: our names are no more. Not before a restart. */
  leave(): void {
    this.#o.run(() => this.#names.leave());
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#retry);
    this.#server.stop();
    // What is being written is finished.
    await this.#file.write(this.#remembered()).catch(() => {});
  }

  // The control loop

  drain(now: Instant): void {
    const { mesh } = this.#o;
    for (let output = this.#names.poll(); output !== undefined; output = this.#names.poll()) {
      switch (output.type) {
        case "broadcast":
          mesh.sendBroadcast(output.channel, output.data, now);
          break;
        case "gossip":
          mesh.sendGossip(output.channel, output.data, now);
          break;
        case "ownChanged":
          this.#save();
          break;
        default:
          output satisfies never;
      }
    }
  }

  handleTimeout(now: Instant): void {
    this.#names.handleTimeout(now);
  }

  pollTimeout(): Deadline | undefined {
    return this.#names.pollTimeout();
  }

  handlePeerGone(name: PeerName, now: Instant): void {
    this.#names.handlePeerGone(name, now);
  }

  handleTopology(): void {
    this.#names.handleTopology();
    const suspended = new Set(this.#names.suspended().map(({ peer }) => peer));
    for (const peer of this.#nickNames.keys()) if (!suspended.has(peer)) this.#nickNames.delete(peer);
    for (const { name, nickName } of this.#o.mesh.peers()) this.#nickNames.set(name, nickName);
  }

  // What others know

  /** A peer, by its name or nickname, will not come back; one that is within reach is left alone. */
  removePeer(id: string): void {
    const name = parsePeerName(id);
    for (const { peer } of this.#names.suspended()) {
      if (peer === name || this.#nickNames.get(peer) === id) this.#o.run(() => this.#names.removePeer(peer));
    }
  }

  /** A container, or whatever else has names here, is no more. */
  handleContainerDied(id: string): void {
    this.#o.run(() => this.#names.remove({ containerId: id }));
    this.#doubtful = this.#doubtful.filter(({ containerId }) => containerId !== id);
  }

  /** Which of Docker's containers run: names of others are gone, although nobody told us when. */
  handleContainersRunning(ids: ReadonlySet<string>): void {
    const gone = (id: string) => DOCKER_ID.test(id) && !ids.has(id);
    const owners = new Set(this.#names.own().map(({ containerId }) => containerId).filter(gone));
    for (const id of owners) this.handleContainerDied(id);
    this.#doubtful = this.#doubtful.filter(({ containerId }) => !gone(containerId));
  }

  // Services

  /** These are all names of services that this host has. @param names without a final dot */
  setServiceNames(names: readonly { readonly hostname: string; readonly data: NameData }[]): void {
    const keyOf = ({ hostname, data }: { readonly hostname: string; readonly data: NameData }) =>
      `${hostname.replace(/\.$/, "")} ${data}`;
    const before = new Map(
      this.#names.own().filter(({ containerId }) => containerId === SERVICE_ID).map((name) => [keyOf(name), name]),
    );
    const wanted = new Map(names.map(({ hostname, data }) => {
      const name = { hostname, data: canonical(data), containerId: SERVICE_ID };
      return [keyOf(name), name] as const;
    }));
    const gone = [...before].filter(([key]) => !wanted.has(key));
    const fresh = [...wanted].filter(([key]) => !before.has(key));
    if (gone.length + fresh.length === 0) return;
    this.#o.run(() => {
      for (const [, name] of gone) this.#names.remove(name);
      this.#names.addAll(fresh.map(([, name]) => name));
    });
  }

  /** What a name in the domain stands for now. */
  addressesOf(hostname: string): readonly Ipv4[] {
    const key = parseName(hostname);
    return key === undefined ? [] : this.#names.lookup(key).addresses;
  }

  /** Where containers ask; undefined: nowhere. */
  get address(): Ipv4 | undefined {
    return this.#server.address?.address;
  }

  get domain(): string {
    return this.#o.options.dnsDomain;
  }

  /** Names of a container; those outside the domain are none of ours. */
  addNames(containerId: string, names: readonly { readonly hostname: string; readonly address: Ipv4 }[]): void {
    const own = names.map(({ hostname, address }) => ({ hostname, containerId, data: address as NameData }));
    if (own.length > 0) this.#o.run(() => this.#names.addAll(own));
  }

  removeName(containerId: string, { hostname, address }: { readonly hostname: string; readonly address: Ipv4 }): void {
    this.#o.run(() => this.#names.remove({ hostname, containerId, data: address as NameData }));
  }

  // The API

  routes(): readonly Route[] {
    const text = (body: string): ApiAnswer => ({ status: 200, body });
    const address = () => this.#server.address;
    const hostOf = (endpoint: ReturnType<typeof address>) => endpoint === undefined ? "" : formatIpv4(endpoint.address);
    return [
      { method: "GET", path: "/domain", handle: () => text(this.#o.options.dnsDomain) },
      { method: "GET", path: "/dns-address", handle: () => text(hostOf(address())) },
      {
        method: "GET",
        path: "/dns-address-port",
        handle() {
          const endpoint = address();
          return text(endpoint === undefined ? "" : formatEndpoint(endpoint));
        },
      },
      { method: "PUT", path: "/name/{container}/{ip}", handle: (request) => this.#put(request) },
      { method: "DELETE", path: "/name/{container}/{ip}", handle: (request) => this.#delete(request) },
      { method: "DELETE", path: "/name/{container}", handle: (request) => this.#delete(request) },
      { method: "DELETE", path: "/name", handle: (request) => this.#delete(request) },
      { method: "GET", path: "/name", handle: (request) => this.#list(request) },
      // Ours: what a name has, as the server would say it, other records, and a farewell before the router is stopped.
      { method: "GET", path: "/name/{name}", handle: ({ segments }) => this.#lookup(segments["name"]!) },
      { method: "PUT", path: "/record/{container}", handle: (request) => this.#put(request) },
      { method: "DELETE", path: "/record/{container}", handle: (request) => this.#delete(request) },
      {
        method: "POST",
        path: "/farewell",
        handle: () => {
          this.leave();
          return { status: 204 };
        },
      },
    ];
  }

  async #put({ segments, parameters }: ApiRequest): Promise<ApiAnswer> {
    const data = readData(segments["ip"], parameters.get("record"));
    if (data === undefined) return badAddress(segments["ip"] ?? parameters.get("record") ?? "");
    const { log, run } = this.#o;
    const name = { hostname: parameters.get("fqdn") ?? "", containerId: segments["container"]!, data };
    const added = run(() => this.#names.add(name));
    if (added === "full") return { status: 500, body: "There are too many names\n" };
    if (added === "outside") {
      log.info("ignored a name outside the domain", { name: name.hostname, container: name.containerId });
    }
    if (parameters.get("check-alive") === "true" && !await isRunning(name.containerId)) {
      log.info("a container that does not run gets no name", { container: name.containerId });
      run(() => this.#names.remove(name));
    }
    return { status: 204 };
  }

  #delete({ segments, parameters }: ApiRequest): ApiAnswer {
    const ip = segments["ip"] ?? null;
    const record = parameters.get("record");
    const data = ip === null && record === null ? undefined : readData(ip ?? undefined, record);
    if (data === undefined && (ip !== null || record !== null)) return badAddress(ip ?? record!);
    const hostname = parameters.get("fqdn") || undefined;
    this.#o.run(() => this.#names.remove({ hostname, containerId: segments["container"], data }));
    return { status: 204 };
  }

  #list({ wantsJson }: ApiRequest): ApiAnswer {
    if (!wantsJson) return { status: 404, body: "404 page not found\n" };
    const entries = this.#names.addresses().map(({ hostname, origin, containerId, data, version, tombstone }) => ({
      ContainerID: containerId,
      Origin: origin,
      Addr: formatIpv4(data as Ipv4),
      Hostname: hostname,
      Version: version,
      Tombstone: tombstone,
    }));
    return { status: 200, body: `${writeJson(entries)}\n`, contentType: "application/json" };
  }

  #lookup(name: string): ApiAnswer {
    const key = parseName(name);
    if (key === undefined) return badAddress(name);
    const single = key !== "" && key.length === 1 + key.charCodeAt(0);
    const known = this.#names.lookup(single ? key + this.#names.domainKey : key);
    if (known.state === "hidden") return { status: 503, body: "All who have that name are out of reach\n" };
    return { status: 200, body: known.addresses.map((address) => `${formatIpv4(address)}\n`).join("") };
  }

  // Status

  report(): DnsReport {
    const { dnsDomain, dnsTtl, dnsListenAddress } = this.#o.options;
    const names = this.#names;
    const server = this.#server;
    const { clock } = this.#o;
    const address = server.address ?? dnsListenAddress;
    const now = clock.monotonicMs();
    const visible = (entries: readonly Entry[]) => entries.filter(({ origin }) => !names.isHidden(origin));
    return {
      Domain: dnsDomain,
      Upstream: server.servers.map(({ address }) => formatIpv4(address)),
      Address: address === undefined ? "" : formatEndpoint(address),
      TTL: dnsTtl,
      Entries: visible(names.addresses()).map((entry) => ({
        Hostname: entry.hostname,
        Origin: formatMac(entry.origin),
        ContainerID: entry.containerId,
        Address: formatIpv4(entry.data as Ipv4),
        Version: entry.version,
        Tombstone: entry.tombstone,
      })),
      Records: visible(names.records()).map((entry) => ({
        Hostname: entry.hostname,
        Origin: formatMac(entry.origin),
        ContainerID: entry.containerId,
        Record: entry.data as string,
        Version: entry.version,
        Tombstone: entry.tombstone,
      })),
      Listening: server.listening.map(formatEndpoint),
      Suspended: names.suspended().map(({ peer, entries, since, hidden }) => ({
        Peer: formatMac(peer),
        NickName: this.#nickNames.get(peer) ?? "",
        Entries: entries,
        Since: new Date(clock.wallMs() - (now - since)).toISOString(),
        Hidden: hidden,
      })),
      Counters: { ...server.counters, pending: server.pending, refusedEntries: names.refused },
      Warnings: [...server.warnings, ...this.#saveFailed === undefined ? [] : [this.#saveFailed]],
    };
  }

  // What is remembered

  #remembered(): readonly OwnName[] {
    return [...this.#names.own(), ...this.#doubtful];
  }

  #save(): void {
    if (this.#stopped) return;
    this.#file.write(this.#remembered()).then(() => {
      this.#saveFailed = undefined;
    }, (error: Error) => {
      if (this.#saveFailed === undefined) this.#o.log.error("cannot remember names", { error: error.message });
      this.#saveFailed = `Names will not come back after a restart: ${error.message}`;
    });
  }

  /** Names of the last time whose owners are still there. */
  async #restore(): Promise<void> {
    const { log, links, plumbing, run } = this.#o;
    let stored: readonly OwnName[] = [];
    try {
      stored = await this.#file.read() ?? [];
    } catch (error) {
      log.warn("names of the last time cannot be read", { error: (error as Error).message });
    }
    const attachments = (await plumbing.attachments()).filter((attachment) => isAlive(links, attachment));
    const attached = new Set(attachments.map(({ id }) => id));
    const bridge = links.find(plumbing.host.bridge);
    const exposed = new Set(bridge === undefined ? [] : links.addresses(bridge.index).map(({ address }) => address));
    const here = stored.filter(({ containerId, data }) => {
      if (containerId === EXPOSE_ID) return typeof data === "string" || exposed.has(data);
      if (NETNS_ID.test(containerId)) return attached.has(containerId);
      return !DOCKER_ID.test(containerId);
    });
    const ownNames = attachments.flatMap(({ id, hostname, addresses }) =>
      hostname === undefined
        ? []
        : addresses.map(({ address }) => ({ hostname, containerId: id, data: address as NameData }))
    );
    this.#doubtful = stored.filter(({ containerId }) => DOCKER_ID.test(containerId));
    run(() => this.#names.addAll([...here, ...ownNames]));
    const waited = Promise.withResolvers<void>();
    const timer = setTimeout(waited.resolve, DOCKER_WAIT_MS);
    await Promise.race([this.#restoreContainers(), waited.promise]);
    clearTimeout(timer);
  }

  /** Whether it is one of those that routers give to containers. */
  #isGivenOut(address: Ipv4): boolean {
    const { ipam } = this.#o.options;
    return ipam !== undefined && cidrContains(ipam.range, address);
  }

  /** Names of Docker's containers: those that were given, and the hostnames of those that are attached. */
  async #restoreContainers(): Promise<void> {
    if (!dockerIsThere() && this.#doubtful.length === 0) return;
    try {
      const attached = (await ps({ containers: [], host: this.#o.plumbing.host })).filter(({ id }) =>
        DOCKER_ID.test(id)
      );
      const named = await hostnamesOf(attached);
      if (this.#stopped) return;
      const there = new Set(attached.map(({ id }) => id));
      const users = new Map(attached.flatMap(({ id, addresses }) => addresses.map(({ address }) => [address, id])));
      // While nobody looked a container may have got another address: what routers give out is no longer its own then.
      const isIts = (id: string, address: Ipv4) => {
        const user = users.get(address);
        return user === undefined ? !this.#isGivenOut(address) : user === id;
      };
      const known = this.#doubtful.filter(({ containerId, data }) =>
        there.has(containerId) && (typeof data === "string" || isIts(containerId, data))
      );
      this.#doubtful = [];
      this.#o.run(() => this.#names.addAll([...known, ...named]));
      this.#save();
    } catch (error) {
      if (!(error instanceof OperationError)) throw error;
      this.#o.log.debug("containers cannot be asked for their names", { error: error.message });
      if (this.#doubtful.length === 0 || this.#stopped) return;
      this.#retry = setTimeout(() => void this.#restoreContainers(), DOCKER_RETRY_MS);
    }
  }
}

/** The hostname of each container, for each of its addresses. */
async function hostnamesOf(attached: readonly PsEntry[]): Promise<OwnName[]> {
  if (attached.length === 0) return [];
  const hostnames = new Map((await runningContainers()).map((container) => [container.id, fqdnOf(container)]));
  return attached.flatMap(({ id, addresses }) => {
    const hostname = hostnames.get(id);
    return hostname === undefined
      ? []
      : addresses.map(({ address }) => ({ hostname, containerId: id, data: address as NameData }));
  });
}

/** A record as `parseRecord()` writes it. */
function canonical(data: NameData): NameData {
  return typeof data === "string" ? parseRecord(data)?.text ?? data : data;
}

/** An address of either kind, or a record in words. */
function readData(ip: string | undefined, record: string | null): NameData | undefined {
  if (ip === undefined) return record === null ? undefined : parseRecord(record)?.text;
  return parseIpv4(ip) ?? parseRecord(`AAAA ${ip}`)?.text;
}

function badAddress(text: string): ApiAnswer {
  return { status: 400, body: `invalid IP address: ${text}\n` };
}

/** As far as Docker says; where it cannot be asked a container is left alone. */
async function isRunning(id: string): Promise<boolean> {
  if (!dockerIsThere()) return true;
  try {
    return (await inspectContainer(id)).running;
  } catch (error) {
    return !(error as Error).message.includes("No such container");
  }
}
