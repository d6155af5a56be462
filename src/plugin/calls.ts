/**
 * What Docker asks of a driver for networks and addresses (the remote protocol of libnetwork and its IPAM), as it comes in: a path and
 * a JSON object. `decide` checks it and says what is to be done; whoever does it forms the answer with the functions below. Pure.
 *
 *     RequestPool → CreateNetwork → per container: RequestAddress → CreateEndpoint → Join … Leave → DeleteEndpoint → ReleaseAddress
 *
 * An endpoint is a veth: its host's end is a port of the bridge from the start, the other is moved into the container and renamed by
 * Docker, which gives it its address and routes too.
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
import type { Json } from "../lib/json.ts";
import { formatMac, type Mac } from "../lib/mac.ts";
import { ENDPOINT_GUEST_PREFIX, ENDPOINT_PORT_PREFIX } from "../lib/port_names.ts";

/** As what a socket of ours serves Docker. */
export interface Role {
  /** Of its networks: this host's own, or those of a cluster. */
  readonly scope: "local" | "global";
  /** It gives addresses as well. */
  readonly ipam: boolean;
  /** For networks that do not say it themselves. */
  readonly multicast: boolean;
}

/** Subnet of a network, and the part of it to give addresses from. */
export interface Pool {
  readonly subnet: Cidr;
  readonly range: Cidr;
}

export type Action =
  | { readonly do: "answer"; readonly body: Json }
  /** `unknown` are options that were given and mean nothing to us. */
  | {
    readonly do: "createNetwork";
    readonly id: string;
    readonly multicast: boolean;
    readonly unknown: readonly string[];
  }
  | { readonly do: "deleteNetwork"; readonly id: string }
  /** Then `endpointAnswer`. */
  | { readonly do: "createEndpoint"; readonly id: string; readonly mac: Mac | undefined }
  | { readonly do: "deleteEndpoint"; readonly id: string }
  /** Then `joinAnswer`. The sandbox is the path of the container's network namespace, as far as it is known. */
  | { readonly do: "join"; readonly network: string; readonly endpoint: string; readonly sandbox: string | undefined }
  /** Its interface is back; it goes with the endpoint. Then `{}`, as for all that have no answer of their own. */
  | { readonly do: "leave"; readonly endpoint: string }
  /** An address of the pool: this one, or any. Then `addressAnswer`. */
  | { readonly do: "requestAddress"; readonly pool: Pool; readonly address: Ipv4 | undefined }
  | { readonly do: "releaseAddress"; readonly address: Ipv4 };

/** What Docker is told instead of an answer; it hands the text on to whoever asked it. */
export class Refusal extends Error {
  constructor(message: string, readonly status: 404 | 500 = 500) {
    super(message);
  }
}

export interface Facts {
  /** Where no subnet is named; undefined: nobody allocates addresses here. */
  readonly defaultSubnet: Cidr | undefined;
}

/** Where the route of a network with multicast leads to. */
export const MULTICAST = "224.0.0.0/4";

/** Whether multicast is for the overlay, in a network of Docker. */
export const MULTICAST_OPTION = "works.weave.multicast";

/** Container's interfaces in such networks: this and a number. */
const INTERFACE_PREFIX = "ethwe";
const GENERIC_OPTIONS = "com.docker.network.generic";
const MIN_PREFIX_LENGTH = 8;
const MAX_PREFIX_LENGTH = 30;
/** Of an endpoint's id in the names of its two interfaces. */
const ID_DIGITS = 9;

type Fields = { readonly [name: string]: unknown };

/** @throws Refusal */
export function decide(path: string, body: Uint8Array, role: Role, facts: Facts): Action {
  const [, driver, method] = /^\/(\w+)\.(\w+)$/.exec(path) ?? [];
  if (driver === "Plugin" && method === "Activate") {
    return answer({ Implements: ["NetworkDriver", ...role.ipam ? ["IpamDriver"] : []] });
  }
  if (driver === "NetworkDriver") return decideNetwork(method!, readFields(body), role);
  if (driver === "IpamDriver" && role.ipam) return decideAddress(method!, readFields(body), facts);
  throw unknown(path);
}

function decideNetwork(method: string, fields: Fields, role: Role): Action {
  switch (method) {
    case "GetCapabilities":
      return answer({ Scope: role.scope });
    case "AllocateNetwork": // where a cluster manager asks: nothing has to be agreed on beforehand
      return answer({ Options: {} });
    case "CreateNetwork":
      return { do: "createNetwork", id: readId(fields, "NetworkID"), ...readOptions(fields, role) };
    case "DeleteNetwork":
      return { do: "deleteNetwork", id: readId(fields, "NetworkID") };
    case "CreateEndpoint":
      readId(fields, "NetworkID");
      return { do: "createEndpoint", id: readId(fields, "EndpointID"), mac: readInterface(fields) };
    case "DeleteEndpoint":
      return { do: "deleteEndpoint", id: readId(fields, "EndpointID") };
    case "EndpointOperInfo":
      return answer({ Value: {} });
    case "Join":
      return {
        do: "join",
        network: readId(fields, "NetworkID"),
        endpoint: readId(fields, "EndpointID"),
        sandbox: typeof fields["SandboxKey"] === "string" ? fields["SandboxKey"] : undefined,
      };
    case "Leave":
      return { do: "leave", endpoint: readId(fields, "EndpointID") };
    case "FreeNetwork":
    case "DiscoverNew":
    case "DiscoverDelete":
    case "ProgramExternalConnectivity":
    case "RevokeExternalConnectivity":
      return answer({});
    default:
      throw unknown(`/NetworkDriver.${method}`);
  }
}

function decideAddress(method: string, fields: Fields, { defaultSubnet }: Facts): Action {
  switch (method) {
    case "GetCapabilities":
      return answer({ RequiresMACAddress: false, RequiresRequestReplay: false });
    case "GetDefaultAddressSpaces":
      return answer({ LocalDefaultAddressSpace: "weavelocal", GlobalDefaultAddressSpace: "weaveglobal" });
    case "RequestPool": {
      const pool = readPoolRequest(fields, defaultSubnet);
      const subnet = formatCidr(pool.subnet);
      // Docker wants a gateway and would take an address for one; this is none, and nobody uses it.
      return answer({ PoolID: poolId(pool), Pool: subnet, Data: { "com.docker.network.gateway": subnet } });
    }
    case "ReleasePool":
      return answer({});
    case "RequestAddress": {
      const pool = readPool(fields);
      const address = readAddress(fields, pool.subnet);
      if (address === networkOf(pool.subnet)) return answer(addressAnswer(address, pool));
      return { do: "requestAddress", pool, address };
    }
    case "ReleaseAddress": {
      const pool = readPool(fields);
      const address = readAddress(fields, pool.subnet);
      if (address === undefined) throw new Refusal("Cannot release an address: none is named");
      return address === networkOf(pool.subnet) ? answer({}) : { do: "releaseAddress", address };
    }
    default:
      throw unknown(`/IpamDriver.${method}`);
  }
}

// Answers

/** @param made the MAC address of its interface where we chose it */
export function endpointAnswer(made: Mac | undefined): Json {
  return { Interface: made === undefined ? {} : { MacAddress: formatMac(made) } };
}

/** @param multicast 224.0.0.0/4 leads into this network */
export function joinAnswer(endpoint: string, multicast: boolean): Json {
  return {
    InterfaceName: { SrcName: endpointLinks(endpoint).guest, DstPrefix: INTERFACE_PREFIX },
    // Without a next hop.
    ...multicast ? { StaticRoutes: [{ Destination: MULTICAST, RouteType: 1 }] } : {},
  };
}

export function addressAnswer(address: Ipv4, { subnet }: Pool): Json {
  return { Address: formatCidr({ address, prefixLength: subnet.prefixLength }), Data: {} };
}

export function refusalAnswer(message: string): Json {
  return { Err: message };
}

/** Names of the two ends of an endpoint's veth in the host. */
export function endpointLinks(endpoint: string): { readonly host: string; readonly guest: string } {
  const digits = endpoint.slice(0, ID_DIGITS);
  return { host: `${ENDPOINT_PORT_PREFIX}${digits}`, guest: `${ENDPOINT_GUEST_PREFIX}${digits}` };
}

function answer(body: Json): Action {
  return { do: "answer", body };
}

function unknown(path: string): Refusal {
  return new Refusal(`${show(path)} is not known here`, 404);
}

// Reading

function readFields(body: Uint8Array): Fields {
  const text = new TextDecoder().decode(body).trim();
  if (text === "") return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Refusal("Cannot understand the request: it is not JSON");
  }
  if (!isFields(value)) throw new Refusal("Cannot understand the request: it is no JSON object");
  return value;
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Part of it names interfaces. */
function readId(fields: Fields, name: string): string {
  const id = fields[name];
  if (typeof id !== "string" || !/^[\w.-]{9,256}$/.test(id)) {
    throw new Refusal(`Cannot understand the request: ${name} must be an id, is ${show(id)}`);
  }
  return id;
}

function readOptions(fields: Fields, role: Role): { multicast: boolean; unknown: readonly string[] } {
  const options = isFields(fields["Options"]) ? fields["Options"] : {};
  const generic = isFields(options[GENERIC_OPTIONS]) ? options[GENERIC_OPTIONS] : {};
  const unknown = Object.keys(generic).filter((name) => name !== MULTICAST_OPTION);
  return { multicast: readMulticast(generic[MULTICAST_OPTION]) ?? role.multicast, unknown };
}

/** As Docker gives an option of a network: a text, empty where no value was named. Undefined where it was not given. */
export function readMulticast(value: unknown): boolean | undefined {
  if (value === undefined) return undefined;
  if (value === "" || value === true || typeof value === "string" && /^(1|t|true)$/i.test(value)) return true;
  if (value === false || typeof value === "string" && /^(0|f|false)$/i.test(value)) return false;
  throw new Refusal(`Cannot use ${show(value)} as ${MULTICAST_OPTION}: true or false expected`);
}

/** The MAC address that the interface is to have, where one was asked for. */
function readInterface(fields: Fields): Mac | undefined {
  const wanted = fields["Interface"];
  if (!isFields(wanted)) throw new Refusal("Cannot make an endpoint: no interface is described");
  const text = wanted["MacAddress"];
  if (text === undefined || text === null || text === "") return undefined;
  if (typeof text !== "string" || !/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/i.test(text)) {
    throw new Refusal(
      `Cannot use ${show(text)} as MAC address: that of one station expected, such as 02:00:00:00:00:01`,
    );
  }
  return parseInt(text.replaceAll(":", ""), 16) as Mac;
}

function readPoolRequest(fields: Fields, defaultSubnet: Cidr | undefined): Pool {
  const { Pool: pool, SubPool: subPool, V6: v6 } = fields;
  if (v6 === true) throw new Refusal("Cannot give IPv6 addresses: only IPv4 is allocated");
  if (!isGiven(pool)) {
    if (isGiven(subPool)) throw new Refusal("Cannot use an address range without its subnet");
    if (defaultSubnet === undefined) {
      throw new Refusal("Cannot choose a subnet: the router allocates no addresses (its --ipalloc-range is empty)");
    }
    return { subnet: defaultSubnet, range: defaultSubnet };
  }
  const subnet = readSubnet(pool, "subnet");
  if (!isGiven(subPool)) return { subnet, range: subnet };
  const range = readSubnet(subPool, "address range");
  if (range.prefixLength < subnet.prefixLength || !cidrContains(subnet, range.address)) {
    throw new Refusal(`Cannot use ${formatCidr(range)} as address range: it is not within ${formatCidr(subnet)}`);
  }
  return { subnet, range };
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null && value !== "";
}

function readSubnet(value: unknown, what: string): Cidr {
  const cidr = typeof value === "string" ? parseCidr(value) : undefined;
  const why = cidr === undefined
    ? "a.b.c.d/length expected"
    : cidr.prefixLength < MIN_PREFIX_LENGTH || cidr.prefixLength > MAX_PREFIX_LENGTH
    ? `length must be ${MIN_PREFIX_LENGTH} to ${MAX_PREFIX_LENGTH}`
    : networkOf(cidr) !== cidr.address
    ? "bits after its length are set"
    : undefined;
  if (why !== undefined) throw new Refusal(`Cannot use ${show(value)} as ${what}: ${why}`);
  return cidr!;
}

/** It has in it all that we must know of a pool later on. */
function poolId({ subnet, range }: Pool): string {
  return `weave-${formatCidr(subnet)}-${formatCidr(range)}`;
}

function readPool(fields: Fields): Pool {
  const id = fields["PoolID"];
  const [, subnetText = "", rangeText = ""] = typeof id === "string" ? /^weave-([^-]+)-([^-]+)$/.exec(id) ?? [] : [];
  const subnet = parseCidr(subnetText);
  const range = parseCidr(rangeText);
  if (subnet === undefined || range === undefined) throw new Refusal(`Unrecognized pool ID: ${show(id)}`);
  return { subnet, range };
}

/** Without a prefix length, or with the subnet's. */
function readAddress(fields: Fields, subnet: Cidr): Ipv4 | undefined {
  const text = fields["Address"];
  if (!isGiven(text)) return undefined;
  const address = typeof text === "string" ? parseIpv4(text.replace(/\/\d+$/, "")) : undefined;
  if (address === undefined) throw new Refusal(`Cannot use ${show(text)} as address: a.b.c.d expected`);
  if (!cidrContains(subnet, address)) {
    throw new Refusal(`Cannot use ${formatIpv4(address)}: it is not within ${formatCidr(subnet)}`);
  }
  return address;
}

/** What somebody sent, short enough to be said. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
