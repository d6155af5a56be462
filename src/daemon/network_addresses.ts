/** Addresses and ports that this host has for itself, by network: what an export must not take away, and a backend must not be. */
import { withNetns } from "../../ffi/netns.ts";
import { Links } from "../host/links.ts";
import { networkNamespace } from "../host/network_namespace.ts";
import { statNetns } from "../host/netns.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type { PortRange } from "../lib/ports.ts";
import type { NetworkPlan } from "../service/plan.ts";

/** Every address of the host but those for services. */
export function hostAddresses(links: Links): Ipv4[] {
  return links.list().flatMap(({ index }) => links.addresses(index).map(({ address }) => address));
}

/** Of the links of a network, wherever they live. */
export function networkAddresses(links: Links, { name, interfaces, isolated }: NetworkPlan): Ipv4[] {
  if (!isolated) return addressesOf(links, interfaces);
  const path = networkNamespace(name);
  if (statNetns(path) === undefined) return [];
  using inside = withNetns(path, () => new Links());
  return addressesOf(inside, interfaces);
}

function addressesOf(links: Links, interfaces: readonly string[]): Ipv4[] {
  return interfaces.flatMap((name) => {
    const link = links.find(name);
    return link === undefined ? [] : links.addresses(link.index).map(({ address }) => address);
  });
}

/** TCP_LISTEN; and what a UDP socket that is not connected says. */
const LISTENING = { tcp: "0A", udp: "07" } as const;

/** Ports on which programs of the host listen, at that address or at all of them; undefined: at any. */
export function listeningPorts(address: Ipv4 | undefined): PortRange[] {
  return (["tcp", "udp"] as const).flatMap((protocol) => {
    const found = new Set<number>();
    for (const line of socketLines(`/proc/net/${protocol}`)) {
      const [, local, remote, state] = line.trim().split(/\s+/);
      if (state !== LISTENING[protocol] || !remote?.endsWith(":0000")) continue;
      const [host, port] = local!.split(":");
      const at = hostOrder(parseInt(host!, 16));
      if (at >>> 24 === 127 && address === undefined) continue;
      if (address === undefined || at === 0 || at === address) found.add(parseInt(port!, 16));
    }
    // A socket of IPv6 that is at no address in particular listens to IPv4 as well.
    for (const line of socketLines(`/proc/net/${protocol}6`)) {
      const [, local, remote, state] = line.trim().split(/\s+/);
      if (state !== LISTENING[protocol] || !remote?.endsWith(":0000")) continue;
      const [host, port] = local!.split(":");
      if (/^0+$/.test(host!)) found.add(parseInt(port!, 16));
    }
    return [...found].map((port): PortRange => ({ protocol, first: port, last: port }));
  });
}

function socketLines(path: string): string[] {
  try {
    return Deno.readTextFileSync(path).split("\n").slice(1).filter((line) => line !== "");
  } catch {
    return [];
  }
}

/** The kernel writes addresses as the machine has them in memory. */
function hostOrder(word: number): Ipv4 {
  const [a, b, c, d] = new Uint8Array(Uint32Array.of(word).buffer);
  return (a! << 24 | b! << 16 | c! << 8 | d!) >>> 0;
}
