/**
 * What a link has of addresses and routes, as the kernel says it, and as it is asked to make it again: on the link where it has gone, in
 * another namespace. What we do not know is kept as it is (linux/rtnetlink.h, if_addr.h); IPv4 and IPv6.
 *
 *     struct ifaddrmsg   family, prefix length, flags, scope (u8 each), link u32, then attributes
 *     struct rtmsg       family, two lengths, tos, table, protocol, scope, type (u8 each), flags u32, then attributes
 */
import { AttributeWriter, decodeAttributes, encodeMessage, FLAG, type NetlinkMessage } from "./netlink.ts";
import { RTM } from "./rtnetlink.ts";

const AF = { inet: 2, inet6: 10 } as const;
const ADDRESS = { octets: 8, family: 0, flags: 2, scope: 3, link: 4 } as const;
const ROUTE = { octets: 12, family: 0, table: 4, protocol: 5, type: 7, flags: 8 } as const;
const IFA = { cacheInfo: 6, flags: 8 } as const;
/** struct ifa_cacheinfo: preferred and valid for so many seconds, and when it was made and changed; u32 each. */
const VALID = 4;
const FOREVER = 0xffff_ffff;
const RTA = { outInterface: 4, multipath: 9, cacheInfo: 12, table: 15, nexthop: 30 } as const;

const PERMANENT = 0x80;
const SCOPE_LINK = 253;
const LOCAL_TABLE = 255;
const UNICAST = 1;
const PROTOCOL = { kernel: 2, routerAdvertisement: 9 } as const;
/** RTNH_F_ONLINK: of all flags the only one that may be asked for. */
const ON_LINK = 4;
const ATTRIBUTE_TYPE = 0x3fff;

/** Body of a message about an address or route, with the number of its link taken out. */
export type Setting = Uint8Array<ArrayBuffer>;

export function encodeGetAllAddresses(): Uint8Array {
  return dump(RTM.getAddress, ADDRESS.octets);
}

/** Routes of both protocols, or of IPv6 alone where the kernel has it as a part of its own. */
export function encodeGetAllRoutes(): Uint8Array {
  return dump(RTM.getRoute, ROUTE.octets);
}

/** An address that somebody gave to that link; what IPv6 makes by itself comes again by itself. */
export function captureAddress({ type, body }: NetlinkMessage, link: number): Setting | undefined {
  if (type !== RTM.newAddress || body.length < ADDRESS.octets) return undefined;
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  if (view.getUint32(ADDRESS.link, true) !== link) return undefined;
  const family = body[ADDRESS.family];
  if (family === AF.inet6) {
    const flags = u32Of(decodeAttributes(body.subarray(ADDRESS.octets)).get(IFA.flags)) ?? body[ADDRESS.flags]!;
    if ((flags & PERMANENT) === 0 || body[ADDRESS.scope] === SCOPE_LINK) return undefined;
  } else if (family !== AF.inet) return undefined;
  const setting = Uint8Array.from(body);
  new DataView(setting.buffer).setUint32(ADDRESS.link, 0, true);
  return setting;
}

/**
 * A route by that link, `"multipath"` where it leaves by several and cannot be taken along. Those that come with an address are among them:
 * some programs make these themselves.
 * @param isLeft of a routing table: what is in it stays behind
 */
export function captureRoute(
  { type, body }: NetlinkMessage,
  link: number,
  isLeft: (table: number) => boolean = () => false,
): Setting | "multipath" | undefined {
  if (type !== RTM.newRoute || body.length < ROUTE.octets || body[ROUTE.type] !== UNICAST) return undefined;
  const attributes = decodeAttributes(body.subarray(ROUTE.octets));
  const family = body[ROUTE.family];
  const protocol = body[ROUTE.protocol];
  if (family === AF.inet6) {
    if (protocol === PROTOCOL.kernel || protocol === PROTOCOL.routerAdvertisement) return undefined;
  } else if (family !== AF.inet) return undefined;
  const table = u32Of(attributes.get(RTA.table)) ?? body[ROUTE.table]!;
  if (table === LOCAL_TABLE || isLeft(table)) return undefined;
  const hops = attributes.get(RTA.multipath);
  if (hops !== undefined) return leavesBy(hops, link) ? "multipath" : undefined;
  if (u32Of(attributes.get(RTA.outInterface)) !== link) return undefined;
  const head = Uint8Array.from(body.subarray(0, ROUTE.octets));
  new DataView(head.buffer).setUint32(ROUTE.flags, head[ROUTE.flags]! & ON_LINK, true);
  // A shared next hop does not outlive the move; what it says stands beside it.
  return withoutAttributes(head, body, new Set([RTA.outInterface, RTA.cacheInfo, RTA.nexthop]));
}

/** Asks for it to be made; refused (EEXIST) where it is there. */
export function encodeAddSetting(kind: "address" | "route", setting: Setting, link: number): Uint8Array {
  const type = kind === "address" ? RTM.newAddress : RTM.newRoute;
  const flags = FLAG.request | FLAG.ack | FLAG.create | FLAG.exclusive;
  if (kind === "route") {
    return encodeMessage({
      type,
      flags,
      body: new AttributeWriter().raw(setting).u32(RTA.outInterface, link).finish(),
    });
  }
  const body = Uint8Array.from(setting);
  new DataView(body.buffer).setUint32(ADDRESS.link, link, true);
  return encodeMessage({ type, flags, body });
}

/** For how many seconds an IPv4 address is there yet, unless somebody renews it; undefined: for ever. */
export function leaseSeconds(address: Setting): number | undefined {
  if (address[ADDRESS.family] !== AF.inet) return undefined;
  const valid = u32Of(decodeAttributes(address.subarray(ADDRESS.octets)).get(IFA.cacheInfo)?.subarray(VALID));
  return valid === FOREVER ? undefined : valid;
}

/** Whether a route has a gateway on the link: those without are to be there before. */
export function hasGateway(setting: Setting): boolean {
  const attributes = decodeAttributes(setting.subarray(ROUTE.octets));
  return [5, 18].some((gateway) => attributes.has(gateway)); // RTA_GATEWAY, RTA_VIA
}

/** Next hops: struct rtnexthop, [length u16][flags u8][weight u8][link i32], then attributes. */
function leavesBy(hops: Uint8Array, link: number): boolean {
  const view = new DataView(hops.buffer, hops.byteOffset, hops.length);
  for (let at = 0; hops.length - at >= 8;) {
    if (view.getInt32(at + 4, true) === link) return true;
    at += Math.max(8, view.getUint16(at, true) + 3 & ~3);
  }
  return false;
}

function withoutAttributes(head: Uint8Array, body: Uint8Array, left: ReadonlySet<number>): Setting {
  const w = new AttributeWriter().raw(head);
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  for (let at = ROUTE.octets; body.length - at >= 4;) {
    const octets = view.getUint16(at, true);
    if (octets < 4 || octets > body.length - at) break;
    const type = view.getUint16(at + 2, true);
    if (!left.has(type & ATTRIBUTE_TYPE)) w.bytes(type, body.subarray(at + 4, at + octets));
    at += octets + 3 & ~3;
  }
  return Uint8Array.from(w.finish());
}

function dump(type: number, octets: number): Uint8Array {
  return encodeMessage({ type, flags: FLAG.request | FLAG.dump, body: new Uint8Array(octets) });
}

function u32Of(payload: Uint8Array | undefined): number | undefined {
  if (payload === undefined || payload.length < 4) return undefined;
  return new DataView(payload.buffer, payload.byteOffset, 4).getUint32(0, true);
}
