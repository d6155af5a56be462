/**
 * What a container runtime asks for by CNI, in its own process: an interface for a namespace, and its end.
 *
 *     address (of the router, or of another program) → under the lock: veth → addresses → routes → remember
 *
 * Whatever fails undoes the steps before it. The router is asked for addresses alone.
 */
import { announceAddress } from "../host/arp.ts";
import { CONTAINER_PORT_PREFIX, findBridge } from "../host/bridge.ts";
import { run } from "../host/command.ts";
import { isFile } from "../host/files.ts";
import {
  type ContainerLink,
  ContainerNetns,
  createContainerLink,
  type LinkShape,
  prepareContainerLink,
} from "../host/container_link.ts";
import { ensureMulticastRules } from "../host/firewall.ts";
import { Links } from "../host/links.ts";
import { isOwnNetns, type Netns, statNetns } from "../host/netns.ts";
import { RouterAbsentError } from "../lib/errors.ts";
import { type Cidr, cidrContains, formatCidr, type Ipv4, networkOf } from "../lib/ip.ts";
import { formatMac } from "../lib/mac.ts";
import {
  addressResult,
  chained,
  CNI_CODE,
  type CniContainerCall,
  CniError,
  type CniResult,
  type CniRoute,
  defaultRoute,
  type Given,
  ownerId,
  readGiven,
  readResult,
  type Routing,
  routingOf,
} from "../plugin/cni.ts";
import type { Link } from "../wire/rtnetlink.ts";
import type { AddressBook, AddressToken } from "./address_book.ts";
import { giveBack, obtainAddresses, undone } from "./addresses.ts";
import { untilForwarding } from "./attach.ts";
import { expose } from "./expose.ts";
import { HOST, isAlive, Plumbing } from "./plumbing.ts";

export interface CniContext {
  readonly call: CniContainerCall;
  /** As it came, for other programs. */
  readonly stdin: string;
  readonly book: AddressBook;
  /** Frees all that an id holds; holding nothing is no error. */
  readonly releaseAll: (id: string) => Promise<void>;
  /** Something that is no reason to fail. */
  readonly warn: (line: string) => void;
}

type Undo = (() => void | Promise<void>)[];

/** `weave-net`. The result is all that the runtime is told; undefined: nothing. */
export async function cniNetwork(context: CniContext): Promise<CniResult | undefined> {
  switch (context.call.command) {
    case "ADD":
      return await add(context);
    case "DEL":
      return void await remove(context);
    case "CHECK":
      return void await check(context);
    default:
      return context.call.command satisfies never;
  }
}

/** `weave-ipam`: addresses alone, for a plugin that makes the interface. */
export async function cniAddresses(context: CniContext): Promise<CniResult | undefined> {
  const { call, book, releaseAll } = context;
  const { config: { ipam, dns } } = call;
  const id = ownerId(call.containerId, call.ifName);
  switch (call.command) {
    case "ADD": {
      const { gateway, routes = [] } = ipam;
      return { interfaces: [], ...addressResult([(await allocate(context, [])).cidr], { gateway, routes }), dns };
    }
    case "DEL":
      return void await releaseAll(id);
    case "CHECK": {
      const held = await book.lookup(id, ipam.subnet);
      if (held === "absent") throw new RouterAbsentError();
      if (held === "disabled" || held.length === 0) throw failed(`no address is held for ${id}`);
      return undefined;
    }
    default:
      return call.command satisfies never;
  }
}

// ADD

async function add(context: CniContext): Promise<CniResult> {
  const { call } = context;
  const netns = containerNetns(call);
  const plumbing = plumbingOf(context);
  using links = new Links();
  findBridge(links, plumbing.host.bridge);
  const undo: Undo = [];
  try {
    const given = await obtain(context, undo);
    const routing = await routed(context, plumbing, links, given[0]);
    const link = await plumbing.locked(() => plugIn({ context, plumbing, links, netns, given, routing, undo }));
    return resultOf(call, link, given, routing);
  } catch (error) {
    throw await undone(error, undo);
  }
}

/** One address of the router's, or whatever the program gives that is named. */
async function obtain(context: CniContext, undo: Undo): Promise<readonly [Given, ...Given[]]> {
  const { call } = context;
  if (call.config.ipam.plugin === undefined) return [await allocate(context, undo)];
  const output = await delegate(context, "ADD");
  undo.push(async () => void await delegate(context, "DEL"));
  return readGiven(readResult(parseOutput(output)));
}

async function allocate({ call, book, warn }: CniContext, undo: Undo): Promise<Given> {
  const { subnet, gateway, routes } = call.config.ipam;
  const id = ownerId(call.containerId, call.ifName);
  const token: AddressToken = subnet === undefined ? { kind: "default" } : { kind: "net", subnet };
  let cidr: Cidr | undefined;
  await obtainAddresses({
    id,
    tokens: [token],
    book,
    checkAlive: false,
    needsRouter: true,
    onObtained(address) {
      cidr = address.cidr;
      if (address.fresh) undo.push(() => giveBack(book, id, [address.cidr.address], { warn }));
    },
  });
  return { cidr: cidr!, gateway, routes };
}

/** Where nothing is said about routes, the host is the way to everything else: it gets an address in the subnet. */
async function routed(
  context: CniContext,
  plumbing: Plumbing,
  links: Links,
  { cidr, gateway, routes }: Given,
): Promise<Extract<Routing, { via: "given" }>> {
  const routing = routingOf({ gateway, routes });
  if (routing.via === "given") return routing;
  const address = bridgeAddress(links, plumbing, cidr) ?? await exposeIn(context, plumbing, cidr);
  return { via: "given", gateway: address, routes: [defaultRoute(address)] };
}

function bridgeAddress(links: Links, { host }: Plumbing, subnet: Cidr): Ipv4 | undefined {
  const { index } = findBridge(links, host.bridge);
  return links.addresses(index).find(({ address }) => cidrContains(subnet, address))?.address;
}

async function exposeIn({ call, book, warn }: CniContext, plumbing: Plumbing, cidr: Cidr): Promise<Ipv4> {
  const { ipam } = call.config;
  if (plumbing.host.bridge !== HOST.bridge) {
    throw new CniError(
      CNI_CODE.config,
      `Cannot choose a gateway: bridge "${plumbing.host.bridge}" has no address in the container's subnet`,
      "set ipam.gateway or ipam.routes",
    );
  }
  const own = ipam.plugin === undefined && ipam.subnet === undefined;
  const subnet: Cidr = { address: networkOf(cidr), prefixLength: cidr.prefixLength };
  const addresses: AddressToken[] = own ? [] : [{ kind: "net", subnet }];
  const [exposed] = await expose({ addresses, book, progress: { warn } });
  return exposed!.address;
}

interface Plug {
  readonly context: CniContext;
  readonly plumbing: Plumbing;
  readonly links: Links;
  readonly netns: Netns;
  readonly given: readonly Given[];
  readonly routing: Extract<Routing, { via: "given" }>;
  readonly undo: Undo;
}

/** Everything that is done to the machine; the caller holds the lock. */
async function plugIn({ context, plumbing, links, netns, given, routing, undo }: Plug): Promise<ContainerLink> {
  const { call } = context;
  using container = new ContainerNetns(netns);
  const bridge = findBridge(links, plumbing.host.bridge);
  const shape = shapeOf(call, bridge);
  if (container.links.find(call.ifName) !== undefined) {
    throw failed(`Cannot make interface "${call.ifName}": the container has one of that name`);
  }
  const names = hostNames(call);
  const link = createContainerLink(links, container, { names, bridge, ...shape });
  undo.push(() => void links.delete(link.host.index));
  prepareContainerLink(links, container, link, bridge, shape);
  const cidrs = given.map(({ cidr }) => cidr);
  await ensureMulticastRules({ link: call.ifName, subnets: cidrs, within: (start) => container.run(start) });
  const { index } = link.inside;
  for (const cidr of cidrs) container.links.addAddress(index, cidr);
  container.links.change({ index, up: true }, `bring "${call.ifName}" up`);
  await untilForwarding(links, link.host.index);
  container.run(() => cidrs.forEach(({ address }) => announceAddress(link.inside, address)));
  for (const route of routing.routes) addRoute(container, index, route, routing.gateway);
  const { path, device, inode } = netns;
  const id = ownerId(call.containerId, call.ifName);
  undo.push(() => plumbing.setAttachment(id, undefined));
  await plumbing.setAttachment(id, {
    id,
    path,
    device,
    inode,
    link: { name: link.host.name, index: link.host.index },
    addresses: cidrs,
    untilTold: true,
  });
  return link;
}

/** One that is there already, as the subnet's own, is as good. */
function addRoute(
  container: ContainerNetns,
  link: number,
  { destination, gateway }: CniRoute,
  common: Ipv4 | undefined,
): void {
  const via = gateway ?? common;
  const network = { address: networkOf(destination), prefixLength: destination.prefixLength };
  container.links.addRoute({ destination: network, link, ...via === undefined ? {} : { gateway: via } });
}

function resultOf(
  { config, ifName, netns }: CniContainerCall,
  { host, inside }: ContainerLink,
  given: readonly Given[],
  routing: Extract<Routing, { via: "given" }>,
): CniResult {
  const interfaces = [
    { name: host.name, ...host.mac === undefined ? {} : { mac: formatMac(host.mac) } },
    { name: ifName, ...inside.mac === undefined ? {} : { mac: formatMac(inside.mac) }, sandbox: netns! },
  ];
  const { ips, routes } = addressResult(given.map(({ cidr }) => cidr), routing);
  return chained(config.previous, {
    interfaces,
    ips: ips.map((ip) => ({ ...ip, interface: 1 })),
    routes,
    dns: config.dns,
  });
}

// DEL

/** What is not there any more was what was wanted. */
async function remove(context: CniContext): Promise<void> {
  const { call, releaseAll, warn } = context;
  const plumbing = plumbingOf(context);
  const id = ownerId(call.containerId, call.ifName);
  using links = new Links();
  await plumbing.locked(async () => {
    const attachment = (await plumbing.attachments()).find((one) => one.id === id);
    try {
      await unplug(call, links);
    } catch (error) {
      warn((error as Error).message);
    }
    if (attachment === undefined) return;
    // Its namespace may not have been named, or live on elsewhere.
    if (isAlive(links, attachment)) links.delete(attachment.link.index);
    await plumbing.setAttachment(id, undefined);
  });
  if (call.config.ipam.plugin === undefined) await releaseAll(id);
  else await delegate(context, "DEL");
}

async function unplug({ netns: path, ifName }: CniContainerCall, links: Links): Promise<void> {
  const netns = path === undefined ? undefined : statNetns(path);
  if (netns === undefined || isOwnNetns(netns)) return;
  using container = new ContainerNetns(netns);
  const inside = container.links.find(ifName);
  const host = inside === undefined ? undefined : otherEnd(inside, links);
  if (host === undefined) return;
  links.delete(host.index);
  await ensureMulticastRules({ link: ifName, subnets: [], within: (start) => container.run(start) });
}

/** In the host, where the interface is a veth from there. */
function otherEnd(inside: Link, links: Links): Link | undefined {
  if (inside.kind !== "veth" || inside.peer === undefined) return undefined;
  const host = links.byIndex(inside.peer);
  return host?.kind === "veth" && host.peer === inside.index ? host : undefined;
}

// CHECK

/** Whether all is as ADD left it. */
async function check(context: CniContext): Promise<void> {
  const { call } = context;
  const { previous } = call.config;
  if (previous === undefined) throw new CniError(CNI_CODE.config, "CHECK needs the result of ADD as prevResult");
  const at = previous.interfaces.findIndex(({ name, sandbox }) => name === call.ifName && sandbox !== undefined);
  const wanted = previous.interfaces[at];
  if (wanted === undefined) throw failed(`interface "${call.ifName}" is not in the result of ADD`);
  const plumbing = plumbingOf(context);
  using links = new Links();
  using container = new ContainerNetns(containerNetns(call));
  const bridge = findBridge(links, plumbing.host.bridge);
  const inside = container.links.find(call.ifName);
  if (inside === undefined) throw failed(`interface "${call.ifName}" is missing`);
  if (!inside.up) throw failed(`interface "${call.ifName}" is down`);
  if (wanted.mac !== undefined && inside.mac !== undefined && formatMac(inside.mac) !== wanted.mac.toLowerCase()) {
    throw failed(`interface "${call.ifName}" has MAC ${formatMac(inside.mac)} instead of ${wanted.mac}`);
  }
  if (otherEnd(inside, links)?.master !== bridge.index) {
    throw failed(`interface "${call.ifName}" is not plugged into bridge "${bridge.name}"`);
  }
  const there = container.links.addresses(inside.index).map(formatCidr);
  for (const { address, interface: index } of previous.ips) {
    if (index === at && !there.includes(address)) throw failed(`address ${address} is missing on "${call.ifName}"`);
  }
  const routes = container.links.routes().map(({ destination }) => formatCidr(destination));
  for (const { dst } of previous.routes) {
    if (!dst.includes(":") && !routes.includes(dst)) throw failed(`the route to ${dst} is missing`);
  }
  if (call.config.ipam.plugin !== undefined) await delegate(context, "CHECK");
}

// Both

function plumbingOf({ call, warn }: CniContext): Plumbing {
  return new Plumbing({ ...HOST, ...call.config.bridge === undefined ? {} : { bridge: call.config.bridge } }, { warn });
}

/** The container's, which must be there and be its own. */
function containerNetns({ netns: path, containerId }: CniContainerCall): Netns {
  const netns = statNetns(path!);
  if (netns === undefined) {
    throw new CniError(CNI_CODE.unknownContainer, `no network namespace at "${path}"`, `container ${containerId}`);
  }
  if (isOwnNetns(netns)) {
    throw failed("Container is running in the host network namespace, and therefore cannot be connected to weave");
  }
  return netns;
}

function shapeOf({ ifName, config: { mtu, hairpin } }: CniContainerCall, bridge: Link): Required<LinkShape> {
  if (mtu !== undefined && mtu > bridge.mtu) {
    throw new CniError(CNI_CODE.config, `mtu ${mtu} is more than the ${bridge.mtu} of bridge "${bridge.name}"`);
  }
  return { insideName: ifName, mtu: mtu ?? bridge.mtu, hairpin };
}

const ID_CHARACTERS = 7;

/** The second where another interface of the container, or a container of a like name, has the first. */
function hostNames({ containerId, ifName }: CniContainerCall): string[] {
  const ids = [containerId.slice(0, ID_CHARACTERS), digits(`${containerId}:${ifName}`)];
  return ids.map((id) => `${CONTAINER_PORT_PREFIX}${id}`);
}

/** Seven characters that stand for a text. */
function digits(text: string): string {
  let hash = 0x811c9dc5; // FNV-1a
  for (const octet of new TextEncoder().encode(text)) hash = Math.imul(hash ^ octet, 0x01000193) >>> 0;
  return hash.toString(36).padStart(ID_CHARACTERS, "0");
}

/** Runs the program that gives addresses, as we were run ourselves. */
async function delegate({ call, stdin }: CniContext, command: CniContainerCall["command"]): Promise<string> {
  const name = call.config.ipam.plugin!;
  const path = call.path.map((folder) => `${folder}/${name}`).find(isFile);
  if (path === undefined) {
    throw new CniError(CNI_CODE.config, `no IPAM plugin "${name}" in CNI_PATH`, call.path.join(":"));
  }
  const before = Deno.env.get("CNI_COMMAND");
  Deno.env.set("CNI_COMMAND", command);
  try {
    const { code, stdout, stderr } = await run(path, [], { input: stdin });
    if (code === 0) return stdout;
    throw delegateError(name, stdout) ?? failed(`IPAM plugin "${name}" ended with ${code}: ${stderr.trim()}`);
  } finally {
    if (before !== undefined) Deno.env.set("CNI_COMMAND", before);
  }
}

function delegateError(name: string, stdout: string): CniError | undefined {
  try {
    const { code, msg, details } = JSON.parse(stdout) as Record<string, unknown>;
    if (typeof code !== "number" || typeof msg !== "string") return undefined;
    return new CniError(code, `IPAM plugin "${name}": ${msg}`, typeof details === "string" ? details : "");
  } catch {
    return undefined;
  }
}

function parseOutput(output: string): unknown {
  try {
    return JSON.parse(output);
  } catch (error) {
    throw new CniError(CNI_CODE.decoding, "the answer of the IPAM plugin is not JSON", (error as Error).message);
  }
}

function failed(message: string): CniError {
  return new CniError(CNI_CODE.failed, message);
}
