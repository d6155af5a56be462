import assert from "node:assert/strict";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { waitEstablished } from "../netns/mesh.ts";
import { waitFor } from "../netns/wait.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";
import { testAsRoot } from "../skip.ts";

/** The well-known tutorial: two hosts, a container on each, another network, the host itself. */
testAsRoot("weave run, detach, attach and expose do what the tutorial says, with Docker", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  await lab.link(host1, host2);
  await using engine1 = await DockerEngine.start(host1);
  await using engine2 = await DockerEngine.start(host2);
  await host1.weave("launch");
  await host2.weave("launch", host1.address());
  await waitEstablished(host1, [host2]);

  const one = await host1.weave("run", "10.0.0.1/24", "-t", "-i", "--name", "first", IMAGE, "sh");
  const two = await host2.weave("run", "10.0.0.2/24", "-t", "-i", IMAGE, "sh");
  assert.match(one, /^[0-9a-f]{64}$/, "the full id and nothing else");
  assert.match(await engine1.docker("exec", one, "ip", "-4", "address", "show", "ethwe"), /10\.0\.0\.1\/24/);
  await waitFor("ping", () => pings(engine1, one, "10.0.0.2"), 10_000, lab.hosts);
  assert.ok(await pings(engine2, two, "10.0.0.1"));

  const shown = (await host1.weave("ps")).split("\n");
  assert.match(shown[1]!, new RegExp(`^${one.slice(0, 12)} (\\S{17}) 10\\.0\\.0\\.1/24$`));
  assert.match(await host1.weave("ps", "first"), /^first \S{17} 10\.0\.0\.1\/24$/);

  assert.equal(await host2.weave("attach", "10.10.0.2/24", two), "10.10.0.2");
  assert.equal(await host2.weave("detach", "10.0.0.2/24", two), "10.0.0.2");
  assert.ok(!await pings(engine1, one, "10.0.0.2"));
  assert.ok(!await pings(engine1, one, "10.10.0.2"), "another subnet");
  await host1.weave("attach", "10.10.0.1/24", "first");
  await waitFor("ping in the new network", () => pings(engine1, one, "10.10.0.2"), 5_000, lab.hosts);

  assert.match(await host2.sh("iptables -S FORWARD"), /-P FORWARD DROP/, "as Docker leaves it");
  assert.equal(await host2.weave("expose", "10.0.0.100/24"), "10.0.0.100");
  assert.ok(await hostPings(host2, "10.0.0.1"));
  assert.ok(await pings(engine1, one, "10.0.0.100"));
  const outside = await engine2.docker("run", "-d", IMAGE, "sleep", "1000");
  assert.ok(!await pings(engine2, outside, "10.0.0.1"), "a container that is not attached stays outside");
  const bridge = (await host2.sh("ip -4 -o address show docker0")).match(/inet ([\d.]+)/)![1]!;
  assert.ok(await pings(engine2, outside, bridge));
  assert.ok(!await engine2.succeeds(outside, "nc", "-w", "1", bridge, "6783"), "nor does it reach the router");

  await engine1.docker("rm", "-f", "first");
  await waitFor("its line to go", async () => (await host1.weave("ps")).split("\n").length === 1, 5_000);
});

testAsRoot("weave attach and run say what is wrong with a container", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  const stopped = await engine.docker("create", IMAGE, "sleep", "100");
  const onHost = await engine.docker("run", "-d", "--net=host", IMAGE, "sleep", "100");
  const cases: [string[], RegExp][] = [
    [["attach", "10.0.0.1/24", "nobody"], /unable to inspect container nobody: No such container: nobody/],
    [["attach", "10.0.0.1/24", stopped], new RegExp(`container ${stopped} not running`)],
    [["attach", "10.0.0.1/24", onHost], /host network/],
    [["run", "10.0.0.1/24", "no/such/image"], /no\/such\/image/],
  ];
  for (const [args, says] of cases) {
    const result = await host.attemptWeave(...args);
    assert.notEqual(result.code, 0);
    assert.match(result.stderr, says);
  }
});

testAsRoot("weave attach --rewrite-hosts names a container and its neighbours in its hosts file", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  const before = await rules(host);
  await host.weave("launch");
  const id = await engine.docker("run", "-d", "-h", "c1", "--domainname", "example.com", IMAGE, "sleep", "1000");
  const flags = ["--rewrite-hosts", "--add-host", "other:10.0.0.2"];
  assert.equal(await host.weave("attach", "10.0.0.1/24", ...flags, id.slice(0, 12)), "10.0.0.1");
  const hosts = await engine.docker("exec", id, "cat", "/etc/hosts");
  assert.match(hosts, /^10\.0\.0\.1\s+c1\.example\.com c1$/m);
  assert.match(hosts, /^10\.0\.0\.2\s+other$/m);

  await host.weave("reset");
  assert.ok(!await engine.succeeds(id, "ip", "link", "show", "ethwe"));
  assert.ok(await engine.succeeds(id, "ip", "link", "show", "eth0"), "Docker's own link stays");
  assert.deepEqual(await rules(host), before);
});

async function rules(host: EmulatedHost): Promise<string[]> {
  return (await host.sh("iptables-save | grep -E '^(-A|:[A-Z-]+ -)' | sed 's/ \\[.*//'")).split("\n");
}

async function pings(engine: DockerEngine, container: string, address: string): Promise<boolean> {
  return await engine.succeeds(container, "ping", "-c", "1", "-W", "2", address);
}

async function hostPings(host: EmulatedHost, address: string): Promise<boolean> {
  return (await host.attempt(["ping", "-n", "-q", "-c", "1", "-W", "2", address])).code === 0;
}
