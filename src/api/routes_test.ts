import assert from "node:assert/strict";
import { busyReport, lonelyReport } from "../../test/example_report.ts";
import { OperationError, OptionError } from "../lib/errors.ts";
import type { Cidr } from "../lib/ip.ts";
import type { ListenAddress } from "../lib/listen_address.ts";
import { type Logger, SILENT } from "../lib/log.ts";
import { REPORT_VIEWS } from "../daemon/status.ts";
import { type ApiServer, serveApi } from "./routes.ts";
import type { Route, RouterControl } from "./types.ts";

const LOOPBACK: ListenAddress = { transport: "tcp", hostname: "127.0.0.1", port: 0 };

Deno.test("GET /status and below answer in text, and in JSON when that is all that is accepted", async () => {
  await using api = serve();
  const report = busyReport();
  const views = {
    main: "",
    targets: "/targets",
    connections: "/connections",
    peers: "/peers",
    dns: "/dns",
    ipam: "/ipam",
  };
  for (const [view, path] of Object.entries(views) as [keyof typeof views, string][]) {
    const answer = await api.get(`/status${path}`);
    assert.equal(answer.status, 200);
    assert.equal(answer.body, REPORT_VIEWS.text(view, report));
    assert.equal(answer.headers["connection"], "close");
    const json = await api.get(`/status${path}`, { Accept: "application/json" });
    assert.equal(json.body, REPORT_VIEWS.json(view, report));
    assert.equal(json.headers["content-type"], "application/json");
    assert.match(
      (await api.get(`/status${path}`, { Accept: "application/json, */*" })).headers["content-type"] ?? "text/plain",
      /^text\/plain/,
    );
  }
});

Deno.test("GET /status answers 503 with the same body until everything serves", async () => {
  await using api = serve({ report: () => ({ ...lonelyReport(), Ready: false }) });
  const answer = await api.get("/status");
  assert.equal(answer.status, 503);
  assert.match(answer.body, /^ {8}Version: /);
  assert.equal((await api.get("/metrics")).status, 200);
});

Deno.test("GET /report gives JSON for exactly that Accept header, and takes exactly one template else", async () => {
  await using api = serve();
  const json = await api.get("/report", { Accept: "application/json" });
  assert.equal(json.status, 200);
  assert.match(json.body, /^\{\n {4}"Ready": true,\n/);
  assert.equal((await api.get("/report?format=x", { Accept: "application/json" })).body, json.body);
  const cases = [
    ["/report?format=%7B%7B.Router.Name%7D%7D", 200, "ce:31:e0:06:45:1a"],
    ["/report?format=", 200, ""],
    ["/report", 400, "error: must supply one format parameter\n"],
    ["/report?format=a&format=b", 400, "error: must supply one format parameter\n"],
    ["/report?format=%7B%7Bfoo%7D%7D", 400, 'template: :1: function "foo" not defined\n'],
    [
      "/report?format=%7B%7B.DNS.Domain%7D%7D",
      500,
      'template: :1:2: executing "" at <.DNS.Domain>: nil pointer evaluating .DNS.Domain\n',
    ],
  ] as const;
  for (const [path, status, body] of cases) {
    const answer = await api.get(path);
    assert.deepEqual([answer.status, answer.body], [status, body], path);
  }
});

Deno.test("POST /connect and /forget take peers from query and form", async () => {
  await using api = serve();
  const form = { "Content-Type": "application/x-www-form-urlencoded; charset=utf-8" };
  const plain = await api.send("POST", "/connect?peer=a", form, "peer=b%3A6783&peer=c+d");
  assert.deepEqual([plain.status, plain.body], [200, ""]);
  await api.send("POST", "/connect", form, "replace=true");
  await api.send("POST", "/connect?peer=x&replace=false", { "Content-Type": "text/plain" }, "peer=y");
  await api.send("POST", "/forget?peer=a&peer=b");
  assert.deepEqual(api.calls, [
    ["connect", ["b:6783", "c d", "a"], false],
    ["connect", [], true],
    ["connect", ["x"], false],
    ["forget", ["a", "b"]],
  ]);
});

Deno.test("POST /connect answers 400 with a line for each name that cannot be used", async () => {
  await using api = serve({
    connect: () => Promise.resolve({ errors: ['invalid peer name "x", should be host[:port]', "no such host"] }),
  });
  const answer = await api.send("POST", "/connect?peer=x");
  assert.deepEqual([answer.status, answer.body], [400, 'invalid peer name "x", should be host[:port]\nno such host\n']);
});

Deno.test("POST /expose checks address and option, and passes on why it failed", async () => {
  await using api = serve();
  assert.equal((await api.send("POST", "/expose/10.0.0.100/24")).status, 204);
  assert.equal((await api.send("POST", "/expose/10.0.0.100/24?skipNAT=T")).status, 204);
  assert.deepEqual(api.calls, [
    ["expose", { address: 0x0a000064, prefixLength: 24 }, false],
    ["expose", { address: 0x0a000064, prefixLength: 24 }, true],
  ]);
  for (
    const path of [
      "/expose/10.0.0/24",
      "/expose/10.0.0.1/33",
      "/expose/10.0.0.1/x",
      "/expose/a%2Fb/24",
      "/expose/10.0.0.1/24?skipNAT=maybe",
    ]
  ) {
    const answer = await api.send("POST", path);
    assert.equal(answer.status, 400, path);
    assert.match(answer.body, /^invalid /);
  }
  await using failing = serve({ expose: () => Promise.reject(new OperationError("no bridge")) });
  const answer = await failing.send("POST", "/expose/10.0.0.100/24");
  assert.deepEqual([answer.status, answer.body], [500, "unable to expose: no bridge\n"]);
});

Deno.test("DELETE /peer and /peer/{id} give away and take over", async () => {
  await using api = serve();
  assert.equal((await api.send("DELETE", "/peer")).status, 204);
  const without = await api.send("DELETE", "/peer/my%20host%2Fx");
  assert.deepEqual([without.status, without.body], [200, ""]);
  assert.deepEqual(api.calls, [["leave"], ["removePeer", "my host/x"]]);
  await using allocating = serve({ removePeer: () => Promise.resolve(256) });
  assert.equal((await allocating.send("DELETE", "/peer/host2")).body, "256 IPs taken over from host2\n");
});

Deno.test("what is not there answers 404, a wrong method 405", async () => {
  await using api = serve();
  for (
    const path of [
      "/",
      "/nope",
      "/status/",
      "/status/nope",
      "//status",
      "/ip",
      "/ip/abc",
      "/ring",
      "/domain",
      "/name",
      "/proxyaddrs",
      "/debug/spin",
    ]
  ) {
    assert.equal((await api.get(path)).status, 404, path);
  }
  assert.equal((await api.send("DELETE", "/peer/")).status, 404);
  const wrong = await api.send("POST", "/status");
  assert.deepEqual([wrong.status, wrong.headers["allow"]], [405, "GET"]);
  assert.equal((await api.get("/connect")).status, 405);
  assert.equal((await api.get("/status/%zz")).status, 400);
});

Deno.test("DELETE takes parameters from the query alone", async () => {
  const seen: string[] = [];
  const routes: Route[] = [{
    method: "DELETE",
    path: "/name/{id}",
    handle({ parameters, segments }) {
      seen.push(`${segments["id"]} ${parameters}`);
      return { status: 204 };
    },
  }];
  await using api = serve({ routes });
  const form = { "Content-Type": "application/x-www-form-urlencoded" };
  await api.send("DELETE", "/name/abc?fqdn=a", form, "fqdn=b");
  assert.deepEqual(seen, ["abc fqdn=a"]);
});

Deno.test("HEAD answers as GET does, without the body", async () => {
  await using api = serve();
  const answer = await api.send("HEAD", "/status");
  assert.equal(answer.status, 200);
  assert.equal(answer.body, "");
  assert.ok(Number(answer.headers["content-length"]) > 100);
});

Deno.test("requests that a browser may have been talked into are refused", async () => {
  await using api = serve({}, { statusAddr: LOOPBACK });
  const port = api.port("httpAddr");
  for (
    const host of [
      "localhost",
      `localhost:${port}`,
      "LOCALHOST:1",
      "127.0.0.1",
      "127.1.2.3:99999",
      "[::1]",
      "[::1]:6784",
    ]
  ) {
    assert.equal((await api.get("/status", { Host: host })).status, 200, host);
  }
  for (
    const host of [
      "",
      "evil.example.com",
      "evil.example.com:6784",
      "localhost.evil.com",
      "127.0.0.1.evil.com",
      "10.0.0.1:6784",
      "0.0.0.0",
      "localhost:x",
      "a@localhost",
      "::1",
    ]
  ) {
    assert.equal((await api.get("/status", { Host: host })).status, 403, host);
    assert.equal((await api.get("/status", { Host: host }, "statusAddr")).status, 403, host);
  }
  for (const origin of ["http://evil.example.com", "null", `http://127.0.0.1:${port}`]) {
    assert.equal((await api.send("POST", "/connect?peer=x", { Origin: origin })).status, 403, origin);
  }
  assert.deepEqual(api.calls, []);
});

Deno.test("a request of HTTP/1.0 without Host is refused", async () => {
  await using api = serve();
  assert.match(await api.raw("GET /status HTTP/1.0\r\n\r\n"), /^HTTP\/1\.1 403 /);
});

Deno.test("the status listener reads only, the metrics listener has metrics alone", async () => {
  await using api = serve({}, { statusAddr: LOOPBACK, metricsAddr: LOOPBACK, spin: true });
  for (const path of ["/status", "/status/peers", "/metrics"]) {
    assert.equal((await api.get(path, {}, "statusAddr")).status, 200, path);
  }
  assert.equal((await api.get("/report", { Accept: "application/json" }, "statusAddr")).status, 200);
  for (
    const [method, path] of [["POST", "/connect"], ["POST", "/expose/10.0.0.1/24"], ["DELETE", "/peer"], [
      "POST",
      "/debug/spin?ms=1",
    ]] as const
  ) {
    assert.equal((await api.send(method, path, {}, "", "statusAddr")).status, 404, path);
    assert.equal((await api.send(method, path, {}, "", "metricsAddr")).status, 404, path);
  }
  const metrics = await api.get("/metrics", {}, "metricsAddr");
  assert.match(metrics.body, /^weave_connections\{/m);
  assert.equal(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
  assert.equal((await api.get("/status", {}, "metricsAddr")).status, 404);
});

Deno.test("a listener that is open to other hosts answers to any name", async () => {
  const everywhere: ListenAddress = { transport: "tcp", hostname: "0.0.0.0", port: 0 };
  await using api = serve({}, { statusAddr: everywhere });
  assert.equal((await api.get("/metrics", { Host: "host1.example.com:6782" }, "statusAddr")).status, 200);
});

Deno.test("serveApi() refuses to have the control API listen to other hosts", () => {
  for (const hostname of ["0.0.0.0", "192.0.2.1"]) {
    assert.throws(() => serve({}, { httpAddr: { transport: "tcp", hostname, port: 6784 } }), (error) => {
      assert.ok(error instanceof OptionError);
      assert.match(error.message, new RegExp(`^Cannot use "${hostname}:6784" as http-addr: `));
      return true;
    });
  }
});

Deno.test("serveApi() says where and why it cannot listen, and leaves nothing listening", async () => {
  await using first = serve();
  const taken: ListenAddress = { ...LOOPBACK, port: first.port("httpAddr") };
  const free = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = free.addr;
  free.close();
  assert.throws(() => serve({}, { httpAddr: { ...LOOPBACK, port }, statusAddr: taken }), (error) => {
    assert.ok(error instanceof OperationError);
    assert.equal(
      error.message,
      `Cannot listen on 127.0.0.1:${taken.port} for status: EADDRINUSE (Address already in use)`,
    );
    return true;
  });
  Deno.listen({ hostname: "127.0.0.1", port }).close();
});

Deno.test("unix sockets replace stale ones, nothing else, and go at the end", async () => {
  const folder = await Deno.makeTempDir({ prefix: "weave-api-" });
  try {
    const path = `${folder}/api.sock`;
    const address: ListenAddress = { transport: "unix", path };
    await leaveStaleSocket(path);
    {
      await using api = serve({}, {
        httpAddr: address,
        statusAddr: { transport: "unix", path: `${folder}/status.sock` },
      });
      assert.equal((await api.get("/status")).status, 200);
      assert.equal((await api.get("/status", { Host: "evil.example.com" })).status, 403);
      assert.equal(Deno.statSync(`${folder}/status.sock`).mode! & 0o777, 0o666);
      assert.equal(Deno.statSync(path).mode! & 0o022, 0);
      assert.throws(() => serve({}, { httpAddr: address }), /api\.sock for the control API: EADDRINUSE/);
      assert.equal((await api.get("/status")).status, 200, "the running one still serves");
    }
    assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
    Deno.writeTextFileSync(path, "precious");
    assert.throws(() => serve({}, { httpAddr: address }), /EADDRINUSE/);
    assert.equal(Deno.readTextFileSync(path), "precious");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("bodies and heads have bounds", async () => {
  await using api = serve();
  const form = { "Content-Type": "application/x-www-form-urlencoded" };
  assert.equal((await api.send("POST", "/connect", form, `peer=${"a".repeat(60_000)}`)).status, 200);
  assert.equal((await api.send("POST", "/connect", form, `peer=${"a".repeat(300_000)}`)).status, 413);
  assert.match(
    await api.raw(`GET /status HTTP/1.1\r\nHost: localhost\r\nX: ${"a".repeat(1_000_000)}\r\n\r\n`),
    /^HTTP\/1\.1 431 /,
  );
  assert.equal(api.calls.length, 1);
});

Deno.test("what is no HTTP is answered 400 and not logged", async () => {
  const log = failingLogger();
  await using api = serve({}, { log });
  assert.match(await api.raw("\x16\x03\x01 garbage\r\n\r\n"), /^HTTP\/1\.1 400 /);
});

Deno.test("a failing operation answers 500 with its message; a bug is logged as well", async () => {
  const errors: string[] = [];
  const log: Logger = { ...SILENT, error: (event, fields) => errors.push(`${event} ${fields?.name} ${fields?.error}`) };
  await using api = serve({
    forget: () => Promise.reject(new OperationError("disk full")),
    leave: () => Promise.reject(new TypeError("x is not a function")),
  }, { log });
  assert.deepEqual(bodyAndStatus(await api.send("POST", "/forget")), [500, "disk full\n"]);
  assert.deepEqual(errors, []);
  assert.deepEqual(bodyAndStatus(await api.send("DELETE", "/peer")), [500, "x is not a function\n"]);
  assert.deepEqual(errors, ["api request failed DELETE /peer TypeError: x is not a function"]);
});

Deno.test("POST /debug/spin keeps the main thread busy where it is switched on", async () => {
  await using api = serve({}, { spin: true });
  const start = performance.now();
  assert.equal((await api.send("POST", "/debug/spin?ms=120")).status, 204);
  assert.ok(performance.now() - start >= 120);
  for (const ms of ["", "0", "-5", "x", "NaN"]) {
    assert.equal((await api.send("POST", `/debug/spin?ms=${ms}`)).status, 400, ms);
  }
});

Deno.test("a handler hears when its client goes away", async () => {
  const { promise: gone, resolve } = Promise.withResolvers<void>();
  const routes: Route[] = [{
    method: "GET",
    path: "/ring",
    async handle({ signal }) {
      await new Promise((done) => signal.addEventListener("abort", done));
      resolve();
      return { status: 200, body: "cancelled" };
    },
  }];
  await using api = serve({ routes });
  const connection = await api.connect();
  await connection.write(new TextEncoder().encode("GET /ring HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  await new Promise((done) => setTimeout(done, 50));
  connection.close();
  await gone;
});

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

type Listener = "httpAddr" | "statusAddr" | "metricsAddr";

/** An API over a router that writes down what it is asked. */
function serve(control: Partial<RouterControl> = {}, options: Partial<Parameters<typeof serveApi>[0]> = {}) {
  const calls: unknown[][] = [];
  const server = serveApi({
    control: {
      report: () => busyReport(),
      connect(peers, { replace }) {
        calls.push(["connect", peers, replace]);
        return Promise.resolve({ errors: [] });
      },
      forget(peers) {
        calls.push(["forget", peers]);
        return Promise.resolve();
      },
      expose(cidr: Cidr, { skipNat }) {
        calls.push(["expose", cidr, skipNat]);
        return Promise.resolve();
      },
      leave() {
        calls.push(["leave"]);
        return Promise.resolve();
      },
      removePeer(id) {
        calls.push(["removePeer", id]);
        return Promise.resolve(undefined);
      },
      ...control,
    },
    views: REPORT_VIEWS,
    log: SILENT,
    httpAddr: LOOPBACK,
    statusAddr: undefined,
    metricsAddr: undefined,
    ...options,
  });
  return new TestApi(server, calls);
}

/** The server, and a client that says exactly what it is told to. */
class TestApi implements AsyncDisposable {
  constructor(readonly server: ApiServer, readonly calls: readonly unknown[][]) {}

  port(listener: Listener): number {
    const address = this.server[listener];
    assert.ok(address?.transport === "tcp");
    return address.port;
  }

  get(path: string, headers: Record<string, string> = {}, listener: Listener = "httpAddr"): Promise<Answer> {
    return this.send("GET", path, headers, "", listener);
  }

  async send(
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body = "",
    listener: Listener = "httpAddr",
  ): Promise<Answer> {
    const fields = { Host: "localhost", "Content-Length": String(body.length), ...headers };
    const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`).join("");
    const text = await this.raw(`${method} ${path} HTTP/1.1\r\n${lines}\r\n${body}`, listener);
    const [head, ...rest] = text.split("\r\n\r\n");
    const [statusLine, ...answered] = head!.split("\r\n");
    return {
      status: Number(/^HTTP\/1\.1 (\d{3}) /.exec(statusLine!)?.[1]),
      headers: Object.fromEntries(answered.map((line) => [line.split(": ")[0]!.toLowerCase(), line.split(": ")[1]!])),
      body: rest.join("\r\n\r\n"),
    };
  }

  connect(listener: Listener = "httpAddr"): Promise<Deno.Conn> {
    const address = this.server[listener]!;
    return address.transport === "unix"
      ? Deno.connect(address)
      : Deno.connect({ hostname: "127.0.0.1", port: address.port });
  }

  /** Sends octets, whole, and reads to the end. */
  async raw(request: string, listener: Listener = "httpAddr"): Promise<string> {
    using connection = await this.connect(listener);
    const answer = new Response(connection.readable).text();
    const writer = connection.writable.getWriter();
    await writer.write(new TextEncoder().encode(request)).catch(() => {});
    return await answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop();
  }
}

function bodyAndStatus({ status, body }: Answer): [number, string] {
  return [status, body];
}

/** What a process that was killed leaves. */
async function leaveStaleSocket(path: string): Promise<void> {
  const code = `Deno.listen({ transport: "unix", path: ${JSON.stringify(path)} }); Deno.kill(Deno.pid, "SIGKILL");`;
  await new Deno.Command(Deno.execPath(), { args: ["eval", code], stdout: "null", stderr: "null" }).output();
  assert.ok(Deno.lstatSync(path).isSocket);
}

function failingLogger(): Logger {
  const fail = (event: string) => assert.fail(`logged: ${event}`);
  return { trace: fail, debug: fail, info: fail, warn: fail, error: fail };
}
