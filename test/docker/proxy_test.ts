import assert from "node:assert/strict";
import { Lab } from "../netns/lab.ts";
import { waitFor } from "../netns/wait.ts";
import { testAsRoot } from "../skip.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";
import { attemptDocker, attemptProxied, call, makeImage, proxied } from "./proxy_client.ts";

const RANGE = ["--ipalloc-range", "10.40.0.0/24"];
const SHOW = ["ip", "-4", "-o", "address", "show", "ethwe"];

testAsRoot("a container that is started through the proxy is in the network before its process starts", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch", ...RANGE);
  const ADDRESS = /ethwe +inet 10\.40\.0\.\d+\/24 /;

  assert.match(await proxied(engine, "run", "--rm", IMAGE, ...SHOW), ADDRESS);
  assert.match(await proxied(engine, "run", "--rm", IMAGE, "cat", "/proc/net/route"), /^ethwe\t000000E0\t/m);
  assert.equal(await proxied(engine, "run", "--rm", IMAGE, "cat", "/sys/class/net/ethwe/carrier"), "1");

  // Every way to say what runs.
  await makeImage(engine, "entry", 'ENTRYPOINT ["ls"]', 'CMD ["-d", "/bin"]');
  assert.equal(await proxied(engine, "run", "--rm", "entry"), "/bin");
  assert.equal(await proxied(engine, "run", "--rm", "entry", "-d", "/w"), "/w");
  assert.match(await proxied(engine, "run", "--rm", "--entrypoint", "ip", IMAGE, "address", "show", "ethwe"), /10\.40/);
  assert.match(await proxied(engine, "run", "--rm", "--entrypoint", "/bin/ip", "entry", "address"), /10\.40/);
  await makeImage(engine, "shell", "CMD ip -4 address show ethwe");
  assert.match(await proxied(engine, "run", "--rm", "shell"), /10\.40/);
  // Without a shell, and as nobody in particular.
  await host.sh(
    "mkdir -p /run/bare && cp /run/image/bin/busybox /run/bare/ip && tar -C /run/bare -c . | docker import - bare",
    {
      env: engine.env,
    },
  );
  assert.match(await proxied(engine, "run", "--rm", "-u", "1234", "bare", "/ip", "address", "show", "ethwe"), /10\.40/);
  assert.match(await proxied(engine, "run", "--rm", "--read-only", "--cap-drop=ALL", IMAGE, ...SHOW), ADDRESS);
  assert.match(await proxied(engine, "run", "--rm", "--init", IMAGE, ...SHOW), ADDRESS);
  assert.match(await proxied(engine, "run", "--rm", "--net=none", IMAGE, ...SHOW), ADDRESS);

  // What an image was made of that was held is held once, and not where there is nothing to wait for.
  await proxied(engine, "run", "--name", "first", IMAGE, "hostname");
  await proxied(engine, "commit", "first", "committed");
  assert.match(await proxied(engine, "run", "--rm", "committed", ...SHOW), ADDRESS);
  assert.equal(await proxied(engine, "run", "--rm", "-e", "WEAVE_CIDR=none", "-h", "x", "committed"), "x");
  assert.match(await proxied(engine, "run", "--rm", "--net=host", "committed", "hostname"), /host1/);

  // One more mount, which is out of reach.
  const mounts = ["run", "--rm", IMAGE, "cat", "/proc/mounts"];
  const count = (text: string) => text.split("\n").length;
  assert.equal(count(await proxied(engine, ...mounts)) - count(await engine.docker(...mounts)), 1);
  for (const spoil of ["echo > /w/w", "ls / > /w/x", "mv /w/w /w/y", "rm /w/w"]) {
    const { code, stderr } = await attemptProxied(engine, "run", "--rm", IMAGE, "sh", "-c", spoil);
    assert.notEqual(code, 0, spoil);
    assert.match(stderr, /[Rr]ead-only file system|not found/, spoil);
  }

  // Docker's API has no version in its paths unless one asks for it.
  for (const version of ["", "/v1.24", "/v1.41"]) {
    const body = JSON.stringify({ Image: IMAGE, Cmd: SHOW });
    const created = await call(engine, "POST", `${version}/containers/create`, { body });
    assert.equal(created.status, 201, created.body);
    const { Id } = JSON.parse(created.body);
    assert.equal((await call(engine, "POST", `${version}/containers/${Id}/start`)).status, 204);
    await engine.docker("wait", Id);
    assert.match(await engine.docker("logs", Id), ADDRESS, version);
  }
});

testAsRoot("a container that is done as soon as it is in the network has succeeded", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch", ...RANGE);
  for (let i = 0; i < 10; i++) assert.equal(await proxied(engine, "run", "--rm", IMAGE, "hostname", "-i"), "10.40.0.1");
  const { code } = await attemptProxied(engine, "run", "--rm", IMAGE, "sh", "-c", "exit 7");
  assert.equal(code, 7);
  assert.equal(await host.sh("curl -s http://127.0.0.1:6784/ip"), '{"owned":null}');
  const entries: { Tombstone: number }[] = JSON.parse(await host.weave("report")).DNS.Entries ?? [];
  assert.deepEqual(entries.filter(({ Tombstone }) => Tombstone === 0), []);
});

testAsRoot("WEAVE_CIDR says whether a container is in the network, and with which addresses", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await makeImage(engine, "silent", "ENV WEAVE_CIDR=none", 'CMD ["sh"]');
  await engine.docker("network", "create", "own");
  await engine.docker("run", "-d", "--name", "other", IMAGE, "sleep", "1000");
  const addresses = async (...args: string[]) => {
    const words = await proxied(engine, "run", "--rm", ...args, "ip", "-4", "-o", "address");
    return [...words.matchAll(/ ethwe +inet (\S+) /g)].map(([, address]) => address);
  };
  const cidr = (value: string) => ["-e", `WEAVE_CIDR=${value}`];
  await host.weave("launch", ...RANGE);
  assert.deepEqual(await addresses(IMAGE), ["10.40.0.1/24"]);
  assert.deepEqual(await addresses(...cidr(""), IMAGE), ["10.40.0.1/24"]);
  assert.deepEqual(await addresses(...cidr("none"), IMAGE), []);
  assert.deepEqual(await addresses("silent"), []);
  assert.deepEqual(await addresses(...cidr("net:default"), "silent"), ["10.40.0.1/24"]);
  assert.deepEqual(await addresses("-e", "WEAVE_CIDR", "silent"), ["10.40.0.1/24"]);
  assert.deepEqual(await addresses(...cidr("10.2.1.1/24 ip:10.2.2.1/24 net:10.40.0.128/25"), IMAGE), [
    "10.2.1.1/24",
    "10.2.2.1/24",
    "10.40.0.129/25",
  ]);
  assert.deepEqual(await addresses("--net=host", IMAGE), []);
  assert.deepEqual(await addresses("--net=container:other", IMAGE), []);
  assert.deepEqual(await addresses("--net=own", IMAGE), []);
  assert.deepEqual(await addresses("--net=bridge", IMAGE), ["10.40.0.1/24"]);

  await host.weave("stop");
  await host.weave("launch", ...RANGE, "--no-default-ipalloc");
  assert.deepEqual(await addresses(IMAGE), []);
  assert.deepEqual(await addresses(...cidr(""), IMAGE), ["10.40.0.1/24"]);
});

testAsRoot("what cannot be started through the proxy is said where the user looks, and leaves nothing", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  // Two addresses.
  await host.weave("launch", "--ipalloc-range", "10.40.0.0/30");
  await proxied(engine, "run", "-d", "--name", "one", IMAGE, "sleep", "1000");

  const cases: readonly (readonly [args: string[], code: number, says: RegExp])[] = [
    [[IMAGE, "nosuch"], 1, /^exec: "nosuch": executable file not found in \$PATH$/m],
    [["--entrypoint", "/no/such", IMAGE], 1, /^exec: "\/no\/such": no such file or directory$/m],
    [[IMAGE, "/bin"], 1, /^exec: "\/bin": permission denied$/m],
    [[IMAGE], 125, /Error response from daemon: No command specified/],
    [["nosuchimage", "ls"], 125, /Unable to find image 'nosuchimage:latest' locally/],
    [["-e", "WEAVE_CIDR=bogus", IMAGE, "ls"], 125, /Cannot use "bogus" in WEAVE_CIDR: none, or addresses such as /],
    [["-e", "WEAVE_CIDR=10.40.0.1/40", IMAGE, "ls"], 125, /Cannot use "10.40.0.1\/40" in WEAVE_CIDR/],
    [["-e", "WEAVE_CIDR=127.0.0.1/8", IMAGE, "ls"], 125, /Cannot use "127.0.0.1\/8" as address: it is a loopback/],
    [["-e", "WEAVE_CIDR=net:10.99.0.0/24", IMAGE, "ls"], 125, /10.99.0.0\/24 out of bounds/],
    [["-e", "WEAVE_CIDR=10.40.0.1/30", IMAGE, "ls"], 125, /10.40.0.1\/30/], // somebody has it
    [["-v", "/run:/w", IMAGE, "ls", "-d", "/w"], 0, /^$/], // ours counts
    [["--mount", "type=tmpfs,destination=/w", IMAGE, "ls"], 125, /[Dd]uplicate mount point: \/w/],
  ];
  for (const [args, code, says] of cases) {
    const result = await attemptProxied(engine, "run", "--rm", ...args);
    assert.equal(result.code, code, `${args.join(" ")}: ${result.stderr}`);
    assert.match(result.stderr, says, args.join(" "));
  }

  // The other address is there; then there is none left, and who waits is told after a while.
  await proxied(engine, "run", "-d", "--name", "two", IMAGE, "sleep", "1000");
  const full = await attemptProxied(engine, "run", "-d", "--name", "three", IMAGE, "sleep", "1000");
  assert.equal(full.code, 125);
  assert.match(full.stderr, /Cannot allocate an address: no address in 10\.40\.0\.0\/30 is free/);
  assert.equal(await engine.docker("ps", "-q", "--filter", "name=three"), "", "it does not run");
  await engine.docker("rm", "-f", "two");
  await proxied(engine, "start", "three");

  // Who creates a container of an engine that is another version sees what the engine says of it.
  const body = JSON.stringify({ Image: IMAGE, Cmd: ["ls"] });
  const newer = await call(engine, "POST", "/v9.99/containers/create", { body });
  assert.equal(newer.status, 400);
  assert.match(newer.body, /client version 9.99 is too new/);
  const older = await call(engine, "POST", "/v1.2/containers/create", { body });
  assert.match(older.body, /client version 1.2 is too old/);
  const nonsense = await call(engine, "POST", "/v1.41/containers/create", { body: "{" });
  assert.equal(
    nonsense.status,
    (await call(engine, "POST", "/v1.41/containers/create", { body: "{", socket: "/var/run/docker.sock" })).status,
  );

  // Left over is what was asked for.
  assert.equal((await engine.docker("ps", "-a", "--format", "{{.Names}}")).split("\n").sort().join(" "), "one three");
  const { owned } = JSON.parse(await host.sh("curl -s http://127.0.0.1:6784/ip"));
  assert.equal(owned.length, 2);
  assert.equal((await host.weave("ps")).split("\n").length, 3);
});

const CREATE = JSON.stringify({ Image: IMAGE, Cmd: ["sh", "-c", "ip -4 -o address; ls -d /data /w; sleep 1000"] });

testAsRoot("an old client may say at the start how a container runs", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch", ...RANGE);
  await engine.docker("run", "-d", "--name", "other", IMAGE, "sleep", "1000");
  // At its creation it says nothing of that.
  const start = async (name: string, body?: string) => {
    const created = await call(engine, "POST", `/v1.23/containers/create?name=${name}`, {
      body: CREATE,
    });
    assert.equal(created.status, 201, created.body);
    const started = await call(engine, "POST", `/v1.23/containers/${name}/start`, body === undefined ? {} : { body });
    assert.equal(started.status, 204, started.body);
    return await waitFor(`${name} to say something`, async () => {
      const { stdout } = await attemptDocker(engine, "logs", name);
      return stdout.includes("/w\n") ? stdout : undefined;
    }, 10_000);
  };
  const bodies = {
    nothing: undefined,
    null: "null",
    empty: "{}",
    settings: '{"Binds":["/run:/data"]}',
    named: '{"Binds":["/etc:/etc"],"HostConfig":{"Binds":["/run:/data"]}}',
  };
  for (const [name, body] of Object.entries(bodies)) {
    const said = await start(name, body);
    assert.match(said, / ethwe +inet 10\.40\.0\.\d+\/24 /, name);
    assert.equal(/^\/data$/m.test(said), name === "settings" || name === "named", name);
  }
  // What later clients send without meaning anything by it.
  assert.equal((await call(engine, "POST", "/v1.41/containers/create?name=new", { body: CREATE })).status, 201);
  assert.equal((await call(engine, "POST", "/v1.41/containers/new/start", { body: "{}" })).status, 204);
  // One that turns out to have no network of its own does not wait for it.
  assert.doesNotMatch(await start("host", '{"NetworkMode":"host"}'), / ethwe /);
  assert.doesNotMatch(await start("shared", '{"HostConfig":{"NetworkMode":"container:other"}}'), / ethwe /);
});
