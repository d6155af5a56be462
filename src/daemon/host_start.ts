/** What the router does to its host when it starts: everything by difference, so that what a former router left is adopted. */
import type { Ipv4 } from "../lib/ip.ts";
import type { Mac, PeerName } from "../lib/mac.ts";
import { ensureBridge, ensureTapPort, fixBridgeMac, plugContainersIn, TAP_PORT } from "../host/bridge.ts";
import type { FirewallOptions } from "../host/firewall.ts";
import { Links } from "../host/links.ts";
import { restoreExposures } from "./expose.ts";
import type { Plumbing } from "./plumbing.ts";

export interface HostStartOptions<Tap> {
  readonly plumbing: Plumbing;
  readonly name: PeerName;
  /** As `overlayMtu()` says. */
  readonly mtu: number;
  readonly port: number;
  /** TCP port of the control API where it listens on 127.0.0.1. */
  readonly controlPort?: number;
  readonly dockerBridge: string;
  /** `DOCKER_BRIDGE_IP`; undefined: the first address of the bridge. */
  readonly dockerBridgeIp?: Ipv4;
  /** Opens the TAP of this name; called when its place is known to be free or its own. */
  readonly openTap: (name: string) => Tap;
}

export interface HostStart<Tap> {
  readonly tap: Tap;
  /** The bridge was there before. */
  readonly adopted: boolean;
  /** For `Plumbing.firewallIntact` and `refreshFirewall` later on. */
  readonly firewall: FirewallOptions;
}

/** Bridge, TAP port, Docker's bridge, exposures and packet filter, under the host's lock. */
export async function startHost<Tap>(options: HostStartOptions<Tap>): Promise<HostStart<Tap>> {
  const { plumbing, mtu, openTap } = options;
  const bridge = plumbing.host.bridge;
  return await plumbing.locked(async () => {
    using links = new Links();
    const { created } = ensureBridge(links, { name: bridge, mac: options.name as number as Mac, mtu });
    const tap = openTap(TAP_PORT);
    ensureTapPort(links, { bridge, name: TAP_PORT, mtu });
    fixBridgeMac(links, options.dockerBridge, randomMac);
    if (created) {
      plugContainersIn(links, bridge);
      await restoreExposures(plumbing, links);
    }
    const firewall = firewallOptions(links, options);
    await plumbing.refreshFirewall(links, firewall);
    return { tap, adopted: !created, firewall };
  });
}

/** What the packet filter depends on, as things are now: Docker may start after us, or change its bridge. */
export function firewallOptions(links: Links, options: Omit<HostStartOptions<unknown>, "openTap">): FirewallOptions {
  const docker = links.find(options.dockerBridge);
  const dockerBridgeIp = options.dockerBridgeIp ??
    (docker === undefined ? undefined : links.addresses(docker.index)[0]?.address);
  return {
    bridge: options.plumbing.host.bridge,
    dockerBridge: options.dockerBridge,
    port: options.port,
    ...(dockerBridgeIp === undefined ? {} : { dockerBridgeIp }),
    ...(options.controlPort === undefined ? {} : { controlPort: options.controlPort }),
  };
}

/** Locally administered, for one host. */
function randomMac(): Mac {
  const octets = crypto.getRandomValues(new Uint8Array(6));
  octets[0] = (octets[0]! & 0xfc) | 0x02;
  return octets.reduce((mac, octet) => mac * 0x100 + octet, 0) as Mac;
}
