/**
 * Drivers for Docker's networks and their addresses: sockets on which Docker asks, and what is done about it.
 *
 *     Docker ── unix sockets ──▶ decide() ──▶ addresses (Ipam), veths in the bridge, memory ──▶ answer
 *     Docker ── events ────────▶ names and neighbours of containers; what Docker forgot to give back
 *
 * Docker waits for an answer while it starts a container, so each comes within a time, also where no address can be had.
 */
import { dirname } from "node:path";
import type { HttpRequest, HttpResponse } from "../api/http.ts";
import { HttpServer } from "../api/http_server.ts";
import { listen } from "../api/listen.ts";
import type { DriverSocket, PluginOptions } from "../config/plugin_options.ts";
import { findBridge } from "../host/bridge.ts";
import { ContainerNetns } from "../host/container_link.ts";
import { createEndpointLink, removeEndpointLink } from "../host/endpoint_link.ts";
import { dockerIsThere } from "../host/docker.ts";
import type { Links } from "../host/links.ts";
import { isOwnNetns, statNetns } from "../host/netns.ts";
import { removeIfThere } from "../host/store.ts";
import { OperationError } from "../lib/errors.ts";
import { type Cidr, formatCidr, formatIpv4, type Ipv4 } from "../lib/ip.ts";
import { type Json, writeJson } from "../lib/json.ts";
import type { Logger } from "../lib/log.ts";
import {
  type Action,
  addressAnswer,
  decide,
  endpointAnswer,
  endpointLinks,
  joinAnswer,
  MULTICAST,
  MULTICAST_OPTION,
  type Pool,
  readMulticast,
  Refusal,
  refusalAnswer,
  type Role,
} from "../plugin/calls.ts";
import type { Progress } from "./address_book.ts";
import { refuseTaken } from "./addresses.ts";
import type { Dns } from "./dns.ts";
import { type DockerNetwork, ensureDefaultNetwork, findNetwork, runningInNetworks } from "./docker_networks.ts";
import type { Ipam } from "./ipam.ts";
import type { Plumbing } from "./plumbing.ts";
import { PluginContainers } from "./plugin_containers.ts";
import { PluginMemory } from "./plugin_memory.ts";
import { PluginSweep } from "./plugin_sweep.ts";
import type { PluginReport } from "./status.ts";

export interface PluginServiceOptions {
  readonly options: PluginOptions;
  /** P of the state files. */
  readonly statePrefix: string;
  readonly plumbing: Plumbing;
  readonly links: Links;
  /** undefined: nobody allocates addresses here. */
  readonly ipam: Ipam | undefined;
  /** undefined: there is no DNS. */
  readonly dns: Dns | undefined;
  readonly progress: Progress;
  readonly log: Logger;
}

/** An address may have to be asked of other peers. Who talks to Docker waits a minute, as compose does, or for ever. */
const ADDRESS_MS = 10_000;
/** Docker may be waiting for us while we ask it. */
const ASK_MS = 3_000;
/** Of the time that a container takes to start, what may be spent on its names; it is a few milliseconds unless Docker is busy. */
const NAME_MS = 1_000;
/** How long the start waits until Docker has made the default network. */
const DEFAULT_NETWORK_MS = 5_000;
/** Docker describes each published port. */
const MAX_BODY_OCTETS = 32 << 20;
/** Networks of others that are known as such. */
const MAX_FOREIGN = 1024;
/** Only who may tell Docker what to do may tell us. */
const SOCKET_MODE = 0o600;
const CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json";

export class DockerPlugin {
  readonly #o: PluginServiceOptions;
  readonly #memory: PluginMemory;
  readonly #containers: PluginContainers;
  readonly #sweep: PluginSweep;
  readonly #foreign = new Set<string>();
  readonly #servers: { readonly server: HttpServer; readonly path: string }[] = [];
  /** Endpoints that have the route for multicast, and the namespaces of their containers. */
  readonly #multicast = new Map<string, string>();
  #ensuring = Promise.resolve();
  #engineAnswers = false;
  #stopped = false;

  private constructor(o: PluginServiceOptions, memory: PluginMemory) {
    this.#o = o;
    this.#memory = memory;
    const { plumbing, dns, links, log } = o;
    this.#containers = new PluginContainers({
      bridge: plumbing.host.bridge,
      dns,
      isOurs: async (network) => await this.#network(network) !== undefined,
      log,
    });
    this.#sweep = new PluginSweep({
      drivers: this.#drivers.map(({ name }) => name),
      links,
      addresses: () => memory.addresses,
      release: (address) => this.#takeBack(address),
      log,
    });
  }

  static async start(o: PluginServiceOptions): Promise<DockerPlugin> {
    const memory = new PluginMemory(o.statePrefix);
    try {
      await memory.restore();
    } catch (error) {
      if (!(error instanceof OperationError) || error.constructor !== OperationError) throw error;
      o.progress.warn(error.message);
    }
    return new DockerPlugin(o, memory);
  }

  /** Serves Docker from now on. @throws OperationError */
  listen(): void {
    const { options: { driver, meshDriver, v2, v2Multicast } } = this.#o;
    if (driver !== undefined) this.#serve(driver, { scope: "global", ipam: v2, multicast: v2 && v2Multicast });
    if (meshDriver !== undefined) this.#serve(meshDriver, { scope: "local", ipam: true, multicast: false });
  }

  get serving(): boolean {
    return this.#servers.length > 0 && !this.#stopped;
  }

  /** Resolves when the default network is there, or when that takes too long: it comes later then. */
  async settle(): Promise<void> {
    if (!dockerIsThere()) return;
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, DEFAULT_NETWORK_MS);
    await Promise.race([this.#ensureDefaultNetwork(), late.promise]);
    clearTimeout(timer);
  }

  /** Takes the sockets away first: Docker would wait for whom it finds there. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#containers.stop();
    this.#sweep.stop();
    for (const { path } of this.#servers) await removeIfThere(path);
    await Promise.all(this.#servers.map(({ server }) => server.stop()));
  }

  // What happens in Docker

  /** It can be asked, from now on or again. */
  handleContainersRunning(ids: ReadonlySet<string>): void {
    if (this.#asksNothing) return;
    this.#engineAnswers = true;
    this.#containers.handleRunning(ids);
    void this.#ensureDefaultNetwork();
    void this.#tendAll((id) => this.#containers.handleChanged(id));
    this.#sweep.begin();
  }

  /** Now and then: some that started may not have been told of. */
  handleContainersPresent(): void {
    if (!this.#asksNothing) void this.#tendAll((id) => this.#containers.handlePresent(id));
  }

  /** It cannot be asked any more. While it starts it waits for us, so there is no sense in waiting for it. */
  handleEngineGone(): void {
    this.#engineAnswers = false;
    this.#multicast.clear();
  }

  handleContainerStarted(id: string): void {
    if (!this.#asksNothing) this.#containers.handleChanged(id);
  }

  handleContainerDied(id: string): void {
    this.#containers.handleDied(id);
  }

  report(): PluginReport {
    const { options: { driver, meshDriver, v2, v2Multicast }, ipam, dns } = this.#o;
    return {
      Config: {
        Socket: driver?.path ?? "",
        MeshSocket: meshDriver?.path ?? "",
        Enable: true,
        EnableV2: v2,
        EnableV2Multicast: v2Multicast,
        DNS: dns !== undefined,
        DefaultSubnet: ipam === undefined ? "" : formatCidr(ipam.defaultSubnet),
        ProcPath: "/proc",
      },
      DriverName: driver?.name ?? "",
      MeshDriverName: meshDriver?.name ?? "",
    };
  }

  /** A plugin that Docker manages has no way to ask it. */
  get #asksNothing(): boolean {
    return this.#o.options.v2 || this.#stopped;
  }

  get #drivers(): DriverSocket[] {
    const { driver, meshDriver } = this.#o.options;
    return [driver, meshDriver].filter((socket) => socket !== undefined);
  }

  /** One at a time: Docker would make two of one name. */
  #ensureDefaultNetwork(): Promise<void> {
    const ensured = this.#ensuring.then(() => this.#ensureNow());
    this.#ensuring = ensured;
    return ensured;
  }

  async #ensureNow(): Promise<void> {
    const { options: { meshDriver }, ipam, progress, log } = this.#o;
    if (meshDriver === undefined || ipam === undefined) return;
    try {
      await ensureDefaultNetwork({ driver: meshDriver.name, subnet: ipam.defaultSubnet }, progress);
    } catch (error) {
      if (!this.#stopped) {
        log.info("the default network of Docker is not there yet", { reason: (error as Error).message });
      }
    }
  }

  /** @param tend what to do with each container that runs in a network of ours */
  async #tendAll(tend: (id: string) => void): Promise<void> {
    try {
      for (const { id, networks } of await runningInNetworks()) {
        for (const network of networks) {
          if (await this.#network(network) === undefined) continue;
          tend(id);
          break;
        }
      }
    } catch (error) {
      if (!this.#stopped) {
        this.#o.log.info("containers in networks of Docker are not known yet", { reason: (error as Error).message });
      }
    }
  }

  /** A network of ours; Docker is asked about one that it has not told us of. */
  async #network(id: string): Promise<{ readonly multicast: boolean } | undefined> {
    const known = this.#memory.network(id);
    if (known !== undefined || this.#foreign.has(id) || this.#asksNothing) return known;
    const network = await findNetwork(id, ASK_MS);
    if (network === undefined) return undefined;
    if (!this.#drivers.some(({ name }) => name === network.driver)) {
      if (this.#foreign.size >= MAX_FOREIGN) this.#foreign.clear();
      this.#foreign.add(id);
      return undefined;
    }
    const found = { id, multicast: multicastOf(network) };
    await this.#memory.learn(found);
    return found;
  }

  // What Docker asks

  #serve({ name, path }: DriverSocket, role: Role): void {
    try {
      Deno.mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
      const { listener } = listen({ transport: "unix", path }, `Docker's networks of driver "${name}"`);
      Deno.chmodSync(path, SOCKET_MODE);
      const handle = (request: HttpRequest, signal: AbortSignal) => this.#handle(request, role, signal);
      const server = new HttpServer(listener, { handle, log: this.#o.log, bodyLimit: () => MAX_BODY_OCTETS });
      this.#servers.push({ server, path });
    } catch (error) {
      throw new OperationError(`${(error as Error).message} (--plugin=false does without)`, 1, { cause: error });
    }
  }

  async #handle({ target, body }: HttpRequest, role: Role, signal: AbortSignal): Promise<HttpResponse> {
    const { log, ipam } = this.#o;
    try {
      const action = decide(target, body, role, { defaultSubnet: ipam?.defaultSubnet });
      const answer = await this.#perform(action, signal);
      log.debug("Docker asked", { name: target });
      return responseOf(200, answer);
    } catch (error) {
      const { message } = error as Error;
      const expected = error instanceof Refusal || error instanceof OperationError;
      if (expected) log.info("Docker was refused", { name: target, reason: message });
      else log.error("a question of Docker failed", { name: target, error: String(error) });
      return responseOf(error instanceof Refusal ? error.status : 500, refusalAnswer(message));
    }
  }

  async #perform(action: Action, signal: AbortSignal): Promise<Json> {
    const { links, plumbing, log } = this.#o;
    switch (action.do) {
      case "answer":
        return action.body;
      case "createNetwork":
        for (const name of action.unknown) log.warn("unknown option of a network of Docker", { name });
        await this.#memory.learn({ id: action.id, multicast: action.multicast });
        return {};
      case "deleteNetwork":
        await this.#memory.forget(action.id);
        return {};
      case "createEndpoint": {
        const bridge = findBridge(links, plumbing.host.bridge);
        const made = createEndpointLink(links, { ...endpointLinks(action.id), bridge, mac: action.mac });
        return endpointAnswer(action.mac === undefined ? made : undefined);
      }
      case "deleteEndpoint":
        removeEndpointLink(links, endpointLinks(action.id).host);
        this.#containers.handleEndpointGone(action.id);
        this.#multicast.delete(action.id);
        return {};
      case "join": {
        const { network, endpoint, sandbox } = action;
        const named = this.#engineAnswers ? this.#containers.nameStarting(network, endpoint, NAME_MS) : undefined;
        const multicast = await this.#hasMulticast(network) && this.#takeMulticast(endpoint, sandbox);
        await named;
        return joinAnswer(endpoint, multicast);
      }
      case "leave":
        this.#multicast.delete(action.endpoint);
        return {};
      case "requestAddress":
        return addressAnswer(await this.#giveAddress(action.pool, action.address, signal), action.pool);
      case "releaseAddress":
        await this.#takeBack(action.address);
        return {};
      default:
        return action satisfies never;
    }
  }

  /** Where nobody knows, a container can do without. */
  async #hasMulticast(network: string): Promise<boolean> {
    try {
      return (await this.#network(network))?.multicast ?? this.#o.options.v2Multicast;
    } catch (error) {
      this.#o.log.warn("nobody knows whether a network of Docker has multicast", { reason: (error as Error).message });
      return false;
    }
  }

  /** Docker would refuse a container a second route for it: the first network that has multicast keeps it. */
  #takeMulticast(endpoint: string, sandbox: string | undefined): boolean {
    const taken = [...this.#multicast].some(([other, where]) => where === sandbox && other !== endpoint);
    if (sandbox === undefined || taken || hasMulticastRoute(sandbox)) return sandbox === undefined;
    this.#multicast.set(endpoint, sandbox);
    return true;
  }

  async #giveAddress(pool: Pool, wanted: Ipv4 | undefined, gone: AbortSignal): Promise<Ipv4> {
    const { ipam } = this.#o;
    const signal = AbortSignal.any([gone, AbortSignal.timeout(ADDRESS_MS)]);
    let address: Ipv4;
    if (wanted !== undefined) {
      await this.#claim({ address: wanted, prefixLength: pool.subnet.prefixLength }, signal);
      address = wanted;
    } else if (ipam === undefined) {
      throw new OperationError("Cannot allocate an address: the router allocates none (its --ipalloc-range is empty)");
    } else {
      address = await ipam.allocateUnnamed(pool.range, signal);
    }
    try {
      await this.#memory.hold(address);
    } catch (error) {
      await this.#takeBack(address);
      throw error;
    }
    // Nobody would give it back.
    if (gone.aborted) await this.#takeBack(address);
    return address;
  }

  async #takeBack(address: Ipv4): Promise<void> {
    const { ipam } = this.#o;
    const holder = ipam?.holderOf(address);
    if (holder !== undefined && mayBeOfDocker(holder, address)) await ipam?.release(address);
    await this.#memory.release(address);
  }

  /**
   * Docker does not know who has what. An address that it was given before may have been left behind when it died: then nobody in
   * the network answers for it, and it may have it again.
   */
  async #claim(cidr: Cidr, signal: AbortSignal): Promise<void> {
    const { ipam, links, plumbing } = this.#o;
    const holder = ipam?.holderOf(cidr.address);
    if (holder !== undefined && !mayBeOfDocker(holder, cidr.address)) {
      throw new OperationError(`Cannot claim address ${formatCidr(cidr)}: it is held by ${holder}`);
    }
    if (holder !== undefined || ipam === undefined || !ipam.allocates(cidr.address)) {
      await refuseTaken(links, findBridge(links, plumbing.host.bridge), [cidr]);
    }
    if (holder !== undefined && holder !== formatIpv4(cidr.address)) await ipam!.release(cidr.address);
    await ipam?.claimUnnamed(cidr, signal);
  }
}

/** Somebody else may have made it. */
function multicastOf({ options }: DockerNetwork): boolean {
  try {
    return readMulticast(options[MULTICAST_OPTION]) ?? false;
  } catch {
    return false;
  }
}

/** From an earlier start of ours: a container that is being started has no namespace yet. */
function hasMulticastRoute(sandbox: string): boolean {
  try {
    const netns = statNetns(sandbox);
    if (netns === undefined || isOwnNetns(netns)) return false;
    using container = new ContainerNetns(netns);
    return container.links.routes().some(({ destination }) => formatCidr(destination) === MULTICAST);
  } catch {
    return false; // Docker will say what is wrong with it
  }
}

/** Given to Docker without an owner, or found in one of its containers by a router that had lost its state. */
function mayBeOfDocker(holder: string, address: Ipv4): boolean {
  return holder === formatIpv4(address) || /^[0-9a-f]{64}$/.test(holder);
}

function responseOf(status: number, body: Json): HttpResponse {
  return { status, headers: { "Content-Type": CONTENT_TYPE }, body: writeJson(body) };
}
