/**
 * A program that the benchmark runs on emulated hosts: as many new connections as go through, by system calls, so that what is measured is
 * not the program.
 *
 *     serve PORT-PORT                               sends an octet on every connection, and closes it
 *     connect ADDRESS PORT AT_ONCE SECONDS          prints how many connections a second brought that octet, and how many failed
 *
 * A client ends its connection by a reset: neither end remembers it, nor do tables on the way for more than a few seconds.
 */

import { check } from "../../ffi/errno.ts";
import { Fd } from "../../ffi/fd.ts";
import { C, epoll_event } from "../../ffi/layout.ts";
import { libc } from "../../ffi/libc.ts";
import { acceptTcp, connectTcp, isLater, listenTcp, readTcp, resetTcp, writeTcp } from "../../ffi/tcp.ts";
import { parseIpv4 } from "../../src/lib/ip.ts";

/** What is not decided by then has failed. */
const PATIENCE_MS = 3_000;
const EVENTS = 256;
const OCTET = Uint8Array.of(1);

/** Descriptors that are ready to read, by synchronous calls. */
class Ready {
  readonly #epoll = new Fd(check("epoll_create1", () => libc.epoll_create1(C.EPOLL_CLOEXEC)), "epoll instance");
  readonly #events = new Uint8Array(EVENTS * epoll_event.octets);

  add(fd: Fd): void {
    const event = epoll_event.make({ events: C.EPOLLIN, data: fd.raw });
    check("epoll_ctl", () => libc.epoll_ctl(this.#epoll.raw, C.EPOLL_CTL_ADD, fd.raw, event));
  }

  *wait(timeoutMs: number): Generator<number> {
    const count = check("epoll_wait", () => libc.epoll_wait(this.#epoll.raw, this.#events, EVENTS, timeoutMs));
    for (let i = 0; i < count; i++) yield epoll_event.get(this.#events, "data", i * epoll_event.octets);
  }
}

function serve(first: number, last: number): void {
  const ready = new Ready();
  const listeners = new Map<number, Fd>();
  for (let port = first; port <= last; port++) {
    const { fd } = listenTcp({ address: 0, port });
    // More than a listener of the router would hold.
    check("listen", () => libc.listen(fd.raw, 4_096));
    listeners.set(fd.raw, fd);
    ready.add(fd);
  }
  console.log("ready");
  for (;;) {
    for (const raw of ready.wait(-1)) {
      const listener = listeners.get(raw)!;
      for (let one = acceptTcp(listener); one; one = acceptTcp(listener)) {
        writeTcp(one.fd, OCTET);
        one.fd.close();
      }
    }
  }
}

function connect(address: number, port: number, atOnce: number, seconds: number): void {
  const ready = new Ready();
  const open = new Map<number, { readonly fd: Fd; readonly begun: number }>();
  const begin = () => {
    const fd = connectTcp({ address, port });
    ready.add(fd);
    open.set(fd.raw, { fd, begun: performance.now() });
  };
  const buffer = new Uint8Array(16);
  for (let i = 0; i < atOnce; i++) begin();
  const begun = performance.now(), end = begun + seconds * 1_000;
  let succeeded = 0, failed = 0, looked = begun;
  for (let now = begun; now < end; now = performance.now()) {
    for (const raw of ready.wait(50)) {
      const { fd } = open.get(raw)!;
      const octets = readTcp(fd, buffer);
      if (octets < 0 && isLater(-octets)) continue;
      if (octets > 0) succeeded++;
      else failed++;
      open.delete(raw);
      resetTcp(fd);
      begin();
    }
    if (now < looked + 500) continue;
    looked = now;
    for (const [raw, { fd, begun }] of open) {
      if (now < begun + PATIENCE_MS) break; // the oldest come first
      failed++;
      open.delete(raw);
      resetTcp(fd);
      begin();
    }
  }
  console.log(JSON.stringify({ perSecond: succeeded / ((performance.now() - begun) / 1_000), failed }));
}

if (import.meta.main) {
  const [mode, ...args] = Deno.args;
  if (mode === "serve") {
    const [first, last = first] = args[0]!.split("-").map(Number) as [number, number?];
    serve(first, last);
  } else {
    const [port, atOnce, seconds] = args.slice(1).map(Number) as [number, number, number];
    connect(parseIpv4(args[0]!)!, port, atOnce, seconds);
  }
}
