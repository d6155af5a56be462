/**
 * Isolated networks: a namespace of its own for the links of a network, joined to this one by a veth. An address that is our own here,
 * or somebody's in another network, is an ordinary host there.
 *
 *     this namespace                       /run/netns/weave-NAME
 *     weave-net3  240.3.0.1 ── veth ── 240.3.0.2  weave-net3       eth1 192.168.1.1/24, moved there with its routes
 *
 * All of 240.N.0.0/16 is routed to the other side, from either side: rules there give its addresses a meaning. The range is reserved
 * (RFC 1112 §4), so that nobody has it, and Linux routes it like any other. The namespace forwards nothing until somebody who has rules
 * for it switches that on.
 *
 * A link that moves loses its addresses and routes. They are noted before (`network_state.ts`), so that whoever comes after us, should we
 * be killed at any instant, finds them and finishes in either direction.
 */
import type { Fd } from "../../ffi/fd.ts";
import { createNetns, openNetns, removeNetns, withNetns } from "../../ffi/netns.ts";
import { OperationError } from "../lib/errors.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type { NetworkId } from "../service/plan.ts";
import { leaseSeconds } from "../wire/link_config.ts";
import type { Link } from "../wire/rtnetlink.ts";
import { isOurPort } from "./bridge.ts";
import { applyLinkConfig, type LinkConfig, mergeLinkConfigs, readLinkConfig } from "./link_config.ts";
import { Links, setSysctl } from "./links.ts";
import { statNetns } from "./netns.ts";
import { listNetworkStates, type MovedLink, type NetworkState, NetworkStateFile } from "./network_state.ts";

const FOLDER = "/run/netns";
const PREFIX = "weave-";
const TRANSIT_PREFIX = "weave-net";
const TRANSIT_OCTET = 240;
/** Host parts of the veth's ends; rules have the rest. */
const HERE = 1, INSIDE = 2;
/** Both ends are in it, and nothing else. */
const ENDS_PREFIX_LENGTH = 30;

export interface IsolatedNetwork {
  readonly id: NetworkId;
  /** As a file name may have it. */
  readonly name: string;
  /** Names of the links that are to be in it. */
  readonly interfaces: readonly string[];
}

export interface EnsuredNetwork {
  /** For `withNetns` and `nsenter --net=`. */
  readonly namespace: string;
  /** Of the veth's end here: the link by which the network is reached. */
  readonly link: string;
  /** Of the veth's end inside. */
  readonly innerLink: string;
  readonly changed: boolean;
  /** Sentences for the user: an interface that is not there, a route that could not be taken along. */
  readonly warnings: readonly string[];
}

/** Where a network's namespace is, whether it is there or not. */
export function networkNamespace(name: string): string {
  return `${FOLDER}/${PREFIX}${name}`;
}

/** The link by which an isolated network is reached; it has the same name on both sides. */
export function transitLink(network: NetworkId): string {
  return `${TRANSIT_PREFIX}${network}`;
}

/** An address of a network's transit: 1 is this side, 2 the inner one; rules have 4 to 65534 for backends and listeners. */
export function transitAddress(network: NetworkId, host: number): Ipv4 {
  return (TRANSIT_OCTET << 24 | network << 16 | host) >>> 0;
}

/** Whether it is of any network's transit. */
export function isTransitAddress(address: Ipv4): boolean {
  return address >>> 24 === TRANSIT_OCTET;
}

/**
 * Makes the namespace, or adopts what is there, and moves links in and out until they are as wanted. May be repeated at any time, also
 * after it was killed; nobody else may be at it for the same network. What fails is undone.
 * @param stateDir where it is noted what links had, as long as they are away; lost at reboot like the namespaces
 */
export async function ensureIsolatedNetwork(network: IsolatedNetwork, stateDir: string): Promise<EnsuredNetwork> {
  using isolation = await Isolation.open(network.name, network.id, stateDir);
  return await isolation.ensure(network.interfaces);
}

/** Moves all links back and removes the namespace. @returns sentences on what is left, none where all is as it was */
export async function removeIsolatedNetwork(name: string, stateDir: string): Promise<string[]> {
  using isolation = await Isolation.open(name, undefined, stateDir);
  return await isolation.remove();
}

/** Names of the isolated networks that are there, whole or in parts. */
export function listIsolatedNetworks(stateDir: string): string[] {
  return [...new Set([...listNetworkStates(stateDir), ...namespacesWithTransit()])].toSorted();
}

/** One operation on a network. */
class Isolation implements Disposable {
  readonly #name: string;
  readonly #namespace: string;
  readonly #file: NetworkStateFile;
  readonly #here = new Links();
  readonly #warnings: string[] = [];
  #changed = false;
  #state: NetworkState;

  private constructor(name: string, namespace: string, file: NetworkStateFile, state: NetworkState) {
    this.#name = name;
    this.#namespace = namespace;
    this.#file = file;
    this.#state = state;
  }

  static async open(name: string, id: NetworkId | undefined, stateDir: string): Promise<Isolation> {
    if (!/^[a-zA-Z0-9][\w.-]{0,200}$/.test(name)) throw new OperationError(`Cannot use "${name}" as name of a network`);
    const namespace = networkNamespace(name);
    const file = new NetworkStateFile(stateDir, name);
    let noted: NetworkState | undefined, damage: string | undefined;
    try {
      noted = await file.read();
    } catch (error) {
      // Newer or damaged: what links had is lost, what there is can be seen.
      if (!(error instanceof OperationError)) throw error;
      damage = error.message;
    }
    const state = { links: noted?.links ?? {}, id: id ?? noted?.id ?? idInside(namespace) ?? 0 };
    const isolation = new Isolation(name, namespace, file, state);
    if (damage !== undefined) isolation.#warnings.push(damage);
    return isolation;
  }

  [Symbol.dispose](): void {
    this.#here[Symbol.dispose]();
  }

  async ensure(interfaces: readonly string[]): Promise<EnsuredNetwork> {
    await using undo = new AsyncDisposableStack();
    for (const name of interfaces) this.#check(name);
    if (statNetns(this.#namespace) === undefined) {
      await this.#note({});
      createNetns(this.#namespace, prepareNamespace);
      undo.defer(() => this.#removeIfEmpty());
    }
    this.#ensureTransit();
    for (const name of interfaces) {
      const moved = await this.#moveIn(name);
      if (moved) undo.defer(() => this.#moveOut(name));
    }
    const wanted = new Set(interfaces);
    for (const name of Object.keys(this.#state.links)) if (!wanted.has(name)) await this.#moveOut(name);
    this.#limitTransit(interfaces);
    for (const name of interfaces) {
      this.#warnings.push(...this.#state.links[name]?.warnings ?? []);
      if (this.#isLeased(name)) this.#warnings.push(leased(name, this.#name));
    }
    undo.move();
    const link = transitLink(this.#state.id);
    return { namespace: this.#namespace, link, innerLink: link, changed: this.#changed, warnings: this.#warnings };
  }

  async remove(): Promise<string[]> {
    const names = new Set([...Object.keys(this.#state.links), ...this.#namesInside()]);
    for (const name of names) {
      try {
        await this.#moveOut(name);
      } catch (error) {
        this.#warnings.push((error as Error).message);
      }
    }
    await this.#removeIfEmpty();
    return this.#warnings;
  }

  #check(name: string): void {
    const link = this.#here.find(name);
    const refuse = (why: string) => {
      throw new OperationError(`Cannot put interface "${name}" into network "${this.#name}": ${why}`);
    };
    if (name === "lo") refuse("it is in every network");
    if (isOurPort(name) || name.startsWith(TRANSIT_PREFIX)) refuse("it is weave's own");
    if (link?.master !== undefined) {
      refuse(`it is a port of "${this.#here.byIndex(link.master)?.name ?? link.master}"`);
    }
    // Once it is there we are cut off, and whoever is logged in by it.
    if (link !== undefined && link.index === defaultLink(this.#here)) {
      refuse("this host's default route leaves by it, and would not be this host's any more");
    }
  }

  /** @returns whether it has moved; false also where it is nowhere */
  async #moveIn(name: string): Promise<boolean> {
    const noted = this.#state.links[name];
    const inside = this.#findInside(name);
    if (inside !== undefined) {
      if (noted?.settled === true) withNetns(this.#namespace, () => bringUp(inside));
      else await this.#settle(name, noted ?? FOUND_INSIDE);
      return false;
    }
    const link = this.#here.find(name);
    if (link === undefined) {
      this.#warnings.push(`Interface "${name}" of network "${this.#name}" is not there`);
      return false;
    }
    const { multipath, ...config } = readLinkConfig(link.index);
    // Whoever put it here without us may have given it addresses, or not.
    const lacks = noted !== undefined && (!noted.settled || config.addresses.length === 0);
    const moved = {
      config: lacks ? mergeLinkConfigs(config, noted.config) : config,
      up: noted?.up ?? link.up,
      settled: false,
      warnings: multipath === 0
        ? []
        : [`Routes by "${name}" and other interfaces at once are not taken along into network "${this.#name}"`],
    };
    await this.#note({ [name]: moved });
    {
      using there = openNetns(this.#namespace);
      moveLink(link, there);
    }
    try {
      await this.#settle(name, moved);
    } catch (error) {
      await this.#moveOut(name);
      throw error;
    }
    return true;
  }

  /** Gives a link in the namespace what it had. */
  async #settle(name: string, moved: MovedLink): Promise<void> {
    const { refused, why } = withNetns(this.#namespace, () => {
      using links = new Links();
      const link = links.find(name);
      if (link === undefined) throw new OperationError(`Cannot find interface "${name}": it went away at once`);
      prepareLink(name);
      bringUp(link);
      return applyLinkConfig(link.index, moved.config);
    });
    const warnings = refused === 0 ? moved.warnings : [...moved.warnings, notGiven(name, refused, why)];
    await this.#note({ [name]: { ...moved, settled: true, warnings } });
  }

  async #moveOut(name: string): Promise<void> {
    const noted = this.#state.links[name];
    const inside = this.#findInside(name);
    let config = noted?.config ?? NOTHING;
    if (inside !== undefined) {
      const now = withNetns(this.#namespace, () => readLinkConfig(inside.index));
      // As it is now; what it has not got yet in case we were killed.
      config = noted === undefined || noted.settled ? now : mergeLinkConfigs(now, noted.config);
      await this.#note({ [name]: { up: noted?.up ?? inside.up, config, settled: false, warnings: [] } });
      using home = openNetns("/proc/thread-self/ns/net");
      withNetns(this.#namespace, () => moveLink(inside, home));
    }
    const link = this.#here.find(name);
    if (link === undefined) {
      if (noted !== undefined) {
        this.#warnings.push(`Interface "${name}" of network "${this.#name}" is not there any more`);
      }
    } else if (inside !== undefined || noted?.settled === false || this.#here.linkAddresses(link.index).length === 0) {
      if (noted?.up !== false) bringUp(link);
      const { refused, why } = applyLinkConfig(link.index, config);
      if (refused > 0) this.#warnings.push(notGiven(name, refused, why));
    }
    this.#changed = true;
    const { [name]: _, ...links } = this.#state.links;
    this.#state = { ...this.#state, links };
    await this.#file.write(this.#state);
  }

  /** Notes what is known of links, before anything is done to them. */
  async #note(links: Record<string, MovedLink>): Promise<void> {
    this.#changed = true;
    this.#state = { ...this.#state, links: { ...this.#state.links, ...links } };
    await this.#file.write(this.#state);
  }

  /** The veth, its addresses, and the way to the other side. */
  #ensureTransit(): void {
    const { id } = this.#state;
    const name = transitLink(id);
    const there = this.#here.find(name);
    const inside = this.#findInside(name);
    if (there === undefined || inside === undefined || there.peer !== inside.index) {
      // Of a namespace that is gone, say.
      this.#changed = true;
      if (there !== undefined) this.#here.delete(there.index);
      using netns = openNetns(this.#namespace);
      const peer = { name, netnsFd: netns.raw };
      this.#here.create({ name, kind: { type: "veth", peer } });
    }
    ensureTransitEnd(id, HERE);
    withNetns(this.#namespace, () => ensureTransitEnd(id, INSIDE));
  }

  /** What passes is no larger than what the network takes, so that TCP is told so from the start. */
  #limitTransit(interfaces: readonly string[]): void {
    const mtus = interfaces.map((name) => this.#findInside(name)?.mtu).filter((mtu) => mtu !== undefined);
    if (mtus.length === 0) return;
    const mtu = Math.min(...mtus);
    const limit = () => {
      using links = new Links();
      const link = links.find(transitLink(this.#state.id));
      if (link !== undefined && link.mtu !== mtu) {
        links.change({ index: link.index, mtu }, `set MTU of "${link.name}"`);
      }
    };
    limit();
    withNetns(this.#namespace, limit);
  }

  /** Whether a link inside has an address that is there for a time only. */
  #isLeased(name: string): boolean {
    const link = this.#findInside(name);
    if (link === undefined) return false;
    const { addresses } = withNetns(this.#namespace, () => readLinkConfig(link.index));
    return addresses.some((address) => leaseSeconds(address) !== undefined);
  }

  /** Links inside but `lo` and the veth. */
  #namesInside(): string[] {
    if (statNetns(this.#namespace) === undefined) return [];
    return withNetns(this.#namespace, () => {
      using links = new Links();
      return links.list().map(({ name }) => name).filter((name) => name !== "lo" && !name.startsWith(TRANSIT_PREFIX));
    });
  }

  #findInside(name: string): Link | undefined {
    if (statNetns(this.#namespace) === undefined) return undefined;
    return withNetns(this.#namespace, () => {
      using links = new Links();
      return links.find(name);
    });
  }

  /** A namespace that ends takes along what is in it, unless it is hardware. */
  async #removeIfEmpty(): Promise<void> {
    const left = this.#namesInside();
    if (left.length > 0) {
      this.#warnings.push(
        `Namespace "${this.#namespace}" is left: ${left.map((name) => `"${name}"`).join(", ")} in it`,
      );
      return;
    }
    // With the namespace it would go too, but later.
    const transit = this.#here.find(transitLink(this.#state.id));
    if (transit !== undefined) this.#here.delete(transit.index);
    removeNetns(this.#namespace);
    await this.#file.remove();
  }
}

const NOTHING: LinkConfig = { addresses: [], routes: [] };
/** Somebody else has put it there, or what was noted is lost. */
const FOUND_INSIDE: MovedLink = { config: NOTHING, up: true, settled: false, warnings: [] };

/** In a namespace that nobody else knows yet. */
function prepareNamespace(): void {
  using links = new Links();
  bringUp(links.find("lo")!);
  // It has begun with this host's settings.
  for (const name of ["all", "default"]) prepareLink(name);
  setSysctl("net/ipv4/ip_forward", 0);
}

/** Addresses of several networks meet here: no source is wrong by the way that it comes, and nobody is to be told of a better one. */
function prepareLink(name: string): void {
  for (const setting of ["rp_filter", "send_redirects", "accept_redirects"]) {
    setSysctl(`net/ipv4/conf/${name}/${setting}`, 0);
  }
}

/** The end of the veth that is in this thread's namespace. */
function ensureTransitEnd(id: NetworkId, host: typeof HERE | typeof INSIDE): void {
  using links = new Links();
  const name = transitLink(id);
  const link = links.find(name);
  if (link === undefined) throw new OperationError(`Cannot find interface "${name}": it went away at once`);
  setSysctl(`net/ipv6/conf/${name}/disable_ipv6`, 1);
  prepareLink(name);
  links.addAddress(link.index, { address: transitAddress(id, host), prefixLength: ENDS_PREFIX_LENGTH });
  bringUp(link);
  const destination = { address: transitAddress(id, 0), prefixLength: 16 };
  const gateway = transitAddress(id, host === HERE ? INSIDE : HERE);
  links.addRoute({ destination, gateway, link: link.index });
}

/** The link by which this host reaches whatever it has no other route to. */
function defaultLink(links: Links): number | undefined {
  const routes = links.routes().filter(({ destination }) => destination.prefixLength === 0);
  return routes.toSorted((a, b) => (a.metric ?? 0) - (b.metric ?? 0))[0]?.link;
}

/** Moves a link of this thread's namespace. */
function moveLink(link: Link, to: Fd): void {
  using links = new Links();
  links.change({ index: link.index, netnsFd: to.raw }, `move interface "${link.name}" to another namespace`);
}

function bringUp(link: Link): void {
  if (link.up) return;
  using links = new Links();
  links.change({ index: link.index, up: true }, `bring "${link.name}" up`);
}

function leased(name: string, network: string): string {
  return `Interface "${name}" has an address by DHCP, which nobody renews in network "${network}": give it a fixed one`;
}

function notGiven(name: string, refused: number, why: string): string {
  return `Of what interface "${name}" had before it moved ${refused} addresses or routes could not be given back: ${why}`;
}

/** The number of the network whose veth a namespace has. */
function idInside(namespace: string): NetworkId | undefined {
  if (statNetns(namespace) === undefined) return undefined;
  return withNetns(namespace, () => {
    using links = new Links();
    const name = links.list().map(({ name }) => name).find((name) => /^weave-net\d{1,2}$/.test(name));
    return name === undefined ? undefined : Number(name.slice(TRANSIT_PREFIX.length));
  });
}

function namespacesWithTransit(): string[] {
  try {
    return [...Deno.readDirSync(FOLDER)].map(({ name }) => name).filter((name) => name.startsWith(PREFIX))
      .map((name) => name.slice(PREFIX.length)).filter((name) => idInside(networkNamespace(name)) !== undefined);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
