import assert from "node:assert/strict";
import { inOwnNamespace } from "../test/own_namespace.ts";
import { SysError } from "./errno.ts";
import { DescriptorTrace } from "./fd.ts";
import { PacketSocket } from "./packet_socket.ts";

const PROTOCOL = 0x88b5; // for experiments

inOwnNamespace(import.meta.url, () => {
  Deno.test("PacketSocket sends whole frames, and receives those of its protocol and link alone", async () => {
    using trace = new DescriptorTrace();
    shell("ip link add ho0 type veth peer ho1; ip link add ho2 type veth peer ho3");
    shell("for i in 0 1 2 3; do ip link set ho$i up; done");
    {
      using a = open("ho0"), b = open("ho1"), other = open("ho3");
      const frame = makeFrame(PROTOCOL, 60);
      a.send(frame);
      a.send(makeFrame(0x88b6, 60));
      const large = makeFrame(PROTOCOL, 1514);
      a.send(large);
      assert.deepEqual(await next(b), frame);
      assert.deepEqual(await next(b), large);
      assert.equal(b.receive(), undefined);
      assert.equal(other.receive(), undefined);
      assert.equal(a.receive(), undefined);
    }
    assert.deepEqual(trace.left(), []);
  });

  Deno.test("PacketSocket throws where a frame cannot leave, and bears a link that goes down", () => {
    using a = open("ho0");
    assert.throws(
      () => a.send(makeFrame(PROTOCOL, 4000)),
      (error) => error instanceof SysError && error.errnoName === "EMSGSIZE",
    );
    shell("ip link set ho0 down");
    assert.equal(a.receive(), undefined);
    assert.throws(
      () => a.send(makeFrame(PROTOCOL, 60)),
      (error) => error instanceof SysError && error.errnoName === "ENETDOWN",
    );
    shell("ip link del ho0; ip link del ho2");
    assert.throws(
      () => new PacketSocket({ link: 9999, protocol: PROTOCOL }),
      (error) => error instanceof SysError && error.errnoName === "ENODEV",
    );
  });
});

function open(name: string): PacketSocket {
  const link = Number(shell(`ip -o link show ${name}`).split(":")[0]);
  return new PacketSocket({ link, protocol: PROTOCOL });
}

function makeFrame(protocol: number, octets: number): Uint8Array {
  const frame = Uint8Array.from({ length: octets }, (_, i) => i);
  frame.fill(0xff, 0, 6);
  frame.set([2, 0, 0, 0, 0, 1, protocol >>> 8, protocol & 0xff], 6);
  return frame;
}

async function next(socket: PacketSocket): Promise<Uint8Array> {
  for (let i = 0; i < 200; i++) {
    const frame = socket.receive();
    if (frame !== undefined) return frame;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.fail("no frame within a second");
}

function shell(script: string): string {
  const { success, stdout, stderr } = new Deno.Command("sh", { args: ["-ec", script] }).outputSync();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}
