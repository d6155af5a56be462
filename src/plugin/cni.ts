/**
 * The Container Network Interface (spec 0.1.0 to 1.0.0) as far as it is text: what a container runtime says by variables and standard
 * input, and what it is answered. Pure. Inside the program a result has the shape of 1.0.0.
 */
import { type Cidr, formatCidr, formatIpv4, type Ipv4, parseCidr, parseIpv4 } from "../lib/ip.ts";
import type { Json, JsonObject } from "../lib/json.ts";

/** Oldest first. */
export const CNI_VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] as const;
export type CniVersion = typeof CNI_VERSIONS[number];

/** Error codes of the specification; those from 100 on are a plugin's own. */
export const CNI_CODE = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  environment: 4,
  io: 5,
  decoding: 6,
  config: 7,
  tryAgain: 11,
  failed: 100,
} as const;

/** What a runtime is told instead of a result. */
export class CniError extends Error {
  override readonly name = "CniError";
  /** @param details more about it, where there is more */
  constructor(readonly code: number, message: string, readonly details = "", options?: ErrorOptions) {
    super(message, options);
  }
}

export type CniCall = CniVersionCall | CniContainerCall;

export interface CniVersionCall {
  readonly command: "VERSION";
}

export interface CniContainerCall {
  readonly command: "ADD" | "DEL" | "CHECK";
  readonly containerId: string;
  /** Path of its network namespace; undefined only for DEL, where it may be gone. */
  readonly netns: string | undefined;
  /** Of the interface inside. */
  readonly ifName: string;
  /** Folders of other plugins. */
  readonly path: readonly string[];
  readonly config: CniConfig;
}

export interface CniConfig {
  readonly version: CniVersion;
  readonly name: string;
  /** undefined: ours. */
  readonly bridge: string | undefined;
  /** undefined: the bridge's. */
  readonly mtu: number | undefined;
  readonly hairpin: boolean;
  readonly ipam: CniIpam;
  /** What is handed on to the container runtime. */
  readonly dns: JsonObject;
  /** Of the plugins before us, or for CHECK of the ADD. */
  readonly previous: CniResult | undefined;
}

export interface CniIpam {
  /** Program that gives addresses; undefined: the router does. */
  readonly plugin: string | undefined;
  /** undefined: the default subnet. */
  readonly subnet: Cidr | undefined;
  readonly gateway: Ipv4 | undefined;
  /** undefined: nothing is said about routes, which is not the same as none. */
  readonly routes: readonly CniRoute[] | undefined;
}

export interface CniRoute {
  readonly destination: Cidr;
  readonly gateway: Ipv4 | undefined;
}

export interface CniResult {
  readonly interfaces: readonly CniInterface[];
  readonly ips: readonly CniIp[];
  /** As text, as they may be IPv6. */
  readonly routes: readonly { readonly dst: string; readonly gw?: string }[];
  readonly dns: JsonObject;
}

export interface CniInterface {
  readonly name: string;
  readonly mac?: string;
  /** Path of a network namespace; absent for the host's. */
  readonly sandbox?: string;
}

export interface CniIp {
  /** With its prefix length; IPv4 or IPv6. */
  readonly address: string;
  readonly gateway?: string;
  /** Index of its interface. */
  readonly interface?: number;
}

type Fields = Readonly<Record<string, unknown>>;

const MAX_NAME = 255;
/** Linux's IFNAMSIZ without its end. */
const MAX_INTERFACE_NAME = 15;
const MIN_MTU = 576;
const MAX_MTU = 65535;
/** This very plugin, called as the other. */
const OUR_IPAM = "weave-ipam";

/** What is asked. @throws CniError */
export function readCall(env: (name: string) => string | undefined, stdin: string): CniCall {
  const command = env("CNI_COMMAND") ?? "";
  if (command === "VERSION") return { command };
  if (command !== "ADD" && command !== "DEL" && command !== "CHECK") {
    throw new CniError(CNI_CODE.environment, `unknown CNI_COMMAND: ${show(command)}`);
  }
  const required = ["CNI_CONTAINERID", "CNI_IFNAME", ...command === "DEL" ? [] : ["CNI_NETNS"]];
  const missing = required.filter((name) => (env(name) ?? "") === "");
  if (missing.length > 0) {
    throw new CniError(CNI_CODE.environment, `required env variables [${missing.join(",")}] missing`);
  }
  const containerId = env("CNI_CONTAINERID")!;
  if (!/^[a-z0-9][\w.-]*$/i.test(containerId) || containerId.length > MAX_NAME) {
    throw new CniError(CNI_CODE.environment, `invalid characters in containerID: ${show(containerId)}`);
  }
  const ifName = env("CNI_IFNAME")!;
  if (ifName.length > MAX_INTERFACE_NAME || ifName === "." || ifName === ".." || !/^[^\s/:]+$/.test(ifName)) {
    throw new CniError(CNI_CODE.environment, `interface name is invalid: ${show(ifName)}`);
  }
  const config = readConfig(stdin);
  if (command === "CHECK" && CNI_VERSIONS.indexOf(config.version) < CNI_VERSIONS.indexOf("0.4.0")) {
    throw new CniError(CNI_CODE.incompatibleVersion, "config version does not allow CHECK");
  }
  const path = (env("CNI_PATH") ?? "").split(":").filter((folder) => folder.startsWith("/"));
  return { command, containerId, ifName, netns: env("CNI_NETNS") || undefined, path, config };
}

function readConfig(text: string): CniConfig {
  const fields = parseObject(text);
  const version = readVersion(fields["cniVersion"]);
  const name = fields["name"];
  if (typeof name !== "string" || name === "") throw wrongConfig("missing network name");
  if (!/^[a-z0-9][\w.-]*$/i.test(name) || name.length > MAX_NAME) {
    throw wrongConfig(`invalid characters found in network name: ${show(name)}`);
  }
  if (fields["isGateway"] === true) throw unsupported("isGateway", "Gateway functionality not supported");
  if (fields["ipMasq"] === true) throw unsupported("ipMasq", "IP Masquerading functionality not supported");
  const { bridge, mtu, hairpinMode, dns, prevResult } = fields;
  if (bridge !== undefined && (typeof bridge !== "string" || bridge.length > MAX_INTERFACE_NAME)) {
    throw wrongConfig(`bridge must be the name of an interface, is ${show(bridge)}`);
  }
  if (hairpinMode !== undefined && typeof hairpinMode !== "boolean") {
    throw wrongConfig(`hairpinMode must be true or false, is ${show(hairpinMode)}`);
  }
  return {
    version,
    name,
    bridge: bridge || undefined,
    mtu: readMtu(mtu),
    hairpin: hairpinMode ?? true,
    ipam: readIpam(fields["ipam"]),
    dns: isFields(dns) ? dns as JsonObject : {},
    previous: prevResult === undefined || prevResult === null ? undefined : readResult(prevResult),
  };
}

function readVersion(version: unknown): CniVersion {
  if (version === undefined || version === "") return "0.1.0";
  const known = CNI_VERSIONS.find((one) => one === version);
  if (known !== undefined) return known;
  throw new CniError(
    CNI_CODE.incompatibleVersion,
    "incompatible CNI versions",
    `config is ${show(version)}, plugin supports ${JSON.stringify(CNI_VERSIONS)}`,
  );
}

function readMtu(mtu: unknown): number | undefined {
  if (mtu === undefined || mtu === 0) return undefined;
  if (typeof mtu === "number" && Number.isInteger(mtu) && mtu >= MIN_MTU && mtu <= MAX_MTU) return mtu;
  throw wrongConfig(`mtu must be ${MIN_MTU} to ${MAX_MTU}, is ${show(mtu)}`);
}

function readIpam(value: unknown): CniIpam {
  const fields = value === undefined || value === null ? {} : isFields(value) ? value : undefined;
  if (fields === undefined) throw wrongConfig("ipam must be an object");
  const { type = "", subnet, gateway, routes } = fields;
  if (typeof type !== "string" || type.includes("/")) throw wrongConfig(`ipam.type must be a name, is ${show(type)}`);
  // What another program is told is none of our business.
  if (type !== "" && type !== OUR_IPAM) {
    return { plugin: type, subnet: undefined, gateway: undefined, routes: undefined };
  }
  return {
    plugin: undefined,
    subnet: isEmpty(subnet) ? undefined : readIpv4("ipam.subnet", subnet, parseCidr),
    gateway: isEmpty(gateway) ? undefined : readIpv4("ipam.gateway", gateway, parseIpv4),
    routes: routes === undefined || routes === null ? undefined : readRoutes(routes),
  };
}

function readRoutes(routes: unknown): CniRoute[] {
  if (!Array.isArray(routes) || !routes.every(isFields)) throw wrongConfig("routes must be a list of objects");
  return routes.map(({ dst, gw }) => ({
    destination: readIpv4("dst of a route", dst, parseCidr),
    gateway: isEmpty(gw) ? undefined : readIpv4("gw of a route", gw, parseIpv4),
  }));
}

function readIpv4<T>(what: string, value: unknown, parse: (text: string) => T | undefined): T {
  const parsed = typeof value === "string" ? parse(value) : undefined;
  if (parsed === undefined) throw wrongConfig(`${what} must be IPv4, is ${show(value)}`);
  return parsed;
}

// Results

/** A result of any version, told apart by what it has. @throws CniError */
export function readResult(value: unknown): CniResult {
  if (!isFields(value)) throw new CniError(CNI_CODE.decoding, "a result must be an object");
  const dns = isFields(value["dns"]) ? value["dns"] as JsonObject : {};
  const { ip4, ip6 } = value;
  if (isFields(ip4) || isFields(ip6)) return { ...readOldIps([ip4, ip6]), dns };
  return {
    interfaces: listOf(value["interfaces"]).map(({ name, mac, sandbox }) => ({
      name: text(name),
      ...isEmpty(mac) ? {} : { mac: text(mac) },
      ...isEmpty(sandbox) ? {} : { sandbox: text(sandbox) },
    })),
    ips: listOf(value["ips"]).map(({ address, gateway, interface: index }) => ({
      address: text(address),
      ...isEmpty(gateway) ? {} : { gateway: text(gateway) },
      ...typeof index === "number" ? { interface: index } : {},
    })),
    routes: readResultRoutes(value["routes"]),
    dns,
  };
}

/** Until 0.2.0 there is an address of each family, with its routes. */
function readOldIps(configs: readonly unknown[]): Omit<CniResult, "dns"> {
  const found = configs.filter(isFields);
  return {
    interfaces: [],
    ips: found.map(({ ip, gateway }) => ({
      address: text(ip),
      ...isEmpty(gateway) ? {} : { gateway: text(gateway) },
    })),
    routes: found.flatMap(({ routes }) => readResultRoutes(routes)),
  };
}

function readResultRoutes(value: unknown): CniResult["routes"] {
  return listOf(value).map(({ dst, gw }) => ({ dst: text(dst), ...isEmpty(gw) ? {} : { gw: text(gw) } }));
}

/** As a runtime that speaks this version understands it. */
export function writeResult({ interfaces, ips, routes, dns }: CniResult, version: CniVersion): Json {
  if (version === "0.1.0" || version === "0.2.0") {
    const [ip4, ip6] = [false, true].map((isSix) => {
      const ip = ips.find(({ address }) => address.includes(":") === isSix);
      const own = routes.filter(({ dst }) => dst.includes(":") === isSix);
      return ip === undefined ? undefined : {
        ip: ip.address,
        ...ip.gateway === undefined ? {} : { gateway: ip.gateway },
        ...own.length === 0 ? {} : { routes: own },
      };
    });
    return { cniVersion: version, ...ip4 && { ip4 }, ...ip6 && { ip6 }, dns };
  }
  return {
    cniVersion: version,
    ...interfaces.length === 0 ? {} : { interfaces: interfaces as unknown as Json },
    ips: ips.map((ip) => ({
      ...version === "1.0.0" ? {} : { version: ip.address.includes(":") ? "6" : "4" },
      ...ip,
    })),
    ...routes.length === 0 ? {} : { routes: routes as unknown as Json },
    dns,
  };
}

/** What plugins before us had, and ours. */
export function chained(previous: CniResult | undefined, ours: CniResult): CniResult {
  if (previous === undefined) return ours;
  const before = previous.interfaces.length;
  return {
    interfaces: [...previous.interfaces, ...ours.interfaces],
    ips: [
      ...previous.ips,
      ...ours.ips.map((ip) => ip.interface === undefined ? ip : { ...ip, interface: ip.interface + before }),
    ],
    routes: [...previous.routes, ...ours.routes],
    dns: Object.keys(ours.dns).length > 0 ? ours.dns : previous.dns,
  };
}

export function writeVersions(): Json {
  return { cniVersion: CNI_VERSIONS.at(-1)!, supportedVersions: CNI_VERSIONS };
}

/** @param version of the configuration as far as it could be read */
export function writeError({ code, message, details }: CniError, version: CniVersion | undefined): Json {
  return { cniVersion: version ?? "0.1.0", code, msg: message, ...details === "" ? {} : { details } };
}

/** Of a configuration that may be wrong in every other way. */
export function versionOf(stdin: string): CniVersion | undefined {
  try {
    return readVersion(parseObject(stdin)["cniVersion"]);
  } catch {
    return undefined;
  }
}

// What is to be done

/** Who holds the addresses of an interface: the container, whose further interfaces are told apart. */
export function ownerId(containerId: string, ifName: string): string {
  return ifName === "eth0" ? containerId : `${containerId}:${ifName}`;
}

/** How an interface reaches others: with no word on it, everything else by way of the host. */
export type Routing =
  | { readonly via: "bridge" }
  | { readonly via: "given"; readonly gateway: Ipv4 | undefined; readonly routes: readonly CniRoute[] };

/** @param ipam what was said about it, as configuration or by the program that gave the address */
export function routingOf({ gateway, routes }: Pick<CniIpam, "gateway" | "routes">): Routing {
  if (routes !== undefined) return { via: "given", gateway, routes };
  return gateway === undefined ? { via: "bridge" } : { via: "given", gateway, routes: [defaultRoute(gateway)] };
}

export function defaultRoute(gateway: Ipv4): CniRoute {
  return { destination: { address: 0, prefixLength: 0 }, gateway };
}

export interface Given {
  readonly cidr: Cidr;
  readonly gateway: Ipv4 | undefined;
  readonly routes: readonly CniRoute[] | undefined;
}

/** What another program gave: one address or more, all of them IPv4. @throws CniError */
export function readGiven(result: CniResult): readonly [Given, ...Given[]] {
  const routes = result.routes.length === 0 ? undefined : readRoutes(result.routes);
  const given = result.ips.map(({ address, gateway }): Given => ({
    cidr: readIpv4("an address", address, parseCidr),
    gateway: gateway === undefined ? undefined : readIpv4("a gateway", gateway, parseIpv4),
    routes,
  }));
  if (given.length === 0) throw new CniError(CNI_CODE.failed, "IPAM plugin failed to allocate IP address");
  return given as [Given, ...Given[]];
}

/** The part of a result that says what an interface has. */
export function addressResult(
  cidrs: readonly Cidr[],
  { gateway, routes }: { readonly gateway: Ipv4 | undefined; readonly routes: readonly CniRoute[] },
): Pick<CniResult, "ips" | "routes"> {
  return {
    ips: cidrs.map((cidr) => ({
      address: formatCidr(cidr),
      ...gateway === undefined ? {} : { gateway: formatIpv4(gateway) },
    })),
    routes: routes.map(({ destination, gateway }) => ({
      dst: formatCidr(destination),
      ...gateway === undefined ? {} : { gw: formatIpv4(gateway) },
    })),
  };
}

function parseObject(text: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CniError(CNI_CODE.decoding, "the configuration is not JSON", (error as Error).message);
  }
  if (!isFields(value)) throw new CniError(CNI_CODE.decoding, "the configuration is no JSON object");
  return value;
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function listOf(value: unknown): Fields[] {
  return Array.isArray(value) ? value.filter(isFields) : [];
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || value === "";
}

function wrongConfig(message: string): CniError {
  return new CniError(CNI_CODE.config, message);
}

function unsupported(field: string, message: string): CniError {
  return new CniError(CNI_CODE.unsupportedField, message, `${field} is true`);
}

/** What somebody sent, short enough to be said. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
