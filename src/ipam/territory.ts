/**
 * What this router owns and what of it is in use: the ring, the free space in our ranges, and who holds what here, kept in step. Every
 * change that must be on disk before others may hear of it counts the revision up.
 *
 * An address that is held here although its range is somebody else's is *contested*: a container was running with it when we learned
 * whose it is. It stays with its holder, and its owner is asked for it.
 */
import { type Cidr, formatCidr, formatIpv4, type Ipv4 } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import type { RingValue } from "../wire/ipam.ts";
import { type Holding, Holdings, MAX_HELD, NO_CONTAINER_ID } from "./holdings.ts";
import { type AddressRange, contains, hostRangeOf, intersection, sizeOf } from "./range.ts";
import { Ring } from "./ring.ts";
import { Space } from "./space.ts";

/** Undefined: it is held now, or was before. Otherwise why it cannot be. */
export type ClaimRefusal = string | undefined;

/** Who would hold an address. */
export interface Claimant {
  readonly id: string;
  readonly cidr: Cidr;
  readonly isContainer: boolean;
}

export class Territory {
  readonly ring: Ring;
  readonly holdings = new Holdings();
  readonly #space = new Space();
  readonly #contested = new Set<Ipv4>();
  #ownedRanges: readonly AddressRange[] = [];
  #revision = 0;

  constructor(universe: AddressRange, us: PeerName) {
    this.ring = new Ring(universe, us);
  }

  /** Counts what is to be stored. */
  get revision(): number {
    return this.#revision;
  }

  /** Something beside the territory is to be stored with it. */
  touch(): void {
    this.#revision++;
  }

  /** Takes over what was stored. */
  restore(ring: RingValue, held: Iterable<readonly [id: string, holding: Holding]>): void {
    this.ring.restore({ ...ring, peer: this.ring.us });
    for (const [id, { isContainer, cidrs }] of held) {
      for (const cidr of cidrs) {
        if (this.holdings.holderOf(cidr.address) === undefined) this.holdings.add(id, cidr, isContainer);
      }
    }
    this.touch();
    this.#place();
  }

  // The ring

  /** As `Ring.merge()`. True: what is ours or others' is something else than before. */
  merge(theirs: RingValue, yields: boolean): boolean {
    const before = this.ring.entries;
    try {
      return this.ring.merge(theirs, { hasAllocations: (ranges) => this.#space.hasAllocations(ranges), yields });
    } finally {
      // Versions of our own may be others although nothing was news.
      if (this.ring.entries !== before) this.#adapt();
    }
  }

  divide(seeds: readonly PeerName[]): void {
    this.ring.divide(seeds);
    this.#adapt();
  }

  /** Gives a part of what is free in a range to somebody; undefined: there is nothing to give. */
  donate(range: AddressRange, to: PeerName): AddressRange | undefined {
    const part = this.#space.donation(intersection(range, this.ring.universe));
    if (part === undefined || !this.ring.canGrant(part)) return undefined;
    this.ring.grant(part, to);
    this.#adapt();
    return part;
  }

  /** Makes one peer's ranges another's; how many free addresses we have more by it. */
  transfer(from: PeerName, to: PeerName, versions?: number): number {
    const before = this.#space.freeCount;
    if (this.ring.transfer(from, to, versions).length > 0) this.#adapt();
    return this.#space.freeCount - before;
  }

  /** Tells the ring how much is free in our ranges. */
  reportFree(): void {
    if (this.ring.reportFree((range) => this.#space.freeIn(range))) this.touch();
  }

  /** Addresses in use here, of our ranges. */
  get activeCount(): number {
    return this.#ownedRanges.reduce((sum, range) => sum + sizeOf(range), 0) - this.#space.freeCount;
  }

  // Addresses

  /** Gives out the lowest free address of a subnet. Undefined: we have none. */
  allocate(id: string, subnet: Cidr, isContainer: boolean): Cidr | undefined {
    if (this.holdings.size >= MAX_HELD) return undefined;
    const address = this.#space.allocate(intersection(hostRangeOf(subnet), this.ring.universe));
    if (address === undefined) return undefined;
    const cidr = { address, prefixLength: subnet.prefixLength };
    this.#hold({ id, cidr, isContainer });
    return cidr;
  }

  /** Claims an address that is ours. */
  claimOurs({ id, cidr, isContainer }: Claimant): ClaimRefusal {
    const holder = this.holdings.holderOf(cidr.address);
    if (holder === undefined) {
      const problem = this.#problemWith(cidr);
      if (problem !== undefined) return problem;
      if (!this.#space.claim(cidr.address)) return `Address ${formatIpv4(cidr.address)} is not free to claim`;
      this.#hold({ id, cidr, isContainer });
      return undefined;
    }
    // Whoever has no id may be the holder.
    if (holder === id || id === NO_CONTAINER_ID) return undefined;
    if (holder === formatIpv4(cidr.address)) return `address ${formatCidr(cidr)} already in use`;
    return `address ${formatCidr(cidr)} is already owned by ${holder}`;
  }

  /** Claims an address outside the universe. @param isDead whether a holder may be replaced */
  claimOutside({ id, cidr, isContainer }: Claimant, isDead: (id: string) => boolean): ClaimRefusal {
    const holder = this.holdings.holderOf(cidr.address);
    if (holder === id || holder !== undefined && id === NO_CONTAINER_ID) return undefined;
    if (holder !== undefined) {
      if (!isDead(holder)) return `address ${formatCidr(cidr)} already in use by ${holder}`;
      this.free(holder, cidr.address);
    }
    const problem = this.#problemWith(cidr);
    if (problem === undefined) this.#hold({ id, cidr, isContainer });
    return problem;
  }

  /** It is of our ranges. */
  owns(address: Ipv4): boolean {
    return this.#space.owns(address);
  }

  /** Takes note that an address is in use, whoever owns it. False: somebody else holds it here. */
  note({ id, cidr, isContainer }: Claimant): boolean {
    const holder = this.holdings.holderOf(cidr.address);
    // Who got it without an id may be this one.
    if (holder !== undefined) return holder === id || id === NO_CONTAINER_ID || holder === formatIpv4(cidr.address);
    if (this.#problemWith(cidr) !== undefined) return false;
    this.#space.claim(cidr.address);
    this.#hold({ id, cidr, isContainer });
    if (!this.#space.owns(cidr.address) && this.ring.contains(cidr.address)) this.#contested.add(cidr.address);
    return true;
  }

  /** Gives one address back. False: this id does not hold it. */
  free(id: string, address: Ipv4): boolean {
    if (!this.holdings.remove(id, address)) return false;
    this.#release(address);
    return true;
  }

  /** Gives all addresses of an id back; how many there were. */
  freeAll(id: string): number {
    const cidrs = this.holdings.removeAll(id);
    for (const { address } of cidrs) this.#release(address);
    return cidrs.length;
  }

  /** Held here, owned elsewhere. */
  get contested(): ReadonlySet<Ipv4> {
    return this.#contested;
  }

  #hold({ id, cidr, isContainer }: Claimant): void {
    // Whoever has no id frees it by the address.
    this.holdings.add(id === NO_CONTAINER_ID ? formatIpv4(cidr.address) : id, cidr, isContainer);
    this.touch();
  }

  #release(address: Ipv4): void {
    this.#space.free(address);
    this.#contested.delete(address);
    this.touch();
  }

  #problemWith(cidr: Cidr): string | undefined {
    if (this.holdings.size < MAX_HELD) return undefined;
    return `address ${formatCidr(cidr)} cannot be held: there are ${MAX_HELD} already`;
  }

  /** The ring is another one: the space follows, and what is held finds its place in it. */
  #adapt(): void {
    this.touch();
    if (!sameRanges(this.ring.ownedRanges(), this.#ownedRanges)) this.#place();
  }

  #place(): void {
    this.#ownedRanges = this.ring.ownedRanges();
    this.#space.setRanges(this.#ownedRanges);
    this.#contested.clear();
    for (const address of this.holdings.addresses()) {
      if (!contains(this.ring.universe, address)) continue;
      if (this.#space.owns(address)) this.#space.claim(address);
      else this.#contested.add(address);
    }
  }
}

function sameRanges(a: readonly AddressRange[], b: readonly AddressRange[]): boolean {
  return a.length === b.length && a.every(({ start, end }, i) => start === b[i]!.start && end === b[i]!.end);
}
