/** Opens what the API listens on. */
import { OperationError, OptionError } from "../lib/errors.ts";
import { parseIpv4 } from "../lib/ip.ts";
import { formatListenAddress, type ListenAddress } from "../lib/listen_address.ts";

export interface Listening {
  readonly listener: Deno.Listener;
  /** What was asked for, with the port that was given out for port 0. */
  readonly address: ListenAddress;
}

/** Whether only programs of this host can connect. */
export function isLocal(address: ListenAddress): boolean {
  if (address.transport === "unix" || address.hostname === "localhost") return true;
  return (parseIpv4(address.hostname) ?? 0) >>> 24 === 127;
}

/** Refuses an address of the control API that others reach. */
export function checkLocal(address: ListenAddress): void {
  if (isLocal(address)) return;
  throw new OptionError(
    `Cannot use "${formatListenAddress(address)}" as http-addr: the control API has no password, so it listens on ` +
      "127.0.0.1 or a unix socket only",
    "http-addr",
  );
}

/**
 * Throws OperationError with address and errno.
 * @param purpose as in "the control API"
 */
export function listen(address: ListenAddress, purpose: string): Listening {
  try {
    if (address.transport === "unix") {
      removeStaleSocket(address.path);
      return { listener: Deno.listen(address), address };
    }
    const hostname = address.hostname === "localhost" ? "127.0.0.1" : address.hostname;
    const listener = Deno.listen({ hostname, port: address.port });
    return { listener, address: { ...address, port: listener.addr.port } };
  } catch (error) {
    const where = formatListenAddress(address);
    throw new OperationError(`Cannot listen on ${where} for ${purpose}: ${reasonOf(error)}`, 1, { cause: error });
  }
}

/** Takes away the socket of a process that is no more; anything else that stands at the path stays, and listening will fail. */
function removeStaleSocket(path: string): void {
  try {
    if (Deno.lstatSync(path).isSocket && !isServed(path)) Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** A socket that somebody listens on is in the kernel's list with the flag for it (`__SO_ACCEPTCON`, 0x10000). */
function isServed(path: string): boolean {
  return Deno.readTextFileSync("/proc/net/unix").split("\n").some((line) => {
    const columns = line.trim().split(/\s+/);
    return columns[3] === "00010000" && columns.slice(7).join(" ") === path;
  });
}

/** `EADDRINUSE (Address already in use)`. */
function reasonOf(error: unknown): string {
  const { code, message } = error as { code?: string; message: string };
  return code === undefined ? message : `${code} (${message.replace(/ \(os error \d+\)$/, "")})`;
}
