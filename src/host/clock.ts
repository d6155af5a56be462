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

/** A moment, told so that a later process can say how long ago it was. */
export interface Moment {
  /** Another one for each boot of the machine. */
  readonly boot: string;
  /** Since that boot; never jumps. */
  readonly uptimeMs: number;
  readonly wallMs: number;
}

/** Empty and 0 where the kernel does not say, as where /proc is missing. */
export function momentNow(): Moment {
  const boot = readText("/proc/sys/kernel/random/boot_id").trim();
  const uptimeMs = Math.round(Number.parseFloat(readText("/proc/uptime")) * 1000) || 0;
  return { boot, uptimeMs, wallMs: Date.now() };
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

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
