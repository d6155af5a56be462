/** What is fuzzed, as the worker and the tests see it. */

import type { Random } from "../../src/lib/random.ts";

/** Tries one thing; everything in it follows from the random numbers. Throws when something is wrong. */
export type Attempt = (random: Random) => void | Promise<void>;

export interface Target {
  readonly name: string;
  /** How much of the time it gets, compared with others; 1 where absent. */
  readonly weight?: number;
  prepare(): Attempt | Promise<Attempt>;
  /** For a decoder: takes octets, to try again what was found once. */
  readonly takes?: (octets: Uint8Array) => void;
}

/** What the worker is told, and what it answers. */
export interface Order {
  readonly target: string;
  readonly firstSeed: number;
  readonly milliseconds: number;
  /** One word: the seed that is being tried. */
  readonly progress: SharedArrayBuffer;
}

export type Outcome =
  | { readonly is: "done"; readonly attempts: number; readonly grownOctets: number }
  | { readonly is: "failed"; readonly seed: number; readonly message: string };

/** What went wrong, with the input that did it. */
export class InputError extends Error {
  constructor(octets: Uint8Array, cause: unknown) {
    const shown = octets.subarray(0, 4096).toHex();
    super(
      `${cause instanceof Error ? cause.stack ?? cause.message : cause}\ninput (${octets.length} octets): ${shown}`,
    );
  }
}
