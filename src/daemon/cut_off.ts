/** Interfaces that no isolated network may take: this host reaches its peers by them. */
import type { RouterOptions } from "../config/options.ts";
import type { NetworkOption } from "../config/service_options.ts";
import { Links } from "../host/links.ts";
import { OperationError } from "../lib/errors.ts";
import { cidrContains, formatIpv4, type Ipv4, parseIpv4 } from "../lib/ip.ts";
import { formatMac } from "../lib/mac.ts";
import type { Mesh } from "../mesh/mesh.ts";
import type { Route } from "../wire/rtnetlink.ts";
import { resolveTargets } from "./resolve_targets.ts";

/** Whom this host has to reach. */
export interface Remote {
  /** As a sentence begins with it. */
  readonly who: string;
  readonly address: Ipv4;
}

/** The device is undefined where the route leads to none. */
export type DeviceRoute = Pick<Route, "destination" | "metric"> & { readonly device: string | undefined };

/** For `launch`. @throws OperationError where a target is reached by an interface that is to be isolated */
export async function checkTargetsStay(
  { networks, port }: Pick<RouterOptions, "networks" | "port">,
  targets: readonly string[],
): Promise<void> {
  const isolated = networks.filter((network) => network.isolated);
  if (isolated.length === 0) return;
  // Names that nobody knows now are tried again later, and so they are no reason.
  const { targets: found } = await resolveTargets(targets, port);
  const remotes = found.map(({ text, endpoint: { address } }) => ({ who: targetWho(text, address), address }));
  using links = new Links();
  const routes = deviceRoutes(links);
  for (const network of isolated) judgeIsolation(network, routes, remotes);
}

/** @throws OperationError where a peer that we are connected with, or a target by its address, is reached by one of the interfaces */
export function checkPeersStay(network: NetworkOption, links: Links, mesh: Mesh): void {
  if (!network.isolated) return;
  const peers = mesh.connections().flatMap((connection): Remote[] => {
    if (connection.state !== "established") return [];
    const { peer, nickName, address: { address } } = connection;
    return [{ who: `peer ${formatMac(peer)}(${nickName}), at ${formatIpv4(address)},`, address }];
  });
  // Of targets that gossip has told of many are elsewhere, where the same addresses mean somebody else.
  const targets = mesh.activeTargets().flatMap((text): Remote[] => {
    const address = parseIpv4(text.replace(/:\d+$/, ""));
    return address === undefined ? [] : [{ who: targetWho(text, address), address }];
  });
  judgeIsolation(network, deviceRoutes(links), [...peers, ...targets], "; --force does it all the same");
}

/** The default route has a refusal of its own. */
export function judgeIsolation(
  { name, interfaces }: Pick<NetworkOption, "name" | "interfaces">,
  routes: readonly DeviceRoute[],
  remotes: readonly Remote[],
  hint = "",
): void {
  for (const { who, address } of remotes) {
    const device = wayTo(address, routes)?.device;
    if (device === undefined || !interfaces.includes(device)) continue;
    throw new OperationError(
      `Cannot put interface "${device}" into network "${name}": ${who} is reached by it, and would not be any more${hint}`,
    );
  }
}

/** Of routes that are no default one the narrowest, of these the one that is preferred. */
function wayTo(address: Ipv4, routes: readonly DeviceRoute[]): DeviceRoute | undefined {
  return routes.filter(({ destination }) => destination.prefixLength > 0 && cidrContains(destination, address))
    .toSorted((a, b) =>
      b.destination.prefixLength - a.destination.prefixLength || (a.metric ?? 0) - (b.metric ?? 0)
    )[0];
}

function deviceRoutes(links: Links): DeviceRoute[] {
  return links.routes().map(({ link, ...route }) => ({
    ...route,
    device: link === undefined ? undefined : links.byIndex(link)?.name,
  }));
}

function targetWho(text: string, address: Ipv4): string {
  const shown = formatIpv4(address);
  return text.startsWith(shown) ? `target ${text}` : `target ${text}, at ${shown},`;
}
