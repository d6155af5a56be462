/** Where the router is: as the command line or the environment says, else where the last one of this host was told to listen. */
import { ApiClient } from "../api/client.ts";
import { type Given, readOption } from "../config/option.ts";
import { DB_PREFIX, HTTP_ADDR } from "../config/options.ts";
import { findRunning, lastRecord } from "../daemon/process.ts";
import { hasState } from "../daemon/targets_file.ts";
import { OperationError } from "../lib/errors.ts";
import type { Terminal } from "./terminal.ts";

/** undefined where it was told to have no control API. */
export async function findRouterClient(given: Given, terminal: Terminal): Promise<ApiClient | undefined> {
  const source = given.has(HTTP_ADDR.flag) ? given : (await lastRecord())?.given ?? given;
  const address = readOption(HTTP_ADDR, source);
  return address === undefined ? undefined : new ApiClient(address, terminal);
}

export async function routerClient(given: Given, terminal: Terminal): Promise<ApiClient> {
  const client = await findRouterClient(given, terminal);
  if (client !== undefined) return client;
  throw new OperationError("The router has no control API: it was launched with an empty --http-addr");
}

/** Why nobody answers, as far as this host knows of a router; undefined: it was told of another address, or there never was one. */
export async function whyAbsent(given: Given): Promise<string | undefined> {
  if (given.has(HTTP_ADDR.flag)) return undefined;
  const running = await findRunning();
  if (running !== undefined) {
    const doing = running.router === undefined ? "restarting" : "starting";
    return `weave is ${doing}. Consult 'weave logs' for further details.`;
  }
  const container = (await lastRecord())?.container;
  if (container !== undefined) {
    const { findRouterContainer } = await import("../daemon/router_container.ts");
    const state = (await findRouterContainer(container).catch(() => undefined))?.state;
    if (state === "restarting" || state === "paused") return `${container} container is ${state}.`;
    if (state !== undefined) return `${container} container is not running.`;
  }
  const ran = await lastRecord() !== undefined || hasState(readOption(DB_PREFIX, given));
  return ran ? "weave is not running." : undefined;
}
