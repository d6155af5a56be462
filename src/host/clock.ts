/** The two clocks of the machine, for shells and the composition; cores get their instants as arguments. */
import type { Instant } from "../lib/time.ts";

export interface Clock {
  /** Never jumps; stands still while the machine is suspended. */
  monotonicMs(): Instant;
  /** Unix time; jumps when somebody sets it. */
  wallMs(): number;
}

export const SYSTEM_CLOCK: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
};
