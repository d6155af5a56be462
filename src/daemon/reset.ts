/** `reset`: leaves no link, chain, rule or file of ours on this host. The router is stopped by the caller, before. */
import { basename, dirname, join } from "node:path";
import { PLUGIN_FOLDER } from "../config/plugin_options.ts";
import { OperationError } from "../lib/errors.ts";
import { isOurPort } from "../host/bridge.ts";
import { CONTAINER_LINK, ContainerNetns, linksToBridge } from "../host/container_link.ts";
import { dockerIsThere, runningContainers } from "../host/docker.ts";
import { ensureMulticastRules, removeFirewall } from "../host/firewall.ts";
import { removeHelper } from "../host/helper.ts";
import { Links } from "../host/links.ts";
import { findNetns, type Netns, statNetns } from "../host/netns.ts";
import { resetServiceKernel } from "../host/service_kernel.ts";
import { removeIfThere } from "../host/store.ts";
import type { Link } from "../wire/rtnetlink.ts";
import type { Progress } from "./address_book.ts";
import { HOST, type HostPaths, Plumbing } from "./plumbing.ts";

/** Where Docker looks for drivers: made by us where Docker is not there yet. */
const PLUGIN_FOLDERS = [PLUGIN_FOLDER, dirname(PLUGIN_FOLDER)];

export interface ResetOptions {
  /** P of the state files `P-*`: `/var/lib/weave/weave`, or what `--db-prefix` said. */
  readonly statePrefix: string;
  /** Further files to remove, such as the log. */
  readonly files: readonly string[];
  readonly progress?: Progress;
  readonly host?: HostPaths;
}

/** Goes on past what fails, then rejects naming all of it; nothing to remove is no error. */
export async function reset(options: ResetOptions): Promise<void> {
  const plumbing = new Plumbing(options.host ?? HOST, options.progress);
  const { runDir } = plumbing.host;
  const failures: string[] = [];
  const step = async (what: () => void | Promise<void>) => {
    try {
      await what();
    } catch (error) {
      failures.push((error as Error).message);
    }
  };
  await plumbing.locked(async () => {
    await step(() => clearContainers(plumbing, options.progress));
    await step(() => resetServiceKernel({ runDir, bridge: plumbing.host.bridge }));
    await step(() => removeFirewall(runDir));
    await step(() => removeLinks(plumbing.host.bridge));
    await step(removeHelper);
    await step(() => removeState(options.statePrefix));
    for (const file of options.files) await step(() => removeIfThere(file));
    for (const folder of PLUGIN_FOLDERS) await step(() => removeIfEmpty(folder));
    // The lock lies in there: whoever waits for it sees that it is gone and makes another.
    await step(() => Deno.remove(runDir, { recursive: true }));
  });
  if (failures.length > 0) throw new OperationError(`Cannot reset everything: ${failures.join("; ")}`);
}

/** Containers keep rules about their interface that outlive it; those we find lose them. */
async function clearContainers(plumbing: Plumbing, progress: Progress | undefined): Promise<void> {
  using links = new Links();
  const bridge = links.find(plumbing.host.bridge);
  if (bridge === undefined) return;
  for (const netns of await namespaces(plumbing, progress)) {
    try {
      await clearContainer(netns, links, bridge);
    } catch (error) {
      if (statNetns(netns.path) !== undefined) progress?.warn((error as Error).message);
    }
  }
}

async function clearContainer(netns: Netns, links: Links, bridge: Link): Promise<void> {
  using container = new ContainerNetns(netns);
  const ours = linksToBridge(links.list(), container.links.list(), bridge.index);
  if (!ours.some(({ inside }) => inside.name === CONTAINER_LINK)) return;
  await ensureMulticastRules({ link: CONTAINER_LINK, subnets: [], within: (start) => container.run(start) });
}

async function namespaces(plumbing: Plumbing, progress: Progress | undefined): Promise<Netns[]> {
  const found: (Netns | undefined)[] = (await plumbing.attachments()).map((a) => findNetns(a.device, a.inode, a.path));
  if (dockerIsThere()) {
    try {
      for (const { pid } of await runningContainers()) found.push(statNetns(`/proc/${pid}/ns/net`));
    } catch (error) {
      progress?.warn((error as Error).message);
    }
  }
  return found.filter((netns) => netns !== undefined);
}

/** The bridge, its ports that have our names, and what is left of such ports outside it. Removing one end of a veth removes both. */
function removeLinks(bridge: string): void {
  using links = new Links();
  for (const link of links.list()) {
    if (isOurPort(link.name) && (link.kind === "veth" || link.kind === "tun")) links.delete(link.index);
  }
  const there = links.find(bridge);
  if (there?.kind === "bridge") links.delete(there.index);
}

/** Every `P-*`, and the directory where nothing else is in it. */
async function removeState(prefix: string): Promise<void> {
  const directory = dirname(prefix);
  const start = `${basename(prefix)}-`;
  try {
    let others = false;
    for await (const entry of Deno.readDir(directory)) {
      if (entry.isFile && entry.name.startsWith(start)) await removeIfThere(join(directory, entry.name));
      else others = true;
    }
    if (!others) await Deno.remove(directory);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound) && !isBusy(error)) throw error;
  }
}

async function removeIfEmpty(folder: string): Promise<void> {
  try {
    await Deno.remove(folder);
  } catch (error) {
    const others = /Directory not empty|ENOTEMPTY|os error 39/.test(String(error));
    if (!(error instanceof Deno.errors.NotFound) && !others && !isBusy(error)) throw error;
  }
}

/** A directory that something is mounted on stays. */
function isBusy(error: unknown): boolean {
  return error instanceof Deno.errors.Busy || /EBUSY|os error 16/.test(String(error));
}
