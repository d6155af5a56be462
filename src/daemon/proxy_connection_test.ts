import assert from "node:assert/strict";
import { type Plan, ProxyConnection, Refusal } from "./proxy_connection.ts";

const HEAD = "Host: docker\r\n";
const BIG = 64 << 20;

Deno.test("ProxyConnection carries request after request, as they were, and their answers", async () => {
  await using proxy = new Proxy1(async (engine) => {
    for (const n of [1, 2, 3]) {
      assert.equal(
        await engine.text(`GET /${n} HTTP/1.1\r\n${HEAD}X: y\r\n\r\n`.length),
        `GET /${n} HTTP/1.1\r\n${HEAD}X: y\r\n\r\n`,
      );
      await engine.write(`HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${n}`);
    }
  });
  const client = await proxy.connect();
  // The first by itself, the other two at once.
  await client.write(`GET /1 HTTP/1.1\r\n${HEAD}X: y\r\n\r\n`);
  assert.equal(await client.until("\r\n\r\n1"), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
  await client.write(`GET /2 HTTP/1.1\r\n${HEAD}X: y\r\n\r\nGET /3 HTTP/1.1\r\n${HEAD}X: y\r\n\r\n`);
  assert.match(await client.until("\r\n\r\n3"), /\r\n\r\n2HTTP\/1.1 200 OK/);
});

Deno.test("ProxyConnection hands chunks on as they come, of any size", async () => {
  const asked = Promise.withResolvers<void>();
  await using proxy = new Proxy1(async (engine) => {
    await engine.until("\r\n\r\n");
    await engine.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    await asked.promise;
    await engine.write(`${BIG.toString(16)}\r\n`);
    const piece = new Uint8Array(1 << 20).fill(65);
    for (let i = 0; i < BIG; i += piece.length) await engine.octets(piece);
    await engine.write("\r\n0\r\n\r\n");
    assert.equal(await engine.until("\r\n\r\n"), `GET /next HTTP/1.1\r\n${HEAD}\r\n`);
    await engine.write("HTTP/1.1 204 No Content\r\n\r\n");
  });
  const client = await proxy.connect();
  await client.write(`GET /events HTTP/1.1\r\n${HEAD}\r\n`);
  await client.until("first\r\n");
  asked.resolve();
  await client.until(`${BIG.toString(16)}\r\n`);
  await client.skip(BIG);
  assert.equal(await client.until("0\r\n\r\n"), "\r\n0\r\n\r\n");
  await client.write(`GET /next HTTP/1.1\r\n${HEAD}\r\n`);
  await client.until("204 No Content\r\n\r\n");
});

Deno.test("ProxyConnection takes large bodies in without keeping them", async () => {
  const size = 512 << 20;
  await using proxy = new Proxy1(async (engine) => {
    await engine.until("\r\n\r\n");
    await engine.skip(size);
    await engine.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  });
  const client = await proxy.connect();
  await client.write(`POST /build HTTP/1.1\r\n${HEAD}Content-Length: ${size}\r\n\r\n`);
  const piece = new Uint8Array(1 << 20);
  const before = Deno.memoryUsage();
  let most = 0;
  for (let i = 0; i < size; i += piece.length) {
    await client.octets(piece);
    const { external, heapUsed } = Deno.memoryUsage();
    most = Math.max(most, external + heapUsed - before.external - before.heapUsed);
  }
  await client.until("\r\n\r\nok");
  assert.ok(most < 64 << 20, `${most >> 20} MiB more at times`);
});

for (const upgrade of [true, false]) {
  Deno.test(`ProxyConnection is a pipe with two halves after ${upgrade ? "101" : "a body without end"}`, async () => {
    await using proxy = new Proxy1(async (engine) => {
      await engine.until("\r\n\r\n");
      await engine.write(
        upgrade
          ? "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nprompt"
          : "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nprompt",
      );
      const said = await engine.rest();
      // The client has closed its half: this one still carries.
      await engine.write(`heard ${said}`);
    });
    const client = await proxy.connect();
    const fields = upgrade ? "Connection: Upgrade\r\nUpgrade: tcp\r\n" : "";
    await client.write(`POST /containers/x/attach HTTP/1.1\r\n${HEAD}${fields}\r\nearly `);
    await client.until("prompt");
    await client.write("input");
    await client.connection.closeWrite();
    assert.equal(await client.rest(), "heard early input");
  });
}

Deno.test("ProxyConnection passes on that the engine has closed its half", async () => {
  const heard = Promise.withResolvers<string>();
  await using proxy = new Proxy1(async (engine) => {
    await engine.until("\r\n\r\n");
    await engine.write("HTTP/1.1 101 UPGRADED\r\n\r\nbye");
    await engine.connection.closeWrite();
    heard.resolve(await engine.rest());
  });
  const client = await proxy.connect();
  await client.write(`POST /exec/x/start HTTP/1.1\r\n${HEAD}\r\n`);
  assert.match(await client.rest(), /bye$/);
  await client.write("still here");
  client.connection.close();
  assert.equal(await heard.promise, "still here");
});

Deno.test("ProxyConnection lets the engine say that it wants the body", async () => {
  await using proxy = new Proxy1(async (engine) => {
    assert.match(await engine.until("\r\n\r\n"), /Expect: 100-continue/);
    await engine.write("HTTP/1.1 100 Continue\r\n\r\n");
    assert.equal(await engine.text(4), "body");
    await engine.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  });
  const client = await proxy.connect();
  await client.write(`PUT /x HTTP/1.1\r\n${HEAD}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n`);
  await client.until("100 Continue\r\n\r\n");
  await client.write("body");
  await client.until("200 OK\r\nContent-Length: 0\r\n\r\n");
});

Deno.test("ProxyConnection brings an answer home that came before the whole request", async () => {
  await using proxy = new Proxy1(async (engine) => {
    await engine.until("\r\n\r\n");
    await engine.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    engine.connection.close();
  });
  const client = await proxy.connect();
  await client.write(`POST /build HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`);
  assert.match(await client.rest(), /^HTTP\/1.1 400 .*\r\n\r\nno$/s);
});

Deno.test("ProxyConnection changes what a call wants changed, and no more", async () => {
  const plan: Plan = {
    request: (body) => Promise.resolve(`${body}é`),
    settle: async (status, body) => `${status} ${await body()}!`,
  };
  await using proxy = new Proxy1(async (engine) => {
    assert.equal(await engine.until("\r\n\r\n"), `POST /c HTTP/1.1\r\n${HEAD}X: y\r\nContent-Length: 7\r\n\r\n`);
    assert.equal(await engine.text(7), "hello\xc3\xa9");
    await engine.write("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nY: z\r\n\r\n2\r\nab\r\n0\r\n\r\n");
  }, () => plan);
  const client = await proxy.connect();
  await client.write(`POST /c HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nX: y\r\n\r\n`);
  await client.until("100 Continue\r\n\r\n");
  await client.write("5\r\nhello\r\n0\r\n\r\n");
  assert.equal(await client.until("!"), "HTTP/1.1 201 Created\r\nY: z\r\nContent-Length: 7\r\n\r\n201 ab!");
});

Deno.test("ProxyConnection adds no body to an answer that has none", async () => {
  const plan: Plan = { request: () => Promise.resolve(undefined), settle: () => Promise.resolve(undefined) };
  await using proxy = new Proxy1(async (engine) => {
    assert.equal(await engine.until("\r\n\r\n"), `POST /s HTTP/1.1\r\n${HEAD}Content-Length: 0\r\n\r\n`);
    await engine.write("HTTP/1.1 204 No Content\r\nY: z\r\n\r\n");
    assert.equal(await engine.until("\r\n\r\n"), `POST /s HTTP/1.1\r\n${HEAD}\r\n`);
    await engine.write("HTTP/1.1 304 Not Modified\r\n\r\n");
  }, () => plan);
  const client = await proxy.connect();
  await client.write(`POST /s HTTP/1.1\r\n${HEAD}Content-Length: 0\r\n\r\n`);
  assert.equal(await client.until("\r\n\r\n"), "HTTP/1.1 204 No Content\r\nY: z\r\n\r\n");
  await client.write(`POST /s HTTP/1.1\r\n${HEAD}\r\n`);
  assert.equal(await client.until("\r\n\r\n"), "HTTP/1.1 304 Not Modified\r\n\r\n");
});

Deno.test("ProxyConnection answers in the engine's manner what a call refuses", async () => {
  let done = 0;
  const plan: Plan = {
    request: (body) => body === "no" ? Promise.reject(new Refusal(400, "Not this")) : Promise.resolve(undefined),
    settle: () => Promise.reject(new Refusal(500, 'Not "that"')),
    done: () => done++,
  };
  let asked = 0;
  await using proxy = new Proxy1(async (engine) => {
    if (asked++ === 0) return assert.equal(await engine.rest(), "", "the engine was asked");
    await engine.until("\r\n\r\n");
    await engine.write("HTTP/1.1 204 No Content\r\n\r\n");
  }, () => plan);
  for (const [body, status, message] of [["no", 400, "Not this"], ["ok", 500, 'Not "that"']] as const) {
    const client = await proxy.connect();
    await client.write(`POST /c HTTP/1.1\r\n${HEAD}Content-Length: 2\r\n\r\n${body}`);
    const [head, answer] = (await client.rest()).split("\r\n\r\n");
    assert.match(head!, new RegExp(`^HTTP/1.1 ${status} .*Connection: close`, "s"));
    assert.deepEqual(JSON.parse(answer!), { message });
  }
  assert.equal(done, 2);
});

Deno.test("ProxyConnection bounds what it keeps of a request", async () => {
  await using proxy = new Proxy1(() => Promise.resolve(), () => ({ request: () => Promise.resolve(undefined) }));
  const client = await proxy.connect();
  await client.write(`POST /c HTTP/1.1\r\n${HEAD}Content-Length: ${1 << 30}\r\n\r\n`);
  const piece = new Uint8Array(1 << 20);
  for (let i = 0; i < 5; i++) await client.octets(piece);
  assert.match(await client.rest(), /^HTTP\/1.1 413 /);

  const endless = await proxy.connect();
  const line = new TextEncoder().encode(`X: ${"a".repeat(65_000)}\r\n`);
  await endless.write("GET / HTTP/1.1\r\n");
  await assert.rejects(async () => {
    for (;;) await endless.octets(line);
  });
});

Deno.test("ProxyConnection says that there is no engine, and what is no HTTP", async () => {
  await using proxy = new Proxy1(undefined);
  for (
    const [request, says] of [
      [`GET /x HTTP/1.1\r\n${HEAD}\r\n`, /^HTTP\/1.1 500 .*Could not connect to target: /s],
      ["\x16\x03\x01\r\n\r\n", /^HTTP\/1.1 400 /],
      [`POST /x HTTP/1.1\r\n${HEAD}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n`, /^HTTP\/1.1 400 /],
    ] as const
  ) {
    const client = await proxy.connect();
    await client.write(request);
    assert.match(await client.rest(), says);
  }
});

Deno.test("ProxyConnection says that the engine went without an answer", async () => {
  await using proxy = new Proxy1(async (engine) => void await engine.until("\r\n\r\n"));
  const client = await proxy.connect();
  await client.write(`GET /x HTTP/1.1\r\n${HEAD}\r\n`);
  assert.match(await client.rest(), /^HTTP\/1.1 500 .*Docker closed the connection without an answer/s);
});

Deno.test("ProxyConnection cuts an answer off where the engine does", async () => {
  await using proxy = new Proxy1(async (engine) => {
    await engine.until("\r\n\r\n");
    await engine.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
  });
  const client = await proxy.connect();
  await client.write(`GET /x HTTP/1.1\r\n${HEAD}\r\n`);
  assert.equal(await client.rest(), "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
});

Deno.test("ProxyConnection tells the engine that a client is gone, and ends", async () => {
  for (const head of ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 101 UPGRADED\r\n\r\n", ""]) {
    const gone = Promise.withResolvers<string>();
    await using proxy = new Proxy1(async (engine) => {
      await engine.until("\r\n\r\n");
      if (head !== "") await engine.write(head);
      gone.resolve(await engine.rest());
      // An engine that says nothing for as long as it is connected.
      await engine.closed();
    });
    const client = await proxy.connect();
    await client.write(`POST /x HTTP/1.1\r\n${HEAD}\r\n`);
    if (head !== "") await client.until("\r\n\r\n");
    client.connection.close();
    assert.equal(await gone.promise, "");
    await proxy.served[0];
  }
});

Deno.test("ProxyConnection hangs up between requests where the engine does", async () => {
  await using proxy = new Proxy1(async (engine) => {
    await engine.until("\r\n\r\n");
    await engine.write("HTTP/1.1 204 No Content\r\n\r\n");
  });
  const client = await proxy.connect();
  await client.write(`GET /x HTTP/1.1\r\n${HEAD}\r\n`);
  assert.equal(await client.rest(), "HTTP/1.1 204 No Content\r\n\r\n");
});

Deno.test("ProxyConnection takes a host that is a path for the engine's", async () => {
  await using proxy = new Proxy1(async (engine) => {
    assert.equal(await engine.until("\r\n\r\n"), "GET /x HTTP/1.1\r\nA: b\r\nHost: docker\r\n\r\n");
    await engine.write("HTTP/1.1 204 No Content\r\n\r\n");
  });
  const client = await proxy.connect();
  await client.write("GET /x HTTP/1.1\r\nHost: /var/run/weave/weave.sock\r\nA: b\r\n\r\n");
  await client.until("204 No Content\r\n\r\n");
});

/** One end of a conversation; texts are octets. */
class End {
  #read = "";

  constructor(readonly connection: Deno.Conn) {}

  async write(text: string): Promise<void> {
    await this.octets(new TextEncoder().encode(text));
  }

  async octets(octets: Uint8Array): Promise<void> {
    for (let at = 0; at < octets.length;) at += await this.connection.write(octets.subarray(at));
  }

  /** Everything up to this text. */
  async until(end: string): Promise<string> {
    for (;;) {
      const at = this.#read.indexOf(end);
      if (at >= 0) return this.#take(at + end.length);
      if (!await this.#more()) throw new Error(`It ended after ${JSON.stringify(this.#read.slice(0, 500))}`);
    }
  }

  async text(octets: number): Promise<string> {
    while (this.#read.length < octets) if (!await this.#more()) throw new Error("It ended");
    return this.#take(octets);
  }

  async skip(octets: number): Promise<void> {
    let left = octets - this.#take(Math.min(octets, this.#read.length)).length;
    const buffer = new Uint8Array(1 << 20);
    while (left > 0) {
      const count = await this.connection.read(buffer.subarray(0, Math.min(left, buffer.length)));
      if (count === null) throw new Error(`It ended ${left} octets too early`);
      left -= count;
    }
  }

  /** Everything up to the end. */
  async rest(): Promise<string> {
    while (await this.#more());
    return this.#take(this.#read.length);
  }

  /** Until the other side is gone altogether. */
  async closed(): Promise<void> {
    for (;;) {
      try {
        await this.connection.write(new Uint8Array(0));
      } catch {
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  #take(length: number): string {
    const taken = this.#read.slice(0, length);
    this.#read = this.#read.slice(length);
    return taken;
  }

  async #more(): Promise<boolean> {
    const buffer = new Uint8Array(65_536);
    const count = await this.connection.read(buffer);
    if (count === null) return false;
    this.#read += new TextDecoder("latin1").decode(buffer.subarray(0, count));
    return true;
  }
}

/** A proxy before an engine that plays its part once for each connection, over sockets of this process. */
class Proxy1 implements AsyncDisposable {
  readonly #folder = Deno.makeTempDirSync({ prefix: "weave-test-" });
  readonly #front: Deno.Listener;
  readonly #back: Deno.Listener | undefined;
  readonly #playing: Promise<unknown>[] = [];
  readonly served: Promise<void>[] = [];
  readonly #clients: Deno.Conn[] = [];

  constructor(engine: ((end: End) => Promise<void>) | undefined, plan: () => Plan | undefined = () => undefined) {
    const back = `${this.#folder}/engine.sock`;
    this.#front = Deno.listen({ transport: "unix", path: `${this.#folder}/proxy.sock` });
    this.#back = engine && Deno.listen({ transport: "unix", path: back });
    void this.#each(this.#front, (client) => {
      const connectEngine = () => Deno.connect({ transport: "unix", path: back });
      this.served.push(new ProxyConnection({ client, connectEngine, plan }).serve());
    });
    if (this.#back === undefined) return;
    void this.#each(this.#back, (connection) => {
      this.#playing.push(
        engine!(new End(connection)).finally(() => {
          try {
            connection.close();
          } catch {
            // It did so itself.
          }
        }),
      );
    });
  }

  async connect(): Promise<End> {
    const connection = await Deno.connect({ transport: "unix", path: `${this.#folder}/proxy.sock` });
    this.#clients.push(connection);
    return new End(connection);
  }

  async #each(listener: Deno.Listener, take: (connection: Deno.Conn) => void): Promise<void> {
    try {
      for await (const connection of listener) take(connection);
    } catch {
      // It is closed.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) {
      try {
        client.close();
      } catch {
        // The test did so.
      }
    }
    await Promise.all(this.served);
    await Promise.all(this.#playing);
    this.#front.close();
    this.#back?.close();
    await Deno.remove(this.#folder, { recursive: true });
  }
}
