/** Whose socket is at the other end of a TCP connection within this host: the kernel's list of sockets has the user of each. */

/** Lines of /proc/net/tcp: `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`, addresses in host byte order. */
const ESTABLISHED = "01";

/**
 * The user that made the socket whose own address is `client`; undefined where there is no such socket in this network namespace. One
 * that its program has closed already is nobody's, although the kernel lists it with user 0.
 */
export function socketOwner(
  client: { readonly hostname: string; readonly port: number },
  server: { readonly hostname: string; readonly port: number },
): number | undefined {
  const local = kernelAddress(client);
  const remote = kernelAddress(server);
  if (local === undefined || remote === undefined) return undefined;
  return findOwner(Deno.readTextFileSync("/proc/net/tcp"), local, remote);
}

/** For tests. @param table as /proc/net/tcp is */
export function findOwner(table: string, local: string, remote: string): number | undefined {
  for (const line of table.split("\n")) {
    const [, itsLocal, itsRemote, state, , , , uid, , inode] = line.trim().split(/\s+/);
    if (itsLocal !== local || itsRemote !== remote) continue;
    return state === ESTABLISHED && inode !== "0" && /^\d+$/.test(uid ?? "") ? Number(uid) : undefined;
  }
  return undefined;
}

/** `127.0.0.1:6784` as `0100007F:1A80` on a little-endian machine. */
export function kernelAddress(
  { hostname, port }: { readonly hostname: string; readonly port: number },
): string | undefined {
  const parts = hostname.split(".").map(Number);
  if (parts.length !== 4 || parts.some((part) => !(part >= 0 && part <= 255))) return undefined;
  const word = new Uint32Array(Uint8Array.from(parts).buffer)[0]!;
  return `${hex(word, 8)}:${hex(port, 4)}`;
}

function hex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, "0");
}
