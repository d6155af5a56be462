/**
 * Which backends are healthy. A core without I/O: it says when to probe what, is told what came of it, and says what changed.
 *
 *     unknown ──success──▶ up ◀──rise successes in a row── down
 *        └──fall failures in a row──▶ down ◀──fall failures in a row── up
 *
 * With the defaults a backend that dies is down within 2.6 s, whether it refuses or says nothing. One that goes down again and again
 * must be healthy for longer each time before it is up: what fails now and then leaves, and what fails every other time does not flap.
 *
 * How the shell drives it: `set()` what is to be watched; drain `poll()`; a probe that it asks for ends in `handleResult()`, once, at the
 * latest when its time-out is over (later ones are ignored); `handleTimeout(now)` at `pollTimeout()`.
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

/** See the file's header. */
export declare class Health {
  constructor();

  /** Watches it; with another check than before it begins anew, with the same nothing happens. `initial`: what is known from before. */
  set(key: string, check: CheckSpec, now: Instant, initial?: BackendHealth): void;
  /** Only these are watched from now on. */
  retain(keys: ReadonlySet<string>): void;
  remove(key: string): void;
  health(key: string): BackendHealth;
  details(key: string): HealthDetails | undefined;
  /** @param failure why; undefined: it is well */
  handleResult(key: string, attempt: number, failure: string | undefined, now: Instant): void;
  handleTimeout(now: Instant): void;
  pollTimeout(): Deadline | undefined;
  poll(): HealthOutput | undefined;
}
