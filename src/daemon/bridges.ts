/** What bridges this host has, for commands that only ask. */
import { OperationError } from "../lib/errors.ts";
import type { Ipv4 } from "../lib/ip.ts";
import { Links } from "../host/links.ts";
import { HOST } from "./plumbing.ts";

/** Whether the overlay's bridge is there. */
export function hasBridge(): boolean {
  using links = new Links();
  return links.find(HOST.bridge)?.kind === "bridge";
}

/** First IPv4 address of Docker's bridge. */
export function dockerBridgeAddress(name: string): Ipv4 {
  using links = new Links();
  const bridge = links.find(name);
  const address = bridge === undefined ? undefined : links.addresses(bridge.index)[0]?.address;
  if (address === undefined) {
    throw new OperationError(
      `Cannot find the address of bridge "${name}": it ${bridge === undefined ? "is not there" : "has none"}`,
    );
  }
  return address;
}
