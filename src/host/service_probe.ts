/**
 * Asks backends whether they are up, by sockets in the network that the backend is of. The runtime's own can neither be marked nor be in
 * another namespace; these are waited for together with those of the mesh.
 */
import { ERRNO, errnoText, SysError } from "../../ffi/errno.ts";
import type { Fd } from "../../ffi/fd.ts";
import { withNetns } from "../../ffi/netns.ts";
import { formatAddress, localAddress } from "../../ffi/socket.ts";
import { connectionError, connectTcp, isLater, readTcp, resetTcp, writeTcp } from "../../ffi/tcp.ts";
import { connectUdp } from "../../ffi/udp.ts";
import { formatEndpoint, type Ipv4 } from "../lib/ip.ts";
import type { NetworkId } from "../service/plan.ts";
import type { CheckSpec } from "../service/records.ts";
import { routeMark } from "./service_marks.ts";

/** Sockets that are open at one time: as many probes of half a second as 2,000 a second. */
const OPEN_LIMIT = 1000;
/** What an HTTP server may say before its status. */
const HTTP_OCTETS = 8192;
const HTTP_PORT = 80;
/** A connection with nothing on it is reset after that time: some servers do not take well to one that is gone before they accept it. */
const HANG_UP_MS = 100;

/** What says more of this host than of the backend. */
const OF_THIS_HOST = new Set(["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL"]);

export interface ProbeTarget {
  readonly network: NetworkId;
  /** Path of the network's namespace, where it is isolated. */
  readonly namespace?: string | undefined;
  readonly address: Ipv4;
  readonly port: number;
}

/** `unknown`: it could not be asked, for a reason of this host. Reasons begin small, as in `connection refused`. */
export type ProbeResult =
  | { readonly outcome: "up" }
  | { readonly outcome: "down" | "unknown"; readonly reason: string };

export interface ProbeOptions {
  readonly target: ProbeTarget;
  /** With `none` it is up. */
  readonly check: Pick<CheckSpec, "kind" | "payload">;
  /** From now on, whenever it really begins. */
  readonly timeoutMs: number;
}

/** Tells when a descriptor is ready: `ControlSockets`. */
export interface ReadyWatcher {
  watch(fd: Fd, onReady: () => void, interest?: "readable" | "writable"): () => void;
}

export class ServiceProbes implements Disposable {
  readonly #watcher: ReadyWatcher;
  readonly #limit: number;
  readonly #open = new Set<Probe>();
  /** Each leaves when its time is over, at the latest. */
  readonly #waiting = new Set<Probe>();

  /** @param options `limit`: sockets that are open at one time; more probes wait for these */
  constructor(watcher: ReadyWatcher, { limit = OPEN_LIMIT }: { readonly limit?: number } = {}) {
    this.#watcher = watcher;
    this.#limit = limit;
  }

  /** Asks once; the result comes later, never before this has returned, unless the function it returns is called. */
  probe(options: ProbeOptions, onResult: (result: ProbeResult) => void): () => void {
    if (options.check.kind === "http") checkPath(options.check.payload);
    const probe: Probe = new Probe(options, this.#watcher, { onResult, onGone: () => this.#forget(probe) });
    this.#waiting.add(probe);
    queueMicrotask(() => this.#startNext());
    return () => probe.callOff();
  }

  /** Ends all that are under way, with no word to anybody. */
  [Symbol.dispose](): void {
    for (const probe of [...this.#waiting, ...this.#open]) probe.callOff();
  }

  #startNext(): void {
    for (const probe of this.#waiting) {
      if (this.#open.size >= this.#limit) return;
      this.#waiting.delete(probe);
      this.#open.add(probe);
      probe.start();
    }
  }

  #forget(probe: Probe): void {
    this.#waiting.delete(probe);
    if (this.#open.delete(probe) && this.#waiting.size > 0) queueMicrotask(() => this.#startNext());
  }
}

interface ProbeHandler {
  onResult(result: ProbeResult): void;
  /** Its socket is closed; after the result, or without one. */
  onGone(): void;
}

class Probe {
  readonly #options: ProbeOptions;
  readonly #watcher: ReadyWatcher;
  readonly #handler: ProbeHandler;
  readonly #askedAt = performance.now();
  #timer: ReturnType<typeof setTimeout>;
  #startedAt: number | undefined;
  #connected = false;
  #ended = false;
  #gone = false;
  #fd: Fd | undefined;
  #unwatch: (() => void) | undefined;
  #text = "";

  constructor(options: ProbeOptions, watcher: ReadyWatcher, handler: ProbeHandler) {
    this.#options = options;
    this.#watcher = watcher;
    this.#handler = handler;
    this.#timer = setTimeout(() => this.#timeOut(), options.timeoutMs);
  }

  start(): void {
    this.#startedAt = performance.now();
    const { kind } = this.#options.check;
    if (kind === "none") return this.#end({ outcome: "up" });
    try {
      this.#fd = this.#inNetwork(() => this.#openSocket());
    } catch (error) {
      return this.#fail(error);
    }
    if (kind !== "udp") return this.#watch(() => this.#decided(), "writable");
    this.#watch(() => this.#answered(), "readable");
    this.#send(new TextEncoder().encode(this.#options.check.payload));
  }

  /** No result any more. */
  callOff(): void {
    this.#ended = true;
    this.#close();
  }

  #end(result: ProbeResult): void {
    if (this.#ended) return;
    this.#ended = true;
    if (result.outcome === "up" && this.#options.check.kind === "tcp") {
      clearTimeout(this.#timer);
      this.#unwatch?.();
      this.#timer = setTimeout(() => this.#close(), HANG_UP_MS);
    } else this.#close();
    this.#handler.onResult(result);
  }

  /** With a reset: a backend that is asked each second leaves no socket to wait for late packets. */
  #close(): void {
    if (this.#gone) return;
    this.#gone = true;
    clearTimeout(this.#timer);
    this.#unwatch?.();
    if (this.#fd !== undefined) resetTcp(this.#fd);
    this.#handler.onGone();
  }

  #openSocket(): Fd {
    const { target, check } = this.#options;
    const options = { mark: routeMark(target.network) };
    return check.kind === "udp" ? connectUdp(target, options) : connectTcp(target, options);
  }

  /** A socket stays in the namespace that it was made in. */
  #inNetwork<T>(work: () => T): T {
    const { namespace } = this.#options.target;
    return namespace === undefined ? work() : withNetns(namespace, work);
  }

  #watch(onReady: () => void, interest: "readable" | "writable"): void {
    this.#unwatch?.();
    this.#unwatch = this.#watcher.watch(this.#fd!, onReady, interest);
  }

  /** The TCP connection is there, or not. */
  #decided(): void {
    const errno = connectionError(this.#fd!);
    if (errno !== 0) return this.#failBy(errno);
    const { target, check } = this.#options;
    // The kernel chose to call from the very port that was called.
    if (formatAddress(localAddress(this.#fd!)) === formatAddress(target)) return this.#failBy(ERRNO.ECONNREFUSED[0]);
    if (check.kind === "tcp") return this.#end({ outcome: "up" });
    this.#connected = true;
    this.#watch(() => this.#readHttp(), "readable");
    this.#send(new TextEncoder().encode(httpRequest(target, check.payload)));
  }

  /** Both requests fit what a new socket takes. */
  #send(octets: Uint8Array<ArrayBuffer>): void {
    const result = writeTcp(this.#fd!, octets);
    if (result < 0 && !isLater(-result)) this.#failBy(-result);
  }

  /** Whatever it says, there is somebody. */
  #answered(): void {
    const got = readTcp(this.#fd!, new Uint8Array(1));
    if (got >= 0) this.#end({ outcome: "up" });
    else if (!isLater(-got)) this.#failBy(-got);
  }

  #readHttp(): void {
    const buffer = new Uint8Array(HTTP_OCTETS - this.#text.length);
    const got = readTcp(this.#fd!, buffer);
    if (got < 0) return isLater(-got) ? undefined : this.#failBy(-got);
    this.#text += new TextDecoder("latin1").decode(buffer.subarray(0, got));
    const answer = readHttpAnswer(this.#text);
    if (answer !== undefined) return this.#end(answer);
    if (got === 0) this.#end({ outcome: "down", reason: "connection closed without an HTTP answer" });
    else if (this.#text.length >= HTTP_OCTETS) this.#end(NO_HTTP);
  }

  #fail(error: unknown): void {
    if (!(error instanceof SysError)) throw error;
    if (error.call === "connect") return this.#failBy(error.errno);
    this.#end({ outcome: "unknown", reason: error.message });
  }

  #failBy(errno: number): void {
    const { errnoName } = new SysError("connect", errno);
    const text = errnoText(errno);
    const reason = text.charAt(0).toLowerCase() + text.slice(1);
    this.#end({ outcome: OF_THIS_HOST.has(errnoName) ? "unknown" : "down", reason });
  }

  #timeOut(): void {
    const { timeoutMs, check } = this.#options;
    const waited = (this.#startedAt ?? performance.now()) - this.#askedAt;
    // It had not the time that it should have had.
    if (waited > timeoutMs / 2) return this.#end({ outcome: "unknown", reason: "too many backends are asked at once" });
    const what = check.kind === "http" && this.#connected ? "HTTP answer" : "answer";
    this.#end({ outcome: "down", reason: `no ${what} within ${timeoutMs} ms` });
  }
}

const NO_HTTP: ProbeResult = { outcome: "down", reason: "the answer is not HTTP" };

function checkPath(path: string): void {
  if (/^\/[!-~]{0,2000}$/.test(path)) return;
  throw new RangeError(`Cannot ask for "${path}": "/" and at most 2000 characters without space expected`);
}

function httpRequest({ address, port }: ProbeTarget, path: string): string {
  const endpoint = formatEndpoint({ address, port });
  const host = port === HTTP_PORT ? endpoint.slice(0, endpoint.lastIndexOf(":")) : endpoint;
  const headers = [`Host: ${host}`, "User-Agent: weave", "Accept: */*", "Connection: close"];
  return [`GET ${path} HTTP/1.1`, ...headers, "", ""].join("\r\n");
}

/** What an HTTP server has said so far (RFC 9112 §4); undefined: too little yet. For `ServiceProbes`. */
export function readHttpAnswer(text: string): ProbeResult | undefined {
  for (let rest = text;;) {
    if (!"HTTP/1.".startsWith(rest.slice(0, 7))) return NO_HTTP;
    const end = rest.indexOf("\n");
    if (end < 0) return undefined;
    const status = Number(/^HTTP\/1\.\d ([1-5]\d\d)(?: .*)?\r?$/.exec(rest.slice(0, end))?.[1]);
    if (Number.isNaN(status)) return NO_HTTP;
    if (status >= 200 && status < 400) return { outcome: "up" };
    if (status >= 400) return { outcome: "down", reason: `HTTP status ${status}` };
    // The first of several (RFC 9110 §15.2).
    const next = /\r?\n\r?\n/.exec(rest);
    if (next === null) return undefined;
    rest = rest.slice(next.index + next[0].length);
  }
}
