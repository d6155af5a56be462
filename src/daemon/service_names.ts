/**
 * What names of backends are right now. A name in the domain of the mesh is a container's, looked up each time it matters; any other one
 * is for this host's resolver, which is asked again every few seconds, and while it does not answer what it said last holds.
 */
// Not node:dns/promises, which complains on stderr about a module that it uses itself.
import { lookup } from "node:dns";
import { type Ipv4, parseIpv4 } from "../lib/ip.ts";

export interface BackendNamesOptions {
  /** Without its final dot. */
  readonly domain: string;
  /** Addresses of a name in the domain. */
  readonly lookupInMesh: (name: string) => readonly Ipv4[];
  /** Some name stands for other addresses than before. */
  readonly onChanged: () => void;
}

const REFRESH_MS = 5_000;
/** One that is not known yet may be in a moment. */
const UNKNOWN_MS = 1_000;
/** Of one name; who has more has a service that is balanced elsewhere. */
const MAX_ADDRESSES = 32;

export class BackendNames {
  readonly #o: BackendNamesOptions;
  /** Of the host's resolver; undefined: it has not answered yet. */
  readonly #resolved = new Map<string, readonly Ipv4[] | undefined>();
  /** Of the mesh, as they were when they were looked up last. */
  readonly #meshed = new Map<string, readonly Ipv4[]>();
  readonly #failures = new Map<string, string>();
  #timer: number | undefined;
  #stopped = false;

  constructor(o: BackendNamesOptions) {
    this.#o = o;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  addresses(host: Ipv4 | string): readonly Ipv4[] {
    if (typeof host === "number") return [host];
    if (this.isMeshed(host)) {
      const addresses = this.#lookup(host);
      this.#meshed.set(host, addresses);
      return addresses;
    }
    return this.#resolved.get(host) ?? [];
  }

  /** Why a name is nothing. */
  failure(host: Ipv4 | string): string | undefined {
    if (typeof host === "number" || this.addresses(host).length > 0) return undefined;
    return this.#failures.get(host) ?? "its name is not known";
  }

  isMeshed(host: string): boolean {
    return host === this.#o.domain || host.endsWith(`.${this.#o.domain}`);
  }

  /** Only these matter from now on. */
  retain(hosts: ReadonlySet<string>): void {
    for (const host of this.#meshed.keys()) if (!hosts.has(host)) this.#meshed.delete(host);
    for (const host of this.#resolved.keys()) if (!hosts.has(host)) this.#resolved.delete(host);
    let added = false;
    for (const host of hosts) {
      if (this.isMeshed(host) || this.#resolved.has(host)) continue;
      this.#resolved.set(host, undefined);
      added = true;
    }
    if (added) void this.#refresh();
  }

  /** Resolves when the host's resolver was asked for these, whatever it said. */
  async resolve(hosts: Iterable<Ipv4 | string>): Promise<void> {
    await Promise.all([...hosts].map(async (host) => {
      if (typeof host === "string" && !this.isMeshed(host)) await this.#ask(host);
    }));
  }

  /** Names of the mesh may stand for others: cheap. @returns whether some do */
  checkMesh(): boolean {
    for (const [host, before] of this.#meshed) {
      if (!sameAddresses(this.#lookup(host), before)) return true;
    }
    return false;
  }

  #lookup(host: string): readonly Ipv4[] {
    return [...this.#o.lookupInMesh(host)].sort((a, b) => a - b).slice(0, MAX_ADDRESSES);
  }

  async #refresh(): Promise<void> {
    clearTimeout(this.#timer);
    const before = new Map(this.#resolved);
    await Promise.all([...this.#resolved.keys()].map((host) => this.#ask(host)));
    if (this.#stopped) return;
    const changed = [...this.#resolved].some(([host, addresses]) =>
      !sameAddresses(addresses ?? [], before.get(host) ?? [])
    );
    if (changed) this.#o.onChanged();
    clearTimeout(this.#timer);
    if (this.#resolved.size === 0) return;
    const unknown = [...this.#resolved.values()].some((addresses) => addresses === undefined);
    this.#timer = setTimeout(() => void this.#refresh(), unknown ? UNKNOWN_MS : REFRESH_MS);
  }

  async #ask(host: string): Promise<void> {
    try {
      const addresses = await lookUp(host);
      if (addresses.length === 0) throw new Error("it has no IPv4 address");
      this.#resolved.set(host, addresses);
      this.#failures.delete(host);
    } catch (error) {
      this.#failures.set(host, reasonOf(error as NodeJS.ErrnoException));
    }
  }
}

function lookUp(host: string): Promise<readonly Ipv4[]> {
  return new Promise((resolve, reject) => {
    lookup(host, { family: 4, all: true }, (error, found) => {
      if (error !== null) return reject(error);
      const addresses = new Set(found.map(({ address }) => parseIpv4(address)).filter((one) => one !== undefined));
      resolve([...addresses].sort((a, b) => a - b).slice(0, MAX_ADDRESSES));
    });
  });
}

function reasonOf({ code, message }: NodeJS.ErrnoException): string {
  return code === "ENOTFOUND" || code === "EAI_AGAIN" ? "its name is not known to this host's resolver" : message;
}

function sameAddresses(a: readonly Ipv4[], b: readonly Ipv4[]): boolean {
  return a.length === b.length && a.every((address, i) => address === b[i]);
}
