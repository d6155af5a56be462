/**
 * The system calls of the packet thread, which must make no garbage: memory is named by the address of a struct that was set up
 * once, results are 32 bits wide (a 64-bit result would be a bigint each time), and an error is a negative errno. Blocking or not is
 * up to the descriptor.
 */
import { check, ERRNO as ALL } from "./errno.ts";
import { C, epoll_event } from "./layout.ts";
import { errnoCell, libc } from "./libc.ts";
import { encodeAddress } from "./socket.ts";

const { MSG_DONTWAIT } = C;

/** Errors that mean something to the packet path. */
export const ERRNO = {
  EINTR: ALL.EINTR[0],
  EIO: ALL.EIO[0],
  EAGAIN: ALL.EAGAIN[0],
  EINVAL: ALL.EINVAL[0],
  EMSGSIZE: ALL.EMSGSIZE[0],
  ENOBUFS: ALL.ENOBUFS[0],
} as const;

/** Address of the memory's first octet. The memory must be one that never moves: a WebAssembly memory that does not grow, say. */
export function addressOf(memory: Uint8Array<ArrayBuffer>): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory));
}

/** readv: octets read, or a negative errno. @param iov address of `count` iovecs */
export function readVector(fd: number, iov: bigint, count: number): number {
  const result = libc.readv(fd, iov, count);
  return result < 0 ? -errnoCell[0]! : result;
}

/** writev: octets written, or a negative errno. @param iov address of `count` iovecs */
export function writeVector(fd: number, iov: bigint, count: number): number {
  const result = libc.writev(fd, iov, count);
  return result < 0 ? -errnoCell[0]! : result;
}

/** sendmmsg without waiting: messages sent, or a negative errno. @param messages address of `count` mmsghdrs */
export function sendMessages(fd: number, messages: bigint, count: number): number {
  const result = libc.sendmmsg(fd, messages, count, MSG_DONTWAIT);
  return result < 0 ? -errnoCell[0]! : result;
}

/** recvmmsg without waiting: messages received, or a negative errno. @param messages address of `count` mmsghdrs */
export function receiveMessages(fd: number, messages: bigint, count: number): number {
  const result = libc.recvmmsg(fd, messages, count, MSG_DONTWAIT, 0n);
  return result < 0 ? -errnoCell[0]! : result;
}

const eventCell = new Uint8Array(8);

/** Takes what an eventfd has counted. */
export function drainEventFd(fd: number): void {
  libc.read(fd, eventCell, 8n);
}

/** The kernel's path MTU to an IPv4 address (IP_MTU of a socket connected there), or undefined where there is no route. */
export function pathMtu(address: number, port: number): number | undefined {
  const fd = libc.socket(C.AF_INET, C.SOCK_DGRAM | C.SOCK_CLOEXEC, 0);
  if (fd < 0) return undefined;
  try {
    const name = encodeAddress({ address, port });
    libc.setsockopt(fd, C.IPPROTO_IP, C.IP_MTU_DISCOVER, Int32Array.of(C.IP_PMTUDISC_DO), 4);
    if (libc.connect(fd, name, name.length) < 0) return undefined;
    const value = new Int32Array(1);
    return libc.getsockopt(fd, C.IPPROTO_IP, C.IP_MTU, value, Int32Array.of(4)) < 0 ? undefined : value[0];
  } finally {
    libc.close(fd);
  }
}

const EVENTS = 8;
const EVENT_OCTETS = epoll_event.octets;
const EVENT_DATA = epoll_event.offset.data;

/** Waits for one of a few descriptors to be ready; blocks the thread. Level-triggered. */
export class Readiness implements Disposable {
  readonly #epoll: number;
  readonly #events = new Uint8Array(EVENTS * EVENT_OCTETS);
  readonly #view = new DataView(this.#events.buffer);
  readonly #entry = new Uint8Array(EVENT_OCTETS);
  readonly #entryView = new DataView(this.#entry.buffer);

  constructor() {
    this.#epoll = check("epoll_create1", () => libc.epoll_create1(C.EPOLL_CLOEXEC));
  }

  /** Begins to watch a descriptor for what can be read from it. */
  add(fd: number): void {
    this.#control(C.EPOLL_CTL_ADD, fd, C.EPOLLIN);
  }

  /** Chooses anew what a descriptor is watched for: neither is possible. */
  change(fd: number, readable: boolean, writable: boolean): void {
    this.#control(C.EPOLL_CTL_MOD, fd, (readable ? C.EPOLLIN : 0) | (writable ? C.EPOLLOUT : 0));
  }

  /** Waits; how many descriptors are ready, 0 when the time is over or a signal came. */
  wait(timeoutMs: number): number {
    return Math.max(0, libc.epoll_wait(this.#epoll, this.#events, EVENTS, timeoutMs));
  }

  /** The i-th of those that are ready. */
  fd(i: number): number {
    return this.#view.getUint32(i * EVENT_OCTETS + EVENT_DATA, true);
  }

  [Symbol.dispose](): void {
    libc.close(this.#epoll);
  }

  #control(operation: number, fd: number, events: number): void {
    this.#entryView.setUint32(epoll_event.offset.events, events, true);
    this.#entryView.setUint32(EVENT_DATA, fd, true);
    check("epoll_ctl", () => libc.epoll_ctl(this.#epoll, operation, fd, this.#entry), { fd });
  }
}
