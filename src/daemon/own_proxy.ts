/** Whoever was told by `weave env` to talk to Docker through the proxy: what that means for the router, and for its end. */
import { PROXY_SOCKET, type ProxyEndpoint } from "../config/proxy_options.ts";

/**
 * Whoever starts the router may have been told by `weave env` to talk to Docker through it: the router itself must not. Changes this
 * process's environment.
 */
export function avoidOwnProxy(listening: readonly ProxyEndpoint[]): void {
  const told = Deno.env.get("DOCKER_HOST");
  if (!told || !isOwnProxy(told, listening)) return;
  const before = Deno.env.get("ORIG_DOCKER_HOST");
  if (before && !isOwnProxy(before, listening)) Deno.env.set("DOCKER_HOST", before);
  else Deno.env.delete("DOCKER_HOST");
}

/** Whether Docker's clients that are told this host talk to a proxy that listens there. */
export function isOwnProxy(host: string, listening: readonly ProxyEndpoint[]): boolean {
  if (host === `unix://${PROXY_SOCKET}`) return true;
  const [, name, port] = /^tcp:\/\/([^:/]*):(\d+)/.exec(host) ?? [];
  return listening.some(({ text, address }) => {
    if (text === host) return true;
    const local = [Deno.env.get("PROXY_HOST"), "127.0.0.1", "localhost", "0.0.0.0", ""];
    return address.transport === "tcp" && String(address.port) === port && local.includes(name);
  });
}
