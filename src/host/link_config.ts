/** Addresses and routes of a link, read before it moves to another network namespace, where they are lost, and given back there. */
import { SysError } from "../../ffi/errno.ts";
import { NetlinkSocket } from "../../ffi/netlink_socket.ts";
import {
  captureAddress,
  captureRoute,
  encodeAddSetting,
  encodeGetAllAddresses,
  encodeGetAllRoutes,
  hasGateway,
  type Setting,
} from "../wire/link_config.ts";
import { decodeMessages } from "../wire/netlink.ts";
import { NETLINK_ROUTE } from "../wire/rtnetlink.ts";
import { isServiceTable } from "./service_routes.ts";

export interface LinkConfig {
  readonly addresses: readonly Setting[];
  readonly routes: readonly Setting[];
}

/** Of a link of this thread's namespace, without our own routes by it. @property multipath routes that leave by this link and others, which are not in it */
export function readLinkConfig(link: number): LinkConfig & { readonly multipath: number } {
  using netlink = new NetlinkSocket(NETLINK_ROUTE);
  const messages = (request: Uint8Array) => netlink.request(request).flatMap((datagram) => decodeMessages(datagram));
  const addresses = messages(encodeGetAllAddresses()).map((message) => captureAddress(message, link));
  const routes = messages(encodeGetAllRoutes()).map((message) => captureRoute(message, link, isServiceTable));
  return {
    addresses: addresses.filter((address) => address !== undefined),
    routes: routes.filter((route) => route !== undefined && route !== "multipath"),
    multipath: routes.filter((route) => route === "multipath").length,
  };
}

/** Both, each once. */
export function mergeLinkConfigs(a: LinkConfig, b: LinkConfig): LinkConfig {
  const once = (settings: readonly Setting[]) => [...new Map(settings.map((one) => [one.toHex(), one])).values()];
  return { addresses: once([...a.addresses, ...b.addresses]), routes: once([...a.routes, ...b.routes]) };
}

/** Gives a link of this thread's namespace what it does not have yet; it must be up. @returns how much the kernel refused, and why */
export function applyLinkConfig(link: number, config: LinkConfig): { readonly refused: number; readonly why: string } {
  using netlink = new NetlinkSocket(NETLINK_ROUTE);
  let why = "";
  const isRefused = (kind: "address" | "route", setting: Setting): boolean => {
    try {
      netlink.request(encodeAddSetting(kind, setting, link));
      return false;
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      if (error.errnoName === "EEXIST") return false;
      why = error.message;
      return true;
    }
  };
  const addresses = config.addresses.filter((address) => isRefused("address", address));
  // A gateway is reached by a route that has none, or by one that is reached so.
  let routes = config.routes.toSorted((a, b) => Number(hasGateway(a)) - Number(hasGateway(b)));
  for (let before = Infinity; routes.length > 0 && routes.length < before;) {
    before = routes.length;
    routes = routes.filter((route) => isRefused("route", route));
  }
  return { refused: addresses.length + routes.length, why };
}

/** For a file, as JSON has it. */
export function encodeLinkConfig({ addresses, routes }: LinkConfig): { addresses: string[]; routes: string[] } {
  return { addresses: addresses.map((one) => one.toHex()), routes: routes.map((one) => one.toHex()) };
}

/** @throws Error where it is not what `encodeLinkConfig` made */
export function decodeLinkConfig(value: unknown): LinkConfig {
  const { addresses, routes } = value as { addresses: unknown; routes: unknown };
  const settings = (list: unknown): Setting[] => {
    if (!Array.isArray(list) || !list.every((one) => typeof one === "string")) throw new Error("texts expected");
    return list.map((one) => Uint8Array.fromHex(one));
  };
  return { addresses: settings(addresses), routes: settings(routes) };
}
