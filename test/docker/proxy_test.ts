import assert from "node:assert/strict";
import { Lab } from "../netns/lab.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";
import { testAsRoot } from "../skip.ts";

const PROXY = "unix:///var/run/weave/weave.sock";

testAsRoot("a container that is started through the proxy is in the network before its process starts", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  const first = await viaProxy(engine, "run", "--name", "one", IMAGE, "ip", "-4", "-o", "address", "show", "ethwe");
  assert.match(first, /ethwe +inet 10\.32\.0\.1\/12 /);
});

/** Runs `docker …` through the proxy and returns what it prints. */
function viaProxy(engine: DockerEngine, ...args: string[]): Promise<string> {
  return engine.docker("-H", PROXY, ...args);
}
