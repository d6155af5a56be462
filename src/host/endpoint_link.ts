/**
 * The veth of an endpoint in a network of Docker: its host's end is in the bridge from the start, the other waits in the host until Docker
 * moves it into a container.
 */
import { OperationError } from "../lib/errors.ts";
import type { Mac } from "../lib/mac.ts";
import type { Link } from "../wire/rtnetlink.ts";
import { LinkError, type Links, refuseRouterAdvertisements } from "./links.ts";

export interface EndpointLinkOptions {
  readonly host: string;
  readonly guest: string;
  readonly bridge: Link;
  /** Of the guest's end; undefined: whatever the kernel chooses. */
  readonly mac: Mac | undefined;
}

/** Makes both ends in one request; the MAC address of the guest's. One that was made before and waits is made anew. */
export function createEndpointLink(links: Links, options: EndpointLinkOptions): Mac {
  const { host, guest, bridge, mac } = options;
  const peer = { name: guest, mtu: bridge.mtu, ...mac === undefined ? {} : { mac } };
  const create = () =>
    links.create({ name: host, mtu: bridge.mtu, master: bridge.index, kind: { type: "veth", peer } });
  let link: Link;
  try {
    link = create();
  } catch (error) {
    if (!(error instanceof LinkError) || error.errnoName !== "EEXIST" || links.find(guest) === undefined) throw error;
    removeEndpointLink(links, host);
    link = create();
  }
  try {
    links.setPort(link, { hairpin: true });
    refuseRouterAdvertisements(host);
    links.change({ index: link.index, up: true }, `bring "${host}" up`);
    const { mac: made } = links.find(guest) ?? {};
    if (made === undefined) throw new OperationError(`Cannot make interface "${guest}": it went away at once`);
    return made;
  } catch (error) {
    links.delete(link.index);
    throw error;
  }
}

/** Both ends of it, wherever the other is. @returns whether it was there */
export function removeEndpointLink(links: Links, host: string): boolean {
  const link = links.find(host);
  return link !== undefined && links.delete(link.index);
}
