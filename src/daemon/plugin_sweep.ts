/**
 * What Docker did not give back, because it was killed, or while nobody was there to take it: addresses that no endpoint of its networks
 * has, and veths of endpoints that there are not. Looked for when Docker can be asked again; what is missing twice goes.
 */
import { removeEndpointLink } from "../host/endpoint_link.ts";
import type { Links } from "../host/links.ts";
import { formatIpv4, type Ipv4 } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import { ENDPOINT_GUEST_PREFIX, ENDPOINT_PORT_PREFIX } from "../lib/port_names.ts";
import { endpointLinks } from "../plugin/calls.ts";
import { type DockerNetwork, networksOf } from "./docker_networks.ts";

export interface PluginSweepOptions {
  readonly drivers: readonly string[];
  readonly links: Links;
  /** That Docker was given and has not given back. */
  readonly addresses: () => ReadonlySet<Ipv4>;
  readonly release: (address: Ipv4) => Promise<void>;
  readonly log: Logger;
}

/** Between the looks. Docker takes a moment from asking for an address to having an endpoint, never so long. */
const LOOKS_AT_MS = [2_000, 25_000, 50_000];

/** What no endpoint has. */
export interface Leftovers {
  readonly addresses: ReadonlySet<Ipv4>;
  /** Host's ends whose other ends still wait in the host. */
  readonly links: ReadonlySet<string>;
}

export class PluginSweep {
  readonly #o: PluginSweepOptions;
  #timers: number[] = [];
  #before: Leftovers | undefined;

  constructor(o: PluginSweepOptions) {
    this.#o = o;
  }

  begin(): void {
    this.stop();
    this.#before = undefined;
    this.#timers = LOOKS_AT_MS.map((at) => setTimeout(() => void this.#look(), at));
  }

  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }

  async #look(): Promise<void> {
    const { drivers, links, addresses, release, log } = this.#o;
    try {
      // What comes while Docker answers is not in its answer.
      const held = new Set(addresses());
      const names = links.list().map(({ name }) => name);
      const now = leftoversOf(await networksOf(drivers), { held, names });
      const before = this.#before;
      this.#before = now;
      if (before === undefined) return;
      for (const address of now.addresses.intersection(before.addresses)) {
        if (!addresses().has(address)) continue;
        await release(address);
        log.info("an address that Docker left behind is free", { address: formatIpv4(address) });
      }
      for (const name of now.links.intersection(before.links)) {
        if (removeEndpointLink(links, name)) {
          log.info("an interface that Docker left behind is gone", { interface: name });
        }
      }
    } catch (error) {
      log.info("what Docker left behind cannot be found out yet", { reason: (error as Error).message });
    }
  }
}

/** @param held addresses that Docker was given; `names` are those of all interfaces of the host */
export function leftoversOf(
  networks: readonly DockerNetwork[],
  { held, names }: { readonly held: ReadonlySet<Ipv4>; readonly names: readonly string[] },
): Leftovers {
  const endpoints = networks.flatMap((network) => network.endpoints);
  const used = new Set([...endpoints.map(({ address }) => address), ...networks.flatMap(({ reserved }) => reserved)]);
  const known = new Set(endpoints.map(({ id }) => endpointLinks(id).host));
  const waiting = names.filter((name) => name.startsWith(ENDPOINT_GUEST_PREFIX))
    .map((name) => `${ENDPOINT_PORT_PREFIX}${name.slice(ENDPOINT_GUEST_PREFIX.length)}`);
  return {
    addresses: held.difference(used),
    links: new Set(waiting.filter((name) => !known.has(name))),
  };
}
