import assert from "node:assert/strict";
import { inOwnNamespace } from "../test/own_namespace.ts";
import { attempt, SysError } from "./errno.ts";
import { DescriptorTrace, type Fd } from "./fd.ts";
import { C } from "./layout.ts";
import { libc } from "./libc.ts";
import { pathMtu } from "./packet_calls.ts";
import { encodeAddress, getOption } from "./socket.ts";
import { openUdpPair, receiveQueueOctets } from "./udp.ts";

const LOOPBACK = 0x7f00_0001;

Deno.test("openUdpPair() opens two sockets on one port that nobody else can have", () => {
  using trace = new DescriptorTrace();
  {
    using pair = openUdpPair({ address: LOOPBACK, port: 0 });
    assert.ok(pair.local.port > 0);
    assert.equal(pair.local.address, LOOPBACK);
    for (const address of [0, LOOPBACK]) {
      assert.throws(() => openUdpPair({ address, port: pair.local.port }), (error) => {
        assert.ok(error instanceof SysError);
        assert.deepEqual([error.call, error.errnoName], ["bind", "EADDRINUSE"]);
        return true;
      });
    }
    using other = openUdpPair({ address: LOOPBACK + 1, port: pair.local.port });
    assert.equal(other.local.port, pair.local.port);
  }
  assert.throws(
    () => openUdpPair({ address: 0xc000_0201, port: 0 }),
    (error) => error instanceof SysError && error.errnoName === "EADDRNOTAVAIL",
  );
  assert.deepEqual(trace.left(), []);
});

Deno.test("the two sockets differ in DF, and share what arrives by flow", () => {
  using pair = openUdpPair({ address: LOOPBACK, port: 0 });
  const discovery = (fd: Fd) => getOption(fd, C.IPPROTO_IP, C.IP_MTU_DISCOVER, "IP_MTU_DISCOVER");
  assert.deepEqual([discovery(pair.df), discovery(pair.plain)], [C.IP_PMTUDISC_DO, C.IP_PMTUDISC_DONT]);
  const counts = [0, 0];
  for (let flow = 0; flow < 64; flow++) {
    using sender = openUdpPair({ address: LOOPBACK, port: 0, queueOctets: 4096 });
    send(sender.df, new Uint8Array(100), pair.local.port);
    for (const [i, fd] of [pair.df, pair.plain].entries()) {
      while (receive(fd) !== undefined) counts[i]!++;
    }
  }
  assert.equal(counts[0]! + counts[1]!, 64);
  assert.ok(counts[0]! > 8 && counts[1]! > 8, `${counts}`);
});

Deno.test("datagrams of one flow are received as one where the kernel can", () => {
  using pair = openUdpPair({ address: LOOPBACK, port: 0 }), sender = openUdpPair({ address: LOOPBACK, port: 0 });
  assert.equal(getOption(pair.df, C.SOL_UDP, C.UDP_GRO, "UDP_GRO"), 1);
  const segment = Int32Array.of(1000);
  attempt(() => libc.setsockopt(sender.df.raw, C.SOL_UDP, C.UDP_SEGMENT, segment, 4));
  send(sender.df, new Uint8Array(5500), pair.local.port);
  assert.equal(receive(pair.df) ?? receive(pair.plain), pair.gro ? 5500 : 1000);
});

inOwnNamespace(import.meta.url, () => {
  Deno.test("queues are as large as asked for, past the machine's limit", () => {
    using large = openUdpPair({ address: LOOPBACK, port: 0, queueOctets: 20_000_000 });
    assert.ok(receiveQueueOctets(large.df) >= 20_000_000);
    assert.ok(receiveQueueOctets(large.plain) >= 20_000_000);
  });

  Deno.test("a DF socket refuses what is above the path MTU, a plain one lets it be cut", () => {
    shell("ip link add ho0 type veth peer ho1; ip link set ho0 mtu 1400 up; ip link set ho1 up");
    shell("ip address add 10.9.0.1/24 dev ho0; ip neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev ho0");
    using pair = openUdpPair({ address: 0, port: 0 });
    const large = new Uint8Array(1373), fits = new Uint8Array(1372);
    const to = { address: 0x0a09_0002, port: 9 };
    assert.equal(sendTo(pair.df, fits, to), 1372);
    assert.equal(sendTo(pair.df, large, to), -90); // EMSGSIZE
    assert.equal(sendTo(pair.plain, large, to), 1373);
    assert.equal(pathMtu(to.address, to.port), 1400);
    assert.equal(pathMtu(0xc000_0201, 9), undefined);
    shell("ip link del ho0");
  });
});

function send(fd: Fd, octets: Uint8Array<ArrayBuffer>, port: number): void {
  assert.equal(sendTo(fd, octets, { address: LOOPBACK, port }), octets.length);
}

function sendTo(fd: Fd, octets: Uint8Array<ArrayBuffer>, to: { address: number; port: number }): number {
  const name = encodeAddress(to);
  return attempt(() => libc.sendto(fd.raw, octets, BigInt(octets.length), 0, name, name.length));
}

/** Octets of what is next, or undefined. */
function receive(fd: Fd): number | undefined {
  const buffer = new Uint8Array(65536);
  const got = attempt(() => libc.recvfrom(fd.raw, buffer, 65536n, C.MSG_DONTWAIT, null, null));
  return got < 0 ? undefined : got;
}

function shell(script: string): void {
  const { success, stderr } = new Deno.Command("sh", { args: ["-ec", script] }).outputSync();
  assert.ok(success, new TextDecoder().decode(stderr));
}
