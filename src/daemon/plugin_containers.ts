/**
 * Containers in Docker's networks of ours, once they run: their names, and what their interfaces need that Docker does not give
 * them. What is not there any more loses its names.
 */
import { announceAddress } from "../host/arp.ts";
import { ContainerNetns, linksToBridge } from "../host/container_link.ts";
import { ensureMulticastRules } from "../host/firewall.ts";
import { Links, setInterfaceSysctls } from "../host/links.ts";
import { isOwnNetns, statNetns } from "../host/netns.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import { ENDPOINT_PORT_PREFIX } from "../lib/port_names.ts";
import type { Dns } from "./dns.ts";
import { inspectNetworked, type NetworkedContainer, startingContainer } from "./docker_networks.ts";

export interface PluginContainersOptions {
  readonly bridge: string;
  /** undefined: there is no DNS. */
  readonly dns: Pick<Dns, "domain" | "addNames" | "removeName"> | undefined;
  /** Whether a network of Docker is ours. */
  readonly isOurs: (network: string) => Promise<boolean>;
  readonly log: Logger;
}

export interface ContainerName {
  readonly hostname: string;
  readonly address: Ipv4;
}

/** So many are looked at at once. */
const AT_ONCE = 4;

export class PluginContainers {
  readonly #o: PluginContainersOptions;
  /** Names that were given, by container. */
  readonly #named = new Map<string, readonly ContainerName[]>();
  /** Those that were given for an endpoint, before its container ran. */
  readonly #starting = new Map<string, { readonly id: string; readonly names: readonly ContainerName[] }>();
  /** Those that run and were looked at. */
  readonly #tended = new Set<string>();
  /** To be looked at. */
  readonly #waiting = new Set<string>();
  readonly #busy = new Set<string>();
  /** They ended while they were looked at. */
  readonly #ended = new Set<string>();
  #stopped = false;

  constructor(o: PluginContainersOptions) {
    this.#o = o;
  }

  /** It runs, in a network of ours. One whose start was not told is looked at. */
  handlePresent(id: string): void {
    if (!this.#tended.has(id)) this.handleChanged(id);
  }

  /** It was started, or its networks are others: it is looked at soon. */
  handleChanged(id: string): void {
    this.#waiting.add(id);
    this.#next();
  }

  /**
   * Names the container that an endpoint is for before it is started, as its process may ask for its own name. What is not known in
   * time is named when it runs.
   */
  async nameStarting(network: string, endpoint: string, limitMs: number): Promise<void> {
    const { dns, log } = this.#o;
    if (dns === undefined) return;
    try {
      const container = await startingContainer(network, endpoint, limitMs);
      if (container === undefined || this.#stopped) return;
      const { id } = container;
      const names = namesOf(container, dns.domain);
      const others = (this.#named.get(id) ?? []).filter((name) => !has(names, name));
      dns.addNames(id, names);
      this.#named.set(id, [...others, ...names]);
      this.#starting.set(endpoint, { id, names });
    } catch (error) {
      log.debug("a container that is being started is named later", { error: (error as Error).message });
    }
  }

  /** Of a container that may never have run. */
  handleEndpointGone(endpoint: string): void {
    const { id, names } = this.#starting.get(endpoint) ?? { id: "", names: [] };
    if (!this.#starting.delete(endpoint)) return;
    for (const name of names) this.#o.dns?.removeName(id, name);
    const left = (this.#named.get(id) ?? []).filter((name) => !has(names, name));
    if (left.length === 0) this.#named.delete(id);
    else this.#named.set(id, left);
  }

  /** These are all that run, and whoever keeps names has been told. */
  handleRunning(ids: ReadonlySet<string>): void {
    for (const id of this.#named.keys()) if (!ids.has(id)) this.#named.delete(id);
    for (const id of this.#tended) if (!ids.has(id)) this.#tended.delete(id);
    for (const [endpoint, { id }] of this.#starting) if (!ids.has(id)) this.#starting.delete(endpoint);
  }

  /** Whoever keeps names has been told. */
  handleDied(id: string): void {
    this.#named.delete(id);
    this.#tended.delete(id);
    this.#waiting.delete(id);
    if (this.#busy.has(id)) this.#ended.add(id);
  }

  stop(): void {
    this.#stopped = true;
    this.#waiting.clear();
  }

  #next(): void {
    for (const id of this.#waiting) {
      if (this.#busy.size >= AT_ONCE) return;
      if (this.#busy.has(id)) continue;
      this.#waiting.delete(id);
      this.#busy.add(id);
      void this.#tend(id).finally(() => {
        this.#busy.delete(id);
        this.#ended.delete(id);
        this.#next();
      });
    }
  }

  async #tend(id: string): Promise<void> {
    const { log, isOurs } = this.#o;
    try {
      const container = await inspectNetworked(id);
      if (container === undefined || !container.running || this.#stopped) return;
      const ours: NetworkedContainer["networks"][number][] = [];
      for (const network of container.networks) if (await isOurs(network.id)) ours.push(network);
      if (ours.length === 0 && !this.#named.has(id)) return;
      if (this.#stopped || this.#ended.has(id)) return;
      if (ours.length > 0) this.#tended.add(id);
      this.#name({ ...container, networks: ours });
      if (ours.length > 0) await this.#prepare(container.pid);
    } catch (error) {
      // It may have ended meanwhile.
      log.info("a container in a network of Docker could not be looked after", {
        container: id,
        error: (error as Error).message,
      });
    }
  }

  #name(container: NetworkedContainer): void {
    const { dns } = this.#o;
    if (dns === undefined) return;
    const { id } = container;
    const wanted = namesOf(container, dns.domain);
    const gone = (this.#named.get(id) ?? []).filter((name) => !has(wanted, name));
    for (const name of gone) dns.removeName(id, name);
    dns.addNames(id, wanted);
    if (wanted.length === 0) this.#named.delete(id);
    else this.#named.set(id, wanted);
  }

  /** Its neighbours may know another MAC for its addresses, and multicast of other subnets is none of its business. */
  async #prepare(pid: number): Promise<void> {
    const netns = statNetns(`/proc/${pid}/ns/net`);
    if (netns === undefined || isOwnNetns(netns)) return;
    using links = new Links();
    using container = new ContainerNetns(netns);
    const bridge = links.find(this.#o.bridge);
    if (bridge === undefined) return;
    for (const { host, inside } of linksToBridge(links.list(), container.links.list(), bridge.index)) {
      if (!host.name.startsWith(ENDPOINT_PORT_PREFIX)) continue;
      const subnets = container.links.addresses(inside.index);
      container.run(() => {
        setInterfaceSysctls(inside.name);
        for (const { address } of subnets) announceAddress(inside, address);
      });
      await ensureMulticastRules({ link: inside.name, subnets, within: (start) => container.run(start) });
    }
  }
}

/** Its own name with domain, its name as a container, and its aliases. */
export function namesOf(container: NetworkedContainer, domain: string): ContainerName[] {
  const { id, name, hostname, domainname, networks } = container;
  const own = domainname === "" ? hostname : `${hostname}.${domainname}`;
  const names: ContainerName[] = [];
  for (const { address, aliases } of networks) {
    if (address === undefined) continue;
    // Docker makes the short id an alias of everybody.
    const others = [name, ...aliases.filter((alias) => !id.startsWith(alias))].filter((other) => other !== "");
    for (const one of [...own.includes(".") ? [own] : [], ...others.map((other) => qualified(other, domain))]) {
      const entry = { hostname: one, address };
      if (!has(names, entry)) names.push(entry);
    }
  }
  return names;
}

function qualified(name: string, domain: string): string {
  return `${name}.`.toLowerCase().endsWith(`.${domain}`) ? name : `${name}.${domain}`;
}

function has(names: readonly ContainerName[], { hostname, address }: ContainerName): boolean {
  return names.some((one) => one.hostname === hostname && one.address === address);
}
