import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../lib/errors.ts";
import type { Cidr } from "../lib/ip.ts";
import type { Mac } from "../lib/mac.ts";
import { decodeMessages, type NetlinkMessage } from "./netlink.ts";
import {
  checkName,
  decodeAddress,
  decodeLink,
  decodeNeighbour,
  decodeRoute,
  decodeRule,
  encodeDeleteLink,
  encodeGetAddresses,
  encodeGetLink,
  encodeGetNeighbours,
  encodeGetRoutes,
  encodeGetRules,
  encodeNewAddress,
  encodeNewLink,
  encodeNewNeighbour,
  encodeNewRoute,
  encodeNewRule,
  encodeSetLink,
  encodeSetPort,
  RTM,
} from "./rtnetlink.ts";

Deno.test("encodeNewAddress() asks what `ip address add 10.2.3.4/24 broadcast + dev #5` asks", () => {
  assert.deepEqual([...encodeNewAddress({ link: 5, cidr: { address: 0x0a020304, prefixLength: 24 } })], [
    ...[48, 0, 0, 0, /* RTM_NEWADDR */ 20, 0, /* request, ack, exclusive, create */ 0x05, 0x06, 0, 0, 0, 0, 0, 0, 0, 0],
    ...[/* AF_INET */ 2, /* prefix */ 24, 0, /* scope universe */ 0, /* index */ 5, 0, 0, 0],
    ...[8, 0, /* IFA_LOCAL */ 2, 0, 10, 2, 3, 4],
    ...[8, 0, /* IFA_ADDRESS */ 1, 0, 10, 2, 3, 4],
    ...[8, 0, /* IFA_BROADCAST */ 4, 0, 10, 2, 3, 255],
  ]);
});

Deno.test("encodeSetPort() asks what `bridge link set dev #9 hairpin on isolated off` asks", () => {
  assert.deepEqual([...encodeSetPort(9, { hairpin: true, isolated: false })], [
    ...[52, 0, 0, 0, /* RTM_SETLINK */ 19, 0, /* request, ack */ 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ...[/* PF_BRIDGE */ 7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ...[20, 0, /* IFLA_PROTINFO, nested */ 12, 0x80],
    ...[5, 0, /* IFLA_BRPORT_MODE */ 4, 0, 1, 0, 0, 0],
    ...[5, 0, /* IFLA_BRPORT_ISOLATED */ 33, 0, 0, 0, 0, 0],
  ]);
});

Deno.test("encodeNewLink() puts the peer's own ifinfomsg and attributes inside a veth", () => {
  const octets = encodeNewLink({ name: "a", kind: { type: "veth", peer: { name: "b", netnsFd: 6 } } });
  assert.deepEqual([...octets.subarray(16)], [
    ...new Array(16).fill(0),
    ...[6, 0, /* IFLA_IFNAME */ 3, 0, 0x61, 0, 0, 0],
    ...[56, 0, /* IFLA_LINKINFO */ 18, 0x80],
    ...[9, 0, /* IFLA_INFO_KIND */ 1, 0, 0x76, 0x65, 0x74, 0x68, 0, 0, 0, 0],
    ...[40, 0, /* IFLA_INFO_DATA */ 2, 0x80],
    ...[36, 0, /* VETH_INFO_PEER */ 1, 0x80, ...new Array(16).fill(0)],
    ...[6, 0, 3, 0, 0x62, 0, 0, 0],
    ...[8, 0, /* IFLA_NET_NS_FD */ 28, 0, 6, 0, 0, 0],
  ]);
});

Deno.test("encodeNewRoute() gives the multicast route link scope in the main table", () => {
  const octets = encodeNewRoute({ destination: { address: 0xe0000000, prefixLength: 4 }, link: 3 });
  assert.deepEqual([...octets.subarray(16)], [
    ...[2, 4, 0, 0, /* main */ 254, /* boot */ 3, /* link */ 253, /* unicast */ 1, 0, 0, 0, 0],
    ...[8, 0, /* RTA_DST */ 1, 0, 224, 0, 0, 0],
    ...[8, 0, /* RTA_OIF */ 4, 0, 3, 0, 0, 0],
  ]);
});

Deno.test("decodeLink() returns what encodeNewLink() wrote", () => {
  fc.assert(fc.property(linkFields, (fields) => {
    const link = decodeLink(only(encodeNewLink({ ...fields, kind: { type: "bridge", stp: true } })));
    assert.deepEqual(link, {
      ...fields,
      running: false,
      kind: "bridge",
      bridge: { stp: true, multicastSnooping: false },
    });
  }));
});

Deno.test("decodeLink() reads a port's flags from a bridge notification", () => {
  const message = only(encodeSetPort(9, { hairpin: true, learning: false, flood: true, isolated: true }));
  assert.deepEqual(decodeLink(message).port, { hairpin: true, learning: false, flood: true, isolated: true });
});

Deno.test("decodeAddress() returns what encodeNewAddress() wrote", () => {
  fc.assert(fc.property(index, cidr, (link, cidr) => {
    assert.deepEqual(decodeAddress(only(encodeNewAddress({ link, cidr }))), { link, cidr });
  }));
});

Deno.test("decodeRoute() returns what encodeNewRoute() wrote", () => {
  const route = fc.record({
    destination: cidr,
    gateway: ipv4,
    link: index,
    metric: fc.integer({ min: 0, max: 2 ** 31 }),
    table: fc.oneof(fc.integer({ min: 1, max: 253 }), fc.integer({ min: 256, max: 2 ** 31 })),
    type: fc.constantFrom("local", "blackhole", "unreachable"),
    source: ipv4,
    onLink: fc.constant(true as const),
  }, {
    requiredKeys: ["destination"],
    noNullPrototype: true,
  });
  fc.assert(fc.property(route, (route) => {
    const expected = route.destination.prefixLength === 0
      ? { ...route, destination: { address: 0, prefixLength: 0 } }
      : route;
    assert.deepEqual(decodeRoute(only(encodeNewRoute(route))), expected);
  }));
});

Deno.test("decodeRule() returns what encodeNewRule() wrote", () => {
  const rule = fc.record({
    priority: fc.integer({ min: 1, max: 2 ** 31 }),
    table: fc.oneof(fc.integer({ min: 1, max: 2 ** 31 }), fc.constant("unreachable" as const)),
    inputInterface: fc.constantFrom("lo", "weave"),
    mark: fc.record({
      value: fc.integer({ min: 0, max: 0xffff_ffff }),
      mask: fc.integer({ min: 1, max: 0xffff_ffff }),
    }, { noNullPrototype: true }),
    ipProtocol: fc.integer({ min: 1, max: 255 }),
  }, { requiredKeys: ["priority", "table"], noNullPrototype: true });
  fc.assert(fc.property(rule, (rule) => {
    assert.deepEqual(decodeRule(only(encodeNewRule(rule))), rule);
  }));
});

Deno.test("decodeAddress() tells addresses of services by label and flag", () => {
  const address = { link: 5, cidr: { address: 0x0a020304, prefixLength: 24 }, label: "weave:svc", noPrefixRoute: true };
  assert.deepEqual(decodeAddress(only(encodeNewAddress({ ...address, noPrefixRoute: true }))), address);
});

Deno.test("decodeNeighbour() returns what encodeNewNeighbour() wrote", () => {
  const neighbour = fc.record({
    link: index,
    state: fc.integer({ min: 0, max: 0xffff }),
    flags: fc.integer({ min: 1, max: 0xff }),
    mac,
    address: ipv4,
  }, { requiredKeys: ["link", "state"], noNullPrototype: true });
  fc.assert(fc.property(neighbour, (neighbour) => {
    assert.deepEqual(decodeNeighbour(only(encodeNewNeighbour(neighbour))), neighbour);
  }));
});

Deno.test("decoders throw nothing but WireError on random and on mutated octets", () => {
  const requests = [
    encodeGetLink({ name: "weave" }),
    encodeSetLink({ index: 4, mtu: 1376, master: 3, up: true }),
    encodeNewLink({ name: "a", kind: { type: "veth", peer: { name: "b" } } }),
    encodeNewAddress({ link: 5, cidr: { address: 1, prefixLength: 8 } }),
    encodeNewRoute({ destination: { address: 0xe0000000, prefixLength: 4 }, link: 3 }),
    encodeNewNeighbour({ link: 3, state: 2, address: 9, mac: 5 as Mac }),
    encodeDeleteLink(3),
    encodeGetAddresses(),
    encodeGetRoutes(),
    encodeGetNeighbours("bridge"),
    encodeNewRule({ priority: 5, table: 6_783_001, inputInterface: "weave", mark: { value: 0, mask: 7 } }),
    encodeGetRules(),
  ].map((octets) => octets.subarray(16));
  const mutated = fc.tuple(
    fc.constantFrom(...requests),
    fc.array(fc.tuple(fc.nat(99), fc.nat(255)), { maxLength: 4 }),
    fc.nat(99),
  ).map(([octets, changes, length]) => {
    const copy = octets.slice(0, length);
    for (const [at, value] of changes) if (at < copy.length) copy[at] = value;
    return copy;
  });
  fc.assert(
    fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 120 })), (body) => {
      const message: NetlinkMessage = { type: RTM.newLink, flags: 0, sequence: 0, port: 0, body };
      for (const decode of [decodeLink, decodeAddress, decodeRoute, decodeNeighbour, decodeRule]) {
        try {
          decode(message);
        } catch (error) {
          assert.ok(error instanceof WireError, String(error));
        }
      }
    }),
    { numRuns: 500 },
  );
});

Deno.test("checkName() refuses what the kernel refuses", () => {
  for (const name of ["", "..", "a/b", "a b", "a:b", "sixteencharacter"]) {
    assert.throws(() => checkName(name), RangeError);
  }
  assert.equal(checkName("vethwepl4194304"), "vethwepl4194304");
});

const index = fc.integer({ min: 1, max: 0x7fffffff });
const ipv4 = fc.integer({ min: 0, max: 0xffffffff });
const mac = fc.integer({ min: 0, max: 2 ** 48 - 1 }).map((n) => n as Mac);
const cidr: fc.Arbitrary<Cidr> = fc.record({ address: ipv4, prefixLength: fc.integer({ min: 0, max: 32 }) }, {
  noNullPrototype: true,
});
const linkFields = fc.record({
  index,
  name: fc.string({ minLength: 1, maxLength: 15 }).filter((s) => /^[!-.0-9;-~]+$/.test(s) && s !== "." && s !== ".."),
  mtu: fc.integer({ min: 68, max: 65535 }),
  mac,
  up: fc.boolean(),
  master: index,
});

function only(octets: Uint8Array): NetlinkMessage {
  const messages = decodeMessages(octets);
  assert.equal(messages.length, 1);
  return messages[0]!;
}
