/** What services need of the kernel, in namespaces of their own: flows ended, backends asked, networks isolated, addresses announced. */
import assert from "node:assert/strict";
import { inOwnNamespace } from "../own_namespace.ts";
import type { Fd } from "../../ffi/fd.ts";
import { ERRNO } from "../../ffi/errno.ts";
import { PacketSocket } from "../../ffi/packet_socket.ts";
import { withNetns } from "../../ffi/netns.ts";
import { localAddress } from "../../ffi/socket.ts";
import { acceptTcp, connectTcp, listenTcp, readTcp, writeTcp } from "../../ffi/tcp.ts";
import { parseIpv4 } from "../../src/lib/ip.ts";
import { ARP_ETHERTYPE, decodeArp } from "../../src/wire/arp.ts";
import { Announcer } from "../../src/host/announce.ts";
import { Links } from "../../src/host/links.ts";
import { Conntrack } from "../../src/host/conntrack.ts";
import { resetFlows } from "../../src/host/service_reset.ts";

inOwnNamespace(import.meta.url, () => {
  Deno.test("resetFlows() resets idle TCP flows on both sides within a second", async () => {
    await using site = await Site.make();
    const flows = Array.from({ length: 50 }, () => site.connect());
    await delay(300);
    using conntrack = new Conntrack();
    assert.deepEqual(await conntrack.countByBackend(), new Map([[7, 50]]));
    await site.revoke();
    const start = performance.now();
    const done = resetFlows({ backends: new Set([7]) });
    await until(() => flows.every((flow) => flow.client.state() !== "open" && flow.server.state() !== "open"));
    const took = performance.now() - start;
    assert.deepEqual(await done, { flows: 50 });
    console.log({ took, all: performance.now() - start });
    assert.ok(took < 1000);
    assert.deepEqual(flows.map((f) => [f.client.state(), f.server.state()]), flows.map(() => ["reset", "reset"]));
    assert.deepEqual(await conntrack.countByBackend(), new Map());
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
});

function listen(name: string): PacketSocket {
  using links = new Links();
  return new PacketSocket({ link: links.find(name)!.index, protocol: ARP_ETHERTYPE });
}

const CLIENT = "/run/netns/client", SERVER = "/run/netns/server";

/** A client in network 3 and a backend in network 4, which has number 7, on the same address; we are between them. */
class Site implements AsyncDisposable {
  #fds: Fd[] = [];

  static async make(): Promise<Site> {
    await shell(`
      ip netns add client; ip netns add server
      ip link add c0 type veth peer name eth0 netns client; ip link add s0 type veth peer name eth0 netns server
      for link in c0 s0; do ip address add 192.168.1.1/24 dev $link noprefixroute; ip link set $link up; done
      for host in client server; do
        ip -n $host link set lo up; ip -n $host address add 192.168.1.10/24 dev eth0; ip -n $host link set eth0 up
        ip netns exec $host nft -f - <<END
          table ip host { chain input { type filter hook input priority 0; ct state invalid drop; }; }
END
      done
      ip route add 192.168.1.0/24 dev c0 table 103; ip route add 192.168.1.0/24 dev s0 table 104
      ip rule add pref 1003 fwmark 0x03000000/0xff000000 lookup 103
      ip rule add pref 1004 fwmark 0x04000000/0xff000000 lookup 104
      for name in all c0 s0; do echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter; done
      echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/fwmark_reflect
    `);
    await nft(`
      table ip test {
        chain to_zones { type filter hook prerouting priority raw;
          iifname c0 ct original zone set 3
          iifname s0 ct original zone set 4
        }
        chain untracked { type filter hook output priority raw; meta mark & 0x00800000 != 0 notrack; }
        chain marks { type filter hook prerouting priority mangle;
          ct state new iifname c0 ip daddr 192.168.1.1 meta l4proto { tcp, udp } th dport 8000 ct mark set 0x04830007
          ct direction original ct mark & 0xff000000 != 0 meta mark set 0x04000000
          ct direction reply ct mark & 0xff000000 != 0 meta mark set 0x03000000
        }
        chain marks_out { type route hook output priority mangle;
          ct direction original ct mark & 0xff000000 != 0 meta mark set 0x04000000
          ct direction reply ct mark & 0xff000000 != 0 meta mark set 0x03000000
        }
        chain to_backend { type nat hook prerouting priority dstnat; ct mark 0x04830007 meta l4proto { tcp, udp } dnat to 192.168.1.10:9000; }
        chain from_us { type nat hook postrouting priority srcnat; ct mark 0x04830007 masquerade fully-random; }
        chain revoked { type filter hook forward priority 0; }
      }`);
    return new Site();
  }

  /** The client calls us, and we are the backend to it. */
  connect(): { client: TestSocket; server: TestSocket } {
    using listener = withNetns(SERVER, () => listenTcp({ address: 0, port: 9000 })).fd;
    const client = withNetns(CLIENT, () => connectTcp({ address: parseIpv4("192.168.1.1")!, port: 8000 }));
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

  async revoke(): Promise<void> {
    await nft("add rule ip test revoked ct mark and 0xffff == 7 meta l4proto tcp reject with tcp reset");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const fd of this.#fds) fd.close();
    await shell(`
      nft delete table ip test; ip rule del pref 1003; ip rule del pref 1004
      ip link del c0; ip link del s0; ip netns del client; ip netns del server
    `);
  }
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

async function nft(rules: string): Promise<void> {
  const child = new Deno.Command("nft", { args: ["-f", "-"], stdin: "piped", stderr: "piped" }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(rules));
  await writer.close();
  const { success, stderr } = await child.output();
  assert.ok(success, new TextDecoder().decode(stderr));
}

async function shell(script: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("bash", { args: ["-ec", script] }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}
