/**
 * What `attach`, `detach`, `expose` and `hide` need to know from elsewhere: addresses and names are the router's, and the commands ask
 * it for nothing else, as they have root and its API has no authentication. `src/api/client.ts` speaks it over HTTP; tests use a fake.
 */
import { broadcastOf, type Cidr, formatCidr, type Ipv4, parseCidr } from "../lib/ip.ts";
import { OperationError, OptionError } from "../lib/errors.ts";

/** `"disabled"`: the router runs without this subsystem (404). `"absent"`: no router answers. */
export type Unserved = "disabled" | "absent";

/**
 * Owners are named by container id, or by a pseudo id such as `weave:expose`. Methods reject with `OperationError`
 * whose message is what the user shall read (the response body) and whose status is the command's.
 */
export interface AddressBook {
  /** POST /ip/{id}[/{net}/{len}]: an address of `subnet` (undefined: the default subnet); the same one again if held. */
  allocate(id: string, subnet: Cidr | undefined, options: { checkAlive: boolean }): Promise<Cidr | Unserved>;
  /** PUT /ip/{id}/{ip}/{len}: claims that very address; rejects where it is refused. */
  claim(id: string, cidr: Cidr, options: { checkAlive: boolean }): Promise<"claimed" | Unserved>;
  /** GET /ip/{id}[/{net}/{len}]: the addresses `id` holds in `subnet`; never waits for IPAM to be ready. */
  lookup(id: string, subnet: Cidr | undefined): Promise<readonly Cidr[] | Unserved>;
  /** DELETE /ip/{id}/{ip}: gives an address back. Not holding it is no error: the answer is `"unknown"`. */
  free(id: string, address: Ipv4): Promise<"freed" | "unknown" | Unserved>;
  /** PUT /name/{id}/{ip}?fqdn=: names an address. */
  registerName(id: string, address: Ipv4, fqdn: string, options: { checkAlive: boolean }): Promise<"done" | Unserved>;
  /** DELETE /name/{id}/{ip}[?fqdn=]: takes one name, or all names of that address under `id`, away. */
  removeName(id: string, address: Ipv4, fqdn: string | undefined): Promise<"done" | Unserved>;
}

/** Owner of the addresses that `expose` puts on the bridge. */
export const EXPOSE_ID = "weave:expose";

/** One `<addr>` of the command line. */
export type AddressToken =
  | { readonly kind: "given"; readonly cidr: Cidr }
  | { readonly kind: "net"; readonly subnet: Cidr }
  | { readonly kind: "default" };

/** What an operation tells its caller while it works; both go to stderr, or to the log. */
export interface Progress {
  /** Something the user should know, although the operation goes on. A line without its end. */
  warn(line: string): void;
}

/** Reads `a.b.c.d/n`, `ip:a.b.c.d/n`, `net:a.b.c.d/n` or `net:default`; undefined where it has none of these shapes. */
export function parseAddressToken(text: string): AddressToken | undefined {
  if (text === "net:default") return { kind: "default" };
  const net = text.startsWith("net:");
  const cidr = parseCidr(net || text.startsWith("ip:") ? text.slice(text.indexOf(":") + 1) : text);
  if (cidr === undefined) return undefined;
  return net ? { kind: "net", subnet: cidr } : { kind: "given", cidr };
}

/** The reverse of `parseAddressToken`. */
export function formatAddressToken(token: AddressToken): string {
  if (token.kind === "given") return formatCidr(token.cidr);
  return token.kind === "net" ? `net:${formatCidr(token.subnet)}` : "net:default";
}

/** Refuses a given address that no interface can hold. Linux takes the address of the network itself, as Weave does. */
export function checkGivenAddress(cidr: Cidr): void {
  const text = formatCidr(cidr);
  const first = cidr.address >>> 24;
  const why = cidr.prefixLength === 0
    ? "prefix length must be 1 to 32, is 0"
    : first === 0
    ? "it means this network"
    : first === 127
    ? "it is a loopback address"
    : first >= 224
    ? "it is no unicast address"
    : cidr.prefixLength < 31 && broadcastOf(cidr) === cidr.address
    ? "it is the broadcast address of its network"
    : undefined;
  if (why !== undefined) throw new OptionError(`Cannot use "${text}" as address: ${why}`);
}

/** The error for `net:` where nobody allocates, in the words of Weave Net 2.8. */
export function allocationDisabled(): OperationError {
  return new OperationError("IP address allocation must be enabled to use 'net:'", 1);
}
