/**
 * The system calls of the packet thread, which must make no garbage: memory is named by the address of a struct that was set up
 * once, results are 32 bits wide (a 64-bit result would be a bigint each time), and an error is a negative errno. Blocking or not is
 * up to the descriptor.
 */

const O_NONBLOCKING_CALL = 0x40; // MSG_DONTWAIT
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 0x80002;
const IPPROTO_IP = 0;
const IP_MTU = 14;
const IP_MTU_DISCOVER = 10;
const IP_PMTUDISC_DO = 2;
const EPOLL_CLOEXEC = 0x80000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_MOD = 3;
const EPOLLIN = 1;
const EPOLLOUT = 4;

const libc = Deno.dlopen("libc.so.6", {
  __errno_location: { parameters: [], result: "pointer" },
  close: { parameters: ["i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  readv: { parameters: ["i32", "u64", "i32"], result: "i32" },
  recvmmsg: { parameters: ["i32", "u64", "u32", "i32", "u64"], result: "i32" },
  sendmmsg: { parameters: ["i32", "u64", "u32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  writev: { parameters: ["i32", "u64", "i32"], result: "i32" },
}).symbols;

const errnoCell = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(libc.__errno_location()!, 4));

/** Errors that mean something to the packet path (asm-generic/errno.h; alike on x86-64 and arm64). */
export const ERRNO = { EINTR: 4, EIO: 5, EAGAIN: 11, EINVAL: 22, EMSGSIZE: 90, ENOBUFS: 105 } as const;

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
  const result = libc.sendmmsg(fd, messages, count, O_NONBLOCKING_CALL);
  return result < 0 ? -errnoCell[0]! : result;
}

/** recvmmsg without waiting: messages received, or a negative errno. @param messages address of `count` mmsghdrs */
export function receiveMessages(fd: number, messages: bigint, count: number): number {
  const result = libc.recvmmsg(fd, messages, count, O_NONBLOCKING_CALL, 0n);
  return result < 0 ? -errnoCell[0]! : result;
}

const eventCell = new Uint8Array(8);

/** Takes what an eventfd has counted. */
export function drainEventFd(fd: number): void {
  libc.read(fd, eventCell, 8n);
}

/** The kernel's path MTU to an IPv4 address (IP_MTU of a socket connected there), or undefined where there is no route. */
export function pathMtu(address: number, port: number): number | undefined {
  const fd = libc.socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
  if (fd < 0) return undefined;
  try {
    const name = new Uint8Array(16);
    const view = new DataView(name.buffer);
    view.setUint16(0, AF_INET, true);
    view.setUint16(2, port);
    view.setUint32(4, address);
    libc.setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, Int32Array.of(IP_PMTUDISC_DO), 4);
    if (libc.connect(fd, name, 16) < 0) return undefined;
    const value = new Int32Array(1);
    return libc.getsockopt(fd, IPPROTO_IP, IP_MTU, value, Int32Array.of(4)) < 0 ? undefined : value[0];
  } finally {
    libc.close(fd);
  }
}

/** struct epoll_event: u32 events, u64 data, packed on x86-64 alone (linux/eventpoll.h). */
const EPOLL_EVENT = Deno.build.arch === "x86_64" ? { octets: 12, data: 4 } : { octets: 16, data: 8 };
const EPOLL_EVENTS = 8;

/** Waits for one of a few descriptors to be ready; blocks the thread. Level-triggered. */
export class Readiness implements Disposable {
  readonly #epoll: number;
  readonly #events = new Uint8Array(EPOLL_EVENTS * EPOLL_EVENT.octets);
  readonly #view = new DataView(this.#events.buffer);
  readonly #entry = new Uint8Array(EPOLL_EVENT.octets);

  constructor() {
    this.#epoll = libc.epoll_create1(EPOLL_CLOEXEC);
    if (this.#epoll < 0) throw new Error(`Cannot create epoll instance: errno ${errnoCell[0]}`);
  }

  /** Begins to watch a descriptor for what can be read from it. */
  add(fd: number): void {
    this.#control(EPOLL_CTL_ADD, fd, EPOLLIN);
  }

  /** Chooses anew what a descriptor is watched for: neither is possible. */
  change(fd: number, readable: boolean, writable: boolean): void {
    this.#control(EPOLL_CTL_MOD, fd, (readable ? EPOLLIN : 0) | (writable ? EPOLLOUT : 0));
  }

  /** Waits; how many descriptors are ready, 0 when the time is over or a signal came. */
  wait(timeoutMs: number): number {
    return Math.max(0, libc.epoll_wait(this.#epoll, this.#events, EPOLL_EVENTS, timeoutMs));
  }

  /** The i-th of those that are ready. */
  fd(i: number): number {
    return this.#view.getUint32(i * EPOLL_EVENT.octets + EPOLL_EVENT.data, true);
  }

  [Symbol.dispose](): void {
    libc.close(this.#epoll);
  }

  #control(operation: number, fd: number, events: number): void {
    const view = new DataView(this.#entry.buffer);
    view.setUint32(0, events, true);
    view.setUint32(EPOLL_EVENT.data, fd, true);
    if (libc.epoll_ctl(this.#epoll, operation, fd, this.#entry) < 0) {
      throw new Error(`Cannot watch descriptor ${fd}: errno ${errnoCell[0]}`);
    }
  }
}
