import assert from "node:assert/strict";
import { OperationError } from "../lib/errors.ts";
import { findNetns, isOwnNetns, netnsId, OWN_NETNS, parseContainerReference, statNetns, vethNames } from "./netns.ts";

Deno.test("parseContainerReference() tells Docker's names from pid: and netns:", () => {
  assert.deepEqual(parseContainerReference("a1"), { kind: "docker", name: "a1" });
  assert.deepEqual(parseContainerReference("pid:12"), { kind: "pid", pid: 12 });
  assert.deepEqual(parseContainerReference("netns:/run/netns/x"), { kind: "netns", path: "/run/netns/x" });
  assert.deepEqual(parseContainerReference("netns:x"), { kind: "netns", path: `${Deno.cwd()}/x` });
  for (const text of ["", "pid:", "pid:0", "pid:-1", "pid:1x", "netns:", "../etc", "a b", "-f", "pid:99999999999"]) {
    assert.throws(() => parseContainerReference(text), OperationError, text);
  }
});

Deno.test("statNetns() knows a namespace from anything else", () => {
  const own = statNetns(OWN_NETNS)!;
  assert.equal(isOwnNetns(own), true);
  assert.equal(netnsId(own), `netns-${own.device}-${own.inode}`);
  for (const path of ["/etc/passwd", "/nowhere", "/etc/passwd/x", "/"]) assert.equal(statNetns(path), undefined, path);
});

Deno.test("vethNames() fit the kernel, and PIDs never meet inodes", () => {
  const pids = [1, 4194304].map((pid) => vethNames({ pid }).host);
  assert.deepEqual(pids, ["vethwepl1", "vethwepl4194304"]);
  const inodes = [1, 4026531833, 4026532000, 0xffffffff].map((inode) => vethNames({ path: "", device: 4, inode }).host);
  for (const name of inodes) assert.match(name, /^vethwepln\w{1,6}$/);
  assert.equal(new Set(inodes).size, inodes.length);
});

Deno.test("findNetns() finds a namespace that its path no longer leads to", () => {
  const own = statNetns(OWN_NETNS)!;
  assert.equal(findNetns(own.device, own.inode, OWN_NETNS)?.path, OWN_NETNS);
  assert.equal(findNetns(own.device, own.inode, "/gone")?.inode, own.inode);
  assert.equal(findNetns(own.device, 7, OWN_NETNS), undefined);
});
