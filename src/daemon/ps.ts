/** `ps`: who is plugged into the bridge. */
import { formatMac, type Mac } from "../lib/mac.ts";
import { type Cidr, formatCidr } from "../lib/ip.ts";
import { OperationError } from "../lib/errors.ts";
import { ContainerNetns, linksToBridge } from "../host/container_link.ts";
import { dockerIsThere, runningContainers } from "../host/docker.ts";
import { Links } from "../host/links.ts";
import { findNetns, isOwnNetns, type Netns, sameNetns, statNetns } from "../host/netns.ts";
import type { Link } from "../wire/rtnetlink.ts";
import { EXPOSE_ID } from "./address_book.ts";
import { HOST, type HostPaths, Plumbing } from "./plumbing.ts";
import { findTarget } from "./target.ts";

export interface PsOptions {
  /** Containers as typed; none means the host and everything attached. */
  readonly containers: readonly string[];
  readonly host?: HostPaths;
}

export interface PsEntry {
  /** What to print first: `weave:expose`, 12 characters of what was asked for or of the id, or a whole `netns-` id. */
  readonly label: string;
  /** Full id. */
  readonly id: string;
  readonly mac: Mac;
  readonly addresses: readonly Cidr[];
}

/** Where to look for links. */
interface Place {
  readonly label: string;
  readonly id: string;
  readonly netns: Netns;
}

/** Rejects with `Link not found` where there is no bridge. */
export async function ps(options: PsOptions): Promise<readonly PsEntry[]> {
  const plumbing = new Plumbing(options.host ?? HOST);
  using links = new Links();
  const bridge = links.find(plumbing.host.bridge);
  if (bridge?.mac === undefined) throw new OperationError("Link not found");
  const expose = { label: EXPOSE_ID, id: EXPOSE_ID, mac: bridge.mac, addresses: links.addresses(bridge.index) };
  const entries: PsEntry[] = [];
  if (options.containers.length === 0) {
    entries.push(expose);
    for (const place of await allPlaces(plumbing)) entries.push(...lookInto(place, links, bridge));
  }
  for (const container of options.containers) {
    if (container === EXPOSE_ID) entries.push(expose);
    else {
      const place = await findPlace(container, plumbing);
      if (place !== undefined) entries.push(...lookInto(place, links, bridge));
    }
  }
  return entries;
}

/** The line `weave ps` prints for an entry: `<label> <mac> <cidr> …`. */
export function formatPsEntry({ label, mac, addresses }: PsEntry): string {
  return [label, formatMac(mac), ...addresses.map(formatCidr)].join(" ");
}

/** Containers in Docker's order, then what is attached by its namespace, in the order of attaching. */
async function allPlaces(plumbing: Plumbing): Promise<Place[]> {
  const places: Place[] = [];
  if (dockerIsThere()) {
    for (const { id, pid, networkMode } of await runningContainers()) {
      const netns = networkMode === "host" ? undefined : statNetns(`/proc/${pid}/ns/net`);
      // Containers that share a namespace share its link; each is listed, as Weave does.
      if (netns !== undefined) places.push({ label: id.slice(0, 12), id, netns });
    }
  }
  for (const { id, device, inode, path, untilTold } of await plumbing.attachments()) {
    const netns = findNetns(device, inode, path);
    const known = netns === undefined || places.some((place) => sameNetns(place.netns, netns));
    if (!known) places.push({ label: untilTold === true ? id.slice(0, 12) : id, id, netns });
  }
  return places;
}

/** undefined for a container that is unknown, does not run or has no namespace of its own: it has no line. */
async function findPlace(container: string, plumbing: Plumbing): Promise<Place | undefined> {
  const attached = (await plumbing.attachments()).find((a) => a.id === container);
  if (attached !== undefined) {
    const netns = findNetns(attached.device, attached.inode, attached.path);
    return netns === undefined ? undefined : { label: container, id: container, netns };
  }
  try {
    const { id, netns, docker } = await findTarget(container, { shared: true });
    return { label: docker === undefined ? container : container.slice(0, 12), id, netns };
  } catch (error) {
    if (error instanceof OperationError) return undefined;
    throw error;
  }
}

function lookInto({ label, id, netns }: Place, links: Links, bridge: Link): PsEntry[] {
  if (isOwnNetns(netns)) return [];
  try {
    using container = new ContainerNetns(netns);
    return linksToBridge(links.list(), container.links.list(), bridge.index).flatMap(({ inside }) =>
      inside.mac === undefined
        ? []
        : [{ label, id, mac: inside.mac, addresses: container.links.addresses(inside.index) }]
    );
  } catch (error) {
    // It may have gone since it was found.
    if (statNetns(netns.path) === undefined) return [];
    throw error;
  }
}
