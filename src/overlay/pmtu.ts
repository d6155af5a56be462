/**
 * The path MTU of a sleeve connection: how large a frame may be that travels in one unfragmented packet. Weave Net 2.8 looks for it once,
 * and again when the kernel refuses a packet; its steps, messages and times are kept. It never looks at a path again that has become wider,
 * or narrower without a word; this one does, with the same messages, which an old router answers as ever.
 *
 *                  ┌──────── the kernel refuses a packet: the path is narrower ────────┐
 *                  ▼                                                                    │
 *     unknown → discover ───────────── good + 1 = bad ─────────────→ settled ───────────┤
 *                  ▲                                                 ▲  │ │ ▲           │
 *                  │ passes                         every minute     │  │ │ │  good + 1 = bad
 *                floor ←─── fails ──── verify ←──────────────────────┼──┘ │ │           │
 *                  └ fails: nothing passes, nothing is known ──────→ ┤    │ └──── grow ─┘
 *                                         └ passes ────────────────→ ┘    └────────↑ every 5 minutes
 *
 *     discover  bisects between a size that passes and one that does not. The MTU in use is meanwhile the kernel's idea, as in Weave Net;
 *               once that has proved wrong, it is the largest size that has passed.
 *     verify    whether the MTU in use still passes. If not, `floor` asks whether smaller frames do: if they do not either, the path
 *               is down and its MTU no matter.
 *     grow      whether a larger size passes by now: the MTU in use stays until one has.
 *
 * A probe is a frame of zeros in the class that must not be fragmented. The first is of 60000 octets: it hardly ever leaves the host, but makes
 * the kernel say what it knows of the path.
 */
import type { Instant } from "../lib/time.ts";

/** The MTU while nothing is known of the path, and the largest UDP payload there is. */
export const UNKNOWN_MTU = 65535;
export const UDP_PAYLOAD_LIMIT = 65507;

/** IPv4 and UDP headers. */
const UDP_OVERHEAD = 28;
const ETHERNET_HEADER = 14;
/** A frame's header in a packet, and the Ethernet header inside. */
const FRAME_OVERHEAD = 14 + ETHERNET_HEADER;
const PACKET_OVERHEAD = { clear: 6, encrypted: 30 };

/** The largest frame's overhead over its IP packet: what the path MTU has more than the overlay's. */
export function overheadOctets(encrypted: boolean): number {
  return UDP_OVERHEAD + FRAME_OVERHEAD + (encrypted ? PACKET_OVERHEAD.encrypted : PACKET_OVERHEAD.clear);
}

export class PathMtu {
  constructor(encrypted: boolean) {
    throw new Error(`not yet ${encrypted}`);
  }
}
export type { Instant };
