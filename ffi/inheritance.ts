/** What programs that we start get from us without being asked. */
import { attempt } from "./errno.ts";
import { C } from "./layout.ts";
import { libc } from "./libc.ts";

const FIRST_OF_OURS = 3;

/**
 * Keeps every descriptor from the programs started from now on, also those that this program got itself from its own parent: a daemon
 * must not hold a lock or a pipe for ever that a script had open when it called us. Runtime and `Fd` keep their own anyway.
 */
export function keepDescriptors(): void {
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    const fd = Number(name);
    // The directory's own is in the list, and gone by then.
    if (fd >= FIRST_OF_OURS) attempt(() => libc.fcntl(fd, C.F_SETFD, C.FD_CLOEXEC));
  }
}
