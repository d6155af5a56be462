import assert from "node:assert/strict";
import { inOwnNamespace } from "../test/own_namespace.ts";
import { attempt, SysError } from "./errno.ts";
import { DescriptorTrace } from "./fd.ts";
import { virtio_net_hdr_v1 } from "./layout.ts";
import { libc } from "./libc.ts";
import { openTap, openTemporaryTap, type Tap } from "./tap.ts";

inOwnNamespace(import.meta.url, () => {
  Deno.test("openTap() makes an interface that stays, with its offloads, and adopts it the next time", () => {
    using trace = new DescriptorTrace();
    {
      using tap = openTap("ho0");
      assert.match(shell("ip -d link show ho0"), /tun type tap pi off vnet_hdr on persist on/);
      const features = shell("ethtool -k ho0");
      for (const name of ["tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-tcp6-segmentation"]) {
        assert.match(features, new RegExp(`${name}: on`));
      }
      assert.match(features, new RegExp(`tx-udp-segmentation: ${tap.udpSegments ? "on" : "off"}`));
      assert.throws(() => openTap("ho0"), (error) => {
        assert.ok(error instanceof SysError);
        assert.deepEqual([error.call, error.errnoName, error.context.name], ["ioctl TUNSETIFF", "EBUSY", "ho0"]);
        return true;
      });
    }
    const index = shell("ip -o link show ho0").split(":")[0];
    openTap("ho0")[Symbol.dispose]();
    assert.equal(shell("ip -o link show ho0").split(":")[0], index);
    assert.deepEqual(trace.left(), []);
    shell("ip link del ho0");
  });

  Deno.test("openTap() adopts an interface that another program made otherwise", () => {
    shell("ip tuntap add ho0 mode tap; ip link set ho0 up");
    using tap = openTap("ho0");
    assert.match(shell("ip -d link show ho0"), /vnet_hdr on/);
    assert.equal(tap.name, "ho0");
    tap.fd.close();
    shell("ip link del ho0");
  });

  Deno.test("frames come and go with a virtio header in front", () => {
    using tap = openTemporaryTap("ho0");
    shell("echo 1 > /proc/sys/net/ipv6/conf/ho0/disable_ipv6; ip address add 10.9.0.1/24 dev ho0; ip link set ho0 up");
    assert.equal(read(tap), undefined);
    // Who has 10.9.0.1? Tell 10.9.0.2.
    const ask = "ffffffffffff 020000000002 0806 0001080006040001 020000000002 0a090002 000000000000 0a090001";
    const octets = new Uint8Array(virtio_net_hdr_v1.octets + 42);
    octets.set(Uint8Array.fromHex(ask.replaceAll(" ", "")), virtio_net_hdr_v1.octets);
    assert.equal(attempt(() => libc.write(tap.fd.raw, octets, BigInt(octets.length))), octets.length);
    const answer = read(tap)!;
    assert.equal(answer.subarray(12, 18).toHex(), "020000000002");
    assert.equal(answer.subarray(24, 34).toHex(), "08060001080006040002");
  });

  Deno.test("openTemporaryTap() leaves nothing", () => {
    openTemporaryTap("ho0")[Symbol.dispose]();
    assert.throws(() => shell("ip link show ho0"));
  });

  Deno.test("openTap() refuses a name that cannot be one, and one that is taken", () => {
    using trace = new DescriptorTrace();
    assert.throws(() => openTap(""), RangeError);
    assert.throws(() => openTap("a".repeat(16)), RangeError);
    shell("ip link add ho0 type bridge");
    assert.throws(() => openTap("ho0"), (error) => error instanceof SysError && error.call === "ioctl TUNSETIFF");
    assert.deepEqual(trace.left(), []);
  });
});

/** A frame with its header, or undefined. */
function read(tap: Tap): Uint8Array | undefined {
  const buffer = new Uint8Array(70_000);
  const got = attempt(() => libc.read(tap.fd.raw, buffer, BigInt(buffer.length)));
  return got < 0 ? undefined : buffer.slice(0, got);
}

function shell(script: string): string {
  const { success, stdout, stderr } = new Deno.Command("sh", { args: ["-ec", script] }).outputSync();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}
