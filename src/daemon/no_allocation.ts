/** An address book of a router that allocates no addresses and keeps no names: every given address may be used. */
import type { AddressBook } from "./address_book.ts";

const DISABLED = () => Promise.resolve("disabled" as const);

export const NO_ALLOCATION: AddressBook = {
  allocate: DISABLED,
  claim: DISABLED,
  lookup: DISABLED,
  free: DISABLED,
  registerName: DISABLED,
  removeName: DISABLED,
};
