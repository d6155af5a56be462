/** What services need of the kernel, in namespaces of their own: flows ended, backends asked, networks isolated, addresses announced. */
import assert from "node:assert/strict";
import { inOwnNamespace } from "../own_namespace.ts";
import type { Fd } from "../../ffi/fd.ts";
import { ERRNO } from "../../ffi/errno.ts";
import { PacketSocket } from "../../ffi/packet_socket.ts";
import { withNetns } from "../../ffi/netns.ts";
import { localAddress } from "../../ffi/socket.ts";
import { acceptTcp, connectTcp, listenTcp, readTcp, writeTcp } from "../../ffi/tcp.ts";
import { parseCidr, parseIpv4 } from "../../src/lib/ip.ts";
import { ARP_ETHERTYPE, decodeArp } from "../../src/wire/arp.ts";
import { type Flow, IPPROTO, TCP_STATE } from "../../src/wire/conntrack.ts";
import { markedBackend, OURS } from "../../src/host/service_marks.ts";
import { ServiceKernel } from "../../src/host/service_kernel.ts";
import { Announcer } from "../../src/host/announce.ts";
import { Links } from "../../src/host/links.ts";
import { Conntrack } from "../../src/host/conntrack.ts";
import {
  ensureIsolatedNetwork,
  listIsolatedNetworks,
  networkNamespace,
  removeIsolatedNetwork,
} from "../../src/host/network_namespace.ts";
import { type ProbeResult, ServiceProbes } from "../../src/host/service_probe.ts";
import { ControlSockets } from "../../src/host/sockets.ts";
import { resetFlows } from "../../src/host/service_reset.ts";

inOwnNamespace(import.meta.url, () => {
  for (const isolated of [false, true]) {
    Deno.test(`resetFlows() resets idle TCP flows on both sides within a second, ${isolated ? "" : "not "}isolated`, async () => {
      await using site = await Site.make(isolated);
      const flows = Array.from({ length: 50 }, () => site.connect());
      const others = Array.from({ length: 5 }, () => site.connect(8001));
      using conntrack = new Conntrack();
      assert.deepEqual(await countByBackend(conntrack), new Map([[7, 50], [8, 5]]));
      await site.revoke(7);
      const start = performance.now();
      const done = resetFlows({ backends: new Set([7]), namespaces: site.namespaces });
      const ends = flows.flatMap(({ client, server }) => [client, server]);
      await until(() => ends.every((end) => end.state() !== "open"));
      assert.ok(performance.now() - start < 1000);
      assert.deepEqual(await done, { flows: 50 });
      assert.deepEqual(new Set(ends.map((end) => end.state())), new Set(["reset"]));
      // Nothing is left of them, wherever they passed; the others never noticed.
      assert.deepEqual(await countByBackend(conntrack), new Map([[8, 5]]));
      for (const namespace of site.namespaces) {
        using inside = new Conntrack(namespace);
        assert.deepEqual([...(await countByBackend(inside)).values()], [5]);
      }
      for (const { client, server } of others) {
        client.write("still here");
        await until(() => server.read() === "still here");
        assert.deepEqual([client.state(), server.state()], ["open", "open"]);
      }
    });
  }

  for (const isolated of [false, true]) {
    Deno.test(`ServiceProbes ask in the network of the backend, ${isolated ? "" : "not "}isolated`, async () => {
      await using site = await Site.make(isolated);
      const sockets = new ControlSockets();
      try {
        using probes = new ServiceProbes(sockets);
        using _server = withNetns(SERVER, () => listenTcp({ address: 0, port: 9000 })).fd;
        const ask = (network: number, namespace: string | undefined, kind: "tcp" | "udp" = "tcp") => {
          const target = { network, namespace, address: parseIpv4("192.168.1.10")!, port: 9000 };
          const asked = Promise.withResolvers<ProbeResult>();
          probes.probe({ target, check: { kind, payload: "?" }, timeoutMs: 1000 }, asked.resolve);
          return asked.promise;
        };
        const [clients, servers] = site.namespaces;
        const refused = { outcome: "down", reason: "connection refused" };
        assert.deepEqual(await Promise.all([ask(3, clients), ask(4, servers)]), [refused, { outcome: "up" }]);
        assert.deepEqual(await ask(4, servers, "udp"), refused);
        const gone = await ask(5, "/run/netns/weave-gone");
        assert.deepEqual(gone, {
          outcome: "unknown",
          reason: 'open: ENOENT (No such file or directory), path "/run/netns/weave-gone"',
        });
        await shell("ip netns exec server ip link set eth0 down");
        const { outcome } = await ask(4, servers);
        assert.equal(outcome, "down");
      } finally {
        await sockets.stop();
      }
    });
  }

  Deno.test("resetFlows() resets flows from and to programs on this host", async () => {
    await using site = await Site.make(false);
    const flows = [
      ...["127.0.0.1", "192.168.1.1"].map((to) => site.connect(8000, { from: HERE, to })),
      site.connect(8002, { server: HERE }),
      site.connect(8002, { from: HERE, server: HERE, to: "127.0.0.1" }),
    ];
    using conntrack = new Conntrack();
    assert.deepEqual(await countByBackend(conntrack), new Map([[7, 2], [9, 2]]));
    await site.revoke(7, 9);
    const start = performance.now();
    // As many as are not looked for one by one.
    const done = resetFlows({ backends: new Set([7, 9, ...Array.from({ length: 100 }, (_, i) => 100 + i)]) });
    const ends = flows.flatMap(({ client, server }) => [client, server]);
    await until(() => ends.every((end) => end.state() !== "open"));
    assert.ok(performance.now() - start < 1000, `${ends.map((end) => end.state())}`);
    assert.deepEqual(new Set(ends.map((end) => end.state())), new Set(["reset"]));
    assert.deepEqual(await done, { flows: 4 });
    assert.deepEqual(await countByBackend(conntrack), new Map());
  });

  Deno.test("resetFlows() resets flows between containers, through the bridge", async () => {
    await using site = await Site.make(false);
    const containers = { from: "/run/netns/c1", server: "/run/netns/c2", to: "10.32.0.100" };
    const flows = [
      ...Array.from({ length: 5 }, () => site.connect(8003, containers)),
      site.connect(8000, { ...containers, server: SERVER }),
      site.connect(8003, { server: "/run/netns/c2" }),
    ];
    await site.revoke(7, 10);
    const start = performance.now();
    const done = resetFlows({ backends: new Set([7, 10]) });
    const ends = flows.flatMap(({ client, server }) => [client, server]);
    await until(() => ends.every((end) => end.state() !== "open"));
    assert.ok(performance.now() - start < 1000, `${ends.map((end) => end.state())}`);
    assert.deepEqual(new Set(ends.map((end) => end.state())), new Set(["reset"]));
    assert.deepEqual(await done, { flows: 7 });
  });

  Deno.test("Conntrack tells flows as they are, and forgets them one by one", async () => {
    await using site = await Site.make(false);
    site.connect();
    using conntrack = new Conntrack();
    const flows: Flow[] = [];
    for await (const some of conntrack.flows({ mark: 7, mask: 0xffff })) flows.push(...some);
    assert.equal(flows.length, 1);
    const { original, reply, mark, tcpState } = flows[0]!;
    const [client, us] = ["192.168.1.10", "192.168.1.1"].map((text) => parseIpv4(text)!) as [number, number];
    assert.deepEqual([mark & 0xffff, mark >>> 24, tcpState], [7, 4, TCP_STATE.established]);
    const { sourcePort } = original;
    assert.deepEqual(original, {
      protocol: IPPROTO.tcp,
      source: client,
      sourcePort,
      destination: us,
      destinationPort: 8000,
      zone: 3,
    });
    const { destinationPort } = reply;
    assert.deepEqual(reply, {
      protocol: IPPROTO.tcp,
      source: client,
      sourcePort: 9000,
      destination: us,
      destinationPort,
      zone: 0,
    });
    assert.equal(conntrack.delete({ ...flows[0]!, id: flows[0]!.id ^ 1 }), false);
    assert.equal(conntrack.delete(flows[0]!), true);
    assert.equal(conntrack.delete(flows[0]!), false);
    assert.deepEqual(await countByBackend(conntrack), new Map());
    assert.throws(() => conntrack.deleteAll({ mark: 0, mask: 0 }), RangeError);
  });

  Deno.test("Announcer says several times where an address is, on a link of another namespace too", async () => {
    await shell(`
      ip netns add there
      ip link add here0 type veth peer name here1; ip link set here0 up; ip link set here1 up
      ip -n there link add there0 type veth peer name there1; ip -n there link set there0 up; ip -n there link set there1 up
    `);
    const errors: string[] = [];
    using announcer = new Announcer((link, error) => errors.push(`${link}: ${error.message}`));
    using here = listen("here1");
    using there = withNetns("/run/netns/there", () => listen("there1"));
    const [one, two] = ["10.32.0.5", "10.32.0.6"].map((text) => parseIpv4(text)!) as [number, number];
    const far = { address: one, link: "there0", namespace: "/run/netns/there" };
    announcer.announce([{ address: one, link: "here0" }, { address: two, link: "here0" }, far]);
    announcer.announce([{ address: one, link: "missing0" }]);
    await delay(300);
    announcer.withdraw([{ address: two, link: "here0" }]);
    await delay(400);
    const heard = (socket: PacketSocket) => {
      const addresses: number[] = [];
      for (let frame = socket.receive(); frame !== undefined; frame = socket.receive()) {
        const arp = decodeArp(frame)!;
        assert.deepEqual([arp.operation, arp.targetIp], ["request", arp.senderIp]);
        addresses.push(arp.senderIp);
      }
      return addresses;
    };
    assert.deepEqual(heard(here), [one, two, one, two, one]);
    assert.deepEqual(heard(there), [one, one, one]);
    assert.deepEqual(errors, Array(3).fill('missing0: Cannot announce addresses: there is no interface "missing0"'));
    announcer[Symbol.dispose]();
    await shell("ip link del here0; ip netns del there");
  });

  Deno.test("ensureIsolatedNetwork() takes links along with what they have, and gives all of it back", async () => {
    await using legs = await Legs.make();
    const before = await legs.picture();
    const ensured = await ensureIsolatedNetwork(legs.network, legs.stateDir);
    assert.deepEqual(ensured, {
      namespace: "/run/netns/weave-lan",
      link: "weave-net3",
      innerLink: "weave-net3",
      changed: true,
      warnings: [],
    });
    assert.equal(await legs.inside(), before);
    assert.equal(await legs.picture(), "");
    assert.equal(
      await shell("cat /proc/sys/net/ipv4/ip_forward; ip netns exec weave-lan cat /proc/sys/net/ipv4/ip_forward"),
      "1\n0\n",
    );
    // Each side reaches the other's address, and all of the transit leads there.
    await shell("ping -nqc 1 -W 1 240.3.0.2; ip netns exec weave-lan ping -nqc 1 -W 1 240.3.0.1");
    assert.match(await shell("ip route get 240.3.7.9"), /via 240.3.0.2 dev weave-net3/);
    assert.match(await shell("ip -n weave-lan route get 240.3.7.9"), /via 240.3.0.1 dev weave-net3/);
    assert.match(await shell("ip -o link show weave-net3"), /mtu 1400/);
    // The network is reached from inside as it was before.
    await shell("ip netns exec weave-lan ping -nqc 1 -W 1 192.168.7.10");
    assert.deepEqual(listIsolatedNetworks(legs.stateDir), ["lan"]);

    const all = await legs.all();
    assert.deepEqual(await ensureIsolatedNetwork(legs.network, legs.stateDir), { ...ensured, changed: false });
    assert.equal(await legs.all(), all);

    // What is wrong goes on being said.
    await shell("ip -n weave-lan address add 192.168.7.77/24 dev leg0 valid_lft 100 preferred_lft 50");
    for (let i = 0; i < 2; i++) {
      assert.deepEqual((await ensureIsolatedNetwork(legs.network, legs.stateDir)).warnings, [
        'Interface "leg0" has an address by DHCP, which nobody renews in network "lan": give it a fixed one',
      ]);
    }
    await shell("ip -n weave-lan address del 192.168.7.77/24 dev leg0");

    // One leaves, with what it has by now.
    await shell("ip -n weave-lan address add 192.168.7.5/24 dev leg0; ip -n weave-lan link set leg1 down");
    await ensureIsolatedNetwork({ ...legs.network, interfaces: ["leg1"] }, legs.stateDir);
    assert.match(await shell("ip -o address show dev leg0"), /192\.168\.7\.5\/24/);
    assert.match(await shell("ip -n weave-lan -o link show leg1"), /state UP/);
    await shell("ip address del 192.168.7.5/24 dev leg0; ip -n weave-lan route add 10.98.0.0/16 dev leg1 table 77");
    await ensureIsolatedNetwork(legs.network, legs.stateDir);
    assert.equal(await legs.inside(), before);

    assert.deepEqual(await removeIsolatedNetwork("lan", legs.stateDir), []);
    assert.equal(await legs.picture(), before);
    assert.equal(await shell("ip netns; ip -o link | grep weave-net || true"), "");
    assert.deepEqual([...Deno.readDirSync(legs.stateDir)], []);
    assert.deepEqual(listIsolatedNetworks(legs.stateDir), []);
    assert.deepEqual(await removeIsolatedNetwork("lan", legs.stateDir), []);
  });

  Deno.test("ensureIsolatedNetwork() undoes what it did when something fails, and refuses what it must not take", async () => {
    await using legs = await Legs.make();
    const before = await legs.all();
    await shell(
      "ip link add bridge0 type bridge; ip link add port0 master bridge0 type veth peer name port1",
    );
    const fails = async (interfaces: readonly string[], message: RegExp) => {
      const untouched = await legs.all();
      await assert.rejects(ensureIsolatedNetwork({ ...legs.network, interfaces }, legs.stateDir), { message });
      assert.equal(await legs.all(), untouched);
      assert.deepEqual(await shell("ip netns"), "");
    };
    await fails(["leg0", "port0"], /^Cannot put interface "port0" into network "lan": it is a port of "bridge0"$/);
    await fails(["leg0", "lo"], /^Cannot put interface "lo" into network "lan": it is in every network$/);
    await fails(["vethwe-bridge"], /^Cannot put interface "vethwe-bridge" into network "lan": it is weave's own$/);
    await shell("ip route del default dev far-leg1 metric 5; ip route add default dev far-leg0 metric 9");
    await fails(
      ["leg1", "leg0"],
      /^Cannot put interface "leg0" into network "lan": this host's default route leaves by it/,
    );
    await shell("ip route del default dev far-leg0 metric 9; ip route add default dev far-leg0 metric 5");
    // The kernel does not let it go: known only when the first has moved.
    await fails(["leg0", "bridge0"], /^Cannot move interface "bridge0" to another namespace: netlink: EINVAL/);
    await shell(
      "ip link del bridge0; ip link del port0; ip route del default dev far-leg0; ip route add default dev far-leg1 metric 5",
    );
    assert.equal(await legs.all(), before);

    await shell("ip route add 10.97.0.0/16 nexthop dev leg0 nexthop dev far-leg1");
    for (let i = 0; i < 2; i++) {
      assert.deepEqual((await ensureIsolatedNetwork(legs.network, legs.stateDir)).warnings, [
        'Routes by "leg0" and other interfaces at once are not taken along into network "lan"',
      ]);
    }
    await removeIsolatedNetwork("lan", legs.stateDir);
    const missing = await ensureIsolatedNetwork({ ...legs.network, interfaces: ["leg0", "leg7"] }, legs.stateDir);
    assert.deepEqual(missing.warnings, ['Interface "leg7" of network "lan" is not there']);
    // Somebody takes the namespace away, and with it a link that is no hardware.
    await shell("ip netns del weave-lan; while ip link show weave-net3 2> /dev/null; do sleep 0.01; done");
    assert.deepEqual(await removeIsolatedNetwork("lan", legs.stateDir), [
      'Interface "leg0" of network "lan" is not there any more',
    ]);
  });

  Deno.test("an isolated network survives being killed at any instant", async () => {
    await using legs = await Legs.make();
    const before = await legs.picture(), all = await legs.all();
    const script = `
      import { ensureIsolatedNetwork, removeIsolatedNetwork } from ${
      JSON.stringify(import.meta.resolve("../../src/host/network_namespace.ts"))
    };
      for (;;) {
        await ensureIsolatedNetwork(${JSON.stringify(legs.network)}, ${JSON.stringify(legs.stateDir)});
        await removeIsolatedNetwork("lan", ${JSON.stringify(legs.stateDir)});
        console.log("round");
      }`;
    const file = `${legs.stateDir}/../killed.ts`;
    await Deno.writeTextFile(file, script);
    for (let round = 0; round < 12; round++) {
      const args = ["run", "--quiet", "--allow-all", "--no-lock", "--no-check", file];
      const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped" }).spawn();
      // One round is over: from here on any instant is as good as another.
      const reader = child.stdout.getReader();
      await reader.read();
      await delay(Math.random() * 40);
      child.kill("SIGKILL");
      await child.status;
      await reader.cancel();
      if (round % 2 === 0) {
        const { warnings } = await ensureIsolatedNetwork(legs.network, legs.stateDir);
        assert.deepEqual(warnings, []);
        assert.equal(await legs.inside(), before, `round ${round}`);
      }
      assert.deepEqual(await removeIsolatedNetwork("lan", legs.stateDir), []);
      assert.equal(await legs.all(), all, `round ${round}`);
    }
  });
});

/** Two links to a network with a host on it, with addresses and routes of all kinds. */
class Legs implements AsyncDisposable {
  readonly network = { id: 3, name: "lan", interfaces: ["leg0", "leg1"] };
  readonly stateDir: string;

  private constructor(stateDir: string) {
    this.stateDir = stateDir;
  }

  static async make(): Promise<Legs> {
    await shell(`
      echo 1 > /proc/sys/net/ipv4/ip_forward
      for leg in leg0 leg1; do ip link add $leg type veth peer name far-$leg; ip link set far-$leg up; done
      ip address add 192.168.7.1/24 dev leg0; ip address add 192.168.7.2/24 dev leg0
      ip address add 10.7.0.1/16 dev leg0 label leg0:x scope link; ip address add 10.8.0.1/24 dev leg0 noprefixroute
      ip address add fd00:7::1/64 dev leg0
      ip link set leg0 up; ip link set leg1 mtu 1400 up
      ip address add 192.168.7.10/24 dev far-leg0; ip route add default dev far-leg1 metric 5
      ip route add 10.8.0.0/24 dev leg0 proto kernel scope link src 10.8.0.1 metric 100
      ip route add default via 192.168.7.254 dev leg0 metric 7
      ip route add 10.99.0.0/16 via 192.168.8.1 dev leg0 onlink mtu 1300
      ip route add 10.98.0.0/16 dev leg1 table 77
      ip route add fd00:8::/64 via fd00:7::9 dev leg0
    `);
    return new Legs(await Deno.makeTempDir({ dir: "/run" }));
  }

  /** What the links have here. */
  picture(): Promise<string> {
    return this.#picture("");
  }

  inside(): Promise<string> {
    return this.#picture("-n weave-lan");
  }

  #picture(where: string): Promise<string> {
    return shell(`
      for leg in leg0 leg1; do
        ip ${where} -o address show dev $leg 2> /dev/null | grep -v fe80 | sed 's/^[0-9]*://' || true
        ip ${where} route show table all dev $leg 2> /dev/null | grep -v 'table local' | grep -v '^fe80\\|^multicast' | sort || true
        ip ${where} -6 route show dev $leg 2> /dev/null | grep -v '^fe80\\|^multicast' || true
      done`);
  }

  /** Everything of this namespace but what the kernel counts. */
  all(): Promise<string> {
    return shell(
      "ip -o -br link | sort; ip -o -br address | sed 's/ *fe80[^ ]*//' | sort; ip route show table all | grep -v 'fe80\\|multicast' | sort",
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await shell(
      "for leg in leg0 leg1; do ip link del $leg 2> /dev/null || ip link del far-$leg 2> /dev/null || true; done",
    );
    await Deno.remove(this.stateDir, { recursive: true });
  }
}

function listen(name: string): PacketSocket {
  using links = new Links();
  return new PacketSocket({ link: links.find(name)!.index, protocol: ARP_ETHERTYPE });
}

const HERE = "/proc/self/ns/net", CLIENT = "/run/netns/client", SERVER = "/run/netns/server";
const NETWORKS = [{ id: 3, name: "clients", interfaces: ["c0"] }, { id: 4, name: "servers", interfaces: ["s0"] }];

const VIRTUAL = parseIpv4("10.32.0.100")!;
const BACKENDS = [
  { id: 7, port: 8000, network: 4, address: "192.168.1.10" },
  { id: 8, port: 8001, network: 4, address: "192.168.1.10" },
  { id: 9, port: 8002, network: 2, address: "127.0.0.1" },
  { id: 10, port: 8003, network: 1, address: "10.32.0.2" },
];

/**
 * A client and a backend with the same address in two networks of the same range, hosts with a strict firewall, and we have one address in
 * both. Ports 8000 and 8001 lead to backends 7 and 8, which are the same server, 8002 to backend 9
 * on this host, 8003 of a virtual address in the mesh to backend 10, a container.
 */
class Site implements AsyncDisposable {
  readonly namespaces: readonly string[];
  readonly #isolated: boolean;
  readonly #stateDir: string;
  readonly #kernel: ServiceKernel;
  readonly #revoked = new Set<number>();
  #fds: Fd[] = [];

  private constructor(isolated: boolean, stateDir: string, kernel: ServiceKernel) {
    this.#isolated = isolated;
    this.#stateDir = stateDir;
    this.#kernel = kernel;
    this.namespaces = isolated ? NETWORKS.map(({ name }) => networkNamespace(name)) : [];
  }

  static async make(isolated: boolean): Promise<Site> {
    await shell(`
      ip link add weave type bridge; ip link set weave up; echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
      for i in 1 2; do
        ip netns add c$i; ip link add port$i type veth peer name eth0 netns c$i; ip link set port$i master weave up
        ip -n c$i address add 10.32.0.$i/24 dev eth0; ip -n c$i link set eth0 up
      done
      ip netns add client; ip netns add server
      ip link add c0 type veth peer name eth0 netns client; ip link add s0 type veth peer name eth0 netns server
      for link in c0 s0; do ip address add 192.168.1.1/24 dev $link; ip link set $link up; done
      for host in client server; do
        ip -n $host link set lo up; ip -n $host address add 192.168.1.10/24 dev eth0; ip -n $host link set eth0 up
        ip netns exec $host nft 'add table ip host; add chain ip host input { type filter hook input priority 0; };
          add rule ip host input ct state invalid drop'
      done
    `);
    const stateDir = await Deno.makeTempDir({ dir: "/run" });
    if (isolated) { for (const network of NETWORKS) await ensureIsolatedNetwork(network, stateDir); }
    const site = new Site(isolated, stateDir, await ServiceKernel.open({ runDir: stateDir, bridge: "weave" }));
    await site.#apply();
    return site;
  }

  /** A client calls us, and we call the backend. */
  connect(port = 8000, { from = CLIENT, server = SERVER, to = "192.168.1.1" } = {}): {
    client: TestSocket;
    server: TestSocket;
  } {
    using listener = withNetns(server, () => listenTcp({ address: 0, port: 9000 })).fd;
    const client = withNetns(from, () => connectTcp({ address: parseIpv4(to)!, port }));
    this.#fds.push(client);
    for (const end = performance.now() + 2000;;) {
      const server = acceptTcp(listener);
      if (server !== undefined) {
        this.#fds.push(server.fd);
        return { client: new TestSocket(client), server: new TestSocket(server.fd) };
      }
      if (performance.now() > end) throw new Error(`no connection from ${JSON.stringify(localAddress(client))}`);
    }
  }

  async revoke(...backends: number[]): Promise<void> {
    for (const backend of backends) this.#revoked.add(backend);
    await this.#apply();
  }

  async #apply(): Promise<void> {
    await this.#kernel.apply({
      networks: NETWORKS.map((network) => ({ ...network, isolated: this.#isolated })),
      subnets: [{ subnet: parseCidr("10.32.0.0/24")!, address: parseIpv4("10.32.0.254")! }],
      answered: [{ network: 1, address: VIRTUAL }],
      backends: BACKENDS.map(({ id, network, address }) => ({
        id,
        service: `service${id}`,
        network,
        address: parseIpv4(address)!,
        ...(this.#revoked.has(id) ? { revoked: true as const } : {}),
      })),
      listeners: [1, 2, 3].flatMap((network) =>
        BACKENDS.map(({ id, port }) => ({
          service: `service${id}`,
          network,
          address: network === 1 ? VIRTUAL : "own",
          protocol: "tcp",
          firstPort: port,
          lastPort: port,
          allow: undefined,
          targets: this.#revoked.has(id) ? [] : [{ backend: id, firstPort: 9000, weight: 1 }],
        }))
      ),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const fd of this.#fds) fd.close();
    await this.#kernel.reset();
    this.#kernel[Symbol.dispose]();
    if (this.#isolated) { for (const { name } of NETWORKS) await removeIsolatedNetwork(name, this.#stateDir); }
    await shell(
      "ip link del weave; for link in port1 port2 c0 s0; do ip link del $link; done; for host in client server c1 c2; do ip netns del $host; done",
    );
    await Deno.remove(this.#stateDir, { recursive: true });
  }
}

/** Flows of each backend that are established. */
async function countByBackend(conntrack: Conntrack): Promise<Map<number, number>> {
  const counts = new Map<number, number>();
  for await (const flows of conntrack.flows({ mark: OURS, mask: OURS })) {
    for (const { mark, tcpState } of flows) {
      if (tcpState !== TCP_STATE.established) continue;
      counts.set(markedBackend(mark), (counts.get(markedBackend(mark)) ?? 0) + 1);
    }
  }
  return counts;
}

class TestSocket {
  constructor(readonly fd: Fd) {}

  /** Takes an error away: ask again only while it is open. */
  #state: "open" | "reset" | "ended" = "open";

  state(): "open" | "reset" | "ended" {
    if (this.#state !== "open") return this.#state;
    const got = readTcp(this.fd, new Uint8Array(16));
    if (got === -ERRNO.ECONNRESET[0]) this.#state = "reset";
    else if (got === 0) this.#state = "ended";
    else if (got !== -ERRNO.EAGAIN[0]) throw new Error(`unexpected: ${got}`);
    return this.#state;
  }

  read(): string {
    const buffer = new Uint8Array(64);
    const got = readTcp(this.fd, buffer);
    return got > 0 ? new TextDecoder().decode(buffer.subarray(0, got)) : "";
  }

  write(text: string): void {
    writeTcp(this.fd, new TextEncoder().encode(text));
  }
}

async function until(condition: () => boolean, limitMs = 3000): Promise<void> {
  for (const end = performance.now() + limitMs; !condition();) {
    if (performance.now() > end) return;
    await delay(5);
  }
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function shell(script: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("bash", { args: ["-ec", script] }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}
