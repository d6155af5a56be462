/** The bridge `weave` and its ports: what they should be like, and making them so without disturbing what already is. */
import { formatMac, type Mac } from "../lib/mac.ts";
import { ENDPOINT_GUEST_PREFIX, ENDPOINT_PORT_PREFIX } from "../lib/port_names.ts";
import { OperationError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { decodeMessages } from "../wire/netlink.ts";
import { decodeLink, type Link, NETLINK_ROUTE, RTM, RTNLGRP_LINK } from "../wire/rtnetlink.ts";
import { NetlinkSocket } from "../../ffi/netlink_socket.ts";
import { type Links, setInterfaceSysctls, setSysctl } from "./links.ts";

/** The port where the router reads and writes frames. */
export const TAP_PORT = "vethwe-bridge";

/** What every port of ours is called but those of Docker's networks: `vethwepl…`, `vethwe-bridge`, what Weave's other commands make. */
const PORT_PREFIX = "vethwe";

/** The host's ends of containers' links. */
export const CONTAINER_PORT_PREFIX = `${PORT_PREFIX}pl`;

/** Whether a link of this name is ours to remove. */
export function isOurPort(name: string): boolean {
  return [PORT_PREFIX, ENDPOINT_PORT_PREFIX, ENDPOINT_GUEST_PREFIX].some((prefix) => name.startsWith(prefix));
}

function isContainerPort({ name }: Link): boolean {
  return name.startsWith(CONTAINER_PORT_PREFIX) || name.startsWith(ENDPOINT_PORT_PREFIX);
}

/** The kernel gives a TAP no more. */
const TAP_MTU_LIMIT = 65521;
/** An IPv4 packet can be no larger; Weave Net 2.8's MTU without fast datapath. */
const SLEEVE_MTU = 65535;
/** 1460 of the underlay less VXLAN and ESP: Weave Net 2.8's MTU. */
const DEFAULT_MTU = 1376;

/** MTU of bridge and containers. @param options `WEAVE_MTU` or `--mtu`, and `WEAVE_NO_FASTDP` or `--no-fastdp` */
export function overlayMtu(options: { readonly mtu?: number; readonly noFastdp: boolean }): number {
  return options.mtu ?? (options.noFastdp ? SLEEVE_MTU : DEFAULT_MTU);
}

export interface BridgeOptions {
  readonly name: string;
  /** The peer's name. */
  readonly mac: Mac;
  readonly mtu: number;
}

export interface EnsuredBridge {
  readonly link: Link;
  /** It was not there before. */
  readonly created: boolean;
}

/** Makes the bridge, or adopts the one that is there: corrects what differs and brings it up. */
export function ensureBridge(links: Links, options: BridgeOptions): EnsuredBridge {
  checkKinds(links, options.name);
  const there = links.find(options.name);
  const link = there ?? createBridge(links, options);
  const { index } = link;
  if (link.mac !== options.mac) links.change({ index, mac: options.mac }, `set MAC of "${options.name}"`);
  if (link.bridge?.stp !== false || link.bridge.multicastSnooping) {
    links.change({ index, kind: BRIDGE_KIND }, `set bridge options of "${options.name}"`);
  }
  if (link.mtu !== options.mtu) links.change({ index, mtu: options.mtu }, `set MTU of "${options.name}"`);
  // Before it comes up, so that no router advertisement is heard in between.
  setInterfaceSysctls(options.name);
  // A host answers on the overlay for what it exposes there, not for its other addresses.
  setSysctl(`net/ipv4/conf/${options.name}/arp_ignore`, 1);
  if (!link.up) links.change({ index, up: true }, `bring "${options.name}" up`);
  return { link: present(links, options.name), created: there === undefined };
}

const BRIDGE_KIND = { type: "bridge", stp: false, multicastSnooping: false } as const;

function createBridge(links: Links, { name, mac, mtu }: BridgeOptions): Link {
  const link = links.create({ name, mac, kind: BRIDGE_KIND });
  // A bridge takes the smallest MTU of its ports until somebody has changed its own; setting what it already has is no change.
  if (link.mtu === mtu) links.change({ index: link.index, mtu: mtu - 1 }, `set MTU of "${name}"`);
  return present(links, name);
}

/**
 * Refuses what another program left under our names. The bridge of Weave's plain kind, with `vethwe-pcap` as the other end of
 * the router's port, is taken over; its fast datapath is not ours to take apart.
 */
function checkKinds(links: Links, name: string): void {
  const bridge = links.find(name);
  const kind = bridge?.kind;
  if (bridge !== undefined && kind !== "bridge") {
    throw kind === "openvswitch" ? otherKind("fastdp") : new OperationError(
      `Cannot use interface "${name}" as bridge: it is of kind "${kind ?? "hardware"}"`,
    );
  }
  const port = links.find(TAP_PORT);
  if (port === undefined || port.kind === "tun") return;
  if (port.kind !== "veth") {
    throw new OperationError(`Cannot use interface "${TAP_PORT}": it is of kind "${port.kind ?? "hardware"}"`);
  }
  if (links.find("vethwe-datapath") !== undefined) throw otherKind("bridged_fastdp");
  links.delete(port.index);
}

function otherKind(there: string): OperationError {
  return new OperationError(
    `Existing bridge type "${there}" is different than requested "bridge". Please do 'weave reset' and try again`,
  );
}

/** Makes the router's TAP, which is open already, a port of the bridge. The bridge's own MTU stays as it is. */
export function ensureTapPort(
  links: Links,
  options: { readonly bridge: string; readonly name: string; readonly mtu: number },
): Link {
  const bridge = present(links, options.bridge);
  const tap = present(links, options.name);
  const mtu = Math.min(options.mtu, TAP_MTU_LIMIT);
  // The host itself has nothing to say here: its IPv6 greetings would be carried to every peer.
  setSysctl(`net/ipv6/conf/${options.name}/disable_ipv6`, 1);
  const { index } = tap;
  if (tap.mtu !== mtu) links.change({ index, mtu }, `set MTU of "${options.name}"`);
  if (tap.master !== bridge.index) {
    links.change({ index, master: bridge.index }, `plug "${options.name}" into "${options.bridge}"`);
  }
  if (!tap.up) links.change({ index, up: true }, `bring "${options.name}" up`);
  const after = present(links, options.bridge);
  if (after.mtu !== bridge.mtu) {
    links.change({ index: after.index, mtu: bridge.mtu }, `set MTU of "${options.bridge}"`);
  }
  return present(links, options.name);
}

/** Whether the bridge is up and the router's port plugged into it. */
export function bridgeIntact(links: Links, name: string): boolean {
  const bridge = links.find(name);
  const tap = links.find(TAP_PORT);
  return bridge !== undefined && bridge.up && tap !== undefined && tap.up && tap.master === bridge.index;
}

/** Ports of containers that were attached under a larger MTU than the bridge's: it drops what they send in larger frames. */
export function portsAboveMtu(links: Links, name: string): Link[] {
  const bridge = links.find(name);
  if (bridge === undefined) return [];
  return links.list().filter((link) => link.master === bridge.index && isContainerPort(link) && link.mtu > bridge.mtu);
}

/** Plugs in again what a bridge that is gone left plugged in nowhere. */
export function plugContainersIn(links: Links, name: string): void {
  const bridge = present(links, name);
  for (const link of links.list()) {
    if (!isContainerPort(link) || link.kind !== "veth" || link.master !== undefined) continue;
    links.change({ index: link.index, master: bridge.index }, `plug "${link.name}" into "${name}"`);
    links.setPort(links.byIndex(link.index) ?? link, { hairpin: true });
  }
}

/** `docker0` changes its MAC with its ports, and containers forget their gateway, unless somebody gave it one for good. */
export function fixBridgeMac(links: Links, name: string, random: () => Mac): boolean {
  const link = links.find(name);
  if (link === undefined || link.kind !== "bridge" || assignedByHand(link)) return false;
  links.change({ index: link.index, mac: random() }, `set MAC of "${name}"`);
  return true;
}

/** NET_ADDR_SET of linux/netdevice.h; netlink does not tell. Where /sys shows another namespace, nothing can be said. */
function assignedByHand(link: Link): boolean {
  const read = (file: string) => Deno.readTextFileSync(`/sys/class/net/${link.name}/${file}`).trim();
  try {
    if (Number(read("ifindex")) !== link.index || read("address") !== formatMac(link.mac!)) return true;
    return read("addr_assign_type") === "3";
  } catch {
    return true;
  }
}

/** The bridge, for an operation that needs it. */
export function findBridge(links: Links, name: string): Link {
  const bridge = links.find(name);
  if (bridge === undefined || bridge.kind !== "bridge") {
    throw new OperationError(`bridge "${name}" not present; did you launch weave?`);
  }
  return bridge;
}

function present(links: Links, name: string): Link {
  const link = links.find(name);
  if (link === undefined) throw new OperationError(`Cannot find interface "${name}": it was there a moment ago`);
  return link;
}

/**
 * Tells the log of what an administrator should know: hairpin mode on the router's port, at start and when it changes,
 * and the bridge going down. The owner waits for `fd` to become readable and then calls `handleReadable`.
 */
export class BridgeWatch implements Disposable {
  readonly #socket = new NetlinkSocket(NETLINK_ROUTE, [RTNLGRP_LINK]);
  #hairpin = false;
  #up: boolean;

  constructor(readonly links: Links, readonly bridge: string, readonly log: Logger) {
    this.#up = links.find(bridge)?.up ?? false;
    this.#look(links.find(TAP_PORT));
  }

  get fd(): NetlinkSocket["fd"] {
    return this.#socket.fd;
  }

  /** Reads what there is; never waits. */
  handleReadable(): void {
    for (const octets of this.#socket.receive()) {
      for (const message of decodeMessages(octets)) {
        if (message.type !== RTM.newLink && message.type !== RTM.deleteLink) continue;
        const link = decodeLink(message);
        if (link.name === TAP_PORT) this.#look(this.links.find(TAP_PORT));
        else if (link.name === this.bridge) this.#lookAtBridge(message.type === RTM.newLink && link.up);
      }
    }
  }

  [Symbol.dispose](): void {
    this.#socket.fd.close();
  }

  #look(port: Link | undefined): void {
    const hairpin = port?.port?.hairpin ?? false;
    if (hairpin && !this.#hairpin) {
      this.log.warn(`Hairpin mode enabled on "${TAP_PORT}"`, {
        reason: "frames will come back to where they came from",
      });
    }
    this.#hairpin = hairpin;
  }

  #lookAtBridge(up: boolean): void {
    if (this.#up && !up) this.log.error("bridge went down", { interface: this.bridge });
    this.#up = up;
  }
}
