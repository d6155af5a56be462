/**
 * The life of sleeve on one connection: heartbeats until the peer has heard one, then the tests of what the path carries.
 *
 *     prepared ──confirmed──→ confirmed ──control 1──→ established
 *                                 └── no heartbeat in time ──┴──→ failed
 *
 *     heartbeat      a frame of 22 octets with the connection's uid. The first one received is acknowledged by control 1, which
 *                    establishes the sender's side.
 *     fragmentation  a frame of 60001 octets that the kernel must fragment, acknowledged by control 2: it may be left to fragment others.
 *     path MTU       see `pmtu.ts`; probes are acknowledged by control 3.
 *
 * The router that accepted the connection learns the other's UDP address from its first heartbeat; a later heartbeat from elsewhere moves it.
 */
import type { Endpoint } from "../lib/ip.ts";
import type { Deadline, Instant } from "../lib/time.ts";
import type { Carrier, CarrierOutput } from "./overlay.ts";

export interface SleeveOptions {
  /** The connection's: the ids of both ends, combined. */
  readonly uid: bigint;
  /** We made the TCP connection. */
  readonly outbound: boolean;
  /** The TCP connection's other end. Of use to the router that made the connection. */
  readonly remote: Endpoint;
  readonly encrypted: boolean;
  /** Both routers are of this make: heartbeats every second, and failure after ten without. */
  readonly fast: boolean;
}

/** What the datapath must know of the connection: fields of its entry in the tables. */
export interface SleeveState {
  readonly confirmed: boolean;
  readonly established: boolean;
  readonly remote?: Endpoint;
  /** The largest frame without its Ethernet header. */
  readonly mtu: number;
  /** Largest UDP payload that passes unfragmented. */
  readonly maxPayload: number;
  readonly stackFragments: boolean;
}

/** A frame of the carrier itself to send, in the class of packets that must not be fragmented, or in the other. */
export interface SpecialOutput {
  readonly type: "special";
  readonly frameOctets: number;
  readonly df: boolean;
  /** Of the connection: makes it a heartbeat, of 22 octets. */
  readonly uid?: bigint;
}

export type SleeveOutput = CarrierOutput | SpecialOutput;

export class Sleeve implements Carrier<SpecialOutput> {
  constructor(o: SleeveOptions) {
    throw new Error(`not yet ${o.uid}`);
  }

  get state(): SleeveState {
    throw new Error("not yet");
  }

  handleConfirmed(_now: Instant): void {
    throw new Error("not yet");
  }

  /** A heartbeat frame from this address. */
  handleHeartbeat(_uid: bigint, _from: Endpoint, _now: Instant): void {
    throw new Error("not yet");
  }

  handleFragmentationTest(_now: Instant): void {
    throw new Error("not yet");
  }

  /** A probe of the peer's for an MTU. */
  handleProbe(_mtu: number, _now: Instant): void {
    throw new Error("not yet");
  }

  handleControl(_subTag: number, _payload: Uint8Array, _now: Instant): void {
    throw new Error("not yet");
  }

  /** The kernel refused a packet as too big. @param pathMtu what it knows of the path: octets of the IP packet */
  handleTooBig(_pathMtu: number, _now: Instant): void {
    throw new Error("not yet");
  }

  handleTimeout(_now: Instant): void {
    throw new Error("not yet");
  }

  pollTimeout(): Deadline | undefined {
    throw new Error("not yet");
  }

  poll(): SleeveOutput | undefined {
    throw new Error("not yet");
  }
}
