/** Whether the network that addresses are allocated from is free on this host. */
import type { IpamOptions } from "../config/ipam_options.ts";
import { Links } from "../host/links.ts";
import { OperationError } from "../lib/errors.ts";
import { cidrsOverlap, formatCidr } from "../lib/ip.ts";
import type { Route } from "../wire/rtnetlink.ts";
import type { Progress } from "./address_book.ts";
import { HOST } from "./host_paths.ts";

/**
 * Rejects where the default range overlaps a route of the host; a range that the user chose is only warned about. Routes to the bridge
 * and the default route do not count.
 */
export function checkRange(options: Pick<IpamOptions, "range" | "rangeGiven">, progress: Progress): void {
  using links = new Links();
  const bridge = links.find(HOST.bridge)?.index;
  const deviceOf = ({ link }: Route) => link === undefined ? undefined : links.byIndex(link)?.name;
  const named = (route: Route) => ({ route, device: deviceOf(route) ?? "unknown" });
  judgeRange(options, links.routes().filter((route) => route.link !== bridge).map(named), progress);
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
