import assert from "node:assert/strict";
import { SysError } from "../../ffi/errno.ts";
import type { Lack } from "../../ffi/probe.ts";
import { refuseLacks } from "./requirements.ts";

const TUN: Lack = {
  what: "/dev/net/tun",
  error: new SysError("open", 2, { path: "/dev/net/tun" }),
  cost: "the router cannot read or write frames",
  remedy: "modprobe tun",
  essential: true,
};
const RAW: Lack = {
  what: "CAP_NET_RAW",
  error: new SysError("socket", 1),
  cost: "addresses cannot be announced",
  remedy: "run as root",
  essential: false,
};

Deno.test("refuseLacks() names each thing that is missing, with call and errno", () => {
  const warned: string[] = [];
  const progress = { warn: (line: string) => void warned.push(line) };
  assert.throws(() => refuseLacks([TUN, RAW], ["iptables"], progress), (error) => {
    assert.deepEqual((error as Error).message.split("\n"), [
      'Cannot do without /dev/net/tun: open: ENOENT (No such file or directory), path "/dev/net/tun": the router cannot read or write frames; modprobe tun',
      'Cannot do without iptables: stat: ENOENT (No such file or directory), program "iptables": the packet filter cannot be set up; install the package iptables',
    ]);
    return true;
  });
  assert.deepEqual(warned, [
    "WARNING: Missing CAP_NET_RAW: socket: EPERM (Operation not permitted): addresses cannot be announced; run as root",
  ]);
});

Deno.test("refuseLacks() only warns of what the router can do without", () => {
  const warned: string[] = [];
  refuseLacks([RAW], [], { warn: (line) => void warned.push(line) });
  assert.equal(warned.length, 1);
});
