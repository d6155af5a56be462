/** Where an HTTP server of ours listens, and its clients find it: an address and a port, or a socket in the file system. */
import { parseIpv4 } from "./ip.ts";

export type ListenAddress =
  | { readonly transport: "tcp"; readonly hostname: string; readonly port: number }
  | { readonly transport: "unix"; readonly path: string };

/** `a.b.c.d:port`, `localhost:port`, `:port` (every address of this host) or an absolute path; undefined for anything else. */
export function parseListenAddress(text: string): ListenAddress | undefined {
  if (text.startsWith("/")) return { transport: "unix", path: text };
  const [, host, digits] = /^([^:]*):(\d{1,5})$/.exec(text) ?? [];
  if (host === undefined || digits === undefined) return undefined;
  const port = Number(digits);
  if (port === 0 || port > 65535) return undefined;
  const hostname = host === "" ? "0.0.0.0" : host;
  return hostname === "localhost" || parseIpv4(hostname) !== undefined
    ? { transport: "tcp", hostname, port }
    : undefined;
}

/** The reverse of `parseListenAddress`. */
export function formatListenAddress(address: ListenAddress): string {
  return address.transport === "unix" ? address.path : `${address.hostname}:${address.port}`;
}
