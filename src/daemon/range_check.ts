/** Whether the network that addresses are allocated from is free on this host. */
import type { IpamOptions } from "../config/ipam_options.ts";
import type { RouterOptions } from "../config/options.ts";
import { Links } from "../host/links.ts";
import { OperationError } from "../lib/errors.ts";
import { cidrsOverlap, formatCidr } from "../lib/ip.ts";
import type { Route } from "../wire/rtnetlink.ts";
import type { Progress } from "./address_book.ts";
import { HOST } from "./host_paths.ts";
import { ownServicesFile } from "./service_store.ts";

/**
 * Rejects where the default range overlaps a route of the host; a range that the user chose is only warned about. The default route does
 * not count, nor do routes to the bridge and by interfaces of networks of their own.
 */
export function checkRange(
  options: Pick<IpamOptions, "range" | "rangeGiven">,
  apart: readonly string[],
  progress: Progress,
): void {
  using links = new Links();
  const deviceOf = ({ link }: Route) => link === undefined ? undefined : links.byIndex(link)?.name;
  const routes = links.routes().map((route) => ({ route, device: deviceOf(route) ?? "unknown" }));
  judgeRange(options, routes.filter(({ device }) => device !== HOST.bridge && !apart.includes(device)), progress);
}

/** Interfaces of networks that services have to themselves: whatever addresses these use, they are no part of the host's own routing. */
export async function interfacesApart(
  { networks, dbPrefix }: Pick<RouterOptions, "networks" | "dbPrefix">,
): Promise<string[]> {
  // What cannot be read the router itself will complain of.
  const stored = await ownServicesFile(dbPrefix).read().catch(() => undefined);
  return [...networks, ...stored?.networks ?? []].flatMap(({ interfaces }) => interfaces);
}

export function judgeRange(
  { range, rangeGiven }: Pick<IpamOptions, "range" | "rangeGiven">,
  routes: readonly { readonly route: Pick<Route, "destination">; readonly device: string }[],
  progress: Progress,
): void {
  const found = routes.find(({ route: { destination } }) =>
    destination.prefixLength > 0 && cidrsOverlap(destination, range)
  );
  if (found === undefined) return;
  const route = `${formatCidr(found.route.destination)} (device ${found.device})`;
  if (!rangeGiven) {
    throw new OperationError(
      `ERROR: Default --ipalloc-range ${formatCidr(range)} overlaps with existing route ${route} on host.\n` +
        "ERROR: You must pick another range and set it on all hosts.",
    );
  }
  progress.warn(
    `WARNING: Specified --ipalloc-range ${formatCidr(range)} overlaps with existing route ${route} on host.\n` +
      "WARNING: Unless this is deliberate, you must pick another range and set it on all hosts.",
  );
}
