import assert from "node:assert/strict";
import { hasTls, TlsError, TlsServer } from "./tls.ts";
import { makeCertificates } from "../test/certificates.ts";
import { testUnless } from "../test/skip.ts";

const WITHOUT = hasTls() ? undefined : "this machine has no OpenSSL";

testUnless(WITHOUT, "TlsServer says what is wrong with its files", async () => {
  await using files = await makeCertificates();
  const { cert, key, ca } = files.server;
  assert.throws(() => new TlsServer({ cert: "/nonexistent.pem", key, clientCa: undefined }), (error: Error) => {
    return error instanceof TlsError && /^Cannot use certificate "\/nonexistent.pem": No such file/.test(error.message);
  });
  assert.throws(() => new TlsServer({ cert, key: files.client.key, clientCa: undefined }), /Cannot use .*key/);
  assert.throws(() => new TlsServer({ cert, key, clientCa: key }), /Cannot use CA certificate/);
  using _server = new TlsServer({ cert, key, clientCa: ca });
});

testUnless(WITHOUT, "TlsSession refuses octets that are no TLS", async () => {
  await using files = await makeCertificates();
  using server = new TlsServer({ ...files.server, clientCa: undefined });
  using session = server.accept();
  assert.equal(session.handshake(), false);
  session.feed(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  assert.throws(() => session.handshake(), /http request/);
});
