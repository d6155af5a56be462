import assert from "node:assert/strict";
import { dig, waitName } from "../netns/dns.ts";
import { Lab } from "../netns/lab.ts";
import { routerPid, waitEstablished } from "../netns/mesh.ts";
import { delay, waitFor } from "../netns/wait.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";
import { testAsRoot } from "../skip.ts";

testAsRoot("containers of Docker find each other by name, for as long as they run", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  await lab.link(host1, host2);
  await using engine1 = await DockerEngine.start(host1);
  await using engine2 = await DockerEngine.start(host2);
  await host1.weave("launch");
  await host2.weave("launch", host1.address());
  await waitEstablished(host1, [host2]);
  const server = "172.17.0.1";
  assert.equal(await host1.weave("docker-bridge-ip"), server);
  assert.equal(await host1.weave("dns-args"), `--dns=${server} --dns-search=weave.local.`);

  const one = await host1.weave("run", "10.0.0.1/24", "--name", "one", "-ti", IMAGE, "sh");
  await host2.weave("run", "10.0.0.2/24", "--name", "two", "-ti", IMAGE, "sh");
  await waitName(host1, server, "two.weave.local", ["10.0.0.2"], 10_000, lab.hosts);
  for (const name of ["two", "two.weave.local", "TWO"]) {
    assert.ok(await engine1.succeeds("one", "ping", "-c", "1", "-W", "5", name), name);
  }
  assert.ok(await engine2.succeeds("two", "ping", "-c", "1", "-W", "5", "one"));
  assert.match(await host1.weave("status", "dns"), new RegExp(`^one +10\\.0\\.0\\.1 +${one.slice(0, 12)} `, "m"));

  // Started by hand, with what dns-args says.
  const args = (await host1.weave("dns-args")).split(" ");
  const three = await engine1.docker("run", "-d", ...args, "--hostname=three.weave.local", IMAGE, "sleep", "1000");
  await host1.weave("attach", "10.0.0.3/24", three);
  await waitName(host2, server, "three.weave.local", ["10.0.0.3"]);
  await host1.weave("dns-add", three, "-h", "alias.weave.local");
  await host1.weave("dns-add", "10.0.0.33", three);
  await waitName(host2, server, "three.weave.local", ["10.0.0.3", "10.0.0.33"]);
  await waitName(host2, server, "alias.weave.local", ["10.0.0.3"]);

  // A router that starts anew knows what there is.
  const pid = await routerPid(host1);
  await host1.sh(`kill -9 ${pid}`);
  await waitFor("the router to be back", async () => await routerPid(host1) !== pid, 10_000);
  await waitEstablished(host1, [host2], 15_000);
  for (const host of lab.hosts) {
    await waitName(host, server, "one.weave.local", ["10.0.0.1"], 10_000, lab.hosts);
    await waitName(host, server, "three.weave.local", ["10.0.0.3", "10.0.0.33"]);
    await waitName(host, server, "alias.weave.local", ["10.0.0.3"]);
  }

  // Without its files, too, as far as Docker and the kernel can tell.
  await host1.weave("stop");
  await engine1.docker("kill", "one");
  await host1.sh("rm -f /var/lib/weave/weave-names.json");
  await host1.weave("launch", host2.address());
  await waitName(host2, server, "three.weave.local", ["10.0.0.3"], 10_000, lab.hosts);
  assert.equal((await dig(host1, server, "one.weave.local", "A")).status, "NXDOMAIN");
});

testAsRoot("names of a container of Docker go when it dies", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  const server = "172.17.0.1";
  await host.weave("run", "10.0.0.1/24", "--name", "one", "-ti", IMAGE, "sh");
  await host.weave("run", "10.0.0.2/24", "--name", "two", "-ti", "-h", "one.weave.local", IMAGE, "sh");
  await host.weave("dns-add", "one", "-h", "alias.weave.local");
  await waitName(host, server, "one.weave.local", ["10.0.0.1", "10.0.0.2"]);
  for (let i = 0; i < 3; i++) {
    await engine.docker("kill", "one");
    await waitName(host, server, "one.weave.local", ["10.0.0.2"], 3_000, [host]);
    await waitName(host, server, "alias.weave.local", []);
    await engine.docker("start", "one");
    await host.weave("attach", "10.0.0.1/24", "one");
    await waitName(host, server, "one.weave.local", ["10.0.0.1", "10.0.0.2"]);
  }
  await engine.docker("rm", "-f", "one");
  await waitName(host, server, "one.weave.local", ["10.0.0.2"], 3_000, [host]);

  // The engine's end is not the router's, nor its containers'.
  const pid = await routerPid(host);
  engine.daemon.signal("SIGKILL");
  await delay(1_500);
  assert.equal(await routerPid(host), pid);
  await waitName(host, server, "one.weave.local", ["10.0.0.2"]);
});
