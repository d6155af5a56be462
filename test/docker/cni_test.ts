import assert from "node:assert/strict";
import { join } from "node:path";
import type { CommandResult } from "../netns/command.ts";
import type { Container, EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { waitFor } from "../netns/wait.ts";
import { cniPlugins, cniTool } from "../packages.ts";
import { testUnless } from "../skip.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";

const BIN = "/opt/cni/bin";
const NET_D = "/etc/cni/net.d";
const VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];

const needsRoot = Deno.uid() === 0 ? undefined : "it needs root";
const tool = needsRoot === undefined ? await cniTool() : { reason: needsRoot };
const plugins = needsRoot === undefined ? await cniPlugins() : undefined;
const noTool = "reason" in tool ? tool.reason : undefined;
const noPlugins = noTool ?? (plugins === undefined ? "Debian's containernetworking-plugins cannot be had" : undefined);

testUnless(
  needsRoot,
  "the executable is a CNI plugin: interfaces, routes, the host as gateway, and addresses until DEL",
  async () => {
    await using lab = new Lab();
    const host = await cniHost(lab);
    await host.weave("launch");
    const [c0, c1, c2] = [await host.container("c0"), await host.container("c1"), await host.container("c2")];
    const overlay = [{ dst: "10.32.0.0/12" }];
    const one = await add(host, c0, { ipam: { type: "weave-ipam", routes: overlay } });
    assert.deepEqual(one, { cniVersion: "0.1.0", ip4: { ip: one.ip4.ip, routes: overlay }, dns: {} });
    const two = await add(host, c1, { hairpinMode: false, ipam: { type: "weave-ipam", routes: [] } });
    const three = await add(host, c2, {});
    const [ip0, ip1, ip2] = [one, two, three].map(({ ip4 }) => ip4.ip.replace("/12", ""));
    assert.equal(new Set([ip0, ip1, ip2]).size, 3);

    // What is said about routes, and nothing else; nothing said makes the host the way to all others.
    assert.match(await c0.sh("ip -4 route"), /^10\.32\.0\.0\/12 dev eth0 proto kernel scope link src \S+ *$/);
    assert.equal(await c1.sh("ip -4 route show default"), "");
    const [, bridge] = /^weave:expose \S+ (\S+)\/12/.exec(await host.weave("ps"))!;
    assert.equal(await c2.sh("ip -4 route show default"), `default via ${bridge} dev eth0`);
    assert.equal(three.ip4.gateway, bridge);
    assert.ok(![ip0, ip1, ip2].includes(bridge));
    for (const [from, to] of [[c0, ip1], [c1, ip2], [c2, ip0], [c2, bridge]] as const) assert.ok(await from.pings(to!));
    await host.sh("ip address add 192.0.2.1/32 dev lo && echo 1 > /proc/sys/net/ipv4/ip_forward");
    assert.ok(await c2.pings("192.0.2.1"), "what is beyond the host");

    const hairpin = (name: string) => host.sh(`cat /sys/class/net/vethwepl${name}/brport/hairpin_mode`);
    assert.equal(await hairpin(idOf(c0).slice(0, 7)), "1");
    assert.equal(await hairpin(idOf(c1).slice(0, 7)), "0");
    const lines = (await host.weave("ps")).split("\n");
    assert.equal(lines.length, 4);
    assert.ok(lines.some((line) => line.startsWith(`${idOf(c2).slice(0, 12)} `) && line.endsWith(` ${ip2}/12`)));

    // Nobody else gets the address of a container that is gone before its end is told.
    await c2.remove();
    await host.weave("stop");
    await host.weave("launch");
    const c3 = await host.container("c3");
    const ip3 = (await add(host, c3, {})).ip4.ip;
    assert.notEqual(ip3, `${ip2}/12`);
    assert.ok(await c0.pings(ip3.replace("/12", "")));
    assert.equal((await del(host, c2, {})).code, 0);
    assert.equal((await del(host, c2, {})).code, 0, "once more is no error");
    const c4 = await host.container("c4");
    assert.equal((await add(host, c4, {})).ip4.ip, `${ip2}/12`);

    // A router that lost its files learns from what there is.
    await host.weave("stop");
    await host.sh("rm -f /var/lib/weave/weave-ipam.json");
    await host.weave("launch");
    const c5 = await host.container("c5");
    const ip5 = (await add(host, c5, {})).ip4.ip;
    assert.ok(![ip0, ip1, ip2, bridge].map((ip) => `${ip}/12`).concat(ip3).includes(ip5), ip5);
    for (const container of [c0, c1, c3, c4, c5]) assert.equal((await del(host, container, {})).code, 0);
    assert.deepEqual(await held(host), [`${bridge}/12`]);
    assert.equal(await c0.sh("ip -br link show eth0 2>/dev/null | wc -l"), "0");
  },
);

testUnless(needsRoot, "many containers are connected by CNI at once, and the last one leaves nothing", async () => {
  await using lab = new Lab();
  const host = await cniHost(lab);
  await host.weave("launch");
  const containers = await Promise.all(Array.from({ length: 12 }, (_, i) => host.container(`c${i}`)));
  const results = await Promise.all(containers.map((container) => add(host, container, { cniVersion: "1.0.0" })));
  const addresses = results.map(({ ips: [ip] }) => ip.address.replace("/12", ""));
  assert.equal(new Set(addresses).size, containers.length);
  assert.equal(new Set(results.map(({ ips: [ip] }) => ip.gateway)).size, 1);
  for (const address of addresses) assert.ok(await containers[0]!.pings(address));
  assert.equal((await held(host)).length, containers.length + 1);
  const ends = await Promise.all(containers.map((container) => del(host, container, { cniVersion: "1.0.0" })));
  assert.deepEqual(ends.map(({ code, stdout }) => [code, stdout]), containers.map(() => [0, ""]));
  assert.equal((await held(host)).length, 1);
  assert.equal(await host.sh("ip -br link | grep -c vethwepl || true"), "0");
  assert.deepEqual(JSON.parse(await host.sh("cat /run/weave/attachments.json")).data, []);
});

testUnless(needsRoot, "the CNI plugin speaks every version, checks what it made, and says what is wrong", async () => {
  await using lab = new Lab();
  const host = await cniHost(lab);
  const container = await host.container("c0");
  // Elsewhere, and with another configuration.
  const elsewhere = { WEAVE_CNI_PLUGIN_DIR: "/opt/other", HAIRPIN_MODE: "false" };
  await host.sh(`rm ${NET_D}/10-weave.conflist`);
  await host.exec([...host.weaveCommand(), "setup-cni"], { env: elsewhere });
  assert.match(await host.sh("ls /opt/other"), /^weave-ipam\nweave-net\nweave-plugin-\S+$/);
  assert.match(await host.sh(`cat ${NET_D}/10-weave.conflist`), /"hairpinMode": false/);

  const absent = await invoke(host, container, "ADD", { cniVersion: "1.0.0" });
  assert.equal(absent.code, 1);
  assert.match(JSON.parse(absent.stdout).msg, /bridge "weave" not present; did you launch weave\?/);
  await host.weave("launch");
  const versions = JSON.parse((await invoke(host, container, "VERSION", {})).stdout);
  assert.deepEqual(versions.supportedVersions, VERSIONS);
  for (const cniVersion of VERSIONS) {
    const result = await add(host, container, { cniVersion });
    assert.equal(result.cniVersion, cniVersion);
    const address = result.ip4?.ip ?? result.ips[0].address;
    assert.ok((await container.sh("ip -4 -o address show eth0")).includes(` ${address} `));
    if (result.ips !== undefined) {
      const [inHost, inside] = result.interfaces;
      assert.equal(result.ips[0].interface, 1);
      assert.deepEqual([inside.name, inside.sandbox], ["eth0", `/run/netns/${container.name}`]);
      assert.ok((await host.sh(`ip -br link show ${inHost.name}`)).includes(inHost.mac));
      assert.ok((await container.sh("ip -br link show eth0")).includes(inside.mac));
    }
    if (["0.4.0", "1.0.0"].includes(cniVersion)) {
      const check = () => invoke(host, container, "CHECK", { cniVersion, prevResult: result });
      assert.deepEqual([(await check()).code, (await check()).stdout], [0, ""]);
      await container.sh(`ip address del ${address} dev eth0`);
      assert.match(JSON.parse((await check()).stdout).msg, /address .* is missing on "eth0"/);
    }
    assert.equal((await del(host, container, { cniVersion })).code, 0);
    assert.equal((await container.attempt(["ip", "link", "show", "eth0"])).code, 1);
  }

  // Two interfaces of one container have an address each.
  await add(host, container, {});
  const net1 = await add(host, container, { ipam: { subnet: "10.40.0.0/16" } }, { CNI_IFNAME: "net1" });
  assert.equal(net1.ip4.ip, "10.40.0.1/16");
  assert.equal((await del(host, container, {}, { CNI_IFNAME: "net1" })).code, 0);
  assert.ok((await container.sh("ip -br link")).includes("eth0"));

  const self = { CNI_NETNS: "/proc/self/ns/net" };
  const cases: [config: object, env: Record<string, string>, code: number, says: RegExp][] = [
    [{}, {}, 100, /the container has one of that name/],
    [{}, { CNI_CONTAINERID: "other", ...self }, 100, /host network namespace/],
    [{}, { CNI_CONTAINERID: "other", CNI_NETNS: "/run/netns/nobody" }, 3, /no network namespace/],
    [{}, { CNI_CONTAINERID: "other", CNI_NETNS: "/etc/passwd" }, 3, /no network namespace/],
    [{}, { CNI_IFNAME: "" }, 4, /CNI_IFNAME/],
    [{ cniVersion: "9.9.9" }, {}, 1, /incompatible CNI versions/],
    [{ isGateway: true }, {}, 2, /Gateway functionality not supported/],
    [{ bridge: "nobridge" }, {}, 100, /bridge "nobridge" not present/],
    [{ mtu: 9000 }, { CNI_CONTAINERID: "other", CNI_IFNAME: "net2" }, 7, /mtu 9000 is more/],
    [{ ipam: { type: "no-such" } }, { CNI_CONTAINERID: "other", CNI_IFNAME: "net2" }, 7, /no IPAM plugin "no-such"/],
    [{ ipam: { subnet: "192.0.2.0/24" } }, { CNI_CONTAINERID: "other", CNI_IFNAME: "net2" }, 100, /out of bounds/],
  ];
  const before = await held(host);
  for (const [config, env, code, says] of cases) {
    const result = await invoke(host, container, "ADD", config, env);
    assert.equal(result.code, 1, JSON.stringify(config));
    const error = JSON.parse(result.stdout);
    assert.match(error.msg, says);
    assert.equal(error.code, code, error.msg);
  }
  assert.deepEqual(await held(host), before, "what failed holds nothing");
  const bad = await host.attempt([
    "sh",
    "-c",
    `echo '{' | CNI_COMMAND=ADD CNI_CONTAINERID=c CNI_NETNS=/x CNI_IFNAME=e ${BIN}/weave-net`,
  ]);
  assert.equal(JSON.parse(bad.stdout).code, 6);
  assert.match((await host.attempt([`${BIN}/weave-ipam`])).stderr, /container runtimes run it/);

  // Nobody answers for addresses: it is worth trying again.
  await host.weave("stop");
  const later = await invoke(host, container, "DEL", {});
  assert.equal(JSON.parse(later.stdout).code, 11);
});

testUnless(noTool, "cnitool connects namespaces by the configuration that weave setup writes", async () => {
  await using lab = new Lab();
  const host = await cniHost(lab, plugins);
  await host.weave("launch");
  const [c0, c1] = [await host.container("c0"), await host.container("c1")];
  const run = async (command: string, { name }: Container, capability = "") => {
    const env = { CNI_PATH: BIN, NETCONFPATH: NET_D, CAP_ARGS: capability };
    const { path } = tool as { path: string };
    return (await host.exec([path, command, "weave", `/run/netns/${name}`], { env })).stdout;
  };
  const configs = plugins === undefined
    ? []
    : ['{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}'];
  if (plugins === undefined) await host.sh(`sed -i '/portmap/,/}/d; s/},$/}/' ${NET_D}/10-weave.conflist`);
  await run("add", c0, configs[0]);
  const result = JSON.parse(await run("add", c1));
  assert.equal(result.cniVersion, "0.3.0");
  const address = (container: Container) =>
    container.sh("ip -4 -o address show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'");
  assert.ok(await c0.pings(await address(c1)));
  if (configs.length > 0) {
    await using _server = c0.spawn(["sh", "-c", "while :; do echo hello | nc -l -N 80; done"]);
    const elsewhere = await host.container("elsewhere");
    await host.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
    await host.sh(
      "ip link add out type veth peer name eth0 netns elsewhere && ip address add 192.0.2.1/24 dev out && ip link set out up",
    );
    await elsewhere.sh("ip address add 192.0.2.2/24 dev eth0 && ip link set eth0 up");
    await waitFor(
      "the published port",
      async () => {
        return (await elsewhere.attempt(["nc", "-w", "1", "192.0.2.1", "8080"])).stdout === "hello\n";
      },
      5_000,
      [host],
    );
  }
  await run("del", c0, configs[0]);
  await run("del", c1);
  assert.equal((await held(host)).length, 1, "the host's own");
  assert.doesNotMatch(await host.sh("iptables-save -t nat"), /8080/);

  // Of 1.0.0, as it is without portmap.
  await host.sh(
    `echo '{"cniVersion":"1.0.0","name":"weave","plugins":[{"type":"weave-net"}]}' > ${NET_D}/10-weave.conflist`,
  );
  await run("add", c0);
  await run("check", c0);
  await c0.sh("ip route del default");
  await assert.rejects(run("check", c0), /the route to 0\.0\.0\.0\/0 is missing/);
  await run("del", c0);
});

testUnless(noPlugins, "addresses may be another plugin's, and ours for another plugin's interfaces", async () => {
  await using lab = new Lab();
  const host = await cniHost(lab, plugins);
  await host.weave("launch");
  const [c0, c1, c2] = [await host.container("c0"), await host.container("c1"), await host.container("c2")];
  const ipam = { type: "host-local", ranges: [[{ subnet: "10.50.0.0/24" }]], dataDir: "/run/host-local" };
  const local = { cniVersion: "0.4.0", ipam };
  const one = await add(host, c0, local);
  assert.deepEqual([one.ips[0].address, one.ips[0].gateway], ["10.50.0.2/24", "10.50.0.1"]);
  assert.equal(await c0.sh("ip -4 route show default"), "default via 10.50.0.1 dev eth0");
  await add(host, c1, local);
  assert.ok(await c0.pings("10.50.0.3"));
  assert.equal((await invoke(host, c0, "CHECK", { ...local, prevResult: one })).code, 0);
  assert.deepEqual(await held(host), [], "the router gave none of them");
  assert.equal((await del(host, c0, local)).code, 0);
  assert.equal(await host.sh("ls /run/host-local/weave | grep -c '^10\\.'"), "1");
  const wrong = await invoke(host, c2, "ADD", { ipam: { type: "host-local" } });
  assert.match(JSON.parse(wrong.stdout).msg, /IPAM plugin "host-local": /);
  assert.equal((await c2.attempt(["ip", "link", "show", "eth0"])).code, 1);

  const bridged = { cniVersion: "0.4.0", type: "bridge", bridge: "other0", ipam: { type: "weave-ipam" } };
  const two = JSON.parse((await invoke(host, c2, "ADD", bridged, {}, "bridge")).stdout);
  assert.deepEqual(await held(host), [two.ips[0].address]);
  assert.equal((await invoke(host, c2, "DEL", bridged, {}, "bridge")).code, 0);
  assert.deepEqual(await held(host), []);
});

testUnless(needsRoot, "containers of Docker with no network of their own are connected by CNI", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await cniHost(lab);
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  const ids = await Promise.all(
    ["c0", "c1"].map((name) => engine.docker("run", "-d", "--net=none", "--name", name, IMAGE, "sleep", "1000")),
  );
  for (const id of ids) {
    const pid = await engine.docker("inspect", "-f", "{{.State.Pid}}", id);
    const env = { CNI_CONTAINERID: id, CNI_NETNS: `/proc/${pid}/ns/net` };
    assert.equal((await invoke(host, undefined, "ADD", {}, env)).code, 0);
  }
  const shown = await engine.docker("exec", "c1", "ip", "-4", "-o", "address", "show", "eth0");
  assert.ok(await engine.succeeds("c0", "ping", "-c", "1", "-W", "2", /inet ([\d.]+)/.exec(shown)![1]!));
  assert.deepEqual(
    (await host.weave("ps")).split("\n").slice(1).map((line) => line.slice(0, 12)).sort(),
    ids.map((id) => id.slice(0, 12)).sort(),
  );
  const addresses = await held(host);
  assert.equal(addresses.length, 3);
  // Docker's word on their end is not the runtime's.
  await engine.docker("rm", "-f", "c0", "c1");
  assert.deepEqual(await held(host), addresses);
  for (const id of ids) {
    assert.equal((await invoke(host, undefined, "DEL", {}, { CNI_CONTAINERID: id, CNI_NETNS: "" })).code, 0);
  }
  assert.equal((await held(host)).length, 1);
});

// deno-lint-ignore no-explicit-any
type Result = any;

/** A host on which `weave setup` was run, beside these plugins. */
async function cniHost(lab: Lab, others?: string): Promise<EmulatedHost> {
  const host = await lab.host(`host${lab.hosts.length}`);
  // Shared with the machine otherwise.
  await host.sh(`mount -t tmpfs tmpfs /opt && mkdir -p ${BIN} ${NET_D}`);
  if (others !== undefined) await host.sh(`cp ${join(others, "*")} ${BIN}`);
  await host.weave("setup");
  return host;
}

function idOf({ name }: Container): string {
  return `${name}-0123456789abcdef`;
}

/** Runs a plugin as a runtime does. */
function invoke(
  host: EmulatedHost,
  container: Container | undefined,
  command: string,
  config: object,
  env: Record<string, string> = {},
  plugin = "weave-net",
): Promise<CommandResult> {
  const variables = {
    CNI_COMMAND: command,
    CNI_IFNAME: "eth0",
    CNI_PATH: BIN,
    ...container === undefined ? {} : { CNI_CONTAINERID: idOf(container), CNI_NETNS: `/run/netns/${container.name}` },
    ...env,
  };
  const input = JSON.stringify({ name: "weave", type: plugin, ...config });
  return host.attempt([`${BIN}/${plugin}`], { env: variables, input });
}

async function add(
  host: EmulatedHost,
  container: Container,
  config: object,
  env: Record<string, string> = {},
): Promise<Result> {
  const { code, stdout, stderr } = await invoke(host, container, "ADD", config, env);
  assert.equal(code, 0, stdout + stderr);
  return JSON.parse(stdout);
}

function del(
  host: EmulatedHost,
  container: Container,
  config: object,
  env: Record<string, string> = {},
): Promise<CommandResult> {
  return invoke(host, container, "DEL", config, env);
}

/** All addresses that are held on a host, as the API says. */
async function held(host: EmulatedHost): Promise<string[]> {
  const { owned } = JSON.parse(await host.sh("curl -sf http://127.0.0.1:6784/ip"));
  return (owned ?? []).flatMap(({ addrs }: { addrs: string[] }) => addrs);
}
