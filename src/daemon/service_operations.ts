/**
 * What people do with services on this host, one at a time. Each returns when it is done: stored, planned, and in the kernel; what others
 * are to know is on its way then.
 */
import { NotStoredError, OperationError, OptionError } from "../lib/errors.ts";
import { type Cidr, cidrContains, formatCidr, formatIpv4, type Ipv4, networkOf } from "../lib/ip.ts";
import { formatPortRange, type PortRange, portsOverlap } from "../lib/ports.ts";
import {
  type Change,
  checkDesired,
  configOf,
  differenceOf,
  type GatewayState,
  renderChanges,
} from "../service/apply.ts";
import { cut, sameSubnet } from "../service/planner.ts";
import {
  type ExportRecord,
  type ExportSpec,
  type ImportRecord,
  type ImportSpec,
  type ImportState,
  keyOf,
  type Offer,
  type ServiceRecord,
  virtualAddress,
} from "../service/records.ts";
import {
  checkServiceName,
  exportedPorts,
  type ExportInput,
  HOST_NETWORK_NAME,
  type ImportInput,
  MESH_NETWORK_NAME,
  parseExport,
  parseImport,
  parseListen,
  rebind,
  refusedBackend,
  refusedListen,
  type SpecContext,
} from "../service/spec.ts";
import type { NetworkOption } from "../config/service_options.ts";
import { formatMac } from "../lib/mac.ts";
import { formatListen } from "../wire/service.ts";
import { checkPeersStay } from "./cut_off.ts";
import { listeningPorts } from "./network_addresses.ts";
import { holdId, relayId, type Services } from "./services.ts";

export interface Imported {
  readonly addresses: readonly { readonly subnet: Cidr; readonly address: Ipv4 }[];
}

export interface Applied {
  /** For people: what changed, or would. */
  readonly text: string;
  readonly changes: number;
}

export interface Exported {
  /** `192.168.7.9:5432`; of `own`, one of this host's addresses there. */
  readonly at: string;
}

export class ServiceOperations {
  readonly #s: Services;
  #queue: Promise<unknown> = Promise.resolve();
  readonly #adapting = new Set<string>();
  /** More changes follow at once: whoever made them waits for all together. */
  #several = false;

  constructor(services: Services) {
    this.#s = services;
    services.onNamesChanged = (names) => this.#handleNamesChanged(names);
  }

  async import(input: ImportInput): Promise<Imported> {
    const spec = parseImport(input, this.#context());
    // Others need not wait for what has to wait for addresses.
    await this.#whileAllocating([spec.name], () => this.#obtain(spec, undefined));
    return await this.#orNothing(() => this.#setImport(spec, undefined));
  }

  export(input: ExportInput): Promise<Exported> {
    return this.#orNothing(async () => await this.#setExport(parseExport(input, this.#context())));
  }

  bind(name: string, to: readonly string[], allowLocal: boolean): Promise<Imported> {
    return this.#orNothing(async () => {
      const { spec } = this.#ownImport(name);
      const moved = rebind(allowLocal ? { ...spec, allowLocal } : spec, to, this.#context());
      return await this.#setImport(moved, spec);
    });
  }

  /** @returns how many flows were ended */
  revoke(name: string): Promise<number> {
    return this.#alone(async () => {
      await this.#setState(name, "revoked");
      this.#checkRemembered(`Service ${name} is revoked here, but not after a restart`);
      return await this.#s.ended;
    });
  }

  /** @returns how many flows are left */
  drain(name: string): Promise<number> {
    return this.#alone(async () => {
      await this.#setState(name, "draining");
      await this.#s.flows.countNow();
      this.#checkRemembered(`Service ${name} is drained here, but not after a restart`);
      return this.#s.totalFlows(checkServiceName(name));
    });
  }

  /** Import and exports, or exports alone, or the one at `listen`. */
  remove(name: string, { exportsAlone, listen }: { exportsAlone: boolean; listen: string | undefined }): Promise<void> {
    return this.#alone(async () => {
      const at = listen === undefined ? undefined : formatListen(parseListen(listen));
      const exports = this.#s.catalogue.ownExports(name).filter(({ spec }) =>
        at === undefined || formatListen(spec.listen) === at
      );
      const imported = exportsAlone ? undefined : this.#s.catalogue.ownImport(name);
      if (imported === undefined && exports.length === 0) {
        throw new OperationError(exportsAlone ? this.#notExported(name, at) : this.#notOurs(name));
      }
      await this.#removeRecords([...exports, ...imported === undefined ? [] : [imported]]);
      this.#checkRemembered(`Service ${name} is removed here, but comes back after a restart`);
    });
  }

  /** What this host has, as a value of a file that applies as no change. */
  config(): unknown {
    return configOf(this.#state());
  }

  /** Makes it what a file says. @param options `force`: what `--force` of single commands allows */
  apply(value: unknown, { dryRun, force }: { readonly dryRun: boolean; readonly force: boolean }): Promise<Applied> {
    return this.#orNothing(async () => {
      const desired = checkDesired(value, this.#desiredContext(value));
      const changes = differenceOf(this.#state(), desired);
      if (changes.some(({ type }) => type.startsWith("set"))) this.#checkAble();
      await this.#checkChanges(changes, force);
      if (!dryRun && changes.length > 0) {
        // Nothing is touched where there is no room for what is there already.
        await this.#s.save();
        await this.#carryOutAll(changes, force);
      }
      return { text: renderChanges(changes), changes: changes.length };
    });
  }

  // Networks

  /** @param force even if peers are reached by an interface that is isolated then */
  setNetwork(network: NetworkOption, force: boolean): Promise<void> {
    return this.#orNothing(() => this.#setNetwork(network, force));
  }

  removeNetwork(name: string): Promise<void> {
    return this.#alone(async () => {
      this.#removeNetwork(name);
      await this.#s.save().catch(() => {});
      await this.#looked();
      this.#checkRemembered(`Network ${name} is removed, but comes back after a restart`);
    });
  }

  async #setNetwork(network: NetworkOption, force: boolean): Promise<void> {
    this.#checkAble();
    this.#checkInterfaces(network, force);
    const known = this.#s.networks.all().find(({ name }) => name === network.name);
    this.#s.networks.set(network);
    await this.#s.save();
    await this.#looked();
    const failure = this.#s.networkFailure(network.name);
    if (failure === undefined) return;
    if (known === undefined) this.#s.networks.remove(network.name);
    else this.#s.networks.set(known);
    await this.#s.save().catch(() => {});
    await this.#looked();
    throw new OperationError(failure);
  }

  #checkInterfaces(network: NetworkOption, force: boolean): void {
    const { links, mesh, plumbing } = this.#s.o;
    const known = this.#s.networks.all().find(({ name }) => name === network.name);
    const missing = network.interfaces.filter((name) => !known?.interfaces.includes(name)).find((name) =>
      links.find(name) === undefined
    );
    if (missing !== undefined) {
      throw new OperationError(`Cannot add network "${network.name}": there is no interface "${missing}"`);
    }
    if (network.interfaces.includes(plumbing.host.bridge) || network.interfaces.includes("lo")) {
      throw new OperationError(
        `Cannot add network "${network.name}": ${network.interfaces.join(",")} leads to no network`,
      );
    }
    if (!force) checkPeersStay(network, links, mesh);
  }

  #removeNetwork(name: string): void {
    if (name === HOST_NETWORK_NAME || name === MESH_NETWORK_NAME) {
      throw new OperationError(`Cannot remove network "${name}": it is there on every host`);
    }
    if (!this.#s.networks.all().some((network) => network.name === name)) {
      throw new OperationError(`There is no network "${name}" on this host`);
    }
    const user = this.#s.catalogue.own().find((record) => usesNetwork(record, name));
    if (user !== undefined) {
      throw new OperationError(`Cannot remove network "${name}": service ${user.spec.name} uses it`);
    }
    this.#s.networks.remove(name);
  }

  // Imports

  async #setImport(spec: ImportSpec, before: ImportSpec | undefined): Promise<Imported> {
    return await this.#whileAllocating([spec.name], async () => {
      const subnets = await this.#obtain(spec, before);
      const known = this.#s.catalogue.ownImport(spec.name);
      const offers: Offer[] = [];
      for (const subnet of subnets) offers.push(await this.#offer(spec.name, subnet));
      const health = spec.backends.map((backend) => {
        const place = known?.spec.backends.findIndex((other) => same(other, backend)) ?? -1;
        return known?.status.health[place] ?? "unknown" as const;
      });
      await this.#set({ kind: "import", spec, offers, status: { health, holding: known?.status.holding ?? [] } });
      await this.#looked();
      if (this.#several) return { addresses: [] };
      const imports = this.#s.catalogue.imports(spec.name);
      return {
        addresses: subnets.map((subnet) => ({ subnet, address: virtualAddress(imports, subnet)!.address })),
      };
    });
  }

  /** All that an import needs of this host and of IPAM, which may have to be waited for. @returns where it is offered */
  async #obtain(spec: ImportSpec, before: ImportSpec | undefined): Promise<readonly Cidr[]> {
    this.#checkAble();
    await this.#checkBackends(spec, before);
    const subnets = this.#subnetsOf(spec);
    for (const subnet of subnets) {
      await this.#s.ensureGateway(subnet);
      await this.#offer(spec.name, subnet);
    }
    return subnets;
  }

  #subnetsOf(spec: ImportSpec): readonly Cidr[] {
    const { ipam } = this.#s.o;
    if (ipam === undefined) throw new OperationError("Cannot import: this router allocates no addresses");
    const subnets = spec.subnets.length > 0 ? spec.subnets : [ipam.defaultSubnet];
    const outside = subnets.find((subnet) => !isWithin(subnet, ipam.range));
    if (outside !== undefined) {
      throw new OperationError(
        `Cannot offer ${spec.name} in ${formatCidr(outside)}: addresses are allocated from ${formatCidr(ipam.range)}`,
      );
    }
    return subnets;
  }

  /** What is held for services that nobody imports yet is not given back meanwhile. */
  async #whileAllocating<T>(names: readonly string[], work: () => Promise<T>): Promise<T> {
    const { allocating } = this.#s;
    for (const name of names) allocating.set(name, (allocating.get(name) ?? 0) + 1);
    try {
      return await work();
    } finally {
      for (const name of names) {
        const left = allocating.get(name)! - 1;
        if (left === 0) allocating.delete(name);
        else allocating.set(name, left);
      }
      if (!this.#several) this.#s.keepHolds();
    }
  }

  /** What this host proposes as virtual address in a subnet: what is there already, else a new one. */
  async #offer(name: string, subnet: Cidr): Promise<Offer> {
    const own = this.#s.catalogue.ownImport(name)?.offers.find((offer) => sameSubnet(offer.subnet, subnet));
    const there = virtualAddress(this.#s.catalogue.imports(name), subnet);
    const relay = own?.relay;
    if (there !== undefined) return { subnet, address: there.address, since: there.since, relay };
    if (own !== undefined) return own;
    const { ipam, clock } = this.#s.o;
    const cidr = await ipam!.allocateStored(holdId(name), subnet);
    return {
      subnet: { address: networkOf(subnet), prefixLength: subnet.prefixLength },
      address: cidr.address,
      since: Math.floor(clock.wallMs()),
      relay,
    };
  }

  /** Names may turn out to be what an address may not be. */
  async #checkBackends(spec: ImportSpec, before: ImportSpec | undefined): Promise<void> {
    const { names } = this.#s;
    await names.resolve(spec.backends.map(({ host }) => host));
    for (const backend of spec.backends) {
      if (!this.#s.networks.has(backend.network)) {
        throw new OptionError(`Cannot import ${spec.name}: this host has no network "${backend.network}"`);
      }
      if (spec.allowLocal || before?.backends.some((other) => same(other, backend))) continue;
      for (const address of names.addresses(backend.host)) {
        const refused = refusedBackend(address, this.#s.localAddresses(backend.network));
        if (refused === undefined) continue;
        const named = this.#s.networks.all().find(({ name }) => name === backend.network);
        const hint = named === undefined || named.isolated || !this.#s.localAddresses("host").includes(address)
          ? ""
          : `; where it is another machine's too, make network ${named.name} isolated`;
        throw new OptionError(`Cannot import ${spec.name}: ${refused}${hint}`);
      }
    }
  }

  async #setState(name: string, state: ImportState): Promise<void> {
    const record = this.#ownImport(name);
    if (record.spec.state !== state) await this.#set({ ...record, spec: { ...record.spec, state } });
    await this.#looked();
  }

  // Exports

  async #setExport(spec: ExportSpec, force = spec.force): Promise<Exported> {
    this.#checkAble();
    if (!this.#s.networks.has(spec.network)) {
      throw new OptionError(`Cannot export ${spec.name}: this host has no network "${spec.network}"`);
    }
    const { address, ports } = spec.listen;
    const imports = spec.name.includes(".") ? [] : this.#s.catalogue.imports(spec.name);
    const offered = cut(imports.flatMap(({ record }) => record.spec.ports));
    if (imports.length > 0 && exportedPorts(spec, offered) === undefined) {
      throw new OptionError(
        `Cannot export ${spec.name} at ${formatListen(spec.listen)}: its ports are ${
          offered.map(formatPortRange).join(", ")
        }`,
      );
    }
    this.#checkListen(spec, force);
    const key = keyOf({ kind: "export", spec, status: { ready: false, holding: undefined } });
    for (const record of this.#s.catalogue.own()) {
      if (record.kind !== "export" || record.spec.network !== spec.network) continue;
      const { listen, name } = record.spec;
      if (listen.address !== address || !portsOverlap(listen.ports, ports) || keyOf(record) === key) continue;
      throw new OperationError(
        `Cannot export ${spec.name}: ${name} is exported at ${formatListen(listen)} on network ${spec.network}`,
      );
    }
    const known = this.#s.catalogue.ownRecord(key) as ExportRecord | undefined;
    await this.#set({ kind: "export", spec, status: known?.status ?? { ready: false, holding: undefined } });
    if (!this.#several) await this.#s.ensureGateways();
    await this.#looked();
    const shown = address !== "own" ? address : this.#mainAddress(spec.network, this.#s.ownAddresses(spec.network));
    return { at: formatListen({ address: shown ?? "own", ports: { ...ports, protocol: "tcp" } }) };
  }

  /** Whether this host may listen there. */
  #checkListen(spec: ExportSpec, force: boolean): void {
    const { address } = spec.listen;
    const own = this.#s.ownAddresses(spec.network);
    const isOwn = address === "own" || own.includes(address);
    if (!isOwn && spec.network === "host") {
      throw new OperationError(
        `Cannot export ${spec.name} at ${
          formatIpv4(address)
        }: it is no address of this host, and only on a network of ` +
          "its own (weave network add) can this host answer for one",
      );
    }
    if (isOwn && !force) {
      const isolated = this.#s.networks.target(spec.network)?.namespace !== undefined;
      const listening = isolated ? [] : this.#listening(address === "own" ? undefined : address);
      const refused = refusedListen(spec.listen, listening);
      if (refused !== undefined) {
        throw new OperationError(`Cannot export ${spec.name} at ${formatListen(spec.listen)}: ${refused}`);
      }
    }
    if (spec.dns && !force) this.#checkSiteDns(spec);
  }

  /** Whoever asks the host itself for names goes on doing so, unless somebody says otherwise. */
  #checkSiteDns({ name, network, listen }: ExportSpec): void {
    if (this.#s.networks.target(network)?.namespace !== undefined) return;
    const own = listen.address === "own"
      ? this.#s.siteAddresses(network)
      : this.#s.ownAddresses(network).filter((address) => address === listen.address);
    for (const address of own) {
      const listening = listeningPorts(address);
      for (const protocol of ["udp", "tcp"] as const) {
        const refused = refusedListen({ address, ports: { protocol, first: 53, last: 53 } }, listening);
        if (refused === undefined) continue;
        throw new OperationError(`Cannot answer the name of ${name} at ${formatIpv4(address)}: ${refused}`);
      }
    }
  }

  /** For the kernel it is much to say: once for many changes. */
  #listening(address: Ipv4 | undefined): readonly PortRange[] {
    const known = this.#knownListening?.get(address) ?? listeningPorts(address);
    this.#knownListening?.set(address, known);
    return known;
  }

  /** As long as there are many changes. */
  #knownListening: Map<Ipv4 | undefined, readonly PortRange[]> | undefined;

  /** The address by which others most likely know this host there. */
  #mainAddress(network: string, own: readonly Ipv4[]): Ipv4 | undefined {
    if (network !== "host") return own[0];
    const { links, plumbing } = this.#s.o;
    const notMain = new Set([plumbing.host.bridge, "lo", "docker0"]);
    const named = new Set(this.#s.networks.all().flatMap(({ interfaces }) => interfaces));
    const all = links.list().filter(({ up }) => up);
    const ranked = [
      ...all.filter(({ name }) => !notMain.has(name) && !named.has(name)),
      ...all.filter(({ name }) => !notMain.has(name) && named.has(name)),
    ];
    return ranked.flatMap(({ index }) => links.addresses(index))[0]?.address ?? own[0];
  }

  // Everything

  #state(): GatewayState {
    const own = this.#s.catalogue.own();
    return {
      networks: this.#s.networks.all().map(({ name, interfaces, isolated }) => ({ name, interfaces, isolated })),
      imports: own.filter((record) => record.kind === "import").map(({ spec }) => spec),
      exports: own.filter((record) => record.kind === "export").map(({ spec }) => spec),
    };
  }

  /** Nothing is changed where something would be refused, as far as that can be known before: of networks that change it cannot. */
  async #checkChanges(changes: readonly Change[], force: boolean): Promise<void> {
    const changing = new Set(changes.flatMap((change) => change.type === "setNetwork" ? [change.after.name] : []));
    for (const change of changes) {
      if (change.type === "setNetwork") this.#checkInterfaces(change.after, force);
      if (change.type === "setImport") {
        this.#subnetsOf(change.after);
        const isKnown = change.after.backends.every(({ network }) => !changing.has(network));
        if (isKnown) await this.#checkBackends(change.after, change.before);
      }
    }
    this.#knownListening = new Map();
    try {
      for (const change of changes) {
        if (change.type !== "setExport" || changing.has(change.after.network)) continue;
        this.#checkListen(change.after, force || change.after.force);
      }
    } finally {
      this.#knownListening = undefined;
    }
  }

  /** What many changes make necessary is done once. */
  async #carryOutAll(changes: readonly Change[], force: boolean): Promise<void> {
    const names = changes.flatMap((change) => change.type === "setImport" ? [change.after.name] : []);
    await this.#whileAllocating(names, () => this.#carryOutInTurn(changes, force));
  }

  async #carryOutInTurn(changes: readonly Change[], force: boolean): Promise<void> {
    // Interfaces of networks are where they belong before anything else is looked at.
    const isNetwork = ({ type }: Change) => type === "setNetwork" || type === "removeNetwork";
    const other = changes.findIndex((change) => !isNetwork(change) && change.type.startsWith("set"));
    const first = other < 0 ? changes : changes.slice(0, other);
    for (const change of first) await this.#carryOut(change, force);
    // Addresses are waited for together.
    const imports = changes.flatMap((change) => change.type === "setImport" ? [change] : []);
    await Promise.all(imports.map(({ before, after }) => this.#obtain(after, before)));
    await this.#s.whileBlind(async () => {
      try {
        this.#several = true;
        this.#knownListening = new Map();
        for (const change of changes.slice(first.length)) {
          await this.#carryOut(change, force);
          // Frames, peers and timers have their turn.
          await new Promise((resolve) => setTimeout(resolve, 0));
        }
      } finally {
        this.#several = false;
        this.#knownListening = undefined;
        await this.#stored();
      }
    });
    await this.#s.ensureGateways();
    await this.#looked();
  }

  async #carryOut(change: Change, force: boolean): Promise<void> {
    switch (change.type) {
      case "removeExport":
        return await this.#removeRecords(
          this.#s.catalogue.ownExports(change.before.name).filter(({ spec }) => same(spec, change.before)),
        );
      case "removeImport": {
        const record = this.#s.catalogue.ownImport(change.before.name);
        return record === undefined ? undefined : await this.#removeRecords([record]);
      }
      case "removeNetwork":
        this.#removeNetwork(change.before.name);
        await this.#s.save();
        return await this.#looked();
      case "setNetwork":
        return await this.#setNetwork(change.after, force);
      case "setImport":
        await this.#setImport(change.after, change.before);
        return;
      case "setExport":
        await this.#setExport(change.after, force || change.after.force);
        return;
      default:
        change satisfies never;
    }
  }

  async #removeRecords(records: readonly ServiceRecord[]): Promise<void> {
    const { run, ipam } = this.#s.o;
    for (const record of records) run(() => this.#s.catalogue.remove(keyOf(record)));
    await this.#stored();
    for (const record of records) {
      if (record.kind !== "import") continue;
      for (const { relay } of record.offers) {
        // Nobody waits for it: it is free whenever that can be stored.
        if (relay !== undefined) ipam?.book.free(relayId(record.spec.name), relay).catch(() => {});
      }
    }
    await this.#looked();
  }

  async #set(record: ServiceRecord): Promise<void> {
    const result = this.#s.o.run((now) => this.#s.catalogue.set(record, now));
    if (result === "full") throw new OperationError("This host has as many services as one host may have");
    await this.#stored();
  }

  /** What was changed is on disk, and others may hear of it. @throws NotStoredError where it cannot be, and is to be undone */
  async #stored(): Promise<void> {
    if (this.#several) this.#s.checkStoredSoFar();
    else await this.#s.checkStored();
  }

  /** What takes something away is done in any case. @param done what is, for whom a restart would surprise */
  #checkRemembered(done: string): void {
    const { storeTrouble } = this.#s;
    if (storeTrouble !== undefined) throw new NotStoredError(`${done}: ${storeTrouble}`);
  }

  async #looked(): Promise<void> {
    if (this.#several) return;
    await this.#s.look();
    const { trouble } = this.#s;
    if (trouble !== undefined) throw new OperationError(trouble);
  }

  // Other importers

  /** Somebody else imports what we import too: both see it at one address, and reach each other's backends. */
  #handleNamesChanged(names: readonly string[]): void {
    for (const name of names) {
      const own = this.#s.catalogue.ownImport(name);
      if (own === undefined) continue;
      const imports = this.#s.catalogue.imports(name);
      const others = imports.some(({ owner }) => owner !== this.#s.o.ourName);
      const amiss = own.offers.some(({ subnet, address, relay }) =>
        others && relay === undefined || virtualAddress(imports, subnet)?.address !== address
      );
      if (!amiss) continue;
      if (this.#adapting.has(name)) continue;
      this.#adapting.add(name);
      this.#adapt(name).catch((error: Error) =>
        this.#s.o.log.warn("service cannot be shared with others yet", { service: name, error: error.message })
      ).finally(() => this.#adapting.delete(name));
    }
  }

  async #adapt(name: string): Promise<void> {
    const { ipam, ourName } = this.#s.o;
    const before = this.#s.catalogue.ownImport(name);
    if (before === undefined || ipam === undefined) return;
    const shared = this.#s.catalogue.imports(name).some(({ owner }) => owner !== ourName);
    const relays = new Map<string, Ipv4>();
    for (const { subnet, relay } of before.offers) {
      if (relay !== undefined || !shared) continue;
      const cidr = await ipam.book.allocate(relayId(name), subnet, { checkAlive: false });
      if (typeof cidr !== "string") relays.set(formatCidr(subnet), cidr.address);
    }
    await this.#alone(async () => {
      const record = this.#s.catalogue.ownImport(name);
      if (record === undefined) {
        for (const relay of relays.values()) ipam.book.free(relayId(name), relay).catch(() => {});
        return;
      }
      const imports = this.#s.catalogue.imports(name);
      const offers = record.offers.map((offer) => {
        const there = virtualAddress(imports, offer.subnet);
        return {
          ...offer,
          relay: offer.relay ?? relays.get(formatCidr(offer.subnet)),
          ...there === undefined ? {} : { address: there.address, since: there.since },
        };
      });
      await this.#set({ ...record, offers });
    });
  }

  // Checks

  #checkAble(): void {
    if (this.#s.unable !== undefined) throw new OperationError(`Cannot offer services: ${this.#s.unable}`);
  }

  #context(networks = this.#s.networks.all().map(({ name }) => name)): SpecContext {
    // Addresses of this host are looked at later, with advice.
    return { domain: this.#s.o.options.dnsDomain, networks };
  }

  /** Networks that the same file names are there by then. */
  #desiredContext(value: unknown): SpecContext {
    const { networks } = (value ?? {}) as { readonly networks?: unknown };
    const named = typeof networks === "object" && networks !== null ? Object.keys(networks) : [];
    return this.#context([...new Set([...this.#s.networks.all().map(({ name }) => name), ...named])]);
  }

  #ownImport(text: string): ImportRecord {
    const name = checkServiceName(text);
    const record = this.#s.catalogue.ownImport(name);
    if (record === undefined) throw new OperationError(this.#notOurs(name));
    return record;
  }

  #notOurs(name: string): string {
    const owners = this.#s.catalogue.imports(name).map(({ owner }) =>
      `${formatMac(owner)}(${this.#s.nickName(owner)})`
    );
    if (owners.length === 0) return `There is no service ${name}`;
    return `Service ${name} is imported by ${owners.join(", ")}, not by this host`;
  }

  #notExported(name: string, at: string | undefined): string {
    return `Service ${name} is not exported by this host${at === undefined ? "" : ` at ${at}`}`;
  }

  /** All of it, or nothing where it cannot be stored. */
  #orNothing<T>(work: () => Promise<T>): Promise<T> {
    return this.#alone(() => this.#s.orNothing(work));
  }

  /** One at a time. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work, work);
    this.#queue = result.catch(() => {});
    return result;
  }
}

function isWithin(inner: Cidr, outer: Cidr): boolean {
  return inner.prefixLength >= outer.prefixLength && cidrContains(outer, inner.address);
}

function usesNetwork(record: ServiceRecord, network: string): boolean {
  if (record.kind === "export") return record.spec.network === network;
  return record.spec.network === network || record.spec.backends.some((backend) => backend.network === network);
}

/** Values without cycles, of the same shape. */
function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

export function formatAddresses({ addresses }: Imported): string {
  return addresses.map(({ address }) => formatIpv4(address)).join(" ");
}

export function addressesJson({ addresses }: Imported): { readonly subnet: string; readonly address: string }[] {
  return addresses.map(({ subnet, address }) => ({ subnet: formatCidr(subnet), address: formatIpv4(address) }));
}
