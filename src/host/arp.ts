/** ARP on behalf of a container or the host: saying that an address lives here now, and asking whether it lives anywhere. */
import { PacketSocket } from "../../ffi/packet_socket.ts";
import { OperationError } from "../lib/errors.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type { Mac } from "../lib/mac.ts";
import { ARP_ETHERTYPE, decodeArp, encodeArpProbe, encodeGratuitousArp } from "../wire/arp.ts";
import type { Link } from "../wire/rtnetlink.ts";

/**
 * When the probes go out and when no more answers are waited for. RFC 5227 would take seven seconds; nobody waits so long for
 * `attach`, and a peer on the other side of the world answers the first of these in time.
 */
const PROBES_AT_MS = [0, 100, 200];
const DEADLINE_MS = 400;
const LOOK_EVERY_MS = 5;

/** Tells everybody on the link that `address` is at its MAC. Call it in the namespace of the link. */
export function announceAddress(link: Link, address: Ipv4): void {
  announceAddresses(link, [address]);
}

/** The same for several, which need not be addresses of the link. */
export function announceAddresses(link: Link, addresses: Iterable<Ipv4>): void {
  if (link.mac === undefined) throw new OperationError(`Cannot announce addresses: "${link.name}" has no MAC`);
  using socket = new PacketSocket({ link: link.index, protocol: ARP_ETHERTYPE });
  for (const address of addresses) socket.send(encodeGratuitousArp(link.mac, address));
}

/** Who answers for `address` on the link, or asks for it for himself at this moment (RFC 5227 §2.1.1); undefined: nobody within the deadline. */
export async function findOwner(link: Link, address: Ipv4): Promise<Mac | undefined> {
  const { mac, up, index } = link;
  if (mac === undefined || !up) return undefined;
  using socket = new PacketSocket({ link: index, protocol: ARP_ETHERTYPE });
  const start = performance.now();
  let sent = 0;
  for (;;) {
    const elapsed = performance.now() - start;
    if (sent < PROBES_AT_MS.length && elapsed >= PROBES_AT_MS[sent]!) {
      socket.send(encodeArpProbe(mac, address));
      sent++;
    }
    for (let frame = socket.receive(); frame !== undefined; frame = socket.receive()) {
      const owner = conflict(frame, mac, address);
      if (owner !== undefined) return owner;
    }
    if (elapsed >= DEADLINE_MS) return undefined;
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

/** The MAC that a frame shows to hold `address`, or to be about to take it. */
function conflict(frame: Uint8Array, own: Mac, address: Ipv4): Mac | undefined {
  const arp = decodeArp(frame);
  if (arp === undefined || arp.senderMac === own) return undefined;
  const holds = arp.senderIp === address;
  const probes = arp.operation === "request" && arp.senderIp === 0 && arp.targetIp === address;
  return holds || probes ? arp.senderMac : undefined;
}
