/**
 * What a router remembers of whom it shall connect with, and whether it was stopped.
 *
 *     P-targets.json   the targets, as they were given
 *     P-running        there while a router runs that nobody has stopped: a start that finds it is a restart, after a crash or a
 *                      reboot, and goes on with the stored targets
 */
import { exists } from "../host/files.ts";
import { StoreFile, writeAtomically } from "../host/store.ts";
import { markerFile } from "./process.ts";

/** More than anybody means to give; what lies beyond is not kept. */
const TARGET_LIMIT = 10_000;

const TARGETS = {
  what: "targets",
  major: 1,
  minor: 0,
  check(data: unknown): readonly string[] {
    if (!Array.isArray(data) || !data.every((text) => typeof text === "string")) throw new Error("a list is missing");
    return data.slice(0, TARGET_LIMIT);
  },
};

/** @param prefix P */
export function targetsFile(prefix: string): StoreFile<readonly string[]> {
  return new StoreFile(`${prefix}-targets.json`, TARGETS);
}

/** Whether a router ever ran here, since the last reset. */
export function hasState(prefix: string): boolean {
  return exists(targetsFile(prefix).path);
}

/** Whether the last router here was not stopped. */
export function wasRunning(prefix: string): boolean {
  return exists(markerFile(prefix));
}

export async function markRunning(prefix: string): Promise<void> {
  await writeAtomically(markerFile(prefix), "");
}
