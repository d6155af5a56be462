/**
 * What gateways say of services: the types of their records, which `src/wire/service.ts` declares as they travel, and what follows from
 * several records of one name.
 *
 *     import   "I reach NAME in a network of mine, and offer it to the mesh": what the user asked for, addresses, how it goes
 *     export   "I offer NAME to a network of mine": what the user asked for, how it goes
 *
 * A record belongs to the peer that made it, its owner, and no other changes it.
 */
import { type Cidr, type Ipv4, networkOf } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import type { ImportRecord, Offer, ServiceRecord } from "../wire/service.ts";

export {
  type Backend,
  type BackendHealth,
  type CheckSpec,
  type ExportRecord,
  type ExportSpec,
  type ExportStatus,
  type Held,
  type ImportRecord,
  type ImportSpec,
  type ImportState,
  type ImportStatus,
  keyOf,
  type Listen,
  type Offer,
  type RecordKey,
  type ServiceRecord,
} from "../wire/service.ts";

/** A record as we know it. */
export interface Known<R extends ServiceRecord = ServiceRecord> {
  readonly owner: PeerName;
  /** The owner is part of the mesh now. Ours always are. */
  readonly reachable: boolean;
  /** Not from the owner itself, who was out of reach. */
  readonly secondHand: boolean;
  readonly record: R;
}

/** Where clients in a subnet see a service. */
export interface VirtualAddress {
  readonly subnet: Cidr;
  readonly address: Ipv4;
  /** Of the proposal that holds, Unix milliseconds: whoever joins proposes the same. */
  readonly since: number;
  /** Who proposes this address in this subnet, ascending. */
  readonly proposers: readonly PeerName[];
}

/**
 * The virtual addresses of a service, one per subnet that any importer offers it in, ascending by subnet: of all proposals the oldest
 * holds, of equally old ones the lowest address. Importers out of reach count, else a partition would move it.
 * @param imports all of one name
 */
export function virtualAddresses(imports: readonly Known<ImportRecord>[]): readonly VirtualAddress[] {
  const offers = imports.flatMap(({ owner, record }) => record.offers.map((offer) => ({ owner, offer })));
  return [...Map.groupBy(offers, ({ offer }) => subnetKey(offer.subnet)).values()]
    .map((all) => {
      const { subnet, address, since } = all.map(({ offer }) => offer).reduce((a, b) => isOlder(b, a) ? b : a);
      const proposers = new Set(all.filter(({ offer }) => offer.address === address).map(({ owner }) => owner));
      return {
        subnet: { address: networkOf(subnet), prefixLength: subnet.prefixLength },
        address,
        since,
        proposers: [...proposers].sort((a, b) => a - b),
      };
    })
    .sort((a, b) => a.subnet.address - b.subnet.address || a.subnet.prefixLength - b.subnet.prefixLength);
}

/** The one of a subnet. */
export function virtualAddress(imports: readonly Known<ImportRecord>[], subnet: Cidr): VirtualAddress | undefined {
  const key = subnetKey(subnet);
  return virtualAddresses(imports).find((found) => subnetKey(found.subnet) === key);
}

function isOlder(a: Offer, b: Offer): boolean {
  return a.since !== b.since ? a.since < b.since : a.address < b.address;
}

function subnetKey(subnet: Cidr): string {
  return `${networkOf(subnet)}/${subnet.prefixLength}`;
}
