import assert from "node:assert/strict";
import { exchange, NotConnectedError } from "./exchange.ts";

const CASES: readonly { name: string; says: string; answer?: { status: number; body: string }; fails?: RegExp }[] = [
  { name: "a body of known length", says: "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nokmore", answer: ok("ok") },
  { name: "a body that ends with the connection", says: "HTTP/1.1 200 OK\r\nA: b\r\n\r\nöl", answer: ok("öl") },
  { name: "an answer without a body", says: "HTTP/1.0 204\r\n\r\n", answer: { status: 204, body: "" } },
  { name: "a refusal", says: "HTTP/1.0 403 Forbidden\r\n\r\nno", answer: { status: 403, body: "no" } },
  { name: "nothing at all", says: "", fails: /^Error: it hung up$/ },
  { name: "half a head", says: "HTTP/1.0 200 OK\r\nA:", fails: /cut off/ },
  { name: "half a body", says: "HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nok", fails: /cut off/ },
  { name: "another protocol", says: "SSH-2.0-OpenSSH\r\n\r\n", fails: /not HTTP/ },
];

for (const { name, says, answer, fails } of CASES) {
  Deno.test(`exchange() ${fails ? "refuses" : "reads"} ${name}`, async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr;
    const served = serveOnce(listener, says);
    const exchanged = exchange({ transport: "tcp", hostname: "127.0.0.1", port }, {
      method: "PUT",
      path: "/ip/a?b=c",
      headers: { Accept: "text/plain" },
      body: "ü",
    });
    if (fails) await assert.rejects(exchanged, fails);
    else assert.deepEqual(await exchanged, answer);
    assert.equal(
      await served,
      `PUT /ip/a?b=c HTTP/1.0\r\nHost: 127.0.0.1:${port}\r\nAccept: text/plain\r\nContent-Length: 2\r\n\r\nü`,
    );
  });
}

Deno.test("exchange() says so when there is nobody", async () => {
  const nobody = exchange({ transport: "unix", path: "/no/such" }, { method: "GET", path: "/", headers: {} });
  await assert.rejects(nobody, NotConnectedError);
});

Deno.test("exchange() does not wait longer than it is told to", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const silent = exchange(
    { transport: "tcp", hostname: "127.0.0.1", port: listener.addr.port },
    { method: "GET", path: "/", headers: {} },
    { limitMs: 20, onWait: assert.fail },
  );
  await assert.rejects(silent, /^Error: it has not answered within 0.02 s$/);
});

function ok(body: string) {
  return { status: 200, body };
}

/** Takes one request whole, says something and hangs up. */
async function serveOnce(listener: Deno.TcpListener, says: string): Promise<string> {
  const connection = await listener.accept();
  listener.close();
  let request = "";
  const buffer = new Uint8Array(4096);
  while (!request.endsWith("ü")) {
    const count = await connection.read(buffer);
    if (count === null) break;
    request += new TextDecoder().decode(buffer.subarray(0, count));
  }
  await connection.write(new TextEncoder().encode(says));
  connection.close();
  return request;
}
