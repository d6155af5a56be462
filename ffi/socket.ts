/** What sockets of every family have in common, and the addresses of IPv4. An address is an unsigned number, first octet most significant. */
import { check, type Context } from "./errno.ts";
import { Fd } from "./fd.ts";
import { C, sockaddr_in } from "./layout.ts";
import { libc } from "./libc.ts";

export interface SocketAddress {
  readonly address: number;
  readonly port: number;
}

/** A nonblocking socket that child processes do not get. @param what for messages: "UDP socket" */
export function openSocket(what: string, family: number, type: number, protocol = 0): Fd {
  const flags = type | C.SOCK_NONBLOCK | C.SOCK_CLOEXEC;
  return new Fd(check("socket", () => libc.socket(family, flags, protocol), { what }), what);
}

/** Sets an option that is a number. */
export function setOption(fd: Fd, level: number, option: number, value: number, what: string): void {
  const octets = Int32Array.of(value);
  check("setsockopt", () => libc.setsockopt(fd.raw, level, option, octets, 4), { option: what });
}

/** Reads an option that is a number. */
export function getOption(fd: Fd, level: number, option: number, what: string): number {
  const value = new Int32Array(1), octets = Int32Array.of(4);
  check("getsockopt", () => libc.getsockopt(fd.raw, level, option, value, octets), { option: what });
  return value[0]!;
}

export function bind(fd: Fd, name: Uint8Array<ArrayBuffer>, context: Context): void {
  check("bind", () => libc.bind(fd.raw, name, name.length), context);
}

/** A sockaddr_in. */
export function encodeAddress({ address, port }: SocketAddress): Uint8Array<ArrayBuffer> {
  const name = sockaddr_in.make({ sin_family: C.AF_INET });
  const view = new DataView(name.buffer);
  view.setUint16(sockaddr_in.offset.sin_port, port);
  view.setUint32(sockaddr_in.offset.sin_addr, address);
  return name;
}

export function decodeAddress(name: Uint8Array<ArrayBuffer>): SocketAddress {
  const view = new DataView(name.buffer, name.byteOffset);
  return { address: view.getUint32(sockaddr_in.offset.sin_addr), port: view.getUint16(sockaddr_in.offset.sin_port) };
}

/** The address and port that an IPv4 socket is bound to. */
export function localAddress(fd: Fd): SocketAddress {
  const name = sockaddr_in.make(), octets = Uint32Array.of(name.length);
  check("getsockname", () => libc.getsockname(fd.raw, name, octets));
  return decodeAddress(name);
}

/** `10.0.0.1:6783`; `:6783` for any address. */
export function formatAddress({ address, port }: SocketAddress): string {
  if (address === 0) return `:${port}`;
  return `${address >>> 24}.${address >>> 16 & 0xff}.${address >>> 8 & 0xff}.${address & 0xff}:${port}`;
}

/** Closes the descriptor when setting it up fails half-way. */
export function setUp<T extends Disposable>(resource: T, work: (resource: T) => void): T {
  try {
    work(resource);
    return resource;
  } catch (error) {
    resource[Symbol.dispose]();
    throw error;
  }
}
