/**
 * TCP over IPv4 by nonblocking sockets of our own, with what Deno's have not: a chosen source address, closing by a reset, a limit
 * on how long data may stay unacknowledged. Each call returns at once.
 */
import { attempt, check, ERRNO, SysError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { C, linger, sockaddr_in } from "./layout.ts";
import { libc } from "./libc.ts";
import {
  bind,
  decodeAddress,
  encodeAddress,
  formatAddress,
  getOption,
  localAddress,
  openSocket,
  setOption,
  setUp,
  type SocketAddress,
} from "./socket.ts";

const BACKLOG = 128;
/**
 * Octets of a segment, both ways: the least that every host takes (RFC 9293, 3.7.1). Packets of that size also pass where the path is
 * narrower than the link and nobody says so, where TCP would wait for ever; what routers tell each other is little.
 */
const SEGMENT_OCTETS = 536;
/** A peer that is gone is found out by the mesh earlier; this clears away what waits for nobody. */
const USER_TIMEOUT_MS = 60_000;
const EAGAIN = ERRNO.EAGAIN[0], EINPROGRESS = ERRNO.EINPROGRESS[0], ECONNABORTED = ERRNO.ECONNABORTED[0];
const LINGER_RESET = linger.make({ l_onoff: 1, l_linger: 0 });

/** A connection or an attempt at one. */
export interface TcpSocket {
  readonly fd: Fd;
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
}

/** A listening socket. @throws SysError EADDRINUSE, EADDRNOTAVAIL */
export function listenTcp(local: SocketAddress): { fd: Fd; local: SocketAddress } {
  const fd = setUp(openSocket("listening TCP socket", C.AF_INET, C.SOCK_STREAM), (fd) => {
    const context = { address: formatAddress(local) };
    // Connections of a router that is no more may linger on the port.
    setOption(fd, C.SOL_SOCKET, C.SO_REUSEADDR, 1, "SO_REUSEADDR");
    // Taken over by connections, and announced to their other ends.
    setOption(fd, C.IPPROTO_TCP, C.TCP_MAXSEG, SEGMENT_OCTETS, "TCP_MAXSEG");
    bind(fd, encodeAddress(local), context);
    check("listen", () => libc.listen(fd.raw, BACKLOG), context);
  });
  return { fd, local: localAddress(fd) };
}

/** The next connection, undefined where none waits. @throws SysError, such as EMFILE, where one waits and cannot be taken */
export function acceptTcp(listener: Fd): TcpSocket | undefined {
  for (;;) {
    const name = sockaddr_in.make(), octets = Uint32Array.of(name.length);
    const flags = C.SOCK_NONBLOCK | C.SOCK_CLOEXEC;
    const result = attempt(() => libc.accept4(listener.raw, name, octets, flags));
    if (result === -ECONNABORTED) continue;
    if (result === -EAGAIN) return undefined;
    if (result < 0) throw new SysError("accept4", -result);
    const fd = setUp(new Fd(result, "TCP socket"), setConnectionOptions);
    return { fd, local: localAddress(fd), remote: decodeAddress(name) };
  }
}

export interface ConnectOptions {
  /** Address to connect from, 0: whichever the route says. */
  readonly source?: number;
  /** Of its packets, for rules and routes; needs CAP_NET_ADMIN. */
  readonly mark?: number;
}

/**
 * Begins a connection; it has been decided when the socket is writable, see `connectionError`.
 * @throws SysError of `bind` or `connect` where it is decided at once
 */
export function connectTcp(remote: SocketAddress, { source = 0, mark = 0 }: ConnectOptions = {}): Fd {
  return setUp(openSocket("TCP socket", C.AF_INET, C.SOCK_STREAM), (fd) => {
    setConnectionOptions(fd);
    setOption(fd, C.IPPROTO_TCP, C.TCP_MAXSEG, SEGMENT_OCTETS, "TCP_MAXSEG");
    if (mark !== 0) setOption(fd, C.SOL_SOCKET, C.SO_MARK, mark, "SO_MARK");
    const from = { address: source, port: 0 };
    if (source !== 0) bind(fd, encodeAddress(from), { address: formatAddress(from) });
    const name = encodeAddress(remote);
    const result = attempt(() => libc.connect(fd.raw, name, name.length));
    if (result < 0 && result !== -EINPROGRESS) {
      throw new SysError("connect", -result, { address: formatAddress(remote) });
    }
  });
}

/** What became of a connection that was begun: 0, or an errno. Reading it takes it away. */
export function connectionError(fd: Fd): number {
  return getOption(fd, C.SOL_SOCKET, C.SO_ERROR, "SO_ERROR");
}

/** Reads into `buffer`: octets, 0 at the end of the stream, or a negative errno. */
export function readTcp(fd: Fd, buffer: Uint8Array<ArrayBuffer>): number {
  const size = BigInt(buffer.length);
  return attempt(() => libc.recvfrom(fd.raw, buffer, size, 0, null, null));
}

/** Writes what the kernel takes: octets, or a negative errno. */
export function writeTcp(fd: Fd, octets: Uint8Array<ArrayBuffer>): number {
  const size = BigInt(octets.length);
  return attempt(() => libc.sendto(fd.raw, octets, size, C.MSG_NOSIGNAL, null, 0));
}

/** Closes with a reset: what was not sent yet is dropped, and the other side learns at once. */
export function resetTcp(fd: Fd): void {
  libc.setsockopt(fd.raw, C.SOL_SOCKET, C.SO_LINGER, LINGER_RESET, LINGER_RESET.length);
  fd.close();
}

function setConnectionOptions(fd: Fd): void {
  setOption(fd, C.IPPROTO_TCP, C.TCP_NODELAY, 1, "TCP_NODELAY");
  setOption(fd, C.IPPROTO_TCP, C.TCP_USER_TIMEOUT, USER_TIMEOUT_MS, "TCP_USER_TIMEOUT");
}

/** Whether an errno of reading or writing says: later. */
export function isLater(errno: number): boolean {
  return errno === EAGAIN;
}
