import assert from "node:assert/strict";
import { formatListenAddress, parseListenAddress } from "./listen_address.ts";

for (const text of ["127.0.0.1:6784", "0.0.0.0:1", "localhost:65535", "/run/weave.sock"]) {
  Deno.test(`parseListenAddress() reads "${text}", and formatListenAddress() writes it`, () => {
    assert.equal(formatListenAddress(parseListenAddress(text)!), text);
  });
}

Deno.test("parseListenAddress() takes a port alone for every address", () => {
  assert.deepEqual(parseListenAddress(":80"), { transport: "tcp", hostname: "0.0.0.0", port: 80 });
});

for (const text of ["", "6784", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:0", "::1:80", "a.b:80", "x"]) {
  Deno.test(`parseListenAddress() refuses "${text}"`, () => {
    assert.equal(parseListenAddress(text), undefined);
  });
}
