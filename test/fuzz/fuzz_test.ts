/**
 * Random and mutated octets into every decoder and through the data plane. Each attempt has a seed of its own, and a failure prints it:
 *
 *     WEAVE_FUZZ_SEED=123 deno test … test/fuzz       begins with that attempt
 *     WEAVE_FUZZ_SECONDS=600 deno test … test/fuzz    takes that long in all, instead of a minute and a bit
 */

import assert from "node:assert/strict";
import { TARGETS } from "./targets.ts";
import type { Order, Outcome, Target } from "./target.ts";

const SECONDS = Number(Deno.env.get("WEAVE_FUZZ_SECONDS") ?? 60);
const SEED = Number(Deno.env.get("WEAVE_FUZZ_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);
/** One attempt takes milliseconds; on a machine that is busy otherwise, some more. */
const HANG_MS = 15_000;
/** Memory that may be in use at the end over what was in the middle: nothing may be kept of one input for the next. */
const GROWTH_LIMIT = 64 << 20;

const WEIGHTS = TARGETS.reduce((sum, target) => sum + (target.weight ?? 1), 0);

for (const target of TARGETS) {
  Deno.test(`${target.name} takes whatever comes`, async () => {
    replayFound(target);
    const milliseconds = SECONDS * 1000 * (target.weight ?? 1) / WEIGHTS;
    const outcome = await fuzz({ target: target.name, firstSeed: SEED, milliseconds });
    if (outcome.is === "failed") assert.fail(`WEAVE_FUZZ_SEED=${outcome.seed}: ${outcome.message}`);
    assert.ok(outcome.attempts > 0);
    assert.ok(outcome.grownOctets < GROWTH_LIMIT, `seeds from ${SEED} on: ${outcome.grownOctets} octets were kept`);
    console.log(`${target.name}: ${outcome.attempts} attempts from seed ${SEED} on`);
  });
}

async function fuzz(order: Omit<Order, "progress">): Promise<Outcome> {
  const progress = new SharedArrayBuffer(4);
  const seeds = new Uint32Array(progress);
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  worker.onmessage = (event: MessageEvent<Outcome>) => resolve(event.data);
  worker.onerror = (event) => {
    event.preventDefault();
    resolve({ is: "failed", seed: Atomics.load(seeds, 0), message: event.message });
  };
  let seen = -1;
  const watch = setInterval(() => {
    const seed = Atomics.load(seeds, 0);
    if (seed === seen) resolve({ is: "failed", seed, message: `hangs for ${HANG_MS} ms` });
    seen = seed;
  }, HANG_MS);
  try {
    worker.postMessage({ ...order, progress } satisfies Order);
    return await promise;
  } finally {
    clearInterval(watch);
    worker.terminate();
  }
}

/** What was found once stays found: inputs of a decoder, one in a file. */
function replayFound(target: Target): void {
  const folder = new URL(`../fixtures/fuzz/${target.name.replaceAll(" ", "_")}/`, import.meta.url);
  if (!target.takes) return;
  let entries: Deno.DirEntry[];
  try {
    entries = [...Deno.readDirSync(folder)];
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  for (const { name } of entries) target.takes(Uint8Array.fromHex(Deno.readTextFileSync(new URL(name, folder)).trim()));
}
