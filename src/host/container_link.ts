/**
 * The link of a container: a veth with one end in the bridge and the other, `ethwe`, in the container's namespace.
 * Only what concerns a single namespace; `daemon/attach.ts` puts the steps together.
 */
import type { Fd } from "../../ffi/fd.ts";
import { openNetns, withNetns } from "../../ffi/netns.ts";
import { OperationError } from "../lib/errors.ts";
import type { Cidr } from "../lib/ip.ts";
import type { Link } from "../wire/rtnetlink.ts";
import { LinkError, Links, refuseRouterAdvertisements, setInterfaceSysctls } from "./links.ts";
import { type Netns, sameNetns, statNetns } from "./netns.ts";

/** Name of the interface in the container. */
export const CONTAINER_LINK = "ethwe";

/** All multicast, for the route that `attach` makes. */
const MULTICAST: Cidr = { address: 0xe0000000, prefixLength: 4 };

/** A container's namespace, held open: it stays the same one even if its path leads elsewhere by now. */
export class ContainerNetns implements Disposable {
  readonly #fd: Fd;
  /** Links, addresses and routes in there. */
  readonly links: Links;

  constructor(readonly netns: Netns) {
    this.#fd = openNetns(netns.path);
    try {
      const opened = statNetns(this.#path);
      if (opened === undefined || !sameNetns(opened, netns)) {
        throw new OperationError(`Cannot enter network namespace "${netns.path}": it was replaced a moment ago`);
      }
      this.links = this.run(() => new Links());
    } catch (error) {
      this.#fd.close();
      throw error;
    }
  }

  /** For IFLA_NET_NS_FD. */
  get fd(): number {
    return this.#fd.raw;
  }

  /** Runs a synchronous function, system calls and the start of programs included, inside. */
  run<T>(work: () => T): T {
    return withNetns(this.#path, work);
  }

  [Symbol.dispose](): void {
    this.links[Symbol.dispose]();
    this.#fd.close();
  }

  get #path(): string {
    return `/proc/self/fd/${this.#fd.raw}`;
  }
}

/** Both ends of a link between the bridge and a container. */
export interface ContainerLink {
  /** In our namespace. */
  readonly host: Link;
  /** In the container's. */
  readonly inside: Link;
}

/** Every link between a namespace and a bridge, whoever made it. */
export function linksToBridge(
  hostLinks: readonly Link[],
  insideLinks: readonly Link[],
  bridge: number,
): ContainerLink[] {
  return insideLinks.flatMap((inside) => {
    const host = peerOf(inside, hostLinks);
    return host?.master === bridge ? [{ host, inside }] : [];
  });
}

/** `ethwe` of a container and its other end, wherever that is plugged in; undefined where there is no `ethwe`. */
export function findContainerLink(hostLinks: readonly Link[], insideLinks: readonly Link[]): ContainerLink | undefined {
  const inside = insideLinks.find((link) => link.name === CONTAINER_LINK);
  if (inside === undefined) return undefined;
  const host = peerOf(inside, hostLinks);
  if (host === undefined) {
    throw new OperationError(
      `Cannot use interface "${CONTAINER_LINK}" of the container: its other end is not on this host`,
    );
  }
  return { host, inside };
}

/** The other end of a veth, which must know it too: indices of different namespaces may be equal by chance. */
function peerOf(inside: Link, hostLinks: readonly Link[]): Link | undefined {
  if (inside.kind !== "veth" || inside.peerNetnsId === undefined) return undefined;
  return hostLinks.find((host) =>
    host.index === inside.peer && host.kind === "veth" && host.peer === inside.index && host.peerNetnsId !== undefined
  );
}

/** Where a link differs from what `attach` makes. */
export interface LinkShape {
  /** In the container; `ethwe`. */
  readonly insideName?: string;
  /** The bridge's. */
  readonly mtu?: number;
  /** Frames may go back to where they came from, as where a service of a container is the container; so they may. */
  readonly hairpin?: boolean;
}

/**
 * Makes both ends in one request, each in its namespace under its final name and the host end in the bridge: there is never a
 * half of it to clean up. The second of `names` is used where the first is taken, by a container that outlived its first process.
 */
export function createContainerLink(
  hostLinks: Links,
  container: ContainerNetns,
  options: { readonly names: readonly string[]; readonly bridge: Link } & LinkShape,
): ContainerLink {
  const { bridge, names, insideName = CONTAINER_LINK, mtu = bridge.mtu } = options;
  const peer = { name: insideName, mtu, netnsFd: container.fd };
  for (const [i, name] of names.entries()) {
    try {
      const host = hostLinks.create({ name, mtu, master: bridge.index, kind: { type: "veth", peer } });
      const inside = container.links.find(insideName);
      if (inside !== undefined) return { host, inside };
      throw new OperationError(`Cannot make interface "${insideName}": it went away at once`);
    } catch (error) {
      if (error instanceof LinkError && error.errnoName === "EEXIST" && i + 1 < names.length) continue;
      throw error;
    }
  }
  throw new OperationError(`Cannot make interface "${insideName}": no name given`);
}

/** Brings what is there to the state it shall have before it gets addresses. */
export function prepareContainerLink(
  hostLinks: Links,
  container: ContainerNetns,
  link: ContainerLink,
  bridge: Link,
  { mtu = bridge.mtu, hairpin = true }: LinkShape = {},
): void {
  const { host, inside } = link;
  if (host.mtu !== mtu) hostLinks.change({ index: host.index, mtu }, `set MTU of "${host.name}"`);
  if (host.master !== bridge.index) {
    hostLinks.change({ index: host.index, master: bridge.index }, `plug "${host.name}" into "${bridge.name}"`);
  }
  hostLinks.setPort(hostLinks.byIndex(host.index) ?? host, { hairpin });
  refuseRouterAdvertisements(host.name);
  if (!host.up) hostLinks.change({ index: host.index, up: true }, `bring "${host.name}" up`);
  container.run(() => setInterfaceSysctls(inside.name));
  if (inside.mtu !== mtu) container.links.change({ index: inside.index, mtu }, `set MTU of "${inside.name}"`);
}

/** Multicast goes through the overlay, unless another interface has such a route. */
export function addMulticastRoute(container: ContainerNetns, link: ContainerLink): void {
  container.links.addRoute({ destination: MULTICAST, link: link.inside.index });
}
