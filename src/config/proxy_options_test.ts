import assert from "node:assert/strict";
import type { Given } from "./option.ts";
import { routerOptions } from "./options.ts";
import { parseProxyEndpoint } from "./proxy_options.ts";

Deno.test("readProxyOptions() listens as Docker is reached, unless it is told where", () => {
  const listening = (given: Given, env: Record<string, string> = {}) => proxy(given, env)?.listen.map((e) => e.text);
  assert.deepEqual(listening(new Map()), ["unix:///var/run/weave/weave.sock"]);
  assert.deepEqual(listening(new Map(), { DOCKER_HOST: "unix:///tmp/other.sock" }), [
    "unix:///var/run/weave/weave.sock",
  ]);
  assert.deepEqual(listening(new Map(), { DOCKER_HOST: "tcp://host1:2375" }), ["tcp://0.0.0.0:12375"]);
  const given: Given = new Map([["proxy-listen", ["tcp://127.0.0.1:1", "/run/x.sock", ":2"]]]);
  assert.deepEqual(listening(given), ["tcp://127.0.0.1:1", "unix:///run/x.sock", "tcp://0.0.0.0:2"]);
  assert.equal(proxy(new Map([["proxy", ["false"]]])), undefined);
});

Deno.test("readProxyOptions() finds the files of TLS where Docker's client has them", () => {
  assert.equal(proxy(new Map([["tlscacert", ["/ca.pem"]]]))?.tls, undefined, "files alone switch nothing on");
  assert.deepEqual(proxy(new Map([["tlsverify", ["true"]]]), { DOCKER_CERT_PATH: "/certs" })?.tls, {
    verify: true,
    ca: "/certs/ca.pem",
    cert: "/certs/cert.pem",
    key: "/certs/key.pem",
  });
  assert.deepEqual(proxy(new Map([["tls", ["true"]], ["tlskey", ["/k"]]]), { HOME: "/home/a" })?.tls, {
    verify: false,
    ca: undefined,
    cert: "/home/a/.docker/cert.pem",
    key: "/k",
  });
});

Deno.test("readProxyOptions() says what is wrong", () => {
  assert.throws(() => proxy(new Map([["hostname-match", ["("]]])), /Cannot use "\(" as hostname-match: /);
  for (const text of ["unix://relative.sock", "unix://"]) {
    assert.throws(() => parseProxyEndpoint(text), /unix sockets must be specified as an absolute path/, text);
  }
  for (const text of ["tcp://host1", "tcp://1.2.3.4:0", "http://1.2.3.4:5", ":65536", "", "relative.sock"]) {
    assert.throws(() => parseProxyEndpoint(text), /tcp:\/\/IP:PORT or unix:\/\/\/PATH expected/, text);
  }
});

function proxy(given: Given, env: Record<string, string> = {}) {
  return routerOptions(given, [], { env: (name) => env[name], hostname: () => "host1" }).proxy;
}
