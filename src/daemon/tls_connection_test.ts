import assert from "node:assert/strict";
import { hasTls, TlsServer } from "../../ffi/tls.ts";
import { type Certificates, type Identity, makeCertificates } from "../../test/certificates.ts";
import { testUnless } from "../../test/skip.ts";
import { writeAll } from "./proxy_streams.ts";
import { TlsConnection } from "./tls_connection.ts";

const WITHOUT = hasTls() ? undefined : "this machine has no OpenSSL";

testUnless(WITHOUT, "TlsConnection carries octets both ways, each until its end", async () => {
  await using files = await makeCertificates();
  const size = 40 << 20;
  using server = serve(files, async (connection) => {
    const heard = await readAll(connection);
    await writeAll(connection, new TextEncoder().encode(`heard ${heard}`));
    await connection.closeWrite();
  });
  const client = await server.connect(files.client);
  const piece = new Uint8Array(1 << 20);
  for (let i = 0; i < size; i += piece.length) await writeAll(client, piece);
  await client.closeWrite();
  const buffer = new Uint8Array(100);
  const count = await client.read(buffer);
  assert.equal(new TextDecoder().decode(buffer.subarray(0, count!)), `heard ${size}`);
  client.close();
  assert.equal(await server.outcome, "ok");
});

testUnless(WITHOUT, "TlsConnection takes clients with a certificate of the right authority alone", async () => {
  await using files = await makeCertificates();
  await using strangers = await makeCertificates();
  const cases: readonly (readonly [Identity | undefined, RegExp])[] = [
    [files.client, /^ok$/],
    [undefined, /did not return a certificate/],
    [strangers.client, /certificate verify failed/],
  ];
  for (const [identity, outcome] of cases) {
    using server = serve(files, () => Promise.resolve());
    const client = await server.connect(identity);
    await client.read(new Uint8Array(1)).catch(() => {}); // it may hear of it
    client.close();
    assert.match(await server.outcome, outcome);
  }
});

testUnless(WITHOUT, "TlsConnection gives up clients that speak something else", async () => {
  await using files = await makeCertificates();
  using server = serve(files, () => Promise.resolve());
  const client = await Deno.connect({ port: server.port });
  await writeAll(client, new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  await client.read(new Uint8Array(100));
  client.close();
  assert.match(await server.outcome, /http request/);
});

/** Takes one connection, and tells what became of it. */
function serve(files: Certificates, work: (connection: TlsConnection) => Promise<void>) {
  const { cert, key, ca } = files.server;
  const tls = new TlsServer({ cert, key, clientCa: ca });
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const accept = async () => {
    const connection = await TlsConnection.accept(await listener.accept(), tls);
    try {
      await work(connection);
    } finally {
      connection.close();
    }
  };
  const { port } = listener.addr;
  return {
    port,
    outcome: accept().then(() => "ok", (error: Error) => error.message),
    connect: (identity: Identity | undefined) =>
      Deno.connectTls({
        hostname: "localhost",
        port,
        caCerts: [Deno.readTextFileSync(ca)],
        ...identity === undefined
          ? {}
          : { cert: Deno.readTextFileSync(identity.cert), key: Deno.readTextFileSync(identity.key) },
      }),
    [Symbol.dispose]() {
      listener.close();
      tls[Symbol.dispose]();
    },
  };
}

async function readAll(connection: TlsConnection): Promise<number> {
  const buffer = new Uint8Array(1 << 20);
  let total = 0;
  for (let count = await connection.read(buffer); count !== null; count = await connection.read(buffer)) total += count;
  return total;
}
