/**
 * Numbers that stand in marks for networks and backends. What has a number keeps it across restarts, as flows have it too; a number that is
 * free again comes last in line, so that the flows of who had it before are gone.
 */
import {
  type BackendId,
  type BackendPlace,
  FIRST_NAMED_NETWORK,
  LAST_NETWORK,
  type NetworkId,
} from "../service/plan.ts";

export interface StoredBackendId extends BackendPlace {
  readonly id: BackendId;
}

export interface StoredIds {
  readonly backends: readonly StoredBackendId[];
  readonly lastBackend: BackendId;
  readonly lastNetwork: NetworkId;
}

const LAST_BACKEND = 65_535;

export class ServiceIds {
  readonly #backends = new Map<string, StoredBackendId>();
  readonly #taken = new Map<BackendId, StoredBackendId>();
  readonly #byService = new Map<string, Set<StoredBackendId>>();
  #lastBackend: BackendId;
  #lastNetwork: NetworkId;
  /** What is on disk is another one. */
  dirty = false;

  constructor(stored: StoredIds | undefined) {
    for (const backend of stored?.backends ?? []) this.#put(backend);
    this.#lastBackend = stored?.lastBackend ?? 0;
    this.#lastNetwork = stored?.lastNetwork ?? LAST_NETWORK;
  }

  /** @throws RangeError where there are 65,535 already */
  backend({ service, network, address, port }: BackendPlace): BackendId {
    const place = { service, network, address, port };
    const known = this.#backends.get(keyOf(place));
    if (known !== undefined) return known.id;
    const adopted = this.#adopt(place);
    if (adopted !== undefined) return adopted;
    const id = this.#next(this.#lastBackend, 1, LAST_BACKEND, (id) => this.#taken.has(id));
    if (id === undefined) throw new RangeError(`There are ${LAST_BACKEND} backends already`);
    this.#lastBackend = id;
    this.#put({ ...place, id });
    this.dirty = true;
    return id;
  }

  /** For a new network. @returns undefined where there are none left */
  network(taken: ReadonlySet<NetworkId>): NetworkId | undefined {
    const id = this.#next(this.#lastNetwork, FIRST_NAMED_NETWORK, LAST_NETWORK, (id) => taken.has(id));
    if (id !== undefined) this.#lastNetwork = id;
    this.dirty = true;
    return id;
  }

  /** Forgets backends that are neither planned nor have flows. */
  retain(isUsed: (id: BackendId) => boolean): void {
    for (const [key, backend] of this.#backends) {
      if (isUsed(backend.id)) continue;
      this.#backends.delete(key);
      this.#taken.delete(backend.id);
      this.#byService.get(backend.service)!.delete(backend);
      if (this.#byService.get(backend.service)!.size === 0) this.#byService.delete(backend.service);
      this.dirty = true;
    }
  }

  /** Who has a number. */
  find(id: BackendId): StoredBackendId | undefined {
    return this.#taken.get(id);
  }

  /** Numbers of a service's backends, of now and of before. */
  of(service: string): readonly StoredBackendId[] {
    return [...this.#byService.get(service) ?? []];
  }

  all(): Iterable<StoredBackendId> {
    return this.#backends.values();
  }

  stored(): StoredIds {
    return {
      backends: [...this.#backends.values()],
      lastBackend: this.#lastBackend,
      lastNetwork: this.#lastNetwork,
    };
  }

  /** What was noted without its port, as all ports of an address were one, is the first that comes. */
  #adopt(place: BackendPlace): BackendId | undefined {
    const key = keyOf({ ...place, port: undefined });
    const known = this.#backends.get(key);
    if (known === undefined) return undefined;
    this.#backends.delete(key);
    this.#byService.get(place.service)!.delete(known);
    this.#put({ ...place, id: known.id });
    this.dirty = true;
    return known.id;
  }

  #put(backend: StoredBackendId): void {
    this.#backends.set(keyOf(backend), backend);
    this.#taken.set(backend.id, backend);
    const ofService = this.#byService.get(backend.service) ?? new Set();
    this.#byService.set(backend.service, ofService.add(backend));
  }

  /** The first free number after the last one given. */
  #next(last: number, from: number, to: number, isTaken: (id: number) => boolean): number | undefined {
    const count = to - from + 1;
    for (let step = 1; step <= count; step++) {
      const id = from + (last - from + step + count) % count;
      if (!isTaken(id)) return id;
    }
    return undefined;
  }
}

function keyOf({ service, network, address, port }: BackendPlace): string {
  return `${service} ${network} ${address}${port === undefined ? "" : ` ${port.protocol} ${port.first}`}`;
}
