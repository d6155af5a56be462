/** `expose` and `hide`: gives the host itself addresses on the overlay. Also behind `POST /expose`. */
import { type Cidr, formatCidr } from "../lib/ip.ts";
import { announceAddress } from "../host/arp.ts";
import { findBridge } from "../host/bridge.ts";
import type { Exposure } from "../host/firewall.ts";
import { Links, readSysctl } from "../host/links.ts";
import { keepServiceAddressesLast } from "../host/service_routes.ts";
import { type AddressBook, type AddressToken, EXPOSE_ID, type Progress } from "./address_book.ts";
import {
  checkTokens,
  giveBack,
  lookUpAddresses,
  obtainAddresses,
  type Obtained,
  refuseTaken,
  undone,
} from "./addresses.ts";
import { HOST, type HostPaths, Plumbing } from "./plumbing.ts";

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

type Undo = (() => void | Promise<void>)[];

/** Resolves to the addresses in the order of the command line. */
export async function expose(options: ExposeOptions): Promise<readonly Cidr[]> {
  const { book, progress } = options;
  const plumbing = new Plumbing(options.host ?? HOST, progress);
  using links = new Links();
  checkTokens(options.addresses, links, links.find(plumbing.host.bridge)?.index, progress);
  const undo: Undo = [];
  const obtained: Obtained[] = [];
  try {
    await obtainAddresses({
      id: EXPOSE_ID,
      tokens: options.addresses,
      book,
      checkAlive: false,
      needsRouter: true,
      onObtained(address) {
        obtained.push(address);
        if (address.fresh) undo.push(() => giveBack(book, EXPOSE_ID, [address.cidr.address], progress));
      },
    });
    const masquerade = options.withoutMasquerade !== true;
    const wanted = obtained.map(({ cidr, given }) => ({ cidr, given, masquerade }));
    await plumbing.locked(() => putOnBridge(plumbing, links, wanted));
  } catch (error) {
    throw await undone(error, undo);
  }
  warnWithoutForwarding(progress);
  const addresses = obtained.map(({ cidr }) => cidr);
  if (options.fqdn !== undefined) {
    for (const { address } of addresses) {
      await book.registerName(EXPOSE_ID, address, options.fqdn, { checkAlive: false });
    }
  }
  return addresses;
}

/** Resolves to the addresses meant, whether or not they were exposed. */
export async function hide(options: HideOptions): Promise<readonly Cidr[]> {
  const { book, progress } = options;
  const plumbing = new Plumbing(options.host ?? HOST, progress);
  using links = new Links();
  const { index } = findBridge(links, plumbing.host.bridge);
  const present = links.addresses(index);
  const addresses = await lookUpAddresses({ id: EXPOSE_ID, tokens: options.addresses, book, present });
  await plumbing.locked(async () => {
    links.removeAddresses(index, addresses);
    await plumbing.rememberExposures(await plumbing.exposures(links));
    await plumbing.refreshFirewall(links);
  });
  for (const { address } of addresses) await book.removeName(EXPOSE_ID, address, undefined);
  await giveBack(book, EXPOSE_ID, addresses.map(({ address }) => address), progress);
  return addresses;
}

/**
 * Puts exposures back that the last router of this boot had, onto a bridge that had to be made anew. The caller holds the
 * lock and refreshes the packet filter afterwards.
 */
export async function restoreExposures(plumbing: Plumbing, links: Links): Promise<void> {
  const { index } = findBridge(links, plumbing.host.bridge);
  for (const { cidr } of await plumbing.rememberedExposures()) links.addAddress(index, cidr);
}

/** Everything that is done to the machine, undone where a step of it fails; the caller holds the lock. */
async function putOnBridge(
  plumbing: Plumbing,
  links: Links,
  wanted: readonly (Exposure & { readonly given: boolean })[],
): Promise<void> {
  const bridge = findBridge(links, plumbing.host.bridge);
  const before = await plumbing.exposures(links);
  const known = new Set(before.map(({ cidr }) => formatCidr(cidr)));
  const missing = wanted.filter(({ cidr }) => !known.has(formatCidr(cidr)));
  await refuseTaken(links, bridge, missing.filter(({ given }) => given).map(({ cidr }) => cidr));
  const undo: Undo = [async () => {
    await plumbing.rememberExposures(before);
    await plumbing.refreshFirewall(links);
  }];
  try {
    const after = new Map(
      [...before, ...wanted].map(({ cidr, masquerade }) => [formatCidr(cidr), { cidr, masquerade }]),
    );
    // Known before the address is there, so that a crash in between never masquerades against the user's will.
    await plumbing.rememberExposures([...after.values()]);
    for (const { cidr } of missing) {
      if (links.addAddress(bridge.index, cidr)) undo.push(() => links.removeAddresses(bridge.index, [cidr]));
    }
    keepServiceAddressesLast(links, bridge.index);
    await plumbing.refreshFirewall(links);
    for (const { cidr } of missing) announceAddress(bridge, cidr.address);
  } catch (error) {
    throw await undone(error, undo);
  }
}

/** Docker switches forwarding on; a host without it reaches the overlay, but passes nothing on. */
function warnWithoutForwarding(progress: Progress | undefined): void {
  if (readSysctl("net/ipv4/ip_forward") === 0) {
    progress?.warn(
      "IPv4 forwarding is off on this host (net.ipv4.ip_forward is 0): it reaches the exposed subnets itself, but forwards nothing to or from them",
    );
  }
}
