/** How operations come by their addresses, and how they give them back. */
import { NoAnswerError, OperationError, RouterAbsentError } from "../lib/errors.ts";
import { type Cidr, cidrContains, formatCidr, formatIpv4, type Ipv4, networkOf } from "../lib/ip.ts";
import { formatMac } from "../lib/mac.ts";
import { findOwner } from "../host/arp.ts";
import type { Links } from "../host/links.ts";
import type { Link, Route } from "../wire/rtnetlink.ts";
import {
  type AddressBook,
  type AddressToken,
  allocationDisabled,
  checkGivenAddress,
  type Progress,
} from "./address_book.ts";

/** One address that an operation may now use. */
export interface Obtained {
  readonly cidr: Cidr;
  /** The user named it, nobody allocated it: somebody else may be using it. */
  readonly given: boolean;
  /** Ours since this operation, to be given back if it fails. */
  readonly fresh: boolean;
}

export interface ObtainOptions {
  readonly id: string;
  readonly tokens: readonly AddressToken[];
  readonly book: AddressBook;
  readonly checkAlive: boolean;
  /** Given addresses do not need the router (`attach`), or do (`expose`). */
  readonly needsRouter: boolean;
  /** In the order of the tokens. */
  readonly onObtained: (address: Obtained) => void;
}

/** Refuses what no interface can hold, and warns of given addresses that the host routes elsewhere. */
export function checkTokens(
  tokens: readonly AddressToken[],
  links: Links,
  bridge: number | undefined,
  progress: Progress | undefined,
): void {
  const given = tokens.filter((token) => token.kind === "given").map((token) => token.cidr);
  given.forEach(checkGivenAddress);
  if (given.length === 0 || progress === undefined) return;
  const routes = links.routes();
  for (const cidr of given) {
    const warning = overlapWarning(cidr, routes, bridge);
    if (warning !== undefined) progress.warn(warning);
  }
}

/** The warning for a given address inside a route of the host that does not lead to the bridge; the default route does not count. */
export function overlapWarning(cidr: Cidr, routes: readonly Route[], bridge: number | undefined): string | undefined {
  const route = routes.find((r) =>
    r.destination.prefixLength > 0 && r.link !== bridge && cidrContains(r.destination, cidr.address)
  );
  if (route === undefined) return undefined;
  const what = cidr.prefixLength < 32 && networkOf(cidr) === cidr.address
    ? `Network ${formatCidr(cidr)}`
    : `Address ${formatIpv4(cidr.address)}`;
  return `${what} overlaps with existing route ${formatCidr(route.destination)} on host`;
}

/** Allocates or claims an address for each token, none meaning the default subnet; reports each as soon as it is ours. */
export async function obtainAddresses(options: ObtainOptions): Promise<void> {
  const { id, book, checkAlive, onObtained } = options;
  const tokens = options.tokens.length > 0 ? options.tokens : [{ kind: "default" } as const];
  for (const token of tokens) {
    if (token.kind === "given") {
      // A subnet that nobody allocates from cannot be looked up; whether it can be claimed is for the router to say.
      const held = await book.lookup(id, subnetOf(token.cidr)).catch(noneUnlessSilent);
      const claim = await book.claim(id, token.cidr, { checkAlive });
      if (claim === "absent" && options.needsRouter) throw new RouterAbsentError();
      const fresh = claim === "claimed" && !holds(held, token.cidr.address);
      onObtained({ cidr: token.cidr, given: true, fresh });
    } else {
      const subnet = token.kind === "net" ? token.subnet : undefined;
      const held = await book.lookup(id, subnet);
      const cidr = await book.allocate(id, subnet, { checkAlive });
      if (cidr === "absent") throw new RouterAbsentError();
      if (cidr === "disabled") throw allocationDisabled();
      onObtained({ cidr, given: false, fresh: !holds(held, cidr.address) });
    }
  }
}

/** Refuses addresses that somebody answers for: this host itself, or anybody in the mesh (RFC 5227). */
export async function refuseTaken(links: Links, bridge: Link, addresses: readonly Cidr[]): Promise<void> {
  const own = links.addresses(bridge.index);
  const owners = await Promise.all(
    addresses.map(async ({ address }) =>
      own.some((cidr) => cidr.address === address) ? bridge.mac : await findOwner(bridge, address)
    ),
  );
  owners.forEach((mac, i) => {
    if (mac === undefined) return;
    throw new OperationError(`Cannot use address ${formatCidr(addresses[i]!)}: ${formatMac(mac)} has it already`);
  });
}

export interface LookUpOptions {
  readonly id: string;
  readonly tokens: readonly AddressToken[];
  readonly book: AddressBook;
  /** What is there; all of it is meant where nothing is named and nobody allocates. */
  readonly present: readonly Cidr[];
}

/** The addresses that `detach` and `hide` mean; allocates none, and waits for nothing. */
export async function lookUpAddresses({ id, tokens, book, present }: LookUpOptions): Promise<Cidr[]> {
  if (tokens.length === 0) {
    const held = await book.lookup(id, undefined);
    if (held === "absent") throw new RouterAbsentError();
    return held === "disabled" ? [...present] : [...held];
  }
  const addresses: Cidr[] = [];
  for (const token of tokens) {
    if (token.kind === "given") {
      addresses.push(token.cidr);
      continue;
    }
    const held = await book.lookup(id, token.kind === "net" ? token.subnet : undefined);
    if (held === "absent") throw new RouterAbsentError();
    if (held === "disabled") throw allocationDisabled();
    addresses.push(...held);
  }
  return addresses;
}

/** Gives addresses back that an operation took and cannot use; what fails here is said, not thrown. */
export async function giveBack(
  book: AddressBook,
  id: string,
  addresses: readonly Ipv4[],
  progress: Progress | undefined,
): Promise<void> {
  for (const address of addresses) {
    try {
      await book.free(id, address);
    } catch (error) {
      progress?.warn(`Cannot give address ${formatIpv4(address)} back: ${(error as Error).message}`);
    }
  }
}

/** Runs `undo` steps, last first, after `error`; the result says what could not be undone. */
export async function undone(error: unknown, undo: readonly (() => void | Promise<void>)[]): Promise<unknown> {
  const left: string[] = [];
  for (const step of [...undo].reverse()) {
    try {
      await step();
    } catch (failure) {
      left.push((failure as Error).message);
    }
  }
  if (left.length === 0) return error;
  const { message, exitStatus = 1 } = error as { message: string; exitStatus?: number };
  return new OperationError(`${message}; undoing it failed as well: ${left.join("; ")}`, exitStatus, { cause: error });
}

function noneUnlessSilent(error: unknown): [] {
  if (error instanceof NoAnswerError) throw error;
  return [];
}

function subnetOf(cidr: Cidr): Cidr {
  return { address: networkOf(cidr), prefixLength: cidr.prefixLength };
}

function holds(held: readonly Cidr[] | string, address: Ipv4): boolean {
  return typeof held !== "string" && held.some((cidr) => cidr.address === address);
}
