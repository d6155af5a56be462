/**
 * Addresses that are held here although their ranges are somebody else's: their owners are asked for them, each tick, and more seldom
 * after they said no. No means that the address is held twice.
 */
import { formatCidr, type Ipv4 } from "../lib/ip.ts";
import { NO_PEER, type PeerName } from "../lib/mac.ts";
import { type AddressRange, contains } from "./range.ts";
import type { Territory } from "./territory.ts";

/** Asked at most in one tick; the others have their turn in the next. */
const AT_ONCE = 256;
/** Ticks between two questions after a no. */
const PATIENCE_TICKS = 12;

export interface Contest {
  readonly id: string;
  /** The address with its prefix length. */
  readonly cidr: string;
  readonly owner: PeerName;
  /** The owner does not give it: it has given it to somebody else. */
  readonly heldTwice: boolean;
}

export class Contests {
  readonly #territory: Territory;
  /** Ticks until the owner, who said no, is asked again. */
  readonly #denied = new Map<Ipv4, { readonly by: PeerName; ticks: number }>();
  #turn = 0;

  constructor(territory: Territory) {
    this.#territory = territory;
  }

  get any(): boolean {
    return this.#territory.contested.size > 0;
  }

  /** Asks the owners, those in reach at least. */
  ask(request: (owner: PeerName, address: Ipv4) => void): void {
    const { contested, ring } = this.#territory;
    for (const [address, denied] of this.#denied) {
      // What one owner denied, another may grant.
      if (!contested.has(address) || denied.by !== ring.ownerOf(address)) this.#denied.delete(address);
    }
    const due = [...contested].filter((address) => {
      const denied = this.#denied.get(address);
      return denied === undefined || --denied.ticks <= 0;
    });
    if (this.#turn >= due.length) this.#turn = 0;
    for (const address of due.slice(this.#turn, this.#turn + AT_ONCE)) {
      const owner = ring.ownerOf(address);
      if (owner !== NO_PEER) request(owner, address);
    }
    this.#turn += AT_ONCE;
  }

  handleDenied(owner: PeerName, range: AddressRange): void {
    const { contested, ring } = this.#territory;
    for (const address of contested) {
      if (!contains(range, address) || ring.ownerOf(address) !== owner) continue;
      this.#denied.set(address, { by: owner, ticks: PATIENCE_TICKS });
    }
  }

  list(): Contest[] {
    const { contested, ring, holdings } = this.#territory;
    return [...contested].flatMap((address) => {
      const id = holdings.holderOf(address);
      const cidr = id === undefined ? undefined : holdings.get(id)?.cidrs.find((cidr) => cidr.address === address);
      if (id === undefined || cidr === undefined) return [];
      const owner = ring.ownerOf(address);
      return [{ id, cidr: formatCidr(cidr), owner, heldTwice: this.#denied.get(address)?.by === owner }];
    });
  }
}
