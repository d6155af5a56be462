/** `stop` and `reset`. */
import { basename, resolve } from "node:path";
import { type Given, readOption } from "../config/option.ts";
import { DB_PREFIX, ROUTER } from "../config/options.ts";
import { parseProxyEndpoint } from "../config/proxy_options.ts";
import { isOwnProxy } from "../daemon/own_proxy.ts";
import { findRunning, lastRecord, LOG_FILE, removeMarker, type Running, stopRouter } from "../daemon/process.ts";
import type { RouterContainer } from "../daemon/router_container.ts";
import type { Input } from "./command.ts";
import { noWords, type RESET_OPTIONS, type STOP_OPTIONS } from "./commands.ts";
import { routerClient } from "./router_client.ts";

export async function stop({ words, given, terminal }: Input<typeof STOP_OPTIONS>): Promise<number> {
  noWords(words);
  const prefix = await statePrefix(given);
  const running = await findRunning();
  const container = await liveContainer(running);
  await removeDockerNetwork(running, terminal);
  if (running !== undefined) warnOfProxy(running, terminal);
  if (container !== undefined) {
    if (running !== undefined) await sayFarewell(given, terminal);
    await (await import("../daemon/router_container.ts")).stopRouterContainer(container);
  } else if (running === undefined) terminal.warn("Weave is not running (ignore on Kubernetes).");
  else {
    if (running.record.invocation !== undefined) {
      terminal.warn(
        "WARNING: a service manager runs weave, and may start it again: stop it there, as with 'systemctl stop'",
      );
    }
    await sayFarewell(given, terminal);
    await stopRouter(running);
  }
  await removeMarker(prefix);
  return 0;
}

/** This shell's docker commands will find nobody any more. */
function warnOfProxy({ record }: Running, terminal: Input["terminal"]): void {
  const host = Deno.env.get("DOCKER_HOST");
  if (!host || !isOwnProxy(host, readOption(ROUTER.proxyListen, record.given).map(parseProxyEndpoint))) return;
  terminal.printLine(
    "WARNING: DOCKER_HOST leads to weave, which stops now: use 'eval $(weave env --restore)' to take it back",
  );
}

/** Time for what we gave away to reach the others. */
const HAND_OVER_MS = 500;

export async function reset({ words, given, terminal }: Input<typeof RESET_OPTIONS>): Promise<number> {
  noWords(words);
  const prefix = await statePrefix(given);
  const running = await findRunning();
  if (running !== undefined && await leave(given, terminal)) {
    await new Promise((resolve) => setTimeout(resolve, HAND_OVER_MS));
  }
  const record = await lastRecord();
  await removeDockerNetwork(running, terminal);
  await removeContainer();
  if (running !== undefined) await stopRouter(running);
  const operation = await import("../daemon/reset.ts");
  const sockets = pluginSockets(record?.given ?? new Map());
  await operation.reset({ statePrefix: prefix, files: [LOG_FILE, ...sockets], progress: terminal });
  return 0;
}

/** The router's container, if it has one, while Docker runs it or is about to. */
async function liveContainer(running: Running | undefined): Promise<RouterContainer | undefined> {
  if (running !== undefined && running.record.container === undefined) return undefined;
  const { findRouterContainer } = await import("../daemon/router_container.ts");
  const found = await findRouterContainer(running?.record.container);
  const lives = found !== undefined && !found.foreign && ["running", "restarting", "paused"].includes(found.state);
  return lives ? found : undefined;
}

async function removeContainer(): Promise<void> {
  const { findRouterContainer, removeRouterContainer } = await import("../daemon/router_container.ts");
  // Docker may not answer any more: what is ours outside it goes all the same.
  const found = await findRouterContainer().catch(() => undefined);
  if (found?.foreign === false) await removeRouterContainer(found);
}

/** Docker would wait for its driver. It stays where containers are in it, which are named. */
async function removeDockerNetwork(running: Running | undefined, terminal: Input["terminal"]): Promise<void> {
  if (running === undefined || !readOption(ROUTER.plugin, running.record.given)) return;
  const driver = basename(readOption(ROUTER.pluginMeshSocket, running.record.given), ".sock");
  const { removeDefaultNetwork } = await import("../daemon/docker_networks.ts");
  await removeDefaultNetwork(driver, terminal);
}

/** A router that was killed leaves them. */
function pluginSockets(given: Given): string[] {
  return [ROUTER.pluginSocket, ROUTER.pluginMeshSocket].map((option) => readOption(option, given)).filter((path) =>
    path !== ""
  );
}

/** A router that hangs says nothing, and is stopped all the same. */
const FAREWELL_MS = 1_000;

/** Others need not wait for a router that was told to stop: its names are gone at once. A restart says nothing. */
async function sayFarewell(given: Input["given"], terminal: Input["terminal"]): Promise<void> {
  let timer: number | undefined;
  const limit = new Promise<void>((resolve) => timer = setTimeout(resolve, FAREWELL_MS));
  const said = routerClient(given, terminal).then((client) => client.request("POST", "/farewell"));
  // It may not answer any more.
  await Promise.race([said.then(() => {}, () => {}), limit]);
  clearTimeout(timer);
}

/** Gives our address space to others. @returns whether somebody may have got it */
async function leave(given: Input["given"], terminal: Input["terminal"]): Promise<boolean> {
  try {
    await (await routerClient(given, terminal)).leave();
    return true;
  } catch {
    // It allocates no addresses, or does not answer any more: it goes all the same.
    return false;
  }
}

/** P of the router that runs or ran last, unless the command line says which. */
async function statePrefix(given: Input["given"]): Promise<string> {
  const source = given.has(DB_PREFIX.flag) ? given : (await lastRecord())?.given ?? given;
  return resolve(readOption(DB_PREFIX, source));
}
