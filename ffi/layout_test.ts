import assert from "node:assert/strict";
import { run } from "../test/netns/command.ts";
import { isThere } from "../test/packages.ts";
import { testUnless } from "../test/skip.ts";
import { VIRTIO } from "../src/overlay/segment.ts";
import { NETLINK_NETFILTER } from "../src/wire/conntrack.ts";
import { HEADER, NLMSG } from "../src/wire/netlink.ts";
import {
  encodeDeleteLink,
  encodeNewAddress,
  encodeNewNeighbour,
  encodeNewRoute,
  NEIGHBOUR_STATE,
  NETLINK_ROUTE,
  RTM,
} from "../src/wire/rtnetlink.ts";
import type { Mac } from "../src/lib/mac.ts";
import { ERRNO } from "./errno.ts";
import { C, ifaddrmsg, ifinfomsg, type Machine, ndmsg, nlmsghdr, rtmsg, Struct, STRUCTS } from "./layout.ts";

const MACHINES: readonly Machine[] = ["x86_64", "aarch64"];

/** How to compile for a machine and run the result here, and the files that takes. */
function toolsFor(machine: Machine): { compiler: string; emulator: readonly string[]; needs: readonly string[] } {
  if (Deno.build.arch === machine) {
    return { compiler: "cc", emulator: [], needs: ["cc", "/usr/include/linux/if_tun.h"] };
  }
  const compiler = `${machine}-linux-gnu-gcc`, emulator = `qemu-${machine}-static`, root = `/usr/${machine}-linux-gnu`;
  const needs = [compiler, emulator, `${root}/include/linux/if_tun.h`, `${root}/lib/libc.so.6`];
  return { compiler, emulator: [emulator, "-L", root], needs };
}

for (const machine of MACHINES) {
  const { compiler, emulator, needs } = toolsFor(machine);
  const missing = needs.filter((one) => !isThere(one));
  const reason = missing.length === 0 ? undefined : `${missing.join(" and ")} not installed`;

  testUnless(reason, `layout.ts has what a compiler for ${machine} says`, async () => {
    const folder = await Deno.makeTempDir({ prefix: "weave-layout-" });
    try {
      const program = `${folder}/layout`;
      await run([compiler, "-Wall", "-Wextra", "-Werror", "-o", program, `${import.meta.dirname}/layout.c`]);
      const { stdout } = await run([...emulator, program]);
      const said = stdout.trim().split("\n");
      // What the headers do not know yet cannot be compared.
      const unknown = said.filter((line) => line.startsWith("unknown ")).map((line) => line.split(" ")[1]!);
      const expected = describe(machine).filter((line) => !unknown.includes(line.split(" ")[1]!));
      assert.deepEqual(said.filter((line) => !line.startsWith("unknown ")).sort(), expected.sort());
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

Deno.test("formats in src that lie on C structs agree with the table", () => {
  const { offset } = STRUCTS.virtio_net_hdr_v1;
  assert.deepEqual(VIRTIO, {
    octets: STRUCTS.virtio_net_hdr_v1.octets,
    flags: offset.flags,
    gsoType: offset.gso_type,
    headerLength: offset.hdr_len,
    gsoSize: offset.gso_size,
    checksumStart: offset.csum_start,
    checksumOffset: offset.csum_offset,
  });
  const header = nlmsghdr.offset;
  assert.deepEqual(HEADER, {
    octets: nlmsghdr.octets,
    length: header.nlmsg_len,
    type: header.nlmsg_type,
    flags: header.nlmsg_flags,
    sequence: header.nlmsg_seq,
    port: header.nlmsg_pid,
  });
  assert.deepEqual([NLMSG.error, NLMSG.done], [C.NLMSG_ERROR, C.NLMSG_DONE]);
  assert.deepEqual([RTM.newLink, RTM.deleteLink, NETLINK_ROUTE], [C.RTM_NEWLINK, C.RTM_DELLINK, C.NETLINK_ROUTE]);
  assert.equal(NETLINK_NETFILTER, C.NETLINK_NETFILTER);
  const body = nlmsghdr.octets;
  assert.equal(ifinfomsg.get(encodeDeleteLink(0x12345), "ifi_index", body), 0x12345);
  const cidr = { address: 0x0a000001, prefixLength: 24 };
  const address = encodeNewAddress({ link: 0x12345, cidr });
  assert.equal(ifaddrmsg.get(address, "ifa_family", body), C.AF_INET);
  assert.equal(ifaddrmsg.get(address, "ifa_prefixlen", body), 24);
  assert.equal(ifaddrmsg.get(address, "ifa_index", body), 0x12345);
  const route = encodeNewRoute({ destination: cidr, link: 7 });
  assert.equal(rtmsg.get(route, "rtm_family", body), C.AF_INET);
  assert.equal(rtmsg.get(route, "rtm_dst_len", body), 24);
  assert.equal(rtmsg.get(route, "rtm_table", body), 254); // RT_TABLE_MAIN
  assert.equal(rtmsg.get(route, "rtm_scope", body), 253); // RT_SCOPE_LINK
  assert.equal(rtmsg.get(route, "rtm_type", body), 1); // RTN_UNICAST
  const state = NEIGHBOUR_STATE.permanent;
  const neighbour = encodeNewNeighbour({ link: 0x12345, address: cidr.address, mac: 5 as Mac, state });
  assert.equal(ndmsg.get(neighbour, "ndm_family", body), C.AF_INET);
  assert.equal(ndmsg.get(neighbour, "ndm_ifindex", body), 0x12345);
  assert.equal(ndmsg.get(neighbour, "ndm_state", body), state);
});

Deno.test("Struct makes, sets and gets fields of every size, signed ones and high ones too", () => {
  const struct = new Struct(16, { one: [0, 1], two: [2, 2], four: [4, 4], eight: [8, 8] });
  const octets = struct.make({ one: 0xff, two: 0xfffe, four: -2, eight: 0x0102_0304_0506n });
  assert.equal(octets.toHex(), "ff00fefffeffffff0605040302010000");
  assert.deepEqual([struct.get(octets, "two"), struct.get(octets, "four")], [0xfffe, 0xffff_fffe]);
  assert.equal(struct.get(octets, "eight"), 0x0102_0304_0506);
  const two = new Uint8Array(32);
  two.set(octets, 16);
  assert.equal(struct.get(two, "one", 16), 0xff);
});

/** The lines that layout.c should print. */
function describe(machine: Machine): string[] {
  const lines: string[] = [];
  for (const [name, struct] of Object.entries(STRUCTS)) {
    const { octets, fields } = struct.describe(machine);
    lines.push(`struct ${name} ${octets}`);
    for (const [field, [offset, size]] of Object.entries(fields)) {
      lines.push(`field ${name}.${field} ${offset} ${size}`);
    }
  }
  for (const [name, value] of Object.entries(C)) lines.push(`constant ${name} ${value}`);
  for (const [name, [errno, text]] of Object.entries(ERRNO)) lines.push(`error ${name} ${errno} ${text}`);
  return lines;
}
