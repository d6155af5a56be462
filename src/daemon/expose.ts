/** `expose` and `hide`: gives the host itself addresses on the overlay (parity 6.6, 6.7). Also behind `POST /expose`. */
import type { Cidr } from "../lib/ip.ts";
import type { AddressBook, AddressToken, Progress } from "./address_book.ts";
import type { HostPaths } from "./plumbing.ts";

export interface ExposeOptions {
  /** None means one of the default subnet. */
  readonly addresses: readonly AddressToken[];
  readonly book: AddressBook;
  /** `-h`: a name for these addresses. */
  readonly fqdn?: string;
  /** `--without-masquerade`, remembered until `hide`. */
  readonly withoutMasquerade?: boolean;
  readonly progress?: Progress;
  readonly host?: HostPaths;
}

export type HideOptions = Pick<ExposeOptions, "addresses" | "book" | "progress" | "host">;

/** Resolves to the addresses in the order of the command line. */
export function expose(_options: ExposeOptions): Promise<readonly Cidr[]> {
  throw new Error("Not built yet");
}

export function hide(_options: HideOptions): Promise<readonly Cidr[]> {
  throw new Error("Not built yet");
}
