/**
 * For commands that start containers: an address of the engine, for as long as they need it, at which a container that is made is held
 * until it is in the network, as through the router's proxy. No router is needed.
 */
import { NO_PROXY } from "../config/proxy_options.ts";
import { connect } from "../host/docker_events.ts";
import type { Helper } from "../host/helper.ts";
import { removeIfThere } from "../host/store.ts";
import { SILENT } from "../lib/log.ts";
import { readCall } from "../proxy/calls.ts";
import { HOST } from "./host_paths.ts";
import { ProxyCalls } from "./proxy_calls.ts";
import { ProxyConnection } from "./proxy_connection.ts";

/** Whoever makes containers here says himself what they are called, and where they look names up. */
const SETTINGS = { ...NO_PROXY, withoutDns: true };

/** They are attached by whoever starts them. */
const NOBODY = { expect: () => () => {}, whenAttached: () => Promise.resolve() };

/** @param work gets what `docker -H` takes */
export async function whileHolding<T>(helper: Helper, work: (host: string) => Promise<T>): Promise<T> {
  const calls = new ProxyCalls({ settings: SETTINGS, attacher: NOBODY, helper, dns: () => undefined, log: SILENT });
  const path = `${HOST.runDir}/run-${Deno.pid}.sock`;
  await Deno.mkdir(HOST.runDir, { recursive: true });
  await removeIfThere(path);
  const before = Deno.umask(0o077);
  const listener = Deno.listen({ transport: "unix", path });
  Deno.umask(before);
  const connections = new Set<ProxyConnection>();
  const serving = serve(listener, connections, calls);
  try {
    return await work(`unix://${path}`);
  } finally {
    listener.close();
    for (const connection of connections) connection.close();
    await serving;
    await removeIfThere(path);
  }
}

async function serve(listener: Deno.Listener, connections: Set<ProxyConnection>, calls: ProxyCalls): Promise<void> {
  try {
    for await (const client of listener) {
      const connection = new ProxyConnection({
        client,
        connectEngine: connect,
        plan: (request) => readCall(request.method, request.target).call === "create" ? calls.plan(request) : undefined,
      });
      connections.add(connection);
      void connection.serve().then(() => connections.delete(connection));
    }
  } catch {
    // Closed, as nobody needs it any more.
  }
}
