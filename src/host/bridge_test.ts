import assert from "node:assert/strict";
import { inOwnNamespace } from "../../test/own_namespace.ts";
import type { Mac } from "../lib/mac.ts";
import { type Fields, SILENT } from "../lib/log.ts";
import { BridgeWatch, ensureBridge, ensureTapPort, findBridge, fixBridgeMac, overlayMtu, TAP_PORT } from "./bridge.ts";
import { run } from "./command.ts";
import { Links, readSysctl } from "./links.ts";

Deno.test("overlayMtu() follows Weave", () => {
  assert.equal(overlayMtu({ noFastdp: false }), 1376);
  assert.equal(overlayMtu({ noFastdp: true }), 65535);
  assert.equal(overlayMtu({ mtu: 8916, noFastdp: false }), 8916);
  assert.equal(overlayMtu({ mtu: 1400, noFastdp: true }), 1400);
});

inOwnNamespace(import.meta.url, () => {
  for (const mtu of [1376, 1500, 65535]) {
    Deno.test(`ensureBridge() keeps an MTU of ${mtu} whatever its ports have`, async () => {
      using links = new Links();
      const { created } = ensureBridge(links, { name: "weave", mac: 1 as Mac, mtu });
      assert.equal(created, true);
      await shell(`ip tuntap add ${TAP_PORT} mode tap`);
      const tap = ensureTapPort(links, { bridge: "weave", name: TAP_PORT, mtu });
      assert.equal(tap.mtu, Math.min(mtu, 65521));
      assert.equal(readSysctl(`net/ipv6/conf/${TAP_PORT}/disable_ipv6`), 1);
      await shell("ip link add ho0 mtu 900 master weave type veth peer name ho1");
      assert.equal(findBridge(links, "weave").mtu, mtu);
      await shell(`ip link del ho0; ip link del weave; ip link del ${TAP_PORT}`);
    });
  }

  Deno.test("ensureBridge() adopts a bridge, corrects it and leaves its ports alone", async () => {
    using links = new Links();
    await shell("ip link add weave type bridge stp_state 1; ip link add ho0 master weave type veth peer name ho1");
    const options = { name: "weave", mac: 0x7a0000000001 as Mac, mtu: 1400 };
    const { link, created } = ensureBridge(links, options);
    assert.equal(created, false);
    assert.deepEqual([link.mac, link.mtu, link.up, link.bridge], [options.mac, 1400, true, {
      stp: false,
      multicastSnooping: false,
    }]);
    assert.equal(links.find("ho0")!.master, link.index);
    assert.equal(readSysctl("net/ipv4/conf/weave/arp_ignore"), 1);
    assert.deepEqual(ensureBridge(links, options), { link, created: false });
    await shell("ip link set weave down");
    assert.equal(ensureBridge(links, options).link.up, true);
    await shell("ip link del ho0; ip link del weave");
  });

  Deno.test("ensureBridge() takes over Weave's plain bridge and refuses what it cannot use", async () => {
    using links = new Links();
    const options = { name: "weave", mac: 1 as Mac, mtu: 1400 };
    await shell(`ip link add weave type bridge; ip link add ${TAP_PORT} master weave type veth peer name vethwe-pcap`);
    ensureBridge(links, options);
    assert.equal(links.find(TAP_PORT), undefined);
    await shell(`ip link add ${TAP_PORT} type veth peer name vethwe-datapath`);
    assert.throws(() => ensureBridge(links, options), {
      message:
        `Existing bridge type "bridged_fastdp" is different than requested "bridge". Please do 'weave reset' and try again`,
    });
    await shell(`ip link del ${TAP_PORT}; ip link del weave; ip link add weave type veth peer name ho1`);
    assert.throws(() => ensureBridge(links, options), {
      message: 'Cannot use interface "weave" as bridge: it is of kind "veth"',
    });
    assert.throws(() => findBridge(links, "weave"), { message: 'bridge "weave" not present; did you launch weave?' });
    await shell("ip link del weave");
  });

  Deno.test("fixBridgeMac() gives a MAC once, and never changes one that somebody chose", async () => {
    await shell("mount -t sysfs sysfs /sys");
    try {
      using links = new Links();
      await shell(
        "ip link add ho0 type bridge; ip link add ho1 type bridge; ip link set ho1 address 02:00:00:00:00:09",
      );
      assert.equal(fixBridgeMac(links, "ho0", () => 0x020000000007 as Mac), true);
      assert.equal(links.find("ho0")!.mac, 0x020000000007);
      assert.equal(fixBridgeMac(links, "ho0", () => 8 as Mac), false);
      assert.equal(fixBridgeMac(links, "ho1", () => 8 as Mac), false);
      assert.equal(fixBridgeMac(links, "ho2", () => 8 as Mac), false);
      await shell("ip link del ho0; ip link del ho1");
    } finally {
      await shell("umount /sys");
    }
  });

  Deno.test("BridgeWatch tells of hairpin mode at start and on change, and of the bridge going down", async () => {
    using links = new Links();
    ensureBridge(links, { name: "weave", mac: 1 as Mac, mtu: 1400 });
    await shell(
      `ip link add ${TAP_PORT} master weave type veth peer name ho1; bridge link set dev ${TAP_PORT} hairpin on`,
    );
    const lines: string[] = [];
    const record = (level: string) => (event: string, fields?: Fields) =>
      void lines.push(`${level} ${event} ${fields?.interface ?? ""}`.trim());
    using watch = new BridgeWatch(links, "weave", { ...SILENT, warn: record("warn"), error: record("error") });
    const hairpin = `warn Hairpin mode enabled on "${TAP_PORT}"`;
    assert.deepEqual(lines, [hairpin]);
    await shell(`bridge link set dev ${TAP_PORT} hairpin off; ip link set ${TAP_PORT} up`);
    watch.handleReadable();
    assert.deepEqual(lines, [hairpin]);
    await shell(`bridge link set dev ${TAP_PORT} hairpin on`);
    watch.handleReadable();
    watch.handleReadable();
    assert.deepEqual(lines, [hairpin, hairpin]);
    await shell("ip link set weave down");
    watch.handleReadable();
    await shell("ip link set weave up");
    watch.handleReadable();
    await shell(`ip link del ${TAP_PORT}; ip link del weave`);
    watch.handleReadable();
    assert.deepEqual(lines.slice(2), ["error bridge went down weave", "error bridge went down weave"]);
  });
});

async function shell(script: string): Promise<void> {
  const { code, stderr } = await run("/bin/bash", ["-ec", script]);
  assert.equal(code, 0, stderr);
}
