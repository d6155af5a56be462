/**
 * From what is known to what is to be: everybody's records, our networks and addresses make a plan for the kernel, names for DNS, and what
 * we tell others of ourselves. Pure: the same knowledge makes the same plan.
 *
 *     mesh ─▶ virtual address ─(we hold it)─┬─▶ our backends                 network ─▶ listen address ─▶ the same, where we import it,
 *                                           └─▶ relay addresses of others                          └─▶ else its virtual address
 *     mesh ─▶ our relay address ───────────────▶ our backends
 */
import { type Cidr, cidrContains, type Endpoint, formatCidr, formatIpv4, type Ipv4, networkOf } from "../lib/ip.ts";
import { formatMac, type PeerName } from "../lib/mac.ts";
import { type PortRange, portsOverlap } from "../lib/ports.ts";
import { type Candidate, electHolder, exportCandidates, importCandidates, sharesOf } from "./election.ts";
import {
  type AnsweredAddress,
  type BackendId,
  type BackendPlace,
  type BackendPlan,
  type BackendPort,
  type GatewaySubnet,
  HOST_NETWORK,
  type ListenerPlan,
  type NetworkId,
  type NetworkPlan,
  type ServicePlan,
  type TargetPlan,
  WEAVE_NETWORK,
} from "./plan.ts";
import {
  type Backend,
  type BackendHealth,
  type ExportRecord,
  type ExportSpec,
  type ExportStatus,
  type ImportRecord,
  type ImportSpec,
  keyOf,
  type Known,
  type RecordKey,
  virtualAddresses,
} from "./records.ts";
import { exportedPorts } from "./spec.ts";

/** What is known. */
export interface PlannerView {
  readonly ourName: PeerName;
  /** Without its final dot. */
  readonly domain: string;
  own(): readonly (ImportRecord | ExportRecord)[];
  imports(name: string): readonly Known<ImportRecord>[];
  /** Exports of all services that listen at this address of a network. */
  exportsAt(network: string, address: Ipv4): readonly Known<ExportRecord>[];
  /** Besides the mesh and the host's own. */
  readonly networks: readonly NetworkPlan[];
  /** Our addresses in the mesh, one for each subnet; the first that fits is taken. */
  readonly gateways: readonly GatewaySubnet[];
  /** Where a backend of ours is, by what was looked up last. */
  addresses(spec: ImportSpec, backend: Backend): readonly Ipv4[];
  /** Addresses of a container by its name in DNS. */
  containerAddresses(name: string): readonly Ipv4[];
  /** Of one address of a backend of ours. */
  health(name: string, backend: Backend, address: Ipv4): BackendHealth;
  /** The host's own addresses in a network. */
  ownAddresses(network: string): readonly Ipv4[];
  /** Those of them at which names of exports are asked for. */
  siteAddresses(network: string): readonly Ipv4[];
  /** The same for the same backend, now and later. */
  idOf(place: BackendPlace): BackendId;
  /** All that a service's backends were since anybody remembers: some may have flows yet. */
  backendsOf(service: string): readonly Omit<BackendPlan, "service">[];
  /** Flows to a service's backends come from that network. */
  hasFlows(service: string, network: NetworkId): boolean;
}

/** What is to be. */
export interface Planned {
  readonly plan: ServicePlan;
  /** Names of services here, in the domain. */
  readonly names: readonly ServiceName[];
  /** By key of our own records. */
  readonly importHolding: ReadonlyMap<RecordKey, ImportRecord["status"]["holding"]>;
  readonly exportStatus: ReadonlyMap<RecordKey, ExportStatus>;
  /** Of which flows are to be ended. */
  readonly revoked: ReadonlySet<BackendId>;
  /** What is in the way, by name of the service; a plain line each. */
  readonly warnings: ReadonlyMap<string, readonly string[]>;
  /** Where names of exports are asked for on their networks. */
  readonly siteViews: readonly SiteView[];
}

export interface ServiceName {
  /** With the domain, without a final dot. */
  readonly hostname: string;
  /** An address, or a record in words. */
  readonly data: Ipv4 | string;
}

/** `--dns`: an address of a network that is asked for names, and what it answers. */
export interface SiteView {
  readonly network: NetworkId;
  readonly address: Ipv4;
  /** Where on loopback listeners of the plan lead the questions. */
  readonly server: Endpoint;
  /** Of exports that lead somewhere: addresses by name. */
  readonly names: ReadonlyMap<string, readonly Ipv4[]>;
}

/** What a server for names has as a service's name in numbers of backends. No service has such a name. */
const SITE_DNS = "weave:dns";
const DNS_PORT = 53;
/** Where nobody else listens: a port that takes root, at addresses of loopback that have no other use. */
const SITE_DNS_PORT = 534;
const siteDnsAddress = (network: NetworkId, number: number): Ipv4 =>
  (127 << 24 | 53 << 16 | network << 8 | number) >>> 0;
/** Addresses of a network at which names are answered. */
const MAX_SITE_VIEWS = 16;

export function planServices(view: PlannerView): Planned {
  return new Planner(view).run();
}

/** SRV records of one service; a range has its first port alone. */
const MAX_SRV = 16;

class Planner {
  readonly #v: PlannerView;
  readonly #networks: ReadonlyMap<string, NetworkId>;
  readonly #backends = new Map<BackendId, BackendPlan>();
  readonly #answered: AnsweredAddress[] = [];
  readonly #reached = new Set<Ipv4>();
  readonly #listeners: ListenerPlan[] = [];
  /** By network and address. */
  readonly #listenersAt = new Map<string, ListenerPlan[]>();
  /** Gateways that something depends on. */
  readonly #used = new Set<GatewaySubnet>();
  readonly #names: ServiceName[] = [];
  /** By network. */
  readonly #siteExports = new Map<NetworkId, SiteExport[]>();
  readonly #siteViews: SiteView[] = [];
  readonly #importHolding = new Map<RecordKey, ImportRecord["status"]["holding"]>();
  readonly #exportStatus = new Map<RecordKey, ExportStatus>();
  readonly #revoked = new Set<BackendId>();
  readonly #warnings = new Map<string, string[]>();

  constructor(view: PlannerView) {
    this.#v = view;
    this.#networks = new Map([
      ["weave", WEAVE_NETWORK],
      ["host", HOST_NETWORK],
      ...view.networks.map(({ name, id }) => [name, id] as const),
    ]);
  }

  run(): Planned {
    const own = this.#v.own();
    for (const record of own) if (record.kind === "import") this.#planImport(record);
    for (const record of own) if (record.kind === "export") this.#planExport(record);
    for (const record of own) {
      if (record.kind === "import" && record.spec.state === "revoked") this.#revokeFormer(record.spec.name);
    }
    for (const [network, exports] of this.#siteExports) this.#planSiteNames(network, exports);
    return {
      plan: {
        networks: this.#v.networks,
        subnets: this.#v.gateways.filter((gateway) => gateway.exposed !== true || this.#used.has(gateway)),
        answered: this.#answered,
        reached: [...this.#reached],
        backends: [...this.#backends.values()],
        listeners: this.#listeners,
      },
      names: this.#names,
      importHolding: this.#importHolding,
      exportStatus: this.#exportStatus,
      revoked: this.#revoked,
      warnings: this.#warnings,
      siteViews: this.#siteViews,
    };
  }

  // Imports

  #planImport(record: ImportRecord): void {
    const { spec, offers } = record;
    const all = this.#v.imports(spec.name);
    const holding: { address: Ipv4; flows: boolean }[] = [];
    for (const { subnet, address } of virtualAddresses(all)) {
      if (!offers.some((offer) => sameSubnet(offer.subnet, subnet))) continue;
      if (this.#gatewayIn(subnet) === undefined) {
        this.#warn(spec.name, `This host has no address of its own in ${formatCidr(subnet)} yet`);
        continue;
      }
      if (this.#holder(spec.name, all, address) !== this.#v.ourName) {
        this.#reached.add(address);
        continue;
      }
      this.#answered.push({ network: WEAVE_NETWORK, address });
      holding.push({ address, flows: this.#v.hasFlows(spec.name, WEAVE_NETWORK) });
      const offering = all.filter((one) => one.reachable && offerIn(one.record, subnet) !== undefined);
      for (const ports of cut(offering.flatMap((one) => one.record.spec.ports))) {
        const targets = this.#targets(spec.name, offering, ports, subnet);
        this.#listen({ service: spec.name, network: WEAVE_NETWORK, address, ports, allow: undefined, targets });
      }
    }
    this.#importHolding.set(keyOf(record), holding);
    this.#planRelay(record, all);
    this.#nameImport(record, all);
    if (spec.state === "revoked") this.#revoke(spec.name, record);
  }

  /** Others reach our backends there, with the service's own ports. */
  #planRelay({ spec, offers }: ImportRecord, all: readonly Known<ImportRecord>[]): void {
    const own = all.filter(({ owner }) => owner === this.#v.ourName);
    for (const { relay, subnet } of offers) {
      if (relay === undefined || this.#gatewayIn(subnet) === undefined) continue;
      this.#answered.push({ network: WEAVE_NETWORK, address: relay });
      for (const ports of cut(spec.ports)) {
        const targets = this.#targets(spec.name, own, ports, subnet);
        this.#listen({ service: spec.name, network: WEAVE_NETWORK, address: relay, ports, allow: undefined, targets });
      }
    }
  }

  #nameImport({ spec, offers }: ImportRecord, all: readonly Known<ImportRecord>[]): void {
    const own = all.filter(({ owner }) => owner === this.#v.ourName);
    const served = cut(spec.ports).filter((ports) => sharesOf(own, ports).length > 0);
    if (served.length === 0) return;
    const hostname = `${spec.name}.${this.#v.domain}`;
    for (const { subnet, address } of virtualAddresses(all)) {
      if (offers.some((offer) => sameSubnet(offer.subnet, subnet))) this.#names.push({ hostname, data: address });
    }
    for (const { first } of served.slice(0, MAX_SRV)) {
      this.#names.push({ hostname, data: `SRV ${spec.priority} ${spec.weight} ${first} ${hostname}` });
    }
  }

  #revoke(name: string, { spec }: ImportRecord): void {
    for (const backend of spec.backends) {
      for (const address of this.#v.addresses(spec, backend)) {
        const id = this.#backend(name, backend.network, address, portOf(backend));
        if (id === undefined) continue;
        this.#backends.set(id, { ...this.#backends.get(id)!, revoked: true });
        this.#revoked.add(id);
      }
    }
  }

  /** Where the service was before: what is still there ends as well. */
  #revokeFormer(service: string): void {
    const networks = new Set(this.#networks.values());
    for (const { id, network, address } of this.#v.backendsOf(service)) {
      if (this.#backends.has(id) || !networks.has(network)) continue;
      this.#backends.set(id, { id, service, network, address, revoked: true });
      this.#revoked.add(id);
    }
  }

  /** Who answers for a virtual address: where nobody is well, somebody has to say so at once. */
  #holder(name: string, all: readonly Known<ImportRecord>[], address: Ipv4): PeerName | undefined {
    return elect(name, importCandidates(all, address));
  }

  // Exports

  #planExport(record: ExportRecord): void {
    const { spec } = record;
    const network = this.#networks.get(spec.network);
    if (network === undefined) {
      this.#warn(spec.name, `This host has no network "${spec.network}"`);
      this.#exportStatus.set(keyOf(record), { ready: false, holding: undefined });
      return;
    }
    const parts = spec.name.includes(".") ? this.#containerParts(record) : this.#serviceParts(record);
    const ready = parts.some(({ targets }) => targets.length > 0);
    const { address } = spec.listen;
    for (const { ports, targets } of parts) {
      this.#listen({ service: spec.name, network, address, ports, allow: spec.allow, targets });
    }
    const holding = this.#exportHolding(record, network, ready);
    this.#exportStatus.set(keyOf(record), { ready, holding });
    if (!spec.dns) return;
    const beside = this.#siteExports.get(network) ?? [];
    this.#siteExports.set(network, [...beside, { spec, ready }]);
  }

  /** All of a network's names are answered at each of the addresses; one that is exported at every address, with the one that was asked. */
  #planSiteNames(network: NetworkId, exports: readonly SiteExport[]): void {
    const asked = new Map<Ipv4, SiteExport[]>();
    for (const one of exports) {
      const { network, listen } = one.spec;
      const own = listen.address === "own" ? this.#v.siteAddresses(network) : [listen.address];
      for (const address of own) asked.set(address, [...asked.get(address) ?? [], one]);
    }
    const addresses = [...asked.keys()].sort((a, b) => a - b);
    for (const [i, address] of addresses.slice(0, MAX_SITE_VIEWS).entries()) {
      const names = new Map<string, readonly Ipv4[]>();
      for (const { spec, ready } of exports) {
        if (!ready) continue;
        const { name, listen } = spec;
        const own = listen.address === "own" ? this.#v.siteAddresses(spec.network) : [listen.address];
        names.set(name, [...new Set([...names.get(name) ?? [], ...own.includes(address) ? [address] : own])]);
      }
      const server = { address: siteDnsAddress(network, i + 1), port: SITE_DNS_PORT };
      const here = asked.get(address)!;
      const allow = here.some(({ spec }) => spec.allow === undefined)
        ? undefined
        : here.flatMap(({ spec }) => spec.allow!);
      if (this.#listenForNames(here[0]!.spec.name, { network, address, server, allow })) {
        this.#siteViews.push({ network, address, server, names });
      }
    }
  }

  /** @returns whether that port was free */
  #listenForNames(
    name: string,
    { network, address, server, allow }: Pick<SiteView, "network" | "address" | "server"> & Pick<ListenerPlan, "allow">,
  ): boolean {
    const there = [`${network} ${address}`, `${network} own`].flatMap((key) => this.#listenersAt.get(key) ?? []);
    const taken = there.find(({ firstPort, lastPort }) => firstPort <= DNS_PORT && DNS_PORT <= lastPort);
    if (taken !== undefined) {
      this.#warn(
        name,
        `Its name is not answered at ${formatIpv4(address)}: port 53 is taken there by ${taken.service}`,
      );
      return false;
    }
    const id = this.#v.idOf({ service: SITE_DNS, network: HOST_NETWORK, address: server.address });
    this.#backends.set(id, { id, service: SITE_DNS, network: HOST_NETWORK, address: server.address });
    const targets = [{ backend: id, firstPort: server.port, weight: 1 }];
    for (const protocol of ["udp", "tcp"] as const) {
      const ports = { protocol, first: DNS_PORT, last: DNS_PORT };
      this.#listen({ service: SITE_DNS, network, address, ports, allow, targets });
    }
    return true;
  }

  #exportHolding({ spec }: ExportRecord, network: NetworkId, ready: boolean): ExportStatus["holding"] {
    const { address } = spec.listen;
    if (address === "own" || this.#v.ownAddresses(spec.network).includes(address)) return undefined;
    if (network === HOST_NETWORK) {
      this.#warn(spec.name, `${formatIpv4(address)} is no address of this host: nobody answers for it`);
      return undefined;
    }
    // Our own readiness is news that the records do not have yet.
    const candidates = exportCandidates(this.#v.exportsAt(spec.network, address), spec.network, address).map((one) =>
      one.owner === this.#v.ourName ? { ...one, standing: ready ? 2 : 0 } as const : one
    );
    // Where nobody is ready nobody answers: one that is cut off from the mesh must not keep clients from another that is not.
    if (electHolder(`${spec.network} ${formatIpv4(address)}`, candidates) !== this.#v.ourName) return undefined;
    if (!this.#answered.some((other) => other.network === network && other.address === address)) {
      this.#answered.push({ network, address });
    }
    return { address, flows: this.#v.hasFlows(spec.name, network) };
  }

  /** A container by its name in DNS. */
  #containerParts({ spec }: ExportRecord): Part[] {
    const { ports } = spec.listen;
    const firstPort = spec.port ?? ports.first;
    const targets: TargetPlan[] = [];
    const addresses = this.#v.containerAddresses(spec.name);
    for (const address of addresses) {
      if (this.#gatewayFor(address) === undefined) {
        const advice = "let this host have one: weave expose";
        this.#warn(spec.name, `This host has no address in the subnet of ${formatIpv4(address)}; ${advice}`);
        continue;
      }
      const backend = this.#backend(spec.name, "weave", address);
      if (backend !== undefined) targets.push({ backend, firstPort, weight: 1 });
    }
    if (addresses.length === 0) this.#warn(spec.name, `Nothing has the name ${spec.name}`);
    return [{ ports, targets }];
  }

  #serviceParts({ spec }: ExportRecord): Part[] {
    const listen = spec.listen.ports;
    const all = this.#v.imports(spec.name);
    const reachable = all.filter((one) => one.reachable);
    const own = reachable.find(({ owner }) => owner === this.#v.ourName);
    const nothing = (why: string): Part[] => {
      this.#warn(spec.name, why);
      return [{ ports: listen, targets: [] }];
    };
    if (reachable.length === 0) return nothing("Nobody within reach imports it");
    const offered = exportedPorts(spec, cut(reachable.flatMap((one) => one.record.spec.ports)));
    if (offered === undefined) return nothing(`It has no ports that fit what is exported`);
    const shift = listen.first - offered.first;
    if (own === undefined || own.record.spec.state !== "active") {
      return this.#throughMesh(spec.name, all, offered, shift);
    }
    const pieces = cut(
      reachable.flatMap((one) => one.record.spec.ports).map((ports) => within(ports, offered)).filter(
        (ports) => ports !== undefined,
      ),
    );
    return pieces.map((ports) => ({
      ports: moved(ports, shift),
      targets: this.#targets(spec.name, reachable, ports, undefined),
    }));
  }

  /** The way every container goes. */
  #throughMesh(
    name: string,
    all: readonly Known<ImportRecord>[],
    offered: PortRange,
    shift: number,
  ): Part[] {
    const ports = moved(offered, shift);
    const seen = virtualAddresses(all).filter(({ address }) => this.#holder(name, all, address) !== undefined);
    const reached = seen.find(({ subnet }) => this.#gatewayIn(subnet) !== undefined);
    if (reached === undefined) {
      this.#warn(
        name,
        seen.length === 0 ? "Nobody answers for it" : "This host has no address of its own in its subnet yet",
      );
      return [{ ports, targets: [] }];
    }
    if (sharesOf(all.filter((one) => one.reachable), offered).length === 0) return [{ ports, targets: [] }];
    this.#reached.add(reached.address);
    const backend = this.#backend(name, "weave", reached.address)!;
    return [{ ports, targets: [{ backend, firstPort: offered.first, weight: 1 }] }];
  }

  // Both

  /**
   * Where new flows to these ports of a service go: our own backends directly, others' through their relay addresses.
   * @param subnet in which others are reached; undefined: any that we have an address in
   */
  #targets(
    name: string,
    imports: readonly Known<ImportRecord>[],
    ports: PortRange,
    subnet: Cidr | undefined,
  ): TargetPlan[] {
    const found: { backend: BackendId; firstPort: number; weight: number }[] = [];
    for (const share of sharesOf(imports, ports)) {
      const { record } = imports.find(({ owner }) => owner === share.owner)!;
      if (share.owner === this.#v.ourName) {
        for (const { index, weight } of share.backends) {
          found.push(...this.#ownTargets(record.spec, record.spec.backends[index]!, ports, weight));
        }
        continue;
      }
      const relay = this.#relayOf(record, subnet);
      if (relay === undefined) {
        this.#warn(name, `Backends of ${formatMac(share.owner)} cannot be reached yet: it has no relay address`);
        continue;
      }
      const backend = this.#backend(name, "weave", relay)!;
      found.push({ backend, firstPort: ports.first, weight: share.weight });
    }
    return merged(found);
  }

  #ownTargets(spec: ImportSpec, backend: Backend, ports: PortRange, weight: number): TargetPlan[] {
    const addresses = this.#v.addresses(spec, backend);
    const by = (wanted: BackendHealth) =>
      addresses.filter((address) => this.#v.health(spec.name, backend, address) === wanted);
    const up = by("up");
    const chosen = up.length > 0 ? up : by("unknown");
    return chosen.flatMap((address) => {
      const id = this.#backend(spec.name, backend.network, address, portOf(backend));
      if (id === undefined) return [];
      return [{ backend: id, firstPort: backend.firstPort + ports.first - backend.serves.first, weight }];
    });
  }

  #relayOf({ offers }: ImportRecord, subnet: Cidr | undefined): Ipv4 | undefined {
    return offers.find((offer) =>
      offer.relay !== undefined && this.#gatewayIn(offer.subnet) !== undefined &&
      (subnet === undefined || sameSubnet(offer.subnet, subnet))
    )?.relay;
  }

  /** @returns undefined where this host has no such network */
  #backend(service: string, networkName: string, address: Ipv4, port?: BackendPort): BackendId | undefined {
    const network = this.#networks.get(networkName);
    if (network === undefined) {
      this.#warn(service, `This host has no network "${networkName}"`);
      return undefined;
    }
    if (network === WEAVE_NETWORK && this.#gatewayFor(address) === undefined) {
      const advice = "let this host have one: weave expose";
      this.#warn(service, `This host has no address in the subnet of ${formatIpv4(address)}; ${advice}`);
      return undefined;
    }
    const id = this.#v.idOf({ service, network, address, port });
    if (!this.#backends.has(id)) this.#backends.set(id, { id, service, network, address });
    return id;
  }

  #gatewayIn(subnet: Cidr): GatewaySubnet | undefined {
    const found = this.#v.gateways.find((gateway) => sameSubnet(gateway.subnet, subnet));
    if (found !== undefined) this.#used.add(found);
    return found;
  }

  #gatewayFor(address: Ipv4): GatewaySubnet | undefined {
    const found = this.#v.gateways.find(({ subnet }) => cidrContains(subnet, address));
    if (found !== undefined) this.#used.add(found);
    return found;
  }

  #listen({ ports, ...rest }: Omit<ListenerPlan, "protocol" | "firstPort" | "lastPort"> & { ports: PortRange }): void {
    const key = `${rest.network} ${rest.address}`;
    const beside = this.#listenersAt.get(key) ?? [];
    this.#listenersAt.set(key, beside);
    const taken = beside.find((other) =>
      portsOverlap({ protocol: other.protocol, first: other.firstPort, last: other.lastPort }, ports)
    );
    if (taken !== undefined) {
      this.#warn(rest.service, `Port ${ports.first} is taken there by ${taken.service}`);
      return;
    }
    const listener = { ...rest, protocol: ports.protocol, firstPort: ports.first, lastPort: ports.last };
    beside.push(listener);
    this.#listeners.push(listener);
  }

  #warn(service: string, line: string): void {
    const lines = this.#warnings.get(service) ?? [];
    if (!lines.includes(line)) this.#warnings.set(service, [...lines, line]);
  }
}

interface SiteExport {
  readonly spec: ExportSpec;
  readonly ready: boolean;
}

/** Ports of a listener, and where they lead. */
interface Part {
  readonly ports: PortRange;
  readonly targets: readonly TargetPlan[];
}

/** By which one of our own backends differs from others at its address. */
export function portOf({ serves, firstPort }: Backend): BackendPort {
  return { protocol: serves.protocol, first: firstPort };
}

/** Nobody who is well comes after those who are; where there is none, one answers all the same, and refuses at once. */
function elect(name: string, candidates: readonly Candidate[]): PeerName | undefined {
  return electHolder(name, candidates) ?? electHolder(name, candidates.map((one) => ({ ...one, standing: 1 })));
}

function offerIn({ offers }: ImportRecord, subnet: Cidr) {
  return offers.find((offer) => sameSubnet(offer.subnet, subnet));
}

export function sameSubnet(a: Cidr, b: Cidr): boolean {
  return a.prefixLength === b.prefixLength && networkOf(a) === networkOf(b);
}

/** Ranges that do not overlap and of which each lies in, or beside, each of those given; adjacent ones stay apart. */
export function cut(ranges: readonly PortRange[]): PortRange[] {
  return (["tcp", "udp"] as const).flatMap((protocol) => {
    const ours = ranges.filter((range) => range.protocol === protocol);
    const edges = [...new Set(ours.flatMap(({ first, last }) => [first, last + 1]))].sort((a, b) => a - b);
    return edges.slice(0, -1).map((first, i) => ({ protocol, first, last: edges[i + 1]! - 1 })).filter((piece) =>
      ours.some(({ first, last }) => first <= piece.first && piece.last <= last)
    );
  });
}

/** The part of a range that lies in another one. */
function within(ports: PortRange, other: PortRange): PortRange | undefined {
  if (!portsOverlap(ports, other)) return undefined;
  return { ...ports, first: Math.max(ports.first, other.first), last: Math.min(ports.last, other.last) };
}

function moved({ protocol, first, last }: PortRange, by: number): PortRange {
  return { protocol, first: first + by, last: last + by };
}

/** Largest weight of a target. */
const MAX_WEIGHT = 256;

/** No target twice, weights as small as they may be large. */
function merged(targets: readonly TargetPlan[]): TargetPlan[] {
  const byKey = new Map<string, TargetPlan>();
  for (const target of targets) {
    const key = `${target.backend} ${target.firstPort}`;
    const before = byKey.get(key);
    byKey.set(key, before === undefined ? target : { ...target, weight: before.weight + target.weight });
  }
  const all = [...byKey.values()];
  const largest = Math.max(...all.map(({ weight }) => weight));
  if (largest <= MAX_WEIGHT) return all;
  return all.map((target) => ({ ...target, weight: Math.max(1, Math.round(target.weight * MAX_WEIGHT / largest)) }));
}
