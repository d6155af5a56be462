/**
 * A second link from this host into the mesh, for what services send there. What comes for them comes by the bridge; that what goes leaves
 * by another link has two reasons:
 *
 * - Where `br_netfilter` is on, the kernel translates frames already on the bridge, and what is then for the bridge again it sends on
 *   without leaving the bridge: never out by the port by which it came. A client on another host could not reach a backend on another host.
 * - The kernel judges the source of what it forwards as if it had come by the link by which it leaves, and there are rules for what comes by
 *   the bridge (`service_routes.ts`).
 *
 *     in:   port ─ bridge `weave` ─ translated ─ routed ─┐
 *     out:  port ─ bridge `weave` ─ vethwe-svc ═ weave-svc
 */
import type { Link } from "../wire/rtnetlink.ts";
import { announceAddresses } from "./arp.ts";
import { type Links, setSysctl } from "./links.ts";

export const MESH_LEG = "weave-svc";
const PORT = "vethwe-svc";

/** @returns whether anything was changed */
export function ensureMeshLeg(links: Links, bridge: Link): boolean {
  const { mtu } = bridge;
  let leg = links.find(MESH_LEG);
  let port = links.find(PORT);
  let changed = false;
  if (leg === undefined || port === undefined || leg.peer !== port.index) {
    deleteMeshLeg(links);
    leg = links.create({ name: MESH_LEG, mtu, kind: { type: "veth", peer: { name: PORT, mtu } } });
    port = links.find(PORT)!;
    changed = true;
  }
  setSysctl(`net/ipv6/conf/${MESH_LEG}/disable_ipv6`, 1);
  setSysctl(`net/ipv6/conf/${PORT}/disable_ipv6`, 1);
  // The bridge answers ARP for what we are; here we hear answers, and who answers for an address from now on.
  setSysctl(`net/ipv4/conf/${MESH_LEG}/arp_ignore`, 8);
  if (port.mtu !== mtu || leg.mtu !== mtu) {
    for (const { index } of [leg, port]) links.change({ index, mtu }, `set MTU of "${MESH_LEG}"`);
    changed = true;
  }
  if (port.master !== bridge.index) {
    links.change({ index: port.index, master: bridge.index }, `plug "${PORT}" into "${bridge.name}"`);
    changed = true;
  }
  for (const { index, up } of [port, leg]) {
    if (up) continue;
    links.change({ index, up: true }, `bring "${MESH_LEG}" up`);
    changed = true;
  }
  return changed;
}

/** Whether it is as `ensureMeshLeg` makes it. */
export function meshLegIntact(links: Links, bridge: Link): boolean {
  const [leg, port] = [links.find(MESH_LEG), links.find(PORT)];
  return leg?.up === true && port?.up === true && port.master === bridge.index && port.mtu === bridge.mtu &&
    leg.mtu === bridge.mtu;
}

/** Those who learnt our addresses from what is asked by this link learn that they are the bridge's. */
export function removeMeshLeg(links: Links, bridge: string | undefined): void {
  if (!deleteMeshLeg(links) || bridge === undefined) return;
  const there = links.find(bridge);
  if (there?.up === true) announceAddresses(there, links.addresses(there.index).map(({ address }) => address));
}

/** @returns whether it was there */
function deleteMeshLeg(links: Links): boolean {
  return [MESH_LEG, PORT].map((name) => links.find(name)).some((link) =>
    link !== undefined && links.delete(link.index)
  );
}
