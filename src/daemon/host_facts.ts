/** What this host has and is, for commands that only ask. */
import { OperationError } from "../lib/errors.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import { SystemRandom } from "../lib/random.ts";
import type { RouterOptions } from "../config/options.ts";
import { Links } from "../host/links.ts";
import { findPeerName } from "./identity.ts";
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

/** The name of a router with these options. */
export async function ownPeerName({ name, dbPrefix }: Pick<RouterOptions, "name" | "dbPrefix">): Promise<PeerName> {
  using links = new Links();
  return await findPeerName({
    name,
    links,
    bridge: HOST.bridge,
    statePrefix: dbPrefix,
    random: new SystemRandom(),
  });
}
