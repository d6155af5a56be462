/**
 * `attach` and `detach`: plugs containers into the bridge and pulls them out.
 *
 *     find the container → obtain its addresses → under the lock: ask whether anybody has them → link → addresses → hosts file, names
 *                                                                 → up → announce → route for multicast
 *
 * Whatever fails undoes the steps before it. A process that waits for its network waits for the last steps: all else is there then.
 */
import { type Cidr, formatIpv4 } from "../lib/ip.ts";
import { announceAddress } from "../host/arp.ts";
import { findBridge } from "../host/bridge.ts";
import {
  addMulticastRoute,
  CONTAINER_LINK,
  type ContainerLink,
  ContainerNetns,
  createContainerLink,
  findContainerLink,
  prepareContainerLink,
} from "../host/container_link.ts";
import { ensureMulticastRules } from "../host/firewall.ts";
import { formatHosts, replaceHosts } from "../host/hosts_file.ts";
import { Links } from "../host/links.ts";
import { sameNetns, statNetns } from "../host/netns.ts";
import type { AddressBook, AddressToken, Progress } from "./address_book.ts";
import {
  checkTokens,
  giveBack,
  lookUpAddresses,
  obtainAddresses,
  type Obtained,
  refuseTaken,
  undone,
} from "./addresses.ts";
import { type Attachment, HOST, type HostPaths, isAlive, Plumbing } from "./plumbing.ts";
import { died, findTarget, type Target } from "./target.ts";

export interface AttachOptions {
  /** Docker id or name, `pid:N` or `netns:PATH`. */
  readonly container: string;
  /** In the order of the command line; none means one of the default subnet. */
  readonly addresses: readonly AddressToken[];
  readonly book: AddressBook;
  /** `--without-dns`: registers no name. */
  readonly withoutDns?: boolean;
  /** `--no-multicast-route`. */
  readonly noMulticastRoute?: boolean;
  /** `--hostname`: the container's FQDN, where Docker does not know it. */
  readonly hostname?: string;
  /** `--rewrite-hosts`: replaces the container's hosts file; only for containers of Docker. */
  readonly rewriteHosts?: boolean;
  /** `--add-host name:ip`, each; only with `rewriteHosts`. */
  readonly addHosts?: readonly string[];
  /** Its process waits for the last step, and may have done all it had to do right after it. */
  readonly held?: boolean;
  readonly progress?: Progress;
  readonly host?: HostPaths;
}

export interface AttachResult {
  /** Full id of Docker, or `netns-<device>-<inode>`. */
  readonly id: string;
  /** In the order of the command line; `attach` and `detach` print them without prefix, space-separated. */
  readonly addresses: readonly Cidr[];
}

export type DetachOptions = Pick<AttachOptions, "container" | "addresses" | "book" | "progress" | "host">;

/** How long a port of the bridge may take until it forwards; it takes a fraction of a millisecond unless the machine is busy. */
const FORWARDING_WAIT_MS = 200;

type Undo = (() => void | Promise<void>)[];

/** Rejects with `OperationError` after undoing what it did; running it twice is the same as running it once. */
export async function attach(options: AttachOptions): Promise<AttachResult> {
  const { book, progress } = options;
  const plumbing = new Plumbing(options.host ?? HOST, progress);
  using links = new Links();
  const target = await findTarget(options.container);
  const bridge = findBridge(links, plumbing.host.bridge);
  checkTokens(options.addresses, links, bridge.index, progress);
  await forgetPredecessor(plumbing, links, target, book);

  const undo: Undo = [];
  const obtained: Obtained[] = [];
  try {
    await obtainAddresses({
      id: target.id,
      tokens: options.addresses,
      book,
      checkAlive: target.docker !== undefined,
      needsRouter: false,
      onObtained(address) {
        obtained.push(address);
        if (address.fresh) undo.push(() => giveBack(book, target.id, [address.cidr.address], progress));
      },
    });
    await plumbing.locked(() => plugIn({ plumbing, links, target, obtained }, options));
  } catch (error) {
    throw await undone(isGone(target) ? died(target.id) : error, undo);
  }
  return { id: target.id, addresses: obtained.map(({ cidr }) => cidr) };
}

/** `addresses` of the result are those asked for, whether or not they were there. */
export async function detach(options: DetachOptions): Promise<AttachResult> {
  const { book, progress } = options;
  const plumbing = new Plumbing(options.host ?? HOST, progress);
  using links = new Links();
  const target = await findTarget(options.container);
  using container = new ContainerNetns(target.netns);
  const present = () => {
    const inside = container.links.find(CONTAINER_LINK);
    return inside === undefined ? [] : container.links.addresses(inside.index);
  };
  const id = target.id;
  const addresses = await lookUpAddresses({ id, tokens: options.addresses, book, present: present() });
  const fqdn = await plumbing.locked(async () => {
    const attachment = (await plumbing.attachments()).find((a) => a.id === id);
    await pullOut(links, container, addresses);
    const left = present();
    await remember(plumbing, target, container, links, attachment?.hostname, left);
    return attachment?.hostname ?? target.fqdn;
  });
  for (const { address } of addresses) if (fqdn !== undefined) await book.removeName(id, address, fqdn);
  await giveBack(book, id, addresses.map(({ address }) => address), progress);
  return { id, addresses };
}

interface Plug {
  readonly plumbing: Plumbing;
  readonly links: Links;
  readonly target: Target;
  readonly obtained: readonly Obtained[];
}

/** Everything that is done to the machine, undone where a step of it fails; the caller holds the lock. */
async function plugIn(plug: Plug, options: AttachOptions): Promise<void> {
  using container = new ContainerNetns(plug.target.netns);
  const undo: Undo = [];
  try {
    await plugInSteps(plug, container, undo, options);
  } catch (error) {
    throw await undone(error, undo);
  }
}

async function plugInSteps(plug: Plug, container: ContainerNetns, undo: Undo, options: AttachOptions): Promise<void> {
  const { plumbing, links, target, obtained } = plug;
  const bridge = findBridge(links, plumbing.host.bridge);
  const there = findContainerLink(links.list(), container.links.list());
  const held = there === undefined ? [] : container.links.addresses(there.inside.index);
  const missing = obtained.filter(({ cidr }) => !contains(held, cidr));
  // With another prefix length it may be there already, and the container itself would answer.
  const foreign = missing.filter(({ given, cidr }) => given && !held.some(({ address }) => address === cidr.address));
  await refuseTaken(links, bridge, foreign.map(({ cidr }) => cidr));

  const link = there ?? createContainerLink(links, container, { names: target.linkNames, bridge });
  if (there === undefined) undo.push(() => void links.delete(link.host.index));
  prepareContainerLink(links, container, link, bridge);

  const wanted = [...held, ...missing.map(({ cidr }) => cidr)];
  undo.push(() => keepMulticastApart(container, held));
  await keepMulticastApart(container, wanted);
  const { index } = link.inside;
  for (const { cidr } of missing) {
    if (container.links.addAddress(index, cidr)) undo.push(() => container.links.removeAddresses(index, [cidr]));
  }
  await makeKnown(target, obtained.map(({ cidr }) => cidr), undo, options);
  // We hold its namespace open: nothing of this fails because the container has ended.
  if (isGone(target)) throw died(target.id);
  if (!link.inside.up) container.links.change({ index, up: true }, `bring "${CONTAINER_LINK}" up`);
  await untilForwarding(links, link.host.index);
  announce(container, link, missing.map(({ cidr }) => cidr));
  const before = (await plumbing.attachments()).find((a) => a.id === target.id);
  undo.push(() => plumbing.setAttachment(target.id, before));
  await remember(plumbing, target, container, links, options.hostname, wanted);
  // Last: the start of a container waits for it.
  if (options.noMulticastRoute !== true) addMulticastRoute(container, link);
  if (options.held !== true && isGone(target)) throw died(target.id);
}

/** To itself, and to all others. */
async function makeKnown(
  target: Target,
  addresses: readonly Cidr[],
  undo: Undo,
  options: AttachOptions,
): Promise<void> {
  if (options.rewriteHosts === true) await rewriteHosts(target, addresses, options);
  const fqdn = options.hostname ?? target.fqdn;
  if (options.withoutDns === true || fqdn === undefined) return;
  for (const { address } of await registerNames(target, addresses, fqdn, options)) {
    undo.push(async () => void await options.book.removeName(target.id, address, fqdn));
  }
}

/** Where the container has no iptables that works, its subnets share their multicast. */
async function keepMulticastApart(container: ContainerNetns, subnets: readonly Cidr[]): Promise<void> {
  await ensureMulticastRules({ link: CONTAINER_LINK, subnets, within: (start) => container.run(start) });
}

/** The reverse of `plugIn` for some addresses; the link goes with the last of them. */
async function pullOut(links: Links, container: ContainerNetns, addresses: readonly Cidr[]): Promise<void> {
  const link = findContainerLink(links.list(), container.links.list());
  if (link === undefined) return;
  const { index } = link.inside;
  container.links.removeAddresses(index, addresses);
  const left = container.links.addresses(index);
  await keepMulticastApart(container, left);
  if (left.length === 0) links.delete(link.host.index);
}

function announce(container: ContainerNetns, link: ContainerLink, addresses: readonly Cidr[]): void {
  container.run(() => {
    for (const { address } of addresses) announceAddress(link.inside, address);
  });
}

/** A port drops what comes before it forwards, an announcement for instance. */
export async function untilForwarding(links: Links, index: number): Promise<void> {
  for (let waited = 0; waited < FORWARDING_WAIT_MS; waited++) {
    if (links.byIndex(index)?.forwarding === true) return;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Docker tells when its containers are gone; the others are written down, for the router to look after. */
async function remember(
  plumbing: Plumbing,
  target: Target,
  container: ContainerNetns,
  links: Links,
  hostname: string | undefined,
  addresses: readonly Cidr[],
): Promise<void> {
  if (target.docker !== undefined) return;
  const { id, netns } = target;
  const link = findContainerLink(links.list(), container.links.list());
  if (link === undefined) return await plumbing.setAttachment(id, undefined);
  const name = hostname ?? (await plumbing.attachments()).find((a) => a.id === id)?.hostname;
  const attachment: Attachment = {
    id,
    ...netns,
    link: { name: link.host.name, index: link.host.index },
    addresses,
    ...(name === undefined ? {} : { hostname: name }),
  };
  await plumbing.setAttachment(id, attachment);
}

/** The kernel gives inodes again: what a dead namespace of the same id held is not this one's. */
async function forgetPredecessor(plumbing: Plumbing, links: Links, target: Target, book: AddressBook): Promise<void> {
  if (target.docker !== undefined) return;
  const predecessor = (await plumbing.attachments()).find((a) => a.id === target.id && !isAlive(links, a));
  if (predecessor === undefined) return;
  await plumbing.locked(() => plumbing.setAttachment(target.id, undefined));
  await giveBack(book, target.id, predecessor.addresses.map(({ address }) => address), plumbing.progress);
}

async function rewriteHosts(target: Target, addresses: readonly Cidr[], options: AttachOptions): Promise<void> {
  const { docker } = target;
  if (docker?.hostsPath === undefined) {
    options.progress?.warn("Cannot rewrite the hosts file: only containers of Docker have one");
    return;
  }
  const { hostname, domainname } = docker;
  const content = {
    addresses: addresses.map((c) => c.address),
    hostname,
    domainname,
    addHosts: options.addHosts ?? [],
  };
  const text = formatHosts(content);
  try {
    await replaceHosts(docker.hostsPath, text);
  } catch (error) {
    options.progress?.warn(`Cannot rewrite the hosts file: ${(error as Error).message}`);
  }
}

/** A name that cannot be registered leaves the container attached. @returns the addresses that have it now */
async function registerNames(
  target: Target,
  addresses: readonly Cidr[],
  fqdn: string,
  options: AttachOptions,
): Promise<readonly Cidr[]> {
  const checkAlive = target.docker !== undefined;
  const named: Cidr[] = [];
  for (const cidr of addresses) {
    try {
      if (await options.book.registerName(target.id, cidr.address, fqdn, { checkAlive }) === "done") named.push(cidr);
    } catch (error) {
      options.progress?.warn(`Cannot name ${formatIpv4(cidr.address)} "${fqdn}": ${(error as Error).message}`);
    }
  }
  return named;
}

/** The process by which the container's namespace was found is no more. */
function isGone({ netns }: Target): boolean {
  if (!netns.path.startsWith("/proc/")) return false;
  const now = statNetns(netns.path);
  return now === undefined || !sameNetns(now, netns);
}

function contains(list: readonly Cidr[], cidr: Cidr): boolean {
  return list.some((c) => c.address === cidr.address && c.prefixLength === cidr.prefixLength);
}
