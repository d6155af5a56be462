/** Networks as the Docker engine sees them, and the one that is always there: `weave`. */
import { askEngine, askEngineFor, messageOf } from "../host/docker_api.ts";
import { dockerIsThere } from "../host/docker.ts";
import { keptConfig } from "../host/docker_files.ts";
import { OperationError } from "../lib/errors.ts";
import { type Cidr, formatCidr, type Ipv4, parseIpv4 } from "../lib/ip.ts";
import { MULTICAST_OPTION } from "../plugin/calls.ts";
import type { Progress } from "./address_book.ts";

export interface DockerNetwork {
  readonly id: string;
  readonly name: string;
  readonly driver: string;
  readonly ipamDriver: string;
  readonly subnets: readonly string[];
  /** That no container has: gateways, and what was set aside. */
  readonly reserved: readonly Ipv4[];
  readonly options: Readonly<Record<string, unknown>>;
  readonly endpoints: readonly DockerEndpoint[];
}

export interface DockerEndpoint {
  readonly id: string;
  /** As its container, also before it is the container's. */
  readonly name: string;
  /** Full id of its container; otherwise something else. */
  readonly container: string;
  readonly address: Ipv4 | undefined;
}

export interface NetworkedContainer {
  readonly id: string;
  /** Without the leading slash. */
  readonly name: string;
  readonly running: boolean;
  /** First process; 0 where it does not run. */
  readonly pid: number;
  readonly hostname: string;
  readonly domainname: string;
  readonly networks: readonly {
    readonly id: string;
    readonly address: Ipv4 | undefined;
    readonly aliases: readonly string[];
  }[];
}

/** Name of the network that is made for everybody. */
export const DEFAULT_NETWORK = "weave";
const LIMIT_MS = 10_000;

type Fields = Readonly<Record<string, unknown>>;

/** By id or name; undefined where there is none. */
export async function findNetwork(reference: string, limitMs = LIMIT_MS): Promise<DockerNetwork | undefined> {
  const found = await askEngineFor(`/networks/${encodeURIComponent(reference)}`, limitMs);
  return found === undefined ? undefined : readNetwork(found);
}

/** All networks of these drivers, with their endpoints. */
export async function networksOf(drivers: readonly string[]): Promise<DockerNetwork[]> {
  const list = await askEngineFor(`/networks?filters=${encodeURIComponent(JSON.stringify({ driver: drivers }))}`);
  const ids = fieldsIn(list).filter(({ Driver }) => drivers.includes(String(Driver))).map(({ Id }) => String(Id));
  const networks: DockerNetwork[] = [];
  for (const id of ids) {
    const network = await findNetwork(id);
    if (network !== undefined) networks.push(network);
  }
  return networks;
}

/** Running containers, and the ids of the networks that each is in. */
export async function runningInNetworks(): Promise<{ readonly id: string; readonly networks: readonly string[] }[]> {
  return fieldsIn(await askEngineFor("/containers/json")).map(({ Id, NetworkSettings }) => ({
    id: String(Id),
    networks: valuesOf(fields(NetworkSettings)["Networks"]).map(({ NetworkID }) => String(NetworkID)),
  }));
}

/**
 * The container that an endpoint is for, which is being started: Docker says nothing else about it until it runs, so its hostname and
 * aliases are taken from where Docker keeps them, as far as they are found there.
 */
export async function startingContainer(
  network: string,
  endpoint: string,
  limitMs: number,
): Promise<NetworkedContainer | undefined> {
  const found = await findNetwork(network, limitMs);
  const own = found?.endpoints.find(({ id }) => id === endpoint);
  if (found === undefined || own === undefined || own.name === "") return undefined;
  const filters = encodeURIComponent(JSON.stringify({ name: [`^/${own.name}$`] }));
  const [container, another] = fieldsIn(await askEngineFor(`/containers/json?all=1&filters=${filters}`, limitMs));
  const id = text(container?.["Id"]);
  if (!/^[0-9a-f]{64}$/.test(id) || another !== undefined) return undefined;
  const kept = fields(await keptConfig(id, limitMs));
  const { Hostname, Domainname } = fields(kept["Config"]);
  const inNetworks = fields(fields(kept["NetworkSettings"])["Networks"]);
  const { Aliases } = fields(inNetworks[found.name] ?? inNetworks[found.id]);
  return {
    id,
    name: own.name,
    running: false,
    pid: 0,
    hostname: text(Hostname),
    domainname: text(Domainname),
    networks: [{ id: found.id, address: own.address, aliases: texts(Aliases) }],
  };
}

/** undefined for one that is not there any more. */
export async function inspectNetworked(id: string): Promise<NetworkedContainer | undefined> {
  const found = await askEngineFor(`/containers/${encodeURIComponent(id)}/json`);
  return found === undefined ? undefined : readNetworked(found);
}

export interface DefaultNetwork {
  /** Of networks and of addresses. */
  readonly driver: string;
  readonly subnet: Cidr;
}

/** Makes the default network, or makes it anew where it is another one and nobody is in it. Says why it cannot. */
export async function ensureDefaultNetwork({ driver, subnet }: DefaultNetwork, progress: Progress): Promise<void> {
  const there = await findNetwork(DEFAULT_NETWORK);
  if (there !== undefined) {
    if (isAsWanted(there, { driver, subnet })) return;
    if (there.driver !== driver) {
      progress.warn(`Docker has a network "${DEFAULT_NETWORK}" of driver "${there.driver}", which is left as it is`);
      return;
    }
    if (there.endpoints.length > 0) {
      progress.warn(
        `Docker's network "${DEFAULT_NETWORK}" has subnet ${there.subnets.join(", ")} instead of ${
          formatCidr(subnet)
        }, ` +
          "and cannot be made anew while containers are in it",
      );
      return;
    }
    await removeNetwork(there);
  }
  const { status, json } = await askEngine({
    method: "POST",
    path: "/networks/create",
    body: {
      Name: DEFAULT_NETWORK,
      CheckDuplicate: true,
      Driver: driver,
      IPAM: { Driver: driver, Config: [{ Subnet: formatCidr(subnet) }] },
      Options: { [MULTICAST_OPTION]: "true" },
    },
  });
  if (status === 201) return;
  throw new OperationError(`Cannot make Docker's network "${DEFAULT_NETWORK}": ${messageOf(json)}`);
}

/** Before the router that serves it stops. Where containers are in it, it stays, and they are named. */
export async function removeDefaultNetwork(driver: string, progress: Progress): Promise<void> {
  if (!dockerIsThere()) return;
  try {
    const network = await findNetwork(DEFAULT_NETWORK);
    if (network === undefined || network.driver !== driver) return;
    if (network.endpoints.length === 0) return await removeNetwork(network);
    progress.warn(
      `WARNING: the following containers are still attached to network "${DEFAULT_NETWORK}":\n` +
        network.endpoints.map(({ container }) => `  ${container.slice(0, 12)}`).join("\n"),
    );
  } catch (error) {
    progress.warn(`WARNING: ${(error as Error).message}`);
  }
}

async function removeNetwork({ id, name }: DockerNetwork): Promise<void> {
  const { status, json } = await askEngine({ method: "DELETE", path: `/networks/${id}` });
  if (status === 204 || status === 404) return;
  throw new OperationError(`Cannot remove Docker's network "${name}": ${messageOf(json)}`);
}

function isAsWanted(there: DockerNetwork, { driver, subnet }: DefaultNetwork): boolean {
  return there.driver === driver && there.ipamDriver === driver && there.subnets.length === 1 &&
    there.subnets[0] === formatCidr(subnet);
}

// Reading; what is missing is as if it were empty, as engines differ

export function readNetwork(answer: unknown): DockerNetwork {
  const { Id, Name, Driver, IPAM, Options, Containers } = fields(answer);
  const config = fieldsIn(fields(IPAM)["Config"]);
  const reserved = config.flatMap(({ Gateway, AuxiliaryAddresses }) => [
    Gateway,
    ...Object.values(fields(AuxiliaryAddresses)),
  ]);
  return {
    id: text(Id),
    name: text(Name),
    driver: text(Driver),
    ipamDriver: text(fields(IPAM)["Driver"]),
    subnets: config.map(({ Subnet }) => text(Subnet)).filter((subnet) => subnet !== ""),
    reserved: reserved.map(address).filter((one) => one !== undefined),
    options: fields(Options),
    endpoints: Object.entries(fields(Containers)).map(([container, endpoint]) => {
      const { EndpointID, Name, IPv4Address } = fields(endpoint);
      return { id: text(EndpointID), name: text(Name), container, address: address(IPv4Address) };
    }),
  };
}

export function readNetworked(answer: unknown): NetworkedContainer {
  const { Id, Name, State, Config, NetworkSettings } = fields(answer);
  const { Running, Pid } = fields(State);
  const { Hostname, Domainname } = fields(Config);
  return {
    id: text(Id),
    name: text(Name).replace(/^\//, ""),
    running: Running === true,
    pid: typeof Pid === "number" ? Pid : 0,
    hostname: text(Hostname),
    domainname: text(Domainname),
    networks: valuesOf(fields(NetworkSettings)["Networks"]).map(({ NetworkID, IPAddress, Aliases }) => ({
      id: text(NetworkID),
      address: address(IPAddress),
      aliases: texts(Aliases),
    })),
  };
}

function fields(value: unknown): Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value as Fields : {};
}

function fieldsIn(value: unknown): Fields[] {
  return Array.isArray(value) ? value.map(fields) : [];
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === "string") : [];
}

function valuesOf(value: unknown): Fields[] {
  return Object.values(fields(value)).map(fields);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** With or without a prefix length. */
function address(value: unknown): Ipv4 | undefined {
  return parseIpv4(text(value).replace(/\/\d+$/, ""));
}
