/** What a service opens is the service and nothing else: who reaches what is compared whole, before and after. */

import assert from "node:assert/strict";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { attachNew, waitEstablished } from "./mesh.ts";
import { ask, type Machine, type Reach, scan, serveName, service, waitAnswer, waitKnown } from "./services.ts";
import { testAsRoot } from "../skip.ts";

/** `client → 192.168.1.2:80`: what came of it. Pings are to port `ping`. */
type Reachability = Readonly<Record<string, Reach>>;

testAsRoot("exporting a service changes the reachability of nothing but that service", async (t) => {
  for (const forwarding of [false, true]) {
    await t.step(forwarding ? "on hosts that forward anyway" : "on hosts that forwarded nothing", async () => {
      await using lab = new Lab();
      const [exporter, importer] = [await lab.host("exporter"), await lab.host("importer")];
      const [client, stranger] = [await lab.host("client"), await lab.host("stranger")];
      const [backend, neighbour] = [await lab.host("backend"), await lab.host("neighbour")];
      await lab.link(exporter, importer);
      await lab.switch([exporter, client], ["192.168.51.1", "192.168.51.10"]);
      await lab.switch([exporter, stranger], ["192.168.52.1", "192.168.52.10"]);
      await lab.switch([importer, backend, neighbour], ["192.168.53.1", "192.168.53.10", "192.168.53.11"]);
      // Everybody tries to use the gateways as routers.
      for (const machine of [client, stranger]) {
        await machine.sh(`ip route add default via ${exporter.address(machine)}`);
      }
      for (const machine of [backend, neighbour]) {
        await machine.sh(`ip route add default via ${importer.address(machine)}`);
      }
      await exporter.sh(`ip route add 192.168.53.0/24 via ${importer.address(exporter)}`);
      await importer.sh(`ip route add 192.168.48.0/21 via ${exporter.address(importer)}`);
      if (forwarding) {
        for (const host of [exporter, importer]) await host.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
      }
      await importer.weave("launch", "--network", "plant=eth1");
      await exporter.weave("launch", "--network", "red=eth1", importer.address(exporter));
      await waitEstablished(importer, [exporter]);
      const near = await attachNew(exporter, "near", "10.32.0.10/12");
      const far = await attachNew(importer, "far", "10.32.0.11/12");
      for (const machine of [near, far]) await machine.sh("ip route add default via 10.32.0.99 dev ethwe");
      const machines: readonly Machine[] = [client, stranger, backend, neighbour, near, far, exporter, importer];
      for (const machine of [client, stranger, backend, neighbour, near, far]) {
        await serveName(machine, 80);
        await serveName(machine, 81);
      }
      for (const host of [exporter, importer]) await serveName(host, 8081);

      const endpoints = endpointsOf([exporter, importer, client, stranger, backend, neighbour], [
        "10.32.0.10",
        "10.32.0.11",
      ]);
      const before = await reachabilityOf(machines, endpoints);
      assert.equal(before["near → 10.32.0.11:80"], "open");
      assert.equal(before["client → 192.168.53.10:80"], forwarding ? "open" : "filtered");

      const virtual = await service(importer, "import", "web", "--network", "plant", "--to", "192.168.53.10:80");
      await waitKnown(exporter, "web");
      await service(exporter, "export", "web", "--network", "red", "--listen", "192.168.51.1:8080");
      await waitAnswer(client, "192.168.51.1", 8080, "backend", { witnesses: [exporter, importer] });
      await waitAnswer(near, virtual, 80, "backend");

      const after = await reachabilityOf(machines, endpoints);
      const changed = Object.keys(before).filter((key) => before[key] !== after[key]);
      console.log(`${Object.keys(before).length} ways looked at, changed: ${changed.join("; ")}`);
      // Not the importer: the network is `red`, which is not where it comes from. The exporting host itself counts as a client of all.
      const wanted = changed.filter((key) => !/^(client|exporter) → 192\.168\.51\.1:8080$/.test(key));
      assert.deepEqual(wanted.map((key) => `${key}: ${before[key]}, now ${after[key]}`), []);
      assert.ok(changed.includes("client → 192.168.51.1:8080"));

      // At the virtual address there is the service's port, and no other.
      const ports = ["80", "81", "22", "8080", "6783", "6784"].map((port) => `${virtual}:${port}`);
      const atVirtual = await scan(far, ports);
      assert.deepEqual(Object.values(atVirtual), ["open", ...Array(5).fill("refused")], JSON.stringify(atVirtual));

      await service(exporter, "rm", "web");
      await service(importer, "rm", "web");
      assert.deepEqual(await reachabilityOf(machines, endpoints), before, "all is as it was");
    });
  }
});

testAsRoot("--allow is enforced on the client's real address", async () => {
  await using lab = new Lab();
  const [gateway, good, bad, backend] = [
    await lab.host("gateway"),
    await lab.host("good"),
    await lab.host("bad"),
    await lab.host("backend"),
  ];
  await lab.switch([gateway, good, bad], ["192.168.51.1", "192.168.51.10", "192.168.51.200"]);
  await lab.switch([gateway, backend], ["192.168.53.1", "192.168.53.10"]);
  await gateway.weave("launch");
  await serveName(backend, 80);
  await serveName(backend, 53, "udp");
  await service(gateway, "import", "web", "--to", "192.168.53.10:80", "--to", "192.168.53.10:53/udp");
  for (const listen of ["8080", "8053/udp"]) {
    const [port] = listen.split("/");
    const name = port === "8080" ? "web:80" : "web:53";
    await service(gateway, "export", name, "--listen", listen, "--allow", "192.168.51.0/25,192.168.99.0/24");
  }
  await waitAnswer(good, "192.168.51.1", 8080, "backend", { witnesses: [gateway] });
  await waitAnswer(good, "192.168.51.1", 8053, "backend", { transport: "udp" });
  assert.equal(await ask(bad, "192.168.51.1", 8080), "");
  assert.equal(await ask(bad, "192.168.51.1", 8053, "udp"), "");
  await bad.sh("ip address add 192.168.51.11/24 dev eth0");
  assert.equal(await ask(bad, "192.168.51.1", 8080, "tcp", ["-s", "192.168.51.11"]), "backend");
  await bad.sh("ip address add 10.9.9.9/32 dev lo");
  assert.equal(await ask(bad, "192.168.51.1", 8080, "tcp", ["-s", "10.9.9.9"]), "");
});

testAsRoot(
  "a backend on the gateway's own loopback answers where it is allowed, and 127/8 from outside stays out",
  async () => {
    await using lab = new Lab();
    const [gateway, far, machine] = [await lab.host("gateway"), await lab.host("far"), await lab.host("machine")];
    await lab.link(gateway, far);
    await lab.switch([gateway, machine], ["192.168.51.1", "192.168.51.10"]);
    await far.weave("launch");
    await gateway.weave("launch", far.address(gateway));
    await waitEstablished(gateway, [far]);
    const container = await attachNew(far, "c1");
    gateway.spawn(["socat", "TCP4-LISTEN:5432,bind=127.0.0.1,fork,reuseaddr", "SYSTEM:echo gateway"]);
    // With route_localnet alone a neighbour speaks to what listens on loopback: he sends what is for 127.0.0.1 to the gateway.
    await machine.sh(`
      sysctl -qw net.ipv4.conf.all.route_localnet=1
      ip route add 127.0.0.1/32 via 192.168.51.1 table 9
      ip rule add pref 1 lookup local
      ip rule del pref 0 lookup local
      ip rule add pref 0 to 127.0.0.1 lookup 9`);
    const intrudes = async () => (await ask(machine, "127.0.0.1", 5432, "tcp", ["-s", "192.168.51.10"])) === "gateway";
    await gateway.sh("sysctl -qw net.ipv4.conf.eth1.route_localnet=1");
    assert.ok(await intrudes(), "the intrusion itself works");
    await gateway.sh("sysctl -qw net.ipv4.conf.eth1.route_localnet=0");
    assert.ok(!await intrudes());

    const refused = await gateway.attemptWeave("service", "import", "db", "--to", "127.0.0.1:5432");
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /--allow-local/);
    const address = await service(gateway, "import", "db", "--to", "127.0.0.1:5432", "--allow-local");
    await waitAnswer(container, address, 5432, "gateway", { witnesses: [gateway, far] });
    await service(gateway, "export", "db", "--listen", "5433");
    await waitAnswer(gateway, "127.0.0.1", 5433, "gateway");
    await waitAnswer(machine, "192.168.51.1", 5433, "gateway");
    assert.ok(!await intrudes());
  },
);

/** Every address of these, with ports of services that are there, that could be, and none. */
function endpointsOf(hosts: readonly EmulatedHost[], more: readonly string[]): string[] {
  const addresses = [...hosts.flatMap(({ ports }) => ports.map(({ address }) => address)), ...more];
  return addresses.flatMap((address) =>
    ["80", "81", "8080", "8081", "6784", "ping"].map((port) => `${address}:${port}`)
  );
}

async function reachabilityOf(machines: readonly Machine[], endpoints: readonly string[]): Promise<Reachability> {
  const pings = endpoints.filter((endpoint) => endpoint.endsWith(":ping"));
  const others = endpoints.filter((endpoint) => !endpoint.endsWith(":ping"));
  const all: Record<string, Reach> = {};
  await Promise.all(machines.map(async (machine) => {
    const found = { ...await scan(machine, others), ...await pingAll(machine, pings) };
    for (const [endpoint, reach] of Object.entries(found)) all[`${machine.name} → ${endpoint}`] = reach;
  }));
  return all;
}

async function pingAll(from: Machine, endpoints: readonly string[]): Promise<Record<string, Reach>> {
  const addresses = endpoints.map((endpoint) => endpoint.split(":")[0]!);
  const script = addresses.map((address) => `(ping -nqc1 -W1 ${address} >/dev/null 2>&1 && echo ${address}) &`).join(
    "\n",
  );
  const answered = (await from.sh(`${script}\nwait`)).split("\n");
  return Object.fromEntries(
    endpoints.map((endpoint, i) => [endpoint, answered.includes(addresses[i]!) ? "open" : "filtered"]),
  );
}
