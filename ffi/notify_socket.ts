/** Words to a service manager, as sd_notify(3) sends them: one datagram to a socket that it named. */
import { check } from "./errno.ts";
import { C, sockaddr_un } from "./layout.ts";
import { libc } from "./libc.ts";
import { openSocket } from "./socket.ts";

/** The path and a zero octet fit in. */
const PATH_OCTETS = sockaddr_un.octets - sockaddr_un.offset.sun_path - 1;

/**
 * Sends `READY=1`, `STOPPING=1` and the like; several lines are one word each.
 * @param path what NOTIFY_SOCKET says: absolute, or with `@` in front for one that is in no directory
 * @throws SysError
 */
export function notifyServiceManager(path: string, words: string): void {
  const text = new TextEncoder().encode(path);
  if (!/^[/@]./.test(path) || text.length > PATH_OCTETS) {
    throw new RangeError(`Cannot notify "${path}": an absolute path of at most ${PATH_OCTETS} octets expected`);
  }
  const isAbstract = path.startsWith("@");
  if (isAbstract) text[0] = 0;
  const name = sockaddr_un.make({ sun_family: C.AF_UNIX });
  name.set(text, sockaddr_un.offset.sun_path);
  // The zero at the end counts for a path and not for a name, where it would be a part of it.
  const octets = sockaddr_un.offset.sun_path + text.length + (isAbstract ? 0 : 1);
  const message = new TextEncoder().encode(words);
  using fd = openSocket("notification socket", C.AF_UNIX, C.SOCK_DGRAM);
  const size = BigInt(message.length);
  check("sendto", () => libc.sendto(fd.raw, message, size, C.MSG_NOSIGNAL, name, octets), { path });
}
