/**
 * What a gateway remembers of services, in two files:
 *
 *     P-services.json         ours: records, networks, numbers of backends; on disk before anybody hears of a change
 *     P-services-others.json  other peers' records, written now and then: who is out of reach when we start still counts
 */
import { formatIpv4, type Ipv4, parseIpv4 } from "../lib/ip.ts";
import { formatPortRange, parsePortRange } from "../lib/ports.ts";
import { checkStored, encodeStored, type StoredOwner } from "../service/catalogue.ts";
import { type BackendPort, FIRST_NAMED_NETWORK, LAST_NETWORK, type NetworkId } from "../service/plan.ts";
import { StoreFile, type StoreFormat } from "../host/store.ts";
import type { StoredBackendId, StoredIds } from "./service_ids.ts";

export interface StoredNetwork {
  readonly id: NetworkId;
  readonly name: string;
  readonly interfaces: readonly string[];
  readonly isolated: boolean;
  /** `launch` named it. */
  readonly launched: boolean;
}

export interface OwnServices {
  readonly networks: readonly StoredNetwork[];
  /** What `launch` named and a command removed, as `formatNetwork()` writes it. */
  readonly removed: readonly string[];
  readonly ids: StoredIds;
  /** undefined: there never were any. */
  readonly records: StoredOwner | undefined;
}

/** Room for 1,000 records of full length, and a backend each. */
const SIZE_LIMIT = 64 * 1024 * 1024;

/** @param prefix of the state files */
export function ownServicesFile(prefix: string): StoreFile<OwnServices> {
  return new StoreFile(`${prefix}-services.json`, OWN);
}

export function otherServicesFile(prefix: string): StoreFile<readonly StoredOwner[]> {
  return new StoreFile(`${prefix}-services-others.json`, OTHERS);
}

const OWN: StoreFormat<OwnServices> = {
  what: "services",
  major: 1,
  minor: 1,
  sizeLimit: SIZE_LIMIT,
  check(data) {
    const { networks, removed, backends, lastBackend, lastNetwork, records } = fields(data);
    return {
      networks: list(networks).map(checkNetwork),
      removed: list(removed).map(text),
      ids: {
        backends: list(backends).map(checkBackend),
        lastBackend: number(lastBackend, 0, 65_535),
        lastNetwork: number(lastNetwork, 0, LAST_NETWORK),
      },
      records: checkStored(records)[0],
    };
  },
  encode: ({ networks, removed, ids, records }) => ({
    networks,
    removed,
    backends: ids.backends.map(({ service, network, address, id, port }) => [
      service,
      network,
      formatIpv4(address),
      id,
      ...port === undefined ? [] : [formatPortRange({ ...port, last: port.first })],
    ]),
    lastBackend: ids.lastBackend,
    lastNetwork: ids.lastNetwork,
    records: encodeStored(records === undefined ? [] : [records]),
  }),
};

const OTHERS: StoreFormat<readonly StoredOwner[]> = {
  what: "services of others",
  major: 1,
  minor: 0,
  sizeLimit: SIZE_LIMIT,
  check: (data) => checkStored(data),
  encode: (owners) => encodeStored(owners),
};

function checkNetwork(value: unknown): StoredNetwork {
  const { id, name, interfaces, isolated, launched } = fields(value);
  return {
    id: number(id, FIRST_NAMED_NETWORK, LAST_NETWORK),
    name: text(name),
    interfaces: list(interfaces).map(text),
    isolated: isolated === true,
    launched: launched === true,
  };
}

function checkBackend(value: unknown): StoredBackendId {
  const [service, network, address, id, port] = list(value);
  return {
    service: text(service),
    network: number(network, 1, LAST_NETWORK),
    address: ipv4(address),
    id: number(id, 1, 65_535),
    ...port === undefined ? {} : { port: firstPort(port) },
  };
}

function firstPort(value: unknown): BackendPort {
  const ports = parsePortRange(text(value));
  if (ports === undefined) throw new Error(`"${value}" is no port`);
  return { protocol: ports.protocol, first: ports.first };
}

function fields(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error("an object is missing");
  return value as Readonly<Record<string, unknown>>;
}

function list(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw new Error("a list is missing");
  return value;
}

function text(value: unknown): string {
  if (typeof value !== "string") throw new Error("a text is missing");
  return value;
}

function number(value: unknown, from: number, to: number): number {
  if (!Number.isInteger(value) || (value as number) < from || (value as number) > to) {
    throw new Error(`a number from ${from} to ${to} is missing`);
  }
  return value as number;
}

function ipv4(value: unknown): Ipv4 {
  const address = parseIpv4(text(value));
  if (address === undefined) throw new Error(`"${value}" is no address`);
  return address;
}
