import assert from "node:assert/strict";
import { HttpServer, type HttpServerOptions } from "./http_server.ts";

const REQUEST = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

Deno.test("HttpServer closes a connection whose request does not arrive in time", async () => {
  await using server = start({ limits: { requestMs: 100 } });
  for (const said of ["", "GET / HTTP/1.1\r\nHost: lo", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"]) {
    const began = performance.now();
    assert.equal(await server.talk(said), "");
    const took = performance.now() - began;
    assert.ok(took >= 90 && took < 2_000, `${took} ms`);
  }
});

Deno.test("HttpServer serves others when a client leaks connections", async () => {
  await using server = start({ limits: { connections: 8, patienceMs: 200 } });
  const leaked = await Promise.all(Array.from({ length: 20 }, () => server.connect()));
  try {
    const began = performance.now();
    assert.match(await server.talk(REQUEST), /^HTTP\/1\.1 200 /);
    assert.ok(performance.now() - began < 5_000);
  } finally {
    leaked.forEach((connection) => connection.close());
  }
});

Deno.test("HttpServer lets a crowd wait for its turn", async () => {
  await using server = start({ limits: { connections: 4 } });
  const answers = await Promise.all(Array.from({ length: 60 }, () => server.talk(REQUEST)));
  assert.ok(answers.every((answer) => answer.endsWith("ok")));
});

Deno.test("HttpServer answers a client that closes its sending side", async () => {
  await using server = start();
  using connection = await server.connect();
  await connection.write(new TextEncoder().encode(REQUEST));
  await connection.closeWrite();
  assert.match(await new Response(connection.readable).text(), /^HTTP\/1\.1 200 OK\r\n.*ok$/s);
});

Deno.test("HttpServer gives up on a client that does not take its answer", async () => {
  const body = "x".repeat(50_000_000);
  await using server = start({ limits: { answerMs: 200 }, handle: () => ({ status: 200, body }) });
  using connection = await server.connect();
  await connection.write(new TextEncoder().encode(REQUEST));
  await new Promise((done) => setTimeout(done, 600));
  const text = await new Response(connection.readable).text().catch(() => "");
  assert.ok(text.length < body.length);
});

Deno.test("HttpServer tells a client that waits to go on", async () => {
  await using server = start({ handle: ({ body }) => ({ status: 200, body: new TextDecoder().decode(body) }) });
  using connection = await server.connect();
  await connection.write(
    new TextEncoder().encode("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"),
  );
  const buffer = new Uint8Array(100);
  const count = await connection.read(buffer);
  assert.equal(new TextDecoder().decode(buffer.subarray(0, count!)), "HTTP/1.1 100 Continue\r\n\r\n");
  await connection.write(new TextEncoder().encode("hi"));
  assert.match(await new Response(connection.readable).text(), /\r\n\r\nhi$/);
});

Deno.test("HttpServer.stop() lets answers under way end, for a second", async () => {
  const server = start({
    handle: async () => {
      await new Promise((done) => setTimeout(done, 200));
      return { status: 200, body: "done" };
    },
  });
  const answer = server.talk(REQUEST);
  const idle = await server.connect();
  await new Promise((done) => setTimeout(done, 50));
  const began = performance.now();
  await server.server.stop();
  assert.ok(performance.now() - began < 900);
  assert.match(await answer, /done$/);
  assert.equal(await idle.read(new Uint8Array(1)), null);
  idle.close();
});

Deno.test("HttpServer.stop() does not wait for ever", async () => {
  const server = start({ handle: () => new Promise(() => {}) });
  const answer = server.talk(REQUEST);
  await new Promise((done) => setTimeout(done, 50));
  const began = performance.now();
  await server.server.stop();
  const took = performance.now() - began;
  assert.ok(took >= 900 && took < 3_000, `${took} ms`);
  assert.equal(await answer, "");
});

function start(options: Partial<HttpServerOptions> = {}) {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const server = new HttpServer(listener, { handle: () => ({ status: 200, body: "ok" }), ...options });
  const connect = () => Deno.connect({ hostname: "127.0.0.1", port });
  return {
    server,
    connect,
    async talk(text: string): Promise<string> {
      using connection = await connect();
      await connection.write(new TextEncoder().encode(text));
      return await new Response(connection.readable).text().catch(() => "");
    },
    async [Symbol.asyncDispose]() {
      await server.stop();
    },
  };
}
