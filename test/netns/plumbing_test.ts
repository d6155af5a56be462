/** attach, detach, ps, expose, hide and reset against the real kernel, in namespaces of their own. */
import assert from "node:assert/strict";
import { inOwnNamespace } from "../own_namespace.ts";
import { formatCidr, formatIpv4, type Ipv4, parseCidr } from "../../src/lib/ip.ts";
import type { Mac, PeerName } from "../../src/lib/mac.ts";
import { OperationError } from "../../src/lib/errors.ts";
import { ensureBridge } from "../../src/host/bridge.ts";
import { run } from "../../src/host/command.ts";
import { Links } from "../../src/host/links.ts";
import { netnsId, statNetns } from "../../src/host/netns.ts";
import { type AddressBook, type AddressToken, EXPOSE_ID, parseAddressToken } from "../../src/daemon/address_book.ts";
import { attach, detach } from "../../src/daemon/attach.ts";
import { expose, hide } from "../../src/daemon/expose.ts";
import { firewallOptions, startHost } from "../../src/daemon/host_start.ts";
import { Plumbing, takeGoneAttachments } from "../../src/daemon/plumbing.ts";
import { formatPsEntry, ps } from "../../src/daemon/ps.ts";
import { reset } from "../../src/daemon/reset.ts";

inOwnNamespace(import.meta.url, () => {
  Deno.test("attach() gives two containers an interface, and they reach each other", async () => {
    await using host = await Host.start();
    await host.attach("a", "10.0.0.1/24");
    await host.attach("b", "10.0.0.2/24");
    await host.mustPing("a", "10.0.0.2");
    const ethwe = await host.ip("a", "-d -o link show ethwe");
    assert.match(ethwe, /mtu 1376 .*state UP .*veth/);
    assert.match(await host.ip("a", "route"), /224\.0\.0\.0\/4 dev ethwe scope link/);
    assert.match(await shell("bridge -d link show | grep -A2 vethwepl"), /hairpin on/);
    assert.match(
      await host.in(
        "a",
        "cat /proc/sys/net/ipv4/neigh/ethwe/{base_reachable_time,ucast_solicit,delay_first_probe_time}",
      ),
      /^5\n1\n2\n?$/,
    );
    assert.equal(await host.in("a", "cat /proc/sys/net/ipv6/conf/ethwe/accept_ra"), "0\n");
    assert.deepEqual((await host.in("a", "iptables -S INPUT")).trim().split("\n"), [
      "-P INPUT ACCEPT",
      "-A INPUT -s 10.0.0.0/24 -d 224.0.0.0/4 -i ethwe -j ACCEPT",
      "-A INPUT -d 224.0.0.0/4 -i ethwe -j DROP",
    ]);
  });

  Deno.test("attach() twice is the same as once", async () => {
    await using host = await Host.start();
    const first = await host.attach("a", "10.0.0.1/24");
    const before = await host.picture("a");
    assert.deepEqual(await host.attach("a", "10.0.0.1/24"), first);
    assert.equal(await host.picture("a"), before);
    await host.attach("a", "10.0.0.9/24", "10.1.0.1/24", "10.1.0.1/16");
    assert.match(await host.ip("a", "-o address show ethwe"), /10\.0\.0\.1\/24[^]*10\.1\.0\.1\/24[^]*10\.0\.0\.9\/24/);
    assert.equal((await host.in("a", "iptables -S INPUT")).match(/ACCEPT$/gm)!.length, 4); // the policy and three subnets
  });

  Deno.test("attach() and detach() move a container to another subnet while it runs", async () => {
    await using host = await Host.start();
    await host.attach("a", "10.0.0.1/24");
    await host.attach("b", "10.0.0.2/24");
    await host.attach("c", "10.10.0.3/24");
    assert.equal(await host.pings("a", "10.10.0.3"), false);
    await host.attach("a", "10.10.0.1/24");
    await host.detach("a", "10.0.0.1/24");
    await host.mustPing("a", "10.10.0.3");
    assert.equal(await host.pings("a", "10.0.0.2"), false);
    assert.doesNotMatch(await host.in("a", "iptables -S INPUT"), /10\.0\.0\.0/);
    await host.detach("a", "10.10.0.1/24");
    assert.doesNotMatch(await host.ip("a", "link"), /ethwe/);
    assert.equal(await host.in("a", "iptables -S INPUT"), "-P INPUT ACCEPT\n");
    // Nothing there any more: no error.
    assert.deepEqual((await host.detach("a", "10.10.0.1/24")).addresses.map(formatCidr), ["10.10.0.1/24"]);
    assert.deepEqual(await host.detach("a"), { id: host.id("a"), addresses: [] });
  });

  Deno.test("attach() refuses a given address that somebody has, and says who", async () => {
    await using host = await Host.start();
    await host.attach("a", "10.0.0.1/24");
    const mac = (await host.ip("a", "-br link show ethwe")).match(/(..:){5}../)![0];
    const before = await host.picture("b");
    await assert.rejects(host.attach("b", "10.0.0.5/24", "10.0.0.1/24"), {
      message: `Cannot use address 10.0.0.1/24: ${mac} has it already`,
    });
    assert.equal(await host.picture("b"), before);
    assert.deepEqual(host.book.held, new Map([[host.id("a"), ["10.0.0.1/24"]]]));
    await host.expose("10.0.0.100/24");
    await assert.rejects(host.attach("b", "10.0.0.100/24"), { message: /00:00:00:00:00:01 has it already$/ });
    await assert.rejects(host.expose("10.0.0.1/24"), {
      message: `Cannot use address 10.0.0.1/24: ${mac} has it already`,
    });
  });

  Deno.test("attach() does not take the host's own addresses elsewhere for the overlay's", async () => {
    await using host = await Host.start();
    await shell(
      "ip link add out type veth peer name in; ip address add 10.0.0.7/24 dev out; ip link set out up; ip link set in up",
    );
    try {
      await host.attach("a", "10.0.0.7/24");
      assert.deepEqual(host.warnings, ["Address 10.0.0.7 overlaps with existing route 10.0.0.0/24 on host"]);
    } finally {
      await shell("ip link del out");
    }
  });

  Deno.test("attach() allocates where it can, and says so where it cannot", async () => {
    await using host = await Host.start();
    await assert.rejects(host.attach("a"), {
      message: "IP address allocation must be enabled to use 'net:'",
      exitStatus: 1,
    });
    await assert.rejects(host.attach("a", "net:10.2.0.0/16"), { message: /must be enabled/ });
    host.book.universe = "10.32.0.0/12";
    const { addresses } = await host.attach("a", "net:default", "net:10.40.0.0/16", "10.0.0.1/24");
    assert.deepEqual(addresses.map(formatCidr), ["10.32.0.1/12", "10.40.0.1/16", "10.0.0.1/24"]);
    assert.deepEqual((await host.attach("a")).addresses.map(formatCidr), ["10.32.0.1/12"]);
    assert.deepEqual((await host.detach("a")).addresses.map(formatCidr), ["10.32.0.1/12"]);
    assert.deepEqual(host.book.held.get(host.id("a")), ["10.40.0.1/16", "10.0.0.1/24"]);
  });

  Deno.test("attach() works without a router for given addresses", async () => {
    await using host = await Host.start();
    host.book.absent = true;
    await host.attach("a", "10.0.0.1/24");
    await assert.rejects(host.attach("a", "net:default"), { exitStatus: 7 });
    await assert.rejects(host.expose("10.0.0.2/24"), { exitStatus: 7 });
    await host.detach("a", "10.0.0.1/24");
  });

  Deno.test("attach() undoes everything when a step fails", async () => {
    await using host = await Host.start();
    const before = await host.picture("a");
    const links = await shell("ip -o link | wc -l");
    // The kernel refuses an address whose prefix length it does not know; the first address was added by then.
    await shell(`ip netns exec a ip link add ethwe2 type veth peer name x`);
    await assert.rejects(host.attach("a", "10.0.0.1/24", "224.0.0.1/24"), { message: /it is no unicast address$/ });
    await Deno.writeTextFile(`${host.paths.runDir}/attachments.json`, '{"version":"9.0"}');
    await assert.rejects(host.attach("a", "10.0.0.1/24"), OperationError);
    await Deno.remove(`${host.paths.runDir}/attachments.json`);
    await shell(`ip netns exec a ip link del ethwe2`);
    assert.equal(await host.picture("a"), before);
    assert.equal(await shell("ip -o link | wc -l"), links);
    assert.deepEqual(host.book.held, new Map());
  });

  Deno.test("attach() takes pid:N, and says what it cannot take", async () => {
    await using host = await Host.start();
    const child = new Deno.Command("ip", { args: ["netns", "exec", "a", "sleep", "60"] }).spawn();
    try {
      while (statNetns(`/proc/${child.pid}/ns/net`)?.inode !== statNetns("/run/netns/a")!.inode) await delay(5);
      await host.attach(`pid:${child.pid}`, "10.0.0.1/24");
      assert.match(await shell("ip -o link"), new RegExp(`vethwepl${child.pid}@`));
      assert.equal((await host.attach("a", "10.0.0.1/24")).id, host.id("a"));
    } finally {
      child.kill();
      await child.status;
    }
    await assert.rejects(host.attach(`pid:${child.pid}`, "10.0.0.1/24"), {
      message: `container pid:${child.pid} not running`,
    });
    await assert.rejects(host.attach(`pid:${Deno.pid}`, "10.0.0.1/24"), {
      message: "Container is running in the host network namespace, and therefore cannot be\n" +
        "connected to weave. Perhaps the container was started with --net=host.",
    });
    await assert.rejects(host.attach("netns:/etc/passwd", "10.0.0.1/24"), { message: /no network namespace there$/ });
    await assert.rejects(host.attach("netns:/nowhere", "10.0.0.1/24"), { message: /no network namespace there$/ });
    await shell("ip link del weave");
    await assert.rejects(host.attach("a", "10.0.0.1/24"), {
      message: 'bridge "weave" not present; did you launch weave?',
    });
    host.book.absent = true;
    await assert.rejects(host.expose("10.0.0.1/24"), {
      message: "weave is not present. Have you launched it?",
      exitStatus: 7,
    });
    await assert.rejects(ps({ containers: [], host: host.paths }), { message: "Link not found" });
  });

  Deno.test("attach() undoes everything, and says so, when the container dies meanwhile", async () => {
    await using host = await Host.start();
    const links = await shell("ip -o link | wc -l");
    const child = new Deno.Command("unshare", { args: ["--net", "sleep", "60"] }).spawn();
    const inode = () => statNetns(`/proc/${child.pid}/ns/net`)!.inode;
    while (inode() === statNetns(`/proc/${Deno.pid}/ns/net`)!.inode) await delay(5);
    const id = `netns-${statNetns(`/proc/${child.pid}/ns/net`)!.device}-${inode()}`;
    // It is asked for half a second whether anybody has the address.
    const killed = delay(200).then(() => child.kill("SIGKILL")).then(() => child.status);
    await assert.rejects(host.attach(`pid:${child.pid}`, "10.0.0.1/24"), { message: `Container ${id} died` });
    await killed;
    assert.equal(await shell("ip -o link | wc -l"), links);
    assert.deepEqual(await new Plumbing(host.paths).attachments(), []);
    assert.deepEqual(host.book.held, new Map());
  });

  Deno.test("attach() plugs a container in again whose bridge was made anew", async () => {
    await using host = await Host.start();
    await host.attach("a", "10.0.0.1/24");
    await shell("ip link del weave");
    host.ensureBridge();
    await host.attach("b", "10.0.0.2/24");
    assert.equal(await host.pings("a", "10.0.0.2"), false);
    await host.attach("a", "10.0.0.1/24");
    await host.mustPing("a", "10.0.0.2");
  });

  Deno.test("names go to the address book, from --hostname, and are taken back by detach()", async () => {
    await using host = await Host.start();
    const options = { container: "netns:/run/netns/a", book: host.book, host: host.paths };
    await attach({ ...options, addresses: tokens("10.0.0.1/24"), hostname: "a.weave.local" });
    await attach({ ...options, addresses: tokens("10.0.0.2/24"), withoutDns: true });
    assert.deepEqual(host.book.names, [`${host.id("a")} 10.0.0.1 a.weave.local`]);
    await host.detach("a", "10.0.0.1/24");
    assert.deepEqual(host.book.names, []);
  });

  Deno.test("takeGoneAttachments() finds what went away, once", async () => {
    await using host = await Host.start();
    await host.attach("a", "10.0.0.1/24");
    await host.attach("b", "10.0.0.2/24");
    const plumbing = new Plumbing(host.paths);
    assert.deepEqual(await takeGoneAttachments(plumbing), []);
    // Of a container runtime, which will say so.
    const [attachment] = await plumbing.attachments();
    const told = { ...attachment!, id: "cni", link: { name: "gone", index: 9999 }, untilTold: true } as const;
    await plumbing.setAttachment("cni", told);
    assert.deepEqual(await takeGoneAttachments(plumbing), []);
    assert.deepEqual((await plumbing.attachments()).at(-1), told);
    await plumbing.setAttachment("cni", undefined);
    const id = host.id("a");
    await shell("ip netns del a");
    let gone = await takeGoneAttachments(plumbing);
    for (let i = 0; i < 100 && gone.length === 0; i++) {
      await delay(20);
      gone = await takeGoneAttachments(plumbing);
    }
    assert.deepEqual(gone.map((a) => [a.id, a.addresses.map(formatCidr)]), [[id, ["10.0.0.1/24"]]]);
    assert.deepEqual(await takeGoneAttachments(plumbing), []);
    assert.equal((await plumbing.attachments()).length, 1);
    await shell("ip netns add a");
  });

  Deno.test("ps() lists the host, then containers, in the format of Weave", async () => {
    await using host = await Host.start();
    await host.attach("a", "10.0.0.1/24", "10.1.0.1/16");
    await host.attach("b", "10.0.0.2/24");
    await host.expose("10.0.0.100/24");
    const lines = async (...containers: string[]) => (await ps({ containers, host: host.paths })).map(formatPsEntry);
    const mac = async (name: string) => (await host.ip(name, "-br link show ethwe")).match(/(..:){5}../)![0];
    assert.deepEqual(await lines(), [
      "weave:expose 00:00:00:00:00:01 10.0.0.100/24",
      `${host.id("a")} ${await mac("a")} 10.0.0.1/24 10.1.0.1/16`,
      `${host.id("b")} ${await mac("b")} 10.0.0.2/24`,
    ]);
    assert.deepEqual(
      await lines("weave:expose", "netns:/run/netns/b", "netns:/run/netns/c", "netns:/nowhere", host.id("a")),
      [
        "weave:expose 00:00:00:00:00:01 10.0.0.100/24",
        `netns:/run/netns/b ${await mac("b")} 10.0.0.2/24`,
        `${host.id("a")} ${await mac("a")} 10.0.0.1/24 10.1.0.1/16`,
      ],
    );
  });

  Deno.test("expose() and hide() let the host in and out, and keep exposed subnets apart", async () => {
    await using host = await Host.start();
    await host.attach("a", "10.0.0.1/24");
    await host.attach("b", "10.1.0.1/24");
    assert.equal(await host.pings(undefined, "10.0.0.1"), false);
    assert.deepEqual(await host.expose("10.0.0.100/24"), ["10.0.0.100/24"]);
    assert.deepEqual(await host.expose("10.0.0.100/24"), ["10.0.0.100/24"]);
    await host.mustPing(undefined, "10.0.0.1");
    assert.equal(await host.pings(undefined, "10.1.0.1"), false);
    await host.expose("10.1.0.100/24");
    await host.mustPing(undefined, "10.1.0.1");
    // Not even a container that uses the host as its router gets across.
    await shell("sysctl -qw net.ipv4.ip_forward=1");
    await host.ip("a", "route add default via 10.0.0.100");
    await host.ip("b", "route add default via 10.1.0.100");
    for (const bridgeNetfilter of [0, 1]) {
      await shell(`sysctl -qw net.bridge.bridge-nf-call-iptables=${bridgeNetfilter}`);
      assert.equal(await host.pings("a", "10.1.0.1"), false);
      await host.mustPing("a", "10.0.0.100");
    }
    assert.deepEqual(await host.hide("10.0.0.100/24"), ["10.0.0.100/24"]);
    assert.equal(await host.pings(undefined, "10.0.0.1"), false);
    await host.mustPing(undefined, "10.1.0.1");
    assert.deepEqual(await host.hide("10.0.0.100/24"), ["10.0.0.100/24"]);
    await host.hide("10.1.0.100/24");
    assert.doesNotMatch(await shell("iptables-save"), /10\.[01]|weave-isolate/);
    assert.deepEqual(host.book.held.get(EXPOSE_ID) ?? [], []);
  });

  Deno.test("expose() lets the outside in and containers out, masqueraded unless told otherwise, whatever the policy", async () => {
    await using host = await Host.start();
    await shell(`sysctl -qw net.ipv4.ip_forward=1
      iptables -P FORWARD DROP
      ip link add out type veth peer name eth0 netns c
      ip address add 192.0.2.1/24 dev out; ip link set out up
      ip netns exec c ip address add 192.0.2.2/24 dev eth0; ip netns exec c ip link set eth0 up
      ip netns exec c ip route add 10.0.0.0/24 via 192.0.2.1`);
    await host.attach("a", "10.0.0.1/24");
    await host.attach("b", "10.0.0.2/24");
    await host.ip("a", "route add default via 10.0.0.100");
    for (const bridgeNetfilter of [0, 1]) {
      await shell(`sysctl -qw net.bridge.bridge-nf-call-iptables=${bridgeNetfilter}`);
      await host.mustPing("a", "10.0.0.2");
      assert.equal(await host.pings("c", "10.0.0.1"), false);
      await host.expose("10.0.0.100/24");
      await host.mustPing("c", "10.0.0.1");
      await host.mustPing("c", "10.0.0.2"); // has no route back: sees the host's address
      await host.mustPing("a", "192.0.2.2");
      await host.expose("10.0.0.100/24", { withoutMasquerade: true });
      await host.mustPing("c", "10.0.0.1");
      assert.equal(await host.pings("c", "10.0.0.2"), false);
      // The router's start and its checks keep it so.
      using links = new Links();
      assert.equal(await new Plumbing(host.paths).refreshFirewall(links), false);
      await host.hide("10.0.0.100/24");
      assert.equal(await host.pings("c", "10.0.0.1"), false);
    }
    await shell("iptables -P FORWARD ACCEPT");
  });

  Deno.test("expose() keeps the subnet's rules for a second address when the first is hidden", async () => {
    await using host = await Host.start();
    await host.attach("a", "10.0.0.1/24");
    await host.expose("10.0.0.100/24", "10.0.0.101/24");
    const rules = await shell("iptables-save -t nat | grep 10.0.0");
    await host.hide("10.0.0.100/24");
    assert.equal(await shell("iptables-save -t nat | grep 10.0.0"), rules);
    await host.mustPing(undefined, "10.0.0.1");
    // No address named and nobody who allocates: all of them.
    assert.deepEqual(await host.hide(), ["10.0.0.101/24"]);
  });

  Deno.test("startHost() adopts what is there, and puts exposures back onto a bridge that had to be made anew", async () => {
    await using host = await Host.start();
    const plumbing = new Plumbing(host.paths);
    const start = () =>
      startHost({
        plumbing,
        name: 0x020000000001 as PeerName,
        mtu: 1376,
        port: 6783,
        controlPort: 6784,
        dockerBridge: "docker0",
        openTap(name) {
          const there = new Deno.Command("ip", { args: ["link", "show", name], stdout: "null", stderr: "null" })
            .outputSync();
          if (there.success) return "adopted";
          return new Deno.Command("ip", { args: ["tuntap", "add", name, "mode", "tap"] }).outputSync().success
            ? "made"
            : "failed";
        },
      });
    assert.deepEqual((await start()).tap, "made");
    await host.attach("a", "10.0.0.1/24");
    await host.expose("10.0.0.100/24");
    await host.expose("10.2.0.100/24", { withoutMasquerade: true });
    const before = await machine();
    const { tap, adopted, firewall } = await start();
    assert.deepEqual([tap, adopted], ["adopted", true]);
    assert.equal(await machine(), before);
    using links = new Links();
    assert.equal(await plumbing.firewallIntact(links, firewall), true);
    await shell("iptables -F; iptables -t nat -F; iptables -t mangle -X WEAVE-CANARY");
    assert.equal(await plumbing.firewallIntact(links, firewall), false);
    await plumbing.locked(() => plumbing.refreshFirewall(links, firewall));
    assert.equal(await machine(), before);

    await shell("ip link del weave");
    assert.equal((await start()).adopted, false);
    assert.match(await shell("ip address show weave"), /10\.0\.0\.100\/24[^]*10\.2\.0\.100\/24/);
    assert.equal((await shell("iptables -t nat -S WEAVE")).match(/MASQUERADE/g)!.length, 2);
    await host.attach("a", "10.0.0.1/24");
    await host.mustPing(undefined, "10.0.0.1");
  });

  Deno.test("reset() leaves nothing of ours behind", async () => {
    const before = await machine();
    {
      await using host = await Host.start();
      await Deno.writeTextFile(`${host.directory}/state/weave-peers`, "x");
      await Deno.writeTextFile(`${host.directory}/log`, "x");
      await host.attach("a", "10.0.0.1/24");
      await host.expose("10.0.0.100/24", "10.1.0.100/24");
      await reset({ statePrefix: `${host.directory}/state/weave`, files: [`${host.directory}/log`], host: host.paths });
      assert.deepEqual([...Deno.readDirSync(host.directory)], []);
      assert.equal(await host.in("a", "iptables -S INPUT"), "-P INPUT ACCEPT\n");
      assert.doesNotMatch(await host.ip("a", "link"), /ethwe/);
      await reset({ statePrefix: `${host.directory}/state/weave`, files: [], host: host.paths });
    }
    assert.equal(await machine(), before);
  });

  Deno.test("50 cycles of attach() and detach() leave no link, rule, descriptor or process behind", async () => {
    await using host = await Host.start();
    await host.attach("b", "10.0.0.2/24");
    const count = () => [...Deno.readDirSync("/proc/self/fd")].length;
    host.book.universe = "10.32.0.0/12"; // allocated addresses need no probing, which would take its time
    await host.attach("a");
    await host.detach("a");
    const before = [await machine(), await host.picture("a"), count()];
    for (let i = 0; i < 50; i++) {
      await host.attach("a");
      await host.detach("a");
    }
    assert.deepEqual([await machine(), await host.picture("a"), count()], before);
  });
});

/** What attach, detach, expose and hide see of a router. */
class FakeBook implements AddressBook {
  /** Owner → addresses, as text. */
  readonly held = new Map<string, string[]>();
  names: string[] = [];
  /** Where set, allocation works. */
  universe: string | undefined;
  absent = false;

  allocate(id: string, subnet: ReturnType<typeof parseCidr>) {
    if (this.absent) return Promise.resolve("absent" as const);
    if (this.universe === undefined) return Promise.resolve("disabled" as const);
    const net = subnet ?? parseCidr(this.universe)!;
    const cidr = { address: net.address + 1, prefixLength: net.prefixLength };
    return this.#hold(id, formatCidr(cidr)).then(() => cidr);
  }

  claim(id: string, cidr: NonNullable<ReturnType<typeof parseCidr>>) {
    if (this.absent) return Promise.resolve("absent" as const);
    return this.#hold(id, formatCidr(cidr)).then(() => "claimed" as const);
  }

  lookup(id: string, subnet: ReturnType<typeof parseCidr>) {
    if (this.absent) return Promise.resolve("absent" as const);
    if (this.universe === undefined && subnet === undefined) return Promise.resolve("disabled" as const);
    const wanted = subnet ?? parseCidr(this.universe!)!;
    const all = (this.held.get(id) ?? []).map((text) => parseCidr(text)!);
    return Promise.resolve(all.filter((cidr) => cidr.prefixLength === wanted.prefixLength));
  }

  free(id: string, address: Ipv4) {
    if (this.absent) return Promise.resolve("absent" as const);
    const left = (this.held.get(id) ?? []).filter((text) => parseCidr(text)!.address !== address);
    if (left.length === 0) this.held.delete(id);
    else this.held.set(id, left);
    return Promise.resolve("freed" as const);
  }

  registerName(id: string, address: Ipv4, fqdn: string) {
    this.names.push(`${id} ${formatIpv4(address)} ${fqdn}`);
    return Promise.resolve("done" as const);
  }

  removeName(id: string, address: Ipv4, fqdn: string | undefined) {
    this.names = this.names.filter((name) => !name.startsWith(`${id} ${formatIpv4(address)} ${fqdn ?? ""}`));
    return Promise.resolve("done" as const);
  }

  #hold(id: string, text: string): Promise<void> {
    const held = this.held.get(id) ?? [];
    if (!held.includes(text)) this.held.set(id, [...held, text]);
    return Promise.resolve();
  }
}

/** A host with a bridge and three container namespaces, a, b and c. */
class Host implements AsyncDisposable {
  readonly book = new FakeBook();
  readonly warnings: string[] = [];
  readonly paths;

  private constructor(readonly directory: string) {
    this.paths = { bridge: "weave", runDir: `${directory}/run` };
  }

  static async start(): Promise<Host> {
    const host = new Host(await Deno.makeTempDir());
    await Deno.mkdir(`${host.directory}/state`);
    await Deno.mkdir(`${host.directory}/run`);
    for (const name of CONTAINERS) await shell(`ip netns add ${name}; ip -n ${name} link set lo up`);
    host.ensureBridge();
    const plumbing = new Plumbing(host.paths);
    using links = new Links();
    const options = firewallOptions(links, {
      plumbing,
      name: 1 as PeerName,
      mtu: 1376,
      port: 6783,
      dockerBridge: "docker0",
    });
    await plumbing.refreshFirewall(links, options);
    return host;
  }

  ensureBridge(): void {
    using links = new Links();
    ensureBridge(links, { name: "weave", mac: 1 as Mac, mtu: 1376 });
  }

  id(name: string): string {
    return netnsId(statNetns(`/run/netns/${name}`)!);
  }

  attach(name: string, ...addresses: string[]) {
    return attach({ ...this.#options(name), addresses: tokens(...addresses) });
  }

  detach(name: string, ...addresses: string[]) {
    return detach({ ...this.#options(name), addresses: tokens(...addresses) });
  }

  async expose(...addresses: (string | { withoutMasquerade: boolean })[]): Promise<string[]> {
    const texts = addresses.filter((a) => typeof a === "string");
    const flags = addresses.find((a) => typeof a !== "string") ?? {};
    return (await expose({ ...flags, book: this.book, host: this.paths, addresses: tokens(...texts) })).map(formatCidr);
  }

  async hide(...addresses: string[]): Promise<string[]> {
    return (await hide({ book: this.book, host: this.paths, addresses: tokens(...addresses) })).map(formatCidr);
  }

  /** Runs a line of shell in a container's network namespace. */
  in(name: string, script: string): Promise<string> {
    return shell(`ip netns exec ${name} bash -ec '${script}'`);
  }

  ip(name: string, args: string): Promise<string> {
    return shell(`ip -n ${name} ${args}`);
  }

  async mustPing(from: string | undefined, to: string): Promise<void> {
    assert.equal(await this.pings(from, to, 2), true, `${from ?? "host"} must reach ${to}`);
  }

  async pings(from: string | undefined, to: string, waitS = 0.4): Promise<boolean> {
    const enter = from === undefined ? "" : `ip netns exec ${from} `;
    return await shell(`${enter}ping -c 1 -W ${waitS} ${to} >/dev/null 2>&1 && echo yes || echo no`) === "yes\n";
  }

  /** All that can be seen of us in a container. */
  async picture(name: string): Promise<string> {
    const links = await this.ip(name, "-o link | sed 's/^[0-9]*: //; s/@if[0-9]*//; s/ether.*//'");
    return links + await this.ip(name, "-o -4 address | sed 's/^[0-9]*: //'") + await this.ip(name, "route") +
      await this.in(name, "iptables -S INPUT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await reset({ statePrefix: `${this.directory}/state/weave`, files: [], host: this.paths });
    await shell(`ip link del out 2>/dev/null || true`);
    for (const name of CONTAINERS) await shell(`ip netns del ${name}`);
    await Deno.remove(this.directory, { recursive: true });
  }

  #options(name: string) {
    const container = name.includes(":") ? name : `netns:/run/netns/${name}`;
    return {
      container,
      book: this.book,
      host: this.paths,
      progress: { warn: (line: string) => void this.warnings.push(line) },
    };
  }
}

const CONTAINERS = ["a", "b", "c"];

/** Links, rules and processes of the whole test host; the namespaces of containers are made afresh by each test. */
async function machine(): Promise<string> {
  return await shell("ip -o link | sed 's/^[0-9]*: //' | grep -v NONE || true") +
    await shell("iptables-save | grep -v '^[#:]' || true") +
    await shell("ls /proc/sys/net/ipv4/conf") + await shell(`pgrep -P ${Deno.pid} -c || true`);
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function tokens(...texts: string[]): AddressToken[] {
  return texts.map((text) => parseAddressToken(text)!);
}

async function shell(script: string): Promise<string> {
  const { code, stdout, stderr } = await run("/bin/bash", ["-ec", script]);
  assert.equal(code, 0, `${script}: ${stderr}`);
  return stdout;
}
