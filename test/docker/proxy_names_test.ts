import assert from "node:assert/strict";
import { dig, waitName } from "../netns/dns.ts";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { testAsRoot } from "../skip.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";
import { proxied } from "./proxy_client.ts";

const SERVER = "172.17.0.1";

testAsRoot("containers that are started through the proxy have names, and find each other's", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  const start = async (address: string, ...args: string[]) => {
    await proxied(engine, "run", "-d", "-e", `WEAVE_CIDR=${address}/24`, ...args, IMAGE, "sleep", "1000");
  };
  const finds = (from: string, name: string) => engine.succeeds(from, "ping", "-c", "1", "-W", "5", name);
  await start("10.2.1.1", "--name", "one");
  await start("10.2.1.2", "--name", "two", "-h", "deux.sub.weave.local");
  await start("10.2.1.3", "--name", "three", "-h", "trois", "--domainname", "weave.local");
  await start("10.2.1.4", "-h", "four.weave.local");
  await start("10.2.1.5", "--name", "x".repeat(60)); // no hostname is so long

  assert.equal(
    await engine.docker("inspect", "-f", "{{.Config.Hostname}} {{.Config.Domainname}}", "one"),
    "one weave.local",
  );
  for (const [name, address] of [["one", 1], ["deux.sub", 2], ["trois", 3], ["four", 4]] as const) {
    await waitName(host, SERVER, `${name}.weave.local`, [`10.2.1.${address}`], 2_000, [host]);
  }
  assert.equal((await dig(host, SERVER, "two.weave.local", "A")).status, "NXDOMAIN", "its hostname is another one");
  const back = await host.sh(`dig +short @${SERVER} -x 10.2.1.1`);
  assert.equal(back, "one.weave.local.");
  for (const name of ["trois", "trois.weave.local", "deux.sub.weave.local", "four"]) {
    assert.ok(await finds("one", name), name);
  }
  // The domain of its own name is searched.
  await start("10.2.1.6", "--name", "six", "-h", "six.sub.weave.local");
  assert.ok(await finds("six", "deux"));
  // A list of his own is the user's.
  await start("10.2.1.7", "--name", "seven", "--dns", "192.0.2.1", "--dns-search", "sub.weave.local");
  assert.deepEqual(await resolvConf(engine, "seven"), [
    "search sub.weave.local",
    "nameserver 192.0.2.1",
    `nameserver ${SERVER}`,
  ]);

  // Others are told of one that runs, and of none that does not.
  await engine.docker("rm", "-f", "one");
  await waitName(host, SERVER, "one.weave.local", [], 3_000, [host]);

  // Without DNS a container asks whom it would ask otherwise, and has no name.
  await host.weave("stop");
  await host.weave("launch", "--without-dns");
  await start("10.2.1.8", "--name", "eight", "-h", "eight.weave.local");
  assert.ok(!(await resolvConf(engine, "eight")).includes(`nameserver ${SERVER}`));
  assert.equal((await dig(host, SERVER, "eight.weave.local", "A")).status, "NXDOMAIN");
  await host.weave("stop");
  await host.weave("launch", "--no-dns");
  await start("10.2.1.9", "--name", "nine");
  assert.ok(!(await resolvConf(engine, "nine")).includes(`nameserver ${SERVER}`));
});

testAsRoot("a container's hostname follows from its name or a label", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  const hostname = async (...args: string[]) => {
    return await proxied(engine, "run", "--rm", "--label", "hostname-label=labelled", ...args, IMAGE, "hostname");
  };
  const relaunch = async (...args: string[]) => {
    await host.attemptWeave("stop");
    await host.weave("launch", ...args);
  };
  await relaunch();
  assert.equal(await hostname("--name", "qux-flubber"), "qux-flubber");
  await relaunch("--hostname-match", "^aws-[0-9]+-(.*)$", "--hostname-replacement", "my-app-$1");
  assert.equal(await hostname("--name", "aws-12798186823-foo"), "my-app-foo");
  assert.equal(await hostname("--name", "another"), "another");
  await relaunch("--hostname-from-label", "hostname-label");
  assert.equal(await hostname("--name", "foo"), "labelled");
  assert.equal(await hostname(), "labelled");
  await relaunch("--hostname-from-label", "another-label");
  assert.equal(await hostname("--name", "foo"), "foo");
  await relaunch(
    "--hostname-from-label",
    "hostname-label",
    "--hostname-match",
    "(lab).*",
    "--hostname-replacement",
    "${1}s",
  );
  assert.equal(await hostname("--name", "foo"), "labs");
  assert.equal(await hostname("--name", "foo", "-h", "given"), "given");
  const { code, stderr } = await host.attemptWeave("launch", "--hostname-match", "(");
  assert.equal(code, 1);
  assert.match(stderr, /Cannot use "\(" as hostname-match: /);
});

testAsRoot("a container knows itself by its address, and docker inspect shows it", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch", "--rewrite-inspect");
  const run = (...args: string[]) => proxied(engine, "run", "--rm", "-e", "WEAVE_CIDR=10.2.1.1/24", ...args);
  assert.equal(await run("--name", "one", IMAGE, "hostname", "-i"), "10.2.1.1");
  assert.equal(await run("--name", "one", "-u", "1234", IMAGE, "hostname", "-i"), "10.2.1.1");
  const hosts = await run(
    "--name",
    "one",
    "--add-host",
    "ten:10.10.10.10",
    "--add-host",
    "here:host-gateway",
    IMAGE,
    "cat",
    "/etc/hosts",
  );
  assert.match(hosts, /^10\.2\.1\.1 +one\.weave\.local one$/m);
  assert.match(hosts, /^10\.10\.10\.10 +ten$/m);
  assert.match(hosts, /^172\.17\.0\.1 +here$/m);

  await proxied(engine, "run", "-d", "--name", "two", IMAGE, "sleep", "1000");
  const shown =
    "{{.Name}} {{.NetworkSettings.MacAddress}} {{.NetworkSettings.IPAddress}}/{{.NetworkSettings.IPPrefixLen}}";
  const [, mac, address] = (await host.weave("ps", "two")).split(" ");
  assert.equal(await proxied(engine, "inspect", "-f", shown, "two"), `/two ${mac} ${address}`);
  assert.match(await engine.docker("inspect", "-f", shown, "two"), / 172\.17\.0\.\d+\/16$/);
  await proxied(engine, "run", "-d", "--name", "three", "-e", "WEAVE_CIDR=none", IMAGE, "sleep", "1000");
  assert.match(await proxied(engine, "inspect", "-f", shown, "three"), / 172\.17\.0\.\d+\/16$/);

  await host.weave("stop");
  await host.weave("launch", "--no-rewrite-hosts");
  assert.match(await run("--name", "one", IMAGE, "cat", "/etc/hosts"), /^172\.17\.0\.\d+\s+one\.weave\.local one$/m);
  assert.match(await proxied(engine, "inspect", "-f", shown, "two"), / 172\.17\.0\.\d+\/16$/);
});

testAsRoot("the route for multicast is there as the router is told when a container starts", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  const hasRoute = async (name: string) =>
    (await engine.docker("exec", name, "ip", "route")).includes("224.0.0.0/4 dev ethwe");
  const start = (name: string) => proxied(engine, "run", "-d", "--name", name, IMAGE, "sleep", "1000");
  await host.weave("launch");
  await start("one");
  assert.ok(await hasRoute("one"));
  await relaunch(host, "--no-multicast-route");
  await start("two");
  assert.ok(!await hasRoute("two"));
  await proxied(engine, "restart", "-t", "0", "one");
  assert.ok(!await hasRoute("one"), "what counts is what the router is told now");
  await relaunch(host);
  await proxied(engine, "restart", "-t", "0", "two");
  assert.ok(await hasRoute("two"));
});

async function relaunch(host: EmulatedHost, ...args: string[]): Promise<void> {
  await host.weave("stop");
  await host.weave("launch", ...args);
}

async function resolvConf(engine: DockerEngine, container: string): Promise<string[]> {
  return (await engine.docker("exec", container, "cat", "/etc/resolv.conf")).split("\n").filter((line) =>
    /^\w/.test(line)
  );
}
