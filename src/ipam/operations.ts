/**
 * What callers asked for and what cannot be had at once. An operation is tried when it comes, whenever the ring changed, and every tick; those
 * that wait do not keep others waiting. Primes come first, then claims, then allocations.
 */
import { type Cidr, formatCidr } from "../lib/ip.ts";
import { formatMac, NO_PEER, type PeerName } from "../lib/mac.ts";
import { type AddressRange, contains, formatRange, overlap, rangeOf } from "./range.ts";
import type { Containers } from "./containers.ts";
import type { Nicknames } from "./nicknames.ts";
import type { Claimant, Territory } from "./territory.ts";

declare const operationBrand: unique symbol;
/** Numbers one operation for its life. */
export type OperationId = number & { readonly [operationBrand]: true };

export interface AllocateRequest {
  /** Container id, or another name for who holds it; `_` files it under the address itself. */
  readonly id: string;
  /** Its network address and length; at least a /30. */
  readonly subnet: Cidr;
  /** The id is a container's, of whose end we shall hear. */
  readonly isContainer: boolean;
}

export interface ClaimRequest extends Claimant {
  /** Where it cannot be said yet whether the address can be had, the answer is yes, and trying goes on. */
  readonly noErrorOnUnknown?: boolean;
}

export type OperationResult =
  | { readonly outcome: "done"; readonly cidr?: Cidr; readonly count?: number }
  /** It cannot be, for this reason, whose wording is Weave Net's. */
  | { readonly outcome: "refused"; readonly reason: string }
  /** Nobody wants it any more. */
  | { readonly outcome: "cancelled"; readonly reason: string };

/** What operations need of the allocator around them. */
export interface OperationSurroundings {
  readonly territory: Territory;
  readonly containers: Containers;
  readonly nicknames: Nicknames;
  /** Whether the mesh knows a way to a peer. */
  inReach(name: PeerName): boolean;
  /** Our space may be somebody else's by now: nothing is given out of it. */
  fenced(): boolean;
  /** Makes for a ring, unless there is one; there may be one afterwards. */
  establish(): void;
  /** Asks a peer for a range of addresses. */
  request(from: PeerName, range: AddressRange): void;
  /** Asks one of those who have some for addresses of a range. */
  requestFromSomebody(range: AddressRange): void;
  answer(operation: OperationId, result: OperationResult): void;
  warn(event: string, reason: string): void;
}

interface PendingClaim {
  readonly request: ClaimRequest;
  /** Undefined: it was answered already. */
  operation: OperationId | undefined;
  tries: number;
}

interface PendingAllocation {
  readonly request: AllocateRequest;
  readonly operation: OperationId;
}

/** A claim whose owner is out of reach is given up after so many tries. */
const MAX_TRIES = 5;
/** Further ones are refused. */
const MAX_PENDING = 10_000;

const DONE: OperationResult = { outcome: "done" };

export class Operations {
  readonly #around: OperationSurroundings;
  #primes: OperationId[] = [];
  #claims: PendingClaim[] = [];
  #allocations: PendingAllocation[] = [];
  #trying = false;
  #again = false;

  constructor(around: OperationSurroundings) {
    this.#around = around;
  }

  get anyPending(): boolean {
    return this.#count > 0;
  }

  get pendingClaims(): readonly ClaimRequest[] {
    return this.#claims.map(({ request }) => request);
  }

  get pendingAllocations(): readonly AllocateRequest[] {
    return this.#allocations.map(({ request }) => request);
  }

  prime(operation: OperationId): void {
    if (this.#refuseOverload(operation) || this.#tryPrime(operation)) return;
    this.#primes.push(operation);
  }

  claim(operation: OperationId, request: ClaimRequest): void {
    const claim: PendingClaim = { request, operation, tries: 0 };
    if (this.#refuseOverload(operation) || this.#tryClaim(claim)) return;
    this.#claims.push(claim);
  }

  allocate(operation: OperationId, request: AllocateRequest): void {
    const allocation: PendingAllocation = { request, operation };
    if (this.#refuseOverload(operation) || this.#tryAllocate(allocation)) return;
    this.#allocations.push(allocation);
  }

  /** Tries all that wait. */
  tryAll(): void {
    this.#again = true;
    if (this.#trying) return; // whoever tries goes round once more
    this.#trying = true;
    for (let round = 0; this.#again && round < 3; round++) {
      this.#again = false;
      this.#primes = this.#primes.filter((operation) => !this.#tryPrime(operation));
      this.#claims = this.#claims.filter((claim) => !this.#tryClaim(claim));
      this.#allocations = this.#allocations.filter((allocation) => !this.#tryAllocate(allocation));
    }
    this.#trying = false;
  }

  /** Its caller is gone. */
  cancel(operation: OperationId): void {
    this.#cancelWhere((other) => other === operation, () => false, "it was given up");
  }

  /** Whoever it was for is gone. */
  cancelFor(id: string): void {
    this.#cancelWhere(() => false, (other) => other === id, "its container is gone");
  }

  cancelAll(): void {
    this.#cancelWhere(() => true, () => true, "the allocator stops");
  }

  /** An owner has none of these addresses to give. */
  handleDenied(owner: PeerName, range: AddressRange): void {
    const { territory } = this.#around;
    this.#claims = this.#claims.filter((claim) => {
      const { address } = claim.request.cidr;
      if (!contains(range, address) || !territory.ring.contains(address)) return true;
      if (territory.ring.ownerOf(address) !== owner) return true;
      this.#deny(claim, owner, "");
      return false;
    });
  }

  get #count(): number {
    return this.#primes.length + this.#claims.length + this.#allocations.length;
  }

  #refuseOverload(operation: OperationId): boolean {
    if (this.#count < MAX_PENDING) return false;
    this.#around.answer(operation, { outcome: "refused", reason: "too many requests wait for addresses" });
    return true;
  }

  /** True: it is done. So are all the others. */
  #tryPrime(operation: OperationId): boolean {
    const { territory, establish, answer } = this.#around;
    establish();
    if (territory.ring.empty) return false;
    answer(operation, DONE);
    return true;
  }

  #tryAllocate({ request, operation }: PendingAllocation): boolean {
    const { id, subnet, isContainer } = request;
    const { territory, containers, answer } = this.#around;
    const { universe } = territory.ring;
    const range = rangeOf(subnet);
    const held = territory.holdings.inRange(id, range)[0];
    if (held !== undefined) {
      containers.handleAlive(id);
      answer(operation, { outcome: "done", cidr: { ...held, prefixLength: subnet.prefixLength } });
      return true;
    }
    if (!overlap(range, universe)) {
      const reason = `range ${formatCidr(subnet)} out of bounds: ${formatRange(universe)}`;
      answer(operation, { outcome: "refused", reason });
      return true;
    }
    this.#around.establish();
    if (this.#around.fenced()) return false;
    const cidr = territory.allocate(id, subnet, isContainer);
    if (cidr !== undefined) {
      answer(operation, { outcome: "done", cidr });
      return true;
    }
    this.#around.requestFromSomebody(range);
    return false;
  }

  #tryClaim(claim: PendingClaim): boolean {
    const { request } = claim;
    const { id, cidr } = request;
    const { territory, containers } = this.#around;
    claim.tries++;
    if (!territory.ring.contains(cidr.address)) {
      this.#conclude(claim, territory.claimOutside(request, (holder) => containers.isDead(holder)));
      return true;
    }
    this.#around.establish();
    containers.handleAlive(id);
    const owner = territory.ring.ownerOf(cidr.address);
    const heldHere = territory.holdings.holderOf(cidr.address) !== undefined;
    if (owner === territory.ring.us || heldHere) {
      if (!heldHere && this.#around.fenced()) return false;
      this.#conclude(claim, territory.claimOurs(request));
      return true;
    }
    if (territory.ring.empty) {
      if (request.noErrorOnUnknown === true) this.#answer(claim, DONE);
      return false;
    }
    return this.#requestFrom(owner, claim);
  }

  /** True: it is given up. */
  #requestFrom(owner: PeerName, claim: PendingClaim): boolean {
    const { address } = claim.request.cidr;
    if (owner !== NO_PEER && this.#around.inReach(owner)) {
      this.#around.request(owner, { start: address, end: address + 1 });
      return false;
    }
    if (claim.request.noErrorOnUnknown === true) {
      this.#answer(claim, DONE);
      return false;
    }
    if (claim.tries <= MAX_TRIES) return false;
    this.#deny(claim, owner, ` - unknown relay destination: ${formatMac(owner)}`);
    return true;
  }

  #deny(claim: PendingClaim, owner: PeerName, why: string): void {
    const nickname = this.#around.nicknames.get(owner);
    const name = `${formatMac(owner)}${nickname === undefined ? "" : ` (${nickname})`}`;
    const reason = `address ${formatCidr(claim.request.cidr)} is owned by other peer ${name}${why}`;
    if (claim.operation === undefined) {
      // It is in use, whoever owns it: we have said that it may be.
      this.#around.territory.note(claim.request);
      this.#around.warn("an address in use here is owned by another peer", reason);
      return;
    }
    this.#answer(claim, { outcome: "refused", reason });
  }

  #conclude(claim: PendingClaim, refusal: string | undefined): void {
    if (refusal === undefined) return this.#answer(claim, DONE);
    if (claim.operation === undefined) return this.#around.warn("an address in use here cannot be claimed", refusal);
    this.#answer(claim, { outcome: "refused", reason: refusal });
  }

  /** Once. */
  #answer(claim: PendingClaim, result: OperationResult): void {
    if (claim.operation === undefined) return;
    this.#around.answer(claim.operation, result);
    claim.operation = undefined;
  }

  #cancelWhere(isOperation: (operation: OperationId) => boolean, isFor: (id: string) => boolean, why: string): void {
    const { answer } = this.#around;
    const cancelled = (what: string): OperationResult => ({
      outcome: "cancelled",
      reason: `${what} cancelled: ${why}`,
    });
    this.#primes = this.#primes.filter((operation) => {
      if (!isOperation(operation)) return true;
      answer(operation, cancelled("Prime request"));
      return false;
    });
    this.#claims = this.#claims.filter((claim) => {
      const { operation, request: { id } } = claim;
      if (!(operation !== undefined && isOperation(operation)) && !isFor(id)) return true;
      this.#answer(claim, cancelled(`Claim request for ${id}`));
      return false;
    });
    this.#allocations = this.#allocations.filter(({ operation, request: { id } }) => {
      if (!isOperation(operation) && !isFor(id)) return true;
      answer(operation, cancelled(`Allocate request for ${id}`));
      return false;
    });
  }
}
