/**
 * Links, addresses, routes, rules and neighbours as rtnetlink says them (linux/rtnetlink.h, if_link.h, if_addr.h, fib_rules.h,
 * neighbour.h): requests to encode, replies to decode. No state and no socket; IPv4 and Ethernet only.
 */
import { WireError } from "../lib/errors.ts";
import type { Cidr, Ipv4 } from "../lib/ip.ts";
import { type Mac, readMac, writeMac } from "../lib/mac.ts";
import {
  attributeString,
  attributeU32,
  attributeU8,
  AttributeWriter,
  decodeAttributes,
  encodeMessage,
  FLAG,
  type NetlinkMessage,
} from "./netlink.ts";

/** Message types. */
export const RTM = {
  newLink: 16,
  deleteLink: 17,
  getLink: 18,
  setLink: 19,
  newAddress: 20,
  deleteAddress: 21,
  getAddress: 22,
  newRoute: 24,
  deleteRoute: 25,
  getRoute: 26,
  newNeighbour: 28,
  deleteNeighbour: 29,
  getNeighbour: 30,
  newRule: 32,
  deleteRule: 33,
  getRule: 34,
} as const;

/** Protocol number for socket(AF_NETLINK, …) and the groups that tell of links, and of IPv4 addresses. */
export const NETLINK_ROUTE = 0;
export const RTNLGRP_LINK = 1;
export const RTNLGRP_IPV4_IFADDR = 5;

const AF = { unspecified: 0, inet: 2, bridge: 7 } as const;
const IFF = { up: 0x1, running: 0x40, lowerUp: 0x1_0000 } as const;
export const MAIN_TABLE = 254;
const RT_SCOPE = { universe: 0, link: 253, host: 254 } as const;
const RTPROT_BOOT = 3;
/** RTN_*: kinds of routes. */
const ROUTE_TYPE = { unicast: 1, local: 2, blackhole: 6, unreachable: 7 } as const;
const ROUTE_TYPES = new Map<number, keyof typeof ROUTE_TYPE>(
  Object.entries(ROUTE_TYPE).map(([name, type]) => [type, name as keyof typeof ROUTE_TYPE]),
);
/** RTNH_F_ONLINK: the gateway is on the link, whatever addresses say. */
const ON_LINK = 4;

/** IFLA_*: attributes of a link. */
const IFLA = {
  address: 1,
  name: 3,
  mtu: 4,
  link: 5,
  master: 10,
  protinfo: 12,
  linkInfo: 18,
  netnsFd: 28,
  extMask: 29,
  linkNetnsId: 37,
  gsoMaxSegs: 40,
  gsoMaxSize: 41,
} as const;
const INFO = { kind: 1, data: 2, slaveKind: 4, slaveData: 5 } as const;
const VETH_PEER = 1;
const BRIDGE = { stp: 5, multicastSnooping: 23 } as const;
/** IFLA_BRPORT_*: what a bridge knows of a port. */
const PORT = {
  state: 1,
  hairpin: 4,
  learning: 8,
  flood: 9,
  multicastFlood: 27,
  broadcastFlood: 30,
  isolated: 33,
} as const;
/** BR_STATE_FORWARDING of linux/if_bridge.h. */
const FORWARDING = 3;
const IFA = { address: 1, local: 2, label: 3, broadcast: 4, flags: 8 } as const;
/** IFA_F_NOPREFIXROUTE. */
const NO_PREFIX_ROUTE = 0x200;
const RTA = {
  destination: 1,
  outInterface: 4,
  gateway: 5,
  priority: 6,
  preferredSource: 7,
  multipath: 9,
  table: 15,
} as const;
const FRA = { inputInterface: 3, priority: 6, mark: 10, table: 15, mask: 16, ipProtocol: 22 } as const;
/** FR_ACT_TO_TBL and FR_ACT_UNREACHABLE. */
const RULE_ACTION = { table: 1, unreachable: 7 } as const;
const NDA = { destination: 1, linkAddress: 2 } as const;

/** RTEXT_FILTER_SKIP_STATS: counters make up most of a dump, and we read none. */
const SKIP_STATS = 8;

/** Flags of a bridge's port. */
export interface PortFlags {
  readonly hairpin: boolean;
  readonly learning: boolean;
  /** Unknown unicast, broadcast and multicast go out here. */
  readonly flood: boolean;
  /** Frames between two isolated ports are dropped. */
  readonly isolated: boolean;
}

/** A network device. */
export interface Link {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  /** undefined where the device has no Ethernet address. */
  readonly mac?: Mac;
  /** Switched on by the administrator. */
  readonly up: boolean;
  /** The other side is there as well. */
  readonly running: boolean;
  /** Index of the bridge it is a port of. */
  readonly master?: number;
  /** For a veth, the index of its peer, in the namespace `peerNetnsId` or, without one, in this. */
  readonly peer?: number;
  /** The kernel's number for the peer's namespace, meaningful in this namespace only. */
  readonly peerNetnsId?: number;
  /** `veth`, `bridge`, `tun`, …; undefined for hardware. */
  readonly kind?: string;
  /** Of a port. */
  readonly port?: PortFlags;
  /** Of a port: frames pass. */
  readonly forwarding?: boolean;
  /** Of a bridge. */
  readonly bridge?: { readonly stp: boolean; readonly multicastSnooping: boolean };
  readonly gsoMaxSize?: number;
  readonly gsoMaxSegs?: number;
}

/** What to make or change of a link; a field that is missing is left alone. */
export interface LinkChange {
  /** Which one; 0 or nothing: by `name`, or one to be made. */
  readonly index?: number;
  readonly name?: string;
  readonly mtu?: number;
  readonly mac?: Mac;
  readonly up?: boolean;
  /** Index of the bridge to join; 0 leaves it. */
  readonly master?: number;
  /** Descriptor of the namespace to move to, or to be made in. */
  readonly netnsFd?: number;
  readonly gsoMaxSize?: number;
  readonly gsoMaxSegs?: number;
  readonly kind?:
    | { readonly type: "veth"; readonly peer: LinkChange }
    | { readonly type: "bridge"; readonly stp?: boolean; readonly multicastSnooping?: boolean };
}

/** Request for one link by index or name, or for all (`{}`). */
export function encodeGetLink(which: { index?: number; name?: string }): Uint8Array {
  const one = which.index !== undefined || which.name !== undefined;
  const w = new AttributeWriter().raw(ifinfomsg(AF.unspecified, which.index ?? 0, 0, 0));
  if (which.name !== undefined) w.string(IFLA.name, checkName(which.name));
  w.u32(IFLA.extMask, SKIP_STATS);
  return request(RTM.getLink, one ? 0 : FLAG.dump, w);
}

/** Makes a link; refused (EEXIST) where one of that name is there. */
export function encodeNewLink(change: LinkChange): Uint8Array {
  const w = new AttributeWriter();
  writeLink(w, change);
  return request(RTM.newLink, FLAG.ack | FLAG.create | FLAG.exclusive, w);
}

/** Changes a link. */
export function encodeSetLink(change: LinkChange): Uint8Array {
  const w = new AttributeWriter();
  writeLink(w, change);
  return request(RTM.newLink, FLAG.ack, w);
}

export function encodeDeleteLink(index: number): Uint8Array {
  return request(
    RTM.deleteLink,
    FLAG.ack,
    new AttributeWriter().raw(ifinfomsg(AF.unspecified, index, 0, 0)),
  );
}

/** Changes flags of a bridge's port. */
export function encodeSetPort(index: number, flags: Partial<PortFlags>): Uint8Array {
  const w = new AttributeWriter().raw(ifinfomsg(AF.bridge, index, 0, 0));
  w.nest(IFLA.protinfo, () => writePort(w, flags));
  return request(RTM.setLink, FLAG.ack, w);
}

/** Reads the body of a newLink or deleteLink message. */
export function decodeLink(message: NetlinkMessage): Link {
  const view = fixed(message, 16, "link");
  const flags = view.getUint32(8, true);
  const attributes = decodeAttributes(message.body.subarray(16));
  const info = nested(attributes, IFLA.linkInfo);
  const kind = info.get(INFO.kind);
  const peer = attributes.get(IFLA.link);
  const kindText = kind === undefined ? undefined : attributeString(kind);
  const isPort = info.has(INFO.slaveKind) && attributeString(info.get(INFO.slaveKind)!) === "bridge";
  const address = attributes.get(IFLA.address);
  const fields: { -readonly [K in keyof Link]: Link[K] } = {
    index: view.getInt32(4, true),
    name: attributeString(attributes.get(IFLA.name) ?? new Uint8Array()),
    mtu: optional(attributes, IFLA.mtu) ?? 0,
    up: (flags & IFF.up) !== 0,
    running: (flags & IFF.lowerUp) !== 0,
  };
  if (address?.length === 6) fields.mac = readMac(address, 0) as Mac;
  const master = optional(attributes, IFLA.master);
  if (master !== undefined && master !== 0) fields.master = master;
  if (peer !== undefined) fields.peer = attributeU32(peer);
  const netnsId = optional(attributes, IFLA.linkNetnsId);
  if (netnsId !== undefined) fields.peerNetnsId = netnsId | 0;
  if (kindText !== undefined) fields.kind = kindText;
  // A notification of a bridge itself (family AF_BRIDGE) carries the flags in IFLA_PROTINFO, a link's own in its slave data.
  const port = isPort ? nested(info, INFO.slaveData) : nested(attributes, IFLA.protinfo);
  if (isPort || (view.getUint8(0) === AF.bridge && port.size > 0)) {
    const state = port.get(PORT.state);
    fields.port = readPort(port);
    if (state !== undefined) fields.forwarding = attributeU8(state) === FORWARDING;
  }
  if (kindText === "bridge") {
    const data = nested(info, INFO.data);
    fields.bridge = {
      stp: (optional(data, BRIDGE.stp) ?? 0) !== 0,
      multicastSnooping: data.has(BRIDGE.multicastSnooping) && attributeU8(data.get(BRIDGE.multicastSnooping)!) !== 0,
    };
  }
  const gsoMaxSize = optional(attributes, IFLA.gsoMaxSize);
  if (gsoMaxSize !== undefined) fields.gsoMaxSize = gsoMaxSize;
  const gsoMaxSegs = optional(attributes, IFLA.gsoMaxSegs);
  if (gsoMaxSegs !== undefined) fields.gsoMaxSegs = gsoMaxSegs;
  return fields;
}

/** An IPv4 address on a link. */
export interface LinkAddress {
  readonly link: number;
  readonly cidr: Cidr;
  /** A name that begins with the link's; at most 15 characters. */
  readonly label?: string;
  /** The subnet's route does not come with it, and nobody is to send to its broadcast address. */
  readonly noPrefixRoute?: true;
}

/** Request for all IPv4 addresses; the kernel ignores a wish for one link unless asked strictly, so the caller filters. */
export function encodeGetAddresses(): Uint8Array {
  return request(RTM.getAddress, FLAG.dump, new AttributeWriter().raw(ifaddrmsg(0, 0)));
}

/** Adds an address, with the broadcast address of its network; refused (EEXIST) where it is there. */
export function encodeNewAddress(address: LinkAddress): Uint8Array {
  const { cidr } = address;
  const w = new AttributeWriter().raw(ifaddrmsg(cidr.prefixLength, address.link));
  w.bytes(IFA.local, ipv4Octets(cidr.address)).bytes(IFA.address, ipv4Octets(cidr.address));
  if (address.label !== undefined) w.string(IFA.label, address.label);
  if (address.noPrefixRoute === true) w.u32(IFA.flags, NO_PREFIX_ROUTE);
  else if (cidr.prefixLength < 31) {
    w.bytes(IFA.broadcast, ipv4Octets((cidr.address | 0xffffffff >>> cidr.prefixLength) >>> 0));
  }
  return request(RTM.newAddress, FLAG.ack | FLAG.create | FLAG.exclusive, w);
}

export function encodeDeleteAddress(address: LinkAddress): Uint8Array {
  const w = new AttributeWriter().raw(ifaddrmsg(address.cidr.prefixLength, address.link));
  w.bytes(IFA.local, ipv4Octets(address.cidr.address)).bytes(IFA.address, ipv4Octets(address.cidr.address));
  return request(RTM.deleteAddress, FLAG.ack, w);
}

/** undefined for an address that is not IPv4. */
export function decodeAddress(message: NetlinkMessage): LinkAddress | undefined {
  const view = fixed(message, 8, "address");
  if (view.getUint8(0) !== AF.inet) return undefined;
  const prefixLength = view.getUint8(1);
  const attributes = decodeAttributes(message.body.subarray(8));
  const local = attributes.get(IFA.local) ?? attributes.get(IFA.address);
  if (local === undefined || prefixLength > 32) return undefined;
  const label = attributes.get(IFA.label);
  const flags = optional(attributes, IFA.flags) ?? view.getUint8(2);
  return {
    link: view.getUint32(4, true),
    cidr: { address: readIpv4(local), prefixLength },
    ...(label === undefined ? {} : { label: attributeString(label) }),
    ...((flags & NO_PREFIX_ROUTE) === 0 ? {} : { noPrefixRoute: true }),
  };
}

/** An IPv4 route. */
export interface Route {
  readonly destination: Cidr;
  readonly gateway?: Ipv4;
  readonly link?: number;
  readonly metric?: number;
  /** The main one where nothing is said. */
  readonly table?: number;
  /** `unicast` where nothing is said. */
  readonly type?: Exclude<keyof typeof ROUTE_TYPE, "unicast">;
  /** Address of this host by which it goes there. */
  readonly source?: Ipv4;
  readonly onLink?: true;
}

export function encodeGetRoutes(): Uint8Array {
  return request(RTM.getRoute, FLAG.dump, new AttributeWriter().raw(rtmsg({})));
}

/** Adds a route; one without gateway has link scope. Refused (EEXIST) where it is there. */
export function encodeNewRoute(route: Route): Uint8Array {
  return request(RTM.newRoute, FLAG.ack | FLAG.create | FLAG.exclusive, writeRoute(route));
}

export function encodeDeleteRoute(route: Route): Uint8Array {
  return request(RTM.deleteRoute, FLAG.ack, writeRoute(route));
}

/** undefined for what is no IPv4 route of a kind we know, or goes several ways at once. */
export function decodeRoute(message: NetlinkMessage): Route | undefined {
  const view = fixed(message, 12, "route");
  const attributes = decodeAttributes(message.body.subarray(12));
  const prefixLength = view.getUint8(1);
  const table = optional(attributes, RTA.table) ?? view.getUint8(4);
  const type = ROUTE_TYPES.get(view.getUint8(7));
  if (view.getUint8(0) !== AF.inet || type === undefined || prefixLength > 32) return undefined;
  if (attributes.has(RTA.multipath)) return undefined;
  const destination = attributes.get(RTA.destination);
  const source = attributes.get(RTA.preferredSource);
  const gateway = attributes.get(RTA.gateway);
  const link = optional(attributes, RTA.outInterface);
  const metric = optional(attributes, RTA.priority);
  return {
    destination: { address: destination === undefined ? 0 : readIpv4(destination), prefixLength },
    ...(gateway === undefined ? {} : { gateway: readIpv4(gateway) }),
    ...(link === undefined ? {} : { link }),
    ...(metric === undefined ? {} : { metric }),
    ...(table === MAIN_TABLE ? {} : { table }),
    ...(type === "unicast" ? {} : { type }),
    ...(source === undefined ? {} : { source: readIpv4(source) }),
    ...((view.getUint32(8, true) & ON_LINK) === 0 ? {} : { onLink: true }),
  };
}

/** A rule about where a packet is looked up; all that it says must hold for the packet. */
export interface PolicyRule {
  /** Smaller ones come first: that of the local table is 0, of main 32766. */
  readonly priority: number;
  /** `unreachable`: nowhere, there is no route. */
  readonly table: number | "unreachable";
  /** Name of the link by which the packet came; `lo`: from this host. */
  readonly inputInterface?: string;
  readonly mark?: { readonly value: number; readonly mask: number };
  /** IPPROTO_*. */
  readonly ipProtocol?: number;
}

export function encodeGetRules(): Uint8Array {
  return request(RTM.getRule, FLAG.dump, new AttributeWriter().raw(fibRuleHeader(0)));
}

/** Adds a rule; refused (EEXIST) where it is there. */
export function encodeNewRule(rule: PolicyRule): Uint8Array {
  return request(RTM.newRule, FLAG.ack | FLAG.create | FLAG.exclusive, writeRule(rule));
}

export function encodeDeleteRule(rule: PolicyRule): Uint8Array {
  return request(RTM.deleteRule, FLAG.ack, writeRule(rule));
}

/** undefined for what is no IPv4 rule of a kind we know. Of what a rule can say only the fields of `PolicyRule` are read. */
export function decodeRule(message: NetlinkMessage): PolicyRule | undefined {
  const view = fixed(message, 12, "rule");
  const action = view.getUint8(7);
  if (view.getUint8(0) !== AF.inet) return undefined;
  if (action !== RULE_ACTION.table && action !== RULE_ACTION.unreachable) return undefined;
  const attributes = decodeAttributes(message.body.subarray(12));
  const inputInterface = attributes.get(FRA.inputInterface);
  // A value of 0 is not said.
  const value = optional(attributes, FRA.mark) ?? 0;
  const mask = optional(attributes, FRA.mask) ?? (attributes.has(FRA.mark) ? 0xffff_ffff : 0);
  const ipProtocol = attributes.get(FRA.ipProtocol);
  return {
    priority: optional(attributes, FRA.priority) ?? 0,
    table: action === RULE_ACTION.unreachable ? "unreachable" : optional(attributes, FRA.table) ?? view.getUint8(4),
    ...(inputInterface === undefined ? {} : { inputInterface: attributeString(inputInterface) }),
    ...(mask === 0 ? {} : { mark: { value, mask } }),
    ...(ipProtocol === undefined ? {} : { ipProtocol: attributeU8(ipProtocol) }),
  };
}

/** NUD_*: states of a neighbour we set or care about. */
export const NEIGHBOUR_STATE = { reachable: 0x02, stale: 0x04, noArp: 0x40, permanent: 0x80 } as const;
/** NTF_*: on a bridge entry, `self` is the device's own table, `master` the bridge's. */
export const NEIGHBOUR_FLAG = { self: 0x02, master: 0x04 } as const;

/** An entry of the ARP table (with `address`), or of a bridge's forwarding table (without). */
export interface Neighbour {
  readonly link: number;
  readonly mac?: Mac;
  readonly address?: Ipv4;
  readonly state: number;
  readonly flags?: number;
}

export function encodeGetNeighbours(family: "inet" | "bridge"): Uint8Array {
  return request(RTM.getNeighbour, FLAG.dump, new AttributeWriter().raw(ndmsg(AF[family], 0, 0, 0)));
}

/** Adds or replaces. */
export function encodeNewNeighbour(neighbour: Neighbour): Uint8Array {
  return request(RTM.newNeighbour, FLAG.ack | FLAG.create | FLAG.replace, writeNeighbour(neighbour));
}

export function encodeDeleteNeighbour(neighbour: Neighbour): Uint8Array {
  return request(RTM.deleteNeighbour, FLAG.ack, writeNeighbour(neighbour));
}

/** undefined for what is neither IPv4 nor a bridge's. */
export function decodeNeighbour(message: NetlinkMessage): Neighbour | undefined {
  const view = fixed(message, 12, "neighbour");
  const family = view.getUint8(0);
  if (family !== AF.inet && family !== AF.bridge) return undefined;
  const attributes = decodeAttributes(message.body.subarray(12));
  const destination = attributes.get(NDA.destination);
  const linkAddress = attributes.get(NDA.linkAddress);
  const flags = view.getUint8(10);
  return {
    link: view.getInt32(4, true),
    state: view.getUint16(8, true),
    ...(flags === 0 ? {} : { flags }),
    ...(destination?.length === 4 ? { address: readIpv4(destination) } : {}),
    ...(linkAddress?.length === 6 ? { mac: readMac(linkAddress, 0) as Mac } : {}),
  };
}

function writeLink(w: AttributeWriter, change: LinkChange): void {
  const up = change.up === undefined ? 0 : IFF.up;
  w.raw(ifinfomsg(AF.unspecified, change.index ?? 0, change.up === true ? IFF.up : 0, up));
  if (change.name !== undefined) w.string(IFLA.name, checkName(change.name));
  if (change.mtu !== undefined) w.u32(IFLA.mtu, change.mtu);
  if (change.mac !== undefined) w.bytes(IFLA.address, macOctets(change.mac));
  if (change.master !== undefined) w.u32(IFLA.master, change.master);
  if (change.netnsFd !== undefined) w.u32(IFLA.netnsFd, change.netnsFd);
  if (change.gsoMaxSize !== undefined) w.u32(IFLA.gsoMaxSize, change.gsoMaxSize);
  if (change.gsoMaxSegs !== undefined) w.u32(IFLA.gsoMaxSegs, change.gsoMaxSegs);
  const kind = change.kind;
  if (kind === undefined) return;
  w.nest(IFLA.linkInfo, () => {
    w.string(INFO.kind, kind.type);
    w.nest(INFO.data, () => {
      if (kind.type === "veth") {
        w.nest(VETH_PEER, () => writeLink(w, kind.peer));
      } else {
        if (kind.stp !== undefined) w.u32(BRIDGE.stp, Number(kind.stp));
        if (kind.multicastSnooping !== undefined) w.u8(BRIDGE.multicastSnooping, Number(kind.multicastSnooping));
      }
    });
  });
}

function writePort(w: AttributeWriter, flags: Partial<PortFlags>): void {
  if (flags.hairpin !== undefined) w.u8(PORT.hairpin, Number(flags.hairpin));
  if (flags.learning !== undefined) w.u8(PORT.learning, Number(flags.learning));
  if (flags.flood !== undefined) {
    for (const type of [PORT.flood, PORT.multicastFlood, PORT.broadcastFlood]) w.u8(type, Number(flags.flood));
  }
  if (flags.isolated !== undefined) w.u8(PORT.isolated, Number(flags.isolated));
}

function readPort(attributes: Map<number, Uint8Array>): PortFlags {
  const flag = (type: number) => {
    const payload = attributes.get(type);
    return payload !== undefined && attributeU8(payload) !== 0;
  };
  return {
    hairpin: flag(PORT.hairpin),
    learning: flag(PORT.learning),
    flood: flag(PORT.flood) && flag(PORT.multicastFlood) && flag(PORT.broadcastFlood),
    isolated: flag(PORT.isolated),
  };
}

function writeRoute(route: Route): AttributeWriter {
  const { type = "unicast", table = MAIN_TABLE } = route;
  const w = new AttributeWriter().raw(rtmsg({
    prefixLength: route.destination.prefixLength,
    scope: scopeOf(route),
    table: table < 256 ? table : 0,
    type: ROUTE_TYPE[type],
    flags: route.onLink === true ? ON_LINK : 0,
  }));
  if (table >= 256) w.u32(RTA.table, table);
  if (route.destination.prefixLength > 0) w.bytes(RTA.destination, ipv4Octets(route.destination.address));
  if (route.gateway !== undefined) w.bytes(RTA.gateway, ipv4Octets(route.gateway));
  if (route.link !== undefined) w.u32(RTA.outInterface, route.link);
  if (route.metric !== undefined) w.u32(RTA.priority, route.metric);
  if (route.source !== undefined) w.bytes(RTA.preferredSource, ipv4Octets(route.source));
  return w;
}

function scopeOf({ type, gateway }: Route): number {
  if (type === "local") return RT_SCOPE.host;
  return type === undefined && gateway === undefined ? RT_SCOPE.link : RT_SCOPE.universe;
}

function writeRule(rule: PolicyRule): AttributeWriter {
  const { table, priority } = rule;
  const action = table === "unreachable" ? RULE_ACTION.unreachable : RULE_ACTION.table;
  const w = new AttributeWriter().raw(fibRuleHeader(action)).u32(FRA.priority, priority);
  if (table !== "unreachable") w.u32(FRA.table, table);
  if (rule.inputInterface !== undefined) w.string(FRA.inputInterface, checkName(rule.inputInterface));
  if (rule.mark !== undefined) w.u32(FRA.mark, rule.mark.value).u32(FRA.mask, rule.mark.mask);
  if (rule.ipProtocol !== undefined) w.u8(FRA.ipProtocol, rule.ipProtocol);
  return w;
}

function writeNeighbour(neighbour: Neighbour): AttributeWriter {
  const family = neighbour.address === undefined ? AF.bridge : AF.inet;
  const w = new AttributeWriter().raw(ndmsg(family, neighbour.link, neighbour.state, neighbour.flags ?? 0));
  if (neighbour.address !== undefined) w.bytes(NDA.destination, ipv4Octets(neighbour.address));
  if (neighbour.mac !== undefined) w.bytes(NDA.linkAddress, macOctets(neighbour.mac));
  return w;
}

function request(type: number, flags: number, body: AttributeWriter): Uint8Array {
  return encodeMessage({ type, flags: FLAG.request | flags, body: body.finish() });
}

/** struct ifinfomsg: family u8, padding, type u16, index i32, flags u32, change u32. */
function ifinfomsg(family: number, index: number, flags: number, change: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setUint8(0, family);
  view.setInt32(4, index, true);
  view.setUint32(8, flags, true);
  view.setUint32(12, change, true);
  return new Uint8Array(view.buffer);
}

/** struct ifaddrmsg: family u8, prefix length u8, flags u8, scope u8, index u32. */
function ifaddrmsg(prefixLength: number, index: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint8(0, AF.inet);
  view.setUint8(1, prefixLength);
  view.setUint32(4, index, true);
  return new Uint8Array(view.buffer);
}

/** struct rtmsg: family, destination length, source length, tos, table, protocol, scope, type (u8 each), flags u32. */
function rtmsg(
  { prefixLength = 0, scope = 0, table = 0, type = ROUTE_TYPE.unicast as number, flags = 0 },
): Uint8Array {
  const octets = new Uint8Array(12);
  octets.set([AF.inet, prefixLength, 0, 0, table, RTPROT_BOOT, scope, type, flags]);
  return octets;
}

/** struct fib_rule_hdr: family, destination length, source length, tos, table, two reserved, action (u8 each), flags u32. */
function fibRuleHeader(action: number): Uint8Array {
  const octets = new Uint8Array(12);
  octets[0] = AF.inet;
  octets[7] = action;
  return octets;
}

/** struct ndmsg: family u8, padding 3, index i32, state u16, flags u8, type u8. */
function ndmsg(family: number, index: number, state: number, flags: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(12));
  view.setUint8(0, family);
  view.setInt32(4, index, true);
  view.setUint16(8, state, true);
  view.setUint8(10, flags);
  return new Uint8Array(view.buffer);
}

/** The fixed struct at the start of a body. */
function fixed(message: NetlinkMessage, octets: number, what: string): DataView {
  if (message.body.length < octets) {
    throw new WireError(`Cannot read ${what}: ${octets} octets expected, ${message.body.length} left`);
  }
  return new DataView(message.body.buffer, message.body.byteOffset, octets);
}

function nested(attributes: Map<number, Uint8Array>, type: number): Map<number, Uint8Array> {
  const payload = attributes.get(type);
  return payload === undefined ? new Map() : decodeAttributes(payload);
}

function optional(attributes: Map<number, Uint8Array>, type: number): number | undefined {
  const payload = attributes.get(type);
  return payload === undefined ? undefined : attributeU32(payload);
}

/** IFNAMSIZ is 16 with the final NUL; `/`, `:` and white space are refused by the kernel. */
export function checkName(name: string): string {
  if (!/^[^/:\s\0]{1,15}$/.test(name) || name === "." || name === "..") {
    throw new RangeError(`Interface name must be 1 to 15 characters without "/", ":" and space, is "${name}"`);
  }
  return name;
}

function macOctets(mac: Mac): Uint8Array {
  const octets = new Uint8Array(6);
  writeMac(octets, 0, mac);
  return octets;
}

function ipv4Octets(address: Ipv4): Uint8Array {
  return Uint8Array.of(address >>> 24, address >>> 16, address >>> 8, address);
}

function readIpv4(octets: Uint8Array): Ipv4 {
  if (octets.length < 4) throw new WireError(`Cannot read address: 4 octets expected, ${octets.length} left`);
  return ((octets[0]! << 24) | (octets[1]! << 16) | (octets[2]! << 8) | octets[3]!) >>> 0;
}
