/**
 * Tries one target for a time, in a thread of its own: whoever started it sees in shared memory whether it still moves, and can end it
 * where it hangs.
 */

import { SeededRandom } from "../../src/lib/random.ts";
import type { Order, Outcome } from "./target.ts";
import { TARGETS } from "./targets.ts";

/** Times at which memory is looked at: so many that some of them come right after a collection. */
const SAMPLES = 200;

/** This thread as it is seen from inside. */
const thread = globalThis as unknown as {
  onmessage: (event: MessageEvent<Order>) => void;
  postMessage: (outcome: Outcome) => void;
};

thread.onmessage = async ({ data }) => thread.postMessage(await run(data));

async function run({ target: name, firstSeed, milliseconds, progress }: Order): Promise<Outcome> {
  const seeds = new Uint32Array(progress);
  const target = TARGETS.find((target) => target.name === name)!;
  const attempt = await target.prepare();
  const used: number[] = [];
  const began = performance.now();
  for (let attempts = 0;; attempts++) {
    const elapsed = performance.now() - began;
    if (elapsed >= milliseconds) return { is: "done", attempts, grownOctets: growthOf(used) };
    if (elapsed * SAMPLES >= used.length * milliseconds) used.push(memory());
    const seed = (firstSeed + attempts) >>> 0;
    Atomics.store(seeds, 0, seed);
    try {
      await attempt(new SeededRandom(seed));
    } catch (error) {
      return { is: "failed", seed, message: error instanceof Error ? error.message : String(error) };
    }
  }
}

function memory(): number {
  const { heapUsed, external } = Deno.memoryUsage();
  return heapUsed + external;
}

/** From the least use in the first half, when code has been compiled, to the least in the last quarter. */
function growthOf(used: readonly number[]): number {
  const half = used.length >>> 1;
  return Math.min(...used.slice(half + (half >>> 1))) - Math.min(...used.slice(half >>> 1, half));
}
