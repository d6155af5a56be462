/**
 * The networks of this host: the mesh and the host's own, which are always there, and those that `launch` or a command named. A command that
 * removes what `launch` named counts until the router is launched anew; a restart after a crash is no such thing.
 */
import { formatNetwork, type NetworkOption } from "../config/service_options.ts";
import type { Links } from "../host/links.ts";
import { networkNamespace, transitLink } from "../host/network_namespace.ts";
import { OperationError } from "../lib/errors.ts";
import { HOST_NETWORK, type NetworkId, type NetworkPlan, WEAVE_NETWORK } from "../service/plan.ts";
import type { ServiceIds } from "./service_ids.ts";
import type { OwnServices, StoredNetwork } from "./service_store.ts";

export interface NetworksOptions {
  readonly ids: ServiceIds;
  readonly stored: Pick<OwnServices, "networks" | "removed"> | undefined;
  readonly launched: readonly NetworkOption[];
  readonly restarted: boolean;
}

/** Where a network is reached from. */
export interface NetworkTarget {
  readonly id: NetworkId;
  /** Path of its namespace, where it is isolated. */
  readonly namespace: string | undefined;
}

export class Networks {
  readonly #ids: ServiceIds;
  readonly #byName = new Map<string, StoredNetwork>();
  #removed: readonly string[];

  constructor({ ids, stored, launched, restarted }: NetworksOptions) {
    this.#ids = ids;
    this.#removed = restarted ? stored?.removed ?? [] : [];
    const wanted = launched.filter((network) => !this.#removed.includes(formatNetwork(network)));
    const names = new Set(wanted.map(({ name }) => name));
    for (const network of stored?.networks ?? []) {
      // What `launch` named and names no more is gone.
      if (!network.launched || names.has(network.name)) this.#byName.set(network.name, network);
    }
    for (const network of wanted) this.#put(network, true);
  }

  all(): readonly StoredNetwork[] {
    return [...this.#byName.values()];
  }

  plans(): readonly NetworkPlan[] {
    return this.all().map(({ id, name, interfaces, isolated }) => ({ id, name, interfaces, isolated }));
  }

  stored(): { readonly networks: readonly StoredNetwork[]; readonly removed: readonly string[] } {
    return { networks: this.all(), removed: this.#removed };
  }

  /** Makes them what `stored()` said. */
  revert({ networks, removed }: ReturnType<Networks["stored"]>): void {
    this.#byName.clear();
    for (const network of networks) this.#byName.set(network.name, network);
    this.#removed = removed;
  }

  has(name: string): boolean {
    return this.target(name) !== undefined;
  }

  target(name: string): NetworkTarget | undefined {
    if (name === "weave") return { id: WEAVE_NETWORK, namespace: undefined };
    if (name === "host") return { id: HOST_NETWORK, namespace: undefined };
    const found = this.#byName.get(name);
    if (found === undefined) return undefined;
    return { id: found.id, namespace: found.isolated ? networkNamespace(name) : undefined };
  }

  /** Of isolated networks. */
  namespaces(): readonly string[] {
    return this.all().filter(({ isolated }) => isolated).map(({ name }) => networkNamespace(name));
  }

  /** Adds a network, or gives it other interfaces. @throws OperationError where an interface is another network's */
  set(network: NetworkOption): void {
    for (const other of this.all()) {
      const shared = other.interfaces.find((link) => network.interfaces.includes(link));
      if (other.name === network.name || shared === undefined) continue;
      throw new OperationError(
        `Cannot use interface "${shared}" for network "${network.name}": "${other.name}" has it`,
      );
    }
    const before = this.#byName.get(network.name);
    if (before !== undefined && before.isolated !== network.isolated) {
      throw new OperationError(
        `Cannot make network "${network.name}" ${
          network.isolated ? "" : "not "
        }isolated while it is there: remove it first`,
      );
    }
    this.#put(network, before?.launched ?? false);
  }

  /** @returns whether it was there */
  remove(name: string): boolean {
    const network = this.#byName.get(name);
    if (network === undefined) return false;
    if (network.launched) this.#removed = [...this.#removed, formatNetwork(network)];
    return this.#byName.delete(name);
  }

  /** What keeps a network from working. */
  warnings(links: Links, name: string): readonly string[] {
    const network = this.#byName.get(name);
    if (network === undefined) return [];
    if (network.isolated) {
      return links.find(transitLink(network.id)) === undefined ? [`Network ${name} has no namespace`] : [];
    }
    return network.interfaces.filter((link) => links.find(link)?.up !== true).map((link) =>
      links.find(link) === undefined
        ? `Network ${name}: interface ${link} is not there`
        : `Network ${name}: interface ${link} is down`
    );
  }

  #put({ name, interfaces, isolated }: NetworkOption, launched: boolean): void {
    const taken = new Set(this.all().map(({ id }) => id));
    const id = this.#byName.get(name)?.id ?? this.#ids.network(taken);
    if (id === undefined) throw new OperationError(`Cannot add network "${name}": there are ${taken.size} already`);
    this.#byName.set(name, { id, name, interfaces, isolated, launched });
  }
}
