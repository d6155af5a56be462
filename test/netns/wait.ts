/** Waiting for something to become true, with a failure that says why it did not. */

import type { EmulatedHost } from "./host.ts";

/**
 * Asks again every 50 ms until `ask` gives a true value, which is returned. After `deadlineMs` it fails with the last answer
 * or error, and with the status and the end of the log of each witness.
 */
export async function waitFor<T>(
  what: string,
  ask: () => Promise<T> | T,
  deadlineMs: number,
  witnesses: readonly EmulatedHost[] = [],
): Promise<NonNullable<T>> {
  const started = performance.now();
  let last: unknown;
  do {
    try {
      const answer = await ask();
      if (answer) return answer;
      last = answer;
    } catch (error) {
      last = error;
    }
    await delay(50);
  } while (performance.now() - started < deadlineMs);

  const reports = await Promise.all(witnesses.map((host) => host.report()));
  const reason = last instanceof Error ? last.message : `last answer: ${JSON.stringify(last)}`;
  throw new Error([`Waited ${deadlineMs} ms in vain for ${what}: ${reason}`, ...reports].join("\n\n"));
}

export function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** How long something took, in milliseconds. */
export async function measure(action: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await action();
  return Math.round(performance.now() - started);
}
