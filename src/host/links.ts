/**
 * Links, addresses, routes and rules of one network namespace, read and changed over netlink. Everything here is synchronous, so
 * that it can run inside `withNetns`; a `Links` keeps working on the namespace it was opened in wherever its thread goes later.
 * What is already as wanted is left alone, and what is already gone is no error.
 */
import { SysError } from "../../ffi/errno.ts";
import { NetlinkSocket } from "../../ffi/netlink_socket.ts";
import { OperationError } from "../lib/errors.ts";
import { type Cidr, formatCidr } from "../lib/ip.ts";
import { decodeMessages, FLAG, type NetlinkMessage } from "../wire/netlink.ts";
import {
  decodeAddress,
  decodeLink,
  decodeNeighbour,
  decodeRoute,
  decodeRule,
  encodeDeleteAddress,
  encodeDeleteLink,
  encodeDeleteNeighbour,
  encodeDeleteRoute,
  encodeDeleteRule,
  encodeGetAddresses,
  encodeGetLink,
  encodeGetNeighbours,
  encodeGetRoutes,
  encodeGetRules,
  encodeNewAddress,
  encodeNewLink,
  encodeNewNeighbour,
  encodeNewRoute,
  encodeNewRule,
  encodeSetLink,
  encodeSetPort,
  type Link,
  type LinkAddress,
  type LinkChange,
  type Neighbour,
  NETLINK_ROUTE,
  type PolicyRule,
  type PortFlags,
  type Route,
  RTM,
} from "../wire/rtnetlink.ts";

/** A dump during which something changed is taken again, this often at most. */
const DUMP_ATTEMPTS = 5;

/**
 * Label of an address that services need on the bridge. The host does not have it for itself: nothing listens on it, and no route comes
 * with it.
 */
export const SERVICE_LABEL_SUFFIX = ":svc";

export function isServiceAddress({ label }: LinkAddress): boolean {
  return label?.endsWith(SERVICE_LABEL_SUFFIX) ?? false;
}

export class Links implements Disposable {
  readonly #socket = new NetlinkSocket(NETLINK_ROUTE);

  [Symbol.dispose](): void {
    this.#socket.fd.close();
  }

  list(): Link[] {
    return this.#dump(encodeGetLink({}), RTM.newLink).map(decodeLink);
  }

  find(name: string): Link | undefined {
    return this.#one({ name });
  }

  byIndex(index: number): Link | undefined {
    return this.#one({ index });
  }

  /** Makes a link and returns it. @throws SysError EEXIST where the name is taken */
  create(change: LinkChange & { readonly name: string }): Link {
    this.#request(encodeNewLink(change), `make interface "${change.name}"`);
    const link = this.find(change.name);
    if (link === undefined) throw new OperationError(`Cannot make interface "${change.name}": it went away at once`);
    return link;
  }

  change(change: LinkChange & { readonly index: number }, what: string): void {
    this.#request(encodeSetLink(change), what);
  }

  /** @returns whether it was there */
  delete(index: number): boolean {
    return this.#unless("ENODEV", () => this.#request(encodeDeleteLink(index), `remove interface ${index}`));
  }

  /** Sets those flags of a bridge's port that differ. */
  setPort(link: Link, flags: Partial<PortFlags>): void {
    const differs = (Object.keys(flags) as (keyof PortFlags)[]).some((key) => link.port?.[key] !== flags[key]);
    if (differs) this.#request(encodeSetPort(link.index, flags), `set port flags of "${link.name}"`);
  }

  /** IPv4 addresses of a link, in the order in which they were added, without those of services. */
  addresses(index: number): Cidr[] {
    return this.linkAddresses(index).filter((address) => !isServiceAddress(address)).map(({ cidr }) => cidr);
  }

  /** All IPv4 addresses, of a link or of all, with what they are for. */
  linkAddresses(index?: number): LinkAddress[] {
    return this.#dump(encodeGetAddresses(), RTM.newAddress).map(decodeAddress)
      .filter((address) => address !== undefined)
      .filter(({ link }) => index === undefined || link === index);
  }

  /** @returns whether it was missing */
  addAddress(index: number, cidr: Cidr): boolean {
    return this.addLinkAddress({ link: index, cidr });
  }

  /** @returns whether it was missing */
  addLinkAddress(address: LinkAddress): boolean {
    const what = `add address ${formatCidr(address.cidr)}`;
    return this.#unless("EEXIST", () => this.#request(encodeNewAddress(address), what));
  }

  /** @returns whether it was there */
  removeAddress(index: number, cidr: Cidr): boolean {
    const what = `remove address ${formatCidr(cidr)}`;
    return this.#unless("EADDRNOTAVAIL", () => this.#request(encodeDeleteAddress({ link: index, cidr }), what));
  }

  /**
   * Removes those of `cidrs` that are there. With the first address of a subnet the kernel takes away the others of that subnet, unless
   * told to promote one of them; those are put back.
   */
  removeAddresses(index: number, cidrs: readonly Cidr[]): void {
    const removed = new Set(cidrs.map(formatCidr));
    const keep = this.linkAddresses(index).filter(({ cidr }) => !removed.has(formatCidr(cidr)));
    for (const cidr of cidrs) this.removeAddress(index, cidr);
    const left = new Set(this.linkAddresses(index).map(({ cidr }) => formatCidr(cidr)));
    for (const address of keep) if (!left.has(formatCidr(address.cidr))) this.addLinkAddress(address);
  }

  /** IPv4 unicast routes of the main table. */
  routes(): Route[] {
    return this.allRoutes().filter(({ table, type }) => table === undefined && type === undefined);
  }

  /** IPv4 routes of all tables, those of several ways left out. */
  allRoutes(): Route[] {
    return this.#dump(encodeGetRoutes(), RTM.newRoute).map(decodeRoute).filter((route) => route !== undefined);
  }

  /** @returns whether it was missing */
  addRoute(route: Route): boolean {
    const what = `add route ${formatCidr(route.destination)}`;
    return this.#unless("EEXIST", () => this.#request(encodeNewRoute(route), what));
  }

  /** @returns whether it was there */
  removeRoute(route: Route): boolean {
    const what = `remove route ${formatCidr(route.destination)}`;
    return this.#unless("ESRCH", () => this.#request(encodeDeleteRoute(route), what));
  }

  /** IPv4 rules that choose a table. */
  rules(): PolicyRule[] {
    return this.#dump(encodeGetRules(), RTM.newRule).map(decodeRule).filter((rule) => rule !== undefined);
  }

  /** @returns whether it was missing */
  addRule(rule: PolicyRule): boolean {
    return this.#unless("EEXIST", () => this.#request(encodeNewRule(rule), `add rule of priority ${rule.priority}`));
  }

  /** @returns whether it was there */
  removeRule(rule: PolicyRule): boolean {
    return this.#unless(
      "ENOENT",
      () => this.#request(encodeDeleteRule(rule), `remove rule of priority ${rule.priority}`),
    );
  }

  neighbours(family: "inet" | "bridge"): Neighbour[] {
    return this.#dump(encodeGetNeighbours(family), RTM.newNeighbour).map(decodeNeighbour).filter((n) =>
      n !== undefined
    );
  }

  /** Adds or replaces. */
  setNeighbour(neighbour: Neighbour): void {
    this.#request(encodeNewNeighbour(neighbour), "set neighbour");
  }

  /** @returns whether it was there */
  removeNeighbour(neighbour: Neighbour): boolean {
    return this.#unless("ENOENT", () => this.#request(encodeDeleteNeighbour(neighbour), "remove neighbour"));
  }

  #one(which: { index?: number; name?: string }): Link | undefined {
    try {
      const reply = this.#replies(encodeGetLink(which)).find((message) => message.type === RTM.newLink);
      return reply === undefined ? undefined : decodeLink(reply);
    } catch (error) {
      if (error instanceof SysError && error.errnoName === "ENODEV") return undefined;
      throw error;
    }
  }

  #dump(request: Uint8Array, type: number): NetlinkMessage[] {
    for (let attempt = 1;; attempt++) {
      const replies = this.#replies(request);
      const interrupted = replies.some((message) => (message.flags & FLAG.dumpInterrupted) !== 0);
      if (!interrupted || attempt === DUMP_ATTEMPTS) return replies.filter((message) => message.type === type);
    }
  }

  #replies(request: Uint8Array): NetlinkMessage[] {
    return this.#socket.request(request).flatMap((octets) => decodeMessages(octets));
  }

  #request(request: Uint8Array, what: string): void {
    try {
      this.#socket.request(request);
    } catch (error) {
      if (error instanceof SysError) throw new LinkError(what, error);
      throw error;
    }
  }

  #unless(errnoName: string, act: () => void): boolean {
    try {
      act();
      return true;
    } catch (error) {
      if (error instanceof LinkError && error.errnoName === errnoName) return false;
      throw error;
    }
  }
}

/** The kernel refused to change a link; the message says what was tried, and its cause what the kernel said. */
export class LinkError extends OperationError {
  readonly errnoName: string;
  constructor(what: string, cause: SysError) {
    super(`Cannot ${what}: ${cause.message}`, 1, { cause });
    this.errnoName = cause.errnoName;
  }
}

/** Writes a kernel setting; false where this kernel or namespace does not have it, as without IPv6. */
export function setSysctl(path: string, value: number): boolean {
  const file = `/proc/sys/${path}`;
  try {
    if (Deno.readTextFileSync(file).trim() !== String(value)) {
      Deno.writeTextFileSync(file, String(value), { create: false });
    }
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw new OperationError(`Cannot set ${path} to ${value}: ${(error as Error).message}`, 1, { cause: error });
  }
}

/** The number in a kernel setting; undefined where it is not there. */
export function readSysctl(path: string): number | undefined {
  try {
    return Number(Deno.readTextFileSync(`/proc/sys/${path}`).trim());
  } catch {
    return undefined;
  }
}

/**
 * Settings of the bridge and of every `ethwe`. An address that moved to another container must answer within the two
 * seconds that users and tests wait for a ping; taking away one address of a subnet must not take the others along for a moment;
 * and router advertisements on the overlay concern nobody.
 */
export function setInterfaceSysctls(link: string): void {
  for (
    const [name, value] of [["base_reachable_time_ms", 5000], ["delay_first_probe_time", 2], [
      "ucast_solicit",
      1,
    ]] as const
  ) {
    setSysctl(`net/ipv4/neigh/${link}/${name}`, value);
  }
  setSysctl(`net/ipv4/conf/${link}/promote_secondaries`, 1);
  refuseRouterAdvertisements(link);
}

export function refuseRouterAdvertisements(link: string): void {
  setSysctl(`net/ipv6/conf/${link}/accept_ra`, 0);
}
