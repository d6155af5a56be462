/** UDP sockets over IPv4 for the packet thread: nonblocking, with large queues, datagrams of one flow received as one where the kernel can. */
import { attempt, check } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { C } from "./layout.ts";
import { libc } from "./libc.ts";
import {
  bind,
  encodeAddress,
  formatAddress,
  getOption,
  localAddress,
  openSocket,
  setOption,
  setUp,
  type SocketAddress,
} from "./socket.ts";

/** What holds a burst of 40 ms at 1.4 Gb/s; wireguard-go takes as much. */
const QUEUE_OCTETS = 7 * 1024 * 1024;

export interface UdpOptions {
  /** 0: every address of this host. */
  readonly address: number;
  /** 0: one that the kernel chooses, the same for both. */
  readonly port: number;
  /** What each socket may queue in either direction; the kernel's own limit holds for whoever lacks CAP_NET_ADMIN. */
  readonly queueOctets?: number;
}

/** Two sockets on one address and port. What arrives is spread over both by flow, so both must be read. */
export interface UdpPair extends Disposable {
  /** Sends with DF set: what is above the path MTU is refused with EMSGSIZE. */
  readonly df: Fd;
  /** Sends without DF: routers on the way may fragment. */
  readonly plain: Fd;
  readonly local: SocketAddress;
  /** The kernel hands out datagrams of one flow glued together (UDP_GRO). */
  readonly gro: boolean;
}

/** @throws SysError EADDRINUSE where any other socket has the port, that of a second router too */
export function openUdpPair({ address, port, queueOctets = QUEUE_OCTETS }: UdpOptions): UdpPair {
  using opened = new DisposableStack();
  const df = opened.use(openUdp({ address, port }, C.IP_PMTUDISC_DO, queueOctets));
  // Shared from now on, and not before: another router would share the port as well.
  setOption(df, C.SOL_SOCKET, C.SO_REUSEPORT, 1, "SO_REUSEPORT");
  const local = localAddress(df);
  const plain = opened.use(openUdp(local, C.IP_PMTUDISC_DONT, queueOctets, true));
  const gro = [df, plain].every(enableGro);
  const owned = opened.move();
  return { df, plain, local, gro, [Symbol.dispose]: () => owned.dispose() };
}

/**
 * A socket for datagrams to and from one address. That the other side refuses them is told as ECONNREFUSED when it is used next.
 * @param options `mark` of its packets, for rules and routes; needs CAP_NET_ADMIN
 * @throws SysError ENETUNREACH where no route leads there
 */
export function connectUdp(remote: SocketAddress, { mark = 0 }: { readonly mark?: number } = {}): Fd {
  return setUp(openSocket("UDP socket", C.AF_INET, C.SOCK_DGRAM), (fd) => {
    if (mark !== 0) setOption(fd, C.SOL_SOCKET, C.SO_MARK, mark, "SO_MARK");
    const name = encodeAddress(remote);
    check("connect", () => libc.connect(fd.raw, name, name.length), { address: formatAddress(remote) });
  });
}

function openUdp(local: SocketAddress, pathMtuDiscovery: number, queueOctets: number, share = false): Fd {
  return setUp(openSocket("UDP socket", C.AF_INET, C.SOCK_DGRAM), (fd) => {
    setOption(fd, C.IPPROTO_IP, C.IP_MTU_DISCOVER, pathMtuDiscovery, "IP_MTU_DISCOVER");
    setQueue(fd, C.SO_RCVBUFFORCE, C.SO_RCVBUF, queueOctets);
    setQueue(fd, C.SO_SNDBUFFORCE, C.SO_SNDBUF, queueOctets);
    if (share) setOption(fd, C.SOL_SOCKET, C.SO_REUSEPORT, 1, "SO_REUSEPORT");
    bind(fd, encodeAddress(local), { address: formatAddress(local) });
  });
}

/** Unknown before Linux 5.0: datagrams then come one by one. */
function enableGro(fd: Fd): boolean {
  const on = Int32Array.of(1);
  return attempt(() => libc.setsockopt(fd.raw, C.SOL_UDP, C.UDP_GRO, on, 4)) >= 0;
}

/** Past this machine's limit where that is allowed, else up to it. */
function setQueue(fd: Fd, forced: number, usual: number, octets: number): void {
  const value = Int32Array.of(octets);
  const result = attempt(() => libc.setsockopt(fd.raw, C.SOL_SOCKET, forced, value, 4));
  if (result < 0) setOption(fd, C.SOL_SOCKET, usual, octets, "SO_RCVBUF or SO_SNDBUF");
}

/** Octets that the receiving queue holds, with the kernel's overhead. */
export function receiveQueueOctets(fd: Fd): number {
  return getOption(fd, C.SOL_SOCKET, C.SO_RCVBUF, "SO_RCVBUF");
}
