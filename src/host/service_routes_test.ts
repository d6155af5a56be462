import assert from "node:assert/strict";
import { inOwnNamespace } from "../../test/own_namespace.ts";
import { formatCidr, parseCidr, parseIpv4 } from "../lib/ip.ts";
import type { ServicePlan } from "../service/plan.ts";
import type { Link, Route } from "../wire/rtnetlink.ts";
import { run } from "./command.ts";
import { Links } from "./links.ts";
import {
  applyRouting,
  keepServiceAddressesLast,
  NO_ROUTING,
  planRouting,
  presentRouting,
  sameRouting,
} from "./service_routes.ts";

const MESH = 1, SITE = 3;
const SUBNET = { subnet: parseCidr("10.32.0.7/12")!, address: parseIpv4("10.32.0.254")! };

Deno.test("planRouting() copies what leaves by a network's links, and makes the rest unreachable there", () => {
  const routing = planRouting(plan({ networks: [site("eth1")] }), {
    bridge: "weave",
    links: [link(2, "weave"), link(3, "eth0"), link(4, "eth1")],
    routes: [
      { destination: parseCidr("0.0.0.0/0")!, gateway: parseIpv4("192.168.1.254")!, link: 4, metric: 100 },
      { destination: parseCidr("192.168.1.0/24")!, link: 4, source: parseIpv4("192.168.1.1")! },
      { destination: parseCidr("192.168.1.0/24")!, link: 3, source: parseIpv4("192.168.1.1")! },
    ],
    forwardOnlyOurs: false,
  });
  const said = (id: number) => routing.routes.filter(({ table }) => table === 6_783_000 + id).map(describe);
  assert.deepEqual(said(SITE), [
    "192.168.1.0/24 dev 4",
    "0.0.0.0/0 dev 4 metric 100",
    "unreachable 0.0.0.0/0 metric 4294967295",
  ]);
  assert.deepEqual(said(MESH), ["10.32.0.0/12 dev 2", "unreachable 0.0.0.0/0 metric 4294967295"]);
});

Deno.test("planRouting() leaves addresses to the host that it reaches elsewhere, and passes over links that are not there", () => {
  const facts = {
    bridge: "weave",
    links: [link(2, "weave"), link(3, "eth0")],
    routes: [{ destination: parseCidr("10.32.0.0/24")!, link: 3 }, { destination: parseCidr("0.0.0.0/0")!, link: 3 }],
    forwardOnlyOurs: false,
  };
  const answered = ["10.32.0.9", "10.32.1.9"].map((text) => ({ network: MESH, address: parseIpv4(text)! }));
  const routing = planRouting(plan({ networks: [site("eth7")], answered, reached: [parseIpv4("10.32.2.9")!] }), facts);
  const local = routing.routes.filter(({ table }) => table === 6_783_198).map(describe);
  assert.deepEqual(local, ["10.32.1.9/32 dev 2", "10.32.2.9/32 dev 2"]);
  const { rules } = routing;
  assert.deepEqual(rules.filter(({ priority }) => priority === 6783).map(({ inputInterface }) => inputInterface), [
    "weave",
  ]);
});

inOwnNamespace(import.meta.url, () => {
  Deno.test("applyRouting() makes what is planned as the kernel tells it back, and takes it away", () => {
    using links = new Links();
    const { index } = links.create({ name: "weave", kind: { type: "bridge" } });
    links.change({ index, up: true }, "bring it up");
    const facts = (forwardOnlyOurs: boolean) => ({
      bridge: "weave",
      links: links.list(),
      routes: links.routes(),
      forwardOnlyOurs,
    });
    const answered = [{ network: MESH, address: parseIpv4("10.32.0.9")! }];
    for (
      const wanted of [
        planRouting(plan({ answered }), facts(true)),
        planRouting(plan({ answered: [...answered, { network: MESH, address: 0x0a200010 }] }), facts(false)),
        planRouting(plan({ subnets: [{ ...SUBNET, address: parseIpv4("10.32.0.253")! }] }), facts(false)),
        planRouting(plan({ networks: [site("weave")] }), facts(false)),
      ]
    ) {
      assert.equal(applyRouting(links, wanted), true);
      assert.equal(sameRouting(presentRouting(links), wanted), true);
      assert.equal(applyRouting(links, wanted), false);
    }
    assert.deepEqual(links.addresses(index), []);
    assert.deepEqual(links.routes(), []);
    assert.equal(applyRouting(links, NO_ROUTING), true);
    assert.deepEqual(presentRouting(links), NO_ROUTING);
    assert.deepEqual(links.rules().map(({ priority }) => priority), [0, 32766, 32767]);
    links.delete(index);
  });

  Deno.test("keepServiceAddressesLast() lets an address of the host have the route of its subnet", async () => {
    using links = new Links();
    const { index } = links.create({ name: "weave", kind: { type: "bridge" } });
    links.change({ index, up: true }, "bring it up");
    await run("/bin/sh", ["-c", "echo 1 > /proc/sys/net/ipv4/conf/weave/promote_secondaries"]);
    applyRouting(
      links,
      planRouting(plan({}), { bridge: "weave", links: links.list(), routes: [], forwardOnlyOurs: false }),
    );
    const host = parseCidr("10.32.0.1/12")!;
    links.addAddress(index, host);
    keepServiceAddressesLast(links, index);
    assert.deepEqual(links.routes().map(({ destination }) => formatCidr(destination)), ["10.32.0.0/12"]);
    assert.deepEqual(links.addresses(index), [host]);
    links.removeAddresses(index, [host]);
    assert.deepEqual(links.routes(), []);
    assert.equal(links.linkAddresses(index)[0]!.label, "weave:svc");
    applyRouting(links, NO_ROUTING);
    links.delete(index);
  });
});

function plan(parts: Partial<ServicePlan>): ServicePlan {
  return { networks: [], subnets: [SUBNET], answered: [], backends: [], listeners: [], ...parts };
}

function site(link: string) {
  return { id: SITE, name: "site", interfaces: [link], isolated: false };
}

function link(index: number, name: string): Link {
  return { index, name, mtu: 1500, up: true, running: true };
}

function describe({ destination, link, type, metric }: Route): string {
  const by = type === undefined ? ` dev ${link}` : "";
  return `${type === undefined ? "" : `${type} `}${formatCidr(destination)}${by}${
    metric === undefined ? "" : ` metric ${metric}`
  }`;
}
