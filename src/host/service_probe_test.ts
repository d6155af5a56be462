import assert from "node:assert/strict";
import { createSocket, type Socket } from "node:dgram";
import { inOwnNamespace } from "../../test/own_namespace.ts";
import { DescriptorTrace, type Fd } from "../../ffi/fd.ts";
import { listenTcp } from "../../ffi/tcp.ts";
import { type ProbeOptions, type ProbeResult, readHttpAnswer, ServiceProbes } from "./service_probe.ts";
import { ControlSockets } from "./sockets.ts";

const LOCALHOST = 0x7f00_0001, HOST_NETWORK = 2;

Deno.test("readHttpAnswer() knows the status as soon as its line is there", () => {
  const cases: readonly [string, ProbeResult | undefined][] = [
    ["", undefined],
    ["HTT", undefined],
    ["HTTP/1.1 20", undefined],
    ["HTTP/1.1 200 OK\r\n", { outcome: "up" }],
    ["HTTP/1.0 204\n", { outcome: "up" }],
    ["HTTP/1.1 301 Moved Permanently\r\nLocation: /\r\n\r\n", { outcome: "up" }],
    ["HTTP/1.1 404 Not Found\r\n", { outcome: "down", reason: "HTTP status 404" }],
    ["HTTP/1.1 503 \r\n", { outcome: "down", reason: "HTTP status 503" }],
    ["HTTP/1.1 103 Early Hints\r\nLink: x\r\n", undefined],
    ["HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 500 Broken\r\n", {
      outcome: "down",
      reason: "HTTP status 500",
    }],
    ["HTTP/1.1 2000 OK\r\n", { outcome: "down", reason: "the answer is not HTTP" }],
    ["SSH-2.0-OpenSSH", { outcome: "down", reason: "the answer is not HTTP" }],
  ];
  for (const [text, expected] of cases) assert.deepEqual(readHttpAnswer(text), expected, JSON.stringify(text));
});

inOwnNamespace(import.meta.url, () => {
  Deno.test("probe() finds out about TCP", async () => {
    await using bench = new Bench();
    const { local, fd } = bench.listen();
    assert.deepEqual(await bench.probe({ kind: "tcp" }, local.port), { outcome: "up" });
    fd.close();
    const refused = { outcome: "down", reason: "connection refused" };
    assert.deepEqual(await bench.probe({ kind: "tcp" }, local.port), refused);
    assert.deepEqual(await bench.probe({ kind: "none" }, local.port), { outcome: "up" });
    const elsewhere = await bench.probe({ kind: "tcp" }, local.port, { address: 0x0a01_0101 });
    assert.deepEqual(elsewhere, { outcome: "down", reason: "network is unreachable" });
  });

  Deno.test("probe() gives up in time where nobody answers", async () => {
    await using bench = new Bench();
    // A full queue: the kernel drops further calls.
    const { local } = bench.listen();
    const filled = Array.from({ length: 140 }, () => bench.probe({ kind: "tcp" }, local.port, { timeoutMs: 300 }));
    const results = await Promise.all(filled);
    assert.deepEqual(results.at(-1), { outcome: "down", reason: "no answer within 300 ms" });
    const start = performance.now();
    const silent = await bench.probe({ kind: "udp", payload: "?" }, await bench.udp(() => undefined), {
      timeoutMs: 100,
    });
    assert.deepEqual(silent, { outcome: "down", reason: "no answer within 100 ms" });
    assert.ok(performance.now() - start < 400);
  });

  Deno.test("probe() asks by HTTP, and looks at the status", async () => {
    await using bench = new Bench();
    const { local } = bench.serve((request) =>
      request.startsWith("GET /health?a=1 ") ? "HTTP/1.1 200 OK\r\n" : undefined
    );
    assert.deepEqual(await bench.probe({ kind: "http", payload: "/health?a=1" }, local.port), { outcome: "up" });
    assert.match(
      bench.requests[0]!,
      /^GET \/health\?a=1 HTTP\/1\.1\r\nHost: 127\.0\.0\.1:\d+\r\nUser-Agent: weave\r\n/,
    );
    const hangs = await bench.probe({ kind: "http", payload: "/" }, local.port, { timeoutMs: 100 });
    assert.deepEqual(hangs, { outcome: "down", reason: "no HTTP answer within 100 ms" });
    for (
      const [says, reason] of [
        ["HTTP/1.1 500 Oops\r\n", "HTTP status 500"],
        ["220 mail ready\r\n", "the answer is not HTTP"],
        ["", "connection reset by peer"],
        ["HTTP/1.1 100 " + "x".repeat(20_000), "the answer is not HTTP"],
      ] as const
    ) {
      const { local } = bench.serve(() => says);
      assert.deepEqual(await bench.probe({ kind: "http", payload: "/" }, local.port), { outcome: "down", reason });
    }
    const port = bench.closeAfterReading();
    const closes = await bench.probe({ kind: "http", payload: "/" }, port);
    assert.deepEqual(closes, { outcome: "down", reason: "connection closed without an HTTP answer" });
    assert.throws(() => bench.probes.probe(options({ kind: "http", payload: "/ x" }, 1), () => {}), RangeError);
  });

  Deno.test("probe() takes any answer by UDP for a sign of life", async () => {
    await using bench = new Bench();
    const port = await bench.udp((asked) => asked === "ping" ? "" : undefined);
    assert.deepEqual(await bench.probe({ kind: "udp", payload: "ping" }, port), { outcome: "up" });
    await bench.closeUdp();
    const refused = { outcome: "down", reason: "connection refused" };
    assert.deepEqual(await bench.probe({ kind: "udp", payload: "ping" }, port), refused);
  });

  Deno.test("probe() opens no more than it may, and says where it had not the time", async () => {
    await using bench = new Bench({ limit: 2 });
    const port = await bench.udp(() => undefined);
    const results = await Promise.all(
      [80, 80, 90, 1000].map((timeoutMs) => bench.probe({ kind: "udp", payload: "?" }, port, { timeoutMs })),
    );
    assert.deepEqual(results.map((result) => result.outcome), ["down", "down", "unknown", "down"]);
    assert.ok(bench.mostOpen <= 2, `${bench.mostOpen}`);
  });

  Deno.test("probe() says nothing once it is called off, and keeps nothing", async () => {
    using trace = new DescriptorTrace();
    {
      await using bench = new Bench();
      const port = await bench.udp(() => undefined);
      let told = 0;
      const asked = options({ kind: "udp", payload: "?" }, port);
      const cancel = bench.probes.probe(asked, () => told++);
      bench.probes.probe(asked, () => told++);
      await delay(20);
      cancel();
      cancel();
      bench.probes.probe(asked, () => told++);
      bench.probes[Symbol.dispose]();
      await delay(250);
      assert.equal(told, 0);
    }
    assert.deepEqual(trace.left(), []);
  });

  Deno.test("probe() asks a thousand at once", async () => {
    await using bench = new Bench({ limit: 100 });
    const { local } = bench.serve(() => "HTTP/1.1 200 OK\r\n");
    const asked = Array.from(
      { length: 1000 },
      () => bench.probe({ kind: "http", payload: "/" }, local.port, { timeoutMs: 30_000 }),
    );
    const results = await Promise.all(asked);
    assert.ok(results.every(({ outcome }) => outcome === "up"));
    assert.ok(bench.mostOpen <= 100, `${bench.mostOpen}`);
  });
});

type Check = ProbeOptions["check"];

function options(check: { kind: Check["kind"]; payload?: string }, port: number): ProbeOptions {
  const target = { network: HOST_NETWORK, address: LOCALHOST, port };
  return { target, check: { payload: "", ...check }, timeoutMs: 200 };
}

/** Backends on this machine, and what asks them. */
class Bench implements AsyncDisposable {
  readonly sockets = new ControlSockets();
  readonly probes: ServiceProbes;
  readonly requests: string[] = [];
  mostOpen = 0;
  #open = 0;
  readonly #fds: Fd[] = [];
  readonly #closing: Deno.Listener[] = [];
  #udp: Socket | undefined;
  #stopped = false;

  constructor(limits: { limit?: number } = {}) {
    const watch: ControlSockets["watch"] = (...args) => {
      this.mostOpen = Math.max(this.mostOpen, ++this.#open);
      const unwatch = this.sockets.watch(...args);
      return () => {
        this.#open--;
        unwatch();
      };
    };
    this.probes = new ServiceProbes({ watch }, limits);
  }

  probe(
    check: { kind: Check["kind"]; payload?: string },
    port: number,
    { timeoutMs = 2000, address = LOCALHOST } = {},
  ): Promise<ProbeResult> {
    const asked = options(check, port);
    const { promise, resolve } = Promise.withResolvers<ProbeResult>();
    this.probes.probe({ ...asked, timeoutMs, target: { ...asked.target, address } }, resolve);
    return promise;
  }

  listen(): ReturnType<typeof listenTcp> {
    const listener = listenTcp({ address: LOCALHOST, port: 0 });
    this.#fds.push(listener.fd);
    return listener;
  }

  /** Answers each request with what `answer` says: undefined nothing, "" the end. */
  serve(answer: (request: string) => string | undefined): ReturnType<typeof listenTcp> {
    const listener = this.sockets.listen({ address: LOCALHOST, port: 0 }, {
      onAccepted: (socket) =>
        socket.start({
          onOctets: (octets) => {
            const request = new TextDecoder().decode(octets);
            this.requests.push(request);
            const says = answer(request);
            if (says === undefined) return;
            socket.send(new TextEncoder().encode(says));
            if (says === "") socket.close();
          },
          onClosed: () => {},
          onWritable: () => {},
        }),
    });
    return { local: listener.local } as ReturnType<typeof listenTcp>;
  }

  /** A server that hangs up politely on whatever it is told. @returns its port */
  closeAfterReading(): number {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#closing.push(listener);
    void (async () => {
      for await (const connection of listener) {
        await connection.read(new Uint8Array(1024));
        connection.close();
      }
    })();
    return listener.addr.port;
  }

  /** @returns the port */
  async udp(answer: (asked: string) => string | undefined): Promise<number> {
    const socket = this.#udp = createSocket("udp4");
    socket.on("message", (octets, from) => {
      const says = answer(octets.toString());
      if (says !== undefined) socket.send(says, from.port, from.address);
    });
    await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
    return socket.address().port;
  }

  async closeUdp(): Promise<void> {
    const socket = this.#udp;
    this.#udp = undefined;
    if (socket !== undefined) await new Promise<void>((resolve) => socket.close(() => resolve()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.probes[Symbol.dispose]();
    await this.closeUdp();
    await this.sockets.stop();
    for (const one of [...this.#fds, ...this.#closing]) one.close();
  }
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
