import assert from "node:assert/strict";
import { inOwnNamespace } from "../../test/own_namespace.ts";
import { formatCidr, parseCidr, parseIpv4 } from "../lib/ip.ts";
import type { Mac } from "../lib/mac.ts";
import { NEIGHBOUR_STATE } from "../wire/rtnetlink.ts";
import { run } from "./command.ts";
import { LinkError, Links, readSysctl, setInterfaceSysctls, setSysctl } from "./links.ts";

inOwnNamespace(import.meta.url, () => {
  Deno.test("Links makes, finds, changes and removes a veth as `ip` sees it", async () => {
    using links = new Links();
    const made = links.create({
      name: "ho0",
      mtu: 1376,
      mac: 0x020000000001 as Mac,
      kind: { type: "veth", peer: { name: "ho1", mtu: 1400 } },
    });
    const peer = links.find("ho1")!;
    assert.equal(made.peer, peer.index);
    assert.equal(peer.peer, made.index);
    assert.deepEqual([made.kind, made.mtu, made.up, peer.mtu], ["veth", 1376, false, 1400]);
    links.change({ index: made.index, up: true, mtu: 1300 }, "change it");
    assert.match(await shell("ip link show ho0"), /mtu 1300 [^]*link\/ether 02:00:00:00:00:01/);
    assert.equal(links.byIndex(made.index)!.up, true);
    assert.throws(() => links.create({ name: "ho0", kind: { type: "veth", peer: { name: "ho2" } } }), (error) => {
      assert.ok(error instanceof LinkError);
      assert.equal(error.errnoName, "EEXIST");
      assert.match(error.message, /^Cannot make interface "ho0": /);
      return true;
    });
    assert.equal(links.delete(made.index), true);
    assert.equal(links.delete(made.index), false);
    assert.equal(links.find("ho1"), undefined);
    assert.equal(links.byIndex(9999), undefined);
  });

  Deno.test("Links.removeAddresses() takes away no more than it was told", () => {
    using links = new Links();
    const { index } = links.create({ name: "ho0", kind: { type: "bridge" } });
    const all = ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24", "10.1.0.1/16"].map((text) => parseCidr(text)!);
    for (const cidr of all) assert.equal(links.addAddress(index, cidr), true);
    assert.equal(links.addAddress(index, all[0]!), false);
    links.removeAddresses(index, [all[0]!, parseCidr("10.9.9.9/24")!]);
    assert.deepEqual(links.addresses(index).map(formatCidr).sort(), ["10.0.0.2/24", "10.0.0.3/24", "10.1.0.1/16"]);
    links.removeAddresses(index, links.addresses(index));
    assert.deepEqual(links.addresses(index), []);
    links.delete(index);
  });

  Deno.test("Links adds routes and neighbours once, and finds them", async () => {
    using links = new Links();
    const { index } = links.create({ name: "ho0", kind: { type: "bridge" } });
    links.change({ index, up: true }, "bring it up");
    const route = { destination: parseCidr("224.0.0.0/4")!, link: index };
    assert.equal(links.addRoute(route), true);
    assert.equal(links.addRoute(route), false);
    assert.match(await shell("ip route"), /^224\.0\.0\.0\/4 dev ho0 scope link/m);
    assert.deepEqual(links.routes().filter((r) => r.link === index), [route]);
    assert.equal(links.removeRoute(route), true);
    assert.equal(links.removeRoute(route), false);
    const neighbour = { link: index, address: parseIpv4("10.0.0.9")!, mac: 5 as Mac, state: NEIGHBOUR_STATE.permanent };
    links.setNeighbour(neighbour);
    links.setNeighbour(neighbour);
    assert.match(await shell("ip neigh show dev ho0"), /10\.0\.0\.9 lladdr 00:00:00:00:00:05 PERMANENT/);
    // The kernel has entries of its own for multicast.
    const ours = links.neighbours("inet").filter((n) => n.link === index && n.address === neighbour.address);
    assert.deepEqual(ours, [neighbour]);
    assert.equal(links.removeNeighbour(neighbour), true);
    links.delete(index);
  });

  Deno.test("Links.setPort() sets what differs, and only on a port", async () => {
    using links = new Links();
    const bridge = links.create({ name: "ho0", kind: { type: "bridge", stp: false, multicastSnooping: false } });
    assert.deepEqual(bridge.bridge, { stp: false, multicastSnooping: false });
    const port = links.create({ name: "ho1", master: bridge.index, kind: { type: "veth", peer: { name: "ho2" } } });
    assert.deepEqual(port.port, { hairpin: false, learning: true, flood: true, isolated: false });
    links.setPort(port, { hairpin: true, isolated: true, learning: false, flood: false });
    assert.deepEqual(links.byIndex(port.index)!.port, { hairpin: true, learning: false, flood: false, isolated: true });
    assert.match(await shell("bridge -d link show dev ho1"), /hairpin on .* learning off flood off/);
    links.delete(port.index);
    links.delete(bridge.index);
  });

  Deno.test("Links lists hundreds of links whole", async () => {
    using links = new Links();
    await shell('for i in $(seq 150); do echo "link add hop$i type veth peer name hoq$i"; done | ip -batch -');
    assert.equal(links.list().filter((link) => /^ho[pq]\d/.test(link.name)).length, 300);
    await shell('for i in $(seq 150); do echo "link del hop$i"; done | ip -batch -');
  });

  Deno.test("setInterfaceSysctls() sets the ARP timers; what is not there is no error", async () => {
    using links = new Links();
    const { index } = links.create({ name: "ho0", kind: { type: "bridge" } });
    setInterfaceSysctls("ho0");
    assert.equal(
      await shell("cat /proc/sys/net/ipv4/neigh/ho0/{base_reachable_time,delay_first_probe_time,ucast_solicit}"),
      "5\n2\n1\n",
    );
    assert.equal(readSysctl("net/ipv6/conf/ho0/accept_ra"), 0);
    assert.equal(setSysctl("net/ipv6/conf/nothere/accept_ra", 0), false);
    assert.equal(readSysctl("net/ipv6/conf/nothere/accept_ra"), undefined);
    links.delete(index);
  });
});

async function shell(script: string): Promise<string> {
  const { code, stdout, stderr } = await run("/bin/bash", ["-ec", script]);
  assert.equal(code, 0, stderr);
  return stdout;
}
