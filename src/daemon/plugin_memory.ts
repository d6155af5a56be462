/**
 * What the driver for Docker's networks remembers: Docker tells of a network once, when it is made, and asks for an address without
 * saying whose it will be. What is remembered is on disk before Docker is answered.
 */
import { formatIpv4, type Ipv4, parseIpv4 } from "../lib/ip.ts";
import { StoreFile, type StoreFormat } from "../host/store.ts";

export interface KnownNetwork {
  readonly id: string;
  /** 224.0.0.0/4 leads into it. */
  readonly multicast: boolean;
}

interface Remembered {
  readonly networks: readonly KnownNetwork[];
  readonly addresses: readonly Ipv4[];
}

export class PluginMemory {
  readonly #file: StoreFile<Remembered>;
  readonly #networks = new Map<string, KnownNetwork>();
  readonly #addresses = new Set<Ipv4>();

  /** @param prefix of the state files */
  constructor(prefix: string) {
    this.#file = new StoreFile(`${prefix}-plugin.json`, FORMAT);
  }

  /** Rejects with `OperationError` where what is there cannot be understood. */
  async restore(): Promise<void> {
    const { networks = [], addresses = [] } = await this.#file.read() ?? {};
    for (const network of networks) this.#networks.set(network.id, network);
    for (const address of addresses) this.#addresses.add(address);
  }

  network(id: string): KnownNetwork | undefined {
    return this.#networks.get(id);
  }

  /** Addresses that Docker was given and has not given back. */
  get addresses(): ReadonlySet<Ipv4> {
    return this.#addresses;
  }

  async learn(network: KnownNetwork): Promise<void> {
    if (this.#networks.get(network.id)?.multicast === network.multicast) return;
    this.#networks.set(network.id, network);
    await this.#save();
  }

  async forget(id: string): Promise<void> {
    if (this.#networks.delete(id)) await this.#save();
  }

  async hold(address: Ipv4): Promise<void> {
    if (this.#addresses.has(address)) return;
    this.#addresses.add(address);
    try {
      await this.#save();
    } catch (error) {
      this.#addresses.delete(address);
      throw error;
    }
  }

  async release(address: Ipv4): Promise<void> {
    if (this.#addresses.delete(address)) await this.#save();
  }

  #save(): Promise<void> {
    return this.#file.write({ networks: [...this.#networks.values()], addresses: [...this.#addresses] });
  }
}

const FORMAT: StoreFormat<Remembered> = {
  what: "plugin",
  major: 1,
  minor: 0,
  check(data) {
    const { networks, addresses } = (data ?? {}) as Readonly<Record<string, unknown>>;
    if (!Array.isArray(networks) || !Array.isArray(addresses)) throw new Error("a list is missing");
    return { networks: networks.map(checkNetwork), addresses: addresses.map(checkAddress) };
  },
  encode: ({ networks, addresses }) => ({ networks, addresses: addresses.map(formatIpv4) }),
};

function checkNetwork(value: unknown): KnownNetwork {
  const { id, multicast } = (value ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof id !== "string" || typeof multicast !== "boolean") throw new Error("a network lacks something");
  return { id, multicast };
}

function checkAddress(value: unknown): Ipv4 {
  const address = typeof value === "string" ? parseIpv4(value) : undefined;
  if (address === undefined) throw new Error(`"${value}" is no address`);
  return address;
}
