/**
 * Which backends are healthy. A core without I/O: it says when to probe what, is told what came of it, and says what changed.
 *
 *     unknown ──success──▶ up ◀──rise successes in a row── down
 *        └──fall failures in a row──▶ down ◀──fall failures in a row── up
 *
 * With the defaults a backend that dies is down within 2.6 s, whether it refuses or says nothing. One that goes down again and again
 * must be healthy for longer each time before it is up: what fails now and then leaves, and what fails every other time does not flap.
 *
 * How the shell drives it: `set()` what is to be watched; drain `poll()`; a probe that it asks for ends in `handleResult()`, once
 * (after `check.timeoutMs` it has failed, and a later result is ignored); `handleTimeout(now)` at `pollTimeout()`.
 */
import type { Deadline, Instant } from "../lib/time.ts";
import type { BackendHealth, CheckSpec } from "./records.ts";

export type HealthOutput =
  /** Try it, for at most `check.timeoutMs`. */
  | { readonly type: "probe"; readonly key: string; readonly attempt: number; readonly check: CheckSpec }
  | { readonly type: "changed"; readonly key: string; readonly health: BackendHealth };

export interface HealthDetails {
  readonly health: BackendHealth;
  /** Of the last probe: why it failed; undefined: it did not. */
  readonly reason: string | undefined;
  /** Since when it is as it is. */
  readonly since: Instant;
  /** How many successes it takes to be up again. */
  readonly rise: number;
}

/** Going down again within this time makes being up again harder: twice as many successes as the last time, up to a limit. */
const CALM_MS = 60_000;
const MAX_RISE = 30;

interface Watched {
  readonly check: CheckSpec;
  health: BackendHealth;
  since: Instant;
  reason: string | undefined;
  /** Results in a row that say otherwise than `health`. */
  otherwise: number;
  /** How many successes make it healthy. */
  rise: number;
  /** When it went down the last time. */
  downAt: Instant;
  /** Of the attempt that runs, else 0. */
  attempt: number;
  startedAt: Instant;
  /** When the attempt that runs is over, or the next one begins; Infinity: never. */
  at: Instant;
}

/** See the file's header. */
export class Health {
  readonly #watched = new Map<string, Watched>();
  readonly #queue = new DeadlineQueue();
  #outputs: HealthOutput[] = [];
  #taken = 0;
  #attempts = 0;

  /**
   * Watches it; with another check than before it begins anew, with the same nothing happens.
   * @param initial what is known from before
   */
  set(key: string, check: CheckSpec, now: Instant, initial: BackendHealth = "unknown"): void {
    const before = this.#watched.get(key);
    if (before !== undefined && sameCheck(before.check, check)) return;
    const watched: Watched = {
      check,
      health: check.kind === "none" ? "up" : before?.health ?? initial,
      since: before?.since ?? now,
      reason: undefined,
      otherwise: 0,
      rise: check.rise,
      downAt: -Infinity,
      attempt: 0,
      startedAt: -Infinity,
      at: Infinity,
    };
    this.#watched.set(key, watched);
    if (watched.health !== (before?.health ?? initial)) this.#outputs.push({ type: "changed", key, health: "up" });
    // After a start they do not all come at once.
    const spread = before === undefined && initial !== "unknown"
      ? check.intervalMs * (this.#watched.size % 10) / 10
      : 0;
    if (check.kind !== "none") this.#plan(key, watched, now + spread);
    this.handleTimeout(now);
  }

  /** Only these are watched from now on. */
  retain(keys: ReadonlySet<string>): void {
    for (const key of this.#watched.keys()) if (!keys.has(key)) this.remove(key);
  }

  remove(key: string): void {
    this.#watched.delete(key);
  }

  health(key: string): BackendHealth {
    return this.#watched.get(key)?.health ?? "unknown";
  }

  details(key: string): HealthDetails | undefined {
    const watched = this.#watched.get(key);
    if (watched === undefined) return undefined;
    const { health, reason, since, rise } = watched;
    return { health, reason, since, rise };
  }

  /** @param failure why; undefined: it is well */
  handleResult(key: string, attempt: number, failure: string | undefined, now: Instant): void {
    const watched = this.#watched.get(key);
    // Late, or of a check that is no more.
    if (watched === undefined || watched.attempt !== attempt) return;
    this.#judge(key, watched, failure, now);
    this.handleTimeout(now);
  }

  handleTimeout(now: Instant): void {
    for (let due = this.#queue.take(now); due !== undefined; due = this.#queue.take(now)) {
      const watched = this.#watched.get(due.key);
      // It has been moved, or is not there any more.
      if (watched === undefined || watched.at !== due.at) continue;
      if (watched.attempt !== 0) this.#judge(due.key, watched, "no answer in time", now);
      else this.#begin(due.key, watched, now);
    }
  }

  pollTimeout(): Deadline | undefined {
    const at = this.#queue.next;
    return at === undefined ? undefined : { at, why: "checks of backends" };
  }

  poll(): HealthOutput | undefined {
    const output = this.#outputs[this.#taken++];
    if (output === undefined) {
      this.#outputs = [];
      this.#taken = 0;
    }
    return output;
  }

  #begin(key: string, watched: Watched, now: Instant): void {
    watched.attempt = ++this.#attempts;
    watched.startedAt = now;
    this.#plan(key, watched, now + watched.check.timeoutMs);
    this.#outputs.push({ type: "probe", key, attempt: watched.attempt, check: watched.check });
  }

  #judge(key: string, watched: Watched, failure: string | undefined, now: Instant): void {
    const { check, health } = watched;
    watched.attempt = 0;
    watched.reason = failure;
    const well = failure === undefined;
    watched.otherwise = health === (well ? "up" : "down") ? 0 : watched.otherwise + 1;
    // What was never judged before is believed at once where it is well.
    const needed = !well ? check.fall : health === "unknown" ? 1 : watched.rise;
    if (watched.otherwise >= needed) this.#enter(key, watched, well ? "up" : "down", now);
    if (well && health === "up" && now - watched.since >= CALM_MS) watched.rise = check.rise;
    // One that is about to go down is asked again soon.
    const hurry = !well && watched.health !== "down";
    this.#plan(key, watched, Math.max(now, watched.startedAt + check.intervalMs / (hurry ? 2 : 1)));
  }

  #enter(key: string, watched: Watched, health: "up" | "down", now: Instant): void {
    watched.otherwise = 0;
    watched.health = health;
    watched.since = now;
    if (health === "down") {
      const again = now - watched.downAt < CALM_MS;
      watched.rise = again ? Math.max(watched.check.rise, Math.min(MAX_RISE, 2 * watched.rise)) : watched.check.rise;
      watched.downAt = now;
    }
    this.#outputs.push({ type: "changed", key, health });
  }

  #plan(key: string, watched: Watched, at: Instant): void {
    watched.at = at;
    this.#queue.put(key, at);
  }
}

function sameCheck(a: CheckSpec, b: CheckSpec): boolean {
  return a.kind === b.kind && a.payload === b.payload && a.intervalMs === b.intervalMs &&
    a.timeoutMs === b.timeoutMs && a.rise === b.rise && a.fall === b.fall;
}

/** A binary heap, the earliest first. What was moved stays in it until its time comes. */
class DeadlineQueue {
  readonly #heap: { readonly key: string; readonly at: Instant }[] = [];

  get next(): Instant | undefined {
    return this.#heap[0]?.at;
  }

  put(key: string, at: Instant): void {
    const heap = this.#heap;
    let i = heap.length;
    heap.push({ key, at });
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (heap[parent]!.at <= at) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = { key, at };
  }

  take(now: Instant): { readonly key: string; readonly at: Instant } | undefined {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined || first.at > now) return undefined;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let i = 0;
    for (let child = 1; child < heap.length; child = 2 * i + 1) {
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++;
      if (heap[child]!.at >= last.at) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return first;
  }
}
