/** Addresses that are in use on this host already, for an allocator that starts: they are given to nobody else. */
import { ContainerNetns, linksToBridge } from "../host/container_link.ts";
import { dockerIsThere, runningContainers } from "../host/docker.ts";
import { Links } from "../host/links.ts";
import { isOwnNetns, type Netns, statNetns } from "../host/netns.ts";
import type { Cidr } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import type { Link } from "../wire/rtnetlink.ts";
import { isAlive, type Plumbing } from "./plumbing.ts";
import { ps } from "./ps.ts";

export interface ExistingAddress {
  /** Of a container, of the host (`weave:expose`), or `_` where nobody knows whose it is. */
  readonly id: string;
  readonly cidr: Cidr;
  /** Docker will tell of its end. */
  readonly isContainer: boolean;
}

export interface Existing {
  readonly addresses: readonly ExistingAddress[];
  /** Docker's containers that run; undefined where Docker does not say. */
  readonly running: ReadonlySet<string> | undefined;
  /** Containers that only their namespace names, those that are still there. */
  readonly attached: ReadonlySet<string>;
}

/** How long Docker may take before the start goes on without it. */
const DOCKER_WAIT_MS = 3_000;
const DOCKER_ID = /^[0-9a-f]{64}$/;
/** Ids of containers that only their namespace names. */
export const NETNS_ID = /^netns-\d+-\d+$/;
/** Namespaces that are looked into at most where Docker cannot be asked. */
const MAX_NAMESPACES = 1024;

/** Looks at the bridge and at everything that is plugged into it. */
export async function findExisting(plumbing: Plumbing, log: Logger): Promise<Existing> {
  const running = await withinTime(runningIds(), log);
  const entries = running === undefined && dockerIsThere() ? undefined : await withinTime(
    ps({
      containers: [],
      host: plumbing.host,
    }),
    log,
  );
  using links = new Links();
  const attachments = (await plumbing.attachments()).filter((attachment) => isAlive(links, attachment));
  const untilTold = new Set(attachments.filter((attachment) => attachment.untilTold === true).map(({ id }) => id));
  const addresses = (entries ?? []).flatMap(({ id, addresses }) =>
    addresses.map((cidr) => ({ id, cidr, isContainer: DOCKER_ID.test(id) && !untilTold.has(id) }))
  );
  const attached = new Set(attachments.map(({ id }) => id));
  if (entries !== undefined && running !== undefined) return { addresses, running, attached };
  return { addresses: [...addresses, ...lookEverywhere(plumbing, links, addresses)], running, attached };
}

async function runningIds(): Promise<ReadonlySet<string> | undefined> {
  if (!dockerIsThere()) return undefined;
  return new Set((await runningContainers()).map(({ id }) => id));
}

/** undefined where it fails, or takes too long. */
async function withinTime<T>(work: Promise<T>, log: Logger): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), DOCKER_WAIT_MS);
  try {
    return await Promise.race([work, late.promise]);
  } catch (error) {
    log.info("what runs on this host cannot be asked of Docker", { reason: (error as Error).message });
    return undefined;
  } finally {
    clearTimeout(timer);
    work.catch(() => {}); // what comes too late is of no interest
  }
}

/** Where Docker cannot be asked: the bridge itself, and the namespaces of all processes. */
function lookEverywhere(plumbing: Plumbing, links: Links, known: readonly ExistingAddress[]): ExistingAddress[] {
  const bridge = links.find(plumbing.host.bridge);
  if (bridge === undefined) return [];
  const found = links.addresses(bridge.index).map((cidr) => ({ id: "weave:expose", cidr, isContainer: false }));
  for (const netns of namespacesOfProcesses()) {
    found.push(...addressesIn(netns, links, bridge).map((cidr) => ({ id: "_", cidr, isContainer: false })));
  }
  const seen = new Set(known.map(({ cidr }) => cidr.address));
  return found.filter(({ cidr: { address } }) => {
    const isNew = !seen.has(address);
    seen.add(address);
    return isNew;
  });
}

function namespacesOfProcesses(): Netns[] {
  const found = new Map<number, Netns>();
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name) || found.size >= MAX_NAMESPACES) continue;
    const netns = tryTo(() => statNetns(`/proc/${name}/ns/net`));
    if (netns !== undefined && !found.has(netns.inode) && !isOwnNetns(netns)) found.set(netns.inode, netns);
  }
  return [...found.values()];
}

function addressesIn(netns: Netns, links: Links, bridge: Link): Cidr[] {
  return tryTo(() => {
    using container = new ContainerNetns(netns);
    return linksToBridge(links.list(), container.links.list(), bridge.index)
      .flatMap(({ inside }) => container.links.addresses(inside.index));
  }) ?? [];
}

/** Processes end while they are looked at. */
function tryTo<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
