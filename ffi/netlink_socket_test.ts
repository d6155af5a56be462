import assert from "node:assert/strict";
import { inOwnNamespace } from "../test/own_namespace.ts";
import { SysError } from "./errno.ts";
import { DescriptorTrace } from "./fd.ts";
import { C, ifinfomsg, nlattr, nlmsghdr } from "./layout.ts";
import { NetlinkSocket } from "./netlink_socket.ts";

const RTM_GETLINK = 18, RTNLGRP_LINK = 1;

Deno.test("request() returns one answer without its acknowledgement", () => {
  using trace = new DescriptorTrace();
  {
    using netlink = new NetlinkSocket(C.NETLINK_ROUTE);
    const request = message(RTM_GETLINK, C.NLM_F_REQUEST, ifinfomsg.make({ ifi_index: 1 }));
    const before = request.slice();
    const answers = netlink.request(request);
    assert.deepEqual(request, before);
    assert.equal(answers.length, 1);
    assert.equal(nlmsghdr.get(answers[0]!, "nlmsg_type"), C.RTM_NEWLINK);
    assert.equal(ifinfomsg.get(answers[0]!, "ifi_index", nlmsghdr.octets), 1);
  }
  assert.deepEqual(trace.left(), []);
});

Deno.test("request() throws what the kernel says, in its own words where it has some", () => {
  using netlink = new NetlinkSocket(C.NETLINK_ROUTE);
  const fail = (request: Uint8Array): SysError => {
    try {
      netlink.request(request);
    } catch (error) {
      assert.ok(error instanceof SysError);
      return error;
    }
    assert.fail("the kernel did as told");
  };
  const missing = fail(message(RTM_GETLINK, C.NLM_F_REQUEST, ifinfomsg.make({ ifi_index: 0x7fff_ffff })));
  assert.deepEqual([missing.call, missing.errnoName], ["netlink", "ENODEV"]);
  const short = fail(message(RTM_GETLINK, C.NLM_F_REQUEST, new Uint8Array(4)));
  assert.equal(short.errnoName, "EINVAL");
  assert.match(short.message, /^netlink: EINVAL \(Invalid argument\), kernel ".+"$/);
  // A dump that fails says so in its end.
  const strict = fail(message(0xfff, C.NLM_F_REQUEST | C.NLM_F_DUMP, ifinfomsg.make()));
  assert.equal(strict.errnoName, "EOPNOTSUPP");
  // The socket is as good as before.
  assert.equal(netlink.request(message(RTM_GETLINK, C.NLM_F_REQUEST, ifinfomsg.make({ ifi_index: 1 }))).length, 1);
});

inOwnNamespace(import.meta.url, () => {
  Deno.test("request() returns a dump whole, in as many datagrams as it takes", () => {
    shell('for i in $(seq 200); do echo "link add name ho$i type bridge"; done | ip -batch -');
    using netlink = new NetlinkSocket(C.NETLINK_ROUTE);
    const answers = netlink.request(message(RTM_GETLINK, C.NLM_F_REQUEST | C.NLM_F_DUMP, ifinfomsg.make()));
    assert.ok(answers.length > 1);
    const types = answers.flatMap((octets) => messageTypes(octets));
    assert.equal(types.filter((type) => type === C.RTM_NEWLINK).length, 201);
    assert.ok(!types.includes(C.NLMSG_DONE));
  });

  Deno.test("answers() has the kernel wait for who reads, and can be left half-way", () => {
    using netlink = new NetlinkSocket(C.NETLINK_ROUTE);
    const dump = message(RTM_GETLINK, C.NLM_F_REQUEST | C.NLM_F_DUMP, ifinfomsg.make());
    const answers = netlink.answers(dump);
    const first = answers.next();
    assert.equal(first.done, false);
    // What is read later is made later: this one may be missing there.
    shell("ip link del ho200");
    const rest = [...answers];
    assert.ok(rest.length > 0);
    const count = [first.value!, ...rest].flatMap((octets) => messageTypes(octets)).length;
    assert.ok(count >= 200 && count <= 201, `${count}`);
    shell("ip link add name ho200 type bridge");
    {
      using left = new NetlinkSocket(C.NETLINK_ROUTE);
      for (const _ of left.answers(dump)) break;
    }
    assert.equal(netlink.request(dump).flatMap((octets) => messageTypes(octets)).length, 201);
  });

  Deno.test("receive() returns what a group was told, and nothing when there is nothing", () => {
    using netlink = new NetlinkSocket(C.NETLINK_ROUTE, [RTNLGRP_LINK]);
    assert.deepEqual(netlink.receive(), []);
    shell("ip link add hox type bridge; ip link del hox");
    const types = netlink.receive().flatMap((octets) => messageTypes(octets));
    assert.deepEqual([types[0], types.at(-1)], [C.RTM_NEWLINK, C.RTM_DELLINK]);
    assert.deepEqual(netlink.receive(), []);
  });

  Deno.test("receive() goes on after the kernel had no room", () => {
    using netlink = new NetlinkSocket(C.NETLINK_ROUTE, [RTNLGRP_LINK]);
    shell('for i in $(seq 400); do echo "link set ho1 mtu $((1000 + i))"; done | ip -batch -');
    let count = 0;
    for (let got = netlink.receive(); got.length > 0; got = netlink.receive()) count += got.length;
    assert.ok(count > 0 && count < 400, `${count}`);
    shell("ip link set ho1 mtu 1500");
    assert.equal(netlink.receive().length, 1);
  });

  Deno.test("request() does not take what a group was told for its answer", () => {
    using netlink = new NetlinkSocket(C.NETLINK_ROUTE, [RTNLGRP_LINK]);
    shell("ip link set ho1 mtu 1501");
    const request = message(RTM_GETLINK, C.NLM_F_REQUEST, ifinfomsg.make({ ifi_index: 1 }));
    const answers = netlink.request(request);
    assert.deepEqual(answers.map((octets) => ifinfomsg.get(octets, "ifi_index", nlmsghdr.octets)), [1]);
  });
});

function message(type: number, flags: number, body: Uint8Array): Uint8Array {
  const octets = new Uint8Array(nlmsghdr.octets + body.length);
  octets.set(nlmsghdr.make({ nlmsg_len: octets.length, nlmsg_type: type, nlmsg_flags: flags }));
  octets.set(body, nlmsghdr.octets);
  return octets;
}

function messageTypes(octets: Uint8Array): number[] {
  const types: number[] = [];
  for (let at = 0; at < octets.length; at += (nlmsghdr.get(octets, "nlmsg_len", at) + nlattr.octets - 1) & ~3) {
    types.push(nlmsghdr.get(octets, "nlmsg_type", at));
  }
  return types;
}

function shell(script: string): void {
  const { success, stderr } = new Deno.Command("bash", { args: ["-ec", script] }).outputSync();
  assert.ok(success, new TextDecoder().decode(stderr));
}
