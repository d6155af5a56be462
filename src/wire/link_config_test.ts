import assert from "node:assert/strict";
import { captureAddress, captureRoute, encodeAddSetting, hasGateway } from "./link_config.ts";
import { AttributeWriter, decodeMessages, encodeMessage, type NetlinkMessage } from "./netlink.ts";
import { decodeAddress, decodeRoute, encodeNewAddress, encodeNewRoute, RTM } from "./rtnetlink.ts";

const CIDR = { address: 0xc0a8_0701, prefixLength: 24 };

Deno.test("an address is taken from one link to another with all that it has", () => {
  const address = { link: 3, cidr: CIDR, label: "eth1:x", noPrefixRoute: true } as const;
  const message = one(encodeNewAddress(address));
  assert.equal(captureAddress(message, 4), undefined);
  const setting = captureAddress(message, 3)!;
  const again = one(encodeAddSetting("address", setting, 9));
  assert.equal(again.type, RTM.newAddress);
  assert.deepEqual(decodeAddress(again), { ...address, link: 9 });
});

Deno.test("of IPv6 only addresses that somebody gave are taken along", () => {
  const inet6 = (flags: number, scope: number) => address({ family: 10, flags, scope });
  const permanent = 0x80, global = 0, link = 253;
  assert.notEqual(captureAddress(inet6(permanent, global), 3), undefined);
  assert.equal(captureAddress(inet6(permanent, link), 3), undefined);
  assert.equal(captureAddress(inet6(0, global), 3), undefined);
  // The octet has no room for later flags: an attribute that is there counts.
  const managed = new AttributeWriter().u32(8, 0x100).finish();
  assert.equal(
    captureAddress(address({ family: 10, flags: permanent, scope: global, attributes: managed }), 3),
    undefined,
  );
  assert.equal(captureAddress(address({ family: 28, flags: permanent, scope: global }), 3), undefined);
});

Deno.test("a route is taken along with its table and gateway, and without what the kernel alone says", () => {
  const route = {
    destination: CIDR,
    gateway: 0xc0a8_07fe,
    link: 3,
    metric: 7,
    table: 1000,
    source: CIDR.address,
    onLink: true,
  };
  const said = new Uint8Array(encodeNewRoute({ ...route, onLink: true }));
  said[16 + 8] = 4 | 16; // RTNH_F_ONLINK, and RTNH_F_LINKDOWN as of a link without carrier
  const message = one(said);
  assert.equal(captureRoute(message, 4), undefined);
  const setting = captureRoute(message, 3);
  assert.ok(setting !== undefined && setting !== "multipath");
  assert.equal(hasGateway(setting), true);
  const again = one(encodeAddSetting("route", setting, 9));
  assert.deepEqual(decodeRoute(again), { ...route, link: 9 });
  assert.equal(again.body[8], 4);
});

Deno.test("routes of the local table, those told to be left, and other kinds than unicast, are left", () => {
  const plain = { destination: CIDR, link: 3 };
  const captured = captureRoute(one(encodeNewRoute(plain)), 3);
  assert.ok(captured !== undefined && captured !== "multipath");
  assert.equal(hasGateway(captured), false);
  assert.equal(captureRoute(one(encodeNewRoute({ ...plain, table: 255 })), 3), undefined);
  const isLeft = (table: number) => table === 6_783_001;
  assert.equal(captureRoute(one(encodeNewRoute({ ...plain, table: 6_783_001 })), 3, isLeft), undefined);
  assert.ok(captureRoute(one(encodeNewRoute(plain)), 3, isLeft) !== undefined);
  assert.equal(captureRoute(one(encodeNewRoute({ ...plain, type: "local" })), 3), undefined);
});

Deno.test("a route by several links is known as one that cannot be taken along", () => {
  // struct rtnexthop: length, flags, weight, link; twice
  const hops = Uint8Array.of(8, 0, 0, 0, 3, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0);
  const message = route({ attributes: new AttributeWriter().bytes(9, hops).finish() });
  assert.equal(captureRoute(message, 3), "multipath");
  assert.equal(captureRoute(message, 4), "multipath");
  assert.equal(captureRoute(message, 5), undefined);
});

function one(octets: Uint8Array): NetlinkMessage {
  return decodeMessages(octets)[0]!;
}

function address(
  { family, flags, scope, attributes = new Uint8Array() }: {
    family: number;
    flags: number;
    scope: number;
    attributes?: Uint8Array;
  },
): NetlinkMessage {
  const head = Uint8Array.of(family, 64, flags, scope, 3, 0, 0, 0);
  return one(encodeMessage({ type: RTM.newAddress, flags: 0, body: Uint8Array.from([...head, ...attributes]) }));
}

function route({ attributes }: { attributes: Uint8Array }): NetlinkMessage {
  const head = Uint8Array.of(2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0);
  return one(encodeMessage({ type: RTM.newRoute, flags: 0, body: Uint8Array.from([...head, ...attributes]) }));
}
