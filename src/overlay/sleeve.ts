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
import { type Deadline, earlier, type Instant, TimerTable } from "../lib/time.ts";
import { PathMtu, UNKNOWN_MTU } from "./pmtu.ts";
import type { Carrier, CarrierOutput } from "./overlay.ts";

export interface SleeveOptions {
  /** The connection's: the ids of both ends, combined. */
  readonly uid: bigint;
  /** We made the TCP connection. */
  readonly outbound: boolean;
  /** The TCP connection's other end. Of use to the router that made the connection. */
  readonly remote: Endpoint;
  readonly encrypted: boolean;
  /** Both routers are of this make: heartbeats every second, failure after ten without, and the path looked after more often. */
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

/** Sub-tags of control messages. */
const CONTROL = { heartbeatReceived: 1, fragmentationTestReceived: 2, probeReceived: 3 } as const;

const HEARTBEAT_OCTETS = 22;
const FRAGMENTATION_TEST_OCTETS = 60001;

/** Until the peer has heard one. */
const FIRST_HEARTBEATS_MS = 500;
const SLOW = { heartbeatMs: 10_000, timeoutMs: 60_000 };
const FAST = { heartbeatMs: 1_000, timeoutMs: 10_000 };

const FRAGMENTATION_INTERVAL_MS = 300_000;
/**
 * Weave Net sends one test and waits for ever. A test is forty packets of which none may be lost: this router tries again, and holds on
 * to what it knew until nothing came back.
 */
const FRAGMENTATION_TRANSMISSIONS = 3;
const FRAGMENTATION_WAIT_MS = 1_000;

const TIMERS = ["heartbeat", "timeout", "fragmentation test", "fragmentation answer"] as const;
type Timer = typeof TIMERS[number];

const FIELDS = ["confirmed", "established", "remote", "mtu", "maxPayload", "stackFragments"] as const;

export class Sleeve implements Carrier<SpecialOutput> {
  readonly #uid: bigint;
  readonly #times: typeof SLOW;
  readonly #pmtu: PathMtu;
  readonly #timers = new TimerTable<Timer>();
  readonly #outputs: SleeveOutput[] = [];
  #phase: "prepared" | "confirmed" | "established" | "failed" = "prepared";
  #remote: Endpoint | undefined;
  #heard = false;
  #stackFragments = false;
  #fragmentationTests = 0;
  /** What the datapath was told last. */
  #published: SleeveState;

  constructor(o: SleeveOptions) {
    this.#uid = o.uid;
    this.#times = o.fast ? FAST : SLOW;
    this.#pmtu = new PathMtu(o.encrypted, o.fast);
    this.#remote = o.outbound ? o.remote : undefined;
    this.#published = this.state;
  }

  get state(): SleeveState {
    return {
      confirmed: this.#phase === "confirmed" || this.#phase === "established",
      established: this.#phase === "established",
      ...this.#remote ? { remote: this.#remote } : {},
      mtu: this.#pmtu.mtu,
      maxPayload: this.#pmtu.maxPayload,
      stackFragments: this.#stackFragments,
    };
  }

  handleConfirmed(now: Instant): void {
    if (this.#phase !== "prepared") return;
    this.#phase = "confirmed";
    this.#publish();
    this.#timers.set("timeout", now + SLOW.timeoutMs);
    this.#sendHeartbeat(now);
  }

  /** A heartbeat frame from this address. */
  handleHeartbeat(uid: bigint, from: Endpoint, now: Instant): void {
    if (uid !== this.#uid || this.#phase === "failed") return;
    this.#moveTo(from, now);
    if (!this.#heard) this.#tell(CONTROL.heartbeatReceived);
    this.#heard = true;
    if (this.#phase !== "prepared") this.#timers.set("timeout", now + this.#timeoutMs);
  }

  handleFragmentationTest(_now: Instant): void {
    if (this.#isConfirmed) this.#tell(CONTROL.fragmentationTestReceived);
  }

  /** A probe of the peer's for an MTU. */
  handleProbe(mtu: number, _now: Instant): void {
    if (this.#isConfirmed) this.#tell(CONTROL.probeReceived, Uint8Array.of(mtu >>> 8, mtu));
  }

  handleControl(subTag: number, payload: Uint8Array, now: Instant): void {
    if (!this.#isConfirmed) return;
    if (subTag === CONTROL.heartbeatReceived) this.#establish(now);
    else if (this.#phase !== "established") return;
    else if (subTag === CONTROL.fragmentationTestReceived) {
      this.#stackFragments = true;
      this.#timers.clear("fragmentation answer");
    } else if (subTag === CONTROL.probeReceived && payload.length >= 2) {
      this.#pmtu.handleAcknowledgement(payload[0]! << 8 | payload[1]!, now);
    }
    this.#drainPathMtu(now);
  }

  /** The kernel refused a packet as too big. @param pathMtu what it knows of the path: octets of the IP packet */
  handleTooBig(pathMtu: number, now: Instant): void {
    if (this.#phase !== "established") return;
    this.#pmtu.handleTooBig(pathMtu, now);
    this.#drainPathMtu(now);
  }

  handleTimeout(now: Instant): void {
    for (let timer = this.#timers.takeDue(now); timer !== undefined; timer = this.#timers.takeDue(now)) {
      switch (timer) {
        case "timeout":
          return this.#fail("timed out waiting for UDP heartbeat");
        case "heartbeat":
          this.#sendHeartbeat(now);
          break;
        case "fragmentation test":
          this.#testFragmentation(now);
          break;
        case "fragmentation answer":
          if (this.#fragmentationTests < FRAGMENTATION_TRANSMISSIONS) this.#sendFragmentationTest(now);
          else this.#stackFragments = false;
          break;
        default:
          timer satisfies never;
      }
    }
    if (this.#phase === "failed") return;
    this.#pmtu.handleTimeout(now);
    this.#drainPathMtu(now);
  }

  pollTimeout(): Deadline | undefined {
    const own = this.#timers.next();
    const path = this.#phase === "failed" ? undefined : this.#pmtu.pollTimeout();
    const next = earlier(own, path === undefined ? undefined : { at: path, why: "path MTU" });
    return next && { at: next.at, why: `sleeve ${next.why}` };
  }

  poll(): SleeveOutput | undefined {
    return this.#outputs.shift();
  }

  get #isConfirmed(): boolean {
    return this.#phase === "confirmed" || this.#phase === "established";
  }

  get #timeoutMs(): number {
    return this.#phase === "established" ? this.#times.timeoutMs : SLOW.timeoutMs;
  }

  /** Notes where the peer's heartbeat came from: the first time, or when its address has changed. */
  #moveTo(from: Endpoint, now: Instant): void {
    const before = this.#remote;
    if (before?.address === from.address && before.port === from.port) return;
    this.#remote = from;
    this.#publish();
    if (!this.#isConfirmed) return;
    if (before === undefined) this.#sendHeartbeat(now);
    else if (this.#phase === "established") {
      this.#pmtu.recheck(now);
      this.#drainPathMtu(now);
    }
  }

  #sendHeartbeat(now: Instant): void {
    const interval = this.#phase === "established" ? this.#times.heartbeatMs : FIRST_HEARTBEATS_MS;
    this.#timers.set("heartbeat", now + interval);
    if (this.#remote) this.#send({ frameOctets: HEARTBEAT_OCTETS, df: true, uid: this.#uid });
  }

  /** The peer has heard a heartbeat. It says so once; saying it again starts nothing anew, as it would with Weave Net. */
  #establish(now: Instant): void {
    // Without an address there was no heartbeat to hear.
    if (this.#phase !== "confirmed" || !this.#remote) return;
    this.#phase = "established";
    this.#publish();
    this.#outputs.push({ type: "established" });
    this.#timers.set("heartbeat", now + this.#times.heartbeatMs);
    this.#timers.set("timeout", now + this.#timeoutMs);
    this.#testFragmentation(now);
    this.#pmtu.begin(now);
  }

  #testFragmentation(now: Instant): void {
    this.#timers.set("fragmentation test", now + FRAGMENTATION_INTERVAL_MS);
    this.#fragmentationTests = 0;
    this.#sendFragmentationTest(now);
  }

  #sendFragmentationTest(now: Instant): void {
    this.#timers.set("fragmentation answer", now + FRAGMENTATION_WAIT_MS * 2 ** this.#fragmentationTests);
    this.#fragmentationTests++;
    this.#send({ frameOctets: FRAGMENTATION_TEST_OCTETS, df: false });
  }

  #drainPathMtu(now: Instant): void {
    // What swallows large packets may swallow fragments as well. Until it is known, we cut frames ourselves: that passes anywhere.
    if (this.#pmtu.mtu < this.#published.mtu && this.#published.mtu !== UNKNOWN_MTU) {
      this.#stackFragments = false;
      this.#testFragmentation(now);
    }
    this.#publish();
    for (let octets = this.#pmtu.pollProbe(); octets !== undefined; octets = this.#pmtu.pollProbe()) {
      this.#send({ frameOctets: octets, df: true });
    }
  }

  #send(frame: Omit<SpecialOutput, "type">): void {
    this.#outputs.push({ type: "special", ...frame });
  }

  #tell(subTag: number, payload: Uint8Array = new Uint8Array()): void {
    this.#outputs.push({ type: "control", subTag, payload });
  }

  /** Has the datapath told when there is something to tell. */
  #publish(): void {
    const state = this.state;
    const before = this.#published;
    if (FIELDS.every((field) => state[field] === before[field])) return;
    this.#published = state;
    this.#outputs.push({ type: "changed" });
  }

  #fail(reason: string): void {
    this.#phase = "failed";
    for (const timer of TIMERS) this.#timers.clear(timer);
    this.#outputs.push({ type: "failed", reason });
  }
}
