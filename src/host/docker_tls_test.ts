import assert from "node:assert/strict";
import { engineTls } from "./docker_tls.ts";

const HOME = "/home/a";

Deno.test("engineTls() reads the engine's command line, then its configuration", () => {
  const none = [["dockerd"], ["dockerd", "--tls=false"], ["dockerd", "--tlscacert=/ca.pem"]];
  for (const args of none) assert.equal(engineTls(args, {}, HOME), undefined, args.join(" "));
  assert.deepEqual(engineTls(["dockerd", "--tls"], {}, HOME), {
    verify: false,
    ca: undefined,
    cert: "/home/a/.docker/cert.pem",
    key: "/home/a/.docker/key.pem",
  });
  const args = ["dockerd", "--tlsverify", "--tlscacert=/ca", "--tlscert", "/cert", "--tlskey=/key"];
  assert.deepEqual(engineTls(args, {}, HOME), { verify: true, ca: "/ca", cert: "/cert", key: "/key" });
  const configuration = { tlsverify: true, tlscacert: "/ca", tlscert: "/cert", tlskey: "/other" };
  assert.deepEqual(engineTls(["dockerd", "--tlskey=/key"], configuration, HOME), {
    verify: true,
    ca: "/ca",
    cert: "/cert",
    key: "/key",
  });
  for (const nonsense of [null, [], 1, { tlsverify: "yes" }]) {
    assert.equal(engineTls(["dockerd"], nonsense, HOME), undefined);
  }
});
