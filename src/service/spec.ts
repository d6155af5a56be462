/**
 * What people ask for, from words to values: targets, ports, checks, names, networks, where to listen and for whom. The command line and
 * service files come through here alike. Whatever is wrong ends in one `SpecError` of one line.
 */
import {
  type Cidr,
  cidrContains,
  formatCidr,
  formatIpv4,
  type Ipv4,
  networkOf,
  parseCidr,
  parseIpv4,
} from "../lib/ip.ts";
import { isNetworkName } from "../lib/network_name.ts";
import {
  formatPortRange,
  MAX_PORT,
  parsePortRange,
  portCount,
  type PortRange,
  portsOverlap,
  samePorts,
} from "../lib/ports.ts";
import {
  isHostAddress,
  isHostName,
  isServiceName,
  MAX_ALLOWED,
  MAX_BACKENDS,
  MAX_PORT_RANGES,
  MAX_PRIORITY,
  MAX_SUBNETS,
  MAX_WEIGHT,
  parseListenText,
} from "../wire/service.ts";
import { checkCheckable, defaultCheckOf, parseCheck } from "./checks.ts";
import type { Backend, ExportSpec, ImportSpec, ImportState, Listen } from "./records.ts";
import { parseWhole, SpecError, splitAt } from "./spec_words.ts";

export { DEFAULT_CHECK, defaultCheckOf, formatCheck, parseCheck } from "./checks.ts";
export { SpecError } from "./spec_words.ts";

/** What the words are held against. Leave out what cannot be known where they are read; the router looks again. */
export interface SpecContext {
  /** The DNS domain, `weave.local.`. */
  readonly domain: string;
  /** Names of networks there are beside `host` and `weave`; undefined: whatever is well formed. */
  readonly networks?: readonly string[];
  /** The gateway's own addresses in a network, virtual ones it answers for among them. */
  readonly ownAddresses?: (network: string) => readonly Ipv4[];
}

/** As the command line has it; texts as people write them. */
export interface ImportInput {
  readonly name: string;
  /** `HOST:PORT[-PORT][/udp][,priority=N][,weight=N][,network=NAME]` */
  readonly to: readonly string[];
  readonly network?: string | undefined;
  /** `P[-Q][/udp],…`, each item perhaps several; absent: the targets' own. */
  readonly port?: readonly string[] | undefined;
  readonly priority?: string | undefined;
  readonly weight?: string | undefined;
  /** `tcp|none|http:PATH|udp:PAYLOAD[,interval=…][,timeout=…][,rise=N][,fall=N]` */
  readonly check?: string | undefined;
  readonly subnets?: readonly string[] | undefined;
  readonly allowLocal?: boolean | undefined;
  readonly state?: ImportState | undefined;
}

export interface ExportInput {
  /** `NAME[:PORT]` */
  readonly name: string;
  /** `[ADDRESS:]PORT[-PORT][/udp]` */
  readonly listen: string;
  readonly network?: string | undefined;
  /** `CIDR,…`, each item perhaps several; absent: everybody. */
  readonly allow?: readonly string[] | undefined;
  readonly dns?: boolean | undefined;
  readonly force?: boolean | undefined;
}

/** A network of the gateway. */
export interface NetworkSpec {
  readonly name: string;
  readonly interfaces: readonly string[];
  readonly isolated: boolean;
}

/** One of `--to`. */
export interface Target {
  readonly host: Ipv4 | string;
  readonly ports: PortRange;
  readonly priority: number;
  readonly weight: number;
  /** Undefined: that of the import. */
  readonly network: string | undefined;
}

/** How long a name of a Linux interface may be. */
const MAX_INTERFACE = 15;
const MAX_INTERFACES = 16;

/** Networks that are always there. */
export const HOST_NETWORK_NAME = "host";
export const MESH_NETWORK_NAME = "weave";

/** Ports that whoever is on the network needs to get at this host, and those of the router itself. */
const PRECIOUS_PORTS = [[22, 22], [6781, 6784]] as const;

// Imports

/** @throws SpecError */
export function parseImport(input: ImportInput, context: SpecContext): ImportSpec {
  const name = checkServiceName(input.name);
  const network = checkNetworkName("network", input.network ?? HOST_NETWORK_NAME, context);
  const targets = parseTargets(input.to);
  const ports = input.port === undefined ? portsOf(targets) : parsePorts(input.port);
  const backends = backendsOf(targets, ports, { network, context });
  const allowLocal = input.allowLocal ?? false;
  if (!allowLocal) { for (const backend of backends) checkBackend(backend, context); }
  const check = input.check === undefined ? defaultCheckOf(ports) : parseCheck(input.check);
  checkCheckable(check, ports);
  return {
    name,
    network,
    ports,
    backends,
    check,
    priority: parseWhole("priority", input.priority ?? "0", 0, MAX_PRIORITY),
    weight: parseWhole("weight", input.weight ?? "1", 1, MAX_WEIGHT),
    subnets: parseSubnets(input.subnets ?? []),
    allowLocal,
    state: input.state ?? "active",
  };
}

/** The same service somewhere else: `weave service bind`. It is active again. @throws SpecError */
export function rebind(spec: ImportSpec, to: readonly string[], context: SpecContext): ImportSpec {
  const backends = backendsOf(parseTargets(to), spec.ports, { network: spec.network, context });
  if (!spec.allowLocal) { for (const backend of backends) checkBackend(backend, context); }
  return { ...spec, backends, state: "active" };
}

/** @throws SpecError */
export function parseTarget(text: string): Target {
  const [address = "", ...options] = text.split(",");
  const m = /^([^:/,\s]+):([^:,\s]+)$/.exec(address);
  const ports = m === null ? undefined : parsePortRange(m[2]!);
  const host = m === null ? undefined : parseHost(m[1]!);
  if (host === undefined || ports === undefined) {
    throw new SpecError(
      "to",
      `Cannot use "${text}" as target: HOST:PORT[-PORT][/udp] is expected, such as 192.168.1.5:5432`,
    );
  }
  const target = { host, ports, priority: 0, weight: 1, network: undefined as string | undefined };
  for (const option of options) {
    const [key, value = ""] = splitAt(option, "=");
    if (key === "priority") target.priority = parseWhole("to", value, 0, MAX_PRIORITY, "priority of a target");
    else if (key === "weight") target.weight = parseWhole("to", value, 1, MAX_WEIGHT, "weight of a target");
    else if (key === "network") target.network = value;
    else {
      throw new SpecError(
        "to",
        `Cannot use "${option}" of target "${text}": priority=N, weight=N and network=NAME are known`,
      );
    }
  }
  return target;
}

/** `HOST:PORT…`, as `parseTarget()` reads it, with what is not the default. */
export function formatBackend(backend: Backend, defaultNetwork: string): string {
  const { host, network, serves, firstPort, priority, weight } = backend;
  const ports = { protocol: serves.protocol, first: firstPort, last: firstPort + portCount(serves) - 1 };
  const address = typeof host === "number" ? formatIpv4(host) : host;
  return [
    `${address}:${formatPortRange(ports)}`,
    ...priority === 0 ? [] : [`priority=${priority}`],
    ...weight === 1 ? [] : [`weight=${weight}`],
    ...network === defaultNetwork ? [] : [`network=${network}`],
  ].join();
}

function parseTargets(to: readonly string[]): readonly Target[] {
  if (to.length === 0) throw new SpecError("to", "Cannot tell where the service is: --to HOST:PORT is missing");
  if (to.length > MAX_BACKENDS) {
    throw new SpecError("to", `Cannot use ${to.length} targets: at most ${MAX_BACKENDS} may be`);
  }
  return to.map(parseTarget);
}

function parseHost(text: string): Ipv4 | string | undefined {
  const host = text.toLowerCase().replace(/\.$/, "");
  const address = parseIpv4(host);
  if (address !== undefined) return isHostAddress(address) ? address : undefined;
  return isHostName(host) ? host : undefined;
}

/** What ports an import has for which nothing but its backends is told: each range of theirs once. */
export function portsOfBackends(backends: readonly Backend[]): readonly PortRange[] {
  return distinct(backends.map(({ serves, firstPort }) => ({
    protocol: serves.protocol,
    first: firstPort,
    last: firstPort + portCount(serves) - 1,
  })));
}

/** What targets have, each range once. */
function portsOf(targets: readonly Target[]): readonly PortRange[] {
  return checkPorts("to", distinct(targets.map(({ ports }) => ports)));
}

/** @throws SpecError */
function parsePorts(texts: readonly string[]): readonly PortRange[] {
  const items = texts.flatMap((text) => text.split(","));
  return checkPorts(
    "port",
    items.map((item) => {
      const range = parsePortRange(item);
      if (range === undefined) {
        throw new SpecError("port", `Cannot use "${item}" as port: P[-Q][/udp] with ports from 1 to 65535 is expected`);
      }
      return range;
    }),
  );
}

function checkPorts(field: string, ranges: readonly PortRange[]): readonly PortRange[] {
  if (ranges.length > MAX_PORT_RANGES) {
    throw new SpecError(field, `Cannot use ${ranges.length} ranges of ports: at most ${MAX_PORT_RANGES} may be`);
  }
  for (const [i, a] of ranges.entries()) {
    const b = ranges.slice(i + 1).find((other) => portsOverlap(a, other));
    if (b === undefined) continue;
    throw new SpecError(
      field,
      `Cannot use ports ${formatPortRange(a)} and ${formatPortRange(b)} together: they overlap`,
    );
  }
  return ranges;
}

/**
 * Which of the service's ports each target serves: those of its protocol where there is one range of them, else the one that begins where
 * it does, else, where as many ranges are told as the service has, each in its place.
 */
function backendsOf(
  targets: readonly Target[],
  ports: readonly PortRange[],
  { network, context }: { network: string; context: SpecContext },
): readonly Backend[] {
  const backends = targets.map((target): Backend => {
    const serves = servedBy(target, targets, ports);
    const { host, priority, weight } = target;
    const isContainer = typeof host === "string" && isWithinDomain(host, context.domain);
    if (isContainer && (target.network ?? MESH_NETWORK_NAME) !== MESH_NETWORK_NAME) {
      throw new SpecError("to", `Cannot use "${host}" in network "${target.network}": containers are in the mesh`);
    }
    return {
      host,
      network: isContainer ? MESH_NETWORK_NAME : checkNetworkName("to", target.network ?? network, context),
      serves,
      firstPort: target.ports.first,
      priority,
      weight,
    };
  });
  const unserved = ports.find((range) => !backends.some(({ serves }) => samePorts(serves, range)));
  if (unserved !== undefined) {
    throw new SpecError("port", `Cannot offer port ${formatPortRange(unserved)}: no target serves it`);
  }
  const texts = backends.map((backend) => formatBackend({ ...backend, priority: 0, weight: 1 }, network));
  const twice = texts.find((text, i) => texts.indexOf(text) < i);
  if (twice !== undefined) throw new SpecError("to", `Cannot use target "${twice}" twice`);
  return backends;
}

function servedBy({ ports: own, host }: Target, targets: readonly Target[], ports: readonly PortRange[]): PortRange {
  const alike = ports.filter(({ protocol }) => protocol === own.protocol);
  const told = distinct(targets.map((target) => target.ports).filter(({ protocol }) => protocol === own.protocol));
  const place = told.findIndex((range) => samePorts(range, own));
  const serves = alike.length === 1
    ? alike[0]
    : alike.find(({ first }) => first === own.first) ?? (told.length === alike.length ? alike[place] : undefined);
  const target = `${typeof host === "number" ? formatIpv4(host) : host}:${formatPortRange(own)}`;
  if (serves === undefined) {
    const known = ports.map(formatPortRange).join(", ");
    throw new SpecError("to", `Cannot tell which of the service's ports ${known} target "${target}" serves`);
  }
  if (portCount(serves) !== portCount(own)) {
    throw new SpecError(
      "to",
      `Cannot use target "${target}" for ports ${formatPortRange(serves)}: it has ${portCount(own)} ports, ` +
        `${portCount(serves)} are expected`,
    );
  }
  return serves;
}

/** Whether a name lies in the DNS domain. */
export function isWithinDomain(host: string, domain: string): boolean {
  return host.endsWith(`.${domain.replace(/\.$/, "").toLowerCase()}`);
}

function checkBackend({ host, network }: Backend, { ownAddresses }: SpecContext): void {
  if (host === "localhost" || typeof host === "string" && host.endsWith(".localhost")) {
    throw new SpecError(
      "to",
      `Cannot use "${host}" as target: it is this host itself, which only --allow-local allows`,
    );
  }
  if (typeof host !== "number") return;
  const reason = refusedBackend(host, ownAddresses?.(network) ?? []);
  if (reason !== undefined) throw new SpecError("to", `Cannot use "${formatIpv4(host)}" as target: ${reason}`);
}

const LOOPBACK = { address: 0x7f00_0000, prefixLength: 8 };
const LINK_LOCAL = { address: 0xa9fe_0000, prefixLength: 16 };
/** Where clouds and platforms answer machines about themselves, credentials included. */
const METADATA = new Map([
  [0xa9fe_a9fe, "the metadata service of clouds"],
  [0xa9fe_aa02, "the metadata service of containers"],
  [0x6464_64c8, "the metadata service of a cloud"],
  [0xc000_00c0, "the metadata service of a cloud"],
  [0xa83f_8110, "the host of a cloud's virtual machine"],
]);

/**
 * Why an address cannot be a backend unless `--allow-local` says so, to be put behind "Cannot import …: "; undefined: it can. To be asked
 * again for what a DNS name turns out to be.
 */
export function refusedBackend(address: Ipv4, own: readonly Ipv4[]): string | undefined {
  const what = localityOf(address, own);
  return what === undefined ? undefined : `${formatIpv4(address)} is ${what}, which only --allow-local allows`;
}

function localityOf(address: Ipv4, own: readonly Ipv4[]): string | undefined {
  if (cidrContains(LOOPBACK, address)) return "a loopback address";
  const metadata = METADATA.get(address);
  if (metadata !== undefined) return metadata;
  if (cidrContains(LINK_LOCAL, address)) return "a link-local address";
  if (!isHostAddress(address)) return "no address of a single host";
  return own.includes(address) ? "an address of this gateway itself" : undefined;
}

// Exports

/** @throws SpecError */
export function parseExport(input: ExportInput, context: SpecContext): ExportSpec {
  const { name, port } = parseExported(input.name, context);
  const network = checkNetworkName("network", input.network ?? HOST_NETWORK_NAME, context);
  if (network === MESH_NETWORK_NAME) {
    throw new SpecError("network", 'Cannot export to network "weave": what is imported is in the mesh already');
  }
  const listen = parseListen(input.listen);
  const reason = listen.address === "own" ? undefined : unusable(listen.address);
  if (reason !== undefined) {
    throw new SpecError("listen", `Cannot listen at "${formatIpv4(listen.address as Ipv4)}": it is ${reason}`);
  }
  return {
    name,
    port,
    network,
    listen,
    allow: input.allow === undefined ? undefined : parseCidrs("allow", input.allow),
    dns: input.dns ?? false,
    force: input.force ?? false,
  };
}

function parseExported(text: string, { domain }: SpecContext): Pick<ExportSpec, "name" | "port"> {
  const [nameText, portText] = splitAt(text, ":");
  const name = nameText.toLowerCase().replace(/\.$/, "");
  if (!name.includes(".")) {
    return { name: checkServiceName(name), port: parseExportedPort(portText) };
  }
  if (!isHostName(name) || !isWithinDomain(name, domain)) {
    throw new SpecError(
      "name",
      `Cannot export "${nameText}": the name of a service, or of a container in ${domain} is expected`,
    );
  }
  return { name, port: parseExportedPort(portText) };
}

function parseExportedPort(text: string | undefined): number | undefined {
  return text === undefined ? undefined : parseWhole("name", text, 1, MAX_PORT, "port of the service");
}

/** @throws SpecError */
export function parseListen(text: string): Listen {
  const listen = parseListenText(text);
  if (listen === undefined) {
    throw new SpecError(
      "listen",
      `Cannot listen at "${text}": [ADDRESS:]PORT[-PORT][/udp] is expected, such as 8080 or 192.168.1.100:8080`,
    );
  }
  return listen;
}

/** Clients on other machines have no way to such an address. */
function unusable(address: Ipv4): string | undefined {
  if (cidrContains(LOOPBACK, address)) return "a loopback address, which no other machine can reach";
  if (cidrContains(LINK_LOCAL, address)) return "a link-local address";
  return undefined;
}

/**
 * Why an export would cut the administrator off, unless `--force` says so; undefined: it would not.
 * @param listening ports on which the host itself listens at that address
 */
export function refusedListen({ ports }: Listen, listening: readonly PortRange[]): string | undefined {
  for (const [first, last] of PRECIOUS_PORTS) {
    if (ports.first > last || first > ports.last) continue;
    const what = first === 22
      ? "port 22 is how administrators get in"
      : `ports ${first} to ${last} are the router's own`;
    return `${what}; --force would take ${ports.first === ports.last ? "it" : "them"} away`;
  }
  const taken = listening.find((range) => portsOverlap(range, ports));
  if (taken === undefined) return undefined;
  return `the host itself listens on port ${formatPortRange(taken)}; --force would cut that off`;
}

/**
 * Which of a service's ports an export offers: as many as it listens on, from the port it names, else the only range of that protocol.
 * Undefined: the service has no such ports.
 */
export function exportedPorts({ port, listen }: ExportSpec, ports: readonly PortRange[]): PortRange | undefined {
  const { protocol } = listen.ports;
  const alike = ports.filter((range) => range.protocol === protocol);
  const count = portCount(listen.ports);
  if (port === undefined) return alike.length === 1 && portCount(alike[0]!) === count ? alike[0] : undefined;
  const last = port + count - 1;
  if (!alike.some((range) => range.first <= port && last <= range.last)) return undefined;
  return { protocol, first: port, last };
}

// Networks

/** @throws SpecError */
export function checkNetworkSpec({ name, interfaces, isolated }: NetworkSpec): NetworkSpec {
  checkFormOfNetwork("name", name);
  if (name === HOST_NETWORK_NAME || name === MESH_NETWORK_NAME) {
    throw new SpecError("name", `Cannot use "${name}" as name of a network: that one is always there`);
  }
  if (interfaces.length === 0) throw new SpecError("interfaces", `Cannot use network "${name}": it has no interface`);
  if (interfaces.length > MAX_INTERFACES) {
    throw new SpecError("interfaces", `Cannot use network "${name}": it has more than ${MAX_INTERFACES} interfaces`);
  }
  for (const [i, each] of interfaces.entries()) {
    if (!/^[^\s/:,]+$/.test(each) || each.length > MAX_INTERFACE || each === "." || each === "..") {
      throw new SpecError(
        "interfaces",
        `Cannot use "${each}" as interface of network "${name}": a name such as eth1 is expected`,
      );
    }
    if (each === "lo" || each === "weave") {
      throw new SpecError(
        "interfaces",
        `Cannot use "${each}" as interface of network "${name}": it is none of a site's`,
      );
    }
    if (interfaces.indexOf(each) < i) throw new SpecError("interfaces", `Cannot use interface "${each}" twice`);
  }
  return { name, interfaces: [...interfaces], isolated };
}

function checkNetworkName(field: string, text: string, { networks }: SpecContext): string {
  checkFormOfNetwork(field, text);
  if (text === HOST_NETWORK_NAME || text === MESH_NETWORK_NAME || networks === undefined || networks.includes(text)) {
    return text;
  }
  const known = [HOST_NETWORK_NAME, MESH_NETWORK_NAME, ...networks].map((name) => `"${name}"`).join(", ");
  throw new SpecError(field, `Cannot find network "${text}": there are ${known}; weave network add makes another`);
}

function checkFormOfNetwork(field: string, text: string): void {
  if (isNetworkName(text)) return;
  throw new SpecError(
    field,
    `Cannot use "${text}" as name of a network: up to 31 lower-case letters, digits and hyphens are expected`,
  );
}

// Small parts

/** A name as records and DNS have it, in lower case. @throws SpecError */
export function checkServiceName(text: string): string {
  const name = text.toLowerCase();
  if (!isServiceName(name)) {
    throw new SpecError(
      "name",
      `Cannot use "${text}" as name of a service: up to 63 letters, digits and hyphens are expected, no hyphen first or last`,
    );
  }
  return name;
}

/** Texts with commas, each perhaps several. @throws SpecError */
export function parseCidrs(field: string, texts: readonly string[]): readonly Cidr[] {
  const items = texts.flatMap((text) => text.split(","));
  if (items.length > MAX_ALLOWED) {
    throw new SpecError(field, `Cannot use ${items.length} subnets: at most ${MAX_ALLOWED} may be`);
  }
  const cidrs = items.map((item) => {
    const address = parseIpv4(item);
    const cidr = address === undefined ? parseCidr(item) : { address, prefixLength: 32 };
    if (cidr === undefined) {
      throw new SpecError(
        field,
        `Cannot use "${item}" as subnet: an address or a subnet such as 10.0.0.0/8 is expected`,
      );
    }
    return { address: networkOf(cidr), prefixLength: cidr.prefixLength };
  });
  return distinctBy(cidrs, formatCidr);
}

function parseSubnets(texts: readonly string[]): readonly Cidr[] {
  const subnets = parseCidrs("subnets", texts);
  if (subnets.length > MAX_SUBNETS) {
    throw new SpecError("subnets", `Cannot offer it in ${subnets.length} subnets: at most ${MAX_SUBNETS} may be`);
  }
  const narrow = subnets.find(({ prefixLength }) => prefixLength > 30 || prefixLength < 1);
  if (narrow !== undefined) {
    throw new SpecError(
      "subnets",
      `Cannot offer it in "${formatCidr(narrow)}": a subnet with room for hosts is expected`,
    );
  }
  return subnets;
}

function distinct(ranges: readonly PortRange[]): readonly PortRange[] {
  return distinctBy(ranges, formatPortRange);
}

function distinctBy<T>(items: readonly T[], keyOf: (item: T) => string): readonly T[] {
  return [...new Map(items.map((item) => [keyOf(item), item])).values()];
}
