/** Who holds which addresses on this host: containers by their ids, others by ids of their own. */
import { type Cidr, formatIpv4, type Ipv4 } from "../lib/ip.ts";
import { type AddressRange, contains } from "./range.ts";

/** The id of callers who have none: what they get is filed under the address itself. */
export const NO_CONTAINER_ID = "_";

/** Addresses that may be held in all, inside the universe and outside. */
export const MAX_HELD = 1 << 18;

export interface Holding {
  /** Whether it is a container's, whose end frees its addresses. */
  readonly isContainer: boolean;
  /** In the order in which they were obtained; an address comes once. */
  readonly cidrs: readonly Cidr[];
}

export class Holdings {
  readonly #byId = new Map<string, Holding>();
  readonly #byAddress = new Map<Ipv4, string>();

  /** How many addresses are held. */
  get size(): number {
    return this.#byAddress.size;
  }

  entries(): Iterable<readonly [id: string, holding: Holding]> {
    return this.#byId;
  }

  get(id: string): Holding | undefined {
    return this.#byId.get(id);
  }

  holderOf(address: Ipv4): string | undefined {
    return this.#byAddress.get(address);
  }

  /** All addresses that are held. */
  addresses(): Iterable<Ipv4> {
    return this.#byAddress.keys();
  }

  inRange(id: string, range: AddressRange): readonly Cidr[] {
    return (this.#byId.get(id)?.cidrs ?? []).filter(({ address }) => contains(range, address));
  }

  /** The address must not be held yet. */
  add(id: string, cidr: Cidr, isContainer: boolean): void {
    if (this.#byAddress.has(cidr.address)) {
      throw new RangeError(`Cannot hold ${formatIpv4(cidr.address)}: it is held already`);
    }
    this.#byId.set(id, { isContainer, cidrs: [...this.#byId.get(id)?.cidrs ?? [], cidr] });
    this.#byAddress.set(cidr.address, id);
  }

  /** False: this id does not hold it. */
  remove(id: string, address: Ipv4): boolean {
    const holding = this.#byId.get(id);
    if (holding === undefined || this.#byAddress.get(address) !== id) return false;
    const cidrs = holding.cidrs.filter((cidr) => cidr.address !== address);
    if (cidrs.length === 0) this.#byId.delete(id);
    else this.#byId.set(id, { ...holding, cidrs });
    this.#byAddress.delete(address);
    return true;
  }

  /** What the id held. */
  removeAll(id: string): readonly Cidr[] {
    const cidrs = this.#byId.get(id)?.cidrs ?? [];
    for (const { address } of cidrs) this.#byAddress.delete(address);
    this.#byId.delete(id);
    return cidrs;
  }
}
