/** Addresses and names for operations within the router: what the commands ask its API for. */
import type { AddressBook } from "./address_book.ts";
import type { Dns } from "./dns.ts";
import type { Ipam } from "./ipam.ts";
import { NO_ALLOCATION } from "./no_allocation.ts";

/** @param signal calls off what waits for an address */
export function routerBook(ipam: Ipam | undefined, dns: Dns | undefined, signal: AbortSignal): AddressBook {
  const addresses = ipam?.bookUntil(signal) ?? NO_ALLOCATION;
  if (dns === undefined) return addresses;
  return {
    ...addresses,
    // Whether the container lives is known to whoever attaches it.
    registerName(id, address, hostname) {
      dns.addNames(id, [{ hostname, address }]);
      return Promise.resolve("done");
    },
    removeName(id, address, hostname) {
      if (hostname !== undefined) dns.removeName(id, { hostname, address });
      return Promise.resolve("done");
    },
  };
}
