import assert from "node:assert/strict";
import { waitName } from "../netns/dns.ts";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { routerPid } from "../netns/mesh.ts";
import { waitFor } from "../netns/wait.ts";
import { testAsRoot } from "../skip.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";
import { attemptProxied, proxied } from "./proxy_client.ts";

const SERVER = "172.17.0.1";

testAsRoot("a container that was made through the proxy is in the network whenever and however it starts", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  await proxied(engine, "run", "-d", "--name", "one", "--restart=always", IMAGE, "sleep", "10000");
  await proxied(engine, "run", "-d", "--name", "two", IMAGE, "sleep", "10000");
  const address = await addressOf(host, "one");
  const isBack = async (why: string) => {
    await waitFor(`one to be back after ${why}`, async () => await addressOf(host, "one") === address, 15_000, [host]);
    assert.ok(await engine.succeeds("two", "ping", "-c", "1", "-W", "5", "one"), why);
    await waitName(host, SERVER, "one.weave.local", [address], 3_000, [host]);
  };
  const processOf = (name: string) => engine.docker("inspect", "-f", "{{.State.Pid}}", name);

  await engine.docker("restart", "-t", "0", "one");
  await isBack("a restart past the proxy");
  await proxied(engine, "restart", "-t", "0", "one");
  assert.equal(await addressOf(host, "one"), address, "a restart through it waits");
  await engine.docker("stop", "-t", "0", "one");
  await engine.docker("start", "one");
  await isBack("a start past the proxy");

  const pid = await processOf("one");
  await host.sh(`kill -9 ${pid}`);
  await waitFor("Docker to start it again", async () => ![pid, "0"].includes(await processOf("one")), 10_000);
  await isBack("a restart of Docker's own");

  const router = await routerPid(host);
  await host.sh(`kill -9 ${router}`);
  await engine.docker("restart", "-t", "0", "one");
  await waitFor("the router to be back", async () => await routerPid(host) !== router, 10_000);
  await isBack("a restart while the router died");

  // While the router is down its process waits.
  await host.weave("stop");
  await engine.docker("restart", "-t", "0", "one");
  assert.equal(await host.sh(`tr '\\0' ' ' < /proc/${await processOf("one")}/cmdline`), "/w/w sleep 10000");
  const { code, stderr } = await attemptProxied(engine, "ps");
  assert.notEqual(code, 0);
  assert.match(stderr, /Cannot connect to the Docker daemon at unix:\/\/\/var\/run\/weave\/weave.sock/);
  await host.weave("launch");
  await isBack("a restart while the router was down");
  assert.equal(await host.sh(`tr '\\0' ' ' < /proc/${await processOf("one")}/cmdline`), "sleep 10000");

  // One that does not get what it wants waits for it no longer than its process lives.
  await host.weave("stop");
  await engine.docker("restart", "-t", "0", "two");
  await engine.docker("stop", "-t", "5", "two");
  assert.equal(await engine.docker("inspect", "-f", "{{.State.ExitCode}}", "two"), String(128 + 15));
  await engine.docker("start", "two");
  await host.weave("launch");
  await waitFor("two", async () => await addressOf(host, "two") !== "", 10_000, [host]);

  // The engine's own restarts.
  await engine.stop("SIGTERM");
  await engine.startAgain();
  await engine.docker("start", "two");
  await isBack("a restart of the engine");
  await engine.stop("SIGKILL");
  await engine.startAgain();
  await engine.docker("start", "two");
  await isBack("the engine's death");
  assert.match(await proxied(engine, "run", "--rm", IMAGE, "ip", "address", "show", "ethwe"), /10\.32/);
});

testAsRoot("50 containers that do not live long share few addresses", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch", "--ipalloc-range", "10.2.0.0/28");
  const started = performance.now();
  const AT_ONCE = 10;
  let left = 50;
  const worker = async () => {
    while (left-- > 0) {
      const { code, stdout, stderr } = await attemptProxied(engine, "run", "--rm", IMAGE, "hostname", "-i");
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^10\.2\.0\.\d+\n$/);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  assert.ok(performance.now() - started < 90_000);
  await waitFor(
    "their addresses to be free",
    async () => await host.sh("curl -s http://127.0.0.1:6784/ip") === '{"owned":null}',
    5_000,
  );
});

testAsRoot("a container that cannot be attached at a restart is tried again as its policy says", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  await proxied(
    engine,
    "run",
    "-d",
    "--name",
    "one",
    "--restart=always",
    "-e",
    "WEAVE_CIDR=10.9.9.1/24",
    IMAGE,
    "sleep",
    "10000",
  );
  await engine.docker("stop", "-t", "0", "one");
  await host.weave("expose", "10.9.9.1/24");
  await engine.docker("start", "one");
  await waitFor(
    "its policy to have tried",
    async () => {
      return Number(await engine.docker("inspect", "-f", "{{.RestartCount}}", "one")) > 0;
    },
    15_000,
    [host],
  );
  await host.weave("hide", "10.9.9.1/24");
  await waitFor("it to be attached", async () => await addressOf(host, "one") === "10.9.9.1", 30_000, [host]);
});

/** Its address in the network; empty where it has none. */
async function addressOf(host: EmulatedHost, name: string): Promise<string> {
  return (await host.weave("ps", name)).split(" ")[2]?.replace(/\/.*/, "") ?? "";
}
