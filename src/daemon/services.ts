/**
 * Services, put together: everybody's records, health of our own backends, addresses in the mesh, names, and what the kernel does.
 *
 *     API ─▶ ServiceOperations ─▶ Catalogue ⇄ mesh
 *     probes ─▶ Health ─▶ status ─▶   │
 *     links, names, peers ───────▶ planServices() ─▶ names in DNS, then ServiceKernel, then what we hold, told to all
 *
 * Whatever changes asks for a look (`look()`), which is the whole way once more; looks that are asked for during one become one.
 */
import type { RouterOptions } from "../config/options.ts";
import { NetlinkSocket } from "../../ffi/netlink_socket.ts";
import { type AnnouncedAddress, Announcer } from "../host/announce.ts";
import type { Clock } from "../host/clock.ts";
import type { Links } from "../host/links.ts";
import { nftMissing } from "../host/nft.ts";
import { ServiceKernel } from "../host/service_kernel.ts";
import { resetFlows } from "../host/service_reset.ts";
import type { ControlSockets } from "../host/sockets.ts";
import { NotStoredError, OperationError } from "../lib/errors.ts";
import { type Cidr, formatCidr, type Ipv4, networkOf } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import { parsePeerName, type PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import { type Deadline, earlier, type Instant } from "../lib/time.ts";
import type { Mesh } from "../mesh/mesh.ts";
import { Catalogue, CHANNEL } from "../service/catalogue.ts";
import type { BackendId, GatewaySubnet } from "../service/plan.ts";
import { type Planned, type PlannerView, planServices, portOf, sameSubnet } from "../service/planner.ts";
import {
  type Backend,
  type ExportRecord,
  type Held,
  type ImportRecord,
  type ImportSpec,
  keyOf,
  type Known,
  virtualAddresses,
} from "../service/records.ts";
import { formatBackend } from "../service/spec.ts";
import { refusedBackend } from "../service/spec.ts";
import { NETLINK_ROUTE, RTNLGRP_IPV4_IFADDR, RTNLGRP_LINK } from "../wire/rtnetlink.ts";
import type { Companion } from "./control_loop.ts";
import type { Dns } from "./dns.ts";
import type { Ipam } from "./ipam.ts";
import { hostAddresses, networkAddresses } from "./network_addresses.ts";
import { Networks } from "./networks.ts";
import type { Plumbing } from "./plumbing.ts";
import { ServiceFlows } from "./service_flows.ts";
import { ServiceHealth } from "./service_health.ts";
import { ServiceIds } from "./service_ids.ts";
import { BackendNames } from "./service_names.ts";
import { otherServicesFile, type OwnServices, ownServicesFile } from "./service_store.ts";
import { SiteDns } from "./site_dns.ts";

export interface ServicesOptions {
  readonly options: Pick<RouterOptions, "dbPrefix" | "dnsDomain" | "dnsTtl" | "networks">;
  readonly ourName: PeerName;
  readonly mesh: Mesh;
  /** Hands an input to the cores, and carries out what they ask for. */
  readonly run: <T>(input: (now: Instant) => T) => T;
  /** undefined: addresses are not allocated, and so nothing can be imported. */
  readonly ipam: Ipam | undefined;
  readonly dns: Dns | undefined;
  readonly sockets: ControlSockets;
  readonly plumbing: Plumbing;
  readonly links: Links;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** A router ran here and nobody has stopped it: what commands changed of networks goes on. */
  readonly restarted: boolean;
}

/** Who holds this host's addresses in the mesh for services. */
export const GATEWAY_ID = "weave:gateway";
/** Who holds a service's virtual addresses: `service:NAME`, on the peer that owns their range. */
const HOLD_PREFIX = "service:";
export const holdId = (name: string) => `${HOLD_PREFIX}${name}`;
/** Who holds the address where others reach our backends of a service. */
export const relayId = (name: string) => `weave:relay:${name}`;

/** Rules are compared with what they should be so often. */
const CHECK_MS = 10_000;
/** What failed is tried again. */
const RETRY_MS = 2_000;
/** A disk that is full may have room again. */
const STORE_RETRY_MS = 5_000;
/** How long this host keeps its addresses in the mesh when it has no services. */
const RELEASE_MS = 60_000;
/** How long others are waited for at the start, and how long they take to say what they know. */
const OTHERS_MS = 3_000;
const SAY_MS = 200;
/** Links and addresses change in bunches. */
const LINKS_SETTLE_MS = 100;

export class Services implements Companion {
  readonly catalogue: Catalogue;
  readonly networks: Networks;
  readonly health: ServiceHealth;
  readonly flows: ServiceFlows;
  readonly names: BackendNames;
  readonly #siteDns: SiteDns;
  readonly o: ServicesOptions;
  readonly #ids: ServiceIds;
  readonly #file: ReturnType<typeof ownServicesFile>;
  readonly #othersFile: ReturnType<typeof otherServicesFile>;
  readonly #owned = new AsyncDisposableStack();
  /** undefined: `nft` is missing, or the kernel refuses. */
  #kernel: ServiceKernel | undefined;
  #kernelTrouble: string | undefined;
  #storeTrouble: string | undefined;
  #storeTimer: number | undefined;
  /** An operation is under way that is undone where it cannot be stored, and whether it could not. */
  #undoable = false;
  #notStored: string | undefined;
  #gatewayTrouble: string | undefined;
  #gatewayTimer: number | undefined;
  #planned: Planned | undefined;
  #announcer: Announcer | undefined;
  /** What we answer for, as text. */
  readonly #answered = new Map<string, AnnouncedAddress>();
  /** `address peer holds`: others that could answer for what we answer for, or say that they do. */
  #rivals: ReadonlySet<string> = new Set();
  /** In which subnets this host has an address for services. */
  readonly #gateways: GatewaySubnet[] = [];
  readonly #gatewaysAsked = new Map<string, Promise<void>>();
  /** Names whose virtual address is being allocated. */
  readonly allocating = new Map<string, number>();
  /** Virtual addresses by service, as the owner of their range is to hold them. */
  readonly #holds = new Map<string, readonly Cidr[]>();
  #wantedLook = 0;
  #doneLook = 0;
  readonly #lookWaiters: { readonly look: number; readonly resolve: () => void }[] = [];
  #looking = false;
  #revoked: ReadonlySet<BackendId> = new Set();
  #lookTimer: number | undefined;
  #others = false;
  /** Others are waited for; undefined: no more. */
  #patience: PromiseWithResolvers<void> | undefined;
  #stopped = false;
  /** After which a proposal of ours, or a relay address, may be amiss. */
  onNamesChanged: (names: readonly string[]) => void = () => {};

  private constructor(o: ServicesOptions, own: OwnServices | undefined, catalogue: Catalogue) {
    this.o = o;
    this.catalogue = catalogue;
    const { dbPrefix, dnsDomain } = o.options;
    this.#file = ownServicesFile(dbPrefix);
    this.#othersFile = otherServicesFile(dbPrefix);
    this.#ids = new ServiceIds(own?.ids);
    this.networks = new Networks({ ids: this.#ids, stored: own, launched: o.options.networks, restarted: o.restarted });
    this.names = new BackendNames({
      domain: dnsDomain.replace(/\.$/, ""),
      lookupInMesh: (name) => this.#lookupInMesh(name),
      onChanged: () => this.look(),
    });
    this.health = new ServiceHealth({
      sockets: o.sockets,
      run: o.run,
      networkOf: (name) => this.networks.target(name),
      addresses: (spec, backend) => this.backendAddresses(spec, backend),
    });
    const { sockets, log } = o;
    this.#siteDns = this.#owned.use(new SiteDns({ domain: this.domain, ttlSeconds: o.options.dnsTtl, sockets, log }));
    this.flows = new ServiceFlows({ log: o.log, onChanged: () => this.look() });
  }

  /** Before the mesh has its first connection. @throws OperationError where what was stored cannot be understood */
  static async start(o: ServicesOptions): Promise<Services> {
    const { ourName, mesh, clock, log, random } = o;
    const { dbPrefix, dnsDomain } = o.options;
    const own = await ownServicesFile(dbPrefix).read();
    const others = await otherServicesFile(dbPrefix).read().catch((error: Error) => {
      log.warn("services of others that were stored cannot be read", { error: error.message });
      return undefined;
    });
    const catalogue = new Catalogue({
      ourName,
      domain: dnsDomain,
      isReachable: (peer) => peer === ourName || mesh.routes.unicastAll().has(peer),
      unixMs: clock.wallMs,
      log,
      random,
      stored: own?.records,
      others: others ?? [],
    }, clock.monotonicMs());
    const services = new Services(o, own, catalogue);
    mesh.register(catalogue);
    await services.#openKernel();
    services.#watch();
    await services.#restoreGateways();
    services.#noteHolds(catalogue.names());
    services.#waitForOthers();
    services.look();
    return services;
  }

  /**
   * What the kernel does was right when we were stopped. Whoever shares a service with us is not within reach in the first moment: before he
   * is, nothing is taken from him, and nothing that goes through him ends.
   */
  #waitForOthers(): void {
    if (this.#absentOthers().length === 0) return;
    this.#patience = Promise.withResolvers<void>();
    const timer = setTimeout(() => this.#loseHope(), OTHERS_MS);
    this.#owned.defer(() => clearTimeout(timer));
    this.#owned.defer(() => this.#loseHope());
  }

  /** Nothing is looked at while much is changed. */
  async whileBlind<T>(work: () => Promise<T>): Promise<T> {
    await this.#patience?.promise;
    this.#patience = Promise.withResolvers<void>();
    try {
      return await work();
    } finally {
      this.#loseHope();
    }
  }

  #loseHope(): void {
    this.#patience?.resolve();
    this.#patience = undefined;
  }

  /** Peers out of reach that have to do with services of ours. */
  #absentOthers(): readonly PeerName[] {
    const names = new Set(this.catalogue.own().map(({ spec }) => spec.name));
    return [...names].flatMap((name) => [...this.catalogue.imports(name), ...this.catalogue.exports(name)]).filter((
      { owner, reachable },
    ) => owner !== this.o.ourName && !reachable).map(({ owner }) => owner);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#lookTimer);
    clearTimeout(this.#releaseTimer);
    clearTimeout(this.#storeTimer);
    clearTimeout(this.#gatewayTimer);
    this.names.stop();
    this.health.stop();
    this.flows.stop();
    await this.#owned.disposeAsync();
    await this.#store().catch(() => {});
    if (this.#others) await this.#othersFile.write(this.catalogue.others()).catch(() => {});
  }

  /** Why nothing can be offered, in one line; undefined: it can. */
  get unable(): string | undefined {
    return this.#kernelTrouble;
  }

  get warnings(): readonly string[] {
    const { unable } = this;
    const inUse = this.catalogue.own().length > 0 || this.networks.all().length > 0;
    return [
      ...unable !== undefined && inUse ? [`Services do not work: ${unable}`] : [],
      ...this.storeWarnings,
      ...this.networks.all().flatMap(({ name }) => this.networkWarnings(name)),
      ...this.#kernel?.networksLeft ?? [],
      ...this.#siteDns.warnings,
    ];
  }

  get storeWarnings(): readonly string[] {
    return this.#storeTrouble === undefined
      ? []
      : [`Services will not come back after a restart: ${this.#storeTrouble}`];
  }

  /** Why what is is not what will be after a restart; undefined: it is. */
  get storeTrouble(): string | undefined {
    return this.#storeTrouble;
  }

  /** What keeps a network from working. */
  networkWarnings(name: string): readonly string[] {
    const warnings = this.#kernel?.networkWarnings(name) ?? [];
    return warnings.length > 0 ? warnings : this.networks.warnings(this.o.links, name);
  }

  /** Why an isolated network could not be made. */
  networkFailure(name: string): string | undefined {
    return this.#kernel?.networkFailure(name);
  }

  get planned(): Planned | undefined {
    return this.#planned;
  }

  get gateways(): readonly GatewaySubnet[] {
    return this.#gateways;
  }

  // The control loop

  drain(now: Instant): void {
    const { mesh } = this.o;
    for (let output = this.catalogue.poll(); output !== undefined; output = this.catalogue.poll()) {
      switch (output.type) {
        case "persist":
          this.#persist();
          break;
        case "persistOthers":
          void this.#persistOthers();
          break;
        case "unicast":
          if (!mesh.sendUnicast(CHANNEL, output.to, output.payload, now)) {
            this.catalogue.handleUndelivered(output.to, now);
          }
          break;
        case "broadcast":
          mesh.sendBroadcast(CHANNEL, output.data, now);
          break;
        case "gossip":
          mesh.sendGossip(CHANNEL, output.data, now);
          break;
        case "changed":
          this.#handleChanged(output.names);
          break;
        default:
          output satisfies never;
      }
    }
    if (this.health.drain()) this.#tellHealth(now);
    if (this.names.checkMesh()) this.look();
  }

  handleTimeout(now: Instant): void {
    this.catalogue.handleTimeout(now);
    this.health.handleTimeout(now);
  }

  pollTimeout(): Deadline | undefined {
    return earlier(this.catalogue.pollTimeout(), this.health.pollTimeout());
  }

  handlePeerGone(name: PeerName, now: Instant): void {
    this.catalogue.handlePeerGone(name, now);
  }

  handleTopology(now: Instant): void {
    this.catalogue.handleTopology(now);
    if (this.#patience === undefined || this.#absentOthers().length > 0) return;
    // They are about to say how things are.
    setTimeout(() => this.#loseHope(), SAY_MS);
  }

  /** A peer, by its name or nickname, will not come back. */
  removePeer(id: string): void {
    const name = parsePeerName(id);
    for (const { owner, reachable } of this.catalogue.owners()) {
      if (reachable || owner !== name && this.nickName(owner) !== id) continue;
      this.o.run((now) => this.catalogue.removePeer(owner, now));
    }
  }

  /** This host will not be part of the mesh any more. */
  async leave(): Promise<void> {
    this.o.run(() => {
      for (const record of this.catalogue.own()) this.catalogue.remove(keyOf(record));
    });
    await this.whenStored();
    await this.look();
  }

  nickName(peer: PeerName): string {
    return this.o.mesh.peer(peer)?.nickName ?? this.#nickNames.get(peer) ?? "";
  }

  readonly #nickNames = new Map<PeerName, string>();

  #handleChanged(names: readonly string[]): void {
    for (const { owner } of this.catalogue.owners()) {
      const record = this.o.mesh.peer(owner);
      if (record !== undefined && record.nickName !== "") this.#nickNames.set(owner, record.nickName);
    }
    this.#noteHolds(names);
    this.onNamesChanged(names);
    this.look();
  }

  // Looking, and what follows

  /** Something may be to be done. Resolves when it is. */
  look(): Promise<void> {
    const look = ++this.#wantedLook;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#lookWaiters.push({ look, resolve });
    if (!this.#looking) void this.#lookUntilDone();
    return promise;
  }

  async #lookUntilDone(): Promise<void> {
    this.#looking = true;
    clearTimeout(this.#lookTimer);
    try {
      while (this.#doneLook < this.#wantedLook && !this.#stopped) {
        await this.#patience?.promise;
        if (this.#stopped) break;
        // What is asked for in the same moment is one.
        await Promise.resolve();
        const look = this.#wantedLook;
        await this.#lookOnce();
        this.#doneLook = look;
        while ((this.#lookWaiters[0]?.look ?? Infinity) <= look) this.#lookWaiters.shift()!.resolve();
      }
    } finally {
      this.#looking = false;
      if (this.#stopped) { for (const { resolve } of this.#lookWaiters.splice(0)) resolve(); }
    }
  }

  async #lookOnce(): Promise<void> {
    const { log, run } = this.o;
    let trouble: string | undefined;
    this.#local.clear();
    try {
      const own = this.catalogue.own();
      this.names.retain(
        new Set(
          own.flatMap((record) =>
            record.kind === "import"
              ? record.spec.backends.map(({ host }) => host).filter((host) => typeof host === "string")
              : record.spec.name.includes(".")
              ? [record.spec.name]
              : []
          ),
        ),
      );
      this.#askForGateways();
      this.#releaseGateways(own.length);
      run((now) => {
        this.health.watch(this.catalogue.own().filter((record) => record.kind === "import"), now);
        this.#tellHealth(now);
      });
      const planned = planServices(this.#view());
      this.#planned = planned;
      this.o.dns?.setServiceNames(planned.names);
      // A number that is in a mark is on disk.
      if (this.#ids.dirty) await this.#store();
      if (this.#kernel !== undefined) {
        this.#siteDns.set(planned.siteViews);
        await this.#kernel.apply(planned.plan);
      }
      this.#tellStatus(planned);
      this.#outlastRivals();
      this.#endRevoked(planned);
      this.flows.need(this.#flowsMatter(planned));
      this.#forgetIds(planned);
    } catch (error) {
      trouble = (error as Error).message;
    }
    if (trouble !== undefined && trouble !== this.#applyTrouble) {
      log.error("services cannot be served", { error: trouble });
    }
    this.#applyTrouble = trouble;
    if (trouble !== undefined) this.#lookTimer = setTimeout(() => this.look(), RETRY_MS);
  }

  #applyTrouble: string | undefined;

  /** Why the last look came to nothing. */
  get trouble(): string | undefined {
    return this.#applyTrouble;
  }

  #view(): PlannerView {
    const { ourName, links } = this.o;
    const own = new Map<string, readonly Ipv4[]>();
    const ownAddresses = (network: string) => {
      const known = own.get(network) ?? this.ownAddresses(network);
      own.set(network, known);
      return known;
    };
    const byAddress = this.#exportsByAddress();
    const networks = this.networks.plans();
    return {
      ourName,
      domain: this.domain,
      own: () => this.catalogue.own(),
      imports: (name) => this.catalogue.imports(name),
      exportsAt: (network, address) => byAddress.get(`${network} ${address}`) ?? [],
      networks,
      gateways: [...this.#gateways, ...this.#exposed(links)],
      addresses: (spec, backend) => this.backendAddresses(spec, backend),
      containerAddresses: (name) => this.names.addresses(name),
      health: (name, backend, address) => this.health.of(name, backend, address),
      ownAddresses,
      siteAddresses: (network) => this.siteAddresses(network),
      idOf: (place) => this.#ids.backend(place),
      backendsOf: (service) => this.#ids.of(service),
      hasFlows: (service, network) => this.flows.has(this.#ids.of(service).map(({ id }) => id), network),
    };
  }

  /** Without its final dot. */
  get domain(): string {
    return this.o.options.dnsDomain.replace(/\.$/, "");
  }

  /** The host's own addresses in a network. */
  ownAddresses(network: string): readonly Ipv4[] {
    const plan = this.networks.plans().find(({ name }) => name === network);
    return plan === undefined ? hostAddresses(this.o.links) : networkAddresses(this.o.links, plan);
  }

  /** The host's own addresses in a network by which its machines know it: in that of the host, those of the overlay and of Docker are not. */
  siteAddresses(network: string): readonly Ipv4[] {
    if (network !== "host") return this.ownAddresses(network);
    const { links, plumbing } = this.o;
    const named = new Set(this.networks.plans().flatMap(({ interfaces }) => interfaces));
    const notSite = new Set([plumbing.host.bridge, "lo", "docker0"]);
    const site = links.list().filter(({ name }) => !named.has(name) && !notSite.has(name));
    return site.flatMap(({ index }) => links.addresses(index).map(({ address }) => address));
  }

  /** Addresses that are the host's own as far as its kernel can tell: what is there must not be a backend by accident. */
  localAddresses(network: string): readonly Ipv4[] {
    const plan = this.networks.plans().find(({ name }) => name === network);
    if (plan?.isolated === true) return networkAddresses(this.o.links, plan);
    const answered = this.#planned?.plan.answered.map(({ address }) => address) ?? [];
    return [...hostAddresses(this.o.links), ...this.#gateways.map(({ address }) => address), ...answered];
  }

  /** Where a backend of ours is; a name that stands for what it must not leads nowhere. */
  backendAddresses({ allowLocal }: ImportSpec, { host, network }: Backend): readonly Ipv4[] {
    const addresses = this.names.addresses(host);
    if (typeof host === "number" || allowLocal || addresses.length === 0) return addresses;
    return addresses.filter((address) => refusedBackend(address, this.#localNow(network)) === undefined);
  }

  /** Why a backend is nowhere. */
  backendFailure(spec: ImportSpec, backend: Backend): string | undefined {
    if (this.backendAddresses(spec, backend).length > 0) return undefined;
    const [address] = this.names.addresses(backend.host);
    if (address === undefined) return this.names.failure(backend.host);
    return refusedBackend(address, this.#localNow(backend.network));
  }

  /** `localAddresses()` as they were when we looked last. */
  #localNow(network: string): readonly Ipv4[] {
    const known = this.#local.get(network) ?? this.localAddresses(network);
    this.#local.set(network, known);
    return known;
  }

  readonly #local = new Map<string, readonly Ipv4[]>();

  /** What is exposed on the bridge leads to its subnet as well. */
  #exposed(links: Links): GatewaySubnet[] {
    const bridge = links.find(this.o.plumbing.host.bridge);
    if (bridge === undefined) return [];
    return links.addresses(bridge.index).map(({ address, prefixLength }) => ({
      subnet: { address: networkOf({ address, prefixLength }), prefixLength },
      address,
      exposed: true as const,
    })).filter(({ subnet }) => !this.#gateways.some((gateway) => sameSubnet(gateway.subnet, subnet)));
  }

  /** Of addresses that we export at, all who do. */
  #exportsByAddress(): Map<string, Known<ExportRecord>[]> {
    const ours = new Set<string>();
    for (const record of this.catalogue.own()) {
      if (record.kind !== "export" || record.spec.listen.address === "own") continue;
      ours.add(`${record.spec.network} ${record.spec.listen.address}`);
    }
    const found = new Map<string, Known<ExportRecord>[]>();
    if (ours.size === 0) return found;
    for (const name of this.catalogue.names()) {
      for (const known of this.catalogue.exports(name)) {
        const { network, listen } = known.record.spec;
        const key = `${network} ${listen.address}`;
        if (ours.has(key)) found.set(key, [...found.get(key) ?? [], known]);
      }
    }
    return found;
  }

  #tellHealth(now: Instant): void {
    for (const record of this.catalogue.own()) {
      if (record.kind !== "import") continue;
      const health = this.health.ofBackends(record.spec);
      this.#logHealth(record, health);
      this.catalogue.setStatus<ImportRecord>(keyOf(record), { ...record.status, health }, now);
    }
  }

  #logHealth({ spec, status }: ImportRecord, health: ImportRecord["status"]["health"]): void {
    for (const [i, backend] of spec.backends.entries()) {
      const state = health[i];
      if (state === status.health[i] || state === undefined || state === "unknown") continue;
      const fields = { service: spec.name, address: formatBackend(backend, spec.network) };
      if (state === "up") this.o.log.info("backend is up", fields);
      else this.o.log.info("backend is down", { ...fields, reason: this.health.reason(spec, backend) ?? "" });
    }
  }

  /** What we hold is told when we answer for it. */
  #tellStatus({ importHolding, exportStatus }: Planned): void {
    if (this.#kernel === undefined) return;
    this.o.run((now) => {
      for (const record of this.catalogue.own()) {
        const key = keyOf(record);
        if (record.kind === "import") {
          const holding = importHolding.get(key);
          if (holding !== undefined) {
            this.catalogue.setStatus<ImportRecord>(key, { ...record.status, holding }, now);
          }
        } else {
          const status = exportStatus.get(key);
          if (status !== undefined) this.catalogue.setStatus<ExportRecord>(key, status, now);
        }
      }
    });
  }

  /**
   * Two who did not reach each other both answer for an address; when they do again, one of them gives up, and clients may have heard him
   * last. So whoever goes on says it again a few times when another one comes, goes, takes it or gives it up.
   */
  #outlastRivals(): void {
    const rivals = new Set<string>();
    for (const record of this.catalogue.own()) {
      const { name } = record.spec;
      const held: readonly (Held | undefined)[] = record.kind === "import"
        ? record.status.holding
        : [record.status.holding];
      for (const one of held) {
        if (one === undefined) continue;
        const others = record.kind === "import"
          ? this.catalogue.imports(name).map((known) => ({ ...known, held: known.record.status.holding }))
          : this.catalogue.exports(name).map((known) => ({ ...known, held: [known.record.status.holding] }));
        for (const { owner, reachable, held } of others) {
          if (!reachable || owner === this.o.ourName) continue;
          const holds = held.some((other) => other?.address === one.address);
          rivals.add(`${one.address} ${owner} ${holds ? "holds" : ""}`);
        }
      }
    }
    const changed = new Set([...this.#rivals, ...rivals].filter((one) => !(this.#rivals.has(one) && rivals.has(one))));
    const addresses = new Set([...changed].map((one) => parseInt(one)));
    this.#rivals = rivals;
    this.#announcer?.announce([...this.#answered.values()].filter(({ address }) => addresses.has(address)));
  }

  #ending: Promise<number> = Promise.resolve(0);

  /** How many flows the last revocation ended, when it is done. */
  get ended(): Promise<number> {
    return this.#ending;
  }

  #endRevoked({ revoked }: Planned): void {
    const fresh = new Set([...revoked].filter((id) => !this.#revoked.has(id)));
    this.#revoked = revoked;
    if (fresh.size === 0) return;
    this.#ending = resetFlows({ backends: fresh, namespaces: this.networks.namespaces() }).then(
      ({ flows }) => flows,
      (error: Error) => {
        this.o.log.error("flows of a revoked service cannot be ended", { error: error.message });
        return 0;
      },
    );
  }

  /** Whether anybody asks how many flows there are: where another gateway could hold what we hold, or something runs dry. */
  #flowsMatter({ plan }: Planned): boolean {
    const contested = plan.answered.length > 0 &&
      this.catalogue.own().some((record) =>
        record.kind === "export"
          ? record.status.holding !== undefined
          : this.catalogue.imports(record.spec.name).length > 1
      );
    return contested ||
      this.catalogue.own().some((record) => record.kind === "import" && record.spec.state === "draining");
  }

  #forgetIds({ plan }: Planned): void {
    const used = new Set(plan.backends.map(({ id }) => id));
    let unused = 0;
    for (const { id } of this.#ids.all()) if (!used.has(id)) unused++;
    // Numbers are plenty: who is moved to and fro keeps its own.
    if (unused < 1_024) return;
    void this.flows.countNow().then(() => {
      const planned = new Set(this.#planned?.plan.backends.map(({ id }) => id));
      this.#ids.retain((id) => planned.has(id) || this.flows.total(id) > 0);
    }).catch(() => {});
  }

  /** How many flows a service's backend has through this host, by what was counted last. */
  flowsOf(service: string, backend: Backend, addresses: readonly Ipv4[]): number {
    const network = this.networks.target(backend.network)?.id;
    const { protocol, first } = portOf(backend);
    const ids = this.#ids.of(service).filter(({ address, port, ...one }) =>
      one.network === network && addresses.includes(address) && port?.protocol === protocol && port.first === first
    );
    return ids.reduce((sum, { id }) => sum + this.flows.total(id), 0);
  }

  /** All flows of a service through this host, by what was counted last. */
  totalFlows(service: string): number {
    return this.#ids.of(service).reduce((sum, { id }) => sum + this.flows.total(id), 0);
  }

  /** Flows to backends that a service had before, and has no more. */
  formerFlows(service: string): number {
    const planned = new Set(this.#planned?.plan.backends.map(({ id }) => id));
    return this.#ids.of(service).filter(({ id }) => !planned.has(id)).reduce(
      (sum, { id }) => sum + this.flows.total(id),
      0,
    );
  }

  // Addresses in the mesh

  /** Makes sure that this host has an address of its own in a subnet. Waits for IPAM. */
  async ensureGateway(subnet: Cidr): Promise<void> {
    if (this.#gateways.some((gateway) => sameSubnet(gateway.subnet, subnet))) return;
    const key = formatCidr(subnet);
    const asked = this.#gatewaysAsked.get(key) ?? this.#obtainGateway(subnet);
    this.#gatewaysAsked.set(key, asked);
    try {
      await asked;
    } finally {
      this.#gatewaysAsked.delete(key);
    }
  }

  async #obtainGateway(subnet: Cidr): Promise<void> {
    const { ipam } = this.o;
    if (ipam === undefined) throw new OperationError("Addresses are not allocated here");
    const cidr = await ipam.allocateStored(GATEWAY_ID, subnet);
    this.#gatewayTrouble = undefined;
    this.#gateways.push({
      subnet: { address: networkOf(subnet), prefixLength: subnet.prefixLength },
      address: cidr.address,
    });
    this.look();
  }

  async #restoreGateways(): Promise<void> {
    const { ipam } = this.o;
    if (ipam === undefined) return;
    for (const subnet of this.#gatewaySubnets()) {
      const held = await ipam.book.lookup(GATEWAY_ID, subnet);
      if (typeof held === "string" || held[0] === undefined) continue;
      this.#gateways.push({ subnet, address: held[0].address });
    }
  }

  /** Subnets of the mesh that our records lead to or from. */
  #gatewaySubnets(): readonly Cidr[] {
    const { ipam } = this.o;
    if (ipam === undefined) return [];
    const wanted = new Map<string, Cidr>();
    const add = (subnet: Cidr) => wanted.set(formatCidr(subnet), subnet);
    for (const record of this.catalogue.own()) {
      if (record.kind === "import") {
        for (const { subnet } of record.offers) add(subnet);
        if (record.spec.backends.some(({ network }) => network === "weave")) add(ipam.defaultSubnet);
      } else if (record.spec.name.includes(".")) add(ipam.defaultSubnet);
      else for (const { subnet } of virtualAddresses(this.catalogue.imports(record.spec.name))) add(subnet);
    }
    return [...wanted.values()];
  }

  /** Resolves when this host has all addresses that its records need. */
  async ensureGateways(): Promise<void> {
    await Promise.all(this.#gatewaySubnets().map((subnet) => this.ensureGateway(subnet)));
  }

  /** Who has no services any more gives its addresses back, when what was under way has had its time. */
  #releaseGateways(records: number): void {
    clearTimeout(this.#releaseTimer);
    if (records > 0 || this.#gateways.length === 0) return;
    this.#releaseTimer = setTimeout(() => {
      for (const { address } of this.#gateways.splice(0)) void this.o.ipam?.book.free(GATEWAY_ID, address);
      this.look();
    }, RELEASE_MS);
  }

  #releaseTimer: number | undefined;

  #askForGateways(): void {
    for (const subnet of this.#gatewaySubnets()) {
      this.ensureGateway(subnet).catch((error: Error) => this.#handleNoGateway(subnet, error));
    }
  }

  #handleNoGateway(subnet: Cidr, error: Error): void {
    if (this.#gatewayTrouble !== error.message) {
      this.o.log.warn("this host gets no address for services", { subnet: formatCidr(subnet), error: error.message });
    }
    this.#gatewayTrouble = error.message;
    if (!(error instanceof NotStoredError) || this.#stopped) return;
    clearTimeout(this.#gatewayTimer);
    this.#gatewayTimer = setTimeout(() => this.look(), STORE_RETRY_MS);
  }

  /** Whoever owns the range of a virtual address holds it, as long as anybody imports the service. */
  #noteHolds(names: readonly string[]): void {
    for (const name of names) {
      const cidrs = this.catalogue.imports(name).flatMap(({ record }) =>
        record.offers.map(({ address, subnet }) => ({ address, prefixLength: subnet.prefixLength }))
      );
      if (cidrs.length === 0) this.#holds.delete(name);
      else this.#holds.set(name, cidrs);
    }
    this.keepHolds();
  }

  keepHolds(): void {
    const wanted = new Map<string, { id: string; cidr: Cidr }>();
    for (const [name, cidrs] of this.#holds) {
      for (const cidr of cidrs) wanted.set(`${name} ${cidr.address}`, { id: holdId(name), cidr });
    }
    this.o.ipam?.keep(
      [...wanted.values()],
      (id) => id.startsWith(HOLD_PREFIX) && !this.allocating.has(id.slice(HOLD_PREFIX.length)),
    );
  }

  /** Addresses of a name of the mesh, those that we made up ourselves not among them. */
  #lookupInMesh(name: string): readonly Ipv4[] {
    const label = name.slice(0, -this.domain.length - 1);
    const virtual = new Set(virtualAddresses(this.catalogue.imports(label)).map(({ address }) => address));
    return (this.o.dns?.addressesOf(name) ?? []).filter((address) => !virtual.has(address));
  }

  // Kernel and disk

  async #openKernel(): Promise<void> {
    const { log, plumbing } = this.o;
    this.#kernelTrouble = nftMissing();
    if (this.#kernelTrouble !== undefined) {
      log.warn("services cannot be offered", { reason: this.#kernelTrouble });
      return;
    }
    const announcer = this.#announcer = this.#owned.use(
      new Announcer((link, error) =>
        log.warn("an address cannot be announced", { interface: link, error: error.message })
      ),
    );
    try {
      this.#kernel = await ServiceKernel.open({
        runDir: plumbing.host.runDir,
        bridge: plumbing.host.bridge,
        onBegin: async () => void await plumbing.locked(() => plumbing.refreshFirewall(this.o.links)),
        onAnswered: (added, removed) => {
          announcer.withdraw(removed);
          announcer.announce(added);
          for (const one of removed) this.#answered.delete(JSON.stringify(one));
          for (const one of added) this.#answered.set(JSON.stringify(one), one);
        },
      });
    } catch (error) {
      this.#kernelTrouble = (error as Error).message;
      log.error("services cannot be offered", { error: this.#kernelTrouble });
    }
  }

  #watch(): void {
    const { sockets, log } = this.o;
    const changes = this.#owned.adopt(
      new NetlinkSocket(NETLINK_ROUTE, [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR]),
      (socket) => socket.fd.close(),
    );
    let settling: number | undefined;
    this.#owned.defer(sockets.watch(changes.fd, () => {
      changes.receive();
      settling ??= setTimeout(() => {
        settling = undefined;
        if (this.#planned !== undefined && this.catalogue.own().length > 0) this.look();
      }, LINKS_SETTLE_MS);
    }));
    this.#owned.defer(() => clearTimeout(settling));
    let checking = false;
    const timer = setInterval(async () => {
      if (checking || this.#looking || this.#kernel === undefined) return;
      checking = true;
      try {
        if (await this.#kernel.isIntact()) return;
        log.warn("rules of services were not as we left them; they are again");
        this.look();
      } catch (error) {
        log.warn("rules of services cannot be looked at", { error: (error as Error).message });
      } finally {
        checking = false;
      }
    }, CHECK_MS);
    this.#owned.defer(() => clearInterval(timer));
  }

  #persisted: Promise<void> = Promise.resolve();
  #persisting = false;
  #persistAgain = false;

  /** Resolves when what was set so far is stored, and told. */
  whenStored(): Promise<void> {
    return this.#persisted;
  }

  /** What changes while something is being written is written afterwards, however often it does. */
  #persist(): void {
    this.#persistAgain = true;
    if (!this.#persisting) this.#persisted = this.#persistUntilDone();
  }

  /**
   * Records and networks become what `work` makes of them, or, where that cannot be stored, what they were, and nobody hears of it. One at
   * a time.
   * @throws NotStoredError
   */
  async orNothing<T>(work: () => Promise<T>): Promise<T> {
    const before = { records: this.catalogue.own(), networks: this.networks.stored() };
    this.#undoable = true;
    try {
      const result = await work();
      await this.checkStored();
      return result;
    } catch (error) {
      if (error instanceof NotStoredError || this.#notStored !== undefined) await this.#undo(before);
      throw error;
    } finally {
      this.#undoable = false;
    }
  }

  /** Within `orNothing()`: resolves when what was set so far is stored. @throws NotStoredError where it cannot be */
  async checkStored(): Promise<void> {
    await this.whenStored();
    this.checkStoredSoFar();
  }

  /** The same of what has been tried already. */
  checkStoredSoFar(): void {
    if (this.#notStored !== undefined) throw new NotStoredError(this.#notStored);
  }

  async #undo(
    { records, networks }: {
      readonly records: ReturnType<Catalogue["own"]>;
      readonly networks: ReturnType<Networks["stored"]>;
    },
  ): Promise<void> {
    this.#undoable = false;
    this.#notStored = undefined;
    this.networks.revert(networks);
    this.o.run((now) => this.catalogue.revert(records, now));
    await this.whenStored();
    await this.look();
  }

  /** Nobody hears of what is not on disk, as long as that can be undone. */
  async #persistUntilDone(): Promise<void> {
    this.#persisting = true;
    try {
      while (this.#persistAgain) {
        this.#persistAgain = false;
        const { revision, stored } = this.catalogue.snapshot();
        const trouble = await this.#write(stored);
        this.#notStored = this.#undoable ? trouble : undefined;
        if (this.#notStored === undefined) this.o.run((now) => this.catalogue.handlePersisted(revision, now));
      }
    } finally {
      this.#persisting = false;
    }
  }

  async #persistOthers(): Promise<void> {
    this.#others = true;
    try {
      await this.#othersFile.write(this.catalogue.others());
    } catch (error) {
      this.o.log.warn("services of others cannot be stored", { error: (error as Error).message });
    }
  }

  /** Everything but records, which have their own time; those are written as they are. */
  #store(): Promise<string | undefined> {
    return this.#write(this.catalogue.snapshot().stored);
  }

  /** @throws NotStoredError where networks, and all the rest, cannot be stored */
  async save(): Promise<void> {
    const trouble = await this.#store();
    if (trouble !== undefined) throw new NotStoredError(trouble);
  }

  /** @returns why it cannot be; it is tried again then, as it will be by then */
  async #write(records: OwnServices["records"]): Promise<string | undefined> {
    this.#ids.dirty = false;
    const { networks, removed } = this.networks.stored();
    try {
      await this.#file.write({ networks, removed, ids: this.#ids.stored(), records });
      this.#storeTrouble = undefined;
      return undefined;
    } catch (error) {
      const { message } = error as Error;
      if (this.#storeTrouble === undefined) this.o.log.error("cannot remember services", { error: message });
      this.#storeTrouble = message;
      clearTimeout(this.#storeTimer);
      if (!this.#stopped) this.#storeTimer = setTimeout(() => void this.#store(), STORE_RETRY_MS);
      return message;
    }
  }
}
