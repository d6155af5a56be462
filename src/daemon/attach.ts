/** `attach` and `detach`: plugs containers into the bridge and pulls them out (parity 1.5, 1.5.1, 6.3). */
import type { Cidr } from "../lib/ip.ts";
import type { AddressBook, AddressToken, Progress } from "./address_book.ts";
import type { HostPaths } from "./plumbing.ts";

export interface AttachOptions {
  /** Docker id or name, `pid:N` or `netns:PATH`. */
  readonly container: string;
  /** In the order of the command line; none means one of the default subnet. */
  readonly addresses: readonly AddressToken[];
  readonly book: AddressBook;
  /** `--without-dns`: registers no name. */
  readonly withoutDns?: boolean;
  /** `--no-multicast-route`. */
  readonly noMulticastRoute?: boolean;
  /** `--hostname`: the container's FQDN, where Docker does not know it. */
  readonly hostname?: string;
  /** `--rewrite-hosts`: replaces the container's hosts file (parity 7.5); only for containers of Docker. */
  readonly rewriteHosts?: boolean;
  /** `--add-host name:ip`, each; only with `rewriteHosts`. */
  readonly addHosts?: readonly string[];
  readonly progress?: Progress;
  readonly host?: HostPaths;
}

export interface AttachResult {
  /** Full id of Docker, or `netns-<device>-<inode>`. */
  readonly id: string;
  /** In the order of the command line; `attach` and `detach` print them without prefix, space-separated. */
  readonly addresses: readonly Cidr[];
}

export type DetachOptions = Pick<AttachOptions, "container" | "addresses" | "book" | "progress" | "host">;

/** Rejects with `OperationError` after undoing what it did; running it twice is the same as running it once. */
export function attach(_options: AttachOptions): Promise<AttachResult> {
  throw new Error("Not built yet");
}

/** `addresses` of the result are those asked for, whether or not they were there. */
export function detach(_options: DetachOptions): Promise<AttachResult> {
  throw new Error("Not built yet");
}
