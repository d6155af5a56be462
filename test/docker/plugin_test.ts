import assert from "node:assert/strict";
import { waitName } from "../netns/dns.ts";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { routerPid, waitEstablished } from "../netns/mesh.ts";
import { waitFor } from "../netns/wait.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";
import { testAsRoot } from "../skip.ts";

const DNS = "172.17.0.1";

testAsRoot("containers in Docker's network weave reach each other by name, on two hosts", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  await lab.link(host1, host2);
  await using engine1 = await DockerEngine.start(host1);
  await using engine2 = await DockerEngine.start(host2);
  await host1.weave("launch");
  await host2.weave("launch", host1.address());
  await waitEstablished(host1, [host2]);
  assert.match(await host1.weave("status"), /^ +Service: plugin \(legacy\)\n +DriverName: weave$/m);

  const args1 = (await host1.weave("dns-args")).split(" ");
  const args2 = (await host2.weave("dns-args")).split(" ");
  const one = ["--name=c1", "--hostname=c1.weave.local", "--network-alias=first"];
  // Its names are there when its process starts.
  const program = ["c1", "first"].map((name) => `nslookup ${name}.weave.local ${DNS}`).join(" && ");
  await engine1.docker(
    "run",
    "-d",
    "--net=weave",
    ...args1,
    ...one,
    IMAGE,
    "sh",
    "-c",
    `${program} && echo named; sleep 1000`,
  );
  const two = ["--name=c2", "--hostname=two.weave.local"];
  await engine2.docker("run", "-d", "--net=weave", ...args2, ...two, IMAGE, "sleep", "1000");
  const [address1, address2] = [await addressOf(engine1, "c1"), await addressOf(engine2, "c2")];
  assert.match(await engine1.docker("exec", "c1", "ip", "-4", "address", "show", "ethwe0"), /10\.\d+\.\d+\.\d+\/12/);
  assert.match(await engine1.docker("exec", "c1", "ip", "route"), /^224\.0\.0\.0\/4 dev ethwe0/m);
  await waitFor("it to have found itself", async () => (await engine1.docker("logs", "c1")).endsWith("named"), 5_000);
  for (const host of lab.hosts) {
    for (const name of ["c1.weave.local", "first.weave.local"]) {
      await waitName(host, DNS, name, [address1], 10_000, lab.hosts);
    }
    for (const name of ["c2.weave.local", "two.weave.local"]) await waitName(host, DNS, name, [address2]);
  }
  for (const name of ["two", "c2", "two.weave.local"]) {
    assert.ok(await engine1.succeeds("c1", "ping", "-c", "1", "-W", "2", name), name);
  }
  for (const name of ["c1", "first"]) assert.ok(await engine2.succeeds("c2", "ping", "-c", "1", "-W", "2", name), name);
  assert.match((await host1.weave("ps")).split("\n")[1]!, new RegExp(`^\\S{12} \\S{17} ${address1}/12$`));

  // A network of their own, which is the same on both hosts because its subnet is.
  for (const [engine, name] of [[engine1, "d1"], [engine2, "d2"]] as const) {
    const own = ["--driver=weavemesh", "--ipam-driver=weavemesh", "--subnet=10.40.5.0/24", "own"];
    await engine.docker("network", "create", ...own);
    await engine.docker("run", "-d", "--net=own", `--name=${name}`, IMAGE, "sleep", "1000");
  }
  const [own1, own2] = [await addressOf(engine1, "d1"), await addressOf(engine2, "d2")];
  assert.notEqual(own1, own2);
  assert.ok(await pings(engine1, "d1", own2));
  assert.ok(!await pings(engine1, "d1", address2), "another subnet");
  await engine1.docker("rm", "-f", "d1");

  // One that cannot start has none.
  const failing = ["--name=c3", "--net=weave", IMAGE, "no-such-program"];
  assert.notEqual((await host1.attempt(["docker", "run", ...failing], { env: engine1.env })).code, 0);
  await waitName(host1, DNS, "c3.weave.local", [], 2_000, [host1]);
  assert.deepEqual(await held(host1), [`${address1}/12`]);

  await engine1.docker("rm", "-f", "c1");
  for (const host of lab.hosts) await waitName(host, DNS, "first.weave.local", [], 5_000, lab.hosts);
  assert.deepEqual(await held(host1), []);
  await waitFor("its veth to go", async () => !(await host1.sh("ip -br link")).includes("vethwl"), 2_000);
});

testAsRoot("Docker's networks may have subnets, addresses, names and multicast of their own", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch", "--no-multicast-route");
  const network = (name: string, ...more: string[]) =>
    engine.docker("network", "create", "--driver=weavemesh", "--ipam-driver=weavemesh", ...more, name);
  const start = (name: string, net: string, ...more: string[]) =>
    engine.docker("run", "-d", `--net=${net}`, `--name=${name}`, ...more, IMAGE, "sleep", "1000");
  const says = async (pattern: RegExp, ...args: string[]) => {
    const { code, stderr } = await host.attempt(["docker", ...args], { env: engine.env, timeoutMs: 60_000 });
    assert.notEqual(code, 0, args.join(" "));
    assert.match(stderr, pattern);
  };
  await network("one", "--subnet=10.40.1.0/24", "--opt=works.weave.multicast");
  await network("two", "--subnet=10.40.2.0/24", "--ip-range=10.40.2.64/28", "--opt=works.weave.multicast=false");
  await network("three");
  await says(
    /works\.weave\.multicast: true or false expected/,
    "network",
    "create",
    "-d",
    "weavemesh",
    "--opt=works.weave.multicast=maybe",
    "x",
  );
  await says(
    /bits after its length are set/,
    "network",
    "create",
    "-d",
    "weavemesh",
    "--ipam-driver=weavemesh",
    "--subnet=10.40.3.1/24",
    "x",
  );
  await says(
    /IPv6/,
    "network",
    "create",
    "-d",
    "weavemesh",
    "--ipam-driver=weavemesh",
    "--ipv6",
    "--subnet=fd00::/64",
    "x",
  );

  // The lowest that is free, in order.
  await start("ca", "one");
  await start("cb", "one", "--ip=10.40.1.3");
  await start("cc", "one");
  await start("cd", "one", "--mac-address=02:00:00:00:00:0d");
  assert.deepEqual(
    await Promise.all(["ca", "cb", "cc", "cd"].map((name) => addressOf(engine, name))),
    ["10.40.1.1", "10.40.1.3", "10.40.1.2", "10.40.1.4"],
  );
  assert.match(await engine.docker("exec", "cd", "ip", "link", "show", "ethwe0"), /02:00:00:00:00:0d/);
  await says(/10\.40\.1\.3\/24: \S+ has it already/, "run", "--net=one", "--ip=10.40.1.3", IMAGE, "true");
  assert.ok(await pings(engine, "ca", "10.40.1.3"), "whose address it was keeps it");
  await engine.docker("rm", "-f", "cb", "ca");
  await start("cb", "one", "--ip=10.40.1.3");
  await start("ca", "one");
  assert.equal(await addressOf(engine, "ca"), "10.40.1.1");

  // Of the range, which is a part of the subnet.
  await start("ce", "two");
  assert.match(await engine.docker("exec", "ce", "ip", "-4", "address", "show", "ethwe0"), /10\.40\.2\.6[45]\/24/);
  await start("cf", "three");
  assert.match(await engine.docker("exec", "cf", "ip", "-4", "address", "show", "ethwe0"), /\/12/);
  await start("cg", "weave");
  for (const [name, multicast] of [["ca", true], ["ce", false], ["cf", false], ["cg", true]] as const) {
    assert.equal(
      /^224\.0\.0\.0\/4 dev ethwe0/m.test(await engine.docker("exec", name, "ip", "route")),
      multicast,
      name,
    );
  }

  // Subnets are kept apart, and a container may be in several.
  assert.ok(await pings(engine, "ca", "10.40.1.2"));
  assert.ok(!await pings(engine, "ca", await addressOf(engine, "ce")));
  await engine.docker("network", "connect", "--alias=both", "two", "ca");
  const [inOne, inTwo] = ["10.40.1.1", (await addressesOf(engine, "ca")).find((one) => one.startsWith("10.40.2."))!];
  await waitName(host, DNS, "both.weave.local", [inTwo], 5_000, [host]);
  await waitName(host, DNS, "ca.weave.local", [inOne, inTwo]);
  assert.ok(await pings(engine, "ce", inTwo));
  await engine.docker("network", "disconnect", "two", "ca");
  await waitName(host, DNS, "ca.weave.local", [inOne], 5_000, [host]);
  await waitName(host, DNS, "both.weave.local", []);

  // Of two networks with multicast, the first has it.
  await network("loud", "--subnet=10.40.4.0/24", "--opt=works.weave.multicast");
  await engine.docker("network", "connect", "loud", "ca");
  const routes = () => engine.docker("exec", "ca", "ip", "route");
  assert.deepEqual((await routes()).match(/^224.*dev \S+/gm), ["224.0.0.0/4 dev ethwe0"]);
  await engine.docker("restart", "-t", "0", "ca");
  assert.equal((await routes()).match(/^224/gm)?.length, 1);

  await engine.docker("rm", "-f", "ca", "cb", "cc", "cd", "ce", "cf", "cg");
  for (const name of ["one", "two", "three", "loud"]) await engine.docker("network", "rm", name);
  assert.deepEqual(await held(host), []);
  await noLinks(host);
});

testAsRoot("Docker gets an answer in time where no address can be had, and says why", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch", "--ipalloc-init", "consensus=3");
  const run = (...args: string[]) =>
    host.attempt(["docker", "run", "-d", "--name=c1", ...args, IMAGE, "sleep", "1000"], {
      env: engine.env,
      timeoutMs: 60_000,
    });
  for (const args of [["--net=weave"], ["--net=weave", "--ip=10.32.0.9"]]) {
    const started = performance.now();
    const { code, stderr } = await run(...args);
    const seconds = (performance.now() - started) / 1000;
    assert.equal(code, 125);
    assert.match(stderr, /there is no quorum: peers have to agree first .*\(quorum: 2, known: 1\)/);
    assert.ok(seconds < 25, `${seconds} s`);
    await engine.docker("rm", "-f", "c1");
  }
  // Who does not wait any more is not waited for.
  const pool = { PoolID: "weave-10.32.0.0/12-10.32.0.0/12" };
  await assert.rejects(plugin(host, "weavemesh")("IpamDriver.RequestAddress", pool, 1), /exit status 28/);
  await waitFor(
    "it to be given up",
    async () => await host.weave("report", "-f", "{{len .IPAM.PendingAllocates}}") === "0",
    2_000,
    [host],
  );
  assert.deepEqual(await held(host), []);
  await noLinks(host);
  // Outside of what is agreed on, an address is nobody's business.
  const far = ["--driver=weavemesh", "--ipam-driver=weavemesh", "--subnet=10.9.0.0/24", "far"];
  await engine.docker("network", "create", ...far);
  assert.equal((await run("--net=far", "--ip=10.9.0.9")).code, 0);
  await host.weave("stop");

  // A full subnet, and no allocation at all.
  await host.weave("reset");
  await host.weave("launch", "--ipalloc-range", "10.77.0.0/30");
  assert.match(await engine.docker("network", "inspect", "weave"), /10\.77\.0\.0\/30/);
  await engine.docker("rm", "-f", "c1");
  for (const name of ["cx", "cy"]) {
    await engine.docker("run", "-d", "--net=weave", `--name=${name}`, IMAGE, "sleep", "1000");
  }
  assert.match((await run("--net=weave")).stderr, /no address in 10\.77\.0\.0\/30 is free/);
  await engine.docker("rm", "-f", "c1", "cx", "cy");
  await host.weave("reset");
  await host.weave("launch", "--ipalloc-range", "");
  assert.equal(await engine.docker("network", "ls", "-q", "--filter", "name=^weave$"), "");
  const none = await host.attempt(
    ["docker", "network", "create", "-d", "weavemesh", "--ipam-driver=weavemesh", "x"],
    { env: engine.env },
  );
  assert.match(none.stderr, /the router allocates no addresses/);
});

testAsRoot("containers in Docker's networks come through restarts of the router, of Docker, and of both", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  const args = (await host.weave("dns-args")).split(" ");
  const policy = ["--restart=always", "--hostname=c1.weave.local", "--network-alias=alias"];
  await engine.docker("run", "-d", "--net=weave", ...args, "--name=c1", ...policy, IMAGE, "sleep", "1000");
  await engine.docker("run", "-d", "--net=weave", "--name=c2", IMAGE, "sleep", "1000");
  const [address1, address2] = [await addressOf(engine, "c1"), await addressOf(engine, "c2")];
  await waitName(host, DNS, "alias.weave.local", [address1], 5_000, [host]);

  // The router, as stopped in the middle of things: what runs keeps what it has.
  for (const lost of [false, true]) {
    const pid = await routerPid(host);
    if (lost) await host.sh("rm -f /var/lib/weave/weave-*.json");
    await host.sh(`kill -9 ${pid}`);
    await waitFor("the router to be back", async () => await routerPid(host) !== pid, 10_000);
    await waitFor("it to serve", () => host.weave("status"), 10_000);
    await waitName(host, DNS, "c1.weave.local", [address1], 10_000, [host]);
    await waitName(host, DNS, "alias.weave.local", [address1], 10_000, [host]);
    await waitName(host, DNS, "c2.weave.local", [address2], 10_000, [host]);
    assert.deepEqual((await held(host)).sort(), [`${address1}/12`, `${address2}/12`].sort());
    const other = await engine.docker("run", "-d", "--net=weave", IMAGE, "sleep", "1000");
    assert.ok(![address1, address2].includes(await addressOf(engine, other)));
    assert.match(
      await engine.docker("exec", other, "ip", "route"),
      /^224\.0\.0\.0\/4 dev ethwe0/m,
      "the option is known",
    );
    await engine.docker("rm", "-f", other);
  }
  assert.equal((await engine.docker("network", "ls", "-q", "--filter", "name=^weave$")).split("\n").length, 1);

  // Docker, then both: its containers are started again, those of the dead ones have no address.
  for (const both of [false, true]) {
    const pid = await routerPid(host);
    if (both) await host.sh(`kill -9 ${pid}`);
    await engine.stop("SIGKILL");
    await engine.startAgain();
    await waitFor("the container to be back", () => engine.succeeds("c1", "hostname"), 30_000, [host]);
    const address = await addressOf(engine, "c1");
    await waitName(host, DNS, "c1.weave.local", [address], 15_000, [host]);
    await waitName(host, DNS, "alias.weave.local", [address], 5_000, [host]);
    assert.match(
      await engine.docker("exec", "c1", "ip", "-4", "address", "show", "ethwe0"),
      new RegExp(`${address}/12`),
    );
    await waitFor(
      "addresses of the dead to be free",
      async () => (await held(host)).join() === `${address}/12`,
      60_000,
      [host],
    );
    await waitFor("their links to go", async () => (await endpointLinksOf(host)).length === 1, 60_000, [host]);
    if (!both) await engine.docker("start", "c2");
  }
});

testAsRoot("what Docker left behind is found, and nothing else is taken away", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  const create = ["network", "create", "-d", "weavemesh", "--ipam-driver=weavemesh"];
  await engine.docker(
    ...create,
    "--subnet=10.40.0.0/16",
    "--gateway=10.40.0.9",
    "--aux-address=printer=10.40.0.8",
    "net",
  );
  await engine.docker("run", "-d", "--net=net", "--name=c1", IMAGE, "sleep", "1000");
  const container = await host.container("mine");
  const [attached, exposed] = [await host.weave("attach", container.reference), await host.weave("expose")];

  // As by a Docker that dies between two questions.
  const ask = plugin(host, "weavemesh");
  const { Address: lost } = await ask("IpamDriver.RequestAddress", { PoolID: "weave-10.40.0.0/16-10.40.0.0/16" });
  const endpoint = "feedbeef".repeat(8);
  await ask("NetworkDriver.CreateEndpoint", { NetworkID: "a".repeat(64), EndpointID: endpoint, Interface: {} });
  assert.match(lost, /^10\.40\.0\.\d+\/16$/);
  const everything = await held(host);
  assert.equal(everything.length, 6);
  await engine.stop("SIGTERM");
  await engine.startAgain();
  await engine.docker("start", "c1");
  const stays = [
    "10.40.0.8/16",
    "10.40.0.9/16",
    `${await addressOf(engine, "c1")}/16`,
    `${attached}/12`,
    `${exposed}/12`,
  ];
  await waitFor("it to be free", async () => (await held(host)).sort().join() === stays.sort().join(), 60_000, [host]);
  await waitFor("its links to go", async () => !(await host.sh("ip -br link")).includes("feedbeef"), 30_000, [host]);
  assert.ok(await engine.succeeds("c1", "ip", "link", "show", "ethwe0"));
});

testAsRoot("the drivers answer as plugins of Docker do, whatever they are asked", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await host.weave("launch");
  const weave = plugin(host, "weave");
  const mesh = plugin(host, "weavemesh");
  assert.deepEqual(await weave("Plugin.Activate"), { Implements: ["NetworkDriver"] });
  assert.deepEqual(await mesh("Plugin.Activate"), { Implements: ["NetworkDriver", "IpamDriver"] });
  assert.deepEqual(await weave("NetworkDriver.GetCapabilities"), { Scope: "global" });
  assert.deepEqual(await mesh("NetworkDriver.GetCapabilities"), { Scope: "local" });

  // The life of a container in a network of a cluster.
  const NetworkID = "0".repeat(25), EndpointID = "1".repeat(64);
  const pool = await mesh("IpamDriver.RequestPool", { AddressSpace: "weaveglobal", Pool: "10.44.0.0/16" });
  const { Address } = await mesh("IpamDriver.RequestAddress", { PoolID: pool.PoolID });
  assert.equal(Address, "10.44.0.1/16");
  const Options = { "com.docker.network.generic": { "works.weave.multicast": "1" } };
  assert.deepEqual(await weave("NetworkDriver.AllocateNetwork", { NetworkID }), { Options: {} });
  assert.deepEqual(await weave("NetworkDriver.CreateNetwork", { NetworkID, Options }), {});
  const { Interface } = await weave("NetworkDriver.CreateEndpoint", { NetworkID, EndpointID, Interface: { Address } });
  assert.match(await host.sh("ip -br link show vethwg111111111"), new RegExp(Interface.MacAddress));
  assert.match(await host.sh("ip link show vethwl111111111"), /master weave .*state|master weave/);
  const again = await weave("NetworkDriver.CreateEndpoint", { NetworkID, EndpointID, Interface: { Address } });
  assert.notEqual(again.Interface.MacAddress, undefined, "a question may come twice");
  assert.deepEqual(await weave("NetworkDriver.Join", { NetworkID, EndpointID, SandboxKey: "/x" }), {
    InterfaceName: { SrcName: "vethwg111111111", DstPrefix: "ethwe" },
    StaticRoutes: [{ Destination: "224.0.0.0/4", RouteType: 1 }],
  });
  for (const call of ["NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint", "NetworkDriver.DeleteEndpoint"]) {
    assert.deepEqual(await weave(call, { NetworkID, EndpointID }), {}, call);
  }
  await noLinks(host);
  assert.deepEqual(await weave("NetworkDriver.DeleteNetwork", { NetworkID }), {});
  assert.deepEqual(await mesh("IpamDriver.ReleaseAddress", { PoolID: pool.PoolID, Address: "10.44.0.1" }), {});
  assert.deepEqual(await mesh("IpamDriver.ReleaseAddress", { PoolID: pool.PoolID, Address: "10.44.0.1" }), {});
  assert.deepEqual(await held(host), []);

  const wrong: [body: string, says: RegExp][] = [["{", /not JSON/], ["7", /no JSON object/], [
    "{}",
    /NetworkID must be an id/,
  ]];
  for (const [body, says] of wrong) assert.match((await weave("NetworkDriver.CreateEndpoint", body)).Err, says);
  assert.match((await weave("IpamDriver.RequestPool", {})).Err, /not known here/);
  const large = JSON.stringify({ NetworkID, EndpointID, Options: { x: "y".repeat(5_000_000) } });
  assert.deepEqual(Object.keys(await weave("NetworkDriver.Join", large)), ["InterfaceName"]);
  assert.match(await host.sh("stat -c %a /run/docker/plugins/*.sock"), /^600\n600$/);

  await host.weave("stop");
  assert.equal(await host.sh("ls /run/docker/plugins"), "");
  await host.weave("launch", "--plugin-socket=/run/x/other.sock", "--plugin-mesh-socket=");
  assert.deepEqual(await plugin(host, "other", "/run/x")("Plugin.Activate"), { Implements: ["NetworkDriver"] });
  assert.equal(await host.sh("ls /run/docker/plugins"), "");
  await host.sh(`kill -9 $(sed 's/.*"pid":\\([0-9]*\\).*/\\1/' /run/weave/supervisor.json /run/weave/router.json)`);
  await host.weave("reset");
  assert.equal(await host.sh("ls /run/x"), "", "nor does a killed one leave its sockets for good");
  await host.weave("launch", "--plugin-v2", "--plugin-v2-multicast");
  assert.match(await host.weave("status"), /Service: plugin \(v2\)/);
  assert.deepEqual(await weave("Plugin.Activate"), { Implements: ["NetworkDriver", "IpamDriver"] });
  assert.match(JSON.stringify(await weave("NetworkDriver.Join", { NetworkID, EndpointID })), /224\.0\.0\.0/);
  await host.weave("stop");
  await host.weave("launch", "--plugin=false");
  assert.equal(await host.sh("ls /run/docker/plugins"), "");
  assert.doesNotMatch(await host.weave("status"), /plugin/);
});

testAsRoot("weave stop and reset take the network weave away, or say who is in it", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await host.weave("launch");
  await using engine = await DockerEngine.start(host);
  const networks = () => engine.docker("network", "ls", "--filter", "driver=weavemesh", "--format", "{{.Name}}");
  await waitFor("the network of a Docker that came later", async () => await networks() === "weave", 30_000, [host]);
  await host.weave("stop");
  assert.equal(await networks(), "");
  await host.weave("launch");
  assert.equal(await networks(), "weave");
  const id = await engine.docker("run", "-d", "--net=weave", "--name=c1", IMAGE, "sleep", "1000");
  const address = await addressOf(engine, "c1");
  const stopped = await host.attemptWeave("stop");
  assert.equal(stopped.code, 0);
  assert.match(stopped.stderr, new RegExp(`still attached to network "weave":\n +${id.slice(0, 12)}$`, "m"));
  assert.equal(await networks(), "weave");
  await host.weave("launch");
  assert.deepEqual(await held(host), [`${address}/12`]);
  await engine.docker("rm", "-f", "c1");
  assert.deepEqual(await held(host), []);
  await host.weave("reset");
  assert.equal(await networks(), "");

  // A network of that name may be somebody else's.
  await engine.docker("network", "create", "weave");
  await host.weave("launch");
  assert.match(await host.sh("cat /var/log/weave.log"), /Docker has a network \\"weave\\" of driver \\"bridge\\"/);
  await host.weave("stop");
  assert.equal(await engine.docker("network", "inspect", "-f", "{{.Driver}}", "weave"), "bridge");
});

testAsRoot("fifty containers at once in Docker's network are there when their processes start", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  await engine.docker("run", "-d", "--net=weave", "--name=first", IMAGE, "sleep", "1000");
  const first = await addressOf(engine, "first");
  const names = Array.from({ length: 50 }, (_, i) => `c${i}`);
  const program = (name: string) =>
    `nslookup ${name}.weave.local ${DNS} && ping -c 1 -W 5 ${first} && echo reached; sleep 1000`;
  const started = performance.now();
  const results = await Promise.all(
    names.map((name) =>
      host.attempt(["docker", "run", "-d", "--net=weave", `--name=${name}`, IMAGE, "sh", "-c", program(name)], {
        env: engine.env,
        timeoutMs: 180_000,
      })
    ),
  );
  console.log(`50 containers through the plugin: ${Math.round(performance.now() - started)} ms`);
  assert.deepEqual(results.filter(({ code }) => code !== 0).map(({ stderr }) => stderr), []);
  const addresses = await Promise.all(names.map((name) => addressOf(engine, name)));
  assert.equal(new Set([first, ...addresses]).size, 51);
  for (const [i, name] of names.entries()) {
    await waitFor(
      `${name} to reach the first`,
      async () => (await engine.docker("logs", name)).endsWith("reached"),
      20_000,
    );
    await waitName(host, DNS, `${name}.weave.local`, [addresses[i]!], 10_000, [host]);
  }
  await host.exec(["docker", "rm", "-f", ...names, "first"], { env: engine.env, timeoutMs: 180_000 });
  assert.deepEqual(await held(host), []);
  await noLinks(host);
  assert.doesNotMatch(await host.weave("status", "dns"), /^c\d/m);
});

/** What Docker says. */
async function addressOf(engine: DockerEngine, container: string): Promise<string> {
  return await engine.docker(
    "inspect",
    "-f",
    "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
    container,
  );
}

/** All addresses that are held on a host, as the API says. */
async function held(host: EmulatedHost): Promise<string[]> {
  const { owned } = JSON.parse(await host.sh("curl -sf http://127.0.0.1:6784/ip"));
  return (owned ?? []).flatMap(({ addrs }: { addrs: string[] }) => addrs);
}

async function addressesOf(engine: DockerEngine, container: string): Promise<string[]> {
  const format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
  return (await engine.docker("inspect", "-f", format, container)).trim().split(" ");
}

async function pings(engine: DockerEngine, container: string, address: string): Promise<boolean> {
  return await engine.succeeds(container, "ping", "-c", "1", "-W", "2", address);
}

/** Both ends of endpoints, as far as they are in the host. */
async function endpointLinksOf(host: EmulatedHost): Promise<string[]> {
  return (await host.sh("ip -br link")).split("\n").filter((line) => /^vethw[lg]/.test(line));
}

async function noLinks(host: EmulatedHost): Promise<void> {
  await waitFor("links to go", async () => (await endpointLinksOf(host)).length === 0, 5_000);
}

// deno-lint-ignore no-explicit-any
type Answer = any;

/** Asks a driver as Docker does. */
function plugin(host: EmulatedHost, name: string, folder = "/run/docker/plugins") {
  return async (call: string, body: object | string = {}, seconds = 60): Promise<Answer> => {
    const input = typeof body === "string" ? body : JSON.stringify(body);
    const url = [
      "-s",
      "-m",
      String(seconds),
      "--unix-socket",
      `${folder}/${name}.sock`,
      "--data-binary",
      "@-",
      `http://x/${call}`,
    ];
    return JSON.parse((await host.exec(["curl", ...url], { input })).stdout);
  };
}
