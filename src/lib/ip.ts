/** IPv4 addresses and prefixes; inside the program an address is an unsigned 32-bit number. */

/** IPv4 address as u32, first octet most significant. */
export type Ipv4 = number;

/** An address with the length of its network prefix, as given: host bits may be set. */
export interface Cidr {
  readonly address: Ipv4;
  readonly prefixLength: number;
}

/** An address and a port. */
export interface Endpoint {
  readonly address: Ipv4;
  readonly port: number;
}

export function formatIpv4(address: Ipv4): string {
  return `${address >>> 24}.${address >>> 16 & 0xff}.${address >>> 8 & 0xff}.${address & 0xff}`;
}

/** Dotted quad to number; undefined where the text is anything else (leading zeros included). */
export function parseIpv4(text: string): Ipv4 | undefined {
  const m = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (m === null) return undefined;
  let value = 0;
  for (let i = 1; i <= 4; i++) {
    const part = m[i]!;
    const n = Number(part);
    if (n > 255 || (part.length > 1 && part[0] === "0")) return undefined;
    value = value * 256 + n;
  }
  return value;
}

export function formatCidr(cidr: Cidr): string {
  return `${formatIpv4(cidr.address)}/${cidr.prefixLength}`;
}

/** `a.b.c.d/n` with n from 0 to 32; undefined where the text is anything else. */
export function parseCidr(text: string): Cidr | undefined {
  const m = /^([^/]+)\/(\d{1,2})$/.exec(text);
  if (m === null) return undefined;
  const address = parseIpv4(m[1]!);
  const prefixLength = Number(m[2]);
  if (address === undefined || prefixLength > 32) return undefined;
  return { address, prefixLength };
}

/** Netmask of a prefix length, as u32. */
function netmask(prefixLength: number): Ipv4 {
  return prefixLength === 0 ? 0 : (0xffffffff << (32 - prefixLength)) >>> 0;
}

/** First address of the network that `cidr` lies in. */
export function networkOf(cidr: Cidr): Ipv4 {
  return (cidr.address & netmask(cidr.prefixLength)) >>> 0;
}

/** Last address of the network that `cidr` lies in. */
export function broadcastOf(cidr: Cidr): Ipv4 {
  return (cidr.address | ~netmask(cidr.prefixLength)) >>> 0;
}

export function cidrContains(cidr: Cidr, address: Ipv4): boolean {
  return ((cidr.address ^ address) & netmask(cidr.prefixLength)) === 0;
}

export function cidrsOverlap(a: Cidr, b: Cidr): boolean {
  return ((a.address ^ b.address) & netmask(Math.min(a.prefixLength, b.prefixLength))) === 0;
}

export function formatEndpoint(endpoint: Endpoint): string {
  return `${formatIpv4(endpoint.address)}:${endpoint.port}`;
}

/** `a.b.c.d:port`; undefined where the text is anything else. */
export function parseEndpoint(text: string): Endpoint | undefined {
  const colon = text.lastIndexOf(":");
  if (colon < 0 || !/^\d{1,5}$/.test(text.slice(colon + 1))) return undefined;
  const address = parseIpv4(text.slice(0, colon));
  const port = Number(text.slice(colon + 1));
  return address === undefined || port > 65535 ? undefined : { address, port };
}
