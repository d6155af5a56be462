import assert from "node:assert/strict";
import { OperationError, RouterAbsentError } from "../lib/errors.ts";
import { parseCidr, parseIpv4 } from "../lib/ip.ts";
import type { ListenAddress } from "../lib/listen_address.ts";
import { ApiAddressBook, ApiClient } from "./client.ts";

interface Seen {
  readonly method: string;
  readonly path: string;
  readonly accept: string | null;
  readonly host: string | null;
  readonly body: string;
}

const SUBNET = parseCidr("10.2.0.0/24")!;
const ADDRESS = parseIpv4("10.2.0.1")!;

Deno.test("ApiClient sends what the API understands", async () => {
  await using server = new FakeRouter(() => new Response("said\n"));
  const client = new ApiClient(server.address);
  assert.equal(await client.report(), "said\n");
  assert.equal(await client.report("{{.Router.Name}} & más"), "said\n");
  await client.connect(["host1", "10.0.0.2:6783"], { replace: true });
  await client.connect([], { replace: true });
  await client.forget(["a b"]);
  await client.removePeer("host/1");
  await client.leave();
  assert.deepEqual(server.seen.map((s) => [s.method, s.path, s.accept, s.body]), [
    ["GET", "/report", "application/json", ""],
    ["GET", "/report?format=%7B%7B.Router.Name%7D%7D+%26+m%C3%A1s", null, ""],
    ["POST", "/connect", null, "peer=host1&peer=10.0.0.2%3A6783&replace=true"],
    ["POST", "/connect", null, "replace=true"],
    ["POST", "/forget", null, "peer=a+b"],
    ["DELETE", "/peer/host%2F1", null, ""],
    ["DELETE", "/peer", null, ""],
  ]);
});

Deno.test("ApiClient says what the router says, and exits with 4 where there is no such thing", async () => {
  const answers = [
    new Response("invalid peer name\nand another\n", { status: 400 }),
    new Response("404 page not found", { status: 404 }),
    new Response("", { status: 500 }),
  ];
  await using server = new FakeRouter(() => answers.shift()!);
  const client = new ApiClient(server.address);
  for (
    const [message, exitStatus] of [["invalid peer name\nand another", 1], ["", 4], ["The router answered 500", 1]]
  ) {
    await assert.rejects(client.connect(["x"], { replace: false }), (error) => {
      assert.ok(error instanceof OperationError);
      assert.deepEqual([error.message, error.exitStatus], [message, exitStatus]);
      return true;
    });
  }
});

Deno.test("ApiClient reads a large answer whole", async () => {
  const large = "0123456789".repeat(300_000);
  await using server = new FakeRouter(() => new Response(new Blob([large]).stream()));
  assert.equal(await new ApiClient(server.address).report(), large);
});

Deno.test("ApiClient speaks over a socket in the file system, as localhost", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/api.sock`;
    await using server = new FakeRouter(() => new Response("here"), { transport: "unix", path });
    assert.equal(await new ApiClient({ transport: "unix", path }).report(), "here");
    assert.equal(server.seen[0]!.host, "localhost");
    await absent(new ApiClient({ transport: "unix", path: `${folder}/none.sock` }));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("ApiClient tells a router that is absent from one that hangs up", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const client = new ApiClient({ transport: "tcp", hostname: "127.0.0.1", port });
  const accepted = listener.accept().then((connection) => connection.close());
  await assert.rejects(client.report(), (error) => {
    assert.ok(error instanceof OperationError && !(error instanceof RouterAbsentError), String(error));
    assert.match(error.message, new RegExp(`^Cannot talk to the router at 127\\.0\\.0\\.1:${port}: `));
    return true;
  });
  await accepted;
  listener.close();
  await absent(client);
});

Deno.test("ApiClient does not ask the proxy of the environment", async () => {
  await using proxy = new FakeRouter(() => new Response("proxy"));
  await using server = new FakeRouter(() => new Response("router"));
  const { hostname, port } = proxy.address as { hostname: string; port: number };
  const before = Deno.env.get("HTTP_PROXY");
  Deno.env.set("HTTP_PROXY", `http://${hostname}:${port}`);
  try {
    assert.equal(await new ApiClient(server.address).report(), "router");
  } finally {
    if (before === undefined) Deno.env.delete("HTTP_PROXY");
    else Deno.env.set("HTTP_PROXY", before);
  }
});

Deno.test("ApiAddressBook speaks the paths of the API", async () => {
  const answers = ["10.32.0.1/12", "10.2.0.1/24\n", "", "10.2.0.1/24 10.2.0.2/24", "", "", "", "", ""];
  await using server = new FakeRouter(() => new Response(answers.shift()!));
  const book = new ApiAddressBook(new ApiClient(server.address));
  assert.deepEqual(await book.allocate("c1", undefined, { checkAlive: true }), parseCidr("10.32.0.1/12"));
  assert.deepEqual(await book.allocate("c1", SUBNET, { checkAlive: false }), parseCidr("10.2.0.1/24"));
  assert.deepEqual(await book.lookup("c1", undefined), []);
  assert.deepEqual(await book.lookup("c1", SUBNET), [parseCidr("10.2.0.1/24"), parseCidr("10.2.0.2/24")]);
  assert.equal(await book.claim("weave:expose", { ...SUBNET, address: ADDRESS }, { checkAlive: false }), "claimed");
  assert.equal(await book.free("c1", ADDRESS), "freed");
  assert.equal(await book.registerName("c1", ADDRESS, "a.weave.local", { checkAlive: true }), "done");
  assert.equal(await book.removeName("c1", ADDRESS, "a.weave.local"), "done");
  assert.equal(await book.removeName("c1", ADDRESS, undefined), "done");
  assert.deepEqual(server.seen.map((s) => `${s.method} ${s.path}`), [
    "POST /ip/c1?check-alive=true",
    "POST /ip/c1/10.2.0.0/24",
    "GET /ip/c1",
    "GET /ip/c1/10.2.0.0/24",
    "PUT /ip/weave%3Aexpose/10.2.0.1/24",
    "DELETE /ip/c1/10.2.0.1",
    "PUT /name/c1/10.2.0.1?check-alive=true&fqdn=a.weave.local",
    "DELETE /name/c1/10.2.0.1?fqdn=a.weave.local",
    "DELETE /name/c1/10.2.0.1",
  ]);
});

Deno.test("ApiAddressBook tells what is disabled, absent, unknown, refused and cancelled", async () => {
  let answer = new Response("no such page", { status: 404 });
  const server = new FakeRouter(() => answer);
  const book = new ApiAddressBook(new ApiClient(server.address));
  const claim = () => book.claim("c1", { ...SUBNET, address: ADDRESS }, { checkAlive: false });
  assert.equal(await claim(), "disabled");
  answer = new Response("Unable to claim: it is taken", { status: 400 });
  await assert.rejects(claim(), /^OperationError: Unable to claim: it is taken$/);
  answer = new Response("cancelled");
  await assert.rejects(claim(), /cancelled/);
  answer = new Response("cancelled");
  await assert.rejects(book.allocate("c1", undefined, { checkAlive: true }), /address: cancelled/);
  answer = new Response("Unable to free: Free: address 10.2.0.1 not found for c1", { status: 400 });
  assert.equal(await book.free("c1", ADDRESS), "unknown");
  await server[Symbol.asyncDispose]();
  assert.equal(await claim(), "absent");
  assert.equal(await book.free("c1", ADDRESS), "absent");
  assert.equal(await new ApiAddressBook(undefined).lookup("c1", undefined), "absent");
});

async function absent(client: ApiClient): Promise<void> {
  await assert.rejects(client.report(), (error) => {
    assert.ok(error instanceof RouterAbsentError, String(error));
    assert.deepEqual([error.message, error.exitStatus], ["weave is not present. Have you launched it?", 7]);
    return true;
  });
}

/** A real server on this host that remembers what it was asked. */
class FakeRouter implements AsyncDisposable {
  readonly seen: Seen[] = [];
  readonly address: ListenAddress;
  readonly #server: Deno.HttpServer;

  constructor(answer: () => Response, address: ListenAddress = { transport: "tcp", hostname: "127.0.0.1", port: 0 }) {
    const handler = async (request: Request) => {
      const url = new URL(request.url);
      const { headers } = request;
      this.seen.push({
        method: request.method,
        path: url.pathname + url.search,
        accept: headers.get("Accept"),
        host: headers.get("Host"),
        body: await request.text(),
      });
      return answer();
    };
    if (address.transport === "unix") {
      this.#server = Deno.serve({ path: address.path, onListen() {} }, handler);
      this.address = address;
    } else {
      const server = Deno.serve({ hostname: address.hostname, port: address.port, onListen() {} }, handler);
      this.#server = server;
      this.address = { ...address, port: server.addr.port };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}
