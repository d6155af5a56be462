/**
 * TCP sockets of the control plane. Accepted and dialled ones alike report to a handler; nothing here knows what the octets mean.
 * Reasons are worded as the Go runtime does it, which users of Weave Net know:
 *
 *     dial tcp :0->192.168.1.2:6783: connect: connection refused
 *     dial tcp :0->192.168.1.2:6783: i/o timeout
 *     read tcp 192.168.1.1:6783->192.168.1.2:40112: read: connection reset by peer
 *     EOF
 */
import { ERRNO, errnoText, SysError } from "../../ffi/errno.ts";
import type { Fd } from "../../ffi/fd.ts";
import { Poller, type Ready, type Watch } from "../../ffi/poller.ts";
import { formatAddress, localAddress } from "../../ffi/socket.ts";
import {
  acceptTcp,
  connectionError,
  connectTcp,
  isLater,
  listenTcp,
  readTcp,
  resetTcp,
  type TcpSocket,
  writeTcp,
} from "../../ffi/tcp.ts";
import { type Endpoint, formatEndpoint, type Ipv4 } from "../lib/ip.ts";
import { type Logger, SILENT } from "../lib/log.ts";

const KIB = 1024;
/** What one call reads or writes; small messages are put together up to this. */
const CALL_OCTETS = 64 * KIB;
/** What a socket may read, and write, before the others have their turn. */
const TURN_OCTETS = 256 * KIB;
/** `send()` asks for a pause above the first, and `onWritable` tells when the second is reached. */
const HIGH_WATER_OCTETS = 256 * KIB;
const LOW_WATER_OCTETS = 64 * KIB;
/** A sender that does not pause is cut off here: three messages of the largest size. */
const LIMIT_OCTETS = 32 * KIB * KIB;
const ACCEPTS_PER_TURN = 16;
/** When descriptors have run out, say. */
const ACCEPT_PAUSE_MS = 200;
const DIAL_LIMIT_MS = 30_000;

export interface ListenHandler {
  /** The socket is the handler's: to `start()` or to `close()`. */
  onAccepted(socket: ControlSocket): void;
}

export interface DialHandler {
  /** The socket is the handler's: to `start()` or to `close()`. */
  onConnected(socket: ControlSocket): void;
  onFailed(reason: string): void;
}

/** What a socket tells its owner. Any method of the socket may be called from within. */
export interface SocketHandler {
  /** Octets as they came, cut anywhere. They are the handler's own. */
  onOctets(octets: Uint8Array): void;
  /** The socket has ended by itself and is closed. Not called after `close()`. */
  onClosed(reason: string): void;
  /** After `send()` returned false: most of it is gone. */
  onWritable(): void;
}

export interface DialOptions {
  /** Address to connect from; undefined: whichever the route says. */
  readonly source?: Ipv4 | undefined;
  readonly limitMs?: number;
}

export interface Listener {
  /** With the port that the kernel chose, where 0 was asked for. */
  readonly local: Endpoint;
  close(): void;
}

/** An attempt to connect. */
export interface Dial {
  /** The handler hears nothing any more. */
  cancel(): void;
}

/** All sockets of a router, and the one wait for them. */
export class ControlSockets {
  readonly #shared: Shared;
  #stopped = false;

  constructor(options: { readonly log?: Logger } = {}) {
    this.#shared = {
      log: options.log ?? SILENT,
      poller: new Poller(),
      open: new Set(),
      buffer: new Uint8Array(CALL_OCTETS),
    };
  }

  /** Accepts connections. @param at address undefined: every one of this host @throws SysError EADDRINUSE, EADDRNOTAVAIL */
  listen(at: { readonly address?: Ipv4 | undefined; readonly port: number }, handler: ListenHandler): Listener {
    this.#checkRunning();
    return new TcpListener(this.#shared, { address: at.address ?? 0, port: at.port }, handler);
  }

  /** Connects; the handler hears of the outcome, never before this has returned. */
  dial(remote: Endpoint, handler: DialHandler, options: DialOptions = {}): Dial {
    this.#checkRunning();
    return new TcpDial(this.#shared, remote, handler, options);
  }

  /** Calls back whenever another descriptor is ready, until the function it returns is called; do that before closing it. */
  watch(fd: Fd, onReady: () => void, interest: "readable" | "writable" = "readable"): () => void {
    this.#checkRunning();
    const wanted = { readable: interest === "readable", writable: interest === "writable" };
    const watch = this.#shared.poller.watch(fd, wanted, onReady);
    return () => watch.remove();
  }

  /** Closes everything, with no word to any handler, and ends the wait: nothing keeps the process alive then. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const one of [...this.#shared.open]) one.close();
    await this.#shared.poller.stop();
  }

  #checkRunning(): void {
    if (this.#stopped) throw new Error("Cannot use control sockets: they were stopped");
  }
}

interface Shared {
  readonly log: Logger;
  readonly poller: Poller;
  /** What `stop()` closes. */
  readonly open: Set<{ close(): void }>;
  /** For one read or write at a time. */
  readonly buffer: Uint8Array<ArrayBuffer>;
}

class TcpListener implements Listener {
  readonly local: Endpoint;
  readonly #shared: Shared;
  readonly #handler: ListenHandler;
  readonly #fd: Fd;
  readonly #watch: Watch;
  #pause: ReturnType<typeof setTimeout> | undefined;

  constructor(shared: Shared, at: Endpoint, handler: ListenHandler) {
    this.#shared = shared;
    this.#handler = handler;
    const { fd, local } = listenTcp(at);
    this.#fd = fd;
    this.local = local;
    this.#watch = shared.poller.watch(fd, { readable: true, writable: false }, () => this.#accept());
    shared.open.add(this);
  }

  close(): void {
    if (this.#fd.closed) return;
    clearTimeout(this.#pause);
    this.#watch.remove();
    this.#fd.close();
    this.#shared.open.delete(this);
  }

  #accept(): void {
    for (let i = 0; i < ACCEPTS_PER_TURN && !this.#fd.closed; i++) {
      const socket = this.#next();
      if (socket === undefined) return;
      this.#handler.onAccepted(new ControlSocket(this.#shared, socket));
    }
  }

  #next(): TcpSocket | undefined {
    try {
      return acceptTcp(this.#fd);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      this.#shared.log.warn("cannot accept connections", { error: error.message, errno: error.errnoName });
      // What waits still waits, and would be told of again at once.
      this.#watch.change(false, false);
      this.#pause = setTimeout(() => this.#watch.change(true, false), ACCEPT_PAUSE_MS);
      return undefined;
    }
  }
}

class TcpDial implements Dial {
  readonly #shared: Shared;
  readonly #handler: DialHandler;
  readonly #remote: Endpoint;
  readonly #name: string;
  #fd: Fd | undefined;
  #watch: Watch | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(shared: Shared, remote: Endpoint, handler: DialHandler, { source = 0, limitMs }: DialOptions) {
    this.#shared = shared;
    this.#handler = handler;
    this.#remote = remote;
    this.#name = `dial tcp ${formatAddress({ address: source, port: 0 })}->${formatEndpoint(remote)}`;
    shared.open.add(this);
    try {
      this.#fd = connectTcp(remote, { source });
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      this.#timer = setTimeout(() => this.#fail(`${error.call}: ${goText(error.errno)}`), 0);
      return;
    }
    this.#watch = shared.poller.watch(this.#fd, { readable: false, writable: true }, () => this.#decided());
    this.#timer = setTimeout(() => this.#fail("i/o timeout"), limitMs ?? DIAL_LIMIT_MS);
  }

  cancel(): void {
    this.close();
  }

  close(): void {
    this.#letGo();
    if (this.#fd !== undefined) resetTcp(this.#fd);
    this.#fd = undefined;
  }

  #decided(): void {
    const fd = this.#fd!;
    const errno = connectionError(fd);
    if (errno !== 0) return this.#fail(`connect: ${goText(errno)}`);
    const local = localAddress(fd);
    // Connected to itself: the kernel chose to dial from the very port that was dialled.
    if (formatEndpoint(local) === formatEndpoint(this.#remote)) {
      return this.#fail(`connect: ${goText(ERRNO.ECONNREFUSED[0])}`);
    }
    this.#letGo();
    this.#fd = undefined;
    this.#handler.onConnected(new ControlSocket(this.#shared, { fd, local, remote: this.#remote }));
  }

  #fail(reason: string): void {
    this.close();
    this.#handler.onFailed(`${this.#name}: ${reason}`);
  }

  #letGo(): void {
    clearTimeout(this.#timer);
    this.#watch?.remove();
    this.#shared.open.delete(this);
  }
}

/** A connection. It reads once it was started; it may be sent to before. */
export class ControlSocket {
  readonly local: Endpoint;
  readonly remote: Endpoint;
  readonly #shared: Shared;
  readonly #fd: Fd;
  readonly #queue = new SendQueue();
  #handler: SocketHandler | undefined;
  #watch: Watch | undefined;
  #reading = true;
  /** The kernel takes no more for now. */
  #blocked = false;
  #flushDue = false;
  /** `send()` said so, and `onWritable` has yet to be called. */
  #full = false;
  /** Why it ended by itself. */
  #ended: string | undefined;

  /** By `ControlSockets` alone. */
  constructor(shared: Shared, socket: TcpSocket) {
    this.#shared = shared;
    this.#fd = socket.fd;
    this.local = socket.local;
    this.remote = socket.remote;
    shared.open.add(this);
  }

  get closed(): boolean {
    return this.#fd.closed;
  }

  /** Octets that wait to be taken by the kernel. */
  get queuedOctets(): number {
    return this.#queue.octets;
  }

  /** Begins to read, and to tell. */
  start(handler: SocketHandler): void {
    if (this.#handler !== undefined) throw new Error("Cannot start a socket twice");
    this.#handler = handler;
    const reason = this.#ended;
    if (reason !== undefined) return queueMicrotask(() => handler.onClosed(reason));
    if (this.closed) return;
    const interest = { readable: this.#reading, writable: this.#blocked };
    this.#watch = this.#shared.poller.watch(this.#fd, interest, (ready) => this.#handleReady(ready));
  }

  /**
   * Queues octets, which must not change from then on; what is sent in one go travels together.
   * @returns false when so much waits that the sender should pause until `onWritable`, and when the socket is closed. Whoever goes on
   * in spite of that is closed in the end.
   */
  send(octets: Uint8Array): boolean {
    if (this.closed) return false;
    this.#queue.push(octets);
    if (this.#queue.octets > HIGH_WATER_OCTETS) this.#full = true;
    if (!this.#flushDue && (!this.#blocked || this.#queue.octets > LIMIT_OCTETS)) {
      this.#flushDue = true;
      queueMicrotask(() => this.#flush());
    }
    return !this.#full;
  }

  /** Reads no more until `resume()`; nor does it notice that the other side has gone, unless something waits to be sent. */
  pause(): void {
    this.#reading = false;
    this.#updateInterest();
  }

  resume(): void {
    this.#reading = true;
    this.#updateInterest();
  }

  /** Closes with a reset, as Weave Net does: what the kernel takes at once still leaves, the rest is dropped. */
  close(): void {
    if (this.closed) return;
    if (!this.#blocked) this.#write();
    this.#release();
  }

  #handleReady(ready: Ready): void {
    if (ready.writable && this.#blocked) {
      this.#blocked = false;
      this.#flush();
    }
    if (ready.readable) this.#read();
  }

  #read(): void {
    const { buffer } = this.#shared;
    for (let octets = 0; octets < TURN_OCTETS && this.#reading && !this.closed;) {
      const got = readTcp(this.#fd, buffer);
      if (got < 0) {
        if (!isLater(-got)) this.#end(this.#text("read", `read: ${goText(-got)}`));
        return;
      }
      if (got === 0) return this.#end("EOF");
      octets += got;
      this.#handler!.onOctets(buffer.slice(0, got));
    }
  }

  #flush(): void {
    this.#flushDue = false;
    if (this.closed) return;
    const errno = this.#write();
    if (errno !== 0) return this.#end(this.#text("write", `write: ${goText(errno)}`));
    if (this.#queue.octets > LIMIT_OCTETS) return this.#end(this.#text("write", "too much waits to be sent"));
    this.#updateInterest();
    if (this.#full && this.#queue.octets <= LOW_WATER_OCTETS) {
      this.#full = false;
      this.#handler?.onWritable();
    }
  }

  /** Writes what the kernel takes, within the budget; 0 or an errno. Afterwards the queue is empty or the socket blocked. */
  #write(): number {
    for (let octets = 0; octets < TURN_OCTETS && this.#queue.octets > 0;) {
      const result = writeTcp(this.#fd, this.#queue.gather(this.#shared.buffer));
      if (result < 0) {
        if (!isLater(-result)) return -result;
        break;
      }
      this.#queue.take(result);
      octets += result;
    }
    this.#blocked = this.#queue.octets > 0;
    return 0;
  }

  #updateInterest(): void {
    if (!this.closed) this.#watch?.change(this.#reading, this.#blocked);
  }

  #end(reason: string): void {
    if (this.closed) return;
    this.#ended = reason;
    this.#release();
    this.#handler?.onClosed(reason);
  }

  #release(): void {
    this.#watch?.remove();
    this.#queue.clear();
    resetTcp(this.#fd);
    this.#shared.open.delete(this);
  }

  #text(what: string, reason: string): string {
    return `${what} tcp ${formatEndpoint(this.local)}->${formatEndpoint(this.remote)}: ${reason}`;
  }
}

const NOTHING = new Uint8Array();

/** Octets that wait, in pieces as they were sent. */
class SendQueue {
  #pieces: Uint8Array[] = [];
  /** The first piece that is not gone, and how much of it is. */
  #first = 0;
  #gone = 0;
  octets = 0;

  push(piece: Uint8Array): void {
    if (piece.length === 0) return;
    this.#pieces.push(piece);
    this.octets += piece.length;
  }

  /** The next octets, in `buffer`, as many as fit or wait. */
  gather(buffer: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    let filled = 0;
    for (let i = this.#first, from = this.#gone; i < this.#pieces.length && filled < buffer.length; i++, from = 0) {
      const part = this.#pieces[i]!.subarray(from, from + buffer.length - filled);
      buffer.set(part, filled);
      filled += part.length;
    }
    return buffer.subarray(0, filled);
  }

  take(octets: number): void {
    this.octets -= octets;
    this.#gone += octets;
    while (this.#first < this.#pieces.length && this.#gone >= this.#pieces[this.#first]!.length) {
      this.#gone -= this.#pieces[this.#first]!.length;
      this.#pieces[this.#first++] = NOTHING;
    }
    // Not each time: moving the rest has its price.
    if (this.#first > 1024 && this.#first * 2 > this.#pieces.length || this.octets === 0) {
      this.#pieces = this.#pieces.slice(this.#first);
      this.#first = 0;
    }
  }

  clear(): void {
    this.#pieces = [];
    this.#first = this.#gone = this.octets = 0;
  }
}

/** Go's words are the C library's without the capital. */
function goText(errno: number): string {
  const text = errnoText(errno);
  return text.charAt(0).toLowerCase() + text.slice(1);
}
