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

/** What the wall clock counts in. */
const STEP_MS = 1;

/** The wall clock, with fractions of a millisecond; goes where it is set. */
export function fineWallClock({ wallMs, monotonicMs }: Clock): () => number {
  let ahead = wallMs() - monotonicMs();
  return () => {
    const wall = wallMs();
    const fine = ahead + monotonicMs();
    if (Math.abs(fine - wall) <= STEP_MS) return fine;
    ahead += wall - fine;
    return wall;
  };
}
