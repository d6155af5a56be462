/** One writer at a time on this host: flock(2) on a file, which the kernel lets go of when its holder dies. */
import { dirname } from "node:path";
import { OperationError } from "../lib/errors.ts";

export interface LockOptions {
  /** Called once if somebody else holds the lock for longer than a moment. */
  readonly onWait?: () => void;
}

const PATIENCE_MS = 1000;

/** By path: the end of the last work that this process does or will do under it. */
const lines = new Map<string, Promise<unknown>>();

/**
 * Runs `work` while holding the lock; waits for it without a limit, as whoever holds it either ends or dies. Within this process one
 * waits at a time: each that waits for the kernel has a thread, and they are few enough to be wanted for the work itself.
 */
export async function withLock<T>(path: string, work: () => Promise<T> | T, options: LockOptions = {}): Promise<T> {
  const before = lines.get(path);
  const turn = (before ?? Promise.resolve()).then(() => withFileLock(path, work, options));
  const ended = turn.catch(() => {}).then(() => {
    if (lines.get(path) === ended) lines.delete(path);
  });
  lines.set(path, ended);
  return await turn;
}

async function withFileLock<T>(path: string, work: () => Promise<T> | T, options: LockOptions): Promise<T> {
  // A holder that removes its directory (reset) must not let two in: whoever got a file that is no longer there tries again.
  for (;;) {
    using file = await openLock(path);
    const timer = options.onWait === undefined ? undefined : setTimeout(options.onWait, PATIENCE_MS);
    try {
      await file.lock(true);
    } finally {
      clearTimeout(timer);
    }
    if (await isStillAt(file, path)) return await work();
  }
}

async function openLock(path: string): Promise<Deno.FsFile> {
  try {
    await Deno.mkdir(dirname(path), { recursive: true, mode: 0o755 });
    return await Deno.open(path, { create: true, read: true, write: true, mode: 0o600 });
  } catch (error) {
    throw new OperationError(`Cannot open lock file "${path}": ${(error as Error).message}`, 1, { cause: error });
  }
}

async function isStillAt(file: Deno.FsFile, path: string): Promise<boolean> {
  const held = await file.stat();
  try {
    const there = await Deno.stat(path);
    return there.ino === held.ino && there.dev === held.dev;
  } catch {
    return false;
  }
}
