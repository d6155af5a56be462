/**
 * Network namespaces of this thread. What is synchronous follows the thread: system calls, sockets made here, the start of programs.
 * What Deno does asynchronously runs on other threads, in the namespace where it began.
 */
import { attempt, check, ERRNO, SysError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { C } from "./layout.ts";
import { cString, libc } from "./libc.ts";

const EINVAL = ERRNO.EINVAL[0], ENOENT = ERRNO.ENOENT[0];

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

/**
 * Makes a namespace that stays, as `ip netns add` does: a file that it is mounted on, in a folder whose mounts others see too. There must
 * be no namespace at `path` yet; a file is no harm.
 * @param prepare synchronous work inside, before anybody else can see it
 */
export function createNetns(path: string, prepare: () => void = () => {}): void {
  const folder = path.slice(0, path.lastIndexOf("/"));
  Deno.mkdirSync(folder, { recursive: true });
  shareMounts(folder);
  Deno.writeTextFileSync(path, "", { mode: 0o444 });
  withNewNetns(() => {
    prepare();
    mount("/proc/thread-self/ns/net", path, C.MS_BIND);
  });
}

/** Takes away what `createNetns` made; it ends with the last process or socket in it. Links of hardware go home. Nothing there is no error. */
export function removeNetns(path: string): void {
  const text = cString(path);
  for (;;) {
    const result = attempt(() => libc.umount2(text, C.MNT_DETACH));
    if (result === -EINVAL || result === -ENOENT) break; // nothing mounted (any more), or no such file
    if (result < 0) throw new SysError("umount2", -result, { path });
  }
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Has mounts below a folder seen in mount namespaces that were made from this one, and the other way round. */
function shareMounts(folder: string): void {
  try {
    mount("", folder, C.MS_SHARED | C.MS_REC);
  } catch (error) {
    if (!(error instanceof SysError) || error.errno !== EINVAL) throw error;
    mount(folder, folder, C.MS_BIND | C.MS_REC); // a mount of its own first
    mount("", folder, C.MS_SHARED | C.MS_REC);
  }
}

function mount(source: string, target: string, flags: number): void {
  const [from, to, kind] = [cString(source), cString(target), cString("none")];
  check("mount", () => libc.mount(from, to, kind, BigInt(flags), null), { path: target });
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
