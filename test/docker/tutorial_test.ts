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

testAsRoot(
  "the process of a container of weave run starts when its network is there, also at later starts",
  async () => {
    await using lab = new Lab({ env: await dockerEnvironment() });
    const host = await lab.host("host1");
    await using engine = await DockerEngine.start(host);
    await host.weave("launch");
    // What it sees at its very start.
    const look = "ip -4 address show ethwe; ip route; cat /etc/hosts; nslookup web.weave.local; sleep 1000";
    const run = [
      "run",
      "10.0.0.1/24",
      "net:10.32.1.0/24",
      "--name",
      "web",
      "--restart",
      "always",
      IMAGE,
      "sh",
      "-c",
      look,
    ];
    const id = await host.weave(...run);
    const seen = async () => (await engine.docker("logs", id)).split("\n").filter((line) => line !== "").join("\n");
    const wanted = [
      /inet 10\.0\.0\.1\/24/,
      /inet 10\.32\.1\.1\/24/,
      /224\.0\.0\.0\/4 dev ethwe/,
      /^10\.0\.0\.1 +web\.weave\.local/m,
    ];
    await waitFor("what it saw", async () => /Address( 1)?: 10\.(0\.0|32\.1)\.1/.test(await seen()), 10_000, [host]);
    for (const want of wanted) assert.match(await seen(), want);

    // Killed, so that Docker starts it again; restarted by hand; with the router away meanwhile.
    const times = async () => (await seen()).match(/inet 10\.0\.0\.1\/24/g)?.length;
    const pid = () => engine.docker("inspect", "-f", "{{.State.Pid}}", id);
    await host.sh(`kill -9 ${await pid()}`);
    await waitFor("its second start", async () => await times() === 2, 10_000, [host]);
    assert.equal(await host.weave("restart", "web"), "web");
    await waitFor("its third start", async () => await times() === 3, 10_000, [host]);
    await host.weave("stop");
    await engine.docker("restart", "-t", "0", id);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    assert.equal(await times(), 3, "it waits for its network");
    await host.weave("launch");
    await waitFor("its fourth start", async () => await times() === 4, 10_000, [host]);
    assert.match(await host.weave("ps", "web"), /^web \S{17} 10\.0\.0\.1\/24 10\.32\.1\.1\/24$/);

    // Said for one container, it holds for all its starts.
    const bare = [
      "run",
      "--without-dns",
      "--no-rewrite-hosts",
      "--no-multicast-route",
      "10.0.0.2/24",
      "--name",
      "bare",
    ];
    await host.weave(
      ...bare,
      "-h",
      "bare.weave.local",
      IMAGE,
      "sh",
      "-c",
      `${look.replace("nslookup web.weave.local; ", "")}`,
    );
    for (let i = 1; i <= 2; i++) {
      const saw = async () => await engine.docker("logs", "bare");
      await waitFor("what it saw", async () => (await saw()).match(/inet 10\.0\.0\.2\/24/g)?.length === i, 10_000, [
        host,
      ]);
      assert.doesNotMatch(await saw(), /224\.0\.0\.0|^10\.0\.0\.2\s+bare/m);
      assert.equal(await host.weave("dns-lookup", "bare"), "");
      if (i === 1) await engine.docker("restart", "-t", "0", "bare");
    }
  },
);

testAsRoot("weave start and restart, containers called like addresses, and what cannot be attached", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  await engine.docker(
    "create",
    "--stop-timeout",
    "1",
    "--name",
    "10.0.0.9",
    "-h",
    "nine.weave.local",
    IMAGE,
    "sleep",
    "1000",
  );
  assert.equal(await host.weave("start", "10.0.0.1/24", "10.0.0.9"), "10.0.0.9");
  assert.match(await host.weave("ps", "10.0.0.9"), /^10\.0\.0\.9 \S{17} 10\.0\.0\.1\/24$/);
  await host.weave("dns-add", "10.0.0.77", "10.0.0.9");
  assert.deepEqual((await host.weave("dns-lookup", "nine")).split("\n").sort(), ["10.0.0.1", "10.0.0.77"]);
  await host.weave("dns-add", "docker:10.0.0.9", "-h", "alias.weave.local");
  assert.equal(await host.weave("dns-lookup", "alias"), "10.0.0.1");
  assert.equal(await host.weave("restart", "10.0.0.9"), "10.0.0.9");
  assert.match(await host.weave("ps", "10.0.0.9"), /^10\.0\.0\.9 \S{17} 10\.0\.0\.1\/24$/);
  await waitFor("its name", async () => await host.weave("dns-lookup", "nine") === "10.0.0.1", 5_000, [host]);
  assert.match(await host.weave("status", "dns"), /^nine +10\.0\.0\.1 +[0-9a-f]{12} /m, "by the id, not by the name");
  // Without an address it gets one, and keeps that as well.
  await engine.docker("create", "--stop-timeout", "1", "--name", "two", IMAGE, "sleep", "1000");
  await host.weave("start", "two");
  const line = (await host.weave("ps", "two")).split(" ").at(-1);
  await host.weave("restart", "two");
  assert.equal((await host.weave("ps", "two")).split(" ").at(-1), line);

  await engine.docker("create", "--name", "on-host", "--net=host", IMAGE, "sleep", "100");
  const inside = await engine.docker("run", "-d", "--name", "inside", "--net=container:two", IMAGE, "sleep", "100");
  const before = await engine.docker("ps", "-aq");
  const cases: [string[], RegExp][] = [
    [["start", "on-host"], /^Container is running in the host network namespace/],
    [
      ["attach", "inside"],
      new RegExp(`^Container ${inside.slice(0, 12)} is running in the network namespace of container`),
    ],
    [["detach", "inside"], /^Container .* is running in the network namespace of container/],
    [["restart", "inside"], /^Container .* is running in the network namespace of container/],
    [["run", "--net=host", IMAGE, "sh"], /^Cannot run a container with --net=host: it has no network of its own/],
    [["run", "--net=container:two", IMAGE, "sh"], /^Cannot run a container with --net=container:two/],
    [["start", "nobody"], /^unable to inspect container nobody: No such container: nobody/],
    [["start", "pid:1"], /^Cannot start "pid:1": a container of Docker expected/],
  ];
  for (const [args, says] of cases) {
    const result = await host.attemptWeave(...args);
    assert.match(result.stderr, says);
    assert.notEqual(result.code, 0);
    assert.equal(result.stdout, "");
  }
  assert.equal(await engine.docker("ps", "-aq"), before, "nothing was made");
  assert.equal(await engine.docker("inspect", "-f", "{{.State.Status}}", "on-host"), "created");
  assert.match(await host.weave("ps", "inside"), new RegExp(`^inside \\S{17} ${line}$`), "it is shown where it is");

  // An address that somebody else has: nothing is left that waits for ever.
  const taken = await host.attemptWeave("run", "10.0.0.1/24", "--name", "late", IMAGE, "sleep", "1000");
  assert.match(taken.stderr, /^Container [0-9a-f]{64} was killed: it cannot be attached: /);
  assert.equal(taken.code, 1);
  assert.equal(await engine.docker("inspect", "-f", "{{.State.Running}}", "late"), "false");
  // What its image lacks is said where its output goes.
  const id = await host.weave("run", "10.0.0.5/24", IMAGE, "/no/such/program");
  await waitFor(
    "why",
    async () =>
      (await host.sh(`docker logs ${id} 2>&1`, { env: engine.env })).includes('exec: "/no/such/program": no such file'),
    5_000,
  );
});
