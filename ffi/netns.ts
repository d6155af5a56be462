/**
 * Network namespaces of this thread. What is synchronous follows the thread: system calls, sockets made here, the start of programs.
 * What Deno does asynchronously runs on other threads, in the namespace where it began.
 */
import { attempt, check, SysError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { C } from "./layout.ts";
import { cString, libc } from "./libc.ts";

/** Opens the namespace that a path leads to. @throws SysError */
export function openNetns(path: string): Fd {
  const text = cString(path);
  return new Fd(check("open", () => libc.open(text, C.O_RDONLY | C.O_CLOEXEC), { path }), "network namespace");
}

/**
 * Runs `work`, which must be synchronous, in the namespace at `path`, and comes back, also when it throws. Where coming back fails
 * the process ends at once: it would do the host's work in a container.
 */
export function withNetns<T>(path: string, work: () => T): T {
  using there = openNetns(path);
  return away(() => check("setns", () => libc.setns(there.raw, C.CLONE_NEWNET), { path }), work);
}

/** The same in a new, empty namespace, which goes away afterwards with everything that was made in it. */
export function withNewNetns<T>(work: () => T): T {
  return away(() => check("unshare", () => libc.unshare(C.CLONE_NEWNET)), work);
}

function away<T>(leave: () => void, work: () => T): T {
  using home = openNetns("/proc/thread-self/ns/net");
  leave();
  let result: T;
  try {
    result = work();
  } finally {
    goHome(home);
  }
  if (result instanceof Promise) throw new TypeError("Cannot work asynchronously in another network namespace");
  return result;
}

/** EX_OSERR of sysexits.h. */
const EXIT_STATUS = 71;

function goHome(home: Fd): void {
  const result = attempt(() => libc.setns(home.raw, C.CLONE_NEWNET));
  if (result >= 0) return;
  console.error(`Cannot leave network namespace: ${new SysError("setns", -result).message}`);
  libc._exit(EXIT_STATUS);
}
