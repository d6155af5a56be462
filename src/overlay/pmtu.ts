/**
 * The path MTU of a sleeve connection: how large a frame may be that travels in one unfragmented packet. Weave Net 2.8 looks for it once,
 * and again when the kernel refuses a packet; its steps, messages and times are kept. It never looks at a path again that has become wider,
 * or narrower without a word; this one does, with the same messages, which an old router answers as ever.
 *
 *     unknown ─begin─→ discover ───→ settled        settled ─the kernel refused a packet─→ discover ───→ settled
 *     settled ─now and then─→ verify ─passes─→ settled       └─fails─→ floor ─passes─→ discover        └─fails─→ settled
 *     settled ─5 minutes─→ grow ───→ settled, with no smaller MTU
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

/** Below this nothing is looked for. */
const FLOOR_MTU = 552;
/** An IPv4 path carries no less (RFC 791 section 3.2), whatever a kernel was made to believe. */
const LOWEST_MTU = 68;
const PROVOKING_MTU = 60000 - ETHERNET_HEADER;
/** Its frame would be taken for a fragmentation test. */
const FRAGMENTATION_TEST_MTU = 60001 - ETHERNET_HEADER;

const TRANSMISSIONS = 8;
const FIRST_WAIT_MS = 10;
/** After so many transmissions (310 ms) an MTU that is known not to pass is given up for one that passed. */
const DOUBTFUL_TRANSMISSIONS = 6;
/** Between checks of the MTU in use, where the peer is an old router and where it is not. */
const CHECK_INTERVAL_MS = 60_000;
const FAST_CHECK_INTERVAL_MS = 15_000;
const GROWTH_INTERVAL_MS = 300_000;
/** Between checks that are not due by the clock, but asked for. */
const EXTRA_CHECK_INTERVAL_MS = 10_000;

interface Search {
  kind: "discover" | "verify" | "floor" | "grow";
  /** The largest that is taken to pass, and whether it has been seen to. */
  good: number;
  proven: boolean;
  /** The smallest that is taken not to pass. */
  bad: number;
  candidate: number;
  /** Transmissions of the candidate. */
  sent: number;
  dueAt: Instant;
  /** Candidates that failed. */
  failures: number;
}

export class PathMtu {
  readonly #overhead: number;
  readonly #probes: number[] = [];
  #mtu = UNKNOWN_MTU;
  #search: Search | undefined;
  readonly #checkIntervalMs: number;
  #checkAt: Instant | undefined;
  #growAt: Instant = -Infinity;
  #extraCheckAt: Instant = -Infinity;

  /** @param fast check four times as often */
  constructor(encrypted: boolean, fast = false) {
    this.#overhead = overheadOctets(encrypted);
    this.#checkIntervalMs = fast ? FAST_CHECK_INTERVAL_MS : CHECK_INTERVAL_MS;
  }

  /** The largest frame, without its Ethernet header; UNKNOWN_MTU until the kernel has refused a packet. */
  get mtu(): number {
    return this.#mtu;
  }

  /** The largest UDP payload. */
  get maxPayload(): number {
    return this.#mtu === UNKNOWN_MTU ? UDP_PAYLOAD_LIMIT : this.#mtu + this.#overhead - UDP_OVERHEAD;
  }

  /** The path can be used: begins to look for its MTU. */
  begin(now: Instant): void {
    this.#lookForMore(now);
  }

  /** The path may be another: looks again, unless it just has. */
  recheck(now: Instant): void {
    if (this.#search === undefined && now >= this.#extraCheckAt) this.#lookForMore(now);
  }

  /** The peer says that a probe for this MTU came. */
  handleAcknowledgement(mtu: number, now: Instant): void {
    const s = this.#search;
    if (s === undefined || s.candidate !== mtu) return;
    if (s.kind === "verify") return this.#settle(now);
    if (s.kind === "floor") s.kind = "discover";
    s.good = mtu;
    s.proven = true;
    if (this.#mtu < mtu) this.#mtu = mtu;
    this.#bisect(s, now);
  }

  /** The kernel refused a packet. @param pathMtu octets of an IP packet that it would take */
  handleTooBig(pathMtu: number, now: Instant): void {
    const limit = this.#limitOf(pathMtu);
    const s = this.#search;
    if (s !== undefined && s.candidate <= limit) {
      // Weave Net ignores this. It is news where the candidate lies between the limit and what was known.
      if (s.bad > limit + 1 && s.kind !== "verify") s.bad = limit + 1;
      if (this.#mtu !== UNKNOWN_MTU && this.#mtu > limit) this.#mtu = limit;
      return;
    }
    if (s?.kind === "grow" && limit >= s.good) {
      s.bad = limit + 1;
      return limit > s.good ? this.#try(s, limit, now) : this.#verify(now);
    }
    if (s === undefined && limit >= this.#mtu) { // what was refused is larger than what we send
      if (now >= this.#extraCheckAt) this.#verify(now);
      return;
    }
    this.#mtu = limit;
    this.#begin("discover", Math.min(FLOOR_MTU, limit), limit + 1, limit, now);
  }

  handleTimeout(now: Instant): void {
    const s = this.#search;
    if (s !== undefined) {
      if (now < s.dueAt) return;
      if (s.sent >= TRANSMISSIONS) return this.#fail(s, now);
      this.#transmit(s, now);
      if (s.sent >= DOUBTFUL_TRANSMISSIONS && s.proven && this.#mtu >= s.bad) this.#mtu = s.good;
    } else if (this.#checkAt !== undefined && now >= this.#checkAt) this.#check(now);
  }

  pollTimeout(): Instant | undefined {
    return this.#search?.dueAt ?? this.#checkAt;
  }

  /** Octets of a frame of zeros to send that must not be fragmented; undefined when there is none (any more). */
  pollProbe(): number | undefined {
    return this.#probes.shift();
  }

  #limitOf(pathMtu: number): number {
    const limit = Math.max(LOWEST_MTU, Math.min(pathMtu, UNKNOWN_MTU) - this.#overhead);
    return limit === FRAGMENTATION_TEST_MTU ? limit - 1 : limit;
  }

  #check(now: Instant): void {
    if (now >= this.#growAt) this.#lookForMore(now);
    else if (this.#mtu !== UNKNOWN_MTU) this.#verify(now);
    else this.#checkAt = now + this.#checkIntervalMs;
  }

  /** Sends the frame that makes the kernel say what it knows; taken as a probe where it does leave the host. */
  #lookForMore(now: Instant): void {
    this.#growAt = now + GROWTH_INTERVAL_MS;
    if (this.#mtu === UNKNOWN_MTU) this.#begin("discover", FLOOR_MTU, PROVOKING_MTU + 1, PROVOKING_MTU, now);
    else if (this.#mtu < PROVOKING_MTU) this.#begin("grow", this.#mtu, PROVOKING_MTU + 1, PROVOKING_MTU, now);
    else this.#verify(now);
  }

  #verify(now: Instant): void {
    this.#begin("verify", this.#mtu, this.#mtu + 1, this.#mtu, now);
  }

  #begin(kind: Search["kind"], good: number, bad: number, candidate: number, now: Instant): void {
    this.#extraCheckAt = now + EXTRA_CHECK_INTERVAL_MS;
    this.#search = { kind, good, proven: kind === "grow", bad, candidate, sent: 0, dueAt: now, failures: 0 };
    this.#try(this.#search, candidate, now);
  }

  #try(s: Search, candidate: number, now: Instant): void {
    s.candidate = candidate;
    s.sent = 0;
    this.#transmit(s, now);
  }

  #transmit(s: Search, now: Instant): void {
    this.#probes.push(s.candidate + ETHERNET_HEADER);
    s.dueAt = now + FIRST_WAIT_MS * 2 ** s.sent;
    s.sent++;
  }

  /** No transmission of the candidate was acknowledged. */
  #fail(s: Search, now: Instant): void {
    s.failures++;
    switch (s.kind) {
      case "verify":
        if (s.candidate <= FLOOR_MTU) return this.#settle(now);
        s.kind = "floor";
        s.good = FLOOR_MTU;
        s.bad = s.candidate;
        return this.#try(s, FLOOR_MTU, now);
      case "floor":
        return this.#settle(now);
      case "grow":
        s.bad = s.candidate;
        // The path is mostly as wide as before: one octet more says so without bisecting down to it.
        if (s.failures === 1 && s.good + 1 < s.bad) return this.#try(s, s.good + 1, now);
        return this.#bisect(s, now);
      case "discover":
        s.bad = s.candidate;
        return this.#bisect(s, now);
      default:
        s.kind satisfies never;
    }
  }

  #bisect(s: Search, now: Instant): void {
    const middle = Math.floor((s.good + s.bad) / 2);
    const candidate = middle === FRAGMENTATION_TEST_MTU ? middle - 1 : middle;
    if (candidate > s.good) return this.#try(s, candidate, now);
    // Where the largest probe passed at once, the kernel has no limit to tell: nothing is known still.
    if (this.#mtu !== UNKNOWN_MTU || s.good < PROVOKING_MTU) this.#mtu = s.good;
    this.#settle(now);
    if (s.proven) return;
    // Not even the smallest passed: that may have been an outage.
    this.#checkAt = now + EXTRA_CHECK_INTERVAL_MS;
    this.#growAt = now;
  }

  #settle(now: Instant): void {
    this.#search = undefined;
    this.#checkAt = now + this.#checkIntervalMs;
  }
}
